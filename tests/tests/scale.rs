//! A node that has been up for long: many jobs to list, to describe, to start with.

use std::path::Path;
use std::time::{Duration, Instant};

use bacnode_node::store::Store;
use bacnode_protocol::content::{Cid, Codec};
use bacnode_protocol::id::{ExecutionId, FencingToken, JobId, NodeId};
use bacnode_protocol::job::state::{ExecutionState, JobState};
use bacnode_protocol::job::{ValidJob, parse, read_document};
use bacnode_protocol::record::{ExecutionRecord, JobEvent, JobRecord, JobStateRecord, Record, What};
use bacnode_protocol::time::UnixMillis;
use bacnode_protocol::wire::bounded::{BytesMax, ListMax, TextMax};
use bacnode_protocol::wire::market::Lease;
use bacnode_protocol::wire::task::{Source, Task};
use bacnode_tests::{Node, Swarm};
use rocksdb::WriteBatch;
use serde_json::Value;

const SPEC: &str = "# old\n{Name: old, Type: batch, Count: 1, Tasks: [{Name: main, Engine: {Type: wasm, Params: {EntryModule: /m}}, \
                    InputSources: [{Source: {Type: inline, Params: {URL: 'data:,x'}}, Target: /m}]}]}";

/// When the first of the old jobs was, in milliseconds since 1970: an hour ago, the same each time it is asked for.
fn begin() -> u64 {
    static BEGIN: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *BEGIN.get_or_init(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
        now.as_millis() as u64 - 3_600_000
    })
}

fn task() -> (Vec<u8>, Task) {
    let valid = ValidJob::new(parse(&read_document(SPEC).expect("YAML")).expect("a spec")).expect("a job");
    let task = valid.task(vec![Source::Content(Cid::of(Codec::Raw, b"x"))]).expect("a task");
    (serde_json::to_vec(&valid.spec).expect("JSON"), task)
}

/// Writes `count` jobs that have ended, with `executions` attempts each, into a data folder.
fn write_history(dir: &Path, owner: &NodeId, count: u32, executions: u32) {
    let store = Store::open(dir).expect("a data folder");
    let (spec, task) = task();
    let begin = begin();
    let mut batch = WriteBatch::default();
    for number in 0..count {
        let id = JobId::new(owner, "default", "old", &number.to_be_bytes());
        let at = UnixMillis(begin + u64::from(number));
        let job = JobRecord {
            id,
            namespace: TextMax::truncated("default"),
            name: TextMax::truncated("old"),
            spec: BytesMax::new(spec.clone()).expect("a short one"),
            task: task.clone(),
            lease: Lease::default(),
            created: at,
            submitted: at,
            strict: false,
            queue_timeout_ms: 1,
            total_timeout_ms: None,
            only_here: false,
        };
        store.put_record(&mut batch, &Record::Job(Box::new(job)));
        for slot in 0..executions {
            let token = FencingToken { epoch: 1, counter: u64::from(number * executions + slot) };
            let execution = ExecutionRecord {
                id: ExecutionId::new(&id, slot, token, owner),
                job: id,
                slot,
                version: 1,
                node: *owner,
                token,
                state: ExecutionState::Failed,
                message: TextMax::truncated("long ago"),
                ports: ListMax::default(),
                accepted: false,
                created: at,
                modified: at,
                result: None,
            };
            store.put_record(&mut batch, &Record::Execution(Box::new(execution)));
        }
        for sequence in 0..4 {
            let event = JobEvent {
                at,
                execution: None,
                node: None,
                label: TextMax::default(),
                what: What::Asked { nodes: 3, slots: 1 },
            };
            store.put_record(&mut batch, &Record::Event(id, sequence, event));
        }
        let state =
            JobStateRecord { id, state: JobState::Failed, message: TextMax::truncated("long ago"), modified: at };
        store.put_record(&mut batch, &Record::JobState(state));
        if number % 1_000 == 999 {
            store.log().append(std::mem::take(&mut batch)).expect("there is room");
        }
    }
    store.log().append(batch).expect("there is room");
}

fn get(node: &Node, path: &str) -> (Value, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let url = format!("{}/api/v1/{path}", node.identity.api);
        // The connection is not what is measured.
        client.get(&url).send().await.expect("an answer");
        let started = Instant::now();
        let body = client.get(&url).send().await.expect("an answer").bytes().await.expect("all of it");
        (serde_json::from_slice(&body).expect("JSON"), started.elapsed())
    })
}

fn memory_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the system tells");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_ascii_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()).expect("a number") / 1024
}

/// The node, started anew over this history, and how long that took.
fn start_over(swarm: &mut Swarm, count: u32, executions: u32) -> Duration {
    let node = &mut swarm.nodes[0];
    let owner: NodeId = node.identity.peer_id.parse().expect("an id");
    node.terminate();
    let dir = swarm.dir().join("old");
    write_history(&dir, &owner, count, executions);
    let started = Instant::now();
    swarm.nodes[0].restart();
    started.elapsed()
}

#[test]
fn a_hundred_thousand_old_jobs_slow_nothing_down() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut swarm = Swarm::empty(&[]);
    swarm.add("old", &["--no-docker"]);
    let took = start_over(&mut swarm, 100_000, 1);
    assert!(took < Duration::from_secs(2), "the start took {took:?}");
    let node = &swarm.nodes[0];
    // Page by page through ten thousand of them, the newest first.
    let (mut token, mut slowest, mut seen) = (String::new(), Duration::ZERO, 0);
    while seen < 10_000 {
        let (page, took) = get(node, &format!("orchestrator/jobs?limit=100&reverse=true&next_token={token}"));
        seen += page["Items"].as_array().map_or(0, Vec::len);
        token = page["NextToken"].as_str().expect("a token").to_owned();
        slowest = slowest.max(took);
    }
    assert!(slowest < Duration::from_millis(50), "the slowest page took {slowest:?}");
    let (named, took) = get(node, "orchestrator/jobs/old");
    assert_eq!(named["Job"]["CreateTime"].as_u64(), Some((begin() + 99_999) * 1_000_000), "the latest");
    assert!(took < Duration::from_millis(200), "the look-up by name took {took:?}");
    let used = memory_mib(node.pid());
    assert!(used < 150, "{used} MiB");
}

#[test]
fn a_thousand_attempts_are_told_at_once_and_old_jobs_are_forgotten() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut swarm = Swarm::empty(&[]);
    swarm.add("old", &["--no-docker", "--keep-jobs", "3"]);
    start_over(&mut swarm, 10, 1_000);
    let node = &swarm.nodes[0];
    let (described, took) = get(node, "orchestrator/jobs/old?include=executions,history");
    assert_eq!(described["Executions"]["Items"].as_array().map(Vec::len), Some(1_000));
    assert!(took < Duration::from_millis(100), "it took {took:?}");
    node.run(&["content", "gc"]).ok();
    let listed = node.run(&["job", "list", "--output", "json"]).ok().json();
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed}");
}
