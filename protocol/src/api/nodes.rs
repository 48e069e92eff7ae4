//! Nodes, peers, content.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::wire::task::{Engines, Resources};

/// Amounts, as Bacalhau writes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Capacity {
    /// Cores.
    #[serde(rename = "CPU")]
    pub cpu: f64,
    /// Bytes.
    #[serde(rename = "Memory")]
    pub memory: u64,
    /// Bytes.
    #[serde(rename = "Disk")]
    pub disk: u64,
    /// Whole ones.
    #[serde(rename = "GPU")]
    pub gpu: u32,
}

impl From<Resources> for Capacity {
    fn from(resources: Resources) -> Self {
        Self {
            cpu: resources.cpu_milli as f64 / 1_000.0,
            memory: resources.memory,
            disk: resources.disk,
            gpu: resources.gpu,
        }
    }
}

/// What a node does for jobs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct ComputeNodeInfo {
    /// `wasm`, `docker`.
    pub execution_engines: Vec<String>,
    /// `ipfs`.
    pub publishers: Vec<String>,
    /// `ipfs`, `inline`, `localDirectory`.
    pub storage_sources: Vec<String>,
    /// What jobs may use in all.
    pub max_capacity: Capacity,
    /// What is free.
    pub available_capacity: Capacity,
    /// What one job may use.
    pub max_job_requirements: Capacity,
    /// Executions running.
    pub running_executions: u32,
    /// Executions waiting.
    pub enqueued_executions: u32,
}

impl ComputeNodeInfo {
    /// What a node with these engines and totals offers.
    #[must_use]
    pub fn new(engines: Engines, total: Resources) -> Self {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            execution_engines: engines.iter().map(|engine| engine.name().to_owned()).collect(),
            publishers: list(&["ipfs"]),
            storage_sources: list(&["ipfs", "inline", "localDirectory"]),
            max_capacity: total.into(),
            max_job_requirements: total.into(),
            ..Self::default()
        }
    }
}

/// The version, as Bacalhau writes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Version {
    /// `0`
    #[serde(rename = "Major")]
    pub major: String,
    /// `1`
    #[serde(rename = "Minor")]
    pub minor: String,
    /// `v0.1.0`
    #[serde(rename = "GitVersion")]
    pub git_version: String,
    /// Not known to a build from a package.
    #[serde(rename = "GitCommit")]
    pub git_commit: String,
    /// Not recorded, so that equal sources give equal binaries.
    #[serde(rename = "BuildDate")]
    pub build_date: String,
    /// `linux`
    #[serde(rename = "GOOS")]
    pub os: String,
    /// `amd64`
    #[serde(rename = "GOARCH")]
    pub arch: String,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct NodeInfo {
    /// Its PeerId.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// `Compute` or `Requester`.
    #[serde(rename = "NodeType")]
    pub node_type: String,
    /// Its operator's, and what it found out itself.
    #[serde(rename = "Labels")]
    pub labels: BTreeMap<String, String>,
    /// Wire protocols.
    #[serde(rename = "SupportedProtocols")]
    pub supported_protocols: Vec<String>,
    /// What it does for jobs.
    #[serde(rename = "ComputeNodeInfo")]
    pub compute: ComputeNodeInfo,
    /// Its program.
    #[serde(rename = "BacalhauVersion")]
    pub version: Version,
    /// The label its operator gave it; ours.
    #[serde(rename = "Name")]
    pub name: String,
    /// Load in percent; ours.
    #[serde(rename = "Load")]
    pub load: u16,
    /// Confirmed addresses; ours.
    #[serde(rename = "Addresses")]
    pub addresses: Vec<String>,
    /// Seconds since its last advert; ours.
    #[serde(rename = "LastSeenSeconds")]
    pub last_seen_s: u64,
}

/// A node with what this node knows of its connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeState {
    /// The node.
    pub info: NodeInfo,
    /// `APPROVED`: who holds the network's key is a member.
    pub membership: String,
    /// `CONNECTED` or `DISCONNECTED`.
    pub connection: String,
    /// The same, and since when.
    pub connection_state: ConnectionState,
}

/// Whether a node is connected, and when it was heard of last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConnectionState {
    /// `CONNECTED` or `DISCONNECTED`.
    pub status: String,
    /// RFC 3339.
    pub last_heartbeat: String,
}

/// `PUT /orchestrator/nodes/:id`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeAction {
    /// `drain` or `resume`.
    pub action: String,
    /// Why.
    pub message: String,
}

/// The answer to it.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeActed {
    /// Whether it was done.
    pub success: bool,
    /// Why not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// `GET /orchestrator/nodes`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct ListNodes {
    /// On this page.
    pub nodes: Vec<NodeState>,
    /// Where the next one starts.
    pub next_token: String,
}

/// `GET /orchestrator/nodes/:id`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct GetNode {
    /// The node.
    pub node: NodeState,
}

/// This node, for others to join; also what `serve --ready-file` writes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeIdentity {
    /// Its PeerId.
    pub peer_id: String,
    /// Each with its `/p2p/…`.
    pub addresses: Vec<String>,
    /// The network's name.
    pub network: String,
    /// The API's URL, in the ready file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api: String,
}

/// A peer with which a node has nothing to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct BlockedPeer {
    /// Its PeerId.
    pub peer_id: String,
    /// Its operator's label, where it is known.
    pub name: String,
    /// Since when: RFC 3339.
    pub since: String,
    /// Until when: RFC 3339; until it is taken back, if there is no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Why.
    pub reason: String,
}

/// Why a peer is blocked, for whoever asks later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct BlockReason {
    /// At most 128 bytes of it are kept.
    pub reason: String,
}

/// Members of a swarm with a founder.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Members {
    /// The PeerId of whoever lets members in; empty where nobody does.
    pub founder: String,
    /// Whether that is the node asked.
    pub is_founder: bool,
    /// When the asked node's own membership ends, if it does: RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends: Option<String>,
    /// Whom the founder has let in; it alone knows.
    pub members: Vec<Member>,
}

/// A member of a swarm with a founder.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Member {
    /// Its PeerId.
    pub peer_id: String,
    /// Its operator's label.
    pub name: String,
    /// Since when: RFC 3339.
    pub since: String,
    /// Until when: RFC 3339.
    pub ends: String,
    /// Whether it was put out before that.
    pub revoked: bool,
}

/// What an invite to a swarm with a founder shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct NewInvitation {
    /// Days for which it is taken.
    #[schema(minimum = 1, maximum = 3_650)]
    pub days: u64,
    /// Days for which whoever comes with it is a member.
    #[schema(minimum = 1, maximum = 3_650)]
    pub member_days: u64,
    /// Whether only the first who comes may use it.
    pub once: bool,
}

impl Default for NewInvitation {
    fn default() -> Self {
        Self { days: 7, member_days: 365, once: false }
    }
}

/// What lets newcomers into a swarm with a founder; part of an invite.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Invitation {
    /// The PeerId of whoever takes it.
    pub founder: String,
    /// Hex, to be shown to the founder.
    pub voucher: String,
    /// Unix milliseconds until which it is taken.
    pub ends: u64,
}

/// A connected peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Peer {
    /// Its PeerId.
    pub peer_id: String,
    /// Its operator's label.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// `in` or `out`.
    pub direction: String,
    /// Milliseconds to it and back.
    pub rtt_ms: Option<f64>,
    /// Its program.
    pub agent: String,
}

/// An advert that is known; an item of `GET /network/view`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct AdvertInfo {
    /// Whose.
    pub peer_id: String,
    /// Its operator's label.
    pub name: String,
    /// The highest counts.
    pub sequence: u64,
    /// When it was signed: RFC 3339.
    pub issued: String,
    /// Seconds for which it counts.
    #[serde(rename = "TTLSeconds")]
    pub ttl_s: u32,
    /// In percent.
    pub load: u16,
    /// `wasm`, `docker`.
    pub engines: Vec<String>,
    /// What jobs may use in all.
    pub total: Capacity,
}

/// `GET /network/peers`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Peers {
    /// All of them.
    pub peers: Vec<Peer>,
    /// How others reach this node, in words.
    pub reach: String,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Content that was added, or is pinned.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Content {
    /// Its identifier.
    pub cid: String,
    /// Bytes of files.
    pub size: u64,
}

/// A pinned root.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Pin {
    /// Its identifier.
    pub cid: String,
    /// Bytes of files.
    pub size: u64,
    /// Why it is kept: `user`, a job's id, an execution's id.
    pub reasons: Vec<String>,
    /// Whether it does not leave this node.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
}

/// A result that waits for the operator's word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Withheld {
    /// The attempt that made it.
    #[serde(rename = "ExecutionID")]
    pub execution_id: String,
    /// Its job.
    #[serde(rename = "JobID")]
    pub job_id: String,
    /// Its slot.
    pub partition_index: u32,
    /// Whose job it is.
    #[serde(rename = "PeerID")]
    pub peer_id: String,
    /// That peer's name.
    pub name: String,
    /// Since when, in milliseconds since 1970.
    pub since: u64,
    /// The result folder, to be had at this node only.
    #[serde(rename = "CID")]
    pub cid: String,
    /// Bytes of files in it.
    pub size: u64,
}

/// The operator's word on a result that waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct LetOut {
    /// Whether it may go to its owner; else it is kept for good.
    pub granted: bool,
}

/// How much content a node keeps, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContentUsage {
    /// On its disk, shared blocks counted once.
    pub used: u64,
    /// At most.
    pub max: u64,
    /// Pinned by users.
    pub user: u64,
    /// Results of jobs.
    pub results: u64,
    /// Copies of inputs, which go first.
    pub inputs: u64,
    /// Of what does not leave this node.
    pub private: u64,
}

/// What runs have used, in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct UsageTotals {
    /// How many.
    pub runs: u64,
    /// Milliseconds of CPU.
    #[serde(rename = "CPUMillis")]
    pub cpu_ms: u64,
    /// Milliseconds from start to end.
    #[serde(rename = "WallMillis")]
    pub wall_ms: u64,
    /// Input bytes that had to be fetched.
    pub bytes_in: u64,
    /// Input bytes that lay here already, and did not move.
    pub bytes_held: u64,
    /// Bytes of results.
    pub bytes_out: u64,
}

/// What one submitter's runs have used at a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct SubmitterUsage {
    /// Whose jobs.
    #[serde(rename = "PeerID")]
    pub peer_id: String,
    /// Its label, if it is known now.
    pub name: String,
    /// What they used.
    #[serde(flatten)]
    pub totals: UsageTotals,
}

/// What a sweep freed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Swept {
    /// Bytes.
    pub freed: u64,
}

/// An entry of a folder.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its identifier.
    pub cid: String,
    /// Bytes of blocks.
    pub size: u64,
    /// `file` or `folder`.
    #[serde(rename = "Type")]
    pub kind: String,
}

/// Who has a piece of content.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Provider {
    /// Its PeerId.
    pub peer_id: String,
    /// Its operator's label.
    pub name: String,
}
