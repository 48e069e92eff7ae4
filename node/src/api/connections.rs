//! Connections of the API: so many at a time, and each has little time to say what it wants.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::serve::Listener;
use bacnode_protocol::limits::SPEC_BYTES_MAX;
use futures::StreamExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::error::ApiError;

/// Connections of one door at a time; others wait in the system's queue.
const CONNECTIONS_MAX: usize = 512;
/// Bytes of the head of a request, at most; and of a body that are held before they are read.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long requests that are being answered may go on when the node stops.
const GRACE: Duration = Duration::from_secs(5);

/// How long callers are waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How long the head of a request may take, and how long a connection may be idle.
    head: Duration,
    /// How long a small body may take, and how long one of files may pause.
    body: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { head: Duration::from_secs(10), body: Duration::from_secs(30) }
    }
}

/// Answers whoever comes in by `listener`, until told to stop.
pub(super) async fn serve<L>(mut listener: L, router: Router, patience: Patience, stop: CancellationToken)
where
    L: Listener,
{
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience.head).max_buf_size(HEAD_BYTES_MAX);
    let (graceful, room) = (GracefulShutdown::new(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    let next = async |listener: &mut L| {
        let permit = Arc::clone(&room).acquire_owned().await;
        (permit, listener.accept().await.0)
    };
    loop {
        let (permit, stream) = tokio::select! {
            accepted = next(&mut listener) => accepted,
            () = stop.cancelled() => break,
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // That somebody hangs up is no news.
            let _ = connection.await;
            drop(permit);
        });
    }
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
}

/// Gives a body its time: all of it, where it is small; file after file, where it brings content.
pub(super) async fn in_time(State(patience): State<Patience>, request: Request, next: Next) -> Response {
    let brings_content = request.uri().path().starts_with("/api/v1/network/content");
    let (head, body) = request.into_parts();
    if brings_content {
        let pieces = futures::stream::unfold(Some(body.into_data_stream()), move |pieces| async move {
            let mut pieces = pieces?;
            match tokio::time::timeout(patience.body, pieces.next()).await {
                Ok(piece) => Some((piece?, Some(pieces))),
                Err(paused) => Some((Err(axum::Error::new(paused)), None)),
            }
        });
        return next.run(Request::from_parts(head, Body::from_stream(pieces))).await;
    }
    // One more than any handler takes: that handler says how much it would.
    let whole = axum::body::to_bytes(body, SPEC_BYTES_MAX + 1);
    let refusal = match tokio::time::timeout(patience.body, whole).await {
        Ok(Ok(bytes)) => return next.run(Request::from_parts(head, Body::from(bytes))).await,
        Ok(Err(_)) => ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "TooLarge",
            format!("the body cannot be read, or is longer than {SPEC_BYTES_MAX} bytes"),
        ),
        Err(_) => ApiError::new(StatusCode::REQUEST_TIMEOUT, "Timeout", "the body takes too long"),
    };
    refusal.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    const SHORT: Patience = Patience { head: Duration::from_millis(300), body: Duration::from_millis(300) };

    /// What somebody is answered who says only this, and then waits.
    async fn answered(said: &str) -> String {
        let router = Router::new()
            .route("/api/v1/orchestrator/jobs", post(|body: String| async move { body }))
            .route("/api/v1/network/content", post(|body: String| async move { body }))
            .layer(axum::middleware::from_fn_with_state(SHORT, in_time));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, router, SHORT, stop.clone()));
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(said.as_bytes()).await.expect("it is said");
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.expect("an answer, or none");
        stop.cancel();
        serving.await.expect("it stops");
        heard
    }

    #[tokio::test]
    async fn whoever_dawdles_is_not_waited_for() {
        let started = std::time::Instant::now();
        assert_eq!(answered("POST /api/v1/orch").await, "");
        assert!(started.elapsed() >= SHORT.head);
        let head = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf");
        let small = answered(&head("/api/v1/orchestrator/jobs")).await;
        assert!(small.starts_with("HTTP/1.1 408") && small.contains("the body takes too long"), "{small}");
        let file = answered(&head("/api/v1/network/content")).await;
        assert!(file.starts_with("HTTP/1.1 400"), "{file}");
    }

    #[tokio::test]
    async fn whoever_does_not_is_answered() {
        let whole =
            "POST /api/v1/orchestrator/jobs HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nwhole";
        assert!(answered(whole).await.ends_with("\r\n\r\nwhole"));
        let long = format!("POST /api/v1/orchestrator/jobs HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(100_000));
        assert!(answered(&long).await.starts_with("HTTP/1.1 431"));
    }
}
