//! How a plan is drawn from a seed.

use std::collections::BTreeSet;

use bacnode_protocol::wire::task::JobKind;
use rand::rngs::ChaCha12Rng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};

use super::{
    Ends, Evil, FOREVER, Fault, JobPlan, Kind, LinkPlan, MILLI, Micros, NodePlan, Plan, SECOND, SETTLED, What,
};

/// Bytes in a gibibyte.
const GIB: u64 = 1 << 30;

impl Plan {
    /// The trial that `seed` stands for.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let rng = &mut rng;
        let count = draw_size(rng);
        let safety = rng.random_range(600..720) * SECOND;
        let places = rng.random_range(1..=4u32);
        // Not every trial has every kind of trouble: what goes wrong alone shows faults that a storm hides.
        let clocks = rng.random_bool(0.4);
        let evil = if rng.random_bool(0.25) { rng.random_range(1..=(count / 4).max(1)) } else { 0 };
        let mut nodes: Vec<NodePlan> = (0..count).map(|_| draw_node(places, clocks, rng)).collect();
        for node in nodes.iter_mut().skip(1).take(if count > 3 { evil } else { 0 }) {
            let kinds = [Evil::Forge, Evil::Replay, Evil::Equivocate, Evil::Withhold, Evil::Boast];
            node.evil = kinds.choose(rng).copied();
        }
        nodes.shuffle(rng);
        let mut jobs = draw_jobs(&nodes, safety, rng);
        draw_kinds(&mut jobs, safety, &mut ChaCha12Rng::seed_from_u64(!seed));
        // Now and then dishonesty is the only trouble, to see what it does.
        let alone = evil > 0 && rng.random_bool(0.3);
        if alone {
            // What waits long enough shows what lies cost, and not what impatience does.
            for job in &mut jobs {
                job.queue_timeout = 1_800 * SECOND;
            }
        }
        let mut faults = if alone { Vec::new() } else { draw_faults(&nodes, &jobs, safety, rng) };
        let harsh = !alone && rng.random_bool(0.6);
        let links = LinkPlan {
            near: rng.random_range(100..2_000),
            far: rng.random_range(5..120) * MILLI,
            loss: if harsh { rng.random_range(0..600) } else { 0 },
            repeat: if harsh { rng.random_range(0..600) } else { 0 },
            delay: if harsh { rng.random_range(0..200) } else { 0 },
            delay_max: rng.random_range(100..30_000) * MILLI,
        };
        let mut chance = ChaCha12Rng::seed_from_u64(seed ^ 0x6a0e);
        let ownership_ms = draw_groups(&mut nodes, &mut jobs, &mut faults, &mut chance);
        let bad_runs = if !alone && rng.random_bool(0.6) { rng.random_range(0..200) } else { 0 };
        Self {
            seed,
            nodes,
            jobs,
            links,
            faults,
            bad_runs,
            safety,
            lean: false,
            ownership_ms,
            real_signatures: seed.is_multiple_of(64),
        }
    }
}

/// In three of ten honest networks of four nodes or more most jobs are kept by groups. Disks are not lost then, but now and
/// then a machine is, for good; and now and then some nodes waver, as members of others' groups.
fn draw_groups(nodes: &mut [NodePlan], jobs: &mut [JobPlan], faults: &mut Vec<Fault>, rng: &mut ChaCha12Rng) -> u64 {
    let ownership_ms = *[2_000, 5_000, 15_000].choose(rng).unwrap_or(&15_000);
    let honest = nodes.iter().all(|node| node.evil.is_none());
    if nodes.len() < 4 || !honest || !rng.random_bool(0.3) {
        return ownership_ms;
    }
    for job in jobs.iter_mut() {
        job.guarded = rng.random_bool(0.9);
    }
    faults.retain(|fault| !matches!(fault.what, What::Wipe { .. }));
    if let Some(job) = jobs.choose(rng).filter(|_| rng.random_bool(0.5)) {
        let at = job.at + rng.random_range(0..20 * SECOND);
        let node = if rng.random_bool(0.7) { job.owner } else { rng.random_range(0..nodes.len()) };
        faults.push(Fault { at, what: What::Gone { node } });
        // What only that node would take, or what its user did not say again, is not there to be waited for.
        for job in jobs.iter_mut().filter(|job| job.owner == node) {
            job.guarded = true;
        }
    }
    // Owners that come back just when others are about to follow somebody else, each time in another moment of that.
    while rng.random_bool(0.4) {
        let Some(job) = jobs.choose(rng) else { break };
        let lease = ownership_ms * MILLI;
        let down = lease / 4 * rng.random_range(3..=6) + rng.random_range(0..lease / 8);
        faults.push(Fault { at: job.at + rng.random_range(0..5 * SECOND), what: What::Kill { node: job.owner, down } });
    }
    faults.sort_by_key(|fault| fault.at);
    let owners: BTreeSet<usize> = jobs.iter().map(|job| job.owner).collect();
    if rng.random_bool(0.15) {
        for (_, node) in (0..).zip(&mut *nodes).filter(|(index, _)| !owners.contains(index)) {
            node.evil = rng.random_bool(0.5).then_some(Evil::Waver);
        }
    }
    ownership_ms
}

/// Three to fifty, seven in the middle: most faults show in small networks, and small ones are quick.
fn draw_size(rng: &mut ChaCha12Rng) -> usize {
    match rng.random_range(0..100) {
        0..50 => rng.random_range(3..=7),
        50..85 => rng.random_range(7..=14),
        85..97 => rng.random_range(14..=28),
        _ => rng.random_range(28..=50),
    }
}

fn draw_node(places: u32, clocks: bool, rng: &mut ChaCha12Rng) -> NodePlan {
    NodePlan {
        place: rng.random_range(0..places),
        cpu: *[1_000, 2_000, 4_000, 8_000].choose(rng).unwrap_or(&2_000),
        memory: *[2 * GIB, 4 * GIB, 8 * GIB].choose(rng).unwrap_or(&GIB),
        drift: if clocks { rng.random_range(-10_000..=10_000) } else { 0 },
        skew: if clocks { rng.random_range(-5_000..=5_000) } else { 0 },
        sync: rng.random_range(200..20_000),
        evil: None,
    }
}

fn draw_jobs(nodes: &[NodePlan], safety: Micros, rng: &mut ChaCha12Rng) -> Vec<JobPlan> {
    let count = match rng.random_range(0..100) {
        0..60 => rng.random_range(1..=12),
        60..90 => rng.random_range(12..=50),
        _ => rng.random_range(50..=200),
    };
    let mut owners: Vec<usize> = (0..nodes.len()).filter(|node| nodes[*node].evil.is_none()).collect();
    // A few owners, so that each has something at stake at every time.
    owners.shuffle(rng);
    owners.truncate(rng.random_range(1..=4));
    let exclusive = if rng.random_bool(0.3) { 0.6 } else { 0.1 };
    let lease = if rng.random_bool(0.3) { [10, 60, 15, 3_600] } else { [2, 10, 3, 90] };
    let long = rng.random_bool(0.3);
    let mut jobs: Vec<JobPlan> = (0..count)
        .map(|_| {
            let run = if long { rng.random_range(1_000..60_000) } else { rng.random_range(1..5_000) } * MILLI;
            JobPlan {
                kind: Kind::Batch,
                update: None,
                picky: false,
                priority: 0,
                guarded: false,
                at: rng.random_range(SECOND..safety * 9 / 10),
                owner: *owners.choose(rng).unwrap_or(&0),
                slots: if rng.random_bool(0.65) { 1 } else { rng.random_range(2..=12) },
                exclusive: rng.random_bool(exclusive),
                cpu: *[100, 500, 1_000, 2_000].choose(rng).unwrap_or(&500),
                memory: rng.random_range(1..=16) * (GIB / 16),
                run,
                // Now and then a program that is not done in its time.
                timeout_ms: match rng.random_range(0..100) {
                    0..5 => (run / 2 / MILLI).max(1),
                    // More than any operator allows.
                    5 => 7_200_000,
                    _ => run / MILLI * 2 + 5_000,
                },
                ends: match rng.random_range(0..20) {
                    0 => Ends::Trap,
                    1 => Ends::Exit(7),
                    _ => Ends::Exit(0),
                },
                stop: rng.random_bool(0.1).then(|| rng.random_range(0..30 * SECOND)),
                inline: rng.random_bool(0.5),
                inputs: rng.random_bool(0.2),
                queue_timeout: rng.random_range(60..180) * SECOND,
                total_timeout: rng.random_bool(0.1).then(|| rng.random_range(5..300) * SECOND),
                lease,
            }
        })
        .collect();
    jobs.sort_by_key(|job| job.at);
    jobs
}

/// Makes some of the jobs others than batches; by chance of its own, so that each seed's other draws stay what they were.
fn draw_kinds(jobs: &mut [JobPlan], safety: Micros, rng: &mut ChaCha12Rng) {
    for job in &mut *jobs {
        job.priority = if rng.random_bool(0.2) { rng.random_range(-3..=3) } else { 0 };
        job.picky = rng.random_bool(0.1);
    }
    if rng.random_bool(0.4) {
        return;
    }
    for job in jobs.iter_mut().take(12) {
        let kind = match rng.random_range(0..10) {
            0 | 1 => Kind::Service,
            2 | 3 => Kind::Ops,
            4 => Kind::Daemon,
            _ => continue,
        };
        job.kind = kind;
        job.picky = rng.random_bool(0.4);
        // What never ends must leave room for what does.
        (job.cpu, job.memory, job.slots) = (50, GIB / 64, job.slots.min(4));
        if !JobKind::from(kind).is_endless() {
            continue;
        }
        if rng.random_bool(0.7) {
            job.run = FOREVER;
        }
        (job.timeout_ms, job.total_timeout) = (0, None);
        job.update = rng.random_bool(0.4).then(|| rng.random_range(0..300 * SECOND));
        // Somebody must stop it: now and then while things go wrong, mostly when it has been quiet for long enough for
        // all of it to run.
        let late = safety + SETTLED - job.at;
        job.stop = Some(if rng.random_bool(0.2) { rng.random_range(0..200 * SECOND) } else { late });
    }
}

fn draw_faults(nodes: &[NodePlan], jobs: &[JobPlan], safety: Micros, rng: &mut ChaCha12Rng) -> Vec<Fault> {
    let mut kinds: Vec<usize> = (0..What::NAMES.len()).collect();
    kinds.shuffle(rng);
    // Swarm testing: a random part of all kinds, from none to all.
    kinds.truncate(rng.random_range(0..=What::NAMES.len()));
    if kinds.is_empty() {
        return Vec::new();
    }
    let count = rng.random_range(1..=(8 + nodes.len() * 2).min(40));
    let mut faults: Vec<Fault> = (0..count)
        .map(|_| {
            // Half of them near a job's beginning, where there is most to go wrong.
            let at = match jobs.choose(rng) {
                Some(job) if rng.random_bool(0.5) => {
                    job.at + rng.random_range(0..=job.run.min(60 * SECOND) * 2 + SECOND)
                }
                _ => rng.random_range(SECOND..safety),
            };
            let owner = jobs.choose(rng).map_or(0, |job| job.owner);
            let node = if rng.random_bool(0.4) { owner } else { rng.random_range(0..nodes.len()) };
            let kind = *kinds.choose(rng).unwrap_or(&0);
            Fault { at: at.min(safety - SECOND), what: draw_fault(kind, node, nodes.len(), rng) }
        })
        .collect();
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn draw_fault(kind: usize, node: usize, count: usize, rng: &mut ChaCha12Rng) -> What {
    let short = rng.random_range(10 * MILLI..5 * SECOND);
    let long = rng.random_range(SECOND..90 * SECOND);
    // A process that is back at once meets what was sent to its former life.
    let quick = rng.random_range(MILLI..300 * MILLI);
    let some = *[quick, short, long].choose(rng).unwrap_or(&short);
    let mut side: Vec<usize> = (0..count).filter(|_| rng.random_bool(0.5)).collect();
    side.retain(|other| *other != node);
    side.push(node);
    match kind {
        0 => What::Kill { node, down: some },
        1 => What::PowerLoss { node, down: some },
        2 => {
            let (outputs, power) = (rng.random_range(0..60), rng.random_bool(0.5));
            What::KillAtOutput { node, outputs, down: some, power }
        }
        3 => What::Wipe { node, down: some },
        4 => What::Split { side, lasts: long },
        5 => What::OneWay { side: if rng.random_bool(0.5) { vec![node] } else { side }, lasts: long },
        6 => What::Clog { node, lasts: some },
        7 => What::Flap { node, times: rng.random_range(1..=8), each: rng.random_range(100 * MILLI..4 * SECOND) },
        8 => What::SlowDisk { node, factor: rng.random_range(5..200), lasts: long },
        9 => What::FullDisk { node, lasts: rng.random_range(SECOND..40 * SECOND) },
        10 => What::ClockJump { node, by: rng.random_range(-3_600_000..3_600_000) },
        _ => What::Suspend { node, lasts: some },
    }
}
