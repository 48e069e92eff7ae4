//! `peers`: who is connected, and with whom this node has nothing to do.

use bacnode_protocol::api::{BlockReason, BlockedPeer, Peer, Peers};
use reqwest::Method;

use crate::args::{self, Format};
use crate::client::{Client, segment};
use crate::error::Result;
use crate::output;

pub(super) async fn run(client: &Client, format: Format, command: Option<args::Peers>) -> Result<()> {
    match command {
        None => connected(client, format).await,
        Some(args::Peers::Blocked) => blocked(client, format).await,
        Some(args::Peers::Block { peer, reason }) => {
            let path = format!("network/blocks/{}", segment(&peer));
            let done: BlockedPeer = client.put(&path, &BlockReason { reason }).await?;
            output::note(&format!("{} {}", output::red("blocked"), done.peer_id));
            Ok(())
        }
        Some(args::Peers::Unblock { peer }) => {
            let request = client.request(Method::DELETE, &format!("network/blocks/{}", segment(&peer)));
            let done: BlockedPeer = client.json(request).await?;
            output::note(&format!("{} {} is blocked no more", output::green("done"), done.peer_id));
            Ok(())
        }
    }
}

async fn blocked(client: &Client, format: Format) -> Result<()> {
    let blocked: Vec<BlockedPeer> = client.get("network/blocks").await?;
    let row = |peer: &BlockedPeer| {
        let until = peer.until.clone().unwrap_or_else(|| "it is taken back".into());
        vec![peer.peer_id.clone(), peer.name.clone(), peer.since.clone(), until, peer.reason.clone()]
    };
    let rows: Vec<Vec<String>> = blocked.iter().map(row).collect();
    output::rows(format, &blocked, &["node", "name", "since", "until", "reason"], &rows)
}

async fn connected(client: &Client, format: Format) -> Result<()> {
    let answer: Peers = client.get("network/peers").await?;
    let row = |peer: &Peer| {
        vec![
            peer.name.clone(),
            peer.peer_id.clone(),
            peer.address.clone(),
            peer.direction.clone(),
            peer.rtt_ms.map(|rtt| format!("{rtt:.1} ms")).unwrap_or_default(),
        ]
    };
    let headings = ["name", "node", "address", "direction", "rtt"];
    output::rows(format, &answer.peers, &headings, &answer.peers.iter().map(row).collect::<Vec<_>>())?;
    for warning in &answer.warnings {
        output::note(&format!("warning: {warning}"));
    }
    Ok(())
}
