//! What a stream may be configured to be.
//!
//! [`validate`] fills in defaults and refuses nonsense; [`create`] and [`update`] are the whole way
//! from a request to a configuration that can be stored. A feature that this version does not have
//! is refused by name, never accepted and ignored.
//!
//! Bounds beyond the reference server's: at most [`MAX_SUBJECTS`] subjects.

use std::time::Duration;

use menes_protocol::subject;
use menes_protocol::transform::{Transform, TransformError};

use super::duration::Nanoseconds;
use super::error::ApiError;
use super::request::StreamRequest;
use super::{metadata, name};
use crate::consumer::ConsumerConfig;
use crate::stream::StreamConfig;
use crate::stream::config::{Discard, Retention, Storage, SubjectTransform};

/// Most bytes of a description, of streams and consumers alike.
pub const MAX_DESCRIPTION: usize = 4096;
/// Most subjects of a stream. Comparing each with each is done in one turn of the engine.
pub const MAX_SUBJECTS: usize = 2048;
/// Most replicas.
pub const MAX_REPLICAS: i64 = 5;
/// How long message ids are remembered, if nothing is said.
pub const DEFAULT_DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MILLISECOND;

/// Which optional features there are. A stream that asks for another one is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `Nats-TTL`.
    pub msg_ttl: bool,
    /// More than one replica.
    pub replicas: bool,
}

/// What a stream has to respect besides itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// What there is.
    pub features: Features,
    /// Longest duplicate window; zero for no limit.
    pub duplicate_window: Duration,
    /// Whether `max_bytes` has to be set.
    pub max_bytes_required: bool,
    /// Highest `max_bytes` of a stream on disk; 0 or less for no limit.
    pub file_max_bytes: i64,
    /// Highest `max_bytes` of a stream in memory; 0 or less for no limit.
    pub memory_max_bytes: i64,
    /// Most consumers of a stream in this account; 0 or less for no limit.
    pub max_consumers: i64,
}

/// The configuration of a stream that is to be made under the name `in_subject`.
///
/// Whether it exists already ([`same`]) and whether its subjects are free ([`overlapping`]) is the
/// caller's to ask, in this order.
///
/// # Errors
///
/// What the asker is told.
pub fn create(
    request: StreamRequest,
    in_subject: &str,
    bounds: &Bounds,
) -> Result<StreamConfig, ApiError> {
    let StreamRequest { config, pedantic } = request;
    if config.name != in_subject {
        return Err(ApiError::stream_name_does_not_match_subject());
    }
    name::refuse_stream_path(in_subject)?;
    if config.sealed {
        return Err(invalid("stream configuration for create can not be sealed"));
    }
    if config.mirror_direct && config.mirror.is_none() {
        return Err(invalid("stream has no mirror but does have mirror direct"));
    }
    let mut config = validate(config, pedantic, bounds)?;
    check_replicas(&config, bounds)?;
    metadata::stamp_stream(&mut config);
    Ok(config)
}

/// The configuration that replaces `current`, `None` if there is no stream of that name.
///
/// Whether its subjects are free ([`overlapping`]) and its consumers respect new limits
/// ([`check_consumers`]) is the caller's to ask.
///
/// # Errors
///
/// What the asker is told.
pub fn update(
    request: StreamRequest,
    in_subject: &str,
    current: Option<&StreamConfig>,
    bounds: &Bounds,
) -> Result<StreamConfig, ApiError> {
    let StreamRequest { config, pedantic } = request;
    let mut config = validate(config, pedantic, bounds)?;
    if config.name != in_subject {
        return Err(ApiError::stream_name_does_not_match_subject());
    }
    let current = current.ok_or_else(ApiError::stream_not_found)?;
    check_replicas(&config, bounds)?;
    check_change(current, &config)?;
    if config.sealed {
        config.max_age = 0;
        config.discard = Discard::New;
        config.deny_delete = true;
        config.deny_purge = true;
        config.allow_rollup_hdrs = false;
    }
    metadata::stamp_stream(&mut config);
    Ok(config)
}

/// Whether a stream with the configuration `current` is what a request to create `wanted` asks
/// for. Both are normalised; servers' metadata does not count.
#[must_use]
pub fn same(current: &StreamConfig, wanted: &StreamConfig) -> bool {
    let mut wanted = wanted.clone();
    if metadata::same(&current.metadata, &wanted.metadata) {
        wanted.metadata.clone_from(&current.metadata);
    }
    wanted == *current
}

/// Whether one of `subjects` overlaps one that another stream of the account captures.
pub fn overlapping<'a>(
    subjects: &[String],
    others: impl IntoIterator<Item = &'a StreamConfig>,
) -> bool {
    others.into_iter().any(|other| {
        other.subjects.iter().any(|theirs| {
            subjects
                .iter()
                .any(|ours| subject::overlaps(ours.as_bytes(), theirs.as_bytes()))
        })
    })
}

/// Refuses new limits on consumers that an existing one does not respect.
///
/// # Errors
///
/// 10069 with the names of the consumers.
pub fn check_consumers<'a>(
    current: &StreamConfig,
    wanted: &StreamConfig,
    consumers: impl IntoIterator<Item = (&'a str, &'a ConsumerConfig)>,
) -> Result<(), ApiError> {
    let (old, new) = (&current.consumer_limits, &wanted.consumer_limits);
    let tightened = |old: i64, new: i64| new > 0 && old != new;
    if !tightened(old.inactive_threshold, new.inactive_threshold)
        && !tightened(old.max_ack_pending, new.max_ack_pending)
    {
        return Ok(());
    }
    let beyond = |limit: i64, value: i64| limit > 0 && value > limit;
    let names: Vec<&str> = consumers
        .into_iter()
        .filter(|(_, consumer)| {
            beyond(new.inactive_threshold, consumer.inactive_threshold)
                || beyond(new.max_ack_pending, consumer.max_ack_pending)
        })
        .map(|(name, _)| name)
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    let names = names.join(", ");
    Err(ApiError::stream_update(format_args!(
        "change to limits violates consumers: {names}"
    )))
}

/// Refuses to purge a stream that keeps its messages.
///
/// # Errors
///
/// 10109 or 10110.
pub fn check_purge(config: &StreamConfig) -> Result<(), ApiError> {
    if config.sealed {
        Err(ApiError::stream_sealed())
    } else if config.deny_purge {
        Err(ApiError::purge("stream purge not permitted"))
    } else {
        Ok(())
    }
}

/// Refuses to delete a message of a stream that keeps its messages.
///
/// # Errors
///
/// 10109 or 10057.
pub fn check_message_delete(config: &StreamConfig) -> Result<(), ApiError> {
    if config.sealed {
        Err(ApiError::stream_sealed())
    } else if config.deny_delete {
        Err(ApiError::message_delete("message delete not permitted"))
    } else {
        Ok(())
    }
}

/// Refuses a stream whose promised bytes do not fit. `promised` are the `max_bytes` of all other
/// streams that share the `limit`; -1 is no limit.
///
/// # Errors
///
/// 10028 or 10047, by storage.
pub fn check_reservation(
    config: &StreamConfig,
    promised: impl IntoIterator<Item = i64>,
    limit: i64,
) -> Result<(), ApiError> {
    let Ok(limit) = u128::try_from(limit) else {
        return Ok(());
    };
    let bytes = |max_bytes: i64| u128::try_from(max_bytes).unwrap_or(0);
    let sum: u128 = promised.into_iter().map(bytes).sum();
    if sum + bytes(config.max_bytes) <= limit {
        return Ok(());
    }
    Err(match config.storage {
        Storage::File => ApiError::insufficient_storage(),
        Storage::Memory => ApiError::insufficient_memory(),
    })
}

/// Fills in defaults and refuses what no stream may be.
///
/// # Errors
///
/// Mostly 10052 with a text of its own.
pub fn validate(
    mut config: StreamConfig,
    pedantic: bool,
    bounds: &Bounds,
) -> Result<StreamConfig, ApiError> {
    check_texts(&config)?;
    fill_limits(&mut config, pedantic)?;
    check_age_and_window(&mut config, pedantic, bounds)?;
    check_combinations(&mut config, pedantic)?;
    check_features(&config, bounds.features)?;
    check_persist_mode(&config)?;
    origins::check(&config)?;
    if !config.subjects.is_empty() {
        check_subjects(&config)?;
    } else if config.mirror.is_none() && config.sources.is_empty() {
        config.subjects.push(config.name.clone());
    }
    check_account(&config, bounds)?;
    check_transform(&config)?;
    check_republish(&mut config, pedantic)?;
    if config
        .placement
        .as_ref()
        .is_some_and(|placement| placement.get("preferred").is_some())
    {
        return Err(invalid("preferred server not permitted in placement"));
    }
    Ok(config)
}

fn check_texts(config: &StreamConfig) -> Result<(), ApiError> {
    if !name::is_valid(&config.name) {
        return Err(invalid(
            r"stream name is required and can not contain '.', '*', '>', '\', '/'",
        ));
    }
    if config.name.len() > name::MAX_NAME {
        let most = name::MAX_NAME;
        return Err(invalid(format_args!(
            "stream name is too long, maximum allowed is {most}"
        )));
    }
    if config.description.len() > MAX_DESCRIPTION {
        return Err(invalid(format_args!(
            "stream description is too long, maximum allowed is {MAX_DESCRIPTION}"
        )));
    }
    if metadata::size(&config.metadata) > metadata::MAX_METADATA {
        let most = metadata::MAX_METADATA;
        return Err(invalid(format_args!(
            "stream metadata exceeds maximum size of {most} bytes"
        )));
    }
    Ok(())
}

fn fill_limits(config: &mut StreamConfig, pedantic: bool) -> Result<(), ApiError> {
    if config.num_replicas == 0 {
        config.num_replicas = 1;
    }
    if config.num_replicas > MAX_REPLICAS {
        return Err(invalid(format_args!("maximum replicas is {MAX_REPLICAS}")));
    }
    if config.num_replicas < 0 {
        return Err(ApiError::replicas_negative());
    }
    let mut size = i64::from(config.max_msg_size);
    for (name, value) in [
        ("max_msgs", &mut config.max_msgs),
        ("max_msgs_per_subject", &mut config.max_msgs_per_subject),
        ("max_bytes", &mut config.max_bytes),
        ("max_msg_size", &mut size),
        ("max_consumers", &mut config.max_consumers),
    ] {
        if pedantic && *value < -1 {
            return Err(ApiError::pedantic(format_args!("{name} must be set to -1")));
        }
        if *value <= 0 {
            *value = -1;
        }
    }
    config.max_msg_size = i32::try_from(size).expect("it was an i32 or became -1");
    Ok(())
}

fn check_age_and_window(
    config: &mut StreamConfig,
    pedantic: bool,
    bounds: &Bounds,
) -> Result<(), ApiError> {
    let age = config.max_age;
    if age < 0 {
        return Err(invalid("max age can not be negative"));
    }
    if age != 0 && age < 100 * MILLISECOND {
        return Err(invalid("max age needs to be >= 100ms"));
    }
    let limit = nanoseconds(bounds.duplicate_window);
    if config.duplicate_window == 0 && config.mirror.is_none() && config.sources.is_empty() {
        let mut window = nanoseconds(DEFAULT_DUPLICATE_WINDOW);
        if limit > 0 && window > limit {
            if pedantic {
                return Err(ApiError::pedantic(
                    "duplicate window limits are higher than current limits",
                ));
            }
            window = limit;
        }
        if age != 0 && age < window {
            if pedantic {
                return Err(ApiError::pedantic(
                    "duplicate window cannot be bigger than max age",
                ));
            }
            window = age;
        }
        config.duplicate_window = window;
    }
    let window = config.duplicate_window;
    if window < 0 {
        return Err(invalid("duplicates window can not be negative"));
    }
    if age != 0 && window > age {
        return Err(invalid("duplicates window can not be larger then max age"));
    }
    if limit > 0 && window > limit {
        let limit = Nanoseconds(limit);
        return Err(invalid(format_args!(
            "duplicates window can not be larger then server limit of {limit}"
        )));
    }
    if window > 0 && window < 100 * MILLISECOND {
        return Err(invalid("duplicates window needs to be >= 100ms"));
    }
    Ok(())
}

fn check_combinations(config: &mut StreamConfig, pedantic: bool) -> Result<(), ApiError> {
    if config.deny_purge && config.allow_rollup_hdrs {
        return Err(invalid("roll-ups require the purge permission"));
    }
    if config.allow_msg_counter {
        let conflicts = [
            (config.discard == Discard::New, "cannot use discard new"),
            (config.allow_msg_ttl, "cannot use message TTLs"),
            (config.allow_msg_schedules, "cannot use message schedules"),
            (
                config.retention != Retention::Limits,
                "can only use limits retention",
            ),
        ];
        if let Some((_, why)) = conflicts.into_iter().find(|(is_so, _)| *is_so) {
            return Err(invalid(format_args!("counter stream {why}")));
        }
    }
    if config.discard_new_per_subject {
        if config.discard != Discard::New {
            return Err(invalid(
                "discard new per subject requires discard new policy to be set",
            ));
        }
        if config.max_msgs_per_subject <= 0 {
            return Err(invalid(
                "discard new per subject requires max msgs per subject > 0",
            ));
        }
    }
    check_markers(config, pedantic)?;
    if !config.allow_msg_schedules {
        return Ok(());
    }
    if config.discard == Discard::New {
        return Err(invalid("message scheduling cannot use discard new"));
    }
    if !config.allow_rollup_hdrs {
        if pedantic {
            return Err(invalid(
                "message scheduling cannot be set if roll-ups are disabled",
            ));
        }
        config.allow_rollup_hdrs = true;
        config.deny_purge = false;
    }
    Ok(())
}

fn check_markers(config: &mut StreamConfig, pedantic: bool) -> Result<(), ApiError> {
    let marker = config.subject_delete_marker_ttl;
    if marker < 0 {
        return Err(invalid("subject delete marker TTL must not be negative"));
    }
    if marker == 0 {
        return Ok(());
    }
    if marker < SECOND {
        return Err(invalid(
            "subject delete marker TTL must be at least 1 second",
        ));
    }
    if pedantic && !config.allow_msg_ttl {
        return Err(invalid(
            "subject delete marker cannot be set if message TTLs are disabled",
        ));
    }
    if pedantic && !config.allow_rollup_hdrs {
        return Err(invalid(
            "subject delete marker cannot be set if roll-ups are disabled",
        ));
    }
    config.allow_msg_ttl = true;
    if !config.allow_rollup_hdrs {
        config.allow_rollup_hdrs = true;
        config.deny_purge = false;
    }
    Ok(())
}

/// Refuses what is not built, in words that say what it is.
fn check_features(config: &StreamConfig, features: Features) -> Result<(), ApiError> {
    if config.allow_msg_ttl && !features.msg_ttl {
        return Err(invalid(
            "per-message TTLs are not supported by this version",
        ));
    }
    Ok(())
}

/// Everything is durable before it is acknowledged, so the mode changes nothing; it is refused
/// where the reference server refuses it.
fn check_persist_mode(config: &StreamConfig) -> Result<(), ApiError> {
    if config.persist_mode.as_deref() != Some("async") {
        return Ok(());
    }
    if config.storage != Storage::File {
        return Err(invalid(
            "async persist mode is only supported on file storage",
        ));
    }
    if config.num_replicas > 1 {
        return Err(invalid(
            "async persist mode is not supported on replicated streams",
        ));
    }
    if config.allow_atomic {
        return Err(invalid(
            "async persist mode is not supported with atomic batch publish",
        ));
    }
    Ok(())
}

/// Whether `text` may name a stream.
fn is_stream_name(text: &str) -> bool {
    name::is_valid(text)
}

fn check_transform(config: &StreamConfig) -> Result<(), ApiError> {
    let Some(SubjectTransform { src, dest }) = &config.subject_transform else {
        return Ok(());
    };
    if !src.is_empty() && !subject::is_valid(src.as_bytes()) {
        let why = format_args!("invalid subject {src}");
        return Err(ApiError::stream_transform_source(why));
    }
    check_mapping(src, dest).map_err(ApiError::stream_transform_destination)
}

/// Whether a transform can be made; one without a destination is none.
fn check_mapping(src: &str, dest: &str) -> Result<(), TransformError> {
    if dest.is_empty() {
        return Ok(());
    }
    Transform::mapping(src, dest).map(|_| ())
}

fn check_republish(config: &mut StreamConfig, pedantic: bool) -> Result<(), ApiError> {
    let Some(republish) = &mut config.republish else {
        return Ok(());
    };
    if republish.src.is_empty() {
        if pedantic {
            return Err(ApiError::pedantic("republish source can not be empty"));
        }
        ">".clone_into(&mut republish.src);
    }
    // From everything to everything is a cycle, unless the messages are stored under other subjects
    // than they came with.
    if republish.src == ">"
        && republish.dest == ">"
        && let [only] = config.subjects.as_slice()
        && let Some(transform) = &config.subject_transform
        && transform.src == *only
    {
        if pedantic {
            return Err(ApiError::pedantic(
                "implicit republish based on subject transform",
            ));
        }
        republish.src.clone_from(&transform.dest);
        republish.dest.clone_from(&transform.dest);
    }
    let forms_cycle = config
        .subjects
        .iter()
        .any(|subject| subject::overlaps(republish.dest.as_bytes(), subject.as_bytes()));
    if forms_cycle {
        return Err(invalid(
            "stream configuration for republish destination forms a cycle",
        ));
    }
    if !republish.dest.is_empty() && Transform::new(&republish.src, &republish.dest).is_err() {
        let (src, dest) = (&republish.src, &republish.dest);
        return Err(invalid(format_args!(
            "stream configuration for republish with transform from '{src}' to '{dest}' not valid"
        )));
    }
    Ok(())
}

fn check_subjects(config: &StreamConfig) -> Result<(), ApiError> {
    if config.subjects.len() > MAX_SUBJECTS {
        return Err(invalid(format_args!(
            "maximum number of subjects is {MAX_SUBJECTS}"
        )));
    }
    for (index, text) in config.subjects.iter().enumerate() {
        let ours = text.as_bytes();
        if !subject::is_valid(ours) {
            return Err(invalid("invalid subject"));
        }
        if text == ">" {
            if !config.no_ack {
                return Err(invalid("capturing all subjects requires no-ack to be true"));
            }
            if config.num_replicas != 1 {
                return Err(invalid("capturing all subjects requires replicas of 1"));
            }
        }
        if !config.no_ack {
            check_reserved(ours)?;
        }
        for other in &config.subjects[index + 1..] {
            if subject::is_valid(other.as_bytes()) && subject::overlaps(other.as_bytes(), ours) {
                let (text, other) = (super::json::quote(text), super::json::quote(other));
                return Err(invalid(format_args!(
                    "subject {text} overlaps with {other}"
                )));
            }
        }
    }
    Ok(())
}

/// Refuses to capture what servers talk among themselves, advisories apart: the ack to a captured
/// API request would answer the request.
fn check_reserved(ours: &[u8]) -> Result<(), ApiError> {
    let of_api = [b"$JS.>".as_slice(), b"$JSC.>", b"$NRG.>"];
    if of_api
        .iter()
        .any(|reserved| subject::overlaps(ours, reserved))
        && !subject::is_subset(ours, b"$JS.EVENT.>")
    {
        return Err(invalid(
            "subjects that overlap with jetstream api require no-ack to be true",
        ));
    }
    if subject::overlaps(ours, b"$SYS.>") && !subject::is_subset(ours, b"$SYS.ACCOUNT.>") {
        return Err(invalid(
            "subjects that overlap with system api require no-ack to be true",
        ));
    }
    Ok(())
}

fn check_account(config: &StreamConfig, bounds: &Bounds) -> Result<(), ApiError> {
    if bounds.max_bytes_required && config.max_bytes <= 0 {
        return Err(ApiError::max_bytes_required());
    }
    let most = match config.storage {
        Storage::File => bounds.file_max_bytes,
        Storage::Memory => bounds.memory_max_bytes,
    };
    if most > 0 && config.max_bytes > most {
        return Err(ApiError::max_bytes_exceeds_account_limit());
    }
    if bounds.max_consumers > 0 && config.max_consumers > bounds.max_consumers {
        return Err(ApiError::consumer_limit_reached());
    }
    Ok(())
}

fn check_replicas(config: &StreamConfig, bounds: &Bounds) -> Result<(), ApiError> {
    if config.num_replicas > 1 && !bounds.features.replicas {
        return Err(ApiError::replicas_not_supported());
    }
    Ok(())
}

/// Refuses to change what has to stay as it was made.
///
/// # Errors
///
/// 10052 with a text of its own.
pub fn check_change(current: &StreamConfig, wanted: &StreamConfig) -> Result<(), ApiError> {
    let retention_moves = current.retention != wanted.retention
        && [current.retention, wanted.retention].contains(&Retention::WorkQueue);
    let refusals = [
        (
            current.name != wanted.name,
            "stream configuration name must match original",
        ),
        (
            current.storage != wanted.storage,
            "stream configuration update can not change storage type",
        ),
        (
            retention_moves,
            "stream configuration update can not change retention policy to/from workqueue",
        ),
        (
            current.sealed && !wanted.sealed,
            "stream configuration update can not unseal a sealed stream",
        ),
        (
            current.deny_delete && !wanted.deny_delete,
            "stream configuration update can not cancel deny message deletes",
        ),
        (
            current.deny_purge && !wanted.deny_purge,
            "stream configuration update can not cancel deny purge",
        ),
        (
            current.allow_msg_ttl && !wanted.allow_msg_ttl,
            "message TTL status can not be disabled",
        ),
        (
            current.allow_msg_counter != wanted.allow_msg_counter,
            "stream configuration update can not change message counter setting",
        ),
        (
            current.allow_msg_schedules && !wanted.allow_msg_schedules,
            "message schedules can not be disabled",
        ),
        (
            current.persist_mode != wanted.persist_mode,
            "stream configuration update can not change persist mode",
        ),
    ];
    // A mirror may only become a stream of its own.
    if wanted.mirror.is_some() && wanted.mirror != current.mirror {
        return Err(ApiError::mirror_not_updatable());
    }
    match refusals.into_iter().find(|(refused, _)| *refused) {
        Some((_, why)) => Err(invalid(why)),
        None => Ok(()),
    }
}

fn invalid(why: impl std::fmt::Display) -> ApiError {
    ApiError::stream_config(why)
}

fn nanoseconds(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

mod origins;
#[cfg(test)]
mod tests;

pub use origins::follow as follow_origins;
