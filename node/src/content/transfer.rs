//! Sending and receiving whole DAGs over a stream; see `bacnode_protocol::wire::dag` for what goes over it.
//!
//! Both sides walk depth first and skip what this request has carried already, so the receiver always knows which block
//! must come next, and takes no other. A file's leaves arrive in order and are written to one file.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};

use bacnode_protocol::content::unixfs::Unixfs;
use bacnode_protocol::content::{Cid, Codec};
use bacnode_protocol::wire::codec;
use bacnode_protocol::wire::dag::{BLOCK_BYTES_MAX, DAG_HEADER_BYTES, DagHeader};
use rocksdb::WriteBatch;

use super::blocks::Place;
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
        while let Some(cid) = stack.pop() {
            if !seen.insert(cid) {
                continue;
            }
            // Not checked here: the receiver does, and asks elsewhere if it is damaged.
            let block = match self.read_unchecked(&cid) {
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
            out.write_all(&block)?;
            if cid.codec == Codec::DagPb
                && let Ok(node) = Unixfs::read(&cid, &block)
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
            spool: None,
        };
        let taken = receiver.take_all(max, stream);
        // What came is kept, whether or not all came.
        let kept = receiver.close_spool(None).and_then(|()| receiver.write_batch());
        let bytes = taken?;
        kept?;
        Ok(bytes)
    }
}

struct Expected {
    cid: Cid,
    /// Whether it belongs to the file that is being written.
    in_file: bool,
}

/// A file in the making: leaves as they come.
struct Spool {
    id: u64,
    path: std::path::PathBuf,
    file: File,
    flusher: Flusher,
    len: u64,
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
    spool: Option<Spool>,
}

impl Receiver<'_> {
    fn take_all(&mut self, max: u64, stream: &mut impl Read) -> Result<u64, TransferError> {
        let mut received = 0u64;
        // One buffer for all blocks: a fresh megabyte each time costs more than what is done with it.
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
            if buffer.len() < len {
                buffer.resize(len, 0);
            }
            let block = &mut buffer[..len];
            stream.read_exact(block)?;
            if !cid.matches(block) {
                return Err(TransferError::Wrong("a block that is not what its CID says"));
            }
            self.seen.insert(cid);
            self.take(&expected, block)?;
        }
        match read_header(stream)? {
            DagHeader::End => Ok(received),
            _ => Err(TransferError::Wrong("more than was asked for")),
        }
    }

    fn take(&mut self, expected: &Expected, block: &[u8]) -> Result<(), TransferError> {
        let cid = expected.cid;
        self.batch_bytes += block.len();
        if cid.codec == Codec::Raw {
            self.leaf(expected, block)?;
        } else {
            let node =
                Unixfs::read(&cid, block).map_err(|_| TransferError::Wrong("a block that is no file or folder"))?;
            self.content.put_place(&mut self.batch, &cid, &Place::Inline(block.to_vec()));
            let mut in_file = expected.in_file;
            if let Unixfs::File { size, .. } = node
                && !in_file
                && size > INLINE_FILE_BYTES_MAX
            {
                self.open_spool(cid)?;
                in_file = true;
            }
            let children = node.links().iter().rev().map(|link| Expected { cid: link.cid, in_file });
            self.stack.extend(children);
            self.step_spool(in_file && expected.in_file, node.links().len() * usize::from(in_file))?;
        }
        if self.batch_bytes >= BATCH_BYTES {
            self.content.make_room(BATCH_BYTES as u64)?;
            if self.spool.is_none() {
                self.write_batch()?;
            }
            self.batch_bytes = 0;
        }
        Ok(())
    }

    fn leaf(&mut self, expected: &Expected, block: &[u8]) -> Result<(), TransferError> {
        let cid = expected.cid;
        if !expected.in_file {
            if block.len() as u64 <= INLINE_FILE_BYTES_MAX {
                self.content.put_place(&mut self.batch, &cid, &Place::Inline(block.to_vec()));
                return Ok(());
            }
            // A file of one chunk, or a leaf that was lacking on its own.
            self.open_spool(cid)?;
            self.append(&cid, block)?;
            return self.close_spool(Some(cid)).map_err(Into::into);
        }
        self.append(&cid, block)?;
        self.step_spool(true, 0)
    }

    /// A block that this transfer carried before: it need not come again, but a file must be whole.
    fn repeat(&mut self, expected: &Expected) -> Result<u64, TransferError> {
        const STEP_BYTES: u64 = 64;
        if !expected.in_file {
            return Ok(STEP_BYTES);
        }
        if expected.cid.codec == Codec::DagPb {
            let node = self.read_back(&expected.cid)?;
            let node =
                Unixfs::read(&expected.cid, &node).map_err(|_| TransferError::Wrong("a block that is no file"))?;
            self.stack.extend(node.links().iter().rev().map(|link| Expected { cid: link.cid, in_file: true }));
            self.step_spool(true, node.links().len())?;
            return Ok(STEP_BYTES);
        }
        let block = self.read_back(&expected.cid)?;
        if let Some(spool) = &mut self.spool {
            spool.file.write_all(&block)?;
            spool.len += block.len() as u64;
        }
        self.content.make_room(block.len() as u64)?;
        self.step_spool(true, 0)?;
        Ok(block.len() as u64 + STEP_BYTES)
    }

    /// A block of this transfer, which may be in the batch or the spool still.
    fn read_back(&mut self, cid: &Cid) -> Result<Vec<u8>, TransferError> {
        if !self.content.has(cid)? {
            // Written without its file: the spool is where the place says, only under another name until it is whole.
            if let Some(spool) = &mut self.spool {
                spool.file.flush()?;
                let stored = self.content.file_path(spool.id);
                if !stored.exists() {
                    std::fs::hard_link(&spool.path, stored)?;
                }
            }
            self.write_batch()?;
        }
        Ok(self.content.read_unchecked(cid)?)
    }

    fn open_spool(&mut self, root: Cid) -> Result<(), TransferError> {
        self.close_spool(None)?;
        let id = self.content.new_file_id();
        let path = self.content.tmp().join(format!("spool-{id:x}"));
        let file = File::create(&path)?;
        let flusher = Flusher::start(&file);
        self.spool = Some(Spool { id, path, file, flusher, len: 0, root, left: 0 });
        Ok(())
    }

    fn append(&mut self, cid: &Cid, block: &[u8]) -> Result<(), TransferError> {
        let Some(spool) = &mut self.spool else { return Err(TransferError::Wrong("a leaf of no file")) };
        spool.file.write_all(block)?;
        let len = u32::try_from(block.len()).unwrap_or(u32::MAX);
        self.content.put_place(&mut self.batch, cid, &Place::File { id: spool.id, offset: spool.len, len });
        spool.len += u64::from(len);
        spool.flusher.wrote(u64::from(len));
        Ok(())
    }

    /// Counts what of the file is still to come, and closes it when that is nothing.
    fn step_spool(&mut self, one_done: bool, more: usize) -> Result<(), TransferError> {
        let Some(spool) = &mut self.spool else { return Ok(()) };
        spool.left = spool.left + more - usize::from(one_done).min(spool.left);
        if spool.left == 0 {
            let root = spool.root;
            self.close_spool(Some(root))?;
        }
        Ok(())
    }

    /// Puts the file where its places say it is; with `whole` it is exactly that file.
    fn close_spool(&mut self, whole: Option<Cid>) -> Result<(), ContentError> {
        let Some(spool) = self.spool.take() else { return Ok(()) };
        spool.flusher.finish();
        let _writing = self.content.writing();
        spool.file.sync_data().map_err(io_error("cannot store a content file"))?;
        std::fs::rename(&spool.path, self.content.file_path(spool.id))
            .map_err(io_error("cannot store a content file"))?;
        if let Some(root) = whole {
            self.content.put_whole_file(&mut self.batch, &root, spool.id);
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

/// Sends a file to the disk while more of it comes, so that little is left to wait for at the end.
#[derive(Debug)]
struct Flusher {
    unsent: u64,
    wake: Option<std::sync::mpsc::SyncSender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Bytes after which the disk is set to work.
const FLUSH_BYTES: u64 = 32 << 20;

impl Flusher {
    fn start(file: &File) -> Self {
        let (wake, woken) = std::sync::mpsc::sync_channel(1);
        // Without a second descriptor, or a thread, everything goes to the disk at the end.
        let thread = file.try_clone().ok().and_then(|file| {
            let flush = move || {
                while woken.recv().is_ok() {
                    // The sync at the end is the one that counts.
                    let _ = file.sync_data();
                }
            };
            std::thread::Builder::new().name("flush".into()).stack_size(64 << 10).spawn(flush).ok()
        });
        Self { unsent: 0, wake: Some(wake), thread }
    }

    fn wrote(&mut self, bytes: u64) {
        self.unsent += bytes;
        if self.unsent >= FLUSH_BYTES
            && let Some(wake) = &self.wake
            && wake.try_send(()).is_ok()
        {
            self.unsent = 0;
        }
    }

    fn finish(mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
