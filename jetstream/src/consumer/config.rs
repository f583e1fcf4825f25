//! Consumer configuration as NATS clients write it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stream::config::{is_false, is_zero, is_zero_u64};
use crate::time::Timestamp;

/// Where a consumer begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliverPolicy {
    /// At the first message.
    #[default]
    All,
    /// At the last message.
    Last,
    /// After the last message.
    New,
    /// At a sequence.
    ByStartSequence,
    /// At a time.
    ByStartTime,
    /// At the last message of each subject.
    LastPerSubject,
}

/// How deliveries are settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AckPolicy {
    /// By being sent.
    #[default]
    None,
    /// An ack settles everything up to it.
    All,
    /// Each on its own.
    Explicit,
    /// The answer to a flow control request settles everything up to what it names. For streams
    /// that copy others; nothing is delivered twice.
    FlowControl,
}

/// How fast old messages are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplayPolicy {
    /// As fast as possible.
    #[default]
    Instant,
    /// At the pace they came in.
    Original,
}

/// Configuration of a consumer. Field names, order and omissions on the wire are those of
/// nats-server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConsumerConfig {
    /// Durable name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable_name: Option<String>,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Where to begin.
    #[serde(default)]
    pub deliver_policy: DeliverPolicy,
    /// First sequence with `by_start_sequence`.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub opt_start_seq: u64,
    /// First time with `by_start_time`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opt_start_time: Option<Timestamp>,
    /// How deliveries are settled.
    #[serde(default)]
    pub ack_policy: AckPolicy,
    /// Time until an unsettled delivery is repeated, nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ack_wait: i64,
    /// Most deliveries of a message, -1 for no limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_deliver: i64,
    /// Waits before each redelivery, nanoseconds; the last one repeats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backoff: Vec<i64>,
    /// Only messages whose subject matches.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub filter_subject: String,
    /// Only messages whose subject matches one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter_subjects: Vec<String>,
    /// Pace.
    #[serde(default)]
    pub replay_policy: ReplayPolicy,
    /// Bits per second, push only.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub rate_limit_bps: u64,
    /// Share of acks to sample.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sample_freq: String,
    /// Most waiting pull requests.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_waiting: i64,
    /// Most unsettled deliveries, -1 for no limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_ack_pending: i64,
    /// Flow control, push only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub flow_control: bool,
    /// Headers without payload.
    #[serde(default, skip_serializing_if = "is_false")]
    pub headers_only: bool,
    /// Largest batch of a pull request.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_batch: i64,
    /// Longest expiry of a pull request, nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_expires: i64,
    /// Most bytes of a pull request.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_bytes: i64,
    /// Push target; none for a pull consumer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub deliver_subject: String,
    /// Queue group of the push target.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub deliver_group: String,
    /// Heartbeat, nanoseconds, push only.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub idle_heartbeat: i64,
    /// Time without interest after which the consumer goes, nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inactive_threshold: i64,
    /// Replicas, 0 for those of the stream.
    #[serde(default)]
    pub num_replicas: i64,
    /// Keep the state in memory.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mem_storage: bool,
    /// Made by a server for a mirror.
    #[serde(default, skip_serializing_if = "is_false")]
    pub direct: bool,
    /// Free key-value pairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// No deliveries before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_until: Option<Timestamp>,
    /// Priority groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub priority_groups: Vec<String>,
    /// Priority policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_policy: Option<String>,
    /// Pin time, nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority_timeout: i64,
}

impl ConsumerConfig {
    /// Whether messages are pushed to a subject instead of pulled.
    #[must_use]
    pub fn is_push(&self) -> bool {
        !self.deliver_subject.is_empty()
    }

    /// The filters, none meaning every message.
    #[must_use]
    pub fn filters(&self) -> Vec<&str> {
        if self.filter_subject.is_empty() {
            self.filter_subjects.iter().map(String::as_str).collect()
        } else {
            vec![&self.filter_subject]
        }
    }
}
