//! A station: what it keeps, for how long, and the streams that carry it.
//!
//! [`StationOptions`] is what a client asks for, [`Station`] what came of it. Storage and the
//! duplicate window are fixed for life, the number of partitions only grows; whatever else may
//! change.

mod options;
mod plans;
mod streams;

use menes_jetstream::Timestamp;
use menes_jetstream::stream::config::Storage;
use serde::{Deserialize, Serialize};

pub(crate) use options::replicas;
pub use options::{StationError, StationOptions};
pub(crate) use plans::{completion, creation, removal, with_schema};
pub(crate) use streams::nanos_of_millis;

use crate::name::{SchemaName, StationName};

/// Most partitions of a station.
pub const MAX_PARTITIONS: u32 = 10_000;
/// How long a message is kept when nothing else was asked for, seconds.
pub const DEFAULT_RETENTION_SECS: i64 = 3_600;
/// Duplicate window when none was asked for, milliseconds.
pub const DEFAULT_IDEMPOTENCY_WINDOW_MS: i64 = 120_000;
/// Shortest duplicate window, milliseconds.
pub const MIN_IDEMPOTENCY_WINDOW_MS: i64 = 100;
/// Longest duplicate window, milliseconds: 24 hours.
pub const MAX_IDEMPOTENCY_WINDOW_MS: i64 = 86_400_000;
/// The version that clients are told; from 2 on a station has partitions.
pub const STATION_VERSION: u32 = 2;

/// Which messages a station keeps. Limits hold for each partition, not for the whole station.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
pub enum StationRetention {
    /// Those younger than this many seconds.
    MessageAgeSec(i64),
    /// The newest, this many.
    Messages(i64),
    /// The newest, this many bytes.
    Bytes(i64),
    /// Those that some group has not acknowledged yet.
    AckBased,
}

/// Which failures become dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterSwitches {
    /// Messages that were delivered too often, or given up by a consumer.
    pub poison: bool,
    /// Messages that a producer found to violate the schema.
    pub schemaverse: bool,
}

/// How far the making or removing of a station has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StationStatus {
    /// Decided; some of its streams may be missing.
    Creating,
    /// All streams exist.
    Ready,
    /// To go; some of its streams may be gone. For clients it does not exist.
    Removing,
}

/// The schema a station is given: always its active version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaLink {
    /// The schema.
    pub name: SchemaName,
    /// The server itself refuses messages that violate it, whoever publishes them.
    pub is_enforced: bool,
}

/// A station.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Station {
    /// Name, unique in its account.
    pub name: StationName,
    /// What is kept.
    pub retention: StationRetention,
    /// Where it is kept.
    pub storage: Storage,
    /// Replicas: 1, 3 or 5.
    pub replicas: i64,
    /// Duplicate window, milliseconds, 100 to 86,400,000.
    pub idempotency_window_ms: i64,
    /// Partitions, 1 to [`MAX_PARTITIONS`], numbered from 1.
    pub partitions: u32,
    /// Which failures become dead letters.
    pub dead_letters: DeadLetterSwitches,
    /// Station that receives copies of dead letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter_station: Option<StationName>,
    /// Schema of its messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaLink>,
    /// Tiered storage was asked for.
    #[serde(default)]
    pub tiered_storage: bool,
    /// User who made it.
    #[serde(default)]
    pub created_by: String,
    /// When it was asked for.
    pub created: Timestamp,
    /// How far it is made.
    pub status: StationStatus,
}

impl Station {
    /// The station that is made when a producer or consumer names one that does not exist.
    #[must_use]
    pub fn with_defaults(name: StationName, user: &str, now: Timestamp) -> Self {
        Self {
            name,
            retention: StationRetention::MessageAgeSec(DEFAULT_RETENTION_SECS),
            storage: Storage::File,
            replicas: 1,
            idempotency_window_ms: DEFAULT_IDEMPOTENCY_WINDOW_MS,
            partitions: 1,
            dead_letters: DeadLetterSwitches {
                poison: true,
                schemaverse: true,
            },
            dead_letter_station: None,
            schema: None,
            tiered_storage: false,
            created_by: user.to_owned(),
            created: now,
            status: StationStatus::Creating,
        }
    }

    /// Whether clients may use it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status == StationStatus::Ready
    }

    /// The partition numbers, rising from 1.
    #[must_use]
    pub fn partition_numbers(&self) -> std::ops::RangeInclusive<u32> {
        1..=self.partitions
    }
}
