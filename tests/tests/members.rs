//! A private swarm with a founder: the key keeps out whoever never had it, a certificate whoever has it and should not be here.

use std::time::Duration;

use bacnode_tests::{Node, Ran, Swarm, bacnode, eventually, example, known};

const DAY_MS: u64 = 86_400_000;

/// A founder, which is the bootstrap peer, and its key.
struct Founded {
    swarm: Swarm,
    key: String,
}

impl Founded {
    fn new() -> Self {
        let keys = tempfile::tempdir().expect("a folder").keep();
        let key = keys.join("swarm.key").to_string_lossy().into_owned();
        bacnode(&["swarm", "keygen", &key]).ok();
        Self { swarm: Swarm::empty(&["--swarm-key", &key, "--founder", "self"]), key }
    }

    /// Asks the founder at the socket in its data folder.
    fn ask(&self, args: &[&str]) -> Ran {
        let socket = format!("unix:{}", self.swarm.dir().join("bootstrap/api.sock").display());
        bacnode(&[&["--api", &socket], args].concat())
    }

    fn invite(&self, more: &[&str]) -> String {
        let line = self.ask(&[&["swarm", "invite", "--swarm-key", &self.key], more].concat()).ok();
        line.text().to_owned()
    }
}

impl Drop for Founded {
    fn drop(&mut self) {
        if let Some(dir) = std::path::Path::new(&self.key).parent() {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// Waits until a node says that it was not let in, and why; nobody is known to it.
fn is_kept_out(node: &Node, cause: &str) {
    eventually(&format!("{} is told `{cause}`", node.name), || node.log().contains(cause).then_some(()));
    assert_eq!(known(node), 1, "{} sees somebody", node.name);
    let peers = node.run(&["peers", "--output", "json"]).ok().json();
    assert_eq!(peers.as_array().expect("peers").len(), 0, "{peers}");
}

#[test]
fn whoever_has_the_key_and_no_certificate_gets_no_further_than_that() {
    let mut founded = Founded::new();
    let line = founded.invite(&[]);
    let (key, founder) = (founded.key.clone(), founded.swarm.bootstrap.identity.peer_id.clone());
    let swarm = &mut founded.swarm;
    swarm.join("ann", &line);
    swarm.join("bob", &line);
    swarm.everybody_knows(3);
    swarm.nodes[0].run(&["submit", &example("hello/job.yaml")]).ok();
    // One that takes it for a swarm without a founder, and one without a certificate.
    swarm.add("keyholder", &["--swarm-key", &key]);
    swarm.add("uninvited", &["--swarm-key", &key, "--founder", &founder]);
    is_kept_out(&swarm.nodes[3], "this swarm takes members only, and this node has no certificate");
    is_kept_out(&swarm.nodes[2], "it hangs up before it says who it is");
    swarm.add("pretender", &["--swarm-key", &key, "--founder", "self"]);
    is_kept_out(&swarm.nodes[4], "it is not the founder's word on this node");
    for member in &swarm.nodes[..2] {
        assert_eq!(known(member), 3, "{} sees a stranger", member.name);
    }
    // A member needs its founder no more: neither to come back, nor to find the others.
    swarm.bootstrap.kill();
    swarm.nodes[1].kill();
    swarm.nodes[1].restart_without("--join");
    let back = &swarm.nodes[1];
    eventually("it finds the other member", || (known(back) >= 2).then_some(()));
    back.run(&["submit", &example("hello/job.yaml")]).ok();
    // But nobody else makes members.
    let refused = back.run(&["swarm", "invite", "--swarm-key", &key]);
    assert!(refused.stderr.contains("only the swarm's founder") && refused.stderr.contains(&founder), "{refused:#?}");
    let info = back.run(&["swarm", "info", "--swarm-key", &key]).ok();
    assert!(info.stdout.contains(&format!("founded by   {founder}")), "{info:#?}");
}

#[test]
fn an_invite_for_one_lets_one_in_also_after_the_founder_was_killed() {
    let mut founded = Founded::new();
    let line = founded.invite(&["--once"]);
    founded.swarm.join("first", &line);
    founded.swarm.everybody_knows(2);
    founded.swarm.bootstrap.kill();
    founded.swarm.bootstrap.restart();
    let line = {
        // The founder listens at another port now; the voucher is the same.
        let mut again: bacnode_bootstrap::invite::Invite = line.parse().expect("an invite");
        let addresses = &founded.swarm.bootstrap.identity.addresses;
        again.addresses = addresses.iter().filter_map(|address| address.parse().ok()).collect();
        again.to_string()
    };
    founded.swarm.join("second", &line);
    is_kept_out(&founded.swarm.nodes[1], "the invite was for one node, and another one has used it");
    let members = founded.ask(&["swarm", "members", "--output", "json"]).ok().json();
    assert_eq!(members["Members"].as_array().expect("members").len(), 1, "{members}");
}

#[test]
fn an_invite_that_has_ended_lets_nobody_in() {
    let mut founded = Founded::new();
    let line = founded.invite(&["--days", "1"]);
    founded.swarm.bootstrap.kill();
    // Two days later, by the founder's clock.
    assert!(founded.swarm.bootstrap.restart_with("BACNODE_CLOCK_OFFSET_MS", &(2 * DAY_MS).to_string()));
    let mut late: bacnode_bootstrap::invite::Invite = line.parse().expect("an invite");
    let addresses = &founded.swarm.bootstrap.identity.addresses;
    late.addresses = addresses.iter().filter_map(|address| address.parse().ok()).collect();
    founded.swarm.join("late", &late.to_string());
    is_kept_out(&founded.swarm.nodes[0], "the membership, or the invite, is over");
    // By its own clock it need not even ask.
    let dir = founded.swarm.dir().join("later").to_string_lossy().into_owned();
    let ended = bacnode_bootstrap::invite::Invite { ends: bacnode_protocol::time::UnixMillis(1), ..late };
    let refused = bacnode(&["serve", "--data-dir", &dir, "--join", &ended.to_string()]);
    assert!(refused.code == 2 && refused.stderr.contains("the invite is over"), "{refused:#?}");
}

#[test]
fn whoever_is_put_out_is_gone_at_once_and_does_not_come_back() {
    let mut founded = Founded::new();
    for name in ["ann", "bob"] {
        let line = founded.invite(&[]);
        founded.swarm.join(name, &line);
    }
    founded.swarm.everybody_knows(3);
    let out = founded.ask(&["swarm", "revoke", "bob"]).ok();
    assert!(out.stderr.contains("put out bob"), "{out:#?}");
    let (ann, bob) = (&founded.swarm.nodes[0], &founded.swarm.nodes[1]);
    eventually("ann has forgotten bob", || (known(ann) == 2).then_some(()));
    eventually("bob is alone", || {
        let peers = bob.run(&["peers", "--output", "json"]).ok().json();
        (peers.as_array().expect("peers").is_empty()).then_some(())
    });
    ann.run(&["submit", &example("hello/job.yaml")]).ok();
    founded.swarm.nodes[1].kill();
    founded.swarm.nodes[1].restart_without("--join");
    let bob = &founded.swarm.nodes[1];
    eventually("bob is told", || bob.log().contains("the swarm's founder has revoked this membership").then_some(()));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(known(&founded.swarm.nodes[0]), 2);
    let members = founded.ask(&["swarm", "members"]).ok();
    assert!(members.stdout.lines().any(|line| line.contains("bob") || line.contains("put out")), "{members:#?}");
    let stranger = founded.ask(&["swarm", "revoke", "nobody"]);
    assert!(stranger.code == 4 && stranger.stderr.contains("no member `nobody`"), "{stranger:#?}");
}
