//! Seven nodes in a line, each connected to its neighbours alone: what is said at one end is heard at the other.
#![cfg(feature = "swarm")]

use bacnode_simulations::swarm::{Swarm, eventually};

async fn line(count: usize) -> Swarm {
    let mut swarm = Swarm::new();
    swarm.add(&[]).await;
    for index in 1..count {
        swarm.add(&[index - 1]).await;
    }
    swarm
}

#[tokio::test(flavor = "multi_thread")]
async fn an_advert_crosses_the_line() {
    let mut swarm = Swarm::new();
    swarm.add_with(&[], |config| config.connections_max = 1).await;
    for index in 1..7 {
        // One place for the node before, one for the node after.
        swarm.add_with(&[index - 1], |config| config.connections_max = 2).await;
    }
    for (index, node) in swarm.nodes.iter().enumerate() {
        eventually(&format!("node {index} knows all"), || (node.network().known().len() == 7).then_some(())).await;
    }
    // Knowing is not being connected: the adverts went from hand to hand.
    for (index, node) in swarm.nodes.iter().enumerate() {
        let expected = if index == 0 || index == 6 { 1 } else { 2 };
        assert_eq!(node.network().peers().await.len(), expected, "node {index}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_end_finds_what_the_other_holds_through_the_dht_alone() {
    let swarm = line(7).await;
    // Large enough for a DAG of several blocks.
    let bytes: Vec<u8> =
        (0..3_000_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).take(3 << 20).collect();
    let root = swarm.nodes[6].add(&bytes).expect("added");
    let mut fetched = Err(String::new());
    for _ in 0..20 {
        fetched = swarm.nodes[0].fetch(root).await;
        if fetched.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    assert!(fetched.expect("fetched") as usize >= bytes.len());
    assert_eq!(swarm.nodes[0].content().head(&root, usize::MAX).expect("held"), bytes);
    // The second time it is there.
    assert_eq!(swarm.nodes[0].fetch(root).await, Ok(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_is_forgotten_everywhere() {
    let mut swarm = line(5).await;
    for node in &swarm.nodes {
        eventually("all know all", || (node.network().known().len() == 5).then_some(())).await;
    }
    let leaver = swarm.nodes[4].network().me();
    swarm.stop(4).await;
    for node in &swarm.nodes {
        eventually("the leaver is forgotten", || (!node.network().known().contains(&leaver)).then_some(())).await;
    }
}
