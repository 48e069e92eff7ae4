//! The transfer of whole DAGs.
//!
//! The receiver names the roots of the subtrees it lacks; the sender answers with every block below them, depth first,
//! each behind a fixed header, and ends with a header of no block. Flow control is the stream's own window, so a slow
//! reader holds back the sender without any message. Each block is hashed on arrival; after a break the receiver walks
//! what it has and asks for the rest, from the same peer or another one.

use super::bounded::ListMax;
use super::codec::{Decode, Encode};
use super::envelope::Message;
use crate::content::Cid;

/// Subtrees in one request.
pub const WANTS_MAX: usize = 1024;
/// Bytes of one block. UnixFS blocks are at most 1 MiB of data, and a little for the node around it.
pub const BLOCK_BYTES_MAX: usize = (1 << 20) + (64 << 10);

/// Send me these subtrees.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct DagRequest {
    /// Roots of what the caller lacks, in the order in which it wants them.
    pub wants: ListMax<Cid, WANTS_MAX>,
}

impl Message for DagRequest {
    const KIND: u16 = 5;
    const BYTES_MAX: usize = WANTS_MAX * 40 + 64;
}

/// What stands before each block on the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum DagHeader {
    /// A block of so many bytes follows.
    Block {
        /// What it hashes to.
        cid: Cid,
        /// How many bytes follow.
        len: u32,
    },
    /// This one is not held here, or not for you.
    Missing {
        /// The block asked for.
        cid: Cid,
    },
    /// That was all.
    End,
}

/// Bytes of an encoded [`DagHeader`] on the wire: the longest form, padded with zeros.
pub const DAG_HEADER_BYTES: usize = 4 + 36 + 4;
