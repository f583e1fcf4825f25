//! Looks through the rows, slowly and all the time, for damage that nobody has met yet.
//!
//! What is asked for often comes from a cache, so damage to it on the disk would show only after
//! the next start. A pass opens the state a second time, to read and without that cache, and goes
//! through every table at a bounded rate; RocksDB compares each block with its checksum. Damage is
//! reported once and remembered. Nothing is mended: the rows follow from the log, and a start with
//! an empty state rebuilds them as long as the log goes back to its beginning.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, mem};

use menes_jetstream::ports::Table;
use parking_lot::{Condvar, Mutex};
use rocksdb::{
    BlockBasedOptions, ColumnFamilyDescriptor, DB, DEFAULT_COLUMN_FAMILY_NAME, ErrorKind, Options,
    ReadOptions,
};

use super::encrypted;
use crate::log::Scrub;
use crate::vault::Vault;

/// Bytes read between two looks at the clock.
const SLICE_BYTES: usize = 256 << 10;

/// What the thread found.
#[derive(Debug, Default)]
pub(super) struct Findings(Mutex<Option<String>>);

impl Findings {
    pub(super) fn damage(&self) -> Option<String> {
        self.0.lock().clone()
    }

    fn note(&self, what: String) {
        let mut known = self.0.lock();
        if known.is_none() {
            tracing::error!("{what}");
            *known = Some(what);
        }
    }
}

/// The thread, until it is dropped.
#[derive(Debug)]
pub(super) struct Scrubber {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Scrubber {
    pub(super) fn start(
        scrub: Scrub,
        directory: PathBuf,
        vault: Vault,
        findings: Arc<Findings>,
    ) -> io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let pass = Pass {
            scrub,
            directory,
            vault,
            findings,
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new()
            .name("menes-state-scrub".into())
            .spawn(move || pass.run())?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that checks the state panicked");
        }
    }
}

struct Pass {
    scrub: Scrub,
    directory: PathBuf,
    vault: Vault,
    findings: Arc<Findings>,
    stop: Arc<(Mutex<bool>, Condvar)>,
}

/// Why a pass ended.
enum End {
    Done,
    Stopped,
    Failed(rocksdb::Error),
}

impl Pass {
    fn run(self) {
        let mut pause = self.scrub.delay;
        while !self.rest(pause) {
            match self.check() {
                End::Stopped => return,
                End::Failed(error) if error.kind() == ErrorKind::Corruption => {
                    let path = self.directory.display();
                    self.findings
                        .note(format!("rows of the state in {path} are damaged: {error}"));
                }
                // Files come and go: what is not there any more is no damage.
                End::Failed(error) => tracing::debug!("the state could not be checked: {error}"),
                End::Done => tracing::debug!("the state was checked"),
            }
            pause = self.scrub.pause;
        }
    }

    fn check(&self) -> End {
        let db = match self.open() {
            Ok(db) => db,
            Err(error) => return End::Failed(error),
        };
        for table in Table::ALL {
            let Some(family) = db.cf_handle(table.name()) else {
                continue;
            };
            let mut options = ReadOptions::default();
            options.set_verify_checksums(true);
            options.fill_cache(false);
            let mut rows = db.raw_iterator_cf_opt(family, options);
            rows.seek_to_first();
            let mut read = 0;
            while let Some((key, value)) = rows.item() {
                read += key.len() + value.len();
                rows.next();
                if read >= SLICE_BYTES {
                    let nanos = (mem::take(&mut read) as u64).saturating_mul(1_000_000_000);
                    let pause = nanos / self.scrub.bytes_per_second.max(1);
                    if self.rest(Duration::from_nanos(pause)) {
                        return End::Stopped;
                    }
                }
            }
            if let Err(error) = rows.status() {
                return End::Failed(error);
            }
        }
        End::Done
    }

    /// The state as it lies on the disk now, to be read only.
    fn open(&self) -> Result<DB, rocksdb::Error> {
        let mut blocks = BlockBasedOptions::default();
        blocks.disable_cache();
        let mut options = Options::default();
        options.set_block_based_table_factory(&blocks);
        if self.vault.is_on() {
            options.set_env(&encrypted::env(&self.vault));
        }
        let names = Table::ALL.into_iter().map(Table::name);
        let families = names
            .chain([DEFAULT_COLUMN_FAMILY_NAME])
            .map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
        DB::open_cf_descriptors_read_only(&options, &self.directory, families, false)
    }

    /// Waits; true when it is over.
    fn rest(&self, pause: Duration) -> bool {
        let mut stopped = self.stop.0.lock();
        if !*stopped {
            self.stop.1.wait_for(&mut stopped, pause);
        }
        *stopped
    }
}
