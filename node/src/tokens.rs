//! Who may use the API from elsewhere: tokens, each with a name and what it may do. The file holds their hashes only.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a token may be allowed, as Bacalhau names it; `*` is all of it.
pub const SCOPES: [&str; 7] =
    ["read:job", "write:job", "read:node", "write:node", "read:content", "write:content", "*"];
/// Tokens of one node.
const TOKENS_MAX: usize = 1_000;
/// What every token begins with, so that it is known for one where it was left lying.
const PREFIX: &str = "bnt_";

/// A token, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Token {
    /// What its operator calls it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it was made, in milliseconds since 1970.
    pub created: u64,
    /// The hash of what its bearer sends; 32 bytes of chance need no salt.
    sha256: String,
}

impl Token {
    /// Whether it may do what needs `scope`.
    #[must_use]
    pub fn may(&self, scope: &str) -> bool {
        self.scopes.iter().any(|own| own == "*" || own == scope)
    }
}

/// Why tokens cannot be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another has that name.
    #[error("there is a token `{0}` already")]
    Known(String),
    /// None has.
    #[error("there is no token `{0}`")]
    Unknown(String),
    /// There are enough.
    #[error("there are {TOKENS_MAX} tokens, as many as are kept")]
    Full,
}

/// Tells a file from the one that takes its place: each is written anew.
type Stamp = (Option<SystemTime>, u64, u64);

/// The tokens of one data folder.
#[derive(Debug)]
pub struct Tokens {
    path: PathBuf,
    /// As they were read, and which file that was.
    read: Mutex<(Option<Stamp>, Vec<Token>)>,
}

impl Tokens {
    /// Those of this data folder.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self { path: data_dir.join("tokens.json"), read: Mutex::default() }
    }

    fn error(&self, source: std::io::Error) -> TokenError {
        TokenError::File { path: self.path.clone(), source }
    }

    /// All of them. The file may be changed while a node runs.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn all(&self) -> Result<Vec<Token>, TokenError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = match std::fs::metadata(&self.path) {
            Ok(metadata) => Some((metadata.modified().ok(), metadata.ino(), metadata.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                *read = (None, Vec::new());
                return Ok(Vec::new());
            }
            Err(error) => return Err(self.error(error)),
        };
        if read.0 != changed {
            let text = std::fs::read(&self.path).map_err(|error| self.error(error))?;
            let tokens = serde_json::from_slice(&text).map_err(|error| self.error(error.into()))?;
            *read = (changed, tokens);
        }
        Ok(read.1.clone())
    }

    /// The token that somebody bears.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<Token> {
        let hash = hash(text);
        // Hashes are compared, of which nobody learns anything by the time that it takes.
        self.all().ok()?.into_iter().find(|token| token.sha256 == hash)
    }

    /// Makes one; it is told this once.
    ///
    /// # Errors
    /// If there is one of that name, or the file cannot be written.
    pub fn create(&self, name: &str, scopes: Vec<String>) -> Result<String, TokenError> {
        let mut tokens = self.all()?;
        if tokens.iter().any(|token| token.name == name) {
            return Err(TokenError::Known(name.to_owned()));
        }
        if tokens.len() >= TOKENS_MAX {
            return Err(TokenError::Full);
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| self.error(std::io::Error::other(error.to_string())))?;
        let text = format!("{PREFIX}{}", hex::encode(secret));
        let created = crate::clock::unix().0;
        tokens.push(Token { name: name.to_owned(), scopes, created, sha256: hash(&text) });
        self.write(&tokens)?;
        Ok(text)
    }

    /// Takes one back.
    ///
    /// # Errors
    /// If there is none of that name, or the file cannot be written.
    pub fn revoke(&self, name: &str) -> Result<(), TokenError> {
        let mut tokens = self.all()?;
        let before = tokens.len();
        tokens.retain(|token| token.name != name);
        if tokens.len() == before {
            return Err(TokenError::Unknown(name.to_owned()));
        }
        self.write(&tokens)
    }

    /// Written aside and renamed: whoever reads it reads all of it.
    fn write(&self, tokens: &[Token]) -> Result<(), TokenError> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let aside = self.path.with_extension("part");
        let write = || {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
            file.write_all(&serde_json::to_vec_pretty(tokens)?)?;
            file.sync_all()?;
            std::fs::rename(&aside, &self.path)
        };
        write().map_err(|error: std::io::Error| self.error(error))
    }
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_until_it_is_revoked_and_may_what_it_may() {
        let dir = tempfile::tempdir().expect("a folder");
        let tokens = Tokens::of(dir.path());
        assert_eq!(tokens.all().expect("none"), []);
        let text = tokens.create("ci", vec!["write:job".into()]).expect("made");
        assert!(tokens.create("ci", Vec::new()).is_err());
        let found = Tokens::of(dir.path()).find(&text).expect("known to others, too");
        assert_eq!((found.name.as_str(), found.may("write:job"), found.may("read:job")), ("ci", true, false));
        assert!(tokens.find("bnt_").is_none());
        let kept = std::fs::read_to_string(dir.path().join("tokens.json")).expect("a file");
        assert!(!kept.contains(&text[4..]), "only hashes are kept");
        tokens.revoke("ci").expect("revoked");
        assert!(tokens.find(&text).is_none() && tokens.revoke("ci").is_err());
    }
}
