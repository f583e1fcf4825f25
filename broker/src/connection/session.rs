//! The protocol of one client: what each operation does.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;
use menes_auth::claims::authorization::ClientTls;
use menes_protocol::connect::Connect;
use menes_protocol::encoder::server::info;
use menes_protocol::error::{Quoted, WireError};
use menes_protocol::headers;
use menes_protocol::info::Info;
use menes_protocol::parser::client::{ClientOp, ClientParser, Publish};
use menes_protocol::parser::{Limits, ParseError};
use menes_protocol::subject;
use rand::Rng;

use super::client::{Client, Identity, Transport};
use super::worker::Worker;
use crate::account::Account;
use crate::account::mapping::Mapped;
use crate::auth::gate::{self, Decision, Deferred, Outcome};
use crate::auth::permissions::{Permissions, PublishCache};
use crate::auth::{Attempt, Grant, Login, Proxied};
use crate::config::options::{Options, Timing};
use crate::error::CloseReason;
use crate::logging::traffic;
use crate::routing::{Flushed, Message, RouteBatch, Subscription};
use crate::server::Shared;
use crate::streams::ingest::IngestQueue;
use crate::system::ServerInfo;
use crate::system::trace::{self, Trace};

/// What the reader does next.
pub(super) enum Step {
    /// Reads more when there is more.
    Read,
    /// As `Read`, after others had a turn: there probably is more.
    ReadSoon,
    /// Waits a little for this receiver, then reads.
    Stall(Arc<Client>),
    /// Waits until the engine has caught up, then reads.
    AwaitEngine(Arc<IngestQueue>),
    /// Waits for the decision and tells [`Session::decided`].
    Decide(Deferred),
    /// Handles the bytes that are left.
    Resume,
    /// Ends the connection.
    Close(CloseReason),
}

/// State of the conversation.
pub(super) struct Session {
    worker: Rc<Worker>,
    client: Arc<Client>,
    parser: ClientParser,
    /// `None` until someone is logged in.
    bound: Option<Bound>,
    /// The CONNECT that waits for a decision.
    connecting: Option<Arc<Connect>>,
    /// The last CONNECT, as JSON, which is smaller: what a further one does not name stays.
    connected: Option<Box<[u8]>>,
    /// What the client is to sign; empty when nobody signs.
    nonce: Arc<str>,
    /// Key of the trusted proxy it came through.
    proxy: Option<Arc<str>>,
    /// When the user's credentials run out.
    expires: Option<Instant>,
    verbose: bool,
    pedantic: bool,
    protocol: i64,
    no_responders: bool,
    connect_received: bool,
    first_pong_sent: bool,
    refused: bool,
    pings: Pings,
    /// The options that `parser` goes by.
    generation: u64,
}

/// Who the connection acts as.
struct Bound {
    account: Arc<Account>,
    permissions: Option<Arc<Permissions>>,
    /// Subscriptions of the user; `None` is unlimited.
    max_subscriptions: Option<usize>,
    publish_cache: PublishCache,
    /// Observers were told.
    announced: bool,
}

/// When to ping, and what came back.
struct Pings {
    outstanding: u32,
    sent: Option<Instant>,
    /// When the round trip was last measured.
    measured: Option<Instant>,
    /// When data last came, or a PING.
    last_in: Instant,
    deadline: Instant,
}

/// A round trip older than this is measured again even on a busy connection.
const RTT_AGE: Duration = Duration::from_secs(3600);

/// How handling goes on behind an operation.
enum Flow {
    Next,
    Stop(Step),
}

impl Session {
    /// A conversation that begins.
    pub(super) fn new(worker: Rc<Worker>, client: Arc<Client>) -> Self {
        let generation = worker.shared().generation();
        let options = worker.shared().options();
        let limits = parser_limits(&options);
        let now = Instant::now();
        let timing = options.timing;
        let must_log_in = worker.shared().must_log_in(client.transport().into());
        let deadline = now
            + if must_log_in {
                auth_timeout(&options, &client)
            } else {
                first_ping(timing.first_ping)
            };
        let mut session = Self {
            parser: ClientParser::new(limits),
            bound: None,
            connecting: None,
            connected: None,
            nonce: nonce(worker.shared()),
            proxy: None,
            expires: None,
            verbose: true,
            pedantic: true,
            protocol: 0,
            no_responders: false,
            connect_received: false,
            first_pong_sent: false,
            refused: false,
            pings: Pings {
                outstanding: 0,
                sent: None,
                measured: None,
                last_in: now,
                deadline,
            },
            generation,
            worker,
            client,
        };
        if !must_log_in && let Some(login) = session.anonymous() {
            session.bind(login, &Connect::default(), false);
        }
        session
    }

    /// Who it is without credentials, if it may be someone.
    fn anonymous(&self) -> Option<Login> {
        let shared = self.worker.shared();
        if shared.operator().is_some() || self.is_mapped() {
            return None;
        }
        shared.auth().anonymous(self.client.transport().into())
    }

    /// The protocol begins now: the time for TLS does not count.
    pub(super) fn begin(&mut self) {
        let options = self.worker.shared().options();
        self.pings.deadline = Instant::now()
            + if self.must_log_in() {
                auth_timeout(&options, &self.client)
            } else {
                first_ping(options.timing.first_ping)
            };
    }

    fn must_log_in(&self) -> bool {
        let connection = self.client.transport().into();
        self.worker.shared().must_log_in(connection)
    }

    /// The connection.
    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    pub(super) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Bytes the incomplete operation needs, see [`ClientParser::needed`].
    pub(super) fn needed_bytes(&self) -> usize {
        self.parser.needed()
    }

    /// When [`Session::handle_deadline`] wants to be called.
    pub(super) fn deadline(&self) -> Instant {
        let ping = self.pings.deadline;
        self.expires.map_or(ping, |expires| expires.min(ping))
    }

    /// Whether the client was told why it is being disconnected.
    pub(super) fn was_refused(&self) -> bool {
        self.refused
    }

    /// Sends the first INFO.
    pub(super) fn greet(&mut self) {
        let document = self.info(false);
        let worker = Rc::clone(&self.worker);
        let mut batch = worker.batch();
        info(batch.line_to(&self.client), &document);
        batch.flush();
    }

    /// Tells a client that there are too many.
    pub(super) fn refuse_connection(&mut self) -> CloseReason {
        self.refuse(WireError::MaxConnections)
    }

    /// Sends an error and gives the reason for closing that goes with it.
    pub(super) fn refuse(&mut self, error: WireError<'_>) -> CloseReason {
        let worker = Rc::clone(&self.worker);
        let mut batch = worker.batch();
        let reason = self.refuse_in(&mut batch, error);
        batch.flush();
        reason
    }

    fn refuse_in(&mut self, batch: &mut RouteBatch, error: WireError<'_>) -> CloseReason {
        tell(batch, &self.client, error);
        self.refused = true;
        CloseReason::of_wire_error(error)
    }

    /// Handles all complete operations in `bytes`; returns how many bytes they were and what to do
    /// next.
    pub(super) fn handle_bytes(&mut self, bytes: &[u8]) -> (usize, Step) {
        let worker = Rc::clone(&self.worker);
        if self.generation != worker.shared().generation() {
            self.adopt_options();
        }
        let mut batch = worker.batch();
        let mut tally = Tally::default();
        let mut flushed = Flushed::default();
        let mut used = 0;
        let step = loop {
            let rest = &bytes[used..];
            if self.bound.is_none() && !rest.is_empty() && !self.may_begin(rest) {
                break Step::Close(self.refuse_login(&mut batch, None, gate::REFUSED));
            }
            let parsed = self.parser.parse(rest);
            if traffic::is_on()
                && let Ok(Some((count, op))) = &parsed
            {
                traffic::heard(&self.client, &rest[..*count], op);
            }
            match parsed {
                Ok(Some((count, ClientOp::Pub(publish)))) => {
                    used += count;
                    tally.msgs += 1;
                    tally.bytes += publish.body.len() as u64;
                    self.publish(&mut batch, &publish);
                    if batch.is_full() {
                        merge(&mut flushed, batch.flush());
                    }
                }
                Ok(Some((count, op))) => {
                    used += count;
                    if let Flow::Stop(step) = self.handle(&mut batch, op) {
                        break step;
                    }
                }
                Ok(None) => break Step::Read,
                Err(error) => {
                    log_parse_error(&self.client, error, rest);
                    let reason = CloseReason::of_parse_error(error);
                    if let Some(error) = error.wire_error() {
                        self.refuse_in(&mut batch, error);
                    }
                    break Step::Close(reason);
                }
            }
        };
        merge(&mut flushed, batch.flush());
        drop(batch);
        self.arrived(&tally);
        (used, self.after(step, flushed))
    }

    /// The options have changed.
    #[cold]
    fn adopt_options(&mut self) {
        let shared = self.worker.shared();
        self.generation = shared.generation();
        let mut limits = parser_limits(&shared.options());
        let of_account = self
            .bound
            .as_ref()
            .and_then(|bound| bound.account.limits().max_payload);
        limits.max_payload = limits.max_payload.min(of_account.unwrap_or(usize::MAX));
        self.parser.set_limits(limits);
    }

    fn arrived(&mut self, tally: &Tally) {
        self.pings.last_in = Instant::now();
        self.client.active();
        if tally.msgs > 0 {
            self.client.traffic().received(tally.msgs, tally.bytes);
            self.worker.counters().received(tally.msgs, tally.bytes);
        }
    }

    /// Receivers that are behind come before reading on.
    fn after(&self, step: Step, flushed: Flushed) -> Step {
        match step {
            Step::Read if flushed.engine_behind => {
                let queue = self.worker.shared().ingest().cloned();
                queue.map_or(Step::Read, Step::AwaitEngine)
            }
            Step::Read => flushed.behind.map_or(Step::Read, Step::Stall),
            step => step,
        }
    }

    /// The reader is about to wait for a receiver.
    pub(super) fn stalled(&self) {
        self.client.stalled();
        self.worker.counters().stalled();
    }

    /// Before login only CONNECT may come, unless someone may act without credentials.
    fn may_begin(&mut self, bytes: &[u8]) -> bool {
        if matches!(bytes.first(), Some(b'C' | b'c')) {
            return true;
        }
        let Some(login) = self.anonymous() else {
            return false;
        };
        let is_bound = self.bind(login, &Connect::default(), false);
        if is_bound {
            self.connect_received = true;
            self.start_pings();
        }
        is_bound
    }

    fn handle(&mut self, batch: &mut RouteBatch, op: ClientOp<'_>) -> Flow {
        match op {
            ClientOp::Pub(publish) => self.publish(batch, &publish),
            ClientOp::Sub {
                subject,
                queue,
                sid,
            } => self.subscribe(batch, subject, queue, sid),
            ClientOp::Unsub { sid, max } => self.unsubscribe(batch, sid, max),
            ClientOp::Ping => self.ping(batch),
            ClientOp::Pong => self.pong(),
            ClientOp::Ok => {}
            // What a client says of itself as a server is not used, but must be readable.
            ClientOp::Info(json) if Info::parse(json).is_ok() => {}
            ClientOp::Info(_) => {
                return Flow::Stop(Step::Close(CloseReason::ProtocolViolation));
            }
            ClientOp::Connect(json) => return self.connect(batch, json),
            ClientOp::Err(text) => {
                let text = String::from_utf8_lossy(text).replace(char::is_control, " ");
                tracing::error!("{} - Client Error {text}", self.client.who());
                return Flow::Stop(Step::Close(CloseReason::ParseError));
            }
        }
        Flow::Next
    }

    /// `+OK`, if the client wants to hear it.
    fn ok(&self, batch: &mut RouteBatch) {
        if self.verbose {
            say(batch, &self.client, b"+OK\r\n");
        }
    }

    fn error(&self, batch: &mut RouteBatch, error: WireError<'_>) {
        tell(batch, &self.client, error);
    }
}

/// Bytes of what is no operation that the log shows.
const SNIPPET_BYTES: usize = 32;

/// Logs what is wrong with what a client sent. Of messages nothing is shown, and of a line only what
/// is no verb.
#[cold]
fn log_parse_error(client: &Client, error: ParseError, rest: &[u8]) {
    let who = client.who();
    match error {
        ParseError::MaxControlLine { .. } => {
            tracing::error!("{who} - maximum control line exceeded")
        }
        ParseError::MaxPayload { size, limit } => {
            tracing::error!("{who} - maximum payload exceeded: {size} vs {limit}");
        }
        ParseError::UnknownOperation => {
            let start = &rest[..rest.len().min(SNIPPET_BYTES)];
            let verb = start.split(u8::is_ascii_whitespace).next();
            let verb = Quoted(verb.unwrap_or_default());
            tracing::error!("{who} - Client parser ERROR: {error}: proto={verb}");
        }
        ParseError::HeadersNotAgreed => tracing::error!("{who} - message headers not supported"),
        ParseError::PayloadEnd | ParseError::Arguments { .. } => {
            tracing::error!("{who} - Client parser ERROR: {error}");
        }
    }
}

/// Tells a client why not.
fn tell(batch: &mut RouteBatch, client: &Arc<Client>, error: WireError<'_>) {
    let line = batch.line_to(client);
    let start = line.len();
    error.encode(line);
    if traffic::is_on() {
        traffic::said(client, &line[start..]);
    }
}

/// Sends a client this line.
fn say(batch: &mut RouteBatch, client: &Arc<Client>, line: &[u8]) {
    batch.line_to(client).extend_from_slice(line);
    if traffic::is_on() {
        traffic::said(client, line);
    }
}

fn parser_limits(options: &Options) -> Limits {
    Limits {
        max_control_line: options.limits.max_control_line,
        max_payload: options.limits.max_payload,
    }
}

/// What came in one go.
#[derive(Default)]
struct Tally {
    msgs: u64,
    bytes: u64,
}

fn merge(all: &mut Flushed, one: Flushed) {
    all.engine_behind |= one.engine_behind;
    if one.behind.is_some() {
        all.behind = one.behind;
    }
}

/// Publishing.
impl Session {
    #[inline]
    fn publish(&mut self, batch: &mut RouteBatch, publish: &Publish<'_>) {
        let Some(bound) = &mut self.bound else { return };
        if self.pedantic && !subject::is_literal(publish.subject) {
            tell(batch, &self.client, WireError::InvalidPublishSubject);
        }
        let mapped;
        let subject = match batch.map(&bound.account, publish.subject) {
            None => publish.subject,
            Some(Mapped::To(to)) => {
                mapped = to;
                if traffic::is_on() {
                    traffic::mapped(&self.client, publish.subject, &mapped);
                }
                &*mapped
            }
            // Nobody listens there.
            Some(Mapped::Lost) => b"",
        };
        if !publish.header().is_empty() && trace::may_ask(publish.header(), &bound.account) {
            return self.publish_traced(batch, publish, subject);
        }
        if let Some(error) = bound.refuses(&self.client, subject, publish.reply) {
            log_publish_violation(&self.client, &error);
            tell(batch, &self.client, error);
            return;
        }
        if self.verbose {
            say(batch, &self.client, b"+OK\r\n");
        }
        let message = message_of(publish, subject);
        let count = batch.route(&bound.account, &message, Some(&self.client));
        if count == 0 && self.no_responders && !message.reply.is_empty() {
            no_responders(batch, &bound.account, &message, &self.client);
        }
    }

    /// Publishes a message that may want to be traced.
    #[cold]
    fn publish_traced(&mut self, batch: &mut RouteBatch, publish: &Publish<'_>, subject: &[u8]) {
        let Some(bound) = &mut self.bound else { return };
        let asked = trace::read(publish.header(), &bound.account, |destination| {
            let permissions = bound.permissions.as_ref();
            !is_gateway_reply(destination.as_bytes())
                && permissions.is_none_or(|p| p.may_publish(destination.as_bytes()))
        });
        let mut trace = match asked {
            trace::Asked::Nothing => None,
            trace::Asked::Drop => return,
            trace::Asked::Forbidden(destination) => {
                let subject = destination.as_bytes();
                let error = WireError::PublishPermission { subject };
                log_publish_violation(&self.client, &error);
                tell(batch, &self.client, error);
                return;
            }
            trace::Asked::Trace(trace) => Some(trace),
        };
        let error = bound.refuses(&self.client, subject, publish.reply);
        if let Some(trace) = &mut trace {
            let refusal = error
                .as_ref()
                .map(|_| trace::refusal::PUBLISH_DENIED.to_owned());
            trace.came_in(&self.client, publish.subject, publish.body.len(), refusal);
            if subject != publish.subject && !subject.is_empty() {
                trace.mapped(subject);
            }
        }
        if let Some(error) = error {
            log_publish_violation(&self.client, &error);
            tell(batch, &self.client, error);
        } else {
            if self.verbose {
                say(batch, &self.client, b"+OK\r\n");
            }
            let message = message_of(publish, subject);
            let account = &bound.account;
            let count = match &mut trace {
                Some(trace) => batch.route_traced(account, &message, Some(&self.client), trace),
                None => batch.route(account, &message, Some(&self.client)),
            };
            if count == 0 && self.no_responders && !message.reply.is_empty() {
                no_responders(batch, account, &message, &self.client);
            }
        }
        if let Some(trace) = trace {
            self.tell(batch, &trace);
        }
    }

    /// Publishes what became of a traced message.
    fn tell(&self, batch: &mut RouteBatch, trace: &Trace) {
        match trace.document(ServerInfo::of(self.worker.shared())) {
            Ok(body) => {
                let (account, destination) = trace.destination();
                batch.route(account, &Message::new(destination, &body), None);
            }
            Err(error) => tracing::error!("a trace cannot be written: {error}"),
        }
    }
}

fn message_of<'m>(publish: &Publish<'m>, subject: &'m [u8]) -> Message<'m> {
    Message {
        target: subject,
        subject,
        reply: publish.reply.unwrap_or_default(),
        header: publish.header(),
        payload: publish.payload(),
        shared: None,
    }
}

impl Bound {
    /// Why the message is not routed, if it is not.
    #[inline]
    fn refuses<'m>(
        &mut self,
        client: &Client,
        subject: &'m [u8],
        reply: Option<&'m [u8]>,
    ) -> Option<WireError<'m>> {
        let is_reserved = matches!(subject.first(), Some(b'$' | b'_'))
            && (is_gateway_reply(subject)
                || (subject.starts_with(b"$NRG.") && !self.account.is_system()));
        let is_permitted = self.permissions.as_ref().is_none_or(|permissions| {
            self.publish_cache.may_publish(permissions, subject) || client.use_response(subject)
        });
        if is_reserved || !is_permitted {
            return Some(WireError::PublishPermission { subject });
        }
        let reply = reply?;
        let permissions = self.permissions.as_ref();
        if permissions.is_some_and(|permissions| !permissions.may_hear_on(reply)) {
            return Some(WireError::ReplyPermission { reply });
        }
        let is_reserved = matches!(reply.first(), Some(b'$' | b'_'))
            && [&b"_R_."[..], b"$JS.ACK.", b"_GR_.", b"$GR."]
                .iter()
                .any(|prefix| reply.len() > prefix.len() && reply.starts_with(prefix));
        is_reserved.then_some(WireError::ReplyPermission { reply })
    }
}

/// Whether it is a place for answers of gateways, new or old.
fn is_gateway_reply(subject: &[u8]) -> bool {
    [&b"_GR_."[..], b"$GR."]
        .iter()
        .any(|prefix| subject.len() > prefix.len() && subject.starts_with(prefix))
}

/// Tells a requester at once that nobody listens.
fn no_responders(
    batch: &mut RouteBatch,
    account: &Arc<Account>,
    request: &Message<'_>,
    client: &Arc<Client>,
) {
    let mut header = Vec::with_capacity(48 + request.target.len());
    header.extend_from_slice(headers::VERSION);
    header.extend_from_slice(b" 503\r\nNats-Subject: ");
    header.extend_from_slice(request.target);
    header.extend_from_slice(b"\r\n\r\n");
    let answer = Message {
        header: &header,
        ..Message::new(request.reply, b"")
    };
    batch.answer(account, &answer, client);
}

fn log_publish_violation(client: &Client, error: &WireError<'_>) {
    let (label, subject) = match error {
        WireError::PublishPermission { subject } => ("Subject", subject),
        WireError::ReplyPermission { reply } => ("Reply", reply),
        _ => return,
    };
    let (who, subject) = (client.who(), Quoted(subject));
    tracing::error!("{who} - Publish Violation - {label} {subject}");
}

fn log_subscription_violation(
    client: &Client,
    what: &str,
    filter: &[u8],
    queue: Option<&[u8]>,
    sid: &[u8],
) {
    let (who, filter) = (client.who(), Quoted(filter));
    let queue = queue.map_or_else(String::new, |queue| format!(", Queue: {}", Quoted(queue)));
    let sid = String::from_utf8_lossy(sid);
    let sid = sid.escape_debug();
    tracing::error!("{who} - Subscription Violation{what} - Subject {filter}{queue}, SID {sid}");
}

/// Subscribing.
impl Session {
    fn subscribe(
        &mut self,
        batch: &mut RouteBatch,
        filter: &[u8],
        queue: Option<&[u8]>,
        sid: &[u8],
    ) {
        let Some(bound) = &self.bound else { return };
        let limits = self.worker.shared().options().limits;
        let permissions = bound.permissions.as_ref();
        let is_permitted =
            permissions.is_none_or(|p| p.may_subscribe(filter, queue)) && queue != Some(b"_sys_");
        if !is_permitted {
            log_subscription_violation(&self.client, "", filter, queue, sid);
            let error = WireError::SubscribePermission {
                subject: filter,
                queue,
            };
            return self.error(batch, error);
        }
        if limits
            .max_sub_tokens
            .is_some_and(|max| subject::token_count(filter) > max)
        {
            log_subscription_violation(&self.client, " Too Many Tokens", filter, queue, sid);
            return self.error(batch, WireError::TooManyTokens { subject: filter });
        }
        let own = bound.account.limits().max_subscriptions;
        let limits = [limits.max_subscriptions, own, bound.max_subscriptions];
        let max = limits.into_iter().flatten().min();
        if max.is_some_and(|max| self.client.subscription_count() >= max) {
            tracing::error!("{} - maximum subscriptions exceeded", self.client.who());
            return self.error(batch, WireError::MaxSubscriptions);
        }
        // A sid in use stays what it is, whatever comes with it.
        if !self.client.has_subscription(sid) {
            if !subject::is_valid(filter) {
                return self.error(batch, WireError::InvalidSubject);
            }
            let filtered = permissions
                .filter(|p| p.needs_filter(filter, queue))
                .cloned();
            let client = Arc::clone(&self.client);
            let subscription = Arc::new(Subscription::of_client(
                client, filter, queue, sid, filtered,
            ));
            if self.client.add_subscription(&subscription) {
                bound.account.subscribe(&subscription);
                if let Some(engine) = self.worker.shared().ingest() {
                    engine.subscribed();
                }
            }
        }
        self.ok(batch);
    }

    fn unsubscribe(&mut self, batch: &mut RouteBatch, sid: &[u8], max: Option<u32>) {
        if let (Some(bound), Some(subscription)) = (&self.bound, self.client.subscription(sid)) {
            let goes_on = max.is_some_and(|max| subscription.limit(u64::from(max)));
            if !goes_on {
                self.client.forget_subscription(&subscription);
                bound.account.unsubscribe(&subscription);
            }
        }
        self.ok(batch);
    }

    /// Goes by the permissions the client was given meanwhile: what they do not allow ends.
    pub(super) fn adopt_permissions(&mut self) {
        let Some(bound) = &mut self.bound else { return };
        let permissions = self.client.identity().permissions.clone();
        bound.permissions.clone_from(&permissions);
        bound.publish_cache = PublishCache::default();
        let account = Arc::clone(&bound.account);
        let worker = Rc::clone(&self.worker);
        let mut batch = worker.batch();
        for subscription in self.client.subscriptions() {
            let (subject, queue) = (subscription.subject(), subscription.queue());
            let allowed = permissions
                .as_ref()
                .is_none_or(|permissions| permissions.may_subscribe(subject, queue));
            let filter = permissions
                .as_ref()
                .filter(|permissions| permissions.needs_filter(subject, queue));
            if allowed && filter.is_none() && !subscription.is_filtered() {
                continue;
            }
            self.client.forget_subscription(&subscription);
            account.unsubscribe(&subscription);
            if allowed {
                let again = Arc::new(subscription.filtered_by(filter.cloned()));
                if self.client.add_subscription(&again) {
                    account.subscribe(&again);
                }
                continue;
            }
            let error = WireError::SubscriptionRemoved {
                subject,
                queue,
                sid: subscription.sid(),
            };
            error.encode(batch.line_to(&self.client));
            let (shown, sid) = (Quoted(subject), Quoted(subscription.sid()));
            let queue = queue.map_or_else(String::new, |queue| {
                format!(" using queue {}", Quoted(queue))
            });
            let identity = self.client.identity();
            let user = Quoted(
                identity
                    .shown_user
                    .as_deref()
                    .unwrap_or_default()
                    .as_bytes(),
            );
            tracing::info!(
                "Removed sub {shown}{queue} (sid {sid}) for User {user} - not authorized"
            );
        }
        batch.flush();
    }

    fn drop_subscriptions(&self) {
        let Some(bound) = &self.bound else { return };
        for subscription in self.client.take_subscriptions() {
            bound.account.unsubscribe(&subscription);
        }
    }
}

/// Pings, and the other deadlines.
impl Session {
    fn ping(&mut self, batch: &mut RouteBatch) {
        say(batch, &self.client, b"PONG\r\n");
        if self.connect_received && !self.first_pong_sent {
            self.first_pong_sent = true;
            if self.protocol >= 1 {
                self.client.now_takes_info();
                let document = self.info(true);
                info(batch.line_to(&self.client), &document);
            }
        }
    }

    fn pong(&mut self) {
        self.pings.outstanding = 0;
        if let Some(sent) = self.pings.sent.take() {
            self.client.measured_rtt(sent.elapsed());
            self.pings.measured = Some(Instant::now());
        }
    }

    fn start_pings(&mut self) {
        let first = self.worker.shared().options().timing.first_ping;
        self.pings.deadline = Instant::now() + first_ping(first);
    }

    /// Times of this connection; WebSocket has an interval of its own.
    fn timing(&self) -> Timing {
        let options = self.worker.shared().options();
        let websocket = options.websocket.as_ref();
        let own = websocket
            .filter(|_| self.client.transport() == Transport::WebSocket)
            .and_then(|websocket| websocket.ping_interval);
        Timing {
            ping_interval: own.unwrap_or(options.timing.ping_interval),
            ..options.timing
        }
    }

    /// Called when [`Session::deadline`] has passed.
    pub(super) fn handle_deadline(&mut self) -> Step {
        if self.bound.is_none() {
            tracing::debug!("{} - Authentication Timeout", self.client.who());
            let reason = self.refuse(WireError::AuthenticationTimeout);
            return Step::Close(reason);
        }
        let now = Instant::now();
        if self.expires.is_some_and(|expires| expires <= now) {
            return Step::Close(self.refuse(WireError::UserAuthenticationExpired));
        }
        let timing = self.timing();
        self.pings.deadline = now + timing.ping_interval;
        let is_measured = self
            .pings
            .measured
            .is_some_and(|at| now.saturating_duration_since(at) < RTT_AGE);
        let is_active = now.saturating_duration_since(self.pings.last_in) < timing.ping_interval;
        if is_active && is_measured {
            return Step::Read;
        }
        if self.pings.outstanding + 1 > timing.ping_max {
            self.worker.counters().went_stale();
            tracing::debug!("{} - Stale Client Connection - Closing", self.client.who());
            return Step::Close(self.refuse(WireError::StaleConnection));
        }
        self.pings.outstanding += 1;
        self.pings.sent = Some(now);
        let worker = Rc::clone(&self.worker);
        let mut batch = worker.batch();
        say(&mut batch, &self.client, b"PING\r\n");
        batch.flush();
        Step::Read
    }
}

/// The first ping comes a little later than its time, so that clients which connected together are
/// not pinged together.
fn first_ping(delay: Duration) -> Duration {
    delay + delay.mul_f64(rand::rng().random_range(0.0..0.2))
}

/// Time for a valid CONNECT.
fn auth_timeout(options: &Options, client: &Client) -> Duration {
    let websocket = options.websocket.as_ref();
    websocket
        .filter(|_| client.transport() == Transport::WebSocket)
        .and_then(|websocket| websocket.auth_timeout)
        .unwrap_or(options.timing.auth_timeout)
}

/// What CONNECT says about its client, for people.
fn claimed(connect: &Connect) -> Identity {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    Identity {
        shown_user: Identity::shown(None, connect),
        name: text(&connect.name),
        lang: text(&connect.lang),
        version: text(&connect.version),
        ..Identity::default()
    }
}

/// Something for the client to sign, if anybody signs here.
fn nonce(shared: &Shared) -> Arc<str> {
    if shared.operator().is_none() && !shared.auth().needs_nonce() {
        return "".into();
    }
    BASE64URL_NOPAD
        .encode(&rand::rng().random::<[u8; NONCE_BYTES]>())
        .into()
}

/// Random bytes of a nonce.
const NONCE_BYTES: usize = 11;

/// When a token runs out, on the clock of timers.
fn deadline_of(grant: &Grant) -> Option<Instant> {
    let left = grant.expires()?.duration_since(Timestamp::now());
    let left = Duration::try_from(left).unwrap_or_default();
    // A token that outlives the clock does not run out.
    Instant::now().checked_add(left)
}

/// Logging in and out.
impl Session {
    fn connect(&mut self, batch: &mut RouteBatch, json: &[u8]) -> Flow {
        let parsed = match &self.connected {
            Some(before) => Connect::parse(before).and_then(|before| before.and_then(json)),
            None => Connect::parse(json),
        };
        let mut connect = match parsed {
            Ok(connect) => connect,
            Err(error) => {
                tracing::error!("{} - {error}", self.client.who());
                return Flow::Stop(Step::Close(CloseReason::ProtocolViolation));
            }
        };
        if let Some(cookies) = self.client.cookies() {
            cookies.fill(&mut connect);
        }
        if self.connect_received {
            self.drop_subscriptions();
        }
        self.connect_received = true;
        // A first idea of the round trip, until it is measured.
        if self.client.rtt().is_none() {
            self.client.measured_rtt(self.client.age());
        }
        self.connected = Some(connect.to_json().into());
        let connect = Arc::new(connect);
        self.proxy = match self.worker.shared().auth().proxied(&connect, &self.nonce) {
            Proxied::No => None,
            Proxied::By(key) => Some(key),
            Proxied::ByOther => {
                let reason = CloseReason::ProxyNotTrusted;
                return Flow::Stop(Step::Close(self.refuse_login(
                    batch,
                    Some(&connect),
                    reason,
                )));
            }
        };
        let attempt = Attempt {
            is_proxied: self.proxy.is_some(),
            tls: self.described_tls(),
            connect: Arc::clone(&connect),
            nonce: Arc::clone(&self.nonce),
            address: self.client.address().ip(),
            cid: self.client.id().0,
            who: self.client.who().to_string(),
            connection: self.client.transport().into(),
            certificate: self.is_mapped().then(|| {
                let secured = self.client.secured();
                secured.map(|tls| tls.names.clone()).unwrap_or_default()
            }),
        };
        if let (Some(_), Some(user)) = (&attempt.certificate, &connect.user) {
            tracing::warn!(
                "User {} found in connect proto, but user required from cert",
                Quoted(user.as_bytes())
            );
        }
        match gate::decide(self.worker.shared(), attempt) {
            Outcome::Accepted(login) => self.log_in(batch, login, &connect),
            Outcome::Refused(reason) => Flow::Stop(Step::Close(self.refuse_login(
                batch,
                Some(&connect),
                reason,
            ))),
            Outcome::Later(deferred) => {
                self.unbind(CloseReason::ClientClosed);
                self.connecting = Some(connect);
                Flow::Stop(Step::Decide(deferred))
            }
        }
    }

    /// What the handshake agreed on, for a service that is asked who the client is.
    fn described_tls(&self) -> Option<ClientTls> {
        let shared = self.worker.shared();
        if shared.auth().callout().is_none() && shared.operator().is_none() {
            return None;
        }
        let tls = shared.tls_of(self.client.listener()).current()?;
        Some(self.client.secured()?.described(tls.authorities()))
    }

    /// Goes on with the CONNECT that was decided about.
    pub(super) fn decided(&mut self, decision: Decision) -> Step {
        let Some(connect) = self.connecting.take() else {
            return Step::Resume;
        };
        let worker = Rc::clone(&self.worker);
        let mut batch = worker.batch();
        let flow = match decision {
            Ok(login) => self.log_in(&mut batch, login, &connect),
            Err(gate::BUSY) => {
                let reason = self.refuse_in(&mut batch, WireError::ConnectionThrottled);
                Flow::Stop(Step::Close(reason))
            }
            Err(reason) => Flow::Stop(Step::Close(self.refuse_login(
                &mut batch,
                Some(&connect),
                reason,
            ))),
        };
        batch.flush();
        match flow {
            Flow::Next => Step::Resume,
            Flow::Stop(step) => step,
        }
    }

    fn log_in(&mut self, batch: &mut RouteBatch, login: Login, connect: &Connect) -> Flow {
        if connect.account.is_some() || connect.new_account {
            let reason = self.refuse_login(batch, Some(connect), gate::REFUSED);
            return Flow::Stop(Step::Close(reason));
        }
        let supports_headers = !self.worker.shared().options().no_header_support;
        let headers = connect.headers && supports_headers;
        let refusal = if !matches!(connect.protocol, 0 | 1) {
            Some(WireError::InvalidClientProtocol)
        } else if connect.no_responders && !headers {
            Some(WireError::NoRespondersRequiresHeaders)
        } else {
            None
        };
        if let Some(error) = refusal {
            let accounts = self.worker.shared().accounts();
            self.claim(connect, Some(accounts.get_or_create(&login.account)));
            let text = error.to_string();
            tracing::error!("{} - {}", self.client.who(), text.trim_matches('\''));
            return Flow::Stop(Step::Close(self.refuse_in(batch, error)));
        }
        let was_bound = self.bound.is_some();
        let stays = self.bound.as_ref().is_some_and(|bound| {
            bound.permissions.is_none()
                && login.permissions.is_none()
                && *bound.account.name() == login.account
        });
        if !stays {
            self.drop_subscriptions();
        }
        self.leave(CloseReason::ClientClosed);
        self.verbose = connect.verbose;
        self.pedantic = connect.pedantic;
        self.protocol = connect.protocol;
        self.no_responders = connect.no_responders;
        self.client.set_hears_no_responders(connect.no_responders);
        self.parser.set_headers(headers);
        if !self.bind(login, connect, headers) {
            let refusal = self.refuse_in(batch, WireError::MaxAccountConnections);
            return Flow::Stop(Step::Close(refusal));
        }
        if !was_bound {
            self.start_pings();
        }
        self.announce();
        self.ok(batch);
        Flow::Next
    }

    /// Whether the client's certificate says who it is.
    fn is_mapped(&self) -> bool {
        let shared = self.worker.shared();
        let connection = self.client.transport().into();
        shared.maps_users(self.client.listener()) && shared.auth().has_rules(connection)
    }

    /// From now on the connection acts as `login`. False when its account takes no more
    /// connections.
    fn bind(&mut self, login: Login, connect: &Connect, headers: bool) -> bool {
        let account = self
            .worker
            .shared()
            .accounts()
            .get_or_create(&login.account);
        if !account.connected() {
            return false;
        }
        let grant = login.grant.clone();
        let own = grant.as_ref().and_then(|grant| grant.max_payload());
        let server = self.worker.shared().options().limits.max_payload;
        let mut limits = self.parser.limits();
        limits.max_payload = [account.limits().max_payload, own]
            .into_iter()
            .flatten()
            .fold(server, usize::min);
        self.parser.set_limits(limits);
        let identity = Identity {
            shown_user: Identity::shown(login.user.as_ref(), connect),
            user: login.user,
            account: Some(Arc::clone(&account)),
            permissions: login.permissions.clone(),
            grant: grant.clone(),
            stored: login.stored.clone(),
            proxy: self.proxy.clone(),
            ..claimed(connect)
        };
        self.expires = grant.as_ref().and_then(|grant| deadline_of(grant));
        self.client.identify(identity, headers, connect.echo);
        self.bound = Some(Bound {
            account,
            permissions: login.permissions,
            max_subscriptions: grant.and_then(|grant| grant.max_subscriptions()),
            publish_cache: PublishCache::default(),
            announced: false,
        });
        // The user may have been changed while the password was looked at.
        if let Some(stored) = &login.stored {
            self.worker.shared().look_at(&self.client, stored);
        }
        true
    }

    /// Ends what [`Session::bind`] began, and subscriptions.
    fn unbind(&mut self, reason: CloseReason) {
        self.drop_subscriptions();
        self.leave(reason);
    }

    fn leave(&mut self, reason: CloseReason) {
        let Some(bound) = self.bound.take() else {
            return;
        };
        bound.account.disconnected();
        self.worker.shared().system().counted(&bound.account);
        if bound.announced
            && let Some(observer) = self.worker.shared().observer()
        {
            observer.disconnected(&self.client.info(), reason);
        }
    }

    fn announce(&mut self) {
        let Some(bound) = &mut self.bound else { return };
        bound.announced = true;
        self.worker.shared().system().connected(&self.client);
        self.worker.shared().system().counted(&bound.account);
        if let Some(observer) = self.worker.shared().observer() {
            observer.connected(&self.client.info());
        }
    }

    /// The connection is over.
    pub(super) fn end(&mut self, reason: CloseReason) {
        // What it published comes before the news that it is gone.
        self.worker.batch().hand_over();
        self.unbind(reason);
    }

    /// Notes who somebody says to be that is refused, for those who look at what was closed.
    fn claim(&self, connect: &Connect, account: Option<Arc<Account>>) {
        if self.bound.is_none() {
            let identity = Identity {
                account,
                ..claimed(connect)
            };
            self.client.identify(identity, false, connect.echo);
        }
    }

    /// Refuses and gives `reason` back, with which the connection ends.
    fn refuse_login(
        &mut self,
        batch: &mut RouteBatch,
        connect: Option<&Connect>,
        reason: CloseReason,
    ) -> CloseReason {
        let has_operator = self.worker.shared().operator().is_some();
        let who = connect.filter(|_| !has_operator).and_then(|connect| {
            let nkey = connect
                .nkey
                .as_deref()
                .map(|key| format!(" - Nkey {}", Quoted(key.as_bytes())));
            let user = connect
                .user
                .as_deref()
                .map(|user| format!(" - User {}", Quoted(user.as_bytes())));
            let token = connect
                .auth_token
                .as_ref()
                .map(|_| " - Token \"[REDACTED]\"".to_owned());
            nkey.or(user).or(token)
        });
        tracing::error!(
            "{} - authentication error{}",
            self.client.who(),
            who.unwrap_or_default()
        );
        let claimed = connect.map(claimed).unwrap_or_default();
        self.worker
            .shared()
            .system()
            .refused(&self.client, None, claimed, reason);
        if let Some(connect) = connect {
            self.claim(connect, None);
        }
        self.refuse_in(batch, WireError::AuthorizationViolation);
        reason
    }

    /// The INFO of this connection; the one behind the first PONG says so and whose account it is.
    fn info(&self, is_connect_info: bool) -> Info {
        let mut document = self.worker.shared().info(self.client.listener());
        document.client_id = self.client.id().0;
        if !is_connect_info {
            self.nonce.as_ref().clone_into(&mut document.nonce);
        }
        let is_proxy = !is_connect_info && self.worker.shared().options().proxy_protocol;
        if !is_proxy {
            document.client_ip = self.client.shown_ip().to_string();
        }
        document.tls_required |= self.client.secured().is_some_and(|tls| tls.is_first);
        if is_connect_info && let Some(bound) = &self.bound {
            document.connect_info = true;
            if let Some(limit) = bound.account.limits().max_payload {
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                document.max_payload = document.max_payload.min(limit);
            }
            document.auth_required = self.worker.shared().must_log_in(Transport::Nats.into());
            document.remote_account = bound.account.name().as_str().to_owned();
            document.acc_is_sys = bound.account.is_system();
            let grant = self.client.identity().grant.clone();
            if let Some(max) = grant.and_then(|grant| grant.max_payload()) {
                let max = i64::try_from(max).unwrap_or(i64::MAX);
                document.max_payload = document.max_payload.min(max);
            }
        }
        document
    }
}
