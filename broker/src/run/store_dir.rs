//! The folder of the streams, before anything opens it.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::RunError;
use crate::config::settings::JetStreamSettings;

/// Where streams are kept if nobody says.
pub(super) const DEFAULT: &str = "./menes-data";
/// Limit of file streams where the free space cannot be told.
const UNKNOWN_DISK: u64 = 1 << 40;
/// Limit of memory streams where the memory cannot be told.
const UNKNOWN_MEMORY: u64 = 256 << 20;

/// Makes the folder, proves that it can be written to, and fills in limits that were not given:
/// three quarters of the memory and of the free disk.
pub(super) fn prepare(settings: &mut JetStreamSettings) -> Result<(), RunError> {
    let path = settings
        .store_dir
        .get_or_insert_with(|| PathBuf::from(DEFAULT))
        .clone();
    make_writable(&path).map_err(|source| RunError::StoreDir {
        path: path.clone(),
        source,
    })?;
    settings.max_memory.get_or_insert_with(default_memory);
    settings.max_file.get_or_insert_with(|| default_disk(&path));
    Ok(())
}

fn make_writable(path: &Path) -> io::Result<()> {
    // What lies there is nobody else's affair: messages, and hashes of passwords.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    let probe = path.join(format!(".probe-{}", std::process::id()));
    fs::write(&probe, b"")?;
    fs::remove_file(probe)
}

fn default_memory() -> u64 {
    let system = rustix::system::sysinfo();
    let bytes = u128::from(system.totalram) * u128::from(system.mem_unit);
    match u64::try_from(bytes) {
        Ok(0) | Err(_) => UNKNOWN_MEMORY,
        Ok(bytes) => bytes / 4 * 3,
    }
}

fn default_disk(path: &Path) -> u64 {
    match rustix::fs::statvfs(path) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize) / 4 * 3,
        Err(_) => UNKNOWN_DISK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_were_given_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("a/b");
        let mut settings = JetStreamSettings {
            store_dir: Some(deep.clone()),
            max_file: Some(7),
            ..Default::default()
        };
        prepare(&mut settings).expect("writable");
        assert!(deep.is_dir());
        assert_eq!(settings.max_file, Some(7));
        assert!(settings.max_memory.is_some_and(|bytes| bytes > 0));
        assert_eq!(fs::read_dir(deep).expect("there").count(), 0);
    }

    #[test]
    fn a_file_in_the_way_is_reported_with_its_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        fs::write(&path, "x").expect("written");
        let mut settings = JetStreamSettings {
            store_dir: Some(path.join("sub")),
            ..Default::default()
        };
        let error = prepare(&mut settings).expect_err("in the way").to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.contains("--store_dir"), "{error}");
    }
}
