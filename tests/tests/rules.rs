//! The operator's rules: a node that will not have a job says by which of them.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

use bacnode_tests::{Swarm, eventually, eventually_ok, example};

/// A minute of the day that is half a day away.
fn other_half_of_the_day() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs() / 60;
    let at = |minute: u64| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
    format!("{}-{}", at(now + 720), at(now + 721))
}

/// A server that likes no job, and what it is asked first.
fn grumbler() -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/ask", listener.local_addr().expect("an address"));
    let (asked, questions) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut question = vec![0; 16_384];
            let length = stream.read(&mut question).unwrap_or(0);
            let _ = asked.send(String::from_utf8_lossy(&question[..length]).into_owned());
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    (url, questions)
}

#[test]
fn a_decline_names_the_rule() {
    let mut swarm = Swarm::empty(&[]);
    let asker = swarm.add("asker", &["--no-compute"]).identity.peer_id.clone();
    let (url, questions) = grumbler();
    let bootstrap = swarm.bootstrap.identity.peer_id.clone();
    let hours = other_half_of_the_day();
    for (name, rule) in [
        ("choosy", ["--peer", &bootstrap]),
        ("averse", ["--refuse-peer", &asker]),
        ("rooted", ["--locality", "local"]),
        ("sleeper", ["--hours", &hours]),
        ("small", ["--max-task", "cpu=100m"]),
        ("asking", ["--probe-url", &url]),
    ] {
        swarm.add(name, &[&["--no-docker"][..], &rule].concat());
    }
    swarm.everybody_knows(8);
    let node = &swarm.nodes[0];
    let hello = example("hello/hello.wasm");
    let job = node.run(&["wasm", "run", "--cpu", "500m", "--no-wait", "--id-only", &hello]).ok().text().to_owned();
    for (name, reason) in [
        ("choosy", "takes no jobs from this peer (rule: peer)"),
        ("averse", "takes no jobs from this peer (rule: peer)"),
        ("rooted", "takes only jobs whose input lies here (rule: locality)"),
        ("sleeper", "only (rule: hours)"),
        ("small", "(rule: max-task)"),
        ("asking", "(rule: probe)"),
    ] {
        eventually_ok(&format!("that {name} declines: {reason}"), || {
            let story = node.run(&["job", "describe", &job]).ok().stdout;
            let said = |line: &str| line.contains(&format!("{name} declines: ")) && line.contains(reason);
            if story.lines().any(said) { Ok(()) } else { Err(story) }
        });
    }
    let question = questions.recv().expect("it was asked");
    assert!(question.starts_with("POST /ask") && question.contains(&job), "{question}");
    node.run(&["job", "stop", &job]).ok();
}

#[test]
fn a_node_takes_as_many_jobs_as_its_operator_wants_and_gives_up_results_in_time() {
    let mut swarm = Swarm::empty(&[]);
    swarm.add("asker", &["--no-compute"]);
    swarm.add("narrow", &["--no-docker", "--cpu", "1", "--max-queue", "1"]);
    swarm.add("fair", &["--no-docker", "--max-per-peer", "1"]);
    swarm.everybody_knows(4);
    let node = &swarm.nodes[0];
    let trial = example("trials/trial.wasm");
    let sleep = ["wasm", "run", "--no-wait", "--id-only", "--cpu", "1", &trial, "--", "sleep", "60000"];
    let jobs: Vec<String> = (0..5).map(|_| node.run(&sleep).ok().text().to_owned()).collect();
    for (name, reason) in [("narrow", "(rule: max-queue)"), ("fair", "1 of your jobs are here already, 1 may be")] {
        eventually(&format!("that {name} has enough: {reason}"), || {
            let stories = jobs.iter().map(|job| node.run(&["job", "describe", job]).ok().stdout);
            let said = |line: &str| line.contains(&format!("{name} declines: ")) && line.contains(reason);
            stories.into_iter().any(|story| story.lines().any(said)).then_some(())
        });
    }
    for job in &jobs {
        node.run(&["job", "stop", job]).ok();
    }
}

#[test]
fn a_result_is_kept_for_as_long_as_its_node_wants() {
    let mut swarm = Swarm::empty(&[]);
    // In days: two seconds.
    swarm.add("short", &["--no-docker", "--keep-results", "0.00002"]);
    let node = &swarm.nodes[0];
    let job = node.run(&["wasm", "run", "--id-only", &example("hello/hello.wasm")]).ok().text().to_owned();
    let root = node.result_of(&job);
    node.run(&["content", "get", &root, "-o", &swarm.dir().join("now").to_string_lossy()]).ok();
    std::thread::sleep(std::time::Duration::from_secs(3));
    node.run(&["content", "gc"]).ok();
    let gone = node.run(&["content", "get", &root, "-o", &swarm.dir().join("later").to_string_lossy()]);
    assert_ne!(gone.code, 0, "{gone:#?}");
    // Its story is not what was kept.
    assert!(node.run(&["job", "describe", &job]).ok().stdout.contains("completed"));
}

#[test]
fn what_was_used_is_counted_for_each_submitter() {
    let mut swarm = Swarm::empty(&[]);
    swarm.add("asker", &["--no-compute"]);
    swarm.add("worker", &["--no-docker"]);
    swarm.everybody_knows(3);
    let hello = example("hello/hello.wasm");
    swarm.nodes[0].run(&["wasm", "run", "--count", "3", &hello]).ok();
    swarm.nodes[1].run(&["wasm", "run", &hello]).ok();
    let usage = swarm.nodes[1].run(&["node", "usage", "--output", "json"]).ok().json();
    let runs = |name: &str| {
        let all = usage.as_array().expect("a list");
        all.iter().find(|one| one["Name"] == name).and_then(|one| one["Runs"].as_u64())
    };
    assert_eq!((runs("asker"), runs("worker")), (Some(3), Some(1)), "{usage:#}");
}

#[test]
fn rules_that_make_no_sense_are_refused_at_the_start() {
    for (flag, value, hint) in [
        ("--hours", "25-26", "20:00-07:30"),
        ("--max-task", "cores=2", "cpu=2,memory=4GiB"),
        ("--max-load", "-1", "more than nothing"),
        ("--ports", "80-90", "20000-32000"),
        ("--data-peer", "nobody", "bacnode node list"),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        let argument = format!("{flag}={value}");
        let args = ["serve", "--data-dir", &dir.path().to_string_lossy(), &argument].map(str::to_owned);
        let ran = bacnode_tests::bacnode(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(ran.code, 2, "{ran:#?}");
        assert!(ran.stderr.contains(hint), "{}", ran.stderr);
    }
}
