//! Which addresses may be spoken to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bacnode_protocol::compute::Web;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Whether a host, with or without a port, is one that may be spoken to.
pub(in crate::engine) async fn check_server(host: &str, web: Web) -> Result<(), String> {
    if web == Web::Any {
        return Ok(());
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let all: Vec<SocketAddr> =
        tokio::net::lookup_host((name, 0)).await.map_err(|_| format!("{name} is not known"))?.collect();
    if !all.is_empty() && all.iter().all(|address| is_public(address.ip())) { Ok(()) } else { Err(not_public(name)) }
}

/// Those of a host's addresses that may be spoken to; at least one.
pub(in crate::engine) async fn addresses_of(host: &str, port: u16, web: Web) -> Result<Vec<SocketAddr>, String> {
    let all = tokio::net::lookup_host((host, port)).await.map_err(|_| format!("{host} is not known"))?;
    let some: Vec<SocketAddr> = all.filter(|address| web == Web::Any || is_public(address.ip())).collect();
    if some.is_empty() { Err(not_public(host)) } else { Ok(some) }
}

/// Whether an address named in a URL may be spoken to; names are judged when they are resolved.
pub(super) fn check_host(url: &Url, web: Web) -> Result<(), String> {
    if !["http", "https"].contains(&url.scheme()) {
        return Err(format!("`{}` is not fetched", url.scheme()));
    }
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(ip) if web != Web::Any && !is_public(ip) => Err(not_public(host)),
        _ => Ok(()),
    }
}

fn not_public(host: &str) -> String {
    format!("{host} is not a public address, and this node fetches from no others (rule: web)")
}

/// Resolves names to addresses that may be spoken to.
#[derive(Debug)]
pub(super) struct Resolver(pub(super) Web);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let web = self.0;
        Box::pin(async move {
            let some = addresses_of(name.as_str(), 0, web).await?;
            Ok(Box::new(some.into_iter()) as Addrs)
        })
    }
}

/// Whether an address belongs to the public internet, by the registries of RFC 6890 and their updates.
pub(in crate::engine) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocol = a == 192 && b == 0 && c == 0;
    let benchmark = a == 198 && (18..20).contains(&b);
    let relay = a == 192 && b == 88 && c == 99;
    !(a == 0
        || a >= 224
        || shared
        || protocol
        || benchmark
        || relay
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation())
}

/// Global unicast, and of what wraps a version 4 address only such that is public itself.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let wrapped = |high: u16, low: u16| is_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match ip.segments() {
        // NAT64 (RFC 6052), 6to4 (RFC 3056).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => wrapped(high, low),
        // Teredo and other protocols (RFC 2928), documentation (RFC 3849, RFC 9637).
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_spoken_to() {
        for host in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.0.8",
            "198.18.0.1",
            "203.0.113.9",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001:db8::1",
            "2001::1",
            "::127.0.0.1",
        ] {
            assert!(!is_public(host.parse().expect("an address")), "{host}");
        }
        for host in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1"] {
            assert!(is_public(host.parse().expect("an address")), "{host}");
        }
    }

    #[test]
    fn hosts_that_are_written_oddly_are_the_same_hosts() {
        // The URL's parser turns all of these into 127.0.0.1 or ::1.
        for url in ["http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/", "http://[::1]:80/x"]
        {
            let parsed = Url::parse(url).expect("a URL");
            assert!(check_host(&parsed, Web::Public).is_err(), "{url}");
            assert!(check_host(&parsed, Web::Any).is_ok(), "{url}");
        }
        assert!(check_host(&Url::parse("file:///etc/passwd").expect("a URL"), Web::Any).is_err());
    }
}
