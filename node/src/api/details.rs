//! What other nodes say of themselves when asked: labels, what is free. Asked for at most every few seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bacnode_protocol::id::NodeId;
use bacnode_protocol::limits::VIEW_NODES_MAX;
use bacnode_protocol::wire::view::NodeDetail;
use futures::StreamExt as _;

use crate::network::Network;

/// For how long an answer is good enough.
const FRESH: Duration = Duration::from_secs(5);
/// How long a list waits for those that do not answer at once.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// Asked at one time.
const ABREAST: usize = 32;

/// The last answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Details(Arc<Mutex<HashMap<NodeId, (Instant, NodeDetail)>>>);

impl Details {
    /// What is known of these nodes; of some that cannot be reached, what they said before.
    pub(super) async fn of(&self, network: &Network, nodes: &[NodeId]) -> HashMap<NodeId, NodeDetail> {
        let stale: Vec<NodeId> = {
            let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let stale = |node: &&NodeId| known.get(node).is_none_or(|(at, _)| at.elapsed() > FRESH);
            nodes.iter().filter(stale).copied().collect()
        };
        let ask = |node: NodeId| async move { (node, network.detail_of(node).await) };
        let mut answers = futures::stream::iter(stale).map(ask).buffer_unordered(ABREAST);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while let Ok(Some((node, answer))) = tokio::time::timeout_at(deadline, answers.next()).await {
            if let Ok(detail) = answer {
                self.note(node, detail);
            }
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > VIEW_NODES_MAX {
            known.retain(|_, (at, _)| at.elapsed() < FRESH * 10);
        }
        nodes.iter().filter_map(|node| Some((*node, known.get(node)?.1.clone()))).collect()
    }

    fn note(&self, node: NodeId, detail: NodeDetail) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node, (Instant::now(), detail));
    }
}
