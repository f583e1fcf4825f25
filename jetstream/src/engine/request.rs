//! Requests of the JetStream API, acks and pulls: what clients ask the engine directly.
//!
//! A question is answered at once from applied state. A change is checked against applied state,
//! so that what can never succeed is refused early, and then proposed; its answer leaves when it
//! is applied.

use std::cell::RefCell;
use std::collections::BTreeMap;

use menes_protocol::headers::HeaderBlock;

use super::deliver::MAX_REMOVED;
use super::{Application, Asker, Audit, Completion, Engine, Origin, StreamGroup};
use crate::api::consumer_config::{self, Consumers, Decision, Endpoint};
use crate::api::request::{self, MessageSelector, REQUIRED_LEVEL_HEADER, Start};
use crate::api::response::{self, Page};
use crate::api::stream_config;
use crate::api::{ApiError, Call, metadata};
use crate::command::{MetaCommand, StreamCommand};
use crate::consumer::config::{AckPolicy, DeliverPolicy};
use crate::consumer::{AckToken, Consumer, ConsumerConfig, ConsumerInfo, Turn, parse_flow_subject};
use crate::ids::{AccountName, GroupId, StreamSeq};
use crate::ports::{LogStore, Outbox, Outgoing, StateStore, StoreError};
use crate::record::StoredMessage;
use crate::stream::{Filters, Stream, StreamConfig, View};
use crate::time::Timestamp;

/// Most sequences of deleted messages in one answer.
const MAX_DELETED: usize = 100_000;

/// A message to the engine itself.
#[derive(Clone, Copy, Debug)]
pub struct ApiRequest<'a> {
    /// Account of the client.
    pub account: &'a AccountName,
    /// Subject, which says what is wanted.
    pub subject: &'a [u8],
    /// Where the answer goes, empty for nowhere.
    pub reply: &'a [u8],
    /// Header block, empty for none.
    pub header: &'a [u8],
    /// Body.
    pub payload: &'a [u8],
    /// The client as a JSON object, for the audit of the API; empty where nobody audits.
    pub client: &'a [u8],
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// A request of the JetStream API.
    pub fn request(&mut self, request: ApiRequest<'_>, now: Timestamp, out: &mut dyn Outbox) {
        let call = Call::parse(request.subject);
        match call {
            Call::MessageNext { stream, consumer } => {
                self.pull(&request, stream, consumer, now, out);
            }
            Call::DirectGet { stream, subject } => {
                self.direct_get(&request, stream, subject, out);
            }
            _ if self.holds(&call, &request) => {}
            _ => self.carry_out(&request, &call, now, out),
        }
    }

    /// Carries out a request, or proposes what it asks for.
    pub(super) fn carry_out(
        &mut self,
        request: &ApiRequest<'_>,
        call: &Call<'_>,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        let audit = (!request.client.is_empty()).then(|| Audit {
            client: request.client.to_vec(),
            request: request.payload.to_vec(),
        });
        let origin = Origin::Client(Box::new(Asker {
            account: request.account.clone(),
            reply: request.reply.to_vec(),
            subject: request.subject.to_vec(),
            audit,
        }));
        if let Err(error) = self.handle(request, call, origin.clone(), now, out) {
            self.answer(origin, Err(error), now, out);
        }
    }

    /// Answers a request of an account that may not use JetStream.
    pub fn refuse_account(&mut self, request: &ApiRequest<'_>, out: &mut dyn Outbox) {
        match Call::parse(request.subject) {
            Call::MessageNext { .. } | Call::DirectGet { .. } => no_responders(request, out),
            Call::Unknown => {}
            call if !request.reply.is_empty() => {
                let error = ApiError::not_enabled_for_account();
                let payload = response::error(&call, &error);
                send(request.account, request.reply, b"", &payload, out);
            }
            _ => {}
        }
    }

    /// An acknowledgement of a delivery. False when nobody takes such: there is no consumer of this
    /// name, or it wants no acks.
    pub fn ack(&mut self, request: ApiRequest<'_>, now: Timestamp, out: &mut dyn Outbox) -> bool {
        let Some(token) = AckToken::parse(request.subject) else {
            return false;
        };
        if self.poisoned.is_some() {
            return true;
        }
        let found = self.find_bytes(request.account, token.stream, token.consumer);
        let Some((group, id)) = found else {
            return false;
        };
        // An ack for an earlier stream of the same name speaks of another message.
        let since = self.groups.get(&group).map(|target| target.since);
        let is_older = since.is_none_or(|since| token.timestamp < since);
        if is_older && !self.has_message(group, token.stream_seq, token.timestamp) {
            return true;
        }
        let mut takes = true;
        self.attend(group, id, now, out, |consumer, turn| {
            takes = matches!(
                consumer.config().ack_policy,
                AckPolicy::All | AckPolicy::Explicit
            );
            consumer.ack(&token, request.payload, request.reply, turn)
        });
        takes
    }

    /// Whether a stream has this message. Those of a mirror and of a stream that was restored may be
    /// older than the stream.
    fn has_message(&mut self, group: GroupId, seq: StreamSeq, time: Timestamp) -> bool {
        let message = self.with_view(group, |target, view| target.stream.message(seq, view));
        matches!(message, Ok(Some(message)) if message.time() == time)
    }

    /// Tells a requester that nobody listens.
    pub fn nobody_listens(&self, request: &ApiRequest<'_>, out: &mut dyn Outbox) {
        no_responders(request, out);
    }

    /// A client's answer to a flow control request.
    pub fn flow_control(&mut self, request: ApiRequest<'_>, now: Timestamp, out: &mut dyn Outbox) {
        let Some((stream, consumer)) = parse_flow_subject(request.subject) else {
            return;
        };
        let found = self.find_bytes(request.account, stream, consumer);
        let Some((group, id)) = found.filter(|_| self.poisoned.is_none()) else {
            return;
        };
        let last = HeaderBlock::parse(request.header)
            .ok()
            .and_then(|header| header.get("Nats-Last-Stream"))
            .and_then(|text| std::str::from_utf8(text).ok()?.parse().ok())
            .filter(|last| *last > 0)
            .map(StreamSeq);
        self.attend(group, id, now, out, |consumer, turn| {
            consumer.flow_confirmed(request.subject, last, turn);
            Ok(())
        });
    }

    fn pull(
        &mut self,
        request: &ApiRequest<'_>,
        stream: &str,
        consumer: &str,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        let found = self.find(request.account, stream, consumer);
        let Some((group, id)) = found.filter(|_| self.poisoned.is_none()) else {
            no_responders(request, out);
            return;
        };
        self.attend(group, id, now, out, |consumer, turn| {
            consumer.pull(request.reply, request.payload, turn)
        });
    }

    /// Lets a consumer take something in. It gets its turn to hand out messages if that helps.
    fn attend(
        &mut self,
        group: GroupId,
        id: u32,
        now: Timestamp,
        out: &mut dyn Outbox,
        work: impl FnOnce(&mut Consumer, &mut Turn<'_>) -> Result<(), StoreError>,
    ) {
        let result = self.with_consumer(group, id, now, out, |consumer, turn| {
            (work(consumer, turn), consumer.is_ready())
        });
        let Some((result, is_ready)) = result else {
            return;
        };
        if let Err(error) = result {
            // Its clients wait and ask again.
            tracing::error!("a consumer cannot read its stream: {error}");
        }
        if is_ready {
            self.ready.insert((group, id));
        }
    }

    fn handle(
        &mut self,
        request: &ApiRequest<'_>,
        call: &Call<'_>,
        origin: Origin,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Result<(), ApiError> {
        if !request.header.is_empty()
            && let Ok(header) = HeaderBlock::parse(request.header)
        {
            let level = self.options.identity.level;
            request::check_required_level(header.get(REQUIRED_LEVEL_HEADER), level)?;
        }
        if self.poisoned.is_some() {
            return Err(ApiError::temporarily_unavailable());
        }
        let account = request.account;
        let body = request.payload;
        match *call {
            Call::AccountInfo => {
                let info = self.account_info(account);
                self.reply(request, call, &info, now, out);
            }
            Call::StreamCreate { stream } => {
                let wanted = request::StreamRequest::parse(body)?;
                self.propose_create_stream(account, stream, wanted, origin, now)?;
            }
            Call::StreamUpdate { stream } => {
                let wanted = request::StreamRequest::parse(body)?;
                self.propose_update_stream(account, stream, wanted, origin, now)?;
            }
            Call::StreamInfo { stream } => {
                let wanted = request::StreamInfoRequest::parse(body)?;
                let answer = self.stream_info(account, stream, &wanted, now)?;
                self.reply(request, call, &answer, now, out);
            }
            Call::StreamNames => {
                let wanted = request::StreamListRequest::parse(body)?;
                let names = self.matching_streams(account, wanted.subject.as_deref());
                let page = Page::new(names.len(), wanted.offset, response::NAMES_LIMIT);
                let streams = names.get(page.range()).unwrap_or_default();
                let streams = streams.iter().map(|(name, _)| name.clone()).collect();
                let answer = response::StreamNames { page, streams };
                self.reply(request, call, &answer, now, out);
            }
            Call::StreamList => {
                let wanted = request::StreamListRequest::parse(body)?;
                let names = self.matching_streams(account, wanted.subject.as_deref());
                let page = Page::new(names.len(), wanted.offset, response::LIST_LIMIT);
                let streams = names.get(page.range()).unwrap_or_default();
                let streams = streams
                    .iter()
                    .map(|(_, group)| {
                        let mut info = self.info_of(*group, now)?;
                        // Lists show what is stored.
                        metadata::Identity::hide(&mut info.config.metadata);
                        Ok(info)
                    })
                    .collect::<Result<_, ApiError>>()?;
                let answer = response::StreamList {
                    page,
                    streams,
                    ..Default::default()
                };
                self.reply(request, call, &answer, now, out);
            }
            Call::StreamDelete { stream } => {
                require_empty(body)?;
                self.propose_delete_stream(account, stream, false, origin)?;
            }
            Call::StreamPurge { stream } => {
                let mut purge = request::parse_purge(body)?;
                purge.most = Some(MAX_REMOVED);
                let (group, config) = self.stream_config(account, stream)?;
                stream_config::check_purge(config)?;
                self.propose_stream(group, StreamCommand::Purge(purge), origin);
            }
            Call::MessageGet { stream } => {
                let wanted = request::MessageGetRequest::parse(body)?;
                let found = self
                    .select(account, stream, &wanted.selector)?
                    .ok_or_else(ApiError::message_not_found)?;
                let header = if wanted.no_headers {
                    &b""[..]
                } else {
                    found.header()
                };
                let message = response::StoredMessage::new(
                    found.subject(),
                    found.seq.0,
                    header,
                    found.payload(),
                    found.time(),
                );
                let answer = response::MessageFound {
                    message: Some(message),
                };
                self.reply(request, call, &answer, now, out);
            }
            Call::MessageDelete { stream } => {
                let wanted = request::MessageDeleteRequest::parse(body)?;
                let (group, config) = self.stream_config(account, stream)?;
                stream_config::check_message_delete(config)?;
                self.propose_stream(
                    group,
                    StreamCommand::DeleteMessage { seq: wanted.seq },
                    origin,
                );
            }
            Call::ConsumerCreate { .. } | Call::ConsumerDurableCreate { .. } => {
                let Some((stream, endpoint)) = Endpoint::of(*call) else {
                    return Err(ApiError::bad_request());
                };
                let wanted = request::ConsumerRequest::parse(body)?;
                self.propose_create_consumer(account, stream, endpoint, wanted, origin, now, out)?;
            }
            Call::ConsumerInfo { stream, consumer } => {
                require_empty(body)?;
                self.stream_config(account, stream)?;
                let (group, id) = self
                    .find(account, stream, consumer)
                    .ok_or_else(ApiError::consumer_not_found)?;
                let info = self.shown_consumer_info(group, id, now, out)?;
                let answer = response::ConsumerBody { info: Some(info) };
                self.reply(request, call, &answer, now, out);
            }
            Call::ConsumerNames { stream } => {
                let wanted = request::ConsumerListRequest::parse(body)?;
                let (group, _) = self.stream_config(account, stream)?;
                let names: Vec<String> = self.groups.get(&group).map_or_else(Vec::new, |target| {
                    target.consumers.keys().cloned().collect()
                });
                let page = Page::new(names.len(), wanted.offset, response::NAMES_LIMIT);
                let consumers = names.get(page.range()).unwrap_or_default().to_vec();
                let answer = response::ConsumerNames { page, consumers };
                self.reply(request, call, &answer, now, out);
            }
            Call::ConsumerList { stream } => {
                let wanted = request::ConsumerListRequest::parse(body)?;
                let (group, _) = self.stream_config(account, stream)?;
                let ids: Vec<u32> = self.groups.get(&group).map_or_else(Vec::new, |target| {
                    target.consumers.values().map(Consumer::id).collect()
                });
                let page = Page::new(ids.len(), wanted.offset, response::LIST_LIMIT);
                let mut consumers = Vec::new();
                for id in ids.get(page.range()).unwrap_or_default() {
                    let mut info = self.consumer_info(group, *id, now, out)?;
                    if let Some(config) = &mut info.config {
                        metadata::Identity::hide(&mut config.metadata);
                    }
                    consumers.push(info);
                }
                let answer = response::ConsumerList {
                    page,
                    consumers,
                    ..Default::default()
                };
                self.reply(request, call, &answer, now, out);
            }
            Call::ConsumerDelete { stream, consumer } => {
                require_empty(body)?;
                self.propose_delete_consumer(account, stream, consumer, origin)?;
            }
            Call::ConsumerPause { stream, consumer } => {
                let until = request::parse_pause(body)?;
                self.stream_config(account, stream)?;
                let (group, _) = self
                    .find(account, stream, consumer)
                    .ok_or_else(ApiError::consumer_not_found)?;
                let command = StreamCommand::PauseConsumer {
                    name: consumer.to_owned(),
                    until,
                };
                self.propose_stream(group, command, origin);
            }
            Call::ConsumerUnpin { stream, consumer } => {
                let wanted = request::parse_unpin(body)?;
                self.stream_config(account, stream)?;
                let (group, id) = self
                    .find(account, stream, consumer)
                    .ok_or_else(ApiError::consumer_not_found)?;
                let is_known = self
                    .consumer_config(group, consumer)
                    .is_some_and(|config| config.priority_groups.contains(&wanted));
                if !is_known {
                    return Err(ApiError::priority_group_unknown());
                }
                self.with_consumer(group, id, now, out, Consumer::unpin);
                self.ready.insert((group, id));
                self.reply(request, call, &response::Empty {}, now, out);
            }
            Call::ConsumerReset { stream, consumer } => {
                let start = if body.is_empty() {
                    None
                } else {
                    request::parse_reset(body)?
                };
                let Some((group, _)) = self.find(account, stream, consumer) else {
                    no_responders(request, out);
                    return Ok(());
                };
                if let Some(start) = start {
                    self.check_reset(group, consumer, start)?;
                }
                let command = StreamCommand::ResetConsumer {
                    name: consumer.to_owned(),
                    start,
                };
                self.propose_stream(group, command, origin);
            }
            Call::StreamLeaderStepDown { .. }
            | Call::ConsumerLeaderStepDown { .. }
            | Call::StreamPeerRemove { .. }
            | Call::MetaLeaderStepDown
            | Call::ServerRemove => return Err(ApiError::clustering_required()),
            // As the reference server: whoever asks hears nothing.
            Call::Unknown => {}
            Call::StreamSnapshot { stream } => {
                self.stream_config(account, stream)?;
                let wanted = request::SnapshotRequest::parse(body)?;
                let answer = self.begin_backup(account, stream, &wanted, now, out)?;
                self.reply(request, call, &answer, now, out);
            }
            Call::StreamRestore { stream } => {
                let wanted = request::RestoreRequest::parse(body)?;
                let answer = self.begin_restore(account, stream, wanted, now)?;
                self.reply(request, call, &answer, now, out);
            }
            Call::StreamPeerEvacuate { .. }
            | Call::StreamCancelMove { .. }
            | Call::ConsumerPeerRemove { .. }
            | Call::ConsumerPeerEvacuate { .. }
            | Call::ServerEvacuate
            | Call::MetaRescue
            | Call::AccountPurge { .. }
            | Call::AccountStreamMove { .. }
            | Call::AccountStreamCancelMove { .. }
            | Call::MessageNext { .. }
            | Call::DirectGet { .. } => return Err(not_built()),
        }
        Ok(())
    }

    pub(super) fn propose_create_stream(
        &mut self,
        account: &AccountName,
        name: &str,
        wanted: request::StreamRequest,
        origin: Origin,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let pedantic = wanted.pedantic;
        let mut config = stream_config::create(wanted, name, &self.stream_bounds(account))?;
        stream_config::follow_origins(&mut config, pedantic, |origin| {
            self.stream_config(account, origin).ok().map(|(_, c)| c)
        })?;
        let mut claim = None;
        if let Some(group) = self.meta.holder(account, name) {
            let target = self
                .groups
                .get(&group)
                .ok_or_else(ApiError::stream_not_found)?;
            if target.restoring || !stream_config::same(target.stream.config(), &config) {
                return Err(ApiError::stream_name_in_use());
            }
        } else if self.is_restoring(account, name) {
            return Err(ApiError::stream_name_in_use());
        } else {
            let admitted = self.accounts.claim_stream(account, &config)?;
            if self.overlaps_another(account, name, &config.subjects) {
                self.accounts.release(Some(admitted));
                return Err(ApiError::subjects_overlap());
            }
            claim = Some(admitted);
        }
        metadata::stamp_stream(&mut config);
        let command = MetaCommand::CreateStream {
            account: account.clone(),
            config: Box::new(config),
            now,
            restoring: false,
        };
        self.propose_meta(command, origin, claim);
        Ok(())
    }

    pub(super) fn propose_update_stream(
        &mut self,
        account: &AccountName,
        name: &str,
        wanted: request::StreamRequest,
        origin: Origin,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let target = self
            .meta
            .group(account, name)
            .and_then(|group| self.groups.get(&group));
        let current = target.map(|target| target.stream.config());
        let bounds = self.stream_bounds(account);
        let pedantic = wanted.pedantic;
        let mut config = stream_config::update(wanted, name, current, &bounds)?;
        stream_config::follow_origins(&mut config, pedantic, |origin| {
            self.stream_config(account, origin).ok().map(|(_, c)| c)
        })?;
        if let Some(target) = target {
            self.accounts
                .check_growth(account, target.stream.config(), &config)?;
            let consumers = target
                .consumers
                .iter()
                .map(|(name, c)| (name.as_str(), c.config()));
            stream_config::check_consumers(target.stream.config(), &config, consumers)?;
        }
        if self.overlaps_another(account, name, &config.subjects) {
            return Err(ApiError::subjects_overlap());
        }
        metadata::stamp_stream(&mut config);
        let command = MetaCommand::UpdateStream {
            account: account.clone(),
            config: Box::new(config),
            now,
            most: Some(MAX_REMOVED),
        };
        self.propose_meta(command, origin, None);
        Ok(())
    }

    pub(super) fn propose_delete_stream(
        &mut self,
        account: &AccountName,
        name: &str,
        only_if_unused: bool,
        origin: Origin,
    ) -> Result<(), ApiError> {
        if !self.has_stream(account, name) {
            return Err(ApiError::stream_not_found());
        }
        let command = MetaCommand::DeleteStream {
            account: account.clone(),
            name: name.to_owned(),
            only_if_unused,
        };
        self.propose_meta(command, origin, None);
        Ok(())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one request and where its answer goes"
    )]
    pub(super) fn propose_create_consumer(
        &mut self,
        account: &AccountName,
        stream: &str,
        endpoint: Endpoint<'_>,
        wanted: request::ConsumerRequest,
        origin: Origin,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Result<(), ApiError> {
        let random = self.next_random();
        let bounds = self.consumer_bounds(account);
        let group = self.meta.group(account, stream);
        let target = group.and_then(|group| self.groups.get(&group));
        let known = target.map(|target| Known {
            members: Members(target),
            out: RefCell::new(out),
        });
        let existing = known
            .as_ref()
            .map(|known| (known.members.0.stream.config(), known as &dyn Consumers));
        let decision =
            consumer_config::create(wanted, stream, endpoint, existing, &bounds, random)?;
        let Some(group) = group else {
            return Err(ApiError::stream_not_found());
        };
        let command = match decision {
            Decision::Create { name, mut config } => {
                metadata::stamp_consumer(&mut config);
                StreamCommand::CreateConsumer {
                    name,
                    config,
                    now,
                    settled: None,
                }
            }
            Decision::Update { name, mut config } => {
                metadata::stamp_consumer(&mut config);
                StreamCommand::UpdateConsumer { name, config }
            }
            Decision::Keep { name } => {
                let target = self
                    .groups
                    .get(&group)
                    .ok_or_else(ApiError::stream_not_found)?;
                let current = target
                    .consumers
                    .get(&name)
                    .ok_or_else(ApiError::consumer_not_found)?;
                let config = Box::new(current.config().clone());
                StreamCommand::CreateConsumer {
                    name,
                    config,
                    now,
                    settled: None,
                }
            }
        };
        self.propose_stream(group, command, origin);
        Ok(())
    }

    fn consumer_config(&self, group: GroupId, name: &str) -> Option<&ConsumerConfig> {
        let target = self.groups.get(&group)?;
        target.consumers.get(name).map(Consumer::config)
    }

    /// A consumer may not be set to before where its configuration has it begin.
    fn check_reset(
        &mut self,
        group: GroupId,
        name: &str,
        start: StreamSeq,
    ) -> Result<(), ApiError> {
        let Some(config) = self.consumer_config(group, name) else {
            return Err(ApiError::consumer_not_found());
        };
        match config.deliver_policy {
            DeliverPolicy::All => Ok(()),
            DeliverPolicy::ByStartSequence if start.0 >= config.opt_start_seq => Ok(()),
            DeliverPolicy::ByStartSequence => Err(ApiError::reset_invalid("below start seq")),
            DeliverPolicy::ByStartTime => {
                let time = config.opt_start_time.unwrap_or(Timestamp::ZERO);
                let first = self.with_view(group, |target, view| {
                    self::start(&target.stream, Start::Time(time), view)
                })?;
                if start < first {
                    return Err(ApiError::reset_invalid("below start time"));
                }
                Ok(())
            }
            DeliverPolicy::Last | DeliverPolicy::New | DeliverPolicy::LastPerSubject => {
                Err(ApiError::reset_invalid("not allowed"))
            }
        }
    }

    pub(super) fn propose_delete_consumer(
        &mut self,
        account: &AccountName,
        stream: &str,
        consumer: &str,
        origin: Origin,
    ) -> Result<(), ApiError> {
        let (group, _) = self.stream_config(account, stream)?;
        if self.find(account, stream, consumer).is_none() {
            return Err(ApiError::consumer_not_found());
        }
        let command = StreamCommand::DeleteConsumer {
            name: consumer.to_owned(),
            id: None,
        };
        self.propose_stream(group, command, origin);
        Ok(())
    }

    /// Tells whoever waits for a command what became of it.
    pub(super) fn answer(
        &mut self,
        origin: Origin,
        result: Result<Applied, ApiError>,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        let asker = match origin {
            Origin::None => return,
            Origin::Restore(listener) => return self.restore_went_on(listener, result, now),
            Origin::Internal(token) => {
                let result = result.map(|_| ());
                self.completions.push(Completion { token, result });
                return;
            }
            Origin::Client(asker) => asker,
        };
        let call = Call::parse(&asker.subject);
        let body = result.and_then(|applied| self.body(&call, applied, now, out));
        self.accounts.count_request(&asker.account, body.is_err());
        let payload = body.unwrap_or_else(|error| response::error(&call, &error));
        if !asker.reply.is_empty() {
            send(&asker.account, &asker.reply, b"", &payload, out);
        }
        if let Some(audit) = &asker.audit {
            self.audit(&asker, audit, &payload, now, out);
        }
    }

    /// The answer to a change that was applied.
    fn body(
        &mut self,
        call: &Call<'_>,
        applied: Applied,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Result<Vec<u8>, ApiError> {
        Ok(match applied {
            Applied::Done => response::ok(call, &response::Success::DONE),
            Applied::Purged(purged) => response::ok(
                call,
                &response::Purged {
                    success: true,
                    purged,
                },
            ),
            Applied::Stream(group) => {
                let info = self.shown_info_of(group, now)?;
                if matches!(call, Call::StreamUpdate { .. }) {
                    response::ok(call, &response::StreamUpdated { info: Some(info) })
                } else {
                    let answer = response::StreamCreated {
                        info: Some(info),
                        did_create: true,
                    };
                    response::ok(call, &answer)
                }
            }
            Applied::Consumer(group, id) => {
                let info = self.shown_consumer_info(group, id, now, out)?;
                if matches!(call, Call::ConsumerPause { .. }) {
                    let until = info.config.as_ref().and_then(|c| c.pause_until);
                    let paused = response::Paused::at(now, until.unwrap_or(Timestamp::ZERO));
                    response::ok(call, &paused)
                } else {
                    response::ok(call, &response::ConsumerBody { info: Some(info) })
                }
            }
            Applied::Reset(group, id, start) => {
                let answer = response::ConsumerReset {
                    info: Some(self.consumer_info(group, id, now, out)?),
                    reset_seq: start.0,
                };
                response::ok(call, &answer)
            }
        })
    }

    /// Answers a question.
    fn reply<B: response::Body>(
        &mut self,
        request: &ApiRequest<'_>,
        call: &Call<'_>,
        body: &B,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        let payload = response::ok(call, body);
        if !request.reply.is_empty() {
            send(request.account, request.reply, b"", &payload, out);
        }
        // The reference server neither counts nor audits these.
        if matches!(call, Call::MessageGet { .. }) {
            return;
        }
        self.accounts.count_request(request.account, false);
        if !request.client.is_empty() {
            let asker = Asker {
                account: request.account.clone(),
                reply: Vec::new(),
                subject: request.subject.to_vec(),
                audit: None,
            };
            let audit = Audit {
                client: request.client.to_vec(),
                request: request.payload.to_vec(),
            };
            self.audit(&asker, &audit, &payload, now, out);
        }
    }

    pub(super) fn stream_config(
        &self,
        account: &AccountName,
        name: &str,
    ) -> Result<(GroupId, &StreamConfig), ApiError> {
        let group = self
            .meta
            .group(account, name)
            .ok_or_else(ApiError::stream_not_found)?;
        let target = self
            .groups
            .get(&group)
            .ok_or_else(ApiError::stream_not_found)?;
        Ok((group, target.stream.config()))
    }

    pub(super) fn find(
        &self,
        account: &AccountName,
        stream: &str,
        consumer: &str,
    ) -> Option<(GroupId, u32)> {
        let group = self.meta.group(account, stream)?;
        Some((
            group,
            self.groups.get(&group)?.consumers.get(consumer)?.id(),
        ))
    }

    fn find_bytes(
        &self,
        account: &AccountName,
        stream: &[u8],
        consumer: &[u8],
    ) -> Option<(GroupId, u32)> {
        let text = |bytes| std::str::from_utf8(bytes).ok();
        self.find(account, text(stream)?, text(consumer)?)
    }

    fn matching_streams(
        &self,
        account: &AccountName,
        filter: Option<&str>,
    ) -> Vec<(String, GroupId)> {
        // As in the reference server an empty token is a word like any other, which only wildcards
        // match.
        let filter = filter.map(|filter| {
            let words = filter.split('.');
            let words = words.map(|word| if word.is_empty() { "\0" } else { word });
            words.collect::<Vec<_>>().join(".")
        });
        self.meta
            .streams(account)
            .filter(|(_, group)| {
                let Some(filter) = &filter else { return true };
                self.groups.get(group).is_some_and(|target| {
                    target.stream.config().subjects.iter().any(|subject| {
                        menes_protocol::subject::overlaps(subject.as_bytes(), filter.as_bytes())
                    })
                })
            })
            .map(|(name, group)| (name.to_owned(), group))
            .collect()
    }

    /// A stream with what the server says of itself in its metadata, which lists leave out.
    fn shown_info_of(
        &mut self,
        group: GroupId,
        now: Timestamp,
    ) -> Result<response::StreamInfo, ApiError> {
        let mut info = self.info_of(group, now)?;
        self.options.identity.show(&mut info.config.metadata);
        Ok(info)
    }

    pub(super) fn info_of(
        &mut self,
        group: GroupId,
        now: Timestamp,
    ) -> Result<response::StreamInfo, ApiError> {
        let mut state = self.with_view(group, |target, view| target.stream.state(view))?;
        let target = self
            .groups
            .get(&group)
            .ok_or_else(ApiError::stream_not_found)?;
        let config = target.stream.config().clone();
        // As the reference server shows a stream in which nothing was ever stored.
        if state.last_seq == 0 && state.first_seq == 1 && target.stream.config().first_seq == 0 {
            state.first_seq = 0;
        }
        state.consumer_count = target.consumers.len() as u64;
        Ok(response::StreamInfo {
            config,
            created: target.created,
            state,
            domain: self.options.domain.clone(),
            cluster: None,
            mirror: target.mirror_info(now),
            sources: target.source_infos(now),
            ts: now,
        })
    }

    fn stream_info(
        &mut self,
        account: &AccountName,
        name: &str,
        wanted: &request::StreamInfoRequest,
        now: Timestamp,
    ) -> Result<response::StreamInfoBody, ApiError> {
        let (group, _) = self.stream_config(account, name)?;
        let mut info = self.shown_info_of(group, now)?;
        info.cluster = Some(response::ClusterInfo {
            leader: Some(self.options.server_name.clone()),
            ..Default::default()
        });
        let mut page = Page::default();
        self.with_view(group, |target, view| {
            if wanted.deleted_details {
                let deleted = target.stream.deleted(MAX_DELETED, view)?;
                info.state.deleted = Some(deleted).filter(|deleted| !deleted.is_empty());
            }
            if let Some(filter) = &wanted.subjects_filter {
                let offset = usize::try_from(wanted.offset).unwrap_or(usize::MAX);
                let limit = usize::try_from(response::SUBJECTS_LIMIT).unwrap_or(usize::MAX);
                let (subjects, total) = target.stream.subjects(filter, offset, limit, view)?;
                // As the reference server: without any such subject there is nothing to page.
                if total > 0 {
                    page = Page::new(total, wanted.offset, response::SUBJECTS_LIMIT);
                    page.offset = wanted.offset;
                    info.state.subjects = Some(subjects).filter(|found| !found.is_empty());
                }
            }
            Ok(())
        })?;
        Ok(response::StreamInfoBody {
            page,
            info: Some(info),
        })
    }

    pub(super) fn consumer_info(
        &mut self,
        group: GroupId,
        id: u32,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Result<ConsumerInfo, ApiError> {
        self.with_consumer(group, id, now, out, |consumer, turn| consumer.info(turn))
            .ok_or_else(ApiError::consumer_not_found)?
            .map_err(|error| broken(&error))
    }

    /// A consumer with what the server says of itself in its metadata, which lists leave out.
    fn shown_consumer_info(
        &mut self,
        group: GroupId,
        id: u32,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Result<ConsumerInfo, ApiError> {
        let mut info = self.consumer_info(group, id, now, out)?;
        if let Some(config) = &mut info.config {
            self.options.identity.show(&mut config.metadata);
        }
        Ok(info)
    }

    fn account_info(&self, account: &AccountName) -> response::AccountInfo {
        let used = self.accounts.used(account);
        let mut total = response::Tier {
            memory: used.memory,
            storage: used.storage,
            reserved_memory: used.reserved_memory,
            reserved_storage: used.reserved_storage,
            streams: used.streams,
            consumers: used.consumers,
            limits: self.accounts.limits(account),
        };
        let api = response::ApiStats {
            level: self.options.identity.level,
            total: used.api_total,
            errors: used.api_errors,
            inflight: 0,
        };
        let mut tiers = BTreeMap::new();
        if total.limits.is_tier {
            // All streams have one replica.
            tiers.insert("R1".to_owned(), total.clone());
            total.limits = response::AccountLimits::ELSEWHERE;
        }
        let stats = response::AccountStats {
            total,
            domain: self.options.domain.clone(),
            api,
            tiers,
        };
        response::AccountInfo { stats: Some(stats) }
    }

    /// Reads one stream.
    pub(super) fn with_view<T>(
        &mut self,
        group: GroupId,
        read: impl FnOnce(&StreamGroup, &mut View<'_>) -> Result<T, StoreError>,
    ) -> Result<T, ApiError> {
        let target = self
            .groups
            .get(&group)
            .ok_or_else(ApiError::stream_not_found)?;
        let state: &dyn StateStore = if target.in_memory {
            &self.volatile
        } else {
            &self.state
        };
        let mut view = View::new(state, &self.log, &mut self.cache);
        read(target, &mut view).map_err(|error| broken(&error))
    }

    /// The message a selector names.
    pub(super) fn select(
        &mut self,
        account: &AccountName,
        stream: &str,
        selector: &MessageSelector,
    ) -> Result<Option<StoredMessage>, ApiError> {
        let (group, _) = self.stream_config(account, stream)?;
        self.with_view(group, |target, view| select(&target.stream, selector, view))
    }
}

/// What a command that was applied leaves to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// Nothing more.
    Done,
    /// How many messages went.
    Purged(u64),
    /// The stream as it is now.
    Stream(GroupId),
    /// The consumer as it is now.
    Consumer(GroupId, u32),
    /// The same, and its next message.
    Reset(GroupId, u32, StreamSeq),
}

/// The consumers of a stream, as the rules ask about them.
pub(super) struct Members<'a>(pub(super) &'a StreamGroup);

impl Consumers for Members<'_> {
    fn config(&self, name: &str) -> Option<&ConsumerConfig> {
        self.0.consumers.get(name).map(Consumer::config)
    }

    fn visit(&self, visit: &mut dyn FnMut(&str, &ConsumerConfig) -> bool) {
        for (name, consumer) in &self.0.consumers {
            if !visit(name, consumer.config()) {
                return;
            }
        }
    }
}

/// The same, where it can be asked who listens.
struct Known<'a> {
    members: Members<'a>,
    out: RefCell<&'a mut dyn Outbox>,
}

impl Consumers for Known<'_> {
    fn config(&self, name: &str) -> Option<&ConsumerConfig> {
        self.members.config(name)
    }

    fn visit(&self, visit: &mut dyn FnMut(&str, &ConsumerConfig) -> bool) {
        self.members.visit(visit);
    }

    fn is_bound(&self, name: &str) -> bool {
        self.config(name).is_some_and(|config| {
            let group = Some(config.deliver_group.as_bytes()).filter(|group| !group.is_empty());
            config.is_push()
                && self.out.borrow_mut().has_interest(
                    &self.members.0.account,
                    config.deliver_subject.as_bytes(),
                    group,
                )
        })
    }
}

/// The message a selector names.
pub(super) fn select(
    stream: &Stream,
    selector: &MessageSelector,
    view: &mut View<'_>,
) -> Result<Option<StoredMessage>, StoreError> {
    match selector {
        MessageSelector::Seq(seq) => stream.message(*seq, view),
        MessageSelector::Time(time) => match stream.seq_at_time(*time, view)? {
            Some(from) => stream.next_message(from, &Filters::all(), view),
            None => Ok(None),
        },
        MessageSelector::Last(subject) => {
            stream.last_for_subject(&Filters::new([subject.as_str()]), view)
        }
        MessageSelector::Next { filter, from } => {
            let from = start(stream, *from, view)?;
            stream.next_message(from, &Filters::new([filter.as_str()]), view)
        }
    }
}

/// Where a request wants to begin.
pub(super) fn start(
    stream: &Stream,
    from: Start,
    view: &mut View<'_>,
) -> Result<StreamSeq, StoreError> {
    match from {
        Start::Seq(seq) => Ok(seq),
        Start::Time(time) => Ok(stream
            .seq_at_time(time, view)?
            .unwrap_or_else(|| stream.last_seq().next())),
    }
}

/// A stream that cannot be read: damage, told with its place.
pub(super) fn broken(error: &StoreError) -> ApiError {
    tracing::error!("a message cannot be read: {error}");
    ApiError::store(error)
}

fn not_built() -> ApiError {
    ApiError {
        description: "this request is not supported by this version".into(),
        ..ApiError::bad_request()
    }
}

fn require_empty(body: &[u8]) -> Result<(), ApiError> {
    request::expect_empty(body)
}

/// Answers as if nobody subscribed to the subject of the request.
pub(super) fn no_responders(request: &ApiRequest<'_>, out: &mut dyn Outbox) {
    if request.reply.is_empty() {
        return;
    }
    let mut header = b"NATS/1.0 503\r\nNats-Subject: ".to_vec();
    header.extend_from_slice(request.subject);
    header.extend_from_slice(b"\r\n\r\n");
    send(request.account, request.reply, &header, b"", out);
}

pub(super) fn send(
    account: &AccountName,
    reply: &[u8],
    header: &[u8],
    payload: &[u8],
    out: &mut dyn Outbox,
) {
    out.send(Outgoing {
        account,
        target: reply,
        subject: reply,
        reply: b"",
        header,
        payload,
    });
}
