//! The same bytes to two servers, and what they answer differently.
//!
//! A [`Sequence`] is made from a seed: some connections, and steps that write bytes on one of them.
//! After every step each connection is brought to rest by a PING, so that what came in between
//! belongs to the step. [`Normal`] forms take out what neither server promises: ids, the order in
//! which the receivers of one message get it, which member of a queue group got it.

mod generate;
pub mod jetstream;
mod normal;
mod play;
mod server;
mod shrink;

pub use generate::{Flavour, Sequence, Step};
pub use normal::{Normal, first_difference};
pub use play::play;
pub use server::Pair;
pub use shrink::shrink;
