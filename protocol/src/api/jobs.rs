//! Jobs, executions, history.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::job::state::{ExecutionState, JobState};
use crate::job::{Constraint, JobSpec, SpecConfig, TaskSpec};
use crate::record::{ExecutionRecord, JobEvent, JobRecord, JobStateRecord, What};
use crate::time::UnixMillis;
use crate::wire::codec;
use crate::wire::market::{Outcome, Phase, RESULT_BODY_BYTES_MAX, ResultBody};

/// `PUT /orchestrator/jobs`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PutJobRequest {
    /// The job, as its user wrote it.
    pub job: Value,
    /// Whether an identical spec runs again (services).
    pub force: bool,
}

/// The answer to it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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
}

/// A state with its reason.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct State<T> {
    /// Name or number.
    pub state_type: T,
    /// Why.
    pub message: String,
}

/// A job with its state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// Always 1: a batch job has one version.
    pub version: u64,
    /// Counts changes of state.
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
            version: 1,
            revision: 1,
            create_time: nanos(record.created),
            modify_time: nanos(state.map_or(record.created, |state| state.modified)),
        }
    }

    /// Whether it never changes again.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        ["Completed", "Failed", "Stopped"].contains(&self.state.state_type.as_str())
    }
}

/// A page of a list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next one starts; empty on the last.
    pub next_token: String,
}

/// `GET /orchestrator/jobs/:id`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// Always 1.
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
}

impl Execution {
    /// The execution of this record.
    #[must_use]
    pub fn new(record: &ExecutionRecord, namespace: &str) -> Self {
        let body: Option<ResultBody> =
            record.result.as_ref().and_then(|(body, _)| codec::decode(body, RESULT_BODY_BYTES_MAX).ok());
        let wanted = if record.state.is_terminal() { 2 } else { 1 };
        Self {
            id: record.id.to_string(),
            namespace: namespace.into(),
            eval_id: record.job.to_string(),
            name: record.id.short(),
            node_id: record.node.to_string(),
            job_id: record.job.to_string(),
            job_version: 1,
            desired_state: State { state_type: wanted, message: String::new() },
            compute_state: State { state_type: record.state.number(), message: record.message.to_string() },
            published_result: published(record, body.as_ref()),
            run_output: body.as_ref().map(RunOutput::new).unwrap_or_default(),
            partition_index: record.slot,
            revision: 1,
            create_time: nanos(record.created),
            modify_time: nanos(record.modified),
            usage: body.as_ref().map(usage).unwrap_or_default(),
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
            Outcome::Failed { cause, .. } | Outcome::NodeFailed { cause } => (-1, cause.to_string()),
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

/// What happened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Event {
    /// A sentence.
    pub message: String,
    /// One word.
    pub topic: String,
    /// RFC 3339.
    pub timestamp: String,
    /// The sentence's parts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// One line of a job's story.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HistoryItem {
    /// Counts from 0.
    pub seq_num: u64,
    /// `JobLevel` or `ExecutionLevel`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// The job.
    #[serde(rename = "JobID")]
    pub job_id: String,
    /// Always 1.
    pub job_version: u64,
    /// Which attempt.
    #[serde(rename = "ExecutionID", skip_serializing_if = "String::is_empty")]
    pub execution_id: String,
    /// What happened.
    pub event: Event,
    /// RFC 3339.
    pub time: String,
}

impl HistoryItem {
    /// The line of this event.
    #[must_use]
    pub fn new(job: &str, sequence: u32, event: &JobEvent) -> Self {
        let (topic, message, mut details) = tell(event);
        if let Some(node) = event.node {
            details.insert("NodeID".into(), node.to_string());
            details.insert("NodeName".into(), event.label.to_string());
        }
        let execution_id = event.execution.map(|id| id.to_string()).unwrap_or_default();
        let time = rfc3339(event.at);
        Self {
            seq_num: u64::from(sequence),
            kind: if execution_id.is_empty() { "JobLevel" } else { "ExecutionLevel" }.into(),
            job_id: job.into(),
            job_version: 1,
            execution_id,
            event: Event { message, topic: topic.into(), timestamp: time.clone(), details },
            time,
        }
    }
}

/// The sentence of an event, in one word, in words and in parts.
fn tell(event: &JobEvent) -> (&'static str, String, BTreeMap<String, String>) {
    let mut details = BTreeMap::new();
    let mut detail = |key: &str, value: String| _ = details.insert(key.to_owned(), value);
    let node = &event.label;
    let (topic, message) = match &event.what {
        What::Submitted => ("Submitted", "submitted".to_owned()),
        What::Asked { nodes, slots } => {
            detail("Nodes", nodes.to_string());
            let plural = if *nodes == 1 { "node" } else { "nodes" };
            let runs = if *slots == 1 { String::new() } else { format!(" for {slots} runs") };
            ("Asked", format!("asked {nodes} {plural}{runs}"))
        }
        What::Bid { wait_ms, bytes_held } => {
            detail("WaitMillis", wait_ms.to_string());
            detail("BytesHeld", bytes_held.to_string());
            let wait =
                if *wait_ms == 0 { "could start at once".into() } else { format!("could start in {wait_ms} ms") };
            let held = match bytes_held {
                0 => String::new(),
                bytes => format!(", holds {} of what it needs", crate::job::format_bytes(*bytes)),
            };
            ("Bid", format!("{node} bids: {wait}{held}"))
        }
        What::Declined { reason } => ("Declined", format!("{node} declines: {reason}")),
        What::Awarded { why } => {
            detail("Why", why.to_string());
            ("Awarded", if why.is_empty() { format!("{node} wins") } else { format!("{node} wins: {why}") })
        }
        What::Refused { reason } => ("Refused", format!("{node} refuses the award: {reason}")),
        What::Phase(phase) => match phase {
            Phase::Unknown | Phase::Queued => ("Waiting", format!("{node} has it in its queue")),
            Phase::Preparing => ("Preparing", format!("{node} fetches the inputs")),
            Phase::Running => ("Running", format!("{node} runs it")),
            Phase::Publishing => ("Publishing", format!("{node} stores the result")),
            Phase::Withheld => ("Withheld", format!("{node} keeps the result until its operator lets it out")),
            Phase::Ended => ("Ended", format!("{node} is done")),
        },
        What::Open { ports } => {
            let ports = ports.iter().map(|port| format!("{} at port {}", &*port.name, port.host)).collect::<Vec<_>>();
            detail("Ports", ports.join(", "));
            ("Open", format!("{node} answers for it: {}", ports.join(", ")))
        }
        What::Version { number } => {
            detail("Version", number.to_string());
            ("Version", format!("version {number} is submitted"))
        }
        What::Again { rest_ms: 0 } => ("Again", "is started again at once".to_owned()),
        What::Again { rest_ms } => {
            detail("RestMillis", rest_ms.to_string());
            ("Again", format!("is started again in {} s", *rest_ms as f64 / 1_000.0))
        }
        What::GivenUp => ("GivenUp", format!("{node} is given up; the others go on")),
        What::Suspected => ("Suspected", format!("{node} fell silent; a copy is started elsewhere")),
        What::Heard => ("Heard", format!("{node} is heard again")),
        What::Lost => ("Lost", format!("{node} is given up")),
        What::Result { exit_code: Some(code), size, .. } => {
            detail("ExitCode", code.to_string());
            detail("Size", size.to_string());
            let size = crate::job::format_bytes(*size);
            ("Result", format!("{node}'s program exited {code} and left {size}"))
        }
        What::Result { exit_code: None, cause, .. } => ("Result", format!("{node} reports: {cause}")),
        What::Accepted { root } => {
            detail("CID", root.to_string());
            ("Accepted", format!("{node}'s result is held here: {root}"))
        }
        What::Cancelled { reason } => ("Cancelled", format!("{node} is told to stop: {reason}")),
        What::Queued { reason } => ("Queued", format!("no place is free: {reason}")),
        What::Ended { state, message } => {
            detail("State", state.name().into());
            let name = state.name().to_lowercase();
            (state.name(), if message.is_empty() { name } else { format!("{name}: {message}") })
        }
    };
    (topic, message, details)
}

/// `GET /orchestrator/jobs/:id/results`: one item per accepted result, `{Type: ipfs, Params: {CID}}`.
pub type Results = Page<SpecConfig>;

/// A frame of `GET /orchestrator/jobs/:id/logs`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogLine {
    /// 1 is stdout, 2 is stderr.
    #[serde(rename = "Type")]
    pub kind: u8,
    /// With its line end, if it has one.
    pub line: String,
}

/// Every error of the API.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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
