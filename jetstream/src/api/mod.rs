//! The JetStream API: requests, replies and error codes.
//!
//! Everything here is a pure function of its arguments: bytes become typed calls, configurations
//! become normalised ones or an [`ApiError`], answers become bytes. The engine decides and calls.
//!
//! ```text
//!   subject ─ Call::parse ──▶ Call ─┐
//!   body ──── request::*::parse ────┼─▶ stream_config / consumer_config ─▶ what to do
//!   current configurations ─────────┘            │
//!                                                ▼
//!                         response::ok / response::error ─▶ bytes
//! ```

pub mod consumer_config;
pub mod direct;
pub mod duration;
pub mod error;
pub mod json;
pub mod metadata;
pub mod name;
pub mod pub_ack;
pub mod request;
pub mod response;
pub mod stream_config;
pub mod subject;

pub use error::ApiError;
pub use subject::Call;

/// API level of this version: requests that need a higher one are refused.
pub const API_LEVEL: u32 = 1;
