//! From files and folders to blocks.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bacnode_protocol::content::Cid;
use bacnode_protocol::content::unixfs::{self, BlockSink, CHUNK_BYTES, FileBuilder, Part};
use bacnode_protocol::job::format_bytes;
use bacnode_protocol::limits::{INLINE_BLOCKS_MAX, INLINE_RESULT_BYTES_MAX};
use bacnode_protocol::wire::bounded::BytesMax;
use bacnode_protocol::wire::market::InlineBlock;
use cap_std::fs::Dir;
use rocksdb::WriteBatch;

use super::blocks::Place;
use super::{Content, ContentError, INLINE_FILE_BYTES_MAX, io_error};

/// Bytes of blocks that are gathered in one batch.
const BATCH_BYTES: usize = 8 << 20;
/// How deep folders may be nested.
const DEPTH_MAX: usize = 64;

/// How much a folder may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of files.
    pub bytes: u64,
    /// Files and folders.
    pub entries: u64,
}

/// What an import made.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The root.
    pub root: Cid,
    /// Bytes of files.
    pub size: u64,
    /// Every block, if they are few and small enough to travel in a message.
    pub blocks: Vec<InlineBlock>,
}

/// A running import: blocks go into one batch, large files into the content folder.
pub(super) struct Import<'a> {
    content: &'a Content,
    pub(super) batch: WriteBatch,
    left: Limits,
    limits: Limits,
    /// All blocks so far, as long as they fit a message.
    small: Option<Vec<InlineBlock>>,
    small_bytes: usize,
    /// Move large files instead of copying them.
    take: bool,
    /// What is in the batch already.
    seen: HashSet<Cid>,
    /// Files that are kept whole by this batch.
    whole: HashMap<Cid, u64>,
    /// Files that must be on disk before the batch is.
    pub(super) files: Vec<PathBuf>,
}

impl Content {
    /// Adds a file or folder under `reason`. With `take` its files are moved, not copied.
    ///
    /// # Errors
    /// If it holds links or devices, more than `limits` allow, more than there is room for, or the disk fails.
    pub fn import(&self, path: &Path, limits: Limits, take: bool, reason: &str) -> Result<Imported, ContentError> {
        let _writing = self.writing();
        let mut import = Import::new(self, limits, take);
        let kind = std::fs::symlink_metadata(path).map_err(io_error(format!("cannot read {}", path.display())))?;
        let part = if kind.is_dir() {
            let dir = Dir::open_ambient_dir(path, cap_std::ambient_authority())
                .map_err(io_error(format!("cannot read {}", path.display())))?;
            import.folder(&dir, path, 0)?
        } else if kind.is_file() {
            let file = File::open(path).map_err(io_error(format!("cannot read {}", path.display())))?;
            import.file(file, path)?
        } else {
            return Err(ContentError::Refused(format!("{} is neither a file nor a folder", path.display())));
        };
        import.finish(part, reason)
    }

    /// Adds a file made of `bytes` under `reason`.
    ///
    /// # Errors
    /// If there is no room or the disk fails.
    pub fn import_bytes(&self, bytes: &[u8], reason: &str) -> Result<Imported, ContentError> {
        if bytes.len() as u64 <= INLINE_FILE_BYTES_MAX {
            let _writing = self.writing();
            let mut import = Import::new(self, Limits { bytes: u64::MAX, entries: 1 }, false);
            let part = import.leaf(bytes.to_vec())?;
            return import.finish(part, reason);
        }
        let path = self.tmp().join(format!("inline-{:x}", self.new_file_id()));
        std::fs::write(&path, bytes).map_err(io_error("cannot write an input"))?;
        let imported = self.import(&path, Limits { bytes: u64::MAX, entries: 1 }, true, reason);
        let _ = std::fs::remove_file(&path);
        imported
    }
}

impl<'a> Import<'a> {
    pub(super) fn new(content: &'a Content, limits: Limits, take: bool) -> Self {
        let batch = WriteBatch::default();
        let (small, seen, whole) = (Some(Vec::new()), HashSet::new(), HashMap::new());
        Self { content, batch, left: limits, limits, small, small_bytes: 0, take, seen, whole, files: Vec::new() }
    }

    /// Adds a folder's entries, the folders below it first.
    pub(super) fn folder(&mut self, dir: &Dir, path: &Path, depth: usize) -> Result<Part, ContentError> {
        let mut entries = Vec::new();
        let read = io_error(format!("cannot read {}", path.display()));
        for entry in dir.entries().map_err(read)? {
            let entry = entry.map_err(io_error(format!("cannot read {}", path.display())))?;
            let name = entry.file_name();
            let at = path.join(&name);
            let Some(name) = name.to_str().filter(|name| unixfs::is_safe_name(name)) else {
                return Err(ContentError::Refused(format!("{}: a name is not plain UTF-8", at.display())));
            };
            self.count_entry()?;
            let kind = entry.file_type().map_err(io_error(format!("cannot read {}", at.display())))?;
            let part = if kind.is_dir() {
                if depth == DEPTH_MAX {
                    return Err(ContentError::Refused(format!("folders are nested more than {DEPTH_MAX} deep")));
                }
                let below = entry.open_dir().map_err(io_error(format!("cannot read {}", at.display())))?;
                self.folder(&below, &at, depth + 1)?
            } else if kind.is_file() {
                let file = entry.open().map_err(io_error(format!("cannot read {}", at.display())))?;
                self.file(file.into_std(), &at)?
            } else {
                let what = if kind.is_symlink() { "a link" } else { "a device or socket" };
                return Err(ContentError::Refused(format!("`{name}` is {what}; only files and folders are kept")));
            };
            entries.push((name.to_owned(), part));
        }
        unixfs::folder(entries, self)
    }

    fn count_entry(&mut self) -> Result<(), ContentError> {
        self.left.entries = self.left.entries.checked_sub(1).ok_or_else(|| {
            ContentError::Refused(format!("there are more than {} files and folders", self.limits.entries))
        })?;
        Ok(())
    }

    fn count_bytes(&mut self, bytes: u64) -> Result<(), ContentError> {
        self.left.bytes = self.left.bytes.checked_sub(bytes).ok_or_else(|| {
            ContentError::Refused(format!("there are more than {} of files", format_bytes(self.limits.bytes)))
        })?;
        Ok(())
    }

    /// Adds a small file.
    pub(super) fn leaf(&mut self, bytes: Vec<u8>) -> Result<Part, ContentError> {
        self.count_bytes(bytes.len() as u64)?;
        let part = Part::leaf(&bytes);
        self.put(part.cid, bytes)?;
        Ok(part)
    }

    /// Adds a file; what lies at `path` is moved or copied if it is large.
    pub(super) fn file(&mut self, mut file: File, path: &Path) -> Result<Part, ContentError> {
        let unreadable = || io_error(format!("cannot read {}", path.display()));
        let len = file.metadata().map_err(unreadable())?.len();
        if len <= INLINE_FILE_BYTES_MAX {
            let mut bytes = Vec::with_capacity(len as usize);
            file.take(INLINE_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable())?;
            return self.leaf(bytes);
        }
        self.count_bytes(len)?;
        self.content.make_room(len)?;
        self.small = None;
        let id = self.content.new_file_id();
        let stored = self.content.file_path(id);
        // A file that has another name elsewhere could be changed there.
        let alone = file.metadata().is_ok_and(|meta| std::os::unix::fs::MetadataExt::nlink(&meta) == 1);
        if !(self.take && alone && std::fs::rename(path, &stored).is_ok()) {
            std::fs::copy(path, &stored).map_err(io_error(format!("cannot copy {}", path.display())))?;
            // What is hashed is what was copied, whatever happens to the original meanwhile.
            file = File::open(&stored).map_err(unreadable())?;
        }
        let before = super::stamp(&stored);
        self.files.push(stored.clone());
        let (part, placed) = self.leaves(&mut file, id).map_err(|error| match error {
            ContentError::Io { source, .. } => {
                ContentError::Io { what: format!("cannot read {}", path.display()), source }
            }
            other => other,
        })?;
        if !placed && self.is_kept_whole(&part.cid)? {
            // The same bytes lie here already.
            self.files.retain(|file| *file != stored);
            let _ = std::fs::remove_file(stored);
            return Ok(part);
        }
        self.content.put_whole_file(&mut self.batch, &part.cid, id);
        self.whole.insert(part.cid, id);
        self.content.note_fresh(id, before);
        Ok(part)
    }

    fn is_kept_whole(&self, cid: &Cid) -> Result<bool, ContentError> {
        let id = self.whole.get(cid).copied().map_or_else(|| self.content.whole_file(cid), |id| Ok(Some(id)))?;
        Ok(id.is_some_and(|id| self.content.file_path(id).exists()))
    }

    /// The blocks of a file, and whether any of them has its place in it.
    fn leaves(&mut self, file: &mut File, id: u64) -> Result<(Part, bool), ContentError> {
        let mut placed = false;
        let mut builder = FileBuilder::default();
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let mut offset = 0;
        loop {
            chunk.clear();
            file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk).map_err(io_error(""))?;
            if chunk.is_empty() && offset > 0 {
                break;
            }
            let leaf = Part::leaf(&chunk);
            let len = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            if self.is_new(&leaf.cid)? {
                self.content.put_place(&mut self.batch, &leaf.cid, &Place::File { id, offset, len });
                placed = true;
            }
            builder.leaf(leaf, self)?;
            offset += u64::from(len);
            if chunk.len() < CHUNK_BYTES {
                break;
            }
        }
        Ok((builder.finish(self)?, placed))
    }

    /// Files must be on the disk before what speaks of them.
    fn sync_files(&mut self) -> Result<(), ContentError> {
        for path in self.files.drain(..) {
            let synced = File::open(path).and_then(|file| file.sync_data());
            synced.map_err(io_error("cannot store a content file"))?;
        }
        Ok(())
    }

    /// Many small files are many blocks: they are written as they come, not gathered in memory. Nothing sweeps them away
    /// before their pin, because the import keeps the sweep out.
    fn write_much(&mut self) -> Result<(), ContentError> {
        if self.batch.size_in_bytes() < BATCH_BYTES {
            return Ok(());
        }
        self.content.make_room(BATCH_BYTES as u64)?;
        self.sync_files()?;
        self.content.store().log().append(std::mem::take(&mut self.batch))?;
        Ok(())
    }

    fn is_new(&mut self, cid: &Cid) -> Result<bool, ContentError> {
        Ok(self.seen.insert(*cid) && !self.content.has(cid)?)
    }

    /// Pins the root and appends everything in one batch, after the files it speaks of are on disk.
    pub(super) fn finish(mut self, part: Part, reason: &str) -> Result<Imported, ContentError> {
        self.sync_files()?;
        self.content.pin_in(&mut self.batch, &part.cid, reason, part.size);
        self.content.store().log().append(self.batch)?;
        self.content.tell(part.cid)?;
        Ok(Imported { root: part.cid, size: part.size, blocks: self.small.unwrap_or_default() })
    }
}

impl BlockSink for Import<'_> {
    type Error = ContentError;

    fn put(&mut self, cid: Cid, block: Vec<u8>) -> Result<(), ContentError> {
        self.small_bytes += block.len();
        if let Some(small) = &mut self.small {
            match BytesMax::new(block.clone()) {
                Ok(bytes) if self.small_bytes <= INLINE_RESULT_BYTES_MAX && small.len() < INLINE_BLOCKS_MAX => {
                    if small.iter().all(|known| known.cid != cid) {
                        small.push(InlineBlock { cid, bytes });
                    }
                }
                _ => self.small = None,
            }
        }
        if self.is_new(&cid)? {
            self.content.put_place(&mut self.batch, &cid, &Place::Inline(block));
        }
        self.write_much()
    }
}

impl Content {
    /// Holds a whole DAG that came as loose blocks, pinned for `reason`. `false` if they are not all of it, or not what
    /// they say they are; nothing is kept then.
    ///
    /// # Errors
    /// If there is no room or the disk fails.
    pub fn hold_blocks(&self, root: &Cid, blocks: &[InlineBlock], reason: &str) -> Result<bool, ContentError> {
        let known: std::collections::BTreeMap<Cid, &[u8]> = blocks
            .iter()
            .filter(|block| block.cid.matches(&block.bytes))
            .map(|block| (block.cid, &*block.bytes))
            .collect();
        let (mut stack, mut size, mut seen) = (vec![*root], 0, std::collections::BTreeSet::new());
        let mut batch = WriteBatch::default();
        // The caller must not wait for a sweep; the blocks can be fetched like any others.
        let Ok(_writing) = self.0.sweep.try_read() else { return Ok(false) };
        while let Some(cid) = stack.pop() {
            // A block may be named a million times by a few others; it is looked at once.
            if !seen.insert(cid) {
                continue;
            }
            let Some(bytes) = known.get(&cid) else { return Ok(false) };
            match unixfs::Unixfs::read(&cid, bytes) {
                Ok(unixfs::Unixfs::Leaf(bytes)) => size += bytes.len() as u64,
                Ok(node) => stack.extend(node.links().iter().map(|link| link.cid)),
                Err(_) => return Ok(false),
            }
        }
        self.make_room(INLINE_RESULT_BYTES_MAX as u64)?;
        for (cid, bytes) in known {
            if !self.has(&cid)? {
                self.put_place(&mut batch, &cid, &Place::Inline(bytes.to_vec()));
            }
        }
        self.pin_in(&mut batch, root, reason, size);
        self.store().log().append(batch)?;
        self.tell(*root)?;
        Ok(true)
    }
}
