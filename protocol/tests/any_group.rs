//! Whatever members of groups, and those that are none, say: the machine takes it.

use bacnode_protocol::content::{Cid, Codec};
use bacnode_protocol::guardian::{Config, Input, State};
use bacnode_protocol::id::{JobId, NetworkId, NodeId};
use bacnode_protocol::outbox::Outbox;
use bacnode_protocol::record::{Record, TargetRecord};
use bacnode_protocol::time::{Now, Span, Tick, UnixMillis};
use bacnode_protocol::view::View;
use bacnode_protocol::wire::bounded::{ListMax, TextMax};
use bacnode_protocol::wire::group::{
    Ack, Append, At, Certificate, Charter, Contradiction, Entry, Group, Motive, Signed, Vote,
};
use bacnode_protocol::wire::signed::Signer;
use proptest::prelude::*;

fn signer(n: u8) -> Signer {
    Signer::new(ed25519_dalek::SigningKey::from_bytes(&[1 + n % 5; 32]), NetworkId::new("any", None))
}

fn node(n: u8) -> NodeId {
    signer(n).node()
}

fn job(n: u8) -> JobId {
    JobId::new(&node(n % 3), "default", "job", &[n])
}

fn at(n: u8) -> At {
    At { epoch: u64::from(n % 4), index: u64::from(n / 16) }
}

fn charter(a: u8, b: u8) -> Charter {
    let members = if b.is_multiple_of(16) { [node(a); 3] } else { [node(a), node(a + 1), node(a + 2)] };
    let epoch = if b == 255 { u64::MAX } else { u64::from(b % 6) };
    let owner = node(a % 3);
    Charter {
        owner,
        epoch,
        leader: members[usize::from(b % 3)],
        change: u64::from(b % 3),
        members,
        lease_ms: u32::from(a) * 50,
    }
}

fn entry(n: u8) -> Entry {
    match n % 4 {
        0 => Entry::Forget(job(n)),
        1 => Entry::DropEvent(job(n), 1),
        _ => Entry::Target(TargetRecord {
            job: job(n),
            slot: 0,
            node: node(n),
            unmatched: None,
            given_up: false,
            cause: TextMax::default(),
        }),
    }
}

fn group() -> impl Strategy<Value = Group> {
    (0u8..18, 0u8..250, any::<u8>(), any::<u8>()).prop_map(|(kind, a, b, c)| {
        let charter = charter(a, b);
        let vote = |by: u8| Signed::new(&signer(by), Vote { charter, at: at(c) });
        let certificate = Certificate { votes: [vote(a), vote(c)] };
        let ack = Signed::new(&signer(c), Ack { owner: charter.owner, at: at(b), change: u64::from(c % 3) });
        let owner = charter.owner;
        let entries = || ListMax::truncated((0..c % 5).map(entry));
        match kind {
            0 | 1 => Group::Append(Box::new(Append {
                charter,
                pending: (c % 4 == 0).then_some(Charter { change: charter.change + 1, ..charter }),
                certificate: (c % 2 == 0).then_some(certificate),
                base: at(c),
                prev: at(b),
                entries: entries(),
                stamp: u64::from(c),
                witness: (c % 3 == 0).then_some(ack),
            })),
            2 => Group::Ack { ack, stamp: u64::from(b) },
            3 => Group::Behind { owner, at: at(c), stamp: u64::MAX },
            4 => Group::Pull { owner, at: at(c), part: u32::from(b % 3) },
            5 => Group::Part { owner, at: at(c), part: u32::from(b % 3), of: u32::from(c % 4), entries: entries() },
            6 | 7 => {
                let motive = [Motive::Silence, Motive::HandOver, Motive::Return][usize::from(c % 3)];
                Group::Canvass { charter, at: at(c), motive }
            }
            8 => Group::Vote(vote(c)),
            9 => Group::Stands { charter, certificate: (c % 2 == 0).then_some(certificate), promised: u64::from(c) },
            10 => Group::Seek { owner },
            11 => Group::Leads(certificate),
            12 => Group::HandOver { owner, epoch: charter.epoch },
            13 => Group::Back { owner },
            14 => Group::Held { job: job(c), root: Cid::of(Codec::Raw, &[c]), held: b % 2 == 0 },
            15 => Group::Unwilling { owner },
            16 => Group::Stop { job: job(c), reason: TextMax::default() },
            _ => Group::Proof(Box::new(Contradiction::Votes([vote(a), vote(c)]))),
        }
    })
}

#[derive(Debug, Clone)]
enum Step {
    Message(u8, Group),
    Append(u8),
    Wait(u32),
    Force(u8),
    Leave,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (any::<u8>(), group()).prop_map(|(from, group)| Step::Message(from, group)),
        2 => any::<u8>().prop_map(Step::Append),
        3 => (0u32..20_000).prop_map(Step::Wait),
        1 => any::<u8>().prop_map(Step::Force),
        1 => Just(Step::Leave),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_machine_takes_anything(steps in proptest::collection::vec(step(), 1..150)) {
        let mut now = Now { tick: Tick(1_000_000), unix: UnixMillis(1_700_000_000_000) };
        let me = signer(0);
        let view = View::new(me.network());
        let mut out = Outbox::default();
        let mut state = State::restore(me.clone(), Config::default(), Default::default(), now, &mut out);
        let (mut groups, mut kept) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
        for step in steps {
            match step {
                Step::Message(from, message) => {
                    state.handle(Input::Message { from: node(from), message }, now, &view, &mut out);
                }
                Step::Append(n) => {
                    let record = entry(n | 2).record().unwrap_or_else(|| Record::DropEvent(job(n), 0));
                    state.handle(Input::Append(vec![record]), now, &view, &mut out);
                }
                Step::Wait(ms) => {
                    now.tick = now.tick + Span::millis(u64::from(ms));
                    state.handle(Input::Tick, now, &view, &mut out);
                }
                Step::Force(n) => state.handle(Input::Force(node(n)), now, &view, &mut out),
                Step::Leave => state.handle(Input::Leave, now, &view, &mut out),
                Step::Restart => {
                    let records = (groups.values().cloned().collect(), kept.iter().map(|((o, _), e): (&(NodeId, Vec<u8>), &Entry)| (*o, e.clone())).collect());
                    state = State::restore(me.clone(), Config::default(), records, now, &mut out);
                }
            }
            for queued in out.drain() {
                let bacnode_protocol::guardian::Output::Persist(record) = queued.output else { continue };
                match record {
                    Record::Group(group) => _ = groups.insert(group.charter.owner, *group),
                    Record::Kept(owner, key, Some(entry)) => _ = kept.insert((owner, key), *entry),
                    Record::Kept(owner, key, None) => _ = kept.remove(&(owner, key)),
                    Record::DropGroup(owner) => {
                        groups.remove(&owner);
                        kept.retain(|(of, _), _| *of != owner);
                    }
                    _ => {}
                }
            }
            for status in state.status() {
                prop_assert!(status.charter.is_sound(), "{:?}", status);
            }
        }
    }
}
