//! The states of jobs and executions as people and clients see them.

use serde::{Deserialize, Serialize};

use crate::wire::codec::{Decode, Encode};

/// How far a job is. The last three never change again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, Serialize, Deserialize)]
pub enum JobState {
    /// Nobody runs it yet.
    Pending,
    /// Some node could run it when free.
    Queued,
    /// At least one slot is being run.
    Running,
    /// Every slot has its accepted result.
    Completed,
    /// It ended without.
    Failed,
    /// Its user stopped it.
    Stopped,
}

impl JobState {
    /// Whether it never changes again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Stopped)
    }

    /// The name that clients compare with.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Queued => "Queued",
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Stopped => "Stopped",
        }
    }
}

/// How far an attempt is, as its owner sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode, Serialize, Deserialize)]
pub enum ExecutionState {
    /// Awarded; the node has not answered.
    Awarded,
    /// The node has the award.
    Accepted,
    /// The program runs.
    Running,
    /// The result is being stored.
    Publishing,
    /// Its result was accepted.
    Completed,
    /// It ended otherwise.
    Failed,
    /// It was called off.
    Cancelled,
    /// The node refused the award.
    Refused,
}

impl ExecutionState {
    /// Whether it never changes again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Refused)
    }

    /// Bacalhau's number for it.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Awarded => 3,
            Self::Accepted => 5,
            Self::Running => 6,
            Self::Publishing => 7,
            Self::Refused => 8,
            Self::Completed => 9,
            Self::Failed => 10,
            Self::Cancelled => 11,
        }
    }

    /// The state with Bacalhau's number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            3 => Self::Awarded,
            5 => Self::Accepted,
            6 => Self::Running,
            7 => Self::Publishing,
            8 => Self::Refused,
            9 => Self::Completed,
            10 => Self::Failed,
            11 => Self::Cancelled,
            _ => return None,
        })
    }

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Awarded => "Awarded",
            Self::Accepted => "Accepted",
            Self::Running => "Running",
            Self::Publishing => "Publishing",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
            Self::Refused => "Refused",
        }
    }
}
