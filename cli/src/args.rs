//! What can be typed. Nothing is done here.

mod links;
mod serve;
mod task;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::links::LinkArgs;
pub(crate) use self::serve::{Locality, LogFormat, LogLevel, PolicyArgs, Serve, TaskNetwork, WebAccess};
pub(crate) use self::task::{Docker, DockerRun, Submit, TaskArgs, Waiting, Wasm, WasmRun};

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
  bacnode docker run --type ops debian:12 -- df   run on every node that matches
  bacnode doctor                                  find out what is wrong here

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
    /// The node to speak to: URL, HOST:PORT, or `unix:` and the path of its socket; after commas, others that are asked when it
    /// is gone
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
    /// Who is connected; who is blocked
    Peers {
        #[command(subcommand)]
        command: Option<Peers>,
    },
    /// Make a private swarm, invite others into a network
    Swarm {
        #[command(subcommand)]
        command: Swarm,
    },
    /// Add and fetch content
    Content {
        #[command(subcommand)]
        command: Content,
    },
    /// Watch who is there, what runs and what happens, in the terminal
    Top,
    /// Start a bootstrap peer and some nodes on this machine, run real jobs, kill a node
    Demo(Demo),
    /// Show the settings and where they come from
    Config {
        #[command(subcommand)]
        command: Config,
    },
    /// Look for what is wrong with this machine, its settings and its node
    Doctor(Box<Serve>),
    /// Say who may use this node's API from elsewhere
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Copy a data folder, key and all, into a file; the node must be down
    Backup {
        /// The data folder
        #[arg(long, env = "BACNODE_DATA_DIR", value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// A new file (`.tar.gz`)
        file: PathBuf,
    },
    /// Make a data folder of such a file
    Restore {
        /// A new or empty folder
        #[arg(long, env = "BACNODE_DATA_DIR", value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// The file
        file: PathBuf,
    },
    /// Print what makes a shell complete commands: `source <(bacnode completions bash)`
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Show the version of this program and of the node
    Version,
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
        /// Only those of this namespace
        #[arg(long)]
        namespace: Option<String>,
        /// By when they were submitted, or changed
        #[arg(long, value_name = "ORDER", default_value = "created_at", value_parser = ["created_at", "modified_at"])]
        order_by: String,
        /// The page that starts here, as the one before said
        #[arg(long, value_name = "TOKEN", default_value = "")]
        next_token: String,
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
        /// Those of former versions, too
        #[arg(long)]
        all_versions: bool,
    },
    /// List everything that happened to a job
    History {
        /// Id, the start of one, or name
        job: String,
        /// Only what happened to the job itself, or to its attempts
        #[arg(long, default_value = "all", value_parser = ["all", "job", "execution"])]
        event_type: String,
        /// Only what happened to this attempt
        #[arg(long, value_name = "ID", default_value = "")]
        execution: String,
    },
    /// List the versions of a service or daemon, or the runs of that name of other jobs
    Versions {
        /// Id, the start of one, or name
        job: String,
    },
    /// Run a job once more; start a service or daemon anew
    Rerun {
        /// Id, the start of one, or name
        job: String,
        /// As it was in this version
        #[arg(long, value_name = "N", default_value_t = 0)]
        version: u32,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Print what a job's program printed
    Logs {
        /// Id, the start of one, or name
        job: String,
        /// Until it ends
        #[arg(long, short)]
        follow: bool,
        /// Only so many of the last lines that were printed, and what comes after them
        #[arg(long, value_name = "LINES")]
        tail: Option<u64>,
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
    /// List whose jobs this node keeps, or lead some on whose other keepers are gone for good
    Adopt {
        /// PeerID of their owner, or the id of one of them
        id: Option<String>,
        /// Nobody else is there to agree: what only they knew is lost, and should they come back, both may decide
        #[arg(long, requires = "id")]
        force: bool,
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
    List {
        /// Only those with these labels, like `zone=eu,disk!=hdd`
        #[arg(long, value_name = "SELECTOR", default_value = "")]
        labels: String,
        /// Only those that are connected, or not
        #[arg(long, default_value = "", hide_default_value = true, value_parser = ["", "connected", "disconnected"])]
        status: String,
        /// By name, id, type, what is free, or status
        #[arg(long, value_name = "ORDER", default_value = "name")]
        order_by: String,
    },
    /// Show one node
    Describe {
        /// Id, the start of one, or name; this node without
        node: Option<String>,
    },
    /// Empty this node: it takes nothing new, ends what has an end, gives back what has none
    Drain {
        /// Take jobs again
        #[arg(long)]
        undo: bool,
    },
    /// Show what jobs have used at this node, by submitter
    Usage,
    /// Show who this node is and where others can reach it
    Id,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Swarm {
    /// Make a key: only its holders get into a network that is served with it
    Keygen {
        /// A new file
        #[arg(default_value = "swarm.key")]
        file: PathBuf,
    },
    /// Print one line with which another machine joins this node's network: `bacnode serve --join LINE`
    Invite {
        /// It is taken for so many days
        #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=3650))]
        days: u64,
        /// In a swarm with a founder: whoever comes with it is a member for so many days
        #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3650))]
        member_days: u64,
        /// In a swarm with a founder: it lets one node in, the first
        #[arg(long)]
        once: bool,
        /// A peer to join through, as a multiaddr or HOST:PORT; this node without; may be repeated
        #[arg(long, value_name = "ADDRESS")]
        address: Vec<String>,
        /// The data folder
        #[arg(long, env = "BACNODE_DATA_DIR", value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// The swarm's key, where the data folder's settings do not name it
        #[arg(long, env = "BACNODE_SWARM_KEY", value_name = "FILE")]
        swarm_key: Option<PathBuf>,
    },
    /// Whom this node has let in, as the swarm's founder
    Members,
    /// Put a member out, as the swarm's founder: nobody speaks to it any more
    Revoke {
        /// Its id, the start of one, or its name
        member: String,
    },
    /// Show the network's name, its key's fingerprint and where this node is reached
    Info {
        /// The data folder
        #[arg(long, env = "BACNODE_DATA_DIR", value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// The swarm's key, where the data folder's settings do not name it
        #[arg(long, env = "BACNODE_SWARM_KEY", value_name = "FILE")]
        swarm_key: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Peers {
    /// Have nothing to do with a peer any more
    Block {
        /// Its id, the start of one, or its name
        peer: String,
        /// Why, for whoever asks later
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Take it back
    Unblock {
        /// Its id, or the start of one
        peer: String,
    },
    /// Those with which this node has nothing to do, and why: some are blocked for an hour for what they sent
    Blocked,
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
    #[command(visible_alias = "list")]
    Show(Box<Serve>),
    /// Write a setting into `config.toml`, where it holds unless a flag or the environment says otherwise
    Set {
        /// The data folder
        #[arg(long, env = "BACNODE_DATA_DIR", value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Its name, as `config show` prints it
        name: String,
        /// Its value; several where there may be several
        #[arg(required = true)]
        value: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, and print it this once
    Create {
        /// The data folder
        #[arg(long, env = "BACNODE_DATA_DIR", value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// For whom, or what
        name: String,
        /// What it may do: read:job, write:job, read:node, write:node, read:content, write:content, or * for all of it; may be
        /// repeated
        #[arg(long, value_name = "SCOPE", default_values_t = ["read:job".to_owned(), "write:job".to_owned(), "read:content".to_owned(), "write:content".to_owned()])]
        scope: Vec<String>,
    },
    /// List tokens by name
    List {
        /// The data folder
        #[arg(long, env = "BACNODE_DATA_DIR", value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Take a token back
    Revoke {
        /// The data folder
        #[arg(long, env = "BACNODE_DATA_DIR", value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Its name
        name: String,
    },
}
