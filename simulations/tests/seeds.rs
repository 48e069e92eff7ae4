//! Two thousand trials, each under another storm, and the trials that once failed.

use std::path::Path;
use std::process::Command;

use bacnode_simulations::plan::Plan;
use bacnode_simulations::{batch, trial};

/// As many as `BACNODE_SEEDS` says, or enough to meet every fault in every stage.
fn count() -> u64 {
    std::env::var("BACNODE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

#[test]
#[allow(clippy::print_stdout, reason = "the distribution is part of what a trial shows")]
fn every_invariant_holds_in_thousands_of_storms() {
    let report = batch::run(0..count(), None, &|_| {});
    println!("{report}");
    assert!(report.failures.is_empty(), "{report}");
    if count() >= 2_000 {
        assert_eq!(report.stats.never_met(), Vec::<String>::new());
    }
}

#[test]
fn one_seed_has_one_trace_in_every_process_and_build() {
    for seed in [0, 1, 2, 64] {
        let plan = Plan::draw(seed);
        let here = trial::run(&plan, false).hash;
        assert_eq!(here, trial::run(&plan, true).hash, "seed {seed}: whether its lines are kept must not matter");
        // Another process, and another build: the program, not this test.
        let output = Command::new(env!("CARGO_BIN_EXE_sim"))
            .args(["replay", "--grep", "nothing", "--seed"])
            .arg(seed.to_string())
            .output();
        let output = String::from_utf8(output.expect("it runs").stdout).expect("text");
        assert_eq!(output.lines().next(), Some(format!("hash {here:016x}").as_str()), "seed {seed}");
    }
}

/// Each file is named for what went wrong; it was made by `sim shrink` while it did.
#[test]
fn what_failed_once_does_not_fail_again() {
    let dir = Path::new("tests/regressions");
    let mut tried = 0;
    for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
        let text = std::fs::read_to_string(entry.path()).expect("a file");
        let plan: Plan = serde_json::from_str(&text).expect("a plan");
        let violation = trial::run(&plan, false).violation;
        assert!(violation.is_none(), "{}: {}", entry.path().display(), violation.expect("one"));
        tried += 1;
    }
    assert!(tried >= 4, "{tried}");
}
