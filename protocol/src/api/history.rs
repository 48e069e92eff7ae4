//! A job's story.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::jobs::rfc3339;
use crate::record::{JobEvent, What};
use crate::wire::market::Phase;

/// What happened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
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
    /// The job's version then.
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
    pub fn new(job: &str, version: u32, sequence: u32, event: &JobEvent) -> Self {
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
            job_version: version.into(),
            execution_id,
            event: Event { message, topic: topic.into(), timestamp: time.clone(), details },
            time,
        }
    }
}

/// The lines of a job's story, each with the version that the job had then; it has this one now.
pub fn history(job: &str, version: u32, events: &[(u32, JobEvent)]) -> Vec<HistoryItem> {
    let is_new = |event: &JobEvent| u32::from(matches!(event.what, What::Version { .. }));
    // Of a long story the beginning is not there any more.
    let mut version = version.saturating_sub(events.iter().map(|(_, event)| is_new(event)).sum());
    let line = |(sequence, event): &(u32, JobEvent)| {
        version += is_new(event);
        HistoryItem::new(job, version, *sequence, event)
    };
    events.iter().map(line).collect()
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
        What::Adopted { from } => {
            detail("From", from.to_string());
            ("Adopted", format!("{node} leads it now: {from} is not heard, or gave it up"))
        }
        What::OneCopy { size: 0 } => {
            ("OneCopy", "what it reads is held here alone: no guardian could hold it in time".to_owned())
        }
        What::OneCopy { size } => {
            detail("Size", size.to_string());
            let size = crate::job::format_bytes(*size);
            ("OneCopy", format!("no guardian holds a copy of it ({size})"))
        }
        What::FewCopies { copies, wanted } => {
            ("FewCopies", format!("{copies} nodes hold it, and not the {wanted} that should"))
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
