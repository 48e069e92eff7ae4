//! The part of bacnode that touches the world.
//!
//! [`Node::start`] opens the data folder, joins the network and drives the two machines of `bacnode-protocol`. Each module
//! is one kind of effect:
//!
//! | module | what it touches |
//! |---|---|
//! | [`config`], [`identity`], [`clock`] | settings, keys, time |
//! | [`store`] | one RocksDB, one log thread |
//! | [`content`] | blocks and files, pins, transfer |
//! | [`engine`] | what runs tasks: WebAssembly workers, containers |
//! | [`openness`] | the hour and the load: whether jobs are taken now |
//! | [`network`] | the swarm: gossip, DHT, connections; market, view and DAG streams |
//! | `driver` | the machines: inputs in, records written, outputs performed in order |
//! | [`api`] | HTTP for this node's own user |
//!
//! The swarm task does no domain work; it hands what it hears to bounded queues. Shutdown runs the other way round: the API
//! stops taking requests, a last advert says that the node leaves, runs are stopped, the log is synced.

pub mod api;
pub mod clock;
pub mod config;
pub mod content;
pub mod crash;
mod driver;
pub mod engine;
pub mod identity;
mod metrics;
pub mod network;
mod node;
pub mod openness;
pub mod store;
pub mod tokens;

pub use self::node::{Node, StartError, until_told};
