//! Handing jobs in: new ones, new versions, once more; and what a new version would change.

use std::io::Read as _;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use bacnode_protocol::api::{DiffResponse, PutJobRequest, PutJobResponse, RerunRequest};
use bacnode_protocol::content::Cid;
use bacnode_protocol::id::JobId;
use bacnode_protocol::job::{Durability, InvalidSpec, JobSpec, ValidJob, ValidSource, parse, read_document};
use bacnode_protocol::limits::STORED_SPEC_BYTES_MAX;
use bacnode_protocol::record::JobRecord;
use bacnode_protocol::requester::{Answer, Submission};
use bacnode_protocol::wire::bounded::TextMax;
use bacnode_protocol::wire::task::{Source, Task};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Api;
use super::error::ApiError;
use super::jobs::{led_elsewhere, load, own_is_led};
use super::openapi::Errors;
use super::page::Params;
use crate::config::Role;
use crate::content::{Content, ContentError, INPUT, Limits};
use crate::driver::Event;

/// How long two specs are compared; what is not found to be alike by then counts as different.
const DIFF_TIMEOUT: Duration = Duration::from_millis(500);
/// Bytes of a folder that is packed into a spec, unpacked.
const INLINE_FOLDER_BYTES_MAX: u64 = 1 << 30;

/// The body of a request, which is a JSON object.
pub(super) fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, ApiError> {
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(ApiError::bad("the body is not a request: it is a list, and must be an object"));
    }
    serde_json::from_slice(bytes).map_err(|error| ApiError::bad(format!("the body is not a request: {error}")))
}

/// A bootstrap peer has no part in the market: a job would wait there for ever.
fn takes_jobs(api: &Api) -> Result<(), ApiError> {
    if api.config.role == Role::Full {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::CONFLICT, "Conflict", "a bootstrap peer takes no jobs")
        .hint("hand them in at a node of its network: `bacnode serve`, and `--api` names it"))
}

/// The job of a request: its fields, or a text, which is read as the command line reads a file.
fn spec_of(job: &Value) -> Result<JobSpec, InvalidSpec> {
    match job {
        Value::String(text) => parse(&read_document(text)?),
        fields => parse(fields),
    }
}

#[utoipa::path(
    method(put, post),
    path = "/jobs",
    tag = "jobs",
    operation_id = "putJob",
    params(
        ("idempotency_token" = Option<String>, Query, description = "the same token is the same job"),
        ("wait" = Option<bool>, Query, description = "the caller waits for the end"),
    ),
    request_body = PutJobRequest,
    responses((status = 200, body = PutJobResponse), Errors)
)]
pub(super) async fn submit(
    State(api): State<Api>,
    Query(params): Query<Params>,
    bytes: Bytes,
) -> Result<Json<PutJobResponse>, ApiError> {
    takes_jobs(&api)?;
    let request: PutJobRequest = body(&bytes)?;
    let prepared = prepare(&api, ValidJob::new(spec_of(&request.job)?)?).await?;
    Ok(Json(take(&api, prepared, request.force, &params).await?))
}

/// Runs a job once more, as it was in one of its versions.
#[utoipa::path(
    method(put, post),
    path = "/jobs/{id}/rerun",
    tag = "jobs",
    operation_id = "rerunJob",
    params(("id" = String, Path, description = "id, the start of one, or name")),
    request_body = RerunRequest,
    responses((status = 200, body = PutJobResponse), Errors)
)]
pub(super) async fn rerun(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
    bytes: Bytes,
) -> Result<Json<PutJobResponse>, ApiError> {
    takes_jobs(&api)?;
    let request: RerunRequest = if bytes.is_empty() { RerunRequest::default() } else { body(&bytes)? };
    own_is_led(&api, &id).await?;
    let (newest, _) = load(&api, &id)?;
    let record = version_of(&api, newest, request.job_version)?;
    let spec: JobSpec = serde_json::from_slice(&record.spec)
        .map_err(|_| ApiError::unavailable("what was submitted then cannot be read any more"))?;
    let prepared = prepare(&api, ValidJob::new(spec)?).await?;
    Ok(Json(take(&api, prepared, true, &params).await?))
}

/// The record of this version of a job; the newest for 0.
pub(super) fn version_of(api: &Api, newest: JobRecord, version: u32) -> Result<JobRecord, ApiError> {
    if version == 0 || version == newest.task.version {
        return Ok(newest);
    }
    let known = api.store.versions(&newest.id)?;
    known.into_iter().find(|record| record.task.version == version).ok_or_else(|| {
        ApiError::not_found(format!("the job has no version {version}"))
            .hint(format!("its newest is {}; `bacnode job versions` lists them", newest.task.version))
    })
}

/// What submitting a job would change of the one that has its name.
#[utoipa::path(
    method(put, post),
    path = "/jobs/diff",
    tag = "jobs",
    operation_id = "diffJob",
    request_body = PutJobRequest,
    responses((status = 200, body = DiffResponse), Errors)
)]
pub(super) async fn diff(State(api): State<Api>, bytes: Bytes) -> Result<Json<DiffResponse>, ApiError> {
    let request: PutJobRequest = body(&bytes)?;
    let valid = ValidJob::new(spec_of(&request.job)?)?;
    if valid.spec.name.is_empty() {
        return Err(ApiError::bad("Name: is required: it says with which job to compare"));
    }
    let warnings = valid.warnings.clone();
    let prepared = prepare(&api, valid).await?;
    let spec = &prepared.spec;
    let before = api.store.named(&spec.namespace, &spec.name)?.pop();
    let before = match before {
        Some(id) => api.store.job(&id)?.map(|(record, _)| record.spec.to_vec()).unwrap_or_default(),
        None => Vec::new(),
    };
    let after = prepared.stored;
    if after.len() > STORED_SPEC_BYTES_MAX {
        return Err(ApiError::bad(format!("the spec has {} bytes; {STORED_SPEC_BYTES_MAX} are kept", after.len())));
    }
    let diff = tokio::task::spawn_blocking(move || changes(&lines(&before), &lines(&after))).await;
    let diff = diff.map_err(|_| ApiError::unavailable("the comparison broke down"))?;
    Ok(Json(DiffResponse { diff, warnings }))
}

fn changes(before: &str, after: &str) -> String {
    if before == after {
        return String::new();
    }
    let changes = similar::TextDiff::configure().timeout(DIFF_TIMEOUT).diff_lines(before, after);
    changes.unified_diff().header("before", "after").to_string()
}

/// A spec as people read it.
fn lines(spec: &[u8]) -> String {
    match serde_json::from_slice::<Value>(spec) {
        Ok(spec) => serde_saphyr::to_string(&spec).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

/// Hands a job in that is ready.
async fn take(api: &Api, prepared: Prepared, force: bool, params: &Params) -> Result<PutJobResponse, ApiError> {
    let mut warnings = prepared.valid.warnings.clone();
    let id = id_of(api, &prepared, params.text("idempotency_token"))?;
    own_is_led(api, &id.to_string()).await?;
    if let Some(leader) = led_elsewhere(api, &id)? {
        let name = api.network.view().label(&leader);
        return Err(ApiError::unavailable(format!("the job is led by {name} now, which is asked to give it back"))
            .hint("try again in a moment"));
    }
    let known = api.store.job(&id)?;
    let ended = known.as_ref().is_some_and(|(_, state)| state.as_ref().is_some_and(|state| state.state.is_terminal()));
    let version = if known.is_none() || (prepared.valid.kind().is_endless() && !ended) {
        hand_in(api, id, prepared, force, params.flag("wait")?, &mut warnings).await?
    } else {
        // Handed in before, perhaps a moment ago: the answer is a promise all the same.
        api.store.log().barrier().await;
        1
    };
    let job_id = id.to_string();
    let me = api.network.me;
    let group = api.groups.of(&id).filter(|group| api.store.keeps(&group.status.charter.owner, &id).unwrap_or(false));
    let guardians = group
        .iter()
        .flat_map(|group| group.status.charter.others(&me).map(|node| node.to_string()).collect::<Vec<_>>());
    Ok(PutJobResponse {
        evaluation_id: job_id.clone(),
        job_id,
        job_version: version.into(),
        warnings,
        guardians: guardians.collect(),
    })
}

/// The id of a job that is handed in: its own for each run of what has an end, one for all versions of what has none.
fn id_of(api: &Api, prepared: &Prepared, token: Option<&str>) -> Result<JobId, ApiError> {
    let spec = &prepared.spec;
    let named = |nonce: &[u8]| JobId::new(&api.network.me, &spec.namespace, &spec.name, nonce);
    if let Some(token) = token {
        return Ok(named(token.as_bytes()));
    }
    if prepared.valid.kind().is_endless() && !spec.name.is_empty() {
        // What was stopped is over; the next of that name is another. Two that come at once have the same id.
        let known = api.store.named(&spec.namespace, &spec.name)?;
        for id in known.iter().rev() {
            let Some((record, state)) = api.store.job(id)? else { continue };
            if record.task.kind.is_endless() && !state.is_some_and(|state| state.state.is_terminal()) {
                return Ok(*id);
            }
        }
        // Nobody else can tell which that is.
        let secret = api.store.secret()?;
        let last = known.last().map(|id| id.0).unwrap_or_default();
        return Ok(named(&[&secret[..], b"endless", &last].concat()));
    }
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|_| ApiError::unavailable("no randomness is to be had"))?;
    Ok(named(&nonce))
}

/// A job whose inputs are all content or local.
struct Prepared {
    spec: JobSpec,
    stored: Vec<u8>,
    task: Task,
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
    let guarded = is_guarded(api, &prepared, warnings).await?;
    let here = if guarded { held_here(api, &prepared.task).await? } else { Vec::new() };
    let submission = Submission {
        request: 0,
        id,
        namespace: TextMax::truncated(&prepared.spec.namespace),
        name: TextMax::truncated(&prepared.spec.name),
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
        guarded,
        here,
    };
    let answer = api.ask(|answer| Event::Submit(Box::new(submission), answer));
    let Ok(answer) = tokio::time::timeout(HANDED_IN_MAX, answer).await else {
        let message = format!("the job {id} is handed in, and nobody who is to keep it says so");
        return Err(ApiError::unavailable(message)
            .hint("it goes on when they are heard, and may be lost with this node until then"));
    };
    match answer? {
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

/// Whether others can keep jobs of this node, or why not. A group that begins, or whose node was away, is waited for.
async fn can_keep(api: &Api) -> Result<Result<(), String>, ApiError> {
    let patience = tokio::time::Instant::now() + KEEPERS_MAX;
    loop {
        match api.ask(Event::CanKeep).await? {
            Ok(()) => return Ok(Ok(())),
            Err(cannot) if !cannot.soon || tokio::time::Instant::now() >= patience => return Ok(Err(cannot.reason)),
            Err(_) => tokio::time::sleep(KEEPERS_POLL).await,
        }
    }
}

/// How long those who keep this node's jobs may take to be heard, and how often one looks.
const KEEPERS_MAX: Duration = Duration::from_secs(3);
const KEEPERS_POLL: Duration = Duration::from_millis(5);
/// How long a job may take to be on as many disks as it should.
const HANDED_IN_MAX: Duration = Duration::from_secs(20);

/// Whether others shall keep this job with this node: if its user says so, or says nothing and they can.
async fn is_guarded(api: &Api, prepared: &Prepared, warnings: &mut Vec<String>) -> Result<bool, ApiError> {
    let wanted = prepared.valid.durability;
    if wanted == Some(Durability::Local) {
        return Ok(false);
    }
    let can = if prepared.only_here {
        Err("it reads what does not leave this node".to_owned())
    } else {
        can_keep(api).await?
    };
    match (can, wanted) {
        (Ok(()), _) => Ok(true),
        (Err(reason), Some(_)) => {
            let message = format!("others are to keep the job (Durability: quorum), and cannot: {reason}");
            Err(ApiError::unavailable(message).hint("try again when more nodes are there, or say `Durability: local`"))
        }
        (Err(reason), None) => {
            warnings.push(format!("the job is kept by this node alone, and lost with it: {reason}"));
            Ok(false)
        }
    }
}

/// What a task reads that anybody may have and that is held here, with its size.
async fn held_here(api: &Api, task: &Task) -> Result<Vec<(Cid, u64)>, ApiError> {
    let (content, roots) = (api.content.clone(), task.content_inputs().collect::<std::collections::BTreeSet<_>>());
    let look = move || {
        let held = |root: &Cid| Ok::<_, ContentError>(content.holds(root)? && !content.private().holds(root)?);
        let mut here = Vec::new();
        for root in roots {
            if held(&root)? {
                here.push((root, content.size(&root)?));
            }
        }
        Ok::<_, ApiError>(here)
    };
    tokio::task::spawn_blocking(look).await.map_err(|_| ApiError::unavailable("looking at the inputs broke down"))?
}
