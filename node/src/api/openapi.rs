//! What `/openapi.json` says of this API. Each handler describes itself, and the router is made of the same descriptions, so
//! that there is no path without one and no description without a path.

use bacnode_protocol::api::ErrorBody;
use serde::Deserialize;
use utoipa::openapi::{ContactBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa::{IntoResponses, ToSchema};

/// The document without its paths.
pub(super) fn about() -> OpenApi {
    let info = InfoBuilder::new()
        .title("bacnode")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("A peer of a compute network: jobs in the shapes of Bacalhau's API, and what is its own."))
        .contact(Some(ContactBuilder::new().name(Some("bacnode")).build()))
        .license(Some(LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).build()));
    OpenApiBuilder::new().info(info.build()).build()
}

/// How requests fail.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes what others make")]
pub(super) enum Errors {
    /// What was asked for cannot be, or is not there.
    #[response(status = "4XX")]
    Asked(#[to_schema] ErrorBody),
    /// The node cannot do it.
    #[response(status = "5XX")]
    Failed(#[to_schema] ErrorBody),
}

/// By when jobs and attempts are listed.
#[derive(ToSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum JobOrder {
    CreatedAt,
    CreateTime,
    ModifiedAt,
    ModifyTime,
}

/// What a story is of.
#[derive(ToSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EventType {
    All,
    Job,
    Execution,
}

/// By what nodes are listed.
#[derive(ToSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NodeOrder {
    Name,
    Id,
    Type,
    AvailableCpu,
    AvailableMemory,
    AvailableDisk,
    AvailableGpu,
    Approval,
    Status,
}

/// Which nodes, by their connection.
#[derive(ToSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ConnectionFilter {
    Connected,
    Disconnected,
}

/// Which nodes, by their membership.
#[derive(ToSchema, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ApprovalFilter {
    Approved,
    Pending,
    Rejected,
    Unknown,
}

/// Why a job is stopped.
#[derive(ToSchema, Deserialize)]
#[expect(dead_code, reason = "it describes a body that is read as it comes")]
pub(super) struct StopRequest {
    /// For its story.
    reason: Option<String>,
}

/// The answer to a stop.
#[derive(ToSchema, serde::Serialize)]
pub(super) struct Stopped {
    /// The job; there are no evaluations here.
    #[serde(rename = "EvaluationID")]
    pub(super) evaluation_id: String,
}
