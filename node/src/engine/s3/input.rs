//! Objects become a folder of content, fetched once for each state of the store.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bacnode_protocol::content::Cid;
use bacnode_protocol::content::unixfs::is_safe_name;
use bacnode_protocol::job::format_bytes;
use bacnode_protocol::wire::market::FailureKind;
use bacnode_protocol::wire::s3::{Objects, Selector};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::aws::AmazonS3;
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::{GetOptions, ObjectMeta, ObjectStore as _};
use sha2::{Digest as _, Sha256};

use super::super::RunError;
use super::super::web::{self, Fetched, sha256_of};
use super::{AT_ONCE, Stores, failed};
use crate::content::{Content, Limits};

/// Keys that are looked at for one input.
const LISTED_MAX: usize = 200_000;
/// The longest key that S3 has.
const KEY_BYTES_MAX: usize = 1_024;
/// How long it may take to choose among them.
const CHOOSE_MAX: Duration = Duration::from_secs(30);
/// Fetched states that are remembered.
const KNOWN_MAX: usize = 1_000;

/// One object, and where it goes.
struct Wanted {
    meta: ObjectMeta,
    name: String,
}

/// For whom objects are fetched, and how much.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Share {
    pub(in crate::engine) slot: u32,
    pub(in crate::engine) slots: u32,
    pub(in crate::engine) limits: Limits,
}

impl Stores {
    /// Fetches this slot's share of the objects, or finds that it is here. It is pinned under `reason`.
    pub(in crate::engine) async fn fetch(
        &self,
        guarded: &web::Fetcher,
        content: &Content,
        objects: &Objects,
        share: Share,
        reason: &str,
    ) -> Result<Fetched, RunError> {
        let store = self.open(guarded, &objects.place, false)?.store;
        let wanted = wanted(&store, objects, share).await?;
        let size = wanted.iter().map(|object| object.meta.size).sum();
        let state = state_of(objects, &wanted);
        let held = self.known().get(&state).copied();
        if let Some(root) = held.filter(|root| content.lacking(root, 1).is_ok_and(|lacking| lacking.is_empty())) {
            content.pin(&root, reason)?;
            return Ok(Fetched { root, size, came: 0 });
        }
        content.make_room(size)?;
        let folder = tempfile::tempdir_in(content.tmp())
            .map_err(|error| RunError::Node(format!("cannot make a folder for an input: {error}")))?;
        let first = wanted.first().map(|object| folder.path().join(&object.name));
        let (path, store) = (folder.path(), &store);
        let downloads = wanted.into_iter().map(|object| async move { download(store, objects, &object, path).await });
        futures::stream::iter(downloads).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let root = keep(content, path.to_owned(), objects, first, share.limits, reason).await?;
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(state, root);
        Ok(Fetched { root, size, came: size })
    }
}

/// The objects of this slot, by name.
async fn wanted(store: &AmazonS3, objects: &Objects, share: Share) -> Result<Vec<Wanted>, RunError> {
    let place = &objects.place;
    let wrong = |cause: String| RunError::task(FailureKind::Program, format!("input {place}: {cause}"));
    let selector = Selector::new(objects).map_err(wrong)?;
    let listed = match place.prefix() {
        Some(prefix) => list(store, objects, prefix).await?,
        None => vec![head(store, objects).await?],
    };
    if listed.is_empty() {
        return Err(wrong("there is no such object".into()));
    }
    let objects = objects.clone();
    // Patterns and keys are others': looking at them may take long, and must hold up nobody.
    let chosen = tokio::task::spawn_blocking(move || choose(&objects, &selector, listed, share)).await;
    chosen.map_err(|_| RunError::Node("choosing objects broke down".into()))?
}

/// Those of the listed objects that are this slot's, by name.
fn choose(
    objects: &Objects,
    selector: &Selector,
    listed: Vec<ObjectMeta>,
    share: Share,
) -> Result<Vec<Wanted>, RunError> {
    let (place, started) = (&objects.place, Instant::now());
    let wrong = |cause: String| RunError::task(FailureKind::Program, format!("input {place}: {cause}"));
    let (mut wanted, mut size) = (Vec::new(), 0u64);
    for meta in listed {
        if started.elapsed() > CHOOSE_MAX {
            return Err(wrong(format!("choosing among its objects takes longer than {} s", CHOOSE_MAX.as_secs())));
        }
        let key = meta.location.to_string();
        if key.len() > KEY_BYTES_MAX {
            return Err(wrong(format!("the store lists a key of {} bytes", key.len())));
        }
        let name = place.name_of(&key).to_owned();
        let date = |layout: &str| meta.last_modified.format(layout).to_string();
        if !selector.is_for(share.slot, share.slots, &key, &name, date) {
            continue;
        }
        if !name.split('/').all(is_safe_name) {
            return Err(wrong(format!("the key `{key}` cannot be a path")));
        }
        size = size.saturating_add(meta.size);
        wanted.push(Wanted { meta, name });
        if size > share.limits.bytes {
            return Err(wrong(format!("it has more than {}, the limit here", format_bytes(share.limits.bytes))));
        }
        if wanted.len() as u64 > share.limits.entries {
            return Err(wrong(format!("it has more than {} objects, the limit here", share.limits.entries)));
        }
    }
    wanted.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(wanted)
}

async fn head(store: &AmazonS3, objects: &Objects) -> Result<ObjectMeta, RunError> {
    let options = GetOptions { head: true, version: version(objects), ..GetOptions::default() };
    let answer = store.get_opts(&path(objects)?, options).await;
    answer.map(|answer| answer.meta).map_err(|error| failed(&input(objects), &error))
}

async fn list(store: &AmazonS3, objects: &Objects, prefix: &str) -> Result<Vec<ObjectMeta>, RunError> {
    let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
    let (mut found, mut page_token) = (Vec::new(), None);
    loop {
        let options = PaginatedListOptions { page_token, ..PaginatedListOptions::default() };
        let page = store.list_paginated(prefix, options).await.map_err(|error| failed(&input(objects), &error))?;
        // What consoles make where people click on "new folder" is an object of no bytes.
        found.extend(page.result.objects.into_iter().filter(|meta| meta.size > 0 || !is_folder(prefix, meta)));
        if found.len() > LISTED_MAX {
            let cause = format!("{}: it has more than {LISTED_MAX} objects", input(objects));
            return Err(RunError::task(FailureKind::Program, cause));
        }
        page_token = page.page_token;
        if page_token.is_none() {
            return Ok(found);
        }
    }
}

/// Whether it stands for the folder that is listed: the library drops the `/` at its end.
fn is_folder(prefix: Option<&str>, meta: &ObjectMeta) -> bool {
    prefix.is_some_and(|prefix| prefix.trim_end_matches('/') == meta.location.as_ref())
}

/// One state of these objects: their keys, sizes and versions.
fn state_of(objects: &Objects, wanted: &[Wanted]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let place = &objects.place;
    hash.update(format!("{place}\0{}\0{}\0{:?}\0", &*place.endpoint, &*place.region, objects.sha256));
    for Wanted { meta, name } in wanted {
        let version = meta.version.as_ref().or(meta.e_tag.as_ref()).cloned();
        let version = version.unwrap_or_else(|| meta.last_modified.to_rfc3339());
        hash.update(format!("{name}\0{}\0{version}\0", meta.size));
    }
    hash.finalize().into()
}

async fn download(store: &AmazonS3, objects: &Objects, object: &Wanted, folder: &Path) -> Result<(), RunError> {
    let to = folder.join(&object.name);
    let unwritable = |error: std::io::Error| RunError::Node(format!("cannot write an input: {error}"));
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent).map_err(unwritable)?;
    }
    let key = &object.meta.location;
    let name = format!("input s3://{}/{key}", &*objects.place.bucket);
    let options =
        GetOptions { version: version(objects), if_match: object.meta.e_tag.clone(), ..GetOptions::default() };
    let answer = match store.get_opts(key, options).await {
        // What consoles make for a folder: its name ends in a `/`, which the library drops.
        Err(object_store::Error::NotFound { .. }) if object.meta.size == 0 => return Ok(()),
        answer => answer.map_err(|error| failed(&name, &error))?,
    };
    let (mut file, mut written) = (std::fs::File::create(&to).map_err(unwritable)?, 0);
    let mut chunks = answer.into_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| failed(&name, &error))?;
        written += chunk.len() as u64;
        // A store that gives more than it listed would fill the disk.
        if written > object.meta.size {
            return Err(RunError::Node(format!("{name}: it is longer than the store said")));
        }
        file.write_all(&chunk).map_err(unwritable)?;
    }
    if written < object.meta.size {
        return Err(RunError::Node(format!("{name}: it is shorter than the store said")));
    }
    Ok(())
}

/// Makes the folder content, if its bytes are the right ones.
async fn keep(
    content: &Content,
    folder: PathBuf,
    objects: &Objects,
    first: Option<PathBuf>,
    limits: Limits,
    reason: &str,
) -> Result<Cid, RunError> {
    let (content, reason, name) = (content.clone(), reason.to_owned(), input(objects));
    let checked = objects.sha256.zip(first);
    let kept = tokio::task::spawn_blocking(move || {
        if let Some((expected, file)) = checked {
            let digest = sha256_of(&file).map_err(|error| RunError::Node(format!("cannot read an input: {error}")))?;
            if digest != expected {
                let cause = format!("{name}: its SHA-256 is {}, not the one in the job", hex::encode(digest));
                return Err(RunError::task(FailureKind::Program, cause));
            }
        }
        // Folders count as entries, too.
        let limits = Limits { entries: limits.entries.saturating_mul(2), ..limits };
        Ok(content.import(&folder, limits, true, &reason)?.root)
    });
    kept.await.map_err(|_| RunError::Node("keeping an input broke down".into()))?
}

fn input(objects: &Objects) -> String {
    format!("input {}", objects.place)
}

fn version(objects: &Objects) -> Option<String> {
    Some(objects.version.to_string()).filter(|version| !version.is_empty())
}

fn path(objects: &Objects) -> Result<object_store::path::Path, RunError> {
    object_store::path::Path::parse(&*objects.place.key)
        .map_err(|error| RunError::task(FailureKind::Program, format!("{}: {error}", input(objects))))
}
