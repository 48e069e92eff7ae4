//! A job's story as it unfolds.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bacnode_protocol::api::HistoryItem;
use bacnode_protocol::id::JobId;
use bacnode_protocol::record::{JobEvent, What};
use tokio::sync::{broadcast, mpsc};

use super::Api;
use super::error::ApiError;
use super::jobs::{is_settled, led_elsewhere, resolve};
use super::openapi::Errors;
use crate::driver::Event;
use crate::network::Observed;

/// How long nothing is told before the store is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// One [`HistoryItem`] a line, until the job has ended.
#[utoipa::path(
    get,
    path = "/jobs/{id}/events",
    tag = "network",
    operation_id = "followJob",
    params(("id" = String, Path, description = "id, the start of one, or name")),
    responses((status = 200, content_type = "application/x-ndjson", body = HistoryItem, description = "one a line, until the job has ended"), Errors)
)]
pub(super) async fn follow(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id = resolve(&api, &id)?;
    let (lines, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(64);
    tokio::spawn(async move { tell(&api, id, lines).await });
    let stream =
        futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response())
}

/// Everything that happens to this node's jobs, and who comes and goes, as server-sent events.
#[utoipa::path(
    get,
    path = "/events",
    tag = "network",
    operation_id = "followEverything",
    responses((status = 200, content_type = "text/event-stream", description = "events `job`, `joined`, `left`, `missed`", body = String), Errors)
)]
pub(super) async fn everything(State(api): State<Api>) -> Result<Response, ApiError> {
    let observed = api.network.observed.subscribe();
    let next = |mut observed: broadcast::Receiver<Observed>| async move {
        let event = match observed.recv().await {
            Ok(Observed::Job(job, sequence, event)) => {
                // Which version it was of, its history says.
                let item = HistoryItem::new(&job.to_string(), 0, sequence, &event);
                SseEvent::default().event("job").json_data(item)
            }
            Ok(Observed::Joined(node, name)) => SseEvent::default()
                .event("joined")
                .json_data(serde_json::json!({ "PeerId": node.to_string(), "Name": name })),
            Ok(Observed::Left(node, name)) => SseEvent::default()
                .event("left")
                .json_data(serde_json::json!({ "PeerId": node.to_string(), "Name": name })),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                SseEvent::default().event("missed").json_data(serde_json::json!({ "Events": missed }))
            }
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        Some((event, observed))
    };
    let stream = futures::stream::unfold(observed, next);
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}

async fn tell(api: &Api, id: JobId, lines: mpsc::Sender<Result<Bytes, std::io::Error>>) {
    let name = id.to_string();
    let (mut next, mut version) = (0, 1);
    loop {
        // Watch before reading, so that nothing falls between.
        let Ok(mut watching) = api.ask(|answer| Event::Watch(id, answer)).await else { return };
        let Ok(mut known) = api.store.events(&id, next) else { return };
        let ends = |event: &JobEvent| matches!(event.what, What::Ended { .. });
        if known.iter().any(|(_, event)| ends(event)) && !is_settled(api, &id).await {
            known.retain(|(_, event)| !ends(event));
        }
        let mut queued: std::collections::VecDeque<_> = known.into();
        loop {
            let item = match queued.pop_front() {
                Some(item) => Some(item),
                None => match tokio::time::timeout(LOOK_AGAIN, watching.recv()).await {
                    Ok(item) => item,
                    Err(_) => match untold_end(api, &id).await {
                        Some(end) => {
                            next = 0;
                            Some(end)
                        }
                        None => break,
                    },
                },
            };
            // Closed: we were too slow, and read on from the store.
            let Some((sequence, event)) = item else { break };
            if sequence < next {
                continue;
            }
            next = sequence + 1;
            let ended = ends(&event);
            if let What::Version { number } = event.what {
                version = number;
            }
            let mut line = serde_json::to_vec(&HistoryItem::new(&name, version, sequence, &event)).unwrap_or_default();
            line.push(b'\n');
            if lines.send(Ok(line.into())).await.is_err() || ended {
                return;
            }
        }
    }
}

/// The end of a job, if it has one that nobody told: another node led it then, perhaps, whose story this node has now.
async fn untold_end(api: &Api, id: &JobId) -> Option<(u32, JobEvent)> {
    let (_, state) = api.store.job(id).ok()??;
    state.filter(|state| state.state.is_terminal())?;
    if led_elsewhere(api, id).ok()?.is_some() || !is_settled(api, id).await {
        return None;
    }
    let events = api.store.events(id, 0).ok()?;
    events.into_iter().rev().find(|(_, event)| matches!(event.what, What::Ended { .. }))
}
