//! With whom a node is connected, how often, and how fast.

use std::time::Duration;

use bacnode_node::config::{Config, RelayLimits};
use bacnode_node::network::PACE_MIN;
use bacnode_protocol::id::NodeId;
use bacnode_protocol::job::{format_bytes, parse_bytes};

use super::{Chooser, ConfigFile, listed, some};
use crate::args::LinkArgs;
use crate::error::{Failure, Result};

/// Whether, and how much, the node passes on between others.
fn relay(config: &mut Config, args: &LinkArgs, file: &ConfigFile, chooser: &mut Chooser<'_>) {
    let (usual, number) = (RelayLimits::default(), ToString::to_string);
    let willing = chooser.choose("relay", args.relay.then_some(true), file.relay, false, ToString::to_string);
    let peers = chooser.choose("relay_peers", args.relay_peers, file.relay_peers, usual.peers, number);
    let circuits =
        chooser.choose("relay_connections", args.relay_connections, file.relay_connections, usual.circuits, number);
    let mib = chooser.choose("relay_mib", args.relay_mib, file.relay_mib, usual.bytes >> 20, ToString::to_string);
    let minutes = usual.duration.as_secs() / 60;
    let minutes = chooser.choose("relay_minutes", args.relay_minutes, file.relay_minutes, minutes, ToString::to_string);
    let duration = Duration::from_secs(minutes * 60);
    config.relay = willing.then_some(RelayLimits { peers, circuits, duration, bytes: mib << 20 });
}

/// Connections that a node needs at least to be part of a network.
const CONNECTIONS_MIN: u32 = 4;

/// Chooses every limit.
pub(super) fn choose(config: &mut Config, args: &LinkArgs, file: &ConfigFile, chooser: &mut Chooser<'_>) -> Result<()> {
    let mut peers = |id: &str, typed: &[String], named: &Option<Vec<String>>| {
        let chosen = chooser.choose(id, some(typed), named.clone(), Vec::new(), |l| listed(l));
        let flag = id.replace('_', "-");
        let node = |text: &String| text.parse::<NodeId>().map_err(|error| Failure::usage(format!("--{flag}: {error}")));
        chosen.iter().map(node).collect::<Result<Vec<_>>>()
    };
    config.allow_peers = peers("allow_peer", &args.allow_peer, &file.allow_peer)?;
    config.deny_peers = peers("deny_peer", &args.deny_peer, &file.deny_peer)?;
    relay(config, args, file, chooser);
    let mut count = |id: &str, typed: Option<u32>, named: Option<u32>, least: u32, into: &mut u32| {
        *into = chooser.choose(id, typed, named, *into, ToString::to_string);
        let flag = id.replace('_', "-");
        if *into < least { Err(Failure::usage(format!("--{flag} {into}: it takes {least} at least"))) } else { Ok(()) }
    };
    let named = (file.max_connections, file.max_per_address, file.max_per_network);
    count("max_connections", args.max_connections, named.0, CONNECTIONS_MIN, &mut config.connections_max)?;
    count("max_per_address", args.max_per_address, named.1, 1, &mut config.per_address_max)?;
    count("max_per_network", args.max_per_network, named.2, 1, &mut config.per_network_max)?;
    let mut size = |id: &str, typed: &Option<String>, named: &Option<String>, least: u64, default: &str| {
        let text = chooser.choose(id, typed.clone(), named.clone(), default.to_owned(), Clone::clone);
        if text == "none" {
            return Ok(None);
        }
        let (flag, least_shown) = (id.replace('_', "-"), format_bytes(least));
        match parse_bytes(&text) {
            Some(bytes) if bytes >= least => Ok(Some(bytes)),
            Some(_) => Err(Failure::usage(format!("--{flag} {text}: it takes {least_shown} at least"))),
            None => {
                Err(Failure::usage(format!("--{flag} {text}: not an amount")).hint("write it like 10MiB, or `none`"))
            }
        }
    };
    let default = format_bytes(config.own_memory_max).replace(' ', "");
    let memory = size("max_own_memory", &args.max_own_memory, &file.max_own_memory, 32 << 20, &default)?;
    config.own_memory_max = memory.unwrap_or(u64::MAX);
    config.upload_max = size("max_upload", &args.max_upload, &file.max_upload, PACE_MIN, "none")?;
    config.download_max = size("max_download", &args.max_download, &file.max_download, PACE_MIN, "none")?;
    Ok(())
}
