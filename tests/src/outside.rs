//! Programs that others wrote, which `make test` fetches where it can.

use std::path::{Path, PathBuf};

/// Where one of them is; says loudly if it is not here, since the test then shows nothing.
#[must_use]
#[allow(clippy::print_stderr, reason = "a test that does not run must say so")]
pub fn program(name: &str) -> Option<PathBuf> {
    let home = || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/bacnode/outside");
    let path = std::env::var_os("BACNODE_OUTSIDE").map_or_else(home, PathBuf::from).join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("NOT RUN: {name} is not here; `make test` fetches it where it can");
    None
}
