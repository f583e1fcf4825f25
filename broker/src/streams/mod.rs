//! Drivers of the engine: what they get from connections, and how they answer.

pub mod ingest;
