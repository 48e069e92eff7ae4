//! Bad input of every kind: a plain sentence, the right exit code, the right state, and a node that goes on working.

use std::time::{Duration, Instant};

use bacnode_tests::{Ran, Swarm, bacnode, example};

fn says(ran: &Ran, code: i32, parts: &[&str]) {
    assert_eq!(ran.code, code, "{ran:#?}");
    for part in parts {
        assert!(ran.stderr.contains(part), "`{part}`: {ran:#?}");
    }
    assert!(!ran.stderr.contains("panicked") && !ran.stderr.contains("Error {"), "{ran:#?}");
}

#[test]
fn an_operator_has_the_last_word() {
    let mut swarm = Swarm::empty(&[]);
    let probe = "grep -q '\"Memory\":64000000' || { echo 'only small jobs before noon' >&2; exit 1; }";
    swarm.add("careful", &["--probe", probe, "--no-docker"]);
    let node = &swarm.nodes[0];
    node.run(&["wasm", "run", "--memory", "64Mb", &example("hello/hello.wasm")]).ok();
    let ran = node.run(&["wasm", "run", "--wait-timeout", "2", "--memory", "65Mb", &example("hello/hello.wasm")]);
    assert_eq!(ran.code, 5, "{ran:#?}");
    assert!(
        ran.stderr.contains("careful declines: the operator's probe says no: only small jobs before noon"),
        "{ran:#?}"
    );
}

#[test]
fn programs_that_misbehave_end_with_their_cause() {
    let swarm = Swarm::new(2);
    let (node, trial) = (&swarm.nodes[0], example("trials/trial.wasm"));
    let run = |options: &[&str], args: &[&str]| {
        let command = [&["wasm", "run"], options, &[trial.as_str(), "--"], args].concat();
        node.run(&command)
    };
    says(&run(&[], &["exit", "7"]), 1, &["error: the program exited 7", "hint: `bacnode job logs"]);
    says(&run(&[], &["exit", "200"]), 1, &["the program exited 200"]);
    says(&run(&[], &["trap"]), 1, &["error: the program trapped: ", "unreachable"]);
    says(&run(&["--timeout", "1"], &["loop"]), 1, &["error: the program ran longer than its 1 s"]);
    says(&run(&["--timeout", "1"], &["sleep", "60000"]), 1, &["error: the program ran longer than its 1 s"]);
    says(&run(&["--memory", "64Mi"], &["eat"]), 1, &["error: the program wanted more than its 64 MiB of memory"]);
    says(&run(&[], &["print", "1000000000"]), 1, &["error: the program printed more than the 16 MiB that are kept"]);
    says(&run(&["--result", "outputs:/outputs"], &["link"]), 1, &["the result cannot be kept: `link` is a link"]);
    says(&run(&["--entrypoint", "nowhere"], &["exit", "0"]), 1, &["the module exports no function `nowhere`"]);
    let escape = run(&["--id-only"], &["escape"]).ok();
    assert!(node.run(&["job", "logs", escape.text()]).ok().stdout.starts_with("held: "));
    // What was printed before a trap is kept.
    let jobs = node.run(&["job", "list", "--output", "json"]).ok().json();
    let trapped = jobs
        .as_array()
        .expect("jobs")
        .iter()
        .find(|job| job["State"]["Message"].as_str().is_some_and(|message| message.contains("trapped")));
    let trapped = trapped.expect("the trapped job")["ID"].as_str().expect("an id").to_owned();
    assert_eq!(node.run(&["job", "logs", &trapped]).ok().stdout, "about to trap\n");
    // Everybody still works.
    for node in &swarm.nodes {
        node.run(&["submit", &example("hello/job.yaml")]).ok();
    }
}

/// A module that imports `missing` of `env`, with this body for its `_start`.
fn importing(body: &[u8]) -> Vec<u8> {
    let mut module = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02\x0f\x01\x03env\x07missing\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\x01".to_vec();
    let len = u8::try_from(body.len()).expect("a short body");
    module.extend([&[0x0a, len + 3, 1, len + 1, 0], body].concat());
    module
}

#[test]
fn what_a_program_has_not_is_missed_when_it_is_called() {
    let swarm = Swarm::new(1);
    let run = |name: &str, body: &[u8]| {
        let path = swarm.dir().join(name);
        std::fs::write(&path, importing(body)).expect("written");
        swarm.nodes[0].run(&["wasm", "run", &path.to_string_lossy()])
    };
    run("quiet.wasm", &[0x0b]).ok();
    says(&run("loud.wasm", &[0x10, 0, 0x0b]), 1, &["the program called `missing` of `env`, which nobody has"]);
}

#[test]
fn specs_that_are_wrong_are_refused_with_the_path() {
    let swarm = Swarm::new(1);
    let node = &swarm.nodes[0];
    let submit = |text: &str| {
        let path = swarm.dir().join("job.yaml");
        std::fs::write(&path, text).expect("a spec");
        node.run(&["submit", &path.to_string_lossy()])
    };
    let good = std::fs::read_to_string(example("hello/job.yaml")).expect("a spec");
    let good = good.replace("Path: hello.wasm", &format!("Path: {}", example("hello/hello.wasm")));
    submit(&good).ok();
    says(&submit("a: [b"), 2, &["error: the job spec is not valid: not valid YAML"]);
    says(&submit(""), 2, &["the spec is empty"]);
    says(
        &submit(&good.replace("Type: wasm", "Type: cobol")),
        2,
        &["Tasks[0].Engine.Type: `cobol` is not an engine (wasm, docker)"],
    );
    says(&submit(&good.replace("Count: 1", "Count: many")), 2, &["Count: must be a whole number, not a text"]);
    says(&submit(&good.replace("Resources:", "Resorces:")), 2, &["did you mean `Resources`?"]);
    says(&submit(&good.replace("hello.wasm}}", "nowhere.wasm}}")), 2, &["nowhere.wasm: no such file"]);
    says(
        &submit(&good.replace("EntryModule: /hello.wasm", "EntryModule: /x.wasm")),
        2,
        &["`/x.wasm` is not among the inputs"],
    );
    let nobody = "bafkreicl6ujc6ncfktctxxroxognfn7d2fqavvrryoc2lv6m4i6hpbkfti";
    let cid = |cid: &str| {
        good.replace(
            &format!("file, Params: {{Path: {}}}", example("hello/hello.wasm")),
            &format!("ipfs, Params: {{CID: {cid}}}"),
        )
    };
    says(&submit(&cid("nonsense")), 2, &["Params.CID: `nonsense`: not a content identifier"]);
    says(&submit(&cid(nobody)), 1, &[nobody, "no peer is known to have it"]);
    // A module that is none.
    let text = swarm.dir().join("text.wasm");
    std::fs::write(&text, "this is not a module").expect("a file");
    says(&node.run(&["wasm", "run", &text.to_string_lossy()]), 1, &["the module is not WebAssembly"]);
    submit(&good).ok();
}

#[test]
fn when_no_node_can_run_it_the_user_hears_why_within_two_seconds() {
    let mut swarm = Swarm::new(2);
    swarm.add("idle", &["--no-compute"]);
    swarm.everybody_knows(4);
    let started = Instant::now();
    let refused = swarm.nodes[0].run(&["wasm", "run", "--cpu", "64", &example("hello/hello.wasm")]);
    let took = started.elapsed();
    says(
        &refused,
        1,
        &[
            "no known node can run this job",
            "node-0: cpu: needs 64 cores, has",
            "node-1: cpu: needs 64 cores",
            "idle: runs no jobs",
        ],
    );
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn the_command_line_says_what_is_wrong() {
    let swarm = Swarm::new(1);
    let node = &swarm.nodes[0];
    says(&node.run(&["job", "describe", "nothing"]), 4, &["error: there is no job `nothing` at this node", "hint: "]);
    says(&node.run(&["node", "describe", "nobody"]), 4, &["no node `nobody` is known"]);
    says(&node.run(&["content", "get", "nonsense"]), 2, &["`nonsense`: not a content identifier"]);
    says(&node.run(&["content", "add", "/nowhere"]), 2, &["cannot read /nowhere: no such file"]);
    says(&node.run(&["submit", "/nowhere.yaml"]), 2, &["cannot read the spec /nowhere.yaml: no such file"]);
    says(&node.run(&["sumbit"]), 2, &["unrecognized subcommand 'sumbit'", "submit"]);
    says(&node.run(&["job", "list", "--limt", "3"]), 2, &["--limt", "--limit"]);
    let full = swarm.dir().join("full");
    std::fs::create_dir_all(full.join("x")).expect("a folder");
    let hello = example("hello/job.yaml");
    says(&node.run(&["submit", &hello, "--download", &full.to_string_lossy()]), 2, &["is not empty"]);
    let slow = ["wasm", "run", "--wait-timeout", "1", &example("trials/trial.wasm"), "--", "sleep", "4000"];
    says(&node.run(&slow), 5, &["has not ended yet"]);
    let nobody = bacnode(&["job", "list", "--api", "127.0.0.1:9"]);
    says(
        &nobody,
        3,
        &["error: the node at http://127.0.0.1:9 cannot be reached: connection refused", "hint: start one with"],
    );
    let data = swarm.dir().join("unused").to_string_lossy().into_owned();
    let serve = |args: &[&str]| bacnode(&[&["serve", "--data-dir", data.as_str()], args].concat());
    says(
        &serve(&["--network", "demo"]),
        2,
        &["holds no address", "--bootstrap or BACNODE_BOOTSTRAP", "bootstrap/README.md"],
    );
    says(&serve(&["--bootstrap", "somewhere"]), 2, &["--bootstrap somewhere: neither a multiaddr nor HOST:PORT"]);
    says(&serve(&["--api", "0.0.0.0:1234"]), 2, &["the API does not listen on 0.0.0.0:1234", "without a certificate"]);
    says(&serve(&["--memory", "lots"]), 2, &["--memory lots: not an amount"]);
    let used = swarm.dir().join("node-0").to_string_lossy().into_owned();
    let twice = bacnode(&["serve", "--data-dir", &used, "--api", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    says(&twice, 1, &["is in use by another process", "every node needs a data folder of its own"]);
}
