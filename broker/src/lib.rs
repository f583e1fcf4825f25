//! The server: connections, routing, accounts, auth, configuration, and the drivers of the engine.
//!
//! ```text
//!   listener ─▶ worker threads ─▶ connection (reader, session, writer)
//!                                     │ RouteBatch
//!                                     ▼
//!                       account ─▶ sublist ─▶ other connections
//!                                     └─────▶ streams::ingest ─▶ engine
//! ```
//!
//! A connection lives on one worker thread. Decisions that belong to streams or stations are made
//! in other crates; this one moves bytes, knows who may do what, and owns sockets and threads.

pub mod account;
pub mod auth;
pub mod codes;
pub mod config;
pub mod connection;
pub mod error;
mod fetch;
mod gateway;
mod http;
mod inside;
mod listener;
pub mod logging;
mod management;
mod monitoring;
pub mod routing;
mod run;
pub mod server;
mod shutdown;
pub mod streams;
pub mod system;
pub mod tls;

pub use run::{RunError, run};
pub use server::NATS_VERSION;
