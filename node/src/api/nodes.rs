//! Nodes: this one, the others, and who is connected.

use axum::Json;
use axum::extract::{Path, State};
use bacnode_protocol::api::{
    ComputeNodeInfo, GetNode, ListNodes, NodeIdentity, NodeInfo, NodeState, Peer, Peers, SubmitterUsage, Version,
};
use bacnode_protocol::id::NodeId;
use bacnode_protocol::wire::view::NodeDetail;
use libp2p::Multiaddr;
use serde_json::{Value, json};

use super::error::ApiError;
use super::{Api, go_arch};
use crate::clock;

pub(super) async fn alive() -> Json<Value> {
    Json(json!({ "Status": "OK" }))
}

/// What jobs have used here, by submitter, those that used most CPU first.
pub(super) async fn usage(State(api): State<Api>) -> Result<Json<Vec<SubmitterUsage>>, ApiError> {
    let books = api.store.usage()?;
    let view = api.network.view();
    let mut usage: Vec<SubmitterUsage> = books
        .into_iter()
        .map(|(node, totals)| SubmitterUsage { peer_id: node.to_string(), name: view.label(&node), totals })
        .collect();
    usage.sort_by_key(|submitter| std::cmp::Reverse(submitter.totals.cpu_ms));
    Ok(Json(usage))
}

/// Counters and gauges, in the text format of Prometheus.
pub(super) async fn metrics(State(api): State<Api>) -> impl axum::response::IntoResponse {
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(axum::http::header::CONTENT_TYPE, format)], api.network.metrics())
}

pub(super) async fn agent_version() -> Json<Version> {
    Json(version(env!("CARGO_PKG_VERSION")))
}

fn version(text: &str) -> Version {
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

pub(super) async fn identity(State(api): State<Api>) -> Json<NodeIdentity> {
    Json(super::identity(&api.network, &api.config.network, None).await)
}

/// What is known of a node, by its advert.
fn known(api: &Api, node: &NodeId) -> Option<NodeState> {
    let view = api.network.view();
    let peer = view.get(node)?;
    let advert = &peer.advert;
    let addresses = advert.addresses.iter().filter_map(|bytes| Multiaddr::try_from(bytes.to_vec()).ok());
    let connected = *node == api.network.me || view.is_connected(node);
    let info = NodeInfo {
        node_id: node.to_string(),
        node_type: if advert.engines.0 == 0 { "Requester" } else { "Compute" }.into(),
        supported_protocols: vec![api.network.names.market.clone()],
        compute: ComputeNodeInfo::new(advert.engines, advert.total),
        version: Version { os: String::new(), arch: String::new(), ..version(&advert.version) },
        name: advert.name.to_string(),
        load: advert.load_percent,
        addresses: addresses.map(|address| address.to_string()).collect(),
        last_seen_s: clock::tick().since(peer.heard).as_millis() / 1_000,
        ..NodeInfo::default()
    };
    let connection = if connected { "CONNECTED" } else { "DISCONNECTED" };
    Some(NodeState { info, membership: "APPROVED".into(), connection: connection.into() })
}

fn add_detail(state: &mut NodeState, detail: &NodeDetail) {
    state.info.labels = detail.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    state.info.compute.available_capacity = detail.available.into();
    state.info.compute.running_executions = detail.running;
    state.info.compute.enqueued_executions = detail.queued;
}

pub(super) async fn agent_node(State(api): State<Api>) -> Result<Json<NodeInfo>, ApiError> {
    let mut state = known(&api, &api.network.me).ok_or_else(|| ApiError::unavailable("the node is starting"))?;
    add_detail(&mut state, &api.network.detail());
    Ok(Json(state.info))
}

pub(super) async fn list(State(api): State<Api>) -> Json<ListNodes> {
    let nodes: Vec<NodeId> = api.network.view().iter().map(|(node, _)| *node).collect();
    let mut nodes: Vec<NodeState> = nodes.iter().filter_map(|node| known(&api, node)).collect();
    nodes.sort_by(|left, right| left.info.name.cmp(&right.info.name));
    Json(ListNodes { nodes, next_token: String::new() })
}

pub(super) async fn get(State(api): State<Api>, Path(text): Path<String>) -> Result<Json<GetNode>, ApiError> {
    let node = resolve(&api, &text)?;
    let mut state = known(&api, &node).ok_or_else(|| ApiError::not_found(format!("no node `{text}` is known")))?;
    if let Ok(detail) = api.network.detail_of(node).await {
        add_detail(&mut state, &detail);
    }
    Ok(Json(GetNode { node: state }))
}

/// The node that `text` means: its id, its short id, the start of one of them, or its name.
fn resolve(api: &Api, text: &str) -> Result<NodeId, ApiError> {
    if let Ok(node) = text.parse::<NodeId>() {
        return Ok(node);
    }
    let view = api.network.view();
    let is_meant = |(node, peer): &(&NodeId, &bacnode_protocol::view::Peer)| {
        *peer.advert.name == *text || node.short().starts_with(text) || node.to_string().starts_with(text)
    };
    let found: Vec<NodeId> = view.iter().filter(is_meant).map(|(node, _)| *node).take(2).collect();
    match found.as_slice() {
        [node] => Ok(*node),
        [] => {
            Err(ApiError::not_found(format!("no node `{text}` is known"))
                .hint("`bacnode node list` shows all that are"))
        }
        _ => Err(ApiError::bad(format!("several nodes are called `{text}`")).hint("use the node's id")),
    }
}

pub(super) async fn peers(State(api): State<Api>) -> Json<Peers> {
    let connected = api.network.peers().await;
    let view = api.network.view();
    let peer = |info: &crate::network::PeerInfo| Peer {
        peer_id: info.node.to_string(),
        name: view.get(&info.node).map(|peer| peer.advert.name.to_string()).unwrap_or_default(),
        address: info.address.to_string(),
        direction: if info.outgoing { "out" } else { "in" }.into(),
        rtt_ms: info.rtt.map(|rtt| (rtt.as_secs_f64() * 1e6).round() / 1e3),
        agent: info.agent.clone(),
    };
    let peers = connected.iter().map(peer).collect();
    Json(Peers { peers, warnings: api.network.warnings() })
}
