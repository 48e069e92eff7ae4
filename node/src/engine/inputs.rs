//! Inputs: bring them here, check that they may be used, lay them out for the guest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bacnode_protocol::compute::Run;
use bacnode_protocol::content::Cid;
use bacnode_protocol::wire::market::{FailureKind, Usage};
use bacnode_protocol::wire::task::Source;

use super::s3::Share;
use super::wasm::{Imports, ModuleSource};
use super::web::Fetched;
use super::{RunError, Runner};
use crate::config::LocalPath;
use crate::content::{ContentError, INPUT, Limits, USER};

/// The longest module that is compiled.
const MODULE_BYTES_MAX: u64 = 256 << 20;

/// An input that lies on this machine.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    host: PathBuf,
    guest: String,
    writable: bool,
    /// Content stays mounted as long as this does.
    mount: Option<std::sync::Arc<crate::content::Mount>>,
    root: Option<Cid>,
}

impl Ready {
    /// The content that is mounted here, and whether it is private.
    pub(super) fn mounted(&self) -> Option<(bool, Cid)> {
        Some((self.mount.as_ref()?.content().is_private(), self.root?))
    }

    /// As it is, for engines that mount files, too.
    pub(super) fn mount(&self) -> Mount {
        Mount { host: self.host.clone(), guest: self.guest.clone(), writable: self.writable }
    }
}

/// What a run reads of the data that does not leave this node.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Content that was added as private.
    pub(super) private: AtomicBool,
    /// Folders of this machine.
    pub(super) local: AtomicBool,
}

/// A file or folder that the guest sees.
#[derive(Debug, Clone)]
pub(super) struct Mount {
    pub(super) host: PathBuf,
    pub(super) guest: String,
    pub(super) writable: bool,
}

/// Fetches what is not here and checks what is, and notes what of it does not leave this node.
pub(super) async fn fetch(
    runner: &Runner,
    run: &Run,
    reads: &Reads,
    usage: &mut Usage,
) -> Result<Vec<Ready>, RunError> {
    let mut ready = Vec::with_capacity(run.task.inputs.len());
    for input in &run.task.inputs {
        let guest = input.target.to_string();
        ready.push(match &input.source {
            Source::Content(root) => {
                let mount = match private_content(runner, run, *root, usage).await? {
                    Some(mount) => {
                        reads.private.store(true, Ordering::Relaxed);
                        mount
                    }
                    None => fetch_content(runner, run, *root, usage).await?,
                };
                let (host, mount) = (mount.path().to_owned(), Some(std::sync::Arc::new(mount)));
                Ready { host, guest, writable: false, mount, root: Some(*root) }
            }
            Source::Url { url, sha256 } => {
                let inner = &runner.inner;
                let fetched = inner.web.fetch(&inner.content, url, *sha256, inner.limits.input_bytes, INPUT).await?;
                mount_fetched(runner, fetched, guest, usage).await?
            }
            Source::S3(objects) => {
                let inner = &runner.inner;
                let limits = Limits { bytes: inner.limits.input_bytes, entries: inner.limits.output_entries };
                let share = Share { slot: run.slot, slots: run.task.slots, limits };
                let fetched = inner.stores.fetch(&inner.web, &inner.content, objects, share, INPUT).await?;
                mount_fetched(runner, fetched, guest, usage).await?
            }
            Source::Local { path, writable } => {
                let host = local(&runner.inner.allow_local, path, *writable)?;
                reads.local.store(true, Ordering::Relaxed);
                Ready { host, guest, writable: *writable, mount: None, root: None }
            }
        });
    }
    Ok(ready)
}

async fn mount_fetched(runner: &Runner, fetched: Fetched, guest: String, usage: &mut Usage) -> Result<Ready, RunError> {
    usage.bytes_in += fetched.came;
    usage.bytes_held += fetched.size - fetched.came;
    let content = runner.inner.content.clone();
    let mount = blocking(move || Ok(content.mount(&fetched.root)?)).await?;
    let (host, mount) = (mount.path().to_owned(), Some(std::sync::Arc::new(mount)));
    Ok(Ready { host, guest, writable: false, mount, root: Some(fetched.root) })
}

/// Content that does not leave this node, if this is some and the job's owner may compute on it. To everybody else it is as
/// if it were not here.
async fn private_content(
    runner: &Runner,
    run: &Run,
    root: Cid,
    usage: &mut Usage,
) -> Result<Option<crate::content::Mount>, RunError> {
    if !runner.inner.policy.may_read_private(&runner.inner.me, &run.owner) {
        return Ok(None);
    }
    let content = runner.inner.content.private().clone();
    let own = run.owner == runner.inner.me;
    let mounted = move || {
        // Others name what was added for them, not what jobs made of it, and not parts: they could guess at both.
        if !(own || content.is_pinned(&root, USER)?) || !content.holds(&root)? {
            return Ok(None);
        }
        Ok(Some((content.mount(&root)?, content.size(&root)?)))
    };
    let Some((mount, size)) = blocking(mounted).await? else { return Ok(None) };
    usage.bytes_held += size;
    Ok(Some(mount))
}

async fn fetch_content(
    runner: &Runner,
    run: &Run,
    root: Cid,
    usage: &mut Usage,
) -> Result<crate::content::Mount, RunError> {
    let mut came = 0;
    for last in [false, true] {
        let fetched = runner.inner.fetcher.fetch(root, vec![run.owner], u64::MAX, INPUT.into()).await;
        came += fetched.map_err(|cause| RunError::Node(format!("input {root}: {cause}")))?;
        let content = runner.inner.content.clone();
        let mounted = blocking(move || Ok(content.mount(&root).and_then(|mount| Ok((mount, content.size(&root)?)))));
        match mounted.await? {
            Ok((mount, size)) => {
                usage.bytes_in += came;
                usage.bytes_held += size.saturating_sub(came);
                return Ok(mount);
            }
            // Found to be damaged only now, and given up: what is lacking comes once more.
            Err(ContentError::Damaged(_) | ContentError::Missing(_)) if !last => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(RunError::Node(format!("input {root} cannot be read")))
}

/// The path, if it lies within one that the operator allows, links followed.
fn local(allowed: &[LocalPath], named: &str, writable: bool) -> Result<PathBuf, RunError> {
    let may = allowed.iter().filter(|local| local.writable || !writable);
    let found = may.filter_map(|local| Some((local, local.find(Path::new(named))?)));
    // Of several names the one that says most.
    let Some((local, path)) = found.max_by_key(|(local, _)| local.name.components().count()) else {
        return Err(RunError::Node(format!("local input {named} is not on this node's list of local paths")));
    };
    let real = std::fs::canonicalize(&path);
    let real = real.map_err(|error| RunError::Node(format!("local input {named}: {error}")))?;
    // A link must not lead out of what is allowed.
    if !std::fs::canonicalize(&local.path).is_ok_and(|prefix| real.starts_with(prefix)) {
        return Err(RunError::Node(format!("local input {named} is not on this node's list of local paths")));
    }
    // Below a folder that tasks may write another task could put a link in the path's place before it is mounted.
    let writable_above = |local: &LocalPath| {
        local.writable
            && std::fs::canonicalize(&local.path).is_ok_and(|prefix| real.starts_with(&prefix) && real != prefix)
    };
    if allowed.iter().any(writable_above) {
        let cause =
            format!("local input {named} lies within a path that tasks may write: only the whole of it is mounted");
        return Err(RunError::Node(cause));
    }
    Ok(real)
}

/// The modules that a program may import: those that its task lists, and by their paths all that lie among its inputs.
pub(super) struct Modules<'a> {
    pub(super) inputs: &'a [Ready],
    /// Paths.
    pub(super) listed: Vec<&'a str>,
}

impl Imports for Modules<'_> {
    async fn find(&self, name: &str) -> Result<Option<ModuleSource>, RunError> {
        // It is the guest that says so.
        if name.contains('\0') || name.split('/').any(|part| part == "." || part == "..") {
            return Ok(None);
        }
        let named = |path: &&&str| {
            let file = path.rsplit('/').next().unwrap_or(path);
            [file, file.trim_end_matches(".wasm"), path.trim_start_matches('/'), path].contains(&name)
        };
        let path = match self.listed.iter().find(named) {
            Some(path) => (*path).to_owned(),
            None => format!("/{}", name.trim_start_matches('/')),
        };
        match module(self.inputs, &path).await {
            Ok(module) => Ok(Some(module)),
            Err(RunError::Task { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Where the module's bytes are.
pub(super) async fn module(inputs: &[Ready], path: &str) -> Result<ModuleSource, RunError> {
    let covering = inputs.iter().filter_map(|input| {
        let rest = path.strip_prefix(input.guest.trim_end_matches('/'))?;
        (rest.is_empty() || rest.starts_with('/')).then_some((input, rest.trim_start_matches('/')))
    });
    let missing = || RunError::task(FailureKind::Program, format!("there is no module at `{path}` among the inputs"));
    let (input, rest) = covering.max_by_key(|(input, _)| input.guest.len()).ok_or_else(missing)?;
    let host = if rest.is_empty() { input.host.clone() } else { input.host.join(rest) };
    // A link in a folder of this machine may lead out of it.
    let inside = || Some(std::fs::canonicalize(&host).ok()?.starts_with(std::fs::canonicalize(&input.host).ok()?));
    if input.root.is_none() && inside() != Some(true) {
        return Err(missing());
    }
    let meta = std::fs::metadata(&host).map_err(|_| missing())?;
    if !meta.is_file() || meta.len() > MODULE_BYTES_MAX {
        return Err(RunError::task(
            FailureKind::Program,
            format!("`{path}` is not a module (a file of at most 256 MiB)"),
        ));
    }
    let cid = match input.root.zip(input.mount.as_ref()) {
        Some((root, mount)) => {
            let (content, rest) = (mount.content().clone(), rest.to_owned());
            Some(blocking(move || Ok(content.resolve(&root, &rest)?)).await?)
        }
        // A local file may change under the same name: it is compiled anew each time.
        None => None,
    };
    Ok(ModuleSource { path: host, cid })
}

/// Folders to open for the guest. Files are linked into a folder of their own, one per parent.
pub(super) fn mounts(inputs: &[Ready], work: &Path) -> Result<Vec<Mount>, RunError> {
    let mut mounts: BTreeMap<String, Mount> = BTreeMap::new();
    for input in inputs.iter().filter(|input| input.host.is_dir()) {
        let mount = Mount { host: input.host.clone(), guest: input.guest.clone(), writable: input.writable };
        mounts.insert(input.guest.trim_end_matches('/').to_owned(), mount);
    }
    let mut parents: BTreeMap<String, PathBuf> = BTreeMap::new();
    for input in inputs.iter().filter(|input| !input.host.is_dir()) {
        let (parent, name) = input.guest.rsplit_once('/').unwrap_or(("", &input.guest));
        if mounts.contains_key(parent) {
            let cause = format!("the input `{}` lies within another input", input.guest);
            return Err(RunError::task(FailureKind::Program, cause));
        }
        let count = parents.len();
        let dir = parents.entry(parent.to_owned()).or_insert_with(|| work.join(format!("in-{count}")));
        link(&input.host, &dir.join(name))
            .map_err(|error| RunError::Node(format!("cannot place an input: {error}")))?;
    }
    for (parent, host) in parents {
        let guest = if parent.is_empty() { "/".to_owned() } else { parent.clone() };
        mounts.insert(parent, Mount { host, guest, writable: false });
    }
    Ok(mounts.into_values().collect())
}

fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::hard_link(from, to).or_else(|_| std::fs::copy(from, to).map(|_| ()))
}

/// Does work on the disk where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RunError> + Send + 'static,
) -> Result<T, RunError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(RunError::Node("reading an input broke down".into())))
}
