//! Content: blocks by CID, files kept whole, roots pinned for a reason.
//!
//! With raw leaves a UnixFS file *is* its bytes, so a file above 64 KiB is kept as a file, its leaves being places in it;
//! interior nodes and small files live in the database. What is held can therefore be handed to a task as a link instead
//! of a copy. Everything that is not below a pin may be swept away; see [`Content::collect`].
//!
//! What does not leave the node lies apart, in a second store of the same kind, [`Content::private`]: nothing that serves,
//! announces or fetches for others knows of it, and no DAG of a stranger's making can reach into it.

mod blocks;
mod export;
mod import;
mod pins;
mod spool;
mod stream;
pub mod transfer;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use bacnode_protocol::content::Cid;
use bacnode_protocol::job::format_bytes;

pub use self::export::Mount;
pub use self::import::{Imported, Limits};
pub use self::pins::Pin;
pub(crate) use self::pins::{INPUT, PUBLISHED, UPLOAD, USER, kept_for};
pub(crate) use self::stream::stream;
use crate::store::{Column, Store, StoreError};

/// Files up to this size live in the database.
pub(crate) const INLINE_FILE_BYTES_MAX: u64 = 64 << 10;

/// What can go wrong with content.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// Not held here.
    #[error("{0} is not held here")]
    Missing(Cid),
    /// The bytes on disk are not what they were.
    #[error("{0} is damaged on this node's disk")]
    Damaged(Cid),
    /// Something that is not a file or folder of this network.
    #[error("{cid}: {reason}")]
    Malformed {
        /// Which block.
        cid: Cid,
        /// Why.
        reason: &'static str,
    },
    /// A folder that holds more, or other things, than it may.
    #[error("{0}")]
    Refused(String),
    /// No room.
    #[error("no room for {}: {} of {} are in use", format_bytes(*.wanted), format_bytes(*.used), format_bytes(*.max))]
    Full {
        /// Bytes to add.
        wanted: u64,
        /// Bytes in use.
        used: u64,
        /// Bytes allowed.
        max: u64,
    },
}

pub(crate) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> ContentError {
    let what = what.into();
    // A reader of content can only speak of its own errors through an I/O error.
    move |source| source.downcast::<ContentError>().unwrap_or_else(|source| ContentError::Io { what, source })
}

/// Told when a root begins to be held, or is not any more, or for other reasons.
pub type Listener = Box<dyn Fn(Cid, Option<Lies>) + Send + Sync>;

/// How a root lies here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lies {
    /// Bytes of files.
    pub size: u64,
    /// Whether it is here only because the jobs of another owner are kept.
    pub guarded: bool,
}

/// The content of one node. Cheap to clone.
#[derive(Clone)]
pub struct Content(Arc<Inner>);

struct Inner {
    store: Store,
    columns: Columns,
    dir: PathBuf,
    quota: Arc<Quota>,
    /// What does not leave this node, unless this is it.
    private: Option<Content>,
    /// Writers of new blocks share it; the sweep has it alone.
    sweep: RwLock<()>,
    listener: OnceLock<Listener>,
    next_file: AtomicU64,
    /// How many tasks read each mounted root.
    mounted: Mutex<HashMap<Cid, usize>>,
    fresh: Mutex<Fresh>,
}

/// Where a store's records are.
#[derive(Debug, Clone, Copy)]
struct Columns {
    blocks: Column,
    files: Column,
    pins: Column,
}

const OPEN: Columns = Columns { blocks: Column::Blocks, files: Column::Files, pins: Column::Pins };
const PRIVATE: Columns =
    Columns { blocks: Column::PrivateBlocks, files: Column::PrivateFiles, pins: Column::PrivatePins };

/// Bytes that both stores may hold, and do.
#[derive(Debug)]
struct Quota {
    max: u64,
    open: AtomicU64,
    private: AtomicU64,
}

/// How long a file that was hashed need not be hashed again before it is used.
const FRESH_FOR: Duration = Duration::from_secs(60);

/// So many of them.
const FRESH_MAX: usize = 4_096;

/// Files that were hashed a moment ago as they lie on the disk, and what would tell that they were changed since.
#[derive(Debug, Default)]
struct Fresh(HashMap<u64, (Instant, Stamp)>);

/// Which file it is, when anything of it was last changed, and its length.
type Stamp = (u64, i64, i64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.ctime(), meta.ctime_nsec(), meta.size()))
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content({} used)", format_bytes(self.used()))
    }
}

impl Content {
    /// Opens the content below `data_dir`, of which at most `max` bytes are kept.
    ///
    /// # Errors
    /// If the folders cannot be made or the database fails.
    pub fn open(store: Store, data_dir: &Path, max: u64) -> Result<Self, ContentError> {
        let quota = Arc::new(Quota { max, open: AtomicU64::new(0), private: AtomicU64::new(0) });
        let private = Self::open_at(store.clone(), PRIVATE, data_dir.join("private"), Arc::clone(&quota), None)?;
        Self::open_at(store, OPEN, data_dir.join("content"), quota, Some(private))
    }

    fn open_at(
        store: Store,
        columns: Columns,
        dir: PathBuf,
        quota: Arc<Quota>,
        private: Option<Self>,
    ) -> Result<Self, ContentError> {
        for name in ["files", "mounts", "tmp"] {
            std::fs::create_dir_all(dir.join(name)).map_err(io_error("cannot make the content folder"))?;
        }
        clear(&dir.join("tmp"));
        let inner = Inner {
            store,
            columns,
            dir,
            quota,
            private,
            sweep: RwLock::new(()),
            listener: OnceLock::new(),
            next_file: AtomicU64::new(crate::clock::unix().0 << 20),
            mounted: Mutex::default(),
            fresh: Mutex::default(),
        };
        let content = Self(Arc::new(inner));
        content.set_used(content.measure()?);
        Ok(content)
    }

    /// What does not leave this node.
    #[must_use]
    pub fn private(&self) -> &Self {
        self.0.private.as_ref().unwrap_or(self)
    }

    /// Whether this is what does not leave this node.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.0.private.is_none()
    }

    /// The store of one kind.
    pub(crate) fn of_kind(&self, private: bool) -> &Self {
        if private { self.private() } else { self }
    }

    /// The store that has everything below `root`, if one has.
    pub(crate) fn holder(&self, root: &Cid) -> Result<Option<&Self>, ContentError> {
        for store in [self.private(), self] {
            if store.holds(root)? {
                return Ok(Some(store));
            }
        }
        Ok(None)
    }

    /// Whether everything below `root` is here.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn holds(&self, root: &Cid) -> Result<bool, ContentError> {
        Ok(self.lacking(root, 1)?.is_empty())
    }

    fn columns(&self) -> Columns {
        self.0.columns
    }

    fn own_used(&self) -> &AtomicU64 {
        if self.is_private() { &self.0.quota.private } else { &self.0.quota.open }
    }

    fn set_used(&self, bytes: u64) {
        self.own_used().store(bytes, Ordering::Relaxed);
    }

    /// A file was hashed where it lies, from when it was `before` on.
    fn note_fresh(&self, id: u64, before: Option<Stamp>) {
        let Some(before) = before.filter(|before| stamp(&self.file_path(id)) == Some(*before)) else { return };
        let (mut fresh, now) = (self.0.fresh.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        if fresh.0.len() >= FRESH_MAX {
            fresh.0.clear();
        }
        fresh.0.insert(id, (now, before));
    }

    /// Whether a file was hashed a moment ago and has not been changed since.
    fn is_fresh(&self, id: u64) -> bool {
        let fresh = self.0.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        let known = fresh.0.get(&id).filter(|(at, _)| at.elapsed() < FRESH_FOR);
        known.is_some_and(|(_, then)| stamp(&self.file_path(id)) == Some(*then))
    }

    /// Bytes in use here.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.own_used().load(Ordering::Relaxed)
    }

    /// Bytes in use, of what may be had and of what does not leave this node.
    #[must_use]
    pub fn used_in_all(&self) -> u64 {
        let Quota { open, private, .. } = &*self.0.quota;
        open.load(Ordering::Relaxed).saturating_add(private.load(Ordering::Relaxed))
    }

    /// Whether so much of the quota is in use that new work would not find room.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        self.used_in_all() > self.0.quota.max / 20 * 19
    }

    /// A folder on the disk of the content, for work in progress; emptied at each start.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.0.dir.join("tmp")
    }

    /// A folder on the disk of the content, for the results of what runs.
    #[must_use]
    pub fn runs(&self) -> PathBuf {
        self.0.dir.join("runs")
    }

    /// Tells `listener` what is held now, and every change from now on.
    ///
    /// # Errors
    /// If the database fails.
    pub fn listen(&self, listener: Listener) -> Result<(), ContentError> {
        for pin in self.pins()? {
            if let Some(lies) = self.lies(&pin) {
                listener(pin.root, Some(lies));
            }
        }
        let _ = self.0.listener.set(listener);
        Ok(())
    }

    /// A pin of this root came or went.
    pub(super) fn tell(&self, root: Cid) -> Result<(), ContentError> {
        let Some(listener) = self.0.listener.get() else { return Ok(()) };
        listener(root, self.pin_of(&root)?.and_then(|pin| self.lies(&pin)));
        Ok(())
    }

    /// Keeps the sweep away while new blocks have no pin yet.
    pub(super) fn writing(&self) -> RwLockReadGuard<'_, ()> {
        self.0.sweep.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Refuses what does not fit.
    pub(crate) fn make_room(&self, wanted: u64) -> Result<(), ContentError> {
        let (used, max) = (self.used_in_all(), self.0.quota.max);
        let free = crate::config::free_disk(&self.0.dir).unwrap_or(u64::MAX);
        if used.saturating_add(wanted) > max || wanted.saturating_add(64 << 20) > free {
            return Err(ContentError::Full { wanted, used, max: max.min(used.saturating_add(free)) });
        }
        Ok(())
    }

    /// A name for a new file that no other has.
    pub(super) fn new_file_id(&self) -> u64 {
        self.0.next_file.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn file_path(&self, id: u64) -> PathBuf {
        self.0.dir.join("files").join(format!("{id:016x}"))
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.store
    }
}

/// Removes what a former life left in a folder of temporary things.
pub(crate) fn clear(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        remove_tree(&path);
    }
}

/// Removes a file, or a folder with all in it, also where a task left folders that may not be looked into.
pub(crate) fn remove_tree(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(meta) = std::fs::symlink_metadata(path) else { return };
    if !meta.is_dir() {
        let _ = std::fs::remove_file(path);
        return;
    }
    if std::fs::remove_dir_all(path).is_ok() {
        return;
    }
    let mut stack = vec![path.to_owned()];
    while let Some(dir) = stack.pop() {
        let _ = std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700));
        let below = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        stack.extend(below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
    }
    if let Err(error) = std::fs::remove_dir_all(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove a left-over");
    }
}

#[cfg(test)]
mod tests;
