//! Stations, partitions, consumer groups and producers: the Memphis face of the engine.
//!
//! A station is a set of streams, one for each partition; a consumer group is one durable pull
//! consumer on each of them. This crate holds the rules for both and the contract that the
//! Memphis SDKs speak on the `$memphis_…` control subjects. Nothing here opens a socket, reads a
//! clock or touches the engine: [`Stations`] answers a request with [`Step`]s, a driver carries
//! them out and hands back what came of them.
//!
//! ```text
//!  request ──▶ Stations::begin ──▶ poll ──▶ Run(steps) ──▶ driver ──▶ engine, application log
//!                                   ▲                        │
//!                                   └──── resume(results) ◀──┘
//!                                   └──▶ Reply(payload) ──▶ client
//! ```
//!
//! What must survive a restart is the [`State`]: it changes only by [`Command`]s from the
//! application group's log and is stored as rows. Which connections are open is known to the
//! leader alone and is never logged.
//!
//! # Invariants
//!
//! 1. Same commands, same order, same [`State`].
//! 2. A station is announced as ready only after the streams of all its partitions exist, and its
//!    record goes only after they are gone. In between it is marked, so that a crash at any step is
//!    finished by whoever meets the mark first: the next request that names it, or
//!    [`Stations::recover`].
//! 3. A consumer group is known before its first durable is made, and forgotten after its last one
//!    is removed.
//! 4. Of the requests that change one station, one runs at a time; registrations run side by side.
//! 5. No password and no token is in a command, in the state or in a text for people.

pub mod api;
pub mod command;
pub mod dead_letter;
pub mod group;
pub mod name;
pub mod producer;
pub mod schema;
pub mod sdk;
pub mod state;
pub mod station;
pub mod units;
pub mod user;

mod lock;
mod presence;
mod stations;
mod task;
mod upkeep;

pub use command::{Applied, Command, Outcome, RowChange};
pub use state::{LoadError, State};
pub use stations::{Enforced, Stations, TaskId};
pub use task::{
    Message, NewToken, Outbound, Progress, SchemaSource, Secret, Step, StepError, StepResult,
};
