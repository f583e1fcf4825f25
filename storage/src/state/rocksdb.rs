//! Applied state in RocksDB.
//!
//! One column family per [`Table`], no write-ahead log, and every flush takes all column families
//! at one point of time, so what a crash leaves is the store after some earlier write set. The
//! applied position and the identity of the log lie in the default column family, where no row of
//! a table can collide with them.
//!
//! A thread of its own flushes; requests that come while a flush runs are served by one more. The
//! first error of any kind poisons the store: RocksDB may go on after a failed flush, but with
//! several column families that is not to be trusted.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::{fs, io};

use menes_jetstream::ports::{
    LogPosition, Row, Seek, StateStore, StoreError, StoreErrorKind, Table, Write, WriteSet,
};
use parking_lot::{Condvar, Mutex};
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB,
    DBCompressionType, DBRawIterator, DEFAULT_COLUMN_FAMILY_NAME, ErrorKind, FlushOptions,
    LogLevel, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::scrub::{self, Findings};
use super::{convert, encrypted};
use crate::error::OpenError;
use crate::scrub::{Scrub, Scrubber};
use crate::vault::Vault;

const APPLIED_KEY: &[u8] = b"applied";
const LOG_KEY: &[u8] = b"log";
/// How many write sets pass between two looks at RocksDB's count of background errors.
const WRITES_PER_CHECK: u32 = 256;

/// How the state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateOptions {
    /// Memory for rows not flushed yet, over all tables. Default 48 MiB. What a crash makes the
    /// log replay is at most about this much.
    pub write_buffer_bytes: usize,
    /// Memory for blocks read from files. Default 64 MiB.
    pub block_cache_bytes: usize,
    /// Threads for flushes and compactions. Default 2.
    pub background_jobs: i32,
    /// Most bytes written per second by compactions and flushes. Default 128 MiB.
    pub write_rate_bytes: i64,
    /// Files kept open. Default 256.
    pub open_files: i32,
    /// What files are encrypted with. Default: nothing.
    pub vault: Vault,
    /// How what is stored is checked for damage; `None` for not at all.
    pub scrub: Option<Scrub>,
}

impl Default for StateOptions {
    fn default() -> Self {
        Self {
            write_buffer_bytes: 48 << 20,
            block_cache_bytes: 64 << 20,
            background_jobs: 2,
            write_rate_bytes: 128 << 20,
            open_files: 256,
            vault: Vault::default(),
            scrub: Some(Scrub::default()),
        }
    }
}

/// A part of a file's index or filter, about.
const METADATA_BLOCK_BYTES: usize = 8 << 10;

/// The state of one server on disk.
#[derive(Debug)]
pub struct RocksState {
    /// Ends with the state.
    _scrubber: Option<Scrubber>,
    findings: Arc<Findings>,
    shared: Arc<Shared>,
    flusher: Option<JoinHandle<()>>,
    applied: Option<LogPosition>,
    writes_until_check: u32,
}

/// Tells how a state is doing, wherever the state itself goes.
#[derive(Clone, Debug)]
pub struct StateMonitor(Arc<Findings>);

impl StateMonitor {
    /// What is damaged, as far as anybody has looked.
    #[must_use]
    pub fn damage(&self) -> Option<String> {
        self.0.damage()
    }
}

/// What the owner and the flusher share.
struct Shared {
    db: DB,
    path: PathBuf,
    progress: Mutex<Progress>,
    changed: Condvar,
    failure: OnceLock<StoreError>,
}

#[derive(Debug, Default)]
struct Progress {
    applied: Option<LogPosition>,
    durable: Option<LogPosition>,
    requested: bool,
    closing: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("path", &self.path)
            .field("progress", &self.progress)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

impl RocksState {
    /// Opens the state in `directory`, or makes one there, for the log with this identity.
    ///
    /// # Errors
    /// `Damaged` when RocksDB says so, no key opens it, or the state belongs to another log.
    pub fn open(
        directory: &Path,
        log: [u8; 16],
        options: &StateOptions,
    ) -> Result<Self, OpenError> {
        convert::convert(directory, &options.vault)?;
        fs::create_dir_all(directory).map_err(OpenError::io("create", directory))?;
        let db = open_db(directory, options)?;
        let shared = Shared {
            db,
            path: directory.to_path_buf(),
            progress: Mutex::default(),
            changed: Condvar::new(),
            failure: OnceLock::new(),
        };
        shared.identify(log)?;
        let applied = shared.stored_position()?;
        *shared.progress.lock() = Progress {
            applied,
            durable: applied,
            ..Progress::default()
        };
        let shared = Arc::new(shared);
        let flusher = Flusher(Arc::clone(&shared))
            .start()
            .map_err(OpenError::io("start a thread for", directory))?;
        let findings = Arc::new(Findings::default());
        let scrubber = match options.scrub {
            Some(scrub) => {
                let (vault, findings) = (options.vault.clone(), Arc::clone(&findings));
                let started = scrub::start(scrub, directory.to_path_buf(), vault, findings);
                Some(started.map_err(OpenError::io("start a thread for", directory))?)
            }
            None => None,
        };
        Ok(Self {
            _scrubber: scrubber,
            findings,
            shared,
            flusher: Some(flusher),
            applied,
            writes_until_check: WRITES_PER_CHECK,
        })
    }

    /// A handle that tells how the state is doing.
    #[must_use]
    pub fn monitor(&self) -> StateMonitor {
        StateMonitor(Arc::clone(&self.findings))
    }

    /// Flushes everything and ends.
    ///
    /// # Errors
    /// What poisoned the store, now or earlier. It is then as after a crash.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.stop();
        self.shared.failure.get().cloned().map_or(Ok(()), Err)
    }

    /// Waits until a flush has made everything written so far durable.
    ///
    /// # Errors
    /// As [`StateStore::begin_flush`].
    pub fn flush(&mut self) -> Result<(), StoreError> {
        self.begin_flush()?;
        let mut progress = self.shared.progress.lock();
        while progress.durable < self.applied || progress.requested {
            self.shared.usable()?;
            self.shared.changed.wait(&mut progress);
        }
        Ok(())
    }

    fn stop(&mut self) {
        let mut progress = self.shared.progress.lock();
        progress.closing = true;
        drop(progress);
        self.shared.changed.notify_all();
        if let Some(flusher) = self.flusher.take()
            && flusher.join().is_err()
        {
            tracing::error!("the state flusher panicked");
        }
    }

    fn check(&mut self) -> Result<(), StoreError> {
        self.shared.usable()?;
        self.writes_until_check -= 1;
        if self.writes_until_check == 0 {
            self.writes_until_check = WRITES_PER_CHECK;
            self.shared.background_errors()?;
        }
        Ok(())
    }
}

impl Drop for RocksState {
    fn drop(&mut self) {
        if self.flusher.is_some() {
            self.stop();
            if let Some(failure) = self.shared.failure.get() {
                tracing::error!(%failure, "the state was not closed in good order");
            }
        }
    }
}

impl StateStore for RocksState {
    fn write(&mut self, writes: &WriteSet) -> Result<(), StoreError> {
        self.check()?;
        let shared = &*self.shared;
        let mut batch = WriteBatch::default();
        for write in &writes.writes {
            match write {
                Write::Put(table, key, value) => batch.put_cf(shared.table(*table)?, key, value),
                Write::Delete(table, key) => batch.delete_cf(shared.table(*table)?, key),
                Write::DeleteRange(table, from, to) if from < to => {
                    batch.delete_range_cf(shared.table(*table)?, from, to);
                }
                Write::DeleteRange(..) => {}
            }
        }
        if let Some(position) = writes.applied {
            batch.put(APPLIED_KEY, encode_position(position));
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        shared
            .db
            .write_opt(batch, &options)
            .map_err(|error| shared.fail("write", &error))?;
        if writes.applied.is_some() {
            self.applied = writes.applied;
            shared.progress.lock().applied = writes.applied;
        }
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let shared = &*self.shared;
        shared
            .db
            .get_cf(shared.table(table)?, key)
            .map_err(|error| shared.fail("read", &error))
    }

    fn seek(&self, table: Table, key: &[u8], seek: Seek) -> Result<Option<Row>, StoreError> {
        let shared = &*self.shared;
        let mut rows = shared.db.raw_iterator_cf(shared.table(table)?);
        match seek {
            Seek::AtOrAfter => rows.seek(key),
            Seek::AtOrBefore => rows.seek_for_prev(key),
        }
        let row = rows
            .item()
            .map(|(key, value)| (key.to_vec(), value.to_vec()));
        shared.finish(&rows)?;
        Ok(row)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let shared = &*self.shared;
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        let mut rows = shared.db.raw_iterator_cf_opt(shared.table(table)?, options);
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            if !visit(key, value) {
                break;
            }
            rows.next();
        }
        shared.finish(&rows)
    }

    fn durable_applied(&self) -> Option<LogPosition> {
        self.shared.progress.lock().durable
    }

    fn applied(&self) -> Option<LogPosition> {
        self.applied
    }

    fn begin_flush(&mut self) -> Result<(), StoreError> {
        self.shared.usable()?;
        self.shared.progress.lock().requested = true;
        self.shared.changed.notify_all();
        Ok(())
    }
}

impl Shared {
    fn table(&self, table: Table) -> Result<&ColumnFamily, StoreError> {
        self.db.cf_handle(table.name()).ok_or_else(|| {
            let what = format!("{} has no table {}", self.path.display(), table.name());
            StoreError::new(StoreErrorKind::Corrupt, what)
        })
    }

    /// Notes which log this state belongs to, or finds that it is another one.
    fn identify(&self, log: [u8; 16]) -> Result<(), OpenError> {
        match self
            .db
            .get(LOG_KEY)
            .map_err(|error| self.fail("read", &error))?
        {
            None => {
                let mut options = WriteOptions::default();
                options.disable_wal(true);
                self.db
                    .put_opt(LOG_KEY, log, &options)
                    .map_err(|error| self.fail("write", &error).into())
            }
            Some(stored) if stored == log => Ok(()),
            Some(_) => Err(OpenError::Damaged {
                what: format!(
                    "the state in {} belongs to another log",
                    self.path.display()
                ),
            }),
        }
    }

    fn stored_position(&self) -> Result<Option<LogPosition>, OpenError> {
        let stored = self
            .db
            .get(APPLIED_KEY)
            .map_err(|error| self.fail("read", &error))?;
        stored
            .map(|bytes| {
                decode_position(&bytes).ok_or_else(|| OpenError::Damaged {
                    what: format!("the applied position in {} is damaged", self.path.display()),
                })
            })
            .transpose()
    }

    /// The error of an iterator that ended early, if that is why it ended.
    fn finish(&self, rows: &DBRawIterator<'_>) -> Result<(), StoreError> {
        rows.status().map_err(|error| self.fail("read", &error))
    }

    /// Makes everything written so far durable. `Ok` says up to where.
    fn flush(&self) -> Result<Option<LogPosition>, StoreError> {
        let applied = self.progress.lock().applied;
        let default = self.db.cf_handle(DEFAULT_COLUMN_FAMILY_NAME);
        let mut families: Vec<&ColumnFamily> = default.into_iter().collect();
        for table in Table::ALL {
            families.push(self.table(table)?);
        }
        let families: Vec<&&ColumnFamily> = families.iter().collect();
        let flushed = self.db.flush_cfs_opt(&families, &FlushOptions::default());
        flushed.map_err(|error| self.fail("flush", &error))?;
        self.background_errors()?;
        Ok(applied)
    }

    fn background_errors(&self) -> Result<(), StoreError> {
        match self
            .db
            .property_int_value(rocksdb::properties::BACKGROUND_ERRORS)
        {
            Ok(None | Some(0)) => Ok(()),
            Ok(Some(count)) => Err(self.poison(StoreError::new(
                StoreErrorKind::Io,
                format!(
                    "{count} background errors in the state {}",
                    self.path.display()
                ),
            ))),
            Err(error) => Err(self.fail("query", &error)),
        }
    }

    fn usable(&self) -> Result<(), StoreError> {
        match self.failure.get() {
            None => Ok(()),
            Some(failure) => Err(StoreError::new(
                StoreErrorKind::Closed,
                format!("the state is out of service since an earlier error: {failure}"),
            )),
        }
    }

    fn fail(&self, action: &str, error: &rocksdb::Error) -> StoreError {
        let kind = match error.kind() {
            ErrorKind::Corruption => StoreErrorKind::Corrupt,
            _ => StoreErrorKind::Io,
        };
        let what = format!("cannot {action} the state {}: {error}", self.path.display());
        self.poison(StoreError::new(kind, what))
    }

    /// Keeps the first error; returns this one.
    fn poison(&self, error: StoreError) -> StoreError {
        drop(self.failure.set(error.clone()));
        self.changed.notify_all();
        error
    }
}

/// The thread that flushes.
struct Flusher(Arc<Shared>);

impl Flusher {
    fn start(self) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name("menes-state-flush".into())
            .spawn(move || {
                // `Err` has poisoned the store, and every later call reports it.
                drop(self.run());
            })
    }

    fn run(&self) -> Result<(), StoreError> {
        loop {
            let mut progress = self.0.progress.lock();
            while !progress.requested && !progress.closing {
                self.0.changed.wait(&mut progress);
            }
            let closing = progress.closing;
            progress.requested = false;
            drop(progress);
            self.0.usable()?;
            let durable = self.0.flush()?;
            self.0.progress.lock().durable = durable;
            self.0.changed.notify_all();
            if closing {
                return Ok(());
            }
        }
    }
}

fn open_db(directory: &Path, options: &StateOptions) -> Result<DB, OpenError> {
    let cache = Cache::new_lru_cache(options.block_cache_bytes);
    let mut db_options = Options::default();
    db_options.create_if_missing(true);
    db_options.create_missing_column_families(true);
    db_options.set_atomic_flush(true);
    db_options.set_paranoid_checks(true);
    db_options.set_db_write_buffer_size(options.write_buffer_bytes);
    db_options.set_max_background_jobs(options.background_jobs);
    db_options.set_ratelimiter(options.write_rate_bytes, 100_000, 10);
    db_options.set_max_open_files(options.open_files);
    db_options.set_keep_log_file_num(4);
    db_options.set_stats_dump_period_sec(0);
    if options.vault.is_on() {
        db_options.set_env(&encrypted::env(&options.vault));
        // What RocksDB tells of its work is not encrypted, and may name keys.
        db_options.set_log_level(LogLevel::Fatal);
    }
    let families = Table::ALL.into_iter().map(|table| {
        ColumnFamilyDescriptor::new(table.name(), table_options(table, &cache, options))
    });
    DB::open_cf_descriptors(&db_options, directory, families).map_err(|error| {
        if error.kind() == ErrorKind::Corruption {
            let what = format!("the state in {} is damaged: {error}", directory.display());
            OpenError::Damaged { what }
        } else {
            OpenError::State {
                path: directory.to_path_buf(),
                reason: error.to_string(),
            }
        }
    })
}

fn table_options(table: Table, cache: &Cache, options: &StateOptions) -> Options {
    let mut blocks = BlockBasedOptions::default();
    let mut family = Options::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(16 << 10);
    blocks.set_format_version(6);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // In parts: the filter of a large file in one piece is larger than a shard of the cache, and
    // would be read and checked again for every row.
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_partition_filters(true);
    blocks.set_metadata_block_size(METADATA_BLOCK_BYTES);
    if matches!(table, Table::Subject | Table::Consumer | Table::Dedup) {
        // These are asked for keys that are often not there.
        blocks.set_bloom_filter(10.0, false);
        family.set_memtable_whole_key_filtering(true);
        family.set_memtable_prefix_bloom_ratio(0.05);
    }
    family.set_block_based_table_factory(&blocks);
    family.set_level_compaction_dynamic_level_bytes(true);
    family.set_write_buffer_size((options.write_buffer_bytes / 2).max(64 << 10));
    family.set_max_write_buffer_number(3);
    family.set_compression_type(DBCompressionType::None);
    if !matches!(table, Table::Meta | Table::Dedup) {
        family.set_bottommost_compression_type(DBCompressionType::Lz4);
    }
    family
}

fn encode_position(position: LogPosition) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&position.segment.to_le_bytes());
    bytes[8..].copy_from_slice(&position.offset.to_le_bytes());
    bytes
}

fn decode_position(bytes: &[u8]) -> Option<LogPosition> {
    let (segment, offset) = bytes.split_first_chunk()?;
    Some(LogPosition {
        segment: u64::from_le_bytes(*segment),
        offset: u32::from_le_bytes(offset.try_into().ok()?),
    })
}
