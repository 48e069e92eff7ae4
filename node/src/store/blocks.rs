//! Peers that are blocked, over restarts.

use std::collections::BTreeMap;

use bacnode_protocol::id::NodeId;
use bacnode_protocol::time::UnixMillis;
use bacnode_protocol::wire::bounded::TextMax;
use bacnode_protocol::wire::codec;

use super::{Column, Store, StoreError};
use crate::network::Block;

const PREFIX: &[u8] = b"blocked/";
/// Bytes of one row.
const BYTES_MAX: usize = 256;

/// Since, until, why, what it called itself.
type Row = (UnixMillis, Option<UnixMillis>, TextMax<128>, TextMax<32>);

impl Store {
    pub(crate) fn block(&self, node: &NodeId, block: &Block) -> Result<(), StoreError> {
        let row: Row = (block.since, block.until, block.reason.clone(), block.name.clone());
        Ok(self.db().put_cf(self.family(Column::Meta), [PREFIX, &node.0].concat(), codec::encode(&row))?)
    }

    pub(crate) fn unblock(&self, node: &NodeId) -> Result<(), StoreError> {
        Ok(self.db().delete_cf(self.family(Column::Meta), [PREFIX, &node.0].concat())?)
    }

    pub(crate) fn blocks(&self) -> Result<BTreeMap<NodeId, Block>, StoreError> {
        let read = |item: Result<super::KeyValue, StoreError>| {
            let (key, value) = item?;
            let damaged = || StoreError::Damaged("block");
            let node = key.strip_prefix(PREFIX).and_then(|node| node.try_into().ok()).map(NodeId);
            let (since, until, reason, name): Row = codec::decode(&value, BYTES_MAX).map_err(|_| damaged())?;
            Ok((node.ok_or_else(damaged)?, Block { since, until, reason, name }))
        };
        self.scan(Column::Meta, PREFIX).map(read).collect()
    }
}
