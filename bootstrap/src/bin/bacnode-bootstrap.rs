//! `bacnode-bootstrap`: a peer that others join through. It keeps the DHT and the gossip going and never runs a job.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bacnode_bootstrap::network::{self, NetworkFile};
use bacnode_node::config::{Config, Founded, RelayLimits, Role};
use bacnode_node::{Node, identity};
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

/// What the user is told, and the exit code: 2 for wrong settings, 1 for the rest.
struct Failure(u8, String);

fn main() -> ExitCode {
    let Command::Serve(args) = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure(1, format!("cannot start: {error}"))),
    };
    let served = runtime.block_on(serve(args));
    // Time for the database to close.
    runtime.shutdown_timeout(std::time::Duration::from_secs(3));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
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
        text.parse().map_err(|_| Failure(2, format!("`{text}` is not a multiaddr (like /ip4/192.0.2.7/tcp/1235)")))
    };
    let mut config = Config::new(args.data_dir.clone());
    config.role = Role::Bootstrap;
    config.api = args.api;
    config.compute = false;
    config.name.clone_from(&args.name);
    let peer =
        |text: &String| network::address(text).map_err(|error| Failure(2, format!("--bootstrap {text}: {error}")));
    config.bootstrap = args.bootstrap.iter().map(peer).collect::<Result<_, _>>()?;
    let file = NetworkFile::find(&args.network).map_err(|error| Failure(2, error.to_string()))?;
    config.network = file.map_or_else(|| args.network.clone(), |file| file.name);
    config.relay = (!args.no_relay).then(|| RelayLimits {
        peers: args.relay_peers,
        circuits: args.relay_connections,
        duration: Duration::from_secs(args.relay_minutes * 60),
        bytes: args.relay_mib << 20,
    });
    if let Some(path) = &args.swarm_key {
        config.swarm_key = Some(identity::load_swarm_key(path).map_err(|error| Failure(2, error.to_string()))?);
    }
    if let Some(founder) = &args.founder {
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
