//! The bootstrap peer as its operator meets it: small with many connections, network files, a page and figures.

use std::time::Duration;

use bacnode_node::config::Config;
use bacnode_tests::{Swarm, bacnode, eventually, example, known, program};

/// Peers that are connected to it at once.
const CONNECTIONS: usize = 200;
/// What it may have with none, and for each.
const BASE_KIB: u64 = 30 << 10;
const PER_CONNECTION_KIB: u64 = 256;

/// Memory that a process has for itself, in KiB: not the pages of its program, which the system can drop and read again, and
/// of which an unstripped one like this has many.
fn memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("its memory");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

/// Whole nodes, in this process: they gossip, ask the DHT, and keep so many connections beside that to the bootstrap peer.
async fn crowd(swarm: &Swarm, count: usize, wanted: usize) -> Vec<bacnode_node::Node> {
    let mut crowd = Vec::with_capacity(count);
    for index in 0..count {
        let mut config = Config::new(swarm.dir().join(format!("crowd-{index}")));
        (config.api, config.compute, config.peers_wanted) = (None, false, wanted);
        config.network = "test".into();
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")];
        config.bootstrap = vec![swarm.bootstrap.identity.addresses[0].parse().expect("an address")];
        crowd.push(bacnode_node::Node::start(config).await.expect("a node starts"));
    }
    crowd
}

#[test]
fn it_stays_small_with_two_hundred_connections() {
    let swarm = Swarm::empty(&[]);
    let alone = memory_kib(swarm.bootstrap.pid());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let crowd = runtime.block_on(crowd(&swarm, CONNECTIONS, 0));
    let socket = format!("unix:{}", swarm.dir().join("bootstrap/api.sock").display());
    eventually("all are connected", || {
        let peers = bacnode(&["--api", &socket, "peers", "--output", "json"]).ok().json();
        (peers.as_array()?.len() >= CONNECTIONS).then_some(())
    });
    std::thread::sleep(Duration::from_secs(3));
    let crowded = memory_kib(swarm.bootstrap.pid());
    drop(crowd);
    runtime.shutdown_background();
    let most = BASE_KIB + PER_CONNECTION_KIB * CONNECTIONS as u64;
    assert!(alone <= BASE_KIB, "{alone} KiB alone, {BASE_KIB} at most");
    assert!(crowded <= most, "{crowded} KiB with {CONNECTIONS} connections ({alone} alone), {most} at most");
}

#[test]
fn a_bootstrap_peer_that_is_full_makes_room_for_newcomers() {
    let mut swarm = Swarm::empty(&["--max-connections", "40"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let crowd = runtime.block_on(crowd(&swarm, 50, 3));
    swarm.add("newcomer", &["--no-docker"]);
    eventually("it knows all of them", || (known(&swarm.nodes[0]) == 52).then_some(()));
    swarm.nodes[0].run(&["submit", &example("hello/job.yaml")]).ok();
    drop(crowd);
    runtime.shutdown_background();
}

#[test]
fn a_network_file_is_all_that_others_need() {
    let mut swarm = Swarm::empty(&[]);
    let address = swarm.bootstrap.identity.addresses[0].clone();
    let init = |args: &[&str]| {
        let ran = std::process::Command::new(program("bacnode-bootstrap")).arg("init-network").args(args).output();
        bacnode_tests::Ran::from(ran.expect("it runs"))
    };
    let file = swarm.dir().join("test.toml").to_string_lossy().into_owned();
    let text = init(&["test", "--address", &address, "--max-per-peer", "7", "--public"]).ok().stdout;
    std::fs::write(&file, &text).expect("written");
    let data = swarm.dir().join("by-file").to_string_lossy().into_owned();
    let shown = bacnode(&["config", "show", "--data-dir", &data, "--network", &file, "--output", "json"]).ok().json();
    let value = |name: &str| {
        let setting = shown.as_array().expect("settings").iter().find(|setting| setting["Name"] == name).cloned();
        setting.unwrap_or_else(|| panic!("{name}: {shown}"))["Value"].as_str().expect("a value").to_owned()
    };
    assert_eq!(
        (value("max-per-peer").as_str(), value("web").as_str(), value("no-docker").as_str()),
        ("7", "none", "true")
    );
    swarm.join_by("by-file", &["--network", &file]);
    eventually("they know each other", || (known(&swarm.nodes[0]) == 2).then_some(()));
    swarm.nodes[0].run(&["submit", &example("hello/job.yaml")]).ok();

    // Another's file, a changed one, a broken one, none.
    for (text, cause) in [
        (text.replace("name = \"test\"", "name = \"other\""), "its id is not made of its name and this key"),
        (format!("{text}adresses = []\n"), "unknown field `adresses`"),
        (text.replace("name = \"test\"", "name = test"), "line 2"),
        (
            text.replace(&address, "/ip4/203.0.113.7/tpc/1"),
            "address 1, `/ip4/203.0.113.7/tpc/1`: not a multiaddr from position 17",
        ),
    ] {
        std::fs::write(&file, text).expect("written");
        let refused = bacnode(&["serve", "--data-dir", &data, "--network", &file]);
        assert!(refused.code == 2 && refused.stderr.contains(cause), "{cause}: {refused:#?}");
    }
    let missing = bacnode(&["serve", "--data-dir", &data, "--network", "nowhere.toml"]);
    assert!(missing.code == 2 && missing.stderr.contains("cannot read the network file nowhere.toml"), "{missing:#?}");
    let demo = bacnode(&["serve", "--data-dir", &data, "--network", "demo"]);
    for part in ["holds no address", "--bootstrap", "BACNODE_BOOTSTRAP", "bootstrap/README.md"] {
        assert!(demo.code == 2 && demo.stderr.contains(part), "{part}: {demo:#?}");
    }
    let wrong = init(&["a b"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("is not a network's name"), "{wrong:#?}");
    let wrong = init(&["lab", "--address", "peer:http"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("`http` is not a port"), "{wrong:#?}");
}

#[test]
fn it_keeps_to_its_network_file_itself() {
    let keys = tempfile::tempdir().expect("a folder");
    let path = |name: &str| keys.path().join(name).to_string_lossy().into_owned();
    let (key, data, file) = (path("swarm.key"), path("data"), path("lab.toml"));
    bacnode(&["swarm", "keygen", &key]).ok();
    let run = |args: &[&str]| {
        let ran = std::process::Command::new(program("bacnode-bootstrap")).args(args).output();
        bacnode_tests::Ran::from(ran.expect("it runs"))
    };
    let me = run(&["id", "--data-dir", &data]).ok().text().to_owned();
    let args = ["init-network", "test", "--address", "127.0.0.1:1", "--swarm-key", &key, "--founder", &me];
    std::fs::write(&file, run(&args).ok().stdout).expect("written");
    let wrong = run(&["serve", "--data-dir", &data, "--network", &file]);
    assert!(wrong.code == 2 && wrong.stderr.contains("and none is named"), "{wrong:#?}");
    // The file names it as the founder: its invites let others in, the key does not.
    let mut swarm = Swarm::empty_in(&data, &["--network", &file, "--swarm-key", &key]);
    let socket = format!("unix:{data}/api.sock");
    let invite = bacnode(&["--api", &socket, "swarm", "invite", "--swarm-key", &key]).ok();
    swarm.join("ann", invite.text());
    eventually("ann is in", || (known(&swarm.nodes[0]) == 2).then_some(()));
}

#[test]
fn the_shipped_demo_file_is_joined_through_a_bootstrap_peer_of_one_s_own() {
    let mut swarm = Swarm::empty(&["--network", "demo"]);
    swarm.add("ann", &["--network", "demo"]);
    swarm.add("bob", &["--network", "demo"]);
    swarm.everybody_knows(3);
    swarm.nodes[0].run(&["submit", &example("hello/job.yaml")]).ok();
    let socket = format!("unix:{}", swarm.dir().join("bootstrap/api.sock").display());
    let refused = bacnode(&["--api", &socket, "submit", &example("hello/job.yaml")]);
    assert!(refused.code == 1 && refused.stderr.contains("a bootstrap peer takes no jobs"), "{refused:#?}");
    let peers = swarm.nodes[0].run(&["doctor"]);
    assert!(peers.stdout.contains("directly, on the local network"), "{peers:#?}");
}
