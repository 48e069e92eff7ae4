//! The timers of a machine: a bounded, ordered set of (when, what), at most one time per key.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Tick;

/// Timers by key. Setting a key again moves it. The driver asks for [`Timers::next`] and hands time back in; nothing
/// fires by itself.
#[derive(Debug, Clone)]
pub struct Timers<K> {
    queue: BTreeSet<(Tick, K)>,
    by_key: BTreeMap<K, Tick>,
}

impl<K: Ord + Clone> Default for Timers<K> {
    fn default() -> Self {
        Self { queue: BTreeSet::new(), by_key: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Fires `key` at `at`, instead of whenever it was set to fire before.
    pub fn set(&mut self, key: K, at: Tick) {
        self.cancel(&key);
        self.by_key.insert(key.clone(), at);
        self.queue.insert((at, key));
    }

    /// Fires `key` at `at` unless it is set to fire earlier.
    pub fn set_earlier(&mut self, key: K, at: Tick) {
        if self.by_key.get(&key).is_none_or(|&set| at < set) {
            self.set(key, at);
        }
    }

    /// Forgets `key`.
    pub fn cancel(&mut self, key: &K) {
        if let Some(at) = self.by_key.remove(key) {
            self.queue.remove(&(at, key.clone()));
        }
    }

    /// When the next timer fires.
    #[must_use]
    pub fn next(&self) -> Option<Tick> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes one timer that is due.
    pub fn pop_due(&mut self, now: Tick) -> Option<K> {
        if self.queue.first()?.0 > now {
            return None;
        }
        let (_, key) = self.queue.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    /// Whether `key` is set to fire.
    #[must_use]
    pub fn is_set(&self, key: &K) -> bool {
        self.by_key.contains_key(key)
    }

    /// How many timers are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_in_order_and_only_when_due() {
        let mut timers = Timers::default();
        timers.set("late", Tick(20));
        timers.set("early", Tick(30));
        timers.set("early", Tick(10));
        timers.set_earlier("late", Tick(25));
        assert_eq!(timers.next(), Some(Tick(10)));
        assert_eq!(timers.pop_due(Tick(9)), None);
        assert_eq!(timers.pop_due(Tick(40)), Some("early"));
        assert_eq!(timers.pop_due(Tick(40)), Some("late"));
        assert!(timers.is_empty());
    }
}
