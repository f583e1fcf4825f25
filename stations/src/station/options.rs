//! What a client asks for when it makes a station, and the rules that turn it into a station.

use menes_jetstream::Timestamp;
use menes_jetstream::stream::config::Storage;
use thiserror::Error;

use crate::name::{NameError, SchemaName, StationName};
use crate::station::{
    DEFAULT_IDEMPOTENCY_WINDOW_MS, DEFAULT_RETENTION_SECS, DeadLetterSwitches,
    MAX_IDEMPOTENCY_WINDOW_MS, MAX_PARTITIONS, MIN_IDEMPOTENCY_WINDOW_MS, SchemaLink, Station,
    StationRetention, StationStatus,
};

/// A wish for a station, as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StationOptions {
    /// `message_age_sec`, `messages`, `bytes` or `ack_based`, in any case; empty for the default.
    pub retention_type: String,
    /// Seconds, messages or bytes.
    pub retention_value: i64,
    /// `file` or `memory`, in any case; empty for `file`.
    pub storage_type: String,
    /// Replicas, any number.
    pub replicas: i64,
    /// Duplicate window, milliseconds; 0 for the default.
    pub idempotency_window_ms: i64,
    /// Schema to attach, empty for none.
    pub schema_name: String,
    /// Dead letters from consumers.
    pub poison: bool,
    /// Dead letters from producers.
    pub schemaverse: bool,
    /// Tiered storage.
    pub tiered_storage: bool,
    /// Partitions; must be given.
    pub partitions: i64,
    /// Station that receives copies of dead letters, empty for none.
    pub dead_letter_station: String,
}

/// Why a station is not made. The texts are part of the SDK contract.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StationError {
    /// No number of partitions: an SDK from before there were partitions.
    #[error("you are using an old SDK, make sure to update your SDK")]
    OldSdk,
    /// A number of partitions outside 1 to 10,000.
    #[error("cannot create station with {0} partitions (max:10000 min:1): Station -  {1}, ")]
    Partitions(i64, StationName),
    /// No such schema.
    #[error("Schema {0} does not exist")]
    Schema(String),
    /// Unknown retention type.
    #[error("retention type can be one of the following message_age_sec/messages/bytes/ack_based")]
    Retention,
    /// Unknown storage type.
    #[error("storage type can be one of the following file/memory")]
    Storage,
    /// Duplicate window too long.
    #[error("idempotency window can not exceed 24 hours")]
    LongWindow,
    /// Duplicate window longer than messages are kept.
    #[error("idempotency window cannot be greater than the station retention")]
    WindowBeyondRetention,
    /// The dead-letter station cannot be named so.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl StationOptions {
    /// The station these options ask for, not made yet.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn station(
        &self,
        name: StationName,
        user: &str,
        now: Timestamp,
    ) -> Result<Station, StationError> {
        let partitions = match u32::try_from(self.partitions) {
            Ok(0) => return Err(StationError::OldSdk),
            Ok(count) if count <= MAX_PARTITIONS => count,
            _ => return Err(StationError::Partitions(self.partitions, name)),
        };
        let schema = match self.schema_name.as_str() {
            "" => None,
            text => Some(SchemaLink {
                name: SchemaName::parse(text)
                    .map_err(|_| StationError::Schema(text.to_lowercase()))?,
                is_enforced: true,
            }),
        };
        let retention = self.retention()?;
        let storage = match self.storage_type.to_lowercase().as_str() {
            "" | "file" => Storage::File,
            "memory" => Storage::Memory,
            _ => return Err(StationError::Storage),
        };
        let idempotency_window_ms = self.idempotency_window(retention)?;
        let dead_letter_station = match self.dead_letter_station.as_str() {
            "" => None,
            text => Some(StationName::parse(text)?),
        };
        Ok(Station {
            name,
            retention,
            storage,
            replicas: replicas(self.replicas),
            idempotency_window_ms,
            partitions,
            dead_letters: DeadLetterSwitches {
                poison: self.poison,
                schemaverse: self.schemaverse,
            },
            dead_letter_station,
            schema,
            tiered_storage: self.tiered_storage,
            created_by: user.to_owned(),
            created: now,
            status: StationStatus::Creating,
        })
    }

    /// A value that keeps nothing turns the whole pair into the default, type included.
    pub(crate) fn retention(&self) -> Result<StationRetention, StationError> {
        let wanted = match self.retention_type.to_lowercase().as_str() {
            "" => StationRetention::MessageAgeSec(DEFAULT_RETENTION_SECS),
            "message_age_sec" => StationRetention::MessageAgeSec(self.retention_value),
            "messages" => StationRetention::Messages(self.retention_value),
            "bytes" => StationRetention::Bytes(self.retention_value),
            "ack_based" => StationRetention::AckBased,
            _ => return Err(StationError::Retention),
        };
        if self.retention_value <= 0 && wanted != StationRetention::AckBased {
            return Ok(StationRetention::MessageAgeSec(DEFAULT_RETENTION_SECS));
        }
        Ok(wanted)
    }

    fn idempotency_window(&self, retention: StationRetention) -> Result<i64, StationError> {
        let window = match self.idempotency_window_ms {
            ..=0 => DEFAULT_IDEMPOTENCY_WINDOW_MS,
            1..MIN_IDEMPOTENCY_WINDOW_MS => MIN_IDEMPOTENCY_WINDOW_MS,
            asked => asked,
        };
        if window > MAX_IDEMPOTENCY_WINDOW_MS {
            return Err(StationError::LongWindow);
        }
        match retention {
            StationRetention::MessageAgeSec(secs) if secs.saturating_mul(1_000) < window => {
                Err(StationError::WindowBeyondRetention)
            }
            _ => Ok(window),
        }
    }
}

/// An even number of replicas buys nothing over the odd one below it and is rounded up.
pub(crate) fn replicas(asked: i64) -> i64 {
    match asked {
        ..=1 => 1,
        2..=3 => 3,
        4 => 3,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> StationOptions {
        StationOptions {
            partitions: 1,
            ..StationOptions::default()
        }
    }

    fn made(options: &StationOptions) -> Result<Station, StationError> {
        let name = StationName::parse("st").expect("a good name");
        options.station(name, "root", Timestamp(1))
    }

    #[test]
    fn empty_options_make_the_default_station_but_for_the_switches() {
        let mut expected = Station::with_defaults(
            StationName::parse("st").expect("a good name"),
            "root",
            Timestamp(1),
        );
        expected.dead_letters = DeadLetterSwitches {
            poison: false,
            schemaverse: false,
        };
        assert_eq!(made(&options()), Ok(expected));
    }

    #[test]
    fn replicas_become_one_three_or_five() {
        let of = |replicas| {
            made(&StationOptions {
                replicas,
                ..options()
            })
            .map(|station| station.replicas)
        };
        for (asked, given) in [
            (-1, 1),
            (0, 1),
            (1, 1),
            (2, 3),
            (3, 3),
            (4, 3),
            (5, 5),
            (9, 5),
        ] {
            assert_eq!(of(asked), Ok(given));
        }
    }

    #[test]
    fn a_value_that_keeps_nothing_gives_the_default_retention() {
        let of = |kind: &str, retention_value| {
            let options = StationOptions {
                retention_type: kind.to_owned(),
                retention_value,
                ..options()
            };
            made(&options).map(|station| station.retention)
        };
        let hour = StationRetention::MessageAgeSec(3_600);
        assert_eq!(of("messages", 0), Ok(hour));
        assert_eq!(of("bytes", -5), Ok(hour));
        assert_eq!(of("", 7), Ok(hour));
        assert_eq!(of("Messages", 7), Ok(StationRetention::Messages(7)));
        assert_eq!(of("BYTES", 7), Ok(StationRetention::Bytes(7)));
        assert_eq!(of("ack_based", 0), Ok(StationRetention::AckBased));
        assert_eq!(
            of("message_age_sec", 600),
            Ok(StationRetention::MessageAgeSec(600))
        );
        assert_eq!(of("forever", 1), Err(StationError::Retention));
    }

    #[test]
    fn the_duplicate_window_is_bounded_by_a_day_and_by_the_retention() {
        let of = |retention_value, idempotency_window_ms| {
            let retention_type = "message_age_sec".to_owned();
            let options = StationOptions {
                retention_type,
                retention_value,
                idempotency_window_ms,
                ..options()
            };
            made(&options).map(|station| station.idempotency_window_ms)
        };
        assert_eq!(of(3_600, -1), Ok(120_000));
        assert_eq!(of(3_600, 1), Ok(100));
        assert_eq!(of(3_600, 99), Ok(100));
        assert_eq!(of(3_600, 101), Ok(101));
        assert_eq!(of(100_000, 86_400_000), Ok(86_400_000));
        assert_eq!(of(i64::MAX, 86_400_001), Err(StationError::LongWindow));
        assert_eq!(of(119, 0), Err(StationError::WindowBeyondRetention));
        assert_eq!(of(120, 0), Ok(120_000));
    }
}
