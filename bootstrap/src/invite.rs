//! Invites: all that one needs to join a network, in one line.
//!
//! `bacnode1` and then, in base64url without padding: the network's name, the swarm's key if there is one, addresses to join
//! through, when it ends, in a swarm with a founder who that is and its voucher, and the first four bytes of the SHA-256 of all
//! that, so that a slip of the hand is noticed. Whoever has the line has the key; without a founder its end is a reminder, kept
//! by the program that reads it, with one it is the founder who keeps to it.

use std::fmt;
use std::str::FromStr;

use bacnode_protocol::id::NodeId;
use bacnode_protocol::limits::{ADDRESS_BYTES_MAX, ADDRESSES_MAX};
use bacnode_protocol::time::UnixMillis;
use bacnode_protocol::wire::bounded::{BytesMax, ListMax, TextMax};
use bacnode_protocol::wire::codec;
use bacnode_protocol::wire::member::Signed;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use multiaddr::Multiaddr;
use sha2::{Digest as _, Sha256};

use crate::network::check_name;

/// How every invite begins; the number is that of the format.
const PREFIX: &str = "bacnode1";
/// Bytes of an invite.
const BYTES_MAX: usize = 1024;
/// Bytes of the checksum.
const CHECKSUM: usize = 4;

/// All that one needs to join a network.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// The network's name.
    pub network: String,
    /// The swarm's key, where it is private.
    pub key: Option<[u8; 32]>,
    /// Peers to join through, one of which must answer.
    pub addresses: Vec<Multiaddr>,
    /// It is not taken any more after this.
    pub ends: UnixMillis,
    /// Who lets newcomers in, and what is shown to it.
    pub founder: Option<(NodeId, Signed)>,
}

/// An invite that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Something else was copied.
    #[error("it is no invite: those begin with `{PREFIX}`")]
    Foreign,
    /// A character that no invite has.
    #[error("`{character}` at position {position} is in no invite")]
    Character {
        /// Which.
        character: char,
        /// The how manieth, from 1.
        position: usize,
    },
    /// Cut, or changed.
    #[error("it is not whole: something is missing or was changed")]
    Damaged,
    /// Whole, but not of use.
    #[error("it invites to nothing: {0}")]
    Useless(String),
}

/// Network, key, addresses, end, founder.
type Written = (
    TextMax<32>,
    Option<[u8; 32]>,
    ListMax<BytesMax<ADDRESS_BYTES_MAX>, ADDRESSES_MAX>,
    UnixMillis,
    Option<(NodeId, Signed)>,
);

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = self.addresses.iter().filter_map(|address| BytesMax::new(address.to_vec()).ok());
        let addresses = ListMax::truncated(addresses);
        let network = TextMax::truncated(&self.network);
        let mut bytes = codec::encode::<Written>(&(network, self.key, addresses, self.ends, self.founder.clone()));
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum[..CHECKSUM]);
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// What is secret is not for logs.
impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invite({}, {:?})", self.network, self.addresses)
    }
}

impl FromStr for Invite {
    type Err = InviteError;

    fn from_str(text: &str) -> Result<Self, InviteError> {
        let text = text.trim();
        let rest = text.strip_prefix(PREFIX).ok_or(InviteError::Foreign)?;
        let strange = |c: &char| !c.is_ascii_alphanumeric() && *c != '-' && *c != '_';
        if let Some((position, character)) = (1..).zip(text.chars()).find(|(_, c)| strange(c)) {
            return Err(InviteError::Character { character, position });
        }
        let bytes = URL_SAFE_NO_PAD.decode(rest).map_err(|_| InviteError::Damaged)?;
        let (bytes, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(InviteError::Damaged)?;
        if Sha256::digest(bytes)[..CHECKSUM] != *checksum {
            return Err(InviteError::Damaged);
        }
        let (network, key, addresses, ends, founder): Written =
            codec::decode(bytes, BYTES_MAX).map_err(|_| InviteError::Damaged)?;
        check_name(&network).map_err(|error| InviteError::Useless(error.to_string()))?;
        let addresses = addresses.iter().map(|bytes| Multiaddr::try_from(bytes.to_vec()));
        let addresses = addresses.collect::<Result<Vec<_>, _>>().map_err(|_| InviteError::Damaged)?;
        if addresses.is_empty() {
            return Err(InviteError::Useless("no address to join through is in it".into()));
        }
        Ok(Self { network: network.to_string(), key, addresses, ends, founder })
    }
}

#[cfg(test)]
mod tests {
    use bacnode_protocol::id::NetworkId;
    use bacnode_protocol::wire::member::Voucher;
    use bacnode_protocol::wire::signed::Signer;
    use ed25519_dalek::SigningKey;

    use super::*;

    fn invite() -> Invite {
        Invite {
            network: "lab".into(),
            key: Some([7; 32]),
            addresses: vec!["/ip4/203.0.113.7/tcp/1235".parse().expect("an address")],
            ends: UnixMillis(1_800_000_000_000),
            founder: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let signer = Signer::new(SigningKey::from_bytes(&[1; 32]), NetworkId::new("lab", None));
        let made = UnixMillis(1_700_000_000_000);
        let voucher = Voucher { id: [2; 16], made, ends: invite().ends, once: true, membership_s: 3_600 };
        let founder = Some((signer.node(), Signed::of(&voucher, &signer)));
        for invite in [invite(), Invite { key: None, ..invite() }, Invite { founder, ..invite() }] {
            let line = invite.to_string();
            let longest = if invite.founder.is_some() { 450 } else { 200 };
            assert!(line.starts_with(PREFIX) && line.len() < longest, "{line}");
            assert_eq!(format!(" {line}\n").parse::<Invite>(), Ok(invite));
        }
        assert!(!format!("{:?}", invite()).contains('7'.to_string().repeat(4).as_str()));
    }

    #[test]
    fn what_was_changed_is_refused() {
        let line = invite().to_string();
        assert_eq!("hello".parse::<Invite>(), Err(InviteError::Foreign));
        let strange = format!("{}*{}", &line[..20], &line[21..]);
        assert_eq!(strange.parse::<Invite>(), Err(InviteError::Character { character: '*', position: 21 }));
        for end in PREFIX.len()..line.len() {
            assert!(line[..end].parse::<Invite>().is_err(), "cut at {end}");
        }
        for at in PREFIX.len()..line.len() {
            let other = if &line[at..=at] == "A" { "B" } else { "A" };
            let changed = format!("{}{other}{}", &line[..at], &line[at + 1..]);
            assert!(changed.parse::<Invite>().is_err() || changed == line, "changed at {at}");
        }
        let nowhere = Invite { addresses: Vec::new(), ..invite() }.to_string();
        assert!(matches!(nowhere.parse::<Invite>(), Err(InviteError::Useless(_))));
    }
}
