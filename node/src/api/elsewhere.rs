//! Jobs of other nodes: whoever knows a job's id can ask any node for it, which asks the node at which it was submitted.

use std::pin::pin;
use std::time::Duration;

use bacnode_protocol::api::{Execution, GetJobResponse, Job, Page, RunOutput, history};
use bacnode_protocol::id::{ExecutionId, JobId, NodeId};
use bacnode_protocol::record::ExecutionRecord;
use bacnode_protocol::wire::group::Charter;
use futures::StreamExt as _;
use futures::future::{BoxFuture, Either, select};
use tokio::sync::mpsc;

use super::error::ApiError;
use super::{Api, jobs, logs};
use crate::driver::GroupView;
use crate::network::{LogPiece, Teller};
use crate::store::Store;

/// How long another node may take to tell.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long somebody is waited for who leads a job on whose node is gone.
const TAKEOVER_MAX: Duration = Duration::from_secs(25);
/// Nodes of a kind that are asked at once, at most.
const TELLERS_MAX: usize = 8;

/// A job, as another node tells of it.
#[derive(Debug)]
pub(super) struct Told {
    /// Who leads it, by its own word.
    pub(super) by: NodeId,
    pub(super) job: GetJobResponse,
}

impl Teller for Api {
    fn story(&self, job: &JobId) -> Option<Vec<u8>> {
        // Who does not decide on it does not know how it is.
        let keeps = |group: &GroupView| self.store.keeps(&group.status.charter.owner, job).unwrap_or(true);
        let decides = self.groups.of(job).is_none_or(|group| group.leads || !keeps(&group));
        decides.then(|| story(&self.store, job)).flatten()
    }

    fn output(
        &self,
        job: JobId,
        execution: ExecutionId,
        follow: bool,
        to: mpsc::Sender<LogPiece>,
    ) -> BoxFuture<'_, ()> {
        Box::pin(logs::relay(self, job, execution, follow, to))
    }
}

/// What this node tells others of a job that it leads: how it goes, and where its results are. What its user wrote into it
/// is its user's.
fn story(store: &Store, id: &JobId) -> Option<Vec<u8>> {
    let (record, state) = store.job(id).ok()??;
    let mut job = Job::new(&record, state.as_ref());
    job.meta.clear();
    for task in &mut job.tasks {
        (task.env, task.meta) = Default::default();
        task.engine.params.retain(|name, _| ["image", "entrymodule"].contains(&name.to_lowercase().as_str()));
        task.publisher.params.clear();
        task.input_sources.iter_mut().for_each(|input| input.source.params.clear());
    }
    let executions = store.executions(id).ok()?;
    let shown = |execution: &ExecutionRecord| {
        let execution = Execution::new(execution, &record.namespace);
        let output = RunOutput { exit_code: execution.run_output.exit_code, ..RunOutput::default() };
        Execution { run_output: output, ..execution }
    };
    let items = executions.iter().map(shown).collect();
    let executions = Some(Page::whole(items));
    let history = Some(Page::whole(history(&id.to_string(), record.task.version, &store.events(id, 0).ok()?)));
    serde_json::to_vec(&GetJobResponse { job, history, executions }).ok()
}

/// A job of another node's, by its full id; `None` for what cannot be one. Its owner is asked, and if that is gone those who
/// keep its jobs: until one of them leads on, nobody may know.
pub(super) async fn job(api: &Api, text: &str) -> Result<Option<Told>, ApiError> {
    let Ok(id) = text.parse::<JobId>() else { return Ok(None) };
    // Of its own jobs a node has something to show at once.
    let own = id.tag() == api.network.me.tag();
    let patience = tokio::time::Instant::now() + if own { Duration::ZERO } else { TAKEOVER_MAX };
    loop {
        let charter = api.groups.of(&id).map(|group| group.status.charter);
        let near = nearest(api, &id, charter.as_ref());
        let lookup = async {
            let found = tokio::time::timeout(PATIENCE, api.network.tellers_of(id.tag())).await.unwrap_or_default();
            let kept = found.iter().any(|node| node.tag() != id.tag());
            let far: Vec<NodeId> = found.into_iter().filter(|node| !near.contains(node)).take(TELLERS_MAX).collect();
            (told_by_any(api, &id, &far, |_| true).await, kept)
        };
        let keeps = |node: &NodeId| node.tag() == id.tag() || charter.is_some_and(|charter| charter.has(node));
        // Some of the nearest may be gone, and so may those whom the DHT asks on its way: neither waits for the other.
        let (cause, kept) = match select(pin!(told_by_any(api, &id, &near, keeps)), pin!(lookup)).await {
            Either::Left((Ok(told), _)) | Either::Right(((Ok(told), _), _)) => return Ok(Some(told)),
            Either::Left((Err(cause), lookup)) => match lookup.await {
                (Ok(told), _) => return Ok(Some(told)),
                (Err(far), kept) => (cause.or(far), kept),
            },
            Either::Right(((Err(far), kept), near)) => match near.await {
                Ok(told) => return Ok(Some(told)),
                Err(cause) => (cause.or(far), kept),
            },
        };
        let leads = api.groups.of(&id).is_some_and(|group| group.leads);
        let kept = kept || charter.is_some();
        if leads && jobs::led_elsewhere(api, &id)?.is_none() || !kept || tokio::time::Instant::now() >= patience {
            return cause.filter(|_| !leads).map_or(Ok(None), Err);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Who may know of a job, as far as one can tell without looking it up: whoever is known to keep it, its owner, and where nobody
/// is known some of those who are connected, one of which may lead it by now.
fn nearest(api: &Api, id: &JobId, charter: Option<&Charter>) -> Vec<NodeId> {
    let view = api.network.view();
    let keepers = charter.into_iter().flat_map(|charter| [charter.leader].into_iter().chain(charter.members));
    let owner = view.iter().map(|(node, _)| *node).filter(|node| node.tag() == id.tag());
    let mut near: Vec<NodeId> = Vec::new();
    for node in keepers.chain(owner).filter(|node| *node != api.network.me) {
        if !near.contains(&node) {
            near.push(node);
        }
    }
    if charter.is_none() {
        let connected =
            view.iter().map(|(node, _)| *node).filter(|node| view.is_connected(node) && !near.contains(node));
        let connected: Vec<NodeId> = connected.take(TELLERS_MAX).collect();
        near.extend(connected);
    }
    near
}

/// What the first of these tells that knows the job; else why one of those could not of whom it is expected.
async fn told_by_any(
    api: &Api,
    id: &JobId,
    tellers: &[NodeId],
    expected: impl Fn(&NodeId) -> bool,
) -> Result<Told, Option<ApiError>> {
    let ask = |teller: NodeId| async move { (teller, told_by(api, teller, id).await) };
    let mut answers = futures::stream::iter(tellers.iter().copied()).map(ask).buffer_unordered(TELLERS_MAX);
    let mut cause = None;
    while let Some((teller, answer)) = answers.next().await {
        match answer {
            Ok(Some(job)) => return Ok(Told { by: teller, job }),
            Err(error) if expected(&teller) => cause = Some(error),
            Ok(None) | Err(_) => {}
        }
    }
    Err(cause)
}

async fn told_by(api: &Api, teller: NodeId, id: &JobId) -> Result<Option<GetJobResponse>, ApiError> {
    let name = api.network.view().label(&teller);
    let told = tokio::time::timeout(PATIENCE, api.network.story_from(teller, *id)).await;
    let unheard = |cause: &str| {
        let whose = if teller.tag() == id.tag() {
            format!("the job is {name}'s, which")
        } else {
            format!("{name} keeps the job, and")
        };
        ApiError::unavailable(format!("{whose} does not tell of it: {cause}"))
            .hint("it goes on, or is as it was, when that node is back")
    };
    let story = told.map_err(|_| unheard("it takes too long"))?.map_err(|cause| unheard(&cause))?;
    let Some(story) = story else { return Ok(None) };
    let told: GetJobResponse = serde_json::from_slice(&story).map_err(|_| unheard("what it says is not understood"))?;
    // It is another's word: what it says must be what it should be.
    let executions = told.executions.iter().flat_map(|page| &page.items);
    let is_node = |execution: &Execution| execution.node_id.parse::<NodeId>().is_ok();
    if told.job.id != id.to_string() || !executions.into_iter().all(is_node) {
        return Err(unheard("it speaks of another job"));
    }
    Ok(Some(told))
}
