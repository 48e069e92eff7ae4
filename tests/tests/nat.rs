//! Machines behind routers: they are reached through relays, and directly once a hole is punched.

use std::time::{Duration, Instant};

use bacnode_tests::hosts::{Internet, Nat};
use bacnode_tests::{Node, Swarm, eventually, example};

/// A worker and whoever has work for it, each behind a router, and a bootstrap peer with a public address.
fn apart(asker: Nat, worker: Nat, of_bootstrap: &[&str]) -> Option<(Internet, Swarm)> {
    let mut internet = Internet::new()?;
    let public = internet.host();
    let mut swarm = Swarm::at(&public, of_bootstrap);
    let address = format!("{}:1235", public.address);
    for (nat, name, role) in [(asker, "asker", "--no-compute"), (worker, "worker", "--no-docker")] {
        let host = internet.behind(nat);
        swarm.add_at(&host, name, &address, &[role]);
    }
    Some((internet, swarm))
}

/// At which address `node` reaches the one called `name`.
fn address_of(node: &Node, name: &str) -> Option<String> {
    let peers = node.run(&["peers", "--output", "json"]).ok().json();
    let peers = peers.as_array().expect("peers").clone();
    let peer = peers.into_iter().find(|peer| peer["Name"] == name)?;
    Some(peer["Address"].as_str().expect("an address").to_owned())
}

fn works(swarm: &Swarm, bytes: &str) {
    swarm.everybody_knows(3);
    let to = swarm.dir().join(format!("result-{bytes}"));
    let (to, trial) = (to.to_string_lossy().into_owned(), example("trials/trial.wasm"));
    let args =
        ["wasm", "run", "--id-only", "--download", &to, "--result", "outputs:/outputs", &trial, "--", "write", bytes];
    swarm.nodes[0].run(&args).ok();
    let file = std::path::Path::new(&to).join("outputs/large.bin");
    assert_eq!(file.metadata().expect("the result").len().to_string(), bytes);
}

#[test]
fn two_machines_behind_home_routers_meet() {
    let started = Instant::now();
    let Some((_internet, swarm)) = apart(Nat::PortRestricted, Nat::PortRestricted, &[]) else { return };
    works(&swarm, "3000000");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?} until the first job was done");
    let direct = |address: String| (!address.contains("p2p-circuit")).then_some(address);
    eventually("a hole is punched", || address_of(&swarm.nodes[0], "worker").and_then(direct));
    // Now it need not pass the relay, however much it is.
    works(&swarm, "50000000");
}

#[test]
fn nine_holes_of_ten_are_punched() {
    let tries = std::env::var("BACNODE_PUNCHES").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let mut punched = 0;
    for _ in 0..tries {
        let Some((_internet, swarm)) = apart(Nat::PortRestricted, Nat::PortRestricted, &[]) else { return };
        // They have something to say to each other, through the relay at first.
        works(&swarm, "1000");
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if address_of(&swarm.nodes[0], "worker").is_some_and(|address| !address.contains("p2p-circuit")) {
                punched += 1;
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    assert!(punched * 10 >= tries * 9, "{punched} of {tries}");
}

#[test]
fn where_no_hole_can_be_punched_jobs_go_through_the_relay() {
    let Some((_internet, swarm)) = apart(Nat::Symmetric, Nat::Symmetric, &["--relay-mib", "64"]) else { return };
    works(&swarm, "3000000");
    // As much as the relay's operator lets through.
    works(&swarm, "30000000");
    let address = address_of(&swarm.nodes[0], "worker").expect("they are connected");
    assert!(address.contains("p2p-circuit"), "{address}");
}

#[test]
fn a_machine_whose_router_lets_everybody_in_needs_no_relay() {
    let Some((_internet, swarm)) = apart(Nat::PortRestricted, Nat::FullCone, &[]) else { return };
    swarm.everybody_knows(3);
    let public = |address: &&str| address.starts_with("/ip4/203.0.113.") && !address.contains("p2p-circuit");
    eventually("its address is confirmed", || {
        let node = swarm.nodes[0].run(&["node", "describe", "worker", "--output", "json"]).ok().json();
        let addresses = node["Addresses"].as_array()?.clone();
        addresses.iter().filter_map(|address| address.as_str()).find(public).map(str::to_owned)
    });
    works(&swarm, "3000000");
}
