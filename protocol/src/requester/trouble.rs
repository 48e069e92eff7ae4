//! Local reputation: what this owner itself had trouble with lately. Nobody else is asked or told, so nobody can be
//! slandered; a node that fails often is asked last, never banned, and time heals.

use std::collections::BTreeMap;

use crate::id::NodeId;
use crate::time::{Span, Tick};

/// After so long half of it is forgotten.
const HALF_LIFE: Span = Span::secs(120);
/// The most that is remembered of one node, and of how many.
const TROUBLE_MAX: u64 = 16;
const NODES_MAX: usize = 1_024;

/// Trouble with each node, in lost attempts, and when it was counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Troubles(BTreeMap<NodeId, (u64, Tick)>);

impl Troubles {
    /// An attempt was lost by this node's doing.
    pub(super) fn lost(&mut self, node: NodeId, now: Tick) {
        let count = self.with(&node, now).saturating_add(1).min(TROUBLE_MAX);
        self.0.insert(node, (count, now));
        while self.0.len() > NODES_MAX {
            let Some(oldest) = self.0.iter().min_by_key(|(_, (_, at))| *at).map(|(node, _)| *node) else { return };
            self.0.remove(&oldest);
        }
    }

    /// It did what it was to do.
    pub(super) fn done(&mut self, node: &NodeId) {
        if let Some((count, _)) = self.0.get_mut(node) {
            *count /= 2;
            if *count == 0 {
                self.0.remove(node);
            }
        }
    }

    /// How much there is to remember of it.
    pub(super) fn with(&self, node: &NodeId, now: Tick) -> u64 {
        let Some((count, at)) = self.0.get(node) else { return 0 };
        let halves = now.since(*at).0 / HALF_LIFE.0;
        count.checked_shr(u32::try_from(halves).unwrap_or(u32::MAX)).unwrap_or(0)
    }

    /// Adds what is remembered of each node to its load.
    pub(super) fn added_to(&self, load: &BTreeMap<NodeId, u32>, now: Tick) -> BTreeMap<NodeId, u32> {
        let mut load = load.clone();
        for node in self.0.keys() {
            let trouble = u32::try_from(self.with(node, now) * LOAD_PER_LOST).unwrap_or(u32::MAX);
            *load.entry(*node).or_default() += trouble;
        }
        load
    }
}

/// A lost attempt makes a node as unattractive as so many awards that it has already.
const LOAD_PER_LOST: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_counted_and_forgotten() {
        let (node, mut troubles) = (NodeId([1; 32]), Troubles::default());
        let start = Tick(1_000_000_000);
        for _ in 0..40 {
            troubles.lost(node, start);
        }
        assert_eq!(troubles.with(&node, start), TROUBLE_MAX);
        assert_eq!(troubles.with(&node, start + HALF_LIFE), TROUBLE_MAX / 2);
        assert_eq!(troubles.with(&node, start + HALF_LIFE.times(100)), 0);
        for _ in 0..5 {
            troubles.done(&node);
        }
        assert_eq!(troubles.with(&node, start), 0);
    }
}
