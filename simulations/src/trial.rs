//! One plan, run.

use crate::check::Violation;
use crate::plan::Plan;
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

/// Runs a plan; with `lines` its trace is kept for people.
#[must_use]
pub fn run(plan: &Plan, lines: bool) -> Outcome {
    let mut world = World::new(plan, Trace::new(lines));
    let violation = world.run().err();
    let mut stats = std::mem::take(&mut world.stats);
    stats.trials = 1;
    stats.nodes = plan.nodes.len() as u64;
    stats.jobs = plan.jobs.len() as u64;
    stats.time = world.now;
    let trace = std::mem::take(&mut world.trace);
    Outcome { violation, hash: trace.hash(), stats, trace }
}
