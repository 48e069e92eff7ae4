//! `doctor`: what is wrong with this machine, its settings and its node, each with what to do.

use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bacnode_node::identity::Identity;
use bacnode_protocol::api::{NodeIdentity, NodeInfo, Peer, Peers};
use bacnode_protocol::job::format_bytes;
use clap::ArgMatches;
use serde::Serialize;

use crate::args::{Format, Serve};
use crate::client::Client;
use crate::error::{Exit, Failure, Result};
use crate::output;
use crate::settings::Settings;

/// Disk below which a node takes no jobs.
const DISK_MIN: u64 = 1 << 30;
/// How long a peer may take to be reached.
const PATIENCE: Duration = Duration::from_secs(2);
/// Files that a busy node may have open.
const FILES_MIN: u64 = 4_096;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Is {
    Good,
    Odd,
    Bad,
}

/// Something that was looked at.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Finding {
    what: &'static str,
    is: Is,
    found: String,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, what: &'static str, is: Is, found: impl Into<String>) {
        self.0.push(Finding { what, is, found: found.into() });
    }

    fn tell(&mut self, what: &'static str, found: std::result::Result<String, String>) {
        match found {
            Ok(found) => self.add(what, Is::Good, found),
            Err(found) => self.add(what, Is::Bad, found),
        }
    }
}

pub(super) async fn run(args: &Serve, matches: &ArgMatches, client: &Client, format: Format) -> Result<()> {
    let mut findings = Findings::default();
    let node = client.get::<NodeInfo>("agent/node").await;
    match Settings::resolve(args, matches) {
        Ok(settings) => look(&settings, node.is_ok(), &mut findings),
        Err(failure) => findings.add("settings", Is::Bad, failure.to_string().replace('\n', "; ")),
    }
    machine(&mut findings);
    match node {
        Ok(node) => of_node(client, &node, &mut findings).await,
        Err(failure) if failure.exit == Exit::Unreachable => {
            findings.add(
                "node",
                Is::Odd,
                format!("none answers at {}; start one with `bacnode serve`", client.shown()),
            );
        }
        Err(failure) => findings.add("node", Is::Bad, failure.to_string().replace('\n', "; ")),
    }
    let row = |finding: &Finding| {
        let is = match finding.is {
            Is::Good => output::green("good"),
            Is::Odd => output::bold("odd"),
            Is::Bad => output::red("bad"),
        };
        if format == Format::Table {
            output::line(&format!("{is:<6}{:<12}{}", finding.what, output::plain(&finding.found)));
        }
    };
    findings.0.iter().for_each(row);
    if format != Format::Table {
        let rows: Vec<Vec<String>> = findings
            .0
            .iter()
            .map(|finding| {
                vec![finding.what.to_owned(), format!("{:?}", finding.is).to_lowercase(), finding.found.clone()]
            })
            .collect();
        output::rows(format, &findings.0, &["what", "is", "found"], &rows)?;
    }
    let bad = findings.0.iter().filter(|finding| finding.is == Is::Bad).count();
    if bad > 0 { Err(Failure::failed(format!("{bad} of {} things are bad", findings.0.len()))) } else { Ok(()) }
}

/// What a node with these settings would find.
fn look(settings: &Settings, runs: bool, findings: &mut Findings) {
    let config = &settings.config;
    let typed = settings.shown.iter().filter(|setting| setting.origin != "default").count();
    findings.add("settings", Is::Good, format!("{typed} are not the default; `bacnode config show` lists all"));
    findings.tell("data folder", data_folder(&config.data_dir));
    let key = config.data_dir.join("node.key");
    if key.exists() {
        let read = Identity::load_or_create(&key);
        findings.tell("key", read.map(|_| "can be read, by its owner only".into()).map_err(|error| error.to_string()));
    }
    let place = config.data_dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    match bacnode_node::config::free_disk(place) {
        Some(free) if free < DISK_MIN => {
            findings.add("disk", Is::Bad, format!("{} free: no jobs are taken on a full disk", format_bytes(free)));
        }
        Some(free) => findings.add("disk", Is::Good, format!("{} free", format_bytes(free))),
        None => findings.add("disk", Is::Odd, "how much is free cannot be told"),
    }
    if !runs && let Some(api) = config.api {
        let free = TcpListener::bind(api).map(|_| format!("{api} is free"));
        findings
            .tell("api", free.map_err(|error| format!("{api} cannot be listened on: {error}; --api names another")));
    }
    if !runs {
        for address in &config.listen {
            findings.tell("listen", can_listen(&address.to_string()));
        }
    }
    // A node that runs says itself whom it is connected with.
    if config.bootstrap.is_empty() && !runs {
        findings.add("network", Is::Odd, format!("`{}`, and no peer to join through: --bootstrap", config.network));
    }
    for address in &config.bootstrap {
        findings.tell("bootstrap", reach(&address.to_string()));
    }
    if config.compute && config.docker {
        docker(findings);
    }
}

fn data_folder(dir: &Path) -> std::result::Result<String, String> {
    let shown = dir.display();
    if !dir.exists() {
        return Ok(format!("{shown} is made at the first start"));
    }
    let trial = tempfile::tempfile_in(dir);
    trial
        .map(|_| format!("{shown} can be written to"))
        .map_err(|error| format!("{shown} cannot be written to: {error}"))
}

/// Whether a bootstrap peer can be reached over TCP; over anything else one has to try.
fn reach(address: &str) -> std::result::Result<String, String> {
    let parts: Vec<&str> = address.split('/').collect();
    let value = |names: &[&str]| parts.windows(2).find(|pair| names.contains(&pair[0])).map(|pair| pair[1]);
    let (Some(host), Some(port)) = (value(&["ip4", "ip6", "dns", "dns4", "dns6"]), value(&["tcp"])) else {
        return Ok(format!("{address} (not tried: not TCP)"));
    };
    let port: u16 = port.parse().map_err(|_| format!("{address}: `{port}` is not a port"))?;
    let mut found = (host, port).to_socket_addrs().map_err(|error| format!("{address}: {error}"))?;
    let socket = found.next().ok_or_else(|| format!("{address}: the name leads nowhere"))?;
    let reached = TcpStream::connect_timeout(&socket, PATIENCE);
    reached.map(|_| format!("{address} can be reached")).map_err(|error| format!("{address}: {error}"))
}

/// Whether a port of TCP is free to listen on; of anything else one has to try.
fn can_listen(address: &str) -> std::result::Result<String, String> {
    let parts: Vec<&str> = address.split('/').collect();
    let ([_, "ip4" | "ip6", host, "tcp", port, ..], true) = (&parts[..], parts.len() > 4) else {
        return Ok(format!("{address} (not tried: not TCP)"));
    };
    let ip: std::net::IpAddr = host.parse().map_err(|_| format!("{address}: `{host}` is not an address"))?;
    let port: u16 = port.parse().map_err(|_| format!("{address}: `{port}` is not a port"))?;
    let free = TcpListener::bind((ip, port)).map(|_| format!("{address} is free"));
    free.map_err(|error| format!("{address} cannot be listened on: {error}; --listen names another"))
}

fn docker(findings: &mut Findings) {
    match UnixStream::connect("/var/run/docker.sock") {
        Ok(_) => findings.add("docker", Is::Good, "its daemon answers"),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            findings.add("docker", Is::Bad, "its daemon may not be spoken to: add the user to the group `docker`");
        }
        Err(_) => findings.add("docker", Is::Odd, "no daemon is there: no containers are run, modules are"),
    }
}

/// What is to be had of this machine.
fn machine(findings: &mut Findings) {
    use rustix::process::{Resource, getrlimit};
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if limit < FILES_MIN {
        findings.add("open files", Is::Odd, format!("at most {limit}; a busy node may want {FILES_MIN}"));
    } else {
        findings.add("open files", Is::Good, "enough may be open");
    }
    if bacnode_node::engine::web::has_root_certificates() {
        findings.add("https", Is::Good, "the system's root certificates are there");
    } else {
        let found = "the system has no root certificates: no input comes over https; install ca-certificates";
        findings.add("https", Is::Odd, found);
    }
}

/// What a node says that runs.
async fn of_node(client: &Client, node: &NodeInfo, findings: &mut Findings) {
    let own = format!("v{}", env!("CARGO_PKG_VERSION"));
    let theirs = &node.version.git_version;
    if *theirs == own {
        findings.add("node", Is::Good, format!("{} answers at {}", node.name, client.shown()));
    } else {
        findings.add(
            "node",
            Is::Odd,
            format!("it is {theirs}, this program {own}: restart the one, or update the other"),
        );
    }
    let engines = node.compute.execution_engines.join(", ");
    match engines.as_str() {
        "" => findings.add("engines", Is::Odd, "none: it runs no jobs"),
        engines => findings.add("engines", Is::Good, engines),
    }
    if let Ok(identity) = client.get::<NodeIdentity>("network/identity").await {
        findings.add("network", Is::Good, format!("`{}`", identity.network));
    }
    match client.get::<Peers>("network/peers").await {
        Ok(peers) => {
            let same = |peer: &&Peer| {
                peer.agent.rsplit_once('/').is_none_or(|(_, version)| version == env!("CARGO_PKG_VERSION"))
            };
            if let Some(other) =
                peers.peers.iter().filter(|peer| peer.agent.starts_with("bacnode/")).find(|peer| !same(peer))
            {
                findings.add("versions", Is::Odd, format!("{} runs {}, this program {}", other.name, other.agent, own));
            }
            let count = peers.peers.len();
            let is = if count == 0 { Is::Odd } else { Is::Good };
            let alone = if count == 0 { ": it is alone; --bootstrap joins a network" } else { "" };
            findings.add("peers", is, format!("{count} connected{alone}"));
            if count > 0 {
                findings.add("reached", Is::Good, peers.reach);
            }
            for warning in peers.warnings {
                findings.add("peers", Is::Bad, warning);
            }
        }
        Err(failure) => findings.add("peers", Is::Bad, failure.to_string()),
    }
}
