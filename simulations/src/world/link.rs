//! The links between nodes: how long a message takes, whether it comes, and who believes to be connected.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;
use rand::rngs::ChaCha12Rng;

use crate::plan::{LinkPlan, Micros, Plan};

/// All links of a network.
#[derive(Debug)]
pub(crate) struct Links {
    plan: LinkPlan,
    places: Vec<u32>,
    /// How many faults block each direction.
    blocked: BTreeMap<(usize, usize), u16>,
    /// How many faults hold up each direction.
    clogged: BTreeMap<(usize, usize), u16>,
    /// Who was told that it is connected with whom.
    told: BTreeSet<(usize, usize)>,
    /// Nothing goes wrong any more.
    pub(crate) calm: bool,
}

impl Links {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.links.clone(),
            places: plan.nodes.iter().map(|node| node.place).collect(),
            blocked: BTreeMap::new(),
            clogged: BTreeMap::new(),
            told: BTreeSet::new(),
            calm: false,
        }
    }

    pub(crate) fn block(&mut self, from: usize, to: usize, on: bool) {
        count(&mut self.blocked, (from, to), on);
    }

    pub(crate) fn clog(&mut self, from: usize, to: usize, on: bool) {
        count(&mut self.clogged, (from, to), on);
    }

    /// Nothing is blocked or held up any more.
    pub(crate) fn mend(&mut self) {
        self.blocked.clear();
        self.clogged.clear();
    }

    /// Whether a message passes this way.
    pub(crate) fn passes(&self, from: usize, to: usize) -> bool {
        !self.blocked.contains_key(&(from, to))
    }

    /// Whether a message is held up this way.
    pub(crate) fn holds_up(&self, from: usize, to: usize) -> bool {
        self.clogged.contains_key(&(from, to))
    }

    /// Whether a connection can be kept: it takes both ways.
    pub(crate) fn connects(&self, a: usize, b: usize) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    /// Whether `a` was told that `b` is connected.
    pub(crate) fn told(&self, a: usize, b: usize) -> bool {
        self.told.contains(&(a, b))
    }

    pub(crate) fn tell(&mut self, a: usize, b: usize, up: bool) {
        if up {
            self.told.insert((a, b));
        } else {
            self.told.remove(&(a, b));
        }
    }

    /// One way, without jitter.
    pub(crate) fn distance(&self, a: usize, b: usize) -> Micros {
        if self.places[a] == self.places[b] { self.plan.near } else { self.plan.far }
    }

    /// When the copies of a message arrive, counted from now; none if it is lost.
    pub(crate) fn arrivals(&self, from: usize, to: usize, rng: &mut ChaCha12Rng) -> ([Micros; 2], usize) {
        let base = self.distance(from, to);
        let draw = |rng: &mut ChaCha12Rng| {
            let jitter = rng.random_range(0..=base / 2 + 50);
            let held = !self.calm && rng.random_range(0..10_000) < self.plan.delay;
            base + jitter + if held { rng.random_range(0..=self.plan.delay_max) } else { 0 }
        };
        if self.calm {
            return ([draw(rng), 0], 1);
        }
        if rng.random_range(0..10_000) < self.plan.loss {
            return ([0, 0], 0);
        }
        let twice = rng.random_range(0..10_000) < self.plan.repeat;
        ([draw(rng), draw(rng)], 1 + usize::from(twice))
    }
}

/// Counts one fault more, or less, of this direction.
fn count(faults: &mut BTreeMap<(usize, usize), u16>, direction: (usize, usize), on: bool) {
    let count = faults.entry(direction).or_default();
    *count = if on { *count + 1 } else { count.saturating_sub(1) };
    if *count == 0 {
        faults.remove(&direction);
    }
}
