//! Sending and receiving whole DAGs over a stream; see `bacnode_protocol::wire::dag` for what goes over it.
//!
//! Both sides walk depth first and skip what this request has carried already, so the receiver always knows which block
//! must come next, and takes no other. A file's leaves arrive in order and are written to one file.

use std::collections::HashSet;
use std::io::{self, Read, Write};

use bacnode_protocol::content::unixfs::Unixfs;
use bacnode_protocol::content::{Cid, Codec};
use bacnode_protocol::wire::codec;
use bacnode_protocol::wire::dag::{BLOCK_BYTES_MAX, DAG_HEADER_BYTES, DagHeader};
use rocksdb::WriteBatch;

use super::blocks::{BlockReader, Place};
use super::spool::Spool;
use super::{Content, ContentError, INLINE_FILE_BYTES_MAX, io_error};

/// Received bytes after which what came is written, and room is looked for again.
const BATCH_BYTES: usize = 8 << 20;

/// Why a transfer broke off.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The stream, or the peer.
    #[error("the transfer broke off: {0}")]
    Stream(#[from] io::Error),
    /// The peer does not have it.
    #[error("the peer does not have {0}")]
    Missing(Cid),
    /// The peer sent something else.
    #[error("the peer sent {0}")]
    Wrong(&'static str),
    /// More than was agreed.
    #[error("the peer sends more than the {0} bytes that are taken")]
    TooMuch(u64),
    /// Our own disk.
    #[error(transparent)]
    Content(#[from] ContentError),
}

fn write_header(out: &mut impl Write, header: &DagHeader) -> io::Result<()> {
    let mut bytes = codec::encode(header);
    bytes.resize(DAG_HEADER_BYTES, 0);
    out.write_all(&bytes)
}

fn read_header(stream: &mut impl Read) -> Result<DagHeader, TransferError> {
    let mut bytes = [0; DAG_HEADER_BYTES];
    stream.read_exact(&mut bytes)?;
    let len = match bytes[0] {
        0 => DAG_HEADER_BYTES,
        1 => DAG_HEADER_BYTES - 4,
        _ => 4,
    };
    codec::decode(&bytes[..len], DAG_HEADER_BYTES).map_err(|_| TransferError::Wrong("a malformed header"))
}

impl Content {
    /// Sends every block below `wants` that is held.
    ///
    /// # Errors
    /// If the stream or our own disk fails.
    pub fn send(&self, wants: &[Cid], out: &mut impl Write) -> Result<(), TransferError> {
        let mut seen = HashSet::new();
        let mut stack: Vec<Cid> = wants.iter().rev().copied().collect();
        let mut reader = BlockReader::new(self);
        while let Some(cid) = stack.pop() {
            if !seen.insert(cid) {
                continue;
            }
            // Not checked here: the receiver does, and asks elsewhere if it is damaged.
            let block = match reader.read(&cid) {
                Ok(block) => block,
                Err(error) => {
                    if !matches!(error, ContentError::Missing(_)) {
                        tracing::warn!(%cid, %error, "a block cannot be served");
                    }
                    write_header(out, &DagHeader::Missing { cid })?;
                    break;
                }
            };
            let len = u32::try_from(block.len()).unwrap_or(u32::MAX);
            write_header(out, &DagHeader::Block { cid, len })?;
            out.write_all(block)?;
            if cid.codec == Codec::DagPb
                && let Ok(node) = Unixfs::read(&cid, block)
            {
                stack.extend(node.links().iter().rev().map(|link| link.cid));
            }
        }
        write_header(out, &DagHeader::End)?;
        out.flush()?;
        Ok(())
    }

    /// Takes every block below `wants`, at most `max` bytes, and stores it. Gives the bytes received. What came before a
    /// break stays and need not come again.
    ///
    /// # Errors
    /// If the peer breaks off, lacks something, sends something else or too much, or our own disk fails.
    pub fn receive(&self, wants: &[Cid], max: u64, stream: &mut impl Read) -> Result<u64, TransferError> {
        let mut receiver = Receiver {
            content: self,
            stack: wants.iter().rev().map(|cid| Expected { cid: *cid, in_file: false }).collect(),
            seen: HashSet::new(),
            batch: WriteBatch::default(),
            batch_bytes: 0,
            coming: None,
        };
        let taken = receiver.take_all(max, stream);
        // What came is kept, whether or not all came.
        let kept = receiver.close_file(None).and_then(|()| receiver.write_batch());
        let bytes = taken?;
        kept?;
        Ok(bytes)
    }
}

impl Content {
    /// Copies everything below `root` from another store of this node, and keeps it for `reason`.
    ///
    /// # Errors
    /// If it is not all there, there is no room, or the disk fails.
    pub fn adopt(&self, from: &Self, root: &Cid, reason: &str) -> Result<(), TransferError> {
        let coming = self.begin(root, reason)?;
        let (out, mut stream) = std::os::unix::net::UnixStream::pair()?;
        let (from, wanted) = (from.clone(), *root);
        let sender = std::thread::Builder::new().name("adopt".into()).spawn(move || {
            let mut out = io::BufWriter::with_capacity(256 << 10, out);
            from.send(&[wanted], &mut out)
        })?;
        let received = self.receive(&[*root], u64::MAX, &mut stream);
        drop(stream);
        let sent = sender.join().map_err(|_| TransferError::Wrong("nothing: sending broke down"))?;
        received?;
        sent?;
        coming.keep()?;
        Ok(())
    }
}

struct Expected {
    cid: Cid,
    /// Whether it belongs to the file that is being written.
    in_file: bool,
}

/// The file whose leaves are coming.
struct Coming {
    id: u64,
    spool: Spool,
    root: Cid,
    /// Entries of the stack that belong to it.
    left: usize,
}

struct Receiver<'a> {
    content: &'a Content,
    stack: Vec<Expected>,
    seen: HashSet<Cid>,
    batch: WriteBatch,
    batch_bytes: usize,
    coming: Option<Coming>,
}

impl Receiver<'_> {
    fn take_all(&mut self, max: u64, stream: &mut impl Read) -> Result<u64, TransferError> {
        let mut received = 0u64;
        // Buffers go round: a fresh megabyte for each block costs more than what is done with it.
        let mut buffer = Vec::new();
        while let Some(expected) = self.stack.pop() {
            if self.seen.contains(&expected.cid) {
                // What is written again counts like what is sent: a few blocks can name themselves a million times.
                received += self.repeat(&expected)?;
                if received > max {
                    return Err(TransferError::TooMuch(max));
                }
                continue;
            }
            let (cid, len) = match read_header(stream)? {
                DagHeader::Block { cid, len } => (cid, len as usize),
                DagHeader::Missing { cid } => return Err(TransferError::Missing(cid)),
                DagHeader::End => return Err(TransferError::Missing(expected.cid)),
            };
            if cid != expected.cid || len > BLOCK_BYTES_MAX {
                return Err(TransferError::Wrong("a block that was not asked for"));
            }
            received += len as u64;
            if received > max {
                return Err(TransferError::TooMuch(max));
            }
            buffer.resize(len, 0);
            stream.read_exact(&mut buffer)?;
            if !cid.matches(&buffer) {
                return Err(TransferError::Wrong("a block that is not what its CID says"));
            }
            self.seen.insert(cid);
            self.take(&expected, &mut buffer)?;
        }
        match read_header(stream)? {
            DagHeader::End => Ok(received),
            _ => Err(TransferError::Wrong("more than was asked for")),
        }
    }

    fn take(&mut self, expected: &Expected, block: &mut Vec<u8>) -> Result<(), TransferError> {
        let cid = expected.cid;
        self.batch_bytes += block.len();
        if cid.codec == Codec::Raw {
            self.leaf(expected, block)?;
        } else {
            let node =
                Unixfs::read(&cid, block).map_err(|_| TransferError::Wrong("a block that is no file or folder"))?;
            self.content.put_place(&mut self.batch, &cid, &Place::Inline(block.clone()));
            let mut in_file = expected.in_file;
            if let Unixfs::Leaf(bytes) = &node
                && let Some(coming) = self.coming.as_mut().filter(|_| in_file)
            {
                // Older tools wrap leaves; the file is what is in them.
                coming.spool.append(&mut bytes.clone())?;
            }
            if let Unixfs::File { size, .. } = node
                && !in_file
                && size > INLINE_FILE_BYTES_MAX
            {
                self.open_file(cid)?;
                in_file = true;
            }
            let children = node.links().iter().rev().map(|link| Expected { cid: link.cid, in_file });
            self.stack.extend(children);
            self.step_file(in_file && expected.in_file, node.links().len() * usize::from(in_file))?;
        }
        if self.batch_bytes >= BATCH_BYTES {
            self.content.make_room(BATCH_BYTES as u64)?;
            if self.coming.is_none() {
                self.write_batch()?;
            }
            self.batch_bytes = 0;
        }
        Ok(())
    }

    fn leaf(&mut self, expected: &Expected, block: &mut Vec<u8>) -> Result<(), TransferError> {
        let cid = expected.cid;
        if !expected.in_file {
            if block.len() as u64 <= INLINE_FILE_BYTES_MAX {
                self.content.put_place(&mut self.batch, &cid, &Place::Inline(block.clone()));
                return Ok(());
            }
            // A file of one chunk, or a leaf that was lacking on its own.
            self.open_file(cid)?;
            self.append(&cid, block)?;
            return self.close_file(Some(cid)).map_err(Into::into);
        }
        self.append(&cid, block)?;
        self.step_file(true, 0)
    }

    /// A block that this transfer carried before: it need not come again, but a file must be whole.
    fn repeat(&mut self, expected: &Expected) -> Result<u64, TransferError> {
        const STEP_BYTES: u64 = 64;
        if !expected.in_file {
            return Ok(STEP_BYTES);
        }
        let mut block = self.read_back(&expected.cid)?;
        let mut links = 0;
        if expected.cid.codec == Codec::DagPb {
            let node =
                Unixfs::read(&expected.cid, &block).map_err(|_| TransferError::Wrong("a block that is no file"))?;
            links = node.links().len();
            self.stack.extend(node.links().iter().rev().map(|link| Expected { cid: link.cid, in_file: true }));
            let Unixfs::Leaf(bytes) = node else {
                self.step_file(true, links)?;
                return Ok(STEP_BYTES);
            };
            block = bytes;
        }
        let len = block.len() as u64;
        self.content.make_room(len)?;
        if let Some(coming) = &mut self.coming {
            coming.spool.append(&mut block)?;
        }
        self.step_file(true, links)?;
        Ok(len + STEP_BYTES)
    }

    /// A block of this transfer, which may be in the batch or the spool still.
    fn read_back(&mut self, cid: &Cid) -> Result<Vec<u8>, TransferError> {
        if let Some(coming) = &mut self.coming {
            coming.spool.settle()?;
        }
        if !self.content.has(cid)? {
            // Written without its file: the spool is where the place says, only under another name until it is whole.
            if let Some(coming) = &self.coming {
                let stored = self.content.file_path(coming.id);
                if !stored.exists() {
                    std::fs::hard_link(coming.spool.path(), stored)?;
                }
            }
            self.write_batch()?;
        }
        Ok(self.content.read_unchecked(cid)?)
    }

    fn open_file(&mut self, root: Cid) -> Result<(), TransferError> {
        self.close_file(None)?;
        let id = self.content.new_file_id();
        let spool = Spool::create(self.content.tmp().join(format!("spool-{id:x}")))?;
        self.coming = Some(Coming { id, spool, root, left: 0 });
        Ok(())
    }

    fn append(&mut self, cid: &Cid, block: &mut Vec<u8>) -> Result<(), TransferError> {
        let Some(coming) = &mut self.coming else { return Err(TransferError::Wrong("a leaf of no file")) };
        let len = u32::try_from(block.len()).unwrap_or(u32::MAX);
        let place = Place::File { id: coming.id, offset: coming.spool.len(), len };
        self.content.put_place(&mut self.batch, cid, &place);
        coming.spool.append(block)?;
        Ok(())
    }

    /// Counts what of the file is still to come, and closes it when that is nothing.
    fn step_file(&mut self, one_done: bool, more: usize) -> Result<(), TransferError> {
        let Some(coming) = &mut self.coming else { return Ok(()) };
        coming.left = coming.left + more - usize::from(one_done).min(coming.left);
        if coming.left == 0 {
            let root = coming.root;
            self.close_file(Some(root))?;
        }
        Ok(())
    }

    /// Puts the file where its places say it is; with `whole` it is exactly that file.
    fn close_file(&mut self, whole: Option<Cid>) -> Result<(), ContentError> {
        let Some(Coming { id, spool, .. }) = self.coming.take() else { return Ok(()) };
        let stored = || io_error("cannot store a content file");
        let path = spool.finish().map_err(stored())?;
        let _writing = self.content.writing();
        std::fs::rename(path, self.content.file_path(id)).map_err(stored())?;
        if let Some(root) = whole {
            self.content.put_whole_file(&mut self.batch, &root, id);
        }
        self.write_batch()
    }

    fn write_batch(&mut self) -> Result<(), ContentError> {
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            self.content.store().log().append(batch)?;
        }
        Ok(())
    }
}
