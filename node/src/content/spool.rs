//! A file in the making: its leaves are written as they come, by a thread of its own.
//!
//! Whoever receives is busy with hashing; the page cache and the disk take as long again. A large file is sent to the disk
//! while more of it comes, and leaves the page cache behind it, so that a transfer neither waits long at its end nor pushes
//! out what tasks are reading.

use std::fs::File;
use std::io::{self, Write as _};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rustix::fs::{Advice, fadvise};

/// Blocks that may wait to be written.
const BLOCKS_MAX: usize = 4;
/// Bytes after which the disk is set to work.
const FLUSH_BYTES: u64 = 32 << 20;

enum Step {
    Write(Vec<u8>),
    /// Say when everything before this is written.
    Settle(SyncSender<()>),
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    len: u64,
    steps: Option<SyncSender<Step>>,
    used: Receiver<Vec<u8>>,
    writer: Option<JoinHandle<io::Result<File>>>,
}

impl Spool {
    /// Begins a file at `path`.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        let file = File::create(&path)?;
        let (steps, todo) = sync_channel(BLOCKS_MAX);
        let (done, used) = sync_channel(BLOCKS_MAX + 1);
        let writer = std::thread::Builder::new()
            .name("spool".into())
            .stack_size(128 << 10)
            .spawn(move || write(file, &todo, &done))?;
        Ok(Self { path, len: 0, steps: Some(steps), used, writer: Some(writer) })
    }

    /// Where it lies for now.
    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Bytes that were put into it.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Puts `block` at the end, and another buffer in its place.
    ///
    /// # Errors
    /// If an earlier block could not be written.
    pub(super) fn append(&mut self, block: &mut Vec<u8>) -> io::Result<()> {
        self.len += block.len() as u64;
        let full = std::mem::replace(block, self.used.try_recv().unwrap_or_default());
        self.send(Step::Write(full))
    }

    /// Waits until everything can be read back.
    ///
    /// # Errors
    /// If a block could not be written.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        let (settled, wait) = sync_channel(1);
        self.send(Step::Settle(settled))?;
        wait.recv().map_err(|_| self.failure())
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// If it cannot be.
    pub(super) fn finish(mut self) -> io::Result<PathBuf> {
        self.steps = None;
        self.join()?.sync_data()?;
        Ok(std::mem::take(&mut self.path))
    }

    fn send(&mut self, step: Step) -> io::Result<()> {
        let sent = self.steps.as_ref().is_some_and(|steps| steps.send(step).is_ok());
        if sent { Ok(()) } else { Err(self.failure()) }
    }

    /// Why the writer ended before its time.
    fn failure(&mut self) -> io::Error {
        self.steps = None;
        self.join().err().unwrap_or_else(|| io::Error::other("the file is closed"))
    }

    fn join(&mut self) -> io::Result<File> {
        let closed = || io::Error::other("the file is closed");
        self.writer.take().ok_or_else(closed)?.join().map_err(|_| io::Error::other("the writer panicked"))?
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.steps = None;
        let _ = self.join();
        if !self.path.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn write(mut file: File, todo: &Receiver<Step>, done: &SyncSender<Vec<u8>>) -> io::Result<File> {
    let (mut written, mut flushed) = (0u64, 0u64);
    let mut flusher = None;
    while let Ok(step) = todo.recv() {
        match step {
            Step::Write(block) => {
                file.write_all(&block)?;
                written += block.len() as u64;
                let _ = done.try_send(block);
            }
            Step::Settle(settled) => _ = settled.send(()),
        }
        if written - flushed >= FLUSH_BYTES && flusher.get_or_insert_with(|| Flusher::start(&file)).wake(written) {
            flushed = written;
        }
    }
    Ok(file)
}

/// Sends a file to the disk while more of it comes.
struct Flusher {
    wake: Option<SyncSender<u64>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    fn start(file: &File) -> Self {
        let (wake, woken) = sync_channel::<u64>(1);
        // Without a second descriptor, or a thread, everything goes to the disk at the end.
        let thread = file.try_clone().ok().and_then(|file| {
            let flush = move || {
                while let Ok(until) = woken.recv() {
                    // The sync at the end is the one that counts; what is on the disk need not be in memory.
                    if file.sync_data().is_ok() {
                        let _ = fadvise(&file, 0, NonZeroU64::new(until), Advice::DontNeed);
                    }
                }
            };
            std::thread::Builder::new().name("flush".into()).stack_size(64 << 10).spawn(flush).ok()
        });
        Self { wake: Some(wake), thread }
    }

    /// Whether the disk is set to work; not while it is at work still.
    fn wake(&self, written: u64) -> bool {
        self.wake.as_ref().is_some_and(|wake| wake.try_send(written).is_ok())
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
