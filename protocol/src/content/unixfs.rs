//! UnixFS: files and folders as dag-pb nodes.
//!
//! [`FileBuilder`] takes the leaves of a file in order and says what its interior nodes are, holding at most 1,024 links
//! per level; [`folder`] turns a folder's entries into blocks, one or a HAMT. Neither touches a disk: blocks go to a sink.

use super::dag_pb::{self, Link, MalformedNode, Node, Reader, Value};
use super::{Cid, Codec, hamt};

/// Bytes of a leaf.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Links of a file's interior node.
pub const FILE_LINKS_MAX: usize = 1024;
/// Bytes of a folder's block above which it becomes a HAMT.
pub const FOLDER_BYTES_MAX: usize = 256 << 10;

/// A finished part of a DAG.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Its root.
    pub cid: Cid,
    /// Bytes of blocks: the root's and all below, repeats counted.
    pub tsize: u64,
    /// Bytes of file content.
    pub size: u64,
}

impl Part {
    /// A leaf holding `bytes`.
    #[must_use]
    pub fn leaf(bytes: &[u8]) -> Self {
        Self { cid: Cid::of(Codec::Raw, bytes), tsize: bytes.len() as u64, size: bytes.len() as u64 }
    }
}

/// Takes blocks as they are made.
pub trait BlockSink {
    /// What can go wrong.
    type Error;

    /// Keeps `block`, whose CID is `cid`.
    ///
    /// # Errors
    /// Whatever the sink's storage says.
    fn put(&mut self, cid: Cid, block: Vec<u8>) -> Result<(), Self::Error>;
}

fn finish<S: BlockSink>(node: &Node, size: u64, sink: &mut S) -> Result<Part, S::Error> {
    let block = node.encode();
    let cid = dag_pb::cid(&block);
    let below: u64 = node.links.iter().map(|link| link.tsize).sum();
    let part = Part { cid, tsize: block.len() as u64 + below, size };
    sink.put(cid, block)?;
    Ok(part)
}

/// Builds a file's balanced DAG from its leaves, given in order.
#[derive(Debug, Default)]
pub struct FileBuilder {
    /// Unfinished nodes by height; level 0 holds leaves.
    levels: Vec<Vec<Part>>,
}

impl FileBuilder {
    /// Adds the next leaf. The sink gets every interior node that it completes.
    ///
    /// # Errors
    /// The sink's.
    pub fn leaf<S: BlockSink>(&mut self, leaf: Part, sink: &mut S) -> Result<(), S::Error> {
        self.add(0, leaf, sink)
    }

    fn add<S: BlockSink>(&mut self, mut level: usize, mut part: Part, sink: &mut S) -> Result<(), S::Error> {
        loop {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            if self.levels[level].len() < FILE_LINKS_MAX {
                self.levels[level].push(part);
                return Ok(());
            }
            // Full: close this node and carry it up; the new part starts the next node.
            let full = std::mem::replace(&mut self.levels[level], vec![part]);
            part = file_node(&full, sink)?;
            level += 1;
        }
    }

    /// Closes all levels and gives the root: a lone leaf is its own root.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish<S: BlockSink>(mut self, sink: &mut S) -> Result<Part, S::Error> {
        let mut level = 0;
        loop {
            let parts = std::mem::take(&mut self.levels[level]);
            let top = level + 1 == self.levels.len();
            if top && parts.len() == 1 {
                return Ok(parts[0]);
            }
            let node = file_node(&parts, sink)?;
            if top {
                return Ok(node);
            }
            self.add(level + 1, node, sink)?;
            level += 1;
        }
    }
}

fn file_node<S: BlockSink>(parts: &[Part], sink: &mut S) -> Result<Part, S::Error> {
    let size = parts.iter().map(|part| part.size).sum();
    let mut data = vec![0x08, 0x02];
    dag_pb::put_varint_field(&mut data, 3, size);
    for part in parts {
        dag_pb::put_varint_field(&mut data, 4, part.size);
    }
    let link = |part: &Part| Link { cid: part.cid, name: String::new(), tsize: part.tsize };
    finish(&Node { links: parts.iter().map(link).collect(), data }, size, sink)
}

/// Builds a folder from its entries, in any order.
///
/// The basic block is used while it is at most 256 KiB long, all of its links counted (`block-bytes` of IPIP-499).
///
/// # Errors
/// The sink's.
pub fn folder<S: BlockSink>(mut entries: Vec<(String, Part)>, sink: &mut S) -> Result<Part, S::Error> {
    let size = entries.iter().map(|(_, part)| part.size).sum();
    entries.sort_unstable_by(|(left, _), (right, _)| left.as_bytes().cmp(right.as_bytes()));
    let links: Vec<Link> =
        entries.into_iter().map(|(name, part)| Link { cid: part.cid, name, tsize: part.tsize }).collect();
    let node = Node { links, data: vec![0x08, 0x01] };
    if node.encoded_len() <= FOLDER_BYTES_MAX {
        return finish(&node, size, sink);
    }
    let shard = hamt::build(node.links);
    put_shard(&shard, size, sink)
}

fn put_shard<S: BlockSink>(shard: &hamt::Shard, size: u64, sink: &mut S) -> Result<Part, S::Error> {
    let mut links = Vec::with_capacity(shard.buckets.len());
    for (&bucket, entry) in &shard.buckets {
        links.push(match entry {
            hamt::Entry::Leaf(link) => Link { name: format!("{bucket:02X}{}", link.name), ..link.clone() },
            hamt::Entry::Shard(below) => {
                let part = put_shard(below, 0, sink)?;
                Link { cid: part.cid, name: format!("{bucket:02X}"), tsize: part.tsize }
            }
        });
    }
    finish(&Node { links, data: hamt::data(shard) }, size, sink)
}

/// What a block is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unixfs {
    /// Bytes of a file, or a whole small one.
    Leaf(Vec<u8>),
    /// An interior node of a file: its parts, in order.
    File {
        /// Bytes of the file below this node.
        size: u64,
        /// The parts.
        parts: Vec<Link>,
    },
    /// A folder: its entries.
    Folder(Vec<Link>),
    /// A part of a HAMT folder. Names begin with two hex digits; a name of just those leads to a deeper part.
    Shard(Vec<Link>),
}

impl Unixfs {
    /// Reads `block`, which is what `cid` names.
    ///
    /// # Errors
    /// If it is not a file or folder that this network stores.
    pub fn read(cid: &Cid, block: &[u8]) -> Result<Self, MalformedNode> {
        if cid.codec == Codec::Raw {
            return Ok(Self::Leaf(block.to_vec()));
        }
        let node = Node::decode(block)?;
        let (mut kind, mut size, mut inline) = (None, 0, Vec::new());
        let mut reader = Reader(&node.data);
        while let Some(field) = reader.field()? {
            match field {
                (1, Value::Varint(value)) => kind = Some(value),
                (2, Value::Bytes(bytes)) => inline = bytes.to_vec(),
                (3, Value::Varint(value)) => size = value,
                _ => {}
            }
        }
        match kind {
            Some(0 | 2) if node.links.is_empty() => Ok(Self::Leaf(inline)),
            Some(2) => Ok(Self::File { size, parts: node.links }),
            Some(1) => Ok(Self::Folder(node.links)),
            Some(5) => {
                let named = node.links.iter().all(|link| link.name.is_char_boundary(2) && link.name.len() >= 2);
                if named { Ok(Self::Shard(node.links)) } else { Err(MalformedNode("a shard's link has no prefix")) }
            }
            _ => Err(MalformedNode("not a file or folder")),
        }
    }

    /// The blocks right below.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        match self {
            Self::Leaf(_) => &[],
            Self::File { parts, .. } => parts,
            Self::Folder(links) | Self::Shard(links) => links,
        }
    }
}

/// Whether `name` may be an entry of a folder that somebody unpacks: one plain component.
#[must_use]
pub fn is_safe_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests;
