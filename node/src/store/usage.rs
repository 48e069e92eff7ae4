//! What each submitter's jobs have used here, in all.

use std::collections::BTreeMap;

use bacnode_protocol::api::UsageTotals;
use bacnode_protocol::id::NodeId;
use bacnode_protocol::wire::market::Usage;
use rocksdb::WriteBatch;

use super::{Column, Store, StoreError};

/// Submitters told apart; those that come later are counted together, under the node of zeros.
const SUBMITTERS_MAX: usize = 10_000;
const PREFIX: &[u8] = b"usage/";

/// The books of one node.
#[derive(Debug, Default)]
pub(crate) struct UsageBooks(BTreeMap<NodeId, UsageTotals>);

impl UsageBooks {
    /// As they were.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn open(store: &Store) -> Result<Self, StoreError> {
        Ok(Self(store.usage()?))
    }

    /// Counts a run that has ended, into the batch that tells of its end.
    pub(crate) fn count(&mut self, store: &Store, batch: &mut WriteBatch, submitter: NodeId, usage: &Usage) {
        let known = self.0.contains_key(&submitter) || self.0.len() < SUBMITTERS_MAX;
        let submitter = if known { submitter } else { NodeId([0; 32]) };
        let totals = self.0.entry(submitter).or_default();
        totals.runs += 1;
        for (total, more) in [
            (&mut totals.cpu_ms, usage.cpu_ms),
            (&mut totals.wall_ms, usage.wall_ms),
            (&mut totals.bytes_in, usage.bytes_in),
            (&mut totals.bytes_held, usage.bytes_held),
            (&mut totals.bytes_out, usage.bytes_out),
        ] {
            *total = total.saturating_add(more);
        }
        store.put_in(batch, Column::Meta, &key(&submitter), &bytes(totals));
    }
}

impl Store {
    /// What each submitter's jobs have used.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn usage(&self) -> Result<BTreeMap<NodeId, UsageTotals>, StoreError> {
        let mut all = BTreeMap::new();
        for item in self.scan(Column::Meta, PREFIX) {
            let (key, value) = item?;
            let node = key.strip_prefix(PREFIX).and_then(|node| <[u8; 32]>::try_from(node).ok());
            if let Some((node, totals)) = node.zip(totals(&value)) {
                all.insert(NodeId(node), totals);
            }
        }
        Ok(all)
    }
}

fn key(node: &NodeId) -> Vec<u8> {
    [PREFIX, &node.0].concat()
}

fn bytes(totals: &UsageTotals) -> Vec<u8> {
    let UsageTotals { runs, cpu_ms, wall_ms, bytes_in, bytes_held, bytes_out } = *totals;
    [runs, cpu_ms, wall_ms, bytes_in, bytes_held, bytes_out].map(u64::to_be_bytes).concat()
}

fn totals(bytes: &[u8]) -> Option<UsageTotals> {
    let mut numbers = bytes.chunks_exact(8).filter_map(|number| Some(u64::from_be_bytes(number.try_into().ok()?)));
    let mut next = || numbers.next();
    Some(UsageTotals {
        runs: next()?,
        cpu_ms: next()?,
        wall_ms: next()?,
        bytes_in: next()?,
        bytes_held: next()?,
        bytes_out: next()?,
    })
}
