//! Nodes: this one, the others, and who is connected.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use bacnode_protocol::api::{
    AdvertInfo, Capacity, ComputeNodeInfo, ConnectionState, GetNode, ListNodes, NodeActed, NodeAction, NodeIdentity,
    NodeInfo, NodeState, Peer, Peers, SubmitterUsage, Version, rfc3339,
};
use bacnode_protocol::id::NodeId;
use bacnode_protocol::job::Selector;
use bacnode_protocol::time::UnixMillis;
use bacnode_protocol::wire::view::NodeDetail;
use libp2p::Multiaddr;

use super::Api;
use super::error::ApiError;
use super::openapi::{ApprovalFilter, ConnectionFilter, Errors, NodeOrder};
use super::page::Params;
use crate::clock;
use crate::driver::Event;

/// What jobs have used here, by submitter, those that used most CPU first.
#[utoipa::path(
    get,
    path = "/usage",
    tag = "network",
    operation_id = "listUsage",
    responses((status = 200, body = Vec<SubmitterUsage>), Errors)
)]
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

#[utoipa::path(
    get,
    path = "/identity",
    tag = "network",
    operation_id = "getIdentity",
    responses((status = 200, body = NodeIdentity), Errors)
)]
pub(super) async fn identity(State(api): State<Api>) -> Json<NodeIdentity> {
    Json(super::identity(&api.network, &api.config.network, None).await)
}

/// What is known of a node, by its advert.
pub(super) fn known(api: &Api, node: &NodeId) -> Option<NodeState> {
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
        version: Version { os: String::new(), arch: String::new(), ..super::agent::version(&advert.version) },
        name: advert.name.to_string(),
        load: advert.load_percent,
        addresses: addresses.map(|address| address.to_string()).collect(),
        last_seen_s: clock::tick().since(peer.heard).as_millis() / 1_000,
        ..NodeInfo::default()
    };
    let connection = if connected { "CONNECTED" } else { "DISCONNECTED" };
    let heard = clock::unix().0.saturating_sub(clock::tick().since(peer.heard).as_millis());
    let last_heartbeat = rfc3339(UnixMillis(heard));
    let connection_state = ConnectionState { status: connection.into(), last_heartbeat };
    Some(NodeState { info, membership: "APPROVED".into(), connection: connection.into(), connection_state })
}

pub(super) fn add_detail(state: &mut NodeState, detail: &NodeDetail) {
    state.info.labels = detail.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    state.info.compute.available_capacity = detail.available.into();
    state.info.compute.running_executions = detail.running;
    state.info.compute.enqueued_executions = detail.queued;
}

/// In which order nodes are listed.
#[derive(Clone, Copy)]
enum Order {
    Name,
    Id,
    Kind,
    Free(fn(&Capacity) -> f64),
    Connection,
}

const ORDERS: [(&str, Order); 10] = [
    ("", Order::Name),
    ("name", Order::Name),
    ("id", Order::Id),
    ("type", Order::Kind),
    ("available_cpu", Order::Free(|free| free.cpu)),
    ("available_memory", Order::Free(|free| free.memory as f64)),
    ("available_disk", Order::Free(|free| free.disk as f64)),
    ("available_gpu", Order::Free(|free| f64::from(free.gpu))),
    ("approval", Order::Name),
    ("status", Order::Connection),
];

#[utoipa::path(
    get,
    path = "/nodes",
    tag = "nodes",
    operation_id = "listNodes",
    params(
        ("limit" = Option<u32>, Query, description = "items on the page, 100 without, at most 1000"),
        ("next_token" = Option<String>, Query, description = "of the page before", example = ""),
        ("reverse" = Option<bool>, Query, description = "the other way round"),
        ("order_by" = inline(Option<NodeOrder>), Query),
        ("labels" = Option<String>, Query, description = "a selector, like `zone=eu`", example = "zone=eu"),
        ("filter-status" = inline(Option<ConnectionFilter>), Query),
        ("filter-approval" = inline(Option<ApprovalFilter>), Query, description = "all are approved"),
    ),
    responses((status = 200, body = ListNodes), Errors)
)]
pub(super) async fn list(State(api): State<Api>, Query(params): Query<Params>) -> Result<Json<ListNodes>, ApiError> {
    let order = params.one_of("order_by", &ORDERS)?;
    let selector = params.text("labels").unwrap_or_default().parse::<Selector>();
    let selector = selector.map_err(|error| ApiError::bad(format!("`labels`: {error}")))?;
    let statuses = [("", None), ("connected", Some("CONNECTED")), ("disconnected", Some("DISCONNECTED"))];
    let status = params.one_of("filter-status", &statuses)?;
    // Whoever is here is a member.
    let approvals = [("", true), ("approved", true), ("pending", false), ("rejected", false), ("unknown", false)];
    let approved = params.one_of("filter-approval", &approvals)?;
    let may_match = |peer: &bacnode_protocol::view::Peer| {
        approved && !selector.constraints().iter().any(|constraint| constraint.is_excluded_by(&peer.advert.labels))
    };
    let nodes: Vec<NodeId> =
        api.network.view().iter().filter(|(_, peer)| may_match(peer)).map(|(node, _)| *node).collect();
    let details = api.details.of(&api.network, &nodes).await;
    let mut nodes: Vec<NodeState> = nodes
        .iter()
        .filter_map(|node| {
            let mut state = known(&api, node)?;
            if let Some(detail) = details.get(node) {
                add_detail(&mut state, detail);
            }
            Some(state)
        })
        .filter(|state| selector.selects(&state.info.labels) && status.is_none_or(|status| state.connection == status))
        .collect();
    nodes.sort_by(|left, right| {
        let free = |state: &NodeState| state.info.compute.available_capacity;
        let by_name = || (&left.info.name, &left.info.node_id).cmp(&(&right.info.name, &right.info.node_id));
        match order {
            Order::Name => by_name(),
            Order::Id => left.info.node_id.cmp(&right.info.node_id),
            Order::Kind => left.info.node_type.cmp(&right.info.node_type).then_with(by_name),
            // Most first.
            Order::Free(amount) => amount(&free(right)).total_cmp(&amount(&free(left))).then_with(by_name),
            Order::Connection => left.connection.cmp(&right.connection).then_with(by_name),
        }
    });
    if params.flag("reverse")? {
        nodes.reverse();
    }
    let page = params.page_of(nodes)?;
    Ok(Json(ListNodes { nodes: page.items, next_token: page.next_token }))
}

/// What the operator does with this node: empties it, or takes it into use again. Others' nodes are theirs.
#[utoipa::path(
    put,
    path = "/nodes/{id}",
    tag = "nodes",
    operation_id = "putNode",
    params(("id" = String, Path, description = "id, the start of one, or name")),
    request_body = NodeAction,
    responses((status = 200, body = NodeActed), Errors)
)]
pub(super) async fn act(
    State(api): State<Api>,
    Path(text): Path<String>,
    bytes: Bytes,
) -> Result<Json<NodeActed>, ApiError> {
    let request: NodeAction = super::submit::body(&bytes)?;
    let node = resolve(&api, &text)?;
    let draining = match request.action.to_lowercase().as_str() {
        "drain" => true,
        "resume" => false,
        "approve" | "reject" | "delete" => {
            let message = "nodes are not approved here: whoever holds the network's key is a member";
            return Err(ApiError::bad(message).hint("`serve --refuse-peer` takes no jobs of a peer"));
        }
        other => {
            let shown: String = other.chars().take(40).collect();
            return Err(ApiError::bad(format!("Action: `{shown}` is not one of drain, resume")));
        }
    };
    if node != api.network.me {
        let message = "only a node's own operator drains it";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "Forbidden", message).hint("ask at that node's own API"));
    }
    api.store.set_draining(draining)?;
    api.ask(|answer| Event::Drain(draining, answer)).await?;
    Ok(Json(NodeActed { success: true, error: String::new() }))
}

#[utoipa::path(
    get,
    path = "/nodes/{id}",
    tag = "nodes",
    operation_id = "getNode",
    params(("id" = String, Path, description = "id, the start of one, or name")),
    responses((status = 200, body = GetNode), Errors)
)]
pub(super) async fn get(State(api): State<Api>, Path(text): Path<String>) -> Result<Json<GetNode>, ApiError> {
    let node = resolve(&api, &text)?;
    let mut state = known(&api, &node).ok_or_else(|| ApiError::not_found(format!("no node `{text}` is known")))?;
    if let Ok(detail) = api.network.detail_of(node).await {
        add_detail(&mut state, &detail);
    }
    Ok(Json(GetNode { node: state }))
}

/// The node that `text` means: its id, its short id, the start of one of them, or its name.
pub(super) fn resolve(api: &Api, text: &str) -> Result<NodeId, ApiError> {
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

#[utoipa::path(
    get,
    path = "/peers",
    tag = "network",
    operation_id = "listPeers",
    responses((status = 200, body = Peers), Errors)
)]
pub(super) async fn peers(State(api): State<Api>) -> Json<Peers> {
    let (connected, reach) = (api.network.peers().await, api.network.reach().await);
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
    Json(Peers { peers, reach, warnings: api.network.warnings() })
}

/// The adverts that this node knows, as they are.
#[utoipa::path(
    get,
    path = "/view",
    tag = "network",
    operation_id = "listAdverts",
    responses((status = 200, body = Vec<AdvertInfo>), Errors)
)]
pub(super) async fn view(State(api): State<Api>) -> Json<Vec<AdvertInfo>> {
    let view = api.network.view();
    let shown = |(node, peer): (&NodeId, &bacnode_protocol::view::Peer)| AdvertInfo {
        peer_id: node.to_string(),
        name: peer.advert.name.to_string(),
        sequence: peer.advert.sequence,
        issued: rfc3339(peer.advert.issued),
        ttl_s: peer.advert.ttl_s,
        load: peer.advert.load_percent,
        engines: peer.advert.engines.iter().map(|engine| engine.name().to_owned()).collect(),
        total: peer.advert.total.into(),
    };
    Json(view.iter().map(shown).collect())
}
