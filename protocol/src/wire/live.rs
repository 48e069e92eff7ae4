//! The output of a running execution, for its owner.
//!
//! The owner names the execution; the holder answers with pieces, each behind five bytes: which stream (1 stdout, 2 stderr,
//! 0 the end) and how many bytes follow (little endian).

use super::codec::{Decode, Encode};
use super::envelope::Message;
use crate::id::ExecutionId;

/// Let me read what this prints.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct LiveRequest {
    /// Which.
    pub execution: ExecutionId,
    /// Until it ends, or only what there is now.
    pub follow: bool,
}

impl Message for LiveRequest {
    const KIND: u16 = 6;
    const BYTES_MAX: usize = 64;
}

/// Bytes of one piece, at most.
pub const PIECE_BYTES_MAX: usize = 64 << 10;
