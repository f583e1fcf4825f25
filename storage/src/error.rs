//! Why a data directory could not be opened.

use std::io;
use std::path::PathBuf;

use menes_jetstream::ports::{StoreError, StoreErrorKind};
use thiserror::Error;

/// A data directory that was not opened. Nothing in it was changed, unless the error says that
/// writing failed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "data directory {} is in use by another server; stop that one or choose another directory",
        .directory.display()
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// It holds something that is not ours.
    #[error(
        "{} is not a Menes data directory: it holds {found}; choose an empty directory",
        .directory.display()
    )]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// What was found there.
        found: String,
    },
    /// A newer release wrote it.
    #[error(
        "{} has format version {found}, this release reads up to {supported}; start the release \
         that wrote it or a newer one",
        .path.display()
    )]
    NewerVersion {
        /// The file that states the version.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The newest version this release reads.
        supported: u32,
    },
    /// What it holds contradicts what was written there.
    #[error("{what}; nothing was changed: restore the directory from a backup or repair the disk")]
    Damaged {
        /// What is damaged, with file and offset.
        what: String,
    },
    /// It is encrypted, and the configured keys do not open it.
    #[error("the data in {} is encrypted, and {what}; nothing was changed", .directory.display())]
    Locked {
        /// The directory.
        directory: PathBuf,
        /// What is missing.
        what: String,
    },
    /// An option has no meaning.
    #[error("invalid storage option: {0}")]
    Options(String),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The state database could not be opened.
    #[error("cannot open the state database {}: {reason}", .path.display())]
    State {
        /// Its directory.
        path: PathBuf,
        /// What the database said.
        reason: String,
    },
}

impl OpenError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self::Damaged { what: error.what }
    }
}

pub(crate) fn corrupt(what: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, what)
}

pub(crate) fn io_error(action: &str, path: impl Into<PathBuf>, error: &io::Error) -> StoreError {
    let path = path.into();
    StoreError::new(
        StoreErrorKind::Io,
        format!("cannot {action} {}: {error}", path.display()),
    )
}
