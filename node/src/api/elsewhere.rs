//! Jobs of other nodes: whoever knows a job's id can ask any node for it, which asks the node at which it was submitted.

use std::time::Duration;

use bacnode_protocol::api::{Execution, GetJobResponse, Job, Page, RunOutput, history};
use bacnode_protocol::id::{JobId, NodeId};
use bacnode_protocol::record::ExecutionRecord;

use super::Api;
use super::error::ApiError;
use crate::store::Store;

/// How long another node may take to tell.
const PATIENCE: Duration = Duration::from_secs(5);

/// What this node tells others of a job of its own: how it goes, and where its results are. What its user wrote into it, and
/// what its program printed, is its user's.
pub(crate) fn story(store: &Store, id: &JobId) -> Option<Vec<u8>> {
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

/// A job of another node's, by its full id; `None` for what cannot be one.
pub(super) async fn job(api: &Api, text: &str) -> Result<Option<GetJobResponse>, ApiError> {
    let Ok(id) = text.parse::<JobId>() else { return Ok(None) };
    let found = tokio::time::timeout(PATIENCE, api.network.owner_of(id.tag())).await;
    let owner = found.ok().flatten().filter(|owner| *owner != api.network.me);
    let Some(owner) = owner else { return Ok(None) };
    let name = api.network.view().label(&owner);
    let told = tokio::time::timeout(PATIENCE, api.network.story_from(owner, id)).await;
    let unheard = |cause: &str| {
        ApiError::unavailable(format!("the job is {name}'s, which does not tell of it: {cause}"))
            .hint("it goes on, or is as it was, when that node is back")
    };
    let story = told.map_err(|_| unheard("it takes too long"))?.map_err(|cause| unheard(&cause))?;
    let Some(story) = story else { return Ok(None) };
    let told: GetJobResponse = serde_json::from_slice(&story).map_err(|_| unheard("what it says is not understood"))?;
    // It is another's word: what it says must be what it should be.
    let executions = told.executions.iter().flat_map(|page| &page.items);
    let is_node = |execution: &Execution| execution.node_id.parse::<NodeId>().is_ok();
    if told.job.id != text || !executions.into_iter().all(is_node) {
        return Err(unheard("it speaks of another job"));
    }
    Ok(Some(told))
}
