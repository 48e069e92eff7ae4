//! What will my network do? A scenario run with the real machines, its figures and its plots.

use std::fmt;
use std::path::Path;

use crate::gossip::{self, Spread};
use crate::plan::SECOND;
use crate::plot::{Curve, Plot, distribution};
use crate::scenario::Scenario;
use crate::stats::{Stats, percentile};
use crate::trial;

/// What came of one size.
#[derive(Debug)]
pub struct Found {
    /// Machines.
    pub nodes: usize,
    /// What the machines did.
    pub stats: Stats,
    /// How adverts spread.
    pub spread: Spread,
    /// What did not hold, in words.
    pub violation: Option<String>,
    /// How long it took, in seconds.
    pub took: f64,
}

/// Bacalhau's own measurement of its peer-to-peer design: nodes, and seconds that a job took.
const BACALHAU: [(f64, f64); 2] = [(10.0, 1.3), (100.0, 10.1)];

/// Runs `scenario` with so many nodes.
#[must_use]
pub fn explore(scenario: &Scenario, nodes: usize, seed: u64) -> Found {
    let started = std::time::Instant::now();
    let plan = scenario.plan(nodes, seed);
    let outcome = trial::run(&plan, false);
    let spread = gossip::spread(scenario, nodes, seed);
    let violation = outcome.violation.map(|violation| violation.to_string());
    Found { nodes, stats: outcome.stats, spread, violation, took: started.elapsed().as_secs_f64() }
}

impl Found {
    /// Market messages for each job.
    #[must_use]
    pub fn messages_per_job(&self) -> f64 {
        self.stats.messages as f64 / self.stats.jobs.max(1) as f64
    }

    /// Bytes of market messages for each job.
    #[must_use]
    pub fn bytes_per_job(&self) -> f64 {
        self.stats.message_bytes as f64 / self.stats.jobs.max(1) as f64
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stats, spread) = (&self.stats, &self.spread);
        let seconds = |values: &[u64], percent| percentile(values, percent) as f64 / SECOND as f64;
        writeln!(
            f,
            "{} nodes, {} jobs, {:.0} virtual seconds ({:.1} s)",
            self.nodes,
            stats.jobs,
            stats.time as f64 / 1e6,
            self.took
        )?;
        writeln!(
            f,
            "  jobs            {} completed, {} failed, {} stopped, {} runs",
            stats.completed, stats.failed, stats.stopped, stats.runs
        )?;
        for (name, values) in [("first bid", &stats.to_bid), ("award", &stats.to_award), ("end", &stats.to_end)] {
            writeln!(f, "  to the {name:<9} {:.3} s half, {:.3} s 99 %", seconds(values, 50), seconds(values, 99))?;
        }
        writeln!(f, "  a job costs     {:.1} messages, {:.0} bytes", self.messages_per_job(), self.bytes_per_job())?;
        writeln!(
            f,
            "  an advert       reaches 99 % in {:.2} s (three periods are {:.0} s)",
            spread.to_99, spread.three_periods
        )?;
        write!(f, "  gossip          {:.1} kB/s for each node, both ways", spread.bytes_per_second / 1e3)?;
        if let Some(violation) = &self.violation {
            write!(f, "\n  VIOLATION       {violation}")?;
        }
        Ok(())
    }
}

/// Writes the plots of one size.
///
/// # Errors
/// If they cannot be written, in words.
pub fn plot(found: &Found, dir: &Path) -> Result<(), String> {
    std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let axes = |x: &str, y: &str| [x.to_owned(), y.to_owned()];
    let n = found.nodes;
    let coverage = Curve { name: "live nodes that have an advert".into(), points: found.spread.coverage.clone() };
    let plots = [
        (
            "coverage",
            Plot {
                title: format!("How an advert spreads, {n} nodes"),
                axes: axes("seconds", "part of the live nodes"),
                curves: vec![coverage],
                log: false,
            },
        ),
        (
            "placing",
            Plot {
                title: format!("From submission to bid and award, {n} nodes"),
                axes: axes("milliseconds", "part of the jobs"),
                curves: vec![
                    distribution("first bid", &found.stats.to_bid, 1e3),
                    distribution("award", &found.stats.to_award, 1e3),
                ],
                log: false,
            },
        ),
        (
            "duration",
            Plot {
                title: format!("From submission to end, {n} nodes"),
                axes: axes("seconds", "part of the jobs"),
                curves: vec![distribution("end", &found.stats.to_end, 1e6)],
                log: false,
            },
        ),
        (
            "completion",
            Plot {
                title: format!("Jobs that have ended, {n} nodes"),
                axes: axes("seconds", "jobs"),
                curves: vec![
                    running_count("submitted", &found.stats.submissions()),
                    running_count("ended", &found.stats.ends),
                ],
                log: false,
            },
        ),
        (
            "load",
            Plot {
                title: format!("How the work spreads, {n} nodes"),
                axes: axes("nodes, the busiest first", "runs"),
                curves: vec![load(&found.stats)],
                log: false,
            },
        ),
    ];
    plots.iter().try_for_each(|(name, plot)| plot.write(dir, name))
}

/// Writes the plots of several sizes: what a job costs, and gossip.
///
/// # Errors
/// If they cannot be written, in words.
pub fn plot_sizes(found: &[Found], dir: &Path) -> Result<(), String> {
    std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let curve = |name: &str, value: &dyn Fn(&Found) -> f64| Curve {
        name: name.into(),
        points: found.iter().map(|found| (found.nodes as f64, value(found).max(1e-3))).collect(),
    };
    let end = |found: &Found| percentile(&found.stats.to_end, 50) as f64 / 1e6;
    let award = |found: &Found| percentile(&found.stats.to_award, 50) as f64 / 1e6;
    let bacalhau = Curve {
        name: "Bacalhau's peer-to-peer design, seconds a job (its own figures)".into(),
        points: BACALHAU.to_vec(),
    };
    let time = Plot {
        title: "A job among ever more nodes".into(),
        axes: ["nodes".into(), "seconds, half of the jobs".into()],
        curves: vec![
            curve("bacnode, submission to end", &end),
            curve("bacnode, submission to award", &award),
            bacalhau,
        ],
        log: true,
    };
    let cost = Plot {
        title: "What a job costs among ever more nodes".into(),
        axes: ["nodes".into(), "messages, kB, kB/s".into()],
        curves: vec![
            curve("messages a job", &Found::messages_per_job),
            curve("kB a job", &|found| found.bytes_per_job() / 1e3),
            curve("gossip, kB/s a node", &|found| found.spread.bytes_per_second / 1e3),
        ],
        log: true,
    };
    time.write(dir, "job-time").and_then(|()| cost.write(dir, "job-cost"))
}

fn running_count(name: &str, times: &[u64]) -> Curve {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let points = sorted.iter().enumerate().map(|(index, at)| (*at as f64 / 1e6, (index + 1) as f64));
    Curve { name: name.into(), points: points.collect() }
}

fn load(stats: &Stats) -> Curve {
    let mut runs: Vec<u64> = stats.runs_of.values().copied().collect();
    runs.sort_unstable_by(|a, b| b.cmp(a));
    let points = runs.iter().enumerate().map(|(index, runs)| ((index + 1) as f64, *runs as f64));
    Curve { name: "runs of each node".into(), points: points.collect() }
}
