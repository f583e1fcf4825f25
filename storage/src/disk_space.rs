//! How much space is left, and what to do about it.
//!
//! Two watermarks: below *low* an operator should look; below *critical* messages are refused while
//! everything that frees space or costs little goes on. A ballast file can be given up when even
//! that needs space.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::FallocateFlags;

/// How often the file system is asked.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

const MIB: u64 = 1 << 20;

/// Where the watermarks lie, in free bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// Below this an operator should look. Default: 5 % of the disk, at least 4 GiB, at most a
    /// quarter of the disk.
    pub low_bytes: Option<u64>,
    /// Below this messages are refused. Default: 1 % of the disk, at least 512 MiB, at most an
    /// eighth of the disk.
    pub critical_bytes: Option<u64>,
}

/// Size and free space of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What this process may still use.
    pub free: u64,
    /// The whole.
    pub total: u64,
}

/// How tight space is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Enough space.
    Normal,
    /// Below the low watermark.
    Low,
    /// Below the critical watermark: messages are refused.
    Critical,
}

impl Watermarks {
    /// The low watermark in a file system of this size.
    #[must_use]
    pub fn low(&self, space: Space) -> u64 {
        let share = space.total / 100 * 5;
        let usual = share.max(4096 * MIB).min(space.total / 4);
        self.low_bytes.unwrap_or(usual)
    }

    /// The critical watermark in a file system of this size.
    #[must_use]
    pub fn critical(&self, space: Space) -> u64 {
        let share = space.total / 100;
        let usual = share.max(512 * MIB).min(space.total / 8);
        self.critical_bytes.unwrap_or(usual)
    }

    /// What `space` means under these watermarks.
    #[must_use]
    pub fn pressure(&self, space: Space) -> Pressure {
        if space.free < self.critical(space) {
            Pressure::Critical
        } else if space.free < self.low(space) {
            Pressure::Low
        } else {
            Pressure::Normal
        }
    }
}

type Probe = Arc<dyn Fn() -> io::Result<Space> + Send + Sync>;

/// How much space one file system has now.
#[derive(Clone)]
pub(crate) struct Room {
    watermarks: Watermarks,
    probe: Probe,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room")
            .field("watermarks", &self.watermarks)
            .finish_non_exhaustive()
    }
}

impl Room {
    /// How tight space would be with `more` bytes taken. A file system that does not answer the
    /// question counts as roomy: its writes will tell.
    pub(crate) fn pressure_with(&self, more: u64) -> Pressure {
        self.space().map_or(Pressure::Normal, |space| {
            self.watermarks.pressure(Space {
                free: space.free.saturating_sub(more),
                ..space
            })
        })
    }

    /// How much there is; `None` where the file system does not tell.
    pub(crate) fn space(&self) -> Option<Space> {
        match (self.probe)() {
            Ok(space) => Some(space),
            Err(error) => {
                tracing::debug!(%error, "the file system does not tell its free space");
                None
            }
        }
    }

    pub(crate) fn watermarks(&self) -> Watermarks {
        self.watermarks
    }
}

/// Watches the space of one file system.
#[derive(Debug)]
pub struct DiskSpace {
    room: Room,
    latest: Option<(Instant, Pressure)>,
}

impl DiskSpace {
    /// Watches the file system that holds `path`.
    #[must_use]
    pub fn of(path: &Path, watermarks: Watermarks) -> Self {
        let path = path.to_path_buf();
        Self::with_probe(watermarks, Arc::new(move || space(&path)))
    }

    pub(crate) fn with_probe(watermarks: Watermarks, probe: Probe) -> Self {
        Self {
            room: Room { watermarks, probe },
            latest: None,
        }
    }

    /// The same space, always asked anew.
    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    /// How tight space is, at most a tenth of a second ago. A file system that does not answer the
    /// question counts as roomy: its writes will tell.
    pub fn pressure(&mut self) -> Pressure {
        let now = Instant::now();
        if let Some((asked, pressure)) = self.latest
            && now.duration_since(asked) < PROBE_INTERVAL
        {
            return pressure;
        }
        let pressure = self.room.pressure_with(0);
        self.latest = Some((now, pressure));
        pressure
    }
}

/// Size and free space of the file system that holds `path`.
///
/// # Errors
/// What the operating system says.
pub fn space(path: &Path) -> io::Result<Space> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(Space {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

/// A file whose only use is the space it takes.
#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
    bytes: u64,
    lock: Mutex<()>,
}

impl Ballast {
    /// The ballast file at `path`, `bytes` long once made.
    #[must_use]
    pub fn new(path: PathBuf, bytes: u64) -> Self {
        Self {
            path,
            bytes,
            lock: Mutex::new(()),
        }
    }

    /// Takes the space, unless it is taken already or `space` says it would be missed.
    ///
    /// # Errors
    /// What the operating system says; then nothing is left behind.
    pub fn take(&self, space: Space, watermarks: &Watermarks) -> io::Result<()> {
        let _guard = self.lock.lock();
        if self.bytes == 0 || self.path.exists() {
            return Ok(());
        }
        let after = Space {
            free: space.free.saturating_sub(self.bytes),
            ..space
        };
        if watermarks.pressure(after) != Pressure::Normal {
            return Ok(());
        }
        let file = fs::File::create(&self.path)?;
        let taken = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, self.bytes);
        taken.or_else(|error| {
            fs::remove_file(&self.path)?;
            Err(error.into())
        })
    }

    /// Gives the space back. Does nothing when there is no ballast.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn release(&self) -> io::Result<()> {
        let _guard = self.lock.lock();
        match fs::remove_file(&self.path) {
            Ok(()) => {
                tracing::warn!(path = %self.path.display(), "disk full, the ballast file was given up");
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn default_watermarks_follow_the_disk() {
        let pressure = |free, total| Watermarks::default().pressure(Space { free, total });
        assert_eq!(pressure(100 * GIB, 1000 * GIB), Pressure::Normal);
        assert_eq!(pressure(49 * GIB, 1000 * GIB), Pressure::Low);
        assert_eq!(pressure(9 * GIB, 1000 * GIB), Pressure::Critical);
        assert_eq!(pressure(GIB / 4, 10 * GIB), Pressure::Critical);
        assert_eq!(pressure(GIB / 4, GIB), Pressure::Normal);
        assert_eq!(pressure(GIB / 10, GIB), Pressure::Critical);
    }

    #[test]
    fn ballast_is_taken_once_and_given_back() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("ballast");
        let ballast = Ballast::new(path.clone(), MIB);
        let roomy = Space {
            free: 100 * GIB,
            total: 200 * GIB,
        };
        let tight = Space {
            free: GIB,
            total: 200 * GIB,
        };
        ballast
            .take(tight, &Watermarks::default())
            .expect("nothing is done");
        assert!(!path.exists());
        ballast.take(roomy, &Watermarks::default()).expect("space");
        assert_eq!(fs::metadata(&path).expect("it exists").len(), MIB);
        ballast.release().expect("it can be removed");
        ballast.release().expect("a second time does nothing");
        assert!(!path.exists());
    }
}
