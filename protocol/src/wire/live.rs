//! The output of a running execution, for its owner; and what whoever leads a job tells of it, and of its output, to those
//! who know its id.
//!
//! The answer comes in pieces, each behind five bytes: which stream (1 stdout, 2 stderr, 3 the story of a job as JSON, 0 the
//! end) and how many bytes follow (little endian).

use super::codec::{Decode, Encode};
use super::envelope::Message;
use crate::id::{ExecutionId, JobId};

/// Let me read this. Append only.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum LiveRequest {
    /// What an execution prints.
    Logs {
        /// Which.
        execution: ExecutionId,
        /// Until it ends, or only what there is now.
        follow: bool,
    },
    /// How a job is that the node asked decides on.
    Job(JobId),
    /// What an attempt of such a job prints, or printed: as much of it as that node has.
    JobLogs {
        /// Which job.
        job: JobId,
        /// Which attempt.
        execution: ExecutionId,
        /// Until it ends, or only what there is now.
        follow: bool,
    },
}

impl Message for LiveRequest {
    const KIND: u16 = 6;
    const BYTES_MAX: usize = 64;
}

/// The stream of a job's story.
pub const STORY: u8 = 3;
/// Bytes of a story, at most: a thousand attempts and a thousand events.
pub const STORY_BYTES_MAX: usize = 8 << 20;
/// Bytes of one piece, at most.
pub const PIECE_BYTES_MAX: usize = 64 << 10;
