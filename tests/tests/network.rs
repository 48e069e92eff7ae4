//! Joining, leaving, staying out.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use bacnode_tests::{Swarm, eventually, example, known};

#[test]
fn every_node_that_joined_takes_jobs_and_a_newcomer_is_seen_within_a_second() {
    let mut swarm = Swarm::new(3);
    for node in &swarm.nodes {
        let done = node.run(&["submit", &example("hello/job.yaml"), "--id-only"]).ok();
        let result = node.result_of(done.text());
        let printed = node.run(&["job", "logs", done.text()]).ok();
        assert_eq!(printed.text(), "Hello, network! This is partition 0 of 1.");
        assert!(result.starts_with("bafy"), "{result}");
    }
    swarm.add("newcomer", &[]);
    let started = Instant::now();
    swarm.everybody_knows(5);
    // The look itself takes time: a process per node, twice.
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[test]
fn a_node_that_leaves_is_forgotten_at_once_and_ends_within_ten_seconds() {
    let mut swarm = Swarm::new(3);
    let took = swarm.nodes[2].terminate();
    assert!(took < Duration::from_secs(10), "{took:?}");
    swarm.nodes.pop();
    let started = Instant::now();
    swarm.everybody_knows(3);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn known_peers_are_found_again_without_the_bootstrap_peer() {
    let mut swarm = Swarm::new(3);
    swarm.bootstrap.kill();
    swarm.nodes[1].kill();
    swarm.nodes[1].restart();
    let node = &swarm.nodes[1];
    eventually("the others are found", || (known(node) >= 3).then_some(()));
    let done = node.run(&["submit", &example("hello/job.yaml"), "--id-only"]).ok();
    assert!(!done.text().is_empty());
}

#[test]
fn a_machine_that_slept_is_there_again_when_it_wakes() {
    let swarm = Swarm::new(2);
    let sleeper = &swarm.nodes[1];
    let pid = rustix::process::Pid::from_raw(i32::try_from(sleeper.pid()).expect("an id")).expect("an id");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("it sleeps");
    // Longer than connections are waited for that say nothing.
    std::thread::sleep(Duration::from_secs(25));
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("it wakes");
    let woken = Instant::now();
    sleeper.run(&["submit", &example("hello/job.yaml")]).ok();
    swarm.everybody_knows(3);
    assert!(woken.elapsed() < Duration::from_secs(20), "{:?}", woken.elapsed());
}

#[test]
fn one_line_is_all_that_a_newcomer_needs() {
    let keys = tempfile::tempdir().expect("a folder");
    let path = |name: &str| keys.path().join(name).to_string_lossy().into_owned();
    let key = path("swarm.key");
    let made = bacnode_tests::bacnode(&["swarm", "keygen", &key]).ok();
    assert_eq!(std::fs::metadata(&key).expect("a key").permissions().mode() & 0o777, 0o600);
    let again = bacnode_tests::bacnode(&["swarm", "keygen", &key]);
    assert!(again.code == 2 && again.stderr.contains("is there already"), "{again:#?}");

    let mut swarm = Swarm::with(1, &["--swarm-key", &key]);
    let invite = |args: &[&str]| swarm.nodes[0].run(&[&["swarm", "invite", "--swarm-key", &key], args].concat()).ok();
    let line = invite(&[]).text().to_owned();
    assert!(line.starts_with("bacnode1") && line.lines().count() == 1, "{line}");
    assert_ne!(invite(&["--address", "203.0.113.7:1235"]).text(), line);
    let info = swarm.nodes[0].run(&["swarm", "info", "--swarm-key", &key, "--output", "json"]).ok().json();
    assert_eq!(info["Fingerprint"], made.text());

    let started = Instant::now();
    swarm.join("newcomer", &line);
    let node = &swarm.nodes[1];
    eventually("it knows the others", || (known(node) == 3).then_some(()));
    node.run(&["submit", &example("hello/job.yaml")]).ok();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?} from nothing to a job done", started.elapsed());
    // Its data folder remembers; the line need not be kept.
    let kept = swarm.dir().join("newcomer/swarm.key");
    assert_eq!(std::fs::metadata(kept).expect("a key").permissions().mode() & 0o777, 0o600);
    swarm.nodes[1].kill();
    swarm.nodes[1].restart_without("--join");
    let node = &swarm.nodes[1];
    eventually("it knows the others again", || (known(node) == 3).then_some(()));

    let join = |line: &str, dir: &str| bacnode_tests::bacnode(&["serve", "--data-dir", dir, "--join", line]);
    for (line, cause) in [
        ("hello", "it is no invite: those begin with `bacnode1`"),
        (&line[..line.len() - 3], "it is not whole"),
        (&line.replace(&line[20..21], "!"), "at position"),
    ] {
        let refused = join(line, &path("refused"));
        assert!(refused.code == 2 && refused.stderr.contains(cause), "{refused:#?}");
        assert!(refused.stderr.contains("hint: copy the whole line"), "{refused:#?}");
    }
    assert!(!keys.path().join("refused").exists(), "nothing is left of what was refused");
    // One folder, one network.
    let other = Swarm::new(1);
    let open = other.nodes[0].run(&["swarm", "invite"]).ok();
    let data = path("taken");
    std::fs::create_dir(&data).expect("a folder");
    std::fs::write(keys.path().join("taken/config.toml"), "network = \"mine\"\n").expect("settings");
    let refused = join(open.text(), &data);
    assert!(refused.code == 2 && refused.stderr.contains("is of the network `mine`"), "{refused:#?}");
}

#[test]
fn a_private_swarm_keeps_strangers_out() {
    let keys = tempfile::tempdir().expect("a folder");
    let key = |name: &str, digit: &str| {
        let path = keys.path().join(name);
        std::fs::write(&path, format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", digit.repeat(64))).expect("a key");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        path.to_string_lossy().into_owned()
    };
    let (ours, theirs) = (key("ours", "7"), key("theirs", "8"));
    let mut swarm = Swarm::with(2, &["--swarm-key", &ours]);
    swarm.nodes[0].run(&["submit", &example("hello/job.yaml")]).ok();
    swarm.add("stranger", &[]);
    swarm.add("other-key", &["--swarm-key", &theirs]);
    std::thread::sleep(Duration::from_secs(3));
    for outsider in &swarm.nodes[2..] {
        assert_eq!(known(outsider), 1, "{} sees somebody", outsider.name);
        let peers = outsider.run(&["peers", "--output", "json"]).ok().json();
        assert_eq!(peers.as_array().expect("peers").len(), 0, "{peers}");
    }
    for member in &swarm.nodes[..2] {
        assert_eq!(known(member), 3, "{} sees a stranger", member.name);
    }
    // Naming a way around the key is refused, not ignored.
    let refused = bacnode_tests::bacnode(&[
        "serve",
        "--data-dir",
        &keys.path().join("d").to_string_lossy(),
        "--swarm-key",
        &ours,
        "--listen",
        "/ip4/127.0.0.1/udp/0/quic-v1",
    ]);
    assert_eq!(refused.code, 2, "{refused:#?}");
    assert!(refused.stderr.contains("a swarm key guards TCP only"), "{refused:#?}");
    // A key that others may read is none.
    std::fs::set_permissions(&ours, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    let refused = bacnode_tests::bacnode(&["serve", "--data-dir", "/tmp/unused", "--swarm-key", &ours]);
    assert_eq!(refused.code, 2, "{refused:#?}");
    assert!(refused.stderr.contains("can be read by others") && refused.stderr.contains("chmod 600"), "{refused:#?}");
}

#[test]
fn a_node_whose_clock_is_off_is_told_so() {
    let mut swarm = Swarm::new(3);
    swarm.add_with("early", &[], &[("BACNODE_CLOCK_OFFSET_MS", "240000")]);
    let early = &swarm.nodes[3];
    let warning = eventually("a warning", || {
        let peers = early.run(&["peers"]).ok();
        peers.stderr.contains("clock").then_some(peers.stderr)
    });
    assert!(warning.contains("this node's clock is 4 min ahead of"), "{warning}");
    // Nobody believes its adverts, and everybody else goes on.
    assert_eq!(known(&swarm.nodes[0]), 4);
    swarm.nodes[0].run(&["submit", &example("hello/job.yaml")]).ok();
}

#[test]
fn any_node_tells_of_any_job_whose_id_it_is_given() {
    let mut swarm = Swarm::new(2);
    let hello = example("hello/hello.wasm");
    let run = ["wasm", "run", "--env", "SECRET=word", "--id-only", "--no-wait", &hello];
    let job = swarm.nodes[0].run(&run).ok().text().to_owned();
    let ended = swarm.nodes[0].await_job(&job, "Completed");
    let other = &swarm.nodes[1];
    let told = other.job(&job);
    assert_eq!((&told.job.id, told.job.state.state_type.as_str()), (&ended.job.id, "Completed"));
    assert_eq!(other.result_of(&job), swarm.nodes[0].result_of(&job));
    assert!(told.job.tasks[0].env.is_empty(), "what is its user's stays with its user");
    let to = swarm.dir().join("fetched").to_string_lossy().into_owned();
    other.run(&["job", "get", &job, "-o", &to]).ok();
    let unknown = format!("{}aaaa", &job[..job.len() - 4]);
    let none = other.run(&["job", "describe", &unknown]);
    assert!(none.code == 4 && none.stderr.contains("there is no job"), "{none:#?}");
    swarm.nodes[0].kill();
    let away = swarm.nodes[1].run(&["job", "describe", &job]);
    assert!(away.stderr.contains("the job is node-0's, which does not tell of it"), "{away:#?}");
}
