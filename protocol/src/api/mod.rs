//! What the daemon says to its own user, in the shapes of Bacalhau's API: field names in PascalCase, times in nanoseconds,
//! execution states as numbers. Plain data, shared by the daemon and the command line.

mod groups;
mod history;
mod jobs;
mod nodes;

pub use self::groups::*;
pub use self::history::*;
pub use self::jobs::*;
pub use self::nodes::*;
