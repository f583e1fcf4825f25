//! One origin of a stream: what it is asked, and what its messages become.

use std::time::Duration;

use menes_protocol::headers::{HeaderBlock, HeaderBuilder};
use menes_protocol::transform::Transform;
use serde::Serialize;

use crate::api::ApiError;
use crate::api::response::SourceInfo;
use crate::consumer::config::{AckPolicy, DeliverPolicy};
use crate::ids::StreamSeq;
use crate::stream::config::{StreamSource, SubjectTransform};
use crate::stream::{source_id, source_identity};
use crate::time::Timestamp;

/// How often the origin says that it is there.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long the origin may be silent before it is asked again.
pub(super) const STALLED: Duration = Duration::from_secs(10);
/// How long an answer of the API may take.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// Shortest and longest wait before an origin is asked again.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));

/// Where a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It asks the origin when its time has come and nothing of it is on its way to the log.
    Waiting,
    /// It asked for a consumer.
    Asking,
    /// Messages come.
    Running,
}

/// A mirror's or source's way to its origin.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) source: StreamSource,
    pub(super) id: u64,
    pub(super) is_mirror: bool,
    transforms: Vec<Transform>,
    /// Number of its subscription, new for every consumer.
    pub(super) listener: u64,
    /// Name of the consumer that was asked for, and the last token of the subjects of this side.
    pub(super) consumer: String,
    pub(super) phase: Phase,
    /// When something is due.
    pub(super) due: Timestamp,
    failures: u32,
    /// The origin wants every message acknowledged: it removes what is.
    pub(super) acks: bool,
    /// Last sequence of the origin that was proposed.
    pub(super) proposed: u64,
    /// Last delivery of the consumer.
    pub(super) delivered: u64,
    /// Sequence of the origin that it brought, 0 for none.
    pub(super) brought: u64,
    /// Records on their way through the log.
    pub(super) in_flight: u64,
    pub(super) lag: u64,
    pub(super) heard: Option<Timestamp>,
    pub(super) error: Option<ApiError>,
    /// A question whether more may come, to be answered when nothing is in flight.
    pub(super) flow: Vec<u8>,
}

/// What the origin is asked for.
#[derive(Serialize)]
struct Request<'a> {
    stream_name: &'a str,
    config: Wanted<'a>,
}

#[derive(Serialize)]
struct Wanted<'a> {
    name: &'a str,
    deliver_subject: &'a str,
    deliver_policy: DeliverPolicy,
    #[serde(skip_serializing_if = "Option::is_none")]
    opt_start_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opt_start_time: Option<Timestamp>,
    ack_policy: AckPolicy,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_ack_pending: Option<i64>,
    max_deliver: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    filter_subject: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    filter_subjects: Vec<&'a str>,
    replay_policy: &'a str,
    flow_control: bool,
    idle_heartbeat: u64,
    inactive_threshold: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    direct: bool,
}

/// A message of the origin, ready for the log.
pub(super) struct Copied {
    pub(super) subject: Vec<u8>,
    pub(super) header: Vec<u8>,
}

impl Link {
    pub(super) fn new(source: StreamSource, is_mirror: bool, due: Timestamp) -> Self {
        let compiled = |transform: &SubjectTransform| {
            let dest = if transform.dest.is_empty() {
                None
            } else {
                Some(transform.dest.as_str())
            };
            Transform::new(&transform.src, dest?).ok()
        };
        Self {
            id: source_id(&source),
            is_mirror,
            transforms: source
                .subject_transforms
                .iter()
                .filter_map(compiled)
                .collect(),
            source,
            listener: 0,
            consumer: String::new(),
            phase: Phase::Waiting,
            due,
            failures: 0,
            acks: false,
            proposed: 0,
            delivered: 0,
            brought: 0,
            in_flight: 0,
            lag: 0,
            heard: None,
            error: None,
            flow: Vec::new(),
        }
    }

    /// Subject where the origin's messages arrive, on this side.
    pub(super) fn deliver_subject(&self) -> String {
        if let Some(durable) = &self.source.consumer {
            return durable.deliver_subject.clone();
        }
        let kind = if self.is_mirror { 'M' } else { 'S' };
        match &self.source.external {
            Some(external) if !external.deliver.is_empty() => {
                format!("{}.{kind}.{}", external.deliver, self.consumer)
            }
            _ => format!("$JS.{kind}.{}", self.consumer),
        }
    }

    /// Subject where answers of the API arrive.
    pub(super) fn answer_subject(&self) -> String {
        format!("$JS.R.{}", self.consumer)
    }

    fn api(&self) -> &str {
        match &self.source.external {
            Some(external) if !external.api.is_empty() => &external.api,
            _ => "$JS.API",
        }
    }

    /// Whether a consumer that was made for it feeds it.
    pub(super) fn is_fed(&self) -> bool {
        self.source.consumer.is_some()
    }

    /// Why an answer about the consumer that feeds it will not do.
    pub(super) fn unfit(&self, policy: AckPolicy) -> Option<ApiError> {
        let is_unfit = self.is_fed() && policy != AckPolicy::FlowControl;
        is_unfit.then(|| {
            if self.is_mirror {
                ApiError::mirror_consumer_requires_flow_control_ack()
            } else {
                ApiError::source_consumer_requires_flow_control_ack()
            }
        })
    }

    /// The request for a consumer that begins behind `position`, or for the one that feeds it to
    /// begin behind what it settled: subject and body.
    pub(super) fn request(&self, position: StreamSeq) -> (String, Vec<u8>) {
        let source = &self.source;
        if let Some(durable) = &source.consumer {
            let subject = format!(
                "{}.CONSUMER.RESET.{}.{}",
                self.api(),
                source.name,
                durable.name
            );
            return (subject, Vec::new());
        }
        let filters: Vec<&str> = source
            .subject_transforms
            .iter()
            .map(|transform| match transform.src.as_str() {
                "" => ">",
                src => src,
            })
            .collect();
        let (filter, filters) = match (source.filter_subject.as_str(), filters.as_slice()) {
            ("", [only]) => (*only, Vec::new()),
            (filter, []) => (filter, Vec::new()),
            _ => ("", filters),
        };
        let start = match (position.0, source.opt_start_seq) {
            _ if self.acks => None,
            (0, 0) => None,
            (0, wanted) => Some(wanted),
            (position, _) => Some(position + 1),
        };
        let time = source
            .opt_start_time
            .filter(|_| start.is_none() && !self.acks);
        let deliver_policy = match (start, time) {
            (Some(_), _) => DeliverPolicy::ByStartSequence,
            (None, Some(_)) => DeliverPolicy::ByStartTime,
            (None, None) => DeliverPolicy::All,
        };
        let deliver_subject = self.deliver_subject();
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let body = crate::api::json::to_vec(&Request {
            stream_name: &source.name,
            config: Wanted {
                name: &self.consumer,
                deliver_subject: &deliver_subject,
                deliver_policy,
                opt_start_seq: start,
                opt_start_time: time,
                ack_policy: if self.acks {
                    AckPolicy::Explicit
                } else {
                    AckPolicy::None
                },
                max_ack_pending: self.acks.then_some(8192),
                max_deliver: if self.acks { -1 } else { 1 },
                filter_subject: filter,
                filter_subjects: filters,
                replay_policy: "instant",
                flow_control: true,
                idle_heartbeat: nanos(HEARTBEAT),
                inactive_threshold: nanos(STALLED),
                direct: !self.acks,
            },
        });
        let (api, name, consumer) = (self.api(), &source.name, &self.consumer);
        let subject = if filter.is_empty() {
            format!("{api}.CONSUMER.CREATE.{name}.{consumer}")
        } else {
            format!("{api}.CONSUMER.CREATE.{name}.{consumer}.{filter}")
        };
        (subject, body)
    }

    /// The request to remove its consumer, if there may be one.
    pub(super) fn removal(&self) -> Option<String> {
        let (api, name, consumer) = (self.api(), &self.source.name, &self.consumer);
        (!consumer.is_empty() && !self.is_fed())
            .then(|| format!("{api}.CONSUMER.DELETE.{name}.{consumer}"))
    }

    /// Gives up the consumer and asks for another one later.
    pub(super) fn fail(&mut self, error: Option<ApiError>, now: Timestamp) {
        let wait = RETRY
            .0
            .saturating_mul(1 << self.failures.min(8))
            .min(RETRY.1);
        self.failures = self.failures.saturating_add(1);
        self.error = error;
        self.phase = Phase::Waiting;
        self.due = now.plus(wait);
        self.flow.clear();
    }

    /// Something came that shows that the origin is there.
    pub(super) fn is_alive(&mut self, now: Timestamp) {
        self.heard = Some(now);
        self.due = now.plus(STALLED);
        self.failures = 0;
        if self.phase == Phase::Asking {
            self.phase = Phase::Running;
        }
    }

    /// What a message of the origin becomes.
    pub(super) fn copied(
        &self,
        subject: &[u8],
        header: &[u8],
        seq: StreamSeq,
        random: u32,
    ) -> Copied {
        let renamed = self
            .transforms
            .iter()
            .find_map(|transform| transform.apply(subject, random));
        let header = if self.is_mirror {
            header.to_vec()
        } else {
            self.source_header(subject, header, seq)
        };
        Copied {
            subject: renamed.unwrap_or_else(|| subject.to_vec()),
            header,
        }
    }

    fn source_header(&self, subject: &[u8], header: &[u8], seq: StreamSeq) -> Vec<u8> {
        let mut own = match HeaderBlock::parse(header) {
            Ok(block) => HeaderBuilder::from_block(&block),
            Err(_) => HeaderBuilder::new(),
        };
        // What the publisher expected was of the origin.
        own.retain(|name, _| {
            name != b"Nats-Stream-Source"
                && !name.starts_with(b"Nats-Expected-")
                && !name.starts_with(b"Nats-Batch-")
        });
        let mut value = source_identity(&self.source).into_bytes();
        let place = value
            .iter()
            .position(|byte| *byte == b' ')
            .unwrap_or(value.len());
        let number = format!(" {seq}").into_bytes();
        value.splice(place..place, number);
        value.push(b' ');
        value.extend_from_slice(subject);
        own.push("Nats-Stream-Source", &value);
        own.finish().to_vec()
    }

    pub(super) fn info(&self, position: StreamSeq, now: Timestamp) -> SourceInfo {
        let active = self.heard.map(|heard| now.since(heard).as_nanos());
        SourceInfo {
            name: self.source.name.clone(),
            external: self.source.external.clone(),
            lag: self.lag,
            seq: if self.is_mirror { 0 } else { position.0 },
            active: active.map_or(-1, |active| i64::try_from(active).unwrap_or(i64::MAX)),
            error: self.error.clone(),
            filter_subject: self.source.filter_subject.clone(),
            subject_transforms: self.source.subject_transforms.clone(),
        }
    }
}
