//! What is counted, for people.

use std::collections::BTreeMap;

use bacnode_protocol::id::JobId;
use bacnode_protocol::job::state::JobState;
use bacnode_protocol::record::{JobEvent, What};
use bacnode_protocol::wire::codec;
use bacnode_protocol::wire::market::Market;

/// In what a node is when bad luck strikes it.
pub const STAGES: [&str; 7] = ["idle", "asking", "awarded", "running elsewhere", "fetching", "running", "unreleased"];

/// Counts of one trial, or of many.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Trials.
    pub trials: u64,
    /// Nodes, jobs and slots.
    pub nodes: u64,
    /// Jobs submitted.
    pub jobs: u64,
    /// Things that happened.
    pub events: u64,
    /// Records written.
    pub records: u64,
    /// Runs started.
    pub runs: u64,
    /// Of these, taken up again after a restart.
    pub resumed: u64,
    /// Groups whose jobs another node went on with.
    pub takeovers: u64,
    /// Times that a member of a group was proved to contradict itself.
    pub accused: u64,
    /// Market messages and their bytes.
    pub messages: u64,
    /// Bytes of market messages.
    pub message_bytes: u64,
    /// Bytes of adverts.
    pub advert_bytes: u64,
    /// Bytes of view exchanges.
    pub view_bytes: u64,
    /// Steps that power losses took.
    pub lost_steps: u64,
    /// Jobs by how they ended.
    pub completed: u64,
    /// Jobs that failed.
    pub failed: u64,
    /// Jobs that were stopped.
    pub stopped: u64,
    /// Jobs that nothing but bad luck could keep from completing, and those that did.
    pub could: u64,
    /// Of these, completed.
    pub did: u64,
    /// Microseconds from submission to the first bid, award and end.
    pub to_bid: Vec<u64>,
    /// To the first award.
    pub to_award: Vec<u64>,
    /// To the end.
    pub to_end: Vec<u64>,
    /// When jobs ended.
    pub ends: Vec<u64>,
    /// Runs of each node.
    pub runs_of: BTreeMap<usize, u64>,
    /// Virtual microseconds.
    pub time: u64,
    /// How often each kind of fault struck a node in each stage.
    pub struck: BTreeMap<(&'static str, usize), u64>,
    submitted: BTreeMap<JobId, (u64, bool, bool)>,
}

impl Stats {
    pub(crate) fn message(&mut self, message: &Market) {
        self.messages += 1;
        // Sizes are alike for all of a kind; measuring every one costs more than the trial.
        if self.messages % 16 == 1 {
            self.message_bytes += codec::encode(message).len() as u64 * 16;
        }
    }

    pub(crate) fn submitted(&mut self, now: u64, job: JobId) {
        self.submitted.entry(job).or_insert((now, false, false));
    }

    pub(crate) fn told(&mut self, now: u64, event: &JobEvent, job: &JobId) {
        let Some((at, bid, award)) = self.submitted.get_mut(job) else { return };
        match event.what {
            What::Bid { .. } if !std::mem::replace(bid, true) => self.to_bid.push(now - *at),
            What::Awarded { .. } if !std::mem::replace(award, true) => self.to_award.push(now - *at),
            What::Ended { .. } => {
                self.to_end.push(now - *at);
                self.ends.push(now);
            }
            _ => {}
        }
    }

    pub(crate) fn ended(&mut self, state: JobState) {
        match state {
            JobState::Completed => self.completed += 1,
            JobState::Failed => self.failed += 1,
            JobState::Stopped => self.stopped += 1,
            JobState::Pending | JobState::Queued | JobState::Running => {}
        }
    }

    pub(crate) fn struck(&mut self, fault: &'static str, stages: &[Vec<usize>]) {
        for stage in stages.iter().flatten() {
            *self.struck.entry((fault, *stage)).or_default() += 1;
        }
    }

    /// When jobs were submitted.
    #[must_use]
    pub fn submissions(&self) -> Vec<u64> {
        self.submitted.values().map(|(at, _, _)| *at).collect()
    }

    /// Adds another trial's counts.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.trials, other.trials),
            (&mut self.nodes, other.nodes),
            (&mut self.jobs, other.jobs),
            (&mut self.events, other.events),
            (&mut self.records, other.records),
            (&mut self.runs, other.runs),
            (&mut self.resumed, other.resumed),
            (&mut self.takeovers, other.takeovers),
            (&mut self.accused, other.accused),
            (&mut self.messages, other.messages),
            (&mut self.message_bytes, other.message_bytes),
            (&mut self.advert_bytes, other.advert_bytes),
            (&mut self.view_bytes, other.view_bytes),
            (&mut self.lost_steps, other.lost_steps),
            (&mut self.completed, other.completed),
            (&mut self.failed, other.failed),
            (&mut self.stopped, other.stopped),
            (&mut self.could, other.could),
            (&mut self.did, other.did),
            (&mut self.time, other.time),
        ];
        for (mine, theirs) in pairs {
            *mine += theirs;
        }
        self.to_bid.extend(&other.to_bid);
        self.to_award.extend(&other.to_award);
        self.to_end.extend(&other.to_end);
        for (key, count) in &other.struck {
            *self.struck.entry(*key).or_default() += count;
        }
    }

    /// Pairs of stage and fault that never met.
    #[must_use]
    pub fn never_met(&self) -> Vec<String> {
        let pairs =
            crate::plan::What::NAMES.iter().flat_map(|fault| (0..STAGES.len()).map(move |stage| (*fault, stage)));
        pairs
            .filter(|key| !self.struck.contains_key(key))
            .map(|(fault, stage)| format!("{fault} while {}", STAGES[stage]))
            .collect()
    }
}

/// The value below which `percent` of the values lie.
#[must_use]
pub fn percentile(values: &[u64], percent: usize) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}
