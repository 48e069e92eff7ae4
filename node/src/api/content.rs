//! Content: add, get, list, find.

use std::path::Path as FsPath;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bacnode_protocol::api::{Content as Added, ContentUsage, Entry, Pin, Provider, Swept};
use bacnode_protocol::content::Cid;
use bacnode_protocol::content::unixfs::is_safe_name;
use futures::StreamExt as _;

use super::Api;
use super::error::ApiError;
use super::openapi::Errors;
use super::page::Params;
use crate::content::{Content, ContentError, INPUT, Imported, Limits, UPLOAD, USER, stream};
use crate::driver::Event;

/// What one upload may hold.
pub(super) const ENTRIES_MAX: u64 = 1_000_000;

fn parse(text: &str) -> Result<Cid, ApiError> {
    // What has no name is not there.
    text.parse().map_err(|error| ApiError::not_found(format!("`{text}`: {error}")))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ContentError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ApiError::unavailable("work on the content broke down"))?.map_err(ApiError::from)
}

/// Adds the body: a file, or with `Content-Type: application/x-tar` a folder; with `?private=true` such that it does not
/// leave this node.
#[utoipa::path(
    post,
    path = "/content",
    tag = "content",
    operation_id = "addContent",
    params(("private" = Option<bool>, Query, description = "it does not leave this node")),
    request_body(content = String, content_type = "application/octet-stream", description = "a file, or with application/x-tar a folder"),
    responses((status = 200, body = Added), Errors)
)]
pub(super) async fn add(
    State(api): State<Api>,
    Query(params): Query<Params>,
    request: Request,
) -> Result<Json<Added>, ApiError> {
    let private = params.exact_flag("private")?;
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let folder = kind == Some("application/x-tar");
    let dir = tempfile::tempdir_in(api.content.tmp());
    let dir = dir.map_err(|error| ApiError::unavailable(format!("cannot take an upload: {error}")))?;
    let path = dir.path().join("upload");
    receive(request.into_body(), &path).await?;
    let content = api.content.of_kind(private).clone();
    let imported = blocking(move || {
        let limits = Limits { bytes: u64::MAX, entries: ENTRIES_MAX };
        let imported = if folder {
            let unpacked = dir.path().join("folder");
            let archive = std::fs::File::open(&path).map_err(crate::content::io_error("cannot read the upload"))?;
            unpack(std::io::BufReader::new(archive), &unpacked)?;
            content.import(&unpacked, limits, true, UPLOAD)
        } else {
            content.import(&path, limits, true, UPLOAD)
        };
        drop(dir);
        imported
    });
    let Imported { root, size, .. } = imported.await?;
    let (open, store) = (api.content.clone(), api.content.of_kind(private).clone());
    let kept = blocking(move || {
        // What anybody can have here cannot be called private.
        let kept = !private || !open.holds(&root)?;
        if kept {
            store.pin(&root, USER)?;
        }
        store.unpin(&root, UPLOAD)?;
        Ok(kept)
    });
    if !kept.await? {
        let message = format!("{root} is here already for anybody to have");
        let hint = format!("`bacnode content unpin {root}`, then `bacnode content gc`, then add it again");
        return Err(ApiError::new(StatusCode::CONFLICT, "NotPrivate", message).hint(hint));
    }
    api.store.log().barrier().await;
    if !private {
        api.network.provide(root);
    }
    Ok(Json(Added { cid: root.to_string(), size }))
}

async fn receive(body: Body, path: &FsPath) -> Result<(), ApiError> {
    use tokio::io::AsyncWriteExt as _;
    let failed = |error: std::io::Error| ApiError::unavailable(format!("cannot take the upload: {error}"));
    let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| ApiError::bad(format!("the upload broke off: {error}")))?;
        file.write_all(&piece).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)
}

/// Unpacks files and folders, and refuses everything else.
pub(super) fn unpack(archive: impl std::io::Read, to: &FsPath) -> Result<(), ContentError> {
    let bad = |reason: String| ContentError::Refused(format!("the archive: {reason}"));
    let io = |error: std::io::Error| ContentError::Refused(format!("this is not a tar archive of a folder: {error}"));
    std::fs::create_dir_all(to).map_err(io)?;
    let mut archive = tar::Archive::new(archive);
    for (count, entry) in archive.entries().map_err(io)?.enumerate() {
        if count as u64 >= ENTRIES_MAX {
            return Err(bad(format!("more than {ENTRIES_MAX} entries")));
        }
        let mut entry = entry.map_err(io)?;
        let path = entry.path().map_err(io)?.into_owned();
        let mut target = to.to_owned();
        for part in path.components() {
            match part {
                std::path::Component::Normal(name) if name.to_str().is_some_and(is_safe_name) => target.push(name),
                std::path::Component::CurDir => {}
                _ => return Err(bad(format!("`{}` leaves the folder", path.display()))),
            }
        }
        match entry.header().entry_type() {
            tar::EntryType::Directory => std::fs::create_dir_all(&target).map_err(io)?,
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                if let Some(parent) = target.parent() {
                    std::fs::create_dir_all(parent).map_err(io)?;
                }
                let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&target).map_err(io)?;
                std::io::copy(&mut entry, &mut file).map_err(io)?;
            }
            _ => return Err(bad(format!("`{}` is neither a file nor a folder", path.display()))),
        }
    }
    Ok(())
}

#[utoipa::path(
    get,
    path = "/content",
    tag = "content",
    operation_id = "listPins",
    responses((status = 200, body = Vec<Pin>), Errors)
)]
pub(super) async fn pins(State(api): State<Api>) -> Result<Json<Vec<Pin>>, ApiError> {
    let content = api.content.clone();
    let (open, private) = blocking(move || Ok((content.pins()?, content.private().pins()?))).await?;
    let pin = |pin: crate::content::Pin, private| Pin {
        cid: pin.root.to_string(),
        size: pin.size,
        reasons: pin.reasons,
        private,
    };
    let open = open.into_iter().map(|known| pin(known, false));
    Ok(Json(open.chain(private.into_iter().map(|known| pin(known, true))).collect()))
}

/// Brings the content here if it is not, and keeps it until it is unpinned.
#[utoipa::path(
    put,
    path = "/content/{cid}/pin",
    tag = "content",
    operation_id = "pinContent",
    params(("cid" = String, Path)),
    responses((status = 200, body = Added), Errors)
)]
pub(super) async fn pin(State(api): State<Api>, Path(text): Path<String>) -> Result<Json<Added>, ApiError> {
    let root = parse(&text)?;
    let content = api.content.private().clone();
    let private = blocking(move || if content.holds(&root)? { content.pin(&root, USER).map(Some) } else { Ok(None) });
    if let Some(size) = private.await? {
        api.store.log().barrier().await;
        return Ok(Json(Added { cid: root.to_string(), size }));
    }
    let fetched = api.fetcher.fetch(root, Vec::new(), u64::MAX, USER.into()).await;
    fetched.map_err(|cause| ApiError::not_found(format!("{root} cannot be had: {cause}")))?;
    let content = api.content.clone();
    let size = blocking(move || content.size(&root)).await?;
    api.store.log().barrier().await;
    api.network.provide(root);
    Ok(Json(Added { cid: root.to_string(), size }))
}

/// Lets go of what a user pinned; it stays while something else needs it.
#[utoipa::path(
    delete,
    path = "/content/{cid}/pin",
    tag = "content",
    operation_id = "unpinContent",
    params(("cid" = String, Path)),
    responses((status = 200, body = Pin), Errors)
)]
pub(super) async fn unpin(State(api): State<Api>, Path(text): Path<String>) -> Result<Json<Pin>, ApiError> {
    let root = parse(&text)?;
    let content = api.content.clone();
    let pin = blocking(move || {
        for content in [&content, content.private()] {
            let pin = content.pins()?.into_iter().find(|pin| pin.root == root);
            if let Some(ours) = pin.filter(|pin| pin.reasons.iter().any(|reason| reason == USER)) {
                content.unpin(&root, USER)?;
                return Ok(Some((ours, content.is_private())));
            }
        }
        Ok(None)
    });
    let (pin, private) =
        pin.await?.ok_or_else(|| ApiError::not_found(format!("{root} is not pinned here by a user")))?;
    api.store.log().barrier().await;
    let reasons = pin.reasons.into_iter().filter(|reason| reason != USER).collect();
    Ok(Json(Pin { cid: root.to_string(), size: pin.size, reasons, private }))
}

/// Frees what nothing needs: copies of inputs that no task reads, and all that no pin keeps.
#[utoipa::path(
    post,
    path = "/content/gc",
    tag = "content",
    operation_id = "sweepContent",
    responses((status = 200, body = Swept), Errors)
)]
pub(super) async fn sweep(State(api): State<Api>) -> Result<Json<Swept>, ApiError> {
    let content = api.content.clone();
    blocking(move || content.drop_inputs()).await?;
    let freed = api.ask(Event::Sweep).await??;
    Ok(Json(Swept { freed }))
}

/// How much content there is, and what for.
#[utoipa::path(
    get,
    path = "/content/usage",
    tag = "content",
    operation_id = "contentUsage",
    responses((status = 200, body = ContentUsage), Errors)
)]
pub(super) async fn usage(State(api): State<Api>) -> Result<Json<ContentUsage>, ApiError> {
    let content = api.content.clone();
    let pins = blocking(move || content.pins()).await?;
    let mut usage = ContentUsage {
        used: api.content.used_in_all(),
        max: api.config.content_max,
        private: api.content.private().used(),
        ..ContentUsage::default()
    };
    for pin in pins {
        let kept = |test: &dyn Fn(&str) -> bool| pin.reasons.iter().any(|reason| test(reason));
        // Each root counts once, for the strongest of its reasons.
        if kept(&|reason| reason == USER) {
            usage.user += pin.size;
        } else if kept(&|reason| reason.starts_with("j-") || reason.starts_with("e-")) {
            usage.results += pin.size;
        } else {
            usage.inputs += pin.size;
        }
    }
    Ok(Json(usage))
}

/// Brings the content here if it is not, and finds `path` in it; and says in which store.
async fn hold(api: &Api, text: &str, path: &str) -> Result<(Content, Cid), ApiError> {
    let root = parse(text)?;
    let content = api.content.clone();
    let held = blocking(move || Ok(content.holder(&root)?.cloned())).await?;
    let store = held.clone().unwrap_or_else(|| api.content.clone());
    if held.is_none() {
        let fetched = api.fetcher.fetch(root, Vec::new(), u64::MAX, INPUT.into()).await;
        fetched.map_err(|cause| ApiError::not_found(format!("{root} cannot be had: {cause}")))?;
    }
    let (content, path) = (store.clone(), path.to_owned());
    Ok((store, blocking(move || content.resolve(&root, &path)).await?))
}

/// A file's bytes, or a folder as a tar archive. `X-Content-Kind` says which.
#[utoipa::path(
    get,
    path = "/content/{cid}",
    tag = "content",
    operation_id = "getContent",
    params(
        ("cid" = String, Path),
        ("path" = Option<String>, Query, description = "within a folder"),
    ),
    responses((status = 200, content_type = "application/octet-stream", body = String, description = "a file, or a folder as a tar archive: `X-Content-Kind` says which"), Errors)
)]
pub(super) async fn get(
    State(api): State<Api>,
    Path(text): Path<String>,
    Query(params): Query<Params>,
) -> Result<Response, ApiError> {
    let path = params.text("path").unwrap_or_default();
    let (held, root) = hold(&api, &text, path).await?;
    let content = held.clone();
    let (folder, size) = blocking(move || Ok((content.is_folder(&root)?, content.size(&root)?))).await?;
    let headers = [
        ("content-type", if folder { "application/x-tar" } else { "application/octet-stream" }.to_owned()),
        ("x-content-kind", if folder { "folder" } else { "file" }.to_owned()),
        ("x-content-size", size.to_string()),
        ("x-content-type-options", "nosniff".to_owned()),
        ("content-disposition", "attachment".to_owned()),
    ];
    Ok((axum::response::AppendHeaders(headers), body(held, root, folder)).into_response())
}

/// A file's bytes, or a folder as an archive.
fn body(content: Content, root: Cid, folder: bool) -> Body {
    Body::from_stream(stream(move |out| {
        if folder { content.write_tar(&root, out) } else { content.write_file(&root, out).map(|_| ()) }
    }))
}

#[utoipa::path(
    get,
    path = "/content/{cid}/ls",
    tag = "content",
    operation_id = "listContent",
    params(
        ("cid" = String, Path),
        ("path" = Option<String>, Query, description = "within a folder"),
    ),
    responses((status = 200, body = Vec<Entry>), Errors)
)]
pub(super) async fn ls(
    State(api): State<Api>,
    Path(text): Path<String>,
    Query(params): Query<Params>,
) -> Result<Json<Vec<Entry>>, ApiError> {
    let (content, root) = hold(&api, &text, params.text("path").unwrap_or_default()).await?;
    let entries = blocking(move || {
        if !content.is_folder(&root)? {
            let size = content.size(&root)?;
            return Ok(vec![Entry { name: String::new(), cid: root.to_string(), size, kind: "file".into() }]);
        }
        let mut entries = Vec::new();
        for entry in content.entries(&root)? {
            let kind = if content.is_folder(&entry.cid)? { "folder" } else { "file" }.into();
            let size = content.size(&entry.cid)?;
            entries.push(Entry { name: entry.name, cid: entry.cid.to_string(), size, kind });
        }
        Ok(entries)
    });
    Ok(Json(entries.await?))
}

#[utoipa::path(
    get,
    path = "/content/{cid}/providers",
    tag = "content",
    operation_id = "listProviders",
    params(("cid" = String, Path)),
    responses((status = 200, body = Vec<Provider>), Errors)
)]
pub(super) async fn providers(
    State(api): State<Api>,
    Path(text): Path<String>,
) -> Result<Json<Vec<Provider>>, ApiError> {
    let root = parse(&text)?;
    let mut nodes = api.network.providers(root).await;
    let content = api.content.clone();
    if blocking(move || Ok(content.holder(&root)?.is_some())).await? {
        nodes.insert(api.network.me);
    }
    let view = api.network.view();
    let provider = |node: &bacnode_protocol::id::NodeId| Provider { peer_id: node.to_string(), name: view.label(node) };
    Ok(Json(nodes.iter().map(provider).collect()))
}
