//! Who is let into a swarm with a founder.

use bacnode_protocol::id::{NetworkId, NodeId};
use bacnode_protocol::membership::{Kept, Membership, RevokeError};
use bacnode_protocol::time::UnixMillis;
use bacnode_protocol::wire::member::{Answer, Certificate, Credential, Hello, Refusal, Signed, Verdict, Voucher};
use bacnode_protocol::wire::signed::Signer;
use ed25519_dalek::SigningKey;

const NOW: UnixMillis = UnixMillis(1_900_000_000_000);
const DAY: u64 = 86_400;

fn network() -> NetworkId {
    NetworkId::new("lab", Some([7; 16]))
}

fn signer(key: u8) -> Signer {
    Signer::new(SigningKey::from_bytes(&[key; 32]), network())
}

fn node(key: u8) -> NodeId {
    signer(key).node()
}

fn later(seconds: u64) -> UnixMillis {
    UnixMillis(NOW.0 + seconds * 1_000)
}

fn voucher(id: u8, once: bool) -> Voucher {
    Voucher { id: [id; 16], made: NOW, ends: later(DAY), once, membership_s: 30 * DAY }
}

fn founder() -> Membership {
    Membership::founder(signer(1))
}

fn guest(key: u8, founder: &Membership, voucher: Option<Voucher>) -> Membership {
    let voucher = voucher.map(|voucher| founder.invite(&voucher).expect("the founder invites"));
    Membership::member(network(), node(key), node(1), voucher)
}

/// Both ends of a connection; why it does not come to be.
fn meet(
    (left, left_id): (&mut Membership, NodeId),
    (right, right_id): (&mut Membership, NodeId),
    now: UnixMillis,
) -> Result<Vec<Kept>, Refusal> {
    let (from_left, from_right) = (left.hello(&right_id), right.hello(&left_id));
    let (to_right, mut kept) = left.judge(right_id, &from_right, now);
    let (to_left, more) = right.judge(left_id, &from_left, now);
    kept.extend(more);
    let answers = (left.answered(to_left, now), right.answered(to_right, now));
    kept.extend(answers.0?);
    kept.extend(answers.1?);
    Ok(kept)
}

#[test]
fn a_newcomer_is_let_in_by_the_founder_and_then_by_everybody() {
    let mut founder = founder();
    let (mut ann, mut bob) = (guest(2, &founder, Some(voucher(1, false))), guest(3, &founder, Some(voucher(1, false))));
    assert_eq!(meet((&mut ann, node(2)), (&mut bob, node(3)), NOW), Err(Refusal::NotFounder));
    for (guest, key) in [(&mut ann, 2), (&mut bob, 3)] {
        let kept = meet((guest, node(key)), (&mut founder, node(1)), NOW).expect("it is let in");
        assert!(kept.iter().any(|kept| matches!(kept, Kept::Certificate(_))), "{kept:?}");
        assert!(kept.iter().any(|kept| matches!(kept, Kept::Issued(_))), "{kept:?}");
    }
    assert_eq!(meet((&mut ann, node(2)), (&mut bob, node(3)), NOW), Ok(Vec::new()));
    assert_eq!(founder.members().len(), 2);
}

#[test]
fn an_invite_for_one_lets_one_in_however_often_it_asks() {
    let mut founder = founder();
    for _ in 0..2 {
        // The founder's answer was lost: the guest knows of nothing.
        let mut ann = guest(2, &founder, Some(voucher(1, true)));
        meet((&mut ann, node(2)), (&mut founder, node(1)), NOW).expect("the first one");
    }
    let mut bob = guest(3, &founder, Some(voucher(1, true)));
    assert_eq!(meet((&mut bob, node(3)), (&mut founder, node(1)), NOW), Err(Refusal::Used));
    let mut ann = guest(2, &founder, Some(voucher(1, true)));
    let asked_late = meet((&mut ann, node(2)), (&mut founder, node(1)), later(3600)).expect("again");
    let until = |kept: &Kept| match kept {
        Kept::Issued(certificate) => Some(certificate.ends),
        _ => None,
    };
    assert_eq!(asked_late.iter().find_map(until), Some(later(30 * DAY)), "it is let in for no longer");
}

#[test]
fn what_the_founder_kept_counts_in_its_next_life() {
    let mut before = founder();
    let mut ann = guest(2, &before, Some(voucher(1, true)));
    let mut kept = meet((&mut ann, node(2)), (&mut before, node(1)), NOW).expect("let in");
    kept.extend(before.revoke(node(2), NOW).expect("put out"));
    let mut after = founder();
    after.recall(kept, NOW);
    let mut bob = guest(3, &after, Some(voucher(1, true)));
    assert_eq!(meet((&mut bob, node(3)), (&mut after, node(1)), NOW), Err(Refusal::Used));
    assert_eq!(meet((&mut ann, node(2)), (&mut after, node(1)), NOW), Err(Refusal::Revoked));
    assert_eq!(after.members().iter().map(|(member, out)| (member.node, *out)).collect::<Vec<_>>(), [(node(2), true)]);
}

#[test]
fn a_member_keeps_its_certificate_and_takes_a_new_invite_when_that_has_ended() {
    let mut founder = founder();
    let mut ann = guest(2, &founder, Some(voucher(1, false)));
    let kept = meet((&mut ann, node(2)), (&mut founder, node(1)), NOW).expect("let in");
    let mut again = guest(2, &founder, None);
    again.recall(kept.clone(), later(DAY));
    assert!(matches!(again.hello(&node(1)).credential, Credential::Certificate(_)));
    let mut late = guest(2, &founder, Some(voucher(2, false)));
    late.recall(kept.clone(), later(31 * DAY));
    assert!(matches!(late.hello(&node(1)).credential, Credential::Voucher(_)));
    // Whoever comes with a new invite in time is a member for longer, and shows the others what it has until then.
    let newer = Voucher { id: [9; 16], made: later(25 * DAY), ends: later(32 * DAY), ..voucher(9, true) };
    let mut early = guest(2, &founder, Some(newer));
    early.recall(kept.clone(), later(25 * DAY));
    assert!(matches!(early.hello(&node(3)).credential, Credential::Certificate(_)));
    meet((&mut early, node(2)), (&mut founder, node(1)), later(25 * DAY)).expect("let in again");
    assert_eq!(early.ends(), Some(later(55 * DAY)));
    assert!(matches!(early.hello(&node(1)).credential, Credential::Certificate(_)), "it need not ask again");
    // Nobody who has kept the older certificate can give it back to it.
    let old = kept.into_iter().find_map(|kept| match kept {
        Kept::Certificate(signed) => Some(signed),
        _ => None,
    });
    let verdict = Verdict::Certified(old.expect("a certificate"));
    let answered = early.answered(Answer { verdict, revocations: None }, later(25 * DAY));
    assert_eq!((answered, early.ends()), (Ok(Vec::new()), Some(later(55 * DAY))));
    assert_eq!(founder.members().len(), 1, "it is one member");
}

#[test]
fn a_voucher_is_for_the_founder_s_eyes_only() {
    let founder = founder();
    let ann = guest(2, &founder, Some(voucher(1, true)));
    assert!(matches!(ann.hello(&node(1)).credential, Credential::Voucher(_)));
    assert_eq!(ann.hello(&node(3)).credential, Credential::None);
    assert!(!format!("{:?}", ann.hello(&node(1))).contains("signature"), "nor for logs");
}

#[test]
fn a_membership_that_has_ended_does_not_begin_again_with_the_same_invite() {
    let mut founder = founder();
    let short = Voucher { membership_s: 3_600, ..voucher(1, false) };
    let mut ann = guest(2, &founder, Some(short));
    meet((&mut ann, node(2)), (&mut founder, node(1)), NOW).expect("let in");
    let mut again = guest(2, &founder, Some(short));
    assert_eq!(meet((&mut again, node(2)), (&mut founder, node(1)), later(2 * 3_600)), Err(Refusal::Over));
}

#[test]
fn memberships_and_invites_end() {
    let mut founder = founder();
    let (mut ann, mut bob) = (guest(2, &founder, Some(voucher(1, false))), guest(3, &founder, Some(voucher(1, false))));
    meet((&mut ann, node(2)), (&mut founder, node(1)), NOW).expect("in time");
    assert_eq!(meet((&mut bob, node(3)), (&mut founder, node(1)), later(DAY + 31)), Err(Refusal::Over));
    assert!(founder.is_member(&node(2), later(30 * DAY)));
    assert!(!founder.is_member(&node(2), later(30 * DAY + 31)));
    founder.expire(later(30 * DAY + 31));
    assert!(!founder.is_member(&node(2), NOW), "it is forgotten");
    assert_eq!(meet((&mut ann, node(2)), (&mut founder, node(1)), later(30 * DAY + 31)), Err(Refusal::Over));
}

#[test]
fn whoever_is_put_out_is_out_everywhere_that_has_heard_of_it() {
    let mut founder = founder();
    let mut members: Vec<Membership> = Vec::new();
    for key in 2..5 {
        let mut member = guest(key, &founder, Some(voucher(key, false)));
        meet((&mut member, node(key)), (&mut founder, node(1)), NOW).expect("let in");
        members.push(member);
    }
    let [ann, bob, eve] = &mut members[..] else { panic!("three") };
    meet((ann, node(2)), (eve, node(4)), NOW).expect("both are members");
    let kept = founder.revoke(node(4), NOW).expect("put out");
    let (_, list, out) = founder.newest().expect("a list");
    assert!(kept.contains(&Kept::Revocations(list.clone())) && out == [node(4)].into());
    assert!(!founder.is_member(&node(4), NOW) && founder.is_member(&node(2), NOW));
    assert!(ann.is_member(&node(4), NOW));
    assert!(ann.hear(list.clone()).is_some() && ann.hear(list).is_none(), "news once");
    assert!(!ann.is_member(&node(4), NOW));
    // Nor does it help to come once more, with nothing: what is known of it stays.
    let _ = ann.judge(node(4), &Hello { credential: Credential::None, revocations: 0 }, NOW);
    assert!(!ann.is_member(&node(4), NOW));
    // Bob hears of it from Ann, and need not have heard of it before.
    let kept = meet((ann, node(2)), (bob, node(3)), NOW).expect("members");
    assert!(matches!(kept[..], [Kept::Revocations(_)]), "{kept:?}");
    assert_eq!(meet((bob, node(3)), (eve, node(4)), NOW), Err(Refusal::Revoked));
    // Nor does it come back as somebody else with the invite that it had.
    let mut other = guest(5, &founder, Some(voucher(4, false)));
    assert_eq!(meet((&mut other, node(5)), (&mut founder, node(1)), NOW), Err(Refusal::Used));
    assert_eq!(founder.revoke(node(9), NOW).expect_err("a stranger"), RevokeError::NoMember);
    assert_eq!(bob.revoke(node(2), NOW).expect_err("no founder"), RevokeError::NotFounder);
}

#[test]
fn only_the_founder_s_word_on_this_very_node_counts() {
    let mut founder = founder();
    let mut ann = guest(2, &founder, Some(voucher(1, false)));
    meet((&mut ann, node(2)), (&mut founder, node(1)), NOW).expect("let in");
    let stolen = ann.hello(&node(3));
    let own = Certificate { node: node(3), voucher: [1; 16], issued: NOW, ends: later(DAY) };
    let forged = Signed::of(&own, &signer(3));
    let elsewhere = Signer::new(SigningKey::from_bytes(&[1; 32]), NetworkId::new("other", Some([7; 16])));
    for credential in [
        stolen.credential,
        Credential::Founder,
        Credential::Certificate(forged),
        Credential::Certificate(Signed::of(&own, &elsewhere)),
        // A voucher is no certificate.
        Credential::Certificate(founder.invite(&voucher(1, false)).expect("the founder's")),
        Credential::Voucher(Signed::of(&voucher(1, false), &signer(3))),
    ] {
        let (answer, kept) = founder.judge(node(3), &Hello { credential, revocations: 0 }, NOW);
        assert_eq!((answer.verdict, kept), (Verdict::Refused(Refusal::Forged), Vec::new()));
    }
    let (answer, _) = founder.judge(node(3), &Hello { credential: Credential::None, revocations: 0 }, NOW);
    assert_eq!(answer.verdict, Verdict::Refused(Refusal::NoCertificate));
}
