//! Network files: a name and the addresses through which one joins.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The files that come with the program, by name.
const SHIPPED: [(&str, &str); 1] = [("demo", include_str!("../networks/demo.toml"))];

/// What one needs to know to join a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetworkFile {
    /// The network's name; part of every protocol name and of all that is signed.
    pub name: String,
    /// Bootstrap peers, as multiaddrs.
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// A network file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetworkFileError {
    /// The file itself.
    #[error("cannot read the network file {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is in it.
    #[error("the network file {origin} is not valid: {reason}")]
    Malformed {
        /// Which.
        origin: String,
        /// Why.
        reason: String,
    },
    /// A name that cannot be part of a protocol's.
    #[error("`{0}` is not a network's name: use letters, digits and dashes, at most 32")]
    Name(String),
}

impl NetworkFile {
    /// The file that `network` names: one that came with the program, or a path. `None` for a plain name.
    ///
    /// # Errors
    /// If the file cannot be read, or the name is none.
    pub fn find(network: &str) -> Result<Option<Self>, NetworkFileError> {
        if network.contains('/') || network.ends_with(".toml") {
            let path = Path::new(network);
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|source| NetworkFileError::Io { path: path.to_owned(), source })?;
            return Self::parse(&text, network).map(Some);
        }
        check_name(network)?;
        let shipped = SHIPPED.iter().find(|(name, _)| *name == network);
        shipped.map(|(name, text)| Self::parse(text, name)).transpose()
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// If it is not a network file.
    pub fn parse(text: &str, origin: &str) -> Result<Self, NetworkFileError> {
        let malformed = |error: toml::de::Error| NetworkFileError::Malformed {
            origin: origin.to_owned(),
            reason: error.message().to_owned(),
        };
        let file: Self = toml::from_str(text).map_err(malformed)?;
        check_name(&file.name)?;
        Ok(file)
    }
}

fn check_name(name: &str) -> Result<(), NetworkFileError> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if plain && !name.is_empty() && name.len() <= 32 { Ok(()) } else { Err(NetworkFileError::Name(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_file_is_valid_and_bears_its_name() {
        for (name, _) in SHIPPED {
            assert_eq!(NetworkFile::find(name).expect("valid").expect("shipped").name, name);
        }
    }

    #[test]
    fn names_and_files() {
        assert_eq!(NetworkFile::find("my-lab").expect("a name"), None);
        assert!(matches!(NetworkFile::find("a b"), Err(NetworkFileError::Name(_))));
        assert!(matches!(NetworkFile::find("./nowhere.toml"), Err(NetworkFileError::Io { .. })));
        let error = NetworkFile::parse("name = \"x\"\nadresses = []", "x.toml").expect_err("a wrong field");
        assert!(error.to_string().contains("adresses"), "{error}");
    }
}
