//! The driver: hands the machines their inputs and does what they want, in the order in which they want it.
//!
//! A *turn* takes all inputs that are waiting, writes what the machines want remembered as one batch, performs what may be
//! done now, and keeps the rest until the log is synced past that batch. All that a turn says to one peer goes in one
//! frame. What the node says to itself never leaves the turn.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bacnode_protocol::content::Cid;
use bacnode_protocol::id::{ExecutionId, JobId, NodeId};
use bacnode_protocol::outbox::{Outbox, When};
use bacnode_protocol::record::{JobEvent, Record, Records};
use bacnode_protocol::requester::{Answer, Submission};
use bacnode_protocol::time::{Span, Tick};
use bacnode_protocol::wire::market::Market;
use bacnode_protocol::wire::signed::Signer;
use bacnode_protocol::{compute, guardian, requester};
use rocksdb::WriteBatch;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::clock;
use crate::content::{Content, ContentError};
use crate::crash;
use crate::engine::{Report, Runner};
use crate::network::{Fetcher, Network};
use crate::openness::Openness;
use crate::store::{Store, UsageBooks};

mod advert;
mod care;
mod effects;
mod groups;

pub(crate) use self::advert::Announcer;
pub(crate) use self::groups::{GroupView, Groups};
use crate::network::Links;

/// Inputs that may wait for the machines.
pub(crate) const EVENTS_MAX: usize = 4096;
/// Inputs of one turn.
const TURN_MAX: usize = 256;
/// Lines of a story that a slow watcher may be behind.
const WATCH_MAX: usize = 1024;
/// How often peers with open awards hear that we are alive.
const ALIVE: Duration = Duration::from_secs(1);

/// What can happen to a node's machines.
#[derive(Debug)]
pub(crate) enum Event {
    /// What a peer says; its bytes count against what may wait, until it is done.
    Frame(NodeId, Vec<Market>, OwnedSemaphorePermit),
    PeerUp(NodeId),
    PeerDown(NodeId),
    /// Somebody new was heard of.
    ViewGrew(NodeId),
    AddressesChanged,
    Submit(Box<Submission>, oneshot::Sender<Answer>),
    Stop(JobId, String, oneshot::Sender<Answer>),
    Watch(JobId, oneshot::Sender<mpsc::Receiver<(u32, JobEvent)>>),
    Providers(JobId, BTreeSet<NodeId>),
    Fetched(ExecutionId, Cid, String, Result<(), String>),
    Report(Report),
    Considered(u64, Result<compute::Facts, compute::Refusal>),
    /// Content is held now, or is not any more.
    Holding(compute::Holding, bool),
    /// Which results wait for the operator's word?
    Withheld(oneshot::Sender<Vec<compute::Withheld>>),
    /// The operator's word on one; says whether it waited.
    LetOut(ExecutionId, bool, oneshot::Sender<bool>),
    /// The operator empties the node, or takes that back.
    Drain(bool, oneshot::Sender<()>),
    /// Sweep the content now, and say how many bytes that freed.
    Sweep(oneshot::Sender<Result<u64, ContentError>>),
    /// Whether others can keep jobs of this node, or why not.
    CanKeep(oneshot::Sender<Result<(), guardian::CannotKeep>>),
    /// Lead this owner's jobs: the others who could are gone for good.
    Adopt(NodeId, oneshot::Sender<()>),
    /// Answers when what is decided of this job by now is on as many disks as it must be.
    Settled(JobId, oneshot::Sender<()>),
    /// What was to be held here for another owner's job is, or cannot be had.
    Held(JobId, Cid, bool),
    Leave(oneshot::Sender<()>),
}

/// What is left to do once the log is synced.
enum Effect {
    Requester(requester::Output),
    Compute(compute::Output),
    Guardian(guardian::Output),
    /// What waits for another disk, too: which jobs' log, and for which entry of it.
    Quorum([u8; 5], u64, requester::Output),
}

/// A node's hands.
pub(crate) struct Driver {
    pub(crate) store: Store,
    pub(crate) content: Content,
    pub(crate) network: Network,
    pub(crate) links: Links,
    pub(crate) fetcher: Arc<dyn Fetcher>,
    pub(crate) runner: Runner,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) announcer: Announcer,
    /// Bytes of a result that are taken from another node.
    pub(crate) result_max: u64,
    /// When jobs are taken.
    pub(crate) openness: Openness,
    /// How long results of ended jobs are kept.
    pub(crate) keep_results: Option<Duration>,
    /// How many jobs that have ended are remembered, and for how long.
    pub(crate) keep_jobs: (usize, Duration),
    /// How patient this node and those who keep its jobs are.
    pub(crate) guarding: guardian::Config,
    /// What the API reads of the groups.
    pub(crate) groups: Groups,
}

/// The running driver.
pub(crate) struct Running {
    hands: Driver,
    requester: requester::State,
    compute: compute::State,
    requester_out: Outbox<requester::Output>,
    compute_out: Outbox<compute::Output>,
    guardian: guardian::State,
    guardian_out: Outbox<guardian::Output>,
    /// Jobs that a group is to keep, from their first record on.
    guarding: BTreeSet<JobId>,
    /// What goes to the groups at the end of the turn, and what waits for them then.
    to_groups: Vec<Record>,
    quorum_effects: Vec<([u8; 5], requester::Output)>,
    /// What waits for another disk, by the owner's tag.
    quorum: BTreeMap<[u8; 5], VecDeque<(u64, requester::Output)>>,
    /// Users who are shown an end when it is settled.
    settling: Vec<([u8; 5], u64, oneshot::Sender<()>)>,
    /// What the node says to itself.
    own: VecDeque<Market>,
    batch: WriteBatch,
    now_effects: Vec<Effect>,
    synced_effects: Vec<Effect>,
    waiting: VecDeque<(u64, Vec<Effect>)>,
    sends: BTreeMap<NodeId, Vec<Market>>,
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    next_answer: u64,
    watchers: HashMap<JobId, Vec<mpsc::Sender<(u32, JobEvent)>>>,
    /// Roots pinned for executions run here, and for results held here.
    roots: HashMap<ExecutionId, Cid>,
    usage: UsageBooks,
    held_roots: HashMap<ExecutionId, (Cid, String)>,
    accepting: Result<(), String>,
    /// Answers to the operator that wait for what they tell of to be written.
    let_out: Vec<(oneshot::Sender<bool>, bool)>,
    /// Thousandths of a core that jobs had in the last minute, as the system reckons its load.
    cpu_mean: f64,
    swept: Tick,
}

impl Driver {
    /// Rebuilds the machines and runs them until the node leaves.
    pub(crate) fn start(
        self,
        signer: &Signer,
        epoch: u64,
        config: compute::Config,
        mut records: Records,
        left: Vec<compute::Run>,
        usage: UsageBooks,
    ) -> Running {
        let now = clock::now();
        let (mut requester_out, mut compute_out) = (Outbox::default(), Outbox::default());
        let roots = records.held.iter().filter_map(|held| Some((held.execution, held.root()?)));
        let roots = roots.collect();
        let boot = bacnode_protocol::id::BootId(epoch);
        let held = (records.held.clone(), std::mem::take(&mut records.wards));
        let compute = compute::State::restore(signer.clone(), boot, config, held, left, now, &mut compute_out);
        let mut guardian_out = Outbox::default();
        let kept = (std::mem::take(&mut records.groups), std::mem::take(&mut records.kept));
        let patience = guardian::Config { life: epoch, ..self.guarding.clone() };
        let guardian = guardian::State::restore(signer.clone(), patience, kept, now, &mut guardian_out);
        // Who decides on those is to be found out first.
        records.jobs.retain(|(job, _)| !guardian.keeps(&job.id));
        let mut seed = [0; 32];
        // Only the drawing of lots depends on it.
        let _ = getrandom::fill(&mut seed);
        let machine = requester::Config::default();
        let requester = requester::State::restore(
            signer.clone(),
            epoch,
            seed,
            machine,
            records,
            now,
            &self.network.view(),
            &mut requester_out,
        );
        Running {
            hands: self,
            requester,
            compute,
            requester_out,
            compute_out,
            guardian,
            guardian_out,
            guarding: BTreeSet::new(),
            to_groups: Vec::new(),
            quorum_effects: Vec::new(),
            quorum: BTreeMap::new(),
            settling: Vec::new(),
            own: VecDeque::new(),
            batch: WriteBatch::default(),
            now_effects: Vec::new(),
            synced_effects: Vec::new(),
            waiting: VecDeque::new(),
            sends: BTreeMap::new(),
            answers: HashMap::new(),
            next_answer: 1,
            watchers: HashMap::new(),
            roots,
            usage,
            held_roots: HashMap::new(),
            accepting: Ok(()),
            let_out: Vec::new(),
            cpu_mean: 0.0,
            swept: now.tick,
        }
    }
}

impl Running {
    /// What goes on from a former life.
    pub(crate) fn runs(&self) -> BTreeSet<ExecutionId> {
        self.compute.runs().collect()
    }

    /// Runs turns until the node leaves.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let mut synced = self.hands.store.log().synced();
        let mut alive = tokio::time::interval(ALIVE);
        alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut inbox = Vec::with_capacity(TURN_MAX);
        self.end_turn().await;
        loop {
            let deadline = self.deadline();
            tokio::select! {
                biased;
                changed = synced.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.release(*synced.borrow_and_update());
                }
                // Before the inputs: peers must hear from us however busy we are.
                _ = alive.tick() => self.say_alive(),
                count = events.recv_many(&mut inbox, TURN_MAX) => {
                    if count == 0 {
                        return;
                    }
                    // What has expired ends before anything is answered, after a suspend above all.
                    self.tick();
                    for event in std::mem::take(&mut inbox) {
                        if let Event::Leave(left) = event {
                            self.leave(&mut events).await;
                            let _ = left.send(());
                            return;
                        }
                        self.event(event);
                    }
                }
                () = tokio::time::sleep(clock::until(deadline)) => {}
            }
            self.tick();
            self.end_turn().await;
        }
    }

    fn deadline(&self) -> Tick {
        let machines = [self.requester.deadline(), self.compute.deadline(), self.guardian.deadline()];
        let machines = machines.into_iter().chain([Some(self.hands.announcer.due())]);
        machines.flatten().min().unwrap_or(clock::tick() + Span::secs(60))
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Frame(from, messages, _room) => self.frame(from, messages),
            Event::PeerUp(peer) => {
                self.requester_input(requester::Input::PeerUp(peer));
                self.compute_input(compute::Input::PeerUp(peer));
            }
            Event::PeerDown(peer) => self.requester_input(requester::Input::PeerDown(peer)),
            Event::ViewGrew(node) => {
                self.hear_of(&node);
                self.requester_input(requester::Input::ViewGrew);
            }
            Event::AddressesChanged => self.hands.announcer.soon(),
            Event::Submit(mut submission, answer) => {
                submission.request = self.expect_answer(answer);
                self.requester_input(requester::Input::Submit(submission));
            }
            Event::Stop(job, reason, answer) if self.is_led_elsewhere(&job) => {
                self.guardian_input(guardian::Input::Stop(job, reason));
                let _ = answer.send(Answer::Stopped);
            }
            Event::Stop(job, reason, answer) => {
                let request = self.expect_answer(answer);
                self.requester_input(requester::Input::Stop { request, job, reason });
            }
            Event::Watch(job, answer) => {
                let (sender, receiver) = mpsc::channel(WATCH_MAX);
                self.watchers.entry(job).or_default().push(sender);
                let _ = answer.send(receiver);
            }
            Event::Providers(job, nodes) => self.requester_input(requester::Input::Providers(job, nodes)),
            Event::Fetched(execution, root, reason, result) => {
                crash::point("fetched");
                // Also when another attempt won meanwhile: then the machine says to drop it, and it must be known what.
                match result {
                    Ok(()) => _ = self.held_roots.insert(execution, (root, reason)),
                    Err(_) => _ = self.held_roots.remove(&execution),
                }
                self.requester_input(requester::Input::Fetched(execution, result));
            }
            Event::Report(Report::Phase(execution, phase)) => {
                self.compute_input(compute::Input::Phase(execution, phase));
            }
            Event::Report(Report::Open(execution, ports)) => {
                self.compute_input(compute::Input::Open(execution, ports));
            }
            Event::Report(Report::Ended(execution, ended)) => {
                crash::point("run-ended");
                self.hands.network.totals.ran(&ended.outcome, &ended.usage);
                let submitter = self.compute.held().find(|(held, _)| **held == execution).map(|(_, owner)| *owner);
                if let Some(submitter) = submitter {
                    self.usage.count(&self.hands.store, &mut self.batch, submitter, &ended.usage);
                }
                if let Some(root) = ended.root {
                    self.roots.insert(execution, root);
                }
                self.compute_input(compute::Input::Ended(execution, ended));
            }
            Event::Considered(number, found) => self.compute_input(compute::Input::Considered(number, found)),
            Event::Holding(holding, true) => self.compute_input(compute::Input::Holding(holding)),
            Event::Holding(holding, false) => self.compute_input(compute::Input::Unheld(holding)),
            Event::Withheld(answer) => _ = answer.send(self.compute.withheld().collect()),
            Event::LetOut(execution, granted, answer) => {
                let waits = self.compute.withheld().any(|withheld| withheld.execution == execution);
                self.compute_input(compute::Input::LetOut { execution, granted });
                self.let_out.push((answer, waits));
            }
            Event::Drain(draining, answer) => {
                self.compute_input(compute::Input::Drain(draining));
                self.hands.announcer.soon();
                let _ = answer.send(());
            }
            Event::Sweep(answer) => self.sweep_now(Some(answer)),
            Event::CanKeep(answer) => {
                self.guardian_input(guardian::Input::Prepare);
                let _ = answer.send(self.guardian.can_keep(&self.hands.network.view()));
            }
            Event::Adopt(owner, answer) => {
                self.guardian_input(guardian::Input::Force(owner));
                let _ = answer.send(());
            }
            Event::Settled(job, answer) => self.settle(job, answer),
            Event::Held(job, root, held) => {
                if held {
                    self.hands.network.provide(root);
                }
                self.guardian_input(guardian::Input::Held { job, root, held });
            }
            Event::Leave(_) => {}
        }
    }

    /// A frame's messages go to both machines; each takes what is for its role.
    fn frame(&mut self, from: NodeId, messages: Vec<Market>) {
        self.requester_input(requester::Input::Alive(from));
        for message in messages {
            self.message(from, message);
        }
    }

    fn message(&mut self, from: NodeId, message: Market) {
        if let Market::Group(group) = message {
            self.guardian_input(guardian::Input::Message { from, message: (*group).clone() });
            self.compute_input(compute::Input::Message { from, message: Market::Group(group) });
        } else if message.is_from_owner() {
            self.compute_input(compute::Input::Message { from, message });
        } else {
            self.requester_input(requester::Input::Message { from, message });
        }
    }

    fn requester_input(&mut self, input: requester::Input) {
        let view = self.hands.network.view();
        self.requester.handle(input, clock::now(), &view, &mut self.requester_out);
        drop(view);
        self.sort_outputs();
    }

    fn compute_input(&mut self, input: compute::Input) {
        self.compute.handle(input, clock::now(), &mut self.compute_out);
        self.sort_outputs();
    }

    fn tick(&mut self) {
        // What others may decide by now is known before anything is answered.
        self.guardian_input(guardian::Input::Tick);
        self.requester_input(requester::Input::Tick);
        self.compute_input(compute::Input::Tick);
    }

    fn expect_answer(&mut self, answer: oneshot::Sender<Answer>) -> u64 {
        let request = self.next_answer;
        self.next_answer += 1;
        self.answers.insert(request, answer);
        request
    }

    /// Sorts what a step wants into what is remembered, done now, and done when that is on disk.
    fn sort_outputs(&mut self) {
        for queued in self.requester_out.drain() {
            match (queued.when, queued.output) {
                (_, requester::Output::Persist(record)) => {
                    self.hands.store.put_record(&mut self.batch, &record);
                    // What is remembered of a job that a group keeps goes there, too.
                    if record.job().is_some_and(|job| self.guarding.contains(&job) || self.guardian.keeps(&job)) {
                        self.to_groups.push(record);
                    }
                }
                (_, requester::Output::Guard(job)) => _ = self.guarding.insert(job),
                (When::Now, output) => self.now_effects.push(Effect::Requester(output)),
                (When::AfterSync, output) => self.synced_effects.push(Effect::Requester(output)),
                (When::AfterQuorum(tag), output) => self.quorum_effects.push((tag, output)),
            }
        }
        for queued in self.compute_out.drain() {
            match (queued.when, queued.output) {
                (When::Now, compute::Output::Persist(record)) => self.hands.store.put_record(&mut self.batch, &record),
                (When::Now, output) => self.now_effects.push(Effect::Compute(output)),
                (_, output) => self.synced_effects.push(Effect::Compute(output)),
            }
        }
        for queued in self.guardian_out.drain() {
            match (queued.when, queued.output) {
                (_, guardian::Output::Persist(record)) => self.hands.store.put_record(&mut self.batch, &record),
                (When::Now, output) => self.now_effects.push(Effect::Guardian(output)),
                (_, output) => self.synced_effects.push(Effect::Guardian(output)),
            }
        }
    }

    /// Writes the turn's records, then does what it wants, until nothing more comes of it.
    async fn end_turn(&mut self) {
        loop {
            self.hand_to_groups();
            self.write().await;
            for effect in std::mem::take(&mut self.now_effects) {
                self.perform(effect);
                crash::point("after-effects");
            }
            if self.own.is_empty()
                && self.now_effects.is_empty()
                && self.synced_effects.is_empty()
                && self.to_groups.is_empty()
                && self.quorum_effects.is_empty()
                && self.batch.is_empty()
            {
                break;
            }
            let me = self.hands.network.me;
            while let Some(message) = self.own.pop_front() {
                self.message(me, message);
            }
        }
        for (answer, waited) in self.let_out.drain(..) {
            let _ = answer.send(waited);
        }
        for (node, messages) in std::mem::take(&mut self.sends) {
            self.hands.links.send(node, messages);
            crash::point("after-send");
        }
        let load = self.compute.load();
        self.hands.announcer.look(&self.hands.network, load, self.accepting.is_ok());
        self.show_groups();
    }

    async fn write(&mut self) {
        let deferred = std::mem::take(&mut self.synced_effects);
        if self.batch.is_empty() && deferred.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        crash::point("before-append");
        let number = self.append(batch).await;
        crash::point("after-append");
        if deferred.is_empty() {
            return;
        }
        let patient = |effect: &Effect| {
            matches!(effect, Effect::Requester(requester::Output::Answer(_, Answer::Accepted { linger: true, .. })))
        };
        let linger = deferred.iter().all(patient);
        self.waiting.push_back((number, deferred));
        self.hands.store.log().want(number, linger);
    }

    /// Appends a batch. While the disk takes nothing, neither does the node: what it would say next relies on this.
    async fn append(&mut self, batch: WriteBatch) -> u64 {
        let bytes = batch.data().to_vec();
        let mut batch = batch;
        loop {
            match self.hands.store.log().append(batch) {
                Ok(number) => return number,
                Err(error) => {
                    tracing::error!(%error, "cannot write to the log; the node waits");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    batch = WriteBatch::from_data(&bytes);
                }
            }
        }
    }

    /// Does what waited for the log.
    fn release(&mut self, synced: u64) {
        while self.waiting.front().is_some_and(|(number, _)| *number <= synced) {
            let Some((_, effects)) = self.waiting.pop_front() else { return };
            crash::point("before-release");
            for effect in effects {
                self.perform(effect);
                crash::point("after-release");
            }
        }
    }

    /// Takes leave: stops what runs, says so, syncs.
    async fn leave(&mut self, events: &mut mpsc::Receiver<Event>) {
        self.hand_over(events).await;
        self.hands.runner.stop_all();
        self.hands.announcer.leave(&self.hands.network).await;
        self.end_turn().await;
        self.hands.store.log().barrier().await;
        self.release(u64::MAX);
        self.end_turn().await;
    }
}
