//! How jobs are handed in: from a file, or by what is typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
    /// At the end, show each attempt with the node that ran it
    #[arg(long)]
    pub(crate) node_details: bool,
    /// Tell the story at the end, attempt by attempt, instead of as it unfolds
    #[arg(long)]
    pub(crate) group_events: bool,
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
    /// Variables of the environment that the spec may name as `{{.KEY}}`, too: a regular expression
    #[arg(short = 'E', long = "env-vars", value_name = "PATTERN")]
    pub(crate) env_vars: Option<String>,
    /// Take `{{` in the spec as it is
    #[arg(long, conflicts_with_all = ["vars", "env_vars"])]
    pub(crate) no_template: bool,
    /// Check and show the job, and what it would change of the one of its name; do not submit it
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Start a service or daemon anew, even if nothing has changed
    #[arg(long)]
    pub(crate) force: bool,
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
    /// What groups it with other jobs
    #[arg(long, default_value = "default")]
    pub(crate) namespace: String,
    /// What kind of job it is: batch, service, ops (once on every node that matches) or daemon (kept running on each)
    #[arg(long = "type", value_name = "TYPE", default_value = "batch")]
    pub(crate) kind: String,
    /// A label of the job; may be repeated
    #[arg(short, long = "label", visible_alias = "labels", value_name = "KEY=VALUE", value_delimiter = ',')]
    pub(crate) labels: Vec<String>,
    /// What nodes' labels must say, like `zone=eu,disk in (ssd, nvme)`; may be repeated
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) constraints: Vec<String>,
    /// More of it goes first
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) priority: i64,
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
    /// Seconds that it may wait for a place (600 by default)
    #[arg(long, value_name = "SECONDS")]
    pub(crate) queue_timeout: Option<i64>,
    /// At most one run of a slot at a time, whatever happens
    #[arg(long)]
    pub(crate) exclusive: bool,
    /// Whether two other nodes keep the job, so that it does not end with its own (the default where they are there)
    #[arg(long, value_name = "quorum|local")]
    pub(crate) durability: Option<String>,
    /// Nodes that shall hold a result before the job is said to be done, 1 to 3
    #[arg(long, value_name = "COUNT")]
    pub(crate) replicas: Option<i64>,
}
