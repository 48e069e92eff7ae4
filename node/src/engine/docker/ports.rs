//! Ports of this machine that lead to containers, each given to one run at a time.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bacnode_protocol::compute::Refusal;
use bacnode_protocol::wire::task::{Access, OpenPort, Port, Task};
use bollard::models::{PortBinding, PortMap};

use super::super::RunError;

/// The ports of this machine.
#[derive(Debug)]
pub(super) struct Ports {
    /// Those from which tasks are given one that do not say which.
    range: RangeInclusive<u16>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    ports: BTreeSet<u16>,
    /// Where the search for a free one goes on, so that one that was freed rests for a while.
    next: u16,
}

/// Ports of one run; they are free again when this is dropped.
#[derive(Debug)]
pub(in crate::engine) struct Opened<'a> {
    ports: &'a Ports,
    pub(in crate::engine) open: Vec<OpenPort>,
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
        let wanted = task.ports.iter().filter(|port| port.host != 0);
        match wanted.into_iter().find(|port| taken.ports.contains(&port.host) || !is_free(port.host, port.local)) {
            Some(port) => Err(Refusal { reason: format!("port {} is taken", port.host), later: true }),
            None => Ok(()),
        }
    }

    /// The ports of a task.
    pub(super) fn open(&self, task: &Task) -> Result<Opened<'_>, RunError> {
        let mut opened = Opened { ports: self, open: Vec::with_capacity(task.ports.len()) };
        for port in &task.ports {
            let host = self.take(port)?;
            // In the machine's own network there is nothing between.
            let target = if port.target == 0 || task.network == Access::Host { host } else { port.target };
            opened.open.push(OpenPort { name: port.name.clone(), host, target });
        }
        Ok(opened)
    }

    /// Those that a run had in a former life of the node; the daemon listens there.
    pub(super) fn open_again(&self, open: Vec<OpenPort>) -> Opened<'_> {
        self.taken().ports.extend(open.iter().map(|port| port.host));
        Opened { ports: self, open }
    }

    fn take(&self, port: &Port) -> Result<u16, RunError> {
        let mut taken = self.taken();
        if port.host != 0 {
            if !is_free(port.host, port.local) || !taken.ports.insert(port.host) {
                return Err(RunError::Node(format!("port {} is taken", port.host)));
            }
            return Ok(port.host);
        }
        let start = taken.next.max(*self.range.start());
        let all = (start..=*self.range.end()).chain(*self.range.start()..start);
        let free = |host: &u16| !taken.ports.contains(host) && is_free(*host, port.local);
        let (from, to) = (self.range.start(), self.range.end());
        let host = all.into_iter().find(free);
        let host = host.ok_or_else(|| RunError::Node(format!("every port from {from} to {to} is taken")))?;
        taken.ports.insert(host);
        taken.next = if host == *to { *from } else { host + 1 };
        Ok(host)
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        let mut taken = self.ports.taken();
        for port in &self.open {
            taken.ports.remove(&port.host);
        }
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
pub(super) fn variables(open: &[OpenPort]) -> impl Iterator<Item = (String, String)> {
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
        let ports = Ports::new(used..=used);
        ports.take(&port(0)).expect_err("somebody else listens there");
        drop(other);
        assert_eq!(ports.take(&port(0)).expect("it is free"), used);
        for wanted in [0, used] {
            ports.take(&port(wanted)).expect_err("it is given away");
        }
        drop(Opened { ports: &ports, open: vec![OpenPort { name: TextMax::default(), host: used, target: 80 }] });
        assert_eq!(ports.take(&port(used)).expect("it is free again"), used);
    }
}
