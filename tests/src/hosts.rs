//! Several machines on this one: network namespaces joined by a wire that stands for the internet, some behind routers. The
//! wire is a bridge, or a [`Wire`] of our own where packets are to be late or lost.
//!
//! It needs root, `ip` and `nft`; where they are not there tests say that they did not run.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::wire::{Quality, Wire};

/// Parts of the addresses that are for documentation: public, as far as nodes can tell (RFC 5737).
const INTERNET: [&str; 3] = ["203.0.113", "198.51.100", "192.0.2"];

static NEXT: AtomicU16 = AtomicU16::new(0);

/// What a router does with the ports of those behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// Lets anybody in at a port that is in use.
    FullCone,
    /// Keeps ports, and lets in only whom was spoken to at that very port.
    PortRestricted,
    /// Takes another port for each that is spoken to.
    Symmetric,
}

/// A machine.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its namespace.
    pub name: String,
    /// Its address.
    pub address: String,
}

/// A wire with machines, which go when it does.
#[derive(Debug)]
pub struct Internet {
    name: String,
    namespaces: Vec<String>,
    hosts: u8,
    lans: u8,
    wire: Option<Wire>,
}

impl Internet {
    /// An empty one, where that can be had; says so loudly where it cannot.
    #[must_use]
    #[allow(clippy::print_stderr, reason = "a test that does not run must say so")]
    pub fn new() -> Option<Self> {
        let works =
            |program: &str, arg: &str| Command::new(program).arg(arg).output().is_ok_and(|ran| ran.status.success());
        if !rustix::process::geteuid().is_root() || !works("ip", "-V") || !works("nft", "--version") {
            eprintln!("NOT RUN: several hosts on one machine need root, `ip` and `nft`");
            return None;
        }
        let name = format!("bn{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut internet = Self { name: name.clone(), namespaces: Vec::new(), hosts: 0, lans: 0, wire: None };
        internet.namespace(&name);
        ip(&name, "link add wire type bridge");
        ip(&name, "link set wire up");
        Some(internet)
    }

    /// One whose wire is like this, where that can be had.
    #[must_use]
    #[allow(clippy::print_stderr, reason = "a test that does not run must say so")]
    pub fn over(quality: Quality) -> Option<Self> {
        let mut internet = Self::new()?;
        if !std::path::Path::new("/dev/net/tun").exists() {
            eprintln!("NOT RUN: a slow wire takes TUN devices");
            return None;
        }
        internet.wire = Some(Wire::new(quality));
        Some(internet)
    }

    /// The wire.
    ///
    /// # Panics
    /// If it is a bridge.
    #[must_use]
    pub fn wire(&self) -> &Wire {
        self.wire.as_ref().expect("a wire of our own")
    }

    /// A machine with a public address.
    ///
    /// # Panics
    /// If it cannot be had.
    pub fn host(&mut self) -> Host {
        self.host_in(0)
    }

    /// One in the how manieth of three networks.
    ///
    /// # Panics
    /// If it cannot be had.
    pub fn host_in(&mut self, subnet: usize) -> Host {
        self.hosts += 1;
        let address = format!("{}.{}", INTERNET[subnet], self.hosts);
        let host = Host { name: format!("{}-h{}", self.name, self.hosts), address };
        self.namespace(&host.name);
        if let Some(wire) = &self.wire {
            let device = format!("{}w{}", self.name.replace('-', "x"), self.hosts);
            wire.end(&device, host.ip()).expect("a TUN device");
            run("ip", &["link", "set", &device, "netns", &host.name, "name", "eth0"]);
            up(&host.name, "eth0", &format!("{}/32", host.address));
            ip(&host.name, "route add default dev eth0");
            return host;
        }
        let name = self.name.clone();
        join(&name, &host.name, self.hosts, "eth0", &format!("{}/24", host.address));
        host
    }

    /// Lets a machine speak to all on its wire.
    pub fn multicast(&self, host: &Host) {
        ip(&host.name, "route add 224.0.0.0/4 dev eth0");
    }

    /// Gives a machine another address in the place of its own.
    ///
    /// # Panics
    /// If the wire is a bridge.
    pub fn readdress(&mut self, host: &mut Host) {
        self.hosts += 1;
        let address = format!("{}.{}", INTERNET[0], self.hosts);
        let old = std::mem::replace(&mut host.address, address);
        self.wire().also(old.parse().expect("an address"), host.ip());
        ip(&host.name, &format!("addr add {}/32 dev eth0", host.address));
        ip(&host.name, &format!("addr del {old}/32 dev eth0"));
        ip(&host.name, "route replace default dev eth0");
    }

    /// A machine in a network of its own, behind a router.
    pub fn behind(&mut self, nat: Nat) -> Host {
        let router = self.host();
        self.lans += 1;
        let lan = format!("192.168.{}", 100 + self.lans);
        let host = Host { name: format!("{}-l{}", self.name, self.lans), address: format!("{lan}.10") };
        self.namespace(&host.name);
        ip(&router.name, "link add lan type bridge");
        ip(&router.name, "link set lan up");
        ip(&router.name, &format!("addr add {lan}.1/24 dev lan"));
        let other = router.name.clone();
        ip(&other, &format!("link add l1 type veth peer name eth0 netns {}", host.name));
        ip(&other, "link set l1 master lan up");
        up(&host.name, "eth0", &format!("{}/24", host.address));
        ip(&host.name, &format!("route add default via {lan}.1"));
        inside(&router.name, &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
        let random = if nat == Nat::Symmetric { "fully-random" } else { "" };
        let forwarded = match nat {
            Nat::FullCone => format!("iifname eth0 meta l4proto {{ tcp, udp }} dnat to {}", host.address),
            _ => String::new(),
        };
        // What nobody asked for is dropped, not answered.
        let rules = format!(
            "table ip home {{
                chain out {{ type nat hook postrouting priority 100; oifname eth0 masquerade {random}; }}
                chain in {{ type nat hook prerouting priority -100; {forwarded}; }}
                chain own {{ type filter hook input priority 0; iifname eth0 drop; }}
            }}"
        );
        inside(&router.name, &["nft", &rules.replace("; ;", ";")]);
        host
    }

    fn namespace(&mut self, name: &str) {
        run("ip", &["netns", "add", name]);
        self.namespaces.push(name.to_owned());
        ip(name, "link set lo up");
    }
}

impl Host {
    /// Its address.
    ///
    /// # Panics
    /// Never: it is one.
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        self.address.parse().expect("an address")
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        if let Some(wire) = &self.wire {
            wire.close();
        }
        for name in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Plugs a machine into a wire.
fn join(wire: &str, host: &str, number: u8, device: &str, address: &str) {
    ip(wire, &format!("link add p{number} type veth peer name {device} netns {host}"));
    ip(wire, &format!("link set p{number} master wire up"));
    up(host, device, address);
}

fn up(host: &str, device: &str, address: &str) {
    ip(host, &format!("addr add {address} dev {device}"));
    ip(host, &format!("link set {device} up"));
}

fn ip(namespace: &str, args: &str) {
    let args: Vec<&str> = ["-n", namespace].into_iter().chain(args.split_whitespace()).collect();
    run("ip", &args);
}

fn inside(namespace: &str, command: &[&str]) {
    run("ip", &[&["netns", "exec", namespace], command].concat());
}

fn run(program: &str, args: &[&str]) {
    let ran = Command::new(program).args(args).output().expect("it runs");
    assert!(ran.status.success(), "{program} {}: {}", args.join(" "), String::from_utf8_lossy(&ran.stderr));
}
