//! What peers say to each other, byte by byte. `protocol/README.md` is the specification of this module.

pub mod advert;
pub mod bounded;
pub mod call;
pub mod codec;
pub mod constraint;
pub mod dag;
pub mod envelope;
pub mod group;
pub mod live;
pub mod market;
pub mod member;
pub mod s3;
pub mod signed;
pub mod task;
pub mod view;

/// The newest wire version that this code speaks.
pub const VERSION: u16 = 1;
/// The oldest wire version that this code still understands.
pub const VERSION_MIN: u16 = 1;
/// The version since which nodes keep each other's jobs. What they say about that is said to no node before it; all else
/// is as in the version before, and travels as that.
pub const VERSION_GROUPS: u16 = 2;

/// The protocol and topic names of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Gossipsub topic of adverts.
    pub capabilities: String,
    /// Gossipsub topic of open calls.
    pub calls: String,
    /// Gossipsub topic of what a swarm's founder says.
    pub members: String,
    /// Market stream.
    pub market: String,
    /// View exchange stream.
    pub view: String,
    /// DAG transfer stream.
    pub dag: String,
    /// Logs of a running execution, from any node.
    pub live: String,
    /// Kademlia.
    pub kad: String,
    /// Identify.
    pub identify: String,
}

impl Names {
    /// The names of the network called `network`.
    #[must_use]
    pub fn new(network: &str) -> Self {
        let name = |what: &str| format!("/bacnode/{network}/{what}/1");
        Self {
            capabilities: name("capabilities"),
            calls: name("calls"),
            members: name("members"),
            market: name("market"),
            view: name("view"),
            dag: name("dag"),
            live: name("live"),
            kad: name("kad"),
            identify: name("id"),
        }
    }
}
