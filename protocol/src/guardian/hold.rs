//! Content that is not to be lost with its owner: the inputs and results of jobs that a group keeps.

use super::state::{State, Timer, send};
use super::{Output, Replica};
use crate::content::Cid;
use crate::id::{JobId, NodeId};
use crate::limits::REPLICA_TIMEOUT;
use crate::outbox::Outbox;
use crate::time::Now;
use crate::wire::bounded::ListMax;
use crate::wire::group::Group;

impl State {
    /// Has the members hold this, too; the first that does is enough to go on.
    pub(super) fn replicate(&mut self, replica: Replica, now: Now, out: &mut Outbox<Output>) {
        let (me, Replica { job, root, size, maker, blocks }) = (self.me(), replica);
        let Some((owner, charter)) = self.of_tag(&job.tag()).map(|(owner, group)| (*owner, group.record.charter))
        else {
            return out.now(Output::Replicated { job, root, held: false });
        };
        let blocks = ListMax::new(blocks).unwrap_or_default();
        for to in charter.others(&me) {
            out.now(send(to, Group::Hold { owner, job, root, size, maker, blocks: blocks.clone() }));
        }
        self.timers.set(Timer::Replica(job, root), now.tick + REPLICA_TIMEOUT);
    }

    pub(super) fn replica_overdue(&mut self, job: JobId, root: Cid, out: &mut Outbox<Output>) {
        out.now(Output::Replicated { job, root, held: false });
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
