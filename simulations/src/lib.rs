//! bacnode under invented bad luck.
//!
//! The simulator runs the very machines of `bacnode-protocol` in virtual time: [`plan`] draws a trial from a seed,
//! [`trial`] runs it, [`check`] names what must hold. With the feature `swarm`, [`swarm`] runs real nodes over libp2p's
//! memory transport in one process: real Noise, gossip, DHT and streams, no sockets.

pub mod batch;
pub mod check;
pub mod diagram;
pub mod explore;
pub mod figures;
pub mod gossip;
pub mod mutants;
pub mod plan;
pub mod plot;
pub mod scenario;
pub mod shrink;
pub mod stats;
pub mod trace;
pub mod trial;
mod world;

#[cfg(feature = "swarm")]
pub mod swarm;
