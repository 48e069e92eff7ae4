//! What `serve` will do: flags over environment over `config.toml` over defaults, each value with its origin.

mod links;
mod policy;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bacnode_bootstrap::network::NetworkFile;
use bacnode_node::config::{Config, Founded, LocalPath};
use bacnode_node::identity::PreSharedKey;
use bacnode_node::identity::{self, KeyError};
use bacnode_node::tokens::Tokens;
use bacnode_protocol::job::{format_bytes, format_cpu, parse_bytes, parse_cpu};
use clap::ArgMatches;
use clap::parser::ValueSource;
use multiaddr::Multiaddr;
use serde::Deserialize;

use crate::args::{LogFormat, LogLevel, Serve};
use crate::error::{Failure, Result};

/// `config.toml`: the flags of `serve` under the same names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct ConfigFile {
    api_listen: Option<SocketAddr>,
    api_cert: Option<PathBuf>,
    api_key: Option<PathBuf>,
    api_needs_token: Option<bool>,
    listen: Option<Vec<String>>,
    bootstrap: Option<Vec<String>>,
    mdns: Option<bool>,
    relay: Option<bool>,
    relay_peers: Option<usize>,
    relay_connections: Option<usize>,
    relay_mib: Option<u64>,
    relay_minutes: Option<u64>,
    network: Option<String>,
    swarm_key: Option<PathBuf>,
    founder: Option<String>,
    name: Option<String>,
    label: Option<Vec<String>>,
    allow_local: Option<Vec<String>>,
    no_compute: Option<bool>,
    no_docker: Option<bool>,
    cpu: Option<String>,
    memory: Option<String>,
    disk: Option<String>,
    allow_peer: Option<Vec<String>>,
    deny_peer: Option<Vec<String>>,
    max_connections: Option<u32>,
    max_per_address: Option<u32>,
    max_per_network: Option<u32>,
    max_own_memory: Option<String>,
    max_upload: Option<String>,
    max_download: Option<String>,
    ready_file: Option<PathBuf>,
    log_level: Option<LogLevel>,
    log_format: Option<LogFormat>,
    policy: policy::PolicyFile,
}

/// Writes a setting into the `config.toml` of a data folder, if it is one and can be so.
///
/// # Errors
/// If it is not, or the file cannot be written.
pub(crate) fn set(dir: &Path, name: &str, values: &[String]) -> Result<PathBuf> {
    let path = dir.join("config.toml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Failure::usage(format!("cannot read {}: {error}", path.display()))),
    };
    let mut file: toml::Table =
        toml::from_str(&text).map_err(|error| Failure::usage(format!("{}: {}", path.display(), error.message())))?;
    // As a number, a truth value or a text, alone or in a list: whatever the setting takes.
    let scalar = |text: &String| {
        let parsed = toml::from_str::<toml::Table>(&format!("value = {text}"));
        let plain = |value: &toml::Value| !value.is_table() && !value.is_array() && !value.is_datetime();
        let value = parsed.ok().and_then(|mut table| table.remove("value")).filter(plain);
        [value, Some(toml::Value::String(text.clone()))].into_iter().flatten().collect::<Vec<_>>()
    };
    let list = toml::Value::Array(values.iter().map(|value| toml::Value::String(value.clone())).collect());
    let single = if let [value] = values { scalar(value) } else { Vec::new() };
    let mut problem = String::new();
    for value in single.into_iter().chain([list]) {
        for table in [None, Some("policy")] {
            let mut tried = file.clone();
            let within = match table {
                None => &mut tried,
                Some(table) => {
                    let table = tried.entry(table).or_insert_with(|| toml::Value::Table(toml::Table::new()));
                    let Some(table) = table.as_table_mut() else { continue };
                    table
                }
            };
            within.insert(name.to_owned(), value.clone());
            match ConfigFile::deserialize(tried.clone()) {
                Ok(_) => {
                    file = tried;
                    let written = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&path, file.to_string()));
                    written.map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
                    return Ok(path);
                }
                Err(error) if !error.message().contains("unknown field") => error.message().clone_into(&mut problem),
                Err(_) => {}
            }
        }
    }
    Err(match problem.as_str() {
        "" => Failure::usage(format!("there is no setting `{name}`")).hint("`bacnode config show` lists them"),
        problem => Failure::usage(format!("`{name}` cannot be that: {problem}")),
    })
}

/// The key of a data folder's swarm, named or by its settings; none for an open network.
pub(crate) fn swarm_key(dir: &Path, named: Option<&Path>) -> Result<Option<PreSharedKey>> {
    let path = match named {
        Some(path) => Some(path.to_owned()),
        None => read_file(dir)?.swarm_key,
    };
    let unusable = |error: KeyError| match &error {
        KeyError::Open { path, .. } => Failure::usage(error.to_string()).hint(format!("chmod 600 {}", path.display())),
        _ => Failure::usage(error.to_string()).hint("`bacnode swarm keygen` makes one"),
    };
    path.map(|path| identity::load_swarm_key(&path).map_err(unusable)).transpose()
}

/// The network that a data folder was set up for, if it was.
pub(crate) fn network(dir: &Path) -> Result<Option<String>> {
    Ok(read_file(dir)?.network)
}

/// One setting, for `config show`.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) origin: String,
}

/// Everything that `serve` needs.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) ready_file: Option<PathBuf>,
    pub(crate) log_level: LogLevel,
    pub(crate) log_format: LogFormat,
    pub(crate) shown: Vec<Setting>,
}

/// Takes each setting from where it comes first, and notes where that was.
struct Chooser<'a> {
    matches: &'a ArgMatches,
    shown: Vec<Setting>,
}

impl Chooser<'_> {
    fn typed(&self, id: &str) -> Option<&'static str> {
        // For `serve`, the global `--api` is where to listen.
        if id == "api_listen" && self.matches.value_source("api") == Some(ValueSource::CommandLine) {
            return Some("flag");
        }
        match self.matches.value_source(id)? {
            ValueSource::CommandLine => Some("flag"),
            ValueSource::EnvVariable => Some("environment"),
            _ => None,
        }
    }

    /// `typed` if it was typed, else the file's, else the default.
    fn choose<T>(&mut self, id: &str, typed: Option<T>, file: Option<T>, default: T, show: impl Fn(&T) -> String) -> T {
        let (value, origin) = match (self.typed(id), typed, file) {
            (Some(origin), Some(value), _) => (value, origin),
            (_, _, Some(value)) => (value, "config.toml"),
            _ => (default, "default"),
        };
        self.shown.push(Setting { name: id.replace('_', "-"), value: show(&value), origin: origin.into() });
        value
    }
}

fn listed<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The data folder: named, or `~/.bacnode`.
pub(crate) fn data_dir(named: Option<&PathBuf>) -> Result<PathBuf> {
    match named {
        Some(dir) => Ok(dir.clone()),
        None => std::env::home_dir()
            .map(|home| home.join(".bacnode"))
            .ok_or_else(|| Failure::usage("there is no home folder").hint("name a data folder with --data-dir")),
    }
}

fn read_file(data_dir: &Path) -> Result<ConfigFile> {
    let path = data_dir.join("config.toml");
    match std::fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).map_err(|error| {
            let message = error.message().lines().next().unwrap_or("unreadable").to_owned();
            Failure::usage(format!("{}: {message}", path.display()))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(ConfigFile::default()),
        Err(error) => Err(Failure::usage(format!("cannot read {}: {error}", path.display()))),
    }
}

impl Settings {
    /// What these flags, this environment and the file in the data folder say.
    pub(crate) fn resolve(args: &Serve, matches: &ArgMatches) -> Result<Self> {
        let dir = data_dir(args.data_dir.as_ref())?;
        let mut file = read_file(&dir)?;
        let mut config = Config::new(dir.clone());
        let mut chooser = Chooser { matches, shown: Vec::new() };
        let dir_origin = chooser.typed("data_dir").unwrap_or("default").to_owned();
        chooser.shown.push(Setting { name: "data-dir".into(), value: dir.display().to_string(), origin: dir_origin });
        let default_api = config.api.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 1234)));
        let api = chooser.choose("api_listen", args.api_listen, file.api_listen, default_api, ToString::to_string);
        let path = |typed: &Option<PathBuf>| typed.clone().map(Some);
        let cert = chooser.choose("api_cert", path(&args.api_cert), path(&file.api_cert), None, path_or_none);
        let key = chooser.choose("api_key", path(&args.api_key), path(&file.api_key), None, path_or_none);
        config.api_tls = cert.zip(key);
        let typed = args.api_needs_token.then_some(true);
        config.api_token = chooser.choose("api_needs_token", typed, file.api_needs_token, false, ToString::to_string);
        if !api.ip().is_loopback() {
            open_to_others(&config, api)?;
        }
        config.api = Some(api);
        let key = chooser.choose(
            "swarm_key",
            args.swarm_key.clone().map(Some),
            file.swarm_key.take().map(Some),
            None,
            path_or_none,
        );
        if key.is_some() {
            config.swarm_key = swarm_key(&dir, key.as_deref())?;
        }
        let network =
            chooser.choose("network", args.network.clone(), file.network.take(), "local".into(), Clone::clone);
        let network_file = NetworkFile::find(&network).map_err(|error| {
            Failure::usage(error.to_string())
                .hint("`bacnode-bootstrap init-network` prints a network file; a name is enough where somebody is named with --bootstrap")
        })?;
        let founded = network_file.as_ref().and_then(|file| file.founder.clone());
        founder(&mut config, args, file.founder.take().or(founded), &mut chooser)?;
        let listen = Config::listen_at(config.swarm_key.is_some()).iter().map(ToString::to_string).collect();
        let listen = chooser.choose("listen", some(&args.listen), file.listen.take(), listen, |l| listed(l));
        config.listen = listen.iter().map(|text| multiaddr("listen", text)).collect::<Result<_>>()?;
        let bootstrap =
            chooser.choose("bootstrap", some(&args.bootstrap), file.bootstrap.take(), Vec::new(), |l| listed(l));
        config.bootstrap = bootstrap.iter().map(|text| peer_address("bootstrap", text)).collect::<Result<_>>()?;
        let public = network_file.as_ref().is_some_and(|file| file.public);
        if public {
            // Strangers hand in jobs: a quarter of the machine, where it would be four fifths.
            let quarter = |of: u64| of / 16 * 5;
            config.total.cpu_milli = quarter(config.total.cpu_milli);
            config.total.memory = quarter(config.total.memory);
            config.total.disk = quarter(config.total.disk);
        }
        match network_file {
            Some(file) => join_network(&mut config, file)?,
            None => config.network = network,
        }
        links::choose(&mut config, &args.links, &file, &mut chooser)?;
        config.mdns = chooser.choose("mdns", args.mdns.then_some(true), file.mdns, false, ToString::to_string);
        if config.mdns && config.swarm_key.is_some() {
            return Err(Failure::usage("--mdns: a private swarm does not call out on the local network")
                .hint("name a peer with --bootstrap"));
        }
        config.name = chooser.choose("name", args.name.clone(), file.name, host_name(), Clone::clone);
        let labels = chooser.choose("label", some(&args.label), file.label, Vec::new(), |l| listed(l));
        config.labels = labels.iter().map(|text| pair("label", text)).collect::<Result<_>>()?;
        let allow = chooser.choose("allow_local", some(&args.allow_local), file.allow_local, Vec::new(), |l| listed(l));
        config.allow_local = allow.iter().map(|text| local_path(text)).collect::<Result<_>>()?;
        if let Some(local) = config.allow_local.iter().find(|local| !local.is_safe_beside(&config.allow_local)) {
            let path = local.path.display();
            return Err(Failure::usage(format!("--allow-local {path}: it lies below a path that tasks may write"))
                .hint("a task could put a link in its place; name folders apart from each other"));
        }
        let no_compute =
            chooser.choose("no_compute", args.no_compute.then_some(true), file.no_compute, false, ToString::to_string);
        config.compute = !no_compute;
        let no_docker =
            chooser.choose("no_docker", args.no_docker.then_some(true), file.no_docker, public, ToString::to_string);
        config.docker = !no_docker;
        policy::choose(&mut config, &args.policy, file.policy, public, &mut chooser)?;
        resources(&mut config, args, (file.cpu, file.memory, file.disk), &mut chooser)?;
        let ready = chooser.choose(
            "ready_file",
            args.ready_file.clone().map(Some),
            file.ready_file.map(Some),
            None,
            path_or_none,
        );
        let log_level = chooser.choose("log_level", args.log_level, file.log_level, LogLevel::Info, named);
        let log_format = chooser.choose("log_format", args.log_format, file.log_format, LogFormat::Text, named);
        Ok(Self { config, ready_file: ready, log_level, log_format, shown: chooser.shown })
    }
}

/// Who lets members in, in a private swarm where the key alone is not enough.
fn founder(config: &mut Config, args: &Serve, file: Option<String>, chooser: &mut Chooser<'_>) -> Result<()> {
    let none = |founder: &Option<String>| founder.clone().unwrap_or_else(|| "none".into());
    let Some(founder) = chooser.choose("founder", args.founder.clone().map(Some), file.map(Some), None, none) else {
        return Ok(());
    };
    if config.swarm_key.is_none() {
        return Err(Failure::usage("--founder: only a private swarm has one")
            .hint("name its key with --swarm-key; `bacnode swarm keygen` makes one"));
    }
    let voucher = identity::load_voucher(&config.data_dir).map_err(|error| Failure::usage(error.to_string()))?;
    let named = Founded::named(&founder, voucher);
    config.founded = Some(named.map_err(|error| {
        Failure::usage(format!("--founder: {error}"))
            .hint("`self`, or the id of the node that makes the invites; `bacnode swarm info` prints it")
    })?);
    Ok(())
}

/// Whoever can reach the API can use the machine: others do so with tokens, over TLS.
fn open_to_others(config: &Config, api: SocketAddr) -> Result<()> {
    let refused = |lacks: &str, hint: &str| {
        Err(Failure::usage(format!("the API does not listen on {api}, where others reach it, without {lacks}"))
            .hint(hint))
    };
    if config.api_tls.is_none() {
        return refused("a certificate", "--api-cert and --api-key name one; or listen on 127.0.0.1 and use ssh");
    }
    let tokens = Tokens::of(&config.data_dir).all().map_err(|error| Failure::usage(error.to_string()))?;
    if tokens.is_empty() {
        return refused("a token", "`bacnode token create NAME` makes one");
    }
    Ok(())
}

fn named(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn some(values: &[String]) -> Option<Vec<String>> {
    (!values.is_empty()).then(|| values.to_vec())
}

#[expect(clippy::ref_option, reason = "it is handed a setting of this type")]
fn path_or_none(path: &Option<PathBuf>) -> String {
    path.as_ref().map_or_else(|| "none".into(), |path| path.display().to_string())
}

fn resources(
    config: &mut Config,
    args: &Serve,
    file: (Option<String>, Option<String>, Option<String>),
    chooser: &mut Chooser<'_>,
) -> Result<()> {
    let wrong = |name: &str, text: &str, like: &str| {
        Failure::usage(format!("--{name} {text}: not an amount")).hint(format!("write it like {like}"))
    };
    let cpu = chooser.choose("cpu", args.cpu.clone(), file.0, format_cpu(config.total.cpu_milli), Clone::clone);
    config.total.cpu_milli = parse_cpu(&cpu).ok_or_else(|| wrong("cpu", &cpu, "2 or 500m"))?;
    let size = |bytes| format_bytes(bytes).replace(' ', "");
    let default = size(config.total.memory);
    let memory = chooser.choose("memory", args.memory.clone(), file.1, default, Clone::clone);
    config.total.memory = parse_bytes(&memory).ok_or_else(|| wrong("memory", &memory, "4GiB"))?;
    let disk = chooser.choose("disk", args.disk.clone(), file.2, size(config.content_max), Clone::clone);
    config.content_max = parse_bytes(&disk).ok_or_else(|| wrong("disk", &disk, "20GiB"))?;
    Ok(())
}

pub(crate) fn multiaddr(flag: &str, text: &str) -> Result<Multiaddr> {
    bacnode_bootstrap::network::multiaddr(text).map_err(|error| {
        Failure::usage(format!("--{flag} {text}: {error}"))
            .hint("write it like /ip4/192.0.2.7/tcp/1235/p2p/12D3KooW…; `bacnode node id` prints a node's own")
    })
}

pub(crate) fn pair(flag: &str, text: &str) -> Result<(String, String)> {
    let (key, value) = text
        .split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| Failure::usage(format!("{flag} `{text}`: expected KEY=VALUE")))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn local_path(text: &str) -> Result<LocalPath> {
    let (path, writable) = match text.rsplit_once(':') {
        Some((path, "rw")) => (path, true),
        Some((path, "ro")) => (path, false),
        _ => (text, false),
    };
    // A glob's fixed part is what is allowed: `/data/*` and `/data` mean the same.
    let path = path.trim_end_matches("/**").trim_end_matches("/*");
    let (name, path) = path.split_once('=').unwrap_or((path, path));
    if [name, path].iter().any(|path| !path.starts_with('/') || path.contains('*')) {
        return Err(Failure::usage(format!("--allow-local {text}: expected an absolute path"))
            .hint("write it like /data, /data:rw, or /logs=/srv/web/logs where jobs are to call it /logs"));
    }
    Ok(LocalPath { name: PathBuf::from(name), path: PathBuf::from(path), writable })
}

/// Where a peer is: a multiaddr, or `HOST:PORT`, which is TCP.
pub(crate) fn peer_address(flag: &str, text: &str) -> Result<Multiaddr> {
    bacnode_bootstrap::network::address(text).map_err(|error| {
        Failure::usage(format!("--{flag} {text}: {error}"))
            .hint("write it like 192.0.2.7:1235 or /ip4/192.0.2.7/tcp/1235/p2p/12D3KooW…; `bacnode node id` prints a node's own")
    })
}

/// Takes a network by name or from a file.
fn join_network(config: &mut Config, file: NetworkFile) -> Result<()> {
    file.check(config.swarm_key.map(identity::fingerprint)).map_err(|error| {
        Failure::usage(error.to_string()).hint("--swarm-key names the key; ask for the file again if it was changed")
    })?;
    if config.bootstrap.is_empty() {
        let address = |(number, text): (usize, &String)| {
            bacnode_bootstrap::network::address(text).map_err(|error| {
                Failure::usage(format!("the network file `{}`: address {number}, `{text}`: {error}", file.name))
                    .hint("write it like 192.0.2.7:1235 or /ip4/192.0.2.7/tcp/1235/p2p/12D3KooW…")
            })
        };
        config.bootstrap = (1..).zip(&file.addresses).map(address).collect::<Result<_>>()?;
    }
    if config.bootstrap.is_empty() {
        let message = format!("the network file `{}` holds no address to join through yet", file.name);
        return Err(Failure::usage(message)
            .hint("name a peer with --bootstrap or BACNODE_BOOTSTRAP; bootstrap/README.md says how to host one"));
    }
    config.network = file.name;
    config.connections_max = file.limits.max_connections.unwrap_or(config.connections_max);
    config.per_peer_max = file.limits.max_per_peer.unwrap_or(config.per_peer_max);
    Ok(())
}

/// This machine's name, as a label.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().chars().take(32).collect()
}
