//! A hundred real nodes in one process (three hundred by `BACNODE_SWARM=300`): found through one bootstrap peer, which then
//! dies. A newcomer is still found by everybody, content by the DHT, and jobs are still done.
#![cfg(feature = "swarm")]
#![allow(clippy::print_stdout, reason = "figures are part of what it shows")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bacnode_node::Node;
use bacnode_node::config::Config;
use bacnode_simulations::swarm::Swarm;
use tokio::process::Command;

/// Connections of each node but the bootstrap peer: fewer than there are nodes.
const LINKS_MAX: u32 = 48;
/// Links that each node looks for by itself.
const PEERS_WANTED: usize = 8;
/// Every so manyth node runs jobs, and takes them from users.
const WORKS: usize = 5;
/// How long traffic is counted: where few speak, each speaks seldom.
fn quiet() -> Duration {
    Duration::from_secs(if count() < 100 { 30 } else { 8 })
}
/// Bytes a second that a node may send while nothing happens.
const IDLE_MAX: f64 = 40e3;
/// Jobs handed in at once, each of so many tasks.
const JOBS: usize = 12;
const TASKS: &str = "5";

fn count() -> usize {
    std::env::var("BACNODE_SWARM").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

/// The program, whose processes run the modules and hand in the jobs.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    let found = own.ancestors().skip(1).map(|dir| dir.join("bacnode")).find(|path| path.exists());
    found.expect("bacnode is built: `cargo build --workspace --all-features`")
}

fn few_links(config: &mut Config) {
    config.connections_max = LINKS_MAX;
    config.peers_wanted = PEERS_WANTED;
    // All of them share two cores or so: the more there are, the slower each.
    config.gossip.heartbeat_ms = 5 * count() as u64;
    config.gossip.advert_s *= share();
    config.gossip.view_s *= share();
    config.gossip.adverts_per_s /= share();
}

/// How much slower each is than in a swarm of a hundred.
fn share() -> u64 {
    (count() as u64 / 100).max(1)
}

/// How long anything may take, for so many nodes on one machine.
fn patience() -> Duration {
    Duration::from_millis(900) * u32::try_from(count()).unwrap_or(u32::MAX)
}

fn works(config: &mut Config) {
    few_links(config);
    config.compute = true;
    config.worker = Some(program());
    config.api = Some(([127, 0, 0, 1], 0).into());
}

async fn until_all_know(swarm: &Swarm, known: usize, patience: Duration) -> Duration {
    let started = Instant::now();
    loop {
        let least = swarm.nodes.iter().min_by_key(|node| node.network().known_count()).expect("a node");
        let knows = least.network().known_count();
        if knows >= known {
            return started.elapsed();
        }
        if started.elapsed() > patience {
            let peers = least.network().peers().await.len();
            let others = swarm.nodes.iter().filter(|node| node.network().known_count() < known).count();
            panic!("{others} nodes lack some; one knows {knows} of {known}, and has {peers} links");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The sum of all samples of one metric, of those whose labels contain `label`.
fn metric(node: &Node, name: &str, label: &str) -> f64 {
    let text = node.network().metrics();
    let samples = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// The mean over all nodes.
fn mean(swarm: &Swarm, name: &str, label: &str) -> f64 {
    swarm.nodes.iter().map(|node| metric(node, name, label)).sum::<f64>() / swarm.nodes.len() as f64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_nodes_find_each_other_and_outlive_their_bootstrap_peer() {
    let count = count();
    let started = Instant::now();
    let mut swarm = Swarm::new();
    // The bootstrap peer takes everybody; the others keep few connections, as in a network that is much larger.
    swarm.add_with(&[], |config| config.connections_max = 4 * u32::try_from(count).unwrap_or(u32::MAX)).await;
    for index in 1..count {
        swarm.add_with(&[0], if index % WORKS == 0 { works } else { few_links }).await;
    }
    let up = started.elapsed();
    let converged = until_all_know(&swarm, count, patience()).await;
    let most = most_links(&swarm).await;
    println!("{count} nodes up in {up:?}, all known to all {converged:?} later, at most {most} links each");
    assert!(most <= LINKS_MAX as usize, "{most}");

    swarm.stop(0).await;
    let newcomer_calls = swarm.nodes.len() - 1;
    let at = Instant::now();
    swarm.add_with(&[newcomer_calls], few_links).await;
    until_all_know(&swarm, count, patience()).await;
    println!("a newcomer is known to all in {:?}, without the bootstrap peer", at.elapsed());

    content_is_found(&swarm).await;
    jobs_are_done(&swarm).await;
    tell_traffic(&swarm).await;
    assert_eq!(swarm.nodes.len(), count);
}

/// What the newcomer has is found by somebody far away, through the DHT alone.
async fn content_is_found(swarm: &Swarm) {
    let root = swarm.nodes.last().expect("the newcomer").add(&vec![7; 300_000]).expect("added");
    let (at, seeker) = (Instant::now(), &swarm.nodes[5]);
    let mut found = seeker.fetch(root).await;
    while found.is_err() && at.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        found = seeker.fetch(root).await;
    }
    found.expect("fetched");
    let asked = metric(seeker, "bacnode_look_up_nodes_sum", "");
    let look_ups = metric(seeker, "bacnode_look_up_nodes_count", "");
    println!("content is found and here in {:?}: {look_ups} look-ups, {asked} nodes asked in all", at.elapsed());
    assert!(look_ups > 0.0, "no look-up was counted");
}

/// Users hand in jobs at several nodes, all at once.
async fn jobs_are_done(swarm: &Swarm) {
    let doors: Vec<_> = swarm.nodes.iter().filter_map(Node::api).collect();
    let at = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for job in 0..JOBS {
        let mut command = Command::new(program());
        let api = doors[job % doors.len()].to_string();
        command.args(["wasm", "run", "../examples/hello/hello.wasm", "--count", TASKS, "--api", &api]);
        running.spawn(async move { command.output().await.expect("the program starts") });
    }
    while let Some(ended) = running.join_next().await {
        let output = ended.expect("it does not panic");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    println!("{JOBS} jobs of {TASKS} tasks are done at {} nodes in {:?}", doors.len(), at.elapsed());
}

/// What nodes say while nothing happens.
async fn tell_traffic(swarm: &Swarm) {
    let kinds = [
        ("adverts and calls", "bacnode_gossipsub_topic_msg_sent_bytes", ""),
        ("everything", "bacnode_libp2p_bandwidth_bytes", "Outbound"),
    ];
    let before = kinds.map(|(_, name, label)| mean(swarm, name, label));
    tokio::time::sleep(quiet()).await;
    for ((what, name, label), before) in kinds.into_iter().zip(before) {
        let rate = (mean(swarm, name, label) - before) / quiet().as_secs_f64();
        println!("{what}, sent by a node while nothing happens: {:.1} kB/s", rate / 1e3);
        assert!(rate > 0.0, "nothing was counted as {name}");
        assert!(rate < IDLE_MAX, "{rate} B/s");
    }
}

async fn most_links(swarm: &Swarm) -> usize {
    let mut most = 0;
    for node in swarm.nodes.iter().skip(1) {
        most = most.max(node.network().peers().await.len());
    }
    most
}
