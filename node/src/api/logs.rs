//! What a program prints, over WebSocket: live from the node that runs it, from its result, or by way of the node that leads
//! its job.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use bacnode_protocol::api::{Execution, LogFrame, LogLine};
use bacnode_protocol::content::Cid;
use bacnode_protocol::id::{ExecutionId, JobId, NodeId};
use bacnode_protocol::job::state::ExecutionState;
use bacnode_protocol::record::ExecutionRecord;
use bacnode_protocol::wire::task::Source;
use tokio::sync::mpsc;

use super::Api;
use super::elsewhere::Told;
use super::error::ApiError;
use super::jobs::{Found, find, load};
use super::openapi::Errors;
use super::page::Params;
use crate::network::LogPiece;

/// How often a job without an attempt is looked at; and one that another node tells of.
const POLL: Duration = Duration::from_millis(100);
const POLL_ELSEWHERE: Duration = Duration::from_millis(500);
/// Bytes of a result's log in one message.
const PIECE_BYTES: usize = 64 << 10;

#[utoipa::path(
    get,
    path = "/jobs/{id}/logs",
    tag = "jobs",
    operation_id = "followLogs",
    params(
        ("id" = String, Path, description = "id, the start of one, or name"),
        ("follow" = Option<bool>, Query, description = "until it ends"),
        ("tail" = Option<u32>, Query, description = "only so many of the last lines of each stream, and what comes after them"),
        ("execution_id" = Option<String>, Query),
    ),
    responses((status = 101, description = "a WebSocket of `LogFrame`s"), Errors)
)]
pub(super) async fn follow(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, ApiError> {
    let wanted = params.text("execution_id").map(str::to_owned);
    // What cannot be followed is an HTTP error, not an empty stream.
    let (id, ..) = attempt(&api, &id, wanted.as_deref()).await?;
    let follow = params.flag("follow")?;
    let tail = match params.text("tail").filter(|text| !text.is_empty()) {
        Some(text) => {
            Some(text.parse().map_err(|_| ApiError::bad(format!("`tail`: `{text}` is not a number of lines")))?)
        }
        None => None,
    };
    // Offered by pages, which bear their token as another protocol's name, and want one of them answered.
    let upgrade = upgrade.protocols(["bacnode"]);
    Ok(upgrade.on_upgrade(move |socket| async move { tell(api, id, wanted, (follow, tail), socket).await }))
}

/// An attempt whose output is told.
struct Attempt {
    id: ExecutionId,
    state: ExecutionState,
    at: Place,
}

/// Where an attempt's output is to be had.
enum Place {
    /// By what is written here of it.
    Here(Box<ExecutionRecord>),
    /// By way of the node that leads its job.
    Elsewhere(JobId, NodeId),
}

impl Attempt {
    fn here(record: ExecutionRecord) -> Self {
        Self { id: record.id, state: record.state, at: Place::Here(Box::new(record)) }
    }

    fn elsewhere(told: &Execution, job: JobId, by: NodeId) -> Option<Self> {
        Some(Self { id: told.id.parse().ok()?, state: told.state()?, at: Place::Elsewhere(job, by) })
    }
}

/// A job's id, the attempt whose output shows what it does, or the one that is wanted, and whether the job has ended.
async fn attempt(api: &Api, text: &str, wanted: Option<&str>) -> Result<(JobId, Option<Attempt>, bool), ApiError> {
    let (id, attempts, accepted, ended) = match find(api, text).await? {
        Found::Here(record, job) => {
            let executions = api.store.executions(&record.id)?;
            let accepted = executions.iter().position(|execution| execution.accepted);
            let attempts: Vec<Attempt> = executions.into_iter().map(Attempt::here).collect();
            (record.id, attempts, accepted, job.is_terminal())
        }
        Found::Elsewhere(told) => {
            let Told { by, job } = *told;
            let id: JobId = job.job.id.parse().map_err(|_| ApiError::not_found("the job is gone"))?;
            let executions = job.executions.unwrap_or_default().items;
            let attempts: Vec<Attempt> =
                executions.iter().filter_map(|told| Attempt::elsewhere(told, id, by)).collect();
            let accepted = attempts.iter().position(|attempt| attempt.state == ExecutionState::Completed);
            (id, attempts, accepted, job.job.is_terminal())
        }
    };
    Ok((id, choose(attempts, accepted, wanted)?, ended))
}

/// The wanted one; else the accepted one, else the latest.
fn choose(
    mut attempts: Vec<Attempt>,
    accepted: Option<usize>,
    wanted: Option<&str>,
) -> Result<Option<Attempt>, ApiError> {
    let chosen = match wanted.filter(|wanted| !wanted.is_empty()) {
        Some(wanted) => {
            let found = attempts.iter().position(|attempt| attempt.id.to_string().starts_with(wanted));
            Some(found.ok_or_else(|| ApiError::not_found(format!("the job has no execution `{wanted}`")))?)
        }
        None => accepted
            .or_else(|| attempts.iter().rposition(|attempt| !attempt.state.is_terminal()))
            .or_else(|| attempts.len().checked_sub(1)),
    };
    Ok(chosen.map(|index| attempts.swap_remove(index)))
}

async fn tell(
    api: Api,
    job: JobId,
    wanted: Option<String>,
    (follow, mut tail): (bool, Option<usize>),
    mut socket: WebSocket,
) {
    // Another job may get its name, and another attempt its place.
    let (name, mut of, mut sent) = (job.to_string(), None, HashMap::new());
    let error = loop {
        let (attempt, ended) = match attempt(&api, &name, wanted.as_deref()).await {
            Ok((_, attempt, ended)) => (attempt, ended),
            Err(error) => break error.message,
        };
        if let Some(attempt) = &attempt
            && of.replace(attempt.id).is_some_and(|before| before != attempt.id)
        {
            sent.clear();
        }
        let is_here = attempt.as_ref().is_none_or(|attempt| matches!(attempt.at, Place::Here(_)));
        match attempt {
            Some(attempt) if attempt.state.is_terminal() || attempt.state == ExecutionState::Running => {
                let last = attempt.state.is_terminal();
                if let Some(lines) = tail.take() {
                    pass_over(&api, &attempt, lines, &mut sent).await;
                }
                match pass_on(&api, &attempt, follow && !last, &mut sent, &mut socket).await {
                    Ok(()) if last || !follow => break String::new(),
                    Err(None) if last => break "nobody tells of it just now".to_owned(),
                    Ok(()) | Err(None) => {}
                    Err(Some(error)) => break error,
                }
            }
            _ if ended || !follow => break String::new(),
            _ => {}
        }
        tokio::time::sleep(if is_here { POLL } else { POLL_ELSEWHERE }).await;
    };
    if !error.is_empty() {
        let frame = LogFrame { value: None, error };
        let _ = socket.send(Message::Text(serde_json::to_string(&frame).unwrap_or_default().into())).await;
    }
    let _ = socket.send(Message::Close(None)).await;
}

async fn send(socket: &mut WebSocket, piece: &LogPiece) -> Result<(), Option<String>> {
    let line = LogLine { kind: piece.stream, line: String::from_utf8_lossy(&piece.bytes).into_owned() };
    let frame = LogFrame { value: Some(line), error: String::new() };
    let text = serde_json::to_string(&frame).unwrap_or_default();
    socket.send(Message::Text(text.into())).await.map_err(|_| Some(String::new()))
}

/// What an attempt of a job that this node leads prints or printed, for another node, unless that may tell of data that does
/// not leave this one.
pub(super) async fn relay(api: &Api, job: JobId, id: ExecutionId, follow: bool, to: mpsc::Sender<LogPiece>) {
    let Ok(Some(attempt)) = open_attempt(api, &job, &id) else { return };
    let Some(mut pieces) = pieces_of(api, &attempt, follow).await else { return };
    while let Some(piece) = pieces.recv().await {
        if to.send(piece).await.is_err() {
            return;
        }
    }
}

/// An attempt of a job that this node leads, if anybody may read what it prints. Whoever asks is not asked on for: that could
/// go round in a circle.
fn open_attempt(api: &Api, job: &JobId, id: &ExecutionId) -> Result<Option<Attempt>, ApiError> {
    let (record, _) = load(api, &job.to_string())?;
    let Some(execution) = api.store.executions(job)?.into_iter().find(|execution| execution.id == *id) else {
        return Ok(None);
    };
    let reads_here = execution.node == api.network.me
        && record.task.inputs.iter().any(|input| matches!(input.source, Source::Local { .. }));
    let root = execution.body().and_then(|body| body.root);
    let stays = record.only_here
        || reads_here
        || root.map(|root| api.content.private().holds(&root)).transpose()? == Some(true);
    Ok((!stays).then(|| Attempt::here(execution)))
}

/// What an attempt prints, from its start.
async fn pieces_of(api: &Api, attempt: &Attempt, follow: bool) -> Option<mpsc::Receiver<LogPiece>> {
    let execution = match &attempt.at {
        Place::Elsewhere(job, by) => return api.network.output_from(*by, *job, attempt.id, follow).await.ok(),
        Place::Here(execution) => execution,
    };
    let ended = execution.state.is_terminal();
    if !ended && execution.node != api.network.me {
        return api.network.logs_from(execution.node, execution.id, follow).await.ok();
    }
    let (sender, pieces) = mpsc::channel(16);
    if ended {
        let (api, execution) = (api.clone(), execution.clone());
        tokio::spawn(async move { from_result(&api, &execution, sender).await });
    } else {
        let (runner, me, id) = (api.runner.clone(), api.network.me, execution.id);
        tokio::spawn(async move { crate::network::follow_run(&runner, &me, id, follow, sender).await });
    }
    Some(pieces)
}

/// Takes all but the last lines of what was printed so far for sent.
async fn pass_over(api: &Api, attempt: &Attempt, lines: usize, sent: &mut HashMap<u8, usize>) {
    let mut printed: HashMap<u8, Vec<u8>> = HashMap::new();
    if let Some(mut pieces) = pieces_of(api, attempt, false).await {
        while let Some(piece) = pieces.recv().await {
            printed.entry(piece.stream).or_default().extend(piece.bytes);
        }
    }
    sent.extend(printed.into_iter().map(|(stream, bytes)| (stream, last_lines(&bytes, lines))));
}

/// Where the last so many lines of a text begin.
fn last_lines(text: &[u8], lines: usize) -> usize {
    if lines == 0 {
        return text.len();
    }
    let whole = text.strip_suffix(b"\n").unwrap_or(text);
    let breaks = whole.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    breaks.map(|(at, _)| at + 1).nth(lines - 1).unwrap_or(0)
}

/// Passes on what an attempt prints. `Err(None)` if that is not possible just now.
async fn pass_on(
    api: &Api,
    attempt: &Attempt,
    follow: bool,
    sent: &mut HashMap<u8, usize>,
    socket: &mut WebSocket,
) -> Result<(), Option<String>> {
    let mut pieces = pieces_of(api, attempt, follow).await.ok_or(None)?;
    // It is told from its start; what was sent before is left out.
    let mut seen: HashMap<u8, usize> = HashMap::new();
    while let Some(mut piece) = pieces.recv().await {
        let (seen, sent) = (seen.entry(piece.stream).or_default(), sent.entry(piece.stream).or_default());
        let known = sent.saturating_sub(*seen).min(piece.bytes.len());
        *seen += piece.bytes.len();
        *sent = (*sent).max(*seen);
        piece.bytes.drain(..known);
        if !piece.bytes.is_empty() {
            send(socket, &piece).await?;
        }
    }
    Ok(())
}

async fn from_result(api: &Api, execution: &ExecutionRecord, to: mpsc::Sender<LogPiece>) {
    let Some(body) = execution.body() else { return };
    for (stream, name, head) in [(1u8, "stdout", &body.stdout), (2, "stderr", &body.stderr)] {
        let bytes = match body.root {
            Some(root) => read_log(api, root, name).await.unwrap_or_else(|| head.bytes.to_vec()),
            None => head.bytes.to_vec(),
        };
        for chunk in bytes.chunks(PIECE_BYTES) {
            if to.send(LogPiece { stream, bytes: chunk.to_vec() }).await.is_err() {
                return;
            }
        }
    }
}

async fn read_log(api: &Api, root: Cid, name: &'static str) -> Option<Vec<u8>> {
    let (content, max) = (api.content.clone(), usize::try_from(api.config.limits.log_bytes).unwrap_or(usize::MAX));
    let read = move || {
        // A part of it will do, too.
        let content = content.holder(&root).ok()?.unwrap_or(&content);
        content.head(&content.resolve(&root, name).ok()?, max).ok()
    };
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn the_last_lines_are_whole_ones() {
        let tail = |text: &'static str, lines| &text[last_lines(text.as_bytes(), lines)..];
        assert_eq!(tail("a\nb\nc\n", 1), "c\n");
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a\nb\n", 9), "a\nb\n");
        assert_eq!((tail("a\n", 0), tail("", 3), tail("\n\n", 1)), ("", "", "\n"));
    }
}
