//! From blocks to files, folders and streams.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bacnode_protocol::content::unixfs::{Unixfs, is_safe_name};
use bacnode_protocol::content::{Cid, Codec};

use super::{Content, ContentError, io_error};

/// Files and folders that are laid out for one root.
const ENTRIES_MAX: u64 = 1_000_000;

/// One entry of a folder.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its root.
    pub cid: Cid,
    /// Bytes of blocks.
    pub size: u64,
}

/// What lies under a root, on the way down.
enum Item {
    Folder(PathBuf),
    File(PathBuf, Cid),
}

impl Content {
    /// Whether the root is a folder.
    ///
    /// # Errors
    /// If it is not held, or damaged.
    pub fn is_folder(&self, root: &Cid) -> Result<bool, ContentError> {
        Ok(root.codec == Codec::DagPb && matches!(self.unixfs(root)?, Unixfs::Folder(_) | Unixfs::Shard(_)))
    }

    /// The entries of a folder, in order of their names.
    ///
    /// # Errors
    /// If it is no folder, a part of it is lacking or damaged, or a name would leave it.
    pub fn entries(&self, folder: &Cid) -> Result<Vec<Entry>, ContentError> {
        let mut entries = Vec::new();
        self.collect_entries(folder, 0, &mut entries)?;
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    fn collect_entries(&self, cid: &Cid, depth: usize, entries: &mut Vec<Entry>) -> Result<(), ContentError> {
        let malformed = |reason| ContentError::Malformed { cid: *cid, reason };
        let (links, prefix) = match self.unixfs(cid)? {
            Unixfs::Folder(links) => (links, 0),
            Unixfs::Shard(links) if depth <= 9 => (links, 2),
            Unixfs::Shard(_) => return Err(malformed("a folder's shards are nested too deep")),
            Unixfs::Leaf(_) | Unixfs::File { .. } => return Err(malformed("is a file, not a folder")),
        };
        for link in links {
            if prefix > 0 && link.name.len() == prefix {
                self.collect_entries(&link.cid, depth + 1, entries)?;
                continue;
            }
            let name = &link.name[prefix..];
            if !is_safe_name(name) {
                return Err(malformed("an entry's name would leave the folder"));
            }
            entries.push(Entry { name: name.to_owned(), cid: link.cid, size: link.tsize });
        }
        Ok(())
    }

    /// The root of `path` below `root`, names separated by slashes.
    ///
    /// # Errors
    /// If there is no such entry.
    pub fn resolve(&self, root: &Cid, path: &str) -> Result<Cid, ContentError> {
        let mut cid = *root;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let entry = self.entries(&cid)?.into_iter().find(|entry| entry.name == name);
            cid = entry.ok_or(ContentError::Refused(format!("there is no `{name}` in {cid}")))?.cid;
        }
        Ok(cid)
    }

    /// Writes a file's bytes, checking each block.
    ///
    /// # Errors
    /// If a part is lacking or damaged, or the writer fails.
    pub fn write_file(&self, root: &Cid, out: &mut dyn Write) -> Result<u64, ContentError> {
        io::copy(&mut self.reader(root), out).map_err(io_error(format!("cannot copy {root}")))
    }

    /// The first `max` bytes of a file.
    ///
    /// # Errors
    /// If a part is lacking or damaged.
    pub fn head(&self, root: &Cid, max: usize) -> Result<Vec<u8>, ContentError> {
        let mut head = Vec::new();
        self.reader(root).take(max as u64).read_to_end(&mut head).map_err(io_error(format!("cannot read {root}")))?;
        Ok(head)
    }

    fn walk(
        &self,
        root: &Cid,
        top: PathBuf,
        mut visit: impl FnMut(Item) -> Result<(), ContentError>,
    ) -> Result<(), ContentError> {
        let mut stack = vec![(top, *root)];
        let mut left = ENTRIES_MAX;
        while let Some((path, cid)) = stack.pop() {
            left -= 1;
            if left == 0 {
                return Err(ContentError::Refused(format!("{root} has more than {ENTRIES_MAX} files and folders")));
            }
            if !self.is_folder(&cid)? {
                visit(Item::File(path, cid))?;
                continue;
            }
            visit(Item::Folder(path.clone()))?;
            for entry in self.entries(&cid)?.into_iter().rev() {
                stack.push((path.join(&entry.name), entry.cid));
            }
        }
        Ok(())
    }

    /// A read-only copy of the content under a path of its own, made once and shared by all tasks that read it. Large
    /// files are links to the store; their bytes are checked when the link is made.
    ///
    /// # Errors
    /// If a part is lacking or damaged, or the disk fails.
    pub fn mount(&self, root: &Cid) -> Result<Mount, ContentError> {
        let path = self.0.dir.join("mounts").join(root.to_string());
        let _writing = self.writing();
        let mount = Mount::new(self.clone(), *root, path.clone());
        if path.exists() {
            return Ok(mount);
        }
        // Made aside and renamed, so that it is whole or not there.
        let aside = self.tmp().join(format!("mount-{:x}", self.new_file_id()));
        self.walk(root, aside.clone(), |item| match item {
            Item::Folder(path) => std::fs::create_dir(&path).map_err(io_error("cannot make a folder")),
            Item::File(path, cid) => self.mount_file(&path, &cid),
        })
        .inspect_err(|_| _ = std::fs::remove_dir_all(&aside))?;
        match std::fs::rename(&aside, &path) {
            Ok(()) => Ok(mount),
            // Another task was faster.
            Err(_) if path.exists() => {
                let _ = if aside.is_dir() { std::fs::remove_dir_all(&aside) } else { std::fs::remove_file(&aside) };
                Ok(mount)
            }
            Err(source) => Err(ContentError::Io { what: "cannot place an input".into(), source }),
        }
    }

    fn mount_file(&self, path: &Path, cid: &Cid) -> Result<(), ContentError> {
        if let Some(id) = self.whole_file(cid)? {
            // What is linked is what was checked: the leaves may lie in other files, too.
            let same = || {
                let file = File::open(self.file_path(id)).map_err(io_error("cannot read a content file"))?;
                same_bytes(self.reader(cid), io::BufReader::with_capacity(1 << 20, file))
                    .map_err(io_error(format!("cannot read {cid}")))
            };
            if (self.is_fresh(id) || same()?) && std::fs::hard_link(self.file_path(id), path).is_ok() {
                return Ok(());
            }
        }
        let mut file = File::create(path).map_err(io_error("cannot write an input"))?;
        self.write_file(cid, &mut file).map(|_| ())
    }

    /// Writes the content to `path`, which does not exist yet, or is an empty folder.
    ///
    /// # Errors
    /// If a part is lacking or damaged, or the disk fails.
    pub fn export(&self, root: &Cid, path: &Path) -> Result<(), ContentError> {
        self.walk(root, path.to_owned(), |item| match item {
            Item::Folder(path) => match std::fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
                made => made.map_err(io_error(format!("cannot make {}", path.display()))),
            },
            Item::File(path, cid) => {
                let file = OpenOptions::new().write(true).create_new(true).open(&path);
                let mut file = file.map_err(io_error(format!("cannot write {}", path.display())))?;
                self.write_file(&cid, &mut file).map(|_| ())
            }
        })
    }

    /// Writes the content as a tar stream, names relative to the root.
    ///
    /// # Errors
    /// If a part is lacking or damaged, or the writer fails.
    pub fn write_tar(&self, root: &Cid, out: &mut dyn Write) -> Result<(), ContentError> {
        let mut tar = tar::Builder::new(out);
        self.walk(root, PathBuf::new(), |item| {
            let mut header = tar::Header::new_gnu();
            header.set_mtime(0);
            let failed = || io_error("cannot write");
            match item {
                Item::Folder(path) if path.as_os_str().is_empty() => Ok(()),
                Item::Folder(path) => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(0o755);
                    header.set_size(0);
                    tar.append_data(&mut header, path, io::empty()).map_err(failed())
                }
                Item::File(path, cid) => {
                    let size = self.size(&cid)?;
                    header.set_mode(0o644);
                    header.set_size(size);
                    let path = if path.as_os_str().is_empty() { PathBuf::from(cid.to_string()) } else { path };
                    tar.append_data(&mut header, path, self.reader(&cid)).map_err(failed())
                }
            }
        })?;
        tar.finish().map_err(io_error("cannot write"))
    }

    /// Reads a file's bytes in order, checking each block.
    #[must_use]
    pub fn reader(&self, root: &Cid) -> Reader {
        Reader { content: self.clone(), stack: vec![*root], block: io::Cursor::new(Vec::new()) }
    }
}

/// Content laid out for a task; the sweep leaves it alone as long as this lives.
#[derive(Debug)]
pub struct Mount {
    content: Content,
    root: Cid,
    path: PathBuf,
}

impl Mount {
    fn new(content: Content, root: Cid, path: PathBuf) -> Self {
        *content.mounted().entry(root).or_default() += 1;
        Self { content, root, path }
    }

    /// The store that it is in.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let mut mounted = self.content.mounted();
        if let Some(count) = mounted.get_mut(&self.root) {
            *count -= 1;
            if *count == 0 {
                mounted.remove(&self.root);
            }
        }
    }
}

impl Content {
    pub(super) fn mounted(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<Cid, usize>> {
        self.0.mounted.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Removes what is mounted for nobody.
    pub(super) fn clear_mounts(&self) {
        let mounted = self.mounted();
        for entry in std::fs::read_dir(self.0.dir.join("mounts")).into_iter().flatten().flatten() {
            let root = entry.file_name().to_str().and_then(|name| name.parse::<Cid>().ok());
            if root.is_none_or(|root| !mounted.contains_key(&root)) {
                let path = entry.path();
                let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            }
        }
    }
}

/// A file's bytes, block by block.
#[derive(Debug)]
pub struct Reader {
    content: Content,
    stack: Vec<Cid>,
    block: io::Cursor<Vec<u8>>,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.block.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(cid) = self.stack.pop() else { return Ok(0) };
            match self.content.unixfs(&cid).map_err(io::Error::other)? {
                Unixfs::Leaf(bytes) => self.block = io::Cursor::new(bytes),
                Unixfs::File { parts, .. } => self.stack.extend(parts.iter().rev().map(|part| part.cid)),
                Unixfs::Folder(_) | Unixfs::Shard(_) => {
                    return Err(io::Error::other(format!("{cid} is a folder, not a file")));
                }
            }
        }
    }
}

/// Whether two readers give the same bytes.
fn same_bytes(mut left: impl Read, mut right: impl io::BufRead) -> io::Result<bool> {
    let mut block = vec![0; 256 << 10];
    loop {
        let read = left.read(&mut block)?;
        if read == 0 {
            return Ok(right.fill_buf()?.is_empty());
        }
        let mut seen = 0;
        while seen < read {
            let other = right.fill_buf()?;
            let common = other.len().min(read - seen);
            if common == 0 || other[..common] != block[seen..seen + common] {
                return Ok(false);
            }
            right.consume(common);
            seen += common;
        }
    }
}
