//! One plan, run.

use crate::check::{Invariant, Violation};
use crate::plan::{Evil, Plan};
use crate::stats::Stats;
use crate::trace::Trace;
use crate::world::World;

/// What came of a trial.
#[derive(Debug)]
pub struct Outcome {
    /// What did not hold, if something did not.
    pub violation: Option<Violation>,
    /// What happened, as one number.
    pub hash: u64,
    /// What was counted.
    pub stats: Stats,
    /// What happened, if it was asked for.
    pub trace: Trace,
}

/// Where dishonesty is the only trouble and honest nodes alone would do everything, nine tenths get done: who wastes
/// others' attempts wastes their queues too, so of a network that is short of room it says nothing.
fn too_little_done(plan: &Plan, stats: &Stats, now: u64) -> Option<Violation> {
    let evil = plan.nodes.iter().any(|node| node.evil.is_some_and(|evil| evil != Evil::Waver));
    if !evil || !plan.faults.is_empty() || stats.could < 10 || stats.did * 10 >= stats.could * 9 {
        return None;
    }
    let mut clean = plan.clone();
    for node in clean.nodes.iter_mut().filter(|node| node.evil.is_some()) {
        (node.evil, node.cpu, node.memory) = (None, 0, 0);
    }
    let mut world = World::new(&clean, Trace::new(false));
    if world.run().is_err() || world.stats.did < world.stats.could {
        return None;
    }
    // Who boasts makes jobs look possible that nobody can run: the honest nodes' own figure is the measure.
    let best = world.stats.did;
    let text = format!("{} honest jobs got done, {best} without the dishonest", stats.did);
    (stats.did * 10 < best * 9).then_some(Violation { invariant: Invariant::L5WorkGetsDone, at: now, text })
}

/// Runs a plan; with `lines` its trace is kept for people.
#[must_use]
pub fn run(plan: &Plan, lines: bool) -> Outcome {
    let mut world = World::new(plan, Trace::new(lines));
    let mut violation = world.run().err();
    let mut stats = std::mem::take(&mut world.stats);
    if violation.is_none() {
        violation = too_little_done(plan, &stats, world.now);
    }
    stats.trials = 1;
    stats.nodes = plan.nodes.len() as u64;
    stats.jobs = plan.jobs.len() as u64;
    stats.time = world.now;
    let trace = std::mem::take(&mut world.trace);
    Outcome { violation, hash: trace.hash(), stats, trace }
}
