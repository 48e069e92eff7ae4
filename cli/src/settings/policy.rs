//! The operator's rules for jobs.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use bacnode_node::config::Config;
use bacnode_node::engine::probe::Probe;
use bacnode_node::openness::Hours;
use bacnode_protocol::compute::{Grant, Web};
use bacnode_protocol::id::NodeId;
use bacnode_protocol::job::{parse_bytes, parse_cpu};
use bacnode_protocol::limits::PORT_MIN;
use bacnode_protocol::wire::task::{Reach, Resources};
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
    publish_listen: Option<SocketAddr>,
    ports: Option<String>,
    hours: Option<Vec<String>>,
    max_load: Option<f64>,
    max_task: Option<String>,
    max_per_peer: Option<usize>,
    max_queue: Option<usize>,
    keep_results: Option<f64>,
    keep_jobs: Option<usize>,
    keep_jobs_for: Option<f64>,
    ownership_lease: Option<f64>,
    no_guard: Option<bool>,
    no_endless: Option<bool>,
    require_inputs: Option<bool>,
    probe: Option<String>,
    probe_url: Option<String>,
}

/// Seconds that an owner may be silent.
const LEASE_S: RangeInclusive<f64> = 0.5..=600.0;

/// Chooses every rule.
pub(super) fn choose(
    config: &mut Config,
    args: &PolicyArgs,
    mut file: PolicyFile,
    public: bool,
    chooser: &mut Chooser<'_>,
) -> Result<()> {
    limits(config, args, &mut file, chooser)?;
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
    let web = if public { WebAccess::None } else { WebAccess::Public };
    policy.web = match chooser.choose("web", args.web, file.web, web, named) {
        WebAccess::None => Web::None,
        WebAccess::Public => Web::Public,
        WebAccess::Any => Web::Any,
    };
    let flag = |chooser: &mut Chooser<'_>, name, typed: bool, file| {
        chooser.choose(name, typed.then_some(true), file, false, ToString::to_string)
    };
    policy.root = flag(chooser, "allow_root", args.allow_root, file.allow_root);
    policy.withholds = flag(chooser, "withhold", args.withhold, file.withhold);
    policy.refuses_endless = flag(chooser, "no_endless", args.no_endless, file.no_endless);
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

/// Chooses when jobs are taken, how many, how large, and how long what they leave is kept.
fn limits(config: &mut Config, args: &PolicyArgs, file: &mut PolicyFile, chooser: &mut Chooser<'_>) -> Result<()> {
    #[expect(clippy::ref_option, reason = "it is handed a setting of this type")]
    fn shown<T: ToString>(value: &Option<T>) -> String {
        value.as_ref().map_or_else(|| "none".into(), ToString::to_string)
    }
    let listen = args.publish_listen.map(Some);
    config.publish_listen = chooser.choose("publish_listen", listen, file.publish_listen.map(Some), None, shown);
    let ports = chooser.choose("ports", args.ports.clone(), file.ports.take(), "20000-32000".into(), Clone::clone);
    config.ports = port_range(&ports)?;
    let hours = chooser.choose("hours", some(&args.hours), file.hours.take(), Vec::new(), |values| listed(values));
    config.openness.hours = hours.iter().map(|text| part_of_day(text)).collect::<Result<_>>()?;
    let load = chooser.choose("max_load", args.max_load.map(Some), file.max_load.map(Some), None, shown);
    config.openness.load_max = positive("max-load", load)?;
    let task = chooser.choose("max_task", args.max_task.clone().map(Some), file.max_task.take().map(Some), None, shown);
    config.policy.task_max = task.as_deref().map(task_max).transpose()?;
    let number = ToString::to_string;
    config.per_peer_max =
        chooser.choose("max_per_peer", args.max_per_peer, file.max_per_peer, config.per_peer_max, number);
    config.queue_max = chooser.choose("max_queue", args.max_queue, file.max_queue, config.queue_max, number);
    let days = chooser.choose("keep_results", args.keep_results.map(Some), file.keep_results.map(Some), None, shown);
    let days = positive("keep-results", days)?;
    let in_days = |days: f64| Duration::from_secs_f64((days * 86_400.0).min(1e12));
    config.keep_results = days.map(in_days);
    config.keep_jobs.0 = chooser.choose("keep_jobs", args.keep_jobs, file.keep_jobs, config.keep_jobs.0, number);
    let days = chooser.choose("keep_jobs_for", args.keep_jobs_for, file.keep_jobs_for, 90.0, ToString::to_string);
    config.keep_jobs.1 = in_days(positive("keep-jobs-for", Some(days))?.unwrap_or(days));
    let lease = config.ownership_lease.as_secs_f64();
    let lease =
        chooser.choose("ownership_lease", args.ownership_lease, file.ownership_lease, lease, ToString::to_string);
    if !LEASE_S.contains(&lease) {
        let message =
            format!("--ownership-lease {lease}: must be from {} to {} seconds", LEASE_S.start(), LEASE_S.end());
        return Err(Failure::usage(message));
    }
    config.ownership_lease = Duration::from_secs_f64(lease);
    let typed = args.no_guard.then_some(true);
    config.guards = !chooser.choose("no_guard", typed, file.no_guard, false, ToString::to_string);
    Ok(())
}

fn positive(flag: &str, value: Option<f64>) -> Result<Option<f64>> {
    match value {
        Some(value) if !value.is_finite() || value <= 0.0 => {
            Err(Failure::usage(format!("--{flag} {value}: must be more than nothing")))
        }
        value => Ok(value),
    }
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>> {
    let range = text.split_once('-').and_then(|(from, to)| Some((from.trim().parse().ok()?, to.trim().parse().ok()?)));
    let wrong = || {
        let message = format!("--ports {text}: this is no range of ports from {PORT_MIN} to 65535");
        Failure::usage(message).hint("write it like 20000-32000")
    };
    range.filter(|(from, to)| from <= to && *from >= PORT_MIN).map(|(from, to)| from..=to).ok_or_else(wrong)
}

fn part_of_day(text: &str) -> Result<Hours> {
    text.parse().map_err(|error| Failure::usage(format!("--hours {text}: {error}")).hint("write it like 20:00-07:30"))
}

fn task_max(text: &str) -> Result<Resources> {
    let wrong = |part: &str| {
        Failure::usage(format!("--max-task {text}: `{part}` is not an amount")).hint("write it like cpu=2,memory=4GiB")
    };
    // What is not named may be as much as the node has.
    let mut most = Resources { cpu_milli: u64::MAX, memory: u64::MAX, disk: u64::MAX, gpu: u32::MAX };
    for part in text.split(',') {
        let (name, amount) = part.split_once('=').ok_or_else(|| wrong(part))?;
        match name.trim() {
            "cpu" => most.cpu_milli = parse_cpu(amount).ok_or_else(|| wrong(part))?,
            "memory" => most.memory = parse_bytes(amount).ok_or_else(|| wrong(part))?,
            "disk" => most.disk = parse_bytes(amount).ok_or_else(|| wrong(part))?,
            "gpu" => most.gpu = amount.trim().parse().map_err(|_| wrong(part))?,
            _ => return Err(wrong(part)),
        }
    }
    Ok(most)
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
