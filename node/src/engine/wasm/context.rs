//! What a guest finds around it: its folders, where its output goes, chance and clocks.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};
use wasmtime_wasi::{FsPerms, HostMonotonicClock, HostWallClock, WasiCtxBuilder, WasiView as _, async_trait};

use super::Guest;

/// Handles that a guest may have open.
const HANDLES_MAX: usize = 4096;

/// The surroundings of one run.
///
/// # Errors
/// If a folder cannot be opened, or a file for output cannot be made, in words.
pub(super) fn of(guest: &Guest) -> Result<WasiP1Ctx, String> {
    let mut builder = WasiCtxBuilder::new();
    builder.allow_blocking_current_thread(true);
    builder.args(&guest.args).envs(&guest.env);
    builder.stdout(Log::create(&guest.stdout, guest.log_bytes_max)?);
    builder.stderr(Log::create(&guest.stderr, guest.log_bytes_max)?);
    for mount in &guest.mounts {
        let permissions = if mount.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
        let opened = builder.preopened_dir(&mount.host, &mount.guest, permissions);
        opened.map_err(|error| format!("cannot open `{}` for the program: {error}", mount.guest))?;
    }
    if guest.deterministic {
        builder
            .wall_clock(FixedClock)
            .monotonic_clock(StepClock(AtomicU64::new(0)))
            .secure_random(SplitMix(guest.seed))
            .insecure_random(SplitMix(!guest.seed))
            .insecure_random_seed(u128::from(guest.seed));
    }
    let mut wasi = builder.build_p1();
    wasi.ctx().table.set_max_capacity(HANDLES_MAX);
    Ok(wasi)
}

/// The guest printed more than it may.
#[derive(Debug, thiserror::Error)]
#[error("the log limit is reached")]
pub(super) struct LogsFull;

/// A file for stdout or stderr, with a limit.
#[derive(Clone)]
struct Log(Arc<LogInner>);

struct LogInner {
    file: File,
    left: AtomicU64,
}

impl Log {
    fn create(path: &str, max: u64) -> Result<Self, String> {
        let file = File::create(path).map_err(|error| format!("cannot write the program's output: {error}"))?;
        Ok(Self(Arc::new(LogInner { file, left: AtomicU64::new(max) })))
    }
}

impl IsTerminal for Log {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Log {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Preview 1 uses the other one.
        Box::new(tokio::io::sink())
    }
}

#[async_trait]
impl Pollable for Log {
    async fn ready(&mut self) {}
}

impl OutputStream for Log {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let left = self.0.left.load(Ordering::Relaxed);
        let fits = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        (&self.0.file).write_all(&bytes[..fits]).map_err(|error| StreamError::LastOperationFailed(error.into()))?;
        self.0.left.store(left - fits as u64, Ordering::Relaxed);
        if fits < bytes.len() { Err(StreamError::Trap(wasmtime::Error::new(LogsFull))) } else { Ok(()) }
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

/// Always the same moment: 2000-01-01.
struct FixedClock;

impl HostWallClock for FixedClock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        Duration::from_secs(946_684_800)
    }
}

/// A clock that only its readers move, so that a guest that waits for it gets on.
struct StepClock(AtomicU64);

impl HostMonotonicClock for StepClock {
    fn resolution(&self) -> u64 {
        1_000
    }

    fn now(&self) -> u64 {
        self.0.fetch_add(1_000_000, Ordering::Relaxed)
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): chance that is the same in every run of a job's slot.
struct SplitMix(u64);

impl rand::TryRng for SplitMix {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok((self.try_next_u64()? >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Ok(z ^ (z >> 31))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in bytes.chunks_mut(8) {
            let word = self.try_next_u64()?.to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}
