//! `job`: list, describe, executions, history, versions, logs, get, rerun, stop, validate.

use std::collections::BTreeMap;

use bacnode_protocol::api::{
    Adoption, Execution, GetJobResponse, HistoryItem, Job as JobInfo, JobGroup, LetOut, LogFrame, Page, RerunRequest,
    Versions, Withheld,
};
use bacnode_protocol::job::{ValidJob, format_bytes};
use futures::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{download, submit};
use crate::args::{Format, Job};
use crate::client::{Client, segment};
use crate::error::{Failure, Result};
use crate::output;
use crate::socket;

pub(super) async fn run(client: &Client, format: Format, command: Job) -> Result<()> {
    match command {
        Job::List { limit, reverse, labels, namespace, order_by, next_token } => {
            let [labels, namespace] = [labels, namespace].map(|text| segment(&text.unwrap_or_default()));
            let (reverse, token) = (!reverse, segment(&next_token));
            let query = format!(
                "limit={limit}&reverse={reverse}&labels={labels}&namespace={namespace}&order_by={order_by}&next_token={token}"
            );
            list(client, format, &query).await
        }
        Job::Describe { job } => describe(client, format, &job).await,
        Job::Executions { job, all_versions } => {
            let path = format!("orchestrator/jobs/{}/executions?all_job_versions={all_versions}", segment(&job));
            executions(format, client.every_page(&path).await?)
        }
        Job::History { job, event_type, execution } => {
            let path = format!("orchestrator/jobs/{}/history?event_type={event_type}", segment(&job));
            history(format, client.every_page(&format!("{path}&execution_id={}", segment(&execution))).await?)
        }
        Job::Versions { job } => {
            let answer: Versions = client.get(&format!("orchestrator/jobs/{}/versions", segment(&job))).await?;
            versions(format, &answer.items)
        }
        Job::Rerun { job, version, waiting } => {
            let request = RerunRequest { job_version: version, reason: String::new() };
            let known: GetJobResponse = client.get(&format!("orchestrator/jobs/{}", segment(&job))).await?;
            let endless = ["service", "daemon"].contains(&known.job.kind.as_str());
            let put = client.put(&format!("orchestrator/jobs/{}/rerun", segment(&job)), &request).await?;
            submit::follow(client, put, endless, waiting).await
        }
        Job::Logs { job, follow, tail, execution } => logs(client, &job, follow, tail, execution.as_deref()).await,
        Job::Get { job, dir, force } => {
            let dir = dir.unwrap_or_else(|| format!("job-{}", job.chars().take(17).collect::<String>()).into());
            download::results(client, &job, &dir, force).await
        }
        Job::Stop { job, reason } => {
            let request = client.request(Method::DELETE, &format!("orchestrator/jobs/{}", segment(&job)));
            client.send(request.json(&json!({ "reason": reason }))).await?;
            output::note(&format!("{} {}", output::green("stopped"), output::plain(&job)));
            Ok(())
        }
        Job::Release { id: None, .. } => {
            let waiting: Vec<Withheld> = client.get("network/withheld").await?;
            withheld(format, &waiting)
        }
        Job::Release { id: Some(id), refuse } => {
            let request = client.request(Method::POST, &format!("network/withheld/{}", segment(&id)));
            let done: Vec<Withheld> = client.json(request.json(&LetOut { granted: !refuse })).await?;
            let word = if refuse { "kept back" } else { "let out" };
            output::note(&format!("{} {} of {}", output::green(word), count(done.len(), "result"), output::plain(&id)));
            Ok(())
        }
        Job::Adopt { id: None, .. } => {
            let kept: Vec<JobGroup> = client.get("network/groups").await?;
            groups(format, &kept)
        }
        Job::Adopt { id: Some(id), force } => {
            let request = client.request(Method::POST, &format!("network/groups/{}", segment(&id)));
            let group: JobGroup = client.json(request.json(&Adoption { force })).await?;
            output::note(&format!("{} the jobs of {}", output::green("leads"), output::plain(&group.owner)));
            Ok(())
        }
        Job::Validate { spec, vars } => {
            let (spec, _) = submit::read(&spec, &submit::Template { vars: &vars, ..submit::Template::default() })?;
            for warning in &ValidJob::new(submit::without_files(&spec))?.warnings {
                output::note(&format!("warning: {warning}"));
            }
            output::note(&output::green("the spec is valid"));
            Ok(())
        }
    }
}

fn count(number: usize, of: &str) -> String {
    if number == 1 { format!("1 {of}") } else { format!("{number} {of}s") }
}

fn withheld(format: Format, waiting: &[Withheld]) -> Result<()> {
    let row = |one: &Withheld| {
        vec![
            one.execution_id.clone(),
            one.job_id.clone(),
            one.name.clone(),
            output::ago(one.since.saturating_mul(1_000_000)),
            format_bytes(one.size),
            one.cid.clone(),
        ]
    };
    let rows: Vec<_> = waiting.iter().map(row).collect();
    output::rows(format, &waiting, &["execution", "job", "for", "since", "size", "cid"], &rows)
}

fn groups(format: Format, kept: &[JobGroup]) -> Result<()> {
    let row = |group: &JobGroup| {
        let (works, open) = (if group.works { "yes" } else { "" }, group.open_jobs.to_string());
        let role = if group.role == "leader" {
            format!("leader{}", if works.is_empty() { ", alone" } else { "" })
        } else {
            group.role.clone()
        };
        vec![group.owner.clone(), group.leader.clone(), group.members.join(", "), role, open]
    };
    let rows: Vec<_> = kept.iter().map(row).collect();
    output::rows(format, &kept, &["jobs of", "led by", "kept by", "here", "open"], &rows)
}

async fn list(client: &Client, format: Format, query: &str) -> Result<()> {
    let page: Page<JobInfo> = client.get(&format!("orchestrator/jobs?{query}")).await?;
    let row = |job: &JobInfo| {
        let message = job.state.message.lines().next().unwrap_or_default().to_owned();
        let (kind, state) = (job.kind.clone(), job.state.state_type.clone());
        vec![job.id.clone(), job.name.clone(), kind, state, output::ago(job.create_time), message]
    };
    let headings = ["id", "name", "type", "state", "submitted", "why"];
    output::rows(format, &page.items, &headings, &page.items.iter().map(row).collect::<Vec<_>>())?;
    if format == Format::Table && !page.next_token.is_empty() {
        output::note(&output::dim(&format!("more with --next-token {}", page.next_token)));
    }
    Ok(())
}

fn versions(format: Format, versions: &[JobInfo]) -> Result<()> {
    let row = |job: &JobInfo| {
        vec![
            job.version.to_string(),
            job.id.clone(),
            job.state.state_type.clone(),
            output::ago(job.modify_time),
            job.count.to_string(),
        ]
    };
    let headings = ["version", "id", "state", "changed", "count"];
    output::rows(format, &versions, &headings, &versions.iter().map(row).collect::<Vec<_>>())
}

const EXECUTION_HEADINGS: [&str; 7] = ["id", "node", "slot", "state", "ports", "result", "why"];

fn executions(format: Format, executions: Vec<Execution>) -> Result<()> {
    output::rows(format, &executions, &EXECUTION_HEADINGS, &execution_rows(&executions))
}

/// Attempts with the nodes that ran them, as lines.
pub(super) fn execution_table(executions: &[Execution]) -> Vec<String> {
    output::table(&EXECUTION_HEADINGS, &execution_rows(executions))
}

fn execution_rows(executions: &[Execution]) -> Vec<Vec<String>> {
    let row = |execution: &Execution| {
        vec![
            execution.id.clone(),
            execution.node_id.clone(),
            execution.partition_index.to_string(),
            execution.state().map_or("Unknown", |state| state.name()).to_owned(),
            ports(execution),
            execution.published_result.params.get("CID").and_then(Value::as_str).unwrap_or_default().to_owned(),
            execution.compute_state.message.clone(),
        ]
    };
    executions.iter().map(row).collect()
}

/// `web at 20003, …`
fn ports(execution: &Execution) -> String {
    let ports = execution.ports.iter().map(|port| format!("{} at {}", port.name, port.host));
    ports.collect::<Vec<_>>().join(", ")
}

fn history(format: Format, items: Vec<HistoryItem>) -> Result<()> {
    let row = |item: &HistoryItem| vec![item.time.clone(), item.event.topic.clone(), item.event.message.clone()];
    output::rows(format, &items, &["time", "event", "what"], &items.iter().map(row).collect::<Vec<_>>())
}

/// Prints what a program printed: its stdout to stdout, its stderr to stderr.
pub(super) async fn logs(
    client: &Client,
    job: &str,
    follow: bool,
    tail: Option<u64>,
    execution: Option<&str>,
) -> Result<()> {
    let path = format!(
        "orchestrator/jobs/{}/logs?follow={follow}&execution_id={}{}",
        segment(job),
        execution.map(segment).unwrap_or_default(),
        tail.map(|lines| format!("&tail={lines}")).unwrap_or_default()
    );
    // A WebSocket handshake answers errors without our sentence; a look at the job first gives it.
    let _: GetJobResponse = client.get(&format!("orchestrator/jobs/{}", segment(job))).await?;
    let mut socket = socket::open(client, &path).await?;
    loop {
        let text = match socket.next().await {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Close(_))) => return Ok(()),
            Some(Ok(_)) => continue,
            Some(Err(_)) | None => return Err(Failure::failed("the connection broke off before the end of the logs")),
        };
        let frame: LogFrame = serde_json::from_str(&text).unwrap_or_default();
        if !frame.error.is_empty() {
            return Err(Failure::failed(frame.error));
        }
        let Some(piece) = frame.value else { continue };
        // A program's output is data for a file, and must not command a terminal.
        let line = if output::both_are_files() { piece.line } else { output::plain(&piece.line) };
        if piece.kind == 2 {
            use std::io::Write as _;
            let _ = std::io::stderr().write_all(line.as_bytes());
        } else if output::raw(line.as_bytes()).is_err() {
            return Ok(());
        }
    }
}

async fn describe(client: &Client, format: Format, job: &str) -> Result<()> {
    let answer: GetJobResponse =
        client.get(&format!("orchestrator/jobs/{}?include=executions,history", segment(job))).await?;
    if format != Format::Table {
        return output::structured(format, &answer);
    }
    let (job, executions) =
        (&answer.job, answer.executions.as_ref().map(|page| page.items.as_slice()).unwrap_or_default());
    let history = answer.history.as_ref().map(|page| page.items.as_slice()).unwrap_or_default();
    head(job, history);
    results(executions);
    drawing(job, history);
    story(history);
    Ok(())
}

fn field(name: &str, value: &str) {
    output::line(&format!("{name:<10}{}", output::plain(value)));
}

fn head(job: &JobInfo, history: &[HistoryItem]) {
    field("job", &job.id);
    if job.name != job.id {
        field("name", &job.name);
    }
    let span = match (history.first(), history.last()) {
        (Some(first), Some(last)) if job.is_terminal() => {
            let spent = millis(&last.time).saturating_sub(millis(&first.time));
            format!(" after {}", output::duration(spent))
        }
        _ => String::new(),
    };
    let state = &job.state.state_type;
    let painted = if state == "Completed" {
        output::green(state)
    } else if state == "Failed" {
        output::red(state)
    } else {
        output::bold(state)
    };
    output::line(&format!("{:<10}{painted}{span}", "state"));
    for (index, line) in job.state.message.lines().enumerate() {
        field(if index == 0 { "because" } else { "" }, line);
    }
    let Some(task) = job.tasks.first() else { return };
    let module = task.engine.params.iter().find(|(key, _)| key.eq_ignore_ascii_case("EntryModule"));
    let module = module.and_then(|(_, value)| value.as_str()).unwrap_or_default();
    let runs = match (job.kind.as_str(), job.count) {
        ("ops", _) => ", once on every node that matches".to_owned(),
        ("daemon", _) => ", kept running on every node that matches".to_owned(),
        ("service", count) => format!(", {count} kept running"),
        (_, 1) => String::new(),
        (_, count) => format!(", {count} runs"),
    };
    field("runs", &format!("{} {module}{runs}", task.engine.kind));
    if job.version > 1 {
        field("version", &job.version.to_string());
    }
    for (index, input) in task.input_sources.iter().enumerate() {
        let source = ["CID", "SourcePath"].iter().find_map(|key| input.source.params.get(*key)?.as_str());
        field(
            if index == 0 { "reads" } else { "" },
            &format!("{} ← {}", input.target, source.unwrap_or(&input.source.kind)),
        );
    }
}

fn results(executions: &[Execution]) {
    let mut done: Vec<_> = executions.iter().filter(|execution| execution.compute_state.state_type == 9).collect();
    done.sort_by_key(|execution| execution.partition_index);
    for (index, execution) in done.iter().enumerate() {
        let cid = execution.published_result.params.get("CID").and_then(Value::as_str).unwrap_or_default();
        let used = |name: &str| execution.usage.get(name).and_then(Value::as_u64).unwrap_or(0);
        let code = execution.run_output.exit_code;
        let moved = match (used("BytesHeld"), used("BytesIn")) {
            (0, 0) => String::new(),
            (held, moved) => format!(", {} of inputs lay there, {} moved", format_bytes(held), format_bytes(moved)),
        };
        field(if index == 0 { "result" } else { "" }, cid);
        field(
            "",
            &format!(
                "exit code {code}, {} of CPU, {} of memory{moved}",
                output::duration(used("CPUMillis")),
                format_bytes(used("MemoryPeak")),
            ),
        );
    }
    let printed = done.first().map(|execution| execution.run_output.stdout.as_str()).unwrap_or_default();
    for (index, line) in printed.lines().take(12).enumerate() {
        field(if index == 0 { "printed" } else { "" }, line);
    }
}

/// Attempts against time; what goes on is drawn to now.
fn drawing(job: &JobInfo, history: &[HistoryItem]) {
    let Some(last) = history.last() else { return };
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(since_epoch.as_millis()).unwrap_or(0) + millis("1970-01-01T00:00:00.000Z");
    let now = if job.is_terminal() { millis(&last.time) } else { now };
    let lines = super::timeline::draw(history, millis, now);
    if !lines.is_empty() {
        output::line("");
    }
    for line in lines {
        output::line(&format!("  {line}"));
    }
}

/// The story, a line each, with the time since the start; what a node says is gathered under the round it belongs to.
fn story(history: &[HistoryItem]) {
    let Some(first) = history.first() else { return };
    output::line("");
    let start = millis(&first.time);
    let mut nodes: BTreeMap<&str, usize> = BTreeMap::new();
    for item in history {
        if let Some(node) = item.event.details.get("NodeID") {
            let next = nodes.len();
            nodes.entry(node).or_insert(next);
        }
        let at = format!("+{}", output::duration(millis(&item.time).saturating_sub(start)));
        let text = output::plain(&item.event.message);
        let (mark, text) = match item.event.topic.as_str() {
            "Asked" => ("?", text),
            "Bid" => ("·", output::dim(&text)),
            "Declined" | "Refused" => ("✗", output::dim(&text)),
            "Awarded" => ("→", output::bold(&text)),
            "Running" => ("▶", text),
            "Suspected" | "Lost" => ("!", output::red(&text)),
            "Accepted" | "Completed" => ("✓", output::green(&text)),
            "Failed" => ("✗", output::red(&text)),
            _ => (" ", text),
        };
        let mut lines = text.lines();
        output::line(&format!("{at:>12} {mark} {}", lines.next().unwrap_or_default()));
        for line in lines {
            output::line(&format!("{:>14} {line}", ""));
        }
    }
}

/// Milliseconds since some day, from the API's own RFC 3339 times.
fn millis(time: &str) -> u64 {
    let number = |range: std::ops::Range<usize>| time.get(range).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Days from civil (Hinnant).
    let year = if month <= 2 { year.saturating_sub(1) } else { year };
    let month = (month + 9) % 12;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    ((days * 24 + number(11..13)) * 60 + number(14..16)) * 60_000 + number(17..19) * 1_000 + number(20..23)
}
