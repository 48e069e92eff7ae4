//! Jobs: submit, list, look at, stop.

use std::collections::HashMap;
use std::io::Read as _;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bacnode_protocol::api::{
    Execution, GetJobResponse, HistoryItem, Job, Page, PutJobRequest, PutJobResponse, Results,
};
use bacnode_protocol::content::Cid;
use bacnode_protocol::id::{ExecutionId, JobId};
use bacnode_protocol::job::{JobSpec, Selector, ValidJob, ValidSource, parse};
use bacnode_protocol::record::{JobRecord, JobStateRecord, What};
use bacnode_protocol::requester::{Answer, Submission};
use bacnode_protocol::wire::bounded::TextMax;
use bacnode_protocol::wire::task::Source;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::Api;
use super::error::ApiError;
use crate::content::{Content, ContentError, INPUT, Limits};
use crate::driver::Event;

/// Jobs on a page, unless the request says otherwise.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;
/// Bytes of a folder that is packed into a spec, unpacked.
const INLINE_FOLDER_BYTES_MAX: u64 = 1 << 30;

type Parameters = Query<HashMap<String, String>>;

fn flag(parameters: &HashMap<String, String>, name: &str) -> bool {
    // Python clients write `True`.
    parameters.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
}

fn number(parameters: &HashMap<String, String>, name: &str) -> Result<Option<usize>, ApiError> {
    match parameters.get(name).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(text) => {
            text.parse().map(Some).map_err(|_| ApiError::bad(format!("`{name}={text}`: must be a whole number")))
        }
    }
}

pub(super) async fn submit(
    State(api): State<Api>,
    Query(parameters): Parameters,
    body: Bytes,
) -> Result<Json<PutJobResponse>, ApiError> {
    let request: PutJobRequest =
        serde_json::from_slice(&body).map_err(|error| ApiError::bad(format!("the body is not a request: {error}")))?;
    let valid = ValidJob::new(parse(&request.job)?)?;
    let mut warnings = valid.warnings.clone();
    let prepared = prepare(&api, valid).await?;
    let id = id_of(&api, &prepared, parameters.get("idempotency_token"))?;
    let version = if prepared.valid.kind().is_endless() || api.store.job(&id)?.is_none() {
        hand_in(&api, id, prepared, request.force, flag(&parameters, "wait"), &mut warnings).await?
    } else {
        // Handed in before, perhaps a moment ago: the answer is a promise all the same.
        api.store.log().barrier().await;
        1
    };
    let job_id = id.to_string();
    Ok(Json(PutJobResponse { evaluation_id: job_id.clone(), job_id, job_version: version.into(), warnings }))
}

/// The id of a job that is handed in: its own for each run of what has an end, one for all versions of what has none.
fn id_of(api: &Api, prepared: &Prepared, token: Option<&String>) -> Result<JobId, ApiError> {
    let spec = &prepared.spec;
    let named = |nonce: &[u8]| JobId::new(&api.network.me, &spec.namespace, &spec.name, nonce);
    if let Some(token) = token.filter(|token| !token.is_empty()) {
        return Ok(named(token.as_bytes()));
    }
    if prepared.valid.kind().is_endless() && !spec.name.is_empty() {
        // What was stopped is over; the next of that name is another.
        for generation in 0u64.. {
            let id = named(format!("endless/{generation}").as_bytes());
            let known = api.store.job(&id)?;
            if !known.is_some_and(|(_, state)| state.is_some_and(|state| state.state.is_terminal())) {
                return Ok(id);
            }
        }
    }
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|_| ApiError::unavailable("no randomness is to be had"))?;
    Ok(named(&nonce))
}

/// A job whose inputs are all content or local.
struct Prepared {
    spec: JobSpec,
    stored: Vec<u8>,
    task: bacnode_protocol::wire::task::Task,
    valid: ValidJob,
    elsewhere: Vec<Cid>,
    only_here: bool,
}

/// Makes inline inputs content, and finds out which inputs are not held here.
async fn prepare(api: &Api, valid: ValidJob) -> Result<Prepared, ApiError> {
    let content = api.content.clone();
    let work = move || {
        let (mut sources, mut elsewhere, mut spec) = (Vec::new(), Vec::new(), valid.spec.clone());
        let mut only_here = false;
        for (index, input) in valid.inputs.iter().enumerate() {
            sources.push(match &input.source {
                ValidSource::Content(cid) => {
                    if content.private().holds(cid)? {
                        only_here |= !content.holds(cid)?;
                    } else if !content.holds(cid)? {
                        elsewhere.push(*cid);
                    }
                    Source::Content(*cid)
                }
                ValidSource::Inline(_) | ValidSource::InlineFolder(_) => {
                    let root = match &input.source {
                        ValidSource::InlineFolder(packed) => import_packed(&content, packed)
                            .map_err(|error| ApiError::bad(format!("Tasks[0].InputSources[{index}]: {error}")))?,
                        ValidSource::Inline(bytes) => content.import_bytes(bytes, INPUT)?.root,
                        _ => continue,
                    };
                    if let Some(source) = spec.tasks.first_mut().and_then(|task| task.input_sources.get_mut(index)) {
                        source.source.kind = "ipfs".into();
                        source.source.params =
                            [("CID".to_owned(), Value::String(root.to_string()))].into_iter().collect();
                    }
                    Source::Content(root)
                }
                ValidSource::Url { url, sha256 } => Source::Url { url: TextMax::truncated(url), sha256: *sha256 },
                ValidSource::S3(objects) => Source::S3(objects.clone()),
                ValidSource::Local { path, writable } => {
                    Source::Local { path: TextMax::truncated(path), writable: *writable }
                }
            });
        }
        let task = valid.task(sources)?;
        let stored = serde_json::to_vec(&spec).unwrap_or_default();
        Ok::<_, ApiError>(Prepared { spec, stored, task, valid, elsewhere, only_here })
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::unavailable("preparing the job broke down"))?
}

/// Makes a folder that came as an archive content.
fn import_packed(content: &Content, packed: &[u8]) -> Result<Cid, ContentError> {
    let dir = tempfile::tempdir_in(content.tmp()).map_err(crate::content::io_error("cannot unpack a folder"))?;
    let folder = dir.path().join("folder");
    // Whatever it is called: gzip's first bytes are known.
    if packed.starts_with(&[0x1f, 0x8b]) {
        super::content::unpack(flate2::read::GzDecoder::new(packed).take(INLINE_FOLDER_BYTES_MAX), &folder)?;
    } else {
        super::content::unpack(packed, &folder)?;
    }
    let limits = Limits { bytes: INLINE_FOLDER_BYTES_MAX, entries: super::content::ENTRIES_MAX };
    Ok(content.import(&folder, limits, true, INPUT)?.root)
}

/// Hands a job in; gives its version.
async fn hand_in(
    api: &Api,
    id: JobId,
    prepared: Prepared,
    force: bool,
    waits: bool,
    warnings: &mut Vec<String>,
) -> Result<u32, ApiError> {
    let submission = Submission {
        request: 0,
        id,
        spec: prepared.stored,
        task: prepared.task,
        slots: prepared.valid.slots,
        strict: prepared.valid.strict,
        force,
        lease: prepared.valid.lease,
        queue_timeout: prepared.valid.queue_timeout,
        total_timeout: prepared.valid.total_timeout,
        elsewhere: prepared.elsewhere,
        only_here: prepared.only_here,
        waits,
    };
    match ask(api, |answer| Event::Submit(Box::new(submission), answer)).await? {
        Answer::Accepted { version, .. } => Ok(version),
        Answer::Unchanged(version) => {
            warnings.push(format!("nothing has changed since version {version}, which goes on (force starts it anew)"));
            Ok(version)
        }
        Answer::Unlike(reason) => Err(ApiError::new(StatusCode::CONFLICT, "Conflict", reason)),
        Answer::Busy(reason) => Err(ApiError::unavailable(reason).hint("try again in a moment")),
        Answer::Stopped | Answer::NotOpen => Err(ApiError::unavailable("the job was not taken")),
    }
}

async fn ask(api: &Api, event: impl FnOnce(oneshot::Sender<Answer>) -> Event) -> Result<Answer, ApiError> {
    let (answer, answered) = oneshot::channel();
    let leaving = || ApiError::unavailable("the node is shutting down");
    api.events.send(event(answer)).await.map_err(|_| leaving())?;
    answered.await.map_err(|_| leaving())
}

/// The job that `text` means: its id, a unique start of it, or its name (then the latest run).
fn resolve(api: &Api, text: &str) -> Result<JobId, ApiError> {
    let not_here = || {
        ApiError::not_found(format!("there is no job `{text}` at this node"))
            .hint("`bacnode job list` shows this node's jobs; ask the node at which it was submitted")
    };
    if let Ok(id) = text.parse::<JobId>() {
        return if api.store.job(&id)?.is_some() { Ok(id) } else { Err(not_here()) };
    }
    if text.starts_with("j-") && text.len() >= 4 {
        match api.store.jobs_with_prefix(text)?.as_slice() {
            [id] => return Ok(*id),
            [] => {}
            _ => {
                return Err(
                    ApiError::bad(format!("`{text}` is the start of several jobs' ids")).hint("write more of it")
                );
            }
        }
    }
    let named = |job: &JobRecord, _: Option<&JobStateRecord>| Job::new(job, None).name == text;
    let page = api.store.jobs(true, 0, 1, named)?;
    page.items.first().map(|(job, _)| job.id).ok_or_else(not_here)
}

fn load(api: &Api, text: &str) -> Result<(JobRecord, Job), ApiError> {
    let id = resolve(api, text)?;
    let (record, state) = api.store.job(&id)?.ok_or_else(|| ApiError::not_found("the job is gone"))?;
    let job = Job::new(&record, state.as_ref());
    Ok((record, job))
}

pub(super) async fn list(State(api): State<Api>, Query(parameters): Parameters) -> Result<Json<Page<Job>>, ApiError> {
    let limit = number(&parameters, "limit")?.filter(|limit| *limit > 0).unwrap_or(PAGE).min(PAGE_MAX);
    let skip = number(&parameters, "next_token")?.unwrap_or(0);
    match parameters.get("order_by").map(String::as_str) {
        None | Some("" | "created_at" | "create_time" | "modified_at" | "modify_time") => {}
        Some(other) => return Err(ApiError::bad(format!("`order_by={other}`: jobs are ordered by `created_at`"))),
    }
    let namespace = parameters.get("namespace").cloned().unwrap_or_default();
    let labels = parameters.get("labels").map_or("", String::as_str).parse::<Selector>();
    let labels = labels.map_err(|error| ApiError::bad(format!("`labels`: {error}")))?;
    let wanted = |record: &JobRecord, _: Option<&JobStateRecord>| {
        let job = Job::new(record, None);
        (namespace.is_empty() || namespace == "*" || job.namespace == namespace) && labels.selects(&job.labels)
    };
    let page = api.store.jobs(flag(&parameters, "reverse"), skip, limit, wanted)?;
    let items = page.items.iter().map(|(record, state)| Job::new(record, state.as_ref())).collect();
    Ok(Json(Page { items, next_token: page.next.map(|next| next.to_string()).unwrap_or_default() }))
}

pub(super) async fn get(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(parameters): Parameters,
) -> Result<Json<GetJobResponse>, ApiError> {
    let (record, job) = load(&api, &id)?;
    if job.is_terminal() {
        // Nobody may see an end that a power cut could take back.
        api.store.log().barrier().await;
    }
    let include: Vec<&str> = parameters.get("include").map(|text| text.split(',').collect()).unwrap_or_default();
    let executions = include.contains(&"executions").then(|| execution_page(&api, &record.id, &job)).transpose()?;
    let history = include.contains(&"history").then(|| history_page(&api, &record.id, |_| true)).transpose()?;
    Ok(Json(GetJobResponse { job, history, executions }))
}

fn execution_page(api: &Api, id: &JobId, job: &Job) -> Result<Page<Execution>, ApiError> {
    let items = api.store.executions(id)?.iter().map(|record| Execution::new(record, &job.namespace)).collect();
    Ok(Page { items, next_token: String::new() })
}

fn history_page(api: &Api, id: &JobId, wanted: impl Fn(&HistoryItem) -> bool) -> Result<Page<HistoryItem>, ApiError> {
    let name = id.to_string();
    let events = api.store.events(id, 0)?;
    let items =
        events.iter().map(|(sequence, event)| HistoryItem::new(&name, *sequence, event)).filter(wanted).collect();
    Ok(Page { items, next_token: String::new() })
}

pub(super) async fn executions(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<Page<Execution>>, ApiError> {
    let (record, job) = load(&api, &id)?;
    Ok(Json(execution_page(&api, &record.id, &job)?))
}

pub(super) async fn history(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(parameters): Parameters,
) -> Result<Json<Page<HistoryItem>>, ApiError> {
    let (record, _) = load(&api, &id)?;
    let given = |name: &str| parameters.get(name).filter(|value| !value.is_empty());
    let kind = match given("event_type").map(String::as_str) {
        None | Some("all") => None,
        Some("job") => Some("JobLevel"),
        Some("execution") => Some("ExecutionLevel"),
        Some(other) => return Err(ApiError::bad(format!("`event_type={other}`: must be all, job or execution"))),
    };
    let execution = given("execution_id");
    Ok(Json(history_page(&api, &record.id, |item| {
        kind.is_none_or(|kind| item.kind == kind)
            && execution.is_none_or(|id| item.execution_id.starts_with(id.as_str()))
    })?))
}

pub(super) async fn results(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Results>, ApiError> {
    let (record, job) = load(&api, &id)?;
    let mut accepted = api.store.executions(&record.id)?;
    accepted.retain(|execution| execution.accepted);
    accepted.sort_by_key(|execution| execution.slot);
    let items = accepted.iter().map(|execution| Execution::new(execution, &job.namespace).published_result).collect();
    Ok(Json(Page { items, next_token: String::new() }))
}

pub(super) async fn stop(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(parameters): Parameters,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let (record, job) = load(&api, &id)?;
    // Bacalhau's server reads the reason from the body, its Python client sends it in the query.
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let reason = body["reason"].as_str().map(str::to_owned).or_else(|| parameters.get("reason").cloned());
    let reason: String = reason.unwrap_or_default().chars().take(300).collect();
    if ask(&api, |answer| Event::Stop(record.id, reason, answer)).await? == Answer::Stopped {
        Ok(Json(serde_json::json!({ "EvaluationID": record.id.to_string() })))
    } else {
        let state = job.state.state_type.to_lowercase();
        Err(ApiError::new(StatusCode::CONFLICT, "Ended", format!("the job has ended already ({state})")))
    }
}

/// The job's story as it unfolds: one [`HistoryItem`] a line, until the job has ended.
pub(super) async fn events(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id = resolve(&api, &id)?;
    let (lines, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(64);
    tokio::spawn(async move { tell(&api, id, lines).await });
    let stream =
        futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response())
}

async fn tell(api: &Api, id: JobId, lines: mpsc::Sender<Result<Bytes, std::io::Error>>) {
    let name = id.to_string();
    let mut next = 0;
    loop {
        // Watch before reading, so that nothing falls between.
        let (answer, watching) = oneshot::channel();
        if api.events.send(Event::Watch(id, answer)).await.is_err() {
            return;
        }
        let Ok(mut watching) = watching.await else { return };
        let Ok(known) = api.store.events(&id, next) else { return };
        if known.iter().any(|(_, event)| matches!(event.what, What::Ended { .. })) {
            api.store.log().barrier().await;
        }
        let mut queued: std::collections::VecDeque<_> = known.into();
        loop {
            let item = match queued.pop_front() {
                Some(item) => Some(item),
                None => watching.recv().await,
            };
            // Closed: we were too slow, and read on from the store.
            let Some((sequence, event)) = item else { break };
            if sequence < next {
                continue;
            }
            next = sequence + 1;
            let ended = matches!(event.what, What::Ended { .. });
            let mut line = serde_json::to_vec(&HistoryItem::new(&name, sequence, &event)).unwrap_or_default();
            line.push(b'\n');
            if lines.send(Ok(line.into())).await.is_err() || ended {
                return;
            }
        }
    }
}

/// The attempt whose output shows what a job does: the accepted one, else the latest.
pub(super) fn shown_execution(
    api: &Api,
    text: &str,
    wanted: Option<&str>,
) -> Result<(JobId, Option<bacnode_protocol::record::ExecutionRecord>, bool), ApiError> {
    let (record, job) = load(api, text)?;
    let executions = api.store.executions(&record.id)?;
    let found = match wanted.filter(|wanted| !wanted.is_empty()) {
        Some(wanted) => {
            let is_wanted = |id: &ExecutionId| id.to_string().starts_with(wanted);
            let found = executions.into_iter().find(|execution| is_wanted(&execution.id));
            Some(found.ok_or_else(|| ApiError::not_found(format!("the job has no execution `{wanted}`")))?)
        }
        None => executions
            .iter()
            .find(|execution| execution.accepted)
            .or_else(|| executions.iter().rev().find(|execution| !execution.state.is_terminal()))
            .or(executions.last())
            .cloned(),
    };
    Ok((record.id, found, job.is_terminal()))
}
