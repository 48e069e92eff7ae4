//! Makes a failing plan smaller while it fails in the same way.

use crate::check::Invariant;
use crate::plan::Plan;
use crate::trial;

/// Whether a plan still breaks this invariant.
fn fails(plan: &Plan, invariant: Invariant) -> bool {
    trial::run(plan, false).violation.is_some_and(|violation| violation.invariant == invariant)
}

/// The smallest plan found that breaks the invariant that `plan` breaks; `None` if it breaks none.
#[must_use]
pub fn shrink(plan: &Plan, tell: &dyn Fn(String)) -> Option<Plan> {
    let violation = trial::run(plan, false).violation?;
    let (invariant, mut best) = (violation.invariant, plan.clone());
    // What happens after the violation does not matter.
    let cut = |plan: &mut Plan| {
        plan.jobs.retain(|job| job.at <= violation.at);
        plan.faults.retain(|fault| fault.at <= violation.at);
    };
    attempt(&mut best, invariant, cut);
    loop {
        let before = size(&best);
        drop_parts(&mut best, invariant, |plan| &mut plan.faults);
        drop_parts(&mut best, invariant, |plan| &mut plan.jobs);
        attempt(&mut best, invariant, |plan| plan.bad_runs = 0);
        attempt(&mut best, invariant, |plan| plan.links.loss = 0);
        attempt(&mut best, invariant, |plan| plan.links.repeat = 0);
        attempt(&mut best, invariant, |plan| plan.links.delay = 0);
        for index in 0..best.nodes.len() {
            attempt(&mut best, invariant, |plan| plan.nodes[index].evil = None);
            attempt(&mut best, invariant, |plan| (plan.nodes[index].drift, plan.nodes[index].skew) = (0, 0));
        }
        for index in 0..best.jobs.len() {
            attempt(&mut best, invariant, |plan| plan.jobs[index].slots = 1);
            attempt(&mut best, invariant, |plan| plan.jobs[index].stop = None);
        }
        drop_last_nodes(&mut best, invariant);
        tell(format!("{} nodes, {} jobs, {} faults", best.nodes.len(), best.jobs.len(), best.faults.len()));
        if size(&best) == before {
            return Some(best);
        }
    }
}

fn size(plan: &Plan) -> usize {
    serde_json::to_string(plan).map_or(0, |text| text.len())
}

/// Keeps a change if the plan fails all the same.
fn attempt(best: &mut Plan, invariant: Invariant, change: impl Fn(&mut Plan)) -> bool {
    let mut smaller = best.clone();
    change(&mut smaller);
    let keep = fails(&smaller, invariant);
    if keep {
        *best = smaller;
    }
    keep
}

/// Drops halves, quarters, … of a list (delta debugging, Zeller 1999).
fn drop_parts<T>(best: &mut Plan, invariant: Invariant, list: impl Fn(&mut Plan) -> &mut Vec<T>) {
    let mut part = list(best).len().div_ceil(2);
    while part > 0 {
        let mut start = 0;
        while start < list(best).len() {
            let end = (start + part).min(list(best).len());
            if !attempt(best, invariant, |plan| _ = list(plan).drain(start..end)) {
                start = end;
            }
        }
        part /= 2;
    }
}

/// Drops nodes from the end, as far as nothing names them.
fn drop_last_nodes(best: &mut Plan, invariant: Invariant) {
    while best.nodes.len() > 1 {
        let last = best.nodes.len() - 1;
        let named = best.jobs.iter().any(|job| job.owner == last)
            || best.faults.iter().any(|fault| fault.what.nodes().contains(&last));
        if named || !attempt(best, invariant, |plan| _ = plan.nodes.pop()) {
            return;
        }
    }
}
