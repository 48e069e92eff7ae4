//! How adverts spread: a model of gossipsub's mesh for networks that are too large to give each node a picture of all.
//!
//! Every node has a few mesh neighbours. It passes a new advert on to all of them but the one it came from, and tells a few
//! others each second which adverts it has (libp2p/specs, gossipsub v1.1: D = 6, D_lazy = 6, heartbeat 1 s), who then ask for
//! those they miss. Bytes are counted at both ends.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bacnode_protocol::limits::{ADVERT_PERIOD_MIN, ADVERTS_PER_SECOND};
use bacnode_protocol::wire::advert::Advert;
use rand::rngs::ChaCha12Rng;
use rand::{RngExt as _, SeedableRng as _};

use crate::plan::{MILLI, Micros, SECOND};
use crate::scenario::Scenario;

/// Mesh neighbours that a node seeks for itself; with those that seek it, twice as many: D.
const MESH: usize = 3;
/// Peers that are told each heartbeat what a node has.
const LAZY: usize = 6;
const HEARTBEAT: Micros = SECOND;
/// Bytes of an advert in its envelopes, and of an id.
const ADVERT_BYTES: f64 = 340.0;
const ID_BYTES: f64 = 20.0;
/// Heartbeats for which an advert's id is told.
const TOLD_FOR: f64 = 3.0;
/// Adverts that are followed.
const SAMPLE: usize = 40;

/// What came of it.
#[derive(Debug, Clone)]
pub struct Spread {
    /// Seconds, and the part of the live nodes that had the advert by then, on average.
    pub coverage: Vec<(f64, f64)>,
    /// Seconds until 99 % of the live nodes had it, the slowest advert that was followed.
    pub to_99: f64,
    /// Seconds of three periods: within which 99 % must have it.
    pub three_periods: f64,
    /// Bytes a second that a node sends and receives.
    pub bytes_per_second: f64,
}

/// Follows adverts through a network of so many nodes.
#[must_use]
pub fn spread(scenario: &Scenario, nodes: usize, seed: u64) -> Spread {
    let mut rng = ChaCha12Rng::seed_from_u64(seed ^ 0x0060_551b);
    let places: Vec<u32> = (0..nodes).map(|_| rng.random_range(0..scenario.network.places)).collect();
    let mut mesh: Vec<Vec<usize>> = vec![Vec::new(); nodes];
    for node in 0..nodes {
        for _ in 0..MESH.min(nodes - 1) {
            let other = (node + rng.random_range(1..nodes)) % nodes;
            if !mesh[node].contains(&other) {
                mesh[node].push(other);
                mesh[other].push(node);
            }
        }
    }
    let trouble = &scenario.trouble;
    let away = (trouble.crashes_per_minute_percent / 100.0 * trouble.down_s / 60.0).min(0.9);
    let period = Advert::period(nodes, ADVERT_PERIOD_MIN, ADVERTS_PER_SECOND).0 as f64 / SECOND as f64;
    let (mut times, mut sends) = (Vec::new(), 0.0);
    let mut to_99 = 0.0f64;
    for _ in 0..SAMPLE {
        let up: Vec<bool> = (0..nodes).map(|_| !rng.random_bool(away)).collect();
        let origin = rng.random_range(0..nodes);
        let (mut arrived, sent) = follow(scenario, &mesh, &places, &up, origin, &mut rng);
        sends += sent;
        let live = up.iter().filter(|up| **up).count().max(1);
        arrived.sort_unstable();
        // Who missed it hears the next one, a period later.
        let need = (live * 99).div_ceil(100);
        let at = arrived.get(need - 1).map_or(period + 1.0, |at| *at as f64 / SECOND as f64);
        to_99 = to_99.max(at);
        times.push((arrived, live));
    }
    let adverts_per_second = (nodes as f64 / period).min(ADVERTS_PER_SECOND as f64);
    // Each copy is sent once and received once.
    let eager = adverts_per_second * sends / SAMPLE as f64 * ADVERT_BYTES * 2.0 / nodes as f64;
    let lazy = adverts_per_second * TOLD_FOR * ID_BYTES * LAZY as f64 * 2.0;
    Spread { coverage: coverage(&times), to_99, three_periods: period * 3.0, bytes_per_second: eager + lazy }
}

/// When each live node has the advert, and how many copies were sent.
fn follow(
    scenario: &Scenario,
    mesh: &[Vec<usize>],
    places: &[u32],
    up: &[bool],
    origin: usize,
    rng: &mut ChaCha12Rng,
) -> (Vec<Micros>, f64) {
    let mut at: Vec<Option<Micros>> = vec![None; mesh.len()];
    let mut queue = BinaryHeap::from([Reverse((0u64, origin, usize::MAX))]);
    let (mut arrived, mut sent) = (Vec::new(), 0.0);
    while let Some(Reverse((now, node, from))) = queue.pop() {
        if at[node].is_some() || !up[node] {
            continue;
        }
        at[node] = Some(now);
        arrived.push(now);
        let mut pass = |to: usize, wait: Micros, rng: &mut ChaCha12Rng| {
            let network = &scenario.network;
            let one_way = if places[node] == places[to] { network.near_ms } else { network.far_ms };
            let one_way = (one_way * MILLI as f64) as u64;
            let late = rng.random_range(0..=one_way / 2 + 50);
            queue.push(Reverse((now + wait + one_way + late, to, node)));
        };
        for &to in mesh[node].iter().filter(|to| **to != from) {
            sent += 1.0;
            if !rng.random_bool(scenario.network.loss) {
                pass(to, 0, rng);
            }
        }
        for _ in 0..LAZY.min(mesh.len() - 1) {
            // Told at the next heartbeat, asked for, sent: three ways.
            let to = rng.random_range(0..mesh.len());
            let wait = rng.random_range(0..HEARTBEAT) + (scenario.network.far_ms * 2.0 * MILLI as f64) as u64;
            pass(to, wait, rng);
        }
    }
    (arrived, sent)
}

fn coverage(times: &[(Vec<Micros>, usize)]) -> Vec<(f64, f64)> {
    let end = times.iter().filter_map(|(arrived, _)| arrived.last()).max().copied().unwrap_or(SECOND);
    (0..=100u64)
        .map(|step| {
            let at = end * step / 100;
            let part = |(arrived, live): &(Vec<Micros>, usize)| {
                arrived.partition_point(|time| *time <= at) as f64 / *live as f64
            };
            (at as f64 / SECOND as f64, times.iter().map(part).sum::<f64>() / times.len().max(1) as f64)
        })
        .collect()
}
