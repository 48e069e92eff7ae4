//! The bytes of every kind of message, as they are on the wire. A change here breaks every node that runs the version
//! before: give the new form a new kind instead. `BACNODE_BLESS=1` writes the file anew.

use bacnode_protocol::content::{Cid, Codec};
use bacnode_protocol::id::{BootId, ExecutionId, FencingToken, JobId, NetworkId, NodeId};
use bacnode_protocol::time::UnixMillis;
use bacnode_protocol::wire::advert::{Advert, SignedAdvert};
use bacnode_protocol::wire::bounded::{BytesMax, ListMax, TextMax};
use bacnode_protocol::wire::call::{Call, SignedCall};
use bacnode_protocol::wire::codec::{self, DecodeError};
use bacnode_protocol::wire::constraint::{Constraint, LabelSketch, Operator};
use bacnode_protocol::wire::dag::{DagHeader, DagRequest};
use bacnode_protocol::wire::envelope::{self, Message};
use bacnode_protocol::wire::group::{
    Ack, Append, At, Certificate, Charter, Contradiction, Entry, Group, Motive, Signed, Vote,
};
use bacnode_protocol::wire::live::LiveRequest;
use bacnode_protocol::wire::market::{
    Ask, Award, Bid, Decline, Frame, Head, InlineBlock, Lease, Market, Outcome, Phase, ResultBody, SignedResult, Usage,
};
use bacnode_protocol::wire::s3::Publisher;
use bacnode_protocol::wire::signed::{Domain, Signer};
use bacnode_protocol::wire::task::{
    Access, Engine, EngineTask, Engines, EnvVar, Input, JobKind, OpenPort, OutputPath, Port, Resources, Source, Task,
    WasmTask,
};
use bacnode_protocol::wire::view::{NodeDetail, ViewReply, ViewRequest};

const FILE: &str = "tests/golden/wire.txt";

fn signer() -> Signer {
    Signer::new(ed25519_dalek::SigningKey::from_bytes(&[42; 32]), NetworkId::new("golden", None))
}

/// What members of a group say.
fn groups(me: NodeId, job: JobId, execution: ExecutionId) -> Vec<(&'static str, Market)> {
    let other = |n: u8| Signer::new(ed25519_dalek::SigningKey::from_bytes(&[n; 32]), NetworkId::new("golden", None));
    let (a, b) = (other(1), other(2));
    let charter = Charter {
        owner: me,
        epoch: 9,
        leader: a.node(),
        change: 2,
        members: [me, a.node(), b.node()],
        lease_ms: 15_000,
    };
    let at = At { epoch: 8, index: 77 };
    let vote = |signer: &Signer| Signed::new(signer, Vote { charter, at });
    let certificate = Certificate { votes: [vote(&a), vote(&b)] };
    let ack = Signed::new(&b, Ack { owner: me, at, change: 2 });
    let cid = Cid::of(Codec::DagPb, b"root");
    let entries =
        || ListMax::truncated([Entry::DropExecution(job, execution), Entry::DropEvent(job, 3), Entry::Forget(job)]);
    let append = Append {
        charter,
        pending: Some(Charter { change: 3, ..charter }),
        certificate: Some(certificate),
        base: at,
        prev: At { epoch: 9, index: 77 },
        entries: entries(),
        stamp: 5,
        witness: Some(ack),
    };
    let said = [
        ("append", Group::Append(Box::new(append))),
        ("ack", Group::Ack { ack, stamp: 5 }),
        ("behind", Group::Behind { owner: me, at, stamp: 5 }),
        ("pull", Group::Pull { owner: me, at, part: 1 }),
        ("part", Group::Part { owner: me, at, part: 1, of: 2, entries: entries() }),
        ("canvass", Group::Canvass { charter, at, motive: Motive::HandOver }),
        ("vote", Group::Vote(vote(&b))),
        ("stands", Group::Stands { charter, certificate: None, promised: 10 }),
        ("seek", Group::Seek { owner: me }),
        ("leads", Group::Leads(certificate)),
        ("kept", Group::Kept(charter)),
        ("hand-over", Group::HandOver { owner: me, epoch: 9 }),
        ("back", Group::Back { owner: me }),
        ("hold", Group::Hold { owner: me, job, root: cid, size: 43, maker: b.node(), blocks: ListMax::default() }),
        ("held", Group::Held { job, root: cid, held: true }),
        ("stop", Group::Stop { job, reason: TextMax::truncated("enough") }),
        ("unwilling", Group::Unwilling { owner: me }),
        ("proof", Group::Proof(Box::new(Contradiction::Forgot(ack, vote(&b))))),
    ];
    said.into_iter().map(|(name, group)| (name, Market::Group(Box::new(group)))).collect()
}

fn task() -> Task {
    Task {
        engine: EngineTask::Wasm(WasmTask {
            module: TextMax::truncated("/main.wasm"),
            entrypoint: TextMax::truncated("_start"),
            args: ListMax::truncated([TextMax::truncated("--fast")]),
            imports: ListMax::truncated([TextMax::truncated("/lib.wasm")]),
        }),
        inputs: ListMax::truncated([
            Input { source: Source::Content(Cid::of(Codec::Raw, b"module")), target: TextMax::truncated("/main.wasm") },
            Input {
                source: Source::Local { path: TextMax::truncated("/var/log"), writable: false },
                target: TextMax::truncated("/logs"),
            },
        ]),
        outputs: ListMax::truncated([OutputPath { name: TextMax::truncated("out"), path: TextMax::truncated("/out") }]),
        env: ListMax::truncated([EnvVar { name: TextMax::truncated("KEY"), value: TextMax::truncated("value") }]),
        resources: Resources { cpu_milli: 500, memory: 512_000_000, disk: 0, gpu: 1 },
        timeout_ms: 60_000,
        kind: JobKind::Ops,
        version: 1,
        priority: -5,
        constraints: ListMax::truncated([Constraint {
            key: TextMax::truncated("zone"),
            operator: Operator::NotIn,
            values: ListMax::truncated([TextMax::truncated("eu"), TextMax::truncated("us")]),
        }]),
        slots: 3,
        deterministic: true,
        exclusive: false,
        network: Access::None,
        ports: ListMax::truncated([Port { name: TextMax::truncated("http"), host: 8080, target: 80, local: true }]),
        publisher: Publisher::Content,
    }
}

fn cases() -> Vec<(String, Vec<u8>)> {
    let me = signer().node();
    let token = FencingToken { epoch: 7, counter: 9 };
    let job = JobId::new(&me, "default", "golden", b"nonce");
    let execution = ExecutionId::new(&job, 2, token, &me);
    let open = ListMax::truncated([OpenPort { name: TextMax::truncated("http"), host: 8080, target: 80 }]);
    let advert = Advert {
        node: me,
        sequence: 7 << 40 | 3,
        issued: UnixMillis(1_700_000_000_000),
        ttl_s: 45,
        wire: (1, 1),
        engines: Engines::of(&[Engine::Wasm]),
        total: task().resources,
        load_percent: 12,
        name: TextMax::truncated("golden"),
        version: TextMax::truncated("0.1.0"),
        labels: LabelSketch::of([("zone", "eu"), ("disk", "ssd")]),
        addresses: ListMax::truncated([BytesMax::new(vec![4, 127, 0, 0, 1, 6, 4, 211]).expect("short")]),
        leaving: false,
    };
    let signed = advert.sign(&signer());
    let body = ResultBody {
        execution,
        job,
        slot: 2,
        maker: me,
        mac: signer().mac(b"award"),
        ended: UnixMillis(1_700_000_001_000),
        outcome: Outcome::Completed { exit_code: 7 },
        root: Some(Cid::of(Codec::DagPb, b"root")),
        size: 43,
        usage: Usage { cpu_ms: 1, wall_ms: 2, memory_peak: 3, bytes_in: 4, bytes_held: 5, bytes_out: 6 },
        stdout: Head { bytes: BytesMax::new(b"hello\n".to_vec()).expect("short"), truncated: false },
        stderr: Head::default(),
    };
    let body_bytes = codec::encode(&body);
    let result = SignedResult {
        execution,
        signature: signer().sign(Domain::Result, &body_bytes),
        body: BytesMax::new(body_bytes).expect("short"),
        blocks: ListMax::truncated([InlineBlock {
            cid: Cid::of(Codec::Raw, b"x"),
            bytes: BytesMax::new(b"x".to_vec()).expect("short"),
        }]),
    };
    let text = || TextMax::truncated("because");
    let market = vec![
        ("ask", Market::Ask(Ask { ask: token, job, want: 2, task: task().without_env_values() })),
        (
            "bid",
            Market::Bid(Bid {
                ask: token,
                boot: BootId(4),
                bid: 5,
                places: 2,
                ttl_ms: 10_000,
                wait_ms: 30,
                bytes_held: 6,
                image: Some([7; 32]),
            }),
        ),
        (
            "decline",
            Market::Decline(Decline {
                ask: token,
                reasons: ListMax::truncated([TextMax::truncated("memory: needs 64 GiB, has 19 GiB")]),
                later: false,
            }),
        ),
        ("bid-release", Market::BidRelease { boot: BootId(4), bid: 5 }),
        (
            "award",
            Market::Award(Award {
                execution,
                job,
                slot: 2,
                token,
                boot: BootId(4),
                bid: 5,
                task: task(),
                lease: Lease::default(),
                mac: signer().mac(b"award"),
            }),
        ),
        ("award-ack", Market::AwardAck { execution }),
        ("award-refuse", Market::AwardRefuse { execution, reason: text() }),
        ("started", Market::Started { execution, ports: open }),
        ("beat", Market::Beat { execution, beat: 3, phase: Phase::Running }),
        ("beat-ack", Market::BeatAck { execution, beat: 3 }),
        ("query", Market::Query { execution }),
        ("result", Market::Result(result)),
        ("result-ack", Market::ResultAck { execution }),
        ("verdict", Market::Verdict { execution, accepted: true }),
        ("cancel", Market::Cancel { execution, reason: text() }),
        ("cancel-ack", Market::CancelAck { execution }),
        ("release", Market::Release { execution }),
    ];
    let market = market.into_iter().chain(groups(me, job, execution));
    let frame = |message: Market| envelope::seal(&Frame { messages: ListMax::truncated([message]) });
    let mut cases: Vec<(String, Vec<u8>)> =
        market.map(|(name, message)| (format!("market/{name}"), frame(message))).collect();
    let cid = Cid::of(Codec::DagPb, b"root");
    let detail = NodeDetail {
        labels: ListMax::truncated([(TextMax::truncated("gpu"), TextMax::truncated("none"))]),
        available: task().resources,
        running: 1,
        queued: 2,
    };
    let now = UnixMillis(1_700_000_000_000);
    let call = Call {
        owner: me,
        issued: UnixMillis(1_700_000_000_000),
        wire: (1, 1),
        engine: Engine::Docker,
        resources: Resources { cpu_milli: 500, memory: 512_000_000, disk: 0, gpu: 1 },
        want: 3,
    };
    cases.extend([
        ("market/alive".to_owned(), envelope::seal(&Frame::default())),
        ("advert".to_owned(), envelope::seal(&signed)),
        (
            "view/exchange".to_owned(),
            envelope::seal(&ViewRequest::Exchange { now, known: ListMax::truncated([(me, 3)]) }),
        ),
        ("view/push".to_owned(), envelope::seal(&ViewRequest::Push { adverts: ListMax::truncated([signed.clone()]) })),
        ("view/ask-detail".to_owned(), envelope::seal(&ViewRequest::Detail)),
        (
            "view/reply".to_owned(),
            envelope::seal(&ViewReply::Exchange {
                now,
                adverts: ListMax::truncated([signed]),
                wanted: ListMax::truncated([me]),
            }),
        ),
        ("view/done".to_owned(), envelope::seal(&ViewReply::Done)),
        ("view/detail".to_owned(), envelope::seal(&ViewReply::Detail(detail))),
        ("dag/request".to_owned(), envelope::seal(&DagRequest { wants: ListMax::truncated([cid]) })),
        ("dag/block".to_owned(), codec::encode(&DagHeader::Block { cid, len: 9 })),
        ("dag/missing".to_owned(), codec::encode(&DagHeader::Missing { cid })),
        ("dag/end".to_owned(), codec::encode(&DagHeader::End)),
        ("call".to_owned(), envelope::seal(&call.sign(&signer()))),
        ("live/logs".to_owned(), envelope::seal(&LiveRequest::Logs { execution, follow: true })),
        ("live/job".to_owned(), envelope::seal(&LiveRequest::Job(job))),
        ("live/job-logs".to_owned(), envelope::seal(&LiveRequest::JobLogs { job, execution, follow: false })),
    ]);
    cases
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a blessing writes the golden file")]
fn every_kind_has_the_bytes_it_always_had() {
    let lines: Vec<String> = cases().iter().map(|(name, bytes)| format!("{name} {}", hex::encode(bytes))).collect();
    let text = lines.join("\n") + "\n";
    if std::env::var_os("BACNODE_BLESS").is_some() {
        std::fs::write(FILE, &text).expect("the golden file is written");
    }
    let golden = std::fs::read_to_string(FILE).expect("the golden file");
    for (ours, golden) in text.lines().zip(golden.lines()) {
        assert_eq!(ours, golden);
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}

/// Opens `bytes` as each kind of envelope, which must refuse all that is not exactly one of its own.
fn open<M: Message + std::fmt::Debug>(bytes: &[u8]) -> Result<(), DecodeError> {
    envelope::open::<M>(bytes).map(|_| ())
}

#[test]
fn what_is_cut_or_longer_or_another_kind_is_refused() {
    for (name, bytes) in cases().iter().filter(|(name, _)| name.starts_with("market/")) {
        assert_eq!(open::<Frame>(bytes), Ok(()), "{name}");
        for cut in [0, 3, 11, bytes.len() - 1] {
            if cut < bytes.len() {
                assert!(open::<Frame>(&bytes[..cut]).is_err(), "{name} cut at {cut}");
            }
        }
        assert!(open::<Frame>(&[bytes.as_slice(), &[0]].concat()).is_err(), "{name} and a byte");
        assert!(open::<SignedAdvert>(bytes).is_err(), "{name} as an advert");
        let mut other = bytes.clone();
        other[4] = 9;
        assert_eq!(open::<Frame>(&other), Err(DecodeError::Version(9)), "{name}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(0u8.., 0..600)) {
        let _ = open::<Frame>(&bytes);
        let _ = codec::decode::<Frame>(&bytes, 1 << 18);
        let _ = codec::decode::<ResultBody>(&bytes, 4096);
        let _ = codec::decode::<Task>(&bytes, 1 << 16);
        let _ = codec::decode::<ViewReply>(&bytes, 1 << 18);
        let _ = codec::decode::<Advert>(&bytes, 512);
        let _ = codec::decode::<Call>(&bytes, 128);
        let _ = open::<SignedCall>(&bytes);
    }
}
