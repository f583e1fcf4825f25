//! The API against the reference server, exchange by exchange.
//!
//! `testdata/api_transcript.txt` holds what the reference server answered. A server of a few lines,
//! with no messages and nothing but the rules of `menes_jetstream::api`, is asked the same and has
//! to answer the same, byte for byte. `testdata/record_api.py` writes the transcript.

use std::collections::BTreeMap;

use menes_jetstream::api::consumer_config::{self, Consumers, Decision, Endpoint};
use menes_jetstream::api::metadata::Identity;
use menes_jetstream::api::request::{
    self, ConsumerListRequest, ConsumerRequest, MessageDeleteRequest, MessageGetRequest,
    RestoreRequest, SnapshotRequest, StreamInfoRequest, StreamListRequest, StreamRequest,
};
use menes_jetstream::api::response::{
    self, ClusterInfo, ConsumerBody, ConsumerInfo, ConsumerList, ConsumerNames, ConsumerReset,
    Empty, LIST_LIMIT, NAMES_LIMIT, Page, Paused, PriorityGroupInfo, Purged, SequenceInfo,
    StreamCreated, StreamInfo, StreamInfoBody, StreamList, StreamNames, StreamUpdated, Success,
};
use menes_jetstream::api::stream_config::{self, overlapping};
use menes_jetstream::api::{ApiError, Call};
use menes_jetstream::consumer::ConsumerConfig;
use menes_jetstream::stream::{StreamConfig, StreamState};
use menes_jetstream::time::Timestamp;

const TRANSCRIPT: &str = include_str!("../testdata/api_transcript.txt");
const GENERATED: u64 = 4;

#[test]
fn every_answer_is_that_of_the_reference_server() {
    let mut server = Server::default();
    let mut differences = Vec::new();
    let mut exchanges = 0;
    let mut lines = TRANSCRIPT.lines();
    while let Some(line) = lines.next() {
        if let Some(request) = line.strip_prefix("--- ") {
            server.answer(&Request::read(request));
        } else if let Some(request) = line.strip_prefix(">>> ") {
            let theirs = lines.next().and_then(|line| line.strip_prefix("<<<"));
            let theirs = theirs.expect("a reply follows").trim_start();
            let ours = short(&server.answer(&Request::read(request)));
            if comparable(&ours) != comparable(theirs) {
                differences.push(format!(">>> {request}\nwant {theirs}\ngot  {ours}\n"));
            }
            exchanges += 1;
        }
    }
    let shown = differences
        .iter()
        .take(20)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        differences.is_empty(),
        "{} of {exchanges} differ\n{shown}",
        differences.len()
    );
    assert!(exchanges > 300, "only {exchanges} exchanges were read");
}

/// The text of a JSON parser is its own; the name of an unknown field and words are not.
fn comparable(reply: &str) -> String {
    let own = "\"description\":\"invalid JSON: ";
    match reply.split_once(own) {
        Some((before, after))
            if ![
                "json: unknown field",
                "can not unmarshal",
                "unknown ",
                "consumer group",
            ]
            .iter()
            .any(|fixed| after.starts_with(fixed)) =>
        {
            let rest = after.rsplit_once("\"}").map_or("", |(_, rest)| rest);
            format!("{before}{own}...{rest}")
        }
        _ => reply.to_owned(),
    }
}

struct Request {
    level: Option<String>,
    subject: String,
    body: Vec<u8>,
}

impl Request {
    fn read(line: &str) -> Self {
        let mut line = long(line);
        let mut level = None;
        if let Some(rest) = line.strip_prefix("[Nats-Required-Api-Level: ") {
            let (value, rest) = rest.split_once("] ").expect("a header ends");
            level = Some(value.to_owned());
            line = rest.to_owned();
        }
        let (subject, body) = line.split_once(' ').unwrap_or((&line, ""));
        Self {
            level,
            subject: format!("$JS.API.{subject}"),
            body: body.as_bytes().to_vec(),
        }
    }
}

/// Undoes the counting of long runs of one character.
fn long(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<<") {
        let (run, after) = after.split_once(">>").expect("a run ends");
        let (character, count) = run.split_once('*').expect("a run has a count");
        out.push_str(before);
        out.push_str(&character.repeat(count.parse().expect("a number")));
        rest = after;
    }
    out + rest
}

/// Counts runs of one character, 200 and longer.
fn short(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let run = rest.len() - rest.trim_start_matches(first).len();
        let count = run / first.len_utf8();
        if count >= 200 {
            out.push_str(&format!("<<{first}*{count}>>"));
        } else {
            out.push_str(&rest[..run]);
        }
        rest = &rest[run..];
    }
    out
}

/// A single server without messages.
struct Server {
    identity: Identity,
    streams: BTreeMap<String, Stream>,
}

struct Stream {
    config: StreamConfig,
    first_seq: u64,
    consumers: BTreeMap<String, Consumer>,
}

struct Consumer {
    config: ConsumerConfig,
    delivered: u64,
}

impl Default for Server {
    fn default() -> Self {
        let identity = Identity {
            version: "2.15.1".into(),
            level: 5,
        };
        Self {
            identity,
            streams: BTreeMap::new(),
        }
    }
}

impl Consumers for Stream {
    fn config(&self, name: &str) -> Option<&ConsumerConfig> {
        self.consumers.get(name).map(|consumer| &consumer.config)
    }

    fn visit(&self, visit: &mut dyn FnMut(&str, &ConsumerConfig) -> bool) {
        for (name, consumer) in &self.consumers {
            if !visit(name, &consumer.config) {
                return;
            }
        }
    }
}

impl Server {
    /// The answer, empty for silence.
    fn answer(&mut self, asked: &Request) -> String {
        let call = Call::parse(asked.subject.as_bytes());
        if call == Call::Unknown {
            return String::new();
        }
        let reply = match self.decide(&call, asked) {
            Ok(reply) => reply,
            Err(error) => response::error(&call, &error),
        };
        let reply = String::from_utf8(reply).expect("JSON is text");
        let name = menes_jetstream::api::name::generate(GENERATED);
        reply.replace(&format!("\"{name}\""), "\"GENERATED\"")
    }

    fn decide(&mut self, call: &Call<'_>, asked: &Request) -> Result<Vec<u8>, ApiError> {
        let body = asked.body.as_slice();
        let level = asked.level.as_ref().map(String::as_bytes);
        request::check_required_level(level, self.identity.level)?;
        match *call {
            Call::StreamCreate { stream } => {
                let wanted = StreamRequest::parse(body)?;
                let config = stream_config::create(wanted, stream, &Default::default())?;
                if let Some(current) = self.streams.get(stream) {
                    if !stream_config::same(&current.config, &config) {
                        return Err(ApiError::stream_name_in_use());
                    }
                } else {
                    self.check_overlap(&config)?;
                    let first_seq = config.first_seq;
                    let made = Stream {
                        config,
                        first_seq,
                        consumers: BTreeMap::new(),
                    };
                    self.streams.insert(stream.to_owned(), made);
                }
                let info = Some(self.info(stream)?);
                Ok(response::ok(
                    call,
                    &StreamCreated {
                        info,
                        did_create: true,
                    },
                ))
            }
            Call::StreamUpdate { stream } => {
                let wanted = StreamRequest::parse(body)?;
                let current = self.streams.get(stream).map(|stream| &stream.config);
                let config = stream_config::update(wanted, stream, current, &Default::default())?;
                let current = self.stream(stream)?;
                let consumers = current
                    .consumers
                    .iter()
                    .map(|(name, c)| (name.as_str(), &c.config));
                stream_config::check_consumers(&current.config, &config, consumers)?;
                self.check_overlap(&config)?;
                self.streams.get_mut(stream).expect("it was there").config = config;
                Ok(response::ok(
                    call,
                    &StreamUpdated {
                        info: Some(self.info(stream)?),
                    },
                ))
            }
            Call::StreamInfo { stream } => {
                StreamInfoRequest::parse(body)?;
                let mut info = self.info(stream)?;
                info.cluster = Some(ClusterInfo {
                    leader: Some("reference".into()),
                    ..Default::default()
                });
                Ok(response::ok(
                    call,
                    &StreamInfoBody {
                        info: Some(info),
                        ..Default::default()
                    },
                ))
            }
            Call::StreamNames => {
                let asked = StreamListRequest::parse(body)?;
                let names: Vec<String> = self.listed(&asked).map(str::to_owned).collect();
                let page = Page::new(names.len(), asked.offset, NAMES_LIMIT);
                let streams = names[page.range()].to_vec();
                Ok(response::ok(call, &StreamNames { page, streams }))
            }
            Call::StreamList => {
                let asked = StreamListRequest::parse(body)?;
                let names: Vec<&str> = self.listed(&asked).collect();
                let page = Page::new(names.len(), asked.offset, LIST_LIMIT);
                let mut streams = Vec::new();
                for name in &names[page.range()] {
                    let mut info = self.info(name)?;
                    info.config = self.stream(name)?.config.clone();
                    streams.push(info);
                }
                Ok(response::ok(
                    call,
                    &StreamList {
                        page,
                        streams,
                        ..Default::default()
                    },
                ))
            }
            Call::StreamDelete { stream } => {
                request::expect_empty(body)?;
                self.streams
                    .remove(stream)
                    .ok_or_else(ApiError::stream_not_found)?;
                Ok(response::ok(call, &Success::DONE))
            }
            Call::StreamPurge { stream } => {
                request::parse_purge(body)?;
                let config = &self.stream(stream)?.config;
                if config.sealed {
                    return Err(ApiError::stream_sealed());
                }
                if config.deny_purge {
                    return Err(ApiError::purge("stream purge not permitted"));
                }
                Ok(response::ok(
                    call,
                    &Purged {
                        success: true,
                        purged: 0,
                    },
                ))
            }
            Call::MessageGet { stream } => {
                MessageGetRequest::parse(body)?;
                self.stream(stream)?;
                Err(ApiError::message_not_found())
            }
            Call::MessageDelete { stream } => {
                let wanted = MessageDeleteRequest::parse(body)?;
                let config = &self.stream(stream)?.config;
                if config.sealed {
                    return Err(ApiError::stream_sealed());
                }
                if config.deny_delete {
                    return Err(ApiError::message_delete("message delete not permitted"));
                }
                Err(ApiError::sequence_not_found(wanted.seq))
            }
            Call::StreamSnapshot { stream } => {
                SnapshotRequest::parse(body)?;
                self.stream(stream)?;
                Err(ApiError::snapshot("there are none here"))
            }
            Call::StreamRestore { stream } => {
                if RestoreRequest::parse(body)?.config.name != stream {
                    return Err(ApiError::stream_name_does_not_match_subject());
                }
                self.stream(stream)?;
                Err(ApiError::restore_name_in_use())
            }
            Call::ConsumerCreate { .. } | Call::ConsumerDurableCreate { .. } => {
                self.create_consumer(call, body)
            }
            Call::ConsumerNames { stream } => {
                let asked = ConsumerListRequest::parse(body)?;
                let names: Vec<String> = self.stream(stream)?.consumers.keys().cloned().collect();
                let page = Page::new(names.len(), asked.offset, NAMES_LIMIT);
                let consumers = names[page.range()].to_vec();
                Ok(response::ok(call, &ConsumerNames { page, consumers }))
            }
            Call::ConsumerList { stream } => {
                let asked = ConsumerListRequest::parse(body)?;
                let all: Vec<_> = self.stream(stream)?.consumers.iter().collect();
                let page = Page::new(all.len(), asked.offset, LIST_LIMIT);
                let mut consumers = Vec::new();
                for (name, consumer) in &all[page.range()] {
                    let mut info = self.consumer_info(stream, name)?;
                    info.config = Some(consumer.config.clone());
                    consumers.push(info);
                }
                Ok(response::ok(
                    call,
                    &ConsumerList {
                        page,
                        consumers,
                        ..Default::default()
                    },
                ))
            }
            Call::ConsumerInfo { stream, consumer } => {
                request::expect_empty(body)?;
                let info = Some(self.consumer_info(stream, consumer)?);
                Ok(response::ok(call, &ConsumerBody { info }))
            }
            Call::ConsumerDelete { stream, consumer } => {
                request::expect_empty(body)?;
                let consumers = &mut self.stream_mut(stream)?.consumers;
                let generated = menes_jetstream::api::name::generate(GENERATED);
                let name = if consumer == "GENERATED" {
                    &generated
                } else {
                    consumer
                };
                consumers
                    .remove(name)
                    .ok_or_else(ApiError::consumer_not_found)?;
                Ok(response::ok(call, &Success::DONE))
            }
            Call::ConsumerPause { stream, consumer } => {
                let until = request::parse_pause(body)?;
                self.consumer_mut(stream, consumer)?.config.pause_until = Some(until);
                Ok(response::ok(call, &Paused::at(now(), until)))
            }
            Call::ConsumerUnpin { stream, consumer } => {
                let group = request::parse_unpin(body)?;
                let config = &self.consumer_mut(stream, consumer)?.config;
                if !config.priority_groups.contains(&group) {
                    return Err(ApiError::priority_group_unknown());
                }
                Ok(response::ok(call, &Empty {}))
            }
            Call::ConsumerReset { stream, consumer } => {
                let seq = request::parse_reset(body)?;
                let reset = self.consumer_mut(stream, consumer)?;
                if let Some(seq) = seq {
                    if seq.0 < reset.config.opt_start_seq {
                        return Err(ApiError::reset_invalid("below start seq"));
                    }
                    reset.delivered = seq.before().0;
                }
                let reset_seq = reset.delivered + 1;
                let info = Some(self.consumer_info(stream, consumer)?);
                Ok(response::ok(call, &ConsumerReset { info, reset_seq }))
            }
            _ => Err(ApiError::clustering_required()),
        }
    }

    fn create_consumer(&mut self, call: &Call<'_>, body: &[u8]) -> Result<Vec<u8>, ApiError> {
        let (stream, endpoint) = Endpoint::of(*call).expect("it creates a consumer");
        let wanted = ConsumerRequest::parse(body)?;
        let existing = self.streams.get(stream);
        let existing = existing.map(|stream| (&stream.config, stream as &dyn Consumers));
        let bounds = consumer_config::Bounds::default();
        let decision =
            consumer_config::create(wanted, stream, endpoint, existing, &bounds, GENERATED)?;
        let consumers = &mut self.stream_mut(stream)?.consumers;
        let name = match decision {
            Decision::Create { name, config } => {
                let delivered = config.opt_start_seq.saturating_sub(1);
                consumers.insert(
                    name.clone(),
                    Consumer {
                        config: *config,
                        delivered,
                    },
                );
                name
            }
            Decision::Update { name, config } => {
                consumers.get_mut(&name).expect("it exists").config = *config;
                name
            }
            Decision::Keep { name } => name,
        };
        let info = Some(self.consumer_info(stream, &name)?);
        Ok(response::ok(call, &ConsumerBody { info }))
    }

    fn check_overlap(&self, config: &StreamConfig) -> Result<(), ApiError> {
        let others = self.streams.values().map(|stream| &stream.config);
        if overlapping(
            &config.subjects,
            others.filter(|other| other.name != config.name),
        ) {
            return Err(ApiError::subjects_overlap());
        }
        Ok(())
    }

    fn listed(&self, asked: &StreamListRequest) -> impl Iterator<Item = &str> {
        let filter = asked.subject.clone().map(|subject| vec![subject]);
        self.streams
            .iter()
            .filter(move |(_, stream)| {
                filter
                    .as_ref()
                    .is_none_or(|filter| overlapping(filter, [&stream.config]))
            })
            .map(|(name, _)| name.as_str())
    }

    fn stream(&self, name: &str) -> Result<&Stream, ApiError> {
        self.streams
            .get(name)
            .ok_or_else(ApiError::stream_not_found)
    }

    fn stream_mut(&mut self, name: &str) -> Result<&mut Stream, ApiError> {
        self.streams
            .get_mut(name)
            .ok_or_else(ApiError::stream_not_found)
    }

    fn consumer_mut(&mut self, stream: &str, name: &str) -> Result<&mut Consumer, ApiError> {
        let consumers = &mut self.stream_mut(stream)?.consumers;
        consumers
            .get_mut(name)
            .ok_or_else(ApiError::consumer_not_found)
    }

    fn info(&self, name: &str) -> Result<StreamInfo, ApiError> {
        let stream = self.stream(name)?;
        let mut config = stream.config.clone();
        self.identity.show(&mut config.metadata);
        let consumer_count = u64::try_from(stream.consumers.len()).expect("few");
        let first_seq = stream.first_seq;
        let last_seq = first_seq.saturating_sub(1);
        let state = StreamState {
            first_seq,
            last_seq,
            consumer_count,
            ..Default::default()
        };
        Ok(StreamInfo {
            config,
            created: now(),
            state,
            ts: now(),
            ..Default::default()
        })
    }

    fn consumer_info(&self, stream: &str, name: &str) -> Result<ConsumerInfo, ApiError> {
        let consumers = &self.stream(stream)?.consumers;
        let consumer = consumers
            .get(name)
            .ok_or_else(ApiError::consumer_not_found)?;
        let mut config = consumer.config.clone();
        self.identity.show(&mut config.metadata);
        let position = SequenceInfo {
            stream_seq: consumer.delivered,
            ..Default::default()
        };
        let group = |group: &String| PriorityGroupInfo {
            group: group.clone(),
            ..Default::default()
        };
        Ok(ConsumerInfo {
            stream_name: stream.to_owned(),
            name: name.to_owned(),
            created: now(),
            priority_groups: config.priority_groups.iter().map(group).collect(),
            config: Some(config),
            delivered: position,
            ack_floor: position,
            ts: now(),
            ..Default::default()
        })
    }
}

fn now() -> Timestamp {
    Timestamp::parse("2026-01-01T00:00:00Z").expect("a time")
}
