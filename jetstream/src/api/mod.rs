//! The JetStream API: requests, replies and error codes.
//!
//! Everything here is a pure function of its arguments: bytes become typed calls, configurations
//! become normalised ones or an [`ApiError`], answers become bytes. The engine decides and calls.

pub mod error;

pub use error::ApiError;
