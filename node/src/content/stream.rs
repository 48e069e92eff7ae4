//! Content for slow readers: written by a thread of its own, in pieces, at the reader's pace.

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{ContentError, io_error};

/// Bytes of one piece, and pieces that may wait.
const PIECE_BYTES: usize = 256 << 10;
const PIECES_MAX: usize = 8;
/// How long a reader may take for a piece: whoever has stopped reading does not keep a thread for ever.
const READER_MAX: Duration = Duration::from_secs(60);

/// What `write` writes. A failure is the stream's last item, so that nobody takes what came for the whole.
pub(crate) fn stream(
    write: impl FnOnce(&mut dyn Write) -> Result<(), ContentError> + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(PIECE_BYTES, Pieces(sender));
        let written = write(&mut out).and_then(|()| out.flush().map_err(io_error("cannot send")));
        if let Err(error) = written {
            tracing::warn!(%error, "a download broke off");
            let _ = out.get_ref().0.try_send(Err(io::Error::other(error.to_string())));
        }
    });
    futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = tokio::time::timeout(READER_MAX, self.0.send(Ok(Bytes::copy_from_slice(bytes))));
        let sent = Handle::current().block_on(sent);
        sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
