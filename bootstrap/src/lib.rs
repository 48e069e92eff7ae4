//! How one joins a network: network files and invites, and (feature `peer`) the bootstrap peer itself, `bacnode-bootstrap`.

pub mod invite;
pub mod network;
