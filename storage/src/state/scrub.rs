//! Looks through the rows, slowly and all the time, for damage that nobody has met yet.
//!
//! What is asked for often comes from a cache, so damage to it on the disk would show only after
//! the next start. A pass opens the state a second time, to read and without that cache, and goes
//! through every table at a bounded rate; RocksDB compares each block with its checksum. Damage is
//! reported once and remembered. Nothing is mended: the rows follow from the log, and a start with
//! an empty state rebuilds them as long as the log goes back to its beginning.

use std::path::PathBuf;
use std::sync::Arc;
use std::{io, mem};

use menes_jetstream::ports::Table;
use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, ColumnFamilyDescriptor, DB, DEFAULT_COLUMN_FAMILY_NAME, ErrorKind, Options,
    ReadOptions,
};

use super::encrypted;
use crate::scrub::{Outcome, Rest, SLICE_BYTES, Scrub, Scrubber};
use crate::vault::Vault;

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

/// Starts the thread, which ends when the returned value is dropped.
pub(super) fn start(
    scrub: Scrub,
    directory: PathBuf,
    vault: Vault,
    findings: Arc<Findings>,
) -> io::Result<Scrubber> {
    let pass = Pass {
        directory,
        vault,
        findings,
    };
    Scrubber::start("menes-state-scrub", scrub, move |rest| pass.run(rest))
}

struct Pass {
    directory: PathBuf,
    vault: Vault,
    findings: Arc<Findings>,
}

impl Pass {
    fn run(&self, rest: &Rest) -> Outcome {
        match self.check(rest) {
            Ok(Outcome::Stopped) => return Outcome::Stopped,
            Ok(Outcome::Done) => tracing::debug!("the state was checked"),
            Err(error) if error.kind() == ErrorKind::Corruption => {
                let path = self.directory.display();
                let what = format!("rows of the state in {path} are damaged: {error}");
                self.findings.note(what);
            }
            // Files come and go: what is not there any more is no damage.
            Err(error) => tracing::debug!("the state could not be checked: {error}"),
        }
        Outcome::Done
    }

    fn check(&self, rest: &Rest) -> Result<Outcome, rocksdb::Error> {
        let db = self.open()?;
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
                read += (key.len() + value.len()) as u64;
                rows.next();
                if read >= SLICE_BYTES && rest.after(mem::take(&mut read)) {
                    return Ok(Outcome::Stopped);
                }
            }
            rows.status()?;
        }
        Ok(Outcome::Done)
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
}
