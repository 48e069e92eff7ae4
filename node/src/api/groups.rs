//! Groups that keep jobs: those that this node is in.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bacnode_protocol::api::{Adoption, JobGroup};
use bacnode_protocol::id::{JobId, NodeId};

use super::Api;
use super::error::ApiError;
use super::openapi::Errors;
use crate::driver::{Event, GroupView};

fn shown(api: &Api, group: &GroupView) -> JobGroup {
    let view = api.network.view();
    let status = &group.status;
    JobGroup {
        owner_id: status.charter.owner.to_string(),
        owner: view.label(&status.charter.owner),
        leader_id: status.charter.leader.to_string(),
        leader: view.label(&status.charter.leader),
        members: status.charter.members.iter().map(|node| view.label(node)).collect(),
        member_ids: status.charter.members.iter().map(ToString::to_string).collect(),
        role: status.role.to_owned(),
        epoch: status.charter.epoch,
        open_jobs: u64::try_from(status.open).unwrap_or(u64::MAX),
        works: status.works,
    }
}

/// Who keeps whose jobs, as far as this node has a part in it.
#[utoipa::path(
    get,
    path = "/groups",
    tag = "network",
    operation_id = "listGroups",
    responses((status = 200, body = Vec<JobGroup>), Errors)
)]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Vec<JobGroup>>, ApiError> {
    Ok(Json(api.groups.all().iter().map(|group| shown(&api, group)).collect()))
}

/// Leads an owner's jobs on by its user's word: the other members are gone for good.
#[utoipa::path(
    post,
    path = "/groups/{owner}",
    tag = "network",
    operation_id = "adoptGroup",
    params(("owner" = String, Path, description = "PeerID of the owner, or the id of one of its jobs")),
    request_body = Adoption,
    responses((status = 200, body = JobGroup), Errors)
)]
pub(super) async fn adopt(
    State(api): State<Api>,
    Path(text): Path<String>,
    body: Bytes,
) -> Result<Json<JobGroup>, ApiError> {
    let word: Adoption = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad(format!("the body is not a word on a group: {error}")))?;
    let tag = match (text.parse::<JobId>(), text.parse::<NodeId>()) {
        (Ok(job), _) => job.tag(),
        (_, Ok(owner)) => owner.tag(),
        _ => return Err(ApiError::not_found(format!("`{text}` is neither the id of a job nor a PeerID"))),
    };
    let found = |api: &Api| api.groups.all().into_iter().find(|group| group.status.charter.owner.tag() == tag);
    let Some(group) = found(&api) else {
        return Err(ApiError::not_found("this node keeps none of those jobs")
            .hint("`bacnode job adopt` without an id lists whose it keeps"));
    };
    if !group.leads && !word.force {
        let message = "the other members could not be asked, or do not agree yet";
        return Err(ApiError::new(StatusCode::CONFLICT, "NotAgreed", message).hint(
            "a silent leader is replaced by itself while two of three members are there; if the others are gone for good: --force",
        ));
    }
    if !(group.leads && group.status.works) {
        api.ask(|answer| Event::Adopt(group.status.charter.owner, answer)).await?;
        tracing::warn!(owner = group.status.charter.owner.short(), "jobs are led on by their user's word alone");
    }
    let group = found(&api).unwrap_or(group);
    Ok(Json(shown(&api, &group)))
}
