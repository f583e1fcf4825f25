//! What a consumer may be configured to be.
//!
//! [`create`] is the whole way from a request to what has to be done: make a consumer, change one,
//! or nothing because it is there already. It reads the stream's configuration and those of its
//! consumers, and touches nothing.
//!
//! Bounds beyond the reference server's: at most [`MAX_FILTERS`] filters.

use std::collections::BTreeMap;

use menes_protocol::subject;

use super::duration::Nanoseconds;
use super::error::ApiError;
use super::request::{Action, ConsumerRequest};
use super::stream_config::MAX_DESCRIPTION;
use super::subject::Call;
use super::{metadata, name};
use crate::consumer::ConsumerConfig;
use crate::consumer::config::{AckPolicy, DeliverPolicy};
use crate::stream::StreamConfig;
use crate::stream::config::Retention;

/// Most filters of a consumer. Comparing each with each is done in one turn of the engine.
pub const MAX_FILTERS: usize = 1024;
/// Time until an unsettled delivery is repeated, if nothing is said, nanoseconds.
pub const DEFAULT_ACK_WAIT: i64 = 30 * SECOND;
/// Most unsettled deliveries, if nothing is said.
pub const DEFAULT_MAX_ACK_PENDING: i64 = 1000;
/// Most waiting pull requests, if nothing is said.
pub const DEFAULT_MAX_WAITING: i64 = 512;
/// How long a consumer without a durable name outlives the last interest, nanoseconds.
pub const DEFAULT_INACTIVE_THRESHOLD: i64 = 5 * SECOND;
/// How long a pinned client may be silent, if nothing is said, nanoseconds.
pub const DEFAULT_PRIORITY_TIMEOUT: i64 = 120 * SECOND;

const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MILLISECOND;

/// Limits of the server and the account; 0 or less is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// More than one replica.
    pub replicas: bool,
    /// Highest `max_ack_pending` of the server.
    pub server_max_ack_pending: i64,
    /// Highest `max_ack_pending` of the account.
    pub account_max_ack_pending: i64,
    /// Largest batch of a pull request.
    pub max_request_batch: i64,
    /// Most consumers of a stream, as far as the stream says nothing tighter.
    pub max_consumers: i64,
}

/// The consumers of a stream, as far as the rules ask about them.
pub trait Consumers {
    /// The configuration of one.
    fn config(&self, name: &str) -> Option<&ConsumerConfig>;

    /// Calls `visit` with each, until it says to stop by returning `false`.
    fn visit(&self, visit: &mut dyn FnMut(&str, &ConsumerConfig) -> bool);

    /// Whether somebody subscribes to the deliver subject of this push consumer.
    fn is_bound(&self, name: &str) -> bool {
        let _ = name;
        false
    }
}

impl Consumers for BTreeMap<String, ConsumerConfig> {
    fn config(&self, name: &str) -> Option<&ConsumerConfig> {
        self.get(name)
    }

    fn visit(&self, visit: &mut dyn FnMut(&str, &ConsumerConfig) -> bool) {
        for (name, config) in self {
            if !visit(name, config) {
                return;
            }
        }
    }
}

/// What a request to create a consumer comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Make it.
    Create {
        /// Its name.
        name: String,
        /// Normalised.
        config: Box<ConsumerConfig>,
    },
    /// Change it.
    Update {
        /// Its name.
        name: String,
        /// Normalised; `pause_until` is what it was.
        config: Box<ConsumerConfig>,
    },
    /// It is as wanted already.
    Keep {
        /// Its name.
        name: String,
    },
}

/// Where a request to create a consumer was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint<'a> {
    /// `CONSUMER.CREATE.<stream>`
    Unnamed,
    /// `CONSUMER.CREATE.<stream>.<consumer>[.<filter>]`
    Named {
        /// The name in the subject.
        consumer: &'a str,
        /// The filter in the subject.
        filter: Option<&'a str>,
    },
    /// `CONSUMER.DURABLE.CREATE.<stream>.<consumer>`
    Durable {
        /// The name in the subject.
        consumer: &'a str,
    },
}

impl<'a> Endpoint<'a> {
    /// Stream and endpoint of a call; `None` if it does not create a consumer.
    #[must_use]
    pub const fn of(call: Call<'a>) -> Option<(&'a str, Self)> {
        match call {
            Call::ConsumerCreate {
                stream,
                consumer: None,
                ..
            } => Some((stream, Self::Unnamed)),
            Call::ConsumerCreate {
                stream,
                consumer: Some(consumer),
                filter,
            } => Some((stream, Self::Named { consumer, filter })),
            Call::ConsumerDurableCreate { stream, consumer } => {
                Some((stream, Self::Durable { consumer }))
            }
            _ => None,
        }
    }
}

/// Decides about a request to create or change a consumer of the stream `stream`, which comes with
/// its configuration and consumers, or `None` if it does not exist.
///
/// `random` makes the name where none is given.
///
/// # Errors
///
/// What the asker is told.
pub fn create(
    request: ConsumerRequest,
    stream: &str,
    endpoint: Endpoint<'_>,
    existing: Option<(&StreamConfig, &dyn Consumers)>,
    bounds: &Bounds,
    random: u64,
) -> Result<Decision, ApiError> {
    let ConsumerRequest {
        stream_name,
        mut config,
        action,
        pedantic,
    } = request;
    if stream_name != stream {
        return Err(ApiError::stream_name_does_not_match_subject());
    }
    settle_name(&mut config, endpoint)?;
    settle_filter(&config, endpoint)?;
    if config.num_replicas > 1 && !bounds.replicas {
        return Err(ApiError::replicas_not_supported());
    }
    let (stream, consumers) = existing.ok_or_else(ApiError::stream_not_found)?;
    let current = match &config.name {
        Some(name) => consumers
            .config(name)
            .map(|current| (name.clone(), current)),
        None => None,
    };
    if let Some((_, current)) = &current {
        config.pause_until = current.pause_until;
    }
    let is_threshold_open =
        config.inactive_threshold <= 0 && stream.consumer_limits.inactive_threshold <= 0;
    let mut config = validate(config, pedantic, stream, bounds)?;
    if is_threshold_open && let Some((_, current)) = &current {
        // What the consumer is so far decides, whatever name it is given now.
        let is_kept = current.durable_name.is_some() || current.inactive_threshold <= 0;
        config.inactive_threshold = if is_kept {
            0
        } else {
            DEFAULT_INACTIVE_THRESHOLD
        };
    }
    metadata::stamp_consumer(&mut config);
    if let Some((name, current)) = current {
        return change(name, current, config, action, stream, consumers);
    }
    if action == Action::Update {
        return Err(ApiError::consumer_does_not_exist());
    }
    check_room(&config, stream, consumers, bounds)?;
    let name = match &config.name {
        Some(name) => name.clone(),
        None => free_name(consumers, random),
    };
    if name.len() > name::MAX_NAME {
        return Err(ApiError::consumer_name_too_long(name::MAX_NAME));
    }
    Ok(Decision::Create {
        name,
        config: Box::new(config),
    })
}

/// Takes the name over from the subject, unless it contradicts the durable name.
fn settle_name(config: &mut ConsumerConfig, endpoint: Endpoint<'_>) -> Result<(), ApiError> {
    let named = match endpoint {
        Endpoint::Unnamed => config.name.as_deref(),
        Endpoint::Named { consumer, .. } | Endpoint::Durable { consumer } => Some(consumer),
    };
    if let Some(named) = named {
        name::refuse_consumer_path(named)?;
    }
    let durable = config.durable_name.as_deref();
    match (endpoint, durable) {
        (Endpoint::Unnamed, Some(_)) => Err(ApiError::ephemeral_with_durable_in_request()),
        (Endpoint::Unnamed, None) => Ok(()),
        (Endpoint::Durable { .. }, None) => Err(ApiError::durable_name_not_set()),
        (Endpoint::Named { consumer, .. } | Endpoint::Durable { consumer }, durable) => {
            if durable.is_some_and(|durable| durable != consumer) {
                return Err(ApiError::consumer_name_does_not_match_subject());
            }
            config.name = Some(consumer.to_owned());
            Ok(())
        }
    }
}

fn settle_filter(config: &ConsumerConfig, endpoint: Endpoint<'_>) -> Result<(), ApiError> {
    let Endpoint::Named {
        filter: Some(filter),
        ..
    } = endpoint
    else {
        return Ok(());
    };
    if !config.filter_subjects.is_empty() {
        return Err(ApiError::multiple_filters_with_subject_api());
    }
    if config.filter_subject != filter {
        return Err(ApiError::filter_does_not_match_subject());
    }
    Ok(())
}

/// Decides about a consumer that exists.
fn change(
    name: String,
    current: &ConsumerConfig,
    config: ConsumerConfig,
    action: Action,
    stream: &StreamConfig,
    consumers: &dyn Consumers,
) -> Result<Decision, ApiError> {
    let unchanged = same(current, &config);
    if action == Action::Create && !unchanged {
        return Err(ApiError::consumer_exists());
    }
    if stream.retention == Retention::WorkQueue && !is_only_taker(Some(&name), &config, consumers) {
        return Err(ApiError::work_queue_filter_not_unique());
    }
    if unchanged {
        return Ok(Decision::Keep { name });
    }
    check_change(current, &config, consumers.is_bound(&name))?;
    Ok(Decision::Update {
        name,
        config: Box::new(config),
    })
}

/// Whether two normalised configurations are equal; servers' metadata does not count.
#[must_use]
pub fn same(current: &ConsumerConfig, wanted: &ConsumerConfig) -> bool {
    let mut wanted = wanted.clone();
    if metadata::same(&current.metadata, &wanted.metadata) {
        wanted.metadata.clone_from(&current.metadata);
    }
    wanted == *current
}

/// Refuses to change what has to stay as it was made. `is_bound` says whether somebody listens on
/// the deliver subject.
///
/// # Errors
///
/// 10012 with a text of its own; 10013 for moving a push consumer away from its listener.
pub fn check_change(
    current: &ConsumerConfig,
    wanted: &ConsumerConfig,
    is_bound: bool,
) -> Result<(), ApiError> {
    let refusals = [
        (
            current.deliver_policy != wanted.deliver_policy,
            "deliver policy can not be updated",
        ),
        (
            current.mem_storage != wanted.mem_storage,
            "storage type can not be updated",
        ),
        (current.direct != wanted.direct, "direct can not be updated"),
        (
            current.opt_start_seq != wanted.opt_start_seq,
            "start sequence can not be updated",
        ),
        (
            current.opt_start_time != wanted.opt_start_time,
            "start time can not be updated",
        ),
        (
            current.ack_policy != wanted.ack_policy,
            "ack policy can not be updated",
        ),
        (
            current.replay_policy != wanted.replay_policy,
            "replay policy can not be updated",
        ),
        (
            current.idle_heartbeat != wanted.idle_heartbeat,
            "heart beats can not be updated",
        ),
        (
            current.flow_control != wanted.flow_control,
            "flow control can not be updated",
        ),
        (
            !current.is_push() && wanted.is_push(),
            "can not update pull consumer to push based",
        ),
        (
            current.is_push() && !wanted.is_push(),
            "can not update push consumer to pull based",
        ),
    ];
    if let Some((_, why)) = refusals.into_iter().find(|(refused, _)| *refused) {
        return Err(ApiError::consumer_create(why));
    }
    if current.deliver_subject != wanted.deliver_subject && is_bound {
        return Err(ApiError::consumer_name_in_use());
    }
    if current.max_waiting != wanted.max_waiting {
        return Err(ApiError::consumer_create("max waiting can not be updated"));
    }
    Ok(())
}

/// Refuses one consumer too many, and on a work queue any that would take another one's messages.
///
/// # Errors
///
/// 10026, or what a work queue refuses.
pub fn check_room(
    config: &ConsumerConfig,
    stream: &StreamConfig,
    consumers: &dyn Consumers,
    bounds: &Bounds,
) -> Result<(), ApiError> {
    if config.direct {
        return Ok(());
    }
    let limit = match (stream.max_consumers, bounds.max_consumers) {
        (ours @ 1.., theirs @ 1..) => ours.min(theirs),
        (ours @ 1.., _) => ours,
        (_, theirs) => theirs,
    };
    let mut count = 0_i64;
    consumers.visit(&mut |_, other| {
        count += i64::from(!other.direct);
        limit > 0 && count < limit
    });
    if limit > 0 && count >= limit {
        return Err(ApiError::consumer_limit_reached());
    }
    if stream.retention != Retention::WorkQueue {
        return Ok(());
    }
    if !matches!(
        config.ack_policy,
        AckPolicy::Explicit | AckPolicy::FlowControl
    ) {
        return Err(ApiError::work_queue_requires_explicit_ack());
    }
    if config.deliver_policy != DeliverPolicy::All {
        return Err(ApiError::work_queue_requires_deliver_all());
    }
    if is_only_taker(None, config, consumers) {
        Ok(())
    } else if config.filters().is_empty() {
        Err(ApiError::work_queue_multiple_unfiltered())
    } else {
        Err(ApiError::work_queue_filter_not_unique())
    }
}

/// Whether no consumer but the one called `name` wants any of the messages that `config` asks for.
#[must_use]
pub fn is_only_taker(
    name: Option<&str>,
    config: &ConsumerConfig,
    consumers: &dyn Consumers,
) -> bool {
    let filters = |config: &ConsumerConfig| -> Vec<String> {
        let filters: Vec<String> = config.filters().into_iter().map(str::to_owned).collect();
        if filters.is_empty() {
            vec![">".to_owned()]
        } else {
            filters
        }
    };
    let ours = filters(config);
    let mut only = true;
    consumers.visit(&mut |other_name, other| {
        if Some(other_name) == name || other.direct {
            return true;
        }
        let theirs = filters(other);
        only = !ours.iter().any(|ours| {
            theirs
                .iter()
                .any(|theirs| subject::overlaps(ours.as_bytes(), theirs.as_bytes()))
        });
        only
    });
    only
}

fn free_name(consumers: &dyn Consumers, random: u64) -> String {
    let mut seed = random;
    loop {
        let name = name::generate(seed);
        if consumers.config(&name).is_none() {
            return name;
        }
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    }
}

/// Fills in defaults and refuses what no consumer of this stream may be.
///
/// # Errors
///
/// What the asker is told.
pub fn validate(
    mut config: ConsumerConfig,
    pedantic: bool,
    stream: &StreamConfig,
    bounds: &Bounds,
) -> Result<ConsumerConfig, ApiError> {
    fill_defaults(&mut config, pedantic, stream, bounds)?;
    check_names(&config)?;
    check_replicas(&config, stream)?;
    check_acks(&config)?;
    if config.description.len() > MAX_DESCRIPTION {
        return Err(ApiError::consumer_description_too_long(MAX_DESCRIPTION));
    }
    if config.is_push() {
        check_push(&config, stream)?;
    } else {
        check_pull(&config, stream, bounds)?;
    }
    check_limits(&config, stream, bounds)?;
    check_direct(&config)?;
    check_filters(&config)?;
    check_start(&config)?;
    check_sampling(&config.sample_freq)?;
    if config.flow_control && config.idle_heartbeat == 0 {
        return Err(ApiError::flow_control_requires_heartbeat());
    }
    if let (Some(durable), Some(name)) = (&config.durable_name, &config.name)
        && durable != name
    {
        return Err(ApiError::durable_and_name_differ());
    }
    if metadata::size(&config.metadata) > metadata::MAX_METADATA {
        let most = format_args!("{}KB", metadata::MAX_METADATA / 1024);
        return Err(ApiError::consumer_metadata_too_large(most));
    }
    check_priority(&config)?;
    Ok(config)
}

fn fill_defaults(
    config: &mut ConsumerConfig,
    pedantic: bool,
    stream: &StreamConfig,
    bounds: &Bounds,
) -> Result<(), ApiError> {
    let refuse = |why: &str| {
        if pedantic {
            Err(ApiError::pedantic(why))
        } else {
            Ok(())
        }
    };
    if config.max_deliver < -1 {
        refuse("max_deliver must be set to -1")?;
    }
    if config.max_deliver <= 0 {
        config.max_deliver = -1;
    }
    if config.max_waiting < 0 {
        refuse("max_waiting must not be negative")?;
        config.max_waiting = 0;
    }
    if config.max_ack_pending < -1 {
        refuse("max_ack_pending must be set to -1")?;
        config.max_ack_pending = -1;
    }
    for (name, value) in [
        ("max_batch", &mut config.max_batch),
        ("max_expires", &mut config.max_expires),
        ("max_bytes", &mut config.max_bytes),
        ("idle_heartbeat", &mut config.idle_heartbeat),
        ("inactive_threshold", &mut config.inactive_threshold),
        ("priority_timeout", &mut config.priority_timeout),
    ] {
        if *value < 0 {
            refuse(&format!("{name} must not be negative"))?;
            *value = 0;
        }
    }
    if !config.is_push() && config.max_waiting == 0 {
        config.max_waiting = DEFAULT_MAX_WAITING;
    }
    if config.ack_wait == 0 && matches!(config.ack_policy, AckPolicy::All | AckPolicy::Explicit) {
        config.ack_wait = DEFAULT_ACK_WAIT;
    }
    if let Some(&first) = config.backoff.first() {
        if config.ack_wait != first {
            refuse("first backoff value has to equal batch AckWait")?;
        }
        config.ack_wait = first;
    }
    let limits = &stream.consumer_limits;
    if config.max_ack_pending == 0 {
        if limits.max_ack_pending > 0 {
            refuse("max_ack_pending must be set if it's configured in stream limits")?;
        }
        config.max_ack_pending = limits.max_ack_pending;
    }
    if config.inactive_threshold == 0 {
        if limits.inactive_threshold > 0 {
            refuse("inactive_threshold must be set if it's configured in stream limits")?;
        }
        config.inactive_threshold = limits.inactive_threshold;
    }
    if config.max_ack_pending == 0 && config.ack_policy != AckPolicy::None {
        config.max_ack_pending = [
            bounds.server_max_ack_pending,
            bounds.account_max_ack_pending,
        ]
        .into_iter()
        .filter(|limit| *limit > 0)
        .fold(DEFAULT_MAX_ACK_PENDING, i64::min);
    }
    if !config.is_push() && config.max_batch == 0 && bounds.max_request_batch > 0 {
        refuse("max_request_batch must be set if it's JetStream limits are set")?;
        config.max_batch = bounds.max_request_batch;
    }
    if config.priority_timeout == 0 && config.priority_policy.as_deref() == Some("pinned_client") {
        config.priority_timeout = DEFAULT_PRIORITY_TIMEOUT;
    }
    if config.inactive_threshold <= 0 && config.durable_name.is_none() {
        config.inactive_threshold = DEFAULT_INACTIVE_THRESHOLD;
    }
    if config.pause_until == Some(crate::time::Timestamp::ZERO) {
        config.pause_until = None;
    }
    if config.ack_policy == AckPolicy::FlowControl && !pedantic {
        config.flow_control = true;
        config.idle_heartbeat = SECOND;
    }
    Ok(())
}

fn check_names(config: &ConsumerConfig) -> Result<(), ApiError> {
    let bad = |name: &Option<String>| name.as_deref().is_some_and(|name| !name::is_valid(name));
    if bad(&config.name) {
        return Err(ApiError::stream_config(
            r"consumer name can not contain '.', '*', '>', '\', '/'",
        ));
    }
    if bad(&config.durable_name) {
        return Err(ApiError::stream_config(
            r"consumer durable name can not contain '.', '*', '>', '\', '/'",
        ));
    }
    Ok(())
}

fn check_replicas(config: &ConsumerConfig, stream: &StreamConfig) -> Result<(), ApiError> {
    if config.num_replicas > stream.num_replicas.max(0) {
        return Err(ApiError::consumer_replicas_exceed_stream());
    }
    if config.num_replicas < 0 {
        return Err(ApiError::replicas_negative());
    }
    if stream.retention != Retention::Limits
        && config.num_replicas != 0
        && config.num_replicas != stream.num_replicas
    {
        return Err(ApiError::consumer_replicas_must_match_stream());
    }
    Ok(())
}

fn check_acks(config: &ConsumerConfig) -> Result<(), ApiError> {
    if config.backoff.iter().any(|wait| *wait < 0) {
        return Err(ApiError::backoff_negative());
    }
    if config.ack_wait < 0 {
        return Err(ApiError::ack_wait_negative());
    }
    if config.ack_policy == AckPolicy::FlowControl {
        check_flow_control_acks(config)?;
    }
    let steps = i64::try_from(config.backoff.len()).unwrap_or(i64::MAX);
    if config.max_deliver != -1 && steps > config.max_deliver {
        return Err(ApiError::max_deliver_below_backoff());
    }
    Ok(())
}

/// A consumer whose acks are answers to flow control feeds another stream: it pushes, asks often,
/// and never delivers twice.
fn check_flow_control_acks(config: &ConsumerConfig) -> Result<(), ApiError> {
    if !config.is_push() {
        Err(ApiError::flow_control_ack_requires_push())
    } else if !config.flow_control {
        Err(ApiError::flow_control_ack_requires_flow_control())
    } else if config.idle_heartbeat != SECOND {
        Err(ApiError::stream_config(
            "flow control ack policy heartbeat needs to be 1s",
        ))
    } else if config.max_ack_pending <= 0 {
        Err(ApiError::flow_control_ack_requires_max_ack_pending())
    } else if config.ack_wait != 0 || !config.backoff.is_empty() {
        Err(ApiError::flow_control_ack_with_ack_wait())
    } else if config.max_deliver > 0 {
        Err(ApiError::flow_control_ack_with_max_deliver())
    } else {
        Ok(())
    }
}

fn check_push(config: &ConsumerConfig, stream: &StreamConfig) -> Result<(), ApiError> {
    let deliver = config.deliver_subject.as_bytes();
    if subject::has_wildcard(deliver) {
        return Err(ApiError::deliver_subject_wildcards());
    }
    if !subject::is_valid(deliver) {
        return Err(ApiError::deliver_subject_invalid());
    }
    if stream
        .subjects
        .iter()
        .any(|captured| subject::matches(captured.as_bytes(), deliver))
    {
        return Err(ApiError::deliver_subject_cycle());
    }
    if config.max_waiting != 0 {
        return Err(ApiError::push_with_max_waiting());
    }
    if config.max_ack_pending > 0 && config.ack_policy == AckPolicy::None {
        return Err(ApiError::max_ack_pending_without_ack());
    }
    if config.idle_heartbeat > 0 && config.idle_heartbeat < 100 * MILLISECOND {
        return Err(ApiError::heartbeat_too_small());
    }
    Ok(())
}

fn check_pull(
    config: &ConsumerConfig,
    stream: &StreamConfig,
    bounds: &Bounds,
) -> Result<(), ApiError> {
    if config.ack_policy == AckPolicy::None && stream.retention == Retention::WorkQueue {
        return Err(ApiError::work_queue_pull_requires_explicit_ack());
    }
    if config.rate_limit_bps > 0 {
        return Err(ApiError::pull_with_rate_limit());
    }
    if config.idle_heartbeat > 0 {
        return Err(ApiError::heartbeat_requires_push());
    }
    if config.flow_control {
        return Err(ApiError::flow_control_requires_push());
    }
    if config.max_expires != 0 && config.max_expires < MILLISECOND {
        return Err(ApiError::max_expires_too_small());
    }
    if bounds.max_request_batch > 0 && config.max_batch > bounds.max_request_batch {
        return Err(ApiError::max_batch_exceeds_limit(bounds.max_request_batch));
    }
    Ok(())
}

fn check_limits(
    config: &ConsumerConfig,
    stream: &StreamConfig,
    bounds: &Bounds,
) -> Result<(), ApiError> {
    let limits = &stream.consumer_limits;
    for limit in [
        bounds.server_max_ack_pending,
        bounds.account_max_ack_pending,
        limits.max_ack_pending,
    ] {
        if limit > 0 && config.max_ack_pending > limit {
            return Err(ApiError::max_ack_pending_exceeds_limit(limit));
        }
    }
    let limit = limits.inactive_threshold;
    if limit > 0 && config.inactive_threshold > limit {
        return Err(ApiError::inactive_threshold_exceeds_limit(Nanoseconds(
            limit,
        )));
    }
    Ok(())
}

fn check_direct(config: &ConsumerConfig) -> Result<(), ApiError> {
    if !config.direct {
        Ok(())
    } else if !config.is_push() {
        Err(ApiError::direct_requires_push())
    } else if config.durable_name.is_some() {
        Err(ApiError::direct_requires_ephemeral())
    } else {
        Ok(())
    }
}

fn check_filters(config: &ConsumerConfig) -> Result<(), ApiError> {
    if !config.filter_subject.is_empty() && !config.filter_subjects.is_empty() {
        return Err(ApiError::both_filter_forms());
    }
    if config.filter_subjects.len() > MAX_FILTERS {
        let why = format_args!("maximum number of filter subjects is {MAX_FILTERS}");
        return Err(ApiError::consumer_create(why));
    }
    if config.filter_subjects.iter().any(String::is_empty) {
        return Err(ApiError::filter_empty());
    }
    let filters = config.filters();
    for (index, filter) in filters.iter().enumerate() {
        if !subject::is_valid(filter.as_bytes()) {
            return Err(ApiError::stream_config("invalid subject"));
        }
        let overlaps = |(other_index, other): (usize, &&str)| {
            other_index != index && subject::is_subset(filter.as_bytes(), other.as_bytes())
        };
        if filters.iter().enumerate().any(overlaps) {
            return Err(ApiError::filters_overlap());
        }
    }
    Ok(())
}

fn check_start(config: &ConsumerConfig) -> Result<(), ApiError> {
    let seq = config.opt_start_seq > 0;
    let time = config.opt_start_time.is_some();
    let unwanted = |policy: &str, what: &str| {
        Err(ApiError::deliver_policy_invalid(format_args!(
            "consumer delivery policy is deliver {policy}, but optional start {what} is also set"
        )))
    };
    let missing = |policy: &str, what: &str| {
        Err(ApiError::deliver_policy_invalid(format_args!(
            "consumer delivery policy is deliver {policy}, but optional {what} is not set"
        )))
    };
    let plain = |policy: &str| match (seq, time) {
        (true, _) => unwanted(policy, "sequence"),
        (false, true) => unwanted(policy, "time"),
        (false, false) => Ok(()),
    };
    match config.deliver_policy {
        DeliverPolicy::All => plain("all"),
        DeliverPolicy::Last => plain("last"),
        DeliverPolicy::New => plain("new"),
        DeliverPolicy::LastPerSubject => {
            plain("last per subject")?;
            if config.filters().is_empty() {
                return missing("last per subject", "filter subject");
            }
            Ok(())
        }
        DeliverPolicy::ByStartSequence => match (seq, time) {
            (false, _) => missing("by start sequence", "start sequence"),
            (true, true) => unwanted("by start sequence", "time"),
            (true, false) => Ok(()),
        },
        DeliverPolicy::ByStartTime => match (seq, time) {
            (_, false) => missing("by start time", "start time"),
            (true, true) => unwanted("by start time", "start sequence"),
            (false, true) => Ok(()),
        },
    }
}

fn check_sampling(frequency: &str) -> Result<(), ApiError> {
    if frequency.is_empty() {
        return Ok(());
    }
    let number = frequency.strip_suffix('%').unwrap_or(frequency);
    match number.parse::<i64>() {
        Ok(0..) => Ok(()),
        Ok(_) => Err(ApiError::sampling_invalid("it can not be negative")),
        Err(_) => {
            let number = super::json::quote(number);
            Err(ApiError::sampling_invalid(format_args!(
                "strconv.Atoi: parsing {number}: invalid syntax"
            )))
        }
    }
}

fn check_priority(config: &ConsumerConfig) -> Result<(), ApiError> {
    let groups = &config.priority_groups;
    if config.priority_policy.is_none() {
        if !groups.is_empty() {
            return Err(ApiError::priority_groups_without_policy());
        }
        if config.priority_timeout > 0 {
            return Err(ApiError::pinned_ttl_without_policy());
        }
        return Ok(());
    }
    if config.is_push() {
        return Err(ApiError::push_with_priority_groups());
    }
    if groups.is_empty() {
        return Err(ApiError::priority_policy_without_group());
    }
    for group in groups {
        if group.is_empty() {
            return Err(ApiError::priority_group_empty());
        }
        if !is_valid_group(group) {
            return Err(ApiError::priority_group_invalid());
        }
    }
    Ok(())
}

/// Whether `group` may name a priority group: 1 to 16 letters, digits, `/`, `_`, `=`, `-`.
#[must_use]
pub fn is_valid_group(group: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'=' | b'-');
    (1..=16).contains(&group.len()) && group.bytes().all(fits)
}

#[cfg(test)]
mod tests;
