//! The NATS wire: subjects, headers, and (both directions) operations to bytes and back.
//!
//! Everything here works on byte slices that the caller owns. Nothing opens a socket, asks a clock
//! or knows what an account is; the server and its clients drive it.

pub mod headers;
pub mod subject;
