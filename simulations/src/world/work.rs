//! What the machines' effects do in this world: users, programs, transfers.

use std::collections::BTreeSet;

use bacnode_protocol::compute::{self, Ended, Run};
use bacnode_protocol::content::Cid;
use bacnode_protocol::id::{ExecutionId, JobId};
use bacnode_protocol::job::state::JobState;
use bacnode_protocol::limits::{ATTEMPTS_MAX, RESEND_MAX};
use bacnode_protocol::requester::{self, Submission};
use bacnode_protocol::time::{Span, Tick};
use bacnode_protocol::wire::bounded::{BytesMax, ListMax, TextMax};
use bacnode_protocol::wire::constraint::{Constraint, Operator};
use bacnode_protocol::wire::market::{FailureKind, InlineBlock, Lease, Outcome, Phase};
use bacnode_protocol::wire::s3::Publisher;
use bacnode_protocol::wire::task::{Access, EngineTask, Input, JobKind, Resources, Source, Task, WasmTask};
use rand::RngExt as _;

use super::host::Running;
use super::{Event, Host, World};
use crate::check::{Invariant, Violation};
use crate::plan::{Ends, Evil, FOREVER, JobPlan, Kind, MILLI, Micros, SECOND};

/// How often an absent maker is tried before its result is given up.
const FETCH_TRIES: u32 = 3;

fn task(plan: &JobPlan, job: usize) -> Task {
    let input = Input {
        source: Source::Content(Cid::of(bacnode_protocol::content::Codec::Raw, &job.to_be_bytes())),
        target: TextMax::truncated("/in"),
    };
    Task {
        engine: EngineTask::Wasm(WasmTask {
            module: TextMax::truncated("/main.wasm"),
            entrypoint: TextMax::truncated("_start"),
            args: ListMax::default(),
            imports: ListMax::default(),
        }),
        inputs: ListMax::truncated(plan.inputs.then_some(input)),
        outputs: ListMax::default(),
        env: ListMax::default(),
        resources: Resources { cpu_milli: plan.cpu, memory: plan.memory, disk: 0, gpu: 0 },
        timeout_ms: plan.timeout_ms,
        kind: plan.kind.into(),
        version: 1,
        priority: plan.priority,
        constraints: ListMax::truncated(plan.picky.then(|| Constraint {
            key: TextMax::truncated("even"),
            operator: Operator::In,
            values: ListMax::truncated([TextMax::truncated("yes")]),
        })),
        slots: plan.slots,
        deterministic: false,
        exclusive: plan.exclusive || JobKind::from(plan.kind).is_endless(),
        network: Access::None,
        ports: ListMax::default(),
        publisher: Publisher::Content,
    }
}

fn lease([heartbeat, length, grace, orphan]: [u32; 4]) -> Lease {
    Lease {
        heartbeat_ms: heartbeat * 1_000,
        length_ms: length * 1_000,
        grace_ms: grace * 1_000,
        orphan_ms: orphan * 1_000,
    }
}

impl World<'_> {
    /// A user hands a job in, and again until it is acknowledged.
    pub(super) fn submit(&mut self, job: usize) {
        let (plan, id) = (&self.plan.jobs[job], self.jobs[job]);
        // What its user has told to stop is not handed in again.
        if self.books.acknowledged.contains(&id) || self.stopping.contains(&job) {
            return;
        }
        self.push(5 * SECOND, Event::Submit { job });
        let owner = plan.owner;
        if !self.hosts[owner].up || self.hosts[owner].frozen_until > self.now {
            return;
        }
        // As the API does: what is known is not handed in again. Whether it is on the disk the user learns from its end.
        let kept = self.hosts[owner].guardian.as_ref().is_some_and(|guardian| guardian.keeps(&id));
        // Of a guarded job its owner's own records say nothing: what was not on two disks may have come to nothing.
        if (if plan.guarded { kept } else { self.hosts[owner].disk.knows_job(&id) })
            && !self.hosts[owner].requester.as_ref().is_some_and(|r| r.has_job(&id))
        {
            return;
        }
        if plan.guarded {
            self.guardian_input(owner, bacnode_protocol::guardian::Input::Prepare);
        }
        let submission = self.submission(job, b"{}");
        if plan.guarded && !submission.guarded {
            // Too few others are known yet, or its own jobs are led elsewhere: the user is told, and tries again.
            return;
        }
        self.stats.submitted(self.now, id);
        self.trace.note(self.now, (owner, None), "submit", &id.0, || format!("a user submits {id}"));
        self.requester_input(owner, requester::Input::Submit(Box::new(submission)));
    }

    fn submission(&self, job: usize, spec: &[u8]) -> Submission {
        let plan = &self.plan.jobs[job];
        let host = &self.hosts[plan.owner];
        let guarded = plan.guarded && host.guardian.as_ref().is_some_and(|g| g.can_keep(&host.view).is_ok());
        let elsewhere =
            if plan.inputs { vec![Cid::of(bacnode_protocol::content::Codec::Raw, b"input")] } else { Vec::new() };
        Submission {
            request: (job as u64) << 1,
            id: self.jobs[job],
            namespace: TextMax::truncated("default"),
            name: TextMax::truncated("job"),
            spec: spec.to_vec(),
            task: task(plan, job),
            slots: plan.slots,
            strict: plan.exclusive,
            force: false,
            lease: lease(plan.lease),
            queue_timeout: Span(plan.queue_timeout),
            total_timeout: plan.total_timeout.map(Span),
            elsewhere,
            only_here: false,
            waits: false,
            guarded,
            here: Vec::new(),
        }
    }

    /// A user submits a new version of a job, and again until it is there.
    pub(super) fn update(&mut self, job: usize) {
        let (owner, id) = (self.plan.jobs[job].owner, self.jobs[job]);
        if self.books.ended.contains_key(&id) || self.books.wiped.contains(&owner) || self.updated.contains(&job) {
            return;
        }
        self.push(5 * SECOND, Event::Update { job });
        let owner = self.decider(job);
        let host = &self.hosts[owner];
        let open = host.requester.as_ref().is_some_and(|machine| machine.has_job(&id));
        if host.up && host.frozen_until <= self.now && open {
            let submission = self.submission(job, b"{new}");
            self.requester_input(owner, requester::Input::Submit(Box::new(submission)));
        }
    }

    /// Whether everything that is to be kept running runs: of a service each slot, of a daemon one on each node that
    /// matches, and nothing else.
    fn check_kept_running(&mut self, job: usize) {
        let (plan, id) = (&self.plan.jobs[job], self.jobs[job]);
        let honest = self.hosts.iter().all(Host::is_honest);
        let up = self.hosts.iter().all(|host| host.up) && self.gone.is_empty();
        // Where others' work waits, its own may have to wait, too.
        let full = self.hosts.iter().any(|host| host.compute.as_ref().is_none_or(|compute| compute.load().queued > 0));
        let lost = full || self.books.wiped.contains(&plan.owner) || !self.books.acknowledged.contains(&id);
        if plan.run != FOREVER || !honest || !up || lost || self.books.ended.contains_key(&id) {
            return;
        }
        let matches = |node: &usize| !plan.picky || super::adverts::labels(*node).contains_key("even");
        let wanted: BTreeSet<u64> = match plan.kind {
            Kind::Daemon => (0..self.hosts.len()).filter(matches).map(|node| node as u64).collect(),
            _ => (0..plan.slots).map(u64::from).collect(),
        };
        let mut runs = BTreeSet::new();
        let running: Vec<_> = self.books.runs_of(&id).collect();
        for (slot, node, execution) in running {
            let Some(running) = self.hosts[node].runs.get(&execution) else { continue };
            let key = if plan.kind == Kind::Daemon { node as u64 } else { u64::from(slot) };
            let old = self.updated.contains(&job) && running.run.task.version == 1;
            if !runs.insert(key) || old || !matches(&node) {
                let text =
                    format!("{id} runs {execution} on n{node}, which is one too many, too old or in the wrong place");
                self.books.fail(Invariant::L6KeptRunning, text);
                return;
            }
        }
        // A service of which no node could run any may have failed, long before.
        if runs != wanted {
            let text = format!("{id} (job {job}) runs at {runs:?}, not at {wanted:?}");
            self.books.fail(Invariant::L6KeptRunning, text);
        }
    }

    pub(super) fn stop(&mut self, job: usize) {
        let id = self.jobs[job];
        let endless = JobKind::from(self.plan.jobs[job].kind).is_endless();
        if endless && !self.books.ended.contains_key(&id) && self.stopping.insert(job) && self.now > self.plan.safety {
            self.check_kept_running(job);
        }
        let owner = self.decider(job);
        if !self.hosts[owner].up || self.hosts[owner].frozen_until > self.now {
            return self.push(5 * SECOND, Event::Stop { job });
        }
        if endless && !self.books.ended.contains_key(&id) && !self.books.wiped.contains(&owner) {
            // Until it has stopped: it would go on for ever.
            self.push(5 * SECOND, Event::Stop { job });
        }
        let request = (job as u64) << 1 | 1;
        self.requester_input(owner, requester::Input::Stop { request, job: id, reason: "enough".into() });
    }

    pub(super) fn providers(&mut self, index: usize, life: u64, job: JobId) {
        if self.hosts[index].life == life {
            let count = self.hosts.len();
            let near = (0..2).map(|_| self.rng.random_range(0..count)).map(|near| self.hosts[near].id).collect();
            self.requester_input(index, requester::Input::Providers(job, near));
        }
    }

    pub(super) fn start_run(&mut self, index: usize, run: Run) {
        self.serial += 1;
        let (serial, life) = (self.serial, self.hosts[index].life);
        self.trace.note(self.now, (index, None), "run", &run.execution.0, || format!("runs {}", run.execution));
        self.stats.runs += 1;
        *self.stats.runs_of.entry(index).or_default() += 1;
        if run.until <= self.hosts[index].clock.tick(self.now) {
            // The start had to wait, too long: the executor refuses what has expired.
            let ended = Box::new(ended(&run.execution, Outcome::Cancelled, false));
            return self.compute_input(index, bacnode_protocol::compute::Input::Ended(run.execution, ended));
        }
        if self.hosts[index].is_honest() {
            self.books.started(&self.hosts[index], index, &run);
            self.check_rivals(index, &run);
        }
        let prepare = self.rng.random_range(0..50 * MILLI);
        self.push(prepare, Event::Phase { host: index, life, execution: run.execution, phase: Phase::Running });
        let plan = self.by_job.get(&run.job).map(|job| self.plan.jobs[*job].clone());
        let bad = !self.calm && self.rng.random_range(0..1_000) < self.plan.bad_runs;
        let execution = run.execution;
        let (after, outcome) = self.draw_end(index, &run, plan.as_ref(), bad);
        let until = run.until;
        let running = Running { run, stopping: false, serial, until, dead: false, excused: false };
        self.hosts[index].runs.insert(execution, running);
        self.expire_later(index, serial, execution, until);
        if let Some(after) = after {
            let inline = plan.as_ref().is_some_and(|plan| plan.inline);
            let ended = Box::new(ended(&execution, outcome, inline));
            self.push(prepare + after, Event::Ends { host: index, life, serial, execution, ended });
        }
    }

    /// A run that outlived its process goes on.
    pub(super) fn resume_run(&mut self, index: usize, run: &Run) {
        self.serial += 1;
        let (serial, life, execution) = (self.serial, self.hosts[index].life, run.execution);
        self.trace.note(self.now, (index, None), "resume", &execution.0, || format!("goes on with {execution}"));
        self.stats.resumed += 1;
        let Some(running) = self.hosts[index].runs.get_mut(&execution) else { return };
        running.serial = serial;
        let until = running.until;
        self.expire_later(index, serial, execution, until);
        let plan = self.by_job.get(&run.job).map(|job| self.plan.jobs[*job].clone());
        let (after, outcome) = self.draw_end(index, run, plan.as_ref(), false);
        if let Some(takes) = after {
            // Of which some lies behind it.
            let after = self.rng.random_range(0..=takes);
            let inline = plan.as_ref().is_some_and(|plan| plan.inline);
            let ended = Box::new(ended(&execution, outcome, inline));
            self.push(after, Event::Ends { host: index, life, serial, execution, ended });
        }
    }

    /// The operator's program looks at an ask; now and then it says no, or nothing at all.
    pub(super) fn consider(&mut self, host: usize, number: u64) {
        let (after, luck) = (self.rng.random_range(0..200 * MILLI), self.rng.random_range(0..100));
        if luck > 1 {
            let life = self.hosts[host].life;
            self.push(after, Event::Considered { host, life, number, refused: luck < 10 });
        }
    }

    pub(super) fn considered(&mut self, host: usize, life: u64, number: u64, refused: bool) {
        if self.hosts[host].life == life && self.hosts[host].up {
            let refusal = compute::Refusal { reason: "the operator says no".into(), later: true };
            let found = if refused { Err(refusal) } else { Ok(compute::Facts::default()) };
            self.compute_input(host, compute::Input::Considered(number, found));
        }
    }

    /// When a run ends by itself, if it does, and how.
    fn draw_end(&mut self, index: usize, run: &Run, plan: Option<&JobPlan>, bad: bool) -> (Option<Micros>, Outcome) {
        let node_failed = |cause: &str| Outcome::NodeFailed { began: true, cause: TextMax::truncated(cause) };
        if self.hosts[index].plan.evil == Some(Evil::Boast) {
            return (Some(10 * MILLI), node_failed("it never could"));
        }
        let takes = plan.map_or(SECOND, |plan| plan.run);
        if bad {
            return match self.rng.random_range(0..3) {
                0 => (Some(takes.min(60 * SECOND) / 2), node_failed("the executor crashed")),
                // Hangs until it is told to stop.
                1 => (None, Outcome::Cancelled),
                _ => (Some(takes.min(60 * SECOND) * 3), Outcome::Completed { exit_code: 0 }),
            };
        }
        if takes == FOREVER {
            return (None, Outcome::Cancelled);
        }
        let timeout = run.task.time_limit().0;
        if takes > timeout {
            let cause = TextMax::truncated("the program ran longer than it may");
            return (Some(timeout), Outcome::Failed { kind: FailureKind::Time, cause });
        }
        let outcome = match plan.map(|plan| plan.ends) {
            Some(Ends::Trap) => {
                let cause = TextMax::truncated("the program trapped");
                Outcome::Failed { kind: FailureKind::Trap, cause }
            }
            Some(Ends::Exit(exit_code)) => Outcome::Completed { exit_code },
            None => Outcome::Completed { exit_code: 0 },
        };
        (Some(takes), outcome)
    }

    /// No other node may run this slot now, if it is exclusive. One that sleeps does not run anything.
    pub(super) fn check_rivals(&mut self, index: usize, run: &Run) {
        if !run.task.exclusive {
            return;
        }
        // A new version begins before the old one ends, unless its user forbids it.
        let strict = self.by_job.get(&run.job).is_none_or(|job| self.plan.jobs[*job].exclusive);
        let rival = self.books.running(&run.job, run.slot).find(|(node, execution)| {
            let running = self.hosts[*node].runs.get(execution);
            let running = running.filter(|other| strict || other.run.task.version == run.task.version);
            *node != index && !self.is_asleep(*node) && running.is_some_and(|running| !running.excused)
        });
        if let Some((node, execution)) = rival {
            let text =
                format!("{} slot {}: n{index} runs {}, n{node} runs {execution}", run.job, run.slot, run.execution);
            self.books.fail(Invariant::S2LeaseExclusion, text);
        }
    }

    pub(super) fn extend(&mut self, index: usize, execution: &ExecutionId, until: Tick) {
        if let Some(running) = self.hosts[index].runs.get_mut(execution) {
            running.until = running.until.max(until);
        }
    }

    fn expire_later(&mut self, index: usize, serial: u64, execution: ExecutionId, until: Tick) {
        let after = self.hosts[index].clock.when(until).saturating_sub(self.now);
        self.push(after, Event::Expire { host: index, serial, execution });
    }

    /// The executor looks at a run's time by itself: it goes on, or is killed.
    pub(super) fn expire(&mut self, index: usize, serial: u64, execution: ExecutionId) {
        let (life, tick) = (self.hosts[index].life, self.hosts[index].clock.tick(self.now));
        if self.is_asleep(index) {
            let after = self.hosts[index].frozen_until - self.now;
            return self.push(after, Event::Expire { host: index, serial, execution });
        }
        let Some(running) = self.hosts[index].runs.get_mut(&execution).filter(|running| running.serial == serial)
        else {
            return;
        };
        if running.until > tick {
            let until = running.until;
            return self.expire_later(index, serial, execution, until);
        }
        (running.stopping, running.dead) = (true, true);
        let (job, slot) = (running.run.job, running.run.slot);
        self.books.over(index, &job, slot, &execution);
        let ended = Box::new(ended(&execution, Outcome::Cancelled, false));
        self.push(0, Event::Ends { host: index, life, serial, execution, ended });
    }

    /// A program is told to stop; it takes a moment, and some say at the last moment that they are done.
    pub(super) fn stop_run(&mut self, index: usize, execution: &ExecutionId) {
        let life = self.hosts[index].life;
        let Some(running) = self.hosts[index].runs.get_mut(execution) else { return };
        if std::mem::replace(&mut running.stopping, true) {
            return;
        }
        let serial = running.serial;
        let lies = !self.calm && self.rng.random_range(0..20) == 0;
        let outcome = if lies { Outcome::Completed { exit_code: 0 } } else { Outcome::Cancelled };
        let after = self.rng.random_range(MILLI..300 * MILLI);
        let ended = Box::new(ended(execution, outcome, false));
        self.push(after, Event::Ends { host: index, life, serial, execution: *execution, ended });
    }

    pub(super) fn run_ends(&mut self, index: usize, life: u64, serial: u64, execution: ExecutionId, ended: Ended) {
        if self.hosts[index].life != life || self.hosts[index].runs.get(&execution).is_none_or(|r| r.serial != serial) {
            return;
        }
        self.end_run(index, &execution);
        if let Some(root) = ended.root {
            self.hosts[index].kept.insert(execution, root);
        }
        self.trace
            .note(self.now, (index, None), "end", &execution.0, || format!("ends {execution}: {:?}", ended.outcome));
        self.tick(index);
        self.compute_input(index, bacnode_protocol::compute::Input::Ended(execution, Box::new(ended)));
    }

    /// Takes a run out of the executor.
    pub(super) fn end_run(&mut self, index: usize, execution: &ExecutionId) {
        if let Some(running) = self.hosts[index].runs.remove(execution) {
            self.books.over(index, &running.run.job, running.run.slot, execution);
        }
    }

    pub(super) fn fetch(&mut self, index: usize, fetch: Box<requester::Fetch>) {
        let (life, blocks) = (self.hosts[index].life, !fetch.blocks.is_empty());
        if blocks {
            self.hosts[index].held.insert(fetch.execution);
            return self.requester_input(index, requester::Input::Fetched(fetch.execution, Ok(())));
        }
        let maker = self.by_id.get(&fetch.maker).copied().unwrap_or(index);
        let after = self.links.distance(index, maker) * 2 + self.rng.random_range(MILLI..500 * MILLI);
        self.push(after, Event::Fetched { host: index, life, fetch, tries: FETCH_TRIES });
    }

    pub(super) fn fetched(&mut self, index: usize, life: u64, fetch: Box<requester::Fetch>, tries: u32) {
        if self.hosts[index].life != life {
            return;
        }
        let Some(&maker) = self.by_id.get(&fetch.maker) else { return };
        let reached = self.hosts[maker].up
            && self.hosts[maker].frozen_until <= self.now
            && (maker == index || self.links.connects(index, maker));
        let execution = fetch.execution;
        let has = self.hosts[maker].kept.get(&execution) == Some(&fetch.root);
        if reached && has {
            self.hosts[index].held.insert(execution);
            return self.requester_input(index, requester::Input::Fetched(execution, Ok(())));
        }
        if tries > 0 && !reached {
            return self.push(2 * SECOND, Event::Fetched { host: index, life, fetch, tries: tries - 1 });
        }
        let cause = if reached { "it does not have it" } else { "it cannot be reached" };
        self.requester_input(index, requester::Input::Fetched(execution, Err(cause.into())));
    }

    /// How long after the faults everything may take that must come to an end.
    pub(super) fn patience(&self) -> Micros {
        let longest = self.plan.jobs.iter().map(|job| {
            let [_, length, grace, _] = job.lease;
            let attempt = u64::from(length + grace) * SECOND + job.timeout_ms * MILLI + job.queue_timeout;
            attempt * u64::from(ATTEMPTS_MAX + 2)
        });
        longest.max().unwrap_or(0) + RESEND_MAX.0 + 120 * SECOND
    }

    /// Whether nothing is left to wait for.
    pub(super) fn is_at_rest(&self) -> bool {
        let settled = |host: &super::Host| {
            let requester = host.requester.as_ref().is_none_or(|machine| machine.open_jobs() == 0);
            let kept = host.guardian.as_ref().is_none_or(|machine| machine.open().count() == 0);
            host.up && requester && kept && host.compute.iter().all(|machine| self.owed(machine) == 0)
        };
        let there = (0..).zip(&self.hosts).filter(|(index, _)| !self.gone.contains(index)).map(|(_, host)| host);
        let told = self.logs.iter().all(|log| log.waiting.is_empty())
            && there.clone().all(|host| host.quorum.values().all(std::collections::VecDeque::is_empty));
        told && self.now > self.plan.safety + 50 * SECOND && there.filter(|host| host.is_honest()).all(settled)
    }

    /// Awards and results held for honest owners; what a dishonest one leaves behind ends with the orphan time.
    fn owed(&self, machine: &bacnode_protocol::compute::State) -> usize {
        machine
            .held()
            .filter(|(_, owner)| {
                let owner = self.by_id.get(owner);
                owner.is_some_and(|owner| self.hosts[*owner].is_honest() && !self.gone.contains(owner))
            })
            .count()
    }

    /// The end of the trial: did everything come to its end?
    pub(super) fn judge(&mut self) -> Result<(), Violation> {
        let fail = |books: &mut crate::check::Books, invariant, text: String| {
            books.fail(invariant, text);
            books.violation.take().map_or(Ok(()), Err)
        };
        let mut honest_done = (0u64, 0u64);
        for (index, plan) in self.plan.jobs.iter().enumerate() {
            let job = self.jobs[index];
            let lost = self.books.wiped.contains(&plan.owner) || (!plan.guarded && self.gone.contains(&plan.owner));
            if !self.books.acknowledged.contains(&job) || lost {
                continue;
            }
            let Some((state, message)) = self.books.ended.get(&job) else {
                return fail(&mut self.books, Invariant::L1JobsEnd, format!("{job} (job {index}) did not end"));
            };
            let batch = plan.kind == Kind::Batch;
            if *state == JobState::Completed && self.books.filled(&job) != plan.slots as usize && batch {
                let text = format!("{job} is done with {} of {} results", self.books.filled(&job), plan.slots);
                return fail(&mut self.books, Invariant::S5SingleAcceptance, text);
            }
            self.stats.ended(*state);
            let could = batch
                && !plan.picky
                && plan.stop.is_none()
                && plan.total_timeout.is_none()
                && matches!(plan.ends, Ends::Exit(_));
            let may = plan.timeout_ms <= crate::check::TIMEOUT_MAX.as_millis() && !message.contains("needs");
            if could && may && plan.run <= plan.timeout_ms * MILLI {
                honest_done.0 += 1;
                honest_done.1 += u64::from(*state == JobState::Completed);
            }
        }
        let there = |index: &usize| !self.gone.contains(index);
        for (index, host) in self.hosts.iter().enumerate().filter(|(index, host)| host.is_honest() && there(index)) {
            let Some(compute) = &host.compute else {
                return fail(&mut self.books, Invariant::L2PlacesComeBack, format!("n{index} is down at the end"));
            };
            let left = self.owed(compute);
            let runs = host.runs.values().filter(|running| self.by_job.contains_key(&running.run.job)).count();
            if runs > 0 || left == 0 && compute.held_count() == 0 && compute.used() != Resources::default() {
                let text = format!("n{index} still uses {:?}, {runs} runs", compute.used());
                return fail(&mut self.books, Invariant::L2PlacesComeBack, text);
            }
            if left > 0 {
                return fail(
                    &mut self.books,
                    Invariant::L3ResultsAreDelivered,
                    format!("n{index} holds {left} results"),
                );
            }
        }
        let apart = self.last_apart.saturating_sub(self.plan.safety);
        if apart > super::ADVERT_EVERY * 3 {
            let text = format!("views differ {} s after the faults: {}", apart / SECOND, self.apart);
            return fail(&mut self.books, Invariant::L4ViewsConverge, text);
        }
        self.stats.could += honest_done.0;
        self.stats.did += honest_done.1;
        Ok(())
    }
}

/// What the executor reports.
fn ended(execution: &ExecutionId, outcome: Outcome, inline: bool) -> Ended {
    let root = World::cid(execution);
    let has_root = matches!(outcome, Outcome::Completed { .. } | Outcome::Failed { .. });
    let block = InlineBlock { cid: root, bytes: BytesMax::new(execution.0.to_vec()).unwrap_or_default() };
    Ended {
        root: has_root.then_some(root),
        size: 20,
        blocks: if inline && has_root { vec![block] } else { Vec::new() },
        ..Ended::bare(outcome)
    }
}
