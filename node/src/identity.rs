//! The node's key, and the swarm's.

use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use bacnode_protocol::wire::codec;
use bacnode_protocol::wire::member::Signed;
use ed25519_dalek::SigningKey;
use libp2p::identity::Keypair;
pub use libp2p::pnet::PreSharedKey;

/// What an invite says for this node, in the data folder; and its bytes at most.
const VOUCHER: &str = "voucher";
const VOUCHER_BYTES_MAX: usize = 512;

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("cannot read the key file {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read it.
    #[error("the key file {} can be read by others (mode {mode:o})", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It holds no key.
    #[error("{} is not what it should be: {reason}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Both forms of a node's one key.
#[derive(Clone)]
pub struct Identity {
    /// For the machines.
    pub signing: SigningKey,
    /// For libp2p.
    pub keypair: Keypair,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.keypair.public().to_peer_id())
    }
}

impl Identity {
    /// The identity with this secret.
    ///
    /// # Panics
    /// Never: any 32 bytes are an Ed25519 secret.
    #[must_use]
    pub fn from_secret(secret: [u8; 32]) -> Self {
        let mut copy = secret;
        let keypair = Keypair::ed25519_from_bytes(&mut copy).expect("any 32 bytes are an Ed25519 secret");
        Self { signing: SigningKey::from_bytes(&secret), keypair }
    }

    /// The key in `path`; a new one where there is no file.
    ///
    /// # Errors
    /// If the file cannot be read or made, is open to others, or holds no key.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        match read_private(path) {
            Ok(text) => {
                let secret = hex::decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
                let reason = "expected 64 hex digits".to_owned();
                secret.map(Self::from_secret).ok_or(KeyError::Malformed { path: path.to_owned(), reason })
            }
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret).map_err(|error| io(io::Error::other(error.to_string())))?;
                let mut file =
                    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
                file.write_all(hex::encode(secret).as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
                Ok(Self::from_secret(secret))
            }
            Err(error) => Err(error),
        }
    }
}

/// The swarm key in `path`, in the format of IPFS's `swarm.key`.
///
/// # Errors
/// If the file cannot be read, is open to others, or holds no key.
pub fn load_swarm_key(path: &Path) -> Result<PreSharedKey, KeyError> {
    let text = read_private(path)?;
    let malformed = |reason: &str| KeyError::Malformed { path: path.to_owned(), reason: reason.to_owned() };
    // The parser slices by bytes: what is not ASCII is refused before it.
    if !text.is_ascii() {
        return Err(malformed("it is not ASCII text"));
    }
    check_swarm_key(&text).map_err(|reason| malformed(&reason))?;
    text.parse().map_err(|_| malformed("expected the lines /key/swarm/psk/1.0.0/, /base16/ and 64 hex digits"))
}

/// Where a text is no swarm key, and why not. It is a secret: what stands there is not repeated.
fn check_swarm_key(text: &str) -> Result<(), String> {
    let mut lines = text.lines();
    for (number, wanted) in [(1, "/key/swarm/psk/1.0.0/"), (2, "/base16/")] {
        if lines.next().map(str::trim_end) != Some(wanted) {
            return Err(format!("line {number} is not `{wanted}`"));
        }
    }
    let key = lines.next().unwrap_or_default().trim_end();
    if let Some(at) = key.chars().position(|c| !c.is_ascii_hexdigit()) {
        return Err(format!("line 3 has no hex digit at position {}", at + 1));
    }
    if key.len() == 64 { Ok(()) } else { Err(format!("line 3 has {} hex digits, it takes 64", key.len())) }
}

/// Makes a swarm key, for whoever knows this file only.
///
/// # Errors
/// If there is such a file, or it cannot be made.
pub fn write_swarm_key(path: &Path, key: PreSharedKey) -> Result<(), KeyError> {
    let io = |source| KeyError::Io { path: path.to_owned(), source };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    file.write_all(key.to_key_file().as_bytes()).and_then(|()| file.sync_all()).map_err(io)
}

/// A swarm key that nobody knows yet.
///
/// # Errors
/// If the system gives no random numbers.
pub fn new_swarm_key() -> io::Result<PreSharedKey> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(PreSharedKey::new(bytes))
}

/// What tells swarm keys apart and is safe to show.
#[must_use]
pub fn fingerprint(key: PreSharedKey) -> [u8; 16] {
    let mut bytes = [0; 16];
    // The fingerprint's text is 32 hex digits.
    let _ = hex::decode_to_slice(key.fingerprint().to_string(), &mut bytes);
    bytes
}

/// The bytes of a swarm key.
#[must_use]
pub fn swarm_key_bytes(key: PreSharedKey) -> [u8; 32] {
    let text = key.to_key_file();
    let mut bytes = [0; 32];
    // Its last line is 64 hex digits.
    let _ = hex::decode_to_slice(text.lines().next_back().unwrap_or_default(), &mut bytes);
    bytes
}

/// What an invite says for this node, if it came with one.
///
/// # Errors
/// If the file cannot be read, is open to others, or holds something else.
pub fn load_voucher(data_dir: &Path) -> Result<Option<Signed>, KeyError> {
    let path = data_dir.join(VOUCHER);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = hex::decode(read_private(&path)?.trim()).ok();
    let voucher = bytes.and_then(|bytes| codec::decode(&bytes, VOUCHER_BYTES_MAX).ok());
    let reason = "it is not what `bacnode serve --join` writes".to_owned();
    voucher.map(Some).ok_or(KeyError::Malformed { path, reason })
}

/// Keeps what an invite says for this node until it is a member.
///
/// # Errors
/// If the file cannot be made.
pub fn write_voucher(data_dir: &Path, voucher: &Signed) -> Result<(), KeyError> {
    let path = data_dir.join(VOUCHER);
    let io = |source| KeyError::Io { path: path.clone(), source };
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).map_err(io)?;
    file.write_all(hex::encode(codec::encode(voucher)).as_bytes()).and_then(|()| file.sync_all()).map_err(io)
}

/// Forgets what an invite said: it has been used.
pub(crate) fn remove_voucher(data_dir: &Path) {
    // Where it is gone already, so much the better.
    let _ = std::fs::remove_file(data_dir.join(VOUCHER));
}

fn read_private(path: &Path) -> Result<String, KeyError> {
    let io = |source| KeyError::Io { path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Open { path: path.to_owned(), mode });
    }
    std::fs::read_to_string(path).map_err(io)
}
