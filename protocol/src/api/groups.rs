//! Groups that keep jobs, as the daemon tells its own user of them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Three nodes that keep an owner's jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct JobGroup {
    /// At whose node the jobs were submitted.
    #[serde(rename = "OwnerID")]
    pub owner_id: String,
    /// Its name.
    pub owner: String,
    /// Who decides on them.
    #[serde(rename = "LeaderID")]
    pub leader_id: String,
    /// Its name.
    pub leader: String,
    /// The names of all members.
    pub members: Vec<String>,
    /// Their PeerIDs.
    #[serde(rename = "MemberIDs")]
    pub member_ids: Vec<String>,
    /// What this node is in it: `leader`, `follower`, `candidate` or `outsider`.
    pub role: String,
    /// Rises with each leader.
    pub epoch: u64,
    /// Jobs that have not ended.
    pub open_jobs: u64,
    /// Whether this node leads it, and another member follows.
    pub works: bool,
}

/// A user's word on a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Adoption {
    /// Lead its jobs even though no other member says so: they are gone for good.
    pub force: bool,
}
