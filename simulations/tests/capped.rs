//! Nodes that know four others at a time, in a network of a dozen: whatever is needed is still found.
#![cfg(feature = "swarm")]

use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use bacnode_node::Node;
use bacnode_node::config::Config;
use bacnode_simulations::swarm::{Swarm, eventually};
use tokio::process::Command;

/// Nodes that one knows at a time, itself included.
const KNOWN_MAX: usize = 4;
const COUNT: usize = 12;
/// What all but one node have for jobs.
const MEMORY: u64 = 1 << 30;

/// The program, whose processes run the modules and hand in the jobs.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    let found = own.ancestors().skip(1).map(|dir| dir.join("bacnode")).find(|path| path.exists());
    found.expect("bacnode is built: `cargo build --workspace --all-features`")
}

fn forgetful(config: &mut Config) {
    config.view_max = KNOWN_MAX;
    config.peers_wanted = 3;
    config.compute = true;
    config.docker = false;
    config.worker = Some(program());
    config.api = Some(([127, 0, 0, 1], 0).into());
    config.total.memory = MEMORY;
}

async fn ask(node: &Node, args: &[&str]) -> Output {
    let api = node.api().expect("it has an API").to_string();
    Command::new(program()).args(args).args(["--api", &api]).output().await.expect("the program starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_in_view_is_found_all_the_same() {
    let mut swarm = Swarm::new();
    for index in 0..COUNT {
        let neighbours: &[usize] = if index == 0 { &[] } else { &[0] };
        let large = if index == COUNT - 1 { 8 } else { 1 };
        swarm
            .add_with(neighbours, |config| {
                forgetful(config);
                config.total.memory = large * MEMORY;
            })
            .await;
    }
    for node in &swarm.nodes {
        eventually("its view is full", || (node.network().known_count() == KNOWN_MAX).then_some(())).await;
    }
    let (asker, large) = (&swarm.nodes[1], swarm.nodes[COUNT - 1].network().me().to_string());

    // A fit that only an unseen node has is found by an open call.
    let started = Instant::now();
    let hello = "../examples/hello/hello.wasm";
    let ran = ask(asker, &["wasm", "run", "--memory", "4GiB", "--id-only", hello]).await;
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let job = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
    let ended = ask(asker, &["job", "describe", &job, "--output", "json"]).await;
    assert!(String::from_utf8_lossy(&ended.stdout).contains(&large), "it ran where it fits");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());

    // Whose job it is, the DHT knows: everybody can tell of it.
    for (index, node) in swarm.nodes.iter().enumerate() {
        let told = ask(node, &["job", "describe", &job, "--output", "json"]).await;
        let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
        assert!(told.status.success() && out.contains("Completed"), "node {index}: {err}");
    }

    // And content, from a provider that is not in view.
    let root = swarm.nodes[COUNT - 2].add(&vec![3; 300_000]).expect("added");
    let mut fetched = Err(String::new());
    for _ in 0..20 {
        fetched = swarm.nodes[2].fetch(root).await;
        if fetched.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    fetched.expect("fetched");
    for node in &swarm.nodes {
        assert!(node.network().known_count() <= KNOWN_MAX);
    }
}
