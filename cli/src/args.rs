//! What can be typed. Nothing is done here.

mod serve;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::serve::{Locality, LogFormat, LogLevel, PolicyArgs, Serve, TaskNetwork, WebAccess};

/// A peer-to-peer compute network: run jobs where the data is.
#[derive(Debug, Parser)]
#[command(
    name = "bacnode",
    version,
    about,
    max_term_width = 100,
    after_help = "\
Examples:
  bacnode demo                                    watch a small network of real peers work
  bacnode serve                                   make this machine a peer
  bacnode submit job.yaml                         run a job, wait for its end
  bacnode job describe JOB                        read its story
  bacnode job get JOB -o results                  fetch what it produced

Exit codes: 0 done, 1 the job failed, 2 wrong usage or spec, 3 the node cannot be reached, 4 not found, 5 --wait-timeout passed"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The node to speak to: URL or HOST:PORT
    #[arg(
        long,
        global = true,
        env = "BACNODE_API",
        default_value = "127.0.0.1:1234",
        value_name = "ADDRESS",
        help_heading = "Global"
    )]
    pub(crate) api: String,
    /// How to print what is read
    #[arg(long, global = true, env = "BACNODE_OUTPUT", value_enum, default_value_t = Format::Table, help_heading = "Global")]
    pub(crate) output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Yaml,
    Csv,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make this machine a peer
    Serve(Box<Serve>),
    /// Run a job from a YAML or JSON file (`-` reads stdin)
    Submit(Submit),
    /// Run a WebAssembly module
    Wasm {
        #[command(subcommand)]
        command: Wasm,
    },
    /// Run a container
    Docker {
        #[command(subcommand)]
        command: Docker,
    },
    /// Look at jobs, fetch their results, stop them
    Job {
        #[command(subcommand)]
        command: Job,
    },
    /// Look at nodes
    Node {
        #[command(subcommand)]
        command: Node,
    },
    /// Who is connected
    Peers,
    /// Add and fetch content
    Content {
        #[command(subcommand)]
        command: Content,
    },
    /// Start a bootstrap peer and some nodes on this machine, run real jobs, kill a node
    Demo(Demo),
    /// Show the settings and where they come from
    Config {
        #[command(subcommand)]
        command: Config,
    },
    /// Show the version of this program and of the node
    Version,
}

/// How a submitted job is waited for.
#[derive(Debug, Clone, Args)]
pub(crate) struct Waiting {
    /// Return when the job is acknowledged
    #[arg(long, conflicts_with = "follow")]
    pub(crate) no_wait: bool,
    /// Wait for the end (the default)
    #[arg(long, conflicts_with = "no_wait")]
    pub(crate) wait: bool,
    /// Wait at most so many seconds, then exit with 5
    #[arg(long, value_name = "SECONDS")]
    pub(crate) wait_timeout: Option<u64>,
    /// Print what the program prints while it runs
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Print the job's id and nothing else
    #[arg(long)]
    pub(crate) id_only: bool,
    /// Put the result into this new or empty folder
    #[arg(long, value_name = "DIR")]
    pub(crate) download: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Submit {
    /// The job
    pub(crate) spec: PathBuf,
    /// A value for `{{.KEY}}` in the spec; may be repeated
    #[arg(short = 'V', long = "var", value_name = "KEY=VALUE")]
    pub(crate) vars: Vec<String>,
    /// Check and show the job, do not submit it
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Docker {
    /// Run a container image
    Run(DockerRun),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DockerRun {
    /// The image: `name:tag` or `name@sha256:…`
    pub(crate) image: String,
    /// What runs in it, with its arguments; what the image says without
    #[arg(trailing_var_arg = true)]
    pub(crate) args: Vec<String>,
    /// Run this instead of the image's entry point
    #[arg(long)]
    pub(crate) entrypoint: Option<String>,
    /// Where it runs
    #[arg(short, long, value_name = "PATH")]
    pub(crate) workdir: Option<String>,
    /// As whom it runs (somebody without rights by default)
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// How far it may reach: none, http, bridge or host
    #[arg(long, value_name = "TYPE", default_value = "none")]
    pub(crate) network: String,
    /// A domain that it may speak to (`.example.org` is all below it), with `--network http`; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) domain: Vec<String>,
    /// A port at which it answers, from any free one of the machine or from HOST, with `--network bridge` or `host`; may be
    /// repeated
    #[arg(long, value_name = "NAME=[HOST:]PORT")]
    pub(crate) port: Vec<String>,
    /// GPUs
    #[arg(long)]
    pub(crate) gpu: Option<String>,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Wasm {
    /// Run a module: a file here, or content by its CID
    Run(WasmRun),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct WasmRun {
    /// The module
    pub(crate) module: String,
    /// Its arguments
    #[arg(trailing_var_arg = true)]
    pub(crate) args: Vec<String>,
    /// The function to call
    #[arg(long, default_value = "_start")]
    pub(crate) entrypoint: String,
    /// A module that it imports, by its file's name; may be repeated
    #[arg(short = 'I', long, value_name = "FILE")]
    pub(crate) import: Vec<String>,
    /// A domain to which it may send web requests, if it is a component (`.example.org` is all below it); may be repeated
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) domain: Vec<String>,
    /// Seeded chance and a fixed clock: equal inputs give equal results
    #[arg(long)]
    pub(crate) deterministic: bool,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

/// What every task may be given.
#[derive(Debug, Clone, Args)]
pub(crate) struct TaskArgs {
    /// An input: FILE:PATH, FOLDER:PATH, ipfs://CID:PATH, https://…:FOLDER, s3://BUCKET/KEY,opt=endpoint=…:FOLDER
    /// or local:///HOST/PATH:PATH; may be repeated
    #[arg(short, long, value_name = "SOURCE:PATH")]
    pub(crate) input: Vec<String>,
    /// A folder to keep; may be repeated
    #[arg(long, value_name = "NAME:PATH")]
    pub(crate) result: Vec<String>,
    /// Where the result goes: ipfs, local, or s3://BUCKET/KEY,opt=endpoint=…,opt=encoding=plain
    #[arg(short, long, value_name = "PUBLISHER", default_value = "ipfs")]
    pub(crate) publisher: String,
    /// An environment variable; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<String>,
    /// The job's name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// How many times to run it
    #[arg(long, default_value_t = 1)]
    pub(crate) count: i64,
    /// Cores
    #[arg(long)]
    pub(crate) cpu: Option<String>,
    /// Memory
    #[arg(long)]
    pub(crate) memory: Option<String>,
    /// Disk for what it leaves
    #[arg(long)]
    pub(crate) disk: Option<String>,
    /// Seconds that one run may take
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<i64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Job {
    /// List jobs, the latest first
    List {
        /// At most so many
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// The oldest first
        #[arg(long)]
        reverse: bool,
        /// Only those with these labels, like `team=data,tier!=test`
        #[arg(long, value_name = "SELECTOR")]
        labels: Option<String>,
    },
    /// Tell a job's story
    Describe {
        /// Id, the start of one, or name
        job: String,
    },
    /// List a job's attempts
    Executions {
        /// Id, the start of one, or name
        job: String,
    },
    /// List everything that happened to a job
    History {
        /// Id, the start of one, or name
        job: String,
    },
    /// Print what a job's program printed
    Logs {
        /// Id, the start of one, or name
        job: String,
        /// Until it ends
        #[arg(long, short)]
        follow: bool,
        /// Of this attempt
        #[arg(long)]
        execution: Option<String>,
    },
    /// Fetch a job's results
    Get {
        /// Id, the start of one, or name
        job: String,
        /// A new or empty folder
        #[arg(long = "to", short = 'o', value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Into a folder that is not empty, too
        #[arg(long)]
        force: bool,
    },
    /// Stop a job
    Stop {
        /// Id, the start of one, or name
        job: String,
        /// Why, for its story
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let a result out that waits here since it was made of private data; list those that wait without an id
    Release {
        /// Id of an attempt or of its job, or the start of one
        id: Option<String>,
        /// Keep it back for good: the job fails
        #[arg(long, requires = "id")]
        refuse: bool,
    },
    /// Check a spec without submitting it
    Validate {
        /// The job
        spec: PathBuf,
        /// A value for `{{.KEY}}` in the spec; may be repeated
        #[arg(short = 'V', long = "var", value_name = "KEY=VALUE")]
        vars: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// List the nodes that this one knows
    List,
    /// Show one node
    Describe {
        /// Id, the start of one, or name; this node without
        node: Option<String>,
    },
    /// Show what jobs have used at this node, by submitter
    Usage,
    /// Show who this node is and where others can reach it
    Id,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Content {
    /// Add a file or folder
    Add {
        /// What to add
        path: PathBuf,
        /// It does not leave this node: nobody can fetch it, and only jobs of this node's user and of peers named with
        /// `serve --data-peer` can read it
        #[arg(long)]
        private: bool,
    },
    /// Fetch content by its CID
    Get {
        /// The content
        cid: String,
        /// A new file, or a new or empty folder; a file goes to stdout without
        #[arg(long = "to", short = 'o', value_name = "PATH")]
        to: Option<PathBuf>,
        /// Over what is there, too
        #[arg(long)]
        force: bool,
    },
    /// List what this node keeps, or the entries of a folder
    Ls {
        /// The folder
        cid: Option<String>,
        /// How much is kept, and what for
        #[arg(long, conflicts_with = "cid")]
        usage: bool,
    },
    /// Fetch content and keep it here
    Pin {
        /// The content
        cid: String,
    },
    /// Let go of content that was added or pinned here
    Unpin {
        /// The content
        cid: String,
    },
    /// Free what nothing needs: what is not pinned, and copies of inputs
    Gc,
    /// Show who has content
    Providers {
        /// The content
        cid: String,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Demo {
    /// Nodes beside the bootstrap peer
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(3..=16))]
    pub(crate) nodes: u8,
    /// Leave the network up and print commands to play with
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print each setting of `serve`, its value and where it comes from
    Show(Box<Serve>),
}
