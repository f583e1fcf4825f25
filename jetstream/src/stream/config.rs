//! Stream configuration as NATS clients write it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Which messages a stream keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retention {
    /// Until a limit removes them.
    #[default]
    Limits,
    /// Until every consumer that wants them has settled them.
    Interest,
    /// Until one consumer has settled them.
    WorkQueue,
}

/// What happens when a limit is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discard {
    /// The oldest messages go.
    #[default]
    Old,
    /// The new message is refused.
    New,
}

/// Where messages are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// On disk, durable before the ack.
    #[default]
    File,
    /// In memory, gone with the process.
    Memory,
}

/// Compression of stored messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// None.
    #[default]
    None,
    /// S2.
    S2,
}

/// Limits that a stream puts on its consumers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerLimits {
    /// Longest inactive threshold, nanoseconds; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inactive_threshold: i64,
    /// Highest `max_ack_pending`; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_ack_pending: i64,
}

/// Renames subjects on their way in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectTransform {
    /// Pattern.
    #[serde(default)]
    pub src: String,
    /// Replacement.
    #[serde(default)]
    pub dest: String,
}

/// Publishes stored messages again, on another subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Republish {
    /// Pattern of the stored subject.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub src: String,
    /// What it becomes.
    #[serde(default)]
    pub dest: String,
    /// Leave out the payload.
    #[serde(default, skip_serializing_if = "is_false")]
    pub headers_only: bool,
}

/// A stream that another one copies messages from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSource {
    /// Name of the origin.
    #[serde(default)]
    pub name: String,
    /// First sequence wanted, 0 for all.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub opt_start_seq: u64,
    /// Time of the first message wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opt_start_time: Option<Timestamp>,
    /// Which subjects are wanted, empty for all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub filter_subject: String,
    /// Which subjects are wanted, and what they become here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_transforms: Vec<SubjectTransform>,
    /// How to reach the origin in another account or domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// A consumer of the origin made for this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<SourceConsumer>,
}

/// The way to a stream in another account or domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// What its API subjects begin with here instead of `$JS.API`.
    #[serde(default)]
    pub api: String,
    /// What deliveries to this side begin with there.
    #[serde(default)]
    pub deliver: String,
}

/// A durable consumer that feeds a mirror or source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceConsumer {
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where it delivers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub deliver_subject: String,
}

/// Configuration of a stream. Field names, order and omissions on the wire are those of
/// nats-server; numbers are normalised (`-1` for "no limit") before they get here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamConfig {
    /// Name, 1 to 255 characters.
    #[serde(default)]
    pub name: String,
    /// Free text, at most 4096 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Subjects the stream captures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    /// Retention policy.
    #[serde(default)]
    pub retention: Retention,
    /// Most consumers, -1 for no limit.
    #[serde(default)]
    pub max_consumers: i64,
    /// Most messages, -1 for no limit.
    #[serde(default)]
    pub max_msgs: i64,
    /// Most bytes, -1 for no limit.
    #[serde(default)]
    pub max_bytes: i64,
    /// Longest age of a message, nanoseconds, 0 for no limit.
    #[serde(default)]
    pub max_age: i64,
    /// Most messages per subject, -1 for no limit.
    #[serde(default)]
    pub max_msgs_per_subject: i64,
    /// Largest message, header and payload, -1 for no limit.
    #[serde(default, skip_serializing_if = "is_zero_i32")]
    pub max_msg_size: i32,
    /// What to do at a limit.
    #[serde(default)]
    pub discard: Discard,
    /// Storage kind.
    #[serde(default)]
    pub storage: Storage,
    /// Replicas.
    #[serde(default)]
    pub num_replicas: i64,
    /// No publish acks.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_ack: bool,
    /// Duplicate window, nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub duplicate_window: i64,
    /// Where replicas should live; kept as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<serde_json::Value>,
    /// Origin of a mirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<StreamSource>,
    /// Streams whose messages are added to this one's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<StreamSource>,
    /// Compression.
    #[serde(default)]
    pub compression: Compression,
    /// Sequence of the first message, 0 for 1.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub first_seq: u64,
    /// Subject transform on the way in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_transform: Option<SubjectTransform>,
    /// Publishes stored messages again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub republish: Option<Republish>,
    /// Direct get allowed.
    #[serde(default)]
    pub allow_direct: bool,
    /// Direct get through mirrors.
    #[serde(default)]
    pub mirror_direct: bool,
    /// Discard new per subject.
    #[serde(default, skip_serializing_if = "is_false")]
    pub discard_new_per_subject: bool,
    /// No more changes.
    #[serde(default)]
    pub sealed: bool,
    /// Messages cannot be deleted by request.
    #[serde(default)]
    pub deny_delete: bool,
    /// The stream cannot be purged by request.
    #[serde(default)]
    pub deny_purge: bool,
    /// `Nats-Rollup` allowed.
    #[serde(default)]
    pub allow_rollup_hdrs: bool,
    /// Limits on consumers.
    #[serde(default)]
    pub consumer_limits: ConsumerLimits,
    /// `Nats-TTL` allowed.
    #[serde(default)]
    pub allow_msg_ttl: bool,
    /// Time that delete markers stay, nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub subject_delete_marker_ttl: i64,
    /// Counter stream.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_msg_counter: bool,
    /// Atomic batches allowed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_atomic: bool,
    /// Scheduled messages allowed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_msg_schedules: bool,
    /// Persist mode, `default` or `async`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persist_mode: Option<String>,
    /// Fast batches allowed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_batched: bool,
    /// Free key-value pairs, at most 128 KiB in all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// Counters of a stream as its info shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    /// Messages stored.
    pub messages: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// First sequence; last + 1 when empty, 0 before the first message.
    pub first_seq: u64,
    /// Time of the first message.
    pub first_ts: Timestamp,
    /// Last sequence given.
    pub last_seq: u64,
    /// Time of the last message.
    pub last_ts: Timestamp,
    /// Distinct subjects.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub num_subjects: u64,
    /// Messages per subject, only where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subjects: Option<BTreeMap<String, u64>>,
    /// Deleted between first and last.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub num_deleted: u64,
    /// Their sequences, only where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Vec<u64>>,
    /// Consumers.
    pub consumer_count: u64,
}

pub(crate) fn is_zero(value: &i64) -> bool {
    *value == 0
}
pub(crate) fn is_zero_i32(value: &i32) -> bool {
    *value == 0
}
pub(crate) fn is_zero_u64(value: &u64) -> bool {
    *value == 0
}
pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}
