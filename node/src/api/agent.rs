//! This node itself, as Bacalhau's clients ask for it.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bacnode_protocol::api::{ErrorBody, NodeInfo, Version};
use serde_json::{Value, json};

use super::error::ApiError;
use super::nodes::{add_detail, known};
use super::openapi::Errors;
use super::{Api, go_arch};

#[utoipa::path(
    get,
    path = "/alive",
    tag = "agent",
    operation_id = "alive",
    responses((status = 200, body = Value), Errors)
)]
pub(super) async fn alive() -> Json<Value> {
    Json(json!({ "Status": "OK" }))
}

#[utoipa::path(
    get,
    path = "/version",
    tag = "agent",
    operation_id = "version",
    responses((status = 200, body = Version), Errors)
)]
pub(super) async fn agent_version() -> Json<Version> {
    Json(version(env!("CARGO_PKG_VERSION")))
}

pub(super) fn version(text: &str) -> Version {
    let mut parts = text.split('.');
    Version {
        major: parts.next().unwrap_or_default().into(),
        minor: parts.next().unwrap_or_default().into(),
        git_version: format!("v{text}"),
        os: std::env::consts::OS.into(),
        arch: go_arch().into(),
        ..Version::default()
    }
}

#[utoipa::path(
    get,
    path = "/node",
    tag = "agent",
    operation_id = "thisNode",
    responses((status = 200, body = NodeInfo), Errors)
)]
pub(super) async fn node(State(api): State<Api>) -> Result<Json<NodeInfo>, ApiError> {
    let mut state = known(&api, &api.network.me).ok_or_else(|| ApiError::unavailable("the node is starting"))?;
    add_detail(&mut state, &api.network.detail());
    Ok(Json(state.info))
}

/// How its parts are.
#[utoipa::path(
    get,
    path = "/debug",
    tag = "agent",
    operation_id = "debug",
    responses((status = 200, body = Value), Errors)
)]
pub(super) async fn debug(State(api): State<Api>) -> Json<Value> {
    let detail = api.network.detail();
    Json(json!({
        "Network": { "Known": api.network.known_count(), "Connected": api.network.peers().await.len(), "Warnings": api.network.warnings() },
        "Compute": { "Running": detail.running, "Waiting": detail.queued },
        "Store": format!("{:?}", api.store.log()),
    }))
}

/// Its settings; secrets are not among them.
#[utoipa::path(
    get,
    path = "/config",
    tag = "agent",
    operation_id = "config",
    responses((status = 200, body = Value), Errors)
)]
pub(super) async fn config(State(api): State<Api>) -> Json<Value> {
    let config = &api.config;
    let labels: serde_json::Map<String, Value> =
        config.labels.iter().map(|(key, value)| (key.clone(), Value::String(value.clone()))).collect();
    Json(json!({ "config": {
        "Name": config.name,
        "Network": config.network,
        "Private": config.swarm_key.is_some(),
        "Labels": labels,
        "Compute": config.compute,
        "Total": bacnode_protocol::api::Capacity::from(config.total),
        "DataDir": config.data_dir,
        "MaxQueue": config.queue_max,
        "MaxPerPeer": config.per_peer_max,
        "KeepJobs": config.keep_jobs.0,
    } }))
}

/// Whoever may reach this API may use it.
#[utoipa::path(
    get,
    path = "/authconfig",
    tag = "agent",
    operation_id = "authConfig",
    responses((status = 200, body = Value), Errors)
)]
pub(super) async fn auth_config() -> Json<Value> {
    Json(json!({ "Version": "1.0.0", "Config": {} }))
}

#[utoipa::path(
    get,
    path = "/",
    tag = "auth",
    operation_id = "authMethods",
    responses((status = 200, body = Value), Errors)
)]
pub(super) async fn auth_methods() -> Json<Value> {
    Json(json!({ "Methods": {} }))
}

#[utoipa::path(
    method(get, post),
    path = "/{method}",
    tag = "auth",
    operation_id = "authMethod",
    params(("method" = String, Path)),
    responses((status = 404, body = ErrorBody), Errors)
)]
pub(super) async fn auth_method(Path(method): Path<String>) -> ApiError {
    let method: String = method.chars().take(40).collect();
    let message = format!("there is no way `{method}` to log in: this API is for its own machine, which needs none");
    ApiError::new(StatusCode::NOT_FOUND, "NotFound", message)
}
