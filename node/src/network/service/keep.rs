//! Who may stay: members, those who are not blocked, connections that lead somewhere; and as many as there is memory for.

use std::time::Duration;

use bacnode_protocol::id::NodeId;
use bacnode_protocol::wire::envelope;
use libp2p::gossipsub;

use super::Service;
use crate::network::Command;

/// How long a peer may take to show that its connection is alive.
const TRIAL: Duration = Duration::from_secs(3);
/// What an offence takes from a peer's score in the mesh; at ten times as much nothing of it is heard (gossipsub's thresholds).
const OFFENCE_SCORE: f64 = 8.0;

/// Memory of this process, in bytes, where that can be told.
fn own_memory() -> Option<u64> {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

impl Service {
    /// Blocks and memberships end by themselves, and memory is what others need.
    pub(super) fn look_who_stays(&mut self) {
        for node in self.network.blocks().over() {
            self.unblock(node);
        }
        self.swarm.behaviour_mut().crowd.full = own_memory().is_some_and(|bytes| bytes > self.own_memory_max);
        self.keep_to_members();
    }

    pub(super) fn unblock(&mut self, node: NodeId) {
        if let Some(peer) = node.peer_id() {
            self.swarm.behaviour_mut().blocks.unblock_peer(peer);
        }
    }

    /// An address of this machine is gone, and with it the connections from there, which look like any others: each peer is asked
    /// something, and those that do not answer are called anew.
    pub(super) fn try_all(&self) {
        for node in self.peers.values().map(|peer| peer.node) {
            let network = self.network.clone();
            tokio::spawn(async move {
                let answered = tokio::time::timeout(TRIAL, network.detail_of(node)).await;
                if !matches!(answered, Ok(Ok(_))) {
                    let _ = network.commands.send(Command::HangUp(node)).await;
                }
            });
        }
    }

    /// Tells everybody who was put out, and lets go of whoever is no member any more.
    fn keep_to_members(&mut self) {
        let Some(members) = self.network.members().cloned() else { return };
        if let Some((sequence, signed, out)) = members.news() {
            for node in &out {
                self.network.view().forget(node);
                if let Some(peer) = node.peer_id() {
                    self.swarm.behaviour_mut().kad.remove_peer(&peer);
                }
            }
            let published = self.swarm.behaviour_mut().gossip.publish(self.members.clone(), envelope::seal(&signed));
            // Where nobody listens yet it is said again; who comes later is told as it comes.
            if matches!(published, Ok(_) | Err(gossipsub::PublishError::Duplicate)) {
                members.told(sequence);
            }
        }
        for node in members.strangers(self.peers.values().map(|peer| peer.node)) {
            tracing::info!(peer = node.short(), "it is no member of the swarm any more");
            if let Some(peer) = node.peer_id() {
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
    }

    pub(super) fn block(&mut self, node: NodeId) {
        let Some(peer) = node.peer_id() else { return };
        self.known.retain(|(known, _)| *known != node);
        self.swarm.behaviour_mut().kad.remove_peer(&peer);
        self.swarm.behaviour_mut().blocks.block_peer(peer);
    }

    /// What a peer did wrong counts in the mesh, too.
    pub(super) fn mark_down(&mut self, node: NodeId) {
        let Some(peer) = node.peer_id() else { return };
        let Some(info) = self.peers.get_mut(&peer) else { return };
        info.offences += 1;
        let score = -f64::from(info.offences) * OFFENCE_SCORE;
        self.swarm.behaviour_mut().gossip.set_application_score(&peer, score);
    }
}
