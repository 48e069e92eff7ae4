//! Everything a node is told at its start, ready to use.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bacnode_protocol::compute::Policy;
use bacnode_protocol::id::{NetworkId, NodeId, ParseIdError};
use bacnode_protocol::limits::{ADVERT_PERIOD_MIN, ADVERTS_PER_SECOND, VIEW_NODES_MAX};
use bacnode_protocol::wire::member::Signed;
use bacnode_protocol::wire::task::Resources;
use libp2p::Multiaddr;
use libp2p::pnet::PreSharedKey;

use crate::engine::probe::Probe;
use crate::openness::Openness;

/// What the node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes jobs, and runs them if it has resources for that.
    Full,
    /// Helps others to find each other; has no jobs.
    Bootstrap,
}

/// A node's settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the node is for.
    pub role: Role,
    /// Where everything lies.
    pub data_dir: PathBuf,
    /// Where the API listens, if it does.
    pub api: Option<SocketAddr>,
    /// The certificate and the key with which it listens over TLS.
    pub api_tls: Option<(PathBuf, PathBuf)>,
    /// Whether it takes nobody without a token, on loopback neither.
    pub api_token: bool,
    /// Where peers connect.
    pub listen: Vec<Multiaddr>,
    /// Whom to connect to first.
    pub bootstrap: Vec<Multiaddr>,
    /// The network's name.
    pub network: String,
    /// Makes the network private.
    pub swarm_key: Option<PreSharedKey>,
    /// Who lets members into the private network, if having the key is not enough.
    pub founded: Option<Founded>,
    /// A label for people.
    pub name: String,
    /// More of them.
    pub labels: Vec<(String, String)>,
    /// Local paths that tasks may use.
    pub allow_local: Vec<LocalPath>,
    /// Whether jobs run here.
    pub compute: bool,
    /// Whether containers run here, if there is a Docker daemon.
    pub docker: bool,
    /// The operator's rules for jobs.
    pub policy: Policy,
    /// Where results are served by links, if they are.
    pub publish_listen: Option<SocketAddr>,
    /// Ports of this machine that containers are given when they do not say which.
    pub ports: RangeInclusive<u16>,
    /// When jobs are taken.
    pub openness: Openness,
    /// Runs that may wait here, and that one peer may have here.
    pub queue_max: usize,
    /// See `queue_max`.
    pub per_peer_max: usize,
    /// How long results of ended jobs are kept; as long as there is room where there is none.
    pub keep_results: Option<Duration>,
    /// How many jobs that have ended are remembered, and for how long.
    pub keep_jobs: (usize, Duration),
    /// How long this node may be silent before those who keep its jobs lead them.
    pub ownership_lease: Duration,
    /// Whether this node keeps jobs of others.
    pub guards: bool,
    /// Who looks at each ask, if somebody does.
    pub probe: Option<Probe>,
    /// What jobs may use in all.
    pub total: Resources,
    /// Bytes of content kept at most.
    pub content_max: u64,
    /// Limits of a single task.
    pub limits: TaskLimits,
    /// How this node keeps in touch.
    pub gossip: GossipConfig,
    /// Nodes that are known at one time, at most; others are found when they are needed.
    pub view_max: usize,
    /// Peers to keep connections with, if so many are known.
    pub peers_wanted: usize,
    /// Connections in all, at most.
    pub connections_max: u32,
    /// Of them, from one public address, and from one network of such.
    pub per_address_max: u32,
    /// See `per_address_max`.
    pub per_network_max: u32,
    /// Bytes of memory of this process beyond which nobody else is let in.
    pub own_memory_max: u64,
    /// Bytes of content a second that go out, and that come in, if not as fast as can be.
    pub upload_max: Option<u64>,
    /// See `upload_max`.
    pub download_max: Option<u64>,
    /// The only peers to speak to, if there are any.
    pub allow_peers: Vec<NodeId>,
    /// Peers never to speak to, beside those that were blocked by a command.
    pub deny_peers: Vec<NodeId>,
    /// Whether peers are looked for on the local network.
    pub mdns: bool,
    /// Whether, and how much, this node passes on between others that cannot call each other.
    pub relay: Option<RelayLimits>,
    /// The program to start workers with; this program by default.
    pub worker: Option<PathBuf>,
}

/// Who lets members in.
#[derive(Debug, Clone)]
pub enum Founded {
    /// This node.
    Here,
    /// Another one.
    By {
        /// Which.
        founder: NodeId,
        /// What the invite says, for it.
        voucher: Option<Signed>,
    },
}

impl Founded {
    /// Who that is: `self`, or a PeerId. `voucher` is what an invite said for this node.
    ///
    /// # Errors
    /// If it is neither.
    pub fn named(text: &str, voucher: Option<Signed>) -> Result<Self, ParseIdError> {
        if text == "self" { Ok(Self::Here) } else { Ok(Self::By { founder: text.parse()?, voucher }) }
    }
}

/// What one task may leave behind, in bytes and counts.
#[derive(Debug, Clone, Copy)]
pub struct TaskLimits {
    /// Of stdout, and of stderr.
    pub log_bytes: u64,
    /// Of all result folders together.
    pub output_bytes: u64,
    /// Files and folders in them.
    pub output_entries: u64,
    /// Longest time, in seconds.
    pub timeout_s: u64,
    /// Bytes of one input that is fetched from elsewhere than the network.
    pub input_bytes: u64,
}

impl Default for TaskLimits {
    fn default() -> Self {
        Self {
            log_bytes: 16 << 20,
            output_bytes: 4 << 30,
            output_entries: 100_000,
            timeout_s: 24 * 3600,
            input_bytes: 64 << 30,
        }
    }
}

/// How much a relay passes on.
#[derive(Debug, Clone, Copy)]
pub struct RelayLimits {
    /// Peers that can be reached through it.
    pub peers: usize,
    /// Connections through it at one time.
    pub circuits: usize,
    /// How long one of them lasts.
    pub duration: Duration,
    /// Bytes that pass each way in one of them.
    pub bytes: u64,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self { peers: 256, circuits: 128, duration: Duration::from_secs(30 * 60), bytes: 16 << 20 }
    }
}

/// Intervals of gossip.
#[derive(Debug, Clone, Copy)]
pub struct GossipConfig {
    /// Seconds between adverts, at least.
    pub advert_s: u64,
    /// Adverts a second in the whole network, at most.
    pub adverts_per_s: u64,
    /// Seconds between view exchanges.
    pub view_s: u64,
    /// Milliseconds between gossipsub heartbeats.
    pub heartbeat_ms: u64,
}

impl Default for GossipConfig {
    fn default() -> Self {
        let advert_s = ADVERT_PERIOD_MIN.as_millis() / 1_000;
        Self { advert_s, adverts_per_s: ADVERTS_PER_SECOND, view_s: 15, heartbeat_ms: 1_000 }
    }
}

/// A local path that tasks may use, and all that lies below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPath {
    /// What jobs call it: the same on every node, wherever it is there.
    pub name: PathBuf,
    /// Where it is.
    pub path: PathBuf,
    /// Whether tasks may write to it.
    pub writable: bool,
}

impl LocalPath {
    /// Whether it may be used beside these: below a path that tasks may write, one of them could put a link in its place.
    #[must_use]
    pub fn is_safe_beside(&self, others: &[Self]) -> bool {
        let real = |path: &PathBuf| std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        let own = real(&self.path);
        !others.iter().any(|other| other.writable && own != real(&other.path) && own.starts_with(real(&other.path)))
    }

    /// Where on this machine `named` is, if it is this path or below it.
    #[must_use]
    pub fn find(&self, named: &std::path::Path) -> Option<PathBuf> {
        let below = named.strip_prefix(&self.name).ok()?;
        Some(if below.as_os_str().is_empty() { self.path.clone() } else { self.path.join(below) })
    }
}

impl Config {
    /// A node with everything at its default, in `data_dir`, in the network `local`.
    ///
    /// # Panics
    /// Never: the default address is one.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> Self {
        let (total, disk) = machine(&data_dir);
        Self {
            role: Role::Full,
            data_dir,
            api: Some(SocketAddr::from(([127, 0, 0, 1], 1234))),
            api_tls: None,
            api_token: false,
            listen: Self::listen_at(false),
            bootstrap: Vec::new(),
            network: "local".into(),
            swarm_key: None,
            founded: None,
            name: String::new(),
            labels: Vec::new(),
            allow_local: Vec::new(),
            compute: true,
            docker: true,
            policy: Policy::default(),
            publish_listen: None,
            ports: 20_000..=32_000,
            openness: Openness::default(),
            queue_max: 256,
            per_peer_max: 256,
            keep_results: None,
            keep_jobs: (100_000, Duration::from_secs(90 * 86_400)),
            ownership_lease: Duration::from_secs(15),
            guards: true,
            probe: None,
            total,
            content_max: disk / 5,
            limits: TaskLimits::default(),
            gossip: GossipConfig::default(),
            view_max: VIEW_NODES_MAX,
            peers_wanted: 8,
            connections_max: 320,
            per_address_max: 32,
            per_network_max: 128,
            own_memory_max: (memory_bytes().unwrap_or(2 << 30) / 4).max(512 << 20),
            upload_max: None,
            download_max: None,
            allow_peers: Vec::new(),
            deny_peers: Vec::new(),
            mdns: false,
            relay: None,
            worker: None,
        }
    }

    /// Where a node listens that is not told where: a swarm key guards TCP only.
    ///
    /// # Panics
    /// Never: they are addresses.
    #[must_use]
    pub fn listen_at(keyed: bool) -> Vec<Multiaddr> {
        let addresses = ["/ip4/0.0.0.0/tcp/1235", "/ip4/0.0.0.0/udp/1235/quic-v1"];
        let wanted = if keyed { &addresses[..1] } else { &addresses[..] };
        wanted.iter().map(|address| address.parse().expect("a multiaddr")).collect()
    }

    /// The network's id, bound to the key's fingerprint where there is one.
    #[must_use]
    pub fn network_id(&self) -> NetworkId {
        NetworkId::new(&self.network, self.swarm_key.map(crate::identity::fingerprint))
    }
}

/// What this machine can give to jobs: 80 % of its processors, memory and free disk.
fn machine(data_dir: &std::path::Path) -> (Resources, u64) {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let memory = memory_bytes().unwrap_or(1 << 30);
    let disk = free_disk(data_dir).unwrap_or(1 << 30);
    let total = Resources { cpu_milli: cores * 800, memory: memory / 5 * 4, disk: disk / 5 * 4, gpu: 0 };
    (total, disk)
}

fn memory_bytes() -> Option<u64> {
    if let Ok(text) = std::fs::read_to_string("/proc/meminfo") {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        return line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024);
    }
    // Where there is no /proc, a modest guess; `--memory` says better.
    Some(4 << 30)
}

/// Bytes free on the disk that holds `path`, or on that of its nearest existing parent.
#[must_use]
pub fn free_disk(path: &std::path::Path) -> Option<u64> {
    let existing = path.ancestors().find(|parent| parent.exists()).unwrap_or_else(|| std::path::Path::new("."));
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
