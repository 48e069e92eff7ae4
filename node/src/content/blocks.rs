//! Blocks: where their bytes are, and reading them.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use bacnode_protocol::content::Cid;
use bacnode_protocol::content::unixfs::Unixfs;
use rocksdb::WriteBatch;

use super::{Content, ContentError, io_error};
use crate::store::StoreError;

/// Where a block's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Here.
    Inline(Vec<u8>),
    /// A part of a file.
    File { id: u64, offset: u64, len: u32 },
}

impl Place {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Inline(bytes) => [&[0], &bytes[..]].concat(),
            Self::File { id, offset, len } => {
                [&[1], &id.to_be_bytes()[..], &offset.to_be_bytes(), &len.to_be_bytes()].concat()
            }
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (0, rest) => Some(Self::Inline(rest.to_vec())),
            (1, rest) if rest.len() == 20 => Some(Self::File {
                id: u64::from_be_bytes(rest[..8].try_into().ok()?),
                offset: u64::from_be_bytes(rest[8..16].try_into().ok()?),
                len: u32::from_be_bytes(rest[16..].try_into().ok()?),
            }),
            _ => None,
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File { len, .. } => u64::from(*len),
        }
    }
}

impl Content {
    pub(super) fn place(&self, cid: &Cid) -> Result<Option<Place>, ContentError> {
        let Some(bytes) = self.store().get(self.columns().blocks, &cid.to_bytes())? else { return Ok(None) };
        Place::decode(&bytes).map(Some).ok_or(StoreError::Damaged("block").into())
    }

    pub(super) fn put_place(&self, batch: &mut WriteBatch, cid: &Cid, place: &Place) {
        self.store().put_in(batch, self.columns().blocks, &cid.to_bytes(), &place.encode());
        self.own_used().fetch_add(place.len(), std::sync::atomic::Ordering::Relaxed);
    }

    /// Whether the block is held.
    ///
    /// # Errors
    /// If the database fails.
    pub fn has(&self, cid: &Cid) -> Result<bool, ContentError> {
        Ok(self.store().get(self.columns().blocks, &cid.to_bytes())?.is_some())
    }

    /// A block's bytes as they lie on the disk. The reader checks them.
    pub(super) fn read_unchecked(&self, cid: &Cid) -> Result<Vec<u8>, ContentError> {
        let mut reader = BlockReader::new(self);
        reader.read(cid)?;
        Ok(reader.block)
    }

    /// A block, checked against its CID. What is damaged is held no longer: it can be fetched again.
    ///
    /// # Errors
    /// If it is not held, damaged, or the disk fails.
    pub fn read(&self, cid: &Cid) -> Result<Vec<u8>, ContentError> {
        let bytes = self.read_unchecked(cid)?;
        if cid.matches(&bytes) {
            return Ok(bytes);
        }
        tracing::warn!(%cid, "a block is damaged on this disk; it is given up");
        self.give_up(cid)?;
        Err(ContentError::Damaged(*cid))
    }

    fn give_up(&self, cid: &Cid) -> Result<(), ContentError> {
        let mut batch = WriteBatch::default();
        self.store().delete_in(&mut batch, self.columns().blocks, &cid.to_bytes());
        self.store().delete_in(&mut batch, self.columns().files, &cid.to_bytes());
        self.store().log().append(batch)?;
        Ok(())
    }

    /// What a block is.
    ///
    /// # Errors
    /// If it is not held, damaged, not a file or folder, or the disk fails.
    pub fn unixfs(&self, cid: &Cid) -> Result<Unixfs, ContentError> {
        let bytes = self.read(cid)?;
        Unixfs::read(cid, &bytes).map_err(|error| ContentError::Malformed { cid: *cid, reason: error.0 })
    }

    /// The roots of what is lacking below `root`, in order, at most `max` of them; empty if all is held.
    ///
    /// # Errors
    /// If a held block is damaged or the disk fails.
    pub fn lacking(&self, root: &Cid, max: usize) -> Result<Vec<Cid>, ContentError> {
        let (mut stack, mut seen, mut lacking) = (vec![*root], HashSet::new(), Vec::new());
        while let Some(cid) = stack.pop() {
            if !seen.insert(cid) {
                continue;
            }
            if !self.has(&cid)? {
                lacking.push(cid);
                if lacking.len() == max {
                    break;
                }
            } else if cid.codec == bacnode_protocol::content::Codec::DagPb {
                stack.extend(self.unixfs(&cid)?.links().iter().rev().map(|link| link.cid));
            }
        }
        Ok(lacking)
    }

    /// Bytes of file content below `root`, all of which is held.
    ///
    /// # Errors
    /// If something is lacking or damaged, or the disk fails.
    pub fn size(&self, root: &Cid) -> Result<u64, ContentError> {
        // Folders may share parts: each block is looked at once, and counted as often as it is named.
        let mut known: HashMap<Cid, u64> = HashMap::new();
        let mut stack = vec![(*root, false)];
        while let Some((cid, below_is_known)) = stack.pop() {
            if known.contains_key(&cid) {
                continue;
            }
            if cid.codec == bacnode_protocol::content::Codec::Raw {
                known.insert(cid, self.place(&cid)?.ok_or(ContentError::Missing(cid))?.len());
                continue;
            }
            match self.unixfs(&cid)? {
                Unixfs::Leaf(bytes) => _ = known.insert(cid, bytes.len() as u64),
                Unixfs::File { size, .. } => _ = known.insert(cid, size),
                Unixfs::Folder(links) | Unixfs::Shard(links) if below_is_known => {
                    let sizes = links.iter().filter_map(|link| known.get(&link.cid));
                    known.insert(cid, sizes.fold(0, |sum, size| sum.saturating_add(*size)));
                }
                Unixfs::Folder(links) | Unixfs::Shard(links) => {
                    stack.push((cid, true));
                    stack.extend(links.iter().map(|link| (link.cid, false)));
                }
            }
        }
        let size = known.get(root).copied().unwrap_or(0);
        Ok(size)
    }

    /// Bytes of all blocks held.
    pub(super) fn measure(&self) -> Result<u64, ContentError> {
        let mut total = 0;
        for item in self.store().scan(self.columns().blocks, &[]) {
            let (_, value) = item?;
            total += Place::decode(&value).map_or(0, |place| place.len());
        }
        Ok(total)
    }

    /// The file that is exactly the content of `cid`, where there is one.
    pub(super) fn whole_file(&self, cid: &Cid) -> Result<Option<u64>, ContentError> {
        let Some(bytes) = self.store().get(self.columns().files, &cid.to_bytes())? else { return Ok(None) };
        Ok(<[u8; 8]>::try_from(&bytes[..]).ok().map(u64::from_be_bytes))
    }

    pub(super) fn put_whole_file(&self, batch: &mut WriteBatch, cid: &Cid, id: u64) {
        self.store().put_in(batch, self.columns().files, &cid.to_bytes(), &id.to_be_bytes());
    }
}

/// Reads one block after the other, most of them from one file, into one buffer.
pub(super) struct BlockReader<'a> {
    content: &'a Content,
    file: Option<(u64, File)>,
    block: Vec<u8>,
}

impl<'a> BlockReader<'a> {
    pub(super) fn new(content: &'a Content) -> Self {
        Self { content, file: None, block: Vec::new() }
    }

    /// A block's bytes as they lie on the disk, unchecked.
    pub(super) fn read(&mut self, cid: &Cid) -> Result<&[u8], ContentError> {
        match self.content.place(cid)?.ok_or(ContentError::Missing(*cid))? {
            Place::Inline(bytes) => self.block = bytes,
            Place::File { id, offset, len } => {
                if self.file.as_ref().is_none_or(|(open, _)| *open != id) {
                    let file = File::open(self.content.file_path(id));
                    self.file = Some((id, file.map_err(io_error("cannot open a content file"))?));
                }
                self.block.resize(len as usize, 0);
                if let Some((_, file)) = &self.file {
                    let read = file.read_exact_at(&mut self.block, offset);
                    read.map_err(io_error("cannot read a content file"))?;
                }
            }
        }
        Ok(&self.block)
    }
}
