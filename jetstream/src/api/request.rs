//! Bodies of requests.
//!
//! Each type has a `parse`: bytes in, a typed request out, or the error the asker is told. The
//! rules about empty bodies and unknown fields are those of the endpoint. What a configuration may
//! say is judged later, in [`super::stream_config`] and [`super::consumer_config`].

use serde::Deserialize;

use super::error::ApiError;
use super::json::{self, Kind, Refusal, Shape, Unknown};
use crate::command::Purge;
use crate::consumer::ConsumerConfig;
use crate::ids::StreamSeq;
use crate::stream::{StreamConfig, StreamState};
use crate::time::Timestamp;

/// Header that names the least API level a request needs.
pub const REQUIRED_LEVEL_HEADER: &str = "Nats-Required-Api-Level";

/// Refuses a request that needs a higher level than `level`. `required` is the value of the header
/// [`REQUIRED_LEVEL_HEADER`].
///
/// # Errors
///
/// 10185, also for what is not a number.
pub fn check_required_level(required: Option<&[u8]>, level: u32) -> Result<(), ApiError> {
    let Some(required) = required.filter(|value| !value.is_empty()) else {
        return Ok(());
    };
    let number = std::str::from_utf8(required)
        .ok()
        .and_then(|text| text.parse::<i64>().ok());
    match number {
        Some(number) if number <= i64::from(level) => Ok(()),
        _ => Err(ApiError::api_level_required()),
    }
}

/// Body of `STREAM.CREATE` and `STREAM.UPDATE`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamRequest {
    /// As it came, not yet normalised.
    pub config: StreamConfig,
    /// Refuse what would have to be normalised.
    pub pedantic: bool,
}

impl StreamRequest {
    /// Reads the body.
    ///
    /// # Errors
    ///
    /// 10025.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = json::object(&STREAM_REQUEST, body)?;
        let pedantic = fields.remove("pedantic").is_some_and(|value| value == true);
        let mut config: StreamConfig = json::finish(fields)?;
        if config.persist_mode.as_deref() == Some("default") {
            config.persist_mode = None;
        }
        config.placement = config.placement.take().and_then(without_empties);
        Ok(Self { config, pedantic })
    }
}

/// The object without empty strings and lists, none if nothing is left.
fn without_empties(value: serde_json::Value) -> Option<serde_json::Value> {
    let serde_json::Value::Object(mut fields) = value else {
        return Some(value);
    };
    fields.retain(|_, value| {
        value.as_str() != Some("") && !value.as_array().is_some_and(Vec::is_empty)
    });
    (!fields.is_empty()).then_some(serde_json::Value::Object(fields))
}

/// Body of `STREAM.INFO`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamInfoRequest {
    /// Number of subjects to leave out at the start.
    pub offset: u64,
    /// Whether the deleted sequences are wanted.
    pub deleted_details: bool,
    /// Filter of the subjects whose message counts are wanted.
    pub subjects_filter: Option<String>,
}

impl StreamInfoRequest {
    /// Reads the body; one that is no JSON object asks for nothing special.
    ///
    /// # Errors
    ///
    /// 10025.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        const SHAPE: Shape = Shape(&[
            ("offset", Kind::Int),
            ("deleted_details", Kind::Bool),
            ("subjects_filter", Kind::Text),
        ]);
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Body {
            offset: i64,
            deleted_details: bool,
            subjects_filter: String,
        }
        let body: Body = if_structured(&SHAPE, body)?;
        Ok(Self {
            offset: clamp(body.offset),
            deleted_details: body.deleted_details,
            subjects_filter: some(body.subjects_filter),
        })
    }
}

/// Body of `STREAM.NAMES` and `STREAM.LIST`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamListRequest {
    /// Number of streams to leave out at the start.
    pub offset: u64,
    /// Only streams with a subject that overlaps this one.
    pub subject: Option<String>,
}

impl StreamListRequest {
    /// Reads the body; one that is no JSON object asks for everything.
    ///
    /// # Errors
    ///
    /// 10025.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        const SHAPE: Shape = Shape(&[("offset", Kind::Int), ("subject", Kind::Text)]);
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Body {
            offset: i64,
            subject: String,
        }
        let body: Body = if_structured(&SHAPE, body)?;
        Ok(Self {
            offset: clamp(body.offset),
            subject: some(body.subject),
        })
    }
}

/// Body of `CONSUMER.NAMES` and `CONSUMER.LIST`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerListRequest {
    /// Number of consumers to leave out at the start.
    pub offset: u64,
}

impl ConsumerListRequest {
    /// Reads the body; one that is no JSON object asks for everything.
    ///
    /// # Errors
    ///
    /// 10025.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        const SHAPE: Shape = Shape(&[("offset", Kind::Int)]);
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Body {
            offset: i64,
        }
        let body: Body = if_structured(&SHAPE, body)?;
        Ok(Self {
            offset: clamp(body.offset),
        })
    }
}

/// Reads the body of `STREAM.PURGE`. An empty one removes everything; unlike with the reference
/// server, one that is not JSON removes nothing.
///
/// # Errors
///
/// 10025; 10003 for a sequence together with a number to keep.
pub fn parse_purge(body: &[u8]) -> Result<Purge, ApiError> {
    const SHAPE: Shape = Shape(&[
        ("seq", Kind::Unsigned),
        ("filter", Kind::Text),
        ("keep", Kind::Unsigned),
    ]);
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Body {
        seq: u64,
        filter: String,
        keep: u64,
    }
    let body: Body = json::decode(&SHAPE, body)?;
    if body.seq > 0 && body.keep > 0 {
        return Err(ApiError::bad_request());
    }
    Ok(Purge {
        filter: some(body.filter),
        below: (body.seq > 0).then_some(StreamSeq(body.seq)),
        keep: (body.keep > 0).then_some(body.keep),
        ..Purge::default()
    })
}

/// Where a search begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At this sequence or the first one after it; 0 is the beginning.
    Seq(StreamSeq),
    /// At the first message of this time or later.
    Time(Timestamp),
}

/// Which message is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageSelector {
    /// The one with this sequence.
    Seq(StreamSeq),
    /// The first one of this time or later.
    Time(Timestamp),
    /// The last one whose subject matches.
    Last(String),
    /// The first one whose subject matches, from there on.
    Next {
        /// Pattern of the subject.
        filter: String,
        /// Where to begin.
        from: Start,
    },
}

/// Body of `STREAM.MSG.GET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageGetRequest {
    /// Which message.
    pub selector: MessageSelector,
    /// Leave out its header.
    pub no_headers: bool,
}

impl MessageGetRequest {
    /// Reads the body.
    ///
    /// # Errors
    ///
    /// 10025; 10003 if it selects nothing or selects in two ways.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        if json::is_empty_request(body) {
            return Err(ApiError::bad_request());
        }
        let fields: MessageFields = json::decode(&MESSAGE_FIELDS, body)?;
        if fields.batch > 0 || fields.max_bytes > 0 {
            return Err(ApiError::bad_request());
        }
        let selector = fields.selector().ok_or_else(ApiError::bad_request)?;
        Ok(Self {
            selector,
            no_headers: fields.no_hdr,
        })
    }
}

/// The fields that say which messages are wanted, of `STREAM.MSG.GET` and `DIRECT.GET`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MessageFields {
    pub(super) seq: u64,
    pub(super) last_by_subj: String,
    pub(super) next_by_subj: String,
    pub(super) batch: i64,
    pub(super) max_bytes: i64,
    pub(super) start_time: Option<Timestamp>,
    pub(super) multi_last: Vec<String>,
    pub(super) up_to_seq: u64,
    pub(super) up_to_time: Option<Timestamp>,
    pub(super) no_hdr: bool,
}

pub(super) const MESSAGE_FIELDS: Shape = Shape(&[
    ("seq", Kind::Unsigned),
    ("last_by_subj", Kind::Text),
    ("next_by_subj", Kind::Text),
    ("batch", Kind::Int),
    ("max_bytes", Kind::Int),
    ("start_time", Kind::Time),
    ("multi_last", Kind::Texts),
    ("up_to_seq", Kind::Unsigned),
    ("up_to_time", Kind::Time),
    ("no_hdr", Kind::Bool),
]);

impl MessageFields {
    /// The one way in which the message is selected. The filter for the next message may go with
    /// a start, nothing else goes together.
    pub(super) fn selector(&self) -> Option<MessageSelector> {
        let (last, next) = (&self.last_by_subj, &self.next_by_subj);
        match (self.seq, self.start_time, last.is_empty(), next.is_empty()) {
            (seq @ 1.., None, true, true) => Some(MessageSelector::Seq(StreamSeq(seq))),
            (0, Some(time), true, true) => Some(MessageSelector::Time(time)),
            (0, None, false, true) => Some(MessageSelector::Last(last.clone())),
            (seq, None, true, false) => Some(MessageSelector::Next {
                filter: next.clone(),
                from: Start::Seq(StreamSeq(seq)),
            }),
            (0, Some(time), true, false) => Some(MessageSelector::Next {
                filter: next.clone(),
                from: Start::Time(time),
            }),
            _ => None,
        }
    }
}

/// Body of `STREAM.MSG.DELETE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageDeleteRequest {
    /// Which message.
    pub seq: StreamSeq,
    /// Whether its bytes may stay on disk until they are overwritten.
    pub no_erase: bool,
}

impl MessageDeleteRequest {
    /// Reads the body.
    ///
    /// # Errors
    ///
    /// 10025; 10003 if it is empty.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        const SHAPE: Shape = Shape(&[("seq", Kind::Unsigned), ("no_erase", Kind::Bool)]);
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Body {
            seq: u64,
            no_erase: bool,
        }
        if json::is_empty_request(body) {
            return Err(ApiError::bad_request());
        }
        let body: Body = json::decode(&SHAPE, body)?;
        Ok(Self {
            seq: StreamSeq(body.seq),
            no_erase: body.no_erase,
        })
    }
}

/// Body of `STREAM.SNAPSHOT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// Where the chunks go.
    pub deliver_subject: String,
    /// Leave out the consumers.
    pub no_consumers: bool,
    /// Bytes of a chunk, within 1 KiB and 1 MiB, 128 KiB if not said.
    pub chunk_size: usize,
    /// Bytes on the way at a time, within 1 KiB and 32 MiB, 8 MiB if not said.
    pub window_size: usize,
    /// Check all messages first.
    pub check: bool,
}

impl SnapshotRequest {
    /// Reads the body.
    ///
    /// # Errors
    ///
    /// 10025; 10003 if it is empty; 10015 for a deliver subject that cannot be published to.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        const SHAPE: Shape = Shape(&[
            ("deliver_subject", Kind::Text),
            ("no_consumers", Kind::Bool),
            ("chunk_size", Kind::Int),
            ("window_size", Kind::Int),
            ("jsck", Kind::Bool),
        ]);
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Body {
            deliver_subject: String,
            no_consumers: bool,
            chunk_size: i64,
            window_size: i64,
            jsck: bool,
        }
        if json::is_empty_request(body) {
            return Err(ApiError::bad_request());
        }
        let body: Body = json::decode(&SHAPE, body)?;
        if !menes_protocol::subject::is_literal(body.deliver_subject.as_bytes()) {
            return Err(ApiError::snapshot_deliver_subject_invalid());
        }
        let within = |size: i64, default: usize, most: usize| match usize::try_from(size) {
            Ok(0) | Err(_) => default,
            Ok(size) => size.clamp(1 << 10, most),
        };
        Ok(Self {
            deliver_subject: body.deliver_subject,
            no_consumers: body.no_consumers,
            chunk_size: within(body.chunk_size, 128 << 10, 1 << 20),
            window_size: within(body.window_size, 8 << 20, 32 << 20),
            check: body.jsck,
        })
    }
}

/// Body of `STREAM.RESTORE`.
#[derive(Clone, Debug, PartialEq)]
pub struct RestoreRequest {
    /// Configuration of the stream to be.
    pub config: StreamConfig,
    /// Its state when the snapshot was taken.
    pub state: StreamState,
}

impl RestoreRequest {
    /// Reads the body.
    ///
    /// # Errors
    ///
    /// 10025; 10003 if it is empty.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        const SHAPE: Shape = Shape(&[
            ("config", Kind::Object(&STREAM_REQUEST)),
            ("state", Kind::Object(&STATE)),
        ]);
        const STATE: Shape = Shape(&[
            ("messages", Kind::Unsigned),
            ("bytes", Kind::Unsigned),
            ("first_seq", Kind::Unsigned),
            ("first_ts", Kind::Time),
            ("last_seq", Kind::Unsigned),
            ("last_ts", Kind::Time),
            ("num_subjects", Kind::Unsigned),
            ("subjects", Kind::Any),
            ("num_deleted", Kind::Unsigned),
            ("deleted", Kind::Any),
            ("lost", Kind::Any),
            ("consumer_count", Kind::Unsigned),
        ]);
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Body {
            config: StreamConfig,
            state: State,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct State {
            messages: u64,
            bytes: u64,
            first_seq: u64,
            first_ts: Timestamp,
            last_seq: u64,
            last_ts: Timestamp,
            consumer_count: u64,
        }
        if json::is_empty_request(body) {
            return Err(ApiError::bad_request());
        }
        let Body { config, state } = json::decode(&SHAPE, body)?;
        let state = StreamState {
            messages: state.messages,
            bytes: state.bytes,
            first_seq: state.first_seq,
            first_ts: state.first_ts,
            last_seq: state.last_seq,
            last_ts: state.last_ts,
            consumer_count: state.consumer_count,
            ..StreamState::default()
        };
        Ok(Self { config, state })
    }
}

/// What a request to create a consumer may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Make it, or change it if it exists.
    #[default]
    #[serde(rename = "")]
    CreateOrUpdate,
    /// Make it; it may exist only with this very configuration.
    Create,
    /// Change it; it has to exist.
    Update,
}

/// Body of `CONSUMER.CREATE` and `CONSUMER.DURABLE.CREATE`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConsumerRequest {
    /// Name of the stream, which has to be the one in the subject.
    pub stream_name: String,
    /// As it came, not yet normalised.
    pub config: ConsumerConfig,
    /// What may be done.
    pub action: Action,
    /// Refuse what would have to be normalised.
    pub pedantic: bool,
}

impl ConsumerRequest {
    /// Reads the body.
    ///
    /// # Errors
    ///
    /// 10025; 10012 for consumers this version does not have.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        const SHAPE: Shape = Shape(&[
            ("stream_name", Kind::Text),
            ("config", Kind::Object(&CONSUMER_CONFIG)),
            (
                "action",
                Kind::Choice(
                    &["", "create", "update"],
                    Refusal::Unknown("unknown consumer action"),
                ),
            ),
            ("pedantic", Kind::Bool),
        ]);
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Body {
            stream_name: String,
            config: ConsumerConfig,
            action: Action,
            pedantic: bool,
        }
        let mut fields = json::object(&SHAPE, body)?;
        if let Some(config) = fields
            .get_mut("config")
            .and_then(|value| value.as_object_mut())
            && config.remove("sourcing").is_some_and(|value| value == true)
        {
            // nats-server then asks again as its older versions do.
            return Err(ApiError::invalid_json(
                "sourcing consumers are not supported by this version",
            ));
        }
        let Body {
            stream_name,
            mut config,
            action,
            pedantic,
        } = json::finish(fields)?;
        config.name = config.name.and_then(some);
        config.durable_name = config.durable_name.and_then(some);
        if config.priority_policy.as_deref() == Some("none") {
            config.priority_policy = None;
        }
        Ok(Self {
            stream_name,
            config,
            action,
            pedantic,
        })
    }
}

/// Reads the body of `CONSUMER.PAUSE`: until when, [`Timestamp::ZERO`] to resume.
///
/// # Errors
///
/// 10025.
pub fn parse_pause(body: &[u8]) -> Result<Timestamp, ApiError> {
    const SHAPE: Shape = Shape(&[("pause_until", Kind::Time)]);
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Body {
        pause_until: Timestamp,
    }
    // What is no document asks for nothing.
    Ok(if_structured::<Body>(&SHAPE, body)?.pause_until)
}

/// Reads the body of `CONSUMER.UNPIN`: the priority group.
///
/// # Errors
///
/// 10025, also without a group; 10162 for what cannot name one.
pub fn parse_unpin(body: &[u8]) -> Result<String, ApiError> {
    const SHAPE: Shape = Shape(&[("group", Kind::Text)]);
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Body {
        group: String,
    }
    if json::is_blank(body) {
        return Err(ApiError::invalid_json("unexpected end of JSON input"));
    }
    let Body { group } = json::finish(json::object_with(&SHAPE, body, Unknown::Dropped)?)?;
    if group.is_empty() {
        return Err(ApiError::invalid_json("consumer group not specified"));
    }
    if !super::consumer_config::is_valid_group(&group) {
        return Err(ApiError::priority_group_invalid());
    }
    Ok(group)
}

/// Reads the body of `CONSUMER.RESET`: the sequence to go on from, none for the ack floor.
///
/// # Errors
///
/// 10025.
pub fn parse_reset(body: &[u8]) -> Result<Option<StreamSeq>, ApiError> {
    const SHAPE: Shape = Shape(&[("seq", Kind::Unsigned)]);
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Body {
        seq: u64,
    }
    let Body { seq } = json::finish(json::object_with(&SHAPE, body, Unknown::Dropped)?)?;
    Ok((seq > 0).then_some(StreamSeq(seq)))
}

/// Refuses a body where none is wanted.
///
/// # Errors
///
/// 10038 for anything but nothing and `{}`.
pub fn expect_empty(body: &[u8]) -> Result<(), ApiError> {
    if json::is_empty_request(body) {
        Ok(())
    } else {
        Err(ApiError::request_not_empty())
    }
}

fn if_structured<T: serde::de::DeserializeOwned + Default>(
    shape: &Shape,
    body: &[u8],
) -> Result<T, ApiError> {
    if json::is_structured(body) {
        json::decode(shape, body)
    } else {
        Ok(T::default())
    }
}

fn clamp(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

const STREAM_REQUEST: Shape = Shape(&[
    ("name", Kind::Text),
    ("description", Kind::Text),
    ("subjects", Kind::Texts),
    (
        "retention",
        Kind::Choice(
            &["limits", "interest", "workqueue"],
            Refusal::CannotUnmarshal,
        ),
    ),
    ("max_consumers", Kind::Int),
    ("max_msgs", Kind::Int),
    ("max_bytes", Kind::Int),
    ("max_age", Kind::Int),
    ("max_msgs_per_subject", Kind::Int),
    ("max_msg_size", Kind::Int32),
    (
        "discard",
        Kind::Choice(&["old", "new"], Refusal::CannotUnmarshal),
    ),
    (
        "storage",
        Kind::Choice(&["file", "memory"], Refusal::CannotUnmarshal),
    ),
    ("num_replicas", Kind::Int),
    ("no_ack", Kind::Bool),
    ("duplicate_window", Kind::Int),
    ("placement", Kind::Object(&PLACEMENT)),
    ("mirror", Kind::Object(&SOURCE)),
    ("sources", Kind::Objects(&SOURCE)),
    (
        "compression",
        Kind::Choice(
            &["none", "s2"],
            Refusal::Plain("unknown compression algorithm"),
        ),
    ),
    ("first_seq", Kind::Unsigned),
    ("subject_transform", Kind::Object(&TRANSFORM)),
    ("republish", Kind::Object(&REPUBLISH)),
    ("allow_direct", Kind::Bool),
    ("mirror_direct", Kind::Bool),
    ("discard_new_per_subject", Kind::Bool),
    ("sealed", Kind::Bool),
    ("deny_delete", Kind::Bool),
    ("deny_purge", Kind::Bool),
    ("allow_rollup_hdrs", Kind::Bool),
    ("consumer_limits", Kind::Object(&CONSUMER_LIMITS)),
    ("allow_msg_ttl", Kind::Bool),
    ("subject_delete_marker_ttl", Kind::Int),
    ("allow_msg_counter", Kind::Bool),
    ("allow_atomic", Kind::Bool),
    ("allow_msg_schedules", Kind::Bool),
    (
        "persist_mode",
        Kind::Choice(&["", "default", "async"], Refusal::CannotUnmarshal),
    ),
    ("allow_batched", Kind::Bool),
    ("metadata", Kind::TextMap),
    ("pedantic", Kind::Bool),
]);

const PLACEMENT: Shape = Shape(&[
    ("cluster", Kind::Text),
    ("tags", Kind::Texts),
    ("preferred", Kind::Text),
]);

const TRANSFORM: Shape = Shape(&[("src", Kind::Text), ("dest", Kind::Text)]);

const REPUBLISH: Shape = Shape(&[
    ("src", Kind::Text),
    ("dest", Kind::Text),
    ("headers_only", Kind::Bool),
]);

const CONSUMER_LIMITS: Shape = Shape(&[
    ("inactive_threshold", Kind::Int),
    ("max_ack_pending", Kind::Int),
]);

const SOURCE: Shape = Shape(&[
    ("name", Kind::Text),
    ("opt_start_seq", Kind::Unsigned),
    ("opt_start_time", Kind::Time),
    ("filter_subject", Kind::Text),
    ("subject_transforms", Kind::Objects(&TRANSFORM)),
    (
        "external",
        Kind::Object(&Shape(&[("api", Kind::Text), ("deliver", Kind::Text)])),
    ),
    (
        "consumer",
        Kind::Object(&Shape(&[
            ("name", Kind::Text),
            ("deliver_subject", Kind::Text),
        ])),
    ),
]);

const CONSUMER_CONFIG: Shape = Shape(&[
    ("durable_name", Kind::Text),
    ("name", Kind::Text),
    ("description", Kind::Text),
    (
        "deliver_policy",
        Kind::Choice(
            &[
                "all",
                "last",
                "new",
                "by_start_sequence",
                "by_start_time",
                "last_per_subject",
            ],
            Refusal::CannotUnmarshal,
        ),
    ),
    ("opt_start_seq", Kind::Unsigned),
    ("opt_start_time", Kind::Time),
    (
        "ack_policy",
        Kind::Choice(
            &["none", "all", "explicit", "flow_control"],
            Refusal::CannotUnmarshal,
        ),
    ),
    ("ack_wait", Kind::Int),
    ("max_deliver", Kind::Int),
    ("backoff", Kind::Ints),
    ("filter_subject", Kind::Text),
    ("filter_subjects", Kind::Texts),
    (
        "replay_policy",
        Kind::Choice(&["instant", "original"], Refusal::CannotUnmarshal),
    ),
    ("rate_limit_bps", Kind::Unsigned),
    ("sample_freq", Kind::Text),
    ("max_waiting", Kind::Int),
    ("max_ack_pending", Kind::Int),
    ("flow_control", Kind::Bool),
    ("headers_only", Kind::Bool),
    ("max_batch", Kind::Int),
    ("max_expires", Kind::Int),
    ("max_bytes", Kind::Int),
    ("deliver_subject", Kind::Text),
    ("deliver_group", Kind::Text),
    ("idle_heartbeat", Kind::Int),
    ("inactive_threshold", Kind::Int),
    ("num_replicas", Kind::Int),
    ("mem_storage", Kind::Bool),
    ("direct", Kind::Bool),
    ("sourcing", Kind::Bool),
    ("metadata", Kind::TextMap),
    ("pause_until", Kind::Time),
    ("priority_groups", Kind::Texts),
    (
        "priority_policy",
        Kind::Choice(
            &["", "none", "overflow", "pinned_client", "prioritized"],
            Refusal::Unknown("unknown priority policy"),
        ),
    ),
    ("priority_timeout", Kind::Int),
]);
