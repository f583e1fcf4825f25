//! Where lines go: standard error, a file that is turned over, or a syslog.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::syslog::Connection;
use super::{LogOptions, local_now};

/// The name of a file that was turned over ends in the time of that.
const STAMP: &str = "%Y.%m.%d.%H.%M.%S.%9f";

/// See the module.
#[derive(Debug)]
pub(super) enum Sink {
    Stderr,
    File(LogFile),
    Syslog(Connection),
}

impl Sink {
    /// Opens what the options name: a file before a syslog before standard error.
    pub(super) fn open(options: &LogOptions) -> io::Result<Self> {
        if let Some(path) = &options.file {
            return LogFile::open(path, options).map(Self::File);
        }
        match &options.syslog {
            Some(target) => Connection::open(target).map(Self::Syslog),
            None => Ok(Self::Stderr),
        }
    }

    /// Opens a file anew, after it was moved away.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Self::File(file) = self {
            *file = file.again()?;
        }
        Ok(())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stderr => io::stderr().write(bytes),
            Self::File(file) => file.write(bytes),
            Self::Syslog(connection) => connection.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().flush(),
            Self::File(file) => file.file.flush(),
            Self::Syslog(_) => Ok(()),
        }
    }
}

/// A file that is moved aside when it has grown to a limit.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    len: u64,
    /// 0 for none.
    size_limit: u64,
    /// Files kept, the one written to included; 0 for all.
    max_files: usize,
}

impl LogFile {
    fn open(path: &Path, options: &LogOptions) -> io::Result<Self> {
        let file = append_to(path)?;
        Ok(Self {
            len: file.metadata()?.len(),
            path: path.to_owned(),
            file,
            size_limit: options.size_limit,
            max_files: options.max_files,
        })
    }

    fn again(&self) -> io::Result<Self> {
        let file = append_to(&self.path)?;
        Ok(Self {
            len: file.metadata()?.len(),
            path: self.path.clone(),
            file,
            ..*self
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.len += count as u64;
        if self.size_limit > 0 && self.len > self.size_limit {
            self.turn_over();
        }
        Ok(count)
    }

    /// Moves the file aside and begins a new one. A log that cannot be turned over goes on in the
    /// old file, and tries again when it has grown as much once more.
    fn turn_over(&mut self) {
        let mut aside = self.path.clone().into_os_string();
        aside.push(format!(".{}", local_now().strftime(STAMP)));
        let aside = PathBuf::from(aside);
        match fs::rename(&self.path, &aside).and_then(|()| append_to(&self.path)) {
            Ok(file) => {
                self.file = file;
                self.len = 0;
                self.note("INF", &format!("Rotated log, backup saved as {aside:?}"));
                self.purge();
            }
            Err(error) => {
                self.size_limit = self.size_limit.saturating_mul(2);
                let text = format!(
                    "Unable to rotate logfile ({error}), will attempt next rotation at size {}",
                    self.size_limit
                );
                self.note("ERR", &text);
            }
        }
    }

    /// Writes a line about the log itself. Nothing can be told about a failure.
    fn note(&mut self, label: &str, text: &str) {
        let time = local_now().strftime(super::TIME);
        let line = format!("[{}] {time} [{label}] {text}\n", std::process::id());
        if let Ok(()) = self.file.write_all(line.as_bytes()) {
            self.len += line.len() as u64;
        }
    }

    /// Removes the oldest files that were moved aside, beyond those to keep.
    fn purge(&mut self) {
        if self.max_files == 0 {
            return;
        }
        let mut old = match self.turned_over() {
            Ok(old) => old,
            Err(error) => {
                let text = format!("Unable to read the folder of the log for a purge ({error})");
                return self.note("ERR", &text);
            }
        };
        // The names end in times: their order is that of age.
        old.sort();
        let kept = self.max_files.saturating_sub(1);
        for path in &old[..old.len().saturating_sub(kept)] {
            match fs::remove_file(path) {
                Ok(()) => self.note("INF", &format!("Purged log file {path:?}")),
                Err(error) => {
                    let text = format!("Unable to remove backup log file {path:?} ({error})");
                    return self.note("ERR", &text);
                }
            }
        }
    }

    fn turned_over(&self) -> io::Result<Vec<PathBuf>> {
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty());
        let own = self.path.file_name().unwrap_or_default().to_string_lossy();
        let mut found = Vec::new();
        for entry in fs::read_dir(folder.unwrap_or_else(|| Path::new(".")))? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let stamp = name
                .strip_prefix(own.as_ref())
                .and_then(|rest| rest.strip_prefix('.'));
            let is_stamp = stamp.is_some_and(|stamp| {
                stamp.len() == "2006.01.02.15.04.05.000000000".len()
                    && stamp
                        .bytes()
                        .all(|byte| byte.is_ascii_digit() || byte == b'.')
            });
            if is_stamp && entry.file_type()?.is_file() {
                found.push(entry.path());
            }
        }
        Ok(found)
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("readable")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_moved_aside_when_it_is_full_and_only_some_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("log.txt"), "not ours").expect("written");
        let options = LogOptions {
            file: Some(folder.path().join("log")),
            size_limit: 100,
            max_files: 3,
            ..LogOptions::default()
        };
        let mut sink = Sink::open(&options).expect("a file");
        let line = [b'x'; 101];
        for turn in 1..=4 {
            assert_eq!(sink.write(&line).expect("room"), line.len());
            // The file itself, the stranger, and what was moved aside.
            assert_eq!(names(folder.path()).len(), 2 + 2.min(turn), "turn {turn}");
        }
        let all = names(folder.path());
        assert_eq!(all[0], "log");
        assert!(
            all[1].starts_with("log.20") && all[2].starts_with("log.20"),
            "{all:?}"
        );
        let current = fs::read_to_string(folder.path().join("log")).expect("there");
        assert!(
            current.contains("[INF] Rotated log, backup saved as "),
            "{current}"
        );
        assert!(current.contains("[INF] Purged log file "), "{current}");
    }

    #[test]
    fn a_small_file_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = LogOptions {
            file: Some(folder.path().join("log")),
            size_limit: 100,
            ..LogOptions::default()
        };
        let mut sink = Sink::open(&options).expect("a file");
        sink.write_all(&[b'x'; 50]).expect("room");
        // What lay there before counts.
        let mut again = Sink::open(&options).expect("a file");
        again.write_all(&[b'x'; 50]).expect("room");
        assert_eq!(names(folder.path()), ["log"]);
        again.write_all(b"x").expect("room");
        assert_eq!(names(folder.path()).len(), 2);
    }
}
