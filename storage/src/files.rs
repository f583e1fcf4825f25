//! The file system under the log, as two small traits.
//!
//! The log asks for few things: files of a fixed length, positioned reads and vectored writes,
//! syncs of data and of names. [`RealFiles`] maps each to one system call. Tests put a simulated
//! directory in its place that loses, tears and reorders what was not synced, so that the faults
//! happen below the real code.

use std::fmt::Debug;
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;

/// One directory of files without subdirectories.
pub(crate) trait Files: Debug + Send + Sync {
    /// Where a file lies, for messages.
    fn path(&self, name: &str) -> PathBuf;

    /// Names of all files, in no order.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Makes a file of `len` zero bytes with its space reserved, in place of any file of that name.
    /// The file's length is durable on return, its name only after [`Files::sync_names`].
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name, in place of any file of that name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals durable.
    fn sync_names(&self) -> io::Result<()>;
}

/// One open file.
pub(crate) trait File: Debug + Send + Sync {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Cuts or extends with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reads at `offset` until `buffer` is full or the file ends; returns the bytes read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Up to `len` bytes from `offset` on, less only where the file ends.
    fn read_new(&self, len: usize, offset: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let read = self.read_at(&mut bytes, offset)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Writes the parts one after the other at `offset`; returns the bytes written, which fall
    /// short only when the device has a problem.
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Makes everything written durable. After an error the file must not be trusted any more.
    fn sync(&self) -> io::Result<()>;
}

/// Writes all of `bytes`; a short write is an error and is not continued.
pub(crate) fn write_all(file: &dyn File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let written = file.write_at(&[IoSlice::new(bytes)], offset)?;
    if written == bytes.len() {
        Ok(())
    } else {
        Err(short_write(written, bytes.len()))
    }
}

/// Writes `len` zeros from the beginning of a new file and syncs them.
///
/// Space that was only reserved turns into written space with the first write to it, and that
/// makes the sync of every such write commit the file system's journal too: about twice the time.
///
/// It is done piece by piece, each one synced, so that the syncs of others never wait for more than
/// a piece, and ends early when `goes_on` says so.
pub(crate) fn prewrite(file: &dyn File, len: u64, goes_on: &dyn Fn() -> bool) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < len && goes_on() {
        let chunk = usize::try_from(len - offset)
            .unwrap_or(usize::MAX)
            .min(zeros.len());
        write_all(file, zeros.split_at(chunk).0, offset)?;
        file.sync()?;
        offset += chunk as u64;
    }
    Ok(())
}

/// The error of a write that took only part of its bytes.
pub(crate) fn short_write(written: usize, expected: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::WriteZero,
        format!("only {written} of {expected} bytes were written"),
    )
}

/// A directory of the operating system.
#[derive(Debug)]
pub(crate) struct RealFiles {
    directory: PathBuf,
    handle: fs::File,
}

impl RealFiles {
    /// Opens an existing directory.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        Ok(Self {
            directory: directory.to_path_buf(),
            handle: fs::File::open(directory)?,
        })
    }
}

impl Files for RealFiles {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.directory)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(name))?;
        Ok(Arc::new(RealFile { file }))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.path(name))?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len) {
            Ok(()) => {}
            // Without preallocation everything works, only slower.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(len)?,
            Err(error) => return Err(error.into()),
        }
        file.sync_all()?;
        Ok(Arc::new(RealFile { file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

#[derive(Debug)]
struct RealFile {
    file: fs::File,
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Into memory that is not cleared first, which takes as long as reading it from a cache.
    fn read_new(&self, len: usize, offset: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + bytes.len() as u64;
            match rustix::io::pread(&self.file, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // There may have been more room than was asked for.
        bytes.truncate(len);
        Ok(bytes)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(self.file.as_fd(), parts, offset)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
