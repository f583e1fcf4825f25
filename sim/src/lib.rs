//! A whole server in one thread, from one seed: the engine over a disk that crashes.
//!
//! Clients publish, fetch and acknowledge; the disk syncs when it pleases and loses what was not
//! synced; the server starts again. The clients remember every answer, and at the end everything
//! they were told must be true. The same seed gives the same run, event by event.
//!
//! What is modelled here is the disk under the traits of `jetstream::ports`; the real stores under
//! the same traits have crash and damage tests of their own in `storage`.

pub mod disk;
pub mod mutant;
pub mod random;
pub mod world;
