//! What a server is told before it starts.

pub mod diagnostic;
pub mod digest;
pub mod grammar;
pub mod options;
pub mod reference;
mod sections;
pub mod settings;
pub mod shown;
