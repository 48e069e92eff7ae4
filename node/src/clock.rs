//! Where machines' time comes from.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bacnode_protocol::time::{Now, Tick, UnixMillis};

/// The clock that runs on in suspend. Linux calls it `CLOCK_BOOTTIME`; macOS's monotonic clock does so by itself.
#[cfg(target_os = "linux")]
const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

/// Both clocks now.
#[must_use]
pub fn now() -> Now {
    Now { tick: tick(), unix: unix() }
}

/// For timers and leases.
#[must_use]
pub fn tick() -> Tick {
    let time = rustix::time::clock_gettime(CLOCK);
    let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    Tick(seconds * 1_000_000 + nanos / 1_000)
}

/// For people and signed messages.
#[must_use]
pub fn unix() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    UnixMillis(millis.saturating_add_signed(*OFFSET))
}

/// A wrong wall clock for trials, in milliseconds: a test cannot set the machine's own.
static OFFSET: std::sync::LazyLock<i64> = std::sync::LazyLock::new(|| {
    std::env::var("BACNODE_CLOCK_OFFSET_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
});

/// How long to sleep until `at`.
#[must_use]
pub fn until(at: Tick) -> Duration {
    at.since(tick()).into()
}
