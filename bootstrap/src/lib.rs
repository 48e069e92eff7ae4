//! How one joins a network: network files, and (feature `peer`) the bootstrap peer itself, `bacnode-bootstrap`.

pub mod network;
