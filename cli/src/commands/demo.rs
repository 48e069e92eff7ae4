//! `demo`: a bootstrap peer and some nodes as processes of their own on this machine, real jobs over real data, and a node
//! that dies while it works.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use bacnode_protocol::api::{Content as Added, GetJobResponse, HistoryItem, ListNodes, NodeIdentity};
use bacnode_protocol::job::JobSpec;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::{content, download};
use crate::args::Demo;
use crate::client::{Client, segment};
use crate::error::{Failure, Result};
use crate::output;

const PROGRAM: &[u8] = include_bytes!("../../../examples/weather/weather.wasm");
const DATA: &[u8] = include_bytes!("../../../examples/weather/weather.csv");
const NAMES: [&str; 16] = [
    "ada", "bob", "cleo", "dora", "emil", "fay", "gus", "hana", "ivo", "june", "kofi", "lea", "max", "nora", "omar",
    "pia",
];
/// Until a node has started, or everybody knows everybody.
const PATIENCE: Duration = Duration::from_secs(30);
/// Until a job has ended.
const JOB_PATIENCE: Duration = Duration::from_secs(120);
const NETWORK: &str = "demo-local";

pub(super) async fn run(args: &Demo) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("bacnode-demo-").tempdir();
    let dir = dir.map_err(|error| Failure::failed(format!("cannot make a folder for the demo: {error}")))?;
    tokio::select! {
        shown = show(args, dir.path()) => shown,
        _ = tokio::signal::ctrl_c() => {
            output::note("\nending the demo …");
            Ok(())
        }
    }
    // The children end with their stdin, whatever becomes of this process; the folder goes with `dir`.
}

/// One process of the demo.
struct Peer {
    name: String,
    child: Child,
    identity: NodeIdentity,
}

impl Peer {
    fn client(&self) -> Result<Client> {
        Client::new(&self.identity.api)
    }
}

fn heading(text: &str) {
    output::note(&format!("\n{}", output::bold(text)));
}

async fn show(args: &Demo, dir: &Path) -> Result<()> {
    heading("A network");
    let started = Instant::now();
    let (bootstrap, mut nodes) = start_all(args.nodes, dir).await?;
    everybody_knows(&nodes, nodes.len() + 1).await?;
    output::note(&format!(
        "  a bootstrap peer and {} nodes, each a process; after {} everybody knows everybody",
        nodes.len(),
        output::duration(millis(started.elapsed()))
    ));
    output::note(&format!("  {} submits and runs no jobs; {} run them", nodes[0].name, names(&nodes[1..])));
    let (program, data) = add_data(dir, &nodes).await?;
    first_job(&nodes, &program, &data, dir).await?;
    killed_job(&mut nodes, &program, &data).await?;
    if args.keep {
        keep(&nodes, dir).await?;
    } else {
        heading("Everything ends with the demo");
        output::note("  `bacnode demo --keep` leaves the network up to play with");
    }
    drop(bootstrap);
    Ok(())
}

fn names(nodes: &[Peer]) -> String {
    nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

async fn start_all(count: u8, dir: &Path) -> Result<(Peer, Vec<Peer>)> {
    let program =
        std::env::current_exe().map_err(|error| Failure::failed(format!("cannot find this program: {error}")))?;
    let helper = program.with_file_name("bacnode-bootstrap");
    if !helper.exists() {
        return Err(Failure::failed(format!("{} is missing", helper.display()))
            .hint("it is built with this program: `cargo build -p bacnode-bootstrap`"));
    }
    let mut bootstrap = spawn(&helper, "bootstrap", dir, &[])?;
    bootstrap.identity = ready(&mut bootstrap, dir).await?;
    let address = bootstrap.identity.addresses.first().cloned().unwrap_or_default();
    let mut nodes = Vec::new();
    for (index, name) in NAMES.iter().take(usize::from(count)).enumerate() {
        let mut more = vec!["--api", "127.0.0.1:0", "--bootstrap", &address, "--log-level", "warn"];
        if index == 0 {
            more.push("--no-compute");
        }
        nodes.push(spawn(&program, name, dir, &more)?);
    }
    for node in &mut nodes {
        node.identity = ready(node, dir).await?;
    }
    Ok((bootstrap, nodes))
}

fn spawn(program: &Path, name: &str, dir: &Path, more: &[&str]) -> Result<Peer> {
    let failed = |error: std::io::Error| Failure::failed(format!("cannot start {name}: {error}"));
    let log = std::fs::File::create(dir.join(format!("{name}.log"))).map_err(failed)?;
    let child = Command::new(program)
        .args(["serve", "--network", NETWORK, "--name", name, "--listen", "/ip4/127.0.0.1/tcp/0", "--until-eof"])
        .arg("--data-dir")
        .arg(dir.join(name))
        .arg("--ready-file")
        .arg(dir.join(format!("{name}.json")))
        .args(more)
        // Settings of the machine's real node are not for the demo's.
        .env_clear()
        .envs(std::env::vars().filter(|(key, _)| !key.starts_with("BACNODE_")))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    Ok(Peer { name: name.to_owned(), child, identity: NodeIdentity::default() })
}

/// Waits for a process's ready file.
async fn ready(peer: &mut Peer, dir: &Path) -> Result<NodeIdentity> {
    let path = dir.join(format!("{}.json", peer.name));
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(identity) = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            return Ok(identity);
        }
        let ended = peer.child.try_wait().ok().flatten();
        if ended.is_some() || Instant::now() > deadline {
            let log = std::fs::read_to_string(dir.join(format!("{}.log", peer.name))).unwrap_or_default();
            let last = log.lines().last().unwrap_or("it says nothing").to_owned();
            return Err(Failure::failed(format!("{} does not start: {last}", peer.name)));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn everybody_knows(nodes: &[Peer], count: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for node in nodes {
        let client = node.client()?;
        loop {
            let known: ListNodes = client.get("orchestrator/nodes").await?;
            if known.nodes.len() >= count {
                break;
            }
            if Instant::now() > deadline {
                return Err(Failure::failed(format!("{} knows {} of {count} nodes", node.name, known.nodes.len())));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

async fn add_data(dir: &Path, nodes: &[Peer]) -> Result<(Added, Added)> {
    heading("Some data");
    let write = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
        let path = dir.join(name);
        std::fs::write(&path, bytes).map_err(|error| Failure::failed(format!("cannot write {name}: {error}")))?;
        Ok(path)
    };
    let (program, data) = (write("weather.wasm", PROGRAM)?, write("weather.csv", DATA)?);
    let holder = &nodes[1];
    let added =
        (content::add(&holder.client()?, &program, false).await?, content::add(&holder.client()?, &data, false).await?);
    output::note(&format!(
        "  {} holds four years of daily weather (NOAA, public domain) and a program for it:",
        holder.name
    ));
    for (what, added) in [("weather.csv ", &added.1), ("weather.wasm", &added.0)] {
        output::note(&format!(
            "  {what} {} {}",
            added.cid,
            output::dim(&bacnode_protocol::job::format_bytes(added.size))
        ));
    }
    Ok(added)
}

fn weather(program: &Added, data: &Added, resamples: u32) -> Result<Value> {
    let spec = json!({
        "Name": "weather", "Type": "batch", "Count": 1,
        "Tasks": [{
            "Name": "main",
            "Engine": {"Type": "wasm", "Params": {
                "EntryModule": "/weather.wasm",
                "Parameters": ["/data/weather.csv", "/outputs", resamples.to_string()],
            }},
            "InputSources": [
                {"Source": {"Type": "ipfs", "Params": {"CID": program.cid}}, "Target": "/weather.wasm"},
                {"Source": {"Type": "ipfs", "Params": {"CID": data.cid}}, "Target": "/data/weather.csv"},
            ],
            "ResultPaths": [{"Name": "outputs", "Path": "/outputs"}],
            "Resources": {"CPU": "500m", "Memory": "128Mb"},
            "Deterministic": true,
        }],
    });
    let spec: JobSpec = bacnode_protocol::job::parse(&spec)?;
    serde_json::to_value(spec).map_err(|error| Failure::failed(error.to_string()))
}

/// Submits a job, prints its story as it unfolds, and hands every line to `watch`.
async fn tell(client: &Client, job: Value, mut watch: impl FnMut(&HistoryItem)) -> Result<String> {
    let put = json!({ "Job": job });
    let put: bacnode_protocol::api::PutJobResponse = client.put("orchestrator/jobs?wait=true", &put).await?;
    let mut lines = client.lines::<HistoryItem>(&format!("network/jobs/{}/events", segment(&put.job_id))).await?;
    let started = Instant::now();
    let story = async {
        while let Some(item) = lines.next().await? {
            let at = format!("+{}", output::duration(millis(started.elapsed())));
            let text = output::plain(&item.event.message);
            let text = match item.event.topic.as_str() {
                "Awarded" => output::bold(&text),
                "Accepted" | "Completed" => output::green(&text),
                "Suspected" | "Lost" | "Failed" => output::red(&text),
                "Bid" => output::dim(&text),
                _ => text,
            };
            output::note(&format!("{at:>12}  {text}"));
            watch(&item);
            if ["Completed", "Failed", "Stopped"].contains(&item.event.topic.as_str()) {
                break;
            }
        }
        Ok::<_, Failure>(())
    };
    tokio::time::timeout(JOB_PATIENCE, story).await.map_err(|_| Failure::failed("the job does not end"))??;
    Ok(put.job_id)
}

/// The CID of a job's one result.
async fn result_of(client: &Client, job: &str) -> Result<String> {
    let answer: GetJobResponse = client.get(&format!("orchestrator/jobs/{}?include=executions", segment(job))).await?;
    if answer.job.state.state_type != "Completed" {
        return Err(Failure::failed(format!(
            "the job {}: {}",
            answer.job.state.state_type.to_lowercase(),
            answer.job.state.message
        )));
    }
    let executions = answer.executions.unwrap_or_default().items;
    let done = executions.iter().find(|execution| execution.compute_state.state_type == 9);
    let cid = done.and_then(|execution| execution.published_result.params.get("CID")?.as_str());
    cid.map(str::to_owned).ok_or_else(|| Failure::failed("the job has no result"))
}

async fn first_job(nodes: &[Peer], program: &Added, data: &Added, dir: &Path) -> Result<()> {
    let (asker, reader) = (&nodes[0], &nodes[nodes.len() - 1]);
    heading(&format!("A job, submitted at {}", asker.name));
    let mut phases: Vec<(String, Instant)> = Vec::new();
    let started = Instant::now();
    let client = asker.client()?;
    let note_phase = |item: &HistoryItem| phases.push((item.event.topic.clone(), Instant::now()));
    let job = tell(&client, weather(program, data, 200)?, note_phase).await?;
    let at = |topic: &str| phases.iter().find(|(known, _)| known == topic).map(|(_, at)| *at);
    let span =
        |from: Instant, to: Option<Instant>| output::duration(to.map_or(0, |to| millis(to.duration_since(from))));
    let awarded = at("Awarded").unwrap_or(started);
    let running = at("Running").unwrap_or(awarded);
    output::note(&format!(
        "  {} to find a node, {} until it ran, {} to run and bring home, {} in all",
        span(started, at("Awarded")),
        span(awarded, at("Running")),
        span(running, at("Completed")),
        output::duration(millis(started.elapsed()))
    ));
    let cid = result_of(&client, &job).await?;
    heading(&format!("Its result, fetched at {} by its content identifier", reader.name));
    let to = dir.join("result");
    download::content(&reader.client()?, &cid, &to, false).await?;
    let printed = std::fs::read_to_string(to.join("stdout"))
        .map_err(|error| Failure::failed(format!("the result has no stdout: {error}")))?;
    output::line(&cid);
    for line in printed.lines() {
        output::line(&format!("  {line}"));
    }
    for name in ["monthly.csv", "monthly.svg"] {
        let size = std::fs::metadata(to.join("outputs").join(name)).map_or(0, |meta| meta.len());
        output::line(&format!("  outputs/{name}  {}", bacnode_protocol::job::format_bytes(size)));
    }
    Ok(())
}

async fn killed_job(nodes: &mut Vec<Peer>, program: &Added, data: &Added) -> Result<()> {
    heading("The same with many more resamples, and the node is killed while it works");
    let client = nodes[0].client()?;
    // The holder of the data may be the one that dies: the asker holds a copy, too.
    for added in [program, data] {
        client.send(client.request(reqwest::Method::GET, &format!("network/content/{}", segment(&added.cid)))).await?;
    }
    let (victims, mut deaths) = tokio::sync::mpsc::channel(1);
    let job = weather(program, data, 200_000)?;
    let mut told = false;
    let telling = tell(&client, job.clone(), |item| {
        if item.event.topic == "Running" && !std::mem::replace(&mut told, true) {
            let _ = victims.try_send(item.event.details.get("NodeName").cloned().unwrap_or_default());
        }
    });
    let killing = async {
        let victim = deaths.recv().await?;
        tokio::time::sleep(Duration::from_millis(700)).await;
        let index = nodes.iter().position(|node| node.name == victim)?;
        let mut node = nodes.remove(index);
        let _ = node.child.start_kill();
        let _ = node.child.wait().await;
        output::note(&output::red(&format!("              kill -9 {}", node.name)));
        Some(node.name)
    };
    let (job_id, victim) = tokio::join!(telling, killing);
    let cid = result_of(&client, &job_id?).await?;
    let victim = victim.ok_or_else(|| Failure::failed("the job ended before its node could be killed"))?;
    heading("Once more, undisturbed: the same data and program give the same result");
    let again = tell(&client, job, |_| {}).await?;
    let again = result_of(&client, &again).await?;
    output::line(&cid);
    if again != cid {
        return Err(Failure::failed(format!("the results differ: {cid} after the death of {victim}, {again} without")));
    }
    output::line(&format!("  {}", output::green("the same CID, although its first node died")));
    Ok(())
}

async fn keep(nodes: &[Peer], dir: &Path) -> Result<()> {
    heading("The network stays up until Ctrl-C");
    for node in nodes {
        output::note(&format!("  {:<6} {}", node.name, node.identity.api));
    }
    output::note(&format!("\n  export BACNODE_API={}", nodes[0].identity.api));
    for command in
        ["node list", "peers", "job list", "job describe weather", "content ls", "submit examples/hello/job.yaml"]
    {
        output::note(&format!("  bacnode {command}"));
    }
    output::note(&format!("\n  logs and data: {}", dir.display()));
    let _ = tokio::signal::ctrl_c().await;
    output::note("\nending the demo …");
    Ok(())
}
