//! Who is here, and who left: what nodes tell each other of the others.

use bacnode_protocol::id::{NetworkId, NodeId};
use bacnode_protocol::time::{Now, Span, Tick, UnixMillis};
use bacnode_protocol::view::{Change, View};
use bacnode_protocol::wire::advert::{Advert, SignedAdvert};
use bacnode_protocol::wire::bounded::{ListMax, TextMax};
use bacnode_protocol::wire::constraint::LabelSketch;
use bacnode_protocol::wire::signed::Signer;
use bacnode_protocol::wire::task::{Engines, Resources};
use ed25519_dalek::SigningKey;
use rand::SeedableRng as _;
use rand::rngs::ChaCha12Rng;

const TTL_S: u32 = 45;

fn signer(key: u8) -> Signer {
    Signer::new(SigningKey::from_bytes(&[key; 32]), NetworkId::new("lab", None))
}

fn node(key: u8) -> NodeId {
    signer(key).node()
}

fn at(seconds: u64) -> Now {
    Now { tick: Tick(0) + Span::secs(seconds), unix: UnixMillis(1_900_000_000_000 + seconds * 1_000) }
}

fn advert(key: u8, sequence: u64, now: Now, leaving: bool) -> SignedAdvert {
    let advert = Advert {
        node: node(key),
        sequence,
        issued: now.unix,
        ttl_s: TTL_S,
        wire: (1, 1),
        engines: Engines::default(),
        total: Resources::default(),
        load_percent: 0,
        name: TextMax::truncated("n"),
        version: TextMax::truncated("1"),
        labels: LabelSketch::of([]),
        addresses: ListMax::default(),
        leaving,
    };
    advert.sign(&signer(key))
}

fn view() -> View {
    View::new(NetworkId::new("lab", None))
}

/// One exchange, in both directions.
fn exchange(asks: &mut View, answers: &mut View, now: Now) {
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    let known = asks.digest(now.tick, &mut rng);
    let (adverts, wanted) = answers.compare(&known, now.tick, &mut rng);
    let pushed = asks.adverts(&wanted);
    for (view, adverts) in [(asks, adverts), (answers, pushed)] {
        for signed in adverts {
            view.offer(signed, now).expect("valid");
        }
    }
}

#[test]
fn that_a_node_left_reaches_those_who_missed_its_last_word() {
    for informed_asks in [true, false] {
        let (mut informed, mut late) = (view(), view());
        for view in [&mut informed, &mut late] {
            view.offer(advert(7, 1, at(0), false), at(0)).expect("valid");
        }
        informed.offer(advert(7, 2, at(1), true), at(1)).expect("valid");
        if informed_asks {
            exchange(&mut informed, &mut late, at(2));
        } else {
            exchange(&mut late, &mut informed, at(2));
        }
        assert!(late.get(&node(7)).is_none() && informed.get(&node(7)).is_none(), "{informed_asks}");
        // And an older advert, heard by a third one, does not bring it back.
        let mut third = view();
        third.offer(advert(7, 1, at(0), false), at(2)).expect("valid");
        exchange(&mut late, &mut third, at(3));
        assert!(late.get(&node(7)).is_none() && third.get(&node(7)).is_none());
    }
}

#[test]
fn nobody_speaks_for_ever_of_who_left() {
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    let mut known = view();
    known.offer(advert(7, 1, at(0), true), at(0)).expect("valid");
    assert_eq!(known.digest(at(1).tick, &mut rng), [(node(7), 1)]);
    let over = at(u64::from(TTL_S) + 1);
    assert_eq!(known.digest(over.tick, &mut rng), []);
    assert_eq!(known.compare(&[(node(7), 0)], over.tick, &mut rng).0, []);
    // It is remembered for as long again: an advert may have been heard late.
    known.expire(over.tick);
    assert_eq!(
        known.take(advert(7, 0, at(0), false).claimed().expect("one"), advert(7, 0, at(0), false), over),
        Change::Stale
    );
}

#[test]
fn what_left_is_told_for_as_long_as_it_said_wherever_it_is_heard() {
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    let (mut first, mut second) = (view(), view());
    first.offer(advert(7, 2, at(0), true), at(0)).expect("valid");
    // Handed on at the last moment, it is not told for as long again.
    exchange(&mut first, &mut second, at(40));
    assert_eq!(second.digest(at(44).tick, &mut rng), [(node(7), 2)]);
    assert_eq!(second.digest(at(46).tick, &mut rng), []);
}

#[test]
fn whoever_comes_back_is_here_again() {
    let mut known = view();
    for (sequence, leaving, change) in [(1, false, Change::Joined), (2, true, Change::Left), (3, false, Change::Joined)]
    {
        let signed = advert(7, sequence, at(sequence), leaving);
        assert_eq!(known.offer(signed, at(sequence)).map(|(_, change)| change), Ok(change), "{sequence}");
    }
    assert!(known.get(&node(7)).is_some());
}
