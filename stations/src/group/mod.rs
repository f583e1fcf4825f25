//! A consumer group: one durable pull consumer on each partition, and the members that share it.

mod plans;

use menes_jetstream::Timestamp;
use menes_jetstream::consumer::ConsumerConfig;
use menes_jetstream::consumer::config::{AckPolicy, DeliverPolicy, ReplayPolicy};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use plans::{change, creation, empty, join, removal, renewal, update};

use crate::name::{ConsumerName, GroupName};
use crate::producer::ClientKind;
use crate::station::Station;
use crate::station::nanos_of_millis;

/// Time to acknowledge when none was asked for, milliseconds.
pub const DEFAULT_MAX_ACK_TIME_MS: i64 = 30_000;
/// Deliveries when none were asked for, and the most that may be asked for.
pub const MAX_DELIVERIES: i64 = 10;
/// Pull requests that may wait on a durable, as the JetStream default has it.
const MAX_WAITING: i64 = 512;

/// Where a group begins to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "at", content = "value", rename_all = "snake_case")]
pub enum Start {
    /// At the first message.
    All,
    /// After the last message.
    New,
    /// At this sequence on every partition, from 2.
    Sequence(u64),
    /// This many messages before the end of each partition, from 1.
    Last(u64),
}

/// Why a start position is refused. The texts are part of the SDK contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StartError {
    /// Sequences count from 1.
    #[error("startConsumeFromSequence has to be a positive number")]
    Sequence,
    /// −1 stands for no restriction.
    #[error("min value for LastMessages is -1")]
    LastMessages,
    /// Only one of the two.
    #[error(
        "consumer creation options can't contain both startConsumeFromSequence and lastMessages"
    )]
    Both,
}

impl Start {
    /// Reads the two options of a consumer creation.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn from_options(sequence: i64, last_messages: i64) -> Result<Self, StartError> {
        let sequence = match u64::try_from(sequence) {
            Ok(sequence) if sequence > 0 => sequence,
            _ => return Err(StartError::Sequence),
        };
        match (sequence, last_messages) {
            (_, ..=-2) => Err(StartError::LastMessages),
            (2.., 0..) => Err(StartError::Both),
            (2.., _) => Ok(Self::Sequence(sequence)),
            (_, 0) => Ok(Self::New),
            (_, -1) => Ok(Self::All),
            (_, count) => Ok(Self::Last(count.unsigned_abs())),
        }
    }
}

/// When messages that were not acknowledged are tried again, as an operator decided. It holds
/// whatever the members of the group ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Time to acknowledge, milliseconds; without meaning where `backoff_ms` says more.
    pub max_ack_time_ms: i64,
    /// Most deliveries of a message; −1 for no end.
    pub max_msg_deliveries: i64,
    /// Time until the second delivery, the third and so on, milliseconds; the last value holds for
    /// all that follow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backoff_ms: Vec<i64>,
}

/// How far the making or removing of a group has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupStatus {
    /// Some of its durables may be missing, and nobody was told of it.
    Creating,
    /// All durables exist.
    Ready,
    /// To go; some of its durables may be gone.
    Removing,
}

/// A consumer group of one station.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Name, unique in its station.
    pub name: GroupName,
    /// Time a member has to acknowledge, milliseconds.
    pub max_ack_time_ms: i64,
    /// Most deliveries of a message, 1 to [`MAX_DELIVERIES`].
    pub max_msg_deliveries: i64,
    /// Where it began.
    pub start: Start,
    /// With [`Start::Last`]: the first sequence on each partition, by partition number less one.
    /// Kept so that the same request, made again later, asks for the same durables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_sequences: Vec<u64>,
    /// Partitions that the station had when the group began; 0 for all. On those that came later
    /// the group begins at the first message.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub first_partitions: u32,
    /// How messages are tried again; none for what its members asked for last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// How far it is made.
    pub status: GroupStatus,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Group {
    /// A group not made yet, its limits brought into range.
    #[must_use]
    pub fn new(name: GroupName, max_ack_time_ms: i64, max_deliveries: i64, start: Start) -> Self {
        Self {
            name,
            max_ack_time_ms: if max_ack_time_ms <= 0 {
                DEFAULT_MAX_ACK_TIME_MS
            } else {
                max_ack_time_ms
            },
            max_msg_deliveries: match max_deliveries {
                1..=MAX_DELIVERIES => max_deliveries,
                _ => MAX_DELIVERIES,
            },
            start,
            first_sequences: Vec::new(),
            first_partitions: 0,
            retry: None,
            status: GroupStatus::Creating,
        }
    }

    /// Whether the limits that may change on a live group are the same.
    #[must_use]
    pub fn same_limits(&self, other: &Self) -> bool {
        self.max_ack_time_ms == other.max_ack_time_ms
            && self.max_msg_deliveries == other.max_msg_deliveries
            && self.retry == other.retry
    }

    /// How messages are tried again.
    #[must_use]
    pub fn retries(&self) -> RetryPolicy {
        self.retry.clone().unwrap_or(RetryPolicy {
            max_ack_time_ms: self.max_ack_time_ms,
            max_msg_deliveries: self.max_msg_deliveries,
            backoff_ms: Vec::new(),
        })
    }

    /// Configuration of the durable on a partition of `station`.
    #[must_use]
    pub fn consumer_config(&self, station: &Station, partition: u32) -> ConsumerConfig {
        let came_later = self.first_partitions > 0 && partition > self.first_partitions;
        let start = if came_later { Start::All } else { self.start };
        let (deliver_policy, opt_start_seq) = match start {
            Start::All => (DeliverPolicy::All, 0),
            Start::New => (DeliverPolicy::New, 0),
            Start::Sequence(sequence) => (DeliverPolicy::ByStartSequence, sequence),
            Start::Last(_) => (
                DeliverPolicy::ByStartSequence,
                self.first_sequence(partition),
            ),
        };
        let name = self.name.internal();
        let retries = self.retries();
        // The engine wants the first wait twice.
        let first_wait = retries.backoff_ms.first();
        let ack_time = first_wait.copied().unwrap_or(retries.max_ack_time_ms);
        ConsumerConfig {
            durable_name: Some(name.clone()),
            name: Some(name),
            deliver_policy,
            opt_start_seq,
            ack_policy: AckPolicy::Explicit,
            ack_wait: nanos_of_millis(ack_time),
            max_deliver: retries.max_msg_deliveries,
            backoff: retries
                .backoff_ms
                .into_iter()
                .map(nanos_of_millis)
                .collect(),
            filter_subject: station.name.subject(partition),
            replay_policy: ReplayPolicy::Instant,
            max_waiting: MAX_WAITING,
            max_ack_pending: -1,
            ..ConsumerConfig::default()
        }
    }

    fn first_sequence(&self, partition: u32) -> u64 {
        let index = usize::try_from(partition.saturating_sub(1)).unwrap_or(usize::MAX);
        self.first_sequences.get(index).copied().unwrap_or(1)
    }
}

/// The first of the last `count` messages of a partition that ends at `last_seq`.
#[must_use]
pub fn first_of_last(last_seq: u64, count: u64) -> u64 {
    last_seq.saturating_sub(count).saturating_add(1)
}

/// A consumer that joined a group. It stays registered when its connection closes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Name of the consumer.
    pub name: ConsumerName,
    /// Connection it joined from, up to the first `::`.
    pub connection: String,
    /// What it says it is.
    pub kind: ClientKind,
    /// Process it runs in; the connection where the SDK does not tell.
    pub app_id: String,
    /// Language of its SDK.
    pub sdk: String,
    /// User it authenticated as.
    pub user: String,
    /// When it joined last.
    pub joined: Timestamp,
    /// How often it joined and has not left: names need not be unique on a connection.
    pub registrations: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::StationName;

    fn group(start: Start) -> Group {
        Group::new(
            GroupName::parse("Grp.C").expect("a good name"),
            1_000,
            2,
            start,
        )
    }

    fn station() -> Station {
        let name = StationName::parse("st.1").expect("a good name");
        Station::with_defaults(name, "root", Timestamp(1))
    }

    #[test]
    fn the_two_start_options_give_one_position() {
        assert_eq!(Start::from_options(1, -1), Ok(Start::All));
        assert_eq!(Start::from_options(1, 0), Ok(Start::New));
        assert_eq!(Start::from_options(1, 5), Ok(Start::Last(5)));
        assert_eq!(Start::from_options(3, -1), Ok(Start::Sequence(3)));
        assert_eq!(Start::from_options(0, -1), Err(StartError::Sequence));
        assert_eq!(Start::from_options(-1, -7), Err(StartError::Sequence));
        assert_eq!(Start::from_options(1, -2), Err(StartError::LastMessages));
        assert_eq!(Start::from_options(2, 0), Err(StartError::Both));
    }

    #[test]
    fn limits_out_of_range_become_the_defaults() {
        let name = GroupName::parse("g").expect("a good name");
        let limits = |ack, deliveries| {
            let group = Group::new(name.clone(), ack, deliveries, Start::All);
            (group.max_ack_time_ms, group.max_msg_deliveries)
        };
        assert_eq!(limits(0, 0), (30_000, 10));
        assert_eq!(limits(-1, -1), (30_000, 10));
        assert_eq!(limits(1, 1), (1, 1));
        assert_eq!(limits(5_000, 11), (5_000, 10));
    }

    #[test]
    fn a_durable_reads_the_final_subject_of_its_partition() {
        let config = group(Start::All).consumer_config(&station(), 3);
        assert_eq!(config.durable_name.as_deref(), Some("grp#c"));
        assert_eq!(config.name, config.durable_name);
        assert_eq!(config.filter_subject, "st#1$3.final");
        assert_eq!(config.ack_policy, AckPolicy::Explicit);
        assert_eq!((config.ack_wait, config.max_deliver), (1_000_000_000, 2));
        assert_eq!((config.max_ack_pending, config.max_waiting), (-1, 512));
        assert_eq!(
            (config.deliver_policy, config.opt_start_seq),
            (DeliverPolicy::All, 0)
        );
    }

    #[test]
    fn what_an_operator_decides_about_retries_holds() {
        let mut group = group(Start::All);
        group.retry = Some(RetryPolicy {
            max_ack_time_ms: 9,
            max_msg_deliveries: -1,
            backoff_ms: vec![5, 60_000],
        });
        let config = group.consumer_config(&station(), 1);
        assert_eq!(config.backoff, [5_000_000, 60_000_000_000]);
        assert_eq!((config.ack_wait, config.max_deliver), (5_000_000, -1));
        let text = serde_json::to_string(&group).expect("JSON");
        let read: Group = serde_json::from_str(&text).expect("read back");
        assert_eq!(read, group);
        let old = text.replace(
            ",\"retry\":{\"max_ack_time_ms\":9,\"max_msg_deliveries\":-1,\"backoff_ms\":[5,60000]}",
            "",
        );
        let old: Group = serde_json::from_str(&old).expect("written before there were policies");
        assert_eq!(old.retry, None);
    }

    #[test]
    fn the_last_messages_are_counted_on_each_partition() {
        let mut group = group(Start::Last(2));
        group.first_sequences = vec![first_of_last(7, 2), first_of_last(0, 2)];
        let start = |partition| {
            let config = group.consumer_config(&station(), partition);
            (config.deliver_policy, config.opt_start_seq)
        };
        assert_eq!(start(1), (DeliverPolicy::ByStartSequence, 6));
        assert_eq!(start(2), (DeliverPolicy::ByStartSequence, 1));
    }
}
