//! The web console as its users see it: a browser walks through every page of it, against nodes that run real jobs.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bacnode_tests::outside::program;
use bacnode_tests::{Swarm, bacnode, example};

/// What a peer may call itself.
const HOSTILE: &str = "<img src=x onerror=alert(1)>";
/// The oldest version of node that playwright runs with.
const NODE_MIN: u32 = 20;
/// Pictures of every page, for whoever wants to see what the walk saw.
const SHOTS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/console");

/// A Chromium, and a `node` to drive it; nothing if one of them is not here.
#[allow(clippy::print_stderr, reason = "a test that does not run must say so")]
fn browser() -> Option<PathBuf> {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let usual = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].map(PathBuf::from);
    let found = named.into_iter().chain(usual).find(|path| path.exists());
    if found.is_none() {
        eprintln!("NOT RUN: chromium is not here; `make test` installs it where it can");
    }
    let version = Command::new("node").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let version = String::from_utf8_lossy(&version);
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < NODE_MIN) {
        eprintln!("NOT RUN: a node of version {NODE_MIN} is not here");
        return None;
    }
    found
}

#[test]
fn a_browser_walks_through_every_page() {
    let (Some(modules), Some(browser)) = (program("console"), browser()) else { return };
    let mut swarm = Swarm::empty(&[]);
    for name in ["node-0", "node-1", "node-2", HOSTILE] {
        swarm.add(name, &["--no-docker", "--label", "zone=eu"]);
    }
    swarm.everybody_knows(5);
    let data = swarm.dir().join("guarded").to_string_lossy().into_owned();
    std::fs::create_dir(&data).expect("a folder");
    let token = |name: &str, scope: &str| {
        bacnode(&["token", "create", "--data-dir", &data, name, "--scope", scope]).ok().text().to_owned()
    };
    let (token, reader) = (token("all", "*"), token("viewer", "read:job"));
    swarm.add("guarded", &["--no-docker", "--api-needs-token"]);

    let script = if Path::new("tests/console").is_dir() { "tests/console/walk.mjs" } else { "console/walk.mjs" };
    let mut walk = Command::new("node");
    walk.arg(script).args(["--api", &swarm.nodes[0].identity.api, "--guarded", &swarm.nodes[4].identity.api]);
    walk.args(["--token", &token, "--reader", &reader, "--victim", "node-2"]);
    walk.args(["--examples", &example(""), "--shots", SHOTS]);
    walk.env("CONSOLE_MODULES", modules).env("CHROMIUM", browser).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut walk = walk.spawn().expect("node runs");
    let (mut answers, lines) = (walk.stdin.take().expect("a pipe"), walk.stdout.take().expect("a pipe"));
    let mut said = String::new();
    for line in BufReader::new(lines).lines().map_while(Result::ok) {
        match line.as_str() {
            "! kill" => {
                swarm.nodes[2].kill();
                writeln!(answers, "ok").expect("it listens");
            }
            "! restart" => {
                swarm.nodes[0].terminate();
                swarm.nodes[0].restart();
                writeln!(answers, "ok {}", swarm.nodes[0].identity.api).expect("it listens");
            }
            line => {
                said.push_str(line);
                said.push('\n');
            }
        }
    }
    let status = walk.wait().expect("it ends");
    assert!(status.success(), "{said}pictures: {SHOTS}");
}
