//! Who is in a group: the choice of guardians, and their replacement.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use super::state::{Follower, Role, State, send, speaks};
use super::{CannotKeep, Output};
use crate::id::NodeId;
use crate::outbox::Outbox;
use crate::time::Now;
use crate::view::View;
use crate::wire::group::{Charter, Group, MEMBERS};

/// Nodes that are remembered to keep nothing.
const UNWILLING_MAX: usize = 4_096;
/// Leases after which a silent follower is replaced.
const REPLACE_AFTER_LEASES: u64 = 2;

impl State {
    /// Nodes that could keep this owner's jobs, the best first: by a hash, so that each owner has its own; those on hosts of
    /// their own before those that share one with `taken`.
    fn candidates(&self, owner: &NodeId, taken: &[NodeId], view: &View) -> Vec<NodeId> {
        let hosts: BTreeSet<Vec<u8>> = taken.iter().flat_map(|node| hosts(node, view)).collect();
        let fits = |node: &&NodeId| {
            let willing = !self.accused.contains(node) && !self.unwilling.contains(node);
            willing && !taken.contains(node) && view.is_connected(node) && speaks(view, node)
        };
        let mut nodes: Vec<NodeId> = view.iter().map(|(node, _)| node).filter(fits).copied().collect();
        nodes.sort_by_cached_key(|node| {
            // Those that run no jobs keep them where there is nobody else.
            let runs_nothing = view.get(node).is_some_and(|peer| peer.advert.engines.0 == 0);
            let shares = hosts_shared(&hosts, node, view);
            (runs_nothing, shares, <[u8; 32]>::from(Sha256::digest([owner.0, node.0].concat())))
        });
        nodes
    }

    /// Whether jobs that are submitted here can be kept by others, or why not. The group of a node that has none begins with
    /// [`super::Input::Prepare`].
    ///
    /// # Errors
    /// With the reason.
    pub fn can_keep(&self, view: &View) -> Result<(), CannotKeep> {
        let never = |reason: &str| Err(CannotKeep { reason: reason.into(), soon: false });
        let soon = |reason: String| Err(CannotKeep { reason, soon: true });
        let me = self.me();
        let begin = || match self.candidates(&me, &[me], view).len() {
            0 => never("no other node that could keep it is connected"),
            1 => never("only one other node that could keep it is connected, and it takes two"),
            _ => soon("the nodes that could keep it are not heard".into()),
        };
        let Some(group) = self.groups.get(&me) else { return begin() };
        if group.ledger.is_full() {
            return never("the jobs that others keep for this node are as many as they take");
        }
        if let Some(leader) = self.away() {
            return soon(format!("its jobs are led by {}, which is asked to give them back", view.label(&leader)));
        }
        match group.leading() {
            Some(leading) if leading.sure => Ok(()),
            // Whoever was chosen may have been unwilling.
            Some(leading) if leading.committed == 0 => begin(),
            _ => soon("the nodes that keep its jobs are not heard".into()),
        }
    }

    /// The first charter of this node's own jobs.
    pub(super) fn first_charter(&self, view: &View) -> Option<Charter> {
        let me = self.me();
        let first = *self.candidates(&me, &[me], view).first()?;
        let second = *self.candidates(&me, &[me, first], view).first()?;
        let lease_ms = u32::try_from(self.config.lease.as_millis()).unwrap_or(u32::MAX);
        Some(Charter {
            owner: me,
            epoch: self.config.life,
            leader: me,
            change: 0,
            members: [me, first, second],
            lease_ms,
        })
    }

    /// A node keeps nothing for others: another takes its place.
    pub(super) fn on_unwilling(
        &mut self,
        from: NodeId,
        owner: NodeId,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let known = self.groups.get(&owner).is_some_and(|group| group.record.charter.has(&from));
        if !known || self.unwilling.len() >= UNWILLING_MAX {
            return;
        }
        self.unwilling.insert(from);
        let Some(group) = self.groups.get_mut(&owner) else { return };
        if let Role::Leader(leading) = &mut group.role {
            // As if it had been silent for ever.
            leading.followers.remove(&from);
        }
        self.replace_the_silent(owner, now, view, out);
    }

    /// Replaces a follower that is gone, if the other one is there to agree.
    pub(super) fn replace_the_silent(&mut self, owner: NodeId, now: Now, view: &View, out: &mut Outbox<Output>) {
        let me = self.me();
        let Some(group) = self.groups.get(&owner) else { return };
        let Some(leading) = group.leading().filter(|leading| leading.established) else { return };
        if group.record.pending.is_some() {
            return;
        }
        let patience = group.lease().times(REPLACE_AFTER_LEASES);
        let charter = group.record.charter;
        let silent = |node: &NodeId| leading.followers.get(node).is_none_or(|f| now.tick.since(f.heard) >= patience);
        let gone: Vec<NodeId> = charter.others(&me).filter(|node| silent(node)).collect();
        // Where nothing was ever on two disks, nobody relies on anything.
        let forced = leading.forced || leading.committed == 0 && group.record.certificate.is_none();
        let [gone] = gone[..] else {
            if forced && gone.len() == MEMBERS - 1 {
                self.refound(owner, now, view, out);
            }
            return;
        };
        if let Some(new) = self.candidates(&owner, &charter.members, view).first().copied() {
            self.change_members(owner, gone, new, out);
        }
    }

    /// Proposes that `new` takes the place of `gone`. That is decided when it is on the disks of this node and of the other
    /// follower, neither of which promises anything to whoever does not know of it: `gone` alone leads nobody.
    pub(super) fn change_members(&mut self, owner: NodeId, gone: NodeId, new: NodeId, out: &mut Outbox<Output>) {
        let me = self.me();
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let mut charter = group.record.charter;
        charter.change += 1;
        charter.members = charter.members.map(|member| if member == gone { new } else { member });
        if group.leading().is_none() || group.record.pending.is_some() || !charter.is_sound() {
            return;
        }
        group.record.pending = Some(charter);
        group.persist(out);
        for node in charter.others(&me).filter(|node| *node != new).collect::<Vec<_>>() {
            self.append_to(owner, node, out);
        }
    }

    /// Whether the change of members that is proposed is on the other follower's disk: then it is made.
    pub(super) fn settle_change(&mut self, owner: NodeId, now: Now, view: &View, out: &mut Outbox<Output>) {
        let me = self.me();
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let (before, Some(charter)) = (group.record.charter, group.record.pending) else { return };
        let Role::Leader(leading) = &mut group.role else { return };
        let knows = |node: &NodeId| leading.followers.get(node).is_some_and(|f| f.change >= charter.change);
        if !charter.others(&me).filter(|node| before.has(node)).all(|node| knows(&node)) {
            return;
        }
        leading.followers.retain(|node, _| charter.has(node));
        for node in charter.others(&me) {
            let new = Follower { acked: None, sent: group.record.at.index, heard: now.tick, change: 0 };
            leading.followers.entry(node).or_insert(new);
        }
        group.record.charter = charter;
        group.record.pending = None;
        group.persist(out);
        let speaks = |node: &NodeId| *node == me || speaks(view, node);
        for to in group.holders().into_iter().filter(speaks) {
            out.now(send(to, Group::Kept(charter)));
        }
        for node in charter.others(&me) {
            self.append_to(owner, node, out);
        }
        for node in before.members.into_iter().filter(|node| !charter.has(node)) {
            out.now(send(node, Group::Stands { charter, certificate: None, promised: charter.epoch }));
        }
    }

    /// The members are gone for good: others take their place, on this node's word alone.
    fn refound(&mut self, owner: NodeId, now: Now, view: &View, out: &mut Outbox<Output>) {
        let me = self.me();
        let Some(first) = self.candidates(&owner, &[me], view).first().copied() else { return };
        let Some(second) = self.candidates(&owner, &[me, first], view).first().copied() else { return };
        let Some(group) = self.groups.get_mut(&owner) else { return };
        group.record.charter.change += 1;
        group.record.charter.members = [me, first, second];
        let (at, charter) = (group.record.at, group.record.charter);
        if let Role::Leader(leading) = &mut group.role {
            let new = Follower { acked: None, sent: at.index, heard: now.tick, change: 0 };
            leading.followers = charter.others(&me).map(|node| (node, new)).collect();
        }
        group.persist(out);
        for node in charter.others(&me) {
            self.append_to(owner, node, out);
        }
    }
}

/// The hosts at which a node says it is.
fn hosts(node: &NodeId, view: &View) -> Vec<Vec<u8>> {
    let addresses = view.get(node).into_iter().flat_map(|peer| peer.advert.addresses.iter());
    // A binary multiaddr begins with its host: one byte for the kind, four or sixteen for the address.
    addresses.map(|address| address.iter().take(5).copied().collect()).collect()
}

fn hosts_shared(taken: &BTreeSet<Vec<u8>>, node: &NodeId, view: &View) -> bool {
    hosts(node, view).iter().any(|host| taken.contains(host))
}
