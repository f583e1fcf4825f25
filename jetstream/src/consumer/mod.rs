//! One consumer: what was handed out, what is settled, what is due again.

pub mod config;

pub use config::ConsumerConfig;
