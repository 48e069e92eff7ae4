//! Jobs, executions, history.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::history::HistoryItem;
use crate::job::state::{ExecutionState, JobState};
use crate::job::{Constraint, JobSpec, SpecConfig, TaskSpec};
use crate::record::{ExecutionRecord, JobRecord, JobStateRecord};
use crate::time::UnixMillis;
use crate::wire::market::{Outcome, ResultBody};

/// `PUT /orchestrator/jobs`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct PutJobRequest {
    /// The job, as its user wrote it: its fields, or YAML or JSON as a text.
    pub job: Value,
    /// Whether an identical spec runs again (services).
    pub force: bool,
}

/// The answer to it.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PutJobResponse {
    /// The new job.
    #[serde(rename = "JobID")]
    pub job_id: String,
    /// The same; there are no evaluations here.
    #[serde(rename = "EvaluationID")]
    pub evaluation_id: String,
    /// Which version of it this is; ours.
    #[serde(rename = "JobVersion")]
    pub job_version: u64,
    /// What was read past.
    #[serde(rename = "Warnings")]
    pub warnings: Vec<String>,
    /// Nodes that keep it beside this one, any of which can be asked when this one is gone; ours.
    #[serde(rename = "Guardians", default, skip_serializing_if = "Vec::is_empty")]
    pub guardians: Vec<String>,
}

/// `PUT /orchestrator/jobs/diff`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct DiffResponse {
    /// What would change, line by line; empty if nothing would.
    pub diff: String,
    /// What was read past.
    pub warnings: Vec<String>,
}

/// `PUT /orchestrator/jobs/:id/rerun`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct RerunRequest {
    /// Which version; the newest if 0.
    #[schema(maximum = 4_294_967_295_u64)]
    pub job_version: u32,
    /// Why, for the story.
    pub reason: String,
}

/// `GET /orchestrator/jobs/:id/versions`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Versions {
    /// The versions of a job without an end, or the runs of that name, the oldest first.
    pub items: Vec<Job>,
}

/// A state with its reason.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct State<T> {
    /// Name or number.
    pub state_type: T,
    /// Why.
    #[serde(default)]
    pub message: String,
}

/// A job with its state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Job {
    /// `j-…`
    #[serde(rename = "ID")]
    pub id: String,
    /// A label.
    pub name: String,
    /// Groups jobs.
    pub namespace: String,
    /// `batch`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Higher goes first.
    pub priority: i64,
    /// How many slots.
    pub count: i64,
    /// What a node's labels must say.
    pub constraints: Vec<Constraint>,
    /// For programs.
    pub meta: BTreeMap<String, String>,
    /// For people.
    pub labels: BTreeMap<String, String>,
    /// One.
    pub tasks: Vec<TaskSpec>,
    /// How far it is.
    pub state: State<String>,
    /// Rises with each new version of an endless job.
    pub version: u64,
    /// The same; states are in the history.
    pub revision: u64,
    /// Nanoseconds since 1970.
    pub create_time: u64,
    /// Nanoseconds since 1970.
    pub modify_time: u64,
}

impl Job {
    /// The job of these records.
    #[must_use]
    pub fn new(record: &JobRecord, state: Option<&JobStateRecord>) -> Self {
        let spec: JobSpec = serde_json::from_slice(&record.spec).unwrap_or_default();
        let id = record.id.to_string();
        let message = state.map(|state| state.message.to_string()).unwrap_or_default();
        Self {
            name: if spec.name.is_empty() { id.clone() } else { spec.name },
            id,
            namespace: spec.namespace,
            kind: spec.kind,
            priority: spec.priority,
            count: spec.count,
            constraints: spec.constraints,
            meta: spec.meta,
            labels: spec.labels,
            tasks: spec.tasks,
            state: State { state_type: state.map_or(JobState::Pending, |s| s.state).name().into(), message },
            version: record.task.version.into(),
            revision: record.task.version.into(),
            create_time: nanos(record.created),
            modify_time: nanos(state.map_or(record.submitted, |state| state.modified.max(record.submitted))),
        }
    }

    /// Whether it never changes again.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        ["Completed", "Failed", "Stopped"].contains(&self.state.state_type.as_str())
    }
}

/// A page of a list.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next one starts; empty on the last.
    #[serde(default)]
    pub next_token: String,
}

impl<T> Page<T> {
    /// A list that has one page.
    #[must_use]
    pub fn whole(items: Vec<T>) -> Self {
        Self { items, next_token: String::new() }
    }
}

/// `GET /orchestrator/jobs/:id`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct GetJobResponse {
    /// The job.
    pub job: Job,
    /// With `include=history`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<Page<HistoryItem>>,
    /// With `include=executions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executions: Option<Page<Execution>>,
}

/// The first kilobytes of what a program printed, and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct RunOutput {
    /// The start of stdout.
    #[serde(rename = "Stdout")]
    pub stdout: String,
    /// Whether there is more.
    #[serde(rename = "StdoutTruncated")]
    pub stdout_truncated: bool,
    /// The start of stderr.
    pub stderr: String,
    /// Whether there is more.
    #[serde(rename = "StderrTruncated")]
    pub stderr_truncated: bool,
    /// The program's exit code.
    #[serde(rename = "ExitCode")]
    pub exit_code: i32,
    /// Why it did not end by itself.
    #[serde(rename = "ErrorMsg")]
    pub error_msg: String,
}

/// An attempt.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Execution {
    /// `e-…`
    #[serde(rename = "ID")]
    pub id: String,
    /// The job's.
    pub namespace: String,
    /// The job's.
    #[serde(rename = "EvalID")]
    pub eval_id: String,
    /// A label.
    pub name: String,
    /// Who runs it.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Its job.
    #[serde(rename = "JobID")]
    pub job_id: String,
    /// Its job's version.
    pub job_version: u64,
    /// By task.
    pub allocated_resources: Map<String, Value>,
    /// What its owner wants.
    pub desired_state: State<u8>,
    /// What it is.
    pub compute_state: State<u8>,
    /// Where its result is.
    pub published_result: SpecConfig,
    /// What it printed.
    pub run_output: RunOutput,
    /// Not used.
    pub previous_execution: String,
    /// Not used.
    pub next_execution: String,
    /// Not used.
    #[serde(rename = "FollowupEvalID")]
    pub followup_eval_id: String,
    /// Its slot.
    pub partition_index: u32,
    /// Counts changes of state.
    pub revision: u64,
    /// Nanoseconds since 1970.
    pub create_time: u64,
    /// Nanoseconds since 1970.
    pub modify_time: u64,
    /// What it used; ours.
    pub usage: Map<String, Value>,
    /// Where it answers; ours.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortInfo>,
}

/// A port of a node that leads to a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortInfo {
    /// What the task calls it.
    pub name: String,
    /// The node's port.
    pub host: u16,
    /// The task's.
    pub target: u16,
}

impl Execution {
    /// The execution of this record.
    #[must_use]
    pub fn new(record: &ExecutionRecord, namespace: &str) -> Self {
        let body = record.body();
        let wanted = if record.state.is_terminal() { 2 } else { 1 };
        Self {
            id: record.id.to_string(),
            namespace: namespace.into(),
            eval_id: record.job.to_string(),
            name: record.id.short(),
            node_id: record.node.to_string(),
            job_id: record.job.to_string(),
            job_version: record.version.into(),
            desired_state: State { state_type: wanted, message: String::new() },
            compute_state: State { state_type: record.state.number(), message: record.message.to_string() },
            published_result: published(record, body.as_ref()),
            run_output: body.as_ref().map(RunOutput::new).unwrap_or_default(),
            partition_index: record.slot,
            revision: 1,
            create_time: nanos(record.created),
            modify_time: nanos(record.modified),
            usage: body.as_ref().map(usage).unwrap_or_default(),
            ports: record
                .ports
                .iter()
                .map(|port| PortInfo { name: port.name.to_string(), host: port.host, target: port.target })
                .collect(),
            ..Self::default()
        }
    }

    /// Its state, by name.
    #[must_use]
    pub fn state(&self) -> Option<ExecutionState> {
        ExecutionState::from_number(self.compute_state.state_type)
    }
}

fn published(record: &ExecutionRecord, body: Option<&ResultBody>) -> SpecConfig {
    let root = body.and_then(|body| body.root).filter(|_| record.state.is_terminal());
    let Some(root) = root else { return SpecConfig::default() };
    let params = Map::from_iter([("CID".to_owned(), Value::String(root.to_string()))]);
    SpecConfig { kind: "ipfs".into(), params }
}

fn usage(body: &ResultBody) -> Map<String, Value> {
    let usage = body.usage;
    let fields = [
        ("CPUMillis", usage.cpu_ms),
        ("WallMillis", usage.wall_ms),
        ("MemoryPeak", usage.memory_peak),
        ("BytesIn", usage.bytes_in),
        ("BytesHeld", usage.bytes_held),
        ("BytesOut", usage.bytes_out),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
}

impl RunOutput {
    fn new(body: &ResultBody) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (exit_code, error_msg) = match &body.outcome {
            Outcome::Completed { exit_code } => (*exit_code, String::new()),
            Outcome::Failed { cause, .. } | Outcome::NodeFailed { cause, .. } => (-1, cause.to_string()),
            Outcome::Cancelled => (-1, "it was stopped".into()),
        };
        Self {
            stdout: text(&body.stdout.bytes),
            stdout_truncated: body.stdout.truncated,
            stderr: text(&body.stderr.bytes),
            stderr_truncated: body.stderr.truncated,
            exit_code,
            error_msg,
        }
    }
}

/// `GET /orchestrator/jobs/:id/results`: one item per accepted result, `{Type: ipfs, Params: {CID}}`.
pub type Results = Page<SpecConfig>;

/// A frame of `GET /orchestrator/jobs/:id/logs`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct LogFrame {
    /// A line, or nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<LogLine>,
    /// Why there are no more.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// Some output of a program.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogLine {
    /// 1 is stdout, 2 is stderr.
    #[serde(rename = "Type")]
    pub kind: u8,
    /// With its line end, if it has one.
    pub line: String,
}

/// Every error of the API.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct ErrorBody {
    /// The HTTP status.
    pub status: u16,
    /// A sentence.
    pub message: String,
    /// Names the request in the log.
    #[serde(rename = "RequestID")]
    pub request_id: String,
    /// One word for programs.
    pub code: String,
    /// Who says it.
    pub component: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

/// Nanoseconds since 1970.
#[must_use]
pub const fn nanos(time: UnixMillis) -> u64 {
    time.0.saturating_mul(1_000_000)
}

/// `2026-11-22T13:44:05.123Z` (RFC 3339), by Hinnant's `civil_from_days`.
#[must_use]
pub fn rfc3339(time: UnixMillis) -> String {
    let (days, ms) = (time.0 / 86_400_000, time.0 % 86_400_000);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (h, m, s, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_for_people() {
        assert_eq!(rfc3339(UnixMillis(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(UnixMillis(951_782_400_123)), "2000-02-29T00:00:00.123Z");
        assert_eq!(rfc3339(UnixMillis(1_795_354_000_000)), "2026-11-22T13:26:40.000Z");
    }
}
