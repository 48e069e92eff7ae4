//! `sim`: trials by the thousand, and one trial in every detail.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for people")]

use std::process::ExitCode;

use bacnode_simulations::plan::Plan;
use bacnode_simulations::{batch, trial};
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
    /// Run many seeds
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
    },
    /// Run one seed and tell what happened
    Replay {
        /// Which
        #[arg(long)]
        seed: u64,
        /// Only lines with this text
        #[arg(long)]
        grep: Option<String>,
    },
}

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Run { seeds, from, threads, until: Some(wanted) } => {
            let found = batch::find(from..from.saturating_add(seeds), threads, &wanted);
            println!("{}", found.map_or_else(|| "not found".to_owned(), |seed| format!("found: {seed}")));
            if found.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Command::Run { seeds, from, threads, until: None } => {
            let report = batch::run(from..from.saturating_add(seeds), threads, &|line| eprintln!("{line}"));
            println!("{report}");
            if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Command::Replay { seed, grep } => {
            let outcome = trial::run(&Plan::draw(seed), true);
            for line in outcome.trace.lines() {
                let to = line.to.map(|to| format!(" → n{to}")).unwrap_or_default();
                let text = format!("{:>13.6} n{}{to}: {}", line.at as f64 / 1e6, line.from, line.text);
                if grep.as_ref().is_none_or(|grep| text.contains(grep.as_str())) {
                    println!("{text}");
                }
            }
            println!("hash {:016x}", outcome.hash);
            if let Some(violation) = outcome.violation {
                println!("{violation}");
                return ExitCode::FAILURE;
            }
            ExitCode::SUCCESS
        }
    }
}
