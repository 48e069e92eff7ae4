//! Ports of this machine that lead to containers, each given to one run at a time.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bacnode_protocol::compute::Refusal;
use bacnode_protocol::id::ExecutionId;
use bacnode_protocol::wire::task::{Access, OpenPort, Port, Task};
use bollard::models::{PortBinding, PortMap};

use super::super::RunError;

/// The ports of this machine.
#[derive(Debug)]
pub(super) struct Ports {
    /// Those that tasks may be given.
    range: RangeInclusive<u16>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Whose each is.
    ports: BTreeMap<u16, ExecutionId>,
    /// Where the search for a free one goes on, so that one that was freed rests for a while.
    next: u16,
}

impl Ports {
    pub(super) fn new(range: RangeInclusive<u16>) -> Self {
        Self { range, taken: Mutex::default() }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a task can have the ports that it names.
    pub(super) fn look_at(&self, task: &Task) -> Result<(), Refusal> {
        let taken = self.taken();
        for port in task.ports.iter().filter(|port| port.host != 0) {
            if !self.range.contains(&port.host) {
                let (from, to) = (self.range.start(), self.range.end());
                let reason = format!("gives tasks ports from {from} to {to}, not {} (rule: ports)", port.host);
                return Err(Refusal { reason, later: false });
            }
            if taken.ports.contains_key(&port.host) || !is_free(port.host, port.local) {
                return Err(Refusal { reason: format!("port {} is taken", port.host), later: true });
            }
        }
        Ok(())
    }

    /// Takes the ports of a task, until they are freed.
    pub(super) fn open(&self, execution: &ExecutionId, task: &Task) -> Result<Vec<OpenPort>, RunError> {
        let mut opened = Vec::with_capacity(task.ports.len());
        for port in &task.ports {
            let host = self.take(execution, port).inspect_err(|_| self.free(execution))?;
            // In the machine's own network there is nothing between.
            let target = if port.target == 0 || task.network == Access::Host { host } else { port.target };
            opened.push(OpenPort { name: port.name.clone(), host, target });
        }
        Ok(opened)
    }

    /// Those that a run has from a former life of the node; the daemon listens there.
    pub(super) fn open_again(&self, execution: &ExecutionId, open: &[OpenPort]) {
        self.taken().ports.extend(open.iter().map(|port| (port.host, *execution)));
    }

    pub(super) fn free(&self, execution: &ExecutionId) {
        self.taken().ports.retain(|_, owner| owner != execution);
    }

    fn take(&self, execution: &ExecutionId, port: &Port) -> Result<u16, RunError> {
        let mut taken = self.taken();
        let free = |host: &u16| !taken.ports.contains_key(host) && is_free(*host, port.local);
        let host = if port.host == 0 {
            let start = taken.next.max(*self.range.start());
            let all = (start..=*self.range.end()).chain(*self.range.start()..start);
            let (from, to) = (self.range.start(), self.range.end());
            let host = all.into_iter().find(free);
            host.ok_or_else(|| RunError::Node(format!("every port from {from} to {to} is taken")))?
        } else {
            let host = Some(port.host).filter(free);
            host.ok_or_else(|| RunError::Node(format!("port {} is taken", port.host)))?
        };
        taken.ports.insert(host, *execution);
        if port.host == 0 {
            taken.next = host.checked_add(1).unwrap_or_default();
        }
        Ok(host)
    }
}

fn address(local: bool) -> IpAddr {
    IpAddr::V4(if local { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED })
}

/// Whether nobody else on this machine listens there.
fn is_free(port: u16, local: bool) -> bool {
    TcpListener::bind((address(local), port)).is_ok()
}

/// What the daemon is told of a task's ports.
pub(super) fn bindings(task: &Task, open: &[OpenPort]) -> PortMap {
    let bound = task.ports.iter().zip(open).map(|(port, open)| {
        let binding =
            PortBinding { host_ip: Some(address(port.local).to_string()), host_port: Some(open.host.to_string()) };
        (format!("{}/tcp", open.target), binding)
    });
    let mut map = PortMap::new();
    for (target, binding) in bound {
        map.entry(target).or_default().get_or_insert_default().push(binding);
    }
    map
}

/// The variables that tell a task where it answers, and where it is asked.
pub(in crate::engine) fn variables(open: &[OpenPort]) -> impl Iterator<Item = (String, String)> {
    open.iter().flat_map(|port| {
        ["BACNODE", "BACALHAU"].into_iter().flat_map(|prefix| {
            let named = |kind: &str, number: u16| (format!("{prefix}_{kind}_{}", &*port.name), number.to_string());
            [named("PORT", port.target), named("HOST_PORT", port.host)]
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bacnode_protocol::wire::bounded::TextMax;

    fn port(host: u16) -> Port {
        Port { name: TextMax::truncated("http"), host, target: 80, local: true }
    }

    #[test]
    fn a_port_is_given_once_and_comes_back() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let used = other.local_addr().expect("an address").port();
        let (ports, first, second) = (Ports::new(used..=used), ExecutionId([1; 20]), ExecutionId([2; 20]));
        ports.take(&first, &port(0)).expect_err("somebody else listens there");
        drop(other);
        assert_eq!(ports.take(&first, &port(0)).expect("it is free"), used);
        for wanted in [0, used] {
            ports.take(&second, &port(wanted)).expect_err("it is given away");
        }
        ports.free(&second);
        ports.take(&second, &port(used)).expect_err("it is still the other's");
        ports.free(&first);
        assert_eq!(ports.take(&second, &port(used)).expect("it is free again"), used);
    }
}
