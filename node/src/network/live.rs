//! Live streams: what a run prints, while it runs, for its owner; and how a job is, for whoever knows its id.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bacnode_protocol::id::{ExecutionId, JobId, NodeId};
use bacnode_protocol::wire::live::{LiveRequest, PIECE_BYTES_MAX, STORY, STORY_BYTES_MAX};
use futures::future::BoxFuture;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::Stream;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::mpsc;

use super::{Network, view};
use crate::engine::Runner;

/// How often a file is looked at for more.
const POLL: Duration = Duration::from_millis(100);

/// Some output of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPiece {
    /// 1 is stdout, 2 is stderr.
    pub stream: u8,
    /// What it printed.
    pub bytes: Vec<u8>,
}

/// Tells others of the jobs that this node decides on.
pub(crate) trait Teller: Send + Sync {
    /// How a job is, as JSON.
    fn story(&self, job: &JobId) -> Option<Vec<u8>>;

    /// What an attempt prints, from its start: until it ends, or what there is now.
    fn output(&self, job: JobId, execution: ExecutionId, follow: bool, to: mpsc::Sender<LogPiece>)
    -> BoxFuture<'_, ()>;
}

/// Serves owners what their runs print here, and others how the jobs are that this node leads.
pub(super) async fn serve(runner: Runner, teller: Arc<dyn Teller>, mut incoming: libp2p_stream::IncomingStreams) {
    while let Some((peer, stream)) = incoming.next().await {
        let Some(owner) = NodeId::from_peer_id(&peer) else { continue };
        let (runner, teller) = (runner.clone(), Arc::clone(&teller));
        tokio::spawn(async move {
            if let Err(error) = answer(runner, teller, owner, stream).await {
                tracing::debug!(peer = owner.short(), %error, "a log stream broke off");
            }
        });
    }
}

async fn answer(runner: Runner, teller: Arc<dyn Teller>, owner: NodeId, mut stream: Stream) -> std::io::Result<()> {
    let request = tokio::time::timeout(Duration::from_secs(10), view::read::<LiveRequest>(&mut stream)).await??;
    let (sender, mut pieces) = mpsc::channel(16);
    match request {
        LiveRequest::Logs { execution, follow: on } => {
            tokio::spawn(async move { follow(&runner, &owner, execution, on, sender).await });
        }
        LiveRequest::Job(job) => {
            let story =
                tokio::task::spawn_blocking(move || teller.story(&job)).await.ok().flatten().unwrap_or_default();
            tokio::spawn(async move {
                for chunk in story.chunks(PIECE_BYTES_MAX) {
                    if sender.send(LogPiece { stream: STORY, bytes: chunk.to_vec() }).await.is_err() {
                        return;
                    }
                }
            });
        }
        LiveRequest::JobLogs { job, execution, follow: on } => {
            tokio::spawn(async move { teller.output(job, execution, on, sender).await });
        }
    }
    loop {
        // The peer says nothing more: whatever is read is the end of the stream.
        let mut nothing = [0];
        let piece = tokio::select! {
            piece = pieces.recv() => piece,
            _ = stream.read(&mut nothing) => return Ok(()),
        };
        let Some(piece) = piece else { break };
        stream.write_all(&[piece.stream]).await?;
        stream.write_all(&u32::try_from(piece.bytes.len()).unwrap_or(0).to_le_bytes()).await?;
        stream.write_all(&piece.bytes).await?;
        stream.flush().await?;
    }
    stream.write_all(&[0; 5]).await?;
    stream.close().await
}

/// Reads what a run on this node prints, until it ends or nobody listens.
pub(crate) async fn follow(
    runner: &Runner,
    owner: &NodeId,
    execution: ExecutionId,
    follow: bool,
    pieces: mpsc::Sender<LogPiece>,
) {
    let mut offsets = [0u64; 2];
    loop {
        let Some(dir) = runner.logs_of(&execution, owner) else { return };
        for (index, name) in ["stdout", "stderr"].iter().enumerate() {
            let more = tail(&dir.join(name), &mut offsets[index], (index + 1) as u8, &pieces).await;
            if more.is_err() {
                return;
            }
        }
        if !follow {
            return;
        }
        tokio::select! {
            () = pieces.closed() => return,
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

async fn tail(path: &Path, offset: &mut u64, stream: u8, pieces: &mpsc::Sender<LogPiece>) -> Result<(), ()> {
    let Ok(mut file) = tokio::fs::File::open(path).await else { return Ok(()) };
    if file.seek(std::io::SeekFrom::Start(*offset)).await.is_err() {
        return Ok(());
    }
    loop {
        let mut bytes = vec![0; PIECE_BYTES_MAX];
        match file.read(&mut bytes).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(read) => {
                bytes.truncate(read);
                *offset += read as u64;
                pieces.send(LogPiece { stream, bytes }).await.map_err(|_| ())?;
            }
        }
    }
}

impl Network {
    /// Follows what `execution` prints at `node`. The pieces end when the run does, or the peer goes.
    ///
    /// # Errors
    /// If the node cannot be asked, in words.
    pub async fn logs_from(
        &self,
        node: NodeId,
        execution: ExecutionId,
        follow: bool,
    ) -> Result<mpsc::Receiver<LogPiece>, String> {
        self.read_live(node, &LiveRequest::Logs { execution, follow }).await
    }

    /// The same by way of `teller`, which leads the job; after the end of the run, too.
    ///
    /// # Errors
    /// If the node cannot be asked, in words.
    pub(crate) async fn output_from(
        &self,
        teller: NodeId,
        job: JobId,
        execution: ExecutionId,
        follow: bool,
    ) -> Result<mpsc::Receiver<LogPiece>, String> {
        self.read_live(teller, &LiveRequest::JobLogs { job, execution, follow }).await
    }

    async fn read_live(&self, node: NodeId, request: &LiveRequest) -> Result<mpsc::Receiver<LogPiece>, String> {
        let mut stream = self.open(node, &self.names.live).await?;
        view::write(&mut stream, request).await.map_err(|error| error.to_string())?;
        Ok(pieces_of(stream))
    }

    /// How a job is, by the word of a node that leads it; `None` if that does not.
    ///
    /// # Errors
    /// If the node cannot be asked, in words.
    pub(crate) async fn story_from(&self, node: NodeId, job: JobId) -> Result<Option<Vec<u8>>, String> {
        let (mut pieces, mut story) = (self.read_live(node, &LiveRequest::Job(job)).await?, Vec::new());
        while let Some(piece) = pieces.recv().await {
            story.extend_from_slice(&piece.bytes);
            if piece.stream != STORY || story.len() > STORY_BYTES_MAX {
                return Err("it says too much".into());
            }
        }
        Ok(Some(story).filter(|story| !story.is_empty()))
    }
}

/// What comes over a stream, piece by piece.
fn pieces_of(mut stream: Stream) -> mpsc::Receiver<LogPiece> {
    let (sender, pieces) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let mut head = [0; 5];
            if stream.read_exact(&mut head).await.is_err() || head[0] == 0 {
                return;
            }
            let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let mut bytes = vec![0; len.min(PIECE_BYTES_MAX)];
            if len > PIECE_BYTES_MAX || stream.read_exact(&mut bytes).await.is_err() {
                return;
            }
            if sender.send(LogPiece { stream: head[0], bytes }).await.is_err() {
                return;
            }
        }
    });
    pieces
}
