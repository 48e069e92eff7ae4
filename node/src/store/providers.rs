//! Who says in the DHT that it has what: kept for others, over restarts.
//!
//! Kademlia's own store in memory forgets at a restart what the network relies on. What this node provides itself is in
//! memory: it is said anew in each life.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bacnode_protocol::id::NodeId;
use bacnode_protocol::limits::{ADDRESS_BYTES_MAX, ADDRESSES_MAX};
use bacnode_protocol::time::UnixMillis;
use bacnode_protocol::wire::bounded::{BytesMax, ListMax};
use bacnode_protocol::wire::codec;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use libp2p::{Multiaddr, PeerId};
use rocksdb::WriteBatch;
use sha2::{Digest as _, Sha256};

use super::{Column, Store, StoreError};
use crate::clock;

/// Rows in all; an enemy could send any number.
const ROWS_MAX: usize = 200_000;
/// Of one key; later ones are not kept, whoever they are.
const PER_KEY_MAX: usize = 20;
/// Of one provider.
const PER_PROVIDER_MAX: u32 = 10_000;
/// Between two sweeps, and when there is no room.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);
const SWEEP_SOON: Duration = Duration::from_secs(60);
/// Bytes of a key: a multihash.
const KEY_BYTES_MAX: usize = 64;
/// Bytes of one row.
const ROW_BYTES_MAX: usize = 1024;

/// When it ends, and where the provider was.
type Row = (UnixMillis, ListMax<BytesMax<ADDRESS_BYTES_MAX>, ADDRESSES_MAX>);

/// The provider records of one node.
pub(crate) struct ProviderStore {
    store: Store,
    me: PeerId,
    own: HashMap<RecordKey, ProviderRecord>,
    counts: Arc<Mutex<Counts>>,
    swept: Instant,
}

/// How many rows there are.
#[derive(Debug, Default)]
struct Counts {
    all: usize,
    of: HashMap<NodeId, u32>,
}

impl Counts {
    fn add(&mut self, node: NodeId) {
        self.all += 1;
        *self.of.entry(node).or_default() += 1;
    }

    fn remove(&mut self, node: &NodeId) {
        self.all = self.all.saturating_sub(1);
        if let Some(count) = self.of.get_mut(node) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of.remove(node);
            }
        }
    }
}

/// Drops what has ended, and counts the rest.
fn sweep(store: &Store) -> std::result::Result<Counts, StoreError> {
    let (mut batch, mut counts) = (WriteBatch::default(), Counts::default());
    for item in store.scan(Column::Providers, &[]) {
        let (key, value) = item?;
        let node = key.get(32..).and_then(|node| node.try_into().ok()).map(NodeId);
        match (codec::decode::<Row>(&value, ROW_BYTES_MAX), node) {
            (Ok((ends, _)), Some(node)) if ends > clock::unix() => counts.add(node),
            _ => store.delete_in(&mut batch, Column::Providers, &key),
        }
    }
    store.log().append(batch)?;
    Ok(counts)
}

impl ProviderStore {
    /// What was kept in former lives and has not ended.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn open(store: &Store, me: PeerId) -> std::result::Result<Self, StoreError> {
        let counts = Arc::new(Mutex::new(sweep(store)?));
        Ok(Self { store: store.clone(), me, own: HashMap::new(), counts, swept: Instant::now() })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sweeps if it is time, where it holds up nobody.
    fn sweep_soon(&mut self, full: bool) {
        if self.swept.elapsed() < if full { SWEEP_SOON } else { SWEEP_EVERY } {
            return;
        }
        self.swept = Instant::now();
        let (store, counts) = (self.store.clone(), Arc::clone(&self.counts));
        std::thread::spawn(move || match sweep(&store) {
            Ok(swept) => *counts.lock().unwrap_or_else(PoisonError::into_inner) = swept,
            Err(error) => tracing::warn!(%error, "cannot sweep the DHT's records"),
        });
    }

    /// Keys are hashed, so that rows of one stand together whatever its length.
    fn prefix(key: &RecordKey) -> [u8; 32] {
        Sha256::digest(key).into()
    }

    fn of_others(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let now = clock::unix();
        let read = |item: std::result::Result<super::KeyValue, StoreError>| {
            let (row, value) = item.ok()?;
            let node = <[u8; 32]>::try_from(row.get(32..)?).map(NodeId).ok()?;
            let (ends, addresses): Row = codec::decode(&value, ROW_BYTES_MAX).ok()?;
            let left = ends.0.checked_sub(now.0).filter(|left| *left > 0)?;
            let addresses = addresses.iter().filter_map(|bytes| Multiaddr::try_from(bytes.to_vec()).ok());
            Some(ProviderRecord {
                key: key.clone(),
                provider: node.peer_id()?,
                expires: Some(Instant::now() + Duration::from_millis(left)),
                addresses: addresses.collect(),
            })
        };
        self.store.scan(Column::Providers, &Self::prefix(key)).filter_map(read).collect()
    }

    fn keep(&mut self, record: &ProviderRecord) -> Result<()> {
        // Only such keys sign adverts here: nobody else could be asked for content.
        let node = NodeId::from_peer_id(&record.provider).ok_or(Error::ValueTooLarge)?;
        let row = [Self::prefix(&record.key), node.0].concat();
        let known = self.store.get(Column::Providers, &row).ok().flatten().is_some();
        if !known {
            let (full, much) = {
                let counts = self.counts();
                (counts.all >= ROWS_MAX, counts.of.get(&node).is_some_and(|count| *count >= PER_PROVIDER_MAX))
            };
            self.sweep_soon(full);
            if full || much || self.of_others(&record.key).len() >= PER_KEY_MAX {
                return Err(Error::MaxProvidedKeys);
            }
        }
        let left = record.expires.map_or(0, |ends| {
            u64::try_from(ends.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u64::MAX)
        });
        let addresses = record.addresses.iter().filter_map(|address| BytesMax::new(address.to_vec()).ok());
        let value: Row = (UnixMillis(clock::unix().0.saturating_add(left)), ListMax::truncated(addresses));
        let mut batch = WriteBatch::default();
        self.store.put_in(&mut batch, Column::Providers, &row, &codec::encode(&value));
        self.store.log().append(batch).map_err(|_| Error::MaxProvidedKeys)?;
        if !known {
            self.counts().add(node);
        }
        Ok(())
    }
}

impl RecordStore for ProviderStore {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::iter::Map<
        hash_map::Values<'a, RecordKey, ProviderRecord>,
        fn(&'a ProviderRecord) -> Cow<'a, ProviderRecord>,
    >;

    /// No third party's values: whatever is found must prove itself, and a provider does so by its content.
    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    fn put(&mut self, _: Record) -> Result<()> {
        Err(Error::MaxRecords)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    fn add_provider(&mut self, record: ProviderRecord) -> Result<()> {
        if record.key.as_ref().len() > KEY_BYTES_MAX {
            return Err(Error::ValueTooLarge);
        }
        if record.provider == self.me {
            self.own.insert(record.key.clone(), record);
            return Ok(());
        }
        self.keep(&record)
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        self.own.get(key).cloned().into_iter().chain(self.of_others(key)).collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        self.own.values().map(Cow::Borrowed)
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if *provider == self.me {
            self.own.remove(key);
        } else if let Some(node) = NodeId::from_peer_id(provider) {
            let (row, mut batch) = ([Self::prefix(key), node.0].concat(), WriteBatch::default());
            if self.store.get(Column::Providers, &row).ok().flatten().is_some() {
                self.store.delete_in(&mut batch, Column::Providers, &row);
                let _ = self.store.log().append(batch);
                self.counts().remove(&node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: u8, provider: u8, lasts: u64) -> ProviderRecord {
        let node = NodeId::of(&ed25519_dalek::SigningKey::from_bytes(&[provider; 32]).verifying_key());
        ProviderRecord {
            key: RecordKey::new(&[key; 34]),
            provider: node.peer_id().expect("a key"),
            expires: Some(Instant::now() + Duration::from_secs(lasts)),
            addresses: vec!["/ip4/203.0.113.7/tcp/1235".parse().expect("an address")],
        }
    }

    #[test]
    fn what_others_provide_outlives_a_restart_until_it_ends() {
        let dir = tempfile::tempdir().expect("a folder");
        let me = record(0, 200, 1).provider;
        let lasting = record(1, 1, 3_600);
        {
            let store = Store::open(dir.path()).expect("a store");
            let mut providers = ProviderStore::open(&store, me).expect("opened");
            providers.add_provider(lasting.clone()).expect("kept");
            providers.add_provider(record(1, 2, 0)).expect("kept for no time");
            let own = ProviderRecord { provider: me, ..record(1, 1, 3_600) };
            providers.add_provider(own.clone()).expect("own");
            assert_eq!(providers.provided().count(), 1);
            assert_eq!(providers.providers(&lasting.key).len(), 2, "what has ended is not told");
            providers.remove_provider(&own.key, &me);
        }
        let store = Store::open(dir.path()).expect("a store");
        let mut providers = ProviderStore::open(&store, me).expect("opened");
        let kept = providers.providers(&lasting.key);
        assert_eq!(kept.len(), 1);
        assert_eq!((&kept[0].provider, &kept[0].addresses), (&lasting.provider, &lasting.addresses));
        assert_eq!(providers.counts().all, 1, "what has ended is swept away");
        providers.remove_provider(&lasting.key, &lasting.provider);
        assert!(providers.providers(&lasting.key).is_empty());
        assert!(providers.counts().all == 0 && providers.counts().of.is_empty());
    }

    #[test]
    fn of_one_key_only_so_many_are_kept_and_no_key_is_long() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(dir.path()).expect("a store");
        let mut providers = ProviderStore::open(&store, record(0, 200, 1).provider).expect("opened");
        for provider in 1..=30 {
            let kept = providers.add_provider(record(1, provider, 60)).is_ok();
            assert_eq!(kept, usize::from(provider) <= PER_KEY_MAX, "{provider}");
        }
        providers.add_provider(record(1, 1, 600)).expect("a known one may be renewed");
        let long = ProviderRecord { key: RecordKey::new(&[1; 65]), ..record(1, 1, 60) };
        assert!(providers.add_provider(long).is_err());
    }
}
