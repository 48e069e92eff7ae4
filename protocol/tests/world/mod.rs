//! A small network of the real machines in virtual time: messages with latency, loss and repetition, disks that remember
//! what was written, executors that take a while. Enough for the machines' own tests; the simulator does more.

mod disk;
mod effects;
mod groups;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bacnode_protocol::compute::{self, Run};
use bacnode_protocol::content::Cid;
use bacnode_protocol::guardian;
use bacnode_protocol::id::{BootId, ExecutionId, JobId, NetworkId, NodeId};
use bacnode_protocol::job::state::JobState;
use bacnode_protocol::outbox::Outbox;
use bacnode_protocol::record::What;
use bacnode_protocol::requester::{self, Answer, Submission};
use bacnode_protocol::time::{Now, Span, Tick, UnixMillis};
use bacnode_protocol::view::View;
use bacnode_protocol::wire::advert::Advert;
use bacnode_protocol::wire::bounded::{ListMax, TextMax};
use bacnode_protocol::wire::constraint::LabelSketch;
use bacnode_protocol::wire::market::{Lease, Market, Outcome};
use bacnode_protocol::wire::s3::Publisher;
use bacnode_protocol::wire::signed::Signer;
use bacnode_protocol::wire::task::{Access, Engine, EngineTask, Engines, JobKind, Resources, Task, WasmTask};
use rand::rngs::ChaCha12Rng;
use rand::{RngExt as _, SeedableRng as _};

use self::disk::Disk;

const GIB: u64 = 1 << 30;
const SYNC: Span = Span::millis(3);
const START: u64 = 1_700_000_000_000;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    pub loss: f64,
    pub repeat: f64,
    pub latency_max: Span,
}

impl Default for Faults {
    fn default() -> Self {
        Self { loss: 0.0, repeat: 0.0, latency_max: Span::millis(1) }
    }
}

#[derive(Debug)]
enum Event {
    Deliver { from: usize, to: usize, message: Market },
    Synced { node: usize, life: u64, outputs: Vec<Deferred> },
    Ran { node: usize, life: u64, run: Box<Run> },
    Fetched { node: usize, life: u64, execution: ExecutionId },
    LookedUp { node: usize, life: u64, job: JobId },
    Held { node: usize, life: u64, job: JobId, root: Cid, held: bool },
    Wake { node: usize },
}

#[derive(Debug)]
enum Deferred {
    Requester(requester::Output),
    Compute(compute::Output),
    Guardian(guardian::Output),
    /// What waits for another disk, too.
    Quorum([u8; 5], u64, requester::Output),
}

struct Host {
    signer: Signer,
    up: bool,
    life: u64,
    disk: Disk,
    view: View,
    requester: Option<requester::State>,
    compute: Option<compute::State>,
    guardian: Option<guardian::State>,
    guarding: BTreeSet<JobId>,
    quorum: BTreeMap<[u8; 5], VecDeque<(u64, requester::Output)>>,
    total: Resources,
    labels: BTreeMap<String, String>,
    waking: bool,
    /// What its executor runs.
    runs: BTreeMap<ExecutionId, Run>,
}

/// What one job's watchers were told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub ends: Vec<(JobState, String)>,
    pub accepted: BTreeMap<ExecutionId, Cid>,
    pub events: Vec<What>,
}

pub(crate) struct World {
    pub faults: Faults,
    pub now: Tick,
    rng: ChaCha12Rng,
    hosts: Vec<Host>,
    queue: BTreeMap<(Tick, u64), Event>,
    sequence: u64,
    pub run_for: Span,
    pub told: BTreeMap<JobId, Told>,
    pub answers: Vec<(u64, Answer)>,
    /// Who runs what now, and everything that ever overlapped for one slot.
    running: BTreeMap<(JobId, u32, u32), BTreeSet<usize>>,
    pub overlaps: u32,
    pub starts: BTreeMap<usize, u32>,
    cut: BTreeSet<(usize, usize)>,
    /// How each run ends, in turn; completed with 0 when there are no more.
    pub outcomes: Vec<Outcome>,
    /// Whether runs read what does not leave their node, whose operators withhold what comes of it.
    pub private: bool,
    /// Who holds what jobs read, says every look-up; and how much longer its messages take.
    pub holder: Option<(usize, Span)>,
    /// How long a look-up takes.
    pub look_up: Span,
    /// Whether runs outlive their nodes.
    pub outlive: bool,
    /// How many runs fail by their node's doing before the program begins.
    pub break_early: u32,
    /// Whether new versions wait for the end of those before them.
    pub strict: bool,
    /// Whether jobs are kept by groups.
    pub guarded: bool,
    /// Whether nodes that start from now take only jobs whose input lies there.
    pub local_only: bool,
    /// Who took jobs over, and when.
    pub takeovers: Vec<(usize, Tick)>,
    /// Who accused whom.
    pub accused: Vec<(usize, usize)>,
}

impl Host {
    fn guardian(&self) -> &guardian::State {
        self.guardian.as_ref().expect("it is up")
    }
}

fn network() -> NetworkId {
    NetworkId::new("world", None)
}

impl World {
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        let mut world = Self {
            faults: Faults::default(),
            now: Tick(1_000_000),
            rng: ChaCha12Rng::seed_from_u64(seed),
            hosts: Vec::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            run_for: Span::millis(20),
            told: BTreeMap::new(),
            answers: Vec::new(),
            running: BTreeMap::new(),
            overlaps: 0,
            starts: BTreeMap::new(),
            cut: BTreeSet::new(),
            outcomes: Vec::new(),
            private: false,
            local_only: false,
            holder: None,
            look_up: Span::ZERO,
            outlive: false,
            break_early: 0,
            strict: false,
            guarded: false,
            takeovers: Vec::new(),
            accused: Vec::new(),
        };
        for index in 0..nodes {
            let mut secret = [0; 32];
            secret[0] = 1 + index as u8;
            secret[1..9].copy_from_slice(&seed.to_be_bytes());
            let signer = Signer::new(ed25519_dalek::SigningKey::from_bytes(&secret), network());
            let total = Resources { cpu_milli: 2_000, memory: 4 * GIB, disk: 10 * GIB, gpu: 0 };
            let host = Host {
                signer,
                up: false,
                life: 0,
                disk: Disk::default(),
                view: View::new(network()),
                requester: None,
                compute: None,
                guardian: None,
                guarding: BTreeSet::new(),
                quorum: BTreeMap::new(),
                total,
                labels: BTreeMap::from([("name".to_owned(), format!("node-{index}"))]),
                waking: false,
                runs: BTreeMap::new(),
            };
            world.hosts.push(host);
        }
        for index in 0..nodes {
            world.start(index);
        }
        world
    }

    pub(crate) fn id(&self, node: usize) -> NodeId {
        self.hosts[node].signer.node()
    }

    fn index(&self, id: &NodeId) -> usize {
        self.hosts.iter().position(|host| host.signer.node() == *id).expect("a host")
    }

    fn clock(&self) -> Now {
        Now { tick: self.now, unix: UnixMillis(START + self.now.0 / 1_000) }
    }

    fn push(&mut self, after: Span, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now + after, self.sequence), event);
    }

    fn advert(&self, node: usize) -> bacnode_protocol::wire::advert::SignedAdvert {
        let host = &self.hosts[node];
        Advert {
            node: host.signer.node(),
            sequence: Advert::numbered(host.life, 1),
            issued: self.clock().unix,
            ttl_s: 80_000,
            wire: (1, 2),
            engines: Engines::of(&[Engine::Wasm]),
            total: host.total,
            load_percent: 0,
            name: TextMax::truncated(&format!("node-{node}")),
            version: TextMax::default(),
            labels: LabelSketch::of(host.labels.iter().map(|(k, v)| (k.as_str(), v.as_str()))),
            addresses: ListMax::default(),
            leaving: false,
        }
        .sign(&host.signer)
    }

    /// Starts a node from its disk; everybody up knows everybody up.
    pub(crate) fn start(&mut self, node: usize) {
        let now = self.clock();
        let host = &mut self.hosts[node];
        host.up = true;
        host.life += 1;
        host.view = View::new(network());
        let advert = self.advert(node);
        for other in 0..self.hosts.len() {
            if self.hosts[other].up {
                let theirs = self.advert(other);
                let (id, me) = (self.id(other), self.id(node));
                let _ = self.hosts[other].view.offer(advert.clone(), now);
                let _ = self.hosts[node].view.offer(theirs, now);
                self.hosts[other].view.connected(me);
                self.hosts[node].view.connected(id);
            }
        }
        let (mut requester_out, mut compute_out) = (Outbox::default(), Outbox::default());
        let host = &mut self.hosts[node];
        let config = compute::Config {
            engines: Engines::of(&[Engine::Wasm]),
            total: host.total,
            labels: host.labels.clone(),
            queue_max: 32,
            per_owner_max: 32,
            local_paths: Vec::new(),
            orphan_max: Span::secs(3600),
            timeout_max: Span::secs(86_400),
            policy: compute::Policy { withholds: true, local_only: self.local_only, ..compute::Policy::default() },
        };
        let mut records = host.disk.records();
        let (signer, life) = (host.signer.clone(), host.life);
        let held = (records.held.clone(), records.wards.clone());
        let kept = (std::mem::take(&mut records.groups), std::mem::take(&mut records.kept));
        let mut guardian_out = Outbox::default();
        let patience = guardian::Config { lease: Span::secs(2), life, ..guardian::Config::default() };
        let keeper = guardian::State::restore(signer.clone(), patience, kept, now, &mut guardian_out);
        records.jobs.retain(|(job, _)| !keeper.keeps(&job.id));
        host.guardian = Some(keeper);
        host.guarding.clear();
        host.quorum.clear();
        let left = host.runs.values().cloned().collect();
        let (boot, signer) = (BootId(life), signer.clone());
        let machine = compute::State::restore(signer.clone(), boot, config, held, left, now, &mut compute_out);
        host.runs.retain(|execution, _| machine.runs().any(|run| run == *execution));
        host.compute = Some(machine);
        let (settings, view) = (requester::Config::default(), &host.view);
        let machine =
            requester::State::restore(signer, life, [7; 32], settings, records, now, view, &mut requester_out);
        host.requester = Some(machine);
        self.perform_all(node, requester_out, compute_out);
        self.perform_guardians(node, guardian_out);
        let me = self.id(node);
        for other in 0..self.hosts.len() {
            if other != node && self.hosts[other].up {
                self.requester_input(other, requester::Input::PeerUp(me));
                self.compute_input(other, compute::Input::PeerUp(me));
                self.requester_input(other, requester::Input::ViewGrew);
                let id = self.id(other);
                self.requester_input(node, requester::Input::PeerUp(id));
            }
        }
        self.wake_later(node);
    }

    /// kill -9: what is in memory is gone, what was written is not.
    pub(crate) fn crash(&mut self, node: usize) {
        self.hosts[node].up = false;
        self.hosts[node].requester = None;
        self.hosts[node].compute = None;
        self.hosts[node].guardian = None;
        if !self.outlive {
            self.hosts[node].runs.clear();
            for who in self.running.values_mut() {
                who.remove(&node);
            }
        }
        let me = self.id(node);
        for other in 0..self.hosts.len() {
            if self.hosts[other].up {
                self.hosts[other].view.disconnected(&me);
                self.requester_input(other, requester::Input::PeerDown(me));
            }
        }
    }

    /// Nothing passes between two nodes, and neither is told.
    pub(crate) fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert((a.min(b), a.max(b)));
    }

    pub(crate) fn heal(&mut self, a: usize, b: usize) {
        self.cut.remove(&(a.min(b), a.max(b)));
    }

    pub(crate) fn task() -> Task {
        Task {
            engine: EngineTask::Wasm(WasmTask {
                module: TextMax::truncated("/main.wasm"),
                entrypoint: TextMax::truncated("_start"),
                args: ListMax::default(),
                imports: ListMax::default(),
            }),
            inputs: ListMax::default(),
            outputs: ListMax::default(),
            env: ListMax::default(),
            resources: Resources { cpu_milli: 500, memory: GIB / 2, disk: 0, gpu: 0 },
            timeout_ms: 60_000,
            kind: JobKind::Batch,
            version: 1,
            priority: 0,
            constraints: ListMax::default(),
            slots: 1,
            deterministic: false,
            exclusive: false,
            network: Access::None,
            ports: ListMax::default(),
            publisher: Publisher::Content,
        }
    }

    pub(crate) fn submit(&mut self, node: usize, nonce: &[u8], task: Task, slots: u32) -> JobId {
        self.submit_spec(node, nonce, b"{}", task, slots)
    }

    /// A spec that differs makes a new version of a job without an end.
    pub(crate) fn submit_spec(&mut self, node: usize, nonce: &[u8], spec: &[u8], task: Task, slots: u32) -> JobId {
        let id = JobId::new(&self.id(node), "default", "job", nonce);
        let submission = Submission {
            request: 1,
            id,
            namespace: TextMax::truncated("default"),
            name: TextMax::truncated("job"),
            spec: spec.to_vec(),
            slots,
            strict: self.strict,
            force: false,
            lease: Lease { heartbeat_ms: 1_000, length_ms: 5_000, grace_ms: 1_000, orphan_ms: 60_000 },
            queue_timeout: Span::secs(60),
            total_timeout: None,
            elsewhere: task.content_inputs().collect(),
            task,
            only_here: false,
            waits: false,
            guarded: self.guarded,
            here: Vec::new(),
        };
        self.requester_input(node, requester::Input::Submit(Box::new(submission)));
        id
    }

    /// A node holds content of its own.
    pub(crate) fn holds(&mut self, node: usize, root: Cid, size: u64) {
        self.learns(node, compute::Holding { root, size, private: false, guarded: false });
    }

    pub(crate) fn learns(&mut self, node: usize, holding: compute::Holding) {
        self.compute_input(node, compute::Input::Holding(holding));
    }

    /// How a job stands on a node's disk.
    pub(crate) fn state_of(&self, node: usize, job: &JobId) -> Option<JobState> {
        self.hosts[node].disk.state(job)
    }

    pub(crate) fn stop(&mut self, node: usize, job: JobId) {
        self.requester_input(node, requester::Input::Stop { request: 2, job, reason: "enough".into() });
    }

    fn requester_input(&mut self, node: usize, input: requester::Input) {
        let now = self.clock();
        let host = &mut self.hosts[node];
        let Some(machine) = &mut host.requester else { return };
        let mut out = Outbox::default();
        machine.handle(input, now, &host.view, &mut out);
        if let Err(error) = machine.check() {
            panic!("requester of node {node} at {:?}: {error}", self.now);
        }
        self.perform_all(node, out, Outbox::default());
    }

    fn compute_input(&mut self, node: usize, input: compute::Input) {
        let now = self.clock();
        let Some(machine) = &mut self.hosts[node].compute else { return };
        let mut out = Outbox::default();
        machine.handle(input, now, &mut out);
        if let Err(error) = machine.check() {
            panic!("compute machine of node {node} at {:?}: {error}", self.now);
        }
        self.perform_all(node, Outbox::default(), out);
    }

    /// A node knows nobody any more but itself.
    pub(crate) fn forget_others(&mut self, node: usize) {
        let (now, advert) = (self.clock(), self.advert(node));
        self.hosts[node].view = View::new(network());
        let _ = self.hosts[node].view.offer(advert, now);
    }

    /// Runs until `until`.
    pub(crate) fn run(&mut self, span: Span) {
        let until = self.now + span;
        while let Some((&(at, sequence), _)) = self.queue.first_key_value() {
            if at > until {
                break;
            }
            let event = self.queue.remove(&(at, sequence)).expect("just seen");
            self.now = at;
            self.step(event);
        }
        self.now = until;
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, message } => {
                if !self.hosts[to].up || !self.hosts[from].up || self.cut.contains(&(from.min(to), from.max(to))) {
                    return;
                }
                let from = self.id(from);
                if let Market::Group(group) = &message {
                    self.guardian_input(to, guardian::Input::Message { from, message: (**group).clone() });
                } else {
                    self.requester_input(to, requester::Input::Message { from, message: message.clone() });
                }
                self.compute_input(to, compute::Input::Message { from, message });
            }
            Event::Synced { node, life, outputs } if self.hosts[node].life == life && self.hosts[node].up => {
                for output in outputs {
                    self.perform_deferred(node, output);
                }
            }
            Event::Ran { node, life, run } if self.hosts[node].life == life && self.hosts[node].up => {
                let outcome = if self.outcomes.is_empty() {
                    Outcome::Completed { exit_code: 0 }
                } else {
                    self.outcomes.remove(0)
                };
                self.end(node, run.execution, outcome);
            }
            Event::Fetched { node, life, execution } if self.hosts[node].life == life => {
                self.requester_input(node, requester::Input::Fetched(execution, Ok(())));
            }
            Event::Held { node, life, job, root, held } if self.hosts[node].life == life => {
                self.guardian_input(node, guardian::Input::Held { job, root, held });
            }
            Event::LookedUp { node, life, job } if self.hosts[node].life == life => {
                let holders = self.holder.iter().map(|(holder, _)| self.id(*holder)).collect();
                self.requester_input(node, requester::Input::Providers(job, holders));
            }
            Event::Wake { node } => {
                self.hosts[node].waking = false;
                if self.hosts[node].up {
                    self.wake(node);
                }
            }
            _ => {}
        }
    }

    /// Time passes; those with open awards hear from each other.
    fn wake(&mut self, node: usize) {
        let due = |at: Option<Tick>, now: Tick| at.is_some_and(|at| at <= now);
        let now = self.now;
        // What others may decide by now is known before anything is answered.
        if due(self.hosts[node].guardian.as_ref().and_then(guardian::State::deadline), now) {
            self.guardian_input(node, guardian::Input::Tick);
        }
        if due(self.hosts[node].requester.as_ref().and_then(requester::State::deadline), now) {
            self.requester_input(node, requester::Input::Tick);
        }
        if due(self.hosts[node].compute.as_ref().and_then(compute::State::deadline), now) {
            self.compute_input(node, compute::Input::Tick);
        }
        let owners: Vec<NodeId> = self.hosts[node].compute.iter().flat_map(compute::State::owners).collect();
        for owner in owners {
            let owner = self.index(&owner);
            let cut = owner == node || self.cut.contains(&(node.min(owner), node.max(owner)));
            if self.hosts[owner].up && !cut && self.rng.random_bool(0.1) {
                let me = self.id(node);
                self.requester_input(owner, requester::Input::Alive(me));
            }
        }
        let busy = self.hosts[node].requester.as_ref().is_some_and(|machine| machine.open_jobs() > 0)
            || self.hosts[node].compute.as_ref().is_some_and(|machine| machine.held_count() > 0);
        if busy || self.hosts[node].guardian.as_ref().is_some_and(|machine| machine.deadline().is_some()) {
            self.wake_later(node);
        }
    }

    pub(crate) fn used(&self, node: usize) -> Resources {
        self.hosts[node].compute.as_ref().map(compute::State::used).unwrap_or_default()
    }

    pub(crate) fn held(&self, node: usize) -> usize {
        self.hosts[node].compute.as_ref().map_or(0, compute::State::held_count)
    }

    /// Has one node say something to another.
    pub(crate) fn say(&mut self, from: usize, to: usize, message: Market) {
        let to = self.id(to);
        self.send(from, &to, message);
    }

    /// The results that wait for the word of `node`'s operator.
    pub(crate) fn withheld(&self, node: usize) -> Vec<compute::Withheld> {
        self.hosts[node].compute.as_ref().map(|compute| compute.withheld().collect()).unwrap_or_default()
    }

    /// That word.
    pub(crate) fn let_out(&mut self, node: usize, execution: ExecutionId, granted: bool) {
        self.compute_input(node, compute::Input::LetOut { execution, granted });
    }

    /// The nodes that run something now, with the slots and versions that they run.
    pub(crate) fn runners(&self) -> Vec<(usize, u32, u32)> {
        let runs = self.running.iter().flat_map(|((_, slot, version), who)| who.iter().map(|n| (*n, *slot, *version)));
        let mut runs: Vec<_> = runs.collect();
        runs.sort_unstable();
        runs
    }

    /// The node that runs a job of one slot now.
    pub(crate) fn holder_of(&self, job: &JobId) -> Option<usize> {
        let mut runs = self.running.iter().filter(|((of, ..), _)| of == job).flat_map(|(_, who)| who);
        runs.next().copied()
    }

    /// A node's operator gives it a label; it is started again.
    pub(crate) fn label(&mut self, node: usize, key: &str, value: &str) {
        self.hosts[node].labels.insert(key.into(), value.into());
        self.crash(node);
        self.start(node);
    }

    /// A node's operator empties it.
    pub(crate) fn drain(&mut self, node: usize) {
        self.compute_input(node, compute::Input::Drain(true));
    }

    /// The node that runs something now.
    pub(crate) fn runner(&self) -> Option<usize> {
        self.running.values().flatten().next().copied()
    }

    pub(crate) fn resize(&mut self, node: usize, total: Resources) {
        self.hosts[node].total = total;
        self.start(node);
    }
}
