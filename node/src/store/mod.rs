//! One RocksDB in the data folder: what the machines remember, what content is held, whom we knew.
//!
//! Every step of a machine is one write batch, appended to the log without waiting for the disk; [`Log`] syncs in the
//! background and says how far it is. `kill -9` therefore loses nothing, and a power cut at most a suffix of steps that
//! nobody was told to rely on.

mod blocks;
mod groups;
mod jobs;
mod log;
mod members;
mod meta;
mod providers;
mod usage;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::{BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, Options, WriteBatch};

pub use self::jobs::Page;
pub use self::log::Log;
pub(crate) use self::providers::ProviderStore;
pub(crate) use self::usage::UsageBooks;

/// The schema that this program writes.
const SCHEMA: u64 = 1;

/// The column families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// Job id → `JobRecord` of its newest version.
    Jobs,
    /// Job id ‖ version → `JobRecord`.
    Versions,
    /// Job id → `JobStateRecord`.
    JobState,
    /// Creation time ‖ job id → nothing: the order of lists.
    JobsByTime,
    /// Name ‖ 0 ‖ creation time ‖ job id → namespace.
    Names,
    /// Job id → nothing, while the job has not ended: what a restart replays.
    OpenJobs,
    /// Job id ‖ execution id → `ExecutionRecord`.
    Executions,
    /// Job id ‖ slot → `TargetRecord`.
    Targets,
    /// Job id ‖ sequence → `JobEvent`.
    Events,
    /// Execution id → `HeldRecord`.
    Held,
    /// CID → where the block's bytes are.
    Blocks,
    /// CID of a whole file → the file that holds its bytes.
    Files,
    /// Root CID ‖ reason → size, time.
    Pins,
    /// The same three for content that does not leave this node.
    PrivateBlocks,
    PrivateFiles,
    PrivatePins,
    /// Name → value.
    Meta,
    /// Node → how to reach it.
    Peers,
    /// Hash of a key in the DHT ‖ provider → end, addresses.
    Providers,
    /// Owner → `Charter` of those who keep its jobs, while runs of them are here.
    Wards,
    /// Owner → `GroupRecord` of a group that this node is in.
    Groups,
    /// Owner ‖ key → `Entry`: what this node keeps of an owner's jobs.
    Kept,
}

impl Column {
    const ALL: [Self; 22] = [
        Self::Jobs,
        Self::Versions,
        Self::JobState,
        Self::JobsByTime,
        Self::Names,
        Self::OpenJobs,
        Self::Executions,
        Self::Targets,
        Self::Events,
        Self::Held,
        Self::Blocks,
        Self::Files,
        Self::Pins,
        Self::PrivateBlocks,
        Self::PrivateFiles,
        Self::PrivatePins,
        Self::Meta,
        Self::Peers,
        Self::Providers,
        Self::Wards,
        Self::Groups,
        Self::Kept,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Versions => "versions",
            Self::JobState => "job_state",
            Self::JobsByTime => "jobs_by_time",
            Self::Names => "names",
            Self::OpenJobs => "open_jobs",
            Self::Executions => "executions",
            Self::Targets => "targets",
            Self::Events => "events",
            Self::Held => "held",
            Self::Blocks => "blocks",
            Self::Files => "files",
            Self::Pins => "pins",
            Self::PrivateBlocks => "private_blocks",
            Self::PrivateFiles => "private_files",
            Self::PrivatePins => "private_pins",
            Self::Meta => "meta",
            Self::Peers => "peers",
            Self::Providers => "providers",
            Self::Wards => "wards",
            Self::Groups => "groups",
            Self::Kept => "kept",
        }
    }
}

/// A data folder that cannot be opened, or a disk that does not do as it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("the data folder {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// A newer program wrote it.
    #[error("the data folder was written by a newer version (schema {found}, this one knows {SCHEMA})")]
    Newer {
        /// The schema found.
        found: u64,
    },
    /// The folder itself.
    #[error("cannot use the data folder {}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database.
    #[error("the database failed: {0}")]
    Database(#[from] rocksdb::Error),
    /// A value that this program cannot read.
    #[error("a record in the database is damaged ({0})")]
    Damaged(&'static str),
}

/// A row.
pub(crate) type KeyValue = (Box<[u8]>, Box<[u8]>);

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

/// Fields are dropped in this order: the log's thread has ended before the database closes.
struct Inner {
    log: Log,
    db: Arc<DB>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.0.db.path().display())
    }
}

impl Store {
    /// Opens the database below `data_dir`, making it where there is none.
    ///
    /// # Errors
    /// If another process has it, a newer program wrote it, or the disk fails.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let path = data_dir.join("db");
        let folder = |source| StoreError::Folder { path: data_dir.to_owned(), source };
        std::fs::create_dir_all(&path).map_err(folder)?;
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        // A peer should be small: little memory, few files, few threads.
        options.set_db_write_buffer_size(16 << 20);
        options.set_max_total_wal_size(64 << 20);
        options.set_max_open_files(128);
        options.set_keep_log_file_num(2);
        options.set_max_background_jobs(2);
        options.set_max_log_file_size(1 << 20);
        options.set_wal_recovery_mode(rocksdb::DBRecoveryMode::PointInTime);
        let cache = Cache::new_lru_cache(4 << 20);
        let families = Column::ALL.iter().map(|column| {
            let mut family = Options::default();
            let mut table = BlockBasedOptions::default();
            table.set_block_cache(&cache);
            table.set_cache_index_and_filter_blocks(true);
            table.set_bloom_filter(10.0, false);
            family.set_block_based_table_factory(&table);
            family.set_write_buffer_size(if *column == Column::Blocks { 8 << 20 } else { 2 << 20 });
            ColumnFamilyDescriptor::new(column.name(), family)
        });
        let db = DB::open_cf_descriptors(&options, &path, families).map_err(|error| {
            let text = error.to_string();
            if text.contains("LOCK") || text.contains("lock") {
                StoreError::Locked(data_dir.to_owned())
            } else if text.contains("Column families not opened") {
                StoreError::Newer { found: SCHEMA + 1 }
            } else {
                StoreError::Database(error)
            }
        })?;
        let db = Arc::new(db);
        let store = Self(Arc::new(Inner { log: Log::start(Arc::clone(&db)), db }));
        store.check_schema()?;
        Ok(store)
    }

    fn check_schema(&self) -> Result<(), StoreError> {
        match self.counter("schema")? {
            0 => self.set_counter("schema", SCHEMA),
            SCHEMA => Ok(()),
            found => Err(StoreError::Newer { found }),
        }
    }

    /// The log that says what is on disk.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.0.log
    }

    pub(crate) fn family(&self, column: Column) -> &ColumnFamily {
        self.0.db.cf_handle(column.name()).expect("every column is opened with the database")
    }

    pub(crate) fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.db.get_cf(self.family(column), key)?)
    }

    pub(crate) fn put_in(&self, batch: &mut WriteBatch, column: Column, key: &[u8], value: &[u8]) {
        batch.put_cf(self.family(column), key, value);
    }

    pub(crate) fn delete_in(&self, batch: &mut WriteBatch, column: Column, key: &[u8]) {
        batch.delete_cf(self.family(column), key);
    }

    /// Every (key, value) whose key starts with `prefix`, in order.
    pub(crate) fn scan(&self, column: Column, prefix: &[u8]) -> impl Iterator<Item = Result<KeyValue, StoreError>> {
        let start = rocksdb::IteratorMode::From(prefix, rocksdb::Direction::Forward);
        let prefix = prefix.to_vec();
        self.0
            .db
            .iterator_cf(self.family(column), start)
            .map(|item| item.map_err(StoreError::from))
            .take_while(move |item| item.as_ref().is_ok_and(|(key, _)| key.starts_with(&prefix)) || item.is_err())
    }

    /// The database itself, for iterators that run backwards.
    pub(crate) fn db(&self) -> &DB {
        &self.0.db
    }
}
