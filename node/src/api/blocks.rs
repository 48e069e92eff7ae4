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

fn shown(node: &NodeId, block: &Block) -> BlockedPeer {
    BlockedPeer {
        peer_id: node.to_string(),
        name: block.name.to_string(),
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
    Json(api.network.blocks().all().iter().map(|(node, block)| shown(node, block)).collect())
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
    api.network.block(node, None, &reason).await?;
    let block = api.network.blocks().all().remove(&node);
    let blocked = block.map(|block| shown(&node, &block));
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
    let meant = |(node, block): &(&NodeId, &Block)| {
        let short = text.len() >= 4 && node.short().starts_with(&text);
        short || node.to_string() == text || !text.is_empty() && *block.name == text
    };
    let found: Vec<NodeId> = blocks.iter().filter(meant).map(|(node, _)| *node).collect();
    let node = match found[..] {
        [node] => node,
        [] => {
            return Err(ApiError::not_found(format!("no peer `{text}` is blocked"))
                .hint("`bacnode peers blocked` lists those that are"));
        }
        _ => return Err(ApiError::bad(format!("`{text}` is the start of several")).hint("write more of the id")),
    };
    api.network.unblock(node).await?;
    Ok(Json(shown(&node, &blocks[&node])))
}
