//! The streams behind a station, one for each partition.

use std::time::Duration;

use menes_jetstream::stream::StreamConfig;
use menes_jetstream::stream::config::{Discard, Retention};

use crate::name::StationName;
use crate::station::{Station, StationRetention};

impl StationName {
    /// Name of the stream of a partition, `<internal>$<partition>`.
    #[must_use]
    pub fn stream(&self, partition: u32) -> String {
        format!("{}${partition}", self.internal())
    }

    /// Subject of ordinary messages of a partition, `<internal>$<partition>.final`.
    #[must_use]
    pub fn subject(&self, partition: u32) -> String {
        format!("{}${partition}.final", self.internal())
    }
}

impl Station {
    /// Configuration of the stream of a partition.
    #[must_use]
    pub fn stream_config(&self, partition: u32) -> StreamConfig {
        let stream = self.name.stream(partition);
        let (retention, max_age, max_msgs, max_bytes) = match self.retention {
            StationRetention::MessageAgeSec(secs) => (
                Retention::Limits,
                secs.saturating_mul(1_000_000_000),
                -1,
                -1,
            ),
            StationRetention::Messages(count) => (Retention::Limits, 0, count, -1),
            StationRetention::Bytes(bytes) => (Retention::Limits, 0, -1, bytes),
            StationRetention::AckBased => (Retention::Interest, 0, -1, -1),
        };
        StreamConfig {
            subjects: vec![format!("{stream}.>")],
            name: stream,
            retention,
            max_consumers: -1,
            max_msgs,
            max_bytes,
            max_age,
            max_msgs_per_subject: -1,
            max_msg_size: -1,
            discard: Discard::Old,
            storage: self.storage,
            num_replicas: self.replicas,
            duplicate_window: nanos_of_millis(self.idempotency_window_ms),
            ..StreamConfig::default()
        }
    }
}

/// Milliseconds as the nanoseconds of a NATS configuration, saturating.
pub(crate) fn nanos_of_millis(millis: i64) -> i64 {
    let nanos = Duration::from_millis(u64::try_from(millis).unwrap_or(0)).as_nanos();
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use menes_jetstream::Timestamp;
    use menes_jetstream::stream::config::Storage;

    use super::*;

    #[test]
    fn a_partition_is_a_stream_with_one_subject() {
        let name = StationName::parse("My.Station").expect("a good name");
        let mut station = Station::with_defaults(name, "root", Timestamp(1));
        station.storage = Storage::Memory;
        station.replicas = 3;
        let config = station.stream_config(2);
        assert_eq!(config.name, "my#station$2");
        assert_eq!(config.subjects, ["my#station$2.>"]);
        assert_eq!(station.name.subject(2), "my#station$2.final");
        assert_eq!(config.max_age, 3_600_000_000_000);
        assert_eq!(
            (config.max_msgs, config.max_bytes, config.max_consumers),
            (-1, -1, -1)
        );
        assert_eq!(config.duplicate_window, 120_000_000_000);
        assert_eq!((config.storage, config.num_replicas), (Storage::Memory, 3));
    }

    #[test]
    fn each_retention_sets_its_own_limit() {
        let name = StationName::parse("s").expect("a good name");
        let mut station = Station::with_defaults(name, "root", Timestamp(1));
        let limits = |station: &Station| {
            let config = station.stream_config(1);
            (
                config.retention,
                config.max_age,
                config.max_msgs,
                config.max_bytes,
            )
        };
        station.retention = StationRetention::Messages(7);
        assert_eq!(limits(&station), (Retention::Limits, 0, 7, -1));
        station.retention = StationRetention::Bytes(9);
        assert_eq!(limits(&station), (Retention::Limits, 0, -1, 9));
        station.retention = StationRetention::AckBased;
        assert_eq!(limits(&station), (Retention::Interest, 0, -1, -1));
        station.retention = StationRetention::MessageAgeSec(i64::MAX);
        assert_eq!(limits(&station).1, i64::MAX);
    }
}
