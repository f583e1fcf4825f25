//! What a server is told before it starts.

pub mod digest;
pub mod grammar;
pub mod options;
mod sections;
pub mod settings;
