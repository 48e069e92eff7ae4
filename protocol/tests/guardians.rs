//! Jobs do not die with their node: takeovers, tried on the real machines in virtual time.

#[allow(dead_code, reason = "each test program uses a part of it")]
mod world;

use bacnode_protocol::id::JobId;
use bacnode_protocol::job::state::JobState;
use bacnode_protocol::record::What;
use bacnode_protocol::requester::Answer;
use bacnode_protocol::time::Span;
use bacnode_protocol::wire::task::{JobKind, Task};
use world::World;

/// The lease of the groups in these worlds.
const LEASE: Span = Span::secs(2);

fn world(seed: u64, nodes: usize) -> World {
    let mut world = World::new(seed, nodes);
    world.guarded = true;
    world
}

#[allow(clippy::print_stdout, reason = "for whoever reads the failure")]
fn ends(world: &World, job: &JobId) -> Vec<JobState> {
    let ends = world.told.get(job).map(|told| told.ends.clone()).unwrap_or_default();
    if ends.len() != 1 || ends[0].0 != JobState::Completed {
        println!("{ends:?} {:#?}", world.told.get(job).map(|told| &told.events));
    }
    ends.into_iter().map(|(state, _)| state).collect()
}

fn accepted(world: &World) -> bool {
    world.answers.iter().any(|(_, answer)| matches!(answer, Answer::Accepted { .. }))
}

#[test]
fn a_job_that_a_group_keeps_ends_as_any_other() {
    let mut world = world(1, 5);
    let job = world.submit(0, b"a", World::task(), 3);
    world.run(Span::secs(5));
    assert!(accepted(&world));
    assert_eq!(ends(&world, &job), [JobState::Completed]);
    for guardian in world.guardians(0) {
        assert_eq!(world.group(guardian, 0).expect("a copy").role, "follower");
    }
    for node in 0..5 {
        assert_eq!(world.held(node), 0, "node {node} has released everything");
    }
}

/// Whether it is said that a result is held by fewer than should, after one of two guardians died.
#[test]
fn a_result_is_held_by_as_many_as_its_user_asks_for() {
    let said = |spec: &[u8], dies: bool| {
        let mut world = world(3, 5);
        world.run_for = Span::millis(300);
        let job = world.submit_spec(0, b"a", spec, World::task(), 1);
        while !accepted(&world) {
            world.run(Span::millis(1));
        }
        if dies {
            let runner = world.runner();
            let guardian = world.guardians(0).into_iter().find(|node| Some(*node) != runner).expect("two");
            world.crash(guardian);
        }
        world.run(Span::secs(20));
        assert_eq!(ends(&world, &job), [JobState::Completed]);
        let few = |what: &What| matches!(what, What::FewCopies { copies: 2, wanted: 3 });
        let events = &world.told[&job].events;
        assert!(!events.iter().any(|what| matches!(what, What::OneCopy { .. })), "{events:?}");
        events.iter().any(few)
    };
    let three = br#"{"Tasks":[{"Replicas":3}]}"#;
    assert!(!said(three, false));
    assert!(said(three, true));
    assert!(!said(b"{}", true), "one other is enough");
}

#[test]
fn nothing_is_acknowledged_that_one_node_alone_has() {
    let mut world = world(2, 4);
    for node in 1..4 {
        world.cut(0, node);
    }
    let job = world.submit(0, b"a", World::task(), 1);
    world.run(Span::secs(1));
    assert!(!accepted(&world), "{job} is on one disk");
    for node in 1..4 {
        world.heal(0, node);
    }
    world.run(Span::secs(5));
    assert!(accepted(&world));
}

#[test]
fn the_owner_dies_for_good_at_any_moment_after_it_gave_the_id() {
    for seed in 0..200 {
        let mut world = world(seed, 5);
        world.run_for = Span::millis(seed * 13 % 1_500);
        let job = world.submit(0, b"a", World::task(), 1 + (seed % 3) as u32);
        while !accepted(&world) {
            world.run(Span::millis(1));
        }
        world.run(Span::millis(seed * 7 % 500));
        world.crash(0);
        let died = world.now;
        world.run(Span::secs(30));
        assert_eq!(ends(&world, &job), [JobState::Completed], "seed {seed}");
        let (_, took) = world.takeovers.first().expect("somebody takes over");
        assert!(took.since(died).0 <= LEASE.0 + 2_000_000, "seed {seed}: after {:?}", took.since(died));
    }
}

#[test]
fn an_owner_that_comes_back_has_its_jobs_back() {
    for seed in 0..50 {
        let mut world = world(seed, 5);
        world.run_for = Span::secs(20);
        let job = world.submit(0, b"a", World::task(), 2);
        world.run(Span::secs(1));
        world.crash(0);
        world.run(Span::millis(500 + seed * 200));
        world.start(0);
        world.run(Span::secs(12));
        let group = world.group(0, 0).expect("its own");
        assert_eq!((group.role, group.works), ("leader", true), "seed {seed}");
        world.run(Span::secs(40));
        assert_eq!(ends(&world, &job), [JobState::Completed], "seed {seed}");
        let next = world.submit(0, b"b", World::task(), 1);
        world.run(Span::secs(40));
        assert_eq!(ends(&world, &next), [JobState::Completed], "seed {seed}");
    }
}

#[test]
fn a_service_is_not_restarted_by_a_takeover() {
    for seed in 0..30 {
        let mut world = world(seed, 6);
        world.run_for = Span::secs(100_000);
        let task = Task { kind: JobKind::Service, exclusive: true, timeout_ms: 0, ..World::task() };
        let job = world.submit(0, b"a", task, 1);
        world.run(Span::secs(2));
        let holder =
            world.holder_of(&job).unwrap_or_else(|| panic!("seed {seed}: nobody runs it: {:?}", world.told.get(&job)));
        if holder == 0 {
            continue;
        }
        world.crash(0);
        world.run(Span::secs(60));
        assert_eq!(
            world.holder_of(&job),
            Some(holder),
            "seed {seed}: {:?} {:?}",
            world.takeovers,
            world.told[&job].events
        );
        assert_eq!(world.starts.values().sum::<u32>(), 1, "seed {seed}");
        assert_eq!(world.overlaps, 0, "seed {seed}");
        let (leader, _) = world.takeovers[0];
        world.stop(leader, job);
        world.run(Span::secs(20));
        assert_eq!(ends(&world, &job), [JobState::Stopped], "seed {seed}");
        assert_eq!(world.holder_of(&job), None, "seed {seed}");
    }
}

#[test]
fn an_owner_that_its_guardians_do_not_hear_decides_nothing() {
    for seed in 0..50 {
        let mut world = world(seed, 6);
        world.run_for = Span::secs(8);
        let task = Task { exclusive: seed % 2 == 0, ..World::task() };
        let job = world.submit(0, b"a", task, 1);
        world.run(Span::secs(1));
        for guardian in world.guardians(0) {
            world.cut(0, guardian);
        }
        world.run(Span::secs(60));
        assert_eq!(ends(&world, &job), [JobState::Completed], "seed {seed}");
        assert_eq!(world.told[&job].accepted.len(), 1, "seed {seed}");
        if seed % 2 == 0 {
            assert_eq!(world.overlaps, 0, "seed {seed}: two ran an exclusive slot");
        }
        for node in 0..6 {
            for other in 0..6 {
                world.heal(node, other);
            }
        }
        world.run(Span::secs(20));
        assert_eq!(world.group(0, 0).expect("its own").role, "leader", "seed {seed}");
    }
}

/// Whoever is on the larger side leads on, and the other side, its owner's perhaps, comes to nothing.
#[test]
fn both_sides_of_a_partition_want_the_job_and_it_ends_once() {
    for seed in 0..62 {
        let mut world = world(seed, 6);
        world.run_for = Span::millis(seed * 29 % 3_000);
        let job = world.submit(0, b"a", World::task(), 2);
        while !accepted(&world) {
            world.run(Span::millis(1));
        }
        world.run(Span::millis(seed * 17 % 600));
        // Each way to split six nodes, but that nobody is on the other side.
        let side = |node: usize| (seed + 1) >> node & 1 == 1;
        let apart: Vec<(usize, usize)> =
            (0..6).flat_map(|a| (a..6).map(move |b| (a, b))).filter(|(a, b)| side(*a) != side(*b)).collect();
        for (a, b) in &apart {
            world.cut(*a, *b);
        }
        world.run(Span::secs(8));
        for (a, b) in &apart {
            world.heal(*a, *b);
        }
        world.run(Span::secs(30));
        assert_eq!(ends(&world, &job), [JobState::Completed], "seed {seed}");
        assert_eq!(world.told[&job].accepted.len(), 2, "seed {seed}: one for each slot");
    }
}

/// The owner accepts, and nobody hears of it: whoever is voted for meanwhile must come to the same, or begin anew.
#[test]
fn an_acceptance_that_a_vote_overtakes_counts_once() {
    for moment in 0..120 {
        let mut world = world(moment, 5);
        world.run_for = Span::millis(300);
        let job = world.submit(0, b"a", World::task(), 1);
        while !accepted(&world) {
            world.run(Span::millis(1));
        }
        // About when the result comes.
        world.run(Span(Span::millis(280).0 + moment * 500));
        let guardians = world.guardians(0);
        for guardian in &guardians {
            world.cut(0, *guardian);
        }
        world.run(Span::secs(6));
        for guardian in &guardians {
            world.heal(0, *guardian);
        }
        world.run(Span::secs(30));
        // That of the owner's word nothing was told and nothing has to be done again is well, too.
        assert_eq!(world.state_of(0, &job), Some(JobState::Completed), "{moment}");
        let told = &world.told[&job];
        assert!(told.ends.len() <= 1 && told.accepted.len() <= 1, "{moment}: {:?}", told.ends);
    }
}

#[test]
fn a_guardian_that_is_lost_is_replaced_and_then_the_owner_may_be_lost() {
    for seed in 0..30 {
        let mut world = world(seed, 6);
        world.run_for = Span::secs(40);
        let job = world.submit(0, b"a", World::task(), 1);
        world.run(Span::secs(1));
        let lost = world.guardians(0)[(seed % 2) as usize];
        world.crash(lost);
        world.run(Span::secs(10));
        let guardians = world.guardians(0);
        assert!(!guardians.contains(&lost), "seed {seed}: {guardians:?}");
        world.crash(0);
        world.run(Span::secs(120));
        assert_eq!(ends(&world, &job), [JobState::Completed], "seed {seed}");
    }
}

#[test]
fn all_three_are_restarted_and_nothing_is_lost() {
    for seed in 0..30 {
        let mut world = world(seed, 6);
        world.run_for = Span::secs(10);
        let job = world.submit(0, b"a", World::task(), 2);
        world.run(Span::secs(1));
        let mut members = world.guardians(0);
        members.push(0);
        for node in &members {
            world.crash(*node);
        }
        world.run(Span::millis(seed * 100));
        for node in &members {
            world.start(*node);
        }
        world.run(Span::secs(60));
        assert_eq!(ends(&world, &job), [JobState::Completed], "seed {seed}");
    }
}

#[test]
fn two_of_three_lost_at_once_is_ended_by_force() {
    let mut world = world(5, 6);
    world.run_for = Span::secs(30);
    let job = world.submit(0, b"a", World::task(), 1);
    world.run(Span::secs(1));
    let guardians = world.guardians(0);
    let owner = world.id(0);
    world.guardian_input(guardians[1], bacnode_protocol::guardian::Input::Force(owner));
    world.run(Span::secs(1));
    assert_eq!(world.group(guardians[1], 0).expect("a copy").role, "follower", "its leader is heard");
    world.crash(0);
    world.crash(guardians[0]);
    world.run(Span::secs(60));
    assert_eq!(ends(&world, &job), [], "nobody may decide");
    world.guardian_input(guardians[1], bacnode_protocol::guardian::Input::Force(owner));
    world.run(Span::secs(90));
    assert_eq!(ends(&world, &job), [JobState::Completed]);
}

#[test]
fn the_story_says_who_took_over() {
    let mut world = world(6, 5);
    world.run_for = Span::secs(10);
    let job = world.submit(0, b"a", World::task(), 1);
    world.run(Span::secs(1));
    world.crash(0);
    world.run(Span::secs(30));
    let told = &world.told[&job].events;
    assert!(told.iter().any(|what| matches!(what, What::Adopted { from } if &**from == "node-0")), "{told:?}");
}
