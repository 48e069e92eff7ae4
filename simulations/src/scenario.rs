//! Scenarios: a network as people describe it, in TOML.

use std::path::Path;

use rand::rngs::ChaCha12Rng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Deserialize;

use crate::plan::{Ends, Evil, Fault, JobPlan, Kind, LinkPlan, MILLI, NodePlan, Plan, SECOND, What};

/// Those that come with the program.
const SHIPPED: [(&str, &str); 7] = [
    ("smoke", include_str!("../scenarios/smoke.toml")),
    ("churn", include_str!("../scenarios/churn.toml")),
    ("partition", include_str!("../scenarios/partition.toml")),
    ("byzantine", include_str!("../scenarios/byzantine.toml")),
    ("flash-crowd", include_str!("../scenarios/flash-crowd.toml")),
    ("edge-fleet", include_str!("../scenarios/edge-fleet.toml")),
    ("guardians", include_str!("../scenarios/guardians.toml")),
];

/// A network, its work and its troubles.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, in a sentence.
    pub about: String,
    /// For how long.
    pub minutes: f64,
    /// The machines and their links.
    pub network: Network,
    /// What is asked of them.
    pub work: Work,
    /// What goes wrong.
    #[serde(default)]
    pub trouble: Trouble,
}

/// The machines and their links.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// How many machines.
    pub nodes: usize,
    /// In how many places.
    pub places: u32,
    /// Milliseconds one way within a place.
    pub near_ms: f64,
    /// Milliseconds one way between places.
    pub far_ms: f64,
    /// Part of the messages that are lost.
    #[serde(default)]
    pub loss: f64,
    /// Cores of each machine.
    pub cores: f64,
    /// GiB of each machine.
    pub memory_gib: f64,
}

/// What is asked of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// Jobs a minute, from all owners together.
    pub jobs_per_minute: f64,
    /// Nodes at which they are submitted.
    pub owners: usize,
    /// Seconds that a run takes, from and to.
    pub run_s: [f64; 2],
    /// Cores that a run uses.
    pub cores: f64,
    /// Whether all come within the first second.
    #[serde(default)]
    pub at_once: bool,
    /// Whether a group keeps each owner's jobs.
    #[serde(default)]
    pub guarded: bool,
}

/// What goes wrong.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trouble {
    /// Machines that go down in a minute, of each hundred.
    pub crashes_per_minute_percent: f64,
    /// For how many seconds.
    pub down_s: f64,
    /// When the network splits in two halves, in seconds from the start, and for how long.
    pub split_s: Option<[f64; 2]>,
    /// Part of the machines that is dishonest.
    pub dishonest: f64,
    /// Owners that are gone for good, one after the other, while their jobs run.
    pub owners_gone: usize,
}

/// Why a scenario is none.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Not readable as one.
    #[error("{name}: {message}")]
    Malformed {
        /// Which.
        name: String,
        /// With the line.
        message: String,
    },
    /// No such file, no such name.
    #[error("there is no scenario `{name}`: {source}\n  hint: a file, or one of {}", names())]
    NotFound {
        /// What was asked for.
        name: String,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// A value that cannot be.
    #[error("{name}:{line}: `{field} = {value}`: must be {must}")]
    OutOfRange {
        /// Which scenario.
        name: String,
        /// In which line.
        line: usize,
        /// Which field.
        field: &'static str,
        /// What it says.
        value: f64,
        /// What it may say.
        must: &'static str,
    },
}

fn names() -> String {
    SHIPPED.map(|(name, _)| name).join(", ")
}

impl Scenario {
    /// A shipped scenario by name, or one in a file.
    ///
    /// # Errors
    /// If there is none, or it cannot be.
    pub fn find(name: &str) -> Result<Self, ScenarioError> {
        if let Some((_, text)) = SHIPPED.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text);
        }
        match std::fs::read_to_string(Path::new(name)) {
            Ok(text) => Self::parse(name, &text),
            Err(source) => Err(ScenarioError::NotFound { name: name.into(), source }),
        }
    }

    /// The scenario in `text`.
    ///
    /// # Errors
    /// If it is not one, or cannot be.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScenarioError> {
        let malformed =
            |error: toml::de::Error| ScenarioError::Malformed { name: name.into(), message: error.to_string() };
        let scenario: Self = toml::from_str(text).map_err(malformed)?;
        scenario.check(name, text)?;
        Ok(scenario)
    }

    fn check(&self, name: &str, text: &str) -> Result<(), ScenarioError> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let some = |value: f64| value.is_finite() && value >= 0.0;
        let part = |value: f64| (0.0..=1.0).contains(&value);
        let split = self.trouble.split_s.unwrap_or([0.0, 0.0]);
        let gone = self.trouble.owners_gone;
        let rules: [(&'static str, f64, bool, &'static str); 15] = [
            ("minutes", self.minutes, positive(self.minutes) && self.minutes <= 1_440.0, "more than 0, at most 1440"),
            ("nodes", self.network.nodes as f64, (2..=100_000).contains(&self.network.nodes), "2 to 100000"),
            ("places", f64::from(self.network.places), self.network.places > 0, "1 or more"),
            ("near_ms", self.network.near_ms, positive(self.network.near_ms), "more than 0"),
            ("far_ms", self.network.far_ms, positive(self.network.far_ms), "more than 0"),
            ("loss", self.network.loss, part(self.network.loss), "between 0 and 1"),
            ("memory_gib", self.network.memory_gib, positive(self.network.memory_gib), "more than 0"),
            ("jobs_per_minute", self.work.jobs_per_minute, some(self.work.jobs_per_minute), "0 or more"),
            (
                "owners",
                self.work.owners as f64,
                (1..=self.network.nodes).contains(&self.work.owners),
                "1 to the number of nodes",
            ),
            (
                "run_s",
                self.work.run_s[0],
                some(self.work.run_s[0]) && self.work.run_s[0] <= self.work.run_s[1],
                "[from, to], from at most to",
            ),
            ("cores", self.work.cores, positive(self.work.cores) && positive(self.network.cores), "more than 0"),
            (
                "crashes_per_minute_percent",
                self.trouble.crashes_per_minute_percent,
                some(self.trouble.crashes_per_minute_percent),
                "0 or more",
            ),
            ("split_s", split[0], some(split[0]) && some(split[1]), "[when, for how long], 0 or more"),
            (
                "owners_gone",
                gone as f64,
                gone == 0 || self.work.guarded && gone < self.work.owners,
                "fewer than the owners, with `guarded = true`",
            ),
            ("dishonest", self.trouble.dishonest, (0.0..=0.5).contains(&self.trouble.dishonest), "between 0 and 0.5"),
        ];
        let Some((field, value, _, must)) = rules.into_iter().find(|(_, _, holds, _)| !holds) else { return Ok(()) };
        let line = text.lines().position(|line| line.trim_start().starts_with(field)).map_or(0, |line| line + 1);
        Err(ScenarioError::OutOfRange { name: name.into(), line, field, value, must })
    }

    /// The trial that this scenario, with so many nodes, is for `seed`.
    #[must_use]
    pub fn plan(&self, nodes: usize, seed: u64) -> Plan {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let micros = |seconds: f64| (seconds * SECOND as f64) as u64;
        let safety = micros(self.minutes * 60.0);
        let dishonest = (nodes as f64 * self.trouble.dishonest) as usize;
        let kinds = [Evil::Forge, Evil::Replay, Evil::Equivocate, Evil::Withhold, Evil::Boast];
        let machine = |index: usize, rng: &mut ChaCha12Rng| NodePlan {
            place: rng.random_range(0..self.network.places),
            cpu: (self.network.cores * 1_000.0) as u64,
            memory: (self.network.memory_gib * f64::from(1 << 30)) as u64,
            drift: 0,
            skew: 0,
            sync: rng.random_range(500..5_000),
            evil: (index >= nodes - dishonest).then(|| kinds[index % kinds.len()]),
        };
        let nodes: Vec<NodePlan> = (0..nodes).map(|index| machine(index, &mut rng)).collect();
        let count = (self.work.jobs_per_minute * self.minutes).round() as usize;
        let owners = self.work.owners.min(nodes.len() - dishonest).max(1);
        // A little later than the machines, which must have found each other.
        let begin = 5 * SECOND;
        let mut jobs: Vec<JobPlan> = (0..count)
            .map(|index| {
                let until = if self.work.at_once { begin + SECOND } else { (safety * 9 / 10).max(begin + SECOND) };
                let [from, to] = self.work.run_s.map(micros);
                let run = rng.random_range(from..=to.max(from)).max(MILLI);
                JobPlan {
                    kind: Kind::Batch,
                    update: None,
                    picky: false,
                    priority: 0,
                    at: rng.random_range(begin..until),
                    owner: index % owners,
                    slots: 1,
                    exclusive: false,
                    cpu: (self.work.cores * 1_000.0) as u64,
                    memory: 128 << 20,
                    run,
                    timeout_ms: run / MILLI * 4 + 60_000,
                    ends: Ends::Exit(0),
                    stop: None,
                    inline: true,
                    inputs: false,
                    queue_timeout: 1_800 * SECOND,
                    total_timeout: None,
                    lease: [10, 60, 15, 3_600],
                    guarded: self.work.guarded,
                }
            })
            .collect();
        jobs.sort_by_key(|job| job.at);
        let faults = self.faults(nodes.len(), owners, safety, &mut rng);
        let links = LinkPlan {
            near: (self.network.near_ms * MILLI as f64) as u64,
            far: (self.network.far_ms * MILLI as f64) as u64,
            loss: (self.network.loss * 10_000.0) as u32,
            repeat: 0,
            delay: 0,
            delay_max: 0,
        };
        let lean = nodes.len() > 256;
        Plan {
            seed,
            nodes,
            jobs,
            links,
            faults,
            bad_runs: 0,
            safety,
            lean,
            ownership_ms: 15_000,
            real_signatures: false,
        }
    }

    fn faults(&self, nodes: usize, owners: usize, safety: u64, rng: &mut ChaCha12Rng) -> Vec<Fault> {
        let crashes = self.trouble.crashes_per_minute_percent / 100.0 * nodes as f64 * self.minutes;
        let down = (self.trouble.down_s.max(0.1) * SECOND as f64) as u64;
        let mut faults: Vec<Fault> = (0..crashes.round() as usize)
            // Owners stay: what is asked is what their users see.
            .filter(|_| nodes > owners)
            .map(|_| {
                let what = What::Kill { node: rng.random_range(owners..nodes), down };
                Fault { at: rng.random_range(10 * SECOND..safety.max(11 * SECOND)), what }
            })
            .collect();
        if let Some([at, lasts]) = self.trouble.split_s {
            let side = (nodes / 2..nodes).collect();
            let what = What::Split { side, lasts: (lasts * SECOND as f64) as u64 };
            faults.push(Fault { at: (at * SECOND as f64) as u64, what });
        }
        for node in 0..self.trouble.owners_gone {
            let at = safety / 2 / (self.trouble.owners_gone as u64 + 1) * (node as u64 + 1);
            faults.push(Fault { at, what: What::Gone { node } });
        }
        faults.sort_by_key(|fault| fault.at);
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_scenario_can_be() {
        for (name, _) in SHIPPED {
            let scenario = Scenario::find(name).expect(name);
            let plan = scenario.plan(scenario.network.nodes, 1);
            assert_eq!(plan.nodes.len(), scenario.network.nodes, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_line() {
        let good = SHIPPED[0].1;
        for (from, to, says) in [
            ("loss = 0.0", "loss = -1.0", "loss = -1`: must be between 0 and 1"),
            ("nodes = 10", "nodes = 1", "nodes = 1`: must be 2 to 100000"),
            ("nodes = 10", "nodes = 10\nwindows = 3", "unknown field `windows`"),
            ("places = 1", "places = \"one\"", "invalid type"),
        ] {
            assert!(good.contains(from), "{from}");
            let error = Scenario::parse("mine.toml", &good.replace(from, to)).expect_err(to).to_string();
            assert!(error.contains(says) && error.contains("mine.toml"), "{error}");
        }
        let error =
            Scenario::parse("mine.toml", &good.replace("loss = 0.0", "loss = 7.0")).expect_err("loss").to_string();
        let line = good.lines().position(|line| line.starts_with("loss")).expect("a line") + 1;
        assert!(error.starts_with(&format!("mine.toml:{line}:")), "{error}");
        assert!(Scenario::find("none").expect_err("none").to_string().contains("flash-crowd"));
    }
}
