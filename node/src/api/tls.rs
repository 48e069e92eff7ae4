//! The API over TLS, for whoever is elsewhere.

use std::io::Result;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes at one time.
const HANDSHAKES_MAX: usize = 256;

/// Reads a certificate with its chain, and its key, both as PEM.
///
/// # Errors
/// In words, if they cannot be read or do not belong together.
pub(crate) fn configuration(certificate: &Path, key: &Path) -> std::result::Result<ServerConfig, String> {
    let shown = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate).map_err(|error| shown(certificate, &error))?;
    let chain = chain.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| shown(certificate, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| shown(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.with_no_client_auth();
    let mut config = builder.with_single_cert(chain, secret).map_err(|error| shown(key, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Connections whose handshake is done; one that dawdles holds nobody up.
pub(super) struct TlsListener {
    address: Option<SocketAddr>,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl TlsListener {
    pub(super) fn new<L>(listener: L, config: ServerConfig) -> Self
    where
        L: Listener<Io = TcpStream, Addr = SocketAddr>,
    {
        let address = listener.local_addr();
        let (done, ready) = mpsc::channel(16);
        tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), done));
        Self { address: address.ok(), ready }
    }
}

async fn accept<L>(mut listener: L, acceptor: TlsAcceptor, done: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>)
where
    L: Listener<Io = TcpStream, Addr = SocketAddr>,
{
    let room = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = done.closed() => return,
        };
        let (acceptor, done) = (acceptor.clone(), done.clone());
        tokio::spawn(async move {
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                let _ = done.send((stream, from)).await;
            }
            drop(permit);
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // Nobody accepts any more: the node ends.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> Result<Self::Addr> {
        self.address.ok_or_else(|| std::io::ErrorKind::AddrNotAvailable.into())
    }
}
