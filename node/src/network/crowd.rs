//! Connections from one place: one machine, or one network of machines, must not take all the room that there is; and where
//! memory is short nobody is let in.
//!
//! Only who calls here is counted, from the first packet on; whom this node calls it has chosen itself. Addresses that are
//! not public may be a whole household's, or a test's, and are left to the limit of all connections.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, ListenFailure, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::address::{ip_of, is_private};

/// Too many connections from one place.
#[derive(Debug, thiserror::Error)]
#[error("there are {0} connections from that {1} already")]
struct Crowded(u32, &'static str);

/// Too little memory.
#[derive(Debug, thiserror::Error)]
#[error("this process has all the memory that it may have")]
struct Full;

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// A machine: an IPv4 address, or what one IPv6 customer has.
    Machine([u8; 8]),
    /// A /24 of IPv4, a /48 of IPv6.
    Subnet([u8; 6]),
}

impl Place {
    fn of(ip: IpAddr) -> [Self; 2] {
        let octets = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        let part = |from: usize, len: usize| -> [u8; 8] {
            let mut part = [0; 8];
            part[..len].copy_from_slice(&octets[from..from + len]);
            part
        };
        let first6 = |bytes: [u8; 8]| [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]];
        match ip {
            // Of `::ffff:a.b.c.d` the last octets tell.
            IpAddr::V4(_) => [Self::Machine(part(8, 8)), Self::Subnet(first6(part(9, 6)))],
            IpAddr::V6(_) => [Self::Machine(part(0, 8)), Self::Subnet(first6(part(0, 6)))],
        }
    }
}

/// Counts who calls, by where it is.
#[derive(Debug)]
pub(super) struct Behaviour {
    per_machine: u32,
    per_subnet: u32,
    from: HashMap<ConnectionId, IpAddr>,
    counts: HashMap<Place, u32>,
    /// Whether nobody is let in now, wherever it is.
    pub(super) full: bool,
}

impl Behaviour {
    pub(super) fn new(per_machine: u32, per_subnet: u32) -> Self {
        Self { per_machine, per_subnet, from: HashMap::new(), counts: HashMap::new(), full: false }
    }

    fn enter(&mut self, connection: ConnectionId, ip: IpAddr) -> Result<(), Crowded> {
        let places = Place::of(ip);
        for (place, max, what) in [(places[0], self.per_machine, "address"), (places[1], self.per_subnet, "network")] {
            let count = self.counts.get(&place).copied().unwrap_or(0);
            if count >= max {
                return Err(Crowded(count, what));
            }
        }
        for place in places {
            *self.counts.entry(place).or_default() += 1;
        }
        self.from.insert(connection, ip);
        Ok(())
    }

    fn leave(&mut self, connection: ConnectionId) {
        let Some(ip) = self.from.remove(&connection) else { return };
        for place in Place::of(ip) {
            if let Some(count) = self.counts.get_mut(&place) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&place);
                }
            }
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if self.full {
            return Err(ConnectionDenied::new(Full));
        }
        let Some(ip) = ip_of(remote).filter(|_| !is_private(remote)) else { return Ok(()) };
        self.enter(connection, ip).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => self.leave(connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_and_a_network_take_so_many_places_and_give_them_back() {
        let mut crowd = Behaviour::new(2, 3);
        let connection = ConnectionId::new_unchecked;
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(crowd.enter(connection(1), ip("203.0.113.7")).is_ok());
        assert!(crowd.enter(connection(2), ip("203.0.113.7")).is_ok());
        let refused = crowd.enter(connection(3), ip("203.0.113.7")).expect_err("the third of one machine");
        assert_eq!(refused.to_string(), "there are 2 connections from that address already");
        assert!(crowd.enter(connection(4), ip("203.0.113.8")).is_ok());
        let refused = crowd.enter(connection(5), ip("203.0.113.9")).expect_err("the fourth of one network");
        assert_eq!(refused.to_string(), "there are 3 connections from that network already");
        assert!(crowd.enter(connection(6), ip("203.0.114.9")).is_ok(), "another network");
        crowd.leave(connection(1));
        crowd.leave(connection(3));
        assert!(crowd.enter(connection(7), ip("203.0.113.9")).is_ok());
        // One customer of IPv6 has all the addresses of a /64.
        for (number, text) in [(10, "2001:db8:0:1::1"), (11, "2001:db8:0:1::2")] {
            assert!(crowd.enter(connection(number), ip(text)).is_ok());
        }
        assert!(crowd.enter(connection(12), ip("2001:db8:0:1::3")).is_err());
        assert!(crowd.enter(connection(13), ip("2001:db8:0:2::3")).is_ok());
        for number in 0..20 {
            crowd.leave(connection(number));
        }
        assert!(crowd.counts.is_empty() && crowd.from.is_empty());
    }
}
