//! The figures of a run, to be compared with those of another.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::stats::{Stats, percentile};

/// The figures, as JSON.
#[must_use]
pub fn of(stats: &Stats) -> String {
    let jobs = stats.jobs.max(1) as f64;
    let seconds = |values: &[u64], percent| percentile(values, percent) as f64 / 1e6;
    let figures: BTreeMap<&str, f64> = [
        ("jobs completed, %", stats.completed as f64 / jobs * 100.0),
        ("runs a job", stats.runs as f64 / jobs),
        ("messages a job", stats.messages as f64 / jobs),
        ("message bytes a job", stats.message_bytes as f64 / jobs),
        ("records a job", stats.records as f64 / jobs),
        ("submission to bid, s, half", seconds(&stats.to_bid, 50)),
        ("submission to bid, s, 99 %", seconds(&stats.to_bid, 99)),
        ("submission to award, s, half", seconds(&stats.to_award, 50)),
        ("submission to award, s, 99 %", seconds(&stats.to_award, 99)),
        ("submission to end, s, half", seconds(&stats.to_end, 50)),
        ("submission to end, s, 99 %", seconds(&stats.to_end, 99)),
    ]
    .into();
    serde_json::to_string_pretty(&figures).unwrap_or_default()
}

/// Both side by side, with the ratio.
///
/// # Errors
/// If one of them holds no figures, in words.
pub fn compare(base: &str, change: &str) -> Result<String, String> {
    let read = |text: &str| {
        serde_json::from_str::<BTreeMap<String, f64>>(text).map_err(|error| format!("these are no figures: {error}"))
    };
    let (base, change) = (read(base)?, read(change)?);
    let mut table = format!("{:<32}{:>14}{:>14}{:>10}\n", "", "base", "change", "ratio");
    for (name, before) in &base {
        let Some(after) = change.get(name) else { continue };
        let _ = writeln!(table, "{name:<32}{before:>14.3}{after:>14.3}{:>10.3}", after / before.max(1e-9));
    }
    Ok(table)
}
