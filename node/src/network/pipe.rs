//! Between streams and threads: bytes cross in large pieces, so that neither side waits for the other at every frame.
//!
//! A transfer reads, hashes and writes files in a blocking thread, while its stream belongs to the swarm's runtime. A task
//! moves the bytes, and breaks off when the peer neither sends nor takes anything for [`STALL`].

use std::io::{self, Read, Write};
use std::ops::Range;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, FutureExt as _};
use tokio::sync::mpsc;

use super::pace::Pace;

/// Bytes that cross at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces on their way.
const PIECES_MAX: usize = 4;
/// How long a transfer may stand still, in either direction.
const STALL: Duration = Duration::from_secs(30);

/// The thread's end of a stream that is written. What is not flushed is lost.
#[derive(Debug)]
pub(super) struct PipeWriter {
    piece: Vec<u8>,
    full: mpsc::Sender<Vec<u8>>,
    empty: mpsc::Receiver<Vec<u8>>,
}

/// A writer for a blocking thread; the stream is closed after it is dropped.
pub(super) fn writer(stream: impl AsyncWrite + Send + Unpin + 'static, pace: Pace) -> PipeWriter {
    let (full, pieces) = mpsc::channel(PIECES_MAX);
    let (used, empty) = mpsc::channel(PIECES_MAX);
    tokio::spawn(async move {
        // The thread learns of an error by its next piece, the peer by the end of the stream.
        if let Err(error) = write_pieces(stream, pace, pieces, used).await {
            tracing::debug!(%error, "a transfer broke off");
        }
    });
    PipeWriter { piece: Vec::with_capacity(PIECE_BYTES), full, empty }
}

async fn write_pieces(
    mut stream: impl AsyncWrite + Unpin,
    pace: Pace,
    mut pieces: mpsc::Receiver<Vec<u8>>,
    used: mpsc::Sender<Vec<u8>>,
) -> io::Result<()> {
    while let Some(mut piece) = pieces.recv().await {
        pace.pass(piece.len()).await;
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let written = patiently(stream.write(rest)).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = &rest[written..];
        }
        piece.clear();
        let _ = used.try_send(piece);
        if pieces.is_empty() {
            patiently(stream.flush()).await?;
        }
    }
    patiently(stream.close()).await
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        let next = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE_BYTES));
        let piece = std::mem::replace(&mut self.piece, next);
        self.full.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// The thread's end of a stream that is read.
#[derive(Debug)]
pub(super) struct PipeReader {
    piece: Vec<u8>,
    /// The part of it that is still to be read.
    rest: Range<usize>,
    full: mpsc::Receiver<io::Result<(Vec<u8>, usize)>>,
    empty: mpsc::Sender<Vec<u8>>,
}

/// A reader for a blocking thread.
pub(super) fn reader(stream: impl AsyncRead + Send + Unpin + 'static, pace: Pace) -> PipeReader {
    let (pieces, full) = mpsc::channel(PIECES_MAX);
    let (empty, used) = mpsc::channel(PIECES_MAX);
    tokio::spawn(read_pieces(stream, pace, pieces, used));
    PipeReader { piece: Vec::new(), rest: 0..0, full, empty }
}

async fn read_pieces(
    mut stream: impl AsyncRead + Unpin,
    pace: Pace,
    pieces: mpsc::Sender<io::Result<(Vec<u8>, usize)>>,
    mut used: mpsc::Receiver<Vec<u8>>,
) {
    loop {
        let mut piece = used.try_recv().unwrap_or_else(|_| vec![0; PIECE_BYTES]);
        let read = match patiently(stream.read(&mut piece)).await {
            Ok(0) => return,
            Ok(mut read) => {
                // Whatever else is there already goes along.
                while read < PIECE_BYTES
                    && let Some(Ok(more @ 1..)) = stream.read(&mut piece[read..]).now_or_never()
                {
                    read += more;
                }
                Ok((piece, read))
            }
            Err(error) => Err(error),
        };
        if let Ok((_, bytes)) = &read {
            pace.pass(*bytes).await;
        }
        let ended = read.is_err();
        if pieces.send(read).await.is_err() || ended {
            return;
        }
    }
}

impl Read for PipeReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            let Some(piece) = self.full.blocking_recv() else { return Ok(0) };
            let (piece, len) = piece?;
            let used = std::mem::replace(&mut self.piece, piece);
            self.rest = 0..len;
            if !used.is_empty() {
                let _ = self.empty.try_send(used);
            }
        }
        let taken = self.rest.len().min(bytes.len());
        let end = self.rest.start + taken;
        bytes[..taken].copy_from_slice(&self.piece[self.rest.start..end]);
        self.rest.start = end;
        Ok(taken)
    }
}

async fn patiently<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(STALL, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    #[tokio::test]
    async fn bytes_come_out_as_they_went_in() {
        let (left, right) = tokio::io::duplex(10_000);
        let (mut writer, mut reader) =
            (writer(left.compat(), Pace::default()), reader(right.compat(), Pace::default()));
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES + 17).map(|n| (n / 7) as u8).collect();
        let sent = bytes.clone();
        let write = tokio::task::spawn_blocking(move || {
            writer.write_all(&sent)?;
            writer.flush()
        });
        let read = tokio::task::spawn_blocking(move || {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).map(|_| received)
        });
        assert!(write.await.is_ok_and(|written| written.is_ok()));
        assert!(read.await.is_ok_and(|received| received.is_ok_and(|received| received == bytes)));
    }

    #[tokio::test]
    async fn a_peer_that_goes_ends_the_transfer() {
        let (left, right) = tokio::io::duplex(10);
        drop(right);
        let mut writer = writer(left.compat(), Pace::default());
        let write = tokio::task::spawn_blocking(move || writer.write_all(&vec![0; PIECE_BYTES * 10]));
        assert!(write.await.is_ok_and(|written| written.is_err()));
    }
}
