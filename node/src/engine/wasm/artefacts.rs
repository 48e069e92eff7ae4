//! Compiled modules: in memory, on disk, marked as ours.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use sha2::{Digest, Sha256};

use super::ModuleSource;
use crate::engine::RunError;

/// Artefacts kept in memory, and their bytes together.
const LOADED_MAX: usize = 32;
const LOADED_BYTES_MAX: u64 = 64 << 20;
/// Bytes of artefacts on disk; the ones made first go first.
const STORED_BYTES_MAX: u64 = 1 << 30;
const MARK_BYTES: usize = 32;
/// Modules that are remembered not to compile.
const REFUSED_MAX: usize = 256;

/// A compiled module in sealed memory.
#[derive(Debug, Clone)]
pub struct Artefact {
    pub(super) digest: [u8; 32],
    file: Arc<File>,
    len: u64,
}

impl Artefact {
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }
}

/// Makes sure that a module is compiled by one task at a time.
type Gate = Arc<tokio::sync::Mutex<()>>;

#[derive(Debug)]
pub(super) struct Artefacts {
    dir: PathBuf,
    mark_key: [u8; 32],
    loaded: Mutex<Vec<([u8; 32], Artefact)>>,
    gates: Mutex<HashMap<[u8; 32], Weak<tokio::sync::Mutex<()>>>>,
    /// Modules that do not compile, and why: asking again would take as long again.
    refused: Mutex<VecDeque<([u8; 32], String)>>,
}

impl Artefacts {
    pub(super) fn new(dir: PathBuf, key: [u8; 32]) -> Self {
        let mark_key = Sha256::new().chain_update(b"bacnode/artefact/1\0").chain_update(key).finalize().into();
        Self { dir, mark_key, loaded: Mutex::default(), gates: Mutex::default(), refused: Mutex::default() }
    }

    /// Names the artefact: by the module, this program's version, its settings, and what the processor can do.
    pub(super) async fn key(&self, module: &ModuleSource, deterministic: bool) -> Result<[u8; 32], RunError> {
        let digest = if let Some(cid) = module.cid {
            cid.to_bytes()
        } else {
            let path = module.path.clone();
            let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
            let bytes =
                read.ok().and_then(Result::ok).ok_or_else(|| RunError::Node("cannot read the module".into()))?;
            Sha256::digest(bytes).to_vec()
        };
        let version = concat!(env!("CARGO_PKG_VERSION"), "/wasmtime-48/components");
        let mut hash = Sha256::new();
        for part in [&digest[..], version.as_bytes(), processor(), &[u8::from(deterministic)]] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Ok(hash.finalize().into())
    }

    pub(super) fn gate(&self, key: &[u8; 32]) -> Gate {
        let mut gates = self.gates.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        gates.retain(|_, gate| gate.strong_count() > 0);
        if let Some(gate) = gates.get(key).and_then(Weak::upgrade) {
            return gate;
        }
        let gate = Gate::default();
        gates.insert(*key, Arc::downgrade(&gate));
        gate
    }

    pub(super) async fn get(&self, key: &[u8; 32]) -> Option<Artefact> {
        {
            let mut loaded = self.loaded.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(index) = loaded.iter().position(|(known, _)| known == key) {
                let entry = loaded.remove(index);
                loaded.push(entry.clone());
                return Some(entry.1);
            }
        }
        let (path, mark_key, key) = (self.path(key), self.mark_key, *key);
        let bytes = tokio::task::spawn_blocking(move || {
            let stored = std::fs::read(&path).ok()?;
            let (mark, bytes) = stored.split_at_checked(MARK_BYTES)?;
            if mark != self::mark(&mark_key, &key, bytes) {
                tracing::warn!(path = %path.display(), "a compiled module is not as we left it; it is compiled anew");
                return None;
            }
            Some(bytes.to_vec())
        });
        self.load(&key, &bytes.await.ok()??).ok()
    }

    /// Why this module does not compile, if that is known.
    pub(super) fn refusal(&self, key: &[u8; 32]) -> Option<String> {
        let refused = self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        refused.iter().find(|(known, _)| known == key).map(|(_, cause)| cause.clone())
    }

    pub(super) fn refuse(&self, key: [u8; 32], cause: String) {
        let mut refused = self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        refused.push_back((key, cause));
        while refused.len() > REFUSED_MAX {
            refused.pop_front();
        }
    }

    /// Keeps a new artefact.
    pub(super) async fn put(&self, key: &[u8; 32], bytes: Vec<u8>) -> Result<Artefact, RunError> {
        let failed = |error: io::Error| RunError::Node(format!("cannot keep a compiled module: {error}"));
        let artefact = self.load(key, &bytes).map_err(failed)?;
        let (dir, path, mark) = (self.dir.clone(), self.path(key), mark(&self.mark_key, key, &bytes));
        let stored = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&dir)?;
            make_room(&dir, bytes.len() as u64);
            let mut file = tempfile::NamedTempFile::new_in(&dir)?;
            file.write_all(&mark)?;
            file.write_all(&bytes)?;
            file.persist(path).map_err(|error| error.error)?;
            io::Result::Ok(())
        });
        if let Ok(Err(error)) = stored.await {
            // It runs all the same; only the next start has to compile again.
            tracing::warn!(%error, "cannot store a compiled module");
        }
        Ok(artefact)
    }

    fn load(&self, key: &[u8; 32], bytes: &[u8]) -> io::Result<Artefact> {
        let mut file = memory_file()?;
        file.write_all(bytes)?;
        seal(&file)?;
        let artefact = Artefact { digest: *key, file: Arc::new(file), len: bytes.len() as u64 };
        let mut loaded = self.loaded.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        loaded.push((*key, artefact.clone()));
        while loaded.len() > LOADED_MAX
            || (loaded.len() > 1 && loaded.iter().map(|(_, a)| a.len).sum::<u64>() > LOADED_BYTES_MAX)
        {
            loaded.remove(0);
        }
        Ok(artefact)
    }

    fn path(&self, key: &[u8; 32]) -> PathBuf {
        self.dir.join(hex::encode(key)).with_extension("cwasm")
    }
}

/// What shows that an artefact is ours: over its name and bytes.
fn mark(mark_key: &[u8; 32], name: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    bacnode_protocol::wire::signed::hmac_sha256(mark_key, &[name, bytes])
}

fn make_room(dir: &Path, wanted: u64) {
    let mut stored: Vec<_> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            Some((meta.modified().ok()?, meta.len(), entry.path()))
        })
        .collect();
    stored.sort();
    let mut total: u64 = wanted + stored.iter().map(|(_, len, _)| len).sum::<u64>();
    for (_, len, path) in stored {
        if total <= STORED_BYTES_MAX {
            return;
        }
        let _ = std::fs::remove_file(path);
        total -= len;
    }
}

/// What the processor can do, as the system describes it; code compiled for one may not run on another.
fn processor() -> &'static [u8] {
    static FLAGS: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let line = info.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
        [std::env::consts::ARCH, line.unwrap_or_default()].concat().into_bytes()
    });
    &FLAGS
}

/// A file without a name.
#[cfg(target_os = "linux")]
pub(super) fn memory_file() -> io::Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(File::from(memfd_create("artefact", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn memory_file() -> io::Result<File> {
    tempfile::tempfile()
}

/// Makes sure that nobody changes the file any more, not even who holds it.
#[cfg(target_os = "linux")]
fn seal(file: &File) -> io::Result<()> {
    use rustix::fs::{SealFlags, fcntl_add_seals};
    Ok(fcntl_add_seals(file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?)
}

#[cfg(not(target_os = "linux"))]
fn seal(_file: &File) -> io::Result<()> {
    Ok(())
}

/// The whole of a file that another process has written.
pub(super) fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let len = file.metadata()?.len();
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// The whole of a file that was handed over, from its start.
pub(super) fn read_module(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    (&*file).read_to_end(&mut bytes)?;
    Ok(bytes)
}
