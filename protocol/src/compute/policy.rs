//! The operator's rules: which jobs this node takes, and from whom. A decline names the rule that was broken.

use super::Holdings;
use crate::id::NodeId;
use crate::wire::s3::{Place, Publisher};
use crate::wire::task::{Access, DockerTask, EngineTask, Reach, Resources, Source, Task};

/// From where in the web inputs are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Web {
    /// From nowhere.
    None,
    /// From public addresses.
    #[default]
    Public,
    /// From anywhere that this machine reaches.
    Any,
}

/// Objects for which jobs may use the node's own S3 credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The bucket.
    pub bucket: String,
    /// What the keys begin with.
    pub prefix: String,
    /// Whether results may be written.
    pub writable: bool,
}

/// What the operator lets jobs do here.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Patterns of images that may run; any where this is empty. `*` stands for any text.
    pub images: Vec<String>,
    /// Whose jobs are taken; anybody's where this is empty.
    pub peers: Vec<NodeId>,
    /// Whose are not.
    pub refused_peers: Vec<NodeId>,
    /// How far a task's network may reach.
    pub reach: Reach,
    /// Patterns of this node's own environment variables that tasks may be given.
    pub env: Vec<String>,
    /// Whether containers may run as root.
    pub root: bool,
    /// From where inputs may be fetched.
    pub web: Web,
    /// Whose jobs may read what does not leave this node. Its own user's may; once somebody is named, local folders are
    /// for these alone, too.
    pub data_peers: Vec<NodeId>,
    /// Whether results made of such data wait for the operator's word.
    pub withholds: bool,
    /// For what jobs are lent the node's own S3 credentials.
    pub s3: Vec<Grant>,
    /// Whether only jobs are taken of which some content input lies here.
    pub local_only: bool,
    /// Whether jobs without inputs are refused.
    pub inputs_required: bool,
    /// The most that one task may ask for; as much as the node has where there is none.
    pub task_max: Option<Resources>,
    /// Whether results can be fetched here by a link.
    pub publishes: bool,
    /// Whether there is a proxy that holds containers to the domains that their jobs name.
    pub proxies: bool,
    /// Whether each ask is looked at by a program of the operator's.
    pub probes: bool,
    /// Whether services and daemons are refused, which run until somebody stops them.
    pub refuses_endless: bool,
}

impl Policy {
    /// Every rule that this task of `from`'s breaks, a sentence each.
    pub(super) fn broken(&self, me: &NodeId, from: &NodeId, task: &Task, holdings: &Holdings) -> Vec<String> {
        let mut broken = Vec::new();
        let trusted = self.may_read_private(me, from);
        if self.refused_peers.contains(from) || (!self.peers.is_empty() && !self.peers.contains(from)) {
            broken.push("takes no jobs from this peer (rule: peer)".into());
        }
        if let EngineTask::Docker(docker) = &task.engine {
            self.check_container(docker, &mut broken);
        }
        let reach = task.network.reach();
        if reach > self.reach {
            broken.push(format!(
                "allows tasks the network `{}`, not `{}` (rule: task-network)",
                self.reach.name(),
                reach.name()
            ));
        }
        for name in task.env.iter().filter_map(|variable| variable.of_node()) {
            if !self.passes_on(name) {
                broken.push(format!("does not pass on its variable `{name}` (rule: pass-env)"));
            }
        }
        let from_web = |source: &Source| matches!(source, Source::Url { .. } | Source::S3(_));
        if self.web == Web::None && task.inputs.iter().any(|input| from_web(&input.source)) {
            broken.push("fetches no inputs from the web (rule: web)".into());
        }
        if let Publisher::S3(place, _) = &task.publisher
            && !self.lends_keys(place, true)
        {
            broken.push(format!("writes no results to s3://{} (rule: s3)", &*place.bucket));
        }
        if task.publisher == Publisher::Local && !self.publishes {
            broken.push("serves no results by links (rule: publish-listen)".into());
        }
        if reads_local(task) && !trusted && !self.data_peers.is_empty() {
            broken.push("lends its local folders to none of this peer's jobs (rule: data-peer)".into());
        }
        let private = trusted && task.content_inputs().any(|root| holdings.is_private(&root));
        if (private || reads_local(task)) && self.keeps_in(me, from, task).is_err() {
            broken.push(format!("{LEAK} (rule: data-peer)"));
        }
        if self.inputs_required && task.inputs.is_empty() {
            broken.push("takes no jobs without inputs (rule: require-inputs)".into());
        }
        if self.local_only && !holds_some(task, holdings, trusted) {
            broken.push("takes only jobs whose input lies here (rule: locality)".into());
        }
        if let Some(most) = &self.task_max {
            broken.extend(
                super::lacking(&task.resources, most).into_iter().map(|reason| format!("{reason} (rule: max-task)")),
            );
        }
        broken
    }

    /// Whether jobs of `from` may read what does not leave this node, `me`.
    #[must_use]
    pub fn may_read_private(&self, me: &NodeId, from: &NodeId) -> bool {
        from == me || self.data_peers.contains(from)
    }

    /// Whether what jobs of `from` make of such data waits for the word of the operator of this node, `me`.
    #[must_use]
    pub fn withholds_from(&self, me: &NodeId, from: &NodeId) -> bool {
        self.withholds && from != me
    }

    /// Whether a task of `from` that reads such data has no way to send it elsewhere before the operator has seen its result.
    ///
    /// # Errors
    /// If it has one, in words.
    pub fn keeps_in(&self, me: &NodeId, from: &NodeId, task: &Task) -> Result<(), &'static str> {
        let sends = task.network != Access::None || task.publisher != Publisher::Content;
        if sends && self.withholds_from(me, from) { Err(LEAK) } else { Ok(()) }
    }

    /// Whether tasks may be given this variable of the node's own environment.
    #[must_use]
    pub fn passes_on(&self, name: &str) -> bool {
        self.env.iter().any(|pattern| matches(pattern, name))
    }

    /// Whether the node's own S3 credentials may be used for this.
    #[must_use]
    pub fn lends_keys(&self, place: &Place, writes: bool) -> bool {
        self.s3.iter().any(|grant| {
            (grant.writable || !writes) && grant.bucket == *place.bucket && place.key.starts_with(&grant.prefix)
        })
    }

    /// Whether a task can have the network that it asks for: engines differ in what they can guard.
    pub(super) fn offers(&self, engine: &EngineTask, network: &Access) -> bool {
        match engine {
            EngineTask::Wasm(_) => matches!(network, Access::None | Access::Http(_)),
            // Without a proxy it must not think that it has a network.
            EngineTask::Docker(_) => self.proxies || !matches!(network, Access::Http(_)),
        }
    }

    fn check_container(&self, docker: &DockerTask, broken: &mut Vec<String>) {
        if !self.images.is_empty() && !self.images.iter().any(|pattern| matches(pattern, &docker.image)) {
            broken.push(format!("does not run the image `{}` (rule: image)", &*docker.image));
        }
        if !self.root && !is_nobody_special(&docker.user) {
            broken.push("runs containers only as users by number, and not as root (rule: allow-root)".into());
        }
    }

    /// Whether the task needs a look that takes time: at its image, or by the operator's program.
    pub(super) fn considers(&self, task: &Task) -> bool {
        self.probes || matches!(task.engine, EngineTask::Docker(_))
    }
}

/// Why a task that reads what does not leave this node cannot have a way out of it.
const LEAK: &str = "lets no data out: a job that reads it can have no network, and leaves its result here";

fn reads_local(task: &Task) -> bool {
    task.inputs.iter().any(|input| matches!(input.source, Source::Local { .. }))
}

fn holds_some(task: &Task, holdings: &Holdings, trusted: bool) -> bool {
    // What lies here for others, its owner did not put here: any node may be told to keep that.
    let own = |root| holdings.get(&root, trusted).is_some_and(|holding| !holding.guarded);
    reads_local(task) || task.content_inputs().any(own)
}

/// Whether this is surely not root: a name may be anybody, and so may a group that the image gives a user.
fn is_nobody_special(user: &str) -> bool {
    let number = |text: &str| {
        text.starts_with(|c: char| ('1'..='9').contains(&c))
            && text.parse::<u32>().is_ok_and(|number| number != u32::MAX)
    };
    match user.split_once(':') {
        None => user.is_empty() || number(user),
        Some((user, group)) => number(user) && number(group),
    }
}

/// Whether `text` is what `pattern` says, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::{is_nobody_special, matches};

    #[test]
    fn root_has_many_names() {
        for user in
            ["root", "0", "0:0", ":", ":5", "-0", "+0", "00", "svc", "1000:0", "1000:", "1000:docker", "4294967296"]
        {
            assert!(!is_nobody_special(user), "{user}");
        }
        for user in ["", "1000", "1000:1000", "65534:65534"] {
            assert!(is_nobody_special(user), "{user}");
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("alpine", "alpine", true),
            ("alpine", "alpine:3", false),
            ("alpine*", "alpine:3", true),
            ("*", "", true),
            ("docker.io/*/tool:*", "docker.io/a/b/tool:1", true),
            ("docker.io/*/tool:*", "evil.io/a/tool:1", false),
            ("*a*b", "xaxbx", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
