//! bacnode under invented bad luck.
//!
//! With the feature `swarm`, [`swarm`] runs real nodes over libp2p's memory transport in one process: real Noise, gossip,
//! DHT and streams, no sockets. The simulator in virtual time comes beside it.

#[cfg(feature = "swarm")]
pub mod swarm;
