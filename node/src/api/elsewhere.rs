//! Jobs of other nodes: whoever knows a job's id can ask any node for it, which asks the node at which it was submitted.

use std::time::Duration;

use bacnode_protocol::api::{Execution, GetJobResponse, Job, Page, RunOutput, history};
use bacnode_protocol::id::{ExecutionId, JobId, NodeId};
use bacnode_protocol::record::ExecutionRecord;
use futures::future::BoxFuture;
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
/// Nodes that are asked, at most.
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
        let in_view: Vec<NodeId> =
            api.network.view().iter().map(|(node, _)| *node).filter(|node| node.tag() == id.tag()).collect();
        let near =
            charter.iter().flat_map(|charter| [charter.leader].into_iter().chain(charter.members)).chain(in_view);
        let near: Vec<NodeId> = near.collect();
        let mut cause = None;
        if let Some(told) = told_by_any(api, &id, &near, &mut cause).await {
            return Ok(Some(told));
        }
        let found = tokio::time::timeout(PATIENCE, api.network.tellers_of(id.tag())).await.unwrap_or_default();
        let far: Vec<NodeId> = found.into_iter().filter(|node| !near.contains(node)).take(TELLERS_MAX).collect();
        if let Some(told) = told_by_any(api, &id, &far, &mut cause).await {
            return Ok(Some(told));
        }
        let leads = api.groups.of(&id).is_some_and(|group| group.leads);
        let kept = charter.is_some() || far.iter().any(|node| node.tag() != id.tag());
        if leads && jobs::led_elsewhere(api, &id)?.is_none() || !kept || tokio::time::Instant::now() >= patience {
            return cause.filter(|_| !leads).map_or(Ok(None), Err);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// What the first of these tells that knows the job.
async fn told_by_any(api: &Api, id: &JobId, tellers: &[NodeId], cause: &mut Option<ApiError>) -> Option<Told> {
    for &teller in tellers.iter().filter(|node| **node != api.network.me) {
        match told_by(api, teller, id).await {
            Ok(Some(job)) => return Some(Told { by: teller, job }),
            Ok(None) => {}
            Err(error) => *cause = Some(error),
        }
    }
    None
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
