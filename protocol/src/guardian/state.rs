//! What the machine knows, and where its inputs go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::ledger::Ledger;
use super::{Input, Output};
use crate::content::Cid;
use crate::id::{JobId, NodeId};
use crate::limits::{APPEND_ENTRIES_MAX, OWNERSHIP_LEASE};
use crate::outbox::Outbox;
use crate::record::{GroupRecord, Record, Records};
use crate::time::{Now, Span, Tick};
use crate::timers::Timers;
use crate::view::View;
use crate::wire::VERSION_GROUPS;
use crate::wire::bounded::{ListMax, TextMax};
use crate::wire::group::{Ack, At, Charter, Entry, Group, MEMBERS, Motive, Signed, Vote};
use crate::wire::market::{Ask, Award, Market};
use crate::wire::signed::Signer;

/// How patient the machine is.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long this node may be silent before others lead its jobs.
    pub lease: Span,
    /// Whether this node keeps others' jobs.
    pub guards: bool,
    /// This life of the node: where the epochs of a group that it founds begin, beyond those of one that it forgot.
    pub life: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { lease: OWNERSHIP_LEASE, guards: true, life: 1 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The leader says that it is there.
    Beat(NodeId),
    /// The leader has not been confirmed for so long that it may not be one any more.
    Sure(NodeId),
    /// The leader was not heard for a lease.
    Lapse(NodeId),
    /// Votes have not come.
    Canvass(NodeId),
    /// Ask to have one's own jobs back.
    Back(NodeId),
    /// Nobody holds that in time.
    Replica(JobId, Cid),
}

/// One group that this node is in, or was.
#[derive(Debug, Clone)]
pub(super) struct Membership {
    /// The owner's.
    pub(super) tag: [u8; 5],
    pub(super) record: GroupRecord,
    pub(super) ledger: Ledger,
    pub(super) role: Role,
    /// When the leader was last heard, or somebody promised to become it.
    pub(super) heard: Tick,
    pub(super) pull: Option<Pull>,
    /// What is sent to members that lack more than the last few entries.
    pub(super) serving: BTreeMap<NodeId, Serving>,
    /// What the other members said last that they hold.
    pub(super) witness: BTreeMap<NodeId, Signed<Ack>>,
    /// The newest epoch that anybody was promised, as far as it was told.
    pub(super) seen: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Role {
    Follower,
    Candidate(Box<Candidacy>),
    Leader(Box<Leading>),
    /// Not a member any more.
    Outsider,
}

#[derive(Debug, Clone)]
pub(super) struct Candidacy {
    pub(super) charter: Charter,
    pub(super) motive: Motive,
    pub(super) votes: BTreeMap<NodeId, Signed<Vote>>,
    pub(super) own: Signed<Vote>,
    pub(super) since: Tick,
    /// It led until now, had that much on two disks, and goes on if it wins.
    pub(super) led: Option<u64>,
}

/// What a leader knows of its followers.
#[derive(Debug, Clone)]
pub(super) struct Leading {
    /// What it held when its epoch began.
    pub(super) base: At,
    /// The last entries, up to its present position.
    pub(super) tail: VecDeque<Entry>,
    pub(super) followers: BTreeMap<NodeId, Follower>,
    /// Whether its state is on two disks under this epoch.
    pub(super) established: bool,
    pub(super) committed: u64,
    /// Since its epoch began.
    pub(super) beats: u32,
    /// It led before its epoch began, too: its requester goes on.
    pub(super) resumed: bool,
    /// Until when nobody else can lead.
    pub(super) sure_until: Tick,
    pub(super) sure: bool,
    /// Who led before, for the story.
    pub(super) before: NodeId,
    /// The members are gone, and their user said to go on without.
    pub(super) forced: bool,
    /// When an input came last.
    pub(super) clock: Tick,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Follower {
    /// What it holds of this epoch.
    pub(super) acked: Option<u64>,
    /// The last entry that was sent.
    pub(super) sent: u64,
    pub(super) heard: Tick,
    pub(super) change: u64,
}

/// A state that is being fetched.
#[derive(Debug, Clone)]
pub(super) struct Pull {
    pub(super) from: NodeId,
    pub(super) at: At,
    pub(super) parts: Vec<ListMax<Entry, APPEND_ENTRIES_MAX>>,
    pub(super) bytes: usize,
    pub(super) progress: Tick,
}

/// A state that is being sent.
#[derive(Debug, Clone)]
pub(super) struct Serving {
    pub(super) at: At,
    pub(super) parts: Vec<ListMax<Entry, APPEND_ENTRIES_MAX>>,
}

/// How a group stands, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Whose jobs, who leads them, who is in it.
    pub charter: Charter,
    /// What this node is in it: `leader`, `follower`, `candidate` or `outsider`.
    pub role: &'static str,
    /// Jobs that have not ended.
    pub open: usize,
    /// Whether what is decided now can be relied on: a leader with one follower at least.
    pub works: bool,
}

/// The guardian machine of one node.
#[derive(Debug)]
pub struct State {
    pub(super) signer: Signer,
    pub(super) config: Config,
    pub(super) groups: BTreeMap<NodeId, Membership>,
    pub(super) timers: Timers<Timer>,
    /// Those who lied.
    pub(super) accused: BTreeSet<NodeId>,
    /// Those who keep nothing for others.
    pub(super) unwilling: BTreeSet<NodeId>,
    /// Who says that it holds what others should, and how many should.
    pub(super) holders: BTreeMap<(JobId, Cid), (u8, BTreeSet<NodeId>)>,
}

impl State {
    /// The machine of the node that signs with `signer`, from what it remembers. What it led, it leads again only after
    /// somebody has said so.
    #[must_use]
    pub fn restore(
        signer: Signer,
        config: Config,
        records: (Vec<GroupRecord>, Vec<(NodeId, Entry)>),
        now: Now,
        out: &mut Outbox<Output>,
    ) -> Self {
        let mut state = Self {
            signer,
            config,
            groups: BTreeMap::new(),
            timers: Timers::default(),
            accused: BTreeSet::new(),
            unwilling: BTreeSet::new(),
            holders: BTreeMap::new(),
        };
        for record in records.0 {
            state.groups.insert(record.charter.owner, Membership::new(record, now.tick));
        }
        for (owner, entry) in records.1 {
            if let Some(group) = state.groups.get_mut(&owner) {
                group.ledger.apply(entry);
            }
        }
        let me = state.me();
        let owners: Vec<(NodeId, Charter)> = state.groups.iter().map(|(owner, g)| (*owner, g.record.charter)).collect();
        for (owner, charter) in owners {
            state.unled(owner, out);
            if !charter.has(&me) {
                state.become_outsider(owner, now);
            } else if charter.leader == me {
                state.canvass(owner, Motive::Return, now, out);
            } else {
                state.arm_lapse(owner);
                state.arm_back(owner, now.tick);
            }
        }
        state
    }

    pub(super) fn me(&self) -> NodeId {
        self.signer.node()
    }

    /// When the machine wants to be handed the time next.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        self.timers.next()
    }

    /// Takes one input.
    pub fn handle(&mut self, input: Input, now: Now, view: &View, out: &mut Outbox<Output>) {
        match input {
            Input::Message { from, message } => self.message(from, message, now, view, out),
            Input::Prepare => self.prepare(now, view, out),
            Input::Append(records) => self.append(records, now, view, out),
            Input::Replicate(replica) => self.replicate(*replica, now, out),
            Input::Held { job, root, held } => self.held_here(job, root, held, out),
            Input::Stop(job, reason) => {
                if let Some((_, group)) = self.of_tag(&job.tag()) {
                    let reason = TextMax::truncated(&reason);
                    out.now(send(group.record.charter.leader, Group::Stop { job, reason }));
                }
            }
            Input::Leave => self.leave(now, out),
            Input::Force(owner) => self.force(owner, now, view, out),
            Input::Tick => self.tick(now, view, out),
        }
    }

    fn message(&mut self, from: NodeId, message: Group, now: Now, view: &View, out: &mut Outbox<Output>) {
        match message {
            Group::Append(append) => self.on_append(from, *append, now, out),
            Group::Ack { ack, stamp } => self.on_ack(from, ack, stamp, now, view, out),
            Group::Behind { owner, at, stamp } => self.on_behind(from, owner, at, stamp, now, out),
            Group::Pull { owner, at, part } => self.on_pull(from, owner, at, part, out),
            Group::Part { owner, at, part, of, entries } => {
                self.on_part(from, owner, at, (part, of), entries, now, out);
            }
            Group::Canvass { charter, at: _, motive } => self.on_canvass(from, charter, motive, now, out),
            Group::Vote(vote) => self.on_vote(from, vote, now, out),
            Group::Stands { charter, certificate, promised } => {
                self.on_stands(from, charter, certificate, promised, now, out);
            }
            Group::Seek { owner } => self.on_seek(from, owner, out),
            Group::Leads(certificate) => self.on_leads(certificate, now, out),
            Group::HandOver { owner, epoch } => self.on_hand_over(from, owner, epoch, now, out),
            Group::Back { owner } => self.on_back(from, owner, now, out),
            Group::Hold { owner, job, root, size, maker, blocks } => {
                let blocks = blocks.into_vec();
                let replica = super::Replica { job, root, size, maker, blocks, others: 0, patience: Span::ZERO };
                self.on_hold(from, owner, replica, out);
            }
            Group::Held { job, root, held } => self.on_held(from, job, root, held, out),
            Group::Stop { job, reason } => {
                let group =
                    self.of_tag(&job.tag()).filter(|(owner, group)| group.record.charter.has(&from) || **owner == from);
                if group.is_some_and(|(_, group)| group.decides()) {
                    out.now(Output::Stop(job, reason.to_string()));
                }
            }
            Group::Unwilling { owner } => self.on_unwilling(from, owner, now, view, out),
            Group::Proof(proof) => self.on_proof(*proof, out),
            // For who runs jobs.
            Group::Kept(_) | Group::Ask(..) | Group::Award(..) => {}
        }
    }

    fn tick(&mut self, now: Now, view: &View, out: &mut Outbox<Output>) {
        while let Some(timer) = self.timers.pop_due(now.tick) {
            match timer {
                Timer::Beat(owner) => self.beat(owner, now, view, out),
                Timer::Sure(owner) => self.look_whether_sure(owner, now, out),
                Timer::Lapse(owner) => self.lapsed(owner, now, out),
                Timer::Canvass(owner) => self.canvass_again(owner, now, out),
                Timer::Back(owner) => self.ask_back(owner, now, out),
                Timer::Replica(job, root) => self.count_holders(job, root, out),
            }
        }
    }

    /// Says nothing of what a group runs until it is clear who decides on it.
    pub(super) fn unled(&self, owner: NodeId, out: &mut Outbox<Output>) {
        let Some(group) = self.groups.get(&owner) else { return };
        let executions = group.ledger.entries().filter_map(|entry| match entry {
            Entry::Execution(execution) => Some(execution.id),
            _ => None,
        });
        out.now(Output::Unled(owner.tag(), executions.collect()));
    }

    /// The group that keeps the jobs with this tag.
    pub(super) fn of_tag(&self, tag: &[u8; 5]) -> Option<(&NodeId, &Membership)> {
        self.groups.iter().find(|(_, group)| group.tag == *tag)
    }

    /// Whether this node decides on the jobs with this tag, for a group.
    #[must_use]
    pub fn leads(&self, tag: &[u8; 5]) -> bool {
        self.of_tag(tag).is_some_and(|(_, group)| group.decides())
    }

    /// Whether this node is the owner of a group that somebody else leads, or may lead: who that is.
    #[must_use]
    pub fn away(&self) -> Option<NodeId> {
        let group = self.groups.get(&self.me())?;
        (!group.decides()).then_some(group.record.charter.leader)
    }

    /// Whether a group keeps this job here.
    #[must_use]
    pub fn keeps(&self, job: &JobId) -> bool {
        self.of_tag(&job.tag()).is_some_and(|(_, group)| group.ledger.has_job(job))
    }

    /// Jobs that have not ended, of all groups that this node is in.
    pub fn open(&self) -> impl Iterator<Item = JobId> {
        self.groups.values().flat_map(|group| group.ledger.open())
    }

    /// Where the log of the jobs with this tag is, and up to where it is on two disks; none if this node does not lead it.
    #[must_use]
    pub fn position(&self, tag: &[u8; 5]) -> Option<(u64, u64)> {
        let (_, group) = self.of_tag(tag)?;
        let committed = match &group.role {
            Role::Leader(leading) => leading.committed,
            Role::Candidate(candidacy) => candidacy.led?,
            Role::Follower | Role::Outsider => return None,
        };
        Some((group.record.at.index, committed))
    }

    /// Who leads the jobs with this tag, and who keeps them with it, as far as this node knows.
    #[must_use]
    pub fn charter(&self, tag: &[u8; 5]) -> Option<Charter> {
        self.of_tag(tag).map(|(_, group)| group.record.charter)
    }

    /// A message of this node's requester as its peer must have it: if it leads the job after somebody else, it shows that
    /// it may; if others keep the job with it, whoever runs that is told.
    #[must_use]
    pub fn dress(&self, to: &NodeId, message: Market, view: &View) -> (Market, Option<Market>) {
        let (Market::Ask(Ask { job, .. }) | Market::Award(Award { job, .. })) = &message else {
            return (message, None);
        };
        let group = self.of_tag(&job.tag()).filter(|(_, group)| group.ledger.has_job(job));
        let Some((_, group)) = group.filter(|_| *to == self.me() || speaks(view, to)) else { return (message, None) };
        match (message, group.record.certificate) {
            (Market::Ask(ask), Some(certificate)) => {
                (Market::Group(Box::new(Group::Ask(certificate, Box::new(ask)))), None)
            }
            (Market::Award(award), Some(certificate)) => {
                let kept = (!group.is_certified()).then(|| group.kept());
                (Market::Group(Box::new(Group::Award(certificate, Box::new(award)))), kept)
            }
            (message @ Market::Award(_), None) => (message, Some(group.kept())),
            (message, _) => (message, None),
        }
    }

    /// How each group stands that this node is in.
    pub fn status(&self) -> impl Iterator<Item = Status> {
        self.groups.values().map(|group| Status {
            charter: group.record.charter,
            role: match &group.role {
                Role::Follower => "follower",
                Role::Candidate(_) => "candidate",
                Role::Leader(_) => "leader",
                Role::Outsider => "outsider",
            },
            open: group.ledger.open_count(),
            works: group.leading().is_some_and(|leading| leading.established && leading.sure),
        })
    }

    /// Peers that should be heard often: members of this node's groups.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> {
        let me = self.me();
        self.groups.values().flat_map(move |group| group.record.charter.others(&me).collect::<Vec<_>>())
    }

    /// All that is kept of an owner's jobs, and what a requester goes on with.
    pub(super) fn records_of(&self, owner: &NodeId) -> (Vec<Record>, Records) {
        let Some(group) = self.groups.get(owner) else { return Default::default() };
        (group.ledger.entries().filter_map(Entry::record).collect(), group.ledger.records())
    }
}

impl Membership {
    pub(super) fn new(record: GroupRecord, now: Tick) -> Self {
        Self {
            tag: record.charter.owner.tag(),
            seen: record.promised.0,
            record,
            ledger: Ledger::default(),
            role: Role::Follower,
            heard: now,
            pull: None,
            serving: BTreeMap::new(),
            witness: BTreeMap::new(),
        }
    }

    pub(super) fn leading(&self) -> Option<&Leading> {
        match &self.role {
            Role::Leader(leading) => Some(leading),
            _ => None,
        }
    }

    /// Whether this node's requester decides: it leads, or did until others asked for a later epoch.
    pub(super) fn decides(&self) -> bool {
        match &self.role {
            Role::Leader(leading) => leading.established || leading.resumed,
            Role::Candidate(candidacy) => candidacy.led.is_some(),
            Role::Follower | Role::Outsider => false,
        }
    }

    pub(super) fn lease(&self) -> Span {
        lease(&self.record.charter)
    }

    /// Who leads, as those are told who run its jobs: who promised it, and who is a member since.
    pub(super) fn announcement(&self) -> impl Iterator<Item = Market> + use<> {
        let leads = self.record.certificate.map(Group::Leads);
        let kept = (!self.is_certified()).then_some(Group::Kept(self.record.charter));
        leads.into_iter().chain(kept).map(|group| Market::Group(Box::new(group)))
    }

    fn kept(&self) -> Market {
        Market::Group(Box::new(Group::Kept(self.record.charter)))
    }

    /// Whether the certificate says all that the charter does: none of its members was replaced since.
    pub(super) fn is_certified(&self) -> bool {
        self.record.certificate.is_some_and(|certificate| certificate.votes[0].body.charter == self.record.charter)
    }

    pub(super) fn persist(&self, out: &mut Outbox<Output>) {
        out.now(Output::Persist(Record::Group(Box::new(self.record.clone()))));
    }

    /// Nodes that run what has not ended.
    pub(super) fn holders(&self) -> BTreeSet<NodeId> {
        let executions = self.ledger.entries().filter_map(|entry| match entry {
            Entry::Execution(execution) => Some(execution),
            _ => None,
        });
        executions.filter(|execution| !execution.state.is_terminal()).map(|execution| execution.node).collect()
    }
}

/// The lease that a charter names, within reason.
pub(super) fn lease(charter: &Charter) -> Span {
    Span::millis(u64::from(charter.lease_ms)).max(Span::millis(200)).min(Span::secs(600))
}

/// Between two beats of a leader.
pub(super) fn beat_every(charter: &Charter) -> Span {
    Span(lease(charter).0 / 5)
}

/// Whether this node may be told of groups.
pub(super) fn speaks(view: &View, node: &NodeId) -> bool {
    view.get(node).is_some_and(|peer| peer.advert.wire.1 >= VERSION_GROUPS)
}

/// A message about a group, for a peer.
pub(super) fn send(to: NodeId, group: Group) -> Output {
    Output::Send { to, message: Market::Group(Box::new(group)) }
}

const _: () = assert!(MEMBERS == 3, "two of three decide");
