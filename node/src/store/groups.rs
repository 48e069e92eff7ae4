//! What this node keeps of other owners' jobs, and of its own for them.

use bacnode_protocol::id::{JobId, NodeId};
use bacnode_protocol::record::{Record, Records};
use bacnode_protocol::wire::group::Entry;
use rocksdb::WriteBatch;

use super::jobs::{decode, encode};
use super::{Column, Store, StoreError};

fn owner_at(key: &[u8]) -> Result<NodeId, StoreError> {
    let id = key.get(..32).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    id.map(NodeId).ok_or(StoreError::Damaged("kept job"))
}

impl Store {
    pub(super) fn put_group_record(&self, batch: &mut WriteBatch, record: &Record) {
        match record {
            Record::Ward(charter) => self.put_in(batch, Column::Wards, &charter.owner.0, &encode(charter)),
            Record::DropWard(owner) => self.delete_in(batch, Column::Wards, &owner.0),
            Record::Group(group) => self.put_in(batch, Column::Groups, &group.charter.owner.0, &encode(&**group)),
            Record::Kept(owner, key, entry) => {
                let key = [&owner.0[..], key].concat();
                match entry {
                    Some(entry) => self.put_in(batch, Column::Kept, &key, &encode(&**entry)),
                    None => self.delete_in(batch, Column::Kept, &key),
                }
            }
            Record::DropGroup(owner) => {
                self.delete_in(batch, Column::Groups, &owner.0);
                // All keys that begin with it: behind the owner comes a job's id, of twenty bytes.
                let end = [&owner.0[..], &[0xff; 21]].concat();
                batch.delete_range_cf(self.family(Column::Kept), &owner.0[..], &end[..]);
            }
            _ => {}
        }
    }

    pub(super) fn group_records(&self, records: &mut Records) -> Result<(), StoreError> {
        for item in self.scan(Column::Wards, &[]) {
            records.wards.push(decode(&item?.1, "ward")?);
        }
        for item in self.scan(Column::Groups, &[]) {
            records.groups.push(decode(&item?.1, "group")?);
        }
        for item in self.scan(Column::Kept, &[]) {
            let (key, value) = item?;
            records.kept.push((owner_at(&key)?, decode::<Entry>(&value, "kept job")?));
        }
        Ok(())
    }

    /// Whether a group of `owner`'s keeps this job here.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn keeps(&self, owner: &NodeId, job: &JobId) -> Result<bool, StoreError> {
        Ok(self.get(Column::Kept, &[&owner.0[..], &job.0, &[0]].concat())?.is_some())
    }
}
