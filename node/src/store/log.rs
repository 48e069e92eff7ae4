//! Group commit: many steps, one sync.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rocksdb::{DB, WriteBatch};
use tokio::sync::watch;

use super::StoreError;

/// How long a sync that may linger waits for more to cover.
const LINGER: Duration = Duration::from_millis(2);

/// Appends batches without waiting, and syncs in a thread of its own: each pass covers every batch appended before it.
pub struct Log {
    db: Arc<DB>,
    appended: Arc<Mutex<u64>>,
    wanted: Arc<AtomicU64>,
    wake: Option<SyncSender<Want>>,
    synced: watch::Receiver<u64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Log {
    /// Waits for the thread: a database must not be closed, or its process end, under somebody who syncs it.
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Want {
    linger: bool,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Log(synced {})", *self.synced.borrow())
    }
}

impl Log {
    pub(super) fn start(db: Arc<DB>) -> Self {
        let (wake, woken) = sync_channel(1);
        let (synced, watch) = watch::channel(0);
        let appended = Arc::new(Mutex::new(0));
        let wanted = Arc::new(AtomicU64::new(0));
        let thread =
            Syncer { db: Arc::clone(&db), appended: Arc::clone(&appended), wanted: Arc::clone(&wanted), synced };
        let thread = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || thread.run(&woken))
            .expect("the system starts a thread");
        Self { db, appended, wanted, wake: Some(wake), synced: watch, thread: Some(thread) }
    }

    /// Appends `batch`; it survives this process at once, and the machine when [`Log::synced`] reaches the number given.
    ///
    /// # Errors
    /// If the disk is full or fails.
    pub fn append(&self, batch: WriteBatch) -> Result<u64, StoreError> {
        // The lock makes the number's order that of the log.
        let mut appended = self.appended.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.db.write(batch)?;
        *appended += 1;
        Ok(*appended)
    }

    /// Asks for a sync up to `number`. One that may linger waits up to two milliseconds for company.
    pub fn want(&self, number: u64, linger: bool) {
        self.wanted.fetch_max(number, Ordering::SeqCst);
        let Some(wake) = &self.wake else { return };
        match wake.try_send(Want { linger }) {
            // Full: the thread is awake, and looks at what is wanted after every pass.
            Ok(()) | Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Disconnected(_)) => {
                tracing::error!("the log thread has ended; nothing is synced any more");
            }
        }
    }

    /// Follows how far the log is on disk.
    #[must_use]
    pub fn synced(&self) -> watch::Receiver<u64> {
        self.synced.clone()
    }

    /// Waits until everything appended so far is on disk.
    pub async fn barrier(&self) {
        let number = *self.appended.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.wait(number).await;
    }

    /// Waits until `number` is on disk.
    pub async fn wait(&self, number: u64) {
        let mut synced = self.synced.clone();
        if *synced.borrow() >= number {
            return;
        }
        self.want(number, false);
        // The thread lives as long as any handle.
        let _ = synced.wait_for(|synced| *synced >= number).await;
    }
}

struct Syncer {
    db: Arc<DB>,
    appended: Arc<Mutex<u64>>,
    wanted: Arc<AtomicU64>,
    synced: watch::Sender<u64>,
}

impl Syncer {
    fn run(&self, woken: &Receiver<Want>) {
        while let Ok(want) = woken.recv() {
            if want.linger {
                linger(woken);
            }
            while self.wanted.load(Ordering::SeqCst) > *self.synced.borrow() {
                self.pass();
            }
        }
    }

    fn pass(&self) {
        let number = *self.appended.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match self.db.flush_wal(true) {
            Ok(()) => _ = self.synced.send_replace(number),
            Err(error) => {
                // Nobody is told that it is on disk while it is not; a full disk may have room again in a moment.
                tracing::error!(%error, "cannot sync the log");
                std::thread::sleep(Duration::from_millis(500));
            }
        }
    }
}

/// Waits a moment for somebody who does not want to wait.
fn linger(woken: &Receiver<Want>) {
    let until = Instant::now() + LINGER;
    loop {
        match woken.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Want { linger: true }) => {}
            Ok(Want { linger: false }) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        }
    }
}
