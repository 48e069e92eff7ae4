//! A job spec as data, in the shape in which Bacalhau writes it. It says what the user typed; nothing is checked here but
//! types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A whole job.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct JobSpec {
    /// A label; the id where there is none.
    pub name: String,
    /// Groups jobs.
    pub namespace: String,
    /// `batch`, `service`, `ops` or `daemon`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Higher goes first.
    pub priority: i64,
    /// How many slots.
    pub count: i64,
    /// What a node's labels must say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<Constraint>,
    /// For programs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// For people.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// One.
    pub tasks: Vec<TaskSpec>,
    /// What was read past.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// A condition on labels.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Constraint {
    /// Label.
    pub key: String,
    /// `=`, `in`, `exists`, …
    pub operator: String,
    /// What to compare with.
    pub values: Vec<String>,
}

/// A type and what it needs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct SpecConfig {
    /// `wasm`, `ipfs`, …
    #[serde(rename = "Type")]
    pub kind: String,
    /// By type.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub params: Map<String, Value>,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskSpec {
    /// A label.
    pub name: String,
    /// What runs it.
    pub engine: SpecConfig,
    /// Where the result goes.
    pub publisher: SpecConfig,
    /// Environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// For programs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// What it reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub input_sources: Vec<InputSource>,
    /// What it leaves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub result_paths: Vec<ResultPath>,
    /// What it may use.
    pub resources: ResourcesSpec,
    /// Whom it may talk to.
    pub network: Network,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// At most one live lease per slot.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
    /// Seeded chance, fixed clock, canonical NaNs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deterministic: bool,
    /// Beats and leases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseSpec>,
    /// Seconds that a holder works on unheard by its owner.
    #[serde(rename = "OrphanTTL", skip_serializing_if = "Option::is_none")]
    pub orphan_ttl: Option<i64>,
    /// `quorum`: two other nodes keep the job, so that it does not end with its own; `local`: none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<String>,
    /// Nodes that shall hold a result before its job is said to be done, 1 to 3: with 2, the default, results of up to 64 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i64>,
}

/// One input.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct InputSource {
    /// Where from.
    pub source: SpecConfig,
    /// Path in the task.
    pub target: String,
    /// A label.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub alias: String,
}

/// One output folder.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct ResultPath {
    /// Name in the result.
    pub name: String,
    /// Path in the task.
    pub path: String,
}

/// Amounts, as written.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ResourcesSpec {
    /// `500m`.
    #[serde(rename = "CPU")]
    pub cpu: String,
    /// `512Mb`.
    #[serde(rename = "Memory")]
    pub memory: String,
    /// `1Gb`.
    #[serde(rename = "Disk")]
    pub disk: String,
    /// `1`.
    #[serde(rename = "GPU")]
    pub gpu: String,
}

/// Network access.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Network {
    /// `None`, …
    #[serde(rename = "Type")]
    pub kind: String,
    /// With `HTTP`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    /// With `Bridge` and `Host`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortSpec>,
}

/// A port at which the task answers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortSpec {
    /// Part of the names of the variables that tell the task of it.
    pub name: String,
    /// The machine's port; 0 for any.
    #[serde(rename = "Static", skip_serializing_if = "is_zero")]
    pub fixed: i64,
    /// The task's port; 0 for the same as the machine's.
    #[serde(skip_serializing_if = "is_zero")]
    pub target: i64,
    /// The address of the machine at which it answers: all of them, or `127.0.0.1`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host_network: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "it is handed a field")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Seconds; 0 is the default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Timeouts {
    /// One execution.
    pub execution_timeout: i64,
    /// Waiting for a place.
    pub queue_timeout: i64,
    /// All together.
    pub total_timeout: i64,
}

/// Seconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct LeaseSpec {
    /// Between beats.
    pub heartbeat: i64,
    /// From an answered beat.
    pub length: i64,
    /// What the owner waits beyond.
    pub grace: i64,
}
