//! Containers, through the API of a Docker daemon.
//!
//! A container gets nothing that its task does not need: no capabilities, no new privileges, a root that it cannot write,
//! limits of memory, cpu, processes and descriptors, a user without rights, and no network unless the operator allows one.
//! Which image a name stands for is looked up before the bid, and that very image is what runs. A *guard*, a process of its
//! own, ends containers whose owner's word has run out should this process be gone; what both left behind is removed at the
//! next start.

mod container;
mod doorway;
pub mod gpu;
pub mod guard;
mod image;
mod output;
mod ports;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bacnode_protocol::compute::{Facts, Refusal, Web};
use bacnode_protocol::id::ExecutionId;
use bacnode_protocol::wire::bounded::TextMax;
use bacnode_protocol::wire::task::{Access, OpenPort, Task};
use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};

use tokio::net::TcpListener;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, Semaphore};
use tokio_util::task::AbortOnDropHandle;

pub(super) use self::container::{ContainerEnd, PIDS_MAX, Work, default_user};
use self::gpu::{Gpu, Gpus};
use self::guard::Guard;
use self::image::Images;
use self::ports::Ports;
pub(super) use self::ports::variables as port_variables;
use super::RunError;
use super::egress::{self, Egress};
use super::note::Note;

/// Names the node whose container it is.
const NODE_LABEL: &str = "bacnode.node";
/// Names what runs in it.
const EXECUTION_LABEL: &str = "bacnode.execution";
/// How long a program may take to end after it was told to.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// After a removal that failed, how long until it is tried again.
const REMOVE_PAUSES: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];
/// How long the daemon may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(3);

/// A Docker daemon that works for this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    docker: Docker,
    node: String,
    images: Arc<Images>,
    guard: Arc<Guard>,
    gpus: Arc<Gpus>,
    ports: Arc<Ports>,
    making: Arc<Making>,
    web: Web,
    /// Connections of all proxies together.
    room: Arc<Semaphore>,
}

/// Containers that are being made. Making one cannot be called off half-way: the daemon would finish what nobody knows of.
#[derive(Debug, Default)]
struct Making(Mutex<HashMap<ExecutionId, Arc<AsyncMutex<()>>>>);

impl Making {
    async fn turn(&self, execution: &ExecutionId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(*execution).or_default())
        };
        turn.lock_owned().await
    }
}

impl Engine {
    /// Speaks to the daemon that `DOCKER_HOST` names, or to the local one.
    ///
    /// # Errors
    /// If there is none that answers, in words.
    pub(crate) async fn connect(
        node: String,
        program: PathBuf,
        dir: &Path,
        web: Web,
        room: Arc<Semaphore>,
        ports: RangeInclusive<u16>,
    ) -> Result<Self, String> {
        let docker = Docker::connect_with_defaults().map_err(|error| error.to_string())?;
        let hello = async {
            let docker = docker.negotiate_version().await?;
            let version = docker.version().await?;
            Ok::<_, DockerError>((docker, version))
        };
        let answered = tokio::time::timeout(HELLO_TIMEOUT, hello).await;
        let (docker, version) =
            answered.map_err(|_| "it does not answer".to_owned())?.map_err(|error| plain(&error))?;
        let gpus = gpu::find().await;
        let (os, arch) = (version.os.unwrap_or_default(), version.arch.unwrap_or_default());
        tracing::info!(version = version.version.unwrap_or_default(), %os, %arch, gpus = gpus.len(), "docker is here");
        let images = Images::new(docker.clone(), os, arch, web);
        let guard = Guard::new(program, dir.to_owned());
        let (images, guard, gpus) = (Arc::new(images), Arc::new(guard), Arc::new(Gpus::new(gpus)));
        let ports = Arc::new(Ports::new(ports));
        Ok(Self { docker, node, images, guard, gpus, ports, making: Arc::default(), web, room })
    }

    /// The GPUs that containers may be given.
    #[must_use]
    pub fn gpus(&self) -> &[Gpu] {
        self.gpus.all()
    }

    /// Whether containers can be held to the domains that their jobs name.
    #[must_use]
    pub fn proxies(&self) -> bool {
        doorway::is_possible()
    }

    /// What an image's name stands for, and how much of it lies here.
    ///
    /// # Errors
    /// If it is not to be had, or is made for other machines, or a port that its task wants is taken.
    pub async fn look_at(&self, image: &str, task: &Task) -> Result<Facts, Refusal> {
        self.ports.look_at(task)?;
        self.images.look_at(image).await
    }

    /// Takes the ports of a task for a run, which has them until it is removed.
    pub(super) fn open_ports(&self, execution: &ExecutionId, task: &Task) -> Result<Vec<OpenPort>, RunError> {
        self.ports.open(execution, task)
    }

    /// What a run that a former life of the node left has is given to no other.
    pub(super) fn reserve(&self, execution: &ExecutionId, note: &Note) {
        self.gpus.take_again(execution, &note.gpus);
        self.ports.open_again(execution, &note.ports());
    }

    /// Runs a task to the end of its program. The container is left for [`Engine::remove`].
    pub(super) async fn run(&self, work: Work<'_>, mut note: Note) -> Result<ContainerEnd, RunError> {
        let image = self.images.fetch(work.image, work.digest).await?;
        let gpus = self.gpus.take(&work.execution, work.task.resources.gpu)?;
        self.guard
            .watch(&work.execution, work.until)
            .map_err(|error| RunError::Node(format!("cannot have its container watched: {error}")))?;
        note.gpus = gpus.iter().map(|gpu| gpu.id.clone()).collect();
        note.write(work.result).map_err(|error| RunError::Node(format!("cannot note what it runs: {error}")))?;
        let turn = self.making.turn(&work.execution).await;
        let (turn, _proxy) = self.proxy(&work, turn).await?;
        let output = container::start(&self.docker, &self.guard, &self.node, &image, &gpus, &work, turn).await?;
        let left = Duration::from_millis(work.task.time_limit().as_millis());
        container::watch(&self.docker, output, left, work).await
    }

    /// Goes on with a container that a former life of the node left, as [`Engine::run`] would have.
    pub(super) async fn resume(&self, work: Work<'_>) -> Result<ContainerEnd, RunError> {
        self.guard
            .watch(&work.execution, work.until)
            .map_err(|error| RunError::Node(format!("cannot have its container watched: {error}")))?;
        let _proxy = match &work.task.network {
            Access::Http(domains) => {
                let listener = doorway::reopen(&self.docker, &work.execution).await?;
                Some(self.serve_proxy(domains, listener))
            }
            _ => None,
        };
        let left = container::left(&self.docker, &work).await?;
        let output = self.guard.attach(&work.execution, work.result, work.log_bytes_max, true).await?;
        container::watch(&self.docker, output, left, work).await
    }

    /// The way out of a task that may speak to some web servers, for as long as this is kept.
    async fn proxy(
        &self,
        work: &Work<'_>,
        turn: OwnedMutexGuard<()>,
    ) -> Result<(OwnedMutexGuard<()>, Option<AbortOnDropHandle<()>>), RunError> {
        let Access::Http(domains) = &work.task.network else { return Ok((turn, None)) };
        let (docker, node, execution) = (self.docker.clone(), self.node.clone(), work.execution);
        // As with the container itself: whoever waits for it, it is made to the end before it can be removed.
        let opened = tokio::spawn(async move { (doorway::open(&docker, &node, &execution).await, turn) }).await;
        let (listener, turn) = opened.map_err(|_| RunError::Node("making its network broke down".into()))?;
        Ok((turn, Some(self.serve_proxy(domains, listener?))))
    }

    fn serve_proxy(&self, domains: &[TextMax<255>], listener: TcpListener) -> AbortOnDropHandle<()> {
        let egress = Egress::new(domains, self.web, Arc::clone(&self.room));
        AbortOnDropHandle::new(tokio::spawn(egress::serve(egress::Door::Tcp(listener), egress)))
    }

    /// Lets a run go on until then, whatever becomes of this process.
    pub(super) fn extend(&self, execution: &ExecutionId, until: u64) {
        self.guard.extend(execution, until);
    }

    /// Ends a run's container, if there is one, with or without time to do so itself, and removes it.
    pub(super) async fn remove(&self, execution: &ExecutionId, patiently: bool) {
        let _turn = self.making.turn(execution).await;
        if patiently {
            let grace = StopContainerOptionsBuilder::new().t(i32::try_from(STOP_GRACE.as_secs()).unwrap_or(5)).build();
            let _ = self.docker.stop_container(&container::name(execution), Some(grace)).await;
        }
        for pause in REMOVE_PAUSES {
            match remove_all(&self.docker, execution).await {
                Ok(()) => {
                    self.guard.all_written(execution).await;
                    self.guard.forget(execution);
                    self.gpus.free(execution);
                    return self.ports.free(execution);
                }
                Err(error) => tracing::warn!(%execution, error = plain(&error), "cannot remove a container"),
            }
            tokio::time::sleep(pause).await;
        }
        // The guard tries on, from now. What it has is not given to others.
        self.guard.extend(execution, 0);
    }

    /// What a former life of this node left, and when it must have ended.
    ///
    /// # Errors
    /// If the daemon does not tell, in words.
    pub(super) async fn left(&self) -> Result<BTreeMap<ExecutionId, u64>, String> {
        let containers = self.containers().await.map_err(|error| plain(&error))?;
        let mut left = self.guard.left().await;
        left.retain(|execution, _| containers.iter().any(|(_, of)| of.as_ref() == Some(execution)));
        Ok(left)
    }

    /// Removes every container of this node that is for none of these runs; what cannot be removed is left to the guard.
    pub(super) async fn sweep(&self, kept: &BTreeSet<ExecutionId>) {
        let containers = match self.containers().await {
            Ok(containers) => containers,
            Err(error) => {
                tracing::warn!(error = plain(&error), "cannot see what is left");
                return self.guard.end_others(kept);
            }
        };
        let mut held = kept.clone();
        for (id, execution) in containers {
            if execution.is_some_and(|execution| kept.contains(&execution)) {
                continue;
            }
            tracing::info!(container = &id[..id.len().min(12)], "removing what a former life left");
            match self.docker.remove_container(&id, Some(by_force())).await {
                Err(error) if !is_gone(&error) => {
                    tracing::warn!(error = plain(&error), "cannot remove it");
                    held.extend(execution);
                }
                _ => {}
            }
        }
        self.guard.forget_others(&held);
        self.guard.end_others(kept);
    }

    /// Every container of this node, and what it is for.
    async fn containers(&self) -> Result<Vec<(String, Option<ExecutionId>)>, DockerError> {
        let own = [("label".to_owned(), vec![format!("{NODE_LABEL}={}", self.node)])].into_iter().collect();
        let options = ListContainersOptionsBuilder::new().all(true).filters(&own).build();
        let containers = self.docker.list_containers(Some(options)).await?;
        let named = containers.into_iter().filter_map(|container| {
            let execution = container.labels.as_ref().and_then(|labels| labels.get(EXECUTION_LABEL)?.parse().ok());
            Some((container.id?, execution))
        });
        Ok(named.collect())
    }
}

/// Removes what was made for an execution, whether it is there or not.
async fn remove_all(docker: &Docker, execution: &ExecutionId) -> Result<(), DockerError> {
    for name in [container::name(execution), doorway::name(execution)] {
        match docker.remove_container(&name, Some(by_force())).await {
            Err(error) if !is_gone(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// It is not there, or somebody else is removing it.
fn is_gone(error: &DockerError) -> bool {
    matches!(error, DockerError::DockerResponseServerError { status_code: 404 | 409, .. })
}

fn by_force() -> bollard::query_parameters::RemoveContainerOptions {
    RemoveContainerOptionsBuilder::new().force(true).v(true).build()
}

/// What the daemon says, without what the library puts around it.
fn plain(error: &DockerError) -> String {
    match error {
        DockerError::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        other => other.to_string(),
    }
}

/// When an owner's word runs out, as it stands now.
pub(super) type Until = Arc<AtomicU64>;
