//! Releases before this one: their data folders open, and their nodes work together with those of now.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bacnode_protocol::api::{GetJobResponse, Job, RunOutput};
use bacnode_protocol::job::state::ExecutionState;
use bacnode_tests::{Ran, Swarm, bacnode, eventually, example};
use serde_json::Value;

fn folder() -> &'static Path {
    // Tests run in their package's folder.
    Path::new(if Path::new("releases").is_dir() { "releases" } else { "tests/releases" })
}

/// What is kept of a release: `VERSION.tar.gz`, a data folder, and `VERSION.json`, what the release told of each job in it.
fn releases() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).expect("a folder").flatten().map(|entry| entry.path());
    let kept: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "gz")).collect();
    assert!(!kept.is_empty(), "no release is kept");
    kept
}

fn told(release: &Path) -> BTreeMap<String, GetJobResponse> {
    let text = std::fs::read_to_string(release.with_extension("").with_extension("json")).expect("what it told");
    let jobs = text.lines().map(|line| serde_json::from_str::<GetJobResponse>(line).expect("a job"));
    jobs.map(|job| (job.job.id.clone(), job)).collect()
}

/// Each attempt with its result and what it printed.
fn results(job: &GetJobResponse) -> Vec<(&str, Option<&Value>, &RunOutput)> {
    let executions = job.executions.iter().flat_map(|page| &page.items);
    executions.map(|one| (one.id.as_str(), one.published_result.params.get("CID"), &one.run_output)).collect()
}

fn story(job: &GetJobResponse) -> Vec<(&str, &str)> {
    let items = job.history.iter().flat_map(|page| &page.items);
    items.map(|item| (item.time.as_str(), item.event.message.as_str())).collect()
}

#[test]
fn the_data_folders_of_all_releases_open() {
    for release in releases() {
        let mut swarm = Swarm::empty(&[]);
        let folder = |name: &str| swarm.dir().join(name).to_string_lossy().into_owned();
        let (data, fetched) = (folder("kept"), folder("fetched"));
        bacnode(&["restore", "--data-dir", &data, &release.to_string_lossy()]).ok();
        let node = swarm.add("kept", &["--label", "zone=eu"]);
        for (id, then) in &told(&release) {
            let now = node.job(id);
            let facts = |job: &Job| (job.name.clone(), job.kind.clone(), job.count, job.version, job.labels.clone());
            assert_eq!(facts(&now.job), facts(&then.job));
            if then.job.is_terminal() {
                assert_eq!(now.job.state, then.job.state, "{id}");
            }
            assert_eq!(results(&now)[..results(then).len()], results(then), "{id}");
            assert_eq!(story(&now)[..story(then).len()], story(then), "{id}");
            if then.job.state.state_type == "Completed" {
                node.run(&["job", "get", id, "-o", &format!("{fetched}-{id}")]).ok();
            }
        }
        // What goes on goes on: the service runs again, in its version.
        let service = eventually("the service", || {
            let job = node.job("service");
            let running =
                job.executions.as_ref()?.items.iter().filter(|one| one.state() == Some(ExecutionState::Running));
            (running.count() == 2).then_some(job)
        });
        assert_eq!(service.job.version, 2);
        // What is new follows what was.
        let trial = example("trials/trial.wasm");
        node.run(&["wasm", "run", "--name", "twice", "--id-only", &trial, "--", "print", "1024"]).ok();
        let runs = node.run(&["job", "versions", "twice", "--output", "json"]).ok().json();
        assert_eq!(runs.as_array().map(Vec::len), Some(3), "{runs:#}");
        let tokens = bacnode(&["token", "list", "--data-dir", &data]).ok();
        assert!(tokens.stdout.contains("ci"), "{tokens:#?}");
        swarm.nodes[0].terminate();
    }
}

/// The programs of releases before this one, as far as they are built here.
#[allow(clippy::print_stderr, reason = "a test that does not run must say so")]
fn programs() -> Vec<PathBuf> {
    let list = std::fs::read_to_string(folder().join("commits")).expect("a list");
    let home = std::env::var("HOME").unwrap_or_default();
    let cache = std::env::var("BACNODE_RELEASES").unwrap_or_else(|_| format!("{home}/.cache/bacnode/releases"));
    let commits = list.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    let program = |(version, commit): (&str, &str)| {
        let path = Path::new(&cache).join(commit).join("bacnode");
        if !path.exists() {
            eprintln!("NOT RUN: {version} is not built here; `make test` builds it where the history has it");
        }
        path.exists().then_some(path)
    };
    commits.filter_map(program).collect()
}

#[test]
fn nodes_of_all_releases_work_together() {
    for program in programs() {
        let mut swarm = Swarm::empty(&[]);
        for index in 0..4 {
            if index % 2 == 0 {
                let label = ["--label", "release=before"];
                swarm.add_program(program.clone(), &format!("before-{index}"), &label, &[]);
            } else {
                swarm.add(&format!("now-{index}"), &["--label", "release=now"]);
            }
        }
        swarm.everybody_knows(5);
        let spec = example("hello/job.yaml");
        let hello = example("hello/hello.wasm");
        // Some at the other release, whatever bids are like; the rest where it may be.
        let submit = |index: usize| {
            let other = ["release=now", "release=before"][index % 2];
            let across = ["wasm", "run", "--constraints", other, "--id-only", &hello, "--", "network"];
            let anywhere = ["submit", &spec, "--id-only"];
            swarm.nodes[index % 4].spawn(if index < 8 { &across[..] } else { &anywhere })
        };
        let jobs: Vec<_> = (0..50).map(submit).collect();
        let mut across = [0, 0];
        for (index, child) in jobs.into_iter().enumerate() {
            let ran: Ran = child.wait_with_output().expect("it ends").into();
            assert_eq!(ran.code, 0, "{ran:#?}");
            let owner = &swarm.nodes[index % 4];
            let job = owner.job(ran.text());
            let done = job
                .executions
                .expect("attempts")
                .items
                .into_iter()
                .find(|one| one.state() == Some(ExecutionState::Completed));
            let runner = swarm.index_of(&done.expect("one is done").node_id);
            if runner % 2 != index % 2 {
                across[index % 2] += 1;
            }
            // Of any node: at another of the other release.
            let elsewhere = &swarm.nodes[(index + 1) % 4];
            let to = swarm.dir().join(format!("result-{index}"));
            if index < 8 {
                elsewhere.run(&["content", "get", &owner.result_of(ran.text()), "-o", &to.to_string_lossy()]).ok();
                assert!(std::fs::read_to_string(to.join("stdout")).expect("what it printed").contains("network"));
                assert_eq!(elsewhere.job(ran.text()).job.state.state_type, "Completed");
            }
        }
        assert!(across.iter().all(|jobs| *jobs >= 4), "{across:?} jobs of the old at the new, and the other way round");
    }
}
