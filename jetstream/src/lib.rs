//! The engine: streams and consumers as deterministic state machines over a replicated log.
//!
//! Commands go in, are appended to the log, are applied in log order once they are durable, and
//! leave effects: acks, deliveries, API replies. Nothing here opens a file, reads a clock, draws
//! randomness or knows a socket; the traits in [`ports`] are the only way out, so a whole server
//! runs from one seed in one thread.
//!
//! # Invariants
//!
//! 1. Same entries in the same order give the same state, whatever the clock or the disk does.
//! 2. Nothing is acknowledged before the log entry that carries it is durable.
//! 3. One entry is applied with one atomic write, the applied position included.

pub mod api;
pub mod archive;
pub mod command;
pub mod consumer;
pub mod engine;
pub mod ids;
pub mod memory;
pub mod ports;
pub mod record;
pub mod stream;
pub mod time;
pub mod txn;

pub use ids::{AccountName, ConsumerSeq, GroupId, StreamSeq};
pub use time::Timestamp;
