//! `bacnode-bootstrap`: a peer that others join through. It keeps the DHT and the gossip going and never runs a job.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bacnode_bootstrap::network::{self, Limits, NetworkFile};
use bacnode_node::Node;
use bacnode_node::config::{Config, Founded, RelayLimits, Role};
use bacnode_node::identity::{self, Identity};
use bacnode_protocol::id::NodeId;
use clap::{Parser, Subcommand};

/// A peer through which others join a bacnode network. It never runs jobs.
#[derive(Debug, Parser)]
#[command(name = "bacnode-bootstrap", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a network
    Serve(Serve),
    /// Print a network file, with which others join: `bacnode serve --network FILE`
    InitNetwork(InitNetwork),
    /// Print who a peer with this data folder is
    Id {
        /// Where its key lies; it is made if there is none
        #[arg(long, env = "BACNODE_DATA_DIR", value_name = "DIR")]
        data_dir: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct InitNetwork {
    /// Letters, digits and dashes
    name: String,
    /// A bootstrap peer, as a multiaddr or HOST:PORT; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    address: Vec<String>,
    /// The swarm key that it takes; its fingerprint goes into the file, the key does not
    #[arg(long, value_name = "FILE")]
    swarm_key: Option<PathBuf>,
    /// The peer that lets members in, if the key is not enough
    #[arg(long, value_name = "PEER", requires = "swarm_key")]
    founder: Option<String>,
    /// Strangers hand in jobs: nodes run modules only, reach out nowhere and give a quarter of their machine
    #[arg(long, conflicts_with = "swarm_key")]
    public: bool,
    /// Connections of a node that is not told otherwise
    #[arg(long, value_name = "N")]
    max_connections: Option<u32>,
    /// Runs that one peer may have waiting at a node that is not told otherwise
    #[arg(long, value_name = "N")]
    max_per_peer: Option<usize>,
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// Where the key and the known peers lie
    #[arg(long, env = "BACNODE_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// Where peers connect (multiaddr; port 1235 of TCP and, without a swarm key, QUIC by default); may be repeated
    #[arg(long, env = "BACNODE_LISTEN", value_name = "MULTIADDR", value_delimiter = ',')]
    listen: Vec<String>,
    /// The network: a name, or a network file
    #[arg(long, env = "BACNODE_NETWORK", value_name = "NAME|FILE", default_value = "local")]
    network: String,
    /// A swarm key (IPFS format): only its holders get in
    #[arg(long, env = "BACNODE_SWARM_KEY", value_name = "FILE")]
    swarm_key: Option<PathBuf>,
    /// Let in only who has a certificate of this peer's, the swarm's founder; `self` makes this one the founder
    #[arg(long, env = "BACNODE_FOUNDER", value_name = "PEER|self")]
    founder: Option<String>,
    /// Where its API, metrics and status page are (for this machine: at the socket `api.sock` in the data folder, too)
    #[arg(long, env = "BACNODE_API_LISTEN", value_name = "ADDRESS:PORT")]
    api: Option<SocketAddr>,
    /// Another bootstrap peer of the same network, as a multiaddr or HOST:PORT; may be repeated
    #[arg(long, env = "BACNODE_BOOTSTRAP", value_name = "ADDRESS", value_delimiter = ',')]
    bootstrap: Vec<String>,
    /// Connections at one time (1000 by default)
    #[arg(long, env = "BACNODE_MAX_CONNECTIONS", value_name = "N")]
    max_connections: Option<u32>,
    /// Pass nothing on between peers that cannot call each other
    #[arg(long, env = "BACNODE_NO_RELAY")]
    no_relay: bool,
    /// Peers that can be reached through this one, if they cannot be called
    #[arg(long, env = "BACNODE_RELAY_PEERS", value_name = "N", default_value_t = 256)]
    relay_peers: usize,
    /// Connections that it passes on at one time
    #[arg(long, env = "BACNODE_RELAY_CONNECTIONS", value_name = "N", default_value_t = 128)]
    relay_connections: usize,
    /// Mebibytes that pass each way on one of them
    #[arg(long, env = "BACNODE_RELAY_MIB", value_name = "N", default_value_t = 16)]
    relay_mib: u64,
    /// Minutes that one of them lasts
    #[arg(long, env = "BACNODE_RELAY_MINUTES", value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1440))]
    relay_minutes: u64,
    /// A label for people
    #[arg(long, env = "BACNODE_NAME", value_name = "NAME", default_value = "bootstrap")]
    name: String,
    /// Write who and where this peer is when it can be joined
    #[arg(long, env = "BACNODE_READY_FILE", value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// End when stdin does: for whoever starts peers as children
    #[arg(long, hide = true)]
    until_eof: bool,
}

/// Connections of a bootstrap peer that is not told otherwise.
const CONNECTIONS: u32 = 1_000;

/// What the user is told, and the exit code: 2 for wrong settings, 1 for the rest.
struct Failure(u8, String);

fn main() -> ExitCode {
    let args = match Cli::parse().command {
        Command::Serve(args) => args,
        Command::InitNetwork(args) => return ended(init_network(&args)),
        Command::Id { data_dir } => return ended(id(&data_dir)),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure(1, format!("cannot start: {error}"))),
    };
    let served = runtime.block_on(serve(args));
    // Time for the database to close.
    runtime.shutdown_timeout(std::time::Duration::from_secs(3));
    ended(served)
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn print(text: &str) {
    use std::io::Write as _;
    let _ = write!(std::io::stdout(), "{text}");
}

fn init_network(args: &InitNetwork) -> Result<(), Failure> {
    let wrong = |error: String| Failure(2, error);
    for text in &args.address {
        network::address(text).map_err(|error| wrong(format!("--address {text}: {error}")))?;
    }
    let key = args.swarm_key.as_deref().map(identity::load_swarm_key).transpose();
    let key = key.map_err(|error| wrong(error.to_string()))?;
    let fingerprint = key.map(identity::fingerprint);
    let file = NetworkFile::new(&args.name, fingerprint, args.address.clone());
    let mut file = file.map_err(|error| wrong(error.to_string()))?;
    if let Some(founder) = &args.founder {
        founder.parse::<NodeId>().map_err(|error| wrong(format!("--founder: {error}")))?;
    }
    file.founder.clone_from(&args.founder);
    file.public = args.public;
    file.limits = Limits { max_connections: args.max_connections, max_per_peer: args.max_per_peer };
    let text = toml::to_string(&file).map_err(|error| Failure(1, error.to_string()))?;
    print(&format!("# Joined with `bacnode serve --network FILE`.\n{text}"));
    if args.address.is_empty() {
        say("no address is in it yet: name a bootstrap peer with --address");
    }
    Ok(())
}

fn id(data_dir: &Path) -> Result<(), Failure> {
    let unusable = |error: String| Failure(1, error);
    std::fs::create_dir_all(data_dir).map_err(|error| unusable(format!("{}: {error}", data_dir.display())))?;
    let identity = Identity::load_or_create(&data_dir.join("node.key")).map_err(|error| unusable(error.to_string()))?;
    print(&format!("{}\n", identity.keypair.public().to_peer_id()));
    Ok(())
}

fn fail(failure: &Failure) -> ExitCode {
    say(&format!("error: {}", failure.1));
    ExitCode::from(failure.0)
}

fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}

async fn serve(args: Serve) -> Result<(), Failure> {
    log_to_stderr();
    let config = settings(&args)?;
    let node = Node::start(config).await.map_err(|error| Failure(1, error.to_string()))?;
    let identity = node.identity().await;
    say(&format!("bootstrap peer of the network `{}`", identity.network));
    for address in &identity.addresses {
        say(&format!("join with    bacnode serve --network {} --bootstrap {address}", identity.network));
    }
    if let Some(path) = &args.ready_file {
        let text = serde_json::to_string_pretty(&identity).unwrap_or_default();
        let aside = path.with_extension("part");
        let written = std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, path));
        written.map_err(|error| Failure(1, format!("cannot write the ready file {}: {error}", path.display())))?;
    }
    bacnode_node::until_told(args.until_eof)
        .await
        .map_err(|error| Failure(1, format!("cannot wait for signals: {error}")))?;
    node.stop().await;
    Ok(())
}

fn settings(args: &Serve) -> Result<Config, Failure> {
    let address = |text: &String| {
        network::multiaddr(text)
            .map_err(|error| Failure(2, format!("--listen {text}: {error}\nhint: write it like /ip4/0.0.0.0/tcp/1235")))
    };
    let mut config = Config::new(args.data_dir.clone());
    config.role = Role::Bootstrap;
    config.api = args.api;
    config.compute = false;
    config.name.clone_from(&args.name);
    let peer = |text: &String| {
        network::address(text).map_err(|error| {
                Failure(2, format!("--bootstrap {text}: {error}\nhint: write it like 192.0.2.7:1235 or /ip4/192.0.2.7/tcp/1235/p2p/12D3KooW…"))
            })
    };
    config.bootstrap = args.bootstrap.iter().map(peer).collect::<Result<_, _>>()?;
    let file = NetworkFile::find(&args.network)
        .map_err(|error| Failure(2, format!("{error}\nhint: `bacnode-bootstrap init-network` prints such a file")))?;
    config.network = file.as_ref().map_or_else(|| args.network.clone(), |file| file.name.clone());
    let limits = file.as_ref().map(|file| file.limits).unwrap_or_default();
    config.connections_max = args.max_connections.or(limits.max_connections).unwrap_or(CONNECTIONS).max(4);
    config.relay = (!args.no_relay).then(|| RelayLimits {
        peers: args.relay_peers,
        circuits: args.relay_connections,
        duration: Duration::from_secs(args.relay_minutes * 60),
        bytes: args.relay_mib << 20,
    });
    if let Some(path) = &args.swarm_key {
        config.swarm_key = Some(identity::load_swarm_key(path).map_err(|error| {
            Failure(2, format!("{error}\nhint: `bacnode swarm keygen` makes one; chmod 600 keeps it private"))
        })?);
    }
    if let Some(file) = &file {
        file.check(config.swarm_key.map(identity::fingerprint)).map_err(|error| Failure(2, error.to_string()))?;
        // Other bootstrap peers of this network; its own address is not called.
        if config.bootstrap.is_empty() {
            config.bootstrap = file.addresses.iter().map(peer).collect::<Result<_, _>>()?;
        }
    }
    let founder = args.founder.clone().or_else(|| file.as_ref()?.founder.clone());
    if let Some(founder) = &founder {
        let me = Identity::load_or_create(&args.data_dir.join("node.key")).ok();
        let me = me.map(|identity| identity.keypair.public().to_peer_id().to_string());
        // The file names the founder to all, the founder itself included.
        let founder = if me.as_ref() == Some(founder) { "self" } else { founder };
        let unusable = |error: String| Failure(2, format!("--founder: {error}"));
        if config.swarm_key.is_none() {
            return Err(unusable("only a private swarm has one; name its key with --swarm-key".into()));
        }
        let voucher = identity::load_voucher(&args.data_dir).map_err(|error| unusable(error.to_string()))?;
        config.founded = Some(Founded::named(founder, voucher).map_err(|error| unusable(error.to_string()))?);
    }
    if let Some(api) = args.api.filter(|api| !api.ip().is_loopback()) {
        return Err(Failure(
            2,
            format!("--api {api}: a bootstrap peer's API is for its own machine; use 127.0.0.1 and ssh"),
        ));
    }
    config.listen = match args.listen.as_slice() {
        [] => Config::listen_at(config.swarm_key.is_some()),
        named => named.iter().map(address).collect::<Result<_, _>>()?,
    };
    Ok(config)
}

fn log_to_stderr() {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    let filter = Targets::new().with_default(LevelFilter::ERROR).with_target("bacnode_node", LevelFilter::INFO);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false);
    tracing_subscriber::registry().with(filter).with(layer).init();
}
