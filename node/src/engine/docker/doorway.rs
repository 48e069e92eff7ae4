//! A container's network in which there is nothing but a door to the proxy.
//!
//! The door must stand before the program starts, so the network is made first, by a container that does nothing but hold
//! it: eleven bytes of program that wait for ever. A thread of this process enters that network, opens a listener on its
//! loopback, and ends; the listener stays. The task's container is then started in the same network.
//!
//! Entering another network takes root, and a daemon on this machine.

use std::net::{Ipv4Addr, SocketAddrV4};

use bacnode_protocol::id::ExecutionId;
use bollard::Docker;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, HostConfig};
use bollard::query_parameters::{CreateContainerOptionsBuilder, CreateImageOptionsBuilder};
use futures::TryStreamExt as _;
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpListener;

use super::super::RunError;
use super::{EXECUTION_LABEL, NODE_LABEL, plain};

/// Where the proxy is, in the container's network.
const DOOR: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 3128);
/// The image of the holder, and its only file.
const IMAGE: (&str, &str) = ("bacnode/holder", "1");
const PROGRAM: &str = "/hold";
/// The daemon makes no containers with less memory.
const MEMORY: i64 = 6 << 20;

/// `pause()` for ever.
#[cfg(target_arch = "x86_64")]
const CODE: (u16, &[u8]) = (62, &[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]);
/// `ppoll(NULL, 0, NULL, NULL)` for ever.
#[cfg(target_arch = "aarch64")]
const CODE: (u16, &[u8]) = (
    183,
    &[
        0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2, 0x28, 0x09,
        0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xfa, 0xff, 0xff, 0x17,
    ],
);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const CODE: (u16, &[u8]) = (0, &[]);

/// The holder of an execution's network.
pub(super) fn name(execution: &ExecutionId) -> String {
    format!("bacnode-{execution}-net")
}

/// Whether doors can be made here.
pub(super) fn is_possible() -> bool {
    let local = std::env::var("DOCKER_HOST").map_or(true, |host| host.is_empty() || host.starts_with("unix://"));
    local && !CODE.1.is_empty() && rustix::process::geteuid().is_root()
}

/// What programs look for to find their proxy.
pub(super) fn variables() -> impl Iterator<Item = String> {
    let names = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
    names.into_iter().map(|name| format!("{name}=http://{DOOR}"))
}

/// Makes a network for `execution`, and opens its door.
pub(super) async fn open(docker: &Docker, node: &str, execution: &ExecutionId) -> Result<TcpListener, RunError> {
    make_image(docker).await.map_err(|error| failed(&plain(&error)))?;
    let name = name(execution);
    let mark = execution.to_string();
    let labels = [(NODE_LABEL, node.to_owned()), (EXECUTION_LABEL, mark.clone())];
    let body = ContainerCreateBody {
        image: Some(format!("{}:{}", IMAGE.0, IMAGE.1)),
        entrypoint: Some(vec![PROGRAM.into(), mark.clone()]),
        labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        host_config: Some(HostConfig {
            network_mode: Some("none".into()),
            cap_drop: Some(vec!["ALL".into()]),
            security_opt: Some(vec!["no-new-privileges:true".into()]),
            readonly_rootfs: Some(true),
            pids_limit: Some(1),
            memory: Some(MEMORY),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    let made = async {
        docker.create_container(Some(options), body).await?;
        docker.start_container(&name, None).await?;
        docker.inspect_container(&name, None).await
    };
    let made = made.await.map_err(|error| failed(&plain(&error)))?;
    enter(made, mark).await
}

/// Opens the door again in a network that a former life of the node made.
pub(super) async fn reopen(docker: &Docker, execution: &ExecutionId) -> Result<TcpListener, RunError> {
    let made = docker.inspect_container(&name(execution), None).await;
    enter(made.map_err(|error| failed(&plain(&error)))?, execution.to_string()).await
}

async fn enter(holder: ContainerInspectResponse, mark: String) -> Result<TcpListener, RunError> {
    let pid = holder.state.and_then(|state| state.pid).filter(|pid| *pid > 0);
    let pid = pid.ok_or_else(|| failed("its holder has ended"))?;
    let listener = tokio::task::spawn_blocking(move || std::thread::spawn(move || listen_in(pid, &mark)).join()).await;
    let listener = listener.ok().and_then(Result::ok).ok_or_else(|| failed("the thread that enters it broke down"))?;
    let listener = listener.and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    listener.map_err(|error| failed(&error.to_string()))
}

fn failed(cause: &str) -> RunError {
    RunError::Node(format!("cannot make a network with a proxy: {cause}"))
}

/// Enters the network of a process, and listens there. Only for a thread that ends afterwards.
fn listen_in(pid: i64, mark: &str) -> std::io::Result<std::net::TcpListener> {
    let network = rustix::fs::open(format!("/proc/{pid}/ns/net"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // A daemon elsewhere (in a virtual machine, say) counts its processes otherwise.
    let command = std::fs::read(format!("/proc/{pid}/cmdline"))?;
    if command.split(|byte| *byte == 0).nth(1) != Some(mark.as_bytes()) {
        return Err(std::io::Error::other("the daemon is not on this machine"));
    }
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&network), Some(LinkNameSpaceType::Network))?;
    std::net::TcpListener::bind(DOOR)
}

async fn make_image(docker: &Docker) -> Result<(), bollard::errors::Error> {
    if docker.inspect_image(&format!("{}:{}", IMAGE.0, IMAGE.1)).await.is_ok() {
        return Ok(());
    }
    let options = CreateImageOptionsBuilder::new().from_src("-").repo(IMAGE.0).tag(IMAGE.1).build();
    let body = bollard::body_full(archive().into());
    docker.create_image(Some(options), Some(body), None).try_collect::<Vec<_>>().await?;
    Ok(())
}

/// The image's files, as a tar archive.
fn archive() -> Vec<u8> {
    let program = program(CODE.0, CODE.1);
    let mut header = tar::Header::new_ustar();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    let mut archive = tar::Builder::new(Vec::new());
    // Writing into memory does not fail.
    let _ = archive.append_data(&mut header, PROGRAM.trim_start_matches('/'), &program[..]);
    archive.into_inner().unwrap_or_default()
}

/// An ELF file of one segment (System V ABI, chapters 4 and 5).
fn program(machine: u16, code: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    const BASE: u64 = 0x40_0000;
    let size = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2u16.to_le_bytes(), machine.to_le_bytes()].concat());
    file.extend(1u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend([1u32.to_le_bytes(), 5u32.to_le_bytes()].concat());
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}
