//! Who is let into a swarm with a founder, and what its founder remembers.
//!
//! Every connection begins with a [`Hello`] from each end, judged by the other before anything else is spoken. Members know
//! the founder's key and nothing of each other; so a certificate is all that it takes, and the founder need not be there but
//! for newcomers. What must survive a restart comes out as [`Kept`], and is on disk before the answer goes out.

use std::collections::{BTreeMap, BTreeSet};

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

impl Kept {
    /// Whether it need not be remembered any longer.
    #[must_use]
    pub fn is_over(&self, now: UnixMillis) -> bool {
        match self {
            Self::Certificate(_) | Self::Revocations(_) => false,
            Self::Issued(certificate) => is_over(certificate.ends, now),
            Self::Spent(_, ends) => is_over(*ends, now),
        }
    }
}

/// What the founder remembers of those it let in.
#[derive(Debug, Default)]
struct Books {
    /// A node may have come again with another invite.
    issued: BTreeMap<(NodeId, VoucherId), Certificate>,
    spent: BTreeMap<VoucherId, UnixMillis>,
}

/// What a node shows when it is asked.
#[derive(Debug)]
enum Own {
    Founder(Signer, Books),
    /// With a newer voucher, for when the certificate ends.
    Member(Signed, Certificate, Option<Signed>),
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
    /// Those whose certificates were seen here, and until when they are good: connections outlast the moment at which they
    /// were judged.
    seen: BTreeMap<NodeId, UnixMillis>,
}

/// Somebody who cannot be put out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RevokeError {
    /// That is for the founder.
    #[error("only the swarm's founder lets members in and puts them out")]
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
        Self { network, me, founder: me, own, revoked: None, seen: BTreeMap::new() }
    }

    /// The part of anybody else, with the voucher of its invite if it has one.
    #[must_use]
    pub fn member(network: NetworkId, me: NodeId, founder: NodeId, voucher: Option<Signed>) -> Self {
        Self { network, me, founder, own: Own::Guest(voucher), revoked: None, seen: BTreeMap::new() }
    }

    /// Takes up what was kept in a former life.
    pub fn recall(&mut self, kept: impl IntoIterator<Item = Kept>, now: UnixMillis) {
        for kept in kept {
            match kept {
                Kept::Certificate(signed) => {
                    let own = self.certificate(&signed, &self.me).ok().filter(|own| !is_over(own.ends, now));
                    if let (Some(own), Own::Guest(voucher)) = (own, &mut self.own) {
                        let voucher = voucher.take();
                        self.own = Own::Member(signed, own, voucher);
                    }
                }
                Kept::Revocations(signed) => _ = self.hear(signed),
                Kept::Issued(certificate) => {
                    if let Own::Founder(_, books) = &mut self.own {
                        books.issued.insert((certificate.node, certificate.voucher), certificate);
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
            Own::Member(_, own, _) => Some(own.ends),
            Own::Founder(..) | Own::Guest(_) => None,
        }
    }

    /// What this node says first to `peer`. A voucher is worth something to whoever has it: the founder alone is shown it.
    #[must_use]
    pub fn hello(&self, peer: &NodeId) -> Hello {
        let to_founder = *peer == self.founder;
        let newer = |voucher: &&Signed, own: &Certificate| {
            let voucher = voucher.open::<Voucher>(&self.network, &self.founder);
            voucher.is_ok_and(|voucher| voucher.id != own.voucher)
        };
        let credential = match &self.own {
            Own::Founder(..) => Credential::Founder,
            Own::Guest(Some(voucher)) if to_founder => Credential::Voucher(voucher.clone()),
            Own::Guest(_) => Credential::None,
            Own::Member(certificate, own, voucher) => match voucher.as_ref().filter(|v| to_founder && newer(v, own)) {
                Some(voucher) => Credential::Voucher(voucher.clone()),
                None => Credential::Certificate(certificate.clone()),
            },
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
        let (ends, verdict) = match credential {
            Credential::None => return Err(Refusal::NoCertificate),
            Credential::Founder if peer == self.founder => (UnixMillis(u64::MAX), Verdict::Welcome),
            Credential::Founder => return Err(Refusal::Forged),
            Credential::Certificate(signed) => {
                let certificate = self.certificate(signed, &peer)?;
                if self.is_revoked(&peer) {
                    return Err(Refusal::Revoked);
                }
                if is_over(certificate.ends, now) {
                    return Err(Refusal::Over);
                }
                (certificate.ends, Verdict::Welcome)
            }
            Credential::Voucher(signed) => {
                let certificate = self.admit(peer, signed, now, kept)?;
                let Own::Founder(signer, _) = &self.own else { return Err(Refusal::NotFounder) };
                (certificate.ends, Verdict::Certified(Signed::of(&certificate, signer)))
            }
        };
        let seen = self.seen.entry(peer).or_insert(ends);
        *seen = ends.max(*seen);
        Ok(verdict)
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
        if !self.is_founder() {
            return Err(Refusal::NotFounder);
        }
        if self.is_revoked(&peer) {
            return Err(Refusal::Revoked);
        }
        let Own::Founder(_, books) = &mut self.own else { return Err(Refusal::NotFounder) };
        let before = books.issued.get(&(peer, voucher.id)).copied();
        let certificate = match before {
            // The answer may have been lost: whoever was let in with it is let in again, and for no longer.
            Some(certificate) if is_over(certificate.ends, now) => return Err(Refusal::Over),
            Some(certificate) => certificate,
            None if is_over(voucher.ends, now) => return Err(Refusal::Over),
            None if books.spent.contains_key(&voucher.id) => return Err(Refusal::Used),
            None => {
                if books.issued.len() >= MEMBERS_MAX {
                    books.issued.retain(|_, certificate| !is_over(certificate.ends, now));
                }
                if books.issued.len() >= MEMBERS_MAX {
                    return Err(Refusal::Full);
                }
                let ends = UnixMillis(now.0.saturating_add(voucher.membership_s.saturating_mul(1_000)));
                Certificate { node: peer, voucher: voucher.id, issued: now, ends }
            }
        };
        books.issued.insert((peer, voucher.id), certificate);
        // Also of what was kept before: whether that came to be on disk is not known here.
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
            // The voucher was not shown.
            Verdict::Refused(Refusal::NoCertificate) if matches!(self.own, Own::Guest(Some(_))) => {
                return Err(Refusal::NotFounder);
            }
            Verdict::Refused(refusal) => return Err(refusal),
            Verdict::Certified(signed) => {
                let own = self.certificate(&signed, &self.me)?;
                // Whoever has seen an older one could show it to this node again.
                let later = self.ends().is_none_or(|ends| own.ends > ends);
                if !is_over(own.ends, now) && later && !self.is_founder() {
                    self.own = Own::Member(signed.clone(), own, None);
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

    /// The newest list of those put out, for whoever does not know it, and who is on it.
    #[must_use]
    pub fn newest(&self) -> Option<(u64, Signed, BTreeSet<NodeId>)> {
        let (list, signed) = self.revoked.as_ref()?;
        Some((list.sequence, signed.clone(), list.nodes.iter().map(|(node, _)| *node).collect()))
    }

    /// Whether the founder has put `node` out.
    #[must_use]
    pub fn is_revoked(&self, node: &NodeId) -> bool {
        self.revoked.as_ref().is_some_and(|(list, _)| lists(list, node))
    }

    /// Whether `node`, which is connected, may stay so.
    #[must_use]
    pub fn is_member(&self, node: &NodeId, now: UnixMillis) -> bool {
        let good = self.seen.get(node).is_some_and(|ends| !is_over(*ends, now));
        *node == self.founder || good && !self.is_revoked(node)
    }

    /// Forgets those whose certificates have ended.
    pub fn expire(&mut self, now: UnixMillis) {
        self.seen.retain(|_, ends| !is_over(*ends, now));
    }

    /// Makes a voucher for an invite.
    ///
    /// # Errors
    /// If this is not the founder, whose key it takes.
    pub fn invite(&self, voucher: &Voucher) -> Result<Signed, RevokeError> {
        let Own::Founder(signer, _) = &self.own else { return Err(RevokeError::NotFounder) };
        Ok(Signed::of(voucher, signer))
    }

    /// Puts a member out, and ends the vouchers that it came with. Gives what to keep.
    ///
    /// # Errors
    /// If this is not the founder, or that no member.
    pub fn revoke(&mut self, node: NodeId, now: UnixMillis) -> Result<Vec<Kept>, RevokeError> {
        let Own::Founder(signer, books) = &mut self.own else { return Err(RevokeError::NotFounder) };
        let issued: Vec<Certificate> =
            books.issued.range((node, [0; 16])..=(node, [0xff; 16])).map(|(_, issued)| *issued).collect();
        let ends = issued.iter().map(|issued| issued.ends).max().ok_or(RevokeError::NoMember)?;
        let before = self.revoked.as_ref().map(|(list, _)| list.clone()).unwrap_or_default();
        let mut nodes: BTreeMap<NodeId, UnixMillis> = before.nodes.into_vec().into_iter().collect();
        nodes.retain(|_, ends| !is_over(*ends, now));
        nodes.insert(node, ends);
        let nodes = ListMax::new(nodes.into_iter().collect()).map_err(|_| RevokeError::Full)?;
        let list = Revocations { sequence: before.sequence + 1, nodes };
        let signed = Signed::of(&list, signer);
        // It could come back under another name with a voucher for many.
        let mut kept: Vec<Kept> =
            issued.iter().map(|issued| Kept::Spent(issued.voucher, UnixMillis(u64::MAX))).collect();
        books.spent.extend(issued.iter().map(|issued| (issued.voucher, UnixMillis(u64::MAX))));
        kept.push(Kept::Revocations(signed.clone()));
        self.revoked = Some((list, signed));
        Ok(kept)
    }

    /// Whom the founder has let in, by their last certificates, and whether it has put them out again.
    #[must_use]
    pub fn members(&self) -> Vec<(Certificate, bool)> {
        let Own::Founder(_, books) = &self.own else { return Vec::new() };
        let mut last: BTreeMap<NodeId, Certificate> = BTreeMap::new();
        for issued in books.issued.values() {
            let known = last.entry(issued.node).or_insert(*issued);
            if issued.ends > known.ends {
                *known = *issued;
            }
        }
        last.into_values().map(|issued| (issued, self.is_revoked(&issued.node))).collect()
    }
}

/// The founder keeps its list in order.
fn lists(list: &Revocations, node: &NodeId) -> bool {
    list.nodes.binary_search_by_key(node, |(listed, _)| *listed).is_ok()
}

/// Clocks differ a little.
fn is_over(ends: UnixMillis, now: UnixMillis) -> bool {
    now.0 > ends.0.saturating_add(CLOCK_SKEW_MAX.as_millis())
}
