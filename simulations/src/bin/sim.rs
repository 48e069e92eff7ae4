//! `sim`: trials by the thousand, one trial in every detail, and what your own network would do.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for people")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bacnode_simulations::plan::Plan;
use bacnode_simulations::scenario::Scenario;
use bacnode_simulations::trace::Line;
use bacnode_simulations::{batch, diagram, explore, figures, shrink, trial};
use clap::{Parser, Subcommand};

/// bacnode's machines in virtual time
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run many seeds; fails if an invariant does not hold
    Run {
        /// How many
        #[arg(long, default_value_t = 2_000)]
        seeds: u64,
        /// From this seed on
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Threads; all cores by default
        #[arg(long)]
        threads: Option<usize>,
        /// Look only for a violation of this invariant, like S5, and stop there
        #[arg(long)]
        until: Option<String>,
        /// Write the figures here, for `compare`
        #[arg(long, value_name = "FILE")]
        figures: Option<PathBuf>,
    },
    /// Run one trial and tell what happened
    Replay {
        /// Which
        #[arg(long, required_unless_present = "plan")]
        seed: Option<u64>,
        /// Or a plan, as `shrink` writes it
        #[arg(long, value_name = "FILE")]
        plan: Option<PathBuf>,
        /// Only lines with this text
        #[arg(long)]
        grep: Option<String>,
        /// Draw them as a sequence diagram
        #[arg(long, value_name = "FILE.svg")]
        diagram: Option<PathBuf>,
    },
    /// Make a failing trial smaller
    Shrink {
        /// Which
        #[arg(long)]
        seed: u64,
        /// Where the plan goes
        #[arg(long, value_name = "FILE", default_value = "plan.json")]
        to: PathBuf,
    },
    /// Compare the figures of two runs of the same seeds
    Compare {
        /// As `run --figures` wrote them
        base: PathBuf,
        /// After the change
        change: PathBuf,
    },
    /// What will my network do?
    Explore {
        /// smoke, churn, partition, byzantine, flash-crowd, edge-fleet, or a file
        #[arg(long, default_value = "smoke")]
        scenario: String,
        /// How many nodes; several sizes are compared
        #[arg(long, value_delimiter = ',')]
        nodes: Vec<usize>,
        /// For chance
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where the plots go
        #[arg(long, value_name = "DIR", default_value = "plots")]
        out: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<bool, String> {
    match command {
        Command::Run { seeds, from, threads, until: Some(wanted), .. } => {
            let found = batch::find(from..from.saturating_add(seeds), threads, &wanted);
            println!("{}", found.map_or_else(|| "not found".to_owned(), |seed| format!("found: {seed}")));
            Ok(found.is_none())
        }
        Command::Run { seeds, from, threads, until: None, figures } => {
            let report = batch::run(from..from.saturating_add(seeds), threads, &|line| eprintln!("{line}"));
            println!("{report}");
            if let Some(path) = figures {
                write(&path, &figures::of(&report.stats))?;
            }
            Ok(report.failures.is_empty())
        }
        Command::Replay { seed, plan, grep, diagram } => {
            let plan = match plan {
                Some(path) => read_plan(&path)?,
                None => Plan::draw(seed.unwrap_or_default()),
            };
            replay(&plan, grep.as_deref(), diagram.as_deref())
        }
        Command::Shrink { seed, to } => {
            let Some(plan) = shrink::shrink(&Plan::draw(seed), &|line| eprintln!("{line}")) else {
                return Err(format!("seed {seed} breaks nothing"));
            };
            write(&to, &serde_json::to_string_pretty(&plan).map_err(|error| error.to_string())?)?;
            println!("{}: `sim replay --plan {}` tells it", to.display(), to.display());
            Ok(true)
        }
        Command::Compare { base, change } => {
            println!("{}", figures::compare(&read(&base)?, &read(&change)?)?);
            Ok(true)
        }
        Command::Explore { scenario, nodes, seed, out } => {
            let scenario = Scenario::find(&scenario).map_err(|error| error.to_string())?;
            explore_sizes(&scenario, nodes, seed, &out)
        }
    }
}

fn replay(plan: &Plan, grep: Option<&str>, picture: Option<&Path>) -> Result<bool, String> {
    let outcome = trial::run(plan, true);
    let wanted = |line: &&Line| grep.is_none_or(|grep| text(line).contains(grep));
    let lines: Vec<&Line> = outcome.trace.lines().iter().filter(wanted).collect();
    if let Some(path) = picture {
        // The end is where it goes wrong; more than this nobody looks at.
        write(path, &diagram::svg(&lines[lines.len().saturating_sub(400)..]))?;
    } else {
        for line in lines {
            println!("{}", text(line));
        }
    }
    println!("hash {:016x}", outcome.hash);
    if let Some(violation) = &outcome.violation {
        println!("{violation}");
    }
    Ok(outcome.violation.is_none())
}

fn text(line: &Line) -> String {
    let to = line.to.map(|to| format!(" → n{to}")).unwrap_or_default();
    format!("{:>13.6} n{}{to}: {}", line.at as f64 / 1e6, line.from, line.text)
}

fn explore_sizes(scenario: &Scenario, sizes: Vec<usize>, seed: u64, out: &Path) -> Result<bool, String> {
    println!("{}", scenario.about);
    let sizes = if sizes.is_empty() { vec![scenario.network.nodes] } else { sizes };
    if let Some(size) = sizes.iter().find(|size| !(2..=100_000).contains(*size) || **size < scenario.work.owners) {
        return Err(format!("--nodes {size}: must be 2 to 100000, and no fewer than the scenario's owners"));
    }
    let mut all = Vec::new();
    for size in sizes {
        let found = explore::explore(scenario, size, seed);
        println!("{found}");
        all.push(found);
    }
    if let Some(last) = all.last() {
        explore::plot(last, out)?;
    }
    if all.len() > 1 {
        explore::plot_sizes(&all, out)?;
    }
    println!("plots in {}", out.display());
    Ok(all.iter().all(|found| found.violation.is_none()))
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn read_plan(path: &Path) -> Result<Plan, String> {
    serde_json::from_str(&read(path)?).map_err(|error| format!("{}: not a plan: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
