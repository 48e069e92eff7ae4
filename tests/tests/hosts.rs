//! Hosts far from each other: late and lost packets, a network that falls apart, a host that moves, and strangers on the wire.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bacnode_tests::hosts::{Host, Internet};
use bacnode_tests::wire::Quality;
use bacnode_tests::{Node, Swarm, bacnode, eventually, example, known};

/// A number that long runs set higher.
fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// So many hosts on three subnets, a bootstrap peer on the first; all know all.
fn spread(quality: Quality, count: usize, more: &[&str]) -> Option<(Internet, Vec<Host>, Swarm)> {
    let mut internet = Internet::over(quality)?;
    let hosts: Vec<Host> = (0..count).map(|index| internet.host_in(index % 3)).collect();
    let mut swarm = Swarm::at(&hosts[0], more);
    let address = format!("{}:1235", hosts[0].address);
    for (index, host) in hosts.iter().enumerate().skip(1) {
        swarm.add_at(host, &format!("node-{index}"), &address, &[&["--no-docker"], more].concat());
    }
    swarm.everybody_knows(count);
    Some((internet, hosts, swarm))
}

fn hello(node: &Node) -> String {
    node.run(&["submit", &example("hello/job.yaml"), "--id-only"]).ok().text().to_owned()
}

#[test]
fn eight_hosts_do_jobs_at_a_hundred_milliseconds_and_a_twentieth_of_all_packets_lost() {
    let quality = Quality { lost: 50, late: 50, ..Quality::round_trip_ms(100) };
    let Some((_internet, _hosts, swarm)) = spread(quality, 8, &[]) else { return };
    for node in &swarm.nodes {
        hello(node);
    }
    let trial = example("trials/trial.wasm");
    let to = swarm.dir().join("result").to_string_lossy().into_owned();
    let args =
        ["wasm", "run", "--count", "6", "--download", &to, "--result", "outputs:/outputs", &trial, "--", "write"];
    swarm.nodes[3].run(&[&args[..], &["200000"]].concat()).ok();
}

#[test]
fn far_away_a_newcomer_has_its_first_job_done_within_five_seconds() {
    let Some(mut internet) = Internet::over(Quality::round_trip_ms(100)) else { return };
    let hosts: Vec<Host> = (0..4).map(|index| internet.host_in(index % 3)).collect();
    let mut swarm = Swarm::at(&hosts[0], &[]);
    let address = format!("{}:1235", hosts[0].address);
    for (index, host) in hosts[1..3].iter().enumerate() {
        swarm.add_at(host, &format!("node-{index}"), &address, &["--no-docker"]);
    }
    swarm.everybody_knows(3);
    let line = swarm.nodes[0].run(&["swarm", "invite", "--address", &address]).ok().text().to_owned();
    let started = Instant::now();
    let newcomer = swarm.join_at(&hosts[3], "newcomer", &["--join", &line, "--no-compute"]);
    hello(newcomer);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?} from nothing to a job that others did");
}

#[test]
fn a_network_that_fell_apart_is_one_again_and_no_job_is_lost() {
    let (count, apart) = (setting("BACNODE_HOSTS", 6), setting("BACNODE_PARTITION_S", 50));
    let Some((internet, hosts, swarm)) = spread(Quality::round_trip_ms(20), count, &[]) else { return };
    let ips: Vec<Ipv4Addr> = hosts.iter().map(Host::ip).collect();
    let (left, right) = ips.split_at(count / 2);
    internet.wire().cut(left, right);
    let at = Instant::now();
    // Both sides go on, each with those whom it hears.
    let submit = |node: &Node| {
        let args = ["submit", &example("hello/job.yaml"), "--id-only", "--no-wait"];
        node.run(&args).ok().text().to_owned()
    };
    let jobs: Vec<(&Node, String)> = swarm.nodes.iter().map(|node| (node, submit(node))).collect();
    std::thread::sleep(Duration::from_secs(apart as u64).saturating_sub(at.elapsed()));
    internet.wire().heal();
    let healed = Instant::now();
    swarm.everybody_knows(count);
    assert!(healed.elapsed() < Duration::from_secs(30), "{:?} until all know all again", healed.elapsed());
    for (node, job) in jobs {
        node.await_job(&job, "Completed");
    }
}

#[test]
fn a_host_that_moves_is_found_at_its_new_address() {
    let Some((mut internet, mut hosts, swarm)) = spread(Quality::round_trip_ms(10), 4, &[]) else { return };
    internet.readdress(&mut hosts[2]);
    let moved = &hosts[2].address;
    let mover = &swarm.nodes[1];
    eventually("the others reach it there", || {
        let peers = swarm.nodes[0].run(&["peers", "--output", "json"]).ok().json();
        let peers = peers.as_array()?.clone();
        let there = peers
            .iter()
            .any(|peer| peer["Name"] == "node-2" && peer["Address"].as_str().is_some_and(|a| a.contains(moved)));
        there.then_some(())
    });
    hello(mover);
    eventually("all know all", || swarm.nodes.iter().all(|node| known(node) == 4).then_some(()));
}

#[test]
fn on_a_local_network_peers_need_not_be_named() {
    let Some(mut internet) = Internet::new() else { return };
    let hosts = [internet.host(), internet.host()];
    let far = internet.host();
    let mut swarm = Swarm::at(&far, &[]);
    for (host, name) in hosts.iter().zip(["ann", "bob"]) {
        internet.multicast(host);
        swarm.join_at(host, name, &["--network", "test", "--mdns", "--no-docker"]);
    }
    eventually("they find each other", || swarm.nodes.iter().all(|node| known(node) == 2).then_some(()));
    hello(&swarm.nodes[0]);
}

#[test]
fn of_two_bootstrap_peers_either_may_die() {
    let Some(mut internet) = Internet::over(Quality::round_trip_ms(10)) else { return };
    let hosts: Vec<Host> = (0..5).map(|index| internet.host_in(index % 3)).collect();
    let mut swarm = Swarm::at(&hosts[0], &[]);
    let addresses = [format!("{}:1235", hosts[0].address), format!("{}:1235", hosts[1].address)];
    // They find each other by one naming the other.
    let second = Swarm::at(&hosts[1], &["--bootstrap", &addresses[0]]);
    swarm.add_at(&hosts[2], "ann", &addresses[0], &["--no-docker"]);
    swarm.add_at(&hosts[3], "bob", &addresses[1], &["--no-docker"]);
    swarm.everybody_knows(4);
    swarm.bootstrap.kill();
    swarm.add_at(&hosts[4], "carol", &addresses.join(","), &["--no-docker"]);
    hello(&swarm.nodes[2]);
    swarm.bootstrap.restart();
    eventually("it is back among them", || (known(&swarm.nodes[2]) == 5).then_some(()));
    drop(second);
    swarm.nodes[0].kill();
    swarm.nodes[0].restart();
    hello(&swarm.nodes[0]);
}

#[test]
fn a_private_swarm_beside_an_open_one_hears_and_says_nothing() {
    let keys = tempfile::tempdir().expect("a folder");
    let key = |name: &str| {
        let path = keys.path().join(name).to_string_lossy().into_owned();
        bacnode(&["swarm", "keygen", &path]).ok();
        path
    };
    let (ours, theirs) = (key("ours"), key("theirs"));
    let Some((mut internet, hosts, private)) = spread(Quality::round_trip_ms(10), 3, &["--swarm-key", &ours]) else {
        return;
    };
    let member = format!("{}:1235", hosts[1].address);
    let open: Vec<Host> = (0..3).map(|index| internet.host_in(index)).collect();
    let mut swarm = Swarm::at(&open[0], &["--bootstrap", &member]);
    let address = format!("{}:1235", open[0].address);
    swarm.add_at(&open[1], "stranger", &format!("{address},{member}"), &["--no-docker"]);
    swarm.add_at(&open[2], "wrong-key", &member, &["--no-docker", "--swarm-key", &theirs]);
    eventually("the open one works", || (known(&swarm.nodes[0]) == 2).then_some(()));
    hello(&swarm.nodes[0]);
    hello(&private.nodes[0]);
    // Some more tries of theirs.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!((known(&swarm.nodes[0]), known(&swarm.nodes[1])), (2, 1));
    assert!(private.nodes.iter().all(|node| known(node) == 3));
    // Whoever has no key gets a nonce of 24 bytes in each try, and nothing else but what TCP says.
    for stranger in [&open[1], &open[2]] {
        let (asked, said) =
            (internet.wire().bytes(stranger.ip(), hosts[1].ip()), internet.wire().bytes(hosts[1].ip(), stranger.ip()));
        assert!(asked > 0 && said > 0, "they did try");
        assert!(said < 5_000, "{said} bytes went to a stranger who said {asked}");
    }
}
