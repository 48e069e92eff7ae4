//! What `serve` is told: the node's own settings, and the operator's rules for jobs.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::links::LinkArgs;

#[derive(Debug, Clone, Args)]
pub(crate) struct Serve {
    /// Where everything lies
    #[arg(long, env = "BACNODE_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where the API listens; elsewhere than on loopback it takes a certificate and tokens
    #[arg(long = "api-listen", env = "BACNODE_API_LISTEN", value_name = "ADDRESS:PORT")]
    pub(crate) api_listen: Option<SocketAddr>,
    /// The certificate of the API, with its chain, as PEM: it listens over TLS then
    #[arg(long, env = "BACNODE_API_CERT", value_name = "FILE", requires = "api_key")]
    pub(crate) api_cert: Option<PathBuf>,
    /// The certificate's key, as PEM
    #[arg(long, env = "BACNODE_API_KEY", value_name = "FILE", requires = "api_cert")]
    pub(crate) api_key: Option<PathBuf>,
    /// Ask for a token on loopback, too
    #[arg(long, env = "BACNODE_API_NEEDS_TOKEN", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) api_needs_token: bool,
    /// Where peers connect (multiaddr); may be repeated
    #[arg(long, env = "BACNODE_LISTEN", value_name = "MULTIADDR", value_delimiter = ',')]
    pub(crate) listen: Vec<String>,
    /// A peer to join through, as a multiaddr or HOST:PORT; may be repeated, one is enough
    #[arg(long, env = "BACNODE_BOOTSTRAP", value_name = "ADDRESS", value_delimiter = ',')]
    pub(crate) bootstrap: Vec<String>,
    /// Look for peers on the local network (never with a swarm key)
    #[arg(long, env = "BACNODE_MDNS", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) mdns: bool,
    /// The network: a name, or a network file
    #[arg(long, env = "BACNODE_NETWORK", value_name = "NAME|FILE")]
    pub(crate) network: Option<String>,
    /// Join with an invite (`bacnode swarm invite` prints one); the data folder remembers it
    #[arg(long, env = "BACNODE_JOIN", value_name = "INVITE", hide_env_values = true, conflicts_with_all = ["network", "bootstrap", "swarm_key", "founder"])]
    pub(crate) join: Option<String>,
    /// A swarm key (IPFS format): only its holders get in
    #[arg(long, env = "BACNODE_SWARM_KEY", value_name = "FILE")]
    pub(crate) swarm_key: Option<PathBuf>,
    /// Let in only who has a certificate of this peer's, the swarm's founder; `self` makes this node the founder
    #[arg(long, env = "BACNODE_FOUNDER", value_name = "PEER|self")]
    pub(crate) founder: Option<String>,
    /// A label for people
    #[arg(long, env = "BACNODE_NAME", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// A label for jobs; may be repeated
    #[arg(long, env = "BACNODE_LABEL", value_name = "KEY=VALUE", value_delimiter = ',')]
    pub(crate) label: Vec<String>,
    /// A local path that jobs may read, or write with `:rw`, under its own name or another; may be repeated
    #[arg(long, env = "BACNODE_ALLOW_LOCAL", value_name = "[NAME=]PATH[:rw]", value_delimiter = ',')]
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
    #[command(flatten)]
    pub(crate) links: LinkArgs,
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
    /// Ports of this machine for containers that do not say which (with `--task-network bridge` or `host`)
    #[arg(long, env = "BACNODE_PORTS", value_name = "FROM-TO")]
    pub(crate) ports: Option<String>,
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
    /// Remember so many jobs that have ended (100000 by default)
    #[arg(long, env = "BACNODE_KEEP_JOBS", value_name = "N")]
    pub(crate) keep_jobs: Option<usize>,
    /// Remember jobs that have ended for so many days (90 by default)
    #[arg(long, env = "BACNODE_KEEP_JOBS_FOR", value_name = "DAYS")]
    pub(crate) keep_jobs_for: Option<f64>,
    /// Seconds of silence after which the two nodes that keep this one's jobs lead them on (15 by default)
    #[arg(long, env = "BACNODE_OWNERSHIP_LEASE", value_name = "SECONDS")]
    pub(crate) ownership_lease: Option<f64>,
    /// Keep no jobs for other nodes
    #[arg(long, env = "BACNODE_NO_GUARD", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) no_guard: bool,
    /// Take no services and daemons, which run until somebody stops them
    #[arg(long, env = "BACNODE_NO_ENDLESS", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) no_endless: bool,
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
