//! The market's promises, tried on the real machines in virtual time.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod world;

use bacnode_protocol::compute::Holding;
use bacnode_protocol::content::{Cid, Codec};
use bacnode_protocol::job::state::JobState;
use bacnode_protocol::record::What;
use bacnode_protocol::requester::Answer;
use bacnode_protocol::time::Span;
use bacnode_protocol::wire::bounded::{ListMax, TextMax};
use bacnode_protocol::wire::market::{FailureKind, Market, Outcome};
use bacnode_protocol::wire::task::{Input, JobKind, Resources, Source, Task};
use world::{Faults, World};

fn ended(world: &World, job: &bacnode_protocol::id::JobId) -> Vec<JobState> {
    world.told.get(job).map(|told| told.ends.iter().map(|(state, _)| *state).collect()).unwrap_or_default()
}

#[test]
fn a_job_runs_once_and_everything_is_released() {
    let mut world = World::new(1, 4);
    let job = world.submit(0, b"a", World::task(), 1);
    world.run(Span::secs(5));
    assert_eq!(ended(&world, &job), [JobState::Completed]);
    assert_eq!(world.told[&job].accepted.len(), 1);
    assert_eq!(world.starts.values().sum::<u32>(), 1);
    assert!(world.answers.contains(&(1, Answer::Accepted { version: 1, linger: false })));
    for node in 0..4 {
        assert_eq!((world.used(node), world.held(node)), (Resources::default(), 0), "node {node}");
    }
}

#[test]
fn every_slot_of_a_job_is_filled_once() {
    let mut world = World::new(2, 5);
    let job = world.submit(0, b"a", World::task(), 40);
    world.run(Span::secs(60));
    assert_eq!(ended(&world, &job), [JobState::Completed]);
    assert_eq!(world.told[&job].accepted.len(), 40);
    assert!(world.starts.len() > 2, "spread over {:?}", world.starts);
}

#[test]
fn the_winner_dies_and_another_node_finishes() {
    let mut died = 0;
    for seed in 0..20 {
        let mut world = World::new(seed, 4);
        world.run_for = Span::secs(5);
        let job = world.submit(0, b"a", World::task(), 1);
        world.run(Span::secs(1));
        let winner = world.runner().expect("somebody runs it");
        // The owner's own death is another test.
        if winner != 0 {
            died += 1;
            world.crash(winner);
        }
        world.run(Span::secs(20));
        assert_eq!(ended(&world, &job), [JobState::Completed], "seed {seed}");
    }
    assert!(died > 5, "{died} winners died");
}

#[test]
fn the_winner_falls_silent_but_seems_connected() {
    for seed in 0..20 {
        let mut world = World::new(seed, 4);
        world.run_for = Span::secs(5);
        let job = world.submit(0, b"a", World::task(), 1);
        world.run(Span::secs(1));
        let winner = world.runner().expect("somebody runs it");
        if winner != 0 {
            world.cut(0, winner);
        }
        world.run(Span::secs(60));
        assert_eq!(ended(&world, &job), [JobState::Completed], "seed {seed}");
        world.heal(0, winner);
        world.run(Span::secs(60));
        assert_eq!(ended(&world, &job), [JobState::Completed], "seed {seed}");
    }
}

#[test]
fn the_owner_dies_and_comes_back() {
    for seed in 0..20 {
        let mut world = World::new(seed, 4);
        world.run_for = Span::secs(3);
        let job = world.submit(0, b"a", World::task(), 3);
        // At some point between submission and result.
        world.run(Span::millis(1 + seed * 150));
        world.crash(0);
        world.run(Span::millis(500));
        world.start(0);
        world.run(Span::secs(60));
        assert_eq!(ended(&world, &job), [JobState::Completed], "seed {seed}");
        assert_eq!(world.told[&job].accepted.len(), 3, "seed {seed}");
    }
}

#[test]
fn a_holder_that_restarts_says_so_at_once() {
    let mut world = World::new(5, 3);
    world.run_for = Span::secs(5);
    let job = world.submit(0, b"a", World::task(), 1);
    world.run(Span::secs(1));
    let winner = world.runner().expect("somebody runs it");
    world.crash(winner);
    world.run(Span::millis(100));
    world.start(winner);
    // Much sooner than any suspicion, plus the run itself.
    world.run(Span::millis(6_500));
    assert_eq!(ended(&world, &job), [JobState::Completed]);
}

#[test]
fn loss_repetition_and_delay_change_nothing_but_the_time() {
    for seed in 0..60 {
        let mut world = World::new(seed, 5);
        world.faults = Faults { loss: 0.2, repeat: 0.3, latency_max: Span::millis(80) };
        let jobs: Vec<_> = (0..6u8).map(|n| world.submit(usize::from(n % 3), &[n], World::task(), 2)).collect();
        world.run(Span::secs(120));
        for job in &jobs {
            assert_eq!(ended(&world, job), [JobState::Completed], "seed {seed}: {:#?}", world.told[job].events);
            assert_eq!(world.told[job].accepted.len(), 2, "seed {seed}");
        }
    }
}

#[test]
fn an_exclusive_job_never_runs_twice_at_a_time() {
    for seed in 0..40 {
        let mut world = World::new(seed, 4);
        world.faults = Faults { loss: 0.1, repeat: 0.1, latency_max: Span::millis(50) };
        world.run_for = Span::secs(4);
        let mut task = World::task();
        task.exclusive = true;
        let job = world.submit(0, b"a", task, 1);
        world.run(Span::millis(500));
        let cut = world.runner().filter(|winner| *winner != 0);
        if let Some(winner) = cut {
            world.cut(0, winner);
        }
        world.run(Span::secs(8));
        if let Some(winner) = cut {
            world.heal(0, winner);
        }
        world.run(Span::secs(60));
        assert_eq!(world.overlaps, 0, "seed {seed}");
        assert_eq!(ended(&world, &job), [JobState::Completed], "seed {seed}");
    }
}

#[test]
fn a_job_that_no_node_can_run_fails_within_two_seconds_and_says_why() {
    let mut world = World::new(7, 3);
    let mut task = World::task();
    task.resources.memory = 64 << 30;
    let job = world.submit(0, b"a", task, 1);
    world.run(Span::secs(2));
    let (state, message) = &world.told[&job].ends[0];
    assert_eq!(*state, JobState::Failed);
    for node in 0..3 {
        assert!(message.contains(&format!("node-{node}: memory: needs 64 GiB, has 4 GiB")), "{message}");
    }
}

#[test]
fn a_busy_network_queues_the_job_until_there_is_room() {
    let mut world = World::new(8, 2);
    world.run_for = Span::secs(2);
    let jobs: Vec<_> = (0..120u8).map(|n| world.submit(0, &[n], World::task(), 1)).collect();
    world.run(Span::secs(120));
    for job in &jobs {
        assert_eq!(ended(&world, job), [JobState::Completed]);
    }
}

#[test]
fn the_programs_own_failure_is_final_and_the_nodes_is_not() {
    let mut world = World::new(9, 4);
    world.outcomes = vec![Outcome::NodeFailed { began: true, cause: TextMax::truncated("its disk is full") }];
    let job = world.submit(0, b"a", World::task(), 1);
    world.run(Span::secs(5));
    assert_eq!(ended(&world, &job), [JobState::Completed]);
    assert_eq!(world.starts.values().sum::<u32>(), 2);

    let cause = TextMax::truncated("the program trapped: unreachable");
    world.outcomes = vec![Outcome::Failed { kind: FailureKind::Trap, cause }];
    let job = world.submit(0, b"b", World::task(), 1);
    world.run(Span::secs(5));
    assert_eq!(world.told[&job].ends, [(JobState::Failed, "the program trapped: unreachable".into())]);
    assert_eq!(world.starts.values().sum::<u32>(), 3);
}

#[test]
fn after_three_nodes_failed_the_user_hears_every_cause() {
    let mut world = World::new(10, 5);
    world.outcomes = (1..=3)
        .map(|n| Outcome::NodeFailed { began: true, cause: TextMax::truncated(&format!("cause {n}")) })
        .collect();
    let job = world.submit(0, b"a", World::task(), 1);
    world.run(Span::secs(10));
    let (state, message) = &world.told[&job].ends[0];
    assert_eq!(*state, JobState::Failed);
    for n in 1..=3 {
        assert!(message.contains(&format!("cause {n}")), "{message}");
    }
}

#[test]
fn a_stopped_job_is_stopped_everywhere() {
    for seed in 0..20 {
        let mut world = World::new(seed, 4);
        world.faults.loss = 0.2;
        world.run_for = Span::secs(300);
        let job = world.submit(0, b"a", World::task(), 3);
        world.run(Span::millis(200 * (seed + 1)));
        world.stop(0, job);
        world.run(Span::secs(30));
        assert_eq!(ended(&world, &job), [JobState::Stopped], "seed {seed}");
        for node in 0..4 {
            assert_eq!((world.used(node), world.held(node)), (Resources::default(), 0), "seed {seed}, node {node}");
        }
    }
}

#[test]
fn capacity_comes_back_when_the_owner_never_does() {
    let mut world = World::new(12, 3);
    world.run_for = Span::secs(300);
    let _ = world.submit(0, b"a", World::task(), 4);
    world.run(Span::secs(1));
    world.crash(0);
    // The orphan time of these jobs is a minute.
    world.run(Span::secs(120));
    for node in 1..3 {
        assert_eq!((world.used(node), world.held(node)), (Resources::default(), 0), "node {node}");
    }
}

#[test]
fn a_node_that_grows_gets_the_job_that_waited() {
    let mut world = World::new(13, 2);
    let mut task = World::task();
    task.resources.memory = 8 << 30;
    let job = world.submit(0, b"a", task, 1);
    world.run(Span::millis(600));
    world.crash(1);
    world.resize(1, Resources { cpu_milli: 4_000, memory: 16 << 30, disk: 1 << 30, gpu: 0 });
    world.run(Span::secs(5));
    assert_eq!(ended(&world, &job), [JobState::Completed]);
}

#[test]
fn a_node_does_not_suspect_itself() {
    let mut world = World::new(14, 1);
    world.run_for = Span::secs(55);
    let job = world.submit(0, b"a", World::task(), 1);
    world.run(Span::secs(70));
    assert_eq!(ended(&world, &job), [JobState::Completed]);
    assert_eq!(world.starts[&0], 1);
}

#[test]
fn an_exclusive_job_with_several_slots_is_shared_among_bidders() {
    for seed in 0..10 {
        let mut world = World::new(seed, 4);
        let mut task = World::task();
        task.exclusive = true;
        let job = world.submit(0, b"a", task, 6);
        world.run(Span::secs(30));
        assert_eq!(ended(&world, &job), [JobState::Completed], "seed {seed}: {:#?}", world.told[&job].events);
        assert_eq!(world.told[&job].accepted.len(), 6, "seed {seed}");
    }
}

#[test]
fn when_every_holder_dies_the_job_ends_all_the_same() {
    for seed in 0..10 {
        let mut world = World::new(seed, 5);
        world.run_for = Span::secs(5);
        let job = world.submit(0, b"a", World::task(), 1);
        for _ in 0..4 {
            world.run(Span::secs(4));
            if let Some(holder) = world.runner().filter(|holder| *holder != 0) {
                world.crash(holder);
            }
        }
        world.run(Span::secs(120));
        assert_eq!(ended(&world, &job).len(), 1, "seed {seed}: {:#?}", world.told[&job].events);
    }
}

#[test]
fn a_holder_that_only_seems_to_work_is_given_up() {
    let mut world = World::new(16, 3);
    // The executor hangs, far beyond the minute that the task may take; its node beats and beats.
    world.run_for = Span::secs(100_000);
    let job = world.submit(0, b"a", World::task(), 1);
    world.run(Span::secs(300));
    let (state, message) = &world.told[&job].ends[0];
    assert_eq!(*state, JobState::Failed);
    assert!(message.contains("it did not end in its time"), "{message}");
}

#[test]
fn after_a_restart_the_network_may_take_a_while_to_be_found() {
    let mut world = World::new(17, 3);
    world.run_for = Span::secs(5);
    let mut task = World::task();
    task.resources.memory = 6 << 30;
    world.resize(1, Resources { cpu_milli: 4_000, memory: 16 << 30, disk: 1 << 30, gpu: 0 });
    let job = world.submit(0, b"a", task, 1);
    world.run(Span::secs(1));
    world.crash(0);
    world.crash(1);
    world.start(0);
    // Nobody else could run it, and nobody is there for much longer than a newcomer would be waited for.
    world.run(Span::secs(15));
    assert_eq!(ended(&world, &job), []);
    world.start(1);
    world.run(Span::secs(30));
    assert_eq!(ended(&world, &job), [JobState::Completed]);
}

#[test]
fn a_task_that_would_leave_its_folder_is_declined() {
    use bacnode_protocol::wire::bounded::ListMax;
    use bacnode_protocol::wire::task::OutputPath;
    for (name, path) in
        [("../../etc", "/out"), ("/root", "/out"), ("out", "/a/../.."), ("stdout", "/out"), ("out", "out")]
    {
        let mut world = World::new(18, 2);
        let mut task = World::task();
        task.outputs =
            ListMax::truncated([OutputPath { name: TextMax::truncated(name), path: TextMax::truncated(path) }]);
        let job = world.submit(0, b"a", task, 1);
        world.run(Span::secs(5));
        assert_eq!(ended(&world, &job), [JobState::Failed], "{name} {path}");
        assert!(world.starts.is_empty(), "{name} {path}");
    }
}

#[test]
fn a_node_that_knows_too_few_calls_for_others() {
    let mut world = World::new(19, 6);
    world.resize(5, Resources { cpu_milli: 4_000, memory: 16 << 30, disk: 1 << 30, gpu: 0 });
    world.forget_others(0);
    let mut task = World::task();
    task.resources.memory = 8 << 30;
    let job = world.submit(0, b"a", task, 1);
    world.run(Span::secs(5));
    assert_eq!(ended(&world, &job), [JobState::Completed]);
    assert_eq!(world.starts.keys().copied().collect::<Vec<_>>(), [5]);
}

/// A job of node 0 that ran elsewhere, on data that does not leave that node.
fn withheld(seed: u64) -> Option<(World, bacnode_protocol::id::JobId, usize, bacnode_protocol::id::ExecutionId)> {
    let mut world = World::new(seed, 4);
    world.private = true;
    let source = Source::Content(Cid::of(Codec::Raw, b"private"));
    let input = Input { source, target: TextMax::truncated("/data") };
    let task = Task { inputs: ListMax::truncated([input]), ..World::task() };
    let job = world.submit(0, b"a", task, 1);
    world.run(Span::secs(5));
    // A node withholds nothing from its own user.
    let holder = (1..4).find(|node| !world.withheld(*node).is_empty())?;
    let execution = world.withheld(holder)[0].execution;
    Some((world, job, holder, execution))
}

#[test]
fn a_result_made_of_private_data_waits_for_the_operator() {
    let mut tried = 0;
    for seed in 0..20 {
        let Some((mut world, job, holder, execution)) = withheld(seed) else { continue };
        tried += 1;
        // Whatever its owner says: it does not go out by itself, and neither by an acknowledgement of what never came.
        world.say(0, holder, Market::ResultAck { execution });
        world.run(Span::secs(7_200));
        assert_eq!(ended(&world, &job), [], "seed {seed}: it went out by itself");
        assert_eq!(world.used(holder), Resources::default(), "seed {seed}: it uses nothing while it waits");
        assert_eq!(world.starts.values().sum::<u32>(), 1, "seed {seed}: nobody else tries meanwhile");
        // It is remembered.
        world.crash(holder);
        world.run(Span::secs(1));
        world.start(holder);
        world.run(Span::secs(60));
        assert_eq!(world.withheld(holder).len(), 1, "seed {seed}");
        world.let_out(holder, execution, true);
        world.run(Span::secs(5));
        assert_eq!(ended(&world, &job), [JobState::Completed], "seed {seed}");
        assert_eq!(world.held(holder), 0, "seed {seed}");
    }
    assert!(tried > 5, "{tried} jobs ran elsewhere");
}

#[test]
fn a_result_that_is_kept_back_fails_its_job() {
    let mut tried = 0;
    for seed in 0..20 {
        let Some((mut world, job, holder, execution)) = withheld(seed) else { continue };
        tried += 1;
        world.let_out(holder, execution, false);
        world.run(Span::secs(5));
        assert_eq!(ended(&world, &job), [JobState::Failed], "seed {seed}");
        assert!(world.told[&job].ends[0].1.contains("keeps the result back"), "{}", world.told[&job].ends[0].1);
        assert!(world.told[&job].accepted.is_empty());
    }
    assert!(tried > 5, "{tried} jobs ran elsewhere");
}

#[test]
fn a_job_whose_result_is_withheld_can_be_stopped() {
    let (mut world, job, holder, _) = (0..20).find_map(withheld).expect("some job runs elsewhere");
    world.stop(0, job);
    world.run(Span::secs(5));
    assert_eq!(ended(&world, &job), [JobState::Stopped]);
    assert_eq!((world.held(holder), world.withheld(holder).len()), (0, 0));
}

#[test]
fn an_attempt_that_is_heard_again_has_its_whole_time() {
    for seed in 0..20 {
        let mut world = World::new(seed, 2);
        world.resize(0, Resources::default());
        world.run(Span::secs(1));
        let mut task = World::task();
        // Longer than an attempt that stays silent is waited for.
        (world.run_for, task.timeout_ms) = (Span::secs(300), 600_000);
        let job = world.submit(0, b"a", task, 1);
        world.run(Span::secs(2));
        assert_eq!(world.runner(), Some(1), "seed {seed}");
        world.cut(0, 1);
        while !world.told[&job].events.contains(&What::Suspected) {
            world.run(Span::millis(100));
        }
        world.heal(0, 1);
        world.run(Span::secs(600));
        assert_eq!(ended(&world, &job), [JobState::Completed], "seed {seed}");
        assert!(!world.told[&job].events.contains(&What::Lost), "seed {seed}: it was called off though it was heard");
    }
}

#[test]
fn a_slow_holder_of_the_data_is_waited_for_and_a_silent_one_is_not() {
    let ran = |late: Span| {
        let mut world = World::new(31, 3);
        let root = Cid::of(Codec::Raw, b"much data");
        let input = Input { source: Source::Content(root), target: TextMax::truncated("/data") };
        world.holds(1, root, 4 << 30);
        world.holder = Some((1, late));
        let task = Task { inputs: ListMax::truncated([input]), ..World::task() };
        let job = world.submit(0, b"a", task, 1);
        world.run(Span::millis(1_500));
        assert_eq!(world.starts.values().sum::<u32>(), 1, "{:?}", world.told[&job].events);
        *world.starts.keys().next().expect("it runs")
    };
    assert_eq!(ran(Span::millis(600)), 1);
    assert_ne!(ran(Span::secs(20)), 1);
}

#[test]
fn what_a_node_keeps_for_others_makes_it_no_place_of_the_data() {
    for guarded in [true, false] {
        let mut world = World::new(33, 2);
        world.local_only = true;
        for node in [0, 1] {
            world.crash(node);
            world.start(node);
        }
        let root = Cid::of(Codec::Raw, b"data");
        world.learns(1, Holding { root, size: 4, private: false, guarded });
        let input = Input { source: Source::Content(root), target: TextMax::truncated("/data") };
        let task = Task { inputs: ListMax::truncated([input]), ..World::task() };
        let job = world.submit(0, b"a", task, 1);
        world.run(Span::secs(5));
        let expected: &[usize] = if guarded { &[] } else { &[1] };
        assert_eq!(world.starts.keys().copied().collect::<Vec<_>>(), expected, "{:?}", world.told[&job].events);
    }
}

#[test]
fn nobody_is_asked_before_it_is_known_who_holds_the_data() {
    let mut world = World::new(32, 3);
    let root = Cid::of(Codec::Raw, b"much data");
    let input = Input { source: Source::Content(root), target: TextMax::truncated("/data") };
    world.holds(1, root, 4 << 30);
    (world.holder, world.look_up, world.run_for) = (Some((1, Span::ZERO)), Span::millis(1_200), Span::secs(3_600));
    let reads = Task {
        inputs: ListMax::truncated([input]),
        kind: JobKind::Service,
        timeout_ms: 0,
        exclusive: true,
        ..World::task()
    };
    for version in [b"{1}", b"{2}"] {
        let job = world.submit_spec(0, b"a", version, reads.clone(), 1);
        world.run(Span::secs(3));
        let runners = world.runners();
        assert_eq!(runners.len(), 1, "{:?}", world.told[&job].events);
        assert_eq!(runners[0].0, 1, "{:?}", world.told[&job].events);
    }
    assert_eq!(world.starts.keys().copied().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_run_that_outlives_its_node_goes_on_as_long_as_its_owners_word_lasts() {
    let (mut went_on, mut began_again) = (0, 0);
    for seed in 0..20 {
        for down in [Span::secs(2), Span::secs(9)] {
            let mut world = World::new(seed, 3);
            (world.run_for, world.outlive) = (Span::secs(3), true);
            let task = Task { exclusive: true, ..World::task() };
            let job = world.submit(0, b"a", task, 1);
            world.run(Span::secs(1));
            let winner = world.runner().expect("somebody runs it");
            world.crash(winner);
            world.run(down);
            world.start(winner);
            world.run(Span::secs(60));
            assert_eq!(ended(&world, &job), [JobState::Completed], "seed {seed}");
            let starts = world.starts.values().sum::<u32>();
            if down < Span::secs(5) {
                went_on += 1;
                assert_eq!(starts, 1, "seed {seed}: {:?}", world.told[&job].events);
            } else {
                began_again += 1;
                assert_eq!(starts, 2, "seed {seed}: {:?}", world.told[&job].events);
            }
            assert_eq!((world.used(winner), world.held(winner)), (Resources::default(), 0), "seed {seed}");
        }
    }
    assert_eq!((went_on, began_again), (20, 20));
}
