//! The server: listeners, workers, and what they share.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use arc_swap::{ArcSwap, Guard};
use data_encoding::BASE32_NOPAD;
use menes_auth::admission::ConnectionType;
use menes_auth::key::{KeyKind, Sealer, Signer};
use menes_jetstream::ids::AccountName;
use menes_protocol::error::WireError;
use menes_protocol::info::Info;
use parking_lot::Mutex;
use rand::Rng;
use tokio::io::DuplexStream;
use tokio::runtime::Builder;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::account::book::Refusal;
use crate::account::description::AccountDescription;
use crate::account::{Account, Accounts, SYSTEM_ACCOUNT, services};
use crate::auth::directory::{Directory, StoredLogin};
use crate::auth::operator::Operator;
use crate::auth::{Authenticator, Standing};
use crate::config::options::{AuthOptions, Options, TlsOptions};
use crate::connection::client::{Client, ClientId, ConnectionObserver, TrafficCount};
use crate::connection::closed::Closed;
use crate::connection::counters::{CounterSums, Counters};
use crate::connection::inbox::Inbox;
use crate::connection::output::BufferPool;
use crate::connection::secure::ClientDoor;
use crate::connection::websocket::Upgrade;
use crate::connection::worker::{self, Accepted, Door, WorkerHandle};
use crate::error::{CloseReason, StartError};
use crate::inside::PIPE_BYTES;
use crate::listener;
use crate::routing::{Equipment, Message, RouteBatch};
use crate::shutdown::Shutdown;
use crate::streams::StreamsOptions;
use crate::streams::ingest::{IngestQueue, LimitChange};
use crate::system::Port;
use crate::tls::{Prepared, Stapling, Tls, TlsError};

/// The version announced in INFO: the nats-server whose behaviour this server has. Clients switch
/// features on by it.
pub const NATS_VERSION: &str = "2.14.6";
/// Announced as the toolchain; clients require the field.
pub(crate) const GO_VERSION: &str = "go1.26.0";
/// Level of the JetStream API.
pub const API_LEVEL: u64 = 4;

/// What the core server works for.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Where messages for the engine go. Without it there is no engine.
    pub ingest: Option<Arc<IngestQueue>>,
    /// Is told which clients come and go.
    pub observer: Option<Arc<dyn ConnectionObserver>>,
    /// Users that are stored.
    pub directory: Arc<Directory>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("ingest", &self.ingest.is_some())
            .field("observer", &self.observer.is_some())
            .finish()
    }
}

/// Where a server listens.
#[derive(Debug, Default)]
struct Addresses {
    clients: Vec<SocketAddr>,
    websocket: Option<SocketAddr>,
}

/// TLS of the listeners, to be replaced while the server runs.
#[derive(Debug, Default)]
pub(crate) struct ListenerTls {
    /// Of the client listeners, and of monitoring.
    pub(crate) clients: Arc<Tls>,
    /// Of the WebSocket listener.
    pub(crate) websocket: Arc<Tls>,
}

impl ListenerTls {
    fn replace(&self, prepared: PreparedTls) {
        self.clients.replace(prepared.clients);
        self.websocket.replace(prepared.websocket);
    }
}

/// TLS of the listeners, made ready before anything changes.
struct PreparedTls {
    clients: Option<Prepared>,
    websocket: Option<Prepared>,
}

impl PreparedTls {
    fn new(options: &Options, stop: &Arc<Notify>) -> Result<Self, TlsError> {
        let prepare = |tls: Option<&TlsOptions>, kind| {
            let stapling = Stapling {
                options: &options.ocsp,
                kind,
                stop,
            };
            tls.map(|tls| Prepared::new(tls)?.staple(&stapling))
                .transpose()
        };
        let of_websocket = options.websocket.as_ref().and_then(|ws| ws.tls.as_ref());
        Ok(Self {
            clients: prepare(options.tls.as_ref(), "Client")?,
            websocket: prepare(of_websocket, "Websocket")?,
        })
    }
}

/// What all threads of a server share.
#[derive(Debug)]
pub(crate) struct Shared {
    options: ArcSwap<Options>,
    /// Counts changes of the options, so that those who keep some of them notice.
    generation: AtomicU64,
    no_fast_producer_stall: Arc<AtomicBool>,
    tls: ListenerTls,
    /// Told when the server must not go on.
    stop: Arc<Notify>,
    hooks: Hooks,
    /// The key whose public half is the id.
    signer: Signer,
    sealer: Sealer,
    name: String,
    started: Instant,
    accounts: Arc<Accounts>,
    auth: Authenticator,
    /// Set when the server is bound, if there is one.
    operator: OnceLock<Arc<Operator>>,
    /// For messages of the server itself.
    internal: OnceLock<Mutex<RouteBatch>>,
    auth_options: Mutex<AuthOptions>,
    /// Connections by number, one table per worker so that workers do not wait for each other.
    registry: Vec<Mutex<HashMap<ClientId, Arc<Client>>>>,
    connections: AtomicUsize,
    total_connections: AtomicU64,
    next_client: AtomicU64,
    counters: Mutex<Vec<Arc<Counters>>>,
    pool: BufferPool,
    addresses: OnceLock<Addresses>,
    /// The latest at the back.
    closed: Mutex<VecDeque<Arc<Closed>>>,
    /// Clients are told to go elsewhere.
    is_lame_duck: AtomicBool,
    inboxes: Arc<[Inbox]>,
    system: Arc<Port>,
    /// The way of clients inside the server to their workers, once those run.
    inside: OnceLock<mpsc::UnboundedSender<Accepted>>,
}

impl Shared {
    fn new(options: Options, hooks: Hooks) -> Self {
        let signer = Signer::generate(KeyKind::Server);
        let id = signer.public_key().to_owned();
        let workers = worker_count(&options);
        let system = options.system_account.as_deref();
        let accounts = Accounts::new(system.unwrap_or(SYSTEM_ACCOUNT));
        let system = Arc::new(Port::new(Arc::clone(accounts.system())));
        log_refusals(&accounts.describe_all(options.accounts.clone()));
        for user in &options.auth.users {
            if let Some(account) = &user.account {
                accounts.get_or_create(&AccountName::from(account.as_str()));
            }
        }
        Self {
            name: options.server_name.clone().unwrap_or(id),
            signer,
            sealer: Sealer::generate(),
            operator: OnceLock::new(),
            internal: OnceLock::new(),
            started: Instant::now(),
            accounts: Arc::new(accounts),
            auth: Authenticator::with(&options.auth, Arc::clone(&hooks.directory)),
            auth_options: Mutex::new(options.auth.clone()),
            registry: (0..workers).map(|_| Mutex::default()).collect(),
            connections: AtomicUsize::new(0),
            total_connections: AtomicU64::new(0),
            next_client: AtomicU64::new(0),
            counters: Mutex::default(),
            pool: BufferPool::default(),
            addresses: OnceLock::new(),
            closed: Mutex::default(),
            is_lame_duck: AtomicBool::new(false),
            inboxes: (0..workers).map(|_| Inbox::default()).collect(),
            no_fast_producer_stall: Arc::new(AtomicBool::new(
                options.limits.no_fast_producer_stall,
            )),
            system,
            options: ArcSwap::from_pointee(options),
            generation: AtomicU64::new(0),
            tls: ListenerTls::default(),
            stop: Arc::default(),
            hooks,
            inside: OnceLock::new(),
        }
    }

    /// A connection for a client inside the server that acts for whoever is at `address`; none
    /// while the server does not serve.
    pub(crate) fn open_inside(
        &self,
        address: SocketAddr,
        listener: SocketAddr,
    ) -> Option<DuplexStream> {
        let (own, stream) = tokio::io::duplex(PIPE_BYTES);
        let accepted = Accepted::Inside {
            stream,
            address,
            listener,
        };
        self.inside.get()?.send(accepted).ok()?;
        Some(own)
    }

    pub(crate) fn id(&self) -> &str {
        self.signer.public_key()
    }

    /// The key pair of this server.
    pub(crate) fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The key pair that messages for this server are sealed for.
    pub(crate) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// The operator whose accounts these are, if there is one.
    pub(crate) fn operator(&self) -> Option<&Arc<Operator>> {
        self.operator.get()
    }

    /// Whether a login must be decided before anything else.
    pub(crate) fn must_log_in(&self, connection: ConnectionType) -> bool {
        self.operator().is_some() || self.auth.has_rules(connection)
    }

    /// A subject that nobody else replies to.
    pub(crate) fn new_inbox(&self) -> String {
        let unique = BASE32_NOPAD.encode(&rand::rng().random::<[u8; 10]>());
        format!("$SYS._INBOX.{}.{unique}", &self.id()[..8])
    }

    /// Sends a message of the server itself. Gives the number of receivers.
    pub(crate) fn send_internally(&self, account: &Arc<Account>, message: &Message<'_>) -> usize {
        let batch = self
            .internal
            .get_or_init(|| Mutex::new(self.route_batch(None, self.add_counters())));
        let mut batch = batch.lock();
        let count = account.route(&mut batch, message, None);
        batch.flush();
        count
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Where clients connect, in the order of the ports given; nothing before the server is bound.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        self.addresses
            .get()
            .map_or(&[], |addresses| &addresses.clients)
    }

    /// Where clients connect over WebSocket.
    pub(crate) fn websocket_address(&self) -> Option<SocketAddr> {
        self.addresses.get()?.websocket
    }

    pub(crate) fn worker_count(&self) -> usize {
        self.registry.len()
    }

    pub(crate) fn connection_count(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn total_connections(&self) -> u64 {
        self.total_connections.load(Ordering::Relaxed)
    }

    pub(crate) fn subscription_count(&self) -> usize {
        self.accounts
            .all()
            .iter()
            .map(|account| account.sublist().len())
            .sum()
    }

    pub(crate) fn counter_sums(&self) -> CounterSums {
        Counters::sum(self.counters.lock().iter())
    }

    /// Remembers a connection that ended, and what it did for its account.
    pub(crate) fn note_closed(&self, closed: Closed) {
        if let Some(account) = &closed.client.identity().account {
            account.add_past_traffic(closed.client.traffic().count());
            if closed.reason.is_slow_consumer() {
                account.had_slow_consumer();
            }
        }
        let most = self.options.load().limits.max_closed_clients;
        let mut all = self.closed.lock();
        while !all.is_empty() && all.len() >= most {
            all.pop_front();
        }
        if most > 0 {
            all.push_back(Arc::new(closed));
        }
    }

    /// The connections that ended lately, the latest at the end.
    pub(crate) fn closed_clients(&self) -> Vec<Arc<Closed>> {
        self.closed.lock().iter().cloned().collect()
    }

    /// The connection that calls itself so in the way of the SDKs.
    pub(crate) fn client_of(&self, connection_id: &str) -> Option<Arc<Client>> {
        self.clients()
            .into_iter()
            .find(|client| client.identity().connection_id() == Some(connection_id))
    }

    /// What was published and delivered in each account since the start.
    pub(crate) fn traffic_by_account(&self) -> BTreeMap<AccountName, TrafficCount> {
        let all = self.accounts.all();
        let mut traffic: BTreeMap<_, _> = all
            .iter()
            .map(|account| (account.name().clone(), account.past_traffic()))
            .collect();
        for client in self.clients() {
            if let Some(account) = &client.identity().account
                && let Some(sum) = traffic.get_mut(account.name())
            {
                *sum = sum.plus(client.traffic().count());
            }
        }
        traffic
    }

    /// Keys of the proxies that are trusted.
    pub(crate) fn trusted_proxies(&self) -> Vec<String> {
        self.auth_options.lock().trusted_proxies.clone()
    }

    /// What holds now.
    pub(crate) fn options(&self) -> Guard<Arc<Options>> {
        self.options.load()
    }

    /// Number of changes of the options so far.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(crate) fn tls_of(&self, listener: SocketAddr) -> &Tls {
        if self.websocket_address() == Some(listener) {
            &self.tls.websocket
        } else {
            &self.tls.clients
        }
    }

    /// Ends connections of these accounts that are more than each may have by now, the last ones
    /// first to go, and those that have more subscriptions than they may.
    pub(crate) fn hold_to_limits(&self, accounts: impl IntoIterator<Item = Arc<Account>>) {
        let limits = |account: Arc<Account>| {
            let limits = account.limits();
            let is_limited = limits.max_connections.is_some() || limits.max_subscriptions.is_some();
            is_limited.then(|| (account.name().clone(), (limits, Vec::new())))
        };
        let mut limited: HashMap<_, (_, Vec<Arc<Client>>)> =
            accounts.into_iter().filter_map(limits).collect();
        if limited.is_empty() {
            return;
        }
        for table in &self.registry {
            for client in table.lock().values().filter(|client| !client.is_closed()) {
                let identity = client.identity();
                let account = identity.account.as_ref();
                if let Some((_, its)) = account.and_then(|its| limited.get_mut(its.name())) {
                    its.push(Arc::clone(client));
                }
            }
        }
        for (limits, mut clients) in limited.into_values() {
            clients.sort_by_key(|client| client.id());
            let connections = limits.max_connections.map(|max| max as usize);
            for (count, client) in clients.into_iter().enumerate() {
                if connections.is_some_and(|max| count >= max) {
                    client.exceed_account();
                } else if limits
                    .max_subscriptions
                    .is_some_and(|max| client.subscription_count() > max)
                {
                    tracing::error!("{} - maximum subscriptions exceeded", client.who());
                    client.close_with(WireError::MaxSubscriptions);
                }
            }
        }
    }

    /// Whether clients are told to go elsewhere and nobody is let in any more.
    pub(crate) fn is_lame_duck(&self) -> bool {
        self.is_lame_duck.load(Ordering::Relaxed)
    }

    /// Whether certificates say who the clients of a listener are.
    pub(crate) fn maps_users(&self, listener: SocketAddr) -> bool {
        let tls = self.tls_of(listener).current();
        tls.is_some_and(|tls| tls.options().map_users)
    }

    /// TLS of the listeners.
    pub(crate) fn tls(&self) -> &ListenerTls {
        &self.tls
    }

    pub(crate) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Closes a connection whose stored user is gone or has other credentials, or gives it the
    /// permissions that its user has now.
    pub(crate) fn look_at(&self, client: &Client, stored: &StoredLogin) {
        let permissions = client.identity().permissions.clone();
        match self.auth.directory().standing(stored, permissions.as_ref()) {
            Standing::Same => {}
            Standing::Permitted(permissions) => client.permit(permissions),
            Standing::Changed | Standing::Refused => client.revoke(),
        }
    }

    /// The same for everyone, after stored users changed.
    pub(crate) fn look_at_all(&self) {
        for client in self.clients() {
            if let Some(stored) = &client.identity().stored {
                self.look_at(&client, stored);
            }
        }
    }

    pub(crate) fn auth(&self) -> &Authenticator {
        &self.auth
    }

    pub(crate) fn ingest(&self) -> Option<&Arc<IngestQueue>> {
        self.hooks.ingest.as_ref()
    }

    pub(crate) fn observer(&self) -> Option<&Arc<dyn ConnectionObserver>> {
        self.hooks.observer.as_ref()
    }

    /// The way to the system's services and events.
    pub(crate) fn system(&self) -> &Arc<Port> {
        &self.system
    }

    pub(crate) fn next_client_id(&self) -> ClientId {
        ClientId(self.next_client.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Notes a new connection. False when there are too many; then it was not noted.
    pub(crate) fn register(&self, worker: usize, client: &Arc<Client>) -> bool {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        if before >= self.options.load().limits.max_connections {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.total_connections.fetch_add(1, Ordering::Relaxed);
        self.registry[worker]
            .lock()
            .insert(client.id(), Arc::clone(client));
        true
    }

    pub(crate) fn unregister(&self, worker: usize, client: ClientId) {
        if self.registry[worker].lock().remove(&client).is_some() {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The open connection of this number.
    pub(crate) fn client(&self, id: ClientId) -> Option<Arc<Client>> {
        let mut tables = self.registry.iter();
        tables.find_map(|table| table.lock().get(&id).cloned())
    }

    pub(crate) fn clients(&self) -> Vec<Arc<Client>> {
        let mut all = Vec::new();
        for table in &self.registry {
            all.extend(table.lock().values().cloned());
        }
        all
    }

    pub(crate) fn shared_accounts(&self) -> Arc<Accounts> {
        Arc::clone(&self.accounts)
    }

    pub(crate) fn add_counters(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        self.counters.lock().push(Arc::clone(&counters));
        counters
    }

    /// A batch for the worker `home`, or for a thread that is none.
    pub(crate) fn route_batch(&self, home: Option<usize>, counters: Arc<Counters>) -> RouteBatch {
        RouteBatch::new(Equipment {
            counters,
            pool: self.pool.clone(),
            inboxes: Arc::clone(&self.inboxes),
            home,
            ingest: self.hooks.ingest.clone(),
            system: Arc::clone(&self.system),
            server_name: self.name.as_str().into(),
            no_fast_producer_stall: Arc::clone(&self.no_fast_producer_stall),
        })
    }

    pub(crate) fn inbox(&self, worker: usize) -> &Inbox {
        &self.inboxes[worker]
    }

    /// Tells a client, if it listens for it, that it had better go elsewhere.
    pub(crate) fn announce_lame_duck_to(&self, client: &Client) {
        if client.takes_info() {
            let mut document = self.info(client.listener());
            document.ldm = true;
            document.client_id = client.id().0;
            document.client_ip = client.address().ip().to_canonical().to_string();
            client.send_info(&document);
        }
    }

    /// INFO as it is for every client of this listener.
    pub(crate) fn info(&self, listener: SocketAddr) -> Info {
        let options = self.options.load();
        let is_websocket = self.websocket_address() == Some(listener);
        let tls = self.tls_of(listener).current();
        let is_optional = options.allow_non_tls && !is_websocket;
        let websocket = options.websocket.as_ref().filter(|_| is_websocket);
        let advertised = match websocket {
            Some(websocket) => websocket.advertise.clone(),
            None => options.client_advertise.clone(),
        };
        let (host, port) =
            advertised.unwrap_or_else(|| (listener.ip().to_string(), listener.port()));
        Info {
            server_id: self.id().to_owned(),
            xkey: self.sealer.public_key().to_owned(),
            server_name: self.name.clone(),
            version: NATS_VERSION.to_owned(),
            proto: 1,
            go: GO_VERSION.to_owned(),
            host,
            port,
            headers: !options.no_header_support,
            auth_required: self.operator().is_some()
                || self.auth.is_required()
                || is_websocket && self.auth.has_rules(ConnectionType::WebSocket),
            tls_required: tls.is_some() && !is_optional,
            tls_verify: tls.as_ref().is_some_and(|tls| tls.options().verify),
            tls_available: tls.is_some() && (is_optional || is_websocket),
            max_payload: i64::try_from(options.limits.max_payload).unwrap_or(i64::MAX),
            jetstream: options.jetstream,
            domain: options.domain.clone().unwrap_or_default(),
            api_lvl: API_LEVEL,
            ldm: self.is_lame_duck.load(Ordering::Relaxed),
            ..Info::default()
        }
    }
}

/// Says which imports do not hold, and why.
pub(crate) fn log_refusals(refusals: &[Refusal]) {
    for refusal in refusals {
        let (importer, error) = (refusal.importer.as_str(), &refusal.error);
        tracing::error!(
            "account {importer:?}: import {} does not hold: {error}",
            refusal.import
        );
    }
}

fn worker_count(options: &Options) -> usize {
    let cores = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    options.workers.unwrap_or_else(cores).get()
}

/// A server that serves nobody yet.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    /// Open already, see [`Server::bind`].
    listeners: Vec<(std::net::TcpListener, SocketAddr, Door)>,
}

impl Server {
    /// Prepares a server. Nothing is opened and no thread is started.
    #[must_use]
    pub fn new(options: Options, hooks: Hooks) -> Self {
        Self {
            shared: Arc::new(Shared::new(options, hooks)),
            listeners: Vec::new(),
        }
    }

    /// Prepares a server and opens its listeners.
    ///
    /// # Errors
    /// As [`Server::listen`].
    pub fn start(options: Options) -> Result<ServerHandle, StartError> {
        Self::new(options, Hooks::default()).listen()
    }

    /// Its id, as in INFO.
    #[must_use]
    pub fn id(&self) -> &str {
        self.shared.id()
    }

    /// Its name, as in INFO.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Its accounts.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.shared.accounts
    }

    /// A batch for a thread that sends messages of the server itself.
    #[must_use]
    pub fn route_batch(&self) -> RouteBatch {
        self.shared.route_batch(None, self.shared.add_counters())
    }

    /// Opens the listeners and serves.
    ///
    /// # Errors
    /// As [`Server::bind`] and [`Server::serve`]. Nothing is left open.
    pub fn listen(mut self) -> Result<ServerHandle, StartError> {
        self.bind()?;
        self.serve()
    }

    /// Opens the listeners. Clients can connect from now on and wait until they are served. A
    /// server that is bound already stays as it is.
    ///
    /// # Errors
    /// A listener that cannot be opened. Nothing is left open.
    pub fn bind(&mut self) -> Result<(), StartError> {
        if !self.listeners.is_empty() {
            return Ok(());
        }
        let options = self.shared.options.load_full();
        let tls = &self.shared.tls;
        tls.replace(PreparedTls::new(&options, &self.shared.stop)?);
        if options.ports.is_empty() {
            return Err(StartError::Options("no port to listen on".to_owned()));
        }
        if let Some(operator) = &options.operator
            && self.shared.operator().is_none()
        {
            let operator =
                Operator::open(operator).map_err(|error| StartError::Options(error.to_string()))?;
            let operator = self.shared.operator.get_or_init(|| Arc::new(operator));
            operator.serve(&self.shared.accounts);
        }
        let mut listeners = Vec::new();
        let mut addresses = Addresses::default();
        let door = Arc::new(ClientDoor {
            tls: Arc::clone(&tls.clients),
            allow_non_tls: options.allow_non_tls,
            proxy_protocol: options.proxy_protocol,
        });
        for &port in &options.ports {
            let (listener, address) = listener::bind(&options.host, port)?;
            addresses.clients.push(address);
            listeners.push((listener, address, Door::Nats(Arc::clone(&door))));
        }
        if let Some(websocket) = &options.websocket {
            let (listener, address) = listener::bind(&websocket.host, websocket.port)?;
            addresses.websocket = Some(address);
            let upgrade = Upgrade::new(
                websocket,
                options.limits.max_payload,
                Arc::clone(&tls.websocket),
            );
            listeners.push((listener, address, Door::WebSocket(Arc::new(upgrade))));
        }
        self.shared.addresses.get_or_init(|| addresses);
        self.listeners = listeners;
        Ok(())
    }

    /// Starts the workers and serves. A server that is not bound serves nobody.
    ///
    /// # Errors
    /// A thread that cannot be started. Nothing is left open.
    pub fn serve(self) -> Result<ServerHandle, StartError> {
        let shared = self.shared;
        let watching = Arc::downgrade(&shared);
        shared.auth.directory().watch(Arc::new(move || {
            if let Some(shared) = watching.upgrade() {
                shared.look_at_all();
            }
        }));
        let mut workers = Vec::new();
        let mut ends = Vec::new();
        for index in 0..shared.registry.len() {
            let (handle, end) = worker::start(index, Arc::clone(&shared))?;
            workers.push(handle);
            ends.push(end);
        }
        let (stop, stopping) = watch::channel(false);
        ends.push(start_acceptors(
            self.listeners,
            workers,
            Arc::clone(&shared),
            &stopping,
        )?);
        Ok(ServerHandle {
            shared,
            shutdown: Shutdown::new(stop, ends),
        })
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }
}

/// Starts the thread that accepts. It owns the workers' inboxes: when it ends, they end.
fn start_acceptors(
    listeners: Vec<(std::net::TcpListener, SocketAddr, Door)>,
    workers: Vec<WorkerHandle>,
    shared: Arc<Shared>,
    stopping: &watch::Receiver<bool>,
) -> Result<oneshot::Receiver<()>, StartError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Worker)?;
    let (ended, wait) = oneshot::channel();
    let stopping = stopping.clone();
    thread::Builder::new()
        .name("menes-accept".to_owned())
        .spawn(move || {
            let workers = Arc::new(workers);
            let turn = Arc::new(AtomicUsize::new(0));
            runtime.block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                let (inside, streams) = mpsc::unbounded_channel();
                if shared.inside.set(inside).is_ok() {
                    let (workers, turn) = (Arc::clone(&workers), Arc::clone(&turn));
                    let stop = stopping.clone();
                    tasks.spawn(listener::accept_inside(streams, workers, turn, stop));
                }
                tasks.spawn(services::watch_over(shared, stopping.clone()));
                for (listener, address, door) in listeners {
                    let (workers, turn) = (Arc::clone(&workers), Arc::clone(&turn));
                    let (listener, stop) = ((listener, address), stopping.clone());
                    tasks.spawn(listener::accept(listener, door, workers, turn, stop));
                }
                tasks.join_all().await;
            });
            // Nobody waits if the server was dropped instead of shut down.
            let _ = ended.send(());
        })
        .map_err(StartError::Worker)?;
    Ok(wait)
}

/// A running server. Dropping it stops accepting; [`ServerHandle::shutdown`] ends it in order.
#[derive(Debug)]
pub struct ServerHandle {
    shared: Arc<Shared>,
    shutdown: Shutdown,
}

impl ServerHandle {
    /// Where it listens, in the order of the ports given.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        self.shared.addresses()
    }

    /// Where it listens for WebSocket clients.
    #[must_use]
    pub fn websocket_address(&self) -> Option<SocketAddr> {
        self.shared.websocket_address()
    }

    /// Its id, as in INFO.
    #[must_use]
    pub fn id(&self) -> &str {
        self.shared.id()
    }

    /// Its name, as in INFO.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// What it was started with.
    #[must_use]
    pub fn options(&self) -> Arc<Options> {
        self.shared.options.load_full()
    }

    /// When it was started.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.shared.started
    }

    /// Its accounts.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.shared.accounts
    }

    /// A batch for a thread that sends messages of the server itself.
    #[must_use]
    pub fn route_batch(&self) -> RouteBatch {
        self.shared.route_batch(None, self.shared.add_counters())
    }

    /// All client connections, in no particular order.
    #[must_use]
    pub fn clients(&self) -> Vec<Arc<Client>> {
        self.shared.clients()
    }

    /// Client connections now.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.shared.connection_count()
    }

    /// Client connections since the start.
    #[must_use]
    pub fn total_connections(&self) -> u64 {
        self.shared.total_connections()
    }

    /// Subscriptions of all accounts.
    #[must_use]
    pub fn subscription_count(&self) -> usize {
        self.shared.subscription_count()
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> CounterSums {
        self.shared.counter_sums()
    }

    /// Closes a connection. False when there is none of this number.
    pub fn kick(&self, client: ClientId) -> bool {
        let found = self.shared.client(client);
        found.is_some_and(|client| client.close(CloseReason::Kicked))
    }

    /// Puts other options into force, all of them or none: TLS with its files read anew, limits,
    /// times, and what INFO says. Who may connect is [`ServerHandle::update_auth`]'s; where the
    /// server listens does not change.
    ///
    /// # Errors
    /// TLS that cannot be set up as asked. Nothing changed then.
    pub fn reload(&self, options: Options) -> Result<(), TlsError> {
        let shared = &self.shared;
        shared
            .tls
            .replace(PreparedTls::new(&options, &shared.stop)?);
        let stall = options.limits.no_fast_producer_stall;
        shared
            .no_fast_producer_stall
            .store(stall, Ordering::Relaxed);
        let before = shared.options.swap(Arc::new(options));
        shared.generation.fetch_add(1, Ordering::Relaxed);
        let now = shared.options.load();
        if before.announced() != now.announced() {
            self.announce();
        }
        self.close_excess(now.limits.max_connections);
        Ok(())
    }

    /// Sends INFO to every client that listens for it.
    fn announce(&self) {
        for client in self.shared.clients() {
            if client.takes_info() {
                let mut document = self.shared.info(client.listener());
                document.client_id = client.id().0;
                document.client_ip = client.shown_ip().to_string();
                client.send_info(&document);
            }
        }
    }

    /// Closes the latest connections beyond a limit.
    fn close_excess(&self, limit: usize) {
        let mut clients = self.shared.clients();
        if clients.len() <= limit {
            return;
        }
        clients.sort_by_key(|client| client.id());
        let excess = &clients[limit..];
        for client in excess {
            client.close_with(WireError::MaxConnections);
        }
        tracing::info!(
            "Closed {} connections to fall within max_connections",
            excess.len()
        );
    }

    /// Replaces the rules of who may connect. Connections whose user is gone or changed are closed.
    pub fn update_auth(&self, options: AuthOptions) {
        self.shared.auth.replace(&options);
        let after = options.clone();
        let before = std::mem::replace(&mut *self.shared.auth_options.lock(), options);
        for client in self.shared.clients() {
            let proxy = client.identity().proxy.clone();
            if proxy.is_some_and(|proxy| !self.shared.auth.trusts(&proxy)) {
                client.distrust();
            }
        }
        if self.shared.operator().is_some() {
            return;
        }
        for client in self.shared.clients() {
            let identity = client.identity();
            // What is stored did not change.
            if identity.stored.is_some() {
                continue;
            }
            let (user, connection) = (identity.user.as_deref(), client.transport().into());
            match self.shared.auth.standing(user, connection, &before, &after) {
                Standing::Same => {}
                Standing::Permitted(permissions) => client.permit(permissions),
                Standing::Changed => client.violate(),
                Standing::Refused => client.revoke(),
            }
        }
    }

    /// Replaces what the accounts share and may hold. Connections stay.
    pub fn update_accounts(&self, descriptions: Vec<AccountDescription>) {
        // With an operator, tokens say it.
        if self.shared.operator().is_none() {
            log_refusals(&self.shared.accounts.describe_all(descriptions));
            self.shared.hold_to_limits(self.shared.accounts.all());
        }
    }

    /// Replaces the preloaded tokens of accounts, of a server with an operator.
    pub(crate) fn update_preloaded(&self, tokens: BTreeMap<String, String>) {
        if let Some(operator) = self.shared.operator() {
            operator.preload_again(&self.shared, tokens);
        }
    }

    /// Replaces what may be used of JetStream. What there is stays, above a limit too.
    pub(crate) fn update_streams(&self, options: &StreamsOptions) {
        let Some(engine) = self.shared.ingest() else {
            return;
        };
        engine.change_limits(LimitChange::Server(options.limits));
        // With an operator, tokens say what an account may use.
        if self.shared.operator().is_none() {
            for account in self.shared.accounts.all() {
                let limits = options.of(account.name());
                engine.change_limits(LimitChange::Account(account, limits));
            }
        }
    }

    /// Waits until the server must not go on.
    pub(crate) async fn must_stop(&self) {
        self.shared.stop.notified().await;
    }

    /// Accepts nobody any more. Open connections stay.
    pub fn stop_accepting(&self) {
        self.shutdown.stop_accepting();
    }

    /// Tells every client that listens for it that this server is about to leave.
    pub fn announce_lame_duck(&self) {
        self.shared.is_lame_duck.store(true, Ordering::Relaxed);
        for client in self.shared.clients() {
            self.shared.announce_lame_duck_to(&client);
        }
    }

    /// Stops accepting, closes every connection and waits until all threads have ended.
    pub async fn shutdown(self) {
        let shared = &self.shared;
        self.shutdown
            .run(|| {
                for client in shared.clients() {
                    client.close(CloseReason::ServerShutdown);
                }
            })
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_id_is_a_valid_key() {
        let server = Server::new(Options::default(), Hooks::default());
        assert!(KeyKind::Server.is_public_key(server.id()));
    }
}
