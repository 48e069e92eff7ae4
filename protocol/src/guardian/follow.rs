//! The follower: writes what the leader says, and fetches what it lacks.

use super::Output;
use super::ledger::Ledger;
use super::state::{Membership, Pull, Role, Serving, State, Timer, send};
use crate::id::NodeId;
use crate::limits::{APPEND_ENTRIES_MAX, GUARDED_BYTES_MAX, GUARDED_OWNERS_MAX, LEDGER_BYTES_MAX, VIEW_NODES_MAX};
use crate::outbox::Outbox;
use crate::record::{GroupRecord, Record};
use crate::time::{Now, Span, Tick};
use crate::wire::bounded::ListMax;
use crate::wire::group::{Ack, Append, At, Certificate, Charter, Entry, Group, Signed};

/// Parts of a state, at most: of the smallest ones more than the largest ledger has.
const PARTS_MAX: u32 = 4_096;

impl State {
    pub(super) fn on_append(&mut self, from: NodeId, append: Append, now: Now, out: &mut Outbox<Output>) {
        let (charter, owner, me) = (append.charter, append.charter.owner, self.me());
        let counted = append.base.is_sound() && append.prev.is_sound() && append.pending.is_none_or(|p| p.is_sound());
        if charter.leader != from || from == me || !charter.is_sound() || !charter.has(&me) || !counted {
            return;
        }
        if !self.groups.contains_key(&owner) && !self.admit(charter, now) {
            return out.now(send(from, Group::Unwilling { owner }));
        }
        if !self.is_followed(&append, now, out) {
            let Some(group) = self.groups.get(&owner) else { return };
            let GroupRecord { charter, certificate, promised, .. } = group.record;
            return out.now(send(from, Group::Stands { charter, certificate, promised: promised.0 }));
        }
        self.write(from, append, now, out);
    }

    /// Begins to keep an owner's jobs, of which nothing is known here.
    pub(super) fn admit(&mut self, charter: Charter, now: Now) -> bool {
        let kept = self.groups.values().filter(|group| !matches!(group.role, Role::Outsider)).count();
        let full = kept >= GUARDED_OWNERS_MAX || self.groups.len() >= VIEW_NODES_MAX || self.is_full();
        if !self.config.guards || full {
            return false;
        }
        let promised = (charter.epoch, charter.leader);
        let record = GroupRecord { charter, pending: None, certificate: None, promised, at: At::default() };
        self.groups.insert(charter.owner, Membership::new(record, now.tick));
        true
    }

    /// Whether what this node keeps for others takes all the room that they may have.
    fn is_full(&self) -> bool {
        let me = self.me();
        let bytes = self.groups.iter().filter(|(owner, _)| **owner != me).map(|(_, group)| group.ledger.bytes());
        bytes.sum::<usize>() > GUARDED_BYTES_MAX
    }

    /// Whether what `append` says is to be written: its leader leads, as far as was promised to anybody. A later leader
    /// shows that two members promised to follow it.
    fn is_followed(&mut self, append: &Append, now: Now, out: &mut Outbox<Output>) -> bool {
        let (charter, owner) = (append.charter, append.charter.owner);
        let Some(group) = self.groups.get(&owner) else { return false };
        let known = &group.record;
        if charter.epoch < known.promised.0 || charter.epoch < known.charter.epoch {
            return false;
        }
        if charter.epoch == known.charter.epoch {
            if charter.leader != known.charter.leader || matches!(group.role, Role::Leader(_)) {
                return false;
            }
            if charter.change > known.charter.change {
                self.adopt(owner, charter, known.certificate, now, out);
            }
            return true;
        }
        let Some(certificate) = append.certificate else { return false };
        let proven = self.prove(&owner, &certificate);
        if proven.is_none_or(|proven| proven.epoch != charter.epoch || proven.leader != charter.leader) {
            return false;
        }
        self.adopt(owner, charter, Some(certificate), now, out);
        true
    }

    /// Who leads by this certificate, if it is one for the group as it is known here: two of the known members signed it, or
    /// one if members have changed since.
    pub(super) fn prove(&self, owner: &NodeId, certificate: &Certificate) -> Option<Charter> {
        let group = self.groups.get(owner)?;
        let charter = certificate.charter(&self.signer.network()).filter(|charter| charter.owner == *owner)?;
        let known = |node: &NodeId| {
            group.record.charter.has(node) || group.record.pending.is_some_and(|pending| pending.has(node))
        };
        let needed = if charter.change > group.record.charter.change { 1 } else { 2 };
        let signers = certificate.signers().iter().filter(|node| known(node)).count();
        (signers >= needed || group.record.at == At::default()).then_some(charter)
    }

    /// Follows this charter from now.
    pub(super) fn adopt(
        &mut self,
        owner: NodeId,
        charter: Charter,
        certificate: Option<Certificate>,
        now: Now,
        out: &mut Outbox<Output>,
    ) {
        let me = self.me();
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let led = group.decides();
        let later = charter.epoch > group.record.charter.epoch;
        if later || group.record.pending.is_some_and(|pending| pending.change <= charter.change) {
            group.record.pending = None;
        }
        if later {
            (group.pull, group.heard) = (None, now.tick);
            group.serving.clear();
            group.role = Role::Follower;
        }
        group.record.charter = charter;
        group.record.certificate = certificate;
        if charter.epoch >= group.record.promised.0 {
            group.record.promised = (charter.epoch, charter.leader);
        }
        if charter.has(&me) && matches!(group.role, Role::Outsider) {
            group.role = Role::Follower;
        }
        group.persist(out);
        if later && led {
            self.step_down(owner, out);
        }
        if charter.has(&me) {
            self.arm_lapse(owner);
            self.arm_back(owner, now.tick + Span::secs(1));
        } else {
            self.let_go(owner, now, out);
        }
    }

    /// This node is no member any more. It remembers that it was, and who is: members that were left behind would take a
    /// node that has forgotten for one of theirs.
    pub(super) fn let_go(&mut self, owner: NodeId, now: Now, out: &mut Outbox<Output>) {
        for timer in [Timer::Lapse(owner), Timer::Canvass(owner), Timer::Beat(owner), Timer::Sure(owner)] {
            self.timers.cancel(&timer);
        }
        let Some(group) = self.groups.get_mut(&owner) else { return };
        for job in group.ledger.jobs() {
            out.now(Output::LetGo(job));
        }
        group.ledger = Ledger::default();
        group.record.at = At::default();
        (group.pull, group.serving, group.witness) = Default::default();
        out.now(Output::Persist(Record::DropGroup(owner)));
        group.persist(out);
        self.become_outsider(owner, now);
    }

    pub(super) fn become_outsider(&mut self, owner: NodeId, now: Now) {
        let Some(group) = self.groups.get_mut(&owner) else { return };
        group.role = Role::Outsider;
        self.arm_back(owner, now.tick + Span::secs(1));
    }

    fn write(&mut self, from: NodeId, append: Append, now: Now, out: &mut Outbox<Output>) {
        let owner = append.charter.owner;
        let Some(group) = self.groups.get_mut(&owner) else { return };
        group.heard = now.tick;
        if let Some(witness) = append.witness.filter(|witness| witness.is_genuine(&self.signer.network())) {
            group.witness.insert(witness.by, witness);
        }
        let before = (group.record.at, group.record.pending);
        let begins = group.record.at == append.base || (group.record.at.index == 0 && append.base.index == 0);
        if group.record.at.epoch < append.charter.epoch && begins {
            group.record.at.epoch = append.charter.epoch;
        }
        let at = group.record.at;
        let fits = at.epoch == append.charter.epoch && append.prev.epoch == at.epoch && append.prev.index <= at.index;
        if !fits {
            let waits = group.pull.as_ref().is_some_and(|pull| now.tick.since(pull.progress) < Span::secs(2));
            self.arm_lapse(owner);
            if !waits {
                out.now(send(from, Group::Behind { owner, at, stamp: append.stamp }));
            }
            return;
        }
        group.pull = None;
        // An owner keeps within its bounds by itself, unless it means ill; and others need room, too.
        let full = group.ledger.is_full() || (!append.entries.is_empty() && self.is_full());
        if full && owner != self.me() {
            self.let_go(owner, now, out);
            return out.now(send(from, Group::Unwilling { owner }));
        }
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let known = usize::try_from(at.index - append.prev.index).unwrap_or(usize::MAX);
        for entry in append.entries.into_vec().into_iter().skip(known) {
            group.record.at.index += 1;
            if let Entry::Forget(job) = &entry {
                out.now(Output::LetGo(*job));
            }
            for (key, entry) in group.ledger.apply(entry) {
                out.now(Output::Persist(Record::Kept(owner, key, entry)));
            }
        }
        if let Some(pending) = append.pending.filter(|pending| pending.change > group.record.charter.change) {
            group.record.pending = Some(pending);
        }
        if (group.record.at, group.record.pending) != before {
            group.persist(out);
        }
        self.arm_lapse(owner);
        self.acknowledge(owner, from, append.stamp, out);
    }

    fn acknowledge(&self, owner: NodeId, leader: NodeId, stamp: u64, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get(&owner) else { return };
        let change = group.record.pending.unwrap_or(group.record.charter).change;
        let ack = Signed::new(&self.signer, Ack { owner, at: group.record.at, change });
        out.after_sync(send(leader, Group::Ack { ack, stamp }));
    }

    /// When the leader will have been silent for too long; the members' turns come one after the other.
    pub(super) fn arm_lapse(&mut self, owner: NodeId) {
        let me = self.me();
        let Some(group) = self.groups.get(&owner) else { return };
        let charter = group.record.charter;
        let turn = charter.others(&charter.leader).position(|node| node == me).unwrap_or(1) as u64;
        let lease = group.lease();
        self.timers.set(Timer::Lapse(owner), group.heard + lease + Span(lease.0 / 4 * turn));
    }

    /// A follower lacks something: the last entries, if they are still here, or everything.
    pub(super) fn on_behind(
        &mut self,
        from: NodeId,
        owner: NodeId,
        at: At,
        stamp: u64,
        now: Now,
        out: &mut Outbox<Output>,
    ) {
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let (epoch, index) = (group.record.charter.epoch, group.record.at.index);
        let Role::Leader(leading) = &mut group.role else { return };
        let first = index - leading.tail.len() as u64;
        let Some(follower) = leading.followers.get_mut(&from) else { return };
        follower.heard = now.tick;
        let has_tail = at.epoch == epoch && (first..=index).contains(&at.index);
        if has_tail {
            follower.sent = at.index;
            self.append_to(owner, from, out);
        } else {
            self.serve(owner, from, 0, out);
        }
        self.confirmed(owner, Tick(stamp), now, out);
    }

    pub(super) fn on_pull(&mut self, from: NodeId, owner: NodeId, at: At, part: u32, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get(&owner) else { return };
        let member = group.record.charter.has(&from) || group.record.pending.is_some_and(|pending| pending.has(&from));
        if !member {
            return;
        }
        let same = group.serving.get(&from).is_some_and(|serving| serving.at == at);
        self.serve(owner, from, if same { part } else { 0 }, out);
    }

    /// Sends a part of what is held here; with the first one the state is put aside, so that the others are of the same.
    fn serve(&mut self, owner: NodeId, to: NodeId, part: u32, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get_mut(&owner) else { return };
        if part == 0 {
            let serving = Serving { at: group.record.at, parts: group.ledger.parts() };
            group.serving.insert(to, serving);
        }
        let Some(serving) = group.serving.get(&to) else { return };
        let of = u32::try_from(serving.parts.len()).unwrap_or(u32::MAX);
        let Some(entries) = serving.parts.get(part as usize).cloned() else { return };
        out.now(send(to, Group::Part { owner, at: serving.at, part, of, entries }));
        if part + 1 == of {
            // Should it get lost, all is sent again.
            group.serving.remove(&to);
        }
    }

    pub(super) fn on_part(
        &mut self,
        from: NodeId,
        owner: NodeId,
        at: At,
        (part, of): (u32, u32),
        entries: ListMax<Entry, APPEND_ENTRIES_MAX>,
        now: Now,
        out: &mut Outbox<Output>,
    ) {
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let wanted = match &group.role {
            Role::Follower => {
                let led = from == group.record.charter.leader && at.epoch == group.record.charter.epoch;
                // Whoever promised to follow another writes nothing of this one's.
                led && group.record.promised.0 == at.epoch && at > group.record.at
            }
            Role::Candidate(candidacy) => candidacy.votes.get(&from).is_some_and(|vote| vote.body.at == at),
            Role::Leader(_) | Role::Outsider => false,
        };
        if !wanted || !at.is_sound() || of == 0 || of > PARTS_MAX || part >= of {
            return;
        }
        if part == 0 {
            group.pull = Some(Pull { from, at, parts: Vec::new(), bytes: 0, progress: now.tick });
        }
        let Some(pull) = group.pull.as_mut().filter(|pull| pull.from == from && pull.at == at) else { return };
        if part as usize != pull.parts.len() {
            return;
        }
        pull.bytes += entries.iter().map(super::ledger::weight).sum::<usize>();
        if pull.bytes > LEDGER_BYTES_MAX * 2 {
            group.pull = None;
            return;
        }
        pull.parts.push(entries);
        pull.progress = now.tick;
        if part + 1 < of {
            return out.now(send(from, Group::Pull { owner, at, part: part + 1 }));
        }
        let Some(pull) = group.pull.take() else { return };
        group.heard = now.tick;
        if group.decides() {
            // Somebody holds more than this node, which led: it begins anew from that.
            if let Role::Candidate(candidacy) = &mut group.role {
                candidacy.led = None;
            }
            self.step_down(owner, out);
        }
        self.replace(owner, pull, out);
        match self.groups.get(&owner).map(|group| &group.role) {
            Some(Role::Candidate(_)) => self.try_to_win(owner, now, out),
            _ => self.acknowledge(owner, from, 0, out),
        }
    }

    /// What was held here makes way for what somebody else holds.
    fn replace(&mut self, owner: NodeId, pull: Pull, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let mut ledger = Ledger::default();
        for entry in pull.parts.into_iter().flat_map(ListMax::into_vec) {
            ledger.apply(entry);
        }
        for job in group.ledger.jobs().filter(|job| !ledger.has_job(job)) {
            out.now(Output::LetGo(job));
        }
        group.ledger = ledger;
        group.record.at = pull.at;
        out.now(Output::Persist(Record::DropGroup(owner)));
        group.persist(out);
        for (key, entry) in group.ledger.changes() {
            out.now(Output::Persist(Record::Kept(owner, key, entry)));
        }
    }
}
