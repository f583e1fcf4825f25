//! Administrative commands: what the metadata group and a stream's group are told to do.
//!
//! They are rare and travel as JSON in entries of [`crate::ports::EntryKind::Command`]. Messages
//! and consumer events have binary codecs of their own.

use serde::{Deserialize, Serialize};

use crate::consumer::ConsumerConfig;
use crate::ids::{AccountName, StreamSeq};
use crate::stream::StreamConfig;
use crate::time::Timestamp;

/// A command of the metadata group: which streams exist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum MetaCommand {
    /// Makes a stream; the group number is given when this is applied.
    CreateStream {
        /// Owner.
        account: AccountName,
        /// Normalised configuration.
        config: Box<StreamConfig>,
        /// Time of the proposal.
        now: Timestamp,
        /// It is filled from a backup and captures nothing until that is done.
        #[serde(default, skip_serializing_if = "is_false")]
        restoring: bool,
    },
    /// A stream has everything that its backup held.
    FinishRestore {
        /// Owner.
        account: AccountName,
        /// Name of the stream.
        name: String,
        /// The last sequence it had given.
        last: StreamSeq,
        /// When it had given it.
        last_time: Timestamp,
        /// Time of the proposal.
        now: Timestamp,
    },
    /// Replaces the configuration of a stream.
    UpdateStream {
        /// Owner.
        account: AccountName,
        /// Normalised configuration; its name selects the stream.
        config: Box<StreamConfig>,
        /// Time of the proposal.
        now: Timestamp,
        /// About how many of the messages that it leaves no room for go at once; without it, all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        most: Option<u32>,
    },
    /// Removes a stream, its messages and its consumers.
    DeleteStream {
        /// Owner.
        account: AccountName,
        /// Name of the stream.
        name: String,
        /// Only if no message was ever stored in it.
        #[serde(default, skip_serializing_if = "is_false")]
        only_if_unused: bool,
    },
}

/// A command of one stream's group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum StreamCommand {
    /// Removes messages.
    Purge(Purge),
    /// Removes one message.
    DeleteMessage {
        /// Which one.
        seq: StreamSeq,
    },
    /// Moves log time on, so that what is due expires.
    Advance {
        /// The new log time.
        now: Timestamp,
        /// About how many messages at most; without it, all that are due.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        most: Option<u32>,
    },
    /// Makes a consumer.
    CreateConsumer {
        /// Its name, durable or not.
        name: String,
        /// Normalised configuration.
        config: Box<ConsumerConfig>,
        /// Time of the proposal.
        now: Timestamp,
        /// Deliveries and messages of the stream that were settled, of one out of a backup.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        settled: Option<(u64, u64)>,
    },
    /// Replaces the configuration of a consumer.
    UpdateConsumer {
        /// Its name.
        name: String,
        /// Normalised configuration.
        config: Box<ConsumerConfig>,
    },
    /// Stops a consumer from handing out messages for a while, or lets it go on.
    PauseConsumer {
        /// Its name.
        name: String,
        /// Until when; [`Timestamp::ZERO`] to go on.
        until: Timestamp,
    },
    /// Has a consumer begin again, forgetting every delivery and ack.
    ResetConsumer {
        /// Its name.
        name: String,
        /// The next message; behind the ack floor if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<StreamSeq>,
    },
    /// Removes a consumer and its position.
    DeleteConsumer {
        /// Its name.
        name: String,
        /// Only the one with this number, not another one made under the same name meanwhile.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<u32>,
    },
    /// Messages whose delivery ended without an ack were taken over: their records go.
    HandedOver {
        /// The entries that ended the deliveries, and the places in them.
        ends: Vec<(u64, u32)>,
    },
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// What a purge removes; nothing set means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purge {
    /// Only messages whose subject matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Only messages below this sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<StreamSeq>,
    /// Keep this many of the newest that match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<u64>,
    /// About how many messages at most; the rest is left to a purge that goes on with it. Without
    /// it, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
    /// With a filter, only subjects behind this one: those up to it have been purged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<u8>>,
    /// What purges that this one goes on with have removed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub purged: u64,
}
