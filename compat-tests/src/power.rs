//! A disk whose power can be cut.
//!
//! An ext4 file system of its own in a file, mounted through a loop device. [`PowerDisk::cut`] shuts
//! it down as a power cut does: what was not synced is gone, data and names alike; the journal is
//! replayed when the power is back. The kernel decides what was synced, not a model of it
//! (`EXT4_IOC_SHUTDOWN`, which file systems' own tests use). Needs root and loop devices,
//! and a mount namespace of the test's own (`unshare --mount`): one that another process copies in the
//! meantime would keep the broken file system alive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// `_IOR('X', 125, u32)`, which takes one of the two flags below.
const SHUTDOWN: &str = "import fcntl, os, struct, sys; fcntl.ioctl(\
                        os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', int(sys.argv[2])))";
/// `EXT4_GOING_FLAGS_DEFAULT`: what was written before is on the disk.
const AFTER_ALL: &str = "0";
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: not even the journal is written.
const AT_ONCE: &str = "2";
/// The kernel writes nothing on its own for as long as a test may last.
const OPTIONS: &str = "loop,commit=3600";

/// A small disk.
#[derive(Debug)]
pub struct PowerDisk {
    folder: TempDir,
    is_mounted: bool,
}

impl PowerDisk {
    /// Makes and mounts one.
    ///
    /// # Errors
    ///
    /// Without root, loop devices or mkfs.ext4.
    pub fn start(megabytes: u64) -> Result<Self> {
        let folder = TempDir::with_prefix("menes-power-")?;
        let mut disk = Self {
            folder,
            is_mounted: false,
        };
        fs::create_dir(disk.path())?;
        fs::File::create(disk.image())?.set_len(megabytes << 20)?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F"])
            .arg(disk.image()))?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Cuts the power: what was not synced is gone. To be called when whoever used the disk has ended,
    /// as the power is theirs as well: a sync under way in this moment may claim to have succeeded.
    ///
    /// # Errors
    ///
    /// If the file system cannot be shut down.
    pub fn cut(&self) -> Result<()> {
        self.shut_down(AT_ONCE)
    }

    /// Breaks the disk under whoever uses it: what was written stays, every further write, sync and
    /// read fails.
    ///
    /// # Errors
    ///
    /// If the file system cannot be shut down.
    pub fn fail(&self) -> Result<()> {
        self.shut_down(AFTER_ALL)
    }

    fn shut_down(&self, flag: &str) -> Result<()> {
        let mut command = Command::new("python3");
        run(command.args(["-c", SHUTDOWN]).arg(self.path()).arg(flag))
    }

    /// The disk again, after [`PowerDisk::cut`] or [`PowerDisk::fail`] and when nobody uses the disk: what is left is there.
    ///
    /// # Errors
    ///
    /// If something still uses it, or it cannot be mounted.
    pub fn restore(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mount(&mut self) -> Result<()> {
        let (image, path) = (self.image(), self.path());
        run(Command::new("mount")
            .args(["-o", OPTIONS])
            .args([image, path]))?;
        self.is_mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        unmount(&self.path())?;
        self.is_mounted = false;
        Ok(())
    }
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        if self.is_mounted
            && let Err(error) = self.unmount()
        {
            eprintln!("{} stays mounted: {error:#}", self.path().display());
        }
    }
}

fn unmount(path: &Path) -> Result<()> {
    run(Command::new("umount").arg(path))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        complaints.trim()
    );
    Ok(())
}
