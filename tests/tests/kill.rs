//! Nodes die; jobs do not.

use std::time::Duration;

use bacnode_tests::{Node, Swarm, example};

/// How often each kill is tried: once by default, more in a soak.
fn rounds() -> u32 {
    std::env::var("BACNODE_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// A job that counts for a few seconds; the result is the same wherever it runs.
fn submit_long(node: &Node) -> String {
    let trial = example("trials/trial.wasm");
    let args = ["wasm", "run", "--no-wait", "--name", "long", &trial, "--", "count", "1500000000"];
    node.run(&args).ok().text().to_owned()
}

#[test]
fn kill_the_winner_and_another_node_ends_the_job_with_the_same_result() {
    let mut swarm = Swarm::new(4);
    for round in 0..rounds() {
        let asker = usize::try_from(round).expect("small") % 4;
        let job = submit_long(&swarm.nodes[asker]);
        let winner = swarm.index_of(&swarm.nodes[asker].runner_of(&job));
        if winner == asker {
            // Its own death is the next test; the others still show the result that is right.
            swarm.nodes[asker].await_job(&job, "Completed");
            continue;
        }
        swarm.nodes[winner].kill();
        let ended = swarm.nodes[asker].await_job(&job, "Completed");
        let executions = ended.executions.expect("executions").items;
        assert!(executions.len() >= 2, "{executions:#?}");
        let disturbed = swarm.nodes[asker].result_of(&job);
        let again = submit_long(&swarm.nodes[asker]);
        swarm.nodes[asker].await_job(&again, "Completed");
        assert_eq!(swarm.nodes[asker].result_of(&again), disturbed);
        swarm.nodes[winner].restart();
        swarm.everybody_knows(5);
    }
}

#[test]
fn kill_a_winner_that_is_never_the_asker() {
    let mut swarm = Swarm::empty(&[]);
    swarm.add("asker", &["--no-compute"]);
    for index in 0..3 {
        swarm.add(&format!("node-{index}"), &[]);
    }
    swarm.everybody_knows(5);
    let job = submit_long(&swarm.nodes[0]);
    let winner = swarm.index_of(&swarm.nodes[0].runner_of(&job));
    swarm.nodes[winner].kill();
    swarm.nodes[0].await_job(&job, "Completed");
    let result = swarm.nodes[0].result_of(&job);
    // Found by its CID from a node that had nothing to do with it.
    let other = (1..4).find(|index| *index != winner).expect("another node");
    let to = swarm.dir().join("result");
    swarm.nodes[other].run(&["content", "get", &result, "-o", &to.to_string_lossy()]).ok();
    assert_eq!(std::fs::read_to_string(to.join("exitCode")).expect("an exit code"), "0");
    let story = swarm.nodes[0].run(&["job", "describe", &job]).ok().stdout;
    for part in
        ["asked", "bids", "wins", "fell silent", "a copy is started elsewhere", "result is held here", "completed"]
    {
        assert!(story.contains(part), "{part}: {story}");
    }
}

#[test]
fn kill_the_requester_and_its_job_goes_on_when_it_is_back() {
    let mut swarm = Swarm::empty(&[]);
    swarm.add("asker", &["--no-compute"]);
    for index in 0..2 {
        swarm.add(&format!("node-{index}"), &[]);
    }
    swarm.everybody_knows(4);
    for _ in 0..rounds() {
        let job = submit_long(&swarm.nodes[0]);
        let _ = swarm.nodes[0].runner_of(&job);
        swarm.nodes[0].kill();
        std::thread::sleep(Duration::from_millis(300));
        swarm.nodes[0].restart();
        let ended = swarm.nodes[0].await_job(&job, "Completed");
        // The run that was under way is the one that counts.
        assert_eq!(ended.executions.expect("executions").items.len(), 1);
        swarm.everybody_knows(4);
    }
}

#[test]
fn kill_the_requester_the_moment_it_gave_the_id() {
    let mut swarm = Swarm::new(3);
    for _ in 0..rounds() {
        let submitted = swarm.nodes[0].run(&["submit", &example("weather/job.yaml"), "--no-wait", "--id-only"]).ok();
        let job = submitted.text().to_owned();
        swarm.nodes[0].kill();
        swarm.nodes[0].restart();
        swarm.nodes[0].await_job(&job, "Completed");
        swarm.everybody_knows(4);
    }
}

#[test]
fn a_stopped_job_stops() {
    let swarm = Swarm::new(2);
    let trial = example("trials/trial.wasm");
    let job = swarm.nodes[0].run(&["wasm", "run", "--no-wait", &trial, "--", "loop"]).ok().text().to_owned();
    let runner = swarm.index_of(&swarm.nodes[0].runner_of(&job));
    swarm.nodes[0].run(&["job", "stop", &job, "--reason", "enough"]).ok();
    let ended = swarm.nodes[0].await_job(&job, "Stopped");
    assert_eq!(ended.job.state.message, "enough");
    bacnode_tests::eventually("the node is free", || {
        let node = swarm.nodes[runner].run(&["node", "describe", "--output", "json"]).ok().json();
        (node["Load"] == 0 && node["ComputeNodeInfo"]["RunningExecutions"] == 0).then_some(())
    });
    let again = swarm.nodes[0].run(&["job", "stop", &job]);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("the job has ended already (stopped)"), "{again:#?}");
}
