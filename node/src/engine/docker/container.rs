//! One container: what it is given, and what it prints and does until it ends.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bacnode_protocol::id::ExecutionId;
use bacnode_protocol::wire::market::FailureKind;
use bacnode_protocol::wire::task::{Access, DockerTask, OpenPort, Task};
use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::models::{
    ContainerCreateBody, ContainerStateStatusEnum, DeviceRequest, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, Mount as BindMount, MountType, ResourcesUlimits,
};
use bollard::query_parameters::{CreateContainerOptionsBuilder, StatsOptionsBuilder, WaitContainerOptionsBuilder};
use futures::StreamExt as _;
use tokio::sync::OwnedMutexGuard;

use super::super::RunError;
use super::super::inputs::Mount;
use super::gpu::{Gpu, Vendor};
use super::guard::Guard;
use super::image::Image;
use super::output::Output;
use super::{EXECUTION_LABEL, NODE_LABEL, Until, doorway, plain, ports};

/// Processes and threads of one container.
pub(in crate::engine) const PIDS_MAX: i64 = 256;
/// With so many, one that could not be started is why a program failed: some end before they are counted.
const PIDS_CROWDED: u64 = PIDS_MAX.unsigned_abs() / 16 * 15;
/// Open files of one process.
const FILES_MAX: i64 = 1_024;
/// Bytes of the folder for temporary files; they count as memory.
const TMP_BYTES: u64 = 64 << 20;
/// Somebody without rights, for nodes that run as root.
pub(in crate::engine) const NOBODY: u32 = 65_534;
/// The daemon makes no containers with less memory.
const MEMORY_MIN: u64 = 6 << 20;
/// The kernel gives no less.
const CPU_MILLI_MIN: u64 = 10;
/// After a program's end, how long its last words are waited for.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A task as a container sees it.
pub(in crate::engine) struct Work<'a> {
    pub(in crate::engine) execution: ExecutionId,
    pub(in crate::engine) task: &'a Task,
    pub(in crate::engine) docker: &'a DockerTask,
    pub(in crate::engine) image: &'a str,
    pub(in crate::engine) digest: Option<[u8; 32]>,
    pub(in crate::engine) mounts: Vec<Mount>,
    pub(in crate::engine) env: Vec<(String, String)>,
    /// Ports of the machine that lead to it.
    pub(in crate::engine) ports: &'a [OpenPort],
    /// Where stdout and stderr go.
    pub(in crate::engine) result: &'a Path,
    pub(in crate::engine) log_bytes_max: u64,
    /// The longest file that it may write.
    pub(in crate::engine) output_bytes_max: u64,
    pub(in crate::engine) until: &'a Until,
    /// Called when the program has been started.
    pub(in crate::engine) started: &'a (dyn Fn() + Sync),
}

/// How a container ended.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::engine) struct ContainerEnd {
    pub(in crate::engine) exit_code: i64,
    pub(in crate::engine) out_of_memory: bool,
    pub(in crate::engine) cpu_ms: u64,
    pub(in crate::engine) memory_peak: u64,
    /// Whether it was seen to have about as many processes as it may.
    pub(in crate::engine) out_of_processes: bool,
}

/// The container of an execution.
pub(super) fn name(execution: &ExecutionId) -> String {
    format!("bacnode-{execution}")
}

/// Whom a container runs as unless its task says otherwise: as this process, or as nobody if that is root.
pub(in crate::engine) fn default_user() -> (u32, u32) {
    match (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()) {
        (0, _) => (NOBODY, NOBODY),
        user => user,
    }
}

/// Makes a container, has the guard write what it prints, and starts it; `turn` is held until that is done, whoever waits
/// for it.
pub(super) async fn start(
    docker: &Docker,
    guard: &Arc<Guard>,
    node: &str,
    image: &Image,
    gpus: &[&Gpu],
    work: &Work<'_>,
    turn: OwnedMutexGuard<()>,
) -> Result<Output, RunError> {
    let (docker, guard, body) = (docker.clone(), Arc::clone(guard), body(node, image, gpus, work));
    let (execution, result, log_bytes_max) = (work.execution, work.result.to_owned(), work.log_bytes_max);
    let made = tokio::spawn(async move {
        let _turn = turn;
        let name = name(&execution);
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        docker.create_container(Some(options), body).await.map_err(|error| refused(&error))?;
        // Before the start, or its first words are lost: the daemon keeps none.
        let output = guard.attach(&execution, &result, log_bytes_max, false).await?;
        docker.start_container(&name, None).await.map_err(|error| refused(&error))?;
        Ok(output)
    });
    made.await.map_err(|_| RunError::Node("making the container broke down".into()))?
}

/// How long a container that was made in a former life of the node may still run.
pub(super) async fn left(docker: &Docker, work: &Work<'_>) -> Result<Duration, RunError> {
    let found = docker.inspect_container(&name(&work.execution), None).await;
    let found = found.map_err(|error| RunError::Node(format!("docker: {}", plain(&error))))?;
    let state = found.state.unwrap_or_default();
    if state.status == Some(ContainerStateStatusEnum::CREATED) {
        return Err(RunError::Node("the node went down before it was started".into()));
    }
    let at = |time: &Option<String>| {
        let time = chrono::DateTime::parse_from_rfc3339(time.as_deref().unwrap_or_default());
        time.map_err(|_| RunError::Node("docker does not tell when the container ran".into()))
    };
    let runs = state.running == Some(true);
    let until = if runs { chrono::Utc::now() } else { at(&state.finished_at)?.to_utc() };
    let age = (until - at(&state.started_at)?.to_utc()).to_std().unwrap_or_default();
    let left =
        Duration::from_millis(work.task.time_limit().as_millis()).checked_sub(age).ok_or_else(|| too_long(work))?;
    // One that has ended has only to be looked at.
    Ok(if runs { left } else { left.max(LAST_WORDS) })
}

fn too_long(work: &Work<'_>) -> RunError {
    let seconds = work.task.timeout_ms as f64 / 1_000.0;
    RunError::task(FailureKind::Time, format!("the program ran longer than its {seconds} s"))
}

/// Follows a container, that may run for as long as is `left`, to the end of its program.
pub(super) async fn watch(
    docker: &Docker,
    mut output: Output,
    left: Duration,
    work: Work<'_>,
) -> Result<ContainerEnd, RunError> {
    let name = name(&work.execution);
    (work.started)();
    let ends = async {
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        let mut ended = std::pin::pin!(docker.wait_container(&name, Some(options)));
        match ended.next().await {
            // The exit code is asked for below, with the reason.
            None | Some(Ok(_) | Err(DockerError::DockerContainerWaitError { .. })) => Ok(()),
            Some(Err(error)) => Err(RunError::Node(format!("docker: {}", plain(&error)))),
        }
    };
    let mut usage = ContainerEnd::default();
    let watched = watch_usage(docker, &name, &mut usage);
    {
        let (mut logs, mut ends) = (std::pin::pin!(output.printed()), std::pin::pin!(ends));
        let mut watched = std::pin::pin!(watched);
        let mut printed = false;
        let run = async {
            loop {
                tokio::select! {
                    written = &mut logs, if !printed => {
                        written?;
                        printed = true;
                    }
                    ended = &mut ends => return ended,
                    never = &mut watched => match never {},
                }
            }
        };
        tokio::time::timeout(left, run).await.map_err(|_| too_long(&work))??;
        if !printed && let Ok(written) = tokio::time::timeout(LAST_WORDS, logs).await {
            written?;
        }
    }
    let state = docker.inspect_container(&name, None).await;
    let state = state.map_err(|error| RunError::Node(format!("docker: {}", plain(&error))))?.state.unwrap_or_default();
    let ended = state.exit_code.filter(|_| state.running != Some(true));
    usage.exit_code = ended.ok_or_else(|| RunError::Node("docker lost sight of the container".into()))?;
    usage.out_of_memory = state.oom_killed.unwrap_or(false);
    Ok(usage)
}

/// A container that cannot be made: the task's doing where the daemon says that the task is wrong.
fn refused(error: &DockerError) -> RunError {
    let cause = plain(error);
    let kinds = ["exec: ", "unable to find user", "no matching entries in passwd", "no command specified"];
    let of_task = kinds.iter().any(|kind| cause.to_lowercase().contains(kind)) && !cause.contains("docker-init");
    if of_task {
        RunError::task(FailureKind::Program, last_part(&cause))
    } else {
        RunError::Node(format!("docker: {cause}"))
    }
}

/// The daemon puts everybody's name before the cause.
fn last_part(cause: &str) -> String {
    let start = ["exec: ", "unable to find user"].iter().filter_map(|mark| cause.find(mark)).min().unwrap_or(0);
    cause[start..].trim_end_matches(": unknown").to_owned()
}

fn body(node: &str, image: &Image, gpus: &[&Gpu], work: &Work<'_>) -> ContainerCreateBody {
    let (docker, task) = (work.docker, work.task);
    let texts = |list: &[bacnode_protocol::wire::bounded::TextMax<8192>]| {
        (!list.is_empty()).then(|| list.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let own_home = work.env.iter().any(|(name, _)| name == "HOME");
    // Drivers read orders from the environment: which GPUs a container sees is not the task's to say.
    let orders = |name: &str| ["NVIDIA_", "ROCR_", "HIP_VISIBLE"].iter().any(|prefix| name.starts_with(prefix));
    let env = work.env.iter().filter(|(name, _)| !orders(name)).map(|(name, value)| format!("{name}={value}"));
    let env = env.chain(gpus.is_empty().then(|| "NVIDIA_VISIBLE_DEVICES=void".to_owned()));
    let proxied = matches!(task.network, Access::Http(_));
    let env = env.chain(proxied.then(doorway::variables).into_iter().flatten());
    let labels = [(NODE_LABEL, node.to_owned()), (EXECUTION_LABEL, work.execution.to_string())];
    ContainerCreateBody {
        image: Some(image.name.clone()),
        entrypoint: texts(&docker.entrypoint),
        cmd: texts(&docker.args),
        working_dir: (!docker.workdir.is_empty()).then(|| docker.workdir.to_string()),
        user: Some(user_of(docker)),
        env: Some(env.chain((!own_home).then(|| "HOME=/tmp".to_owned())).collect()),
        exposed_ports: Some(work.ports.iter().map(|port| format!("{}/tcp", port.target)).collect()),
        labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        stop_timeout: Some(super::STOP_GRACE.as_secs().cast_signed()),
        // An image's own would run as often as it likes, beside the limits.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() }),
        host_config: Some(host_config(task, image, gpus, work)),
        ..ContainerCreateBody::default()
    }
}

/// Whom the program runs as.
fn user_of(docker: &DockerTask) -> String {
    let (user, group) = default_user();
    // Without a group the image's own list would choose one.
    match &*docker.user {
        "" => format!("{user}:{group}"),
        named if named.contains(':') || named.parse::<u32>().is_err() => named.to_owned(),
        number => format!("{number}:{group}"),
    }
}

/// What is said of a file system in memory: it belongs to the program's user where that is a number. Its mode is the
/// image's, which need not be one that lets everybody write.
fn in_memory(docker: &DockerTask) -> String {
    let user = user_of(docker);
    let number = |text: &str| text.parse::<u32>().ok();
    let owner = user.split_once(':').and_then(|(user, group)| Some((number(user)?, number(group)?)));
    let owner = owner.map_or_else(String::new, |(user, group)| format!(",uid={user},gid={group}"));
    format!("rw,nosuid,nodev,mode=1777{owner},size={TMP_BYTES}")
}

fn host_config(task: &Task, image: &Image, gpus: &[&Gpu], work: &Work<'_>) -> HostConfig {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let memory = signed(task.resources.memory.max(MEMORY_MIN));
    let limit =
        |name: &str, value: i64| ResourcesUlimits { name: Some(name.into()), soft: Some(value), hard: Some(value) };
    let tmp = in_memory(work.docker);
    // Volumes that an image asks for would be disk that nobody measures.
    let mounted = |volume: &&String| !work.mounts.iter().any(|mount| mount.guest == **volume);
    let volumes = image.volumes.iter().filter(mounted).map(|volume| (volume.clone(), tmp.clone()));
    let tmpfs = volumes.chain([("/tmp".to_owned(), tmp.clone())]).collect();
    let file_size = signed(work.output_bytes_max);
    HostConfig {
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges:true".into()]),
        readonly_rootfs: Some(true),
        privileged: Some(false),
        init: Some(true),
        pids_limit: Some(PIDS_MAX),
        memory: Some(memory),
        // As much with swap as without: none.
        memory_swap: Some(memory),
        nano_cpus: Some(signed(task.resources.cpu_milli.max(CPU_MILLI_MIN).saturating_mul(1_000_000))),
        ulimits: Some(vec![limit("nofile", FILES_MAX), limit("core", 0), limit("fsize", file_size)]),
        oom_score_adj: Some(500),
        ipc_mode: Some("private".into()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        network_mode: Some(network_mode(&task.network, &work.execution)),
        port_bindings: (task.network == Access::Bridge).then(|| ports::bindings(task, work.ports)),
        tmpfs: Some(tmpfs),
        // What is printed goes into the result; the daemon would keep it line by line, at a hundredth of the speed.
        log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
        mounts: Some(work.mounts.iter().map(bind).collect()),
        device_requests: device_requests(gpus),
        auto_remove: Some(false),
        ..HostConfig::default()
    }
}

/// Web servers are reached through a proxy, whose door is all that there is in the network.
fn network_mode(access: &Access, execution: &ExecutionId) -> String {
    match access {
        Access::None => "none".into(),
        Access::Http(_) => format!("container:{}", doorway::name(execution)),
        Access::Bridge => "bridge".into(),
        Access::Host => "host".into(),
    }
}

fn bind(mount: &Mount) -> BindMount {
    BindMount {
        typ: Some(MountType::BIND),
        source: Some(mount.host.to_string_lossy().into_owned()),
        target: Some(mount.guest.clone()),
        read_only: Some(!mount.writable),
        ..BindMount::default()
    }
}

fn device_requests(gpus: &[&Gpu]) -> Option<Vec<DeviceRequest>> {
    let of = |vendor: Vendor, driver: &str| {
        let ids: Vec<String> = gpus.iter().filter(|gpu| gpu.vendor == vendor).map(|gpu| gpu.id.clone()).collect();
        (!ids.is_empty()).then(|| DeviceRequest {
            driver: Some(driver.to_owned()),
            device_ids: Some(ids),
            capabilities: Some(vec![vec!["gpu".to_owned()]]),
            ..DeviceRequest::default()
        })
    };
    let requests: Vec<DeviceRequest> =
        [of(Vendor::Nvidia, "nvidia"), of(Vendor::Amd, "amd")].into_iter().flatten().collect();
    (!requests.is_empty()).then_some(requests)
}

/// Notes what the container uses, about once a second, for as long as it is asked to.
async fn watch_usage(docker: &Docker, name: &str, usage: &mut ContainerEnd) -> std::convert::Infallible {
    let options = StatsOptionsBuilder::new().stream(true).build();
    let mut samples = std::pin::pin!(docker.stats(name, Some(options)));
    while let Some(sample) = samples.next().await {
        let Ok(sample) = sample else { break };
        let cpu = sample.cpu_stats.and_then(|cpu| cpu.cpu_usage?.total_usage).unwrap_or(0);
        let memory = sample.memory_stats.and_then(|memory| memory.max_usage.max(memory.usage)).unwrap_or(0);
        usage.cpu_ms = usage.cpu_ms.max(cpu / 1_000_000);
        usage.memory_peak = usage.memory_peak.max(memory);
        let processes = sample.pids_stats.and_then(|pids| pids.current).unwrap_or(0);
        usage.out_of_processes |= processes >= PIDS_CROWDED;
    }
    std::future::pending().await
}
