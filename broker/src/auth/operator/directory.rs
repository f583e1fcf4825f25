//! Account tokens in a folder: one file `<public key>.jwt` each, as nats-server keeps them.
//!
//! What the folder held when it was opened, and what was written since, is known here by key and
//! hash: files that others put there later are read when asked for, and listed after the next
//! start. The hash of the folder is the XOR of the SHA-256 hashes of its tokens: servers compare it
//! to see whether they hold the same.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use menes_auth::claims::AnyClaims;
use menes_auth::key::KeyKind;
use menes_auth::token;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::config::options::DeleteAccounts;

/// Why the folder does not do what is asked.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// The folder cannot be read or written.
    #[error("cannot keep accounts in {}: {source}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Not the key of an account.
    #[error("invalid public key")]
    Key,
    /// As many accounts as there may be.
    #[error("jwt store is full")]
    Full,
    /// Deleting was not allowed.
    #[error("store is not set up to for delete")]
    NoDelete,
    /// The token is about another account.
    #[error("jwt subject nkey and provided nkey do not match")]
    OtherAccount,
    /// Not a token.
    #[error("{0}")]
    Token(#[from] token::TokenError),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Directory {
    folder: PathBuf,
    delete: DeleteAccounts,
    limit: Option<usize>,
    /// A cache drops what was not used for longest, and what was not used for this time.
    cache: Option<Option<Duration>>,
    known: Mutex<BTreeMap<String, Entry>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: [u8; 32],
    /// Unix seconds; 0 is never.
    expires: i64,
    used: Instant,
}

impl Entry {
    fn of(token: &str) -> Self {
        let expires = match token::decode(token) {
            Ok(AnyClaims::Account(claims)) => claims.common.expires,
            _ => 0,
        };
        Self {
            hash: Sha256::digest(token).into(),
            expires,
            used: Instant::now(),
        }
    }
}

const EXTENSION: &str = "jwt";

impl Directory {
    /// A folder of all accounts. It is made if it is not there.
    pub(super) fn full(
        folder: &Path,
        delete: DeleteAccounts,
        limit: Option<usize>,
    ) -> Result<Self, DirectoryError> {
        Self::open(folder, delete, limit, None)
    }

    /// A folder of accounts in use.
    pub(super) fn cache(
        folder: &Path,
        ttl: Option<Duration>,
        limit: usize,
    ) -> Result<Self, DirectoryError> {
        Self::open(folder, DeleteAccounts::Remove, Some(limit), Some(ttl))
    }

    fn open(
        folder: &Path,
        delete: DeleteAccounts,
        limit: Option<usize>,
        cache: Option<Option<Duration>>,
    ) -> Result<Self, DirectoryError> {
        let directory = Self {
            folder: folder.to_owned(),
            delete,
            limit,
            cache,
            known: Mutex::default(),
        };
        let outcome = fs::create_dir_all(folder).and_then(|()| directory.read_all());
        *directory.known.lock() = outcome.map_err(|source| directory.failed(source))?;
        Ok(directory)
    }

    fn read_all(&self) -> io::Result<BTreeMap<String, Entry>> {
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let key = path.file_stem().and_then(|stem| stem.to_str());
            let is_token = path.extension().is_some_and(|found| found == EXTENSION);
            if let Some(key) = key.filter(|key| is_token && KeyKind::Account.is_public_key(key)) {
                match fs::read_to_string(&path) {
                    Ok(text) => drop(known.insert(key.to_owned(), Entry::of(&text))),
                    Err(error) => tracing::warn!("{} cannot be read: {error}", path.display()),
                }
            }
        }
        Ok(known)
    }

    fn failed(&self, source: io::Error) -> DirectoryError {
        DirectoryError::Io {
            folder: self.folder.clone(),
            source,
        }
    }

    /// Where it is.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether it holds accounts in use only.
    pub(super) fn is_cache(&self) -> bool {
        self.cache.is_some()
    }

    /// Whether accounts can be deleted on request.
    pub(super) fn deletes(&self) -> bool {
        self.delete != DeleteAccounts::Never
    }

    /// Keys are file names: nothing but a key may become one.
    fn path(&self, account: &str) -> Result<PathBuf, DirectoryError> {
        if KeyKind::Account.is_public_key(account) {
            Ok(self.folder.join(account).with_extension(EXTENSION))
        } else {
            Err(DirectoryError::Key)
        }
    }

    /// The token of an account.
    pub(super) fn load(&self, account: &str) -> Result<Option<String>, DirectoryError> {
        let path = self.path(account)?;
        match fs::read_to_string(path) {
            Ok(text) => {
                if let Some(entry) = self.known.lock().get_mut(account) {
                    entry.used = Instant::now();
                }
                Ok(Some(text))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Writes a token, unless the one there is as new.
    pub(super) fn save_if_newer(&self, account: &str, text: &str) -> Result<bool, DirectoryError> {
        let new = token::decode_account(text)?.common;
        if new.subject != account {
            return Err(DirectoryError::OtherAccount);
        }
        if let Some(old) = self.load(account)?
            && let Ok(old) = token::decode_account(&old)
            && (old.common.id == new.id || old.common.issued_at > new.issued_at)
        {
            return Ok(false);
        }
        self.save(account, text)
    }

    /// Writes a token. False when it was there already. It is on disk afterwards.
    pub(super) fn save(&self, account: &str, text: &str) -> Result<bool, DirectoryError> {
        let path = self.path(account)?;
        let entry = Entry::of(text);
        let mut known = self.known.lock();
        if let Some(old) = known.get_mut(account) {
            if old.hash == entry.hash {
                old.used = Instant::now();
                return Ok(false);
            }
        } else if self.limit.is_some_and(|limit| known.len() >= limit) {
            self.make_room(&mut known)?;
        }
        self.write(&path, text)
            .map_err(|error| self.failed(error))?;
        known.insert(account.to_owned(), entry);
        Ok(true)
    }

    /// Drops the account that was not used for longest, if this is a cache.
    fn make_room(&self, known: &mut BTreeMap<String, Entry>) -> Result<(), DirectoryError> {
        let oldest = known.iter().min_by_key(|(_, entry)| entry.used);
        let Some((oldest, _)) = oldest.filter(|_| self.is_cache()) else {
            return Err(DirectoryError::Full);
        };
        let oldest = oldest.clone();
        self.remove_file(&oldest)?;
        known.remove(&oldest);
        Ok(())
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let partial = path.with_extension("partial");
        let mut file = File::create(&partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        File::open(&self.folder)?.sync_all()
    }

    fn remove_file(&self, account: &str) -> Result<bool, DirectoryError> {
        let path = self.path(account)?;
        let outcome = if self.delete == DeleteAccounts::Rename {
            fs::rename(&path, path.with_extension("jwt.deleted"))
        } else {
            fs::remove_file(&path)
        };
        match outcome {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Deletes an account. False when there was none.
    pub(super) fn delete(&self, account: &str) -> Result<bool, DirectoryError> {
        if !self.deletes() {
            return Err(DirectoryError::NoDelete);
        }
        let mut known = self.known.lock();
        let was_there = self.remove_file(account)?;
        known.remove(account);
        Ok(was_there)
    }

    /// Removes what expired, or was not used for the time of a cache. Gives the keys.
    pub(super) fn expire(&self, now: i64) -> Vec<String> {
        let mut known = self.known.lock();
        let is_over = |entry: &Entry| match self.cache {
            Some(Some(ttl)) => entry.used.elapsed() >= ttl,
            _ => entry.expires > 0 && entry.expires <= now,
        };
        let over: Vec<_> = known
            .iter()
            .filter(|(_, entry)| is_over(entry))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &over {
            let removed = self
                .path(key)
                .and_then(|path| fs::remove_file(path).map_err(|error| self.failed(error)));
            if let Err(error) = removed {
                tracing::warn!("an expired account stays: {error}");
            }
            known.remove(key);
        }
        over
    }

    /// All keys, in order.
    pub(super) fn keys(&self) -> Vec<String> {
        self.known.lock().keys().cloned().collect()
    }

    /// XOR of the hashes of all tokens.
    pub(super) fn hash(&self) -> [u8; 32] {
        let mut sum = [0; 32];
        for entry in self.known.lock().values() {
            for (byte, other) in sum.iter_mut().zip(entry.hash) {
                *byte ^= other;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use menes_auth::claims::account::{AccountClaims, AccountLimits};
    use menes_auth::claims::{Claims, Common};
    use menes_auth::key::Signer;

    use super::*;

    fn account() -> Signer {
        Signer::generate(KeyKind::Account)
    }

    fn text(account: &Signer, name: &str, issued_at: i64) -> String {
        let claims = Claims {
            common: Common {
                subject: account.public_key().to_owned(),
                name: name.to_owned(),
                ..Common::default()
            },
            nats: AccountClaims {
                limits: AccountLimits::unlimited(),
                ..AccountClaims::default()
            },
        };
        token::encode(claims, account, issued_at)
    }

    #[test]
    fn tokens_are_there_after_opening_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || Directory::full(folder.path(), DeleteAccounts::Never, None).expect("opened");
        let (one, two) = (account(), account());
        let directory = open();
        assert_eq!(directory.hash(), [0; 32]);
        assert!(
            directory
                .save(one.public_key(), &text(&one, "a", 1))
                .expect("saved")
        );
        assert!(
            !directory
                .save(one.public_key(), &text(&one, "a", 1))
                .expect("the same")
        );
        assert!(
            directory
                .save(two.public_key(), &text(&two, "b", 1))
                .expect("saved")
        );
        let again = open();
        assert_eq!(again.keys(), directory.keys());
        assert_eq!(again.hash(), directory.hash());
        assert_eq!(
            again.load(one.public_key()).expect("read"),
            Some(text(&one, "a", 1))
        );
        assert_eq!(again.load(account().public_key()).expect("read"), None);
        assert!(matches!(
            again.delete(one.public_key()),
            Err(DirectoryError::NoDelete)
        ));
    }

    #[test]
    fn only_keys_become_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory =
            Directory::full(folder.path(), DeleteAccounts::Remove, None).expect("opened");
        for name in ["../x", "", "A", "/etc/passwd"] {
            assert!(
                matches!(directory.load(name), Err(DirectoryError::Key)),
                "{name}"
            );
            assert!(directory.save(name, "x").is_err() && directory.delete(name).is_err());
        }
    }

    #[test]
    fn a_newer_token_replaces_an_older_one_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory =
            Directory::full(folder.path(), DeleteAccounts::Never, None).expect("opened");
        let one = account();
        let save =
            |name: &str, at| directory.save_if_newer(one.public_key(), &text(&one, name, at));
        assert!(save("a", 5).expect("saved"));
        assert!(!save("b", 4).expect("older"));
        assert!(save("c", 6).expect("newer"));
        let other = text(&account(), "x", 9);
        assert!(directory.save_if_newer(one.public_key(), &other).is_err());
    }

    #[test]
    fn a_full_folder_refuses_and_a_cache_forgets() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, two, three) = (account(), account(), account());
        let full = Directory::full(folder.path(), DeleteAccounts::Never, Some(1)).expect("opened");
        full.save(one.public_key(), &text(&one, "a", 1))
            .expect("room");
        let refused = full.save(two.public_key(), &text(&two, "b", 1));
        assert!(matches!(refused, Err(DirectoryError::Full)));
        full.save(one.public_key(), &text(&one, "c", 2))
            .expect("it is there already");
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Directory::cache(folder.path(), None, 2).expect("opened");
        for pair in [&one, &two] {
            cache
                .save(pair.public_key(), &text(pair, "a", 1))
                .expect("room");
        }
        cache.load(one.public_key()).expect("used");
        cache
            .save(three.public_key(), &text(&three, "c", 1))
            .expect("room is made");
        assert_eq!(cache.load(two.public_key()).expect("read"), None);
        assert!(cache.load(one.public_key()).expect("read").is_some());
    }

    #[test]
    fn deleting_renames_or_removes() {
        for (how, left) in [(DeleteAccounts::Rename, 1), (DeleteAccounts::Remove, 0)] {
            let folder = tempfile::tempdir().expect("a folder");
            let directory = Directory::full(folder.path(), how, None).expect("opened");
            let one = account();
            directory
                .save(one.public_key(), &text(&one, "a", 1))
                .expect("saved");
            assert!(directory.delete(one.public_key()).expect("deleted"));
            assert!(!directory.delete(one.public_key()).expect("gone"));
            assert_eq!(directory.load(one.public_key()).expect("read"), None);
            assert_eq!(fs::read_dir(folder.path()).expect("there").count(), left);
            assert_eq!(directory.hash(), [0; 32]);
        }
    }
}
