//! Who is let into a swarm with a founder, and what its founder remembers.
//!
//! Every connection begins with a [`Hello`] from each end, judged by the other before anything else is spoken. Members know
//! the founder's key and nothing of each other; so a certificate is all that it takes, and the founder need not be there but
//! for newcomers. What must survive a restart comes out as [`Kept`], and is on disk before the answer goes out.

use std::collections::BTreeMap;

use crate::id::{NetworkId, NodeId};
use crate::limits::{CLOCK_SKEW_MAX, MEMBERS_MAX, REVOKED_MAX};
use crate::time::UnixMillis;
use crate::wire::bounded::ListMax;
use crate::wire::codec::{Decode, Encode};
use crate::wire::member::{
    Answer, Certificate, Credential, Hello, Refusal, Revocations, Signed, Verdict, Voucher, VoucherId,
};
use crate::wire::signed::Signer;

/// What must be remembered.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Kept {
    /// This node's own certificate.
    Certificate(Signed),
    /// The newest list of those put out.
    Revocations(Signed),
    /// The founder has let a node in.
    Issued(Certificate),
    /// A voucher that is not taken any more, though it has not ended; and when it does.
    Spent(VoucherId, UnixMillis),
}

/// What the founder remembers of those it let in.
#[derive(Debug, Default)]
struct Books {
    issued: BTreeMap<NodeId, Certificate>,
    spent: BTreeMap<VoucherId, UnixMillis>,
}

/// What a node shows when it is asked.
#[derive(Debug)]
enum Own {
    Founder(Signer, Books),
    Member(Signed, UnixMillis),
    Guest(Option<Signed>),
}

/// The part that a node takes in its swarm.
#[derive(Debug)]
pub struct Membership {
    network: NetworkId,
    me: NodeId,
    founder: NodeId,
    own: Own,
    revoked: Option<(Revocations, Signed)>,
    /// Those who were let in here, until when.
    here: BTreeMap<NodeId, UnixMillis>,
}

/// Somebody who cannot be put out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RevokeError {
    /// That is for the founder.
    #[error("only the swarm's founder puts members out")]
    NotFounder,
    /// It was never let in.
    #[error("it is no member of this swarm")]
    NoMember,
    /// The list is full until some of those on it would be members no longer anyway.
    #[error("{REVOKED_MAX} members are put out already; the first of them is forgotten when its certificate ends")]
    Full,
}

impl Membership {
    /// The part of the founder.
    #[must_use]
    pub fn founder(signer: Signer) -> Self {
        let (network, me) = (signer.network(), signer.node());
        let own = Own::Founder(signer, Books::default());
        Self { network, me, founder: me, own, revoked: None, here: BTreeMap::new() }
    }

    /// The part of anybody else, with the voucher of its invite if it has one.
    #[must_use]
    pub fn member(network: NetworkId, me: NodeId, founder: NodeId, voucher: Option<Signed>) -> Self {
        Self { network, me, founder, own: Own::Guest(voucher), revoked: None, here: BTreeMap::new() }
    }

    /// Takes up what was kept in a former life. A newer voucher is not forgotten over a certificate that has ended.
    pub fn recall(&mut self, kept: impl IntoIterator<Item = Kept>, now: UnixMillis) {
        for kept in kept {
            match kept {
                Kept::Certificate(signed) => {
                    if let Ok(certificate) = self.certificate(&signed, &self.me)
                        && !is_over(certificate.ends, now)
                        && matches!(self.own, Own::Guest(_))
                    {
                        self.own = Own::Member(signed, certificate.ends);
                    }
                }
                Kept::Revocations(signed) => _ = self.hear(signed),
                Kept::Issued(certificate) => {
                    if let Own::Founder(_, books) = &mut self.own {
                        books.issued.insert(certificate.node, certificate);
                    }
                }
                Kept::Spent(voucher, ends) => {
                    if let Own::Founder(_, books) = &mut self.own {
                        books.spent.insert(voucher, ends);
                    }
                }
            }
        }
    }

    /// Who founded the swarm.
    #[must_use]
    pub fn founded_by(&self) -> NodeId {
        self.founder
    }

    /// Whether that is this node.
    #[must_use]
    pub fn is_founder(&self) -> bool {
        matches!(self.own, Own::Founder(..))
    }

    /// When this node's own membership ends; nothing for the founder, whose does not, and for who is no member yet.
    #[must_use]
    pub fn ends(&self) -> Option<UnixMillis> {
        match &self.own {
            Own::Member(_, ends) => Some(*ends),
            Own::Founder(..) | Own::Guest(_) => None,
        }
    }

    /// What this node says first.
    #[must_use]
    pub fn hello(&self) -> Hello {
        let credential = match &self.own {
            Own::Founder(..) => Credential::Founder,
            Own::Member(certificate, _) => Credential::Certificate(certificate.clone()),
            Own::Guest(Some(voucher)) => Credential::Voucher(voucher.clone()),
            Own::Guest(None) => Credential::None,
        };
        Hello { credential, revocations: self.revocations() }
    }

    fn revocations(&self) -> u64 {
        self.revoked.as_ref().map_or(0, |(list, _)| list.sequence)
    }

    /// Judges the first thing that `peer` said, whose identity the connection has proven.
    #[must_use]
    pub fn judge(&mut self, peer: NodeId, hello: &Hello, now: UnixMillis) -> (Answer, Vec<Kept>) {
        let mut kept = Vec::new();
        let verdict = self.verdict(peer, &hello.credential, now, &mut kept).unwrap_or_else(Verdict::Refused);
        // What is told to whoever was put out need not be more than that.
        let refused = matches!(verdict, Verdict::Refused(_));
        let newer = self.revoked.as_ref().filter(|(list, _)| !refused && list.sequence > hello.revocations);
        (Answer { verdict, revocations: newer.map(|(_, signed)| signed.clone()) }, kept)
    }

    fn verdict(
        &mut self,
        peer: NodeId,
        credential: &Credential,
        now: UnixMillis,
        kept: &mut Vec<Kept>,
    ) -> Result<Verdict, Refusal> {
        let ends = match credential {
            Credential::None => return Err(Refusal::NoCertificate),
            Credential::Founder if peer == self.founder => UnixMillis(u64::MAX),
            Credential::Founder => return Err(Refusal::Forged),
            Credential::Certificate(signed) => {
                let certificate = self.certificate(signed, &peer)?;
                if self.is_revoked(&peer) {
                    return Err(Refusal::Revoked);
                }
                if is_over(certificate.ends, now) {
                    return Err(Refusal::Over);
                }
                certificate.ends
            }
            Credential::Voucher(signed) => {
                let certificate = self.admit(peer, signed, now, kept)?;
                self.here.insert(peer, certificate.ends);
                let Own::Founder(signer, _) = &self.own else { return Err(Refusal::NotFounder) };
                return Ok(Verdict::Certified(Signed::of(&certificate, signer)));
            }
        };
        self.here.insert(peer, ends);
        Ok(Verdict::Welcome)
    }

    /// The certificate of `node`, ended or not.
    fn certificate(&self, signed: &Signed, node: &NodeId) -> Result<Certificate, Refusal> {
        let certificate = signed.open::<Certificate>(&self.network, &self.founder).map_err(|_| Refusal::Forged)?;
        if certificate.node == *node { Ok(certificate) } else { Err(Refusal::Forged) }
    }

    /// Lets a newcomer in, if this is the founder and the voucher is good.
    fn admit(
        &mut self,
        peer: NodeId,
        signed: &Signed,
        now: UnixMillis,
        kept: &mut Vec<Kept>,
    ) -> Result<Certificate, Refusal> {
        let voucher = signed.open::<Voucher>(&self.network, &self.founder).map_err(|_| Refusal::Forged)?;
        let Own::Founder(_, books) = &mut self.own else { return Err(Refusal::NotFounder) };
        if is_over(voucher.ends, now) {
            return Err(Refusal::Over);
        }
        // The answer may have been lost: whoever was let in with it is let in again, and for no longer.
        let before = books.issued.get(&peer).filter(|certificate| certificate.voucher == voucher.id).copied();
        if let Some(certificate) = before {
            let revoked = self.revoked.as_ref().is_some_and(|(list, _)| lists(list, &peer));
            return if revoked { Err(Refusal::Revoked) } else { Ok(certificate) };
        }
        if books.spent.contains_key(&voucher.id) {
            return Err(Refusal::Used);
        }
        if self.revoked.as_ref().is_some_and(|(list, _)| lists(list, &peer)) {
            return Err(Refusal::Revoked);
        }
        if books.issued.len() >= MEMBERS_MAX {
            books.issued.retain(|_, certificate| !is_over(certificate.ends, now));
        }
        let ends = UnixMillis(now.0.saturating_add(voucher.membership_s.saturating_mul(1_000)));
        let certificate = Certificate { node: peer, voucher: voucher.id, issued: now, ends };
        books.issued.insert(peer, certificate);
        kept.push(Kept::Issued(certificate));
        if voucher.once {
            books.spent.insert(voucher.id, voucher.ends);
            kept.push(Kept::Spent(voucher.id, voucher.ends));
        }
        Ok(certificate)
    }

    /// Takes the other end's answer.
    ///
    /// # Errors
    /// Why this node is not let in.
    pub fn answered(&mut self, answer: Answer, now: UnixMillis) -> Result<Vec<Kept>, Refusal> {
        let mut kept = Vec::new();
        if let Some(signed) = answer.revocations {
            kept.extend(self.hear(signed));
        }
        match answer.verdict {
            Verdict::Welcome => {}
            Verdict::Refused(refusal) => return Err(refusal),
            Verdict::Certified(signed) => {
                let certificate = self.certificate(&signed, &self.me)?;
                if !is_over(certificate.ends, now) && !self.is_founder() {
                    self.own = Own::Member(signed.clone(), certificate.ends);
                    kept.push(Kept::Certificate(signed));
                }
            }
        }
        Ok(kept)
    }

    /// Takes a list of those put out, from whomever; gives what to keep if it is news.
    pub fn hear(&mut self, signed: Signed) -> Option<Kept> {
        let list = signed.open::<Revocations>(&self.network, &self.founder).ok()?;
        if list.sequence <= self.revocations() {
            return None;
        }
        self.revoked = Some((list, signed.clone()));
        Some(Kept::Revocations(signed))
    }

    /// Whether the founder has put `node` out.
    #[must_use]
    pub fn is_revoked(&self, node: &NodeId) -> bool {
        self.revoked.as_ref().is_some_and(|(list, _)| lists(list, node))
    }

    /// Those who were let in here and are members no longer; they are named once.
    pub fn lapsed(&mut self, now: UnixMillis) -> Vec<NodeId> {
        let over = |(node, ends): &(&NodeId, &UnixMillis)| is_over(**ends, now) || self.is_revoked(node);
        let lapsed: Vec<NodeId> = self.here.iter().filter(over).map(|(node, _)| *node).collect();
        for node in &lapsed {
            self.here.remove(node);
        }
        lapsed
    }

    /// Forgets that `node` was let in: its last connection is gone.
    pub fn left(&mut self, node: &NodeId) {
        self.here.remove(node);
    }

    /// Makes a voucher for an invite.
    ///
    /// # Errors
    /// If this is not the founder, whose key it takes.
    pub fn invite(&self, voucher: &Voucher) -> Result<Signed, RevokeError> {
        let Own::Founder(signer, _) = &self.own else { return Err(RevokeError::NotFounder) };
        Ok(Signed::of(voucher, signer))
    }

    /// Puts a member out, and ends the voucher that it came with. Gives what to keep, the list to tell everybody last.
    ///
    /// # Errors
    /// If this is not the founder, or that no member.
    pub fn revoke(&mut self, node: NodeId, now: UnixMillis) -> Result<(Vec<Kept>, Signed), RevokeError> {
        let Own::Founder(signer, books) = &mut self.own else { return Err(RevokeError::NotFounder) };
        let certificate = *books.issued.get(&node).ok_or(RevokeError::NoMember)?;
        let before = self.revoked.as_ref().map(|(list, _)| list.clone()).unwrap_or_default();
        let mut nodes: BTreeMap<NodeId, UnixMillis> = before.nodes.into_vec().into_iter().collect();
        nodes.retain(|_, ends| !is_over(*ends, now));
        nodes.insert(node, certificate.ends);
        let nodes = ListMax::new(nodes.into_iter().collect()).map_err(|_| RevokeError::Full)?;
        let list = Revocations { sequence: before.sequence + 1, nodes };
        let signed = Signed::of(&list, signer);
        // It could come back under another name with a voucher for many.
        books.spent.insert(certificate.voucher, UnixMillis(u64::MAX));
        let kept = vec![Kept::Spent(certificate.voucher, UnixMillis(u64::MAX)), Kept::Revocations(signed.clone())];
        self.revoked = Some((list, signed.clone()));
        Ok((kept, signed))
    }

    /// Whom the founder has let in, and whether it has put them out again.
    pub fn members(&self) -> impl Iterator<Item = (&Certificate, bool)> {
        let issued = match &self.own {
            Own::Founder(_, books) => Some(&books.issued),
            Own::Member(..) | Own::Guest(_) => None,
        };
        issued.into_iter().flat_map(BTreeMap::values).map(|issued| (issued, self.is_revoked(&issued.node)))
    }
}

fn lists(list: &Revocations, node: &NodeId) -> bool {
    list.nodes.iter().any(|(listed, _)| listed == node)
}

/// Clocks differ a little.
fn is_over(ends: UnixMillis, now: UnixMillis) -> bool {
    now.0 > ends.0.saturating_add(CLOCK_SKEW_MAX.as_millis())
}
