//! Wiring: constructs the parts, starts them, stops them in reverse.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bacnode_protocol::time::Span;
use bacnode_protocol::wire::signed::Signer;
use bacnode_protocol::wire::task::{Engine, Engines, Resources};
use bacnode_protocol::wire::{VERSION, VERSION_GROUPS};
use bacnode_protocol::{compute, guardian};
use libp2p::Multiaddr;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, Details, Guard, configuration};
use crate::config::{Config, Role};
use crate::content::{Content, ContentError, Lies, UPLOAD, USER};
use crate::driver::{Announcer, Driver, EVENTS_MAX, Event, Groups};
use crate::engine::docker::{self, gpu::Gpu};
use crate::engine::publish::Publisher;
use crate::engine::{Report, Runner, egress, wasm};
use crate::identity::{Identity, KeyError};
use crate::network::{self, DagFetcher, Handlers, Links, Network};
use crate::store::{Store, StoreError, UsageBooks};
use crate::tokens::Tokens;

/// Workers kept warm.
const WARM_WORKERS: usize = 2;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Its data folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its content.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// Its network.
    #[error("{0}")]
    Network(String),
    /// Its API.
    #[error("cannot listen for the API on {address}: {source}")]
    Api {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// What the API proves itself with.
    #[error("the API's certificate cannot be used: {cause}")]
    Tls {
        /// Why.
        cause: String,
    },
    /// Something else of the system's.
    #[error("{what}: {source}")]
    System {
        /// What was done.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

/// A node that runs.
#[derive(Debug)]
pub struct Node {
    network: Network,
    content: Content,
    listening: Vec<Multiaddr>,
    /// Where its API listens, and whether over TLS.
    api: Option<(SocketAddr, bool)>,
    network_name: String,
    events: mpsc::Sender<Event>,
    wasm: Option<wasm::Engine>,
    stop: CancellationToken,
    api_stop: CancellationToken,
    api_task: Option<tokio::task::JoinHandle<()>>,
    driver_task: Option<tokio::task::JoinHandle<()>>,
    swarm_task: tokio::task::JoinHandle<()>,
}

impl Node {
    /// Starts a node with these settings.
    ///
    /// # Errors
    /// If the data folder, the key, the network or the API cannot be had.
    pub async fn start(mut config: Config) -> Result<Self, StartError> {
        raise_descriptor_limit();
        let folder = |source| StoreError::Folder { path: config.data_dir.clone(), source };
        std::fs::create_dir_all(&config.data_dir).map_err(folder)?;
        let store = Store::open(&config.data_dir)?;
        let identity = Identity::load_or_create(&config.data_dir.join("node.key"))?;
        let epoch = store.next_epoch()?;
        let signer = Signer::new(identity.signing.clone(), config.network_id());
        let content = Content::open(store.clone(), &config.data_dir, config.content_max)?;
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let stop = CancellationToken::new();
        let handlers = Handlers { content: Some(content.clone()), events: events.clone() };
        // A swarm is large, and need not be so in whatever waits for this.
        let started = Box::pin(network::start(&config, &identity, &store, handlers, stop.clone())).await;
        let mut started = started.map_err(|error| StartError::Network(error.to_string()))?;
        let network = started.network.clone();
        let mut node = Self {
            network: network.clone(),
            content: content.clone(),
            listening: std::mem::take(&mut started.listening),
            api: None,
            network_name: config.network.clone(),
            events: events.clone(),
            wasm: None,
            stop,
            api_stop: CancellationToken::new(),
            api_task: None,
            driver_task: None,
            swarm_task: tokio::spawn(async {}),
        };
        let fetcher = Arc::new(DagFetcher::new(network.clone(), content.clone()));
        let wasm = wasm_engine(&config, &store)?;
        let (reports, engine_reports) = mpsc::channel::<Report>(1024);
        let runs_jobs = config.compute && config.role == Role::Full;
        let room = egress::room();
        let docker = if runs_jobs && config.docker { docker_engine(&config, &network, &room).await? } else { None };
        let gpus: Vec<Gpu> = docker.iter().flat_map(docker::Engine::gpus).cloned().collect();
        config.policy.proxies = docker.as_ref().is_some_and(docker::Engine::proxies);
        config.total.gpu = u32::try_from(gpus.len()).unwrap_or(u32::MAX);
        let engines = match (runs_jobs, &docker) {
            (false, _) => Engines::default(),
            (true, None) => Engines::of(&[Engine::Wasm]),
            (true, Some(_)) => Engines::of(&[Engine::Wasm, Engine::Docker]),
        };
        if engines == Engines::default() {
            // It gives nothing to jobs, and so says nothing of what it has.
            config.total = Resources::default();
        }
        let publisher = match config.publish_listen.filter(|_| runs_jobs) {
            Some(address) => {
                let started = Publisher::start(address, content.clone(), network.clone(), node.stop.clone()).await;
                let cannot = |source| StartError::System { what: "cannot listen for the local publisher", source };
                Some(started.map_err(cannot)?)
            }
            None => None,
        };
        config.policy.publishes = publisher.is_some();
        let runner = Runner::new(
            content.clone(),
            Arc::clone(&fetcher) as _,
            wasm.clone(),
            docker,
            publisher,
            &config,
            network.me,
            room,
            reports,
        );
        let runner = runner.map_err(|source| StartError::System { what: "cannot make the folder of runs", source })?;
        let groups = Groups::default();
        if engines.has(Engine::Wasm) {
            wasm.warm_up().await;
        }
        node.wasm = Some(wasm);
        forward(engine_reports, events.clone());
        listen_to_content(&content, &events)?;
        listen_to_content(content.private(), &events)?;
        let announcer = Announcer::new(
            signer.clone(),
            epoch,
            config.gossip,
            config.name.clone(),
            labels(&config, &gpus),
            engines,
            config.total,
            // Who only helps others to meet hears nothing of the market.
            if config.role == Role::Full { VERSION_GROUPS } else { VERSION },
        );
        let driver = Driver {
            store: store.clone(),
            content: content.clone(),
            network: network.clone(),
            links: Links::new(network.clone()),
            fetcher: Arc::clone(&fetcher) as _,
            runner: runner.clone(),
            events: events.clone(),
            announcer,
            result_max: config.limits.output_bytes,
            openness: config.openness.clone(),
            keep_results: config.keep_results,
            keep_jobs: config.keep_jobs,
            guarding: guardian::Config {
                lease: Span(u64::try_from(config.ownership_lease.as_micros()).unwrap_or(u64::MAX)),
                guards: config.guards && config.role == Role::Full,
                life: 0,
            },
            groups: groups.clone(),
        };
        let records = store.records()?;
        drop_stray_pins(&content, &records)?;
        drop_stray_pins(content.private(), &records)?;
        let usage = UsageBooks::open(&store)?;
        let left = runner.left().await;
        let running = driver.start(&signer, epoch, machine(&config, engines, &gpus), records, left, usage);
        runner.sweep(&running.runs()).await;
        if store.draining()? {
            let (answer, _) = oneshot::channel();
            let _ = events.send(Event::Drain(true, answer)).await;
        }
        node.driver_task = Some(tokio::spawn(running.run(receiver)));
        if config.role == Role::Full {
            network.provide_owner();
        }
        for pin in content.pins()? {
            network.provide(pin.root);
        }
        let config = Arc::new(config);
        let tokens = Arc::new(Tokens::of(&config.data_dir));
        let api = Api {
            store,
            content,
            network,
            events,
            fetcher,
            runner,
            config: Arc::clone(&config),
            details: Details::default(),
            groups,
        };
        started.serve_live(api.runner.clone(), Arc::new(api.clone()));
        let at_socket = Guard::new(false, &tokens);
        let socket = config.data_dir.join("api.sock");
        if config.api.is_some() || config.role == Role::Bootstrap {
            tokio::spawn(crate::api::serve_socket(socket, api.clone(), at_socket, node.api_stop.clone()));
        }
        if let Some(address) = config.api {
            let tls = config.api_tls.as_ref().map(|(certificate, key)| configuration(certificate, key)).transpose();
            let tls = tls.map_err(|cause| StartError::Tls { cause })?;
            let listener = tokio::net::TcpListener::bind(address).await;
            let listener = listener.map_err(|source| StartError::Api { address, source })?;
            node.api = listener.local_addr().ok().map(|address| (address, tls.is_some()));
            let asks = config.api_token || !address.ip().is_loopback();
            let guard = Guard::new(asks, &tokens);
            node.api_task = Some(tokio::spawn(crate::api::serve(listener, tls, api, guard, node.api_stop.clone())));
        }
        node.swarm_task = started.task;
        Ok(node)
    }

    /// A handle on its network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Its content.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Where its API listens.
    #[must_use]
    pub fn api(&self) -> Option<SocketAddr> {
        self.api.map(|(address, _)| address)
    }

    /// Where peers connect.
    #[must_use]
    pub fn listening(&self) -> &[Multiaddr] {
        &self.listening
    }

    /// Who it is and where, for others to join.
    pub async fn identity(&self) -> bacnode_protocol::api::NodeIdentity {
        crate::api::identity(&self.network, &self.network_name, self.api).await
    }

    /// Adds a file made of `bytes`, pinned for the user, and says in the DHT that it can be had here.
    ///
    /// # Errors
    /// If there is no room or the disk fails.
    pub fn add(&self, bytes: &[u8]) -> Result<bacnode_protocol::content::Cid, ContentError> {
        let root = self.content.import_bytes(bytes, USER)?.root;
        self.network.provide(root);
        Ok(root)
    }

    /// Brings content here over the network, pinned for the user.
    ///
    /// # Errors
    /// If nobody has it, in words.
    pub async fn fetch(&self, root: bacnode_protocol::content::Cid) -> Result<u64, String> {
        use crate::network::Fetcher as _;
        let fetcher = DagFetcher::new(self.network.clone(), self.content.clone());
        fetcher.fetch(root, Vec::new(), u64::MAX, USER.into()).await
    }

    /// Takes leave of the network and ends everything.
    pub async fn stop(mut self) {
        self.api_stop.cancel();
        if let Some(task) = self.api_task.take() {
            let _ = tokio::time::timeout(std::time::Duration::from_secs(2), task).await;
        }
        let (left, leaving) = oneshot::channel();
        if self.events.send(Event::Leave(left)).await.is_ok() {
            let _ = tokio::time::timeout(std::time::Duration::from_secs(5), leaving).await;
        }
        if let Some(wasm) = &self.wasm {
            wasm.shut_down().await;
        }
        self.stop.cancel();
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), &mut self.swarm_task).await;
    }
}

/// Connections, files and workers take descriptors; many systems give few at first, and more to whoever asks.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// The program that workers and the guard are.
fn own_program(config: &Config) -> Result<PathBuf, StartError> {
    let own = || std::env::current_exe();
    let what = "cannot find this program to start workers with";
    config.worker.clone().map_or_else(own, Ok).map_err(|source| StartError::System { what, source })
}

/// The Docker daemon, if there is one. Without it everything else works.
async fn docker_engine(
    config: &Config,
    network: &Network,
    room: &Arc<Semaphore>,
) -> Result<Option<docker::Engine>, StartError> {
    let dir = config.data_dir.join("guard");
    let (me, program, web) = (network.me().to_string(), own_program(config)?, config.policy.web);
    match docker::Engine::connect(me, program, &dir, web, Arc::clone(room), config.ports.clone()).await {
        Ok(engine) => Ok(Some(engine)),
        Err(cause) => {
            tracing::info!(%cause, "docker is not here: no containers are run");
            Ok(None)
        }
    }
}

fn wasm_engine(config: &Config, store: &Store) -> Result<wasm::Engine, StartError> {
    let program = own_program(config)?;
    Ok(wasm::Engine::new(program, config.data_dir.join("cache").join("wasm"), store.secret()?, WARM_WORKERS))
}

fn machine(config: &Config, engines: Engines, gpus: &[Gpu]) -> compute::Config {
    compute::Config {
        engines,
        total: config.total,
        labels: labels(config, gpus).into_iter().collect(),
        queue_max: config.queue_max,
        per_owner_max: config.per_peer_max,
        local_paths: config
            .allow_local
            .iter()
            .map(|local| (local.name.to_string_lossy().into_owned(), local.writable))
            .collect(),
        orphan_max: Span::secs(24 * 3600),
        timeout_max: Span::secs(config.limits.timeout_s),
        policy: config.policy.clone(),
    }
}

/// The operator's labels, and what the node finds out itself.
fn labels(config: &Config, gpus: &[Gpu]) -> Vec<(String, String)> {
    let own = [("Architecture", crate::api::go_arch()), ("Operating-System", std::env::consts::OS)];
    let own = own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    // A label's value has no spaces.
    let gpus = gpus.iter().enumerate().flat_map(|(index, gpu)| {
        let memory = format!("{}-MiB", gpu.memory >> 20);
        [(format!("GPU-{index}"), gpu.name.replace(' ', "-")), (format!("GPU-{index}-Memory"), memory)]
    });
    own.chain(gpus).chain(config.labels.iter().cloned()).collect()
}

fn forward(mut reports: mpsc::Receiver<Report>, events: mpsc::Sender<Event>) {
    tokio::spawn(async move {
        while let Some(report) = reports.recv().await {
            if events.send(Event::Report(report)).await.is_err() {
                return;
            }
        }
    });
}

/// A run that the end of a former life cut short may have pinned a result that no record speaks of, and an upload what
/// nobody was told of.
fn drop_stray_pins(content: &Content, records: &bacnode_protocol::record::Records) -> Result<(), ContentError> {
    let held = records.held.iter().filter(|held| held.result.is_some() && (content.is_private() || !held.withheld));
    let held: std::collections::BTreeSet<String> = held.map(|held| held.execution.to_string()).collect();
    let stray = |reason: &&String| *reason == UPLOAD || reason.starts_with("e-") && !held.contains(*reason);
    for pin in content.pins()? {
        for reason in pin.reasons.iter().filter(stray) {
            content.unpin(&pin.root, reason)?;
        }
    }
    Ok(())
}

/// The compute machine bids better when it knows what lies here; one that misses a change only bids worse.
fn listen_to_content(content: &Content, events: &mpsc::Sender<Event>) -> Result<(), ContentError> {
    let (events, private) = (events.clone(), content.is_private());
    content.listen(Box::new(move |root, lies| {
        let Lies { size, guarded } = lies.unwrap_or(Lies { size: 0, guarded: false });
        let holding = compute::Holding { root, size, private, guarded };
        let _ = events.try_send(Event::Holding(holding, lies.is_some()));
    }))
}

/// Waits for SIGTERM, SIGINT or, for nodes that are somebody's children, the end of stdin.
///
/// # Errors
/// If the system does not let signals be waited for.
pub async fn until_told(until_eof: bool) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (ended, end) = oneshot::channel::<()>();
    let mut ended = Some(ended);
    if until_eof {
        let ended = ended.take();
        // A thread of its own: one of the runtime's would have to be waited for at the end.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            drop(ended);
        });
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = end => {}
    }
    drop(ended);
    Ok(())
}
