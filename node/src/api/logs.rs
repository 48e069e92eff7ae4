//! What a program prints, over WebSocket: live from the node that runs it, or from its result.

use std::collections::HashMap;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use bacnode_protocol::api::{LogFrame, LogLine};
use bacnode_protocol::content::Cid;
use bacnode_protocol::id::JobId;
use bacnode_protocol::job::state::ExecutionState;
use bacnode_protocol::record::ExecutionRecord;
use tokio::sync::mpsc;

use super::Api;
use super::error::ApiError;
use super::jobs::{own_is_led, shown_execution};
use super::openapi::Errors;
use super::page::Params;
use crate::network::LogPiece;

/// How often a job without an attempt is looked at.
const POLL: std::time::Duration = std::time::Duration::from_millis(100);
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
    own_is_led(&api, &id).await?;
    let (id, ..) = shown_execution(&api, &id, wanted.as_deref())?;
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
        let Ok((_, execution, ended)) = shown_execution(&api, &name, wanted.as_deref()) else {
            break "the job is gone".to_owned();
        };
        if let Some(execution) = &execution
            && of.replace(execution.id).is_some_and(|before| before != execution.id)
        {
            sent.clear();
        }
        match execution {
            Some(execution) if execution.state.is_terminal() => {
                break from_result(&api, &execution, &sent, tail, &mut socket).await.err().unwrap_or_default();
            }
            Some(execution) if execution.state == ExecutionState::Running => {
                if let Some(lines) = tail.take() {
                    pass_over(&api, &execution, lines, &mut sent).await;
                }
                match from_run(&api, &execution, follow, &mut sent, &mut socket).await {
                    Ok(()) if !follow => break String::new(),
                    Ok(()) | Err(None) => {}
                    Err(Some(error)) => break error,
                }
            }
            _ if ended || !follow => break String::new(),
            _ => {}
        }
        tokio::time::sleep(POLL).await;
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

/// What a run prints, from its start.
async fn pieces_of(api: &Api, execution: &ExecutionRecord, follow: bool) -> Option<mpsc::Receiver<LogPiece>> {
    if execution.node != api.network.me {
        return api.network.logs_from(execution.node, execution.id, follow).await.ok();
    }
    let (sender, pieces) = mpsc::channel(16);
    let (runner, me, id) = (api.runner.clone(), api.network.me, execution.id);
    tokio::spawn(async move { crate::network::follow_run(&runner, &me, id, follow, sender).await });
    Some(pieces)
}

/// Takes all but the last lines of what a run has printed so far for sent.
async fn pass_over(api: &Api, execution: &ExecutionRecord, lines: usize, sent: &mut HashMap<u8, usize>) {
    let mut printed: HashMap<u8, Vec<u8>> = HashMap::new();
    if let Some(mut pieces) = pieces_of(api, execution, false).await {
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

/// Follows a run where it is. `Err(None)` if that is not possible just now.
async fn from_run(
    api: &Api,
    execution: &ExecutionRecord,
    follow: bool,
    sent: &mut HashMap<u8, usize>,
    socket: &mut WebSocket,
) -> Result<(), Option<String>> {
    let mut pieces = pieces_of(api, execution, follow).await.ok_or(None)?;
    // A run is followed from its start; what was sent before is left out.
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

async fn from_result(
    api: &Api,
    execution: &ExecutionRecord,
    sent: &HashMap<u8, usize>,
    tail: Option<usize>,
    socket: &mut WebSocket,
) -> Result<(), String> {
    let Some(body) = execution.body() else { return Ok(()) };
    for (stream, name, head) in [(1u8, "stdout", &body.stdout), (2, "stderr", &body.stderr)] {
        let bytes = match body.root {
            Some(root) => read_log(api, root, name).await.unwrap_or_else(|| head.bytes.to_vec()),
            None => head.bytes.to_vec(),
        };
        let passed = tail.map_or(0, |lines| last_lines(&bytes, lines));
        let skip = sent.get(&stream).copied().unwrap_or(0).max(passed);
        for chunk in bytes.get(skip..).unwrap_or_default().chunks(PIECE_BYTES) {
            let piece = LogPiece { stream, bytes: chunk.to_vec() };
            send(socket, &piece).await.map_err(Option::unwrap_or_default)?;
        }
    }
    Ok(())
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
