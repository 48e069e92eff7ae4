//! Real nodes in one process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bacnode_node::Node;
use bacnode_node::config::{Config, GossipConfig};

/// How long anything may take that should be quick.
const PATIENCE: Duration = Duration::from_secs(30);

/// The memory transport's addresses are the process's; no two nodes may share one.
static NEXT_ADDRESS: AtomicU64 = AtomicU64::new(1_000);

/// Nodes, and their data folders.
#[derive(Debug)]
pub struct Swarm {
    /// In the order in which they were started.
    pub nodes: Vec<Node>,
    dir: tempfile::TempDir,
}

impl Default for Swarm {
    fn default() -> Self {
        Self::new()
    }
}

impl Swarm {
    /// No nodes yet.
    ///
    /// # Panics
    /// If there is no room for temporary files.
    #[must_use]
    pub fn new() -> Self {
        Self { nodes: Vec::new(), dir: tempfile::tempdir().expect("a folder") }
    }

    /// Starts a node that calls those with these indices, and nobody else by itself.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn add(&mut self, neighbours: &[usize]) -> usize {
        self.add_with(neighbours, |_| {}).await
    }

    /// The same with other settings.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn add_with(&mut self, neighbours: &[usize], change: impl FnOnce(&mut Config)) -> usize {
        let index = self.nodes.len();
        let address = NEXT_ADDRESS.fetch_add(1, Ordering::Relaxed);
        let mut config = Config::new(self.dir.path().join(address.to_string()));
        config.api = None;
        config.compute = false;
        config.network = "swarm".into();
        config.name = format!("node-{index}");
        config.peers_wanted = 0;
        config.gossip = GossipConfig { heartbeat_ms: 100, ..GossipConfig::default() };
        config.listen = vec![format!("/memory/{address}").parse().expect("an address")];
        config.bootstrap = neighbours.iter().map(|index| self.nodes[*index].listening()[0].clone()).collect();
        change(&mut config);
        self.nodes.push(Node::start(config).await.expect("a node starts"));
        index
    }

    /// Stops a node; the others go on.
    pub async fn stop(&mut self, index: usize) {
        self.nodes.remove(index).stop().await;
    }
}

/// Waits until `ready` gives something.
///
/// # Panics
/// If it does not in time.
pub async fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} does not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
