//! Open calls: who, that this node does not know of, could run something like this?
//!
//! A call goes out over gossip only when the view holds too few nodes that fit. A node that fits answers with its advert,
//! straight to the caller, by chance (see [`crate::view::View::answers`]); it is then asked like any other.

use super::advert::AdvertError;
use super::bounded::BytesMax;
use super::codec::{self, Decode, Encode};
use super::envelope::Message;
use super::signed::{Domain, SignatureBytes, Signer, verify};
use super::task::{Engine, Resources};
use crate::id::{NetworkId, NodeId};
use crate::limits::CLOCK_SKEW_MAX;
use crate::time::UnixMillis;

/// Bytes of an encoded [`Call`].
pub const CALL_BYTES_MAX: usize = 128;

/// What is wanted, and by whom.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Call {
    /// Who calls; answers go there.
    pub owner: NodeId,
    /// When it was signed.
    pub issued: UnixMillis,
    /// Oldest and newest wire version spoken.
    pub wire: (u16, u16),
    /// The engine it takes.
    pub engine: Engine,
    /// What a run may use.
    pub resources: Resources,
    /// How many nodes are wanted.
    pub want: u32,
}

/// A call with its author's signature, exactly as it was made.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct SignedCall {
    /// The encoded [`Call`].
    pub bytes: BytesMax<CALL_BYTES_MAX>,
    /// Over `bytes`.
    pub signature: SignatureBytes,
}

impl Message for SignedCall {
    const KIND: u16 = 7;
    const BYTES_MAX: usize = CALL_BYTES_MAX + 128;
}

const _: () = assert!(32 + 8 + 4 + 4 + 28 + 4 < CALL_BYTES_MAX);

impl Call {
    /// Signs this call.
    #[must_use]
    pub fn sign(&self, signer: &Signer) -> SignedCall {
        let bytes = BytesMax::new(codec::encode(self)).unwrap_or_default();
        let signature = signer.sign(Domain::Call, &bytes);
        SignedCall { bytes, signature }
    }
}

impl SignedCall {
    /// The call, if it is its author's and of this time.
    ///
    /// # Errors
    /// If it is malformed, forged or not of this time.
    pub fn open(&self, network: &NetworkId, now: UnixMillis) -> Result<Call, AdvertError> {
        let call: Call = codec::decode(&self.bytes, CALL_BYTES_MAX)?;
        if !verify(Domain::Call, network, &call.owner, &self.bytes, &self.signature) {
            return Err(AdvertError::Forged);
        }
        let skew_ms = call.issued.distance(now);
        if skew_ms > CLOCK_SKEW_MAX.as_millis() {
            return Err(AdvertError::Expired { skew_ms });
        }
        Ok(call)
    }
}
