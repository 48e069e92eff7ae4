//! Results that wait for the operator's word, since they were made of data that does not leave this node.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bacnode_protocol::api::{LetOut, Withheld};
use bacnode_protocol::compute;

use super::Api;
use super::error::ApiError;
use super::openapi::Errors;
use crate::driver::Event;

fn shown(api: &Api, withheld: &compute::Withheld) -> Withheld {
    Withheld {
        execution_id: withheld.execution.to_string(),
        job_id: withheld.job.to_string(),
        partition_index: withheld.slot,
        peer_id: withheld.owner.to_string(),
        name: api.network.view().label(&withheld.owner),
        since: withheld.since.0,
        cid: withheld.root.map(|root| root.to_string()).unwrap_or_default(),
        size: withheld.size,
    }
}

/// What waits.
#[utoipa::path(
    get,
    path = "/withheld",
    tag = "network",
    operation_id = "listWithheld",
    responses((status = 200, body = Vec<Withheld>), Errors)
)]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Vec<Withheld>>, ApiError> {
    Ok(Json(api.ask(Event::Withheld).await?.iter().map(|withheld| shown(&api, withheld)).collect()))
}

/// The operator's word on one result, or on all of one job.
#[utoipa::path(
    post,
    path = "/withheld/{id}",
    tag = "network",
    operation_id = "decideWithheld",
    params(("id" = String, Path, description = "id, the start of one, or name")),
    request_body = LetOut,
    responses((status = 200, body = Vec<Withheld>), Errors)
)]
pub(super) async fn decide(
    State(api): State<Api>,
    Path(text): Path<String>,
    body: Bytes,
) -> Result<Json<Vec<Withheld>>, ApiError> {
    let word: LetOut = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad(format!("the body is not a word on a result: {error}")))?;
    let meant = |withheld: &compute::Withheld| {
        let starts = |id: String| text.len() >= 4 && id.starts_with(&text);
        starts(withheld.execution.to_string()) || starts(withheld.job.to_string())
    };
    let meant: Vec<compute::Withheld> = api.ask(Event::Withheld).await?.into_iter().filter(meant).collect();
    if meant.is_empty() {
        return Err(ApiError::not_found(format!("no result of `{text}` waits here"))
            .hint("`bacnode job release` without an id lists those that do"));
    }
    let jobs: std::collections::BTreeSet<_> = meant.iter().map(|withheld| withheld.job).collect();
    if jobs.len() > 1 {
        return Err(ApiError::bad(format!("`{text}` is the start of several jobs' ids")).hint("write more of it"));
    }
    let mut done = Vec::with_capacity(meant.len());
    for withheld in &meant {
        // To the end, also when whoever asked does not wait for it.
        let (task_api, one) = (api.clone(), withheld.clone());
        let decided = tokio::spawn(async move { let_out(&task_api, &one, word.granted).await }).await;
        decided.map_err(|_| ApiError::unavailable("letting the result out broke down"))??;
        done.push(shown(&api, withheld));
    }
    Ok(Json(done))
}

async fn let_out(api: &Api, withheld: &compute::Withheld, granted: bool) -> Result<(), ApiError> {
    let (content, reason) = (api.content.clone(), withheld.execution.to_string());
    let root = withheld.root.filter(|_| granted);
    if let Some(root) = root {
        let (content, reason) = (content.clone(), reason.clone());
        let adopted = tokio::task::spawn_blocking(move || content.adopt(content.private(), &root, &reason)).await;
        let adopted = adopted.map_err(|_| ApiError::unavailable("work on the content broke down"))?;
        adopted.map_err(|error| ApiError::unavailable(format!("the result cannot be let out: {error}")))?;
    }
    let waited = api.ask(|answer| Event::LetOut(withheld.execution, granted, answer)).await?;
    if let Some(root) = root {
        // It lies among what may be had now; or its owner has called it off meanwhile, and nobody wants it.
        let store = if waited { content.private().clone() } else { content };
        let unpinned = tokio::task::spawn_blocking(move || store.unpin(&root, &reason)).await;
        unpinned.map_err(|_| ApiError::unavailable("work on the content broke down"))??;
    }
    api.store.log().barrier().await;
    if waited {
        Ok(())
    } else {
        let message = format!("{} does not wait any more", withheld.execution);
        Err(ApiError::new(StatusCode::CONFLICT, "Gone", message))
    }
}
