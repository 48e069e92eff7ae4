//! Peers whose connections are not given up for want of room: work is open with them, or content is on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bacnode_protocol::id::NodeId;

/// Who is needed. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Busy(Arc<Mutex<Needed>>);

#[derive(Debug, Default)]
struct Needed {
    at_work: BTreeSet<NodeId>,
    /// Transfers with each peer, either way.
    transfers: BTreeMap<NodeId, usize>,
}

impl Busy {
    fn needed(&self) -> MutexGuard<'_, Needed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names the peers with which work is open.
    pub(crate) fn set_at_work(&self, peers: BTreeSet<NodeId>) {
        self.needed().at_work = peers;
    }

    /// Content is on its way from or to this peer until the answer is dropped.
    pub(crate) fn transfer(&self, peer: NodeId) -> Transfer {
        *self.needed().transfers.entry(peer).or_default() += 1;
        Transfer { busy: self.clone(), peer }
    }

    pub(crate) fn contains(&self, peer: &NodeId) -> bool {
        let needed = self.needed();
        needed.at_work.contains(peer) || needed.transfers.contains_key(peer)
    }
}

/// A transfer that goes on.
#[derive(Debug)]
pub(crate) struct Transfer {
    busy: Busy,
    peer: NodeId,
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let mut needed = self.busy.needed();
        if let Some(count) = needed.transfers.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                needed.transfers.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_needed_until_its_last_transfer_is_over() {
        let (busy, peer) = (Busy::default(), NodeId([1; 32]));
        let (first, second) = (busy.transfer(peer), busy.transfer(peer));
        drop(first);
        assert!(busy.contains(&peer));
        drop(second);
        assert!(!busy.contains(&peer));
        busy.set_at_work([peer].into());
        assert!(busy.contains(&peer));
    }
}
