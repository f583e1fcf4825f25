//! The engine thread: hands the engine what came in, sends what it gives back, sleeps in between.
//!
//! One thread owns the engine and with it every stream of the server. It is woken by connections
//! that handed over a batch, by the log when a sync ends, and by its own timers. A turn takes all
//! that waits, so the busier the server is, the larger are its batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use menes_jetstream::api::{ApiError, pub_ack};
use menes_jetstream::engine::{API_AUDIT, ApiRequest, Change, Details, Engine, Publish};
use menes_jetstream::ids::{AccountName, GroupId};
use menes_jetstream::ports::{LogStore, Outbox, Outgoing, StateStore};
use menes_jetstream::time::Timestamp;
use parking_lot::Mutex;
use serde_json::json;

use super::captures::Captures;
use super::diversion::diverts;
use super::ingest::{IngestBatch, IngestItem, IngestKind, IngestQueue, IngestTag, LimitChange};
use super::presence::Presence;
use super::stations::{self, StationsDriver};
use super::status::Status;
use super::{StreamsOptions, audit};
use crate::account::{Account, Accounts};
use crate::connection::client::Client;
use crate::routing::{Message, RouteBatch, Subscription};

/// Longest sleep of the engine thread; only the freshness of the published figures depends on it.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How often the figures for monitoring are taken.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);
/// Bytes on their way to the disk with which no more are taken from connections.
const MAX_IN_FLIGHT_BYTES: usize = 64 << 20;
/// However often details are asked for, they are gathered no more often than this.
const DETAILS_INTERVAL: Duration = Duration::from_millis(25);
/// Streams and consumers whose details are gathered in one turn: they must not hold up messages.
const DETAILS_PER_TURN: usize = 256;
/// Tags of subscriptions to the API: requests through the domain, and of accounts without JetStream.
const IN_DOMAIN: u64 = 1;
const NOT_ENABLED: u64 = 2;
/// Requests that are not audited and come often.
const NOT_AUDITED: [&[u8]; 3] = [
    b"$JS.API.CONSUMER.MSG.NEXT.",
    b"$JS.API.DIRECT.GET.",
    b"$JS.API.STREAM.MSG.GET.",
];
/// JetStream error code of a message that violates the schema of its station. None of nats-server's.
const SCHEMA_VIOLATION: u16 = 19_001;
/// Where the account of the system hears of damage in the stores.
const STORE_DAMAGED: &[u8] = b"$JS.EVENT.ADVISORY.STORE.DAMAGED";
/// Subjects of the JetStream API and of what clients answer to deliveries.
const API_SUBJECTS: [(&[u8], IngestKind); 3] = [
    (b"$JS.API.>", IngestKind::Api),
    (b"$JS.ACK.>", IngestKind::Ack),
    (b"$JS.FC.>", IngestKind::FlowControl),
];

/// Wakes the engine thread, from any thread, without losing a call.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    rung: AtomicBool,
    thread: Mutex<Option<Thread>>,
}

impl Alarm {
    /// Makes the engine thread look again, now or when it next wants to sleep.
    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Some(thread) = self.thread.lock().as_ref()
        {
            thread.unpark();
        }
    }

    fn belongs_here(&self) {
        *self.thread.lock() = Some(std::thread::current());
    }

    /// Sleeps until the next ring or until `longest` has passed.
    fn sleep(&self, longest: Duration) {
        if !self.rung.swap(false, Ordering::AcqRel) {
            std::thread::park_timeout(longest);
            self.rung.store(false, Ordering::Release);
        }
    }
}

/// Wall time that never steps: the wall clock at the start plus what has passed since.
pub(crate) struct Clock {
    start: Timestamp,
    since: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let start = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let start = Timestamp(i64::try_from(start.as_nanos()).unwrap_or(i64::MAX));
        Self {
            start,
            since: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.start.plus(self.since.elapsed())
    }

    /// Moves on to `time` if that lies ahead: what is stored already is not from the future.
    pub(crate) fn not_before(&mut self, time: Timestamp) {
        let missing = time.since(self.now());
        self.start = self.start.plus(missing);
    }
}

/// The way from the engine to subscribers.
pub(crate) struct Routes {
    accounts: Arc<Accounts>,
    batch: RouteBatch,
    /// The account routed to last; there is mostly one.
    last: Option<Arc<Account>>,
    /// What comes from them.
    captures: Captures,
}

impl Routes {
    pub(crate) fn new(accounts: Arc<Accounts>, batch: RouteBatch) -> Self {
        Self {
            accounts,
            batch,
            last: None,
            captures: Captures::default(),
        }
    }

    fn account(&mut self, name: &AccountName) -> Arc<Account> {
        match &self.last {
            Some(account) if account.name() == name => Arc::clone(account),
            _ => {
                let account = self.accounts.get_or_create(name);
                self.last = Some(Arc::clone(&account));
                account
            }
        }
    }
}

impl Outbox for Routes {
    fn send(&mut self, message: Outgoing<'_>) -> bool {
        let account = self.account(message.account);
        let message = Message {
            target: message.target,
            subject: message.subject,
            reply: message.reply,
            header: message.header,
            payload: message.payload,
            shared: None,
        };
        account.route(&mut self.batch, &message, None) > 0
    }

    fn has_interest(
        &mut self,
        account: &AccountName,
        subject: &[u8],
        queue: Option<&[u8]>,
    ) -> bool {
        // What is not to be delivered has nobody who wants it.
        !self.captures.is_paused(account) && self.account(account).has_interest(subject, queue)
    }

    fn has_exact_interest(&mut self, account: &AccountName, subject: &[u8]) -> bool {
        if self.captures.is_paused(account) {
            return false;
        }
        let account = self.account(account);
        self.batch.has_exact_interest(&account, subject)
    }

    fn is_congested(&mut self, account: &AccountName, subject: &[u8]) -> bool {
        let account = self.account(account);
        self.batch.has_congested(&account, subject)
    }
}

/// What the engine thread shares with the rest of the server.
pub(crate) struct Links {
    /// What connections handed over.
    pub(crate) queue: Arc<IngestQueue>,
    /// Wakes the thread.
    pub(crate) alarm: Arc<Alarm>,
    /// Ends the thread.
    pub(crate) stop: Arc<AtomicBool>,
    /// When it ends, clients stay: nothing may be left behind.
    pub(crate) leaves: Arc<AtomicBool>,
    /// Figures for monitoring.
    pub(crate) status: Arc<Status>,
    /// Who came and went.
    pub(crate) presence: Arc<Presence>,
}

/// Everything the engine thread owns.
pub(crate) struct Driver<L, S> {
    engine: Engine<L, S, StationsDriver>,
    links: Links,
    clock: Clock,
    routes: Routes,
    batches: Vec<IngestBatch>,
    /// When figures were last published.
    status_at: Option<Instant>,
    /// Details that are being gathered, and the ticket they answer.
    details: Option<(u64, Details)>,
    /// When details were last complete.
    details_at: Option<Instant>,
    /// Damage that was announced.
    damage_told: Option<String>,
    server_name: String,
    /// What `$JS.API.` is called in the domain of the server; empty without one.
    domain_prefix: Vec<u8>,
    served: BTreeMap<AccountName, Served>,
}

/// How an account is answered.
struct Served {
    is_enabled: bool,
    /// To the API, or to what is answered without it.
    subscriptions: Vec<Arc<Subscription>>,
    /// To what belongs to the stations, whether it is enabled or not.
    always: Vec<Arc<Subscription>>,
}

impl<L: LogStore, S: StateStore> Driver<L, S> {
    pub(crate) fn new(
        engine: Engine<L, S, StationsDriver>,
        links: Links,
        clock: Clock,
        routes: Routes,
        server_name: String,
    ) -> Self {
        Self {
            server_name,
            domain_prefix: Vec::new(),
            served: BTreeMap::new(),
            engine,
            links,
            clock,
            routes,
            batches: Vec::new(),
            status_at: None,
            details: None,
            details_at: None,
            damage_told: None,
        }
    }

    /// Subscribes to what belongs to the engine, in every account that may use it.
    pub(crate) fn subscribe(&mut self, options: &StreamsOptions) {
        if let Some(domain) = &options.domain {
            self.domain_prefix = format!("$JS.{domain}.API.").into_bytes();
        }
        for account in self.routes.accounts.all() {
            self.serve_account(&account, options.of(account.name()).is_some());
        }
        self.engine.application_mut().follow_people();
        self.serve_tenants();
        self.follow_changes();
    }

    /// Every tenant may use streams.
    fn serve_tenants(&mut self) {
        for tenant in self.engine.application_mut().take_new_tenants() {
            let account = self.routes.accounts.get_or_create(&tenant);
            self.serve_account(&account, true);
        }
    }

    /// Answers an account, or says that it may not use JetStream.
    fn serve_account(&mut self, account: &Arc<Account>, is_enabled: bool) {
        if account.is_system() {
            return;
        }
        let served = self.served.get(account.name());
        if served.is_some_and(|served| served.is_enabled == is_enabled) {
            return;
        }
        let mut always = Vec::new();
        match self.served.remove(account.name()) {
            Some(served) => {
                for subscription in &served.subscriptions {
                    account.unsubscribe(subscription);
                }
                always = served.always;
            }
            None => {
                let own = [menes_stations::api::SUBJECTS];
                for subject in menes_stations::sdk::CONTROL_SUBJECTS.iter().chain(&own) {
                    let tag = IngestTag {
                        kind: IngestKind::Application,
                        id: 0,
                    };
                    always.push(account.subscribe_engine(tag, subject.as_bytes(), None));
                }
            }
        }
        let mut subscriptions = Vec::new();
        if is_enabled {
            for (subject, kind) in API_SUBJECTS {
                let tag = IngestTag { kind, id: 0 };
                subscriptions.push(account.subscribe_engine(tag, subject, None));
            }
            if !self.domain_prefix.is_empty() {
                let tag = IngestTag {
                    kind: IngestKind::Api,
                    id: IN_DOMAIN,
                };
                let subject = [&self.domain_prefix[..], b">"].concat();
                subscriptions.push(account.subscribe_engine(tag, &subject, None));
            }
        } else {
            let tag = IngestTag {
                kind: IngestKind::Api,
                id: NOT_ENABLED,
            };
            subscriptions.push(account.subscribe_engine(tag, b"$JS.API.>", None));
        }
        let served = Served {
            is_enabled,
            subscriptions,
            always,
        };
        self.served.insert(account.name().clone(), served);
        self.routes.captures.pause(account.name(), !is_enabled);
        self.engine.interest_changed();
    }

    /// Gives up every subscription. What came until then is not stored, and its publishers are not
    /// answered.
    fn unsubscribe(&mut self) {
        self.routes.captures.clear();
        for (name, served) in std::mem::take(&mut self.served) {
            let account = self.routes.accounts.get_or_create(&name);
            for subscription in served.subscriptions.iter().chain(&served.always) {
                account.unsubscribe(subscription);
            }
        }
        self.links.queue.take(&mut self.batches);
        self.batches.clear();
    }

    fn follow_limits(&mut self) {
        for change in self.links.queue.take_limit_changes() {
            match change {
                LimitChange::Server(limits) => self.engine.set_server_limits(limits),
                LimitChange::Account(account, limits) => {
                    if let Some(limits) = limits {
                        self.engine.set_account_limits(account.name(), limits);
                    }
                    self.serve_account(&account, limits.is_some());
                }
            }
        }
    }

    /// Runs until told to stop; gives the stores back so that they can be closed.
    pub(crate) fn run(mut self) -> (L, S) {
        self.links.alarm.belongs_here();
        while !self.links.stop.load(Ordering::Acquire) {
            let more = self.turn();
            if !more {
                self.links.alarm.sleep(self.until_next());
            }
        }
        self.finish();
        if self.links.leaves.load(Ordering::Acquire) {
            self.unsubscribe();
        }
        self.engine.into_stores()
    }

    fn turn(&mut self) -> bool {
        let now = self.clock.now();
        self.follow_limits();
        // While much waits for the disk, what comes in waits with the connections.
        let is_held = self.engine.in_flight_bytes() >= MAX_IN_FLIGHT_BYTES;
        if !is_held {
            self.links.queue.take(&mut self.batches);
        }
        let batches = std::mem::take(&mut self.batches);
        for batch in &batches {
            for (at, item) in batch.items().iter().enumerate() {
                if item.tag.kind == IngestKind::Refused {
                    self.refuse(batch, item, batch.refusal(at), now);
                } else {
                    self.take(batch, item, now);
                }
            }
        }
        self.batches = batches;
        self.batches.clear();
        for event in self.links.presence.take() {
            self.engine.application_mut().presence(&event, now);
        }
        if self.links.queue.take_interest_change() {
            self.engine.interest_changed();
        }
        let mut more = self.engine.turn(now, &mut self.routes);
        more |= is_held && self.engine.in_flight_bytes() < MAX_IN_FLIGHT_BYTES;
        if self
            .links
            .queue
            .want_interest(self.engine.awaits_interest())
        {
            self.engine.interest_changed();
            more = true;
        }
        for ended in self.engine.take_ended() {
            self.engine.application_mut().delivery_ended(ended, now);
        }
        self.follow_changes();
        more |= stations::advance(&mut self.engine, now, &mut self.routes);
        self.serve_tenants();
        self.follow_changes();
        self.routes.batch.flush();
        self.publish_status();
        more | self.gather_details()
    }

    fn take(&mut self, batch: &IngestBatch, item: &IngestItem, now: Timestamp) {
        let mut request = ApiRequest {
            account: batch.account().name(),
            subject: batch.subject(item),
            reply: batch.reply(item),
            header: batch.header(item),
            payload: batch.payload(item),
            client: b"",
        };
        match item.tag.kind {
            IngestKind::Stream => {
                let message = Publish {
                    reply: request.reply,
                    subject: request.subject,
                    header: request.header,
                    payload: request.payload,
                };
                self.engine
                    .publish(GroupId(item.tag.id), now, message, &mut self.routes);
            }
            IngestKind::Ack => {
                let is_taken = self.engine.ack(request, now, &mut self.routes);
                let hears = |client: &Arc<Client>| client.hears_no_responders();
                if !is_taken && !request.reply.is_empty() && batch.origin().is_some_and(hears) {
                    self.engine.nobody_listens(&request, &mut self.routes);
                }
            }
            IngestKind::Link => {
                let listener = item.tag.id;
                self.engine
                    .link_message(listener, request, now, &mut self.routes);
            }
            IngestKind::FlowControl => self.engine.flow_control(request, now, &mut self.routes),
            IngestKind::Application => {
                let client = batch.origin().map(|client| client.info());
                self.engine
                    .application_mut()
                    .begin(&request, client.as_ref(), now);
            }
            _ => {
                if item.tag.id == NOT_ENABLED {
                    self.engine.refuse_account(&request, &mut self.routes);
                    return;
                }
                let plain;
                if item.tag.id == IN_DOMAIN
                    && let Some(rest) = request.subject.strip_prefix(&self.domain_prefix[..])
                {
                    plain = [b"$JS.API.", rest].concat();
                    request.subject = &plain;
                }
                let is_diverted = batch.origin().is_some_and(|client| {
                    let identity = client.identity();
                    let permissions = identity.permissions.as_ref();
                    let access = permissions.and_then(|permissions| permissions.stations());
                    access.is_some_and(|access| diverts(access, &request))
                });
                if is_diverted {
                    self.refuse_diversion(&request);
                    return;
                }
                let client = self.audited(batch, request.subject);
                request.client = &client;
                self.engine.request(request, now, &mut self.routes);
            }
        }
    }

    /// Answers who wants messages sent where it may not publish.
    fn refuse_diversion(&mut self, request: &ApiRequest<'_>) {
        if request.reply.is_empty() {
            return;
        }
        let payload = json!({
            "type": "io.nats.jetstream.api.v1.consumer_create_response",
            "error": {
                "code": 403,
                "err_code": 10_077,
                "description": "the deliver subject is not one of yours",
            },
        });
        let payload = payload.to_string();
        self.routes.send(Outgoing {
            account: request.account,
            target: request.reply,
            subject: request.reply,
            reply: b"",
            header: b"",
            payload: payload.as_bytes(),
        });
    }

    /// Who asks, where somebody wants to know.
    fn audited(&mut self, batch: &IngestBatch, subject: &[u8]) -> Vec<u8> {
        let is_audited = !NOT_AUDITED.iter().any(|prefix| subject.starts_with(prefix))
            && batch.account().has_interest(API_AUDIT.as_bytes(), None);
        match batch.origin().filter(|_| is_audited) {
            Some(client) => audit::document(client, &self.server_name),
            None => Vec::new(),
        }
    }

    /// Answers a publisher whose message violates the schema of its station.
    fn refuse(&mut self, batch: &IngestBatch, item: &IngestItem, reason: &str, now: Timestamp) {
        let account = batch.account().name();
        let group = GroupId(item.tag.id);
        let reply = batch.reply(item);
        if !reply.is_empty()
            && let Some(stream) = self.engine.name_of(group)
        {
            let error = ApiError {
                code: 400,
                err_code: SCHEMA_VIOLATION,
                description: reason.to_owned().into(),
            };
            let mut payload = Vec::new();
            pub_ack::write_pub_error(&mut payload, stream, &error);
            self.routes.send(Outgoing {
                account,
                target: reply,
                subject: reply,
                reply: b"",
                header: b"",
                payload: &payload,
            });
        }
        let Some(checked) = self.links.queue.enforcement().of(group.0) else {
            return;
        };
        self.engine.application_mut().message_refused(
            account,
            checked.station.clone(),
            reason,
            batch.header(item),
            batch.payload(item),
            now,
        );
    }

    /// Keeps the subscriptions of streams in step with the streams.
    fn follow_changes(&mut self) {
        for change in self.engine.take_changes() {
            match change {
                Change::Capture {
                    account,
                    group,
                    subjects,
                } => {
                    self.engine.application_mut().stream_came();
                    let account = self.routes.accounts.get_or_create(&account);
                    let name = self.engine.stream_name(group).unwrap_or_default();
                    let captures = &mut self.routes.captures;
                    captures.capture(group, account, name, subjects);
                }
                Change::Listen {
                    account,
                    listener,
                    subjects,
                } => {
                    let account = self.routes.accounts.get_or_create(&account);
                    self.routes.captures.listen(listener, account, &subjects);
                }
                Change::Unlisten { listener } => self.routes.captures.unlisten(listener),
                Change::Release {
                    group,
                    account,
                    stream,
                } => {
                    let now = self.clock.now();
                    let stations = self.engine.application_mut();
                    stations.stream_gone(&account, &stream, now);
                    self.routes.captures.release(group);
                }
            }
        }
        self.engine.send_link_requests(&mut self.routes);
    }

    fn until_next(&self) -> Duration {
        let longest = if self.links.status.is_asked() {
            DETAILS_INTERVAL
        } else {
            LONGEST_SLEEP
        };
        let retry = self.engine.application().next_deadline();
        match self.engine.next_deadline().into_iter().chain(retry).min() {
            Some(at) => at.since(self.clock.now()).min(longest),
            None => longest,
        }
    }

    fn publish_status(&mut self) {
        let now = Instant::now();
        let is_due = self
            .status_at
            .is_none_or(|at| now.saturating_duration_since(at) >= STATUS_INTERVAL);
        if is_due || self.engine.poisoned().is_some() {
            self.status_at = Some(now);
            self.links.status.update(&self.engine);
            self.announce_damage(self.clock.now());
        }
    }

    /// Goes on with the details that someone asked for; whether there is more to do at once.
    fn gather_details(&mut self) -> bool {
        if self.details.is_none() {
            let is_due = self
                .details_at
                .is_none_or(|at| at.elapsed() >= DETAILS_INTERVAL);
            if !self.links.status.is_asked() || !is_due {
                return false;
            }
            self.details = Some((self.links.status.asked(), self.engine.begin_details()));
        }
        let Some((ticket, mut details)) = self.details.take() else {
            return false;
        };
        let now = self.clock.now();
        self.engine
            .gather_details(&mut details, DETAILS_PER_TURN, now, &mut self.routes);
        if !details.is_complete() {
            self.details = Some((ticket, details));
            return true;
        }
        let accounts = self.engine.finish_details(details);
        // Totals of the same moment.
        self.links.status.update(&self.engine);
        self.links.status.answer(ticket, accounts);
        self.details_at = Some(Instant::now());
        false
    }

    /// Tells the account of the system of damage in the stores: once, as soon as anyone there
    /// listens.
    fn announce_damage(&mut self, now: Timestamp) {
        let status = self.links.status.load();
        let Some(damage) = &status.damage else { return };
        if self.damage_told.as_ref() == Some(damage) {
            return;
        }
        let mut accounts = self.routes.accounts.all().into_iter();
        let Some(system) = accounts.find(|account| account.is_system()) else {
            return;
        };
        let advisory = serde_json::json!({
            "type": "io.menes.jetstream.advisory.v1.store_damaged",
            "id": format!("{:032X}", rand::random::<u128>()),
            "timestamp": now,
            "server": self.server_name,
            "damage": damage,
        });
        let is_heard = self.routes.send(Outgoing {
            account: system.name(),
            target: STORE_DAMAGED,
            subject: STORE_DAMAGED,
            reply: b"",
            header: b"",
            payload: advisory.to_string().as_bytes(),
        });
        if is_heard {
            self.damage_told = Some(damage.clone());
        }
    }

    /// What is in flight becomes durable and is answered; waiting pull requests are told.
    fn finish(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let more = self.turn();
            if self.engine.poisoned().is_some() || Instant::now() > deadline {
                break;
            }
            if !more && self.engine.in_flight() == 0 {
                break;
            }
            self.links.alarm.sleep(Duration::from_millis(20));
        }
        self.engine.shut_down(&mut self.routes);
        self.routes.batch.flush();
    }
}
