//! The operator's rules for jobs.

use bacnode_node::config::Config;
use bacnode_node::engine::probe::Probe;
use bacnode_protocol::compute::{Grant, Web};
use bacnode_protocol::id::NodeId;
use bacnode_protocol::wire::task::Reach;
use serde::Deserialize;

use super::{Chooser, listed, named, some};
use crate::args::{Locality, PolicyArgs, TaskNetwork, WebAccess};
use crate::error::{Failure, Result};

/// The table `[policy]` of `config.toml`: the flags under the same names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PolicyFile {
    image: Option<Vec<String>>,
    peer: Option<Vec<String>>,
    refuse_peer: Option<Vec<String>>,
    task_network: Option<TaskNetwork>,
    web: Option<WebAccess>,
    s3: Option<Vec<String>>,
    pass_env: Option<Vec<String>>,
    allow_root: Option<bool>,
    data_peer: Option<Vec<String>>,
    withhold: Option<bool>,
    locality: Option<Locality>,
    require_inputs: Option<bool>,
    probe: Option<String>,
    probe_url: Option<String>,
}

/// Chooses every rule.
pub(super) fn choose(
    config: &mut Config,
    args: &PolicyArgs,
    file: PolicyFile,
    chooser: &mut Chooser<'_>,
) -> Result<()> {
    let policy = &mut config.policy;
    let list = |chooser: &mut Chooser<'_>, name, typed: &[String], file| {
        chooser.choose(name, some(typed), file, Vec::new(), |values| listed(values))
    };
    policy.images = list(chooser, "image", &args.image, file.image);
    policy.peers = peers("peer", &list(chooser, "peer", &args.peer, file.peer))?;
    policy.refused_peers = peers("refuse-peer", &list(chooser, "refuse_peer", &args.refuse_peer, file.refuse_peer))?;
    policy.data_peers = peers("data-peer", &list(chooser, "data_peer", &args.data_peer, file.data_peer))?;
    policy.s3 = list(chooser, "s3", &args.s3, file.s3).iter().map(|text| grant(text)).collect::<Result<_>>()?;
    policy.env = list(chooser, "pass_env", &args.pass_env, file.pass_env);
    let reach = chooser.choose("task_network", args.task_network, file.task_network, TaskNetwork::None, named);
    policy.reach = match reach {
        TaskNetwork::None => Reach::None,
        TaskNetwork::Http => Reach::Http,
        TaskNetwork::Bridge => Reach::Bridge,
        TaskNetwork::Host => Reach::Host,
    };
    policy.web = match chooser.choose("web", args.web, file.web, WebAccess::Public, named) {
        WebAccess::None => Web::None,
        WebAccess::Public => Web::Public,
        WebAccess::Any => Web::Any,
    };
    let flag = |chooser: &mut Chooser<'_>, name, typed: bool, file| {
        chooser.choose(name, typed.then_some(true), file, false, ToString::to_string)
    };
    policy.root = flag(chooser, "allow_root", args.allow_root, file.allow_root);
    policy.withholds = flag(chooser, "withhold", args.withhold, file.withhold);
    policy.inputs_required = flag(chooser, "require_inputs", args.require_inputs, file.require_inputs);
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".into());
    let command = chooser.choose("probe", args.probe.clone().map(Some), file.probe.map(Some), None, text);
    let url = chooser.choose("probe_url", args.probe_url.clone().map(Some), file.probe_url.map(Some), None, text);
    config.probe = match (command, url) {
        (Some(command), _) => Some(Probe::Command(command)),
        (None, Some(url)) if url.starts_with("http://") || url.starts_with("https://") => Some(Probe::Url(url)),
        (None, Some(url)) => {
            return Err(
                Failure::usage(format!("--probe-url {url}: not a URL")).hint("write it like http://127.0.0.1:8080/ask")
            );
        }
        (None, None) => None,
    };
    policy.probes = config.probe.is_some();
    let locality = chooser.choose("locality", args.locality, file.locality, Locality::Anywhere, named);
    policy.local_only = locality == Locality::Local;
    Ok(())
}

fn grant(text: &str) -> Result<Grant> {
    let (place, writable) = text.strip_suffix(":rw").map_or((text, false), |place| (place, true));
    let place = place.trim_start_matches("s3://").trim_end_matches('*');
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if bucket.is_empty() || bucket.contains(':') {
        return Err(
            Failure::usage(format!("--s3 {text}: not a bucket")).hint("write it like `bucket/prefix/` or `bucket:rw`")
        );
    }
    Ok(Grant { bucket: bucket.to_owned(), prefix: prefix.to_owned(), writable })
}

fn peers(flag: &str, texts: &[String]) -> Result<Vec<NodeId>> {
    let peer = |text: &String| {
        text.parse().map_err(|_| {
            Failure::usage(format!("--{flag} {text}: not a peer id")).hint("`bacnode node list` shows them: 12D3KooW…")
        })
    };
    texts.iter().map(peer).collect()
}
