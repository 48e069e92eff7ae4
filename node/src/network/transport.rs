//! TCP with DNS, Noise and Yamux, behind the swarm's key where there is one; QUIC where there is none; and circuits through
//! relays.

use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, MemoryTransport, OrTransport};
use libp2p::core::upgrade::Version;
use libp2p::futures::{AsyncRead, AsyncWrite};
use libp2p::identity::Keypair;
use libp2p::metrics::{BandwidthTransport, Registry};
use libp2p::multiaddr::Protocol;
use libp2p::pnet::{PnetConfig, PreSharedKey};
use libp2p::{Multiaddr, PeerId, Transport, dns, noise, quic, relay, tcp, yamux};

use super::behaviour::SetupError;
use super::members::{Admission, Members};
use crate::config::Config;

/// From the first byte to a multiplexed connection: also what ends a peer that says nothing.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams of one connection.
const STREAMS_MAX: usize = 256;

/// A connection to a peer whose identity is proven.
type Connection = (PeerId, StreamMuxerBox);

/// The transport of these settings, whose bytes are counted, and what makes circuits through relays; none in memory.
///
/// # Errors
/// If an address needs one that this node does not have, or would go around the swarm's key.
pub(super) fn build(
    config: &Config,
    keypair: &Keypair,
    members: Option<Members>,
    counted: &mut Registry,
) -> Result<(Boxed<Connection>, Option<relay::client::Behaviour>), SetupError> {
    let forced = std::env::var("LIBP2P_FORCE_PNET").is_ok_and(|value| value == "1");
    if forced && config.swarm_key.is_none() {
        return Err(SetupError("LIBP2P_FORCE_PNET=1 is set, but there is no swarm key".into()));
    }
    if config.founded.is_some() && config.swarm_key.is_none() {
        return Err(SetupError(
            "a swarm with a founder needs a swarm key: QUIC would go around its certificates".into(),
        ));
    }
    let noise = noise::Config::new(keypair).map_err(|error| SetupError(error.to_string()))?;
    let admission = Admission { noise, members };
    for address in config.listen.iter().chain(&config.bootstrap) {
        check(address, config.swarm_key.is_some())?;
    }
    let failed = |error: std::io::Error| SetupError(format!("cannot read the DNS settings: {error}"));
    let memory = config.listen.iter().any(|address| matches!(address.iter().next(), Some(Protocol::Memory(_))));
    if memory {
        return Ok((count(guard(MemoryTransport::new(), config.swarm_key, admission), counted), None));
    }
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true));
    let tcp = guard(tcp, config.swarm_key, admission.clone());
    let direct = if config.swarm_key.is_some() {
        dns::tokio::Transport::system(tcp).map_err(failed)?.boxed()
    } else {
        let quic = quic::tokio::Transport::new(quic::Config::new(keypair));
        let quic = quic.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
        let either = OrTransport::new(tcp, quic).map(|connection, _| connection.into_inner());
        dns::tokio::Transport::system(either).map_err(failed)?.boxed()
    };
    // Both ends of a circuit hold the key, if there is one: the relay has no others.
    let (circuits, behaviour) = relay::client::new(keypair.public().to_peer_id());
    let all = OrTransport::new(secure(circuits, admission), direct).map(|connection, _| connection.into_inner());
    Ok((count(all.boxed(), counted), Some(behaviour)))
}

fn count(transport: Boxed<Connection>, counted: &mut Registry) -> Boxed<Connection> {
    let counted = BandwidthTransport::new(transport, counted);
    counted.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed()
}

/// Fails closed: with a key there is TCP (or memory) and nothing else, because the key cannot guard anything else.
fn check(address: &Multiaddr, keyed: bool) -> Result<(), SetupError> {
    for protocol in address {
        let other = match protocol {
            Protocol::Quic | Protocol::QuicV1 | Protocol::Udp(_) => "QUIC",
            Protocol::Ws(_) | Protocol::Wss(_) => "WebSocket",
            _ => continue,
        };
        if keyed {
            return Err(SetupError(format!("{address}: a swarm key guards TCP only, {other} would go around it")));
        }
        if other == "WebSocket" {
            return Err(SetupError(format!("{address}: WebSocket is not offered; use /tcp/ or /quic-v1")));
        }
    }
    Ok(())
}

fn guard<T>(transport: T, key: Option<PreSharedKey>, admission: Admission) -> Boxed<Connection>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    match key {
        Some(key) => {
            let keyed = transport.and_then(move |socket, _| PnetConfig::new(key).handshake(socket));
            secure(keyed, admission)
        }
        None => secure(transport, admission),
    }
}

fn secure<T>(transport: T, admission: Admission) -> Boxed<Connection>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    let mut muxer = yamux::Config::default();
    muxer.set_max_num_streams(STREAMS_MAX);
    let secured = transport.upgrade(Version::V1Lazy).authenticate(admission).multiplex(muxer).timeout(UPGRADE_TIMEOUT);
    secured.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed()
}
