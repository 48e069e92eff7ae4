//! `backup` and `restore`: a data folder as one file.

use std::fs::File;
use std::path::{Component, Path, PathBuf};

use bacnode_node::store::{Store, StoreError};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use crate::error::{Failure, Result};
use crate::output;
use crate::settings::data_dir;

/// What a node makes again, or what is of one life only.
const LEFT_OUT: [&str; 2] = ["cache", "guard"];
/// The same, within folders of content and of the database: copies, and what it says to those who look into it.
const LEFT_OUT_WITHIN: [&str; 5] = ["tmp", "runs", "mounts", "LOG", "LOCK"];

/// Copies a data folder into a file.
pub(super) fn backup(dir: Option<PathBuf>, file: &Path) -> Result<()> {
    let dir = data_dir(dir.as_ref())?;
    if !dir.join("node.key").exists() {
        return Err(Failure::usage(format!("{} is not a data folder: there is no key in it", dir.display()))
            .hint("name the folder with --data-dir"));
    }
    let folder =
        |path: &Path| std::fs::canonicalize(path.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new(".")));
    if folder(file).and_then(|to| Ok(to.starts_with(std::fs::canonicalize(&dir)?))).unwrap_or(false) {
        let message = format!("{} lies within the folder that it is to be a copy of", file.display());
        return Err(Failure::usage(message));
    }
    // Nobody writes to it while this is held.
    let store = open(&dir)?;
    let failed = |error: std::io::Error| Failure::failed(format!("cannot write {}: {error}", file.display()));
    let into = File::options().write(true).create_new(true).open(file);
    let into = into.map_err(|error| Failure::usage(format!("cannot make {}: {error}", file.display())))?;
    only_for_its_owner(&into).map_err(failed)?;
    let mut archive = tar::Builder::new(GzEncoder::new(into, Compression::fast()));
    archive.follow_symlinks(false);
    archive.sparse(false);
    add(&mut archive, &dir, Path::new("")).map_err(failed)?;
    let into = archive.into_inner().and_then(GzEncoder::finish).map_err(failed)?;
    into.sync_all().map_err(failed)?;
    drop(store);
    output::note(&format!("{} {}", output::green("saved"), dir.display()));
    output::note("it holds the node's key: whoever has the file can be the node");
    Ok(())
}

fn only_for_its_owner(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

fn add(archive: &mut tar::Builder<GzEncoder<File>>, dir: &Path, within: &Path) -> std::io::Result<()> {
    let mut entries = std::fs::read_dir(dir.join(within))?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let left_out: &[&str] = if within == Path::new("") { &LEFT_OUT } else { &LEFT_OUT_WITHIN };
        let old_log = name.to_string_lossy().starts_with("LOG.old");
        if old_log || left_out.iter().any(|left| name == *left) {
            continue;
        }
        let (path, kind) = (within.join(&name), entry.file_type()?);
        if kind.is_dir() {
            archive.append_dir(&path, entry.path())?;
            add(archive, dir, &path)?;
        } else if kind.is_file() {
            archive.append_path_with_name(entry.path(), &path)?;
        }
    }
    Ok(())
}

/// Makes a data folder of a file.
pub(super) fn restore(dir: Option<PathBuf>, file: &Path) -> Result<()> {
    let dir = data_dir(dir.as_ref())?;
    let used = std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some());
    if used {
        return Err(Failure::usage(format!("{} is not empty", dir.display()))
            .hint("name a new folder with --data-dir, or move what is there away"));
    }
    let from = File::open(file);
    let from = from.map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))?;
    // Aside, and renamed when it is whole: half a folder would start as another node.
    let parent = dir.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let made =
        std::fs::create_dir_all(parent).and_then(|()| tempfile::Builder::new().prefix(".restored-").tempdir_in(parent));
    let failed = |error: std::io::Error| Failure::failed(format!("cannot make {}: {error}", dir.display()));
    let aside = made.map_err(failed)?;
    let whole = aside.path().join("whole");
    let unpacked = unpack(from, &whole).map_err(|error| error.to_string());
    let found = unpacked.and_then(|found| if found { Ok(()) } else { Err("there is no node's key in it".to_owned()) });
    found.map_err(|error| Failure::usage(format!("{} is not a backup: {error}", file.display())))?;
    // What the node did after the backup was made must not be done again under the same numbers.
    open(&whole)?.renew_epoch().map_err(|error| Failure::failed(error.to_string()))?;
    let _ = std::fs::remove_dir(&dir);
    std::fs::rename(&whole, &dir).map_err(failed)?;
    output::note(&format!("{} {}", output::green("restored"), dir.display()));
    output::note("the node that it was made of must not run any more: both have one key");
    Ok(())
}

/// Unpacks plain files and folders; whether a key was among them.
fn unpack(from: File, dir: &Path) -> std::io::Result<bool> {
    std::fs::create_dir_all(dir)?;
    let mut archive = tar::Archive::new(GzDecoder::new(from));
    let mut found = false;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let kind = entry.header().entry_type();
        if !plain || !(kind.is_file() || kind.is_dir()) {
            return Err(std::io::Error::other(format!("`{}` does not belong there", path.display())));
        }
        entry.set_preserve_permissions(true);
        entry.unpack_in(dir)?;
        found |= path == Path::new("node.key");
    }
    Ok(found)
}

fn open(dir: &Path) -> Result<Store> {
    Store::open(dir).map_err(|error| match error {
        StoreError::Locked(_) => Failure::failed(error.to_string()).hint("stop the node first"),
        error => Failure::failed(error.to_string()),
    })
}
