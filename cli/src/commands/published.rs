//! The part of a result that its node has sent to a store.

use std::io::Read as _;
use std::path::Path;

use bacnode_protocol::content::unixfs::is_safe_name;
use bacnode_protocol::job::SpecConfig;
use flate2::read::GzDecoder;
use futures::TryStreamExt as _;
use reqwest::Url;
use serde::Deserialize;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::download::{unpack, write_file};
use crate::client::Client;
use crate::error::{Failure, Result};
use crate::output;

/// What a node leaves in the place of a result that is elsewhere.
const NOTE: &str = "published.json";
/// The longest result that is unpacked: a small archive may hold much.
const RESULT_BYTES_MAX: u64 = 64 << 30;
/// The longest note that is read.
const NOTE_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Note {
    params: Params,
    #[serde(default)]
    files: Vec<File>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Params {
    bucket: String,
    key: String,
    encoding: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    name: String,
    #[serde(rename = "PreSignedURL")]
    url: String,
}

/// Completes the result in `dir` with what lies in a store, if it says so.
pub(super) async fn complete(dir: &Path, publisher: &SpecConfig) -> Result<()> {
    let path = dir.join(NOTE);
    if !publisher.kind.eq_ignore_ascii_case("s3")
        || !std::fs::metadata(&path).is_ok_and(|meta| meta.len() <= NOTE_BYTES_MAX)
    {
        return Ok(());
    }
    let unreadable = |error: String| Failure::failed(format!("cannot read {}: {error}", path.display()));
    let text = std::fs::read(&path).map_err(|error| unreadable(error.to_string()))?;
    let note: Note = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
    let place = output::plain(&format!("s3://{}/{}", note.params.bucket, note.params.key));
    if note.files.is_empty() {
        output::note(&format!("the result lies at {place}; its node gave no links to it"));
        return Ok(());
    }
    for file in &note.files {
        // The note is another node's word: it must not send us anywhere but to the store that the job names.
        if !is_in_store(&file.url, publisher) {
            return Err(Failure::failed(format!(
                "the result lies at {place}, by a link that is not the job's endpoint"
            ))
            .hint("name the store's Endpoint in the job's publisher, or fetch it with a client of your own"));
        }
        fetch(file, dir, note.params.encoding == "gzip")
            .await
            .map_err(|error| error.hint(format!("the result lies at {place}; links to it work for a day")))?;
    }
    Ok(())
}

fn is_in_store(url: &str, publisher: &SpecConfig) -> bool {
    let endpoint = publisher.params.iter().find(|(key, _)| key.eq_ignore_ascii_case("endpoint"));
    let endpoint = endpoint.and_then(|(_, value)| value.as_str()).filter(|endpoint| !endpoint.is_empty());
    let Ok(url) = Url::parse(url) else { return false };
    match endpoint {
        Some(endpoint) => Url::parse(endpoint).is_ok_and(|endpoint| endpoint.origin() == url.origin()),
        None => url.scheme() == "https" && url.host_str().is_some_and(|host| host.ends_with(".amazonaws.com")),
    }
}

async fn fetch(file: &File, dir: &Path, packed: bool) -> Result<()> {
    let failed = |error: String| Failure::failed(format!("cannot fetch the result: {error}"));
    let response = Client::outside(&file.url).await?;
    let stream = response.bytes_stream().map_err(std::io::Error::other);
    let mut reader = SyncIoBridge::new(StreamReader::new(stream));
    let (dir, name) = (dir.to_owned(), file.name.clone());
    let written = tokio::task::spawn_blocking(move || {
        if packed {
            return unpack(&mut GzDecoder::new(reader).take(RESULT_BYTES_MAX), &dir, true);
        }
        if !name.split('/').all(is_safe_name) {
            return Err(std::io::Error::other(format!("`{name}` would leave the folder")));
        }
        let target = dir.join(&name);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        write_file(&mut reader, &target, true)
    });
    written.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}
