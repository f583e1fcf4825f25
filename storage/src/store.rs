//! A data directory: both stores of one server, and what surrounds them.
//!
//! ```text
//! <data>/lock      held while a server runs
//! <data>/log/      the log
//! <data>/state/    the state, in RocksDB
//! <data>/keys      the data keys, when it is encrypted
//! <data>/ballast   space to give up when the disk is full
//! ```

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use menes_jetstream::ports::{StateStore, StoreError};

use crate::disk_space::{Ballast, space};
use crate::error::OpenError;
use crate::lock::DirectoryLock;
use crate::log::{LogOptions, SegmentLog, Wake};
use crate::state::{RocksState, StateOptions};
use crate::vault::{Encryption, KEYS, Vault};

const LOG: &str = "log";
const STATE: &str = "state";
const BALLAST: &str = "ballast";
/// With less than this free, RocksDB might not even open.
const OPENING_BYTES: u64 = 64 << 20;

/// How a data directory is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The log.
    pub log: LogOptions,
    /// The state.
    pub state: StateOptions,
    /// What everything is encrypted with; by default nothing is.
    pub encryption: Encryption,
    /// Size of the ballast file in bytes, 0 for none. Default 256 MiB, at most a sixteenth of the
    /// disk. It is only made where that leaves more than the low watermark free.
    pub ballast_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            log: LogOptions::default(),
            state: StateOptions::default(),
            encryption: Encryption::default(),
            ballast_bytes: 256 << 20,
        }
    }
}

/// Both stores of one server. The log holds the claim on the directory: drop it last.
#[derive(Debug)]
pub struct Store {
    /// The state.
    pub state: RocksState,
    /// The log.
    pub log: SegmentLog,
}

impl Store {
    /// Opens the data directory at `path`, or makes one in an empty or missing directory. `wake` is
    /// called after every sync of the log and after its failure, from a thread of the log.
    ///
    /// The state may be behind the log by what was not flushed: replay the log from
    /// [`StateStore::applied`] before the first append.
    ///
    /// # Errors
    /// One line that says what is wrong with the directory and what to do. Nothing is changed in a
    /// directory that is in use, foreign, damaged or of a newer version.
    pub fn open(path: &Path, options: &StoreOptions, wake: Wake) -> Result<Self, OpenError> {
        fs::create_dir_all(path).map_err(OpenError::io("create data directory", path))?;
        refuse_foreign(path)?;
        let lock = DirectoryLock::take(path)?;
        let vault = Vault::open(path, &options.encryption)?;
        let room = space(path).map_err(OpenError::io("ask for the free space of", path))?;
        let ballast_bytes = options.ballast_bytes.min(room.total / 16);
        let ballast = Arc::new(Ballast::new(path.join(BALLAST), ballast_bytes));
        if room.free < OPENING_BYTES {
            let released = ballast.release();
            released.map_err(OpenError::io("remove", path.join(BALLAST)))?;
        } else if let Err(error) = ballast.take(room, &options.log.watermarks) {
            tracing::warn!(%error, "no ballast file could be made");
        }
        let log_options = LogOptions {
            vault: vault.clone(),
            ..options.log.clone()
        };
        let log = SegmentLog::open(&path.join(LOG), log_options, Some(ballast), wake)?.hold(lock);
        let state_options = StateOptions {
            vault: vault.clone(),
            ..options.state.clone()
        };
        let state = RocksState::open(&path.join(STATE), log.store_id(), &state_options)?;
        if vault.has_keys() && !vault.is_on() && !log.has_sealed_segments() {
            tracing::info!("nothing is encrypted any more: the previous key is no longer needed");
            Vault::retire(path)?;
        }
        if state.applied().is_none() && !log.is_complete() {
            return Err(OpenError::Damaged {
                what: format!(
                    "the state in {} is empty, and the log no longer goes back to the beginning",
                    path.join(STATE).display()
                ),
            });
        }
        Ok(Self { state, log })
    }

    /// Closes both stores in good order.
    ///
    /// # Errors
    /// The first of what poisoned the state or the log. Both are closed anyway.
    pub fn close(self) -> Result<(), StoreError> {
        let state = self.state.close();
        self.log.close()?;
        state
    }
}

/// Refuses a directory that holds something and is not ours. Hidden files, what a file system puts
/// into its root, and names that begin with `menes` do not count.
fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    let list = || -> io::Result<Vec<String>> {
        fs::read_dir(path)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    let mut names = list().map_err(OpenError::io("list", path))?;
    if SegmentLog::exists(&path.join(LOG)) {
        return Ok(());
    }
    names.retain(|name| {
        let harmless = name.starts_with('.') || name.starts_with("menes") || name == "lost+found";
        // Left by a first start that was interrupted.
        let unfinished = matches!(name.as_str(), "lock" | BALLAST)
            || name.trim_end_matches(".new") == KEYS
            || (name == LOG && SegmentLog::is_unused(&path.join(LOG)));
        !harmless && !unfinished
    });
    names.sort();
    let found = match names.as_slice() {
        [] => return Ok(()),
        names if names.iter().any(|name| name == "jetstream") => {
            "a nats-server store (jetstream)".to_owned()
        }
        [name] => name.clone(),
        [name, rest @ ..] => format!("{name} and {} more", rest.len()),
    };
    Err(OpenError::Foreign {
        directory: path.to_path_buf(),
        found,
    })
}
