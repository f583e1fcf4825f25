//! The same with requests of the JetStream API.
//!
//! A [`Script`] is made from a seed: [`Op`]s that make streams and consumers, publish, pull, settle
//! and ask. They run one after the other on one connection; an operation is over when its answer is
//! there. Compared is everything that came: answers, acknowledgements, deliveries.

mod generate;
mod play;

pub use generate::{Op, Script};
pub use play::{Player, Seen};
