//! How often the bearer of a token may ask: the generic cell rate algorithm (ITU-T I.371), with one moment for each token.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Requests a second of one token, in the long run.
const PER_SECOND: u32 = 50;
/// Requests of one token that may come at once.
const BURST: u32 = 200;
const EACH: Duration = Duration::from_millis(1_000 / PER_SECOND as u64);

/// When each token will have been idle for long enough, by its name.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<String, Instant>>);

impl Rates {
    /// Counts a request.
    ///
    /// # Errors
    /// If it comes too early; with how long to wait.
    pub(super) fn count(&self, token: &str, now: Instant) -> Result<(), Duration> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever was taken back, or is idle, need not be known.
        known.retain(|_, idle| *idle > now);
        let idle = known.entry(token.to_owned()).or_insert(now);
        let ahead = (*idle + EACH).saturating_duration_since(now);
        if let Some(wait) = ahead.checked_sub(EACH * BURST).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        *idle += EACH;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_has_a_burst_and_then_its_rate() {
        let (rates, start) = (Rates::default(), Instant::now());
        let passed = |token: &str, now| (0..1_000).filter(|_| rates.count(token, now).is_ok()).count();
        assert_eq!((passed("a", start), passed("b", start)), (200, 200));
        assert_eq!(rates.count("a", start), Err(EACH));
        assert_eq!(passed("a", start + Duration::from_secs(1)), 50);
        assert_eq!(passed("a", start + Duration::from_secs(100)), 200);
        assert_eq!(rates.0.lock().expect("whole").len(), 1);
    }
}
