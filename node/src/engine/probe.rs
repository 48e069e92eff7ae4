//! The operator's own word on a job: a program or a web server that looks at each ask.

use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use bacnode_protocol::compute::{Considered, Refusal};
use bacnode_protocol::wire::task::{EngineTask, Source};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

/// How long it may take to make up its mind; whoever asked waits no longer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a reason.
const REASON_MAX: usize = 120;

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A command for the shell: the ask comes as JSON on its stdin and in `BACNODE_ASK`; it says yes by ending with 0, and
    /// why not on its stderr.
    Command(String),
    /// A URL to which the ask is posted as JSON; an answer of 400 or more is a no, and its text says why.
    Url(String),
}

impl Probe {
    /// Asks.
    ///
    /// # Errors
    /// If the answer is no, or there is none.
    pub(super) async fn ask(&self, considered: &Considered) -> Result<(), Refusal> {
        let ask = document(considered);
        let answer = async {
            match self {
                Self::Command(command) => ask_command(command, &ask).await,
                Self::Url(url) => ask_url(url, &ask).await,
            }
        };
        let answer = tokio::time::timeout(TIMEOUT, answer).await;
        let answer = answer.unwrap_or_else(|_| Err("it does not answer".into()));
        // What it says today it may not say tomorrow.
        answer.map_err(|reason| Refusal {
            reason: format!("the operator's probe says no: {reason} (rule: probe)"),
            later: true,
        })
    }
}

/// What a probe is told of a job.
fn document(considered: &Considered) -> Value {
    let task = &considered.task;
    let image = match &task.engine {
        EngineTask::Docker(docker) => Some(docker.image.to_string()),
        EngineTask::Wasm(_) => None,
    };
    let inputs = task.inputs.iter().map(|input| match &input.source {
        Source::Content(cid) => json!({ "Type": "ipfs", "CID": cid.to_string() }),
        Source::Local { path, writable } => {
            json!({ "Type": "local", "SourcePath": path.to_string(), "ReadWrite": writable })
        }
        Source::Url { url, .. } => json!({ "Type": "urlDownload", "URL": url.to_string() }),
        Source::S3(objects) => {
            let place = &objects.place;
            json!({ "Type": "s3", "Bucket": &*place.bucket, "Key": &*place.key, "Endpoint": &*place.endpoint })
        }
    });
    json!({
        "Job": {
            "ID": considered.job.to_string(),
            "Owner": considered.owner.to_string(),
            "Type": task.kind.name(),
            "Engine": task.engine.engine().name(),
            "Image": image,
            "Inputs": inputs.collect::<Vec<_>>(),
            "Network": task.network.reach().name(),
            "Resources": {
                "CPU": task.resources.cpu_milli as f64 / 1_000.0,
                "Memory": task.resources.memory,
                "Disk": task.resources.disk,
                "GPU": task.resources.gpu,
            },
            "ExecutionTimeout": task.timeout_ms / 1_000,
        },
    })
}

async fn ask_command(command: &str, ask: &Value) -> Result<(), String> {
    let ask = ask.to_string();
    let mut shell = tokio::process::Command::new("/bin/sh");
    shell.args(["-c", command]).env("BACNODE_ASK", &ask).env("BACALHAU_JOB_SELECTION_PROBE_DATA", &ask);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = shell.spawn().map_err(|error| format!("it cannot be started: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read decides by the environment.
        let _ = stdin.write_all(ask.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(reason(&String::from_utf8_lossy(&output.stderr))) }
}

async fn ask_url(url: &str, ask: &Value) -> Result<(), String> {
    // Made at the first ask: the system's certificates take a moment to read.
    static CLIENT: OnceLock<Option<reqwest::Client>> = OnceLock::new();
    let client = CLIENT.get_or_init(|| super::web::plain_client().build().ok());
    let client = client.as_ref().ok_or("it cannot be asked over the web")?;
    let answer = client.post(url).json(ask).send().await.map_err(|_| "it cannot be reached".to_owned())?;
    let (refused, text) = (answer.status().as_u16() >= 400, answer.text().await.unwrap_or_default());
    let said: Value = serde_json::from_str(&text).unwrap_or_default();
    let refused = refused || said["shouldBid"] == Value::Bool(false);
    if refused { Err(reason(said["reason"].as_str().unwrap_or(&text))) } else { Ok(()) }
}

/// The first line, without what a terminal would obey.
fn reason(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it gives no reason");
    line.chars().filter(|c| !c.is_control()).take(REASON_MAX).collect()
}
