//! From a published message to everyone who wants it.
//!
//! A thread that publishes has a [`RouteBatch`]. Routing a message looks up who is interested
//! ([`Sublist`], through a cache that costs no lock) and puts the encoded message behind what the
//! batch already holds for each receiver. [`RouteBatch::flush`] then hands every receiver its bytes
//! at once: one lock and at most one wake per receiver, however many messages there were.
//!
//! # Invariants
//!
//! 1. Messages of one publisher reach a receiver in the order they were published.
//! 2. No lock is held while another is taken.
//! 3. A publisher is held up by a slow receiver for a short, bounded time; then the receiver goes.

mod cache;
mod deliver;
pub(crate) mod hash;
mod sublist;
mod subscription;

pub(crate) use deliver::Equipment;
pub use deliver::{Flushed, Message, RouteBatch};
pub use sublist::{MatchResult, QueueMatch, Sublist};
pub use subscription::{Receiver, Subscription, Target};
