//! Listening: every address comes up, or the node does not start.

use std::time::Duration;

use futures::StreamExt as _;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Swarm};

use crate::config::Config;
use crate::network::behaviour::{Behaviour, SetupError};

/// Listens on every address, and waits until each is known.
pub(super) async fn listen(swarm: &mut Swarm<Behaviour>, config: &Config) -> Result<Vec<Multiaddr>, SetupError> {
    let mut waiting = Vec::new();
    for address in &config.listen {
        let id = swarm.listen_on(address.clone()).map_err(|error| cannot_listen(address, &error))?;
        waiting.push(id);
    }
    let mut listening = Vec::new();
    while !waiting.is_empty() {
        match tokio::time::timeout(Duration::from_secs(10), swarm.select_next_some()).await {
            Ok(SwarmEvent::NewListenAddr { listener_id, address }) => {
                waiting.retain(|id| *id != listener_id);
                listening.push(address);
            }
            Ok(SwarmEvent::ListenerClosed { reason, .. }) => {
                let reason = reason.err().map_or_else(|| "it was closed".to_owned(), |error| error.to_string());
                return Err(SetupError(format!("cannot listen: {reason}")));
            }
            Ok(_) => {}
            Err(_) => return Err(SetupError("cannot listen: no address came up within 10 s".into())),
        }
    }
    // Addresses that were asked for by name are as good as confirmed.
    for address in &listening {
        if config.listen.iter().any(|wanted| !is_unspecified(wanted)) {
            swarm.add_external_address(address.clone());
        }
    }
    Ok(listening)
}

fn cannot_listen(address: &Multiaddr, error: &libp2p::TransportError<std::io::Error>) -> SetupError {
    let text = match error {
        libp2p::TransportError::Other(error) => deepest(error),
        libp2p::TransportError::MultiaddrNotSupported(_) => "this kind of address is not offered".to_owned(),
    };
    SetupError(format!("cannot listen on {address}: {text}"))
}

pub(super) fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn is_unspecified(address: &Multiaddr) -> bool {
    address.iter().any(|protocol| match protocol {
        Protocol::Ip4(ip) => ip.is_unspecified(),
        Protocol::Ip6(ip) => ip.is_unspecified(),
        _ => false,
    })
}
