//! Whatever peers say, in whatever order: no panic, and the books stay right.

use std::collections::{BTreeMap, BTreeSet};

use bacnode_protocol::compute::{self, Ended, Holding};
use bacnode_protocol::content::{Cid, Codec};
use bacnode_protocol::id::{BootId, ExecutionId, FencingToken, JobId, NetworkId, NodeId};
use bacnode_protocol::limits::PORTS_MAX;
use bacnode_protocol::outbox::Outbox;
use bacnode_protocol::record::Records;
use bacnode_protocol::requester::{self, Submission};
use bacnode_protocol::time::{Now, Span, Tick, UnixMillis};
use bacnode_protocol::view::View;
use bacnode_protocol::wire::bounded::{BytesMax, ListMax, TextMax};
use bacnode_protocol::wire::market::{Ask, Award, Bid, Decline, Lease, Market, Outcome, Phase, SignedResult};
use bacnode_protocol::wire::s3::{Encoding, Place, Publisher};
use bacnode_protocol::wire::signed::{SignatureBytes, Signer};
use bacnode_protocol::wire::task::{
    Access, DockerTask, Engine, EngineTask, Engines, JobKind, OpenPort, Reach, Resources, Task, WasmTask,
};
use proptest::prelude::*;

fn signer(seed: u8) -> Signer {
    Signer::new(ed25519_dalek::SigningKey::from_bytes(&[seed; 32]), NetworkId::new("any", None))
}

/// A few of everything, so that random messages often meet.
fn node(n: u8) -> NodeId {
    signer(1 + n % 3).node()
}

fn token(n: u8) -> FencingToken {
    FencingToken { epoch: 1, counter: u64::from(n % 6) }
}

fn job(n: u8) -> JobId {
    JobId::new(&node(n), "default", "job", &[n % 3])
}

fn execution(n: u8) -> ExecutionId {
    ExecutionId::new(&job(n), u32::from(n % 2), token(n / 2), &node(n / 3))
}

fn task(n: u8) -> Task {
    let wasm = WasmTask {
        module: TextMax::truncated("/m"),
        entrypoint: TextMax::truncated("_start"),
        args: ListMax::default(),
        imports: ListMax::default(),
    };
    let docker = DockerTask {
        image: TextMax::truncated(["alpine", "a/b:c", ""][usize::from(n % 3)]),
        entrypoint: ListMax::default(),
        args: ListMax::default(),
        workdir: TextMax::default(),
        user: TextMax::truncated(["", "root", "0:0"][usize::from(n / 3 % 3)]),
    };
    let kind = JobKind::ALL[usize::from(n / 2 % 4)];
    Task {
        engine: if n.is_multiple_of(3) { EngineTask::Docker(docker) } else { EngineTask::Wasm(wasm) },
        inputs: ListMax::default(),
        outputs: ListMax::default(),
        env: ListMax::default(),
        resources: Resources { cpu_milli: u64::from(n % 5) * 400, memory: 1 << 20, disk: 0, gpu: 0 },
        timeout_ms: if kind.is_endless() { 0 } else { 1_000 },
        kind,
        version: 1,
        priority: i32::from(n),
        constraints: ListMax::default(),
        slots: 1,
        deterministic: false,
        exclusive: n.is_multiple_of(4) || kind.is_endless(),
        network: if n.is_multiple_of(5) { Access::Bridge } else { Access::None },
        ports: ListMax::default(),
        publisher: if n.is_multiple_of(7) {
            Publisher::S3(Place::default(), Encoding::Plain)
        } else {
            Publisher::Content
        },
    }
}

fn open(n: u8) -> ListMax<OpenPort, PORTS_MAX> {
    let port = |n: u8| OpenPort { name: TextMax::truncated("p"), host: u16::from(n), target: 0 };
    ListMax::truncated((0..n % 3).map(port))
}

fn market() -> impl Strategy<Value = Market> {
    let phases = [Phase::Unknown, Phase::Queued, Phase::Preparing, Phase::Running, Phase::Publishing, Phase::Ended];
    (0u8..16, any::<u8>(), any::<u8>(), 0usize..6).prop_map(move |(kind, a, b, phase)| match kind {
        0 => Market::Ask(Ask { ask: token(a), job: job(b), want: u32::from(a), task: task(b) }),
        1 => Market::Bid(Bid {
            ask: token(a),
            boot: BootId(1),
            bid: u64::from(b % 8),
            places: u32::from(b % 4),
            ttl_ms: 1,
            wait_ms: u32::from(b),
            bytes_held: u64::from(a),
            image: (a % 2 == 0).then_some([a; 32]),
        }),
        2 => Market::Decline(Decline { ask: token(a), reasons: ListMax::default(), later: b % 2 == 0 }),
        3 => Market::BidRelease { boot: BootId(1), bid: u64::from(a % 8) },
        4 => Market::Award(Award {
            execution: execution(a),
            job: job(a),
            slot: u32::from(a % 2),
            token: token(a / 2),
            boot: BootId(1),
            bid: u64::from(b % 8),
            task: task(a),
            lease: Lease { heartbeat_ms: u32::from(b), length_ms: u32::from(a), grace_ms: 0, orphan_ms: u32::from(b) },
            mac: [0; 16],
        }),
        5 => Market::AwardAck { execution: execution(a) },
        6 => Market::AwardRefuse { execution: execution(a), reason: TextMax::default() },
        7 => Market::Started { execution: execution(a), ports: open(b) },
        8 => Market::Beat { execution: execution(a), beat: u64::from(b), phase: phases[phase] },
        9 => Market::BeatAck { execution: execution(a), beat: u64::from(b % 4) },
        10 => Market::Query { execution: execution(a) },
        11 => Market::Result(SignedResult {
            execution: execution(a),
            body: BytesMax::new(vec![b; usize::from(b)]).unwrap_or_default(),
            signature: SignatureBytes([a; 64]),
            blocks: ListMax::default(),
        }),
        12 => Market::ResultAck { execution: execution(a) },
        13 => Market::Cancel { execution: execution(a), reason: TextMax::default() },
        14 => Market::CancelAck { execution: execution(a) },
        _ => Market::Release { execution: execution(a) },
    })
}

#[derive(Debug, Clone)]
enum Step {
    Message(u8, Market),
    Wait(u32),
    Submit(u8),
    Stop(u8),
    Up(u8),
    Down(u8),
    Fetched(u8, bool),
    Phase(u8, u8),
    Ended(u8, u8),
    Holding(u8),
    Accepting(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<u8>(), market()).prop_map(|(from, message)| Step::Message(from, message)),
        2 => (0u32..20_000).prop_map(Step::Wait),
        1 => any::<u8>().prop_map(Step::Submit),
        1 => any::<u8>().prop_map(Step::Stop),
        1 => any::<u8>().prop_map(Step::Up),
        1 => any::<u8>().prop_map(Step::Down),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(a, b)| Step::Fetched(a, b)),
        1 => (any::<u8>(), 0u8..6).prop_map(|(a, b)| Step::Phase(a, b)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Step::Ended(a, b)),
        1 => any::<u8>().prop_map(Step::Holding),
        1 => any::<bool>().prop_map(Step::Accepting),
    ]
}

fn ended(n: u8) -> Ended {
    let outcome = match n % 4 {
        0 => Outcome::Completed { exit_code: 0 },
        1 => Outcome::NodeFailed { began: true, cause: TextMax::truncated("node") },
        2 => Outcome::Failed {
            kind: bacnode_protocol::wire::market::FailureKind::Trap,
            cause: TextMax::truncated("trap"),
        },
        _ => Outcome::Cancelled,
    };
    Ended {
        root: n.is_multiple_of(4).then(|| Cid::of(Codec::Raw, &[n])),
        size: 1,
        read_private: n.is_multiple_of(3),
        ..Ended::bare(outcome)
    }
}

fn submission(n: u8) -> Submission {
    Submission {
        request: u64::from(n),
        id: JobId::new(&node(0), "default", "job", &[n % 3]),
        namespace: TextMax::truncated("default"),
        name: TextMax::truncated("job"),
        spec: Vec::new(),
        task: task(n),
        slots: 1 + u32::from(n % 3),
        strict: n.is_multiple_of(4),
        force: n.is_multiple_of(6),
        lease: Lease::default(),
        queue_timeout: Span::secs(5),
        total_timeout: n.is_multiple_of(5).then_some(Span::secs(8)),
        elsewhere: if n.is_multiple_of(2) { vec![Cid::of(Codec::Raw, b"x")] } else { Vec::new() },
        only_here: false,
        waits: n.is_multiple_of(2),
        guarded: n.is_multiple_of(3),
        here: Vec::new(),
    }
}

const PHASES: [Phase; 6] =
    [Phase::Unknown, Phase::Queued, Phase::Preparing, Phase::Running, Phase::Publishing, Phase::Ended];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_machines_take_anything(steps in proptest::collection::vec(step(), 1..120)) {
        let mut now = Now { tick: Tick(1_000_000), unix: UnixMillis(1_700_000_000_000) };
        let me = signer(1);
        let view = View::new(me.network());
        let total = Resources { cpu_milli: 2_000, memory: 1 << 30, disk: 0, gpu: 0 };
        let config = compute::Config {
            engines: Engines::of(&Engine::ALL),
            total,
            labels: BTreeMap::new(),
            queue_max: 4,
            per_owner_max: 4,
            local_paths: Vec::new(),
            orphan_max: Span::secs(60),
            timeout_max: Span::secs(60),
            policy: compute::Policy { probes: true, reach: Reach::Host, ..compute::Policy::default() },
        };
        let (mut asked, mut awarded) = (Outbox::default(), Outbox::default());
        let mut compute = compute::State::restore(me.clone(), BootId(1), config, Default::default(), Vec::new(), now, &mut awarded);
        let mut requester = requester::State::restore(
            me, 1, [1; 32], requester::Config::default(), Records::default(), now, &view, &mut asked,
        );
        for step in steps {
            match step {
                Step::Message(from, message) => {
                    let from = node(from);
                    requester.handle(requester::Input::Message { from, message: message.clone() }, now, &view, &mut asked);
                    compute.handle(compute::Input::Message { from, message }, now, &mut awarded);
                }
                Step::Wait(ms) => {
                    now.tick = now.tick + Span::millis(u64::from(ms));
                    requester.handle(requester::Input::Tick, now, &view, &mut asked);
                    compute.handle(compute::Input::Tick, now, &mut awarded);
                }
                Step::Submit(n) => requester.handle(requester::Input::Submit(Box::new(submission(n))), now, &view, &mut asked),
                Step::Stop(n) => {
                    let stop = requester::Input::Stop { request: 0, job: job(n), reason: String::new() };
                    requester.handle(stop, now, &view, &mut asked);
                }
                Step::Up(n) => {
                    requester.handle(requester::Input::PeerUp(node(n)), now, &view, &mut asked);
                    compute.handle(compute::Input::PeerUp(node(n)), now, &mut awarded);
                }
                Step::Down(n) => requester.handle(requester::Input::PeerDown(node(n)), now, &view, &mut asked),
                Step::Fetched(n, good) => {
                    let result = if good { Ok(()) } else { Err("gone".to_owned()) };
                    requester.handle(requester::Input::Fetched(execution(n), result), now, &view, &mut asked);
                    requester.handle(requester::Input::Providers(job(n), BTreeSet::from([node(n)])), now, &view, &mut asked);
                }
                Step::Phase(n, phase) => {
                    compute.handle(compute::Input::Phase(execution(n), PHASES[usize::from(phase)]), now, &mut awarded);
                }
                Step::Ended(n, how) => {
                    compute.handle(compute::Input::Ended(execution(n), Box::new(ended(how))), now, &mut awarded);
                }
                Step::Holding(n) => {
                    let root = Cid::of(Codec::Raw, &[n]);
                    let holding = Holding { root, size: 1, private: n.is_multiple_of(2), guarded: n.is_multiple_of(3) };
                    compute.handle(compute::Input::Holding(holding), now, &mut awarded);
                },
                Step::Accepting(yes) => {
                    let accepting = if yes { Ok(()) } else { Err("full".to_owned()) };
                    compute.handle(compute::Input::Accepting(accepting), now, &mut awarded);
                }
            }
            prop_assert_eq!(requester.check(), Ok(()));
            prop_assert_eq!(compute.check(), Ok(()));
        }
    }
}
