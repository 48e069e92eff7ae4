//! Processes that know each other.

use std::path::{Path, PathBuf};

use bacnode_protocol::api::NodeIdentity;

use crate::hosts::Host;
use crate::{Node, eventually, program};

/// Processes that know each other.
#[derive(Debug)]
pub struct Swarm {
    /// The bootstrap peer.
    pub bootstrap: Node,
    /// The others.
    pub nodes: Vec<Node>,
    dir: tempfile::TempDir,
}

impl Swarm {
    /// A bootstrap peer and `count` nodes, all of which know each other.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self::with(count, &[])
    }

    /// The same with more arguments for every process.
    #[must_use]
    pub fn with(count: usize, more: &[&str]) -> Self {
        let mut swarm = Self::empty(more);
        for index in 0..count {
            swarm.add(&format!("node-{index}"), more);
        }
        swarm.everybody_knows(count + 1);
        swarm
    }

    /// A bootstrap peer alone.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn empty(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let bootstrap = node(None, dir.path(), "bootstrap", program("bacnode-bootstrap"), None, more, &[]);
        Self { bootstrap, nodes: Vec::new(), dir }
    }

    /// The same with a data folder of its own.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn empty_in(data: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let more = [&["--data-dir", data], more].concat();
        let bootstrap = node(None, dir.path(), "bootstrap", program("bacnode-bootstrap"), None, &more, &[]);
        Self { bootstrap, nodes: Vec::new(), dir }
    }

    /// A bootstrap peer alone, on a machine of its own.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn at(host: &Host, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let bootstrap = node(Some(host), dir.path(), "bootstrap", program("bacnode-bootstrap"), None, more, &[]);
        Self { bootstrap, nodes: Vec::new(), dir }
    }

    /// Adds a node on another machine, which joins through the bootstrap peer at `address`.
    ///
    /// # Panics
    /// If it does not start.
    pub fn add_at(&mut self, host: &Host, name: &str, address: &str, more: &[&str]) -> &mut Node {
        let program = program("bacnode");
        self.nodes.push(node(Some(host), self.dir.path(), name, program, Some(address), more, &[]));
        self.nodes.last_mut().expect("just added")
    }

    /// Adds a node that knows nothing but an invite.
    ///
    /// # Panics
    /// If it does not start.
    pub fn join(&mut self, name: &str, invite: &str) -> &mut Node {
        self.join_by(name, &["--join", invite])
    }

    /// Adds a node that knows nothing but what these flags say.
    ///
    /// # Panics
    /// If it does not start.
    pub fn join_by(&mut self, name: &str, flags: &[&str]) -> &mut Node {
        self.newcomer(None, name, flags)
    }

    /// The same on another machine.
    ///
    /// # Panics
    /// If it does not start.
    pub fn join_at(&mut self, host: &Host, name: &str, flags: &[&str]) -> &mut Node {
        self.newcomer(Some(host), name, flags)
    }

    fn newcomer(&mut self, host: Option<&Host>, name: &str, flags: &[&str]) -> &mut Node {
        let dir = self.dir.path().to_owned();
        let data = dir.join(name).to_string_lossy().into_owned();
        let at = if host.is_some() { "/ip4/0.0.0.0/tcp/1235" } else { "/ip4/127.0.0.1/tcp/0" };
        let listen = ["--listen", at, "--api", "127.0.0.1:0"];
        let host = host.map(|host| host.name.clone());
        let args = [&["serve", "--name", name, "--data-dir", &data], &listen[..], flags].concat();
        let args = args.into_iter().map(str::to_owned).collect();
        let (name, identity, program) = (name.to_owned(), NodeIdentity::default(), program("bacnode"));
        let mut node = Node { name, identity, child: None, args, env: Vec::new(), dir, program, host };
        node.start();
        self.nodes.push(node);
        self.nodes.last_mut().expect("just added")
    }

    /// A folder for the test's own files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Adds a node that joins through the bootstrap peer.
    pub fn add(&mut self, name: &str, more: &[&str]) -> &mut Node {
        self.add_with(name, more, &[])
    }

    /// The same with something in its environment.
    ///
    /// # Panics
    /// If it does not start.
    pub fn add_with(&mut self, name: &str, more: &[&str], env: &[(&str, &str)]) -> &mut Node {
        self.add_program(program("bacnode"), name, more, env)
    }

    /// The same with another program, of another release.
    ///
    /// # Panics
    /// If it does not start.
    pub fn add_program(&mut self, program: PathBuf, name: &str, more: &[&str], env: &[(&str, &str)]) -> &mut Node {
        let address = self.bootstrap.identity.addresses[0].clone();
        self.nodes.push(node(None, self.dir.path(), name, program, Some(&address), more, env));
        self.nodes.last_mut().expect("just added")
    }

    /// Adds a node that knows nobody but whoever is at `address`.
    ///
    /// # Panics
    /// If it does not start.
    pub fn add_by(&mut self, address: &str, name: &str) -> &mut Node {
        self.nodes.push(node(None, self.dir.path(), name, program("bacnode"), Some(address), &[], &[]));
        self.nodes.last_mut().expect("just added")
    }

    /// Waits until every node knows `count` nodes.
    pub fn everybody_knows(&self, count: usize) {
        for node in &self.nodes {
            eventually(&format!("{} knows {count}", node.name), || (known(node) == count).then_some(()));
        }
    }

    /// The node with this id.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn index_of(&self, id: &str) -> usize {
        self.nodes.iter().position(|node| node.identity.peer_id == id).expect("a node of this swarm")
    }
}

/// How many nodes `node` knows, itself included.
#[must_use]
pub fn known(node: &Node) -> usize {
    node.run(&["node", "list", "--output", "json"]).ok().json().as_array().map_or(0, Vec::len)
}

fn node(
    host: Option<&Host>,
    dir: &Path,
    name: &str,
    program: PathBuf,
    bootstrap: Option<&str>,
    more: &[&str],
    env: &[(&str, &str)],
) -> Node {
    let data = dir.join(name).to_string_lossy().into_owned();
    // A machine of one's own has its usual ports free.
    let listen = if host.is_some() { "/ip4/0.0.0.0/tcp/1235" } else { "/ip4/127.0.0.1/tcp/0" };
    let mut args: Vec<String> = ["serve", "--name", name, "--listen", listen].map(str::to_owned).to_vec();
    for (flag, value) in [("--network", "test"), ("--data-dir", data.as_str())] {
        if !more.contains(&flag) {
            args.extend([flag.to_owned(), value.to_owned()]);
        }
    }
    if let Some(address) = bootstrap {
        args.extend(["--api", "127.0.0.1:0", "--bootstrap", address].map(str::to_owned));
    }
    args.extend(more.iter().map(|&arg| arg.to_owned()));
    let env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let (identity, host) = (NodeIdentity::default(), host.map(|host| host.name.clone()));
    let mut node = Node { name: name.to_owned(), identity, child: None, args, env, dir: dir.to_owned(), program, host };
    node.start();
    node
}
