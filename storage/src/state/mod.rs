//! Applied state: what the engine computed from the log.
//!
//! It is written without a log of its own and flushed as a whole, so a crash takes it back to an
//! earlier write set and the server's log replays the rest. [`RocksState`] keeps it in RocksDB;
//! [`menes_jetstream::memory::MemoryState`] keeps the same promises in memory.

mod convert;
mod encrypted;
mod rocksdb;
mod scrub;

pub use self::rocksdb::{RocksState, StateMonitor, StateOptions};
