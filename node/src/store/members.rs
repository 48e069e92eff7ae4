//! What a swarm's membership must remember: a certificate, a list, and at the founder its books.

use bacnode_protocol::membership::Kept;
use bacnode_protocol::time::UnixMillis;
use bacnode_protocol::wire::codec;
use bacnode_protocol::wire::member::Certificate;
use rocksdb::{WriteBatch, WriteOptions};

use super::{Column, Store, StoreError};

const PREFIX: &[u8] = b"member/";
/// Bytes of one [`Kept`]: a list of those put out is the longest.
const KEPT_BYTES_MAX: usize = 32 << 10;

fn key(kept: &Kept) -> Vec<u8> {
    let (kind, of): (&[u8], &[u8]) = match kept {
        Kept::Certificate(_) => (b"certificate", &[]),
        Kept::Revocations(_) => (b"revocations", &[]),
        Kept::Issued(Certificate { node, voucher, .. }) => {
            return [PREFIX, b"issued/", &node.0, voucher].concat();
        }
        Kept::Spent(voucher, _) => (b"spent/", voucher),
    };
    [PREFIX, kind, of].concat()
}

impl Store {
    /// Remembers these, and waits for the disk.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn keep_members(&self, kept: &[Kept]) -> Result<(), StoreError> {
        if kept.is_empty() {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        for kept in kept {
            self.put_in(&mut batch, Column::Meta, &key(kept), &codec::encode(kept));
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        Ok(self.db().write_opt(batch, &options)?)
    }

    /// All that is remembered; what need not be any longer is forgotten.
    ///
    /// # Errors
    /// If the disk fails, or a record is damaged.
    pub(crate) fn members(&self, now: UnixMillis) -> Result<Vec<Kept>, StoreError> {
        let (mut all, mut over) = (Vec::new(), WriteBatch::default());
        for item in self.scan(Column::Meta, PREFIX) {
            let (key, value) = item?;
            let kept: Kept = codec::decode(&value, KEPT_BYTES_MAX).map_err(|_| StoreError::Damaged("membership"))?;
            if kept.is_over(now) {
                self.delete_in(&mut over, Column::Meta, &key);
            } else {
                all.push(kept);
            }
        }
        self.db().write(over)?;
        Ok(all)
    }
}
