//! A hundred real nodes in one process (three hundred by `BACNODE_SWARM=300`): found through one bootstrap peer, which then
//! dies; and content is still found by the DHT, and a newcomer by everybody.
#![cfg(feature = "swarm")]
#![allow(clippy::print_stdout, reason = "figures are part of what it shows")]

use std::time::{Duration, Instant};

use bacnode_simulations::swarm::Swarm;

/// Connections of each node but the bootstrap peer: fewer than there are nodes.
const LINKS_MAX: u32 = 64;

fn count() -> usize {
    std::env::var("BACNODE_SWARM").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

async fn until_all_know(swarm: &Swarm, known: usize, patience: Duration) -> Duration {
    let started = Instant::now();
    loop {
        let least = swarm.nodes.iter().map(|node| node.network().known().len()).min().unwrap_or(0);
        if least >= known {
            return started.elapsed();
        }
        assert!(started.elapsed() < patience, "the node that knows least knows {least} of {known}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_nodes_find_each_other_and_outlive_their_bootstrap_peer() {
    let count = count();
    let started = Instant::now();
    let mut swarm = Swarm::new();
    // The bootstrap peer takes everybody; the others keep few connections, as in a network that is much larger.
    swarm.add_with(&[], 400).await;
    for _ in 1..count {
        swarm.add_with(&[0], LINKS_MAX).await;
    }
    let up = started.elapsed();
    let converged = until_all_know(&swarm, count, Duration::from_secs(90)).await;
    let links: Vec<usize> = futures_of(&swarm).await;
    let most = links.iter().skip(1).max().copied().unwrap_or(0);
    println!("{count} nodes up in {up:?}, all known to all {converged:?} later, at most {most} links each");
    assert!(most <= LINKS_MAX as usize, "{most}");

    swarm.stop(0).await;
    let newcomer_calls = swarm.nodes.len() - 1;
    let at = Instant::now();
    swarm.add_with(&[newcomer_calls], LINKS_MAX).await;
    until_all_know(&swarm, count, Duration::from_secs(60)).await;
    println!("a newcomer is known to all in {:?}, without the bootstrap peer", at.elapsed());

    // What it has is found by somebody far away, through the DHT alone.
    let root = swarm.nodes.last().expect("the newcomer").add(&vec![7; 300_000]).expect("added");
    let at = Instant::now();
    let mut found = swarm.nodes[5].fetch(root).await;
    while found.is_err() && at.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        found = swarm.nodes[5].fetch(root).await;
    }
    println!("content is found and here in {:?}", at.elapsed());
    found.expect("fetched");
}

async fn futures_of(swarm: &Swarm) -> Vec<usize> {
    let mut links = Vec::new();
    for node in &swarm.nodes {
        links.push(node.network().peers().await.len());
    }
    links
}
