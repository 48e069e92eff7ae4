//! The identifiers themselves: the subset of CIDs whose blocks this network stores.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::wire::codec::{Decode, Encode};

/// How a block's bytes are to be read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub enum Codec {
    /// Bytes as they are (multicodec 0x55).
    Raw,
    /// A dag-pb node (multicodec 0x70).
    DagPb,
}

/// A CIDv1 with a sha2-256 hash over a raw or dag-pb block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Cid {
    /// How the block is read.
    pub codec: Codec,
    /// sha2-256 of the block.
    pub digest: [u8; 32],
}

const RAW: u64 = 0x55;
const DAG_PB: u64 = 0x70;
const SHA2_256: u64 = 0x12;

impl Cid {
    /// The CID of `block`, read as `codec`.
    #[must_use]
    pub fn of(codec: Codec, block: &[u8]) -> Self {
        Self { codec, digest: Sha256::digest(block).into() }
    }

    /// Whether `block` is what this names.
    #[must_use]
    pub fn matches(&self, block: &[u8]) -> bool {
        self.digest[..] == Sha256::digest(block)[..]
    }

    /// The binary form: version, codec, multihash.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_cid().to_bytes()
    }

    /// The CID in this binary form.
    ///
    /// # Errors
    /// If it is none, or not of the kinds stored here.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseCidError> {
        let cid = ::cid::Cid::try_from(bytes).map_err(|error| ParseCidError::Malformed(error.to_string()))?;
        Self::from_cid(&cid)
    }

    /// The multihash, which is what providers are announced under.
    #[must_use]
    pub fn multihash(&self) -> Vec<u8> {
        self.to_cid().hash().to_bytes()
    }

    fn to_cid(self) -> ::cid::Cid {
        let hash = ::cid::multihash::Multihash::wrap(SHA2_256, &self.digest).expect("32 bytes fit a 64-byte multihash");
        ::cid::Cid::new_v1(if self.codec == Codec::Raw { RAW } else { DAG_PB }, hash)
    }

    fn from_cid(cid: &::cid::Cid) -> Result<Self, ParseCidError> {
        let codec = match cid.codec() {
            RAW => Codec::Raw,
            DAG_PB => Codec::DagPb,
            other => return Err(ParseCidError::Codec(other)),
        };
        if cid.hash().code() != SHA2_256 {
            return Err(ParseCidError::Hash(cid.hash().code()));
        }
        let digest = cid.hash().digest().try_into().map_err(|_| ParseCidError::Hash(SHA2_256))?;
        Ok(Self { codec, digest })
    }
}

/// A text or bytes that name no content of this network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseCidError {
    /// Not a CID at all.
    #[error("not a content identifier ({0})")]
    Malformed(String),
    /// Another kind of block.
    #[error("content of codec 0x{0:x} is not stored here (raw and dag-pb are)")]
    Codec(u64),
    /// Another kind of hash.
    #[error("hash function 0x{0:x} is not used here (sha2-256 is)")]
    Hash(u64),
}

impl FromStr for Cid {
    type Err = ParseCidError;

    /// Any version and multibase; a CIDv0 becomes its CIDv1.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_prefix("ipfs://").or_else(|| text.strip_prefix("/ipfs/")).unwrap_or(text);
        let cid = ::cid::Cid::from_str(text).map_err(|error| ParseCidError::Malformed(error.to_string()))?;
        Self::from_cid(&cid)
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_cid().fmt(f)
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_cids_and_versions() {
        let empty = Cid::of(Codec::Raw, b"");
        assert_eq!(empty.to_string(), "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
        assert_eq!(empty.to_string().parse(), Ok(empty));
        assert_eq!(Cid::from_bytes(&empty.to_bytes()), Ok(empty));
        // The empty folder, as CIDv0 and CIDv1.
        let folder: Cid = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn".parse().expect("a CIDv0");
        assert_eq!(folder.to_string(), "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354");
        assert!("bafynonsense".parse::<Cid>().is_err());
    }
}
