//! One client connection, as the rest of the server sees it.
//!
//! The connection's reader owns the protocol state; what other threads need of it lives here: where
//! to put bytes for it, who it is, what it subscribed to, and what it has sent and received.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use menes_auth::key::KeyKind;
use menes_jetstream::ids::AccountName;
use menes_protocol::connect::Connect;
use menes_protocol::encoder::server::info;
use menes_protocol::error::WireError;
use menes_protocol::info::Info;
use menes_protocol::subject;
use menes_stations::user::Role;
use parking_lot::{Mutex, RwLock};
use tokio::net::tcp::OwnedWriteHalf;

use super::output::{Buffers, ByteQueue};
use super::websocket::Cookies;
use super::who::Who;
use crate::account::Account;
use crate::auth::Grant;
use crate::auth::directory::StoredLogin;
use crate::auth::permissions::{Permissions, ResponseGrants};
use crate::error::CloseReason;
use crate::logging::traffic;
use crate::routing::Subscription;
use crate::routing::hash::BytesHash;
use crate::tls::Secured;

/// Number of a connection, never used twice by a server. The `cid` of connz.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// The NATS protocol over TCP or TLS.
    Nats,
    /// The NATS protocol in WebSocket frames.
    WebSocket,
}

impl Transport {
    /// What the number of a connection is called in the log.
    pub(crate) const fn number_name(self) -> &'static str {
        match self {
            Self::Nats => "cid",
            Self::WebSocket => "wid",
        }
    }
}

/// Stands for a token, which is not shown.
const HIDDEN_TOKEN: &str = "[REDACTED]";

/// Who a connection is, once CONNECT was accepted.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The authenticated user as configured; `None` when nobody had to log in.
    pub user: Option<Arc<str>>,
    /// The user to show: who is not asked to log in is whom it says, and a token is not shown.
    pub shown_user: Option<Arc<str>>,
    /// What the client calls itself.
    pub name: String,
    /// Its library.
    pub lang: String,
    /// Version of its library.
    pub version: String,
    /// Account it is bound to.
    pub account: Option<Arc<Account>>,
    /// What it may do; `None` is everything.
    pub permissions: Option<Arc<Permissions>>,
    /// What its token granted, if it has one.
    pub grant: Option<Arc<Grant>>,
    /// The stored user it is, if it is one.
    pub stored: Option<Arc<StoredLogin>>,
    /// Key of the trusted proxy it came through, if it did.
    pub proxy: Option<Arc<str>>,
}

impl Identity {
    /// The user with the kind of login, for the log.
    pub(crate) fn user_label(&self) -> Option<String> {
        let user = self.shown_user.as_deref()?;
        let has_token = self
            .grant
            .as_ref()
            .is_some_and(|grant| grant.token.is_some());
        Some(if has_token {
            format!("jwt:{user}")
        } else if KeyKind::User.is_public_key(user) {
            format!("nkey:{user}")
        } else if user == HIDDEN_TOKEN {
            "token".to_owned()
        } else {
            format!("user:{user}")
        })
    }

    /// What a login is shown as that brought `connect` and became `user`.
    pub(crate) fn shown(user: Option<&Arc<str>>, connect: &Connect) -> Option<Arc<str>> {
        let given = connect.nkey.as_deref().or(connect.user.as_deref());
        let token = connect.auth_token.as_ref().map(|_| HIDDEN_TOKEN);
        let given = || given.or(token).filter(|text| !text.is_empty());
        user.cloned().or_else(|| given().map(Arc::from))
    }

    /// What it may ask of the broker itself. Where users come from the configuration, those whom
    /// nothing limits manage everything, and those who have permissions no users.
    #[must_use]
    pub fn role(&self) -> Role {
        if let Some(stored) = &self.stored {
            return stored.role();
        }
        let is_default = |account: &Arc<Account>| *account.name() == AccountName::global();
        if self.permissions.is_some() {
            return Role::Limited;
        }
        if self.grant.is_none() && self.account.as_ref().is_some_and(is_default) {
            Role::Root
        } else {
            Role::Management
        }
    }

    /// The connection id of a Memphis SDK: the part of a name `<connection id>::<user>` before the
    /// `::`. Other clients have none.
    #[must_use]
    pub fn connection_id(&self) -> Option<&str> {
        let (id, user) = self.name.split_once("::")?;
        (!id.is_empty() && !user.contains("::")).then_some(id)
    }
}

/// What observers learn about a connection.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// The connection.
    pub id: ClientId,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Name of its account.
    pub account: AccountName,
    /// Where it comes from.
    pub address: SocketAddr,
    /// How it is connected.
    pub transport: Transport,
    /// When the connection was made.
    pub started: SystemTime,
}

/// Is told who comes and goes. Calls come from the threads that serve connections: they must
/// return at once.
pub trait ConnectionObserver: Send + Sync {
    /// CONNECT was accepted; also for a second CONNECT on the same connection, after a
    /// `disconnected` for the first.
    fn connected(&self, client: &ClientInfo);

    /// A connection that was `connected` ended.
    fn disconnected(&self, client: &ClientInfo, reason: CloseReason);
}

/// Traffic of one connection.
#[derive(Debug, Default)]
pub struct Traffic {
    in_msgs: AtomicU64,
    in_bytes: AtomicU64,
    out_msgs: AtomicU64,
    out_bytes: AtomicU64,
}

/// Messages and bytes, payload and headers counted, seen from the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficCount {
    /// Messages published by clients.
    pub in_msgs: u64,
    /// Bytes published.
    pub in_bytes: u64,
    /// Messages delivered to clients.
    pub out_msgs: u64,
    /// Bytes delivered.
    pub out_bytes: u64,
}

impl TrafficCount {
    /// The sum of two.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            in_msgs: self.in_msgs + other.in_msgs,
            in_bytes: self.in_bytes + other.in_bytes,
            out_msgs: self.out_msgs + other.out_msgs,
            out_bytes: self.out_bytes + other.out_bytes,
        }
    }
}

impl Traffic {
    pub(crate) fn received(&self, msgs: u64, bytes: u64) {
        self.in_msgs.fetch_add(msgs, Ordering::Relaxed);
        self.in_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn delivered(&self, msgs: u64, bytes: u64) {
        self.out_msgs.fetch_add(msgs, Ordering::Relaxed);
        self.out_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The counts now.
    #[must_use]
    pub fn count(&self) -> TrafficCount {
        TrafficCount {
            in_msgs: self.in_msgs.load(Ordering::Relaxed),
            in_bytes: self.in_bytes.load(Ordering::Relaxed),
            out_msgs: self.out_msgs.load(Ordering::Relaxed),
            out_bytes: self.out_bytes.load(Ordering::Relaxed),
        }
    }
}

/// The client understands HMSG.
const HEADERS: u8 = 1;
/// The client does not want its own messages.
const NO_ECHO: u8 = 2;
/// Deliveries grant the right to answer.
const GRANTS: u8 = 4;

/// Where a connection comes from and where it is served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint {
    /// The peer.
    pub(crate) address: SocketAddr,
    /// The address it connected to.
    pub(crate) listener: SocketAddr,
    /// How it is connected.
    pub(crate) transport: Transport,
    /// Number of the thread that serves it.
    pub(crate) worker: usize,
}

#[cfg(test)]
impl Endpoint {
    pub(crate) fn for_tests() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        Self {
            address,
            listener: address,
            transport: Transport::Nats,
            worker: 0,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    id: ClientId,
    endpoint: Endpoint,
    /// Its address, where a proxy told it.
    proxied: OnceLock<SocketAddr>,
    secured: OnceLock<Box<Secured>>,
    /// Where a proxy in front of WebSocket says it comes from.
    forwarded: OnceLock<IpAddr>,
    cookies: OnceLock<Box<Cookies>>,
    started: SystemTime,
    started_instant: Instant,
    max_pending: usize,
    flags: AtomicU8,
    closed: AtomicBool,
    takes_info: AtomicBool,
    /// Bytes queued or being written.
    pending: AtomicUsize,
    output: Mutex<Output>,
    identity: RwLock<Arc<Identity>>,
    subscriptions: Mutex<HashMap<Box<[u8]>, Arc<Subscription>, BytesHash>>,
    grants: Mutex<Option<ResponseGrants>>,
    is_permitted_anew: AtomicBool,
    hears_no_responders: AtomicBool,
    traffic: Traffic,
    stalls: AtomicU64,
    /// Microseconds of the last measured round trip, 0 for none.
    rtt_us: AtomicU64,
    /// Milliseconds after the start at which something last arrived or left.
    last_activity_ms: AtomicU64,
}

/// What waits for the writer, and who is to be woken.
#[derive(Debug, Default)]
struct Output {
    queue: ByteQueue,
    turn: Turn,
    /// The writer, when it waits for its socket; the reader. Woken at the end, and the reader when
    /// permissions change.
    blocked_writer: Option<Waker>,
    reader: Option<Waker>,
    closed: Option<CloseReason>,
    /// The socket, for writing to it from other threads; gone when the connection is.
    socket: Option<Arc<OwnedWriteHalf>>,
}

/// Who may write to the socket.
#[derive(Debug, Default)]
enum Turn {
    /// Nobody: nothing waits and the writer sleeps.
    Sleeping(Waker),
    /// Whoever holds the writer's waker: to wake it, or to write in its place.
    #[default]
    Woken,
    /// The writer.
    Writing,
    /// Another thread, which gives the waker back.
    Lent(Waker),
}

impl Turn {
    /// Takes the waker of a sleeping writer, which is then to be woken.
    fn wake(&mut self) -> Option<Waker> {
        match std::mem::take(self) {
            Self::Sleeping(waker) => Some(waker),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// What became of bytes for a connection.
#[derive(Debug)]
pub(crate) enum Enqueued {
    /// They are written, or wait for the writer.
    Queued {
        /// Bytes waiting now.
        pending: usize,
        /// The writer sleeps and must be woken.
        writer: Option<Waker>,
    },
    /// The connection is gone.
    Closed,
    /// They were too many; the connection is closed now.
    SlowConsumer,
}

/// The two tasks of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Reader,
    Writer,
}

/// What a writer finds.
pub(crate) enum Taken {
    /// Bytes to write.
    Bytes,
    /// Nothing yet; the waker is kept.
    Nothing,
    /// Nothing, and nothing will come.
    Closed(CloseReason),
}

impl Client {
    /// A connection that was just accepted.
    pub(crate) fn new(id: ClientId, endpoint: Endpoint, max_pending: usize) -> Self {
        Self {
            id,
            endpoint,
            proxied: OnceLock::new(),
            secured: OnceLock::new(),
            forwarded: OnceLock::new(),
            cookies: OnceLock::new(),
            started: SystemTime::now(),
            started_instant: Instant::now(),
            max_pending,
            flags: AtomicU8::new(0),
            closed: AtomicBool::new(false),
            takes_info: AtomicBool::new(false),
            pending: AtomicUsize::new(0),
            output: Mutex::new(Output::default()),
            identity: RwLock::new(Arc::new(Identity::default())),
            subscriptions: Mutex::new(HashMap::default()),
            grants: Mutex::new(None),
            is_permitted_anew: AtomicBool::new(false),
            hears_no_responders: AtomicBool::new(false),
            traffic: Traffic::default(),
            stalls: AtomicU64::new(0),
            rtt_us: AtomicU64::new(0),
            last_activity_ms: AtomicU64::new(0),
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// Number of the thread that serves it.
    pub(crate) fn worker(&self) -> usize {
        self.endpoint.worker
    }

    /// Where it comes from.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let proxied = self.proxied.get().copied();
        proxied.unwrap_or(self.endpoint.address)
    }

    /// A proxy said where it comes from.
    pub(crate) fn now_at(&self, address: SocketAddr) {
        self.proxied.get_or_init(|| address);
    }

    /// The address to show: with `X-Forwarded-For` the one in it, which anybody can make up.
    #[must_use]
    pub fn shown_ip(&self) -> IpAddr {
        let forwarded = self.forwarded.get().copied();
        forwarded
            .unwrap_or_else(|| self.address().ip())
            .to_canonical()
    }

    /// The request for its upgrade said where it comes from.
    pub(crate) fn now_forwarded_for(&self, ip: IpAddr) {
        self.forwarded.get_or_init(|| ip);
    }

    /// Credentials that came with its upgrade.
    pub(crate) fn cookies(&self) -> Option<&Cookies> {
        self.cookies.get().map(AsRef::as_ref)
    }

    /// Its upgrade brought these.
    pub(crate) fn now_has(&self, cookies: Cookies) {
        self.cookies.get_or_init(|| Box::new(cookies));
    }

    /// What its TLS handshake agreed on; `None` in the clear.
    #[must_use]
    pub fn secured(&self) -> Option<&Secured> {
        self.secured.get().map(AsRef::as_ref)
    }

    /// Its TLS handshake is done.
    pub(crate) fn is_secured(&self, secured: Secured) {
        self.secured.get_or_init(|| Box::new(secured));
    }

    /// How it is connected.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.endpoint.transport
    }

    /// The address it connected to.
    #[must_use]
    pub fn listener(&self) -> SocketAddr {
        self.endpoint.listener
    }

    /// When the connection was made.
    #[must_use]
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// Who it is; nobody in particular before CONNECT.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.read())
    }

    /// What it is called in the log.
    pub(crate) fn who(&self) -> Who<'_> {
        Who(self)
    }

    /// What observers are told.
    #[must_use]
    pub fn info(&self) -> ClientInfo {
        let identity = self.identity();
        let account = identity
            .account
            .as_ref()
            .map_or_else(AccountName::global, |a| a.name().clone());
        ClientInfo {
            id: self.id,
            account,
            identity,
            address: self.address(),
            transport: self.endpoint.transport,
            started: self.started,
        }
    }

    /// Messages and bytes of this connection.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// How often it was held up because a receiver was far behind.
    #[must_use]
    pub fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }

    pub(crate) fn stalled(&self) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
    }

    /// The last measured round trip.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        match self.rtt_us.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }

    pub(crate) fn measured_rtt(&self, rtt: Duration) {
        let micros = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        self.rtt_us.store(micros.max(1), Ordering::Relaxed);
    }

    /// Time since its start.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started_instant.elapsed()
    }

    /// Time from its start to when something last arrived from it or left for it.
    #[must_use]
    pub fn active_for(&self) -> Duration {
        Duration::from_millis(self.last_activity_ms.load(Ordering::Relaxed))
    }

    /// Time since something last arrived from it or left for it.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.started_instant
            .elapsed()
            .saturating_sub(self.active_for())
    }

    pub(crate) fn active(&self) {
        let millis = self.started_instant.elapsed().as_millis();
        self.last_activity_ms
            .store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Bytes that wait to be written to it.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Most bytes that may wait.
    pub(crate) fn max_pending(&self) -> usize {
        self.max_pending
    }

    /// Number of its subscriptions.
    #[must_use]
    pub fn subscription_count(&self) -> usize {
        self.subscriptions.lock().len()
    }

    /// Its subscriptions.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<Arc<Subscription>> {
        self.subscriptions.lock().values().cloned().collect()
    }

    /// It asked for INFO to be sent whenever it changes, and had its first one.
    pub(crate) fn now_takes_info(&self) {
        self.takes_info.store(true, Ordering::Relaxed);
    }

    pub(crate) fn takes_info(&self) -> bool {
        self.takes_info.load(Ordering::Relaxed)
    }

    /// Queues an INFO.
    pub(crate) fn send_info(&self, document: &Info) {
        let mut line = ByteQueue::default();
        info(line.tail(), document);
        self.send(&mut line);
    }

    /// Queues `bytes` and wakes the writer.
    fn send(&self, bytes: &mut ByteQueue) {
        if let Enqueued::Queued {
            writer: Some(writer),
            ..
        } = self.enqueue(bytes)
        {
            writer.wake();
        }
    }

    /// Whether it takes nothing more.
    #[inline]
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether it understands HMSG.
    #[inline]
    pub(crate) fn has_headers(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & HEADERS != 0
    }

    /// Whether it wants its own messages.
    #[inline]
    pub(crate) fn has_echo(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & NO_ECHO == 0
    }

    /// Sets who it is and how it wants its messages.
    pub(crate) fn identify(&self, identity: Identity, headers: bool, echo: bool) {
        let responses = identity.permissions.as_ref().and_then(|p| p.responses());
        *self.grants.lock() = responses.map(ResponseGrants::new);
        let flags = if headers { HEADERS } else { 0 }
            | if echo { 0 } else { NO_ECHO }
            | if responses.is_some() { GRANTS } else { 0 };
        self.flags.store(flags, Ordering::Relaxed);
        *self.identity.write() = Arc::new(identity);
    }

    /// Whether it wants to hear that nobody listens to what it asked.
    pub(crate) fn hears_no_responders(&self) -> bool {
        self.hears_no_responders.load(Ordering::Relaxed)
    }

    pub(crate) fn set_hears_no_responders(&self, hears: bool) {
        self.hears_no_responders.store(hears, Ordering::Relaxed);
    }

    /// From now on its user may do what these permissions say. Its reader takes away the
    /// subscriptions they do not allow.
    pub(crate) fn permit(&self, permissions: Option<Arc<Permissions>>) {
        let responses = permissions.as_ref().and_then(|p| p.responses());
        *self.grants.lock() = responses.map(ResponseGrants::new);
        if responses.is_some() {
            self.flags.fetch_or(GRANTS, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!GRANTS, Ordering::Relaxed);
        }
        let mut identity = self.identity.write();
        *identity = Arc::new(Identity {
            permissions,
            ..Identity::clone(&identity)
        });
        drop(identity);
        self.is_permitted_anew.store(true, Ordering::Release);
        let reader = self.output.lock().reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Whether its permissions have changed since this was last asked.
    pub(crate) fn take_permitted_anew(&self) -> bool {
        self.is_permitted_anew.load(Ordering::Relaxed)
            && self.is_permitted_anew.swap(false, Ordering::Acquire)
    }

    /// A plain subscription of its own that matches `literal`, of which some is denied.
    pub(crate) fn filtered_subscription(&self, literal: &[u8]) -> Option<Arc<Subscription>> {
        let subscriptions = self.subscriptions.lock();
        let matching = subscriptions.values().find(|subscription| {
            subscription.is_filtered()
                && subscription.queue().is_none()
                && subject::matches(subscription.subject(), literal)
        });
        matching.cloned()
    }

    /// A message with this reply subject goes to this client: it may answer, if its permissions say
    /// so.
    #[inline]
    pub(crate) fn grant_response(&self, reply: &[u8]) {
        if self.flags.load(Ordering::Relaxed) & GRANTS != 0
            && let Some(grants) = self.grants.lock().as_mut()
        {
            grants.grant(reply, Instant::now());
        }
    }

    /// Uses up one answer to `subject`, if it was granted.
    pub(crate) fn use_response(&self, subject: &[u8]) -> bool {
        let mut grants = self.grants.lock();
        grants
            .as_mut()
            .is_some_and(|grants| grants.answer(subject, Instant::now()))
    }

    /// Registers a subscription under its sid. False when the sid is taken.
    pub(crate) fn add_subscription(&self, subscription: &Arc<Subscription>) -> bool {
        let mut subscriptions = self.subscriptions.lock();
        if subscriptions.contains_key(subscription.sid()) {
            return false;
        }
        subscriptions.insert(subscription.sid().into(), Arc::clone(subscription));
        true
    }

    pub(crate) fn has_subscription(&self, sid: &[u8]) -> bool {
        self.subscriptions.lock().contains_key(sid)
    }

    pub(crate) fn subscription(&self, sid: &[u8]) -> Option<Arc<Subscription>> {
        self.subscriptions.lock().get(sid).cloned()
    }

    /// Forgets this very subscription. False when it was forgotten before.
    pub(crate) fn forget_subscription(&self, subscription: &Arc<Subscription>) -> bool {
        let mut subscriptions = self.subscriptions.lock();
        let is_there = subscriptions
            .get(subscription.sid())
            .is_some_and(|found| Arc::ptr_eq(found, subscription));
        if is_there {
            subscriptions.remove(subscription.sid());
            if traffic::is_on() {
                traffic::unsubscribed(self, subscription.sid());
            }
        }
        is_there
    }

    /// Forgets all its subscriptions and returns them.
    pub(crate) fn take_subscriptions(&self) -> Vec<Arc<Subscription>> {
        let taken = std::mem::take(&mut *self.subscriptions.lock());
        if traffic::is_on() {
            for sid in taken.keys() {
                traffic::unsubscribed(self, sid);
            }
        }
        taken.into_values().collect()
    }

    /// Queues `staged`, which is left empty.
    pub(crate) fn enqueue(&self, staged: &mut ByteQueue) -> Enqueued {
        let added = staged.len();
        let mut output = self.output.lock();
        if output.closed.is_some() {
            staged.clear();
            return Enqueued::Closed;
        }
        let pending = self.pending.load(Ordering::Relaxed) + added;
        if pending > self.max_pending {
            drop(output);
            staged.clear();
            self.close(CloseReason::SlowConsumerPendingBytes);
            return Enqueued::SlowConsumer;
        }
        self.pending.fetch_add(added, Ordering::Relaxed);
        output.queue.append(staged);
        Enqueued::Queued {
            pending,
            writer: output.turn.wake(),
        }
    }

    /// Writes what is queued on this thread, in place of the writer whose waker was handed out by
    /// [`Client::enqueue`]: cheaper than waking a thread that sleeps. Returns the waker if the
    /// writer has to be woken all the same, because the socket did not take everything, say.
    pub(crate) fn write_for_writer(&self, waker: Waker, buffers: &mut Buffers) -> Option<Waker> {
        let mut queue = ByteQueue::default();
        let socket = {
            let mut output = self.output.lock();
            match (&output.turn, &output.socket) {
                (Turn::Woken, Some(socket)) if output.closed.is_none() => {
                    let socket = Arc::clone(socket);
                    std::mem::swap(&mut output.queue, &mut queue);
                    output.turn = Turn::Lent(waker);
                    socket
                }
                _ => return Some(waker),
            }
        };
        let before = queue.len();
        write_now(&socket, &mut queue, buffers);
        let left = queue.len();
        if left == 0 {
            buffers.put(queue.take_buffer());
        }
        let mut output = self.output.lock();
        self.pending.fetch_sub(before - left, Ordering::Relaxed);
        if output.closed.is_some_and(CloseReason::drops_output) {
            self.pending.fetch_sub(left, Ordering::Relaxed);
        } else if left > 0 {
            // Others may have queued meanwhile; these bytes come before theirs.
            std::mem::swap(&mut output.queue, &mut queue);
            output.queue.append(&mut queue);
        }
        let Turn::Lent(waker) = std::mem::take(&mut output.turn) else {
            unreachable!("only the borrower takes a lent turn back");
        };
        if output.queue.is_empty() && output.closed.is_none() {
            output.turn = Turn::Sleeping(waker);
            return None;
        }
        Some(waker)
    }

    /// Lets other threads write to the socket.
    pub(crate) fn share_socket(&self, socket: Arc<OwnedWriteHalf>) {
        self.output.lock().socket = Some(socket);
    }

    /// The socket is about to be closed.
    pub(crate) fn forget_socket(&self) {
        self.output.lock().socket = None;
    }

    /// Ends the connection. What is queued is still written, if the reason allows it. False when it
    /// had ended already.
    pub(crate) fn close(&self, reason: CloseReason) -> bool {
        let wakers = {
            let mut output = self.output.lock();
            if output.closed.is_some() {
                return false;
            }
            output.closed = Some(reason);
            self.closed.store(true, Ordering::Relaxed);
            if reason.drops_output() {
                let len = output.queue.len();
                output.queue = ByteQueue::default();
                self.pending.fetch_sub(len, Ordering::Relaxed);
            }
            [
                output.turn.wake(),
                output.blocked_writer.take(),
                output.reader.take(),
            ]
        };
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
        true
    }

    /// Ends the connection because its user may no longer connect, and says so.
    pub(crate) fn revoke(&self) {
        self.close_with(WireError::UserAuthenticationRevoked);
    }

    /// Ends the connection because its account ran out, and says so.
    pub(crate) fn expire_account(&self) {
        self.close_with(WireError::AccountAuthenticationExpired);
    }

    /// Ends the connection because its account may no longer have so many, and says so.
    pub(crate) fn exceed_account(&self) {
        self.close_with(WireError::MaxAccountConnections);
    }

    /// Ends the connection because its credentials do not do any more, and says so.
    pub(crate) fn violate(&self) {
        self.close_with(WireError::AuthorizationViolation);
    }

    /// Ends the connection because its proxy is not trusted any more, and says so.
    pub(crate) fn distrust(&self) {
        self.close_saying(
            WireError::AuthorizationViolation,
            CloseReason::ProxyNotTrusted,
        );
    }

    /// Ends the connection and says why.
    pub(crate) fn close_with(&self, error: WireError<'_>) {
        self.close_saying(error, CloseReason::of_wire_error(error));
    }

    fn close_saying(&self, error: WireError<'_>, reason: CloseReason) {
        let mut line = ByteQueue::default();
        error.encode(line.tail());
        if traffic::is_on() {
            traffic::said(self, line.tail());
        }
        self.send(&mut line);
        self.close(reason);
    }

    /// Why it ended, if it has.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.output.lock().closed
    }

    /// Moves what is queued to `into`, which must be empty.
    pub(crate) fn take_output(&self, into: &mut ByteQueue, waker: &Waker) -> Taken {
        let mut output = self.output.lock();
        if let Turn::Lent(lent) = &mut output.turn {
            // Woken for nothing: whoever writes wakes it again if there is more.
            lent.clone_from(waker);
            return Taken::Nothing;
        }
        if !output.queue.is_empty() {
            output.turn = Turn::Writing;
            std::mem::swap(&mut output.queue, into);
            return Taken::Bytes;
        }
        if let Some(reason) = output.closed {
            return Taken::Closed(reason);
        }
        output.turn = Turn::Sleeping(waker.clone());
        Taken::Nothing
    }

    /// `count` bytes left, or were thrown away.
    pub(crate) fn wrote(&self, count: usize) {
        self.pending.fetch_sub(count, Ordering::Relaxed);
    }

    /// Waits until the connection ends, as its reader.
    pub(crate) async fn closed(&self) -> CloseReason {
        poll_fn(|cx| match self.poll_closed(End::Reader, cx.waker()) {
            Some(reason) => Poll::Ready(reason),
            None => Poll::Pending,
        })
        .await
    }

    /// Why the connection ended; while it has not, `waker` is woken when it does.
    pub(crate) fn poll_closed(&self, end: End, waker: &Waker) -> Option<CloseReason> {
        let mut output = self.output.lock();
        if output.closed.is_none() {
            let slot = match end {
                End::Reader => &mut output.reader,
                End::Writer => &mut output.blocked_writer,
            };
            keep_waker(slot, waker);
        }
        output.closed
    }
}

/// Writes what the socket takes without waiting.
fn write_now(socket: &OwnedWriteHalf, queue: &mut ByteQueue, buffers: &mut Buffers) {
    while !queue.is_empty() {
        let mut slices = [IoSlice::new(&[]); 16];
        let count = queue.slices(&mut slices);
        // An error is met again, and dealt with, by the writer.
        match socket.as_ref().try_write_vectored(&slices[..count]) {
            Ok(0) | Err(_) => return,
            Ok(written) => queue.advance(written, buffers),
        }
    }
}

fn keep_waker(slot: &mut Option<Waker>, waker: &Waker) {
    if !slot.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
        *slot = Some(waker.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_permissions_limit_does_not_manage_users() {
        let none = Permissions::new(&crate::config::options::PermissionOptions::default());
        let limited = Identity {
            permissions: Some(Arc::new(none)),
            ..Identity::default()
        };
        assert_eq!(limited.role(), Role::Limited);
        assert_eq!(Identity::default().role(), Role::Management);
    }

    pub(crate) fn client(max_pending: usize) -> Client {
        Client::new(ClientId(1), Endpoint::for_tests(), max_pending)
    }

    fn staged(len: usize) -> ByteQueue {
        let mut queue = ByteQueue::default();
        queue.tail().resize(len, b'x');
        queue
    }

    fn pending(enqueued: &Enqueued) -> Option<usize> {
        match enqueued {
            Enqueued::Queued { pending, .. } => Some(*pending),
            Enqueued::Closed | Enqueued::SlowConsumer => None,
        }
    }

    #[test]
    fn too_many_pending_bytes_close_the_connection() {
        let client = client(100);
        assert_eq!(pending(&client.enqueue(&mut staged(60))), Some(60));
        let mut taken = ByteQueue::default();
        let found = client.take_output(&mut taken, Waker::noop());
        assert!(matches!(found, Taken::Bytes));
        // Taken and not yet written still counts.
        let enqueued = client.enqueue(&mut staged(41));
        assert!(matches!(enqueued, Enqueued::SlowConsumer));
        let reason = CloseReason::SlowConsumerPendingBytes;
        assert_eq!(client.close_reason(), Some(reason));
        assert!(matches!(client.enqueue(&mut staged(1)), Enqueued::Closed));
        client.wrote(60);
        assert_eq!(client.pending_bytes(), 0);
    }

    #[test]
    fn queued_bytes_come_before_the_end() {
        let client = client(100);
        client.enqueue(&mut staged(5));
        assert!(client.close(CloseReason::ParseError));
        assert!(!client.close(CloseReason::ClientClosed));
        let mut taken = ByteQueue::default();
        let found = client.take_output(&mut taken, Waker::noop());
        assert!(matches!(found, Taken::Bytes));
        taken.clear();
        let found = client.take_output(&mut taken, Waker::noop());
        assert!(matches!(found, Taken::Closed(CloseReason::ParseError)));
    }

    /// A connected pair: the server's half for writing, and the client's end.
    async fn socket() -> (Arc<OwnedWriteHalf>, tokio::net::TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("bound");
        let peer = tokio::net::TcpStream::connect(address)
            .await
            .expect("it listens");
        let (stream, _) = listener.accept().await.expect("it was connected");
        let (read, write) = stream.into_split();
        std::mem::forget(read);
        (Arc::new(write), peer)
    }

    /// Queues so many bytes for a client whose writer sleeps.
    fn wake_for(client: &Client, len: usize) -> Waker {
        let mut taken = ByteQueue::default();
        let found = client.take_output(&mut taken, Waker::noop());
        assert!(matches!(found, Taken::Nothing));
        match client.enqueue(&mut staged(len)) {
            Enqueued::Queued { writer, .. } => writer.expect("the writer sleeps"),
            other => panic!("not queued: {other:?}"),
        }
    }

    #[tokio::test]
    async fn another_thread_writes_in_place_of_a_sleeping_writer() {
        use tokio::io::AsyncReadExt;
        let (write, mut peer) = socket().await;
        let client = client(1 << 30);
        client.share_socket(write);
        let mut buffers = Buffers::new(super::super::output::BufferPool::default());
        let waker = wake_for(&client, 5);
        assert!(client.write_for_writer(waker, &mut buffers).is_none());
        assert_eq!(client.pending_bytes(), 0);
        let mut bytes = [0; 5];
        peer.read_exact(&mut bytes)
            .await
            .expect("they were written");
        // What the socket does not take is left, in order, and the writer has to be woken.
        let size = 64 << 20;
        let waker = wake_for(&client, size);
        assert!(client.write_for_writer(waker, &mut buffers).is_some());
        let left = client.pending_bytes();
        assert!(left > 0 && left < size);
        let mut taken = ByteQueue::default();
        let found = client.take_output(&mut taken, Waker::noop());
        assert!(matches!(found, Taken::Bytes));
        assert_eq!(taken.len(), left);
    }

    #[tokio::test]
    async fn one_thread_writes_at_a_time() {
        let (write, _peer) = socket().await;
        let client = client(1000);
        client.share_socket(write);
        let mut buffers = Buffers::new(super::super::output::BufferPool::default());
        let mut taken = ByteQueue::default();
        // The writer was quicker: it has the bytes, and more came.
        let waker = wake_for(&client, 5);
        assert!(matches!(
            client.take_output(&mut taken, Waker::noop()),
            Taken::Bytes
        ));
        client.enqueue(&mut staged(5));
        assert!(client.write_for_writer(waker, &mut buffers).is_some());
        assert_eq!(client.pending_bytes(), 10);
        // While another thread writes, the writer takes nothing.
        client.output.lock().turn = Turn::Lent(Waker::noop().clone());
        let mut taken = ByteQueue::default();
        assert!(matches!(
            client.take_output(&mut taken, Waker::noop()),
            Taken::Nothing
        ));
    }

    #[test]
    fn the_connection_id_is_the_first_of_two_parts() {
        let id = |name: &str| {
            let identity = Identity {
                name: name.to_owned(),
                ..Identity::default()
            };
            identity.connection_id().map(ToOwned::to_owned)
        };
        assert_eq!(id("abc::root").as_deref(), Some("abc"));
        assert_eq!(id("plain"), None);
        assert_eq!(id("a::b::c"), None);
        assert_eq!(id("::root"), None);
    }
}
