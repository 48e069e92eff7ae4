//! The leader: appends, beats, counts who has what.

use std::collections::{BTreeMap, VecDeque};

use super::ledger::chunks;
use super::state::{Follower, Leading, Membership, Role, State, Timer, beat_every, send};
use super::{Output, Taken};
use crate::id::NodeId;
use crate::limits::TAIL_MAX;
use crate::outbox::Outbox;
use crate::record::{GroupRecord, Record};
use crate::time::{Now, Tick};
use crate::view::View;
use crate::wire::bounded::ListMax;
use crate::wire::group::{Ack, Append, At, Entry, Group, MEMBERS, Signed};

/// Beats between two announcements to those who run jobs.
const ANNOUNCE_EVERY: u32 = 10;
/// Messages with entries that go to a follower at a time.
const WINDOW: usize = 4;

impl State {
    /// What the requester remembers of jobs that are kept by groups goes to their logs.
    pub(super) fn append(&mut self, records: Vec<Record>, now: Now, view: &View, out: &mut Outbox<Output>) {
        let mut by_tag: BTreeMap<[u8; 5], Vec<Entry>> = BTreeMap::new();
        for entry in records.iter().filter_map(Entry::of) {
            by_tag.entry(entry.job().tag()).or_default().push(entry);
        }
        for (tag, entries) in by_tag {
            if tag == self.me().tag() && !self.groups.contains_key(&self.me()) {
                self.found(now, view, out);
            }
            let Some(owner) = self.of_tag(&tag).map(|(owner, _)| *owner) else { continue };
            self.append_entries(owner, entries, now, out);
        }
    }

    /// Begins the group of this node's own jobs before there are any, so that nobody waits for members that are not there.
    pub(super) fn prepare(&mut self, now: Now, view: &View, out: &mut Outbox<Output>) {
        let me = self.me();
        if self.groups.contains_key(&me) {
            return;
        }
        self.found(now, view, out);
        let charter = self.groups.get(&me).map(|group| group.record.charter);
        for node in charter.iter().flat_map(|charter| charter.others(&me)) {
            self.append_to(me, node, out);
        }
    }

    /// Begins the group of this node's own jobs.
    fn found(&mut self, now: Now, view: &View, out: &mut Outbox<Output>) {
        let Some(charter) = self.first_charter(view) else { return };
        let (me, at) = (self.me(), At { epoch: charter.epoch, index: 0 });
        let record = GroupRecord { charter, pending: None, certificate: None, promised: (charter.epoch, me), at };
        let mut group = Membership::new(record, now.tick);
        // There is nothing that anybody else could have decided.
        group.role = Role::Leader(Box::new(Leading::new(&group.record, me, me, now.tick, true)));
        group.persist(out);
        self.groups.insert(me, group);
        self.timers.set(Timer::Beat(me), now.tick + beat_every(&charter));
        // Unless this disk has forgotten something: the first who follows would know.
        out.now(Output::Sure(me.tag(), false));
    }

    fn append_entries(&mut self, owner: NodeId, mut entries: Vec<Entry>, now: Now, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get_mut(&owner).filter(|group| group.decides()) else { return };
        let mut next = 0;
        while let Some(entry) = entries.get(next).cloned() {
            next += 1;
            group.record.at.index += 1;
            if let Entry::Forget(job) = &entry {
                out.now(Output::LetGo(*job));
            }
            for (key, entry) in group.ledger.apply(entry) {
                out.now(Output::Persist(Record::Kept(owner, key, entry)));
            }
            if next == entries.len()
                && let Some(job) = group.ledger.surplus()
            {
                entries.push(Entry::Forget(job));
            }
        }
        group.persist(out);
        // While it asks for votes nobody follows; whoever does then begins with all of this.
        let Role::Leader(leading) = &mut group.role else { return };
        leading.clock = now.tick;
        leading.tail.extend(entries);
        while leading.tail.len() > TAIL_MAX {
            leading.tail.pop_front();
        }
        if leading.forced {
            self.count(owner, out);
        }
        let me = self.me();
        let others: Vec<NodeId> = self.groups[&owner].record.charter.others(&me).collect();
        for node in others {
            self.append_to(owner, node, out);
        }
    }

    /// Sends a follower what it has not been sent, or says that we are there.
    pub(super) fn append_to(&mut self, owner: NodeId, node: NodeId, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let GroupRecord { charter, pending, certificate, at, .. } = group.record;
        let Role::Leader(leading) = &mut group.role else { return };
        let witness = charter.others(&node).find_map(|other| group.witness.get(&other)).copied();
        let Some(follower) = leading.followers.get_mut(&node) else { return };
        let stamp = leading.clock.0;
        let first = at.index - leading.tail.len() as u64;
        let from = follower.sent.clamp(first, at.index);
        let lacks = leading.tail.range((from - first) as usize..).cloned();
        let mut batches = chunks(lacks);
        batches.truncate(WINDOW);
        if batches.is_empty() {
            batches.push(ListMax::default());
        }
        let mut prev = At { epoch: charter.epoch, index: from };
        for entries in batches {
            let next = At { index: prev.index + entries.len() as u64, ..prev };
            let append = Append {
                charter,
                pending,
                certificate: certificate.filter(|_| follower.acked.is_none()),
                base: leading.base,
                prev,
                entries,
                stamp,
                witness,
            };
            let message = send(node, Group::Append(Box::new(append)));
            // That there is a group, or that its members are to be replaced, is said to nobody before it is on this disk.
            if pending.is_some() || (leading.committed == 0 && certificate.is_none()) {
                out.after_sync(message);
            } else {
                out.now(message);
            }
            prev = next;
        }
        follower.sent = prev.index;
    }

    pub(super) fn beat(&mut self, owner: NodeId, now: Now, view: &View, out: &mut Outbox<Output>) {
        let me = self.me();
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let charter = group.record.charter;
        let Role::Leader(leading) = &mut group.role else { return };
        leading.clock = now.tick;
        for follower in leading.followers.values_mut() {
            // Whatever was not acknowledged since the last beat may be lost.
            follower.sent = follower.acked.unwrap_or(leading.base.index);
        }
        self.timers.set(Timer::Beat(owner), now.tick + beat_every(&charter));
        for node in charter.others(&me) {
            self.append_to(owner, node, out);
        }
        self.announce_now_and_then(owner, view, out);
        self.replace_the_silent(owner, now, view, out);
    }

    /// Those who run its jobs and missed that members were replaced could not tell who may lead after the next change.
    fn announce_now_and_then(&mut self, owner: NodeId, view: &View, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let certified = group.is_certified();
        let Role::Leader(leading) = &mut group.role else { return };
        leading.beats += 1;
        if certified || !leading.beats.is_multiple_of(ANNOUNCE_EVERY) {
            return;
        }
        self.announce(owner, view, out);
    }

    /// Tells those who run its jobs who leads, and who keeps them.
    fn announce(&self, owner: NodeId, view: &View, out: &mut Outbox<Output>) {
        let me = self.me();
        let Some(group) = self.groups.get(&owner) else { return };
        let speaks = |node: &NodeId| *node == me || super::state::speaks(view, node);
        for to in group.holders().into_iter().filter(speaks) {
            group.announcement().for_each(|message| out.now(Output::Send { to, message }));
        }
    }

    pub(super) fn on_ack(
        &mut self,
        from: NodeId,
        ack: Signed<Ack>,
        stamp: u64,
        now: Now,
        view: &View,
        out: &mut Outbox<Output>,
    ) {
        let owner = ack.body.owner;
        if ack.by != from || !ack.is_genuine(&self.signer.network()) {
            return;
        }
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let (epoch, index) = (group.record.charter.epoch, group.record.at.index);
        let Role::Leader(leading) = &mut group.role else { return };
        let Some(follower) = leading.followers.get_mut(&from).filter(|_| ack.body.at.epoch == epoch) else { return };
        let acked = ack.body.at.index.min(index);
        follower.acked = follower.acked.max(Some(acked));
        follower.sent = follower.sent.max(acked);
        follower.change = follower.change.max(ack.body.change);
        follower.heard = now.tick;
        let lacks = follower.sent < index;
        group.witness.insert(from, ack);
        self.settle_change(owner, now, view, out);
        self.count(owner, out);
        self.establish(owner, view, out);
        self.confirmed(owner, Tick(stamp), now, out);
        if lacks {
            self.append_to(owner, from, out);
        }
    }

    /// Counts what is on two disks, or on this one if its user knows that there is no other. While members are being replaced
    /// only those count who stay.
    pub(super) fn count(&mut self, owner: NodeId, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let (charter, pending) = (group.record.charter, group.record.pending);
        let Role::Leader(leading) = &mut group.role else { return };
        let counts = |node: &NodeId| charter.has(node) && pending.is_none_or(|pending| pending.has(node));
        let acked = leading.followers.iter().filter(|(node, _)| counts(node)).filter_map(|(_, f)| f.acked).max();
        let index = group.record.at.index;
        if leading.forced && acked == Some(index) && index > 0 {
            // There are two again.
            leading.forced = false;
        }
        let acked = if leading.forced { Some(index) } else { acked };
        if let Some(acked) = acked.filter(|acked| *acked > leading.committed) {
            leading.committed = acked;
            out.now(Output::Committed(owner.tag(), acked));
        }
        let least = leading.followers.values().map(|follower| follower.acked.unwrap_or(0)).min().unwrap_or(0);
        // Everybody has those.
        let kept = (group.record.at.index - least.min(group.record.at.index)) as usize;
        while leading.tail.len() > kept {
            leading.tail.pop_front();
        }
    }

    /// A new leader begins when what it found is on two disks under its epoch.
    pub(super) fn establish(&mut self, owner: NodeId, view: &View, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let Role::Leader(leading) = &mut group.role else { return };
        let written = leading.followers.values().any(|f| f.acked.is_some_and(|acked| acked >= leading.base.index));
        if leading.established || !(written || leading.forced) {
            return;
        }
        leading.established = true;
        if leading.resumed {
            return;
        }
        let from = leading.before;
        let epoch = group.record.charter.epoch;
        self.announce(owner, view, out);
        let (everything, open) = self.records_of(&owner);
        out.now(Output::Lead(Box::new(Taken { owner, from, epoch, everything, open })));
    }

    /// A follower answered what was sent at `sent`: nobody else is followed for most of a lease from then.
    pub(super) fn confirmed(&mut self, owner: NodeId, sent: Tick, now: Now, out: &mut Outbox<Output>) {
        if sent <= now.tick {
            self.confirm(owner, sent, out);
        }
    }

    pub(super) fn confirm(&mut self, owner: NodeId, sent: Tick, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get_mut(&owner) else { return };
        // A follower waits four fifths of a lease from when it heard that; clocks may run apart by a part in twenty.
        let until = sent + crate::time::Span(group.lease().0 / 4 * 3);
        let Role::Leader(leading) = &mut group.role else { return };
        if until > leading.sure_until {
            leading.sure_until = until;
            self.timers.set(Timer::Sure(owner), until);
            if !std::mem::replace(&mut leading.sure, true) {
                out.now(Output::Sure(owner.tag(), true));
            }
        }
    }

    pub(super) fn look_whether_sure(&mut self, owner: NodeId, now: Now, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let Role::Leader(leading) = &mut group.role else { return };
        if leading.sure_until <= now.tick && !leading.forced && std::mem::replace(&mut leading.sure, false) {
            out.now(Output::Sure(owner.tag(), false));
        }
    }

    /// The node goes: each group that it leads goes to the follower that has most.
    pub(super) fn leave(&mut self, now: Now, out: &mut Outbox<Output>) {
        let best = |leading: &Leading| {
            let has = leading.followers.iter().filter(|(_, f)| f.acked.is_some());
            has.max_by_key(|(_, f)| f.acked).map(|(node, _)| *node)
        };
        let led = self
            .groups
            .iter()
            .filter_map(|(owner, group)| Some((*owner, best(group.leading().filter(|leading| leading.established)?)?)));
        for (owner, to) in led.collect::<Vec<_>>() {
            self.hand_over(owner, to, now, out);
        }
    }

    /// Has `to` lead on. It is asked for promises whether this node is heard or not: so this one leads no more from here.
    fn hand_over(&mut self, owner: NodeId, to: NodeId, now: Now, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get_mut(&owner) else { return };
        out.after_sync(send(to, Group::HandOver { owner, epoch: group.record.charter.epoch }));
        group.role = Role::Follower;
        group.heard = now.tick;
        self.step_down(owner, out);
        self.arm_lapse(owner);
    }

    /// The owner is back: it becomes a member again, and then the leader.
    pub(super) fn on_back(&mut self, from: NodeId, owner: NodeId, now: Now, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get(&owner).filter(|_| from == owner) else { return };
        let (charter, index) = (group.record.charter, group.record.at.index);
        let Some(leading) = group.leading() else {
            let (certificate, promised) = (group.record.certificate, group.record.promised.0);
            return out.now(send(from, Group::Stands { charter, certificate, promised }));
        };
        if !leading.established {
            return;
        }
        if charter.has(&owner) {
            let has_all = leading.followers.get(&owner).is_some_and(|f| f.acked == Some(index));
            if has_all && group.record.pending.is_none() {
                return self.hand_over(owner, owner, now, out);
            }
            return self.append_to(owner, owner, out);
        }
        // Whoever was heard least lately makes room.
        let me = self.me();
        let heard = |node: &NodeId| leading.followers.get(node).map(|follower| follower.heard);
        let gone = charter.others(&me).min_by_key(heard);
        if let Some(gone) = gone {
            self.change_members(owner, gone, owner, out);
        }
    }
}

impl Leading {
    pub(super) fn new(record: &GroupRecord, me: NodeId, before: NodeId, now: Tick, established: bool) -> Self {
        let at = record.at;
        let new = Follower { acked: None, sent: at.index, heard: now, change: record.charter.change };
        let followers: BTreeMap<_, _> = record.charter.others(&me).map(|node| (node, new)).collect();
        debug_assert_eq!(followers.len(), MEMBERS - 1);
        Self {
            base: at,
            tail: VecDeque::new(),
            followers,
            established,
            resumed: false,
            beats: 0,
            committed: 0,
            sure_until: Tick(0),
            sure: false,
            before,
            forced: false,
            clock: now,
        }
    }
}
