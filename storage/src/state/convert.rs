//! From a state in the clear to an encrypted one, and back.
//!
//! Every file is written anew into a folder beside the state, which takes its place when all of it
//! is durable. A crash leaves the old one or the new one, and what is left over goes at the next
//! start.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::error::OpenError;
use crate::vault::{PREFIX_BYTES, Vault, is_encrypted};

/// The file that names what is current, in every state.
const CURRENT: &str = "CURRENT";
const CHUNK_BYTES: usize = 1 << 20;

/// Makes the state in `directory`, if there is one, as encrypted as `vault` asks.
pub(super) fn convert(directory: &Path, vault: &Vault) -> Result<(), OpenError> {
    let (new, old) = (beside(directory, "new"), beside(directory, "old"));
    finish(directory, &new, &old).map_err(OpenError::io("tidy beside", directory))?;
    let current = directory.join(CURRENT);
    let mut beginning = Vec::new();
    match fs::File::open(&current) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(OpenError::io("open", &current)(error)),
        Ok(file) => file
            .take(64)
            .read_to_end(&mut beginning)
            .map_err(OpenError::io("read", &current))?,
    };
    if is_encrypted(&beginning) == vault.is_on() {
        return Ok(());
    }
    tracing::info!(
        encrypted = vault.is_on(),
        "the state in {} is written anew",
        directory.display()
    );
    copy_all(directory, &new, vault)?;
    let swapped = || {
        fs::rename(directory, &old)?;
        fs::rename(&new, directory)?;
        sync_parent(directory)?;
        fs::remove_dir_all(&old)
    };
    swapped().map_err(OpenError::io("replace", directory))
}

/// Ends what a crash interrupted.
fn finish(directory: &Path, new: &Path, old: &Path) -> io::Result<()> {
    if !directory.join(CURRENT).exists() && new.exists() && old.exists() {
        // Between the two renames: the new one is complete. An empty folder may stand in its way.
        match fs::remove_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(new, directory)?;
        sync_parent(directory)?;
    }
    for folder in [new, old] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    Ok(())
}

fn beside(directory: &Path, what: &str) -> PathBuf {
    directory.with_extension(what)
}

fn sync_parent(directory: &Path) -> io::Result<()> {
    match directory.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn copy_all(from: &Path, to: &Path, vault: &Vault) -> Result<(), OpenError> {
    fs::create_dir(to).map_err(OpenError::io("create", to))?;
    let names = || -> io::Result<Vec<_>> {
        fs::read_dir(from)?
            .map(|entry| Ok(entry?.file_name()))
            .collect()
    };
    for name in names().map_err(OpenError::io("list", from))? {
        let text = name.to_string_lossy();
        // Neither belongs to what is stored.
        if text == "LOCK" || text.starts_with("LOG") {
            continue;
        }
        let path = from.join(&name);
        copy(&path, &to.join(&name), vault).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => OpenError::Damaged {
                what: format!("no key opens {}", path.display()),
            },
            _ => OpenError::io("convert", &path)(error),
        })?;
    }
    let synced = || fs::File::open(to)?.sync_all();
    synced().map_err(OpenError::io("sync", to))
}

fn copy(from: &Path, to: &Path, vault: &Vault) -> io::Result<()> {
    let mut input = fs::File::open(from)?;
    let mut output = fs::File::create(to)?;
    let mut beginning = Vec::new();
    (&mut input)
        .take(PREFIX_BYTES as u64)
        .read_to_end(&mut beginning)?;
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let reader = if is_encrypted(&beginning) {
        Some(vault.file_cipher(&beginning).ok_or_else(invalid)?)
    } else {
        None
    };
    let mut bytes = if reader.is_some() {
        Vec::new()
    } else {
        beginning
    };
    // A file without a byte has no prefix either way.
    let is_empty = bytes.is_empty() && reader.is_none();
    let prefix = vault.new_prefix().map_err(|_| invalid())?;
    let writer = match prefix.filter(|_| !is_empty) {
        Some(prefix) => {
            output.write_all(&prefix)?;
            Some(vault.file_cipher(&prefix).ok_or_else(invalid)?)
        }
        None => None,
    };
    let mut offset = PREFIX_BYTES as u64;
    loop {
        let read = (&mut input)
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut bytes)?;
        for cipher in reader.iter().chain(&writer) {
            if !cipher.apply(offset, &mut bytes) {
                return Err(invalid());
            }
        }
        output.write_all(&bytes)?;
        offset += bytes.len() as u64;
        bytes.clear();
        if read == 0 {
            return output.sync_all();
        }
    }
}
