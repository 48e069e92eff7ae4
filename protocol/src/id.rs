//! Names of things: nodes, networks, jobs, executions.
//!
//! All ids are fixed-size byte strings with a text form that people can copy. A node is its Ed25519 public key, so
//! that a message's author can be verified from the id alone; its text form is the libp2p `PeerId`.

use std::fmt;
use std::str::FromStr;

use libp2p_identity::PeerId;
use sha2::{Digest, Sha256};

use crate::wire::codec::{Decode, Encode};

/// A text that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct ParseIdError {
    text: String,
    expected: &'static str,
}

impl ParseIdError {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), expected }
    }
}

/// A node: its Ed25519 public key. Shown as the libp2p `PeerId` that the key determines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct NodeId(pub [u8; 32]);

impl NodeId {
    /// The id of the holder of `key`.
    #[must_use]
    pub fn of(key: &ed25519_dalek::VerifyingKey) -> Self {
        Self(key.to_bytes())
    }

    /// The libp2p id, when the bytes are a valid public key.
    #[must_use]
    pub fn peer_id(&self) -> Option<PeerId> {
        let key = libp2p_identity::ed25519::PublicKey::try_from_bytes(&self.0).ok()?;
        Some(libp2p_identity::PublicKey::from(key).to_peer_id())
    }

    /// The node behind a libp2p id; `None` for a key that is not Ed25519.
    #[must_use]
    pub fn from_peer_id(peer: &PeerId) -> Option<Self> {
        // An Ed25519 PeerId is an identity multihash (00 24) of the protobuf public key (08 01 12 20 ‖ key).
        let bytes = peer.to_bytes();
        let key = bytes.strip_prefix(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20])?;
        Some(Self(key.try_into().ok()?))
    }

    /// The first characters that tell nodes of one network apart at a glance.
    #[must_use]
    pub fn short(&self) -> String {
        let text = self.to_string();
        // Every Ed25519 PeerId starts with the same eight characters (`12D3KooW`).
        text.get(8..16).unwrap_or(&text).to_owned()
    }

    /// Five bytes that name an owner inside its job ids.
    #[must_use]
    pub fn tag(&self) -> [u8; 5] {
        let digest = Sha256::digest(self.0);
        let mut tag = [0; 5];
        tag.copy_from_slice(&digest[..5]);
        tag
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer_id() {
            Some(peer) => write!(f, "{peer}"),
            None => write!(f, "invalid-{}", base32(&self.0)),
        }
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.short())
    }
}

impl FromStr for NodeId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "a node id (12D3KooW…)";
        let peer = PeerId::from_str(text).map_err(|_| ParseIdError::new(text, expected))?;
        Self::from_peer_id(&peer).ok_or_else(|| ParseIdError::new(text, expected))
    }
}

/// A network: the hash of its name and, for a private one, of its key's fingerprint. It is part of everything that is
/// signed, so nothing said in one network is worth anything in another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct NetworkId(pub [u8; 32]);

impl NetworkId {
    /// The id of the network `name`, bound to the swarm key with this fingerprint where there is one.
    #[must_use]
    pub fn new(name: &str, key_fingerprint: Option<[u8; 16]>) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"bacnode/network/1\0");
        hash.update(name.as_bytes());
        if let Some(fingerprint) = key_fingerprint {
            hash.update([0]);
            hash.update(fingerprint);
        }
        Self(hash.finalize().into())
    }
}

/// One life of a node's process. A node's epoch rises durably at each start, so a boot id never comes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub struct BootId(pub u64);

/// A job: `j-<owner tag>-<hash>`. The tag leads to the owner, the hash covers owner, namespace, name and a nonce.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct JobId(pub [u8; 20]);

impl JobId {
    /// The id of `owner`'s job with this name and nonce.
    #[must_use]
    pub fn new(owner: &NodeId, namespace: &str, name: &str, nonce: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"bacnode/job/1\0");
        hash.update(owner.0);
        for part in [namespace.as_bytes(), name.as_bytes(), nonce] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut id = [0; 20];
        id[..5].copy_from_slice(&owner.tag());
        id[5..].copy_from_slice(&hash.finalize()[..15]);
        Self(id)
    }

    /// The tag of its owner.
    #[must_use]
    pub fn tag(&self) -> [u8; 5] {
        let mut tag = [0; 5];
        tag.copy_from_slice(&self.0[..5]);
        tag
    }

    /// Enough of the id for people: the tag and six characters.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(17).collect()
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "j-{}-{}", base32(&self.0[..5]), base32(&self.0[5..]))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for JobId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (tag, hash) = text.strip_prefix("j-")?.split_once('-')?;
            let bytes = [unbase32(tag)?, unbase32(hash)?].concat();
            Some(Self(bytes.try_into().ok()?))
        };
        parse().ok_or_else(|| ParseIdError::new(text, "a job id (j-…)"))
    }
}

/// One attempt to fill one slot of a job at one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ExecutionId(pub [u8; 20]);

impl ExecutionId {
    /// The id of attempt `token` at `slot` of `job`, run by `peer`.
    #[must_use]
    pub fn new(job: &JobId, slot: u32, token: FencingToken, peer: &NodeId) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"bacnode/execution/1\0");
        hash.update(job.0);
        hash.update(slot.to_be_bytes());
        hash.update(token.epoch.to_be_bytes());
        hash.update(token.counter.to_be_bytes());
        hash.update(peer.0);
        let mut id = [0; 20];
        id.copy_from_slice(&hash.finalize()[..20]);
        Self(id)
    }

    /// Enough of the id for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(10).collect()
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e-{}", base32(&self.0))
    }
}

impl fmt::Debug for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for ExecutionId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || Some(Self(unbase32(text.strip_prefix("e-")?)?.try_into().ok()?));
        parse().ok_or_else(|| ParseIdError::new(text, "an execution id (e-…)"))
    }
}

/// Orders the awards of one owner: (epoch of the owner's boot, counter within it). It needs no sync per job, because
/// each start durably raises the epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub struct FencingToken {
    /// The owner's epoch.
    pub epoch: u64,
    /// Counts the owner's awards within the epoch.
    pub counter: u64,
}

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// RFC 4648 base32, lower case, without padding.
fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut buffer, mut bits) = (0u32, 0);
    for &byte in bytes {
        buffer = buffer << 8 | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(buffer >> bits & 31) as usize]));
        }
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(buffer << (5 - bits) & 31) as usize]));
    }
    text
}

fn unbase32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut buffer, mut bits) = (0u32, 0);
    for character in text.bytes() {
        let value = ALPHABET.iter().position(|&letter| letter == character)?;
        buffer = buffer << 5 | u32::try_from(value).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(seed: u8) -> NodeId {
        NodeId::of(&ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key())
    }

    #[test]
    fn ids_survive_their_text_form() {
        let owner = node(7);
        let job = JobId::new(&owner, "default", "hello", b"nonce");
        let token = FencingToken { epoch: 1, counter: 2 };
        let execution = ExecutionId::new(&job, 0, token, &owner);
        assert_eq!(job.to_string().parse(), Ok(job));
        assert_eq!(execution.to_string().parse(), Ok(execution));
        assert_eq!(owner.to_string().parse(), Ok(owner));
        assert!(owner.to_string().starts_with("12D3KooW"));
        assert_eq!(job.to_string().len(), 2 + 8 + 1 + 24);
    }

    #[test]
    fn a_job_id_depends_on_every_part() {
        let base = JobId::new(&node(1), "a", "b", b"c");
        assert_ne!(base, JobId::new(&node(2), "a", "b", b"c"));
        assert_ne!(base, JobId::new(&node(1), "ab", "", b"c"));
        assert_ne!(base, JobId::new(&node(1), "a", "b", b"d"));
    }

    #[test]
    fn wrong_texts_are_refused_with_the_text() {
        let error = "j-nope".parse::<JobId>().expect_err("not an id");
        assert_eq!(error.to_string(), "`j-nope` is not a job id (j-…)");
        assert!("12D3KooWshort".parse::<NodeId>().is_err());
    }
}
