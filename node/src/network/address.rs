//! What a multiaddr says of the place that it names.

use std::net::IpAddr;

use libp2p::Multiaddr;
use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol;

/// The IP address in it; names have none.
pub(super) fn ip_of(address: &Multiaddr) -> Option<std::net::IpAddr> {
    address.iter().find_map(|protocol| match protocol {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}

/// Where the other end is, without its id; through which relay, if it came through one.
pub(super) fn remote_address(endpoint: &ConnectedPoint) -> Multiaddr {
    let through = match endpoint {
        ConnectedPoint::Listener { local_addr, .. } if endpoint.is_relayed() => local_addr,
        other => other.get_remote_address(),
    };
    without_own_id(through)
}

/// Whether an address goes through a relay.
pub(super) fn is_circuit(address: &Multiaddr) -> bool {
    address.iter().any(|protocol| protocol == Protocol::P2pCircuit)
}

/// Whether an address means something to its own network only. One that goes through a relay is as good as that relay's.
pub(super) fn is_private(address: &Multiaddr) -> bool {
    match ip_of(address) {
        Some(IpAddr::V4(ip)) => {
            let carrier = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || carrier
        }
        Some(IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local()
        }
        // Of names one cannot tell; those of the local network are not for others. Memory is one process's.
        None => match address.iter().next() {
            Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) | Protocol::Dnsaddr(name)) => {
                name == "localhost" || name.ends_with(".local")
            }
            _ => true,
        },
    }
}

/// Whether two addresses are of one network of public addresses: a /24 of IPv4, a /48 of IPv6.
pub(super) fn are_near(left: &Multiaddr, right: &Multiaddr) -> bool {
    match (ip_of(left), ip_of(right)) {
        (Some(IpAddr::V4(left)), Some(IpAddr::V4(right))) => left.octets()[..3] == right.octets()[..3],
        (Some(IpAddr::V6(left)), Some(IpAddr::V6(right))) => left.octets()[..6] == right.octets()[..6],
        _ => false,
    }
}

/// The local network of an address.
pub(super) fn subnet(address: &Multiaddr) -> Option<Vec<u8>> {
    Some(match ip_of(address)? {
        IpAddr::V4(ip) => ip.octets()[..3].to_vec(),
        IpAddr::V6(ip) => ip.octets()[..8].to_vec(),
    })
}

/// `…/p2p/ME` says again whose address it is, and adverts are small. `…/p2p/RELAY/p2p-circuit` says through whom.
pub(super) fn without_own_id(address: &Multiaddr) -> Multiaddr {
    let mut shorter = address.clone();
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        shorter.pop();
    }
    shorter
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("a multiaddr")
    }

    #[test]
    fn what_is_private_is_not_for_the_internet() {
        for text in [
            "/ip4/10.1.2.3/tcp/1",
            "/ip4/192.168.1.1/udp/1/quic-v1",
            "/ip4/172.16.0.1/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/169.254.1.1/tcp/1",
            "/ip4/100.64.0.1/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip6/fd00::1/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/dns4/printer.local/tcp/1",
            "/memory/7",
        ] {
            assert!(is_private(&address(text)), "{text}");
        }
        for text in
            ["/ip4/203.0.113.7/tcp/1", "/ip4/100.128.0.1/tcp/1", "/ip6/2001:db8::1/tcp/1", "/dns4/a.example.org/tcp/1"]
        {
            assert!(!is_private(&address(text)), "{text}");
        }
    }

    #[test]
    fn addresses_name_their_relay_and_not_this_node() {
        let relay = "/ip4/203.0.113.7/tcp/1/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X/p2p-circuit";
        let own = "12D3KooWHtZw2tuc8Mh6xKrcY8wohfLkieH1Jy1UqMQaDGwpieWh";
        assert_eq!(without_own_id(&address(&format!("{relay}/p2p/{own}"))), address(relay));
        assert!(is_circuit(&address(relay)) && !is_private(&address(relay)));
        assert_eq!(without_own_id(&address(relay)), address(relay));
        for direct in ["/ip4/203.0.113.7/tcp/1".to_owned(), format!("/ip4/203.0.113.7/tcp/1/p2p/{own}")] {
            assert_eq!(without_own_id(&address(&direct)), address("/ip4/203.0.113.7/tcp/1"));
        }
    }
}
