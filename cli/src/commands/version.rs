//! `version`

use bacnode_protocol::api::Version;
use serde_json::json;

use crate::args::Format;
use crate::client::Client;
use crate::error::Result;
use crate::output;

pub(super) async fn run(client: &Client, format: Format) -> Result<()> {
    let own = format!("v{}", env!("CARGO_PKG_VERSION"));
    let node: Option<Version> = client.get("agent/version").await.ok();
    let node = node.map_or_else(|| "not reached".to_owned(), |version| version.git_version);
    let value = json!({ "Client": own, "Node": node });
    output::rows(format, &value, &["client", "node"], &[vec![own.clone(), node.clone()]])
}
