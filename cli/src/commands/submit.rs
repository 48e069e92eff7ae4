//! `submit`: hand in a job, show how it goes, say how it ended.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bacnode_protocol::api::{DiffResponse, GetJobResponse, HistoryItem, PutJobRequest, PutJobResponse};
use bacnode_protocol::job::{JobSpec, ValidJob, parse, read_document, render};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::{content, download, job};
use crate::args::{Format, Submit, Waiting};
use crate::client::{Client, segment};
use crate::error::{Exit, Failure, Result};
use crate::output;
use crate::settings::pair;

pub(super) async fn run(client: &Client, args: Submit) -> Result<()> {
    let template = Template { vars: &args.vars, env: args.env_vars.as_deref(), none: args.no_template };
    let (mut spec, base) = read(&args.spec, &template)?;
    if args.dry_run {
        return dry_run(client, spec, &base).await;
    }
    upload_files(client, &mut spec, &base).await?;
    submit(client, spec, args.force, args.waiting).await
}

/// Shows the job, and what it would change of the one that has its name, if a node is there to say.
async fn dry_run(client: &Client, mut spec: JobSpec, base: &Path) -> Result<()> {
    let valid = ValidJob::new(without_files(&spec))?;
    output::structured(Format::Yaml, &spec)?;
    for warning in &valid.warnings {
        output::note(&format!("warning: {warning}"));
    }
    if spec.name.is_empty() {
        return Ok(());
    }
    let name = spec.name.clone();
    match upload_files(client, &mut spec, base).await {
        Ok(()) => {}
        Err(failure) if failure.exit == Exit::Unreachable => {
            output::note("no node is there to compare it with what was submitted before");
            return Ok(());
        }
        Err(failure) => return Err(failure),
    }
    let job = serde_json::to_value(&spec).map_err(|error| Failure::failed(error.to_string()))?;
    let answer: DiffResponse = client.put("orchestrator/jobs/diff", &PutJobRequest { job, force: false }).await?;
    if answer.diff.is_empty() {
        output::note(&format!("nothing would change of `{name}`"));
    } else {
        output::note(&format!("what would change of `{name}`:"));
        output::note(output::plain(&answer.diff).trim_end());
    }
    Ok(())
}

/// What fills `{{.name}}` in a spec.
#[derive(Debug, Default)]
pub(super) struct Template<'a> {
    pub(super) vars: &'a [String],
    pub(super) env: Option<&'a str>,
    pub(super) none: bool,
}

impl Template<'_> {
    fn render(&self, text: String) -> Result<String> {
        if self.none {
            return Ok(text);
        }
        let mut values = BTreeMap::new();
        if let Some(pattern) = self.env {
            let wrong =
                |error: regex::Error| Failure::usage(format!("-E {pattern}: not a regular expression: {error}"));
            let pattern = regex::Regex::new(pattern).map_err(wrong)?;
            values.extend(std::env::vars().filter(|(name, _)| pattern.is_match(name)));
        }
        for text in self.vars {
            let (name, value) = pair("-V", text)?;
            values.insert(name, value);
        }
        Ok(render(&text, &values)?)
    }
}

/// Reads a spec; relative paths in it start at its own folder.
pub(super) fn read(path: &Path, template: &Template<'_>) -> Result<(JobSpec, PathBuf)> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(|error| Failure::usage(format!("cannot read the spec from stdin: {error}")))?;
        text
    } else {
        std::fs::read_to_string(path).map_err(|error| {
            let reason =
                if error.kind() == std::io::ErrorKind::NotFound { "no such file".into() } else { error.to_string() };
            Failure::usage(format!("cannot read the spec {}: {reason}", path.display()))
        })?
    };
    let spec = parse(&read_document(&template.render(text)?)?)?;
    let base = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((spec, base.to_owned()))
}

/// The path of an input of type `file`: something beside the spec, to be added as content.
fn file_path(source: &bacnode_protocol::job::SpecConfig) -> Option<&str> {
    if source.kind != "file" {
        return None;
    }
    source.params.iter().find(|(key, _)| key.eq_ignore_ascii_case("path")).and_then(|(_, value)| value.as_str())
}

/// The spec as if its files were content, to be checked before anything is added.
pub(super) fn without_files(spec: &JobSpec) -> JobSpec {
    let mut spec = spec.clone();
    for input in spec.tasks.iter_mut().flat_map(|task| &mut task.input_sources) {
        if file_path(&input.source).is_some() {
            input.source.kind = "inline".into();
            input.source.params = [("URL".to_owned(), Value::String("data:,".into()))].into_iter().collect();
        }
    }
    spec
}

/// Adds the files that a spec names, and puts their CIDs in their places.
async fn upload_files(client: &Client, spec: &mut JobSpec, base: &Path) -> Result<()> {
    ValidJob::new(without_files(spec))?;
    for input in spec.tasks.iter_mut().flat_map(|task| &mut task.input_sources) {
        let Some(path) = file_path(&input.source) else { continue };
        let added = content::add(client, &base.join(path), false).await?;
        input.source.kind = "ipfs".into();
        input.source.params = [("CID".to_owned(), Value::String(added.cid))].into_iter().collect();
    }
    Ok(())
}

/// Hands a job in and waits as told.
pub(super) async fn submit(client: &Client, spec: JobSpec, force: bool, waiting: Waiting) -> Result<()> {
    let job = serde_json::to_value(&spec).map_err(|error| Failure::failed(error.to_string()))?;
    let path = if waiting.no_wait { "orchestrator/jobs" } else { "orchestrator/jobs?wait=true" };
    if let Some(dir) = &waiting.download {
        download::check_target(dir, false)?;
    }
    let put: PutJobResponse = client.put(path, &PutJobRequest { job, force }).await?;
    follow(client, put, ["service", "daemon"].contains(&spec.kind.as_str()), waiting).await
}

/// Waits as told for a job that was handed in: for its end, or until it runs if it has none.
pub(super) async fn follow(client: &Client, put: PutJobResponse, endless: bool, waiting: Waiting) -> Result<()> {
    let id = put.job_id.clone();
    for warning in &put.warnings {
        output::note(&format!("warning: {}", output::plain(warning)));
    }
    if waiting.id_only {
        output::line(&id);
    } else if waiting.no_wait {
        output::line(&id);
        output::note(&output::dim(&format!("bacnode job describe {id}")));
    }
    if waiting.no_wait {
        return Ok(());
    }
    if !waiting.id_only {
        output::note(&format!("{} {id}", output::bold("job")));
    }
    let ended = tokio::select! {
        ended = wait(client, &put, endless, &waiting) => ended?,
        _ = tokio::signal::ctrl_c() => {
            return Err(Failure::new(Exit::Interrupted, format!("detached; the job {id} goes on"))
                .hint(format!("`bacnode job describe {id}` shows it, `bacnode job stop {id}` stops it")));
        }
    };
    let Some(client) = ended else {
        return Err(Failure::new(Exit::Timeout, format!("the job {id} has not ended yet"))
            .hint(format!("`bacnode job describe {id}` shows how far it is")));
    };
    if endless {
        let state: GetJobResponse = client.get(&format!("orchestrator/jobs/{}", segment(&id))).await?;
        if !state.job.is_terminal() {
            output::note(&format!("{} {}", output::green("runs"), output::dim(&format!("bacnode job stop {id}"))));
            return Ok(());
        }
    }
    finish(client, &id, &waiting).await
}

/// Shows the job's story as it unfolds; gives the node that told its end, or none if the time was up first.
async fn wait<'a>(
    client: &'a Client,
    put: &PutJobResponse,
    endless: bool,
    waiting: &Waiting,
) -> Result<Option<&'a Client>> {
    let id = put.job_id.as_str();
    let shown = follow_story(client, put, endless && !waiting.follow, waiting);
    let logs = async {
        if waiting.follow {
            // What cannot be followed can be read afterwards.
            let _ = job::logs(client, id, true, None, None).await;
        }
    };
    let both = async {
        let (told, ()) = tokio::join!(shown, logs);
        told
    };
    match waiting.wait_timeout {
        Some(seconds) => match tokio::time::timeout(Duration::from_secs(seconds), both).await {
            Ok(told) => told.map(Some),
            Err(_) => Ok(None),
        },
        None => both.await.map(Some),
    }
}

/// The story of a job that was handed in, told as it unfolds.
struct Story<'a> {
    waiting: &'a Waiting,
    /// Whether it is over when the job runs.
    until_it_runs: bool,
    spinner: Option<ProgressBar>,
    told: Vec<HistoryItem>,
}

impl Story<'_> {
    /// Tells what happened; whether that is all there is to wait for.
    fn tell(&mut self, item: HistoryItem) -> bool {
        let text = output::plain(&item.event.message);
        match &self.spinner {
            Some(spinner) => {
                if !self.waiting.group_events {
                    spinner.println(format!("  {}", output::dim(&text)));
                }
                spinner.set_message(text);
            }
            None if self.waiting.id_only || self.waiting.group_events => {}
            None => output::note(&format!("  {text}")),
        }
        let topic = item.event.topic.as_str();
        let over = ["Completed", "Failed", "Stopped"].contains(&topic) || (self.until_it_runs && topic == "Running");
        self.told.push(item);
        if over {
            if let Some(spinner) = &self.spinner {
                spinner.finish_and_clear();
            }
            if self.waiting.group_events && !self.waiting.id_only {
                for line in by_attempt(&self.told) {
                    output::note(&line);
                }
            }
        }
        over
    }

    /// Tells what is new in the story as another node has it; whether that is all there is to wait for. What only the first node
    /// knew may have been counted otherwise: an end is told whatever its number.
    fn go_on(&mut self, items: Vec<HistoryItem>, ended: bool) -> bool {
        let known = self.told.iter().map(|item| item.seq_num).max();
        let end = items.last().map(|item| item.seq_num).filter(|_| ended);
        let is_new = |item: &HistoryItem| known.is_none_or(|known| item.seq_num > known) || Some(item.seq_num) == end;
        items.into_iter().filter(is_new).any(|item| self.tell(item))
    }
}

/// Gives the node that told the end of the story.
async fn follow_story<'a>(
    client: &'a Client,
    put: &PutJobResponse,
    until_it_runs: bool,
    waiting: &Waiting,
) -> Result<&'a Client> {
    let id = segment(&put.job_id);
    let mut lines = client.lines::<HistoryItem>(&format!("network/jobs/{id}/events")).await?;
    let mut story = Story { waiting, until_it_runs, spinner: spinner(waiting), told: Vec::new() };
    while let Some(item) = lines.next().await? {
        if story.tell(item) {
            return Ok(client);
        }
    }
    // A job that others keep does not end with its node: any other knows of it.
    let another = client.another().filter(|_| !put.guardians.is_empty());
    let Some(other) = another else { return Err(gone(put)) };
    output::note(&format!("{} does not answer any more: asking {}", client.shown(), other.shown()));
    let path = format!("orchestrator/jobs/{id}?include=history");
    loop {
        match other.get::<GetJobResponse>(&path).await {
            Err(failure) if failure.exit == Exit::Unreachable => return Err(gone(put)),
            // Until somebody else leads it, nobody may know.
            Err(_) => {}
            Ok(answer) => {
                let ended = answer.job.is_terminal();
                if story.go_on(answer.history.unwrap_or_default().items, ended) {
                    return Ok(other);
                }
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// How often another node is asked how a job is.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// The node at which the job was submitted is gone.
fn gone(put: &PutJobResponse) -> Failure {
    let id = &put.job_id;
    if put.guardians.is_empty() {
        return Failure::new(Exit::Unreachable, format!("the node went away; the job {id} goes on when it is back"))
            .hint(format!("`bacnode job describe {id}` shows how far it is"));
    }
    let keepers = put.guardians.join(" and ");
    Failure::new(Exit::Unreachable, format!("the node went away; the job {id} goes on without it, kept by {keepers}"))
        .hint(format!("at any other node `bacnode --api ADDRESS job describe {id}` tells of it"))
}

/// The story, attempt by attempt in the order in which they began, after what is of the job as a whole.
fn by_attempt(told: &[HistoryItem]) -> Vec<String> {
    let mut attempts: Vec<(&str, Vec<&HistoryItem>)> = vec![("", Vec::new())];
    for item in told {
        let known = attempts.iter().position(|(id, _)| *id == item.execution_id);
        let index = known.unwrap_or_else(|| {
            attempts.push((&item.execution_id, Vec::new()));
            attempts.len() - 1
        });
        attempts[index].1.push(item);
    }
    let mut lines = Vec::new();
    for (id, items) in attempts {
        if !id.is_empty() {
            lines.push(format!("  {}", output::bold(id)));
        }
        let margin = if id.is_empty() { "  " } else { "    " };
        lines.extend(items.iter().map(|item| format!("{margin}{}", output::plain(&item.event.message))));
    }
    lines
}

fn spinner(waiting: &Waiting) -> Option<ProgressBar> {
    if waiting.id_only || waiting.follow || !output::is_terminal() {
        return None;
    }
    let spinner = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(100));
    Some(spinner)
}

/// Says how the job ended; a program's own exit code counts.
async fn finish(client: &Client, id: &str, waiting: &Waiting) -> Result<()> {
    let answer: GetJobResponse = client.get(&format!("orchestrator/jobs/{}?include=executions", segment(id))).await?;
    let executions = answer.executions.unwrap_or_default().items;
    if waiting.node_details && !waiting.id_only {
        for line in job::execution_table(&executions) {
            output::note(&line);
        }
    }
    if answer.job.state.state_type != "Completed" {
        let message = match answer.job.state.message.as_str() {
            "" => format!("the job {}", answer.job.state.state_type.to_lowercase()),
            cause => cause.to_owned(),
        };
        let hint = match executions.last() {
            Some(_) => format!("`bacnode job describe {id}` tells the story, `bacnode job logs {id}` what was printed"),
            None => "`bacnode node list` shows what the nodes have".to_owned(),
        };
        return Err(Failure::failed(message).hint(hint));
    }
    let mut done: Vec<_> = executions.iter().filter(|e| e.compute_state.state_type == 9).collect();
    done.sort_by_key(|execution| execution.partition_index);
    if !waiting.id_only {
        for execution in &done {
            let cid = execution.published_result.params.get("CID").and_then(Value::as_str).unwrap_or_default();
            output::note(&format!(
                "{} {}",
                output::green("done"),
                output::dim(&format!("bacnode job get {id} -o results"))
            ));
            output::line(cid);
        }
    }
    if let Some(dir) = &waiting.download {
        download::results(client, id, dir, false).await?;
    }
    match done.iter().find(|execution| execution.run_output.exit_code != 0) {
        Some(execution) => {
            let code = execution.run_output.exit_code;
            Err(Failure::failed(format!("the program exited {code}"))
                .hint(format!("`bacnode job logs {id}` shows what it printed")))
        }
        None => Ok(()),
    }
}
