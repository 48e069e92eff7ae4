//! Peers that are no bacnode: js-libp2p and py-libp2p, unmodified, each driven by a script that knows what protocol/README.md
//! says and no more.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use bacnode_protocol::content::{Cid, Codec};
use bacnode_tests::outside::program;
use bacnode_tests::{Node, Swarm, eventually, example, known};
use serde_json::Value;

/// Another libp2p, and our script for it.
struct Library {
    run: PathBuf,
    script: &'static str,
    /// Where Node finds packages: beside the script.
    packages: Option<PathBuf>,
    /// What makes it heed a swarm key as all others do.
    guard: &'static [&'static str],
}

fn js() -> Option<Library> {
    let (run, packages) = (program("node")?, program("libp2p/node_modules")?);
    Some(Library { run, script: "libp2p/peer.mjs", packages: Some(packages), guard: &[] })
}

fn py() -> Option<Library> {
    let run = program("py-libp2p/bin/python")?;
    Some(Library { run, script: "libp2p_peer.py", packages: None, guard: &["--own-guard"] })
}

/// A peer that runs; it leaves when it is told to, or dropped.
struct Peer {
    child: Child,
    said: BufReader<ChildStdout>,
    id: String,
}

impl Library {
    /// A peer, and what it saw of `swarm` when it had done all that it was told to.
    fn join(&self, swarm: &Swarm, args: &[&str]) -> (Peer, Value) {
        let folder = if Path::new("tests/clients").is_dir() { "tests/clients" } else { "clients" };
        let mut script = Path::new(folder).join(self.script);
        if let Some(packages) = &self.packages {
            let copy = swarm.dir().join("peer.mjs");
            std::fs::copy(&script, &copy).expect("copied");
            // There is one already if this is not the first.
            let _ = std::os::unix::fs::symlink(packages, swarm.dir().join("node_modules"));
            script = copy;
        }
        let mut command = Command::new(&self.run);
        command.arg(script).args(["--network", "test"]).args(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
        let said = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut peer = Peer { child, said, id: String::new() };
        let report = peer.report();
        report["id"].as_str().expect("an id").clone_into(&mut peer.id);
        (peer, report)
    }
}

impl Peer {
    fn report(&mut self) -> Value {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it speaks");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// What it saw when it was told to leave.
    fn leave(mut self) -> Value {
        drop(self.child.stdin.take());
        self.report()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A swarm of two nodes, with this key if there is one.
fn swarm(key: Option<&str>) -> Swarm {
    key.map_or_else(|| Swarm::new(2), |key| Swarm::with(2, &["--swarm-key", key]))
}

/// A new swarm key.
fn key(folder: &Path, name: &str) -> String {
    let path = folder.join(name).to_string_lossy().into_owned();
    bacnode_tests::bacnode(&["swarm", "keygen", &path]).ok();
    path
}

/// Where a node is.
fn address(node: &Node) -> &str {
    &node.identity.addresses[0]
}

/// How `node` is connected to `peer`, once it is and has heard who that is.
fn seen_by(node: &Node, peer: &Peer) -> Value {
    eventually(&format!("{} sees it", node.name), || {
        let peers = node.run(&["peers", "--output", "json"]).ok().json();
        let entry = peers.as_array()?.iter().find(|entry| entry["PeerId"] == *peer.id)?.clone();
        (entry["Agent"] != "").then_some(entry)
    })
}

/// It hears and understands everybody's adverts, finds who has what, is found, and stays.
fn takes_part(library: &Library, key: Option<&str>) {
    let swarm = swarm(key);
    let [near, far] = &swarm.nodes[..] else { panic!("two nodes") };
    let all = [near, far, &swarm.bootstrap];
    let file = example("weather/weather.csv");
    let theirs = far.run(&["content", "add", &file, "--output", "json"]).ok().json();
    let theirs = theirs["Cid"].as_str().expect("a CID");
    let ours = Cid::of(Codec::Raw, swarm.dir().to_string_lossy().as_bytes()).to_string();
    let mut args = vec!["--connect", address(near), "--adverts", "3"];
    args.extend(["--providers", theirs, "--find", &far.identity.peer_id, "--provide", &ours]);
    if let Some(key) = key {
        args.extend(["--swarm-key", key]);
        args.extend(library.guard);
    }
    let (peer, report) = library.join(&swarm, &args);

    let told = &report["identified"][&near.identity.peer_id];
    assert_eq!(told["protocolVersion"], "/bacnode/test/id/1", "{report:#}");
    let seen = seen_by(near, &peer);
    assert_eq!(seen["Direction"], "in", "{seen:#}");
    // Adverts were opened, and their signatures looked at.
    for node in all {
        let advert = &report["adverts"][&node.identity.peer_id];
        assert_eq!(advert["name"], *node.name, "{report:#}");
    }
    assert_eq!(report["refused"], 0, "{report:#}");
    let at = |addresses: &Value| addresses.as_array().is_some_and(|all| all.iter().any(|one| is_at(one, far)));
    assert!(at(&report["providers"][&far.identity.peer_id]), "{report:#}");
    assert!(at(&report["found"]), "{report:#}");
    let providers = far.run(&["content", "providers", &ours]).ok();
    assert!(providers.stdout.contains(&peer.id), "{providers:#?}");

    // Jobs run as if it were not there; and after the next adverts it is still part of the mesh.
    near.run(&["submit", &example("hello/job.yaml")]).ok();
    std::thread::sleep(Duration::from_secs(20));
    let later = peer.leave();
    for node in all {
        let issued = |report: &Value| report["adverts"][&node.identity.peer_id]["issued"].as_u64();
        assert!(issued(&later) > issued(&report), "{} is not heard any more: {later:#}", node.name);
        // However others write where they see it.
        assert_eq!(
            later["adverts"][&node.identity.peer_id]["addresses"].as_array().map(Vec::len),
            Some(1),
            "{later:#}"
        );
    }
    assert!(later["mesh"].as_array().is_some_and(|mesh| !mesh.is_empty()), "{later:#}");
    assert_eq!(known(near), 3, "it is a peer, and no node");
}

/// Whether `address` is one of `node`, which may be written with its id or without.
fn is_at(address: &Value, node: &Node) -> bool {
    let bare = |text: &str| text.split("/p2p/").next().map(str::to_owned);
    address.as_str().and_then(bare) == bare(self::address(node))
}

#[test]
fn js_libp2p_takes_part() {
    if let Some(library) = js() {
        takes_part(&library, None);
    }
}

#[test]
fn py_libp2p_takes_part() {
    if let Some(library) = py() {
        takes_part(&library, None);
    }
}

#[test]
fn js_libp2p_takes_part_in_a_private_swarm() {
    let keys = tempfile::tempdir().expect("a folder");
    if let Some(library) = js() {
        takes_part(&library, Some(&key(keys.path(), "swarm.key")));
    }
}

#[test]
fn py_libp2p_takes_part_in_a_private_swarm() {
    let keys = tempfile::tempdir().expect("a folder");
    if let Some(library) = py() {
        takes_part(&library, Some(&key(keys.path(), "swarm.key")));
    }
}

#[test]
fn whoever_has_another_key_or_none_gets_nothing() {
    let keys = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (key(keys.path(), "ours"), key(keys.path(), "theirs"));
    let swarm = swarm(Some(&ours));
    let node = &swarm.nodes[0];
    for library in [js(), py()].into_iter().flatten() {
        let other = [&["--swarm-key", &theirs], library.guard].concat();
        for key in [&[][..], other.as_slice()] {
            let cid = Cid::of(Codec::Raw, b"anything").to_string();
            let args = [&["--connect", address(node), "--providers", &cid, "--find", &node.identity.peer_id], key];
            let (peer, report) = library.join(&swarm, &args.concat());
            assert!(report["error"].is_string(), "{report:#}");
            for nothing in ["identified", "adverts", "providers"] {
                assert_eq!(report[nothing].as_object().map(serde_json::Map::len), Some(0), "{report:#}");
            }
            for nothing in ["mesh", "found"] {
                assert_eq!(report[nothing].as_array().map(Vec::len), Some(0), "{report:#}");
            }
            let peers = node.run(&["peers"]).ok();
            assert!(!peers.stdout.contains(&peer.id), "{peers:#?}");
        }
    }
    // Every connection begins with 24 random bytes, and for a stranger it ends there.
    let mut stranger = connection(address(node).split('/').nth(4).expect("a port"));
    let mut nonce = [0; 24];
    stranger.read_exact(&mut nonce).expect("a nonce");
    stranger.write_all(b"\x13/multistream/1.0.0\n\x07/noise\n").expect("sent");
    let mut more = Vec::new();
    let _ = stranger.read_to_end(&mut more);
    assert_eq!(more, b"", "a stranger is answered");
    assert_eq!(known(node), 3);
}

fn connection(port: &str) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port.parse().expect("a port"))).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a socket");
    stream
}

#[test]
fn a_node_joins_by_another_library_alone() {
    for library in [js(), py()].into_iter().flatten() {
        let mut swarm = swarm(None);
        let (peer, report) = library.join(&swarm, &["--connect", address(&swarm.nodes[0])]);
        let there = report["addresses"][0].as_str().expect("an address");
        let newcomer = swarm.add_by(there, "newcomer");
        assert_eq!(seen_by(newcomer, &peer)["Direction"], "out");
        swarm.everybody_knows(4);
    }
}

/// What gossip about adverts `node` has counted under this name.
fn counted(node: &Node, name: &str) -> u64 {
    let mut api = connection(node.identity.api.rsplit(':').next().expect("a port"));
    api.write_all(b"GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").expect("asked");
    let mut answer = String::new();
    api.read_to_string(&mut answer).expect("told");
    let name = format!("bacnode_gossipsub_{name}{{");
    let of_adverts = |line: &&str| line.starts_with(&name) && line.contains("\"/bacnode/test/capabilities/1\"");
    let line = answer.lines().find(of_adverts).and_then(|line| line.rsplit(' ').next()?.parse().ok());
    line.unwrap_or(0)
}

#[test]
fn whoever_spreads_rubbish_is_put_out_of_the_mesh() {
    for library in [js(), py()].into_iter().flatten() {
        let swarm = Swarm::new(1);
        let node = &swarm.nodes[0];
        let (_peer, report) = library.join(&swarm, &["--connect", address(node), "--rubbish"]);
        eventually("it is rejected", || (counted(node, "rejected_messages_per_topic_total") > 0).then_some(()));
        // The bootstrap peer remains.
        eventually("it is put out", || (counted(node, "mesh_peer_counts") == 1).then_some(()));
        node.run(&["submit", &example("hello/job.yaml")]).ok();
        assert_eq!(known(node), 2, "{report:#}");
    }
}

#[test]
fn js_libp2p_comes_by_quic() {
    let native = program("libp2p/node_modules/@chainsafe/libp2p-quic-linux-x64-gnu");
    let (Some(library), Some(_)) = (js(), native) else { return };
    let swarm = Swarm::with(1, &["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]);
    let node = &swarm.nodes[0];
    let quic = node.identity.addresses.iter().find(|address| address.contains("quic-v1")).expect("an address");
    let (peer, report) = library.join(&swarm, &["--connect", quic, "--adverts", "2"]);
    assert_eq!(report["adverts"].as_object().map(serde_json::Map::len), Some(2), "{report:#}");
    let seen = seen_by(node, &peer);
    assert!(seen["Address"].as_str().is_some_and(|address| address.contains("quic-v1")), "{seen:#}");
}
