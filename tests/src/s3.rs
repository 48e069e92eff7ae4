//! An S3-compatible server for tests: real requests, real signatures, files in a folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;

/// What a node must have in its environment to be let in.
pub const KEY: &str = "AKIATESTTESTTESTTEST";
/// The other half of it.
pub const SECRET: &str = "a-secret-of-the-tests";

/// A server that runs until this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    root: PathBuf,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    /// Serves the folders in `root` as buckets, to whoever has the key.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(root: PathBuf) -> Self {
        std::fs::create_dir_all(&root).expect("a folder");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(&root).expect("a folder of buckets"));
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { address, root, _runtime: runtime }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The folder of one bucket.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn bucket(&self, name: &str) -> PathBuf {
        let path = self.root.join(name);
        std::fs::create_dir_all(&path).expect("a bucket");
        path
    }

    /// Puts an object there.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn put(&self, bucket: &str, key: &str, bytes: &[u8]) {
        let path = self.bucket(bucket).join(key);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("folders");
        std::fs::write(path, bytes).expect("an object");
    }
}
