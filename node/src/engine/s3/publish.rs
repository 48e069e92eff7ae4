//! Results that go to a store. What the owner takes is then small: what was printed, the exit code, and where the rest is.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bacnode_protocol::compute::{Ended, Run};
use bacnode_protocol::content::Cid;
use bacnode_protocol::id::NodeId;
use bacnode_protocol::job::format_bytes;
use bacnode_protocol::wire::s3::{Encoding, Place};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::aws::AmazonS3;
use object_store::path::Path as Key;
use object_store::signer::Signer as _;
use object_store::{ObjectStoreExt as _, WriteMultipart};
use reqwest::Method;
use serde_json::{Value, json};

use super::super::RunError;
use super::super::web;
use super::{Opened, Stores, failed};
use crate::content::{Content, Limits};

/// How long a link works for those who have no credentials.
const LINK_LASTS: Duration = Duration::from_secs(24 * 3600);
/// Files for which a link each is made.
const LINKS_MAX: usize = 1_000;
/// Parts in which long files go (S3 takes 10,000 at most).
const PART_BYTES: usize = 8 << 20;
/// Files, and parts of each, that are sent at once; each part is in memory.
const AT_ONCE: usize = 2;
/// What says where the rest of a result is.
const NOTE: &str = "published.json";

/// An uploaded file.
struct Sent {
    name: String,
    url: Option<String>,
}

impl Stores {
    /// Sends a result away and leaves a small one in its place.
    pub(in crate::engine) async fn publish(
        &self,
        guarded: &web::Fetcher,
        content: &Content,
        run: &Run,
        me: &NodeId,
        (place, encoding): (&Place, Encoding),
        ended: &mut Ended,
    ) -> Result<(), RunError> {
        let Some(root) = ended.root else { return Ok(()) };
        let Opened { store, signed: signs } = self.open(guarded, place, true)?;
        let key = key(place, encoding, run, me);
        let reason = run.execution.to_string();
        let sent = match encoding {
            Encoding::Gzip => vec![send_packed(&store, content, root, place, &key, signs).await?],
            Encoding::Plain => send_files(&store, content, root, place, &key, signs).await?,
        };
        let note = note(place, &key, encoding, &sent);
        let content = content.clone();
        let left = blocking(move || {
            let folder = tempfile::tempdir_in(content.tmp()).map_err(unreadable)?;
            let mount = content.mount(&root)?;
            for name in ["stdout", "stderr", "exitCode"] {
                if mount.path().join(name).exists() {
                    std::fs::copy(mount.path().join(name), folder.path().join(name)).map_err(unreadable)?;
                }
            }
            std::fs::write(folder.path().join(NOTE), note.to_string()).map_err(unreadable)?;
            drop(mount);
            let left = content.import(folder.path(), Limits { bytes: u64::MAX, entries: 8 }, true, &reason)?;
            content.unpin(&root, &reason)?;
            Ok(left)
        });
        let left = left.await?;
        (ended.root, ended.size, ended.blocks) = (Some(left.root), left.size, left.blocks);
        Ok(())
    }
}

/// The key with its words filled in, ending as its encoding wants.
fn key(place: &Place, encoding: Encoding, run: &Run, me: &NodeId) -> String {
    let now = chrono::DateTime::from_timestamp_millis(i64::try_from(crate::clock::unix().0).unwrap_or(0));
    let now = now.unwrap_or_default();
    let mut key = place
        .key
        .replace("{jobID}", &run.job.to_string())
        .replace("{executionID}", &run.execution.to_string())
        .replace("{nodeID}", &me.to_string())
        .replace("{date}", &now.format("%Y%m%d").to_string())
        .replace("{time}", &now.format("%H%M%S").to_string());
    let ending = if encoding == Encoding::Gzip { ".tar.gz" } else { "/" };
    if !key.ends_with(ending) {
        key.push_str(ending);
    }
    key
}

fn note(place: &Place, key: &str, encoding: Encoding, sent: &[Sent]) -> Value {
    let encoding = if encoding == Encoding::Gzip { "gzip" } else { "plain" };
    let files: Vec<Value> =
        sent.iter().filter_map(|sent| Some(json!({ "Name": sent.name, "PreSignedURL": sent.url.as_ref()? }))).collect();
    json!({
        "Type": "s3",
        "Params": {
            "Bucket": &*place.bucket, "Key": key, "Region": &*place.region, "Endpoint": &*place.endpoint,
            "Encoding": encoding,
        },
        "Files": files,
    })
}

async fn send_packed(
    store: &AmazonS3,
    content: &Content,
    root: Cid,
    place: &Place,
    key: &str,
    signs: bool,
) -> Result<Sent, RunError> {
    let content = content.clone();
    let packed = blocking(move || {
        let mut packed = GzEncoder::new(tempfile::tempfile_in(content.tmp()).map_err(unreadable)?, Compression::fast());
        content.write_tar(&root, &mut packed)?;
        let mut file = packed.finish().map_err(unreadable)?;
        std::io::Seek::rewind(&mut file).map_err(unreadable)?;
        Ok(file)
    });
    let file = packed.await?;
    let url = send(store, file, place, &path(place, key)?, signs).await?;
    Ok(Sent { name: String::new(), url })
}

async fn send_files(
    store: &AmazonS3,
    content: &Content,
    root: Cid,
    place: &Place,
    key: &str,
    signs: bool,
) -> Result<Vec<Sent>, RunError> {
    let content = content.clone();
    let (mount, files) = blocking(move || {
        let mount = content.mount(&root)?;
        let mut files = Vec::new();
        list(mount.path(), "", &mut files).map_err(unreadable)?;
        Ok((mount, files))
    })
    .await?;
    let links = signs && files.len() <= LINKS_MAX;
    let sends = files.into_iter().map(|(name, file)| async move {
        let opened = File::open(&file).map_err(unreadable)?;
        let url = send(store, opened, place, &path(place, &format!("{key}{name}"))?, links).await?;
        Ok::<_, RunError>(Sent { name, url })
    });
    let sent = futures::stream::iter(sends).buffer_unordered(AT_ONCE).try_collect().await;
    drop(mount);
    sent
}

/// All files below `dir`, under their relative names.
fn list(dir: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.push((name, entry.path()));
        }
    }
    Ok(())
}

/// Sends one file, and makes a link to it if asked to.
async fn send(
    store: &AmazonS3,
    mut file: File,
    place: &Place,
    key: &Key,
    links: bool,
) -> Result<Option<String>, RunError> {
    let name = format!("result to s3://{}/{key}", &*place.bucket);
    let wrong = |error: object_store::Error| match failed(&name, &error) {
        // Another node's endpoint or credentials may do.
        RunError::Task { cause, .. } => RunError::Node(cause),
        other => other,
    };
    let size = file.metadata().map_err(unreadable)?.len();
    if size <= PART_BYTES as u64 {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(unreadable)?;
        store.put(key, bytes.into()).await.map_err(wrong)?;
    } else if size > PART_BYTES as u64 * 10_000 {
        return Err(RunError::Node(format!("{name}: {} is more than one object can have", format_bytes(size))));
    } else {
        let upload = store.put_multipart(key).await.map_err(wrong)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut block = vec![0; PART_BYTES];
        let filled = async {
            loop {
                let read = file.read(&mut block).map_err(unreadable)?;
                if read == 0 {
                    return Ok(());
                }
                upload.wait_for_capacity(AT_ONCE).await.map_err(wrong)?;
                upload.write(&block[..read]);
            }
        };
        if let Err(error) = filled.await {
            // Parts that belong to nothing would be kept, and paid for.
            let _ = upload.abort().await;
            return Err(error);
        }
        upload.finish().await.map_err(wrong)?;
    }
    if !links {
        return Ok(None);
    }
    let url = store.signed_url(Method::GET, key, LINK_LASTS).await.map_err(wrong)?;
    Ok(Some(url.to_string()))
}

fn path(place: &Place, key: &str) -> Result<Key, RunError> {
    Key::parse(key).map_err(|error| RunError::Node(format!("result to {place}: {error}")))
}

fn unreadable(error: std::io::Error) -> RunError {
    RunError::Node(format!("cannot read the result: {error}"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RunError> + Send + 'static,
) -> Result<T, RunError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(RunError::Node("sending the result away broke down".into())))
}
