//! Jobs: list, look at, stop.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use bacnode_protocol::api::{self, Execution, GetJobResponse, HistoryItem, Job, Page, Results, Versions};
use bacnode_protocol::id::{JobId, NodeId};
use bacnode_protocol::job::state::ExecutionState;
use bacnode_protocol::job::{Selector, SpecConfig};
use bacnode_protocol::record::{ExecutionRecord, JobRecord, JobStateRecord};
use bacnode_protocol::requester::Answer;
use serde_json::Value;

use super::elsewhere::Told;
use super::error::ApiError;
use super::openapi::{Errors, EventType, JobOrder, StopRequest, Stopped};
use super::page::{Params, token};
use super::submit::version_of;
use super::{Api, elsewhere};
use crate::driver::Event;

fn nowhere(text: &str) -> ApiError {
    let shown: String = text.chars().take(80).collect();
    ApiError::not_found(format!("there is no job `{shown}` at this node"))
        .hint("`bacnode job list` shows this node's jobs; ask the node at which it was submitted")
}

/// The job that `text` means: its id, a unique start of it, or its name (then the latest run).
pub(super) fn resolve(api: &Api, text: &str) -> Result<JobId, ApiError> {
    let not_here = || {
        let owner = text.parse::<JobId>().ok().and_then(|id| {
            let view = api.network.view();
            let owner = view.iter().map(|(node, _)| *node).find(|node| node.tag() == id.tag())?;
            (owner != api.network.me).then(|| view.label(&owner))
        });
        if let Some(owner) = owner {
            return ApiError::not_found(format!("the job is {owner}'s, which alone does that")).hint(
                "describe, executions, history and results are told by any node; for the rest ask that one (`--api`)",
            );
        }
        nowhere(text)
    };
    if let Ok(id) = text.parse::<JobId>() {
        return if api.store.job(&id)?.is_some() { Ok(id) } else { Err(not_here()) };
    }
    if text.starts_with("j-") && text.len() >= 4 {
        match api.store.jobs_with_prefix(text)?.as_slice() {
            [id] => return Ok(*id),
            [] => {}
            _ => {
                let message = format!("`{text}` is the start of several jobs' ids");
                return Err(ApiError::bad(message).hint("write more of it"));
            }
        }
    }
    // In any namespace: whoever has the same name twice says the id.
    api.store.latest_named(text)?.ok_or_else(not_here)
}

/// Who decides on this job, if others keep it with this node and another one does, or it is not known yet who.
pub(super) fn led_elsewhere(api: &Api, id: &JobId) -> Result<Option<NodeId>, ApiError> {
    let Some(group) = api.groups.of(id).filter(|group| !group.leads) else { return Ok(None) };
    let charter = group.status.charter;
    // An owner that is no member any more keeps nothing of it, but what it wrote itself.
    let outside = !charter.has(&api.network.me) && api.store.job(id)?.is_some();
    let known = outside || api.store.keeps(&charter.owner, id)?;
    Ok(known.then_some(charter.leader))
}

/// Waits a moment for this node to lead its own jobs, as it does right after it has come back.
pub(super) async fn own_is_led(api: &Api, text: &str) -> Result<(), ApiError> {
    let Ok(id) = resolve(api, text) else { return Ok(()) };
    let patience = tokio::time::Instant::now() + LEAD_MAX;
    while id.tag() == api.network.me.tag()
        && led_elsewhere(api, &id)?.is_some()
        && tokio::time::Instant::now() < patience
    {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Ok(())
}

/// How long a node that came back may take to lead its own jobs again.
const LEAD_MAX: std::time::Duration = std::time::Duration::from_secs(5);

pub(super) fn load(api: &Api, text: &str) -> Result<(JobRecord, Job), ApiError> {
    let id = resolve(api, text)?;
    if let Some(leader) = led_elsewhere(api, &id)? {
        let name = api.network.view().label(&leader);
        return Err(ApiError::unavailable(format!("the job is led by {name} now"))
            .hint("any node tells of it, and any of its members stops it"));
    }
    read(api, &id)
}

/// The job as it is written here.
fn read(api: &Api, id: &JobId) -> Result<(JobRecord, Job), ApiError> {
    let (record, state) = api.store.job(id)?.ok_or_else(|| ApiError::not_found("the job is gone"))?;
    let job = Job::new(&record, state.as_ref());
    Ok((record, job))
}

/// Where a job was found.
pub(super) enum Found {
    Here(Box<JobRecord>, Box<Job>),
    /// At a node that leads it, which tells this of it.
    Elsewhere(Box<Told>),
}

/// Looks for a job, here and elsewhere.
pub(super) async fn find(api: &Api, text: &str) -> Result<Found, ApiError> {
    own_is_led(api, text).await?;
    if let Ok(id) = resolve(api, text)
        && led_elsewhere(api, &id)?.is_some()
    {
        let own = id.tag() == api.network.me.tag();
        return match elsewhere::job(api, &id.to_string()).await {
            Ok(Some(told)) => Ok(Found::Elsewhere(Box::new(told))),
            // What this node knew of its own job when it last led it is better than nothing.
            _ if own || led_elsewhere(api, &id)?.is_none() => {
                let (record, job) = read(api, &id)?;
                Ok(Found::Here(Box::new(record), Box::new(job)))
            }
            Ok(None) => Err(nowhere(text)),
            Err(error) => Err(error),
        };
    }
    match load(api, text) {
        Ok((record, job)) => Ok(Found::Here(Box::new(record), Box::new(job))),
        Err(error) => match elsewhere::job(api, text).await? {
            Some(told) => Ok(Found::Elsewhere(Box::new(told))),
            // Its owner does not know of it either.
            None if text.parse::<JobId>().is_ok() => Err(nowhere(text)),
            None => Err(error),
        },
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Order {
    Created,
    Modified,
}

const ORDERS: [(&str, Order); 5] = [
    ("", Order::Created),
    ("created_at", Order::Created),
    ("create_time", Order::Created),
    ("modified_at", Order::Modified),
    ("modify_time", Order::Modified),
];

#[utoipa::path(
    get,
    path = "/jobs",
    tag = "jobs",
    operation_id = "listJobs",
    params(
        ("limit" = Option<u32>, Query, description = "items on the page, 100 without, at most 1000"),
        ("next_token" = Option<String>, Query, description = "of the page before", example = ""),
        ("reverse" = Option<bool>, Query, description = "the other way round"),
        ("order_by" = inline(Option<JobOrder>), Query),
        ("namespace" = Option<String>, Query, description = "`*` for all"),
        ("labels" = Option<String>, Query, description = "a selector, like `team=data,tier!=test`", example = "team=data"),
    ),
    responses((status = 200, body = Page<Job>), Errors)
)]
pub(super) async fn list(State(api): State<Api>, Query(params): Query<Params>) -> Result<Json<Page<Job>>, ApiError> {
    let order = params.one_of("order_by", &ORDERS)?;
    let reverse = params.flag("reverse")?;
    let namespace = params.text("namespace").filter(|namespace| *namespace != "*");
    let labels = params.text("labels").unwrap_or_default().parse::<Selector>();
    let labels = labels.map_err(|error| ApiError::bad(format!("`labels`: {error}")))?;
    let wanted = |record: &JobRecord| {
        // Those that it keeps for others are theirs.
        record.id.tag() == api.network.me.tag()
            && namespace.is_none_or(|namespace| namespace == &*record.namespace)
            // Reading each spec takes time: only for those who ask for it.
            && (labels.constraints().is_empty() || labels.selects(&Job::new(record, None).labels))
    };
    let shown = |(record, state): &(JobRecord, Option<JobStateRecord>)| Job::new(record, state.as_ref());
    if order == Order::Created {
        let page = api.store.jobs(reverse, params.cursor()?.as_deref(), params.limit()?, wanted)?;
        let next_token = page.next.map(|next| token(&next)).unwrap_or_default();
        return Ok(Json(Page { items: page.items.iter().map(shown).collect(), next_token }));
    }
    let mut changes = api.store.jobs_by_change()?;
    if reverse {
        changes.reverse();
    }
    let key = |(modified, id): &(u64, JobId)| [&modified.to_be_bytes()[..], &id.0].concat();
    // Looked at one by one: of most only the key is needed.
    let known = |(_, id): &(u64, JobId)| api.store.job(id).ok().flatten().is_some_and(|(record, _)| wanted(&record));
    let page = params.page_by(changes.into_iter().filter(known), key, reverse)?;
    let jobs = page.items.iter().filter_map(|(_, id)| api.store.job(id).ok().flatten());
    Ok(Json(Page { items: jobs.map(|job| shown(&job)).collect(), next_token: page.next_token }))
}

#[utoipa::path(
    get,
    path = "/jobs/{id}",
    tag = "jobs",
    operation_id = "getJob",
    params(
        ("id" = String, Path, description = "id, the start of one, or name"),
        ("include" = Option<String>, Query, pattern = "^((executions|history)(,(executions|history))*)?$", description = "`executions`, `history`, or both with a comma", example = "executions"),
        ("limit" = Option<u32>, Query, description = "items on the page, 100 without, at most 1000"),
        ("job_version" = Option<u32>, Query, description = "the newest without"),
    ),
    responses((status = 200, body = GetJobResponse), Errors)
)]
pub(super) async fn get(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> Result<Json<GetJobResponse>, ApiError> {
    let include: Vec<&str> = params.text("include").map(|text| text.split(',').collect()).unwrap_or_default();
    if let Some(other) = include.iter().find(|part| !["", "executions", "history"].contains(part)) {
        let message = format!("`include={other}`: must be history, executions or both");
        return Err(ApiError::bad(message));
    }
    let (with_executions, with_history) = (include.contains(&"executions"), include.contains(&"history"));
    let (record, mut job) = match find(&api, &id).await? {
        Found::Elsewhere(told) => {
            let history = told.job.history.filter(|_| with_history);
            let executions = told.job.executions.filter(|_| with_executions);
            return Ok(Json(GetJobResponse { history, executions, ..told.job }));
        }
        Found::Here(record, job) => (*record, *job),
    };
    if job.is_terminal() && !is_settled(&api, &record.id).await {
        return Err(ApiError::unavailable("the job has ended here, which the nodes that keep it have not heard yet")
            .hint("try again in a moment; `bacnode job adopt` shows who they are"));
    }
    let version = version_number(&params)?;
    if version != 0 {
        let (_, state) = api.store.job(&record.id)?.unwrap_or((record.clone(), None));
        job = Job::new(&version_of(&api, record.clone(), version)?, state.as_ref());
    }
    // Bacalhau's clients limit both by the same number, which is meant for lists; a story is told in full.
    let executions = with_executions.then(|| executions_of(&api, &record, |_| true)).transpose()?.map(Page::whole);
    let history = with_history.then(|| history_of(&api, &record)).transpose()?.map(Page::whole);
    Ok(Json(GetJobResponse { job, history, executions }))
}

/// Whether what is written of a job is on as many disks as it should be, or is so in a moment: nobody may see an end that a
/// power cut could take back, or whoever leads the job next.
pub(super) async fn is_settled(api: &Api, id: &JobId) -> bool {
    api.store.log().barrier().await;
    let settled = api.ask(|answer| Event::Settled(*id, answer));
    matches!(tokio::time::timeout(LEAD_MAX, settled).await, Ok(Ok(())))
}

fn version_number(params: &Params) -> Result<u32, ApiError> {
    Ok(params.number("job_version")?.map_or(0, |version| u32::try_from(version).unwrap_or(u32::MAX)))
}

fn executions_of(
    api: &Api,
    record: &JobRecord,
    wanted: impl Fn(&ExecutionRecord) -> bool,
) -> Result<Vec<Execution>, ApiError> {
    let executions = api.store.executions(&record.id)?;
    let executions = executions.iter().filter(|execution| wanted(execution));
    Ok(executions.map(|execution| Execution::new(execution, &record.namespace)).collect())
}

fn history_of(api: &Api, record: &JobRecord) -> Result<Vec<HistoryItem>, ApiError> {
    let events = api.store.events(&record.id, 0)?;
    Ok(api::history(&record.id.to_string(), record.task.version, &events))
}

#[utoipa::path(
    get,
    path = "/jobs/{id}/executions",
    tag = "jobs",
    operation_id = "listExecutions",
    params(
        ("id" = String, Path, description = "id, the start of one, or name"),
        ("limit" = Option<u32>, Query, description = "items on the page, 100 without, at most 1000"),
        ("next_token" = Option<String>, Query, description = "of the page before", example = ""),
        ("reverse" = Option<bool>, Query, description = "the other way round"),
        ("order_by" = inline(Option<JobOrder>), Query),
        ("job_version" = Option<u32>, Query, description = "the newest without"),
        ("all_job_versions" = Option<bool>, Query),
    ),
    responses((status = 200, body = Page<Execution>), Errors)
)]
pub(super) async fn executions(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> Result<Json<Page<Execution>>, ApiError> {
    let order = params.one_of("order_by", &ORDERS)?;
    let record = match find(&api, &id).await? {
        Found::Elsewhere(told) => return Ok(Json(params.page_of(told.job.executions.unwrap_or_default().items)?)),
        Found::Here(record, _) => record,
    };
    let (version, all) = (version_number(&params)?, params.flag("all_job_versions")?);
    let version = if version == 0 { record.task.version } else { version };
    let mut executions = executions_of(&api, &record, |execution| all || execution.version == version)?;
    match order {
        Order::Created => executions.sort_by_key(|execution| execution.create_time),
        Order::Modified => executions.sort_by_key(|execution| execution.modify_time),
    }
    if params.flag("reverse")? {
        executions.reverse();
    }
    Ok(Json(params.page_of(executions)?))
}

#[utoipa::path(
    get,
    path = "/jobs/{id}/history",
    tag = "jobs",
    operation_id = "listHistory",
    params(
        ("id" = String, Path, description = "id, the start of one, or name"),
        ("limit" = Option<u32>, Query, description = "items on the page, 100 without, at most 1000"),
        ("next_token" = Option<String>, Query, description = "of the page before", example = ""),
        ("job_version" = Option<u32>, Query, description = "the newest without"),
        ("all_job_versions" = Option<bool>, Query),
        ("event_type" = inline(Option<EventType>), Query),
        ("since" = Option<u64>, Query, description = "seconds since 1970"),
        ("execution_id" = Option<String>, Query),
        ("node_id" = Option<String>, Query),
    ),
    responses((status = 200, body = Page<HistoryItem>), Errors)
)]
pub(super) async fn history(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> Result<Json<Page<HistoryItem>>, ApiError> {
    let items = match find(&api, &id).await? {
        Found::Elsewhere(told) => told.job.history.unwrap_or_default().items,
        Found::Here(record, _) => history_of(&api, &record)?,
    };
    let kind = params
        .one_of("event_type", &[("all", None), ("job", Some("JobLevel")), ("execution", Some("ExecutionLevel"))])?;
    let (version, all) = (version_number(&params)?, params.flag("all_job_versions")?);
    let since = params.number("since")?.map(|seconds| seconds.saturating_mul(1_000));
    let since = since.map(|ms| api::rfc3339(bacnode_protocol::time::UnixMillis(ms)));
    let (execution, node) = (params.text("execution_id"), params.text("node_id"));
    let wanted = |item: &HistoryItem| {
        let by_node = |node: &str| item.event.details.get("NodeID").is_some_and(|id| id.starts_with(node));
        kind.is_none_or(|kind| item.kind == kind)
            && execution.is_none_or(|id| item.execution_id.starts_with(id))
            && node.is_none_or(by_node)
            && (version == 0 || all || item.job_version == u64::from(version))
            && since.as_ref().is_none_or(|since| item.time >= *since)
    };
    let by_number = |item: &HistoryItem| item.seq_num.to_be_bytes().to_vec();
    Ok(Json(params.page_by(items.into_iter().filter(wanted), by_number, false)?))
}

/// The versions of a job without an end; the runs of that name of one that has one.
#[utoipa::path(
    get,
    path = "/jobs/{id}/versions",
    tag = "jobs",
    operation_id = "listVersions",
    params(("id" = String, Path, description = "id, the start of one, or name")),
    responses((status = 200, body = Versions), Errors)
)]
pub(super) async fn versions(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Versions>, ApiError> {
    own_is_led(&api, &id).await?;
    let (record, job) = load(&api, &id)?;
    if record.task.kind.is_endless() {
        let (_, state) = api.store.job(&record.id)?.unwrap_or((record.clone(), None));
        let shown = |version: &JobRecord| {
            let newest = version.task.version == record.task.version;
            Job::new(version, state.as_ref().filter(|_| newest))
        };
        return Ok(Json(Versions { items: api.store.versions(&record.id)?.iter().map(shown).collect() }));
    }
    if record.name.is_empty() {
        return Ok(Json(Versions { items: vec![job] }));
    }
    let mut items = Vec::new();
    for (number, id) in (1..).zip(api.store.named(&record.namespace, &record.name)?) {
        let Some((record, state)) = api.store.job(&id)? else { continue };
        items.push(Job { version: number, ..Job::new(&record, state.as_ref()) });
    }
    Ok(Json(Versions { items }))
}

#[utoipa::path(
    get,
    path = "/jobs/{id}/results",
    tag = "jobs",
    operation_id = "listResults",
    params(
        ("id" = String, Path, description = "id, the start of one, or name"),
        ("limit" = Option<u32>, Query, description = "items on the page, 100 without, at most 1000"),
        ("next_token" = Option<String>, Query, description = "of the page before", example = ""),
    ),
    responses((status = 200, body = Page<SpecConfig>), Errors)
)]
pub(super) async fn results(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> Result<Json<Results>, ApiError> {
    let record = match find(&api, &id).await? {
        Found::Elsewhere(told) => {
            let mut done = told.job.executions.unwrap_or_default().items;
            done.retain(|execution| execution.state() == Some(ExecutionState::Completed));
            done.sort_by_key(|execution| execution.partition_index);
            return Ok(Json(params.page_of(done.into_iter().map(|execution| execution.published_result))?));
        }
        Found::Here(record, _) => record,
    };
    let mut accepted = api.store.executions(&record.id)?;
    accepted.retain(|execution| execution.accepted);
    accepted.sort_by_key(|execution| execution.slot);
    let items = accepted.iter().map(|execution| Execution::new(execution, &record.namespace).published_result);
    Ok(Json(params.page_of(items)?))
}

#[utoipa::path(
    delete,
    path = "/jobs/{id}",
    tag = "jobs",
    operation_id = "stopJob",
    params(
        ("id" = String, Path, description = "id, the start of one, or name"),
        ("reason" = Option<String>, Query),
    ),
    request_body = Option<StopRequest>,
    responses((status = 200, body = Stopped), Errors)
)]
pub(super) async fn stop(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
    body: Bytes,
) -> Result<Json<Stopped>, ApiError> {
    // Bacalhau's server reads the reason from the body, its Python client sends it in the query.
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let reason = body["reason"].as_str().or_else(|| params.text("reason"));
    let reason: String = reason.unwrap_or_default().chars().take(300).collect();
    own_is_led(&api, &id).await?;
    if let Some(id) = kept_elsewhere(&api, &id)? {
        return stop_elsewhere(&api, id, reason).await;
    }
    let (record, job) = load(&api, &id)?;
    if api.ask(|answer| Event::Stop(record.id, reason, answer)).await? == Answer::Stopped {
        Ok(Json(Stopped { evaluation_id: record.id.to_string() }))
    } else {
        let state = job.state.state_type.to_lowercase();
        Err(ApiError::new(StatusCode::CONFLICT, "Ended", format!("the job has ended already ({state})")))
    }
}

/// The job that this means, if this node keeps it for others, or others for it, and does not decide on it.
fn kept_elsewhere(api: &Api, text: &str) -> Result<Option<JobId>, ApiError> {
    let id = match text.parse::<JobId>() {
        Ok(id) => id,
        Err(_) => match resolve(api, text) {
            Ok(id) => id,
            Err(_) => return Ok(None),
        },
    };
    Ok(led_elsewhere(api, &id)?.map(|_| id))
}

/// Asks whoever leads this job to stop it, and waits until it says so.
async fn stop_elsewhere(api: &Api, id: JobId, reason: String) -> Result<Json<Stopped>, ApiError> {
    for _ in 0..STOPS_MAX {
        api.ask(|answer| Event::Stop(id, reason.clone(), answer)).await?;
        tokio::time::sleep(STOP_EVERY).await;
        let ended = match led_elsewhere(api, &id)? {
            None => api.store.job(&id)?.is_some_and(|(_, state)| state.is_some_and(|state| state.state.is_terminal())),
            Some(_) => {
                matches!(elsewhere::job(api, &id.to_string()).await, Ok(Some(told)) if told.job.job.is_terminal())
            }
        };
        if ended {
            return Ok(Json(Stopped { evaluation_id: id.to_string() }));
        }
    }
    Err(ApiError::unavailable("nobody says that the job is stopped; whoever leads it may not be there yet")
        .hint("try again in a moment"))
}

/// How often, and with what pauses, whoever leads a job is asked to stop it.
const STOPS_MAX: u32 = 40;
const STOP_EVERY: std::time::Duration = std::time::Duration::from_millis(500);
