//! How a member becomes the leader, and how a leader learns that it is none any more.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::Output;
use super::state::{Candidacy, Leading, Role, State, Timer, beat_every, send};
use crate::id::NodeId;
use crate::outbox::Outbox;
use crate::record::GroupRecord;
use crate::time::{Now, Span, Tick};
use crate::view::View;
use crate::wire::group::{At, Certificate, Charter, Contradiction, Group, Motive, Signed, Vote};

/// How long an owner that finds nothing on its disk waits for the second member's vote: that one may hold more.
const BOTH_VOTES_WAIT: Span = Span::secs(2);
/// Between two requests for votes, at most.
const CANVASS_AGAIN: Span = Span::millis(500);
/// Between two requests of an owner to have its jobs back.
const BACK_EVERY: Span = Span::secs(2);
/// How far ahead of ours an epoch may be that somebody claims to have promised.
const EPOCHS_AHEAD_MAX: u64 = 1 << 20;

impl State {
    pub(super) fn lapsed(&mut self, owner: NodeId, now: Now, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get(&owner) else { return };
        if matches!(group.role, Role::Follower) {
            self.canvass(owner, Motive::Silence, now, out);
        }
    }

    /// Asks the others to follow this node. Its own promise is the first.
    pub(super) fn canvass(&mut self, owner: NodeId, motive: Motive, now: Now, out: &mut Outbox<Output>) {
        let me = self.me();
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let charter = group.record.pending.unwrap_or(group.record.charter);
        let epoch = charter.epoch.max(group.record.promised.0).max(group.seen) + 1;
        let charter = Charter { epoch, leader: me, ..charter };
        group.record.promised = (epoch, me);
        group.persist(out);
        let own = Signed::new(&self.signer, Vote { charter, at: group.record.at });
        let led = match &group.role {
            Role::Leader(leading) if group.decides() => Some(leading.committed),
            Role::Candidate(candidacy) => candidacy.led,
            _ => None,
        };
        let (votes, since) = (BTreeMap::new(), now.tick);
        group.role = Role::Candidate(Box::new(Candidacy { charter, motive, votes, own, since, led }));
        group.pull = None;
        for timer in [Timer::Lapse(owner), Timer::Beat(owner), Timer::Sure(owner)] {
            self.timers.cancel(&timer);
        }
        if led.is_some() {
            out.now(Output::Sure(owner.tag(), false));
        }
        self.solicit(owner, now, out);
    }

    /// Says again what a candidate wants.
    fn solicit(&mut self, owner: NodeId, now: Now, out: &mut Outbox<Output>) {
        let me = self.me();
        let Some(group) = self.groups.get(&owner) else { return };
        let Role::Candidate(candidacy) = &group.role else { return };
        let voters: BTreeSet<NodeId> = electorates(&group.record).flat_map(|charter| charter.members).collect();
        let (charter, motive, at) = (candidacy.charter, candidacy.motive, group.record.at);
        for to in voters.into_iter().filter(|node| *node != me && !candidacy.votes.contains_key(node)) {
            out.after_sync(send(to, Group::Canvass { charter, at, motive }));
        }
        // Whoever comes up has few connections at first.
        let again = Span(group.lease().0 / 4).max(Span::millis(100)).min(CANVASS_AGAIN);
        self.timers.set(Timer::Canvass(owner), now.tick + again);
    }

    pub(super) fn canvass_again(&mut self, owner: NodeId, now: Now, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let pause = Span(group.lease().0 / 4).max(Span::millis(100));
        let Role::Candidate(candidacy) = &mut group.role else { return };
        // Whoever refused has promised as much to another, or more. Members that began at one time must not go on so: their
        // pauses differ, each time in another way.
        let lot = Sha256::digest([&candidacy.own.by.0[..], &candidacy.charter.epoch.to_le_bytes()].concat())[0];
        let rested = now.tick.since(candidacy.since) >= Span(pause.0 + pause.0 / 64 * u64::from(lot));
        if rested && group.seen >= candidacy.charter.epoch {
            let motive = candidacy.motive;
            return self.canvass(owner, motive, now, out);
        }
        if let Some(pull) = &group.pull {
            let part = u32::try_from(pull.parts.len()).unwrap_or(u32::MAX);
            out.now(send(pull.from, Group::Pull { owner, at: pull.at, part }));
        }
        self.try_to_win(owner, now, out);
        self.solicit(owner, now, out);
    }

    pub(super) fn on_canvass(
        &mut self,
        from: NodeId,
        charter: Charter,
        motive: Motive,
        now: Now,
        out: &mut Outbox<Output>,
    ) {
        let (owner, me) = (charter.owner, self.me());
        // A member that is to be replaced has a say in it until that is decided.
        let member = charter.has(&me) || self.groups.get(&owner).is_some_and(|group| group.record.charter.has(&me));
        if charter.leader != from || from == me || !charter.is_sound() || !member {
            return self.stand_by(owner, from, out);
        }
        if !self.groups.contains_key(&owner) && !self.admit(Charter { epoch: 0, ..charter }, now) {
            return;
        }
        if !self.may_promise(from, &charter, motive, now) {
            return self.stand_by(owner, from, out);
        }
        let Some(group) = self.groups.get_mut(&owner) else { return };
        if group.record.promised != (charter.epoch, from) {
            group.record.promised = (charter.epoch, from);
            group.heard = now.tick;
            let led = group.decides();
            if !matches!(group.role, Role::Outsider) {
                group.role = Role::Follower;
            }
            group.pull = None;
            group.persist(out);
            if led {
                self.step_down(owner, out);
            }
            self.arm_lapse(owner);
        }
        let Some(group) = self.groups.get(&owner) else { return };
        let vote = Signed::new(&self.signer, Vote { charter, at: group.record.at });
        out.after_sync(send(from, Group::Vote(vote)));
    }

    /// Whether nothing speaks against following `from` under `charter`: no promise, no newer members, no leader that is
    /// there.
    fn may_promise(&self, from: NodeId, charter: &Charter, motive: Motive, now: Now) -> bool {
        let Some(group) = self.groups.get(&charter.owner) else { return false };
        let known = &group.record;
        let newest = known.pending.unwrap_or(known.charter).change;
        let knows_candidate = known.charter.has(&from) || known.pending.is_some_and(|pending| pending.has(&from));
        if charter.change < newest || charter.epoch <= known.charter.epoch || !knows_candidate {
            return false;
        }
        if known.promised == (charter.epoch, from) {
            return true;
        }
        if charter.epoch <= known.promised.0 {
            return false;
        }
        let leads = matches!(group.role, Role::Leader(_));
        // A leader that hears the candidate is not silent. A follower waits as long as the leader may be sure of itself.
        let is_silent = !leads && now.tick.since(group.heard) >= Span(group.lease().0 / 5 * 4);
        match motive {
            Motive::Silence => is_silent,
            Motive::HandOver => true,
            Motive::Return => known.charter.leader == from || is_silent,
        }
    }

    /// Tells how things stand.
    fn stand_by(&self, owner: NodeId, to: NodeId, out: &mut Outbox<Output>) {
        if let Some(group) = self.groups.get(&owner) {
            let GroupRecord { charter, certificate, promised, .. } = group.record;
            out.now(send(to, Group::Stands { charter, certificate, promised: promised.0 }));
        }
    }

    pub(super) fn on_vote(&mut self, from: NodeId, vote: Signed<Vote>, now: Now, out: &mut Outbox<Output>) {
        let owner = vote.body.charter.owner;
        let network = self.signer.network();
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let Role::Candidate(candidacy) = &mut group.role else { return };
        if vote.by != from || vote.body.charter != candidacy.charter || !vote.is_genuine(&network) {
            return;
        }
        if let Some(witness) = group.witness.get(&from) {
            let proof = Contradiction::Forgot(*witness, vote);
            if proof.liar(&network).is_some() {
                return self.accuse(proof, out);
            }
        }
        candidacy.votes.insert(from, vote);
        self.try_to_win(owner, now, out);
    }

    /// Leads, if two members promised to follow and nothing is missing of what they hold.
    pub(super) fn try_to_win(&mut self, owner: NodeId, now: Now, out: &mut Outbox<Output>) {
        let me = self.me();
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let Role::Candidate(candidacy) = &group.role else { return };
        let promised = |node: &NodeId| *node == me || candidacy.votes.contains_key(node);
        let majority = |charter: &Charter| charter.members.iter().filter(|node| promised(node)).count() >= 2;
        if !electorates(&group.record).all(|charter| majority(&charter)) {
            return;
        }
        let found_nothing = candidacy.own.body.at == At::default() && candidacy.votes.len() < 2;
        if found_nothing && now.tick.since(candidacy.since) < BOTH_VOTES_WAIT {
            return;
        }
        let Some(best) = candidacy.votes.values().max_by_key(|vote| vote.body.at).copied() else { return };
        if best.body.at > group.record.at {
            let pulling = group.pull.as_ref().is_some_and(|pull| pull.at == best.body.at);
            if !pulling {
                out.now(send(best.by, Group::Pull { owner, at: best.body.at, part: 0 }));
            }
            return;
        }
        // One who is a member by the newest charter, so that everybody can tell.
        let Some(vote) = candidacy.votes.values().find(|vote| candidacy.charter.has(&vote.by)).copied() else { return };
        let certificate = Certificate { votes: [candidacy.own, vote] };
        let charter = candidacy.charter;
        self.lead(owner, charter, certificate, now, out);
    }

    fn lead(&mut self, owner: NodeId, charter: Charter, certificate: Certificate, now: Now, out: &mut Outbox<Output>) {
        let me = self.me();
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let led = match &group.role {
            Role::Candidate(candidacy) => candidacy.led,
            _ => None,
        };
        let before = group.record.charter.leader;
        let base = group.record.at;
        group.record.charter = charter;
        group.record.pending = None;
        group.record.certificate = Some(certificate);
        group.record.promised = (charter.epoch, me);
        let mut leading = Leading::new(&group.record, me, before, now.tick, false);
        leading.base = base;
        leading.forced = certificate.is_forced();
        (leading.resumed, leading.committed) = (led.is_some(), led.unwrap_or(0));
        group.record.at.epoch = charter.epoch;
        group.role = Role::Leader(Box::new(leading));
        group.serving.clear();
        group.pull = None;
        group.persist(out);
        if led.is_none() {
            self.unled(owner, out);
        }
        self.timers.cancel(&Timer::Canvass(owner));
        self.timers.cancel(&Timer::Lapse(owner));
        self.timers.cancel(&Timer::Back(owner));
        self.timers.set(Timer::Beat(owner), now.tick + beat_every(&charter));
        for node in charter.others(&me) {
            self.append_to(owner, node, out);
        }
    }

    /// Leads though nobody else says so, once the leader has been silent for a lease: on its user's word.
    pub(super) fn force(&mut self, owner: NodeId, now: Now, view: &View, out: &mut Outbox<Output>) {
        let me = self.me();
        let Some(group) = self.groups.get_mut(&owner) else { return };
        if let Role::Leader(leading) = &mut group.role {
            leading.forced = true;
            self.count(owner, out);
            return self.replace_the_silent(owner, now, view, out);
        }
        // While the leader is heard there is nothing to force.
        if matches!(group.role, Role::Outsider) || now.tick.since(group.heard) < group.lease() {
            return;
        }
        let charter = group.record.pending.unwrap_or(group.record.charter);
        let epoch = charter.epoch.max(group.record.promised.0).max(group.seen) + 1;
        let charter = Charter { epoch, leader: me, ..charter };
        let own = Signed::new(&self.signer, Vote { charter, at: group.record.at });
        self.lead(owner, charter, Certificate { votes: [own, own] }, now, out);
        self.establish(owner, view, out);
        self.confirm(owner, now.tick, out);
        self.count(owner, out);
    }

    pub(super) fn on_stands(
        &mut self,
        from: NodeId,
        charter: Charter,
        certificate: Option<Certificate>,
        promised: u64,
        now: Now,
        out: &mut Outbox<Output>,
    ) {
        let (owner, me) = (charter.owner, self.me());
        if let Some(certificate) = certificate {
            self.on_leads(certificate, now, out);
        }
        let Some(group) = self.groups.get_mut(&owner) else { return };
        let known = group.record.clone();
        if !known.charter.has(&from) || !charter.is_sound() {
            return;
        }
        if promised < known.promised.0.saturating_add(EPOCHS_AHEAD_MAX) {
            group.seen = group.seen.max(promised);
        }
        if promised > known.charter.epoch && matches!(group.role, Role::Leader(_)) {
            // It follows nobody of this epoch any more.
            return self.canvass(owner, Motive::Return, now, out);
        }
        let founded_again = owner == me && group.leading().is_some_and(|leading| leading.committed == 0);
        if charter.change > known.charter.change && charter.epoch >= known.charter.epoch {
            self.adopt(owner, charter, known.certificate, now, out);
        } else if founded_again
            && charter.has(&me)
            && charter.epoch < known.charter.epoch
            && known.certificate.is_none()
        {
            // This disk was lost: what is kept of its jobs is fetched, and what was begun since is begun again.
            group.record.charter = charter;
            (group.record.at, group.record.promised) = (At::default(), (known.charter.epoch, me));
            group.ledger = super::ledger::Ledger::default();
            out.now(Output::Persist(crate::record::Record::DropGroup(owner)));
            self.step_down(owner, out);
            self.canvass(owner, Motive::Return, now, out);
        }
    }

    /// This node does not lead any more.
    pub(super) fn step_down(&mut self, owner: NodeId, out: &mut Outbox<Output>) {
        self.timers.cancel(&Timer::Beat(owner));
        self.timers.cancel(&Timer::Sure(owner));
        out.now(Output::Follow(owner.tag()));
        self.unled(owner, out);
    }

    /// Two members follow that leader.
    pub(super) fn on_leads(&mut self, certificate: Certificate, now: Now, out: &mut Outbox<Output>) {
        let owner = certificate.votes[0].body.charter.owner;
        let Some(charter) = self.prove(&owner, &certificate) else { return };
        let Some(group) = self.groups.get(&owner) else { return };
        let known = &group.record;
        if charter.epoch > known.charter.epoch && charter.epoch >= known.promised.0.min(charter.epoch) {
            if charter.leader == self.me() {
                return;
            }
            return self.adopt(owner, charter, Some(certificate), now, out);
        }
        if charter.epoch == known.charter.epoch
            && charter.leader != known.charter.leader
            && let Some(other) = known.certificate
        {
            let pairs = certificate.votes.iter().flat_map(|a| other.votes.iter().map(move |b| [*a, *b]));
            let proofs = pairs.map(Contradiction::Votes);
            let network = self.signer.network();
            if let Some(proof) = proofs.into_iter().find(|proof| proof.liar(&network).is_some()) {
                self.accuse(proof, out);
            }
        }
    }

    pub(super) fn on_seek(&self, from: NodeId, owner: NodeId, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get(&owner) else { return };
        match group.leading() {
            Some(leading) if leading.established => {
                group.announcement().for_each(|message| out.now(Output::Send { to: from, message }));
            }
            // It does not know yet whether it may go on.
            Some(_) => {}
            None => {
                if let Some(certificate) = group.record.certificate {
                    out.now(send(from, Group::Leads(certificate)));
                }
            }
        }
    }

    pub(super) fn on_hand_over(&mut self, from: NodeId, owner: NodeId, epoch: u64, now: Now, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get(&owner) else { return };
        let charter = group.record.charter;
        let promised = group.record.promised.0;
        if charter.leader == from && charter.epoch == epoch && promised == epoch && matches!(group.role, Role::Follower)
        {
            self.canvass(owner, Motive::HandOver, now, out);
        }
    }

    /// An owner that does not lead its own jobs asks to have them back.
    pub(super) fn arm_back(&mut self, owner: NodeId, at: Tick) {
        if owner == self.me() {
            self.timers.set_earlier(Timer::Back(owner), at);
        }
    }

    pub(super) fn ask_back(&mut self, owner: NodeId, now: Now, out: &mut Outbox<Output>) {
        let me = self.me();
        let Some(group) = self.groups.get(&owner) else { return };
        if owner != me || matches!(group.role, Role::Leader(_)) {
            return;
        }
        for to in group.record.charter.others(&me) {
            out.now(send(to, Group::Back { owner }));
        }
        self.timers.set(Timer::Back(owner), now.tick + BACK_EVERY);
    }

    pub(super) fn accuse(&mut self, proof: Contradiction, out: &mut Outbox<Output>) {
        let Some(liar) = proof.liar(&self.signer.network()) else { return };
        if !self.accused.insert(liar) {
            return;
        }
        let me = self.me();
        let with_liar = self.groups.values().filter(|group| group.record.charter.has(&liar));
        let told: BTreeSet<NodeId> = with_liar.flat_map(|group| group.record.charter.others(&me)).collect();
        for to in told.into_iter().filter(|node| *node != liar) {
            out.now(send(to, Group::Proof(Box::new(proof))));
        }
        out.now(Output::Accuse(liar, Box::new(proof)));
    }

    pub(super) fn on_proof(&mut self, proof: Contradiction, out: &mut Outbox<Output>) {
        self.accuse(proof, out);
    }
}

/// Whose majorities must agree to a leader: the members, and those that may have become members meanwhile.
fn electorates(record: &GroupRecord) -> impl Iterator<Item = Charter> {
    std::iter::once(record.charter).chain(record.pending)
}
