//! What `serve` is told of its connections: with whom, how many, how fast.

use clap::Args;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connections")]
pub(crate) struct LinkArgs {
    /// Pass on between peers that cannot call each other, as bootstrap peers do
    #[arg(long, env = "BACNODE_RELAY", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) relay: bool,
    /// Peers that can be reached through this one, if it passes on (256 by default)
    #[arg(long, env = "BACNODE_RELAY_PEERS", value_name = "N")]
    pub(crate) relay_peers: Option<usize>,
    /// Connections that it passes on at one time (128 by default)
    #[arg(long, env = "BACNODE_RELAY_CONNECTIONS", value_name = "N")]
    pub(crate) relay_connections: Option<usize>,
    /// Mebibytes that pass each way on one of them (16 by default)
    #[arg(long, env = "BACNODE_RELAY_MIB", value_name = "N")]
    pub(crate) relay_mib: Option<u64>,
    /// Minutes that one of them lasts (30 by default)
    #[arg(long, env = "BACNODE_RELAY_MINUTES", value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1440))]
    pub(crate) relay_minutes: Option<u64>,
    /// Speak to these peers only, by their ids; may be repeated
    #[arg(long, env = "BACNODE_ALLOW_PEER", value_name = "PEER", value_delimiter = ',')]
    pub(crate) allow_peer: Vec<String>,
    /// Never speak to this peer; may be repeated (`bacnode peers block` does it while the node runs)
    #[arg(long, env = "BACNODE_DENY_PEER", value_name = "PEER", value_delimiter = ',')]
    pub(crate) deny_peer: Vec<String>,
    /// Connections in all (320 by default)
    #[arg(long, env = "BACNODE_MAX_CONNECTIONS", value_name = "N")]
    pub(crate) max_connections: Option<u32>,
    /// Connections from one public address (32 by default)
    #[arg(long, env = "BACNODE_MAX_PER_ADDRESS", value_name = "N")]
    pub(crate) max_per_address: Option<u32>,
    /// Connections from one network of public addresses, a /24 or /48 (128 by default)
    #[arg(long, env = "BACNODE_MAX_PER_NETWORK", value_name = "N")]
    pub(crate) max_per_network: Option<u32>,
    /// Take no more connections while this process has so much memory (a quarter of the machine's by default)
    #[arg(long, env = "BACNODE_MAX_OWN_MEMORY", value_name = "SIZE")]
    pub(crate) max_own_memory: Option<String>,
    /// Send content no faster than this, each second (as fast as can be by default)
    #[arg(long, env = "BACNODE_MAX_UPLOAD", value_name = "SIZE")]
    pub(crate) max_upload: Option<String>,
    /// Fetch content from peers no faster than this, each second
    #[arg(long, env = "BACNODE_MAX_DOWNLOAD", value_name = "SIZE")]
    pub(crate) max_download: Option<String>,
}
