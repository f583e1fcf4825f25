//! The NATS wire: subjects, headers, and (both directions) operations to bytes and back.
//!
//! Everything here works on byte slices that the caller owns. Nothing opens a socket, asks a clock
//! or knows what an account is; the server and its clients drive it.
//!
//! | Module | Turns |
//! |---|---|
//! | [`parser::client`] | what clients send into operations |
//! | [`parser::server`] | what servers send into operations |
//! | [`encoder::server`] | deliveries and answers into bytes |
//! | [`encoder::client`] | publishes and subscriptions into bytes |
//! | [`connect`], [`info`] | the two JSON documents of the handshake |
//! | [`error`] | the texts of `-ERR` |
//! | [`subject`], [`headers`] | what messages are addressed by and carry |
//! | [`transform`] | one subject into another, by rule |

pub mod connect;
pub mod encoder;
pub mod error;
pub mod headers;
pub mod info;
pub mod parser;
pub mod subject;
pub mod transform;
