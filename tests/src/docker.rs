//! A Docker daemon for tests, which `make test` starts where it can.

use std::process::Command;

/// A small image that `make test` makes: busybox and nothing else.
pub const IMAGE: &str = "bacnode-test/busybox:1";

/// A small Debian with Python that `make test` makes.
pub const PYTHON: &str = "bacnode-test/python:1";

/// Whether there is a daemon with the small image; says loudly if not, since the test then shows nothing.
#[must_use]
pub fn is_here() -> bool {
    has(IMAGE)
}

/// Whether there is a daemon with this image; says so loudly if not.
#[must_use]
#[allow(clippy::print_stderr, reason = "a test that does not run must say so")]
pub fn has(image: &str) -> bool {
    let here = docker(&["image", "inspect", image]).is_some();
    if !here {
        eprintln!("NOT RUN: there is no Docker daemon with {image}; `make test` gets one where it can");
    }
    here
}

/// What `docker` prints, if it does what it is told.
#[must_use]
pub fn docker(args: &[&str]) -> Option<String> {
    let output = Command::new("docker").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The containers of one node, or of all, that there are now, running or not.
#[must_use]
pub fn containers(node: &str) -> Vec<String> {
    let filter = format!("label=bacnode.node={node}");
    let listed = docker(&["ps", "--all", "--no-trunc", "--filter", &filter, "--format", "{{.Names}}"]);
    listed.unwrap_or_default().lines().map(str::to_owned).collect()
}
