//! Keys, tokens, and what a token permits.
//!
//! Decentralised authentication in NATS: an operator signs accounts, an account signs users, and a
//! user proves with a signature over the server's nonce that the key in its token is its own. This
//! crate reads and checks those tokens and decides who is admitted as what.
//!
//! ```text
//!   text ──▶ token ──▶ claims ──▶ validation ──▶ admission ──▶ Admission | Denied
//!            signature   typed      own contents    trust, scope, revocation, address, hours
//! ```
//!
//! It opens no socket and no file and asks no clock: the hour, the address and the claims of other
//! accounts are arguments. Random bytes are needed only to make keys and to seal a message; both
//! come from the `nkeys` crate.
//!
//! # Invariants
//!
//! 1. No input makes it panic, and none makes it use more than a small multiple of the input's size.
//! 2. Claims exist only behind a verified signature: [`token::decode`] is the only way to get them.
//! 3. The algorithm is ours: what a token's header says can only be refused.

pub mod admission;
pub mod callout;
pub mod claims;
pub mod decorated;
pub mod key;
pub mod scope;
mod shape;
pub mod token;
pub mod validation;
mod window;
