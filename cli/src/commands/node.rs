//! `node`.

use bacnode_protocol::api::{
    GetNode, ListNodes, NodeActed, NodeAction, NodeIdentity, NodeInfo, NodeState, SubmitterUsage, UsageTotals,
};
use bacnode_protocol::job::format_bytes;

use crate::args::{Format, Node};
use crate::client::{Client, segment};
use crate::error::Result;
use crate::output;

pub(super) async fn run(client: &Client, format: Format, command: Node) -> Result<()> {
    match command {
        Node::List { labels, status, order_by } => {
            let (labels, order_by) = (segment(&labels), segment(&order_by));
            list(client, format, &format!("limit=1000&labels={labels}&filter-status={status}&order_by={order_by}"))
                .await
        }
        Node::Drain { undo } => {
            let me: NodeIdentity = client.get("network/identity").await?;
            let action = if undo { "resume" } else { "drain" };
            let request = NodeAction { action: action.into(), message: String::new() };
            let _: NodeActed = client.put(&format!("orchestrator/nodes/{}", segment(&me.peer_id)), &request).await?;
            let told = if undo { "takes jobs again" } else { "takes no new jobs; `node drain --undo` takes that back" };
            output::note(&format!("{} {told}", output::bold(&me.peer_id)));
            Ok(())
        }
        Node::Describe { node: Some(node) } => {
            let answer: GetNode = client.get(&format!("orchestrator/nodes/{}", segment(&node))).await?;
            describe(&answer.node.info, format)
        }
        Node::Describe { node: None } => {
            describe(&client.get("agent/node").await?, format)?;
            if format == Format::Table {
                let usage: Vec<SubmitterUsage> = client.get("network/usage").await?;
                output::line(&format!("{:<10}{}", "used", sum(&usage)));
            }
            Ok(())
        }
        Node::Usage => usage(client, format).await,
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

async fn list(client: &Client, format: Format, query: &str) -> Result<()> {
    let mut answer: ListNodes = client.get(&format!("orchestrator/nodes?{query}")).await?;
    while !answer.next_token.is_empty() {
        let path = format!("orchestrator/nodes?{query}&next_token={}", answer.next_token);
        let more: ListNodes = client.get(&path).await?;
        answer.nodes.extend(more.nodes);
        answer.next_token = more.next_token;
    }
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

fn sum(usage: &[SubmitterUsage]) -> String {
    let add = |part: fn(&UsageTotals) -> u64| usage.iter().map(|submitter| part(&submitter.totals)).sum::<u64>();
    format!(
        "{} runs, {:.1} CPU seconds, {} fetched, {} did not move, {} of results",
        add(|totals| totals.runs),
        add(|totals| totals.cpu_ms) as f64 / 1e3,
        format_bytes(add(|totals| totals.bytes_in)),
        format_bytes(add(|totals| totals.bytes_held)),
        format_bytes(add(|totals| totals.bytes_out)),
    )
}

async fn usage(client: &Client, format: Format) -> Result<()> {
    let usage: Vec<SubmitterUsage> = client.get("network/usage").await?;
    let row = |submitter: &SubmitterUsage| {
        let totals = &submitter.totals;
        vec![
            submitter.name.clone(),
            submitter.peer_id.clone(),
            totals.runs.to_string(),
            format!("{:.1} s", totals.cpu_ms as f64 / 1e3),
            format!("{:.1} s", totals.wall_ms as f64 / 1e3),
            format_bytes(totals.bytes_in),
            format_bytes(totals.bytes_held),
            format_bytes(totals.bytes_out),
        ]
    };
    let headings = ["submitter", "node", "runs", "cpu", "time", "fetched", "not moved", "results"];
    output::rows(format, &usage, &headings, &usage.iter().map(row).collect::<Vec<_>>())
}
