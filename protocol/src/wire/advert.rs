//! What a node tells everybody: small, signed, numbered, and only for a while.

use super::bounded::{BytesMax, ListMax, TextMax};
use super::codec::{self, Decode, DecodeError, Encode};
use super::constraint::LabelSketch;
use super::envelope::Message;
use super::signed::{Domain, SignatureBytes, Signer, verify};
use super::task::{Engines, Resources};
use crate::id::{NetworkId, NodeId};
use crate::limits::{ADDRESS_BYTES_MAX, ADDRESSES_MAX, ADVERT_BYTES_MAX, CLOCK_SKEW_MAX};
use crate::time::{Span, UnixMillis};

/// What a node can do, as all others may know it. Exact load and labels are asked for over the view protocol or come
/// with a bid.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Advert {
    /// Who says this.
    pub node: NodeId,
    /// Rises with every advert, over restarts too; see [`Advert::numbered`]. The highest one counts.
    pub sequence: u64,
    /// When it was signed.
    pub issued: UnixMillis,
    /// Seconds for which it counts.
    pub ttl_s: u32,
    /// Oldest and newest wire version spoken.
    pub wire: (u16, u16),
    /// Engines on offer; none on a node that runs no jobs.
    pub engines: Engines,
    /// What it has for jobs in all.
    pub total: Resources,
    /// How much of it is taken, in percent; over 100 when jobs queue.
    pub load_percent: u16,
    /// A label for people, chosen by the operator; not an identity.
    pub name: TextMax<32>,
    /// The program's version.
    pub version: TextMax<16>,
    /// What its labels may be, so that jobs with constraints need not ask everybody.
    pub labels: LabelSketch,
    /// Confirmed addresses, as binary multiaddrs.
    pub addresses: ListMax<BytesMax<ADDRESS_BYTES_MAX>, ADDRESSES_MAX>,
    /// The last advert of a node that leaves.
    pub leaving: bool,
}

/// An advert with its author's signature, exactly as it was made.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct SignedAdvert {
    /// The encoded [`Advert`].
    pub bytes: BytesMax<ADVERT_BYTES_MAX>,
    /// Over `bytes`.
    pub signature: SignatureBytes,
}

impl Message for SignedAdvert {
    const KIND: u16 = 1;
    const BYTES_MAX: usize = ADVERT_BYTES_MAX + 128;
}

/// Why an advert, or a call, does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdvertError {
    /// Nobody honest sends this.
    #[error("malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// The signature is not its author's.
    #[error("forged")]
    Forged,
    /// Too old, or from a clock too far ahead. Who passes it on is not to blame.
    #[error("{skew_ms} ms off our clock")]
    Expired {
        /// Distance between its time and ours.
        skew_ms: u64,
    },
}

/// Seconds for which an advert counts at most.
const TTL_S_MAX: u32 = 86_400;
/// Bits of a sequence that count the adverts of one life.
const COUNT_BITS: u32 = 24;

impl Advert {
    /// The sequence of the advert `count` of the life `epoch`.
    #[must_use]
    pub const fn numbered(epoch: u64, count: u64) -> u64 {
        let last = (1 << COUNT_BITS) - 1;
        epoch << COUNT_BITS | if count < last { count } else { last }
    }

    /// The life in which it was made, as [`Advert::numbered`] has it.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.sequence >> COUNT_BITS
    }

    /// Between two adverts of a node that knows so many: at least `least`, and `per_second` of the whole network. An advert
    /// counts for three periods.
    #[must_use]
    pub fn period(known: usize, least: Span, per_second: u64) -> Span {
        Span::secs(known as u64 / per_second.max(1)).max(least)
    }

    /// Signs this advert, dropping addresses from the end until it fits its limit.
    #[must_use]
    pub fn sign(mut self, signer: &Signer) -> SignedAdvert {
        loop {
            let encoded = codec::encode(&self);
            if let Ok(bytes) = BytesMax::new(encoded) {
                let signature = signer.sign(Domain::Advert, &bytes);
                return SignedAdvert { bytes, signature };
            }
            let fewer = self.addresses.len().saturating_sub(1);
            self.addresses = ListMax::truncated(self.addresses.into_vec().into_iter().take(fewer));
        }
    }

    /// How long it counts; a day at most, whatever it says.
    #[must_use]
    pub const fn ttl(&self) -> Span {
        Span::secs(if self.ttl_s < TTL_S_MAX { self.ttl_s } else { TTL_S_MAX } as u64)
    }

    /// Whether the advert still counts at `now`.
    #[must_use]
    pub fn is_current(&self, now: UnixMillis) -> bool {
        let skew = CLOCK_SKEW_MAX.as_millis();
        let expires = self.issued.0.saturating_add(self.ttl().as_millis());
        self.issued.0 <= now.0.saturating_add(skew) && now.0 <= expires.saturating_add(skew)
    }
}

impl SignedAdvert {
    /// The advert, if it is its author's and counts at `now`.
    ///
    /// # Errors
    /// If it is malformed, forged or not of this time.
    pub fn open(&self, network: &NetworkId, now: UnixMillis) -> Result<Advert, AdvertError> {
        let advert = self.claimed()?;
        if !verify(Domain::Advert, network, &advert.node, &self.bytes, &self.signature) {
            return Err(AdvertError::Forged);
        }
        if !advert.is_current(now) {
            return Err(AdvertError::Expired { skew_ms: advert.issued.distance(now) });
        }
        Ok(advert)
    }

    /// What it claims to be, by anybody's word.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn claimed(&self) -> Result<Advert, AdvertError> {
        Ok(codec::decode(&self.bytes, ADVERT_BYTES_MAX)?)
    }
}
