//! How fast content may go out, or come in: all transfers together.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

/// The slowest that an operator may ask for, in bytes a second: a transfer that stands still for long is given up.
pub const PACE_MIN: u64 = 256 << 10;

/// Counts bytes, and lets them pass at a rate, in the order in which they come; at once where there is none. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace(Counter, Option<Arc<Schedule>>);

#[derive(Debug)]
struct Schedule {
    bytes_per_second: u64,
    /// When all that was let pass so far has gone.
    free: Mutex<Instant>,
}

impl Pace {
    pub(super) fn of(counter: Counter, bytes_per_second: Option<u64>) -> Self {
        let schedule = |rate: u64| Schedule { bytes_per_second: rate.max(PACE_MIN), free: Mutex::new(Instant::now()) };
        Self(counter, bytes_per_second.map(|rate| Arc::new(schedule(rate))))
    }

    /// Waits for the turn of so many bytes.
    pub(super) async fn pass(&self, bytes: usize) {
        self.0.inc_by(bytes as u64);
        let Some(schedule) = &self.1 else { return };
        let turn = {
            let mut free = schedule.free.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = (*free).max(Instant::now());
            *free = turn + Duration::from_secs_f64(bytes as f64 / schedule.bytes_per_second as f64);
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_together_keep_to_the_rate() {
        let pace = Pace::of(Counter::default(), Some(4 << 20));
        let started = Instant::now();
        let transfers = (0..4).map(|_| {
            let pace = pace.clone();
            async move {
                for _ in 0..2 {
                    pace.pass(256 << 10).await;
                }
            }
        });
        futures::future::join_all(transfers).await;
        // The last piece need not have gone.
        let took = started.elapsed().as_secs_f64();
        assert!(took > 0.43, "2 MiB at 4 MiB/s took {took} s");
        assert_eq!(pace.0.get(), 2 << 20);
        Pace::default().pass(usize::MAX).await;
    }
}
