//! The ports at which a task answers.

use std::collections::BTreeSet;

use super::fields::Problems;
use super::spec::TaskSpec;
use crate::limits::{PORT_MIN, PORTS_MAX};
use crate::wire::bounded::{ListMax, TextMax};
use crate::wire::task::{Access, Port};

pub(super) fn check_ports(
    path: &str,
    task: &TaskSpec,
    network: &Access,
    problems: &mut Problems,
) -> ListMax<Port, PORTS_MAX> {
    let ports = &task.network.ports;
    let path = format!("{path}.Network.Ports");
    if !ports.is_empty() && !matches!(network, Access::Bridge | Access::Host) {
        problems.add(&path, "go with the network types `Bridge` and `Host`");
    }
    if ports.len() > PORTS_MAX {
        problems.add(&path, format!("has {} entries; at most {PORTS_MAX}", ports.len()));
    }
    let (mut names, mut taken) = (BTreeSet::new(), BTreeSet::new());
    let mut checked = Vec::with_capacity(ports.len());
    for (i, port) in ports.iter().enumerate() {
        let at = |field: &str| format!("{path}[{i}].{field}");
        let word = port.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if port.name.is_empty() || port.name.len() > 64 || !word {
            problems.add(at("Name"), "is required: letters, digits and `_`, as in a variable's name");
        } else if !names.insert(port.name.to_uppercase()) {
            problems.add(at("Name"), format!("`{}` is there twice", port.name));
        }
        let host = u16::try_from(port.fixed).ok().filter(|host| *host == 0 || *host >= PORT_MIN);
        if host.is_none() {
            problems.add(at("Static"), format!("must be from {PORT_MIN} to 65535, or 0 for any, not {}", port.fixed));
        } else if port.fixed != 0 && !taken.insert(port.fixed) {
            problems.add(at("Static"), format!("{} is there twice", port.fixed));
        }
        let target = u16::try_from(port.target).ok();
        if target.is_none() {
            problems.add(at("Target"), format!("must be from 1 to 65535, or 0 for the machine's, not {}", port.target));
        } else if *network == Access::Host && port.target != 0 && port.target != port.fixed {
            problems.add(at("Target"), "goes with the network type `Bridge`; with `Host` it is the machine's port");
        }
        let local = match port.host_network.as_str() {
            "" | "0.0.0.0" | "::" => false,
            "127.0.0.1" | "localhost" | "::1" => true,
            other => {
                problems.add(at("HostNetwork"), format!("must be `0.0.0.0` or `127.0.0.1`, not `{other}`"));
                false
            }
        };
        let (host, target) = (host.unwrap_or(0), target.unwrap_or(0));
        checked.push(Port { name: TextMax::truncated(&port.name), host, target, local });
    }
    ListMax::truncated(checked)
}
