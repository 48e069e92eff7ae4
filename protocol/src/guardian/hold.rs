//! Content that is not to be lost with its owner: the inputs and results of jobs that a group keeps.

use super::state::{State, Timer, send};
use super::{Output, Replica};
use crate::content::Cid;
use crate::id::{JobId, NodeId};
use crate::limits::REPLICA_TIMEOUT;
use crate::outbox::{Outbox, When};
use crate::time::Now;
use crate::wire::bounded::ListMax;
use crate::wire::group::Group;

impl State {
    /// Has the members hold this, too; the first that does is enough to go on.
    pub(super) fn replicate(&mut self, replica: Replica, now: Now, out: &mut Outbox<Output>) {
        let (me, Replica { job, root, size, maker, blocks }) = (self.me(), replica);
        let nobody = Output::Replicated { job, root, held: false };
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
        self.timers.set(Timer::Replica(job, root), now.tick + REPLICA_TIMEOUT);
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
        if member && held && self.timers.is_set(&Timer::Replica(job, root)) {
            self.timers.cancel(&Timer::Replica(job, root));
            out.now(Output::Replicated { job, root, held: true });
        }
    }
}
