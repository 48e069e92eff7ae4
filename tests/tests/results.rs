//! Real data, real results.

use bacnode_tests::{Swarm, example};
use sha2::{Digest, Sha256};

#[test]
fn a_hundred_mebibytes_come_home_whole() {
    let swarm = Swarm::new(2);
    let (asker, trial) = (&swarm.nodes[0], example("trials/trial.wasm"));
    let to = swarm.dir().join("large");
    let size = (100u64 << 20).to_string();
    let args = [
        "wasm",
        "run",
        "--result",
        "outputs:/outputs",
        "--download",
        &to.to_string_lossy(),
        &trial,
        "--",
        "write",
        &size,
    ];
    let done = asker.run(&args).ok();
    let bytes = std::fs::read(to.join("outputs/large.bin")).expect("the result");
    assert_eq!(bytes.len(), 100 << 20);
    // The same generator as the program's.
    let (mut state, mut hash) = (88_172_645_463_325_252_u64, Sha256::new());
    for _ in 0..bytes.len() / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        hash.update(state.to_le_bytes());
    }
    assert_eq!(Sha256::digest(&bytes), hash.finalize());
    // From another node, over the network, by its CID alone.
    let other = swarm.dir().join("again");
    swarm.nodes[1].run(&["content", "get", done.text(), "-o", &other.to_string_lossy()]).ok();
    assert_eq!(std::fs::read(other.join("outputs/large.bin")).expect("the result"), bytes);
}

#[test]
fn an_input_that_only_one_node_has_is_found() {
    let mut swarm = Swarm::new(3);
    swarm.add("asker", &["--no-compute"]);
    swarm.everybody_knows(5);
    let folder = swarm.dir().join("data");
    std::fs::create_dir_all(folder.join("deep")).expect("a folder");
    std::fs::write(folder.join("a.txt"), "first\n").expect("a file");
    std::fs::write(folder.join("deep/b.txt"), "x".repeat(200_000)).expect("a file");
    let added = swarm.nodes[2].run(&["content", "add", &folder.to_string_lossy(), "--output", "json"]).ok().json();
    assert_eq!(added["Size"], 200_006);
    let input = format!("ipfs://{}:/data", added["Cid"].as_str().expect("a CID"));
    let args = ["wasm", "run", "-i", &input, "--id-only", &example("trials/trial.wasm"), "--", "cat", "/data/a.txt"];
    let job = swarm.nodes[3].run(&args).ok();
    assert_eq!(swarm.nodes[3].run(&["job", "logs", job.text()]).ok().stdout, "first\n");
    // The look-up found its holder, so the job went to the data.
    let executions = swarm.nodes[3].job(job.text()).executions.expect("executions").items;
    assert_eq!(executions[0].node_id, swarm.nodes[2].identity.peer_id, "{executions:#?}");
    let providers = swarm.nodes[0].run(&["content", "providers", added["Cid"].as_str().expect("a CID")]).ok();
    assert!(providers.stdout.contains("node-2"), "{providers:#?}");
}

#[test]
fn fifty_jobs_at_once_on_four_nodes() {
    let swarm = Swarm::new(4);
    let spec = example("hello/job.yaml");
    let children: Vec<_> = (0..50).map(|index| swarm.nodes[index % 4].spawn(&["submit", &spec, "--id-only"])).collect();
    for child in children {
        let ran: bacnode_tests::Ran = child.wait_with_output().expect("it ends").into();
        assert_eq!(ran.code, 0, "{ran:#?}");
    }
    for node in &swarm.nodes {
        let jobs = node.run(&["job", "list", "--limit", "100", "--output", "json"]).ok().json();
        let jobs = jobs.as_array().expect("jobs").clone();
        assert!(jobs.len() >= 12, "{}", jobs.len());
        assert!(jobs.iter().all(|job| job["State"]["StateType"] == "Completed"));
    }
}

#[test]
fn partitions_run_apart_and_are_fetched_apart() {
    let swarm = Swarm::new(3);
    let trial = example("trials/trial.wasm");
    let to = swarm.dir().join("parts");
    let args =
        ["wasm", "run", "--count", "5", "-e", "KEY=value", "--download", &to.to_string_lossy(), &trial, "--", "env"];
    swarm.nodes[0].run(&args).ok();
    for index in 0..5 {
        let printed = std::fs::read_to_string(to.join(index.to_string()).join("stdout")).expect("stdout");
        assert!(printed.contains(&format!("BACNODE_PARTITION_INDEX={index}\n")), "{printed}");
        assert!(printed.contains("BACALHAU_PARTITION_COUNT=5\n") && printed.contains("KEY=value\n"), "{printed}");
    }
}

#[test]
fn local_folders_only_where_the_operator_says_so() {
    let mut swarm = Swarm::empty(&[]);
    let (open, closed) = (swarm.dir().join("open"), swarm.dir().join("closed"));
    for folder in [&open, &closed] {
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(folder.join("log.txt"), "a line\n").expect("a file");
    }
    std::os::unix::fs::symlink(&closed, open.join("way-out")).expect("a link");
    let (open, closed) = (open.to_string_lossy().into_owned(), closed.to_string_lossy().into_owned());
    swarm.add("closed", &[]);
    swarm.add("open", &["--allow-local", &open]);
    swarm.everybody_knows(3);
    let trial = example("trials/trial.wasm");
    let cat = |source: &str| {
        let input = format!("local://{source}:/logs");
        swarm.nodes[0].run(&["wasm", "run", "--id-only", "-i", &input, &trial, "--", "cat", "/logs/log.txt"])
    };
    let read = cat(&open).ok();
    assert_eq!(swarm.nodes[0].run(&["job", "logs", read.text()]).ok().stdout, "a line\n");
    let refused = cat(&closed);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("is not on this node's list of local paths"), "{refused:#?}");
    let escaped = cat(&format!("{open}/way-out"));
    assert_eq!(escaped.code, 1);
    assert!(escaped.stderr.contains("is not on this node's list of local paths"), "{escaped:#?}");
}

#[test]
fn follow_shows_what_is_printed_while_it_runs() {
    let swarm = Swarm::new(2);
    let trial = example("trials/trial.wasm");
    let job = swarm.nodes[0].run(&["wasm", "run", "--no-wait", &trial, "--", "sleep", "2500"]).ok();
    let logs = swarm.nodes[0].run(&["job", "logs", "--follow", job.text()]).ok();
    assert_eq!(logs.stdout, "sleeping\nawake\n");
}

#[test]
fn what_is_pinned_stays_and_what_is_not_goes() {
    let swarm = Swarm::new(2);
    let (here, there) = (&swarm.nodes[0], &swarm.nodes[1]);
    let file = swarm.dir().join("three-mebibytes");
    // Each block another: what is the same is kept once.
    let bytes: Vec<u8> = (0..3u32 << 18).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&file, bytes).expect("written");
    let added = here.run(&["content", "add", &file.to_string_lossy(), "--output", "json"]).ok().json();
    let cid = added["Cid"].as_str().expect("a CID").to_owned();
    let used = |usage: &str| {
        let json = there.run(&["content", "ls", "--usage", "--output", "json"]).ok().json();
        json[usage].as_u64().expect("bytes")
    };
    there.run(&["content", "pin", &cid]).ok();
    assert_eq!(used("User"), 3 << 20);
    there.run(&["content", "gc"]).ok();
    assert!(used("Used") >= 3 << 20);
    let let_go = there.run(&["content", "unpin", &cid]).ok();
    assert!(let_go.stdout.contains("`content gc` frees it"), "{let_go:#?}");
    let swept = there.run(&["content", "gc", "--output", "json"]).ok().json();
    assert!(swept["Freed"].as_u64().expect("bytes") >= 3 << 20, "{swept}");
    assert!(used("Used") < 3 << 20);
    let again = there.run(&["content", "unpin", &cid]);
    assert!(again.code == 4 && again.stderr.contains("is not pinned here by a user"), "{again:#?}");
    // It is still where it was added, and comes again.
    there.run(&["content", "pin", &cid]).ok();
}
