//! The two stores behind the engine's traits, on real disks.
//!
//! [`log`] is the log: what was acknowledged, in segments, synced once for everybody. [`state`] is
//! what was applied from it, in RocksDB, rebuilt from the log's tail after a crash. This crate knows
//! files, checksums and databases, and nothing of what a message means.

pub mod disk_space;
mod error;
mod files;
mod lock;
pub mod log;
#[doc(hidden)]
pub mod readers;
mod scrub;
pub mod state;
mod store;
mod vault;

pub use error::OpenError;
pub use scrub::Scrub;
pub use store::{Store, StoreOptions};
pub use vault::{CipherSuite, Encryption, Vault};
