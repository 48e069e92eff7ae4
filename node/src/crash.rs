//! Named places at which a test may have the process killed: `BACNODE_CRASH_AT=after-append:7` kills it, as by `kill -9`,
//! when it comes to that place for the seventh time. Without the variable a place costs one load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

static WANTED: OnceLock<Option<(String, AtomicU32)>> = OnceLock::new();

fn wanted() -> Option<(String, AtomicU32)> {
    let text = std::env::var("BACNODE_CRASH_AT").ok()?;
    let (point, count) = text.split_once(':')?;
    Some((point.to_owned(), AtomicU32::new(count.parse().ok()?)))
}

/// The process has come to this place.
pub(crate) fn point(name: &str) {
    let Some((wanted, left)) = WANTED.get_or_init(wanted) else { return };
    if wanted == name && left.fetch_sub(1, Ordering::Relaxed) == 1 {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
