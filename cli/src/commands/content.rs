//! `content`: add, get, ls, pin, unpin, gc, providers.

use std::path::Path;

use bacnode_protocol::api::{Content as Added, ContentUsage, Entry, Pin, Provider, Swept};
use bacnode_protocol::content::Cid;
use bacnode_protocol::job::format_bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use reqwest::{Body, Method};
use tokio_util::io::ReaderStream;

use super::download;
use crate::args::{Content, Format};
use crate::client::{Client, segment};
use crate::error::{Exit, Failure, Result};
use crate::output;

pub(super) async fn run(client: &Client, format: Format, command: Content) -> Result<()> {
    if let Content::Get { cid, .. }
    | Content::Ls { cid: Some(cid), .. }
    | Content::Pin { cid }
    | Content::Unpin { cid }
    | Content::Providers { cid } = &command
    {
        cid.parse::<Cid>().map_err(|error| Failure::usage(format!("`{cid}`: {error}")))?;
    }
    match command {
        Content::Add { path, private } => {
            let added = add(client, &path, private).await?;
            let row = vec![added.cid.clone(), format_bytes(added.size)];
            output::rows(format, &added, &["cid", "size"], &[row])
        }
        Content::Get { cid, to: Some(to), force } => {
            if to.is_dir() {
                download::check_target(&to, force)?;
            }
            download::content(client, &cid, &to, force).await
        }
        Content::Get { cid, to: None, .. } => to_stdout(client, &cid).await,
        Content::Ls { usage: true, .. } => usage(client, format).await,
        Content::Ls { cid: None, .. } => pins(client, format).await,
        Content::Ls { cid: Some(cid), .. } => {
            let entries: Vec<Entry> = client.get(&format!("network/content/{}/ls", segment(&cid))).await?;
            let row = |e: &Entry| vec![e.name.clone(), e.kind.clone(), format_bytes(e.size), e.cid.clone()];
            output::rows(
                format,
                &entries,
                &["name", "type", "size", "cid"],
                &entries.iter().map(row).collect::<Vec<_>>(),
            )
        }
        Content::Pin { cid } => {
            let path = format!("network/content/{}/pin", segment(&cid));
            let pinned: Added = client.json(client.request(Method::PUT, &path)).await?;
            let row = vec![pinned.cid.clone(), format_bytes(pinned.size)];
            output::rows(format, &pinned, &["cid", "size"], &[row])
        }
        Content::Unpin { cid } => {
            let path = format!("network/content/{}/pin", segment(&cid));
            let pin: Pin = client.json(client.request(Method::DELETE, &path)).await?;
            let left =
                if pin.reasons.is_empty() { "nothing; `content gc` frees it".into() } else { pin.reasons.join(", ") };
            let row = vec![pin.cid.clone(), format_bytes(pin.size), left];
            output::rows(format, &pin, &["cid", "size", "still kept for"], &[row])
        }
        Content::Gc => {
            let swept: Swept = client.json(client.request(Method::POST, "network/content/gc")).await?;
            output::rows(format, &swept, &["freed"], &[vec![format_bytes(swept.freed)]])
        }
        Content::Providers { cid } => {
            let providers: Vec<Provider> = client.get(&format!("network/content/{}/providers", segment(&cid))).await?;
            if providers.is_empty() {
                return Err(Failure::new(Exit::NotFound, format!("nobody is known to have {cid}")));
            }
            let row = |p: &Provider| vec![p.name.clone(), p.peer_id.clone()];
            output::rows(format, &providers, &["name", "node"], &providers.iter().map(row).collect::<Vec<_>>())
        }
    }
}

async fn usage(client: &Client, format: Format) -> Result<()> {
    let usage: ContentUsage = client.get("network/content/usage").await?;
    let row =
        [usage.used, usage.max, usage.user, usage.results, usage.inputs, usage.private].map(format_bytes).to_vec();
    let names = ["used", "of at most", "pinned by you", "results", "copies of inputs", "private"];
    output::rows(format, &usage, &names, &[row])
}

async fn pins(client: &Client, format: Format) -> Result<()> {
    let pins: Vec<Pin> = client.get("network/content").await?;
    let kept =
        |pin: &Pin| if pin.private { format!("{} (private)", pin.reasons.join(", ")) } else { pin.reasons.join(", ") };
    let row = |pin: &Pin| vec![pin.cid.clone(), format_bytes(pin.size), kept(pin)];
    output::rows(format, &pins, &["cid", "size", "kept for"], &pins.iter().map(row).collect::<Vec<_>>())
}

/// Adds a file or folder through the node.
pub(super) async fn add(client: &Client, path: &Path, private: bool) -> Result<Added> {
    let meta = std::fs::metadata(path).map_err(|error| {
        let reason =
            if error.kind() == std::io::ErrorKind::NotFound { "no such file".into() } else { error.to_string() };
        Failure::usage(format!("cannot read {}: {reason}", path.display()))
    })?;
    let request = client.request(Method::POST, &format!("network/content?private={private}"));
    let request = if meta.is_dir() {
        request.header("content-type", "application/x-tar").body(pack(path.to_owned()))
    } else {
        let file = tokio::fs::File::open(path).await;
        let file = file.map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
        request.body(Body::wrap_stream(ReaderStream::with_capacity(file, 256 << 10)))
    };
    client.json(request).await
}

/// A folder as a tar stream, packed while it is sent. Links are not followed, and not sent.
fn pack(path: std::path::PathBuf) -> Body {
    let (reader, writer) = tokio::io::duplex(1 << 20);
    let (done, result) = tokio::sync::oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let mut tar = tar::Builder::new(tokio_util::io::SyncIoBridge::new(writer));
        tar.follow_symlinks(false);
        tar.mode(tar::HeaderMode::Deterministic);
        let packed = tar.append_dir_all("", &path).and_then(|()| tar.finish());
        let packed = packed.map_err(|error| std::io::Error::other(format!("{}: {error}", path.display())));
        if let Err(error) = &packed {
            output::note(&format!("warning: {error}"));
        }
        let _ = done.send(packed);
    });
    // A folder that could not be read to its end must not be taken for a whole one: then the upload breaks off.
    let end = futures::stream::once(async move {
        result.await.unwrap_or_else(|_| Err(std::io::Error::other("packing broke down"))).map(|()| bytes::Bytes::new())
    });
    Body::wrap_stream(ReaderStream::with_capacity(reader, 256 << 10).chain(end))
}

async fn to_stdout(client: &Client, cid: &str) -> Result<()> {
    let response = client.send(client.request(Method::GET, &format!("network/content/{}", segment(cid)))).await?;
    let folder = response.headers().get("x-content-kind").is_some_and(|kind| kind == "folder");
    if folder {
        return Err(Failure::usage(format!("{cid} is a folder")).hint("name a place for it with -o DIR"));
    }
    let mut stream = response.bytes_stream();
    while let Some(piece) =
        stream.try_next().await.map_err(|error| Failure::failed(format!("the transfer broke off: {error}")))?
    {
        if output::raw(&piece).is_err() {
            // Whoever reads has had enough.
            return Ok(());
        }
    }
    Ok(())
}
