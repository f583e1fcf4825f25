//! A whole server in one thread, from one seed: the engine over a disk that crashes.
//!
//! Clients publish, fetch, acknowledge, make and delete streams and consumers; the disk syncs when
//! it pleases, runs out of space, fails, and loses what was not synced; the server starts again.
//! The clients remember every answer, a plain model says what each of them must be, and whatever
//! the server sends must agree with it. The same seed gives the same run, event by event.
//!
//! What is modelled here is the disk under the traits of `jetstream::ports`; the real stores under
//! the same traits have crash and damage tests of their own in `storage`.
//!
//! ```text
//!   World ──requests──▶ Engine ──▶ SimDisk       syncs, crashes, fills up, fails
//!     │                   │
//!     └──── StreamModel ◀─┴─ answers, deliveries: compared one by one, and the streams as a
//!                            whole after every crash
//! ```

pub mod application;
pub mod disk;
pub mod mutant;
pub mod random;
pub mod world;

mod backups;
mod clients;
mod model;
mod recovery;
mod side;
mod wire;
