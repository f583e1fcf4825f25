//! Bodies of answers.
//!
//! An answer is `type`, then `error` if it is a refusal, then the fields of its body. Some bodies
//! have fields that are there even in a refusal, with their zero values; [`error`] knows which.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize, Serializer};

use super::error::ApiError;
use super::json;
use super::subject::Call;
pub use crate::consumer::info::{ConsumerInfo, PriorityGroupInfo, SequenceInfo};
use crate::stream::config::{External, SubjectTransform};
use crate::stream::{StreamConfig, StreamState};
use crate::time::Timestamp;

/// Most names in one answer.
pub const NAMES_LIMIT: u64 = 1024;
/// Most infos in one answer.
pub const LIST_LIMIT: u64 = 256;
/// Most subjects in one stream info.
pub const SUBJECTS_LIMIT: u64 = 100_000;

/// Text of the answer to `call` that carries `body`.
#[must_use]
pub fn ok<B: Body>(call: &Call<'_>, body: &B) -> Vec<u8> {
    json::to_vec(&Reply {
        kind: call.response_type(),
        error: None,
        body,
    })
}

/// Text of the refusal of `call`.
#[must_use]
pub fn error(call: &Call<'_>, error: &ApiError) -> Vec<u8> {
    fn refuse<B: Body>(call: &Call<'_>, error: &ApiError) -> Vec<u8> {
        json::to_vec(&Reply {
            kind: call.response_type(),
            error: Some(error),
            body: &B::default(),
        })
    }
    match call {
        Call::StreamInfo { .. } => refuse::<StreamInfoBody>(call, error),
        Call::StreamNames => refuse::<StreamNames>(call, error),
        Call::StreamList => refuse::<StreamList>(call, error),
        Call::StreamPurge { .. } => refuse::<Purged>(call, error),
        Call::StreamRestore { .. } => refuse::<Restore>(call, error),
        Call::ConsumerNames { .. } => refuse::<ConsumerNames>(call, error),
        Call::ConsumerList { .. } => refuse::<ConsumerList>(call, error),
        Call::ConsumerPause { .. } => refuse::<Paused>(call, error),
        Call::ConsumerReset { .. } => refuse::<ConsumerReset>(call, error),
        _ => refuse::<Empty>(call, error),
    }
}

/// What an answer carries. The default goes with a refusal.
pub trait Body: Serialize + Default {}

#[derive(Serialize)]
struct Reply<'a, B> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ApiError>,
    #[serde(flatten)]
    body: &'a B,
}

macro_rules! bodies {
    ($($name:ty),+ $(,)?) => { $(impl Body for $name {})+ };
}

bodies!(
    Empty,
    Success,
    StreamCreated,
    StreamUpdated,
    StreamInfoBody,
    StreamNames,
    StreamList,
    Purged,
    MessageFound,
    Snapshot,
    Restore,
    ConsumerBody,
    ConsumerReset,
    ConsumerNames,
    ConsumerList,
    Paused,
    AccountInfo,
);

/// Nothing: unpin, and most refusals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// That it is done: deletions, step-downs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    /// Whether it is.
    #[serde(default, skip_serializing_if = "is_false")]
    pub success: bool,
}

impl Success {
    /// It is done.
    pub const DONE: Self = Self { success: true };
}

/// Answer of `STREAM.CREATE`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamCreated {
    /// The stream.
    #[serde(flatten)]
    pub info: Option<StreamInfo>,
    /// Set on a single server, also if the stream existed just so.
    #[serde(default, skip_serializing_if = "is_false")]
    pub did_create: bool,
}

/// Answer of `STREAM.UPDATE`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamUpdated {
    /// The stream.
    #[serde(flatten)]
    pub info: Option<StreamInfo>,
}

/// Answer of `STREAM.INFO`. The paging is that of the subjects, all zero unless they were asked
/// for and there are some.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamInfoBody {
    /// Part of the subjects that is shown.
    #[serde(flatten)]
    pub page: Page,
    /// The stream.
    #[serde(flatten)]
    pub info: Option<StreamInfo>,
}

/// Answer of `STREAM.NAMES`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamNames {
    /// Part of the names that is shown.
    #[serde(flatten)]
    pub page: Page,
    /// Sorted names; written as `null` if there are none.
    #[serde(serialize_with = "null_if_empty")]
    pub streams: Vec<String>,
}

fn null_if_empty<S: Serializer>(names: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    if names.is_empty() {
        serializer.serialize_none()
    } else {
        names.serialize(serializer)
    }
}

/// Answer of `STREAM.LIST`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamList {
    /// Part of the streams that is shown.
    #[serde(flatten)]
    pub page: Page,
    /// Sorted by name.
    pub streams: Vec<StreamInfo>,
    /// Names of streams that did not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Why streams are offline, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub offline: BTreeMap<String, String>,
}

/// Answer of `STREAM.PURGE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// Whether it is done.
    #[serde(default, skip_serializing_if = "is_false")]
    pub success: bool,
    /// Messages removed.
    pub purged: u64,
}

/// Answer of `STREAM.MSG.GET`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageFound {
    /// The message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<StoredMessage>,
}

/// A message as JSON shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMessage {
    /// Subject.
    pub subject: String,
    /// Sequence.
    pub seq: u64,
    /// Header block, base64.
    #[serde(default, rename = "hdrs", skip_serializing_if = "String::is_empty")]
    pub headers: String,
    /// Payload, base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// When it was stored.
    pub time: Timestamp,
}

impl StoredMessage {
    /// Shows a message. `headers` is its whole block, empty if it has none or they are not wanted.
    #[must_use]
    pub fn new(subject: &[u8], seq: u64, headers: &[u8], payload: &[u8], time: Timestamp) -> Self {
        Self {
            subject: String::from_utf8_lossy(subject).into_owned(),
            seq,
            headers: data_encoding::BASE64.encode(headers),
            data: data_encoding::BASE64.encode(payload),
            time,
        }
    }
}

/// Answer of `STREAM.SNAPSHOT`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Configuration of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<StreamConfig>,
    /// Its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StreamState>,
}

/// Answer of `STREAM.RESTORE`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// Where the chunks have to go.
    pub deliver_subject: String,
}

/// Answer of `CONSUMER.CREATE` and `CONSUMER.INFO`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConsumerBody {
    /// The consumer.
    #[serde(flatten)]
    pub info: Option<ConsumerInfo>,
}

/// Answer of `CONSUMER.RESET`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConsumerReset {
    /// The consumer.
    #[serde(flatten)]
    pub info: Option<ConsumerInfo>,
    /// Sequence of the next message.
    pub reset_seq: u64,
}

/// Answer of `CONSUMER.NAMES`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerNames {
    /// Part of the names that is shown.
    #[serde(flatten)]
    pub page: Page,
    /// Sorted names.
    pub consumers: Vec<String>,
}

/// Answer of `CONSUMER.LIST`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConsumerList {
    /// Part of the consumers that is shown.
    #[serde(flatten)]
    pub page: Page,
    /// Sorted by name.
    pub consumers: Vec<ConsumerInfo>,
    /// Names of consumers that did not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Why consumers are offline, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub offline: BTreeMap<String, String>,
}

/// Answer of `CONSUMER.PAUSE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Whether it is paused now.
    pub paused: bool,
    /// Until when.
    pub pause_until: Timestamp,
    /// Nanoseconds left.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pause_remaining: i64,
}

impl Paused {
    /// State of a consumer whose pause ends at `until`, at the time `now`.
    #[must_use]
    pub fn at(now: Timestamp, until: Timestamp) -> Self {
        let remaining = until.since(now).as_nanos();
        Self {
            paused: remaining > 0,
            pause_until: until,
            pause_remaining: i64::try_from(remaining).unwrap_or(i64::MAX),
        }
    }
}

/// Everything about a stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamInfo {
    /// Configuration.
    pub config: StreamConfig,
    /// When it was made.
    pub created: Timestamp,
    /// Counters.
    pub state: StreamState,
    /// JetStream domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Where it lives; shown by `STREAM.INFO` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterInfo>,
    /// How a mirror stands with its origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<SourceInfo>,
    /// How the stream stands with its sources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceInfo>,
    /// When this was gathered.
    #[serde(default)]
    pub ts: Timestamp,
}

/// How a stream stands with an origin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Name of the origin.
    pub name: String,
    /// The way to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// Messages that are still to come.
    pub lag: u64,
    /// Last sequence taken from a source.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub seq: u64,
    /// Nanoseconds since something was heard of it, -1 for never.
    pub active: i64,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
    /// Which subjects are wanted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub filter_subject: String,
    /// Which subjects are wanted, and what they become.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_transforms: Vec<SubjectTransform>,
}

/// Where a stream or consumer lives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// Name of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name of the Raft group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft_group: Option<String>,
    /// Name of the leading server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Since when it leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_since: Option<Timestamp>,
    /// The other members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<PeerInfo>,
}

/// A member of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Name of the server.
    pub name: String,
    /// Whether it was seen lately and has caught up.
    pub current: bool,
    /// Whether it was not seen lately.
    #[serde(default, skip_serializing_if = "is_false")]
    pub offline: bool,
    /// Nanoseconds since it was seen.
    pub active: i64,
    /// Operations it is behind.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub lag: u64,
    /// Hash of its name.
    #[serde(default)]
    pub peer: String,
}

/// Answer of `INFO`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AccountInfo {
    /// The account, none in a refusal.
    #[serde(flatten)]
    pub stats: Option<AccountStats>,
}

/// Usage and limits of an account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AccountStats {
    /// Sums over all tiers.
    #[serde(flatten)]
    pub total: Tier,
    /// JetStream domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Requests to the API.
    pub api: ApiStats,
    /// By name of the tier, where limits are tiered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tiers: BTreeMap<String, Tier>,
}

/// Usage and limits of one tier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tier {
    /// Bytes in memory.
    pub memory: u64,
    /// Bytes on disk.
    pub storage: u64,
    /// Bytes in memory promised to streams.
    #[serde(default)]
    pub reserved_memory: u64,
    /// Bytes on disk promised to streams.
    #[serde(default)]
    pub reserved_storage: u64,
    /// Streams.
    pub streams: u64,
    /// Consumers.
    pub consumers: u64,
    /// Limits.
    pub limits: AccountLimits,
}

/// Limits of an account; -1 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountLimits {
    /// Bytes in memory.
    pub max_memory: i64,
    /// Bytes on disk.
    pub max_storage: i64,
    /// Streams.
    pub max_streams: i64,
    /// Consumers of a stream.
    pub max_consumers: i64,
    /// Unsettled deliveries of a consumer.
    pub max_ack_pending: i64,
    /// Bytes of a stream in memory.
    pub memory_max_stream_bytes: i64,
    /// Bytes of a stream on disk.
    pub storage_max_stream_bytes: i64,
    /// Whether a stream has to set `max_bytes`.
    pub max_bytes_required: bool,
    /// They are those of the tier of streams with one replica, and shown as such.
    #[serde(skip)]
    pub is_tier: bool,
}

impl AccountLimits {
    /// What is shown in the place of limits that are given by tier.
    pub const ELSEWHERE: Self = Self {
        max_memory: 0,
        max_storage: 0,
        max_streams: 0,
        max_consumers: 0,
        max_ack_pending: 0,
        memory_max_stream_bytes: 0,
        storage_max_stream_bytes: 0,
        max_bytes_required: false,
        is_tier: true,
    };
}

impl Default for AccountLimits {
    /// No limits.
    fn default() -> Self {
        Self {
            max_memory: -1,
            max_storage: -1,
            max_streams: -1,
            max_consumers: -1,
            max_ack_pending: -1,
            memory_max_stream_bytes: -1,
            storage_max_stream_bytes: -1,
            max_bytes_required: false,
            is_tier: false,
        }
    }
}

/// Counters of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiStats {
    /// API level.
    pub level: u32,
    /// Requests.
    pub total: u64,
    /// Of them, refused.
    pub errors: u64,
    /// Of them, not answered yet.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub inflight: u64,
}

/// Which part of a listing is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// How many there are.
    pub total: u64,
    /// How many are left out at the start.
    pub offset: u64,
    /// How many are shown at most.
    pub limit: u64,
}

impl Page {
    /// The part of `total` entries from `offset` on, at most `limit`. An offset beyond the end
    /// shows nothing.
    #[must_use]
    pub fn new(total: usize, offset: u64, limit: u64) -> Self {
        let total = u64::try_from(total).unwrap_or(u64::MAX);
        Self {
            total,
            offset: offset.min(total),
            limit,
        }
    }

    /// Which entries are shown.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        let index = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let end = self.offset.saturating_add(self.limit).min(self.total);
        index(self.offset)..index(end)
    }
}

fn is_false(value: &bool) -> bool {
    !*value
}
fn is_zero(value: &i64) -> bool {
    *value == 0
}
fn is_zero_u64(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).expect("JSON is text")
    }

    #[test]
    fn a_message_carries_base64() {
        let call = Call::MessageGet { stream: "P" };
        let time = Timestamp::parse("2026-01-01T00:00:00Z").expect("a time");
        let block = b"NATS/1.0\r\nA: 1\r\nNats-Sequence: 77\r\n\r\n";
        let body = |headers: &[u8]| MessageFound {
            message: Some(StoredMessage::new(b"p.c", 3, headers, b"three <&>", time)),
        };
        assert_eq!(
            text(ok(&call, &body(block))),
            r#"{"type":"io.nats.jetstream.api.v1.stream_msg_get_response","message":{"subject":"p.c","seq":3,"hdrs":"TkFUUy8xLjANCkE6IDENCk5hdHMtU2VxdWVuY2U6IDc3DQoNCg==","data":"dGhyZWUgPCY+","time":"2026-01-01T00:00:00Z"}}"#
        );
        assert!(!text(ok(&call, &body(b""))).contains("hdrs"));
    }

    #[test]
    fn account_info_shows_usage_limits_and_level() {
        let stats = AccountStats {
            total: Tier {
                storage: 187,
                streams: 1,
                ..Tier::default()
            },
            api: ApiStats {
                level: 5,
                total: 1,
                ..ApiStats::default()
            },
            ..AccountStats::default()
        };
        assert_eq!(
            text(ok(&Call::AccountInfo, &AccountInfo { stats: Some(stats) })),
            r#"{"type":"io.nats.jetstream.api.v1.account_info_response","memory":0,"storage":187,"reserved_memory":0,"reserved_storage":0,"streams":1,"consumers":0,"limits":{"max_memory":-1,"max_storage":-1,"max_streams":-1,"max_consumers":-1,"max_ack_pending":-1,"memory_max_stream_bytes":-1,"storage_max_stream_bytes":-1,"max_bytes_required":false},"api":{"level":5,"total":1,"errors":0}}"#
        );
        assert_eq!(
            text(error(
                &Call::AccountInfo,
                &ApiError::not_enabled_for_account()
            )),
            r#"{"type":"io.nats.jetstream.api.v1.account_info_response","error":{"code":503,"err_code":10039,"description":"JetStream not enabled for account"}}"#
        );
    }

    #[test]
    fn what_is_not_known_is_a_bad_request_to_the_system() {
        assert_eq!(
            text(error(&Call::Unknown, &ApiError::bad_request())),
            r#"{"type":"io.nats.jetstream.api.v1.system_response","error":{"code":400,"err_code":10003,"description":"bad request"}}"#
        );
    }

    #[test]
    fn a_pause_says_what_is_left() {
        let paused = Paused::at(Timestamp(100), Timestamp(250));
        assert_eq!((paused.paused, paused.pause_remaining), (true, 150));
        assert_eq!(
            text(ok(
                &Call::ConsumerPause {
                    stream: "S",
                    consumer: "C"
                },
                &paused
            )),
            r#"{"type":"io.nats.jetstream.api.v1.consumer_pause_response","paused":true,"pause_until":"1970-01-01T00:00:00.00000025Z","pause_remaining":150}"#
        );
        assert!(!Paused::at(Timestamp(100), Timestamp(100)).paused);
        assert!(!Paused::at(Timestamp(100), Timestamp::ZERO).paused);
    }

    #[test]
    fn pages_end_where_the_listing_ends() {
        for (total, offset, limit, range) in [
            (0, 0, 10, 0..0),
            (5, 0, 10, 0..5),
            (5, 2, 2, 2..4),
            (5, 5, 2, 5..5),
            (5, 9, 2, 5..5),
            (5, u64::MAX, u64::MAX, 5..5),
            (5, 1, u64::MAX, 1..5),
        ] {
            assert_eq!(
                Page::new(total, offset, limit).range(),
                range,
                "{total} {offset} {limit}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_page_is_always_inside(total in 0..usize::MAX, offset: u64, limit: u64) {
            let range = Page::new(total, offset, limit).range();
            prop_assert!(range.start <= range.end && range.end <= total);
        }
    }
}
