//! The view exchange: two peers compare what adverts they know and hand each other what the other lacks. It also answers
//! what does not fit an advert.

use super::advert::SignedAdvert;
use super::bounded::{ListMax, TextMax};
use super::codec::{Decode, Encode};
use super::envelope::Message;
use super::task::Resources;
use crate::id::NodeId;
use crate::limits::{ADVERT_BYTES_MAX, VIEW_ITEMS_MAX};
use crate::time::UnixMillis;

/// What the caller wants.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum ViewRequest {
    /// These adverts are known to me, by sequence; give me newer ones and others.
    Exchange {
        /// The caller's clock.
        now: UnixMillis,
        /// All that it knows, or a random part where that is too much.
        known: ListMax<(NodeId, u64), VIEW_ITEMS_MAX>,
    },
    /// The adverts you lacked.
    Push {
        /// As their authors signed them.
        adverts: ListMax<SignedAdvert, VIEW_ITEMS_MAX>,
    },
    /// What does not fit your advert?
    Detail,
}

impl Message for ViewRequest {
    const KIND: u16 = 3;
    const BYTES_MAX: usize = VIEW_ITEMS_MAX * (ADVERT_BYTES_MAX + 128);
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum ViewReply {
    /// To an exchange.
    Exchange {
        /// The answerer's clock.
        now: UnixMillis,
        /// What the caller lacked.
        adverts: ListMax<SignedAdvert, VIEW_ITEMS_MAX>,
        /// What the answerer lacks; the caller pushes it.
        wanted: ListMax<NodeId, VIEW_ITEMS_MAX>,
    },
    /// To a push.
    Done,
    /// To a question for detail.
    Detail(NodeDetail),
}

impl Message for ViewReply {
    const KIND: u16 = 4;
    const BYTES_MAX: usize = VIEW_ITEMS_MAX * (ADVERT_BYTES_MAX + 128 + 32);
}

/// What a node says of itself when asked.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct NodeDetail {
    /// The operator's labels and those found by the node.
    pub labels: ListMax<(TextMax<64>, TextMax<256>), 64>,
    /// What is free now.
    pub available: Resources,
    /// Executions running.
    pub running: u32,
    /// Executions that wait.
    pub queued: u32,
}
