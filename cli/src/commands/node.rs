//! `node` and `peers`.

use bacnode_protocol::api::{GetNode, ListNodes, NodeIdentity, NodeInfo, NodeState, Peer, Peers};
use bacnode_protocol::job::format_bytes;

use crate::args::{Format, Node};
use crate::client::{Client, segment};
use crate::error::Result;
use crate::output;

pub(super) async fn run(client: &Client, format: Format, command: Node) -> Result<()> {
    match command {
        Node::List => list(client, format).await,
        Node::Describe { node: Some(node) } => {
            let answer: GetNode = client.get(&format!("orchestrator/nodes/{}", segment(&node))).await?;
            describe(&answer.node.info, format)
        }
        Node::Describe { node: None } => describe(&client.get("agent/node").await?, format),
        Node::Id => {
            let identity: NodeIdentity = client.get("network/identity").await?;
            if format != Format::Table {
                return output::structured(format, &identity);
            }
            output::line(&identity.peer_id);
            for address in &identity.addresses {
                output::line(address);
            }
            Ok(())
        }
    }
}

async fn list(client: &Client, format: Format) -> Result<()> {
    let answer: ListNodes = client.get("orchestrator/nodes").await?;
    let row = |node: &NodeState| {
        let (info, compute) = (&node.info, &node.info.compute);
        let engines =
            if compute.execution_engines.is_empty() { "none".into() } else { compute.execution_engines.join(", ") };
        vec![
            info.name.clone(),
            info.node_id.clone(),
            engines,
            compute.max_capacity.cpu.to_string(),
            format_bytes(compute.max_capacity.memory),
            format!("{} %", info.load),
            node.connection.to_lowercase(),
            format!("{} s ago", info.last_seen_s),
        ]
    };
    let headings = ["name", "node", "engines", "cpu", "memory", "load", "connection", "heard"];
    output::rows(format, &answer.nodes, &headings, &answer.nodes.iter().map(row).collect::<Vec<_>>())
}

fn describe(info: &NodeInfo, format: Format) -> Result<()> {
    if format != Format::Table {
        return output::structured(format, info);
    }
    let compute = &info.compute;
    let engines = if compute.execution_engines.is_empty() {
        "none: runs no jobs".into()
    } else {
        compute.execution_engines.join(", ")
    };
    let (max, free) = (compute.max_capacity, compute.available_capacity);
    let fields = [
        ("node", info.node_id.clone()),
        ("name", info.name.clone()),
        ("version", info.version.git_version.clone()),
        ("engines", engines),
        ("cpu", format!("{} of {} cores free", free.cpu, max.cpu)),
        ("memory", format!("{} of {} free", format_bytes(free.memory), format_bytes(max.memory))),
        ("running", format!("{} ({} waiting)", compute.running_executions, compute.enqueued_executions)),
        ("load", format!("{} %", info.load)),
        ("heard", format!("{} s ago", info.last_seen_s)),
    ];
    for (name, value) in fields {
        output::line(&format!("{name:<10}{}", output::plain(&value)));
    }
    for (index, address) in info.addresses.iter().enumerate() {
        output::line(&format!("{:<10}{}", if index == 0 { "addresses" } else { "" }, output::plain(address)));
    }
    for (index, (key, value)) in info.labels.iter().enumerate() {
        output::line(&format!(
            "{:<10}{}",
            if index == 0 { "labels" } else { "" },
            output::plain(&format!("{key}={value}"))
        ));
    }
    Ok(())
}

pub(super) async fn peers(client: &Client, format: Format) -> Result<()> {
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
