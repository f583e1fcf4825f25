//! One server per directory.

use std::fs;
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::error::OpenError;

const NAME: &str = "lock";

/// Holds a directory until dropped; the operating system lets go of it when the process ends.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: fs::File,
}

impl DirectoryLock {
    /// Takes `directory`, which exists.
    pub(crate) fn take(directory: &Path) -> Result<Self, OpenError> {
        let path = directory.join(NAME);
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(OpenError::io("open", &path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse {
                directory: directory.to_path_buf(),
            }),
            Err(error) => Err(OpenError::io("lock", path)(error.into())),
        }
    }
}
