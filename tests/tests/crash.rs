//! A crash matrix: nodes that own jobs and nodes that run them are killed at any time and at named places, while users hand
//! in jobs. An oracle knows which jobs were acknowledged: none may be lost, none may end twice, and nothing outlives its node.

use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use bacnode_tests::{Swarm, example, program};

/// How many kills: a hundred by default, more in a soak.
fn kills() -> usize {
    std::env::var("BACNODE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

/// The places at which the node says `crash::point`.
const POINTS: [&str; 10] = [
    "before-append",
    "after-append",
    "after-effects",
    "after-send",
    "before-release",
    "after-release",
    "before-fetch",
    "fetched",
    "run-started",
    "run-ended",
];

/// Chance that is the same in every run, so that a failure can be looked at again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Users that are being answered, by the node that they asked.
fn submit(swarm: &Swarm, users: &mut Vec<(usize, Child)>, chance: &mut Chance) {
    let trial = example("trials/trial.wasm");
    for node in 0..swarm.nodes.len() {
        let rounds = (chance.below(60) * 1_000_000).to_string();
        let args = ["wasm", "run", "--no-wait", "--id-only", &trial, "--", "count", &rounds];
        users.push((node, swarm.nodes[node].spawn(&args)));
    }
}

/// Workers whose node is gone.
fn orphans() -> Vec<u32> {
    let bacnode = program("bacnode");
    let exe = |pid: &str| std::fs::read_link(PathBuf::from("/proc").join(pid).join("exe")).ok();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().filter(|name| name.parse::<u32>().is_ok()).map(str::to_owned) else {
            continue;
        };
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let is_worker = command.split(|byte| *byte == 0).nth(1) == Some(b"wasm-worker".as_slice());
        if exe(&pid) != Some(bacnode.clone()) || !is_worker {
            continue;
        }
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)).unwrap_or("1").to_owned();
        if exe(&parent) != Some(bacnode.clone()) {
            found.push(pid.parse().expect("checked above"));
        }
    }
    found
}

#[test]
#[allow(clippy::print_stdout, reason = "figures are part of what it shows")]
fn killed_at_any_time_no_acknowledged_job_is_lost_or_ends_twice() {
    let mut swarm = Swarm::new(3);
    let mut chance = Chance(0x5eed_0001);
    let (mut acknowledged, mut at_points) = (Vec::new(), 0);
    for kill in 0..kills() {
        let victim = chance.below(3) as usize;
        let mut users = Vec::new();
        submit(&swarm, &mut users, &mut chance);
        std::thread::sleep(Duration::from_millis(chance.below(250)));
        swarm.nodes[victim].kill();
        for (node, user) in users {
            let output = user.wait_with_output().expect("a user");
            let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            if output.status.success() && id.starts_with("j-") {
                acknowledged.push((node, id));
            }
        }
        // Every third life ends at a named place, if it comes there.
        if kill % 3 == 0 {
            let point = POINTS[kill / 3 % POINTS.len()];
            let up = swarm.nodes[victim].restart_with("BACNODE_CRASH_AT", &format!("{point}:{}", 1 + chance.below(12)));
            let mut users = Vec::new();
            submit(&swarm, &mut users, &mut chance);
            let ended = !up || swarm.nodes[victim].ended_within(Duration::from_millis(1_500));
            at_points += usize::from(ended);
            for (node, user) in users {
                let output = user.wait_with_output().expect("a user");
                let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                if output.status.success() && id.starts_with("j-") {
                    acknowledged.push((node, id));
                }
            }
            if !ended {
                swarm.nodes[victim].kill();
            }
        }
        swarm.nodes[victim].restart();
    }
    let mut completed = 0;
    for (node, id) in &acknowledged {
        let ended = bacnode_tests::eventually(&format!("the end of {id} at node {node}"), || {
            Some(swarm.nodes[*node].job(id)).filter(|answer| answer.job.is_terminal())
        });
        let executions = ended.executions.expect("executions").items;
        let accepted = executions.iter().filter(|execution| execution.compute_state.state_type == 9).count();
        if ended.job.state.state_type == "Completed" {
            completed += 1;
            assert_eq!(accepted, 1, "{id} has {accepted} accepted results");
        } else {
            // Three nodes in a row were killed under it: it says so.
            assert!(ended.job.state.message.contains("it was tried"), "{id}: {}", ended.job.state.message);
            assert_eq!(accepted, 0, "{id} failed with a result");
        }
    }
    let jobs = acknowledged.len();
    println!("{} kills, {at_points} of them at named places; {jobs} jobs acknowledged, {completed} completed", kills());
    assert!(jobs > kills() && completed * 10 >= jobs * 8, "{completed} of {jobs}");
    assert!(at_points > 0);
    bacnode_tests::eventually("the end of every worker whose node is gone", || orphans().is_empty().then_some(()));
}
