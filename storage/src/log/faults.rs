//! A directory in memory that behaves as badly as a disk may.
//!
//! What was not synced can be lost, torn at sectors and reordered by a power cut; a disk can die at
//! a chosen operation, and a single operation can fail and later ones succeed.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::files::{File, Files};

const SECTOR: usize = 512;

/// A small generator of pseudo-random numbers: same seed, same faults.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// What a power cut leaves of writes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Everything: only the process died.
    KeepAll,
    /// Nothing.
    KeepNone,
    /// Each sector by chance, and a part of the name changes.
    Tear(u64),
}

/// What goes wrong once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The operation fails and has no effect; a failed sync loses what it should have synced.
    Error,
    /// No space is left.
    NoSpace,
    /// A write takes only half of its bytes.
    Short,
}

#[derive(Debug, Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Name tables after each change not yet synced.
    unsynced_names: Vec<BTreeMap<String, usize>>,
    /// Operations that change something, so far.
    steps: u64,
    /// From this step on every operation fails.
    dies_at: Option<u64>,
    fault: Option<(u64, Fault)>,
    /// Steps at which something was synced.
    syncs: Vec<u64>,
    syncs_of_data: usize,
    /// Bytes read so far.
    bytes_read: u64,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    synced: Vec<u8>,
    current: Vec<u8>,
    /// Ranges written since the last sync.
    unsynced: Vec<(usize, usize)>,
}

/// The directory. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct SimulatedFiles {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug)]
struct SimulatedFile {
    disk: Arc<Mutex<Disk>>,
    inode: usize,
}

impl SimulatedFiles {
    /// From step `step` on, counted from now, nothing works any more.
    pub(super) fn die_after(&self, step: u64) {
        let mut disk = self.disk.lock();
        disk.dies_at = Some(disk.steps + step);
    }

    /// The operation `step` steps from now goes wrong, later ones work.
    pub(super) fn fault_after(&self, step: u64, fault: Fault) {
        let mut disk = self.disk.lock();
        disk.fault = Some((disk.steps + step, fault));
    }

    /// Operations that changed something, so far.
    pub(super) fn steps(&self) -> u64 {
        self.disk.lock().steps
    }

    /// How many syncs of files there were.
    pub(super) fn syncs(&self) -> usize {
        self.disk.lock().syncs.len()
    }

    /// How many of those were syncs of a file that held something.
    pub(super) fn syncs_of_data(&self) -> usize {
        self.disk.lock().syncs_of_data
    }

    /// How many bytes were read.
    pub(super) fn bytes_read(&self) -> u64 {
        self.disk.lock().bytes_read
    }

    /// The directory as the next start finds it, on a healthy disk.
    pub(super) fn after(&self, cut: Cut) -> Self {
        let disk = self.disk.lock();
        let mut random = match cut {
            Cut::Tear(seed) => Some(Random(seed)),
            Cut::KeepAll | Cut::KeepNone => None,
        };
        let names = match (&mut random, cut) {
            (Some(random), _) => {
                let kept = random.below(disk.unsynced_names.len() as u64 + 1) as usize;
                let tables = [&disk.durable_names]
                    .into_iter()
                    .chain(&disk.unsynced_names);
                tables.take(kept + 1).last().expect("there is one").clone()
            }
            (None, Cut::KeepAll) => disk.names.clone(),
            (None, _) => disk.durable_names.clone(),
        };
        let inodes = disk
            .inodes
            .iter()
            .map(|inode| inode.after(cut, random.as_mut()))
            .collect();
        let after = Disk {
            inodes,
            durable_names: names.clone(),
            names,
            ..Disk::default()
        };
        Self {
            disk: Arc::new(Mutex::new(after)),
        }
    }

    /// Names and contents of all files.
    pub(super) fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let disk = self.disk.lock();
        let content = |inode: &usize| disk.inodes[*inode].current.clone();
        disk.names
            .iter()
            .map(|(name, inode)| (name.clone(), content(inode)))
            .collect()
    }

    /// A healthy directory with these files.
    pub(super) fn with_contents(contents: &BTreeMap<String, Vec<u8>>) -> Self {
        let mut disk = Disk::default();
        for (name, bytes) in contents {
            disk.names.insert(name.clone(), disk.inodes.len());
            let (synced, current) = (bytes.clone(), bytes.clone());
            disk.inodes.push(Inode {
                synced,
                current,
                unsynced: Vec::new(),
            });
        }
        disk.durable_names = disk.names.clone();
        Self {
            disk: Arc::new(Mutex::new(disk)),
        }
    }
}

impl Inode {
    fn after(&self, cut: Cut, random: Option<&mut Random>) -> Self {
        let mut bytes = match cut {
            Cut::KeepAll => self.current.clone(),
            Cut::KeepNone | Cut::Tear(_) => self.synced.clone(),
        };
        if let Some(random) = random {
            bytes.resize(self.current.len().max(bytes.len()), 0);
            // Some cuts keep nearly everything, some nearly nothing.
            let odds = random.below(5);
            for (from, to) in &self.unsynced {
                let mut at = *from;
                while at < *to {
                    let end = (at / SECTOR * SECTOR + SECTOR).min(*to);
                    if random.below(4) < odds {
                        bytes[at..end].copy_from_slice(&self.current[at..end]);
                    }
                    at = end;
                }
            }
        }
        Self {
            synced: bytes.clone(),
            current: bytes,
            unsynced: Vec::new(),
        }
    }
}

impl Disk {
    /// Counts one step; an error when the disk is dead or this is the step that fails.
    fn step(&mut self) -> io::Result<Option<Fault>> {
        let step = self.steps;
        self.steps += 1;
        if self.dies_at.is_some_and(|dies_at| step >= dies_at) {
            return Err(io::Error::from_raw_os_error(5));
        }
        match self.fault {
            Some((at, fault)) if at == step => match fault {
                Fault::Short => Ok(Some(fault)),
                Fault::Error => Err(io::Error::from_raw_os_error(5)),
                Fault::NoSpace => Err(io::Error::from_raw_os_error(28)),
            },
            _ => Ok(None),
        }
    }

    fn name(&self, name: &str) -> io::Result<usize> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn names_changed(&mut self) {
        let names = self.names.clone();
        self.unsynced_names.push(names);
    }
}

impl Files for SimulatedFiles {
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/simulated").join(name)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.disk.lock().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let inode = self.disk.lock().name(name)?;
        Ok(Arc::new(SimulatedFile {
            disk: Arc::clone(&self.disk),
            inode,
        }))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk.lock();
        disk.step()?;
        let bytes = vec![0; usize::try_from(len).expect("small in tests")];
        let inode = disk.inodes.len();
        disk.inodes.push(Inode {
            synced: bytes.clone(),
            current: bytes,
            unsynced: Vec::new(),
        });
        disk.names.insert(name.to_owned(), inode);
        disk.names_changed();
        Ok(Arc::new(SimulatedFile {
            disk: Arc::clone(&self.disk),
            inode,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.step()?;
        let inode = disk.name(from)?;
        disk.names.remove(from);
        disk.names.insert(to.to_owned(), inode);
        disk.names_changed();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.step()?;
        disk.name(name)?;
        disk.names.remove(name);
        disk.names_changed();
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.step()?;
        disk.durable_names = disk.names.clone();
        disk.unsynced_names.clear();
        Ok(())
    }
}

impl SimulatedFile {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock()
    }
}

impl File for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk().inodes[self.inode].current.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        let inode = &mut disk.inodes[self.inode];
        let len = usize::try_from(len).expect("small in tests");
        inode.current.resize(len, 0);
        inode.synced.resize(len, 0);
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk();
        let bytes = &disk.inodes[self.inode].current;
        let from = bytes
            .len()
            .min(usize::try_from(offset).expect("small in tests"));
        let read = buffer.len().min(bytes.len() - from);
        buffer[..read].copy_from_slice(&bytes[from..from + read]);
        disk.bytes_read += read as u64;
        Ok(read)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk();
        let fault = disk.step()?;
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        if fault == Some(Fault::Short) {
            bytes.truncate(bytes.len() / 2);
        }
        let inode = &mut disk.inodes[self.inode];
        let from = usize::try_from(offset).expect("small in tests");
        let to = from + bytes.len();
        if to > inode.current.len() {
            inode.current.resize(to, 0);
        }
        inode.current[from..to].copy_from_slice(&bytes);
        inode.unsynced.push((from, to));
        Ok(bytes.len())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk();
        let step = disk.steps;
        let stepped = disk.step();
        let inode = &mut disk.inodes[self.inode];
        if let Err(error) = stepped {
            // The pages are clean now, and gone: a second sync would succeed and lie.
            inode.unsynced.clear();
            return Err(error);
        }
        let has_data = inode.current.iter().any(|byte| *byte != 0);
        inode.synced = inode.current.clone();
        inode.unsynced.clear();
        disk.syncs.push(step);
        disk.syncs_of_data += usize::from(has_data);
        Ok(())
    }
}
