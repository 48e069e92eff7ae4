//! What can be typed. Nothing is done here.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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

#[derive(Debug, Clone, Args)]
pub(crate) struct Serve {
    /// Where everything lies
    #[arg(long, env = "BACNODE_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where the API listens; loopback only
    #[arg(long = "api-listen", env = "BACNODE_API_LISTEN", value_name = "ADDRESS:PORT")]
    pub(crate) api_listen: Option<SocketAddr>,
    /// Where peers connect (multiaddr); may be repeated
    #[arg(long, env = "BACNODE_LISTEN", value_name = "MULTIADDR", value_delimiter = ',')]
    pub(crate) listen: Vec<String>,
    /// A peer to join through (multiaddr); may be repeated, one is enough
    #[arg(long, env = "BACNODE_BOOTSTRAP", value_name = "MULTIADDR", value_delimiter = ',')]
    pub(crate) bootstrap: Vec<String>,
    /// The network: a name, or a network file
    #[arg(long, env = "BACNODE_NETWORK", value_name = "NAME|FILE")]
    pub(crate) network: Option<String>,
    /// A swarm key (IPFS format): only its holders get in
    #[arg(long, env = "BACNODE_SWARM_KEY", value_name = "FILE")]
    pub(crate) swarm_key: Option<PathBuf>,
    /// A label for people
    #[arg(long, env = "BACNODE_NAME", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// A label for jobs; may be repeated
    #[arg(long, env = "BACNODE_LABEL", value_name = "KEY=VALUE", value_delimiter = ',')]
    pub(crate) label: Vec<String>,
    /// A local path that jobs may read, or write with `:rw`; may be repeated
    #[arg(long, env = "BACNODE_ALLOW_LOCAL", value_name = "PATH[:rw]", value_delimiter = ',')]
    pub(crate) allow_local: Vec<String>,
    /// Run no jobs here, only submit them
    #[arg(long, env = "BACNODE_NO_COMPUTE", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) no_compute: bool,
    /// Run no containers here, even if there is a Docker daemon
    #[arg(long, env = "BACNODE_NO_DOCKER", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) no_docker: bool,
    /// Cores that jobs may use in all (80 % by default)
    #[arg(long, env = "BACNODE_CPU", value_name = "N")]
    pub(crate) cpu: Option<String>,
    /// Memory that jobs may use in all (80 % by default)
    #[arg(long, env = "BACNODE_MEMORY", value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Disk for content (20 % of what is free by default)
    #[arg(long, env = "BACNODE_DISK", value_name = "SIZE")]
    pub(crate) disk: Option<String>,
    /// Write who and where this node is when it takes jobs
    #[arg(long, env = "BACNODE_READY_FILE", value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// What is logged
    #[arg(long, env = "BACNODE_LOG_LEVEL", value_enum)]
    pub(crate) log_level: Option<LogLevel>,
    /// How it is logged
    #[arg(long, env = "BACNODE_LOG_FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormat>,
    /// End when stdin does: for whoever starts nodes as children
    #[arg(long, hide = true)]
    pub(crate) until_eof: bool,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
}

/// The operator's rules.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Rules for jobs")]
pub(crate) struct PolicyArgs {
    /// Run only images like this (`*` stands for any text); may be repeated
    #[arg(long, env = "BACNODE_IMAGE", value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) image: Vec<String>,
    /// Take jobs from this peer only; may be repeated
    #[arg(long, env = "BACNODE_PEER", value_name = "PEER", value_delimiter = ',')]
    pub(crate) peer: Vec<String>,
    /// Take no jobs from this peer; may be repeated
    #[arg(long, env = "BACNODE_REFUSE_PEER", value_name = "PEER", value_delimiter = ',')]
    pub(crate) refuse_peer: Vec<String>,
    /// How far containers may reach, if they ask for it
    #[arg(long, env = "BACNODE_TASK_NETWORK", value_enum)]
    pub(crate) task_network: Option<TaskNetwork>,
    /// From where inputs may be fetched by URL (public by default)
    #[arg(long, env = "BACNODE_WEB", value_enum)]
    pub(crate) web: Option<WebAccess>,
    /// Lend jobs this node's S3 credentials (AWS_ACCESS_KEY_ID …) for BUCKET[/PREFIX], to write results with :rw; may be
    /// repeated
    #[arg(long, env = "BACNODE_S3", value_name = "BUCKET[/PREFIX][:rw]", value_delimiter = ',')]
    pub(crate) s3: Vec<String>,
    /// Environment variables of this node that jobs may ask for as `env:NAME`; may be repeated
    #[arg(long, env = "BACNODE_PASS_ENV", value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) pass_env: Vec<String>,
    /// Let containers run as root if they ask for it
    #[arg(long, env = "BACNODE_ALLOW_ROOT", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) allow_root: bool,
    /// Take jobs from anywhere, or only those whose input lies here
    #[arg(long, env = "BACNODE_LOCALITY", value_enum)]
    pub(crate) locality: Option<Locality>,
    /// Ask this command about each job: JSON on its stdin, yes if it ends with 0, why not on its stderr
    #[arg(long, env = "BACNODE_PROBE", value_name = "COMMAND", conflicts_with = "probe_url")]
    pub(crate) probe: Option<String>,
    /// Ask this server about each job: JSON is posted, 400 or more is a no
    #[arg(long, env = "BACNODE_PROBE_URL", value_name = "URL")]
    pub(crate) probe_url: Option<String>,
    /// Let jobs of this peer read private content (`content add --private`), and only named peers' read local folders; may
    /// be repeated
    #[arg(long, env = "BACNODE_DATA_PEER", value_name = "PEER", value_delimiter = ',')]
    pub(crate) data_peer: Vec<String>,
    /// Keep results made of private content or local folders until `job release`
    #[arg(long, env = "BACNODE_WITHHOLD", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) withhold: bool,
    /// Serve results by links here, for jobs that ask for it (`-p local`)
    #[arg(long, env = "BACNODE_PUBLISH_LISTEN", value_name = "ADDRESS:PORT")]
    pub(crate) publish_listen: Option<SocketAddr>,
    /// Take jobs at these hours only, by this machine's clock; may be repeated
    #[arg(long, env = "BACNODE_HOURS", value_name = "FROM-TO", value_delimiter = ',')]
    pub(crate) hours: Vec<String>,
    /// Take jobs only while the machine's load, without its jobs, is below this
    #[arg(long, env = "BACNODE_MAX_LOAD", value_name = "LOAD")]
    pub(crate) max_load: Option<f64>,
    /// The most that one task may ask for, like `cpu=2,memory=4GiB,disk=10GiB,gpu=1`
    #[arg(long, env = "BACNODE_MAX_TASK", value_name = "RESOURCES")]
    pub(crate) max_task: Option<String>,
    /// Runs of one peer's that may wait or go on here (256 by default)
    #[arg(long, env = "BACNODE_MAX_PER_PEER", value_name = "N")]
    pub(crate) max_per_peer: Option<usize>,
    /// Runs that may wait here in all (256 by default)
    #[arg(long, env = "BACNODE_MAX_QUEUE", value_name = "N")]
    pub(crate) max_queue: Option<usize>,
    /// Let go of results of ended jobs after so many days (when room is needed, by default)
    #[arg(long, env = "BACNODE_KEEP_RESULTS", value_name = "DAYS")]
    pub(crate) keep_results: Option<f64>,
    /// Take only jobs that have inputs
    #[arg(long, env = "BACNODE_REQUIRE_INPUTS", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) require_inputs: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TaskNetwork {
    /// Nowhere
    None,
    /// To the web servers that a job names, through a proxy (needs root)
    Http,
    /// Where Docker's bridge reaches
    Bridge,
    /// Wherever this machine reaches
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WebAccess {
    /// From nowhere
    None,
    /// From public addresses
    Public,
    /// From this machine's own networks, too
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Locality {
    /// Any job
    Anywhere,
    /// Jobs whose input lies here
    Local,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
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
