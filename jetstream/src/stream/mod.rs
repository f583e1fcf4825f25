//! One stream: what is stored under which sequence, and what goes.

pub mod config;

pub use config::{StreamConfig, StreamState};
