//! Many trials at once.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::check::{Invariant, Violation};
use crate::plan::Plan;
use crate::stats::{STAGES, Stats, percentile};
use crate::trial;

/// What came of many trials.
#[derive(Debug, Default)]
pub struct Report {
    /// Seeds that failed, and how.
    pub failures: Vec<(u64, Violation)>,
    /// What was counted.
    pub stats: Stats,
    /// Nodes of each trial.
    pub sizes: Vec<u64>,
    /// Jobs of each trial.
    pub jobs: Vec<u64>,
    /// How long it took.
    pub took: Duration,
}

/// Failures after which there is enough to do.
const FAILURES_MAX: usize = 20;

/// Runs these seeds on `threads` threads, telling `tell` how it goes.
#[must_use]
pub fn run(seeds: Range<u64>, threads: Option<usize>, tell: &(dyn Fn(String) + Sync)) -> Report {
    let started = Instant::now();
    let total = seeds.end - seeds.start;
    let report = Mutex::new(Report::default());
    each_seed(seeds, threads, &|seed| {
        let plan = Plan::draw(seed);
        let outcome = trial::run(&plan, false);
        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
        report.stats.add(&outcome.stats);
        report.sizes.push(plan.nodes.len() as u64);
        report.jobs.push(plan.jobs.len() as u64);
        if let Some(violation) = outcome.violation {
            tell(format!("seed {seed}: {violation}"));
            report.failures.push((seed, violation));
        }
        if report.sizes.len() % 500 == 0 {
            let rate = report.sizes.len() as f64 / started.elapsed().as_secs_f64();
            tell(format!("{} of {total} seeds, {rate:.0} a second", report.sizes.len()));
        }
        if report.failures.len() < FAILURES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.failures.sort_by_key(|(seed, _)| *seed);
    report.took = started.elapsed();
    report
}

/// The first seed found at which the invariant with this number does not hold. Each seed is run twice for `S17`.
#[must_use]
pub fn find(seeds: Range<u64>, threads: Option<usize>, wanted: &str) -> Option<u64> {
    let found = Mutex::new(None);
    each_seed(seeds, threads, &|seed| {
        let plan = Plan::draw(seed);
        let outcome = trial::run(&plan, false);
        let differs = wanted == Invariant::S17Determinism.number() && trial::run(&plan, false).hash != outcome.hash;
        if !differs && outcome.violation.is_none_or(|violation| violation.invariant.number() != wanted) {
            return ControlFlow::Continue(());
        }
        found.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(seed);
        ControlFlow::Break(())
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `look` with each seed, on so many threads or on all there are, until it has seen enough.
fn each_seed(seeds: Range<u64>, threads: Option<usize>, look: &(dyn Fn(u64) -> ControlFlow<()> + Sync)) {
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if look(seed).is_break() {
                        next.store(seeds.end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

fn spread(values: &[u64]) -> String {
    let at = |percent| percentile(values, percent);
    format!("{} / {} / {} / {} / {}", at(0), at(25), at(50), at(90), at(100))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = &self.stats;
        let seconds = self.took.as_secs_f64();
        writeln!(
            f,
            "{} seeds in {seconds:.1} s, {:.0} virtual hours, {} events",
            stats.trials,
            stats.time as f64 / 3.6e9,
            stats.events
        )?;
        writeln!(f, "nodes (least / 25 % / half / 90 % / most)  {}", spread(&self.sizes))?;
        writeln!(f, "jobs                                       {}", spread(&self.jobs))?;
        writeln!(
            f,
            "jobs: {} completed, {} failed, {} stopped; {} runs, {} messages, {} records, {} steps lost",
            stats.completed, stats.failed, stats.stopped, stats.runs, stats.messages, stats.records, stats.lost_steps
        )?;
        writeln!(f, "groups: {} led on by another, {} liars proved", stats.takeovers, stats.accused)?;
        writeln!(f, "of {} jobs that only bad luck could keep from completing, {} did", stats.could, stats.did)?;
        writeln!(f)?;
        write!(f, "{:<16}", "struck while")?;
        for stage in STAGES {
            write!(f, "{stage:>18}")?;
        }
        writeln!(f)?;
        for fault in crate::plan::What::NAMES {
            write!(f, "{fault:<16}")?;
            for stage in 0..STAGES.len() {
                write!(f, "{:>18}", stats.struck.get(&(fault, stage)).copied().unwrap_or(0))?;
            }
            writeln!(f)?;
        }
        writeln!(f)?;
        if self.failures.is_empty() {
            return write!(f, "no violation");
        }
        let mut kinds: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (seed, violation) in &self.failures {
            kinds.entry(violation.invariant.name()).or_default().push(*seed);
        }
        for (kind, seeds) in kinds {
            writeln!(f, "{kind}: seeds {seeds:?}")?;
        }
        write!(f, "`sim replay --seed {}` tells the first", self.failures[0].0)
    }
}
