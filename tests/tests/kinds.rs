//! Services, daemons and ops jobs on real processes: what runs where, and what goes on when nodes die.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bacnode_tests::docker::{self, IMAGE};
use bacnode_tests::{Node, Swarm, eventually, example};

/// A module that sleeps for ever, as a service.
fn sleeper(node: &Node, kind: &str, name: &str, more: &[&str]) -> String {
    let options = ["wasm", "run", "--type", kind, "--name", name, "--cpu", "50m", "--memory", "32Mb", "--id-only"];
    let trial = example("trials/trial.wasm");
    let args = [&options[..], more, &["--no-wait", &trial, "--", "sleep", "1000000000"]].concat();
    node.run(&args).ok().text().to_owned()
}

/// The nodes at which a job runs now, by slot, and in which version.
fn running(node: &Node, job: &str) -> Vec<(u32, String, u64)> {
    let listed = node.run(&["job", "executions", job, "--all-versions", "--output", "json"]).ok().json();
    let mut running: Vec<_> = listed
        .as_array()
        .expect("a list")
        .iter()
        .filter(|execution| execution["ComputeState"]["StateType"] == 6)
        .map(|execution| {
            let slot = execution["PartitionIndex"].as_u64().expect("a slot") as u32;
            (
                slot,
                execution["NodeID"].as_str().expect("an id").to_owned(),
                execution["JobVersion"].as_u64().expect("a number"),
            )
        })
        .collect();
    running.sort();
    running
}

fn runs(node: &Node, job: &str, count: usize) -> Vec<(u32, String, u64)> {
    eventually(&format!("that {job} runs {count} times"), || {
        Some(running(node, job)).filter(|runs| runs.len() == count)
    })
}

#[test]
fn a_daemon_also_runs_on_a_node_that_joins_later() {
    let mut swarm = Swarm::new(2);
    let job = sleeper(&swarm.nodes[0], "daemon", "watcher", &[]);
    runs(&swarm.nodes[0], &job, 2);
    let late = swarm.add("late", &["--no-docker"]).identity.peer_id.clone();
    let nodes = runs(&swarm.nodes[0], &job, 3);
    assert!(nodes.iter().any(|(_, node, _)| *node == late), "{nodes:?}");
    // Its name is enough, and when it is stopped it is stopped everywhere.
    swarm.nodes[0].run(&["job", "stop", "watcher"]).ok();
    runs(&swarm.nodes[0], &job, 0);
    let again = sleeper(&swarm.nodes[0], "daemon", "watcher", &[]);
    assert_ne!(again, job, "what was stopped is over");
    swarm.nodes[0].run(&["job", "stop", &again]).ok();
}

#[test]
fn ops_runs_where_the_labels_match_and_nowhere_else() {
    let mut swarm = Swarm::empty(&[]);
    for (name, zone) in [("a", "zone=eu"), ("b", "zone=us"), ("c", "zone=eu")] {
        swarm.add(name, &["--no-docker", "--label", zone]);
    }
    swarm.everybody_knows(4);
    let (node, hello) = (&swarm.nodes[1], example("hello/hello.wasm"));
    let to = swarm.dir().join("hello");
    let run = ["wasm", "run", "--type", "ops", "--name", "greet", "--constraints", "zone=eu", "--download"];
    node.run(&[&run[..], &[&to.to_string_lossy(), &hello]].concat()).ok();
    let job = node.job("greet");
    assert_eq!(job.executions.expect("executions").items.len(), 2);
    assert!(to.join("a/stdout").exists() && to.join("c/stdout").exists());
    let nowhere = node.run(&["wasm", "run", "--type", "ops", "--constraints", "zone=mars,disk", &hello]);
    assert_eq!(nowhere.code, 1);
    assert!(nowhere.stderr.contains("label zone: needs `zone=mars`"), "{nowhere:#?}");
    let listed = node.run(&["node", "list", "--labels", "zone=eu", "--output", "json"]).ok().json();
    let names: Vec<&str> =
        listed.as_array().expect("a list").iter().filter_map(|n| n["Info"]["Name"].as_str()).collect();
    assert_eq!(names, ["a", "c"]);
}

#[test]
fn a_new_version_takes_over_and_the_old_one_can_be_had_back() {
    let swarm = Swarm::new(2);
    let node = &swarm.nodes[0];
    let job = sleeper(node, "service", "web", &["--count", "2"]);
    runs(node, &job, 2);
    // The same again changes nothing, and says so.
    let same = ["wasm", "run", "--type", "service", "--name", "web", "--cpu", "50m", "--memory", "32Mb", "--id-only"];
    let trial = example("trials/trial.wasm");
    let same =
        node.run(&[&same[..], &["--count", "2", "--no-wait", &trial, "--", "sleep", "1000000000"]].concat()).ok();
    assert_eq!(same.text(), job);
    assert!(same.stderr.contains("nothing has changed since version 1"), "{same:#?}");
    let second = sleeper(node, "service", "web", &["--count", "3"]);
    assert_eq!(second, job);
    eventually("version 2", || (runs(node, &job, 3).iter().all(|(.., version)| *version == 2)).then_some(()));
    let versions = node.run(&["job", "versions", "web", "--output", "json"]).ok().json();
    let counts: Vec<_> = versions.as_array().expect("a list").iter().map(|v| v["Count"].as_i64()).collect();
    assert_eq!(counts, [Some(2), Some(3)]);
    node.run(&["job", "rerun", "web", "--version", "1", "--no-wait"]).ok();
    eventually("version 3", || {
        let runs = running(node, &job);
        (runs.len() == 2 && runs.iter().all(|(.., version)| *version == 3)).then_some(())
    });
    let history = node.run(&["job", "history", "web"]).ok().stdout;
    assert!(history.contains("version 2 is submitted") && history.contains("version 3 is submitted"), "{history}");
    let other =
        node.run(&["wasm", "run", "--type", "daemon", "--name", "web", "--no-wait", &trial, "--", "sleep", "1"]);
    assert!(other.stderr.contains("it is a service and cannot become a daemon; stop it first"), "{other:#?}");
    node.run(&["job", "stop", "web"]).ok();
}

#[test]
fn a_drained_node_gives_its_services_to_others_also_after_a_restart() {
    let mut swarm = Swarm::new(3);
    let job = sleeper(&swarm.nodes[0], "service", "moving", &[]);
    let (_, holder, _) = runs(&swarm.nodes[0], &job, 1).remove(0);
    let index = swarm.index_of(&holder);
    swarm.nodes[index].run(&["node", "drain"]).ok();
    eventually("that it runs elsewhere", || {
        let runs = running(&swarm.nodes[0], &job);
        runs.first().filter(|(_, node, _)| *node != holder).map(|_| ())
    });
    let story = swarm.nodes[0].run(&["job", "describe", &job]).ok().stdout;
    assert!(story.contains("the node is being drained"), "{story}");
    swarm.nodes[index].terminate();
    swarm.nodes[index].restart();
    let hello = example("hello/hello.wasm");
    let here = ["wasm", "run", "--type", "ops", "--queue-timeout", "2", &hello];
    let ops = swarm.nodes[index].run(&here);
    assert!(ops.stderr.contains("is being drained"), "{ops:#?}");
    swarm.nodes[index].run(&["node", "drain", "--undo"]).ok();
    swarm.nodes[index].run(&["wasm", "run", &hello]).ok();
    swarm.nodes[0].run(&["job", "stop", &job]).ok();
}

#[test]
fn a_spec_says_what_it_would_change_before_it_does() {
    let swarm = Swarm::new(1);
    let node = &swarm.nodes[0];
    let spec = example("hello/job.yaml");
    node.run(&["submit", &spec]).ok();
    let same = node.run(&["submit", &spec, "--dry-run"]).ok();
    assert!(same.stderr.contains("nothing would change of `hello`"), "{same:#?}");
    let changed = swarm.dir().join("changed.yaml");
    let text = std::fs::read_to_string(&spec).expect("a spec");
    let folder = Path::new(&spec).parent().expect("a folder");
    let text =
        text.replace("hello.wasm", "HELLO").replace("Path: HELLO", &format!("Path: {}/hello.wasm", folder.display()));
    let text = text.replace("HELLO", "hello.wasm").replace("Count: ", "Priority: 7\nCount: ");
    std::fs::write(&changed, text).expect("written");
    let told = node.run(&["submit", &changed.to_string_lossy(), "--dry-run"]).ok();
    assert!(told.stderr.contains("+Priority: 7"), "{told:#?}");
    // Each submission is a run of its own, unless it is told that it is the same.
    node.run(&["submit", &spec]).ok();
    let runs = node.run(&["job", "versions", "hello", "--output", "json"]).ok().json();
    assert_eq!(runs.as_array().map(Vec::len), Some(2));
    node.run(&["job", "rerun", "hello"]).ok();
    let runs = node.run(&["job", "versions", "hello", "--output", "json"]).ok().json();
    assert_eq!(runs.as_array().map(Vec::len), Some(3));
}

/// A thousand jobs at once on two small nodes: every one of them ends, and the urgent ones, handed in last, are not last.
#[tokio::test]
async fn a_thousand_jobs_wait_their_turn_and_the_urgent_ones_overtake() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut swarm = Swarm::empty(&[]);
    swarm.add("asker", &["--no-docker", "--no-compute"]);
    for name in ["a", "b"] {
        swarm.add(name, &["--no-docker", "--cpu", "1", "--max-queue", "20"]);
    }
    swarm.everybody_knows(4);
    let node = &swarm.nodes[0];
    let module = node.run(&["content", "add", &example("trials/trial.wasm"), "--output", "json"]).ok().json();
    let spec = |priority: i32| {
        serde_json::json!({ "Job": {
            "Name": if priority > 0 { "urgent" } else { "plain" }, "Type": "batch", "Count": 1, "Priority": priority,
            "Tasks": [{
                "Name": "main",
                "Engine": { "Type": "wasm", "Params": { "EntryModule": "/m.wasm", "Parameters": ["sleep", "20"] } },
                "InputSources": [{ "Source": { "Type": "ipfs", "Params": { "CID": module["Cid"] } }, "Target": "/m.wasm" }],
                "Resources": { "CPU": "500m", "Memory": "32Mb" },
                // Or they would be done as fast as they come.
                "Durability": "local",
            }],
        } })
    };
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let jobs = format!("{}/api/v1/orchestrator/jobs", node.identity.api);
    for priority in std::iter::repeat_n(0, 900).chain(std::iter::repeat_n(5, 100)) {
        let answer = http.put(&jobs).json(&spec(priority)).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
    }
    let all = || async {
        let answer = http.get(format!("{jobs}?limit=1000")).send().await.expect("an answer");
        let page: serde_json::Value = answer.json().await.expect("JSON");
        page["Items"].as_array().expect("a list").clone()
    };
    let deadline = Instant::now() + Duration::from_secs(100);
    let ended = loop {
        let jobs = all().await;
        let state = |job: &serde_json::Value| job["State"]["StateType"].as_str().unwrap_or_default().to_owned();
        if jobs.iter().all(|job| state(job) == "Completed") {
            break jobs;
        }
        assert!(
            jobs.iter().all(|job| state(job) != "Failed") && Instant::now() < deadline,
            "{:?}",
            jobs.iter().map(state).collect::<Vec<_>>()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(ended.len(), 1_000);
    let mut order: Vec<(u64, &str)> = ended
        .iter()
        .map(|job| (job["ModifyTime"].as_u64().expect("a time"), job["Name"].as_str().expect("a name")))
        .collect();
    order.sort_unstable();
    let last_urgent = order.iter().rposition(|(_, name)| *name == "urgent").expect("one");
    let plain_after = order[last_urgent..].len() - 1;
    assert!(plain_after >= 100, "{plain_after} of 900 plain jobs ended after the last urgent one");
}

const BEATING: &str = r"
Name: beating
Type: service
Count: 5
Tasks:
  - Name: main
    Engine:
      Type: docker
      Params:
        Image: IMAGE
        Parameters: [sh, -c, 'while :; do read now rest < /proc/uptime; echo $now >> /beats/$BACNODE_PARTITION_INDEX.$BACNODE_EXECUTION_ID; sleep 0.1; done']
    InputSources:
      - {Source: {Type: local, Params: {SourcePath: /beats, ReadWrite: true}}, Target: /beats}
    Resources: {CPU: 50m, Memory: 16Mb}
    Lease: {Heartbeat: 1, Length: 3, Grace: 1}
";

/// When each attempt at a partition was alive, by its own account.
fn lives(beats: &Path) -> BTreeMap<String, Vec<(f64, f64)>> {
    let mut lives: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for entry in std::fs::read_dir(beats).expect("a folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let mut times = text.lines().filter_map(|line| line.parse::<f64>().ok());
        let Some(first) = times.next() else { continue };
        let partition = name.split('.').next().expect("a partition").to_owned();
        lives.entry(partition).or_default().push((first, times.next_back().unwrap_or(first)));
    }
    for lives in lives.values_mut() {
        lives.sort_by(|left, right| left.0.total_cmp(&right.0));
    }
    lives
}

/// A node that is not the submitter is killed every ten seconds and comes back five seconds later. A minute of it;
/// `BACNODE_SOAK_SERVICE` says how many seconds.
#[test]
fn a_service_survives_the_death_of_its_nodes_and_no_partition_is_ever_run_twice() {
    if !docker::is_here() {
        return;
    }
    let seconds = std::env::var("BACNODE_SOAK_SERVICE").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let mut swarm = Swarm::empty(&[]);
    let beats = swarm.dir().join("beats");
    std::fs::create_dir(&beats).expect("a folder");
    // Containers are nobody in particular.
    std::fs::set_permissions(&beats, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("it is ours");
    let allow = format!("/beats={}:rw", beats.display());
    for name in ["asker", "b", "c", "d"] {
        swarm.add(name, &["--allow-local", &allow]);
    }
    swarm.everybody_knows(5);
    let spec = swarm.dir().join("beating.yaml");
    std::fs::write(&spec, BEATING.replace("IMAGE", IMAGE)).expect("written");
    let job = swarm.nodes[0].run(&["submit", &spec.to_string_lossy(), "--id-only", "--no-wait"]).ok().text().to_owned();
    runs(&swarm.nodes[0], &job, 5);
    let (end, mut chance) = (Instant::now() + Duration::from_secs(seconds), 0x9e37_79b9_u32);
    while Instant::now() < end {
        chance ^= chance << 13;
        chance ^= chance >> 17;
        chance ^= chance << 5;
        let victim = 1 + chance as usize % 3;
        swarm.nodes[victim].kill();
        std::thread::sleep(Duration::from_secs(5));
        swarm.nodes[victim].restart();
        std::thread::sleep(Duration::from_secs(5));
    }
    // Everything runs again within two leases, by its own account.
    let uptime = || -> f64 {
        let text = std::fs::read_to_string("/proc/uptime").expect("the system tells");
        text.split(' ').next().and_then(|text| text.parse().ok()).expect("a number")
    };
    eventually("that all five run", || {
        let now = uptime();
        let alive = lives(&beats).values().filter(|lives| lives.iter().any(|life| life.1 > now - 1.0)).count();
        (alive == 5).then_some(())
    });
    swarm.nodes[0].run(&["job", "stop", &job]).ok();
    let lives = lives(&beats);
    let restarts: usize = lives.values().map(|lives| lives.len() - 1).sum();
    assert!(restarts > 0, "nothing was killed that ran: {lives:?}");
    for (partition, lives) in &lives {
        for pair in lives.windows(2) {
            assert!(pair[0].1 < pair[1].0, "partition {partition} was run twice at one time: {pair:?} of {lives:?}");
        }
    }
}
