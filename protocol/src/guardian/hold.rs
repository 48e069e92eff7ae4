//! Content that is not to be lost with its owner: the inputs and results of jobs that a group keeps.

use std::collections::BTreeSet;

use super::state::{State, Timer, send};
use super::{Output, Replica};
use crate::content::Cid;
use crate::id::{JobId, NodeId};
use crate::outbox::{Outbox, When};
use crate::time::Now;
use crate::wire::bounded::ListMax;
use crate::wire::group::Group;

impl State {
    /// Has the members hold this, too, until as many do as should.
    pub(super) fn replicate(&mut self, replica: Replica, now: Now, out: &mut Outbox<Output>) {
        let (me, Replica { job, root, size, maker, blocks, others, patience }) = (self.me(), replica);
        let nobody = Output::Replicated { job, root, others: 0 };
        let Some((owner, group)) = self.of_tag(&job.tag()) else { return out.now(nobody) };
        // Whoever was not heard for a while is not waited for; in a group that begins nobody was yet.
        let (owner, begins) = (*owner, group.leading().is_some_and(|leading| leading.committed == 0));
        let heard = |node: &NodeId| {
            let follower = group.leading().and_then(|leading| leading.followers.get(node));
            follower.is_some_and(|follower| begins || now.tick.since(follower.heard) < group.lease())
        };
        let there: Vec<NodeId> = group.record.charter.others(&me).filter(heard).collect();
        if there.is_empty() {
            return out.now(nobody);
        }
        let blocks = ListMax::new(blocks).unwrap_or_default();
        for to in there {
            let hold = send(to, Group::Hold { owner, job, root, size, maker, blocks: blocks.clone() });
            // Behind the word that there is a group at all.
            out.push(if begins { When::AfterSync } else { When::Now }, hold);
        }
        self.holders.insert((job, root), (others, BTreeSet::new()));
        self.timers.set(Timer::Replica(job, root), now.tick + patience);
    }

    /// Nobody is waited for any longer.
    pub(super) fn count_holders(&mut self, job: JobId, root: Cid, out: &mut Outbox<Output>) {
        let holders = self.holders.remove(&(job, root)).map_or(0, |(_, holders)| holders.len());
        out.now(Output::Replicated { job, root, others: u8::try_from(holders).unwrap_or(u8::MAX) });
    }

    pub(super) fn on_hold(&mut self, from: NodeId, owner: NodeId, replica: Replica, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get(&owner) else { return };
        if group.record.charter.leader == from && replica.job.tag() == owner.tag() {
            let holders = if replica.maker == from { vec![from] } else { vec![from, replica.maker] };
            out.now(Output::Hold { replica: Box::new(replica), holders });
        }
    }

    /// What this node was to hold, it does: whoever leads is told.
    pub(super) fn held_here(&mut self, job: JobId, root: Cid, held: bool, out: &mut Outbox<Output>) {
        if let Some((_, group)) = self.of_tag(&job.tag()) {
            out.after_sync(send(group.record.charter.leader, Group::Held { job, root, held }));
        }
    }

    pub(super) fn on_held(&mut self, from: NodeId, job: JobId, root: Cid, held: bool, out: &mut Outbox<Output>) {
        let member = self.of_tag(&job.tag()).is_some_and(|(_, group)| group.record.charter.has(&from));
        let Some((wanted, holders)) = self.holders.get_mut(&(job, root)).filter(|_| member && held) else { return };
        holders.insert(from);
        if holders.len() >= usize::from(*wanted) {
            self.timers.cancel(&Timer::Replica(job, root));
            self.count_holders(job, root, out);
        }
    }
}
