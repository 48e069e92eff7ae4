//! Pins, and the sweep of what has none.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bacnode_protocol::content::{Cid, Codec};
use bacnode_protocol::id::JobId;
use rocksdb::WriteBatch;

use super::blocks::Place;
use super::{Content, ContentError, Lies};

/// Why content that a user added or pinned is kept.
pub(crate) const USER: &str = "user";
/// Why content is kept that is being added.
pub(crate) const UPLOAD: &str = "upload";
/// Why copies of inputs are kept; the oldest go first when room is needed.
pub(crate) const INPUT: &str = "input";
/// Why results that this node serves by a link are kept; the attempt that made one follows.
pub(crate) const PUBLISHED: &str = "published";
const KEPT: &str = "/kept";

/// Why content is kept that another owner's job needs or made, should that owner's node be lost.
pub(crate) fn kept_for(job: &JobId) -> String {
    format!("{job}{KEPT}")
}

/// A pinned root.
#[derive(Debug, Clone)]
pub struct Pin {
    /// Which.
    pub root: Cid,
    /// Bytes of files.
    pub size: u64,
    /// Why it is kept.
    pub reasons: Vec<String>,
}

impl Content {
    pub(super) fn pin_in(&self, batch: &mut WriteBatch, root: &Cid, reason: &str, size: u64) {
        let key = [&root.to_bytes()[..], reason.as_bytes()].concat();
        let value = [size.to_be_bytes(), crate::clock::unix().0.to_be_bytes()].concat();
        self.store().put_in(batch, self.columns().pins, &key, &value);
    }

    /// Keeps a root that is held, for one more reason.
    ///
    /// # Errors
    /// If a part of it is lacking, or the disk fails.
    pub fn pin(&self, root: &Cid, reason: &str) -> Result<u64, ContentError> {
        let _writing = self.writing();
        if let Some(lacking) = self.lacking(root, 1)?.first() {
            return Err(ContentError::Missing(*lacking));
        }
        let size = self.size(root)?;
        let mut batch = WriteBatch::default();
        self.pin_in(&mut batch, root, reason, size);
        self.store().log().append(batch)?;
        self.tell(*root)?;
        Ok(size)
    }

    /// How what is pinned lies here. Of what does not leave this node only that counts which a user added: what jobs made of
    /// it, other jobs cannot name.
    pub(super) fn lies(&self, pin: &Pin) -> Option<Lies> {
        if self.is_private() && !pin.reasons.iter().any(|reason| reason == USER) {
            return None;
        }
        Some(Lies { size: pin.size, guarded: pin.reasons.iter().all(|reason| reason.ends_with(KEPT)) })
    }

    /// Whether a root is kept for this reason.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn is_pinned(&self, root: &Cid, reason: &str) -> Result<bool, ContentError> {
        Ok(self.store().get(self.columns().pins, &[&root.to_bytes()[..], reason.as_bytes()].concat())?.is_some())
    }

    /// Whether so much more may be kept for other owners' jobs: half of the quota is never theirs.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn has_room_for_others(&self, size: u64) -> Result<bool, ContentError> {
        let half = self.0.quota.max / 2;
        if self.used_in_all().saturating_add(size) <= half {
            return Ok(true);
        }
        let theirs = self.pin_entries(&[])?.into_iter().filter(|(_, reason, ..)| reason.ends_with(KEPT));
        let held = theirs.fold(0_u64, |sum, (_, _, size, _)| sum.saturating_add(size));
        Ok(held.saturating_add(size) <= half)
    }

    /// Keeps a root no longer for this reason.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn unpin(&self, root: &Cid, reason: &str) -> Result<(), ContentError> {
        let key = [&root.to_bytes()[..], reason.as_bytes()].concat();
        if self.store().get(self.columns().pins, &key)?.is_none() {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        self.store().delete_in(&mut batch, self.columns().pins, &key);
        self.store().log().append(batch)?;
        self.tell(*root)
    }

    /// Keeps nothing any more for this reason.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn unpin_all(&self, reason: &str) -> Result<(), ContentError> {
        for pin in self.pins()? {
            if pin.reasons.iter().any(|known| known == reason) {
                self.unpin(&pin.root, reason)?;
            }
        }
        Ok(())
    }

    /// A root that is kept for this reason, if there is one.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn pinned_for(&self, reason: &str) -> Result<Option<Cid>, ContentError> {
        let entries = self.pin_entries(&[])?;
        Ok(entries.into_iter().find(|(_, known, ..)| known == reason).map(|(root, ..)| root))
    }

    /// Every pinned root.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn pins(&self) -> Result<Vec<Pin>, ContentError> {
        let mut pins: BTreeMap<Cid, Pin> = BTreeMap::new();
        for (root, reason, size, _) in self.pin_entries(&[])? {
            let pin = pins.entry(root).or_insert_with(|| Pin { root, size, reasons: Vec::new() });
            // One that is only coming, for this reason, has no size.
            pin.size = pin.size.max(size);
            pin.reasons.push(reason);
        }
        Ok(pins.into_values().collect())
    }

    /// Why this root is kept, if it is.
    pub(super) fn pin_of(&self, root: &Cid) -> Result<Option<Pin>, ContentError> {
        let entries = self.pin_entries(&root.to_bytes())?;
        let size = entries.iter().map(|(_, _, size, _)| *size).max();
        let reasons = entries.into_iter().map(|(_, reason, ..)| reason).collect();
        Ok(size.map(|size| Pin { root: *root, size, reasons }))
    }

    fn pin_entries(&self, below: &[u8]) -> Result<Vec<(Cid, String, u64, u64)>, ContentError> {
        let mut entries = Vec::new();
        for item in self.store().scan(self.columns().pins, below) {
            let (key, value) = item?;
            let Some((root, reason)) = key.split_at_checked(36) else { continue };
            let number = |range: std::ops::Range<usize>| {
                value.get(range).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
            };
            if let Ok(root) = Cid::from_bytes(root) {
                entries.push((root, String::from_utf8_lossy(reason).into_owned(), number(0..8), number(8..16)));
            }
        }
        Ok(entries)
    }

    /// Sweeps away every block below no pin. Results of ended jobs lose theirs when they are older than `keep`; above nine
    /// tenths of the quota the oldest of them, and of the copies of inputs, do. What users pinned, what runs or comes, and
    /// the results of `open_jobs` never do. Gives the bytes freed.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn collect(&self, open_jobs: &HashSet<String>, keep: Option<Duration>) -> Result<u64, ContentError> {
        let _alone = self.0.sweep.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.drop_old_pins(open_jobs, keep)?;
        let before = self.used();
        let keep = self.reachable()?;
        let (mut batch, mut files) = (WriteBatch::default(), HashSet::new());
        for item in self.store().scan(self.columns().blocks, &[]) {
            let (key, _) = item?;
            let Ok(cid) = Cid::from_bytes(&key) else { continue };
            match self.place(&cid)? {
                Some(Place::File { id, .. }) if keep.contains(&cid) => _ = files.insert(id),
                _ if keep.contains(&cid) => {}
                _ => self.store().delete_in(&mut batch, self.columns().blocks, &key),
            }
        }
        for item in self.store().scan(self.columns().files, &[]) {
            let (key, value) = item?;
            let id = <[u8; 8]>::try_from(&*value).map_or(0, u64::from_be_bytes);
            let kept = Cid::from_bytes(&key).is_ok_and(|cid| keep.contains(&cid));
            if kept { _ = files.insert(id) } else { self.store().delete_in(&mut batch, self.columns().files, &key) }
        }
        let appended = self.store().log().append(batch)?;
        self.store().log().want(appended, false);
        for entry in std::fs::read_dir(self.0.dir.join("files")).into_iter().flatten().flatten() {
            let id = entry.file_name().to_str().and_then(|name| u64::from_str_radix(name, 16).ok());
            if id.is_none_or(|id| !files.contains(&id)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        self.clear_mounts();
        let after = self.measure()?;
        self.set_used(after);
        Ok(before.saturating_sub(after))
    }

    /// Lets go of every copy of an input that no task reads now.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn drop_inputs(&self) -> Result<(), ContentError> {
        let used: HashSet<Cid> = self.mounted().keys().copied().collect();
        for (root, reason, size, _) in self.pin_entries(&[])? {
            // A pin of no size is that of something that is being fetched.
            if reason == INPUT && size > 0 && !used.contains(&root) {
                self.unpin(&root, &reason)?;
            }
        }
        Ok(())
    }

    fn drop_old_pins(&self, open_jobs: &HashSet<String>, keep: Option<Duration>) -> Result<(), ContentError> {
        let high = self.0.quota.max / 10 * 9;
        let mut excess = self.used_in_all().saturating_sub(high);
        let mut entries = self.pin_entries(&[])?;
        let used: HashSet<Cid> = self.mounted().keys().copied().collect();
        entries.retain(|(root, reason, size, _)| {
            let job = reason.split('/').next().unwrap_or_default();
            let result = job == PUBLISHED || job.starts_with("j-") && !open_jobs.contains(job);
            let copy = reason == INPUT || result;
            // A pin of no size is that of something that is being fetched.
            copy && *size > 0 && !used.contains(root)
        });
        entries.sort_by_key(|(_, _, _, created)| *created);
        let kept_since = keep.map_or(0, |keep| {
            crate::clock::unix().0.saturating_sub(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX))
        });
        for (root, reason, size, created) in entries {
            let over = created < kept_since && reason != INPUT;
            if excess == 0 && !over {
                continue;
            }
            self.unpin(&root, &reason)?;
            excess = excess.saturating_sub(size);
        }
        Ok(())
    }

    fn reachable(&self) -> Result<HashSet<Cid>, ContentError> {
        let mut keep = HashSet::new();
        let mut stack: Vec<Cid> = self.pin_entries(&[])?.into_iter().map(|(root, ..)| root).collect();
        while let Some(cid) = stack.pop() {
            if !keep.insert(cid) || cid.codec == Codec::Raw {
                continue;
            }
            match self.unixfs(&cid) {
                Ok(node) => stack.extend(node.links().iter().map(|link| link.cid)),
                Err(error) => tracing::warn!(%cid, %error, "a pinned block cannot be read"),
            }
        }
        Ok(keep)
    }
}

impl Content {
    /// Pins a root of which nothing is here yet, so that the sweep leaves alone what comes. The pin goes with what is
    /// given, unless the root was pinned for good meanwhile.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn begin(&self, root: &Cid, reason: &str) -> Result<Coming, ContentError> {
        let mut batch = WriteBatch::default();
        self.pin_in(&mut batch, root, reason, 0);
        self.store().log().append(batch)?;
        Ok(Coming { content: self.clone(), root: *root, reason: reason.to_owned(), here: false })
    }
}

/// Content on its way here.
#[derive(Debug)]
pub struct Coming {
    content: Content,
    root: Cid,
    reason: String,
    here: bool,
}

impl Coming {
    /// Everything is here: it is kept.
    ///
    /// # Errors
    /// If a part of it is lacking, or the disk fails.
    pub fn keep(mut self) -> Result<u64, ContentError> {
        let size = self.content.pin(&self.root, &self.reason)?;
        self.here = true;
        Ok(size)
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        if !self.here
            && let Err(error) = self.content.unpin(&self.root, &self.reason)
        {
            tracing::warn!(%error, "cannot release what did not come");
        }
    }
}
