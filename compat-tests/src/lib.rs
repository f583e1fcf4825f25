//! Real, unmodified, released clients against the real server binary.
//!
//! A test starts a [`TestServer`], hands it to client scripts as [`scenario`] child processes or
//! talks to it with `async-nats` directly, and asserts what the clients saw. Nothing here knows the
//! server's insides: a scenario that passes is one a user could run.
//!
//! The same scenarios run against nats-server (`MENES_TEST_SERVER=nats-server`), which is how they
//! are developed and how a difference is told from a mistake; [`comparison`] runs one scenario
//! against both and compares what it printed.
//!
//! # Environment
//!
//! | Variable | Meaning |
//! |---|---|
//! | `MENES_BIN` | server under test; by default the `menes` beside the test binaries |
//! | `MENES_TEST_SERVER` | `menes` (default) or `nats-server` |
//! | `MENES_KILLS` | how often the kill loop kills the server, or cuts its power, 50 by default |
//! | `MENES_FULL_DISKS` | how often a test fills a small disk, 2 by default |
//! | `MENES_SEED` | seed of the kill loop's random moments, printed by every run |
//! | `MENES_CACHE`, `CHROMIUM` | where `scripts/setup-clients.sh` keeps clients; the browser |

pub mod certificates;
pub mod comparison;
pub mod connect;
pub mod differential;
pub mod ledger;
mod ports;
pub mod power;
pub mod scenario;
mod server;
mod tools;

pub use server::{Login, ServerKind, ServerOptions, TestServer, menes_binary};
pub use tools::Tools;
