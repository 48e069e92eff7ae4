//! Peers with which this node has nothing to do.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use bacnode_protocol::api::{BlockReason, BlockedPeer, rfc3339};
use bacnode_protocol::id::NodeId;

use super::Api;
use super::error::ApiError;
use super::openapi::Errors;
use crate::network::Block;

fn shown(api: &Api, node: &NodeId, block: &Block) -> BlockedPeer {
    BlockedPeer {
        peer_id: node.to_string(),
        name: api.network.view().get(node).map(|peer| peer.advert.name.to_string()).unwrap_or_default(),
        since: rfc3339(block.since),
        until: block.until.map(rfc3339),
        reason: block.reason.to_string(),
    }
}

/// All that are blocked.
#[utoipa::path(
    get,
    path = "/blocks",
    tag = "network",
    operation_id = "listBlocks",
    responses((status = 200, body = Vec<BlockedPeer>), Errors)
)]
pub(super) async fn list(State(api): State<Api>) -> Json<Vec<BlockedPeer>> {
    Json(api.network.blocks().all().iter().map(|(node, block)| shown(&api, node, block)).collect())
}

/// Blocks a peer until that is taken back.
#[utoipa::path(
    put,
    path = "/blocks/{id}",
    tag = "network",
    operation_id = "blockPeer",
    params(("id" = String, Path, description = "id, the start of one, or name")),
    request_body = BlockReason,
    responses((status = 200, body = BlockedPeer), Errors)
)]
pub(super) async fn block(
    State(api): State<Api>,
    Path(text): Path<String>,
    body: Bytes,
) -> Result<Json<BlockedPeer>, ApiError> {
    let BlockReason { reason } = super::submit::body(&body)?;
    // Also one that is not known here: it may come.
    let node = match text.parse::<NodeId>() {
        Ok(node) => node,
        Err(_) => super::nodes::resolve(&api, &text)?,
    };
    if node == api.network.me {
        return Err(ApiError::bad("a node does not block itself"));
    }
    let name = api.network.view().label(&node);
    api.network.block(node, None, &reason).await?;
    let block = api.network.blocks().all().remove(&node);
    let blocked = block.map(|block| BlockedPeer { name, ..shown(&api, &node, &block) });
    Ok(Json(blocked.ok_or_else(|| ApiError::unavailable("the block was taken back at once"))?))
}

/// Takes a block back.
#[utoipa::path(
    delete,
    path = "/blocks/{id}",
    tag = "network",
    operation_id = "unblockPeer",
    params(("id" = String, Path, description = "id, or the start of one")),
    responses((status = 200, body = BlockedPeer), Errors)
)]
pub(super) async fn unblock(State(api): State<Api>, Path(text): Path<String>) -> Result<Json<BlockedPeer>, ApiError> {
    let blocks = api.network.blocks().all();
    let meant = |node: &&NodeId| node.to_string() == text || text.len() >= 4 && node.short().starts_with(&text);
    let found: Vec<NodeId> = blocks.keys().filter(meant).copied().collect();
    let node = match found[..] {
        [node] => node,
        [] => {
            return Err(ApiError::not_found(format!("no peer `{text}` is blocked"))
                .hint("`bacnode peers blocked` lists those that are"));
        }
        _ => return Err(ApiError::bad(format!("`{text}` is the start of several")).hint("write more of the id")),
    };
    api.network.unblock(node).await?;
    Ok(Json(shown(&api, &node, &blocks[&node])))
}
