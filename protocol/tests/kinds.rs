//! What kinds of jobs there are besides batches: services, ops, daemons; their versions, priorities and constraints.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod world;

use bacnode_protocol::id::JobId;
use bacnode_protocol::job::state::JobState;
use bacnode_protocol::record::What;
use bacnode_protocol::requester::Answer;
use bacnode_protocol::time::Span;
use bacnode_protocol::wire::bounded::{ListMax, TextMax};
use bacnode_protocol::wire::constraint::{Constraint, Operator};
use bacnode_protocol::wire::market::{FailureKind, Outcome};
use bacnode_protocol::wire::task::{JobKind, Resources, Task};
use world::World;

/// Longer than any of these tests.
const ON_AND_ON: Span = Span::secs(1_000_000);

fn task(kind: JobKind) -> Task {
    let endless = kind.is_endless();
    let timeout_ms = if endless { 0 } else { 60_000 };
    Task { kind, timeout_ms, exclusive: endless, ..World::task() }
}

fn labelled(task: Task, key: &str, value: &str) -> Task {
    let constraint = Constraint {
        key: TextMax::truncated(key),
        operator: Operator::In,
        values: ListMax::truncated([TextMax::truncated(value)]),
    };
    Task { constraints: ListMax::truncated([constraint]), ..task }
}

fn ends(world: &World, job: &JobId) -> Vec<(JobState, String)> {
    world.told.get(job).map(|told| told.ends.clone()).unwrap_or_default()
}

fn states(world: &World, job: &JobId) -> Vec<JobState> {
    ends(world, job).into_iter().map(|(state, _)| state).collect()
}

/// The nodes that run something.
fn nodes(world: &World) -> Vec<usize> {
    world.runners().into_iter().map(|(node, ..)| node).collect()
}

fn slots(world: &World) -> Vec<u32> {
    let mut slots: Vec<u32> = world.runners().into_iter().map(|(_, slot, _)| slot).collect();
    slots.sort_unstable();
    slots
}

#[test]
fn ops_runs_once_on_every_node() {
    let mut world = World::new(1, 6);
    let job = world.submit(0, b"a", task(JobKind::Ops), 1);
    world.run(Span::secs(10));
    assert_eq!(states(&world, &job), [JobState::Completed]);
    assert_eq!(world.starts, (0..6).map(|node| (node, 1)).collect());
    assert_eq!(world.told[&job].accepted.len(), 6);
}

#[test]
fn ops_runs_only_where_the_labels_match() {
    let mut world = World::new(2, 6);
    for node in [1, 4] {
        world.label(node, "zone", "eu");
    }
    world.label(2, "zone", "us");
    world.run(Span::secs(1));
    let job = world.submit(0, b"a", labelled(task(JobKind::Ops), "zone", "eu"), 1);
    let none = world.submit(0, b"b", labelled(task(JobKind::Ops), "zone", "mars"), 1);
    world.run(Span::secs(10));
    assert_eq!(states(&world, &job), [JobState::Completed]);
    assert_eq!(world.starts.keys().copied().collect::<Vec<_>>(), [1, 4]);
    let (state, message) = &ends(&world, &none)[0];
    assert_eq!(*state, JobState::Failed);
    assert!(message.contains("label zone: needs `zone=mars`"), "{message}");
}

#[test]
fn ops_goes_on_where_it_can_and_says_where_it_could_not() {
    let mut world = World::new(3, 5);
    let cause = TextMax::truncated("the program trapped: unreachable");
    world.outcomes = vec![Outcome::Failed { kind: FailureKind::Trap, cause }];
    let job = world.submit(0, b"a", task(JobKind::Ops), 1);
    world.run(Span::secs(10));
    assert_eq!(world.told[&job].accepted.len(), 4);
    let (state, message) = &ends(&world, &job)[0];
    assert_eq!(*state, JobState::Failed);
    assert!(message.starts_with("1 of 5 nodes failed:\nnode-"), "{message}");
    assert!(message.ends_with("the program trapped: unreachable"), "{message}");
}

#[test]
fn ops_is_not_run_again_on_a_node_that_went_down_with_it() {
    let mut world = World::new(4, 4);
    world.run_for = Span::secs(5);
    let job = world.submit(0, b"a", task(JobKind::Ops), 1);
    world.run(Span::secs(1));
    world.crash(2);
    world.run(Span::secs(30));
    world.start(2);
    world.run(Span::secs(60));
    assert_eq!(world.starts, (0..4).map(|node| (node, 1)).collect());
    let (state, message) = &ends(&world, &job)[0];
    assert_eq!(*state, JobState::Failed);
    assert!(message.starts_with("1 of 4 nodes failed:\nnode-2: "), "{message}");
}

#[test]
fn ops_is_tried_again_on_a_node_on_which_it_never_began() {
    let mut world = World::new(17, 4);
    world.break_early = 3;
    let job = world.submit(0, b"a", task(JobKind::Ops), 1);
    world.run(Span::secs(10));
    assert_eq!(states(&world, &job), [JobState::Completed]);
    assert_eq!((world.starts.values().sum::<u32>(), world.told[&job].accepted.len()), (7, 4));
    world.break_early = 12;
    let job = world.submit(0, b"b", task(JobKind::Ops), 1);
    world.run(Span::secs(20));
    let (state, message) = &ends(&world, &job)[0];
    assert_eq!((*state, message.lines().count()), (JobState::Failed, 5), "{message}");
    assert!(message.ends_with(": its input could not be fetched"), "{message}");
}

#[test]
fn ops_of_a_restarted_owner_is_done_once() {
    for seed in 0..10 {
        let mut world = World::new(seed, 4);
        world.run_for = Span::secs(3);
        let job = world.submit(0, b"a", Task { exclusive: true, ..task(JobKind::Ops) }, 1);
        world.run(Span::millis(seed * 40));
        world.crash(0);
        world.start(0);
        world.run(Span::secs(60));
        let most = world.starts.values().max();
        // What the owner itself ran, ended with it.
        assert_eq!(most, Some(&1), "seed {seed}: {:?}", world.starts);
        assert_eq!(ends(&world, &job).len(), 1, "seed {seed}");
    }
}

#[test]
fn a_service_is_kept_running() {
    let mut world = World::new(5, 5);
    world.run_for = ON_AND_ON;
    let job = world.submit(0, b"a", task(JobKind::Service), 3);
    world.run(Span::secs(2));
    assert_eq!(slots(&world), [0, 1, 2]);
    let victim = nodes(&world).into_iter().find(|node| *node != 0).expect("somebody else runs it");
    world.crash(victim);
    // Lease and grace, and not before.
    world.run(Span::secs(4));
    assert_eq!(slots(&world).len(), 2);
    world.run(Span::secs(6));
    assert_eq!(slots(&world), [0, 1, 2]);
    assert_eq!(world.overlaps, 0);
    world.stop(0, job);
    world.run(Span::secs(5));
    assert_eq!(states(&world, &job), [JobState::Stopped]);
    assert!(nodes(&world).is_empty());
}

#[test]
fn what_ends_of_a_service_is_started_again_after_longer_and_longer() {
    let mut world = World::new(6, 3);
    world.run_for = Span::millis(10);
    let job = world.submit(0, b"a", task(JobKind::Service), 1);
    world.run(Span::secs(300));
    let runs = world.starts.values().sum::<u32>();
    // 0, 0.5, 1, 2, 4, … 32, 60, 60, 60
    assert!((9..=14).contains(&runs), "{runs} runs");
    assert!(ends(&world, &job).is_empty());
    let rests: Vec<u64> = world.told[&job]
        .events
        .iter()
        .filter_map(|what| if let What::Again { rest_ms } = what { Some(*rest_ms) } else { None })
        .collect();
    assert_eq!(rests[..5], [0, 500, 1_000, 2_000, 4_000]);
    assert!(rests.iter().all(|rest| *rest <= 60_000), "{rests:?}");
}

#[test]
fn a_service_that_no_node_could_run_says_so_at_once() {
    let mut world = World::new(7, 3);
    let huge = Resources { cpu_milli: 64_000, ..World::task().resources };
    let job = world.submit(0, b"a", Task { resources: huge, ..task(JobKind::Service) }, 1);
    world.run(Span::secs(3));
    let (state, message) = &ends(&world, &job)[0];
    assert_eq!(*state, JobState::Failed);
    assert!(message.contains("cpu: needs 64 cores, has 2 cores"), "{message}");
}

#[test]
fn a_new_version_takes_the_place_of_the_one_before_without_a_gap() {
    let mut world = World::new(8, 4);
    world.run_for = ON_AND_ON;
    world.submit(0, b"a", task(JobKind::Service), 2);
    world.run(Span::secs(2));
    let before = world.runners();
    world.submit_spec(0, b"a", b"{}", task(JobKind::Service), 2);
    world.run(Span::secs(2));
    assert_eq!(world.runners(), before, "nothing is new");
    assert!(world.answers.contains(&(1, Answer::Unchanged(1))));
    world.submit_spec(0, b"a", b"{2}", task(JobKind::Service), 3);
    let mut least = usize::MAX;
    for _ in 0..2_000 {
        world.run(Span::millis(1));
        let mut slots: Vec<u32> = slots(&world);
        slots.dedup();
        least = least.min(slots.len());
    }
    assert_eq!(least, 2, "a slot was empty for a moment");
    let versions: Vec<(u32, u32)> = world.runners().iter().map(|(_, slot, version)| (*slot, *version)).collect();
    assert_eq!(versions.len(), 3);
    assert!(versions.iter().all(|(_, version)| *version == 2), "{versions:?}");
    assert!(world.answers.contains(&(1, Answer::Accepted { version: 2, linger: false })));
    // Fewer: the surplus ends.
    world.submit_spec(0, b"a", b"{3}", task(JobKind::Service), 1);
    world.run(Span::secs(2));
    assert_eq!(world.runners().iter().map(|(_, slot, version)| (*slot, *version)).collect::<Vec<_>>(), [(0, 3)]);
}

#[test]
fn two_versions_of_an_exclusive_slot_never_run_together() {
    for seed in 0..10 {
        let mut world = World::new(seed, 4);
        (world.run_for, world.strict) = (ON_AND_ON, true);
        world.submit(0, b"a", task(JobKind::Service), 1);
        world.run(Span::secs(2));
        let holder = nodes(&world)[0];
        if holder != 0 && seed % 2 == 0 {
            // It is not told in time.
            world.cut(0, holder);
        }
        world.submit_spec(0, b"a", b"{2}", task(JobKind::Service), 1);
        for _ in 0..1_500 {
            world.run(Span::millis(10));
            assert!(world.runners().len() <= 1, "seed {seed}: {:?}", world.runners());
        }
        assert_eq!(world.runners().iter().map(|(.., version)| *version).collect::<Vec<_>>(), [2], "seed {seed}");
    }
}

#[test]
fn a_service_outlives_its_owners_restart() {
    let mut world = World::new(9, 4);
    world.run_for = ON_AND_ON;
    let job = world.submit(0, b"a", task(JobKind::Service), 2);
    world.run(Span::secs(2));
    world.submit_spec(0, b"a", b"{2}", task(JobKind::Service), 2);
    world.run(Span::millis(3));
    world.crash(0);
    world.start(0);
    world.run(Span::secs(20));
    let versions: Vec<(u32, u32)> = world.runners().iter().map(|(_, slot, version)| (*slot, *version)).collect();
    assert_eq!(versions.len(), 2, "{versions:?}");
    assert!(versions.iter().all(|(_, version)| *version == 2), "{versions:?}");
    world.stop(0, job);
    world.run(Span::secs(3));
    assert!(nodes(&world).is_empty());
}

#[test]
fn a_daemon_runs_on_every_node_and_on_those_that_come_later() {
    let mut world = World::new(10, 5);
    world.run_for = ON_AND_ON;
    world.crash(4);
    let job = world.submit(0, b"a", task(JobKind::Daemon), 1);
    world.run(Span::secs(3));
    assert_eq!(nodes(&world), [0, 1, 2, 3]);
    world.start(4);
    world.run(Span::secs(3));
    assert_eq!(nodes(&world), [0, 1, 2, 3, 4]);
    world.crash(2);
    world.run(Span::secs(20));
    assert_eq!(nodes(&world), [0, 1, 3, 4]);
    world.start(2);
    world.run(Span::secs(20));
    assert_eq!(nodes(&world), [0, 1, 2, 3, 4]);
    assert_eq!(world.overlaps, 0);
    world.stop(0, job);
    world.run(Span::secs(3));
    assert!(nodes(&world).is_empty());
}

#[test]
fn a_daemon_runs_on_a_node_that_comes_while_others_are_asked() {
    let mut world = World::new(16, 4);
    world.run_for = ON_AND_ON;
    world.faults.latency_max = Span::millis(300);
    world.crash(3);
    world.submit(0, b"a", task(JobKind::Daemon), 1);
    world.run(Span::millis(100));
    world.start(3);
    world.run(Span::secs(10));
    assert_eq!(nodes(&world), [0, 1, 2, 3]);
}

#[test]
fn a_daemon_waits_for_a_node_that_matches() {
    let mut world = World::new(11, 3);
    world.run_for = ON_AND_ON;
    let job = world.submit(0, b"a", labelled(task(JobKind::Daemon), "disk", "ssd"), 1);
    world.run(Span::secs(120));
    assert_eq!((nodes(&world), ends(&world, &job)), (vec![], vec![]));
    // A node gets the label in its next life.
    world.label(2, "disk", "ssd");
    world.run(Span::secs(3));
    assert_eq!(nodes(&world), [2]);
}

#[test]
fn one_node_in_many_has_the_label() {
    let mut world = World::new(12, 60);
    world.label(47, "gpu", "h200");
    let job = world.submit(0, b"a", labelled(task(JobKind::Batch), "gpu", "h200"), 1);
    world.run(Span::secs(1));
    assert_eq!(states(&world, &job), [JobState::Completed]);
    assert_eq!(world.starts.keys().copied().collect::<Vec<_>>(), [47]);
}

#[test]
fn what_a_sketch_cannot_show_is_found_by_asking() {
    let mut world = World::new(13, 60);
    for node in (0..60).filter(|node| *node != 31) {
        world.label(node, "busy", "yes");
    }
    let constraint =
        Constraint { key: TextMax::truncated("busy"), operator: Operator::Absent, values: ListMax::default() };
    let wanted = Task { constraints: ListMax::truncated([constraint]), ..World::task() };
    let job = world.submit(0, b"a", wanted, 1);
    world.run(Span::secs(3));
    assert_eq!(states(&world, &job), [JobState::Completed]);
    assert_eq!(world.starts.keys().copied().collect::<Vec<_>>(), [31]);
}

#[test]
fn a_drained_node_gives_back_what_has_no_end() {
    let mut world = World::new(14, 3);
    world.run_for = ON_AND_ON;
    let job = world.submit(0, b"a", task(JobKind::Service), 1);
    world.run(Span::secs(2));
    let holder = nodes(&world)[0];
    world.drain(holder);
    world.run(Span::secs(2));
    let now = nodes(&world);
    assert!(now.len() == 1 && now[0] != holder, "{now:?}");
    let told = &world.told[&job].events;
    let drained = |what: &What| matches!(what, What::Result { cause, .. } if &**cause == "the node is being drained");
    assert!(told.iter().any(drained), "{told:?}");
}

#[test]
fn the_urgent_goes_first() {
    let mut world = World::new(15, 2);
    world.run_for = Span::millis(500);
    for node in 0..2 {
        world.resize(node, Resources { cpu_milli: 500, ..World::task().resources });
    }
    let plain: Vec<JobId> = (0..100u32).map(|n| world.submit(0, &n.to_be_bytes(), World::task(), 1)).collect();
    world.run(Span::secs(3));
    let urgent: Vec<JobId> = (0..10u32)
        .map(|n| world.submit(0, &(1_000 + n).to_be_bytes(), Task { priority: 5, ..World::task() }, 1))
        .collect();
    world.run(Span::secs(6));
    let done = |jobs: &[JobId], world: &World| jobs.iter().filter(|job| !ends(world, job).is_empty()).count();
    assert_eq!(done(&urgent, &world), 10, "those before: {}", done(&plain, &world));
    assert!(done(&plain, &world) < 40);
    world.run(Span::secs(60));
    assert_eq!(done(&plain, &world), 100);
}

fn big(task: Task) -> Task {
    let resources = Resources { cpu_milli: 1_500, ..task.resources };
    Task { resources, ..task }
}

#[test]
fn a_service_that_ran_waits_for_a_place_however_long() {
    let mut world = World::new(18, 3);
    // The owner itself has no room.
    world.resize(0, Resources { cpu_milli: 500, ..World::task().resources });
    world.run_for = ON_AND_ON;
    let job = world.submit(0, b"a", big(task(JobKind::Service)), 1);
    world.run(Span::secs(2));
    let other = world.submit(0, b"b", big(task(JobKind::Service)), 1);
    world.run(Span::secs(2));
    let holder = world.holder_of(&job).expect("somebody runs it");
    world.crash(holder);
    world.run(Span::secs(300));
    assert!(ends(&world, &job).is_empty(), "{:?}", ends(&world, &job));
    world.stop(0, other);
    world.run(Span::secs(20));
    assert_eq!(world.holder_of(&job), Some(3 - holder));
}

#[test]
fn a_version_that_cannot_run_does_not_end_the_one_that_does() {
    let mut world = World::new(19, 3);
    world.run_for = ON_AND_ON;
    let job = world.submit(0, b"a", task(JobKind::Service), 2);
    world.run(Span::secs(2));
    let before = world.runners();
    world.submit_spec(0, b"a", b"{2}", labelled(task(JobKind::Service), "zone", "mars"), 2);
    world.run(Span::secs(200));
    assert_eq!((world.runners(), ends(&world, &job)), (before, vec![]));
    world.submit_spec(0, b"a", b"{3}", task(JobKind::Service), 2);
    world.run(Span::secs(5));
    assert!(world.runners().len() == 2 && world.runners().iter().all(|(.., version)| *version == 3));
}

#[test]
fn what_does_not_fit_beside_a_service_is_not_taken() {
    let mut world = World::new(20, 2);
    world.run_for = ON_AND_ON;
    world.submit(0, b"a", big(task(JobKind::Service)), 1);
    world.run(Span::secs(2));
    let holder = nodes(&world)[0];
    world.run_for = Span::millis(20);
    let jobs: Vec<JobId> = (0..10u8).map(|n| world.submit(0, &[n], big(task(JobKind::Batch)), 1)).collect();
    world.run(Span::secs(20));
    assert!(jobs.iter().all(|job| states(&world, job) == [JobState::Completed]));
    assert_eq!(world.starts[&holder], 1, "only the service");
}

#[test]
fn a_version_that_does_not_fit_beside_the_one_before_takes_its_place() {
    let mut world = World::new(21, 2);
    world.run_for = ON_AND_ON;
    world.submit(0, b"a", big(task(JobKind::Daemon)), 1);
    world.run(Span::secs(2));
    world.submit_spec(0, b"a", b"{2}", big(task(JobKind::Daemon)), 1);
    world.run(Span::secs(5));
    let versions: Vec<(usize, u32)> = world.runners().iter().map(|(node, _, version)| (*node, *version)).collect();
    assert_eq!(versions, [(0, 2), (1, 2)]);
}

#[test]
fn a_daemon_leaves_a_node_that_its_new_version_does_not_match() {
    for sketched in [true, false] {
        let mut world = World::new(22, 3);
        world.run_for = ON_AND_ON;
        for node in 0..3 {
            world.label(node, if sketched { "other" } else { "zone" }, if node == 1 { "eu" } else { "us" });
        }
        world.label(1, "zone", "eu");
        world.run(Span::secs(1));
        world.submit(0, b"a", task(JobKind::Daemon), 1);
        world.run(Span::secs(3));
        assert_eq!(nodes(&world), [0, 1, 2]);
        let wanted = if sketched {
            labelled(task(JobKind::Daemon), "zone", "eu")
        } else {
            let constraint = Constraint {
                key: TextMax::truncated("zone"),
                operator: Operator::NotIn,
                values: ListMax::truncated([TextMax::truncated("us")]),
            };
            Task { constraints: ListMax::truncated([constraint]), ..task(JobKind::Daemon) }
        };
        world.submit_spec(0, b"a", b"{2}", wanted, 1);
        world.run(Span::secs(10));
        assert_eq!(nodes(&world), [1], "{sketched}");
        // Back to all of them, also over a restart of the owner.
        world.submit_spec(0, b"a", b"{3}", task(JobKind::Daemon), 1);
        world.run(Span::millis(5));
        world.crash(0);
        world.start(0);
        world.run(Span::secs(20));
        let versions: Vec<(usize, u32)> = world.runners().iter().map(|(node, _, version)| (*node, *version)).collect();
        assert_eq!(versions, [(0, 3), (1, 3), (2, 3)], "{sketched}");
    }
}

#[test]
fn a_node_whose_operator_thinks_again_is_asked_again() {
    let mut world = World::new(23, 2);
    world.run_for = ON_AND_ON;
    for node in 0..2 {
        world.label(node, "busy", "yes");
    }
    let constraint = Constraint {
        key: TextMax::truncated("busy"),
        operator: Operator::NotIn,
        values: ListMax::truncated([TextMax::truncated("yes")]),
    };
    world.run(Span::secs(1));
    let wanted = Task { constraints: ListMax::truncated([constraint]), ..task(JobKind::Service) };
    world.label(1, "busy", "no");
    world.submit(0, b"a", wanted, 1);
    world.run(Span::secs(3));
    assert_eq!(nodes(&world), [1]);
    world.label(0, "busy", "no");
    world.run(Span::secs(3));
    world.crash(1);
    world.run(Span::secs(20));
    assert_eq!(nodes(&world), [0]);
}

#[test]
fn a_version_that_comes_at_once_does_not_run_beside_the_exclusive_one_before() {
    for millis in 0..12 {
        let mut world = World::new(millis, 3);
        (world.run_for, world.strict) = (ON_AND_ON, true);
        world.submit(0, b"a", task(JobKind::Service), 1);
        world.run(Span::millis(millis * 5));
        world.submit_spec(0, b"a", b"{2}", task(JobKind::Service), 1);
        for _ in 0..3_000 {
            world.run(Span::millis(5));
            assert!(world.runners().len() <= 1, "after {millis}: {:?}", world.runners());
        }
        assert_eq!(world.runners().iter().map(|(.., version)| *version).collect::<Vec<_>>(), [2], "after {millis}");
    }
}
