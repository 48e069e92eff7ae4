//! Counters, and the peers we knew.

use bacnode_protocol::id::NodeId;
use libp2p::Multiaddr;
use rocksdb::{WriteBatch, WriteOptions};

use super::{Column, Store, StoreError};

/// Peers remembered over a restart.
const KNOWN_PEERS_MAX: usize = 256;

impl Store {
    pub(super) fn counter(&self, name: &str) -> Result<u64, StoreError> {
        match self.get(Column::Meta, name.as_bytes())? {
            None => Ok(0),
            Some(bytes) => Ok(u64::from_be_bytes(bytes.try_into().map_err(|_| StoreError::Damaged("counter"))?)),
        }
    }

    /// Writes a counter and waits for the disk.
    pub(super) fn set_counter(&self, name: &str, value: u64) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        Ok(self.db().put_cf_opt(self.family(Column::Meta), name, value.to_be_bytes(), &options)?)
    }

    /// Begins a new life: the epoch of this start, durably higher than any before. The first one is the time in seconds: a
    /// node that lost its database, but not its key, must not take up the numbers of its former lives again.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn next_epoch(&self) -> Result<u64, StoreError> {
        let epoch = match self.counter("epoch")? {
            0 => (crate::clock::unix().0 / 1_000).max(1),
            last => last + 1,
        };
        self.set_counter("epoch", epoch)?;
        Ok(epoch)
    }

    /// Leaves room for every life that this folder's node may have had since it was as it is here, as the first epoch does:
    /// none of their numbers comes back.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn renew_epoch(&self) -> Result<(), StoreError> {
        self.set_counter("epoch", self.counter("epoch")?.max(crate::clock::unix().0 / 1_000))
    }

    /// Whether the operator is emptying the node; also over restarts.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn draining(&self) -> Result<bool, StoreError> {
        Ok(self.counter("draining")? != 0)
    }

    /// Notes whether the operator is emptying the node, and waits for the disk.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn set_draining(&self, draining: bool) -> Result<(), StoreError> {
        self.set_counter("draining", draining.into())
    }

    /// A secret of this data folder, made at first use.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn secret(&self) -> Result<[u8; 32], StoreError> {
        if let Some(bytes) = self.get(Column::Meta, b"secret")? {
            return bytes.try_into().map_err(|_| StoreError::Damaged("secret"));
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|_| StoreError::Damaged("no randomness"))?;
        self.db().put_cf(self.family(Column::Meta), b"secret", secret)?;
        Ok(secret)
    }

    /// Remembers how `node` was reached.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn remember_peer(&self, node: &NodeId, address: &Multiaddr) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        let when = crate::clock::unix().0.to_be_bytes();
        self.put_in(&mut batch, Column::Peers, &node.0, &[&when[..], &address.to_vec()].concat());
        self.log().append(batch)?;
        Ok(())
    }

    /// Notes that `node` says of itself that it is at `address`, for a time when nobody better is known.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn hear_of_peer(&self, node: &NodeId, address: &Multiaddr) -> Result<(), StoreError> {
        if self.get(Column::Peers, &node.0)?.is_some() {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        // Never reached: after all that were.
        self.put_in(&mut batch, Column::Peers, &node.0, &[&[0; 8][..], &address.to_vec()].concat());
        self.log().append(batch)?;
        Ok(())
    }

    /// Peers that were reached before, the latest first, then those that were only heard of; what is too many is forgotten.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn known_peers(&self) -> Result<Vec<(NodeId, Multiaddr)>, StoreError> {
        let mut known = Vec::new();
        for item in self.scan(Column::Peers, &[]) {
            let (key, value) = item?;
            let node = <[u8; 32]>::try_from(&*key).map(NodeId);
            let address = value.get(8..).and_then(|bytes| Multiaddr::try_from(bytes.to_vec()).ok());
            if let (Ok(node), Some(address)) = (node, address) {
                known.push((value[..8].to_vec(), node, address));
            }
        }
        known.sort_unstable_by(|left, right| right.0.cmp(&left.0));
        if known.len() > KNOWN_PEERS_MAX {
            let mut batch = WriteBatch::default();
            for (_, node, _) in known.drain(KNOWN_PEERS_MAX..) {
                self.delete_in(&mut batch, Column::Peers, &node.0);
            }
            self.log().append(batch)?;
        }
        Ok(known.into_iter().map(|(_, node, address)| (node, address)).collect())
    }
}
