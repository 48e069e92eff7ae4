//! Bringing content from the node into a folder.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use bacnode_protocol::api::{Execution, GetJobResponse};
use bacnode_protocol::content::unixfs::is_safe_name;
use bacnode_protocol::job::state::ExecutionState;
use futures::TryStreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::published;
use crate::client::{Client, segment};
use crate::error::{Exit, Failure, Result};
use crate::output;

/// Puts a job's results into `dir`: one folder per partition where there are several, per node where it ran on each.
pub(super) async fn results(client: &Client, job: &str, dir: &Path, force: bool) -> Result<()> {
    let answer: GetJobResponse =
        client.get(&format!("orchestrator/jobs/{}?include=executions,history", segment(job))).await?;
    let names = folders(&answer);
    let mut done = answer.executions.clone().unwrap_or_default().items;
    done.retain(|execution| execution.state() == Some(ExecutionState::Completed));
    done.sort_by_key(|execution| execution.partition_index);
    let root = |execution: &Execution| Some(execution.published_result.params.get("CID")?.as_str()?.to_owned());
    let roots: Vec<_> =
        done.iter().filter_map(|execution| Some((folder_of(&answer, &names, execution), root(execution)?))).collect();
    if roots.is_empty() {
        return Err(Failure::new(Exit::NotFound, format!("the job {job} has no results"))
            .hint(format!("`bacnode job describe {job}` shows how far it is")));
    }
    check_target(dir, force)?;
    let failed = |error: std::io::Error| Failure::failed(format!("cannot make {}: {error}", dir.display()));
    for (folder, root) in &roots {
        let target = dir.join(folder);
        std::fs::create_dir_all(&target).map_err(failed)?;
        content(client, root, &target, force).await?;
        if let Some(task) = answer.job.tasks.first() {
            published::complete(&target, &task.publisher).await?;
        }
    }
    output::note(&format!("{} {}", output::green("fetched"), dir.display()));
    Ok(())
}

/// What each node's part of a job is called that runs on every node: as the node is, if that is a name of its own.
fn folders(answer: &GetJobResponse) -> BTreeMap<String, String> {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for item in answer.history.iter().flat_map(|page| &page.items) {
        if let (Some(id), Some(name)) = (item.event.details.get("NodeID"), item.event.details.get("NodeName")) {
            names.insert(id.clone(), name.clone());
        }
    }
    let count = |name: &String| names.values().filter(|other| *other == name).count();
    let own = |name: &String| is_safe_name(name) && count(name) == 1;
    names.iter().map(|(id, name)| (id.clone(), if own(name) { name.clone() } else { id.clone() })).collect()
}

/// The folder of one result within that of the whole: none where there is only one.
fn folder_of(answer: &GetJobResponse, names: &BTreeMap<String, String>, execution: &Execution) -> String {
    match answer.job.kind.as_str() {
        // By the word of whoever tells of the job: it must not lead out of the folder.
        "ops" => {
            let name = names.get(&execution.node_id).unwrap_or(&execution.node_id);
            if is_safe_name(name) { name.clone() } else { execution.partition_index.to_string() }
        }
        _ if answer.job.count <= 1 => String::new(),
        _ => execution.partition_index.to_string(),
    }
}

/// A new or empty folder, unless forced.
pub(super) fn check_target(dir: &Path, force: bool) -> Result<()> {
    let mut entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::usage(format!("cannot use {}: {error}", dir.display()))),
    };
    if entries.next().is_some() && !force {
        return Err(
            Failure::usage(format!("{} is not empty", dir.display())).hint("name another folder, or add --force")
        );
    }
    Ok(())
}

/// Puts content at `to`: a folder's entries into it, a file as it.
pub(super) async fn content(client: &Client, cid: &str, to: &Path, force: bool) -> Result<()> {
    let response = client.send(client.request(Method::GET, &format!("network/content/{}", segment(cid)))).await?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let folder = header("x-content-kind").as_deref() == Some("folder");
    let size = header("x-content-size").and_then(|text| text.parse().ok()).unwrap_or(0);
    let progress = progress(size);
    let stream = response.bytes_stream().map_err(std::io::Error::other);
    let reader = SyncIoBridge::new(StreamReader::new(stream));
    let to = to.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        let mut reader = progress.wrap_read(reader);
        let written = if folder { unpack(&mut reader, &to, force) } else { write_file(&mut reader, &to, force) };
        progress.finish_and_clear();
        written.map_err(|error| Failure::failed(format!("cannot write {}: {error}", to.display())))
    });
    written.await.map_err(|error| Failure::failed(error.to_string()))?
}

fn progress(size: u64) -> ProgressBar {
    if !output::is_terminal() || size < 1 << 20 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(size);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}")
    {
        bar.set_style(style);
    }
    bar
}

pub(super) fn write_file(reader: &mut impl Read, to: &Path, force: bool) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true);
    let mut file = if force { options.create(true).truncate(true) } else { options.create_new(true) }.open(to)?;
    std::io::copy(reader, &mut file).map(|_| ())
}

/// Unpacks what the node sent. It is our own node, but names came from the network.
pub(super) fn unpack(reader: &mut impl Read, to: &Path, force: bool) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    let mut archive = tar::Archive::new(&mut *reader);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let mut target = to.to_owned();
        for part in path.components() {
            match part {
                std::path::Component::Normal(name) if name.to_str().is_some_and(is_safe_name) => target.push(name),
                _ => return Err(std::io::Error::other(format!("`{}` would leave the folder", path.display()))),
            }
        }
        match entry.header().entry_type() {
            tar::EntryType::Directory => std::fs::create_dir_all(&target)?,
            tar::EntryType::Regular => {
                if let Some(parent) = target.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                write_file(&mut entry, &target, force)?;
            }
            _ => return Err(std::io::Error::other(format!("`{}` is neither a file nor a folder", path.display()))),
        }
    }
    // The archive's end is padding; reading it tells a broken stream from a whole one.
    std::io::copy(reader, &mut std::io::sink()).map(|_| ())
}
