//! What a job, a byte and an idle node cost, as ratios in one run: machines differ, ratios less so.
//!
//! usage: `bacnode-bench [latency] [throughput] [docker] [web] [transfer] [gossip] [idle]` (all by default)

mod engines;

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use bacnode_protocol::api::{HistoryItem, PutJobResponse};
use bacnode_tests::{Node, Swarm, example, known, program};
use serde_json::{Value, json};

const LATENCY_JOBS: usize = 300;
const THROUGHPUT_JOBS: usize = 3_000;
const THROUGHPUT_WINDOW: usize = 64;
const TRANSFER_BYTES: usize = 512 << 20;
const IDLE_FOR: Duration = Duration::from_secs(20);

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|arg| arg == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    say("figure", "value", "against");
    if is_wanted("latency") || is_wanted("throughput") {
        let swarm = Swarm::new(4);
        let job = hello(&swarm.nodes[0]);
        // Warm: the module is compiled and known, workers are up.
        runtime.block_on(jobs(&swarm.nodes[0], &job, 50, 8));
        if is_wanted("latency") {
            latency(&runtime, &swarm, &job);
        }
        if is_wanted("throughput") {
            throughput(&runtime, &swarm, &job);
        }
    }
    if is_wanted("docker") {
        engines::containers(&runtime);
    }
    if is_wanted("web") {
        engines::web();
        engines::store();
    }
    if is_wanted("transfer") {
        transfer();
    }
    if is_wanted("gossip") {
        gossip();
    }
    if is_wanted("idle") {
        idle();
    }
}

fn say(what: &str, value: &str, against: &str) {
    let _ = writeln!(std::io::stdout(), "{what:<44} {value:>16}   {against}");
}

/// The smallest job; its module lies at the node.
fn hello(node: &Node) -> Value {
    let added = node.run(&["content", "add", &example("hello/hello.wasm"), "--output", "json"]).ok().json();
    json!({"Job": {"Name": "bench", "Type": "batch", "Tasks": [{
        "Name": "main",
        "Engine": {"Type": "wasm", "Params": {"EntryModule": "/hello.wasm"}},
        "InputSources": [{"Source": {"Type": "ipfs", "Params": {"CID": added["Cid"]}}, "Target": "/hello.wasm"}],
        "Resources": {"CPU": "100m", "Memory": "64Mb"},
    }]}})
}

/// Submits one job and waits for its end, over a connection that is kept.
async fn one(client: &reqwest::Client, api: &str, job: &Value) -> Duration {
    let started = Instant::now();
    let put =
        client.put(format!("{api}/api/v1/orchestrator/jobs?wait=true")).json(job).send().await.expect("an answer");
    let put: PutJobResponse = put.json().await.expect("a job");
    let events = client.get(format!("{api}/api/v1/network/jobs/{}/events", put.job_id)).send().await;
    let story = events.expect("an answer").text().await.expect("a story");
    let last: HistoryItem = serde_json::from_str(story.lines().last().expect("a line")).expect("an event");
    assert_eq!(last.event.topic, "Completed", "{story}");
    started.elapsed()
}

/// Runs `count` jobs, `window` at a time.
async fn jobs(node: &Node, job: &Value, count: usize, window: usize) -> Vec<Duration> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let left = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(count));
    let mut tasks = Vec::new();
    for _ in 0..window {
        let (client, api, job, left) = (client.clone(), node.identity.api.clone(), job.clone(), left.clone());
        tasks.push(tokio::spawn(async move {
            let mut took = Vec::new();
            let take = |n: usize| n.checked_sub(1);
            let order = std::sync::atomic::Ordering::SeqCst;
            while left.fetch_update(order, order, take).is_ok() {
                took.push(one(&client, &api, &job).await);
            }
            took
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("a worker"));
    }
    all
}

fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3
}

fn latency(runtime: &tokio::runtime::Runtime, swarm: &Swarm, job: &Value) {
    let mut sync = fdatasync(swarm.dir());
    let mut bare = bare_wasmtime();
    let mut times = runtime.block_on(jobs(&swarm.nodes[0], job, LATENCY_JOBS, 1));
    let (sync, bare) = (percentile(&mut sync, 50), percentile(&mut bare, 50));
    for percent in [50, 99] {
        let ms = percentile(&mut times, percent);
        let against =
            format!("{:.2} × bare wasmtime ({bare:.1} ms), {:.2} × fdatasync ({sync:.1} ms)", ms / bare, ms / sync);
        say(&format!("trivial job, submit to result, p{percent}"), &format!("{ms:.1} ms"), &against);
    }
}

/// One append of 512 bytes and its way to the disk.
fn fdatasync(dir: &std::path::Path) -> Vec<Duration> {
    let mut file = std::fs::File::create(dir.join("sync")).expect("a file");
    let mut one = || {
        let started = Instant::now();
        file.write_all(&[0; 512]).and_then(|()| file.sync_data()).expect("the disk takes it");
        started.elapsed()
    };
    (0..100).map(|_| one()).collect()
}

fn bare_wasmtime() -> Vec<Duration> {
    let (path, module) = (program("examples/bare_wasmtime"), example("hello/hello.wasm"));
    let one = || {
        let started = Instant::now();
        let ran = Command::new(&path).arg(&module).output().expect("it runs");
        assert!(ran.status.success(), "{ran:?}");
        started.elapsed()
    };
    (0..30).map(|_| one()).collect()
}

fn throughput(runtime: &tokio::runtime::Runtime, swarm: &Swarm, job: &Value) {
    let started = Instant::now();
    let mut times = runtime.block_on(jobs(&swarm.nodes[0], job, THROUGHPUT_JOBS, THROUGHPUT_WINDOW));
    let rate = THROUGHPUT_JOBS as f64 / started.elapsed().as_secs_f64();
    let against = format!(
        "{THROUGHPUT_WINDOW} at a time, p50 {:.0} ms, p99 {:.0} ms",
        percentile(&mut times, 50),
        percentile(&mut times, 99)
    );
    say("jobs a second through one requester", &format!("{rate:.0} /s"), &against);
}

fn transfer() {
    let swarm = Swarm::new(2);
    let path = swarm.dir().join("large");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).expect("a file"));
    let mut state = 88_172_645_463_325_252_u64;
    for _ in 0..TRANSFER_BYTES / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes()).expect("the disk takes it");
    }
    drop(file);
    let plain = loopback();
    let mib = TRANSFER_BYTES as f64 / 1e6;
    let started = Instant::now();
    let added = swarm.nodes[0].run(&["content", "add", &path.to_string_lossy(), "--output", "json"]).ok().json();
    let import = mib / started.elapsed().as_secs_f64();
    let started = Instant::now();
    // Listing it brings it here, whole and verified, and nothing further.
    swarm.nodes[1].run(&["content", "ls", added["Cid"].as_str().expect("a CID")]).ok();
    let rate = mib / started.elapsed().as_secs_f64();
    let against = format!("{:.2} × plain loopback TCP ({plain:.0} MB/s)", rate / plain);
    say("transfer node to node, verified and on disk", &format!("{rate:.0} MB/s"), &against);
    say("content add, hashed and on disk", &format!("{import:.0} MB/s"), "");
}

/// Plain TCP over loopback, nothing done with the bytes.
fn loopback() -> f64 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let writer = std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(address).expect("a connection");
        let block = vec![0; 256 << 10];
        for _ in 0..TRANSFER_BYTES / block.len() {
            stream.write_all(&block).expect("the reader reads");
        }
    });
    let (mut stream, _) = listener.accept().expect("a connection");
    let started = Instant::now();
    let (mut block, mut total) = (vec![0; 256 << 10], 0);
    loop {
        match stream.read(&mut block).expect("the writer writes") {
            0 => break,
            read => total += read,
        }
    }
    writer.join().expect("a writer");
    total as f64 / 1e6 / started.elapsed().as_secs_f64()
}

fn gossip() {
    let mut swarm = Swarm::new(4);
    let mut times = Vec::new();
    for round in 0..5 {
        let started = Instant::now();
        swarm.add(&format!("newcomer-{round}"), &[]);
        let up = started.elapsed();
        let count = swarm.nodes.len() + 1;
        while swarm.nodes.iter().any(|node| known(node) < count) {
            std::thread::sleep(Duration::from_millis(2));
        }
        times.push((started.elapsed(), up));
    }
    times.sort_unstable();
    let (all, up) = times[times.len() / 2];
    let against = format!("of which {:.0} ms to start it; 5 to 9 nodes, median of 5", up.as_secs_f64() * 1e3);
    say("a newcomer is seen by all", &format!("{:.0} ms", all.as_secs_f64() * 1e3), &against);
}

fn idle() {
    let swarm = Swarm::new(4);
    let job = hello(&swarm.nodes[0]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(jobs(&swarm.nodes[0], &job, 20, 4));
    std::thread::sleep(Duration::from_secs(3));
    let before = loopback_bytes();
    std::thread::sleep(IDLE_FOR);
    let bytes = loopback_bytes().zip(before).map(|(after, before)| after - before);
    let (daemon, workers) = pss(swarm.nodes[0].pid());
    let mib = |kib: u64| kib as f64 / 1024.0;
    let value = format!("{:.0} MiB", mib(daemon + workers));
    say(
        "idle node, daemon and workers (PSS)",
        &value,
        &format!("daemon {:.0}, workers {:.0}", mib(daemon), mib(workers)),
    );
    if let Some(bytes) = bytes {
        // Five peers, each connected with each: ten connections, each seen from both ends.
        let rate = bytes as f64 / IDLE_FOR.as_secs_f64() / 10.0;
        say("idle traffic of one connection, both ways", &format!("{rate:.0} B/s"), "five peers, all connected");
    }
}

/// KiB of a process, and of its children.
fn pss(pid: u32) -> (u64, u64) {
    let of = |pid: u32| {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or("0 kB");
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0)
    };
    let children = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().flat_map(|task| {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
    });
    (of(pid), children.map(of).sum())
}

/// Bytes that went over the loopback device.
fn loopback_bytes() -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/dev").ok()?;
    let line = table.lines().find_map(|line| line.trim().strip_prefix("lo:"))?;
    line.split_whitespace().next()?.parse().ok()
}
