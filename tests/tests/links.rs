//! With whom a node is connected, by which way, and how fast.

use std::time::{Duration, Instant};

use bacnode_tests::{Node, Swarm, eventually, example, known};
use serde_json::Value;

/// Who is connected to a node.
fn peers(node: &Node) -> Vec<Value> {
    let peers = node.run(&["peers", "--output", "json"]).ok().json();
    peers.as_array().expect("peers").clone()
}

fn is_connected(node: &Node, id: &str) -> bool {
    peers(node).iter().any(|peer| peer["PeerId"] == id)
}

#[test]
fn quic_alone_will_do() {
    let quic = ["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];
    let mut swarm = Swarm::empty(&quic);
    let addresses = swarm.bootstrap.identity.addresses.clone();
    let address = addresses.iter().find(|address| address.contains("quic-v1")).expect("an address of QUIC").clone();
    for name in ["ann", "bob"] {
        swarm.join_by(name, &["--network", "test", "--bootstrap", &address]);
    }
    swarm.everybody_knows(3);
    swarm.nodes[0].run(&["submit", &example("hello/job.yaml")]).ok();
    let by_quic = |peer: &Value| peer["Address"].as_str().is_some_and(|address| address.contains("quic-v1"));
    assert!(peers(&swarm.nodes[0]).iter().any(by_quic), "{:?}", peers(&swarm.nodes[0]));
}

#[test]
fn those_who_are_not_to_be_spoken_to_are_not() {
    let mut swarm = Swarm::new(2);
    let (first, bootstrap) = (swarm.nodes[0].identity.peer_id.clone(), swarm.bootstrap.identity.peer_id.clone());
    swarm.add("shy", &["--allow-peer", &bootstrap]);
    swarm.add("cross", &["--deny-peer", &first]);
    let (shy, cross) = (&swarm.nodes[2], &swarm.nodes[3]);
    let second = &swarm.nodes[1].identity.peer_id;
    eventually("the one is connected with whom it may be", || is_connected(shy, &bootstrap).then_some(()));
    eventually("the other with whom it likes", || is_connected(cross, second).then_some(()));
    // Long enough for them to look for others.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(peers(shy).len(), 1, "{:?}", peers(shy));
    assert!(!is_connected(cross, &first) && known(cross) == 4, "{:?}", peers(cross));
    let wrong = bacnode_tests::bacnode(&["serve", "--data-dir", "/tmp/unused", "--deny-peer", "bob"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("--deny-peer: `bob` is not a node id"), "{wrong:#?}");
}

#[test]
fn content_goes_out_no_faster_than_it_may() {
    let mut swarm = Swarm::new(1);
    swarm.add("slow", &["--no-docker", "--max-upload", "2MiB"]);
    swarm.everybody_knows(3);
    let file = swarm.dir().join("large");
    std::fs::write(
        &file,
        (0..6u32 << 18).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect::<Vec<u8>>(),
    )
    .expect("written");
    let added = swarm.nodes[1].run(&["content", "add", &file.to_string_lossy(), "--output", "json"]).ok().json();
    let cid = added["Cid"].as_str().expect("a CID").to_owned();
    let to = swarm.dir().join("fetched").to_string_lossy().into_owned();
    let started = Instant::now();
    swarm.nodes[0].run(&["content", "get", &cid, "-o", &to]).ok();
    let took = started.elapsed();
    // The last piece need not have waited.
    assert!(took > Duration::from_millis(2_700), "6 MiB at 2 MiB/s took {took:?}");
    assert_eq!(std::fs::read(&to).expect("fetched"), std::fs::read(&file).expect("written"));
    let wrong = bacnode_tests::bacnode(&["serve", "--data-dir", "/tmp/unused", "--max-upload", "1KiB"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("it takes 256 KiB at least"), "{wrong:#?}");
}

#[test]
fn whoever_is_blocked_is_not_spoken_to_until_that_is_taken_back() {
    let swarm = Swarm::new(2);
    let (ann, bob) = (&swarm.nodes[0], &swarm.nodes[1]);
    let id = &bob.identity.peer_id;
    let sees = || {
        let peers = ann.run(&["peers", "--output", "json"]).ok().json();
        peers.as_array().expect("peers").iter().any(|peer| peer["PeerId"] == id.as_str())
    };
    eventually("they are connected", || sees().then_some(()));
    ann.run(&["peers", "block", "node-1", "--reason", "it was loud"]).ok();
    eventually("it is gone", || (!sees() && known(ann) == 2).then_some(()));
    let blocked = ann.run(&["peers", "blocked"]).ok();
    assert!(blocked.stdout.contains(id.as_str()) && blocked.stdout.contains("it was loud"), "{blocked:#?}");
    std::thread::sleep(Duration::from_secs(3));
    assert!(!sees() && known(ann) == 2, "its adverts, heard by way of others, do not count either");
    ann.run(&["peers", "unblock", id]).ok();
    eventually("it is back", || (known(ann) == 3).then_some(()));
    ann.run(&["peers", "block", "node-1"]).ok();
    ann.run(&["peers", "unblock", "node-1"]).ok();
    let none = ann.run(&["peers", "unblock", id]);
    assert!(none.code == 4 && none.stderr.contains("is blocked"), "{none:#?}");
    let itself = ann.run(&["peers", "block", "node-0"]);
    assert!(itself.code == 2 && itself.stderr.contains("a node does not block itself"), "{itself:#?}");
}
