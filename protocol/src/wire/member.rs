//! Who may be in a swarm with a founder: what each end of a new connection says before anything else is spoken.
//!
//! The swarm's key keeps out whoever never had it; a certificate keeps out whoever has the key and should not be here (any
//! more). The founder signs [`Voucher`]s, which go into invites; whoever comes to it with one is given a [`Certificate`] for
//! its own id, and shows that to everybody else. [`Revocations`] go from member to member.

use std::fmt;

use super::bounded::{BytesMax, ListMax};
use super::codec::{self, Decode, Encode};
use super::envelope::Message;
use super::signed::{Domain, SignatureBytes, Signer, verify};
use crate::id::{NetworkId, NodeId};
use crate::limits::{REVOKED_MAX, STATEMENT_BYTES_MAX};
use crate::time::UnixMillis;

/// Tells vouchers apart; drawn by chance.
pub type VoucherId = [u8; 16];

/// The right to become a member, for whoever has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Voucher {
    /// Which.
    pub id: VoucherId,
    /// When it was made.
    pub made: UnixMillis,
    /// When it is not taken any more.
    pub ends: UnixMillis,
    /// Whether only the first who comes may use it.
    pub once: bool,
    /// How long the membership lasts that it leads to, in seconds.
    pub membership_s: u64,
}

/// That a node is a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Certificate {
    /// Who.
    pub node: NodeId,
    /// The voucher with which it came.
    pub voucher: VoucherId,
    /// Since when.
    pub issued: UnixMillis,
    /// Until when.
    pub ends: UnixMillis,
}

/// Members that are none any more, though their certificates would say so.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Revocations {
    /// The highest one counts.
    pub sequence: u64,
    /// Who, and when its certificate would have ended: it need not be listed any longer.
    pub nodes: ListMax<(NodeId, UnixMillis), REVOKED_MAX>,
}

/// What the founder signs.
pub trait Statement: Encode + Decode<()> {
    /// So that no signature is good for another kind.
    const DOMAIN: Domain;
}

impl Statement for Voucher {
    const DOMAIN: Domain = Domain::Voucher;
}

impl Statement for Certificate {
    const DOMAIN: Domain = Domain::Certificate;
}

impl Statement for Revocations {
    const DOMAIN: Domain = Domain::Revocations;
}

/// A [`Statement`] with the founder's signature, exactly as it was made.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Signed {
    /// The encoded statement.
    pub bytes: BytesMax<STATEMENT_BYTES_MAX>,
    /// Over `bytes`.
    pub signature: SignatureBytes,
}

/// A voucher is worth something to whoever reads it.
impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({} bytes)", self.bytes.len())
    }
}

/// Not what the founder said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the founder's word")]
pub struct Forged;

impl Signed {
    /// Signs a statement.
    #[must_use]
    pub fn of<S: Statement>(statement: &S, signer: &Signer) -> Self {
        let bytes = BytesMax::new(codec::encode(statement)).unwrap_or_default();
        let signature = signer.sign(S::DOMAIN, &bytes);
        Self { bytes, signature }
    }

    /// The statement, if it is `founder`'s.
    ///
    /// # Errors
    /// If it is malformed or somebody else's.
    pub fn open<S: Statement>(&self, network: &NetworkId, founder: &NodeId) -> Result<S, Forged> {
        if !verify(S::DOMAIN, network, founder, &self.bytes, &self.signature) {
            return Err(Forged);
        }
        codec::decode(&self.bytes, STATEMENT_BYTES_MAX).map_err(|_| Forged)
    }
}

impl Message for Signed {
    const KIND: u16 = 10;
    const BYTES_MAX: usize = STATEMENT_BYTES_MAX + 128;
}

/// Why one may be let in.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Credential {
    /// For no reason.
    None,
    /// The connection proves that this is the founder.
    Founder,
    /// A [`Certificate`].
    Certificate(Signed),
    /// A [`Voucher`]: for the founder.
    Voucher(Signed),
}

/// The first thing that each end of a connection says.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Hello {
    /// Why it may be here.
    pub credential: Credential,
    /// The newest [`Revocations`] that it knows.
    pub revocations: u64,
}

impl Message for Hello {
    const KIND: u16 = 8;
    const BYTES_MAX: usize = 1024;
}

/// What each end answers the other's [`Hello`].
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Answer {
    /// Whether the other end is let in.
    pub verdict: Verdict,
    /// Newer [`Revocations`] than the other end knows.
    pub revocations: Option<Signed>,
}

impl Message for Answer {
    const KIND: u16 = 9;
    const BYTES_MAX: usize = STATEMENT_BYTES_MAX + 1024;
}

/// Whether one is let in.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Verdict {
    /// It is.
    Welcome,
    /// It is a member from now on: here is its [`Certificate`].
    Certified(Signed),
    /// It is not.
    Refused(Refusal),
}

/// Why somebody is not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, thiserror::Error)]
pub enum Refusal {
    /// It has no certificate and no voucher.
    #[error(
        "this swarm takes members only, and this node has no certificate (an invite of the founder's leads to one)"
    )]
    NoCertificate,
    /// It has a voucher, and this is not the founder.
    #[error("only the swarm's founder lets newcomers in; it must be reached first")]
    NotFounder,
    /// The certificate, or the voucher, has ended.
    #[error("the membership, or the invite, is over")]
    Over,
    /// Somebody else was let in with it.
    #[error("the invite was for one node, and another one has used it")]
    Used,
    /// The founder has put it out.
    #[error("the swarm's founder has revoked this membership")]
    Revoked,
    /// Not the founder's word, or somebody else's certificate.
    #[error("it is not the founder's word on this node")]
    Forged,
    /// The founder has let in as many as it keeps books of.
    #[error("the swarm has as many members as its founder lets in")]
    Full,
}
