//! A node's process comes up.

use std::collections::BTreeSet;

use bacnode_protocol::compute;
use bacnode_protocol::guardian;
use bacnode_protocol::id::{BootId, ExecutionId, JobId};
use bacnode_protocol::outbox::Outbox;
use bacnode_protocol::requester;
use bacnode_protocol::time::Span;
use bacnode_protocol::view::View;
use bacnode_protocol::wire::task::{Engine, Engines};
use rand::RngExt as _;

use super::{Event, Log, World, network};
use crate::check::{Invariant, ORPHAN_MAX, QUEUE_MAX, TIMEOUT_MAX};
use crate::plan::{Evil, SECOND};

impl World<'_> {
    /// A node's process comes up, from what its disk has.
    pub(super) fn start(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.up || self.gone.contains(&index) {
            return;
        }
        let seconds = host.clock.now(self.now).unix.0 / 1_000;
        let mut records = host.disk.open(seconds);
        let kept = (std::mem::take(&mut records.groups), std::mem::take(&mut records.kept));
        host.behind |= host.disk.epoch <= host.epoch_max;
        host.epoch_max = host.epoch_max.max(host.disk.epoch);
        let patience = guardian::Config {
            lease: Span::millis(self.plan.ownership_ms),
            life: host.disk.epoch,
            guards: matches!(host.plan.evil, None | Some(Evil::Waver)),
        };
        let now = host.clock.now(self.now);
        let mut guardian_out = Outbox::default();
        let keeper = guardian::State::restore(host.signer.clone(), patience, kept, now, &mut guardian_out);
        // Who leads those jobs is to be found out first.
        records.jobs.retain(|(job, _)| !keeper.keeps(&job.id));
        let (jobs, plan) = (&self.by_job, self.plan);
        let guarded = |job: &JobId| jobs.get(job).is_some_and(|job| plan.jobs[*job].guarded);
        records.jobs.retain(|(job, _)| !guarded(&job.id));
        records.executions.retain(|execution| !guarded(&execution.job));
        if host.is_honest() {
            self.books.found(&host.disk, guarded);
            self.books.open_again(&records.jobs.iter().map(|(job, _)| job.id).collect());
        }
        host.guardian = Some(keeper);
        host.guarding.clear();
        host.quorum.clear();
        host.up = true;
        host.life += 1;
        host.view = View::new(network());
        let (mut requester_out, mut compute_out) = (Outbox::default(), Outbox::default());
        let config = compute::Config {
            engines: Engines::of(&[Engine::Wasm]),
            total: host.total,
            labels: super::adverts::labels(index),
            queue_max: QUEUE_MAX as usize,
            per_owner_max: 32,
            local_paths: Vec::new(),
            orphan_max: ORPHAN_MAX,
            timeout_max: TIMEOUT_MAX,
            // Some operators have each ask looked at.
            policy: compute::Policy { probes: !self.plan.lean && index % 4 == 3, ..compute::Policy::default() },
        };
        let (signer, epoch) = (host.signer.clone(), host.disk.epoch);
        let held = (records.held.clone(), records.wards.clone());
        host.kept = held.0.iter().filter_map(|held| Some((held.execution, held.root()?))).collect();
        let open: BTreeSet<JobId> = records.jobs.iter().map(|(job, _)| job.id).collect();
        let filled = records.executions.iter().filter(|execution| execution.accepted).count();
        let left = host.runs.values().filter(|running| !running.dead);
        let left = left.map(|running| compute::Run { until: running.until, ..running.run.clone() }).collect();
        let compute = compute::State::restore(signer.clone(), BootId(epoch), config, held, left, now, &mut compute_out);
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
        let kept: BTreeSet<ExecutionId> = compute.runs().collect();
        let swept: Vec<ExecutionId> = host.runs.keys().filter(|execution| !kept.contains(execution)).copied().collect();
        host.compute = Some(compute);
        host.requester = Some(machine);
        for execution in swept {
            self.end_run(index, &execution);
        }
        self.logs[index] = Log::default();
        self.trace.note(self.now, (index, None), "start", &epoch.to_le_bytes(), || format!("starts, epoch {epoch}"));
        self.announce_self(index);
        self.perform(index, requester_out, compute_out);
        self.perform_guardians(index, guardian_out);
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
}
