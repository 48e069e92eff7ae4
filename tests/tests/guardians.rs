//! A node is gone for good; the jobs that were submitted there end all the same, once, and are found from elsewhere.

use std::time::{Duration, Instant};

use bacnode_protocol::api::{GetJobResponse, JobGroup};
use bacnode_tests::{Node, Swarm, eventually, eventually_ok, example};

/// Seconds after which a silent owner is replaced.
const LEASE: &str = "1";
const SHORT: [&str; 2] = ["--ownership-lease", LEASE];

/// How often a submitting node is killed: in a soak more often.
fn kills() -> usize {
    std::env::var("BACNODE_TAKEOVERS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// Nodes that stay.
fn permanent(count: usize) -> Swarm {
    let mut swarm = Swarm::empty(&[]);
    for index in 0..count {
        swarm.add(&format!("node-{index}"), &SHORT);
    }
    swarm.everybody_knows(count + 1);
    swarm
}

fn groups(node: &Node) -> Vec<JobGroup> {
    serde_json::from_str(&node.run(&["job", "adopt", "--output", "json"]).ok().stdout).expect("groups")
}

/// The group that keeps the jobs of `owner`, as `node` has it.
fn group(node: &Node, owner: &str) -> Option<JobGroup> {
    groups(node).into_iter().find(|group| group.owner_id == owner)
}

/// A job as any node tells of it, if it can.
fn told(node: &Node, id: &str) -> Option<GetJobResponse> {
    let ran = node.run(&["job", "describe", id, "--output", "json"]);
    (ran.code == 0).then(|| serde_json::from_str(&ran.stdout).expect("a job"))
}

fn ended(node: &Node, id: &str) -> GetJobResponse {
    eventually(&format!("the end of {id}"), || told(node, id).filter(|answer| answer.job.is_terminal()))
}

/// Those among these nodes that keep the jobs of `owner` with it.
fn members<'a>(swarm: &'a Swarm, owner: &str) -> Vec<&'a Node> {
    swarm
        .nodes
        .iter()
        .filter(|node| node.identity.peer_id != owner && node.is_up() && group(node, owner).is_some())
        .collect()
}

/// What every node that is up says of a job and of its groups.
fn known(swarm: &Swarm, job: &str) -> String {
    let says = |node: &Node| {
        let (told, groups) = (node.run(&["job", "describe", job]), node.run(&["job", "adopt"]));
        format!("{}:\n{}{}{}", node.name, told.stdout, told.stderr, groups.stdout)
    };
    swarm.nodes.iter().filter(|node| node.is_up()).map(says).collect()
}

/// How many peers a node has a connection with.
fn connected(node: &Node) -> usize {
    let peers = node.run(&["peers", "--output", "json"]).ok().json();
    peers.as_array().or_else(|| peers["Peers"].as_array()).map_or(0, Vec::len)
}

fn count(node: &Node, to: &str) -> String {
    let trial = example("trials/trial.wasm");
    // One that is kept by its own node alone, since the others are not heard yet, would go with it.
    let args = ["wasm", "run", "--durability", "quorum", "--no-wait", "--id-only", &trial, "--", "count", to];
    eventually("a job that others keep", || {
        let ran = node.run(&args);
        (ran.code == 0).then(|| ran.text().to_owned())
    })
}

/// Whatever moment after it gave the id: the job ends once, and its result is found at any other node, also when the one that
/// made it is gone by then.
#[test]
fn the_submitting_node_dies_and_its_job_does_not() {
    let mut swarm = permanent(5);
    for round in 0..kills() {
        let name = format!("asker-{round}");
        swarm.add(&name, &SHORT);
        let asker = swarm.nodes.len() - 1;
        eventually("others that could keep its jobs", || (connected(&swarm.nodes[asker]) >= 4).then_some(()));
        let job = count(&swarm.nodes[asker], if round % 2 == 0 { "1000" } else { "400000000" });
        // Any moment of the half second, other ones in each run.
        let nanos =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
        std::thread::sleep(Duration::from_millis(u64::from(nanos / 1_000) % 500));
        swarm.nodes[asker].kill();
        let observer = round % 5;
        let answer = eventually_ok(&format!("the end of {job}, round {round}"), || {
            told(&swarm.nodes[observer], &job)
                .filter(|answer| answer.job.is_terminal())
                .ok_or_else(|| known(&swarm, &job))
        });
        assert_eq!(answer.job.state.state_type, "Completed", "round {round}: {answer:#?}");
        let executions = answer.executions.expect("executions").items;
        let done: Vec<_> = executions.iter().filter(|execution| execution.compute_state.state_type == 9).collect();
        assert_eq!(done.len(), 1, "round {round}: {executions:#?}");
        let cid = done[0].published_result.params["CID"].as_str().expect("a CID").to_owned();
        let maker = swarm.nodes.iter().position(|node| node.identity.peer_id == done[0].node_id);
        let killed = maker.filter(|maker| *maker < 5 && round % 3 == 0);
        if let Some(maker) = killed {
            swarm.nodes[maker].kill();
        }
        let reader = (0..5).find(|index| *index != observer && Some(*index) != killed).expect("another node");
        let to = swarm.dir().join(format!("result-{round}"));
        eventually("the result", || {
            let got = swarm.nodes[reader].run(&["content", "get", &cid, "-o", &to.to_string_lossy()]);
            (got.code == 0).then_some(())
        });
        assert_eq!(std::fs::read_to_string(to.join("exitCode")).expect("an exit code"), "0");
        if let Some(maker) = killed {
            swarm.nodes[maker].restart();
        }
    }
}

/// What a job prints is read at a node that has nothing to do with it, and goes on to be when another node leads the job.
#[test]
fn what_a_job_prints_is_read_anywhere() {
    let mut swarm = permanent(5);
    swarm.add("asker", &["--no-compute", "--ownership-lease", LEASE]);
    swarm.everybody_knows(7);
    let owner = swarm.nodes[5].identity.peer_id.clone();
    let trial = example("trials/trial.wasm");
    let sleep = ["wasm", "run", "--no-wait", "--id-only", &trial, "--", "sleep", "7000"];
    let job = swarm.nodes[5].run(&sleep).ok().text().to_owned();
    let runner = swarm.nodes[5].runner_of(&job);
    let is_stranger = |node: &&Node| node.identity.peer_id != runner && group(node, &owner).is_none();
    let stranger =
        swarm.nodes[..5].iter().position(|node| is_stranger(&node)).expect("five nodes, at most three of them");
    let printed = |args: &[&str]| swarm.nodes[stranger].run(&[&["job", "logs", &job], args].concat()).ok().stdout;
    eventually("what was printed so far", || (printed(&[]) == "sleeping\n").then_some(()));
    assert_eq!(printed(&["--tail", "0"]), "");
    let follows = swarm.nodes[stranger].spawn(&["job", "logs", "--follow", &job]);
    std::thread::sleep(Duration::from_millis(500));
    swarm.nodes[5].kill();
    let followed = follows.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&followed.stdout).into_owned();
    assert!(followed.status.success() && said == "sleeping\nawake\n", "{followed:?}");
    ended(&swarm.nodes[stranger], &job);
    let after = swarm.nodes[stranger].run(&["job", "logs", &job]).ok();
    assert_eq!((after.stdout.as_str(), after.stderr.as_str()), ("sleeping\nawake\n", ""));
}

/// Whoever waits for a job asks on at another node, if told of one, and is told who keeps the job, if not.
#[test]
fn whoever_waits_for_a_job_asks_on_elsewhere() {
    let mut swarm = permanent(4);
    swarm.add("asker", &["--no-compute", "--ownership-lease", LEASE]);
    swarm.everybody_knows(6);
    let (trial, to) = (example("trials/trial.wasm"), swarm.dir().join("fetched"));
    let to = to.to_string_lossy().into_owned();
    let runs = |node: &Node, name: &str| {
        let jobs = node.run(&["job", "list", "--output", "json"]).ok().json();
        let running = |job: &serde_json::Value| job["Name"] == name && job["State"]["StateType"] == "Running";
        jobs.as_array().is_some_and(|jobs| jobs.iter().any(running)).then_some(())
    };
    let apis = format!("{},{}", swarm.nodes[4].identity.api, swarm.nodes[0].identity.api);
    let run = ["wasm", "run", "--name", "first", "--download", &to, &trial, "--", "sleep", "4000"];
    let waits = swarm.nodes[4].spawn(&[&["--api", &apis], &run[..]].concat());
    eventually("a run", || runs(&swarm.nodes[4], "first"));
    swarm.nodes[4].kill();
    let waited = waits.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&waited.stderr).into_owned();
    assert!(waited.status.success() && said.contains("does not answer any more: asking"), "{said}");
    assert!(said.contains("leads it now: asker is not heard") && said.contains("completed"), "{said}");
    let printed = std::fs::read_to_string(std::path::Path::new(&to).join("stdout"));
    assert_eq!(printed.expect("the result"), "sleeping\nawake\n");

    swarm.nodes[4].restart();
    let waits = eventually("others that keep its jobs again", || {
        let run = ["wasm", "run", "--name", "second", "--durability", "quorum", &trial, "--", "sleep", "60000"];
        let mut waits = swarm.nodes[4].spawn(&run);
        for _ in 0..100 {
            if runs(&swarm.nodes[4], "second").is_some() {
                return Some(waits);
            }
            if waits.try_wait().expect("a child").is_some() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    });
    swarm.nodes[4].kill();
    let waited = waits.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&waited.stderr).into_owned();
    assert!(waited.status.code() == Some(3) && said.contains("goes on without it, kept by 12D3KooW"), "{said}");
}

#[test]
fn a_service_goes_on_under_another_leader_and_any_member_stops_it() {
    let mut swarm = permanent(4);
    swarm.add("asker", &["--no-compute", "--ownership-lease", LEASE]);
    swarm.everybody_knows(6);
    let owner = swarm.nodes[4].identity.peer_id.clone();
    let trial = example("trials/trial.wasm");
    let service =
        ["wasm", "run", "--type", "service", "--name", "keeper", "--no-wait", "--id-only", &trial, "--", "loop"];
    let job = swarm.nodes[4].run(&service).ok().text().to_owned();
    let runner = swarm.nodes[4].runner_of(&job);
    let run = |answer: &GetJobResponse| answer.executions.as_ref().expect("executions").items[0].id.clone();
    let before = run(&swarm.nodes[4].job(&job));
    swarm.nodes[4].kill();
    let died = Instant::now();
    let leader = eventually("a new leader", || {
        members(&swarm, &owner).into_iter().find(|node| group(node, &owner).is_some_and(|group| group.works))
    });
    let took = died.elapsed();
    assert!(took < Duration::from_secs(4), "a lease of {LEASE} s and 2 s, and a moment to ask: {took:?}");
    let answer = leader.job(&job);
    let executions = &answer.executions.as_ref().expect("executions").items;
    assert_eq!((executions.len(), run(&answer), executions[0].node_id.clone()), (1, before, runner));
    assert!(!answer.job.is_terminal());
    let story = leader.run(&["job", "describe", &job]).ok().stdout;
    assert!(story.contains("leads it now: asker is not heard"), "{story}");
    // By one that does not lead it.
    let other = members(&swarm, &owner).into_iter().find(|node| node.identity.peer_id != leader.identity.peer_id);
    let other = other.expect("another member");
    other.run(&["job", "stop", &job, "--reason", "enough"]).ok();
    let answer = ended(other, &job);
    assert_eq!((answer.job.state.state_type.as_str(), answer.job.state.message.as_str()), ("Stopped", "enough"));
}

#[test]
fn a_node_that_leaves_hands_its_jobs_over_and_has_them_back() {
    let mut swarm = Swarm::new(3);
    swarm.add("asker", &["--no-compute"]);
    swarm.everybody_knows(5);
    let owner = swarm.nodes[3].identity.peer_id.clone();
    let job = count(&swarm.nodes[3], "3000000000");
    let _ = swarm.nodes[3].runner_of(&job);
    swarm.nodes[3].terminate();
    let left = Instant::now();
    eventually("a new leader", || {
        members(&swarm, &owner)
            .into_iter()
            .find(|node| group(node, &owner).is_some_and(|group| group.works))
            .map(|_| ())
    });
    assert!(left.elapsed() < Duration::from_secs(5), "at once, not after the lease of 15 s: {:?}", left.elapsed());
    swarm.nodes[3].restart();
    eventually("its jobs back", || {
        group(&swarm.nodes[3], &owner).filter(|group| group.role == "leader" && group.works)
    });
    let answer = ended(&swarm.nodes[3], &job);
    assert_eq!(answer.job.state.state_type, "Completed");
    let again = count(&swarm.nodes[3], "1000");
    swarm.nodes[3].await_job(&again, "Completed");
}

#[test]
fn one_node_alone_says_that_it_keeps_a_job_alone() {
    let swarm = Swarm::new(1);
    let trial = example("trials/trial.wasm");
    let ran = swarm.nodes[0].run(&["wasm", "run", &trial, "--", "count", "10"]).ok();
    assert!(ran.stderr.contains("the job is kept by this node alone, and lost with it: "), "{ran:#?}");
    let ran = swarm.nodes[0].run(&["wasm", "run", "--durability", "local", &trial, "--", "count", "10"]).ok();
    assert!(!ran.stderr.contains("warning"), "{ran:#?}");
    let ran = swarm.nodes[0].run(&["wasm", "run", "--durability", "quorum", &trial, "--", "count", "10"]);
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("others are to keep the job (Durability: quorum), and cannot"), "{ran:#?}");
    assert!(ran.stderr.contains("hint: try again when more nodes are there"), "{ran:#?}");
    let ran = swarm.nodes[0].run(&["wasm", "run", "--durability", "twice", &trial, "--", "count", "10"]);
    assert!(ran.stderr.contains("must be quorum or local, not `twice`"), "{ran:#?}");
}

/// What safety costs a trivial job: a round trip, and others' disks beside one's own.
#[test]
#[allow(clippy::print_stdout, reason = "figures are part of what it shows")]
fn a_quorum_costs_less_than_the_job_again() {
    let swarm = Swarm::new(4);
    let trial = example("trials/trial.wasm");
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..40 {
        let durability = ["local", "quorum"][round % 2];
        let begun = Instant::now();
        swarm.nodes[0].run(&["wasm", "run", "--durability", durability, &trial, "--", "count", "10"]).ok();
        times[round % 2].push(begun.elapsed());
    }
    let [local, quorum] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    println!("half of the jobs ended within {local:?} here alone, {quorum:?} with a quorum");
    assert!(quorum <= local * 2, "{quorum:?} with a quorum, {local:?} without");
}
