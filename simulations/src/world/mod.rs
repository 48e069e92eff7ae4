//! The trial itself: honest and dishonest nodes with the real machines, in virtual time.

mod adverts;
mod disk;
mod effects;
mod event;
mod evil;
mod faults;
mod groups;
mod host;
mod life;
mod link;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bacnode_protocol::compute;
use bacnode_protocol::content::Cid;
use bacnode_protocol::guardian;
use bacnode_protocol::id::{ExecutionId, JobId, NetworkId, NodeId};
use bacnode_protocol::limits::ADVERT_PERIOD_MIN;
use bacnode_protocol::requester;
use bacnode_protocol::wire::market::Market;
use bacnode_protocol::wire::signed::Signer;
use rand::rngs::ChaCha12Rng;
use rand::{RngExt as _, SeedableRng as _};

pub(crate) use self::disk::Disk;
use self::event::{Event, Events};
pub(crate) use self::host::Host;
use self::link::Links;
use crate::check::{Books, Invariant, Violation};
use crate::plan::{Evil, MILLI, Micros, Plan, SECOND};
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

/// What waits for a sync.
enum Deferred {
    Requester(requester::Output),
    Compute(compute::Output),
    Guardian(guardian::Output),
    /// What waits for another disk, too.
    Quorum([u8; 5], u64, requester::Output),
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
    events: Events,
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
    /// Jobs of which a new version was taken, and those whose end was asked for.
    updated: BTreeSet<usize>,
    stopping: BTreeSet<usize>,
    /// Machines that are gone for good.
    pub(crate) gone: BTreeSet<usize>,
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
            events: Events::default(),
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
            updated: BTreeSet::new(),
            stopping: BTreeSet::new(),
            gone: BTreeSet::new(),
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
            self.books.wavering |= self.hosts[index].plan.evil == Some(Evil::Waver);
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
            if let Some(after) = job.update {
                self.push(job.at + after, Event::Update { job: index });
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
        self.events.push(self.now + after, event);
    }

    /// Runs the trial to its end, or to the first violation.
    pub(crate) fn run(&mut self) -> Result<(), Violation> {
        let end = self.plan.safety + self.patience();
        while let Some((at, event)) = self.events.pop() {
            if at > end {
                break;
            }
            self.now = at;
            self.books.at(self.now);
            if let Some(host) = event.host()
                && self.hosts[host].frozen_until > self.now
            {
                let after = self.hosts[host].frozen_until - self.now;
                self.push(after, event);
                continue;
            }
            self.stats.events += 1;
            self.event(event);
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
            Event::Hold { host, life, replica, holders, tries } => self.hold(host, life, replica, holders, tries),
            Event::Providers { host, life, job } => self.providers(host, life, job),
            Event::Considered { host, life, number, refused } => self.considered(host, life, number, refused),
            Event::Announce { host } => self.announce(host),
            Event::Heard { host, advert } => self.heard_advert(host, &advert),
            Event::Exchange { host } => self.exchange(host),
            Event::LinkUp { a, b } => self.link_up(a, b),
            Event::LinkDown { a, b } => self.link_down(a, b),
            Event::Submit { job } => self.submit(job),
            Event::Update { job } => self.update(job),
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

    fn cid(execution: &ExecutionId) -> Cid {
        Cid::of(bacnode_protocol::content::Codec::Raw, &execution.0)
    }
}
