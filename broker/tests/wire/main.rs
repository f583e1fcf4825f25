//! The server on a loopback port, spoken to byte by byte.

mod accounts;
mod bad_input;
mod core_protocol;
mod credentials;
mod engine;
mod harness;
mod logins;
mod proxies;
mod tls;
