//! Network files: a name and the addresses through which one joins.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use bacnode_protocol::id::NetworkId;
use multiaddr::{Multiaddr, Protocol};
use serde::{Deserialize, Serialize};

/// The files that come with the program, by name.
const SHIPPED: [(&str, &str); 1] = [("demo", include_str!("../networks/demo.toml"))];

/// What one needs to know to join a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetworkFile {
    /// The network's name; part of every protocol name and of all that is signed.
    pub name: String,
    /// Its id, made of the name and the key: hex. A file that was changed by hand, or is another network's, is noticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The fingerprint of the swarm key that it takes: hex. The key itself goes by another way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The PeerId of whoever lets members in, if the key is not enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founder: Option<String>,
    /// Whether strangers hand in jobs: then nodes run modules only, reach out nowhere and give a quarter of their machine,
    /// until their operators say otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub public: bool,
    /// Bootstrap peers, as multiaddrs or `HOST:PORT`; one of them must answer.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// What nodes keep to that are not told otherwise.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

/// What the nodes of a network keep to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Connections of a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Runs that one peer may have waiting at a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_per_peer: Option<usize>,
}

impl Limits {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
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
    /// What is in it, and where.
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
    /// What it says of itself is not so.
    #[error("the network file is of another network: {0}")]
    Other(String),
}

impl NetworkFile {
    /// The file of a network with this name and, if it is private, a key with this fingerprint.
    ///
    /// # Errors
    /// If the name is none.
    pub fn new(name: &str, fingerprint: Option<[u8; 16]>, addresses: Vec<String>) -> Result<Self, NetworkFileError> {
        check_name(name)?;
        let id = Some(hex::encode(NetworkId::new(name, fingerprint).0));
        Ok(Self { name: name.to_owned(), id, fingerprint: fingerprint.map(hex::encode), addresses, ..Self::default() })
    }

    /// Whether a node with this key, or none, can be of this network.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn check(&self, fingerprint: Option<[u8; 16]>) -> Result<(), NetworkFileError> {
        let other = |what: &str| Err(NetworkFileError::Other(what.to_owned()));
        match (&self.fingerprint, fingerprint.map(hex::encode)) {
            (Some(wanted), Some(given)) if *wanted != given => {
                return other(&format!("it takes the swarm key with the fingerprint {wanted}, this one has {given}"));
            }
            (Some(wanted), None) => {
                return other(&format!("it takes the swarm key with the fingerprint {wanted}, and none is named"));
            }
            _ => {}
        }
        let id = hex::encode(NetworkId::new(&self.name, fingerprint).0);
        match &self.id {
            Some(wanted) if *wanted != id => other("its id is not made of its name and this key"),
            _ => Ok(()),
        }
    }

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
        let malformed = |error: toml::de::Error| {
            // People count from one.
            let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let place = line.map_or_else(String::new, |line| format!("line {line}: "));
            NetworkFileError::Malformed { origin: origin.to_owned(), reason: format!("{place}{}", error.message()) }
        };
        let file: Self = toml::from_str(text).map_err(malformed)?;
        check_name(&file.name)?;
        Ok(file)
    }
}

/// A multiaddr at which something can be reached.
///
/// # Errors
/// What is wrong with it and where, in words.
pub fn multiaddr(text: &str) -> Result<Multiaddr, String> {
    let address: Multiaddr = text.parse().map_err(|error| {
        // What is left of it once no longer beginning is an address.
        let ends = text.match_indices('/').map(|(at, _)| at).chain([text.len()]);
        let good = ends.filter(|end| *end > 0 && text[..*end].parse::<Multiaddr>().is_ok()).max().unwrap_or(0);
        format!("not a multiaddr from position {} on, `{}`: {error}", good + 1, &text[good..])
    })?;
    let ends = |part: Protocol<'_>| {
        matches!(
            part,
            Protocol::Tcp(_) | Protocol::Udp(_) | Protocol::Memory(_) | Protocol::Dnsaddr(_) | Protocol::P2pCircuit
        )
    };
    if address.iter().any(ends) { Ok(address) } else { Err("it names no port: add /tcp/1235".into()) }
}

/// Where a peer is: a multiaddr, or `HOST:PORT` for TCP at a name or an IP address.
///
/// # Errors
/// What is wrong with it, in words.
pub fn address(text: &str) -> Result<Multiaddr, String> {
    if text.starts_with('/') {
        return multiaddr(text);
    }
    let (host, port) = text.rsplit_once(':').ok_or("neither a multiaddr nor HOST:PORT")?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("`{port}` is not a port"))?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let plain = |host: &str| {
        host.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
    };
    let host = match bare.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => Protocol::Ip4(ip),
        Ok(IpAddr::V6(ip)) => Protocol::Ip6(ip),
        Err(_) if plain(host) && host.len() <= 253 => Protocol::Dns(host.into()),
        Err(_) => return Err(format!("`{host}` is not the name of a host")),
    };
    Ok(Multiaddr::empty().with(host).with(Protocol::Tcp(port)))
}

pub(crate) fn check_name(name: &str) -> Result<(), NetworkFileError> {
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
    fn addresses_as_people_write_them() {
        for (text, expected) in [
            ("203.0.113.7:1235", "/ip4/203.0.113.7/tcp/1235"),
            ("[2001:db8::1]:1235", "/ip6/2001:db8::1/tcp/1235"),
            ("peer.example.org:1235", "/dns/peer.example.org/tcp/1235"),
            ("/dnsaddr/example.org", "/dnsaddr/example.org"),
        ] {
            assert_eq!(address(text).expect(text).to_string(), expected);
        }
        for (text, cause) in [
            ("/ip4/203.0.113.7/tpc/1235", "not a multiaddr from position 17 on, `/tpc/1235`"),
            ("/ip4/203.0.113/tcp/1235", "not a multiaddr from position 1 on"),
            ("/ip4/203.0.113.7", "it names no port"),
            ("peer.example.org", "neither a multiaddr nor HOST:PORT"),
            ("peer.example.org:http", "`http` is not a port"),
            ("peer.example.org:0", "`0` is not a port"),
            ("peer example:1", "`peer example` is not the name of a host"),
            ("http://peer:1", "`http://peer` is not the name of a host"),
        ] {
            let said = address(text).expect_err(text);
            assert!(said.contains(cause), "{text}: {said}");
        }
    }

    #[test]
    fn names_and_files() {
        assert_eq!(NetworkFile::find("my-lab").expect("a name"), None);
        assert!(matches!(NetworkFile::find("a b"), Err(NetworkFileError::Name(_))));
        assert!(matches!(NetworkFile::find("./nowhere.toml"), Err(NetworkFileError::Io { .. })));
        let error = NetworkFile::parse("name = \"x\"\nadresses = []", "x.toml").expect_err("a wrong field");
        assert!(error.to_string().contains("line 2: ") && error.to_string().contains("adresses"), "{error}");
    }

    #[test]
    fn a_file_is_of_one_network() {
        let open = NetworkFile::new("lab", None, vec!["peer.example.org:1235".into()]).expect("a file");
        let private = NetworkFile::new("lab", Some([7; 16]), Vec::new()).expect("a file");
        for file in [&open, &private] {
            let text = toml::to_string(file).expect("text");
            assert_eq!(NetworkFile::parse(&text, "lab.toml").expect("the same"), *file);
        }
        assert!(open.check(None).is_ok() && private.check(Some([7; 16])).is_ok());
        let cause = |file: &NetworkFile, key| file.check(key).expect_err("another network").to_string();
        assert!(cause(&private, None).contains("and none is named"));
        assert!(cause(&private, Some([8; 16])).contains("this one has 08080808"));
        assert!(cause(&open, Some([7; 16])).contains("its id is not made of its name and this key"));
        let renamed = NetworkFile { name: "other".into(), ..open };
        assert!(cause(&renamed, None).contains("its id"));
    }
}
