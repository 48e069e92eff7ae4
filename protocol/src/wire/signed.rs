//! Signatures that outlive a connection.
//!
//! Noise tells who is at the other end of a stream; a signature is for third parties. It covers the bytes as they are
//! carried, under a domain tag that names the kind and the network, and is checked by `verify_strict`, which refuses weak
//! keys and malleable forms (RFC 8032 §5.1.7, with the stricter checks of ed25519-dalek).

use std::fmt;

use ed25519_dalek::{Signature, SigningKey, VerifyingKey};

use super::codec::{Decode, Encode};
use crate::id::{NetworkId, NodeId};

/// What is signed; part of the signed bytes, so that no signature is good for another purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// [`super::advert::Advert`]
    Advert,
    /// [`super::market::ResultBody`]
    Result,
    /// [`super::call::Call`]
    Call,
    /// [`super::member::Voucher`]
    Voucher,
    /// [`super::member::Certificate`]
    Certificate,
    /// [`super::member::Revocations`]
    Revocations,
    /// [`super::group::Vote`]
    Vote,
    /// [`super::group::Ack`]
    GroupAck,
}

impl Domain {
    const fn tag(self) -> &'static [u8] {
        match self {
            Self::Advert => b"bacnode/v1/advert\0",
            Self::Result => b"bacnode/v1/result\0",
            Self::Call => b"bacnode/v1/call\0",
            Self::Voucher => b"bacnode/v1/voucher\0",
            Self::Certificate => b"bacnode/v1/certificate\0",
            Self::Revocations => b"bacnode/v1/revocations\0",
            Self::Vote => b"bacnode/v1/vote\0",
            Self::GroupAck => b"bacnode/v1/group-ack\0",
        }
    }
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct SignatureBytes(pub [u8; 64]);

impl fmt::Debug for SignatureBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("signature")
    }
}

fn message(domain: Domain, network: &NetworkId, bytes: &[u8]) -> Vec<u8> {
    [domain.tag(), &network.0, &(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

/// A node's right to sign and to mark its own awards, in one network.
#[derive(Clone)]
pub struct Signer {
    key: SigningKey,
    network: NetworkId,
    mac_key: [u8; 32],
}

impl Signer {
    /// The signer with this key.
    #[must_use]
    pub fn new(key: SigningKey, network: NetworkId) -> Self {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        hash.update(b"bacnode/award-mac/1\0");
        hash.update(key.to_bytes());
        hash.update(network.0);
        Self { key, network, mac_key: hash.finalize().into() }
    }

    /// Whose signatures these are.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId::of(&self.key.verifying_key())
    }

    /// The network in which they count.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// Signs `bytes` for one purpose.
    #[must_use]
    pub fn sign(&self, domain: Domain, bytes: &[u8]) -> SignatureBytes {
        use ed25519_dalek::Signer as _;
        SignatureBytes(self.key.sign(&message(domain, &self.network, bytes)).to_bytes())
    }

    /// A mark that only this node can make (HMAC-SHA-256, RFC 2104, cut to 16 bytes): an award carries it, the result
    /// echoes it, and an owner that lost its records still knows its own award.
    #[must_use]
    pub fn mac(&self, bytes: &[u8]) -> [u8; 16] {
        let mut mac = [0; 16];
        mac.copy_from_slice(&hmac_sha256(&self.mac_key, &[bytes])[..16]);
        mac
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.node().short())
    }
}

/// HMAC-SHA-256 (RFC 2104) over these parts, one after the other.
#[must_use]
pub fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        block
    };
    let mut inner = Sha256::new().chain_update(pad(0x36));
    for part in parts {
        inner.update(part);
    }
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner.finalize()).finalize().into()
}

/// Whether `signature` is `node`'s over `bytes`, in this network and for this purpose.
#[must_use]
pub fn verify(domain: Domain, network: &NetworkId, node: &NodeId, bytes: &[u8], signature: &SignatureBytes) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(&node.0) else { return false };
    if key.is_weak() {
        return false;
    }
    key.verify_strict(&message(domain, network, bytes), &Signature::from_bytes(&signature.0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_counts_for_one_purpose_in_one_network() {
        let here = NetworkId::new("here", None);
        let signer = Signer::new(SigningKey::from_bytes(&[1; 32]), here);
        let signature = signer.sign(Domain::Advert, b"bytes");
        let node = signer.node();
        assert!(verify(Domain::Advert, &here, &node, b"bytes", &signature));
        assert!(!verify(Domain::Result, &here, &node, b"bytes", &signature));
        assert!(!verify(Domain::Advert, &NetworkId::new("there", None), &node, b"bytes", &signature));
        assert!(!verify(Domain::Advert, &here, &node, b"bytez", &signature));
    }

    #[test]
    fn the_hmac_of_a_known_text() {
        // Computed with OpenSSL: the key is 32 times `k`.
        let mac = hmac_sha256(&[b'k'; 32], &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(hex::encode(mac), "4f63351605b85f42e803b30e42c1905fed065a563ff4295a47982e43f228e097");
    }

    #[test]
    fn the_identity_point_signs_nothing() {
        let here = NetworkId::new("here", None);
        let mut weak = [0; 32];
        weak[0] = 1;
        let mut forged = [0; 64];
        forged[0] = 1;
        assert!(!verify(Domain::Advert, &here, &NodeId(weak), b"any", &SignatureBytes(forged)));
    }
}
