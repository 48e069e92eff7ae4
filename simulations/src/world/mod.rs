//! The trial itself: honest and dishonest nodes with the real machines, in virtual time.

mod disk;
mod effects;
mod evil;
mod faults;
mod host;
mod link;
mod work;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::rc::Rc;

use bacnode_protocol::compute::{self, Ended};
use bacnode_protocol::content::Cid;
use bacnode_protocol::id::{BootId, ExecutionId, JobId, NetworkId, NodeId};
use bacnode_protocol::limits::{ADVERT_PERIOD_MIN, ADVERTS_PER_SECOND};
use bacnode_protocol::outbox::Outbox;
use bacnode_protocol::requester;
use bacnode_protocol::view::{Change, View};
use bacnode_protocol::wire::advert::{Advert, SignedAdvert};
use bacnode_protocol::wire::bounded::{BytesMax, ListMax, TextMax};
use bacnode_protocol::wire::codec;
use bacnode_protocol::wire::market::{Market, Phase};
use bacnode_protocol::wire::signed::{SignatureBytes, Signer};
use bacnode_protocol::wire::task::{Engine, Engines};
use rand::rngs::ChaCha12Rng;
use rand::{RngExt as _, SeedableRng as _};

pub(crate) use self::disk::Disk;
pub(crate) use self::host::Host;
use self::link::Links;
use crate::check::{Books, Invariant, Violation};
use crate::plan::{MILLI, Micros, Plan, SECOND};
use crate::stats::Stats;
use crate::trace::Trace;

/// Between two adverts of a node in a small network.
const ADVERT_EVERY: Micros = ADVERT_PERIOD_MIN.0;
/// Between two view exchanges of a node.
const EXCHANGE_EVERY: Micros = 15 * SECOND;
/// How often holders and owners say that they are alive.
const ALIVE_EVERY: Micros = SECOND;
/// How often the checker looks at everything.
const LOOK_EVERY: Micros = 500 * MILLI;

/// What is to happen.
#[derive(Debug)]
enum Event {
    Deliver { from: usize, to: usize, message: Rc<Market> },
    Alive { from: usize, to: usize },
    SayAlive { host: usize },
    Synced { host: usize, life: u64, step: u64 },
    Wake { host: usize },
    Phase { host: usize, life: u64, execution: ExecutionId, phase: Phase },
    Ends { host: usize, life: u64, serial: u64, execution: ExecutionId, ended: Box<Ended> },
    Expire { host: usize, serial: u64, execution: ExecutionId },
    Fetched { host: usize, life: u64, fetch: Box<requester::Fetch>, tries: u32 },
    Providers { host: usize, life: u64, job: JobId },
    Announce { host: usize },
    Heard { host: usize, advert: Rc<(Advert, SignedAdvert)> },
    Exchange { host: usize },
    LinkUp { a: usize, b: usize },
    LinkDown { a: usize, b: usize },
    Submit { job: usize },
    Stop { job: usize },
    Fault { index: usize },
    Over { index: usize },
    Back { host: usize },
    Thaw { host: usize },
    FlapDown { host: usize, left: u32, each: Micros },
    FlapUp { host: usize, left: u32, each: Micros },
    Mischief { host: usize },
    Calm,
    Look,
}

impl Event {
    /// Whose turn it is: a node that sleeps, or whose disk is full, takes it later.
    fn host(&self) -> Option<usize> {
        match self {
            Self::Deliver { to, .. } | Self::Alive { to, .. } => Some(*to),
            Self::SayAlive { host }
            | Self::Synced { host, .. }
            | Self::Wake { host }
            | Self::Phase { host, .. }
            | Self::Ends { host, .. }
            | Self::Fetched { host, .. }
            | Self::Providers { host, .. }
            | Self::Announce { host }
            | Self::Heard { host, .. }
            | Self::Exchange { host }
            | Self::Mischief { host } => Some(*host),
            Self::LinkUp { a, .. } | Self::LinkDown { a, .. } => Some(*a),
            _ => None,
        }
    }
}

struct Scheduled {
    at: Micros,
    sequence: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// What waits for a sync.
enum Deferred {
    Requester(requester::Output),
    Compute(compute::Output),
}

/// What one host's log is doing.
#[derive(Default)]
struct Log {
    syncing: bool,
    waiting: std::collections::VecDeque<(u64, Deferred)>,
}

/// A trial that runs.
pub(crate) struct World<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) now: Micros,
    rng: ChaCha12Rng,
    queue: BinaryHeap<Reverse<Scheduled>>,
    sequence: u64,
    pub(crate) hosts: Vec<Host>,
    logs: Vec<Log>,
    by_id: BTreeMap<NodeId, usize>,
    links: Links,
    /// Messages that are held up.
    clogged: Vec<(usize, usize, Rc<Market>)>,
    pub(crate) jobs: Vec<JobId>,
    by_job: BTreeMap<JobId, usize>,
    pub(crate) books: Books,
    pub(crate) trace: Trace,
    pub(crate) stats: Stats,
    serial: u64,
    calm: bool,
    /// Machines that are frozen because they sleep.
    asleep: BTreeSet<usize>,
    /// Nodes at which jobs are submitted.
    owners: BTreeSet<usize>,
    /// When the views were last seen to differ, after the calm.
    last_apart: Micros,
    apart: String,
}

fn network() -> NetworkId {
    NetworkId::new("simulation", None)
}

impl<'a> World<'a> {
    pub(crate) fn new(plan: &'a Plan, trace: Trace) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(plan.seed ^ 0x5eed);
        let mut hosts = Vec::new();
        for (index, node) in plan.nodes.iter().enumerate() {
            let mut secret = [0; 32];
            secret[..8].copy_from_slice(&plan.seed.to_be_bytes());
            secret[8..16].copy_from_slice(&(index as u64).to_be_bytes());
            let signer = Signer::new(ed25519_dalek::SigningKey::from_bytes(&secret), network());
            hosts.push(Host::new(node.clone(), signer, rng.random_range(1_000_000..1 << 40)));
        }
        let by_id = hosts.iter().enumerate().map(|(index, host)| (host.id, index)).collect();
        let mut world = Self {
            plan,
            now: 0,
            rng,
            queue: BinaryHeap::new(),
            sequence: 0,
            logs: plan.nodes.iter().map(|_| Log::default()).collect(),
            by_id,
            links: Links::new(plan),
            clogged: Vec::new(),
            jobs: Vec::new(),
            by_job: BTreeMap::new(),
            books: Books::default(),
            trace,
            stats: Stats::default(),
            serial: 0,
            calm: false,
            asleep: BTreeSet::new(),
            owners: plan.jobs.iter().map(|job| job.owner).collect(),
            last_apart: 0,
            apart: String::new(),
            hosts,
        };
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        for index in 0..self.hosts.len() {
            let at = self.rng.random_range(0..200 * MILLI);
            self.push(at, Event::Back { host: index });
            let at = self.rng.random_range(0..EXCHANGE_EVERY);
            self.push(at, Event::Exchange { host: index });
            let at = self.rng.random_range(0..ALIVE_EVERY);
            self.push(at, Event::SayAlive { host: index });
            if self.hosts[index].plan.evil.is_some() {
                self.push(SECOND, Event::Mischief { host: index });
            }
        }
        for (index, job) in self.plan.jobs.iter().enumerate() {
            let owner = &self.hosts[job.owner].id;
            let id = JobId::new(owner, "default", "job", &(index as u64).to_be_bytes());
            self.jobs.push(id);
            self.by_job.insert(id, index);
            self.push(job.at, Event::Submit { job: index });
            if let Some(after) = job.stop {
                self.push(job.at + after, Event::Stop { job: index });
            }
        }
        for (index, fault) in self.plan.faults.iter().enumerate() {
            self.push(fault.at, Event::Fault { index });
        }
        self.push(self.plan.safety, Event::Calm);
        self.push(LOOK_EVERY, Event::Look);
    }

    /// `event` happens `after` so long.
    fn push(&mut self, after: Micros, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Scheduled { at: self.now + after, sequence: self.sequence, event }));
    }

    /// Runs the trial to its end, or to the first violation.
    pub(crate) fn run(&mut self) -> Result<(), Violation> {
        let end = self.plan.safety + self.patience();
        while let Some(Reverse(next)) = self.queue.pop() {
            if next.at > end {
                break;
            }
            self.now = next.at;
            self.books.at(self.now);
            if let Some(host) = next.event.host()
                && self.hosts[host].frozen_until > self.now
            {
                let after = self.hosts[host].frozen_until - self.now;
                self.push(after, next.event);
                continue;
            }
            self.stats.events += 1;
            self.event(next.event);
            if let Some(violation) = self.books.violation.take() {
                return Err(violation);
            }
            if self.calm && self.is_at_rest() {
                return self.judge();
            }
        }
        self.judge()
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, message } => self.deliver(from, to, &message),
            Event::Alive { from, to } => {
                if self.hosts[to].up && self.hosts[from].up && self.links.passes(from, to) {
                    let from = self.hosts[from].id;
                    self.requester_input(to, requester::Input::Alive(from));
                }
            }
            Event::SayAlive { host } => self.say_alive(host),
            Event::Synced { host, life, step } => self.synced(host, life, step),
            Event::Wake { host } => self.wake(host),
            Event::Phase { host, life, execution, phase } => {
                if self.hosts[host].life == life && self.hosts[host].runs.contains_key(&execution) {
                    self.compute_input(host, compute::Input::Phase(execution, phase));
                }
            }
            Event::Ends { host, life, serial, execution, ended } => {
                self.run_ends(host, life, serial, execution, *ended);
            }
            Event::Expire { host, serial, execution } => self.expire(host, serial, execution),
            Event::Fetched { host, life, fetch, tries } => self.fetched(host, life, fetch, tries),
            Event::Providers { host, life, job } => self.providers(host, life, job),
            Event::Announce { host } => self.announce(host),
            Event::Heard { host, advert } => self.heard_advert(host, &advert),
            Event::Exchange { host } => self.exchange(host),
            Event::LinkUp { a, b } => self.link_up(a, b),
            Event::LinkDown { a, b } => self.link_down(a, b),
            Event::Submit { job } => self.submit(job),
            Event::Stop { job } => self.stop(job),
            Event::Fault { index } => self.fault(index),
            Event::Over { index } => self.fault_over(index),
            Event::Back { host } => self.start(host),
            Event::Thaw { host } => self.thaw(host),
            Event::FlapDown { host, left, each } => self.flap_down(host, left, each),
            Event::FlapUp { host, left, each } => self.flap_up(host, left, each),
            Event::Mischief { host } => self.mischief(host),
            Event::Calm => self.calm(),
            Event::Look => self.look(),
        }
    }

    /// A node's process comes up, from what its disk has.
    fn start(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.up {
            return;
        }
        let seconds = host.clock.now(self.now).unix.0 / 1_000;
        let records = host.disk.open(seconds);
        host.behind |= host.disk.epoch <= host.epoch_max;
        host.epoch_max = host.epoch_max.max(host.disk.epoch);
        if host.is_honest() {
            self.books.found(&host.disk);
            self.books.open_again(&records.jobs.iter().map(|(job, _)| job.id).collect());
        }
        let now = host.clock.now(self.now);
        host.up = true;
        host.life += 1;
        host.view = View::new(network());
        let (mut requester_out, mut compute_out) = (Outbox::default(), Outbox::default());
        let config = compute::Config {
            engines: Engines::of(&[Engine::Wasm]),
            total: host.total,
            queue_max: 32,
            per_owner_max: 32,
            local_paths: Vec::new(),
            orphan_max: crate::check::ORPHAN_MAX,
            timeout_max: crate::check::TIMEOUT_MAX,
        };
        let (signer, epoch) = (host.signer.clone(), host.disk.epoch);
        let held = records.held.clone();
        host.kept = held.iter().filter_map(|held| Some((held.execution, work::root_of(held)?))).collect();
        let open: BTreeSet<JobId> = records.jobs.iter().map(|(job, _)| job.id).collect();
        let filled = records.executions.iter().filter(|execution| execution.accepted).count();
        let compute = compute::State::restore(signer.clone(), BootId(epoch), config, held, now, &mut compute_out);
        let mut seed = [0; 32];
        self.rng.fill(&mut seed[..]);
        let settings = requester::Config::default();
        let machine =
            requester::State::restore(signer, epoch, seed, settings, records, now, &host.view, &mut requester_out);
        let restored: BTreeSet<JobId> = machine.jobs().collect();
        if host.is_honest() && !restored.is_subset(&open) {
            self.books.fail(Invariant::S14RecoveryEquality, "a job came back that had ended");
        }
        // Only jobs whose every slot is filled may end by the restart itself.
        if host.is_honest() && restored.len() + filled < open.len() {
            self.books.fail(Invariant::S14RecoveryEquality, "an open job did not come back");
        }
        host.compute = Some(compute);
        host.requester = Some(machine);
        self.logs[index] = Log::default();
        self.trace.note(self.now, (index, None), "start", &epoch.to_le_bytes(), || format!("starts, epoch {epoch}"));
        self.announce_self(index);
        self.perform(index, requester_out, compute_out);
        for other in 0..self.hosts.len() {
            let known = other != index && self.knows_each_other(index, other);
            if known && self.hosts[other].up && self.links.connects(index, other) {
                self.connect_later(index, other);
            }
        }
        // Joins are told at once; in a lean trial everybody has been there for a while.
        let soon = if self.plan.lean { 2 * SECOND } else { SECOND };
        let jitter = self.rng.random_range(0..soon);
        self.push(jitter, Event::Announce { host: index });
        self.wake_later(index);
    }

    /// Whether two nodes have a connection of their own: in a lean trial only owners have.
    fn knows_each_other(&self, a: usize, b: usize) -> bool {
        !self.plan.lean || self.owners.contains(&a) || self.owners.contains(&b)
    }

    /// Its own advert is part of a node's picture from the beginning.
    fn announce_self(&mut self, index: usize) {
        let advert = self.make_advert(index);
        let now = self.hosts[index].clock.now(self.now);
        let host = &mut self.hosts[index];
        host.advert = Some(advert.1.clone());
        host.view.take(advert.0.clone(), advert.1.clone(), now);
    }

    fn make_advert(&mut self, index: usize) -> Rc<(Advert, SignedAdvert)> {
        let (real, period) = (self.plan.real_signatures, self.advert_period());
        let host = &mut self.hosts[index];
        host.adverts += 1;
        let advert = Advert {
            node: host.id,
            sequence: Advert::numbered(host.disk.epoch, host.adverts),
            issued: host.clock.now(self.now).unix,
            ttl_s: u32::try_from(period * 3 / SECOND).unwrap_or(45),
            wire: (1, 1),
            engines: Engines::of(&[Engine::Wasm]),
            total: host.total,
            load_percent: host.compute.as_ref().map_or(0, |compute| compute.load().percent),
            name: TextMax::truncated(&format!("n{index}")),
            version: TextMax::default(),
            labels_hash: [0; 8],
            addresses: ListMax::default(),
            leaving: false,
        };
        let signed = if real {
            advert.clone().sign(&host.signer)
        } else {
            // Checking each advert at each node is most of the time, and the same every time.
            let bytes = BytesMax::new(codec::encode(&advert)).unwrap_or_default();
            SignedAdvert { bytes, signature: SignatureBytes([0; 64]) }
        };
        Rc::new((advert, signed))
    }

    /// The whole network says at most so much a second.
    fn advert_period(&self) -> Micros {
        Advert::period(self.hosts.len(), ADVERT_PERIOD_MIN, ADVERTS_PER_SECOND).0
    }

    fn announce(&mut self, index: usize) {
        let period = self.advert_period();
        let jitter = self.rng.random_range(0..period / 10);
        if !self.hosts[index].up {
            return;
        }
        self.push(period - jitter, Event::Announce { host: index });
        let tick = self.hosts[index].clock.tick(self.now);
        self.hosts[index].view.expire(tick);
        self.announce_self(index);
        let advert = self.make_advert(index);
        for other in 0..self.hosts.len() {
            let hears = !self.plan.lean || self.owners.contains(&other);
            if other == index || !hears || !self.hosts[other].up || !self.links.passes(index, other) {
                continue;
            }
            let (arrivals, count) = self.links.arrivals(index, other, &mut self.rng);
            // Gossip goes by several ways: one loss is not the end of it.
            let after = if count == 0 { self.links.distance(index, other) * 4 + 200 * MILLI } else { arrivals[0] };
            self.stats.advert_bytes += 300;
            self.push(after, Event::Heard { host: other, advert: Rc::clone(&advert) });
        }
    }

    fn heard_advert(&mut self, index: usize, advert: &(Advert, SignedAdvert)) {
        let host = &mut self.hosts[index];
        let now = host.clock.now(self.now);
        if !host.up || !advert.0.is_current(now.unix) {
            return;
        }
        let change = if self.plan.real_signatures {
            host.view.offer(advert.1.clone(), now).map(|(_, change)| change)
        } else {
            Ok(host.view.take(advert.0.clone(), advert.1.clone(), now))
        };
        if change == Ok(Change::Joined) {
            self.requester_input(index, requester::Input::ViewGrew);
        }
    }

    /// Two nodes compare what they know, by the real comparison.
    fn exchange(&mut self, index: usize) {
        self.push(EXCHANGE_EVERY, Event::Exchange { host: index });
        if !self.hosts[index].up || self.plan.lean {
            return;
        }
        let Some(partner) = self.hosts[index].view.random_connected(&mut self.rng) else { return };
        let partner = self.by_id[&partner];
        let reached = self.hosts[partner].up && self.hosts[partner].frozen_until <= self.now;
        if !reached || !self.links.connects(index, partner) {
            return;
        }
        for (asks, answers) in [(index, partner), (partner, index)] {
            let known = self.hosts[asks].view.digest(&mut self.rng);
            let (adverts, _) = self.hosts[answers].view.compare(&known, &mut self.rng);
            self.stats.view_bytes += known.len() as u64 * 40 + adverts.len() as u64 * 300;
            let nodes: Vec<Advert> = adverts
                .iter()
                .filter_map(|signed| codec::decode::<Advert>(&signed.bytes, signed.bytes.len()).ok())
                .collect();
            for (advert, signed) in nodes.into_iter().zip(adverts) {
                self.heard_advert(asks, &(advert, signed));
            }
        }
    }

    /// The checker looks at what no step shows.
    fn look(&mut self) {
        self.push(LOOK_EVERY, Event::Look);
        self.books.forget_old(&self.hosts);
        for index in 0..self.hosts.len() {
            let host = &self.hosts[index];
            // A frozen machine's programs are frozen, too; one whose disk is full has only its driver frozen.
            if !host.up || !host.is_honest() {
                continue;
            }
            let late = host.runs.values().find(|running| {
                running.run.task.exclusive
                    && !running.stopping
                    && self.books.is_expired(host, index, &running.run.execution)
            });
            if let Some(late) = late.filter(|_| !self.is_asleep(index)) {
                let text = format!("n{index} runs {} past its owner's word", late.run.execution);
                self.books.fail(Invariant::S4SelfStop, text);
            }
        }
        if self.calm
            && let Some((index, lacks)) = self.differing()
        {
            self.last_apart = self.now;
            self.apart = format!("n{index} does not know n{lacks}");
        }
    }

    /// What a node is in the middle of.
    fn stages(&self, index: usize) -> Vec<usize> {
        let host = &self.hosts[index];
        let requester = host.requester.as_ref().map(requester::State::stages).unwrap_or_default();
        let mut stages: Vec<usize> = (1..).zip(requester).filter(|(_, some)| *some).map(|(stage, _)| stage).collect();
        if !host.runs.is_empty() {
            stages.push(5);
        }
        if !host.kept.is_empty() {
            stages.push(6);
        }
        if stages.is_empty() {
            stages.push(0);
        }
        stages
    }

    fn is_asleep(&self, index: usize) -> bool {
        self.hosts[index].frozen_until > self.now && self.asleep.contains(&index)
    }

    /// A node that is up, and one that it should know and does not.
    fn differing(&self) -> Option<(usize, usize)> {
        if self.plan.lean {
            return None;
        }
        let up = || self.hosts.iter().enumerate().filter(|(_, host)| host.up);
        up().find_map(|(index, host)| {
            let lacks = up().find(|(_, other)| !other.behind && host.view.get(&other.id).is_none());
            lacks.map(|(lacks, _)| (index, lacks))
        })
    }

    fn cid(execution: &ExecutionId) -> Cid {
        Cid::of(bacnode_protocol::content::Codec::Raw, &execution.0)
    }
}
