//! Accounts: tenants whose subjects do not meet, but where one exports and another imports.
//!
//! | Module | Holds |
//! |---|---|
//! | [`description`] | what an account is, in data |
//! | [`book`] | which imports hold, given all descriptions |
//! | [`mapping`] | what published subjects become |
//! | `import` | imported streams: subscriptions that listen in another account |
//! | `service` | imported services: requests and the way back of their responses |
//! | `services` | responses that never come |
//! | `latency` | how long services take |
//!
//! # Invariants
//!
//! 1. An account that imports nothing and maps nothing costs a publisher one flag.
//! 2. Imports are subscriptions in the exporter's list, or in the importer's for services, so the
//!    router finds them like any other.
//! 3. Locks are taken in this order: the book, the shadows or services of an account, subscription
//!    lists. Nothing else is locked under another lock.

pub mod book;
pub mod description;
pub(crate) mod import;
pub(crate) mod latency;
pub mod mapping;
pub(crate) mod service;
pub(crate) mod services;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use menes_jetstream::ids::AccountName;
use parking_lot::{Mutex, RwLock};

use self::book::{ActivationCheck, Book, Refusal, ServiceAgreement, StreamAgreement};
use self::description::{AccountDescription, AccountLimits};
use self::import::StreamImport;
use self::mapping::{Mapped, Mappings};
use self::service::{Responses, ServiceDesk, ServiceImport, Waiting};
use crate::connection::client::{Client, Traffic, TrafficCount};
use crate::routing::{Message, Receiver, RouteBatch, Sublist, Subscription, Target};
use crate::streams::ingest::IngestTag;
use crate::system::TraceDestination;

/// The account of the system, unless the configuration names another.
pub const SYSTEM_ACCOUNT: &str = "$SYS";

/// The account of everyone who was given none.
pub const GLOBAL_ACCOUNT: &str = "$G";

/// One tenant: a subject space and who subscribes in it.
#[derive(Debug)]
pub struct Account {
    id: u32,
    name: AccountName,
    is_system: bool,
    /// Published subjects become others.
    is_mapped: AtomicBool,
    /// Subscriptions may listen in other accounts too.
    imports_streams: AtomicBool,
    sublist: Sublist,
    connections: AtomicU32,
    slow_consumers: AtomicU64,
    tracing: ArcSwapOption<TraceDestination>,
    /// Of connections that ended.
    past_traffic: Traffic,
    rules: ArcSwap<Rules>,
    /// What subscriptions of this account listen to in others, by the address of the subscription.
    shadows: Mutex<HashMap<usize, Vec<Arc<Subscription>>>>,
    /// Where requests to imported services arrive.
    services: Mutex<Vec<Arc<Subscription>>>,
    responses: Responses,
    waiting: Waiting,
    desk: Arc<ServiceDesk>,
}

/// What an account is, ready to be applied.
#[derive(Debug, Default)]
struct Rules {
    description: Option<Arc<AccountDescription>>,
    mappings: Mappings,
    streams: Vec<Arc<StreamImport>>,
}

impl Account {
    fn new(id: u32, name: AccountName, is_system: bool, desk: Arc<ServiceDesk>) -> Self {
        Self {
            id,
            name,
            is_system,
            is_mapped: AtomicBool::new(false),
            imports_streams: AtomicBool::new(false),
            sublist: Sublist::new(),
            connections: AtomicU32::new(0),
            slow_consumers: AtomicU64::new(0),
            tracing: ArcSwapOption::empty(),
            past_traffic: Traffic::default(),
            rules: ArcSwap::default(),
            shadows: Mutex::default(),
            services: Mutex::default(),
            responses: Responses::default(),
            waiting: Waiting::default(),
            desk,
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Arc<Self> {
        Arc::new(Self::new(0, AccountName::global(), false, Arc::default()))
    }

    /// A number that no other account of this process has.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &AccountName {
        &self.name
    }

    /// What people call it: its title, or its name where it has none.
    #[must_use]
    pub fn title(&self) -> String {
        let description = self.description();
        let title = description.as_ref().and_then(|d| d.title.clone());
        title.unwrap_or_else(|| self.name.as_str().to_owned())
    }

    /// Whether it is the system's.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.is_system
    }

    /// What was said of it; `None` for an account that was only named.
    #[must_use]
    pub fn description(&self) -> Option<Arc<AccountDescription>> {
        self.rules.load().description.clone()
    }

    /// How much its connections may hold.
    #[must_use]
    pub fn limits(&self) -> AccountLimits {
        let rules = self.rules.load();
        let description = rules.description.as_ref();
        description.map_or_else(AccountLimits::default, |d| d.limits)
    }

    /// Its subscriptions.
    #[must_use]
    pub fn sublist(&self) -> &Sublist {
        &self.sublist
    }

    /// Client connections bound to it.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Messages and bytes of connections that ended.
    pub(crate) fn past_traffic(&self) -> TrafficCount {
        self.past_traffic.count()
    }

    pub(crate) fn add_past_traffic(&self, count: TrafficCount) {
        self.past_traffic.received(count.in_msgs, count.in_bytes);
        self.past_traffic.delivered(count.out_msgs, count.out_bytes);
    }

    /// Connections closed because they took their messages too slowly.
    pub(crate) fn slow_consumers(&self) -> u64 {
        self.slow_consumers.load(Ordering::Relaxed)
    }

    pub(crate) fn had_slow_consumer(&self) {
        self.slow_consumers.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection. False when there are as many as its limits allow; then it is not
    /// counted.
    pub(crate) fn connected(&self) -> bool {
        let max = self.limits().max_connections.unwrap_or(u32::MAX);
        let one_more = |count| (count < max).then(|| count + 1);
        self.connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }

    pub(crate) fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether [`Account::map`] may have something to say.
    #[inline]
    pub(crate) fn is_mapped(&self) -> bool {
        self.is_mapped.load(Ordering::Relaxed)
    }

    /// What a published subject becomes, see [`Mappings::map`].
    pub(crate) fn map(&self, subject: &[u8], random: u32) -> Option<Mapped> {
        self.rules.load().mappings.map(subject, random)
    }

    /// Adds a subscription, here and where its account imports streams from.
    pub(crate) fn subscribe(self: &Arc<Self>, subscription: &Arc<Subscription>) {
        self.sublist.insert(subscription);
        if self.imports_streams.load(Ordering::Acquire) {
            self.renew_shadows(subscription);
        }
    }

    /// Subscribes the engine: what matches `subject` goes into the ingest queue under `tag`. With a
    /// queue group the engine is one of its members. Remove it with [`Account::unsubscribe`].
    #[must_use = "the subscription is needed to remove it"]
    pub fn subscribe_engine(
        self: &Arc<Self>,
        tag: IngestTag,
        subject: &[u8],
        queue: Option<&[u8]>,
    ) -> Arc<Subscription> {
        let subscription = Arc::new(Subscription::of_engine(tag, subject, queue));
        self.subscribe(&subscription);
        subscription
    }

    /// Subscribes the engine for a stream, as [`Account::subscribe_engine`] does.
    #[must_use = "the subscription is needed to remove it"]
    pub(crate) fn subscribe_stream(
        self: &Arc<Self>,
        tag: IngestTag,
        subject: &[u8],
        stream: &str,
    ) -> Arc<Subscription> {
        let subscription = Subscription::of_stream(tag, subject, stream.as_bytes());
        let subscription = Arc::new(subscription);
        self.subscribe(&subscription);
        subscription
    }

    /// Subscribes code of the server. Remove it with [`Account::unsubscribe`].
    pub fn subscribe_receiver(
        &self,
        subject: &[u8],
        queue: Option<&[u8]>,
        receiver: Arc<dyn Receiver>,
    ) -> Arc<Subscription> {
        let subscription = Arc::new(Subscription::of_receiver(receiver, subject, queue));
        self.sublist.insert(&subscription);
        subscription
    }

    /// Where messages are traced that other systems trace, if anywhere.
    pub(crate) fn tracing(&self) -> Option<Arc<TraceDestination>> {
        self.tracing.load_full()
    }

    /// Has messages traced that carry a sampled `traceparent`, or no longer.
    fn set_tracing(&self, destination: Option<TraceDestination>) {
        self.tracing.store(destination.map(Arc::new));
    }

    /// Subscribes the server itself: what matches `subject` is answered by [`crate::system`].
    pub(crate) fn subscribe_service(&self, subject: &str) {
        let subscription = Arc::new(Subscription::of_service(subject.as_bytes()));
        self.sublist.insert(&subscription);
    }

    /// Ends a subscription. False when it had ended already.
    pub fn unsubscribe(&self, subscription: &Arc<Subscription>) -> bool {
        subscription.close();
        let removed = self.sublist.remove(subscription);
        if self.imports_streams.load(Ordering::Acquire) {
            self.drop_shadows(subscription);
        }
        if !self.waiting.is_empty() {
            self.requesters_left(subscription.subject());
        }
        removed
    }

    /// Routes a message to everyone interested and returns how many took it. Receivers are woken by
    /// [`RouteBatch::flush`]. `origin` is the publishing connection, `None` for the server itself.
    pub fn route(
        self: &Arc<Self>,
        batch: &mut RouteBatch,
        message: &Message<'_>,
        origin: Option<&Arc<Client>>,
    ) -> usize {
        batch.route(self, message, origin)
    }

    /// Whether anyone subscribes to the literal `subject`; with a `queue`, only members of that
    /// group count.
    #[must_use]
    pub fn has_interest(&self, subject: &[u8], queue: Option<&[u8]>) -> bool {
        self.response_has_interest(subject)
            .unwrap_or_else(|| self.sublist.has_interest(subject, queue))
    }
}

/// Putting rules in force.
impl Account {
    /// Makes the account what the book says.
    fn apply(self: &Arc<Self>, book: &Book, accounts: &Accounts) {
        let description = book.get(&self.name).cloned();
        let trace = description.as_ref().and_then(|d| d.trace.clone());
        let old = self.rules.load_full();
        let described = description.as_ref().map_or(&[][..], |d| &d.mappings);
        let cluster = accounts.cluster.as_deref();
        let mappings = Mappings::new(described, cluster).unwrap_or_else(|(at, error)| {
            let name = self.name.as_str();
            let source = described.get(at).map_or("", |mapping| &mapping.source);
            tracing::error!("account {name:?}: mapping for {source:?} does not hold: {error}");
            Mappings::default()
        });
        let known = |wanted: &StreamAgreement| {
            let mut known = old.streams.iter();
            let import = known.find(|import| import.agreement() == wanted);
            import.map_or_else(
                || {
                    Arc::new(StreamImport::new(
                        accounts.get_or_create(&wanted.exporter),
                        wanted.clone(),
                    ))
                },
                Arc::clone,
            )
        };
        let streams: Vec<_> = book.streams(&self.name).iter().map(known).collect();
        let is_mapped = !mappings.is_empty();
        let imports = !streams.is_empty();
        let is_as_before = streams.len() == old.streams.len()
            && streams
                .iter()
                .zip(&old.streams)
                .all(|(new, old)| Arc::ptr_eq(new, old));
        self.rules.store(Arc::new(Rules {
            description,
            mappings,
            streams,
        }));
        self.is_mapped.store(is_mapped, Ordering::Relaxed);
        self.set_tracing(trace);
        if !is_as_before {
            self.imports_streams.store(true, Ordering::Release);
            self.renew_all_shadows();
            // Those who subscribed before they could see the flag are renewed by now; without
            // imports nobody has shadows any more.
            self.imports_streams.store(imports, Ordering::Release);
        }
        self.apply_services(book.services(&self.name), accounts);
    }

    fn apply_services(self: &Arc<Self>, wanted: &[ServiceAgreement], accounts: &Accounts) {
        let mut services = self.services.lock();
        let (kept, removed): (Vec<_>, Vec<_>) = services.drain(..).partition(|known| {
            matches!(known.target(), Target::ServiceImport(import) if wanted.contains(import.agreement()))
        });
        *services = kept;
        for agreement in wanted {
            let is_known = services.iter().any(|known| {
                matches!(known.target(), Target::ServiceImport(import) if import.agreement() == agreement)
            });
            if !is_known {
                let exporter = accounts.get_or_create(&agreement.exporter);
                let import = Arc::new(ServiceImport::new(exporter, agreement.clone()));
                let subscription = Arc::new(Subscription::of_service_import(import));
                self.sublist.insert(&subscription);
                services.push(subscription);
            }
        }
        for subscription in removed {
            subscription.close();
            self.sublist.remove(&subscription);
        }
    }
}

/// The accounts of a server. They are made when first named or described, and stay.
pub struct Accounts {
    by_name: RwLock<BTreeMap<AccountName, Arc<Account>>>,
    system: Arc<Account>,
    /// Called with every account there is and will be.
    births: OnceLock<fn(&Account)>,
    book: Mutex<Book>,
    desk: Arc<ServiceDesk>,
    /// Mappings may depend on it.
    cluster: Option<String>,
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts")
            .field("by_name", &self.by_name)
            .finish_non_exhaustive()
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self::new(SYSTEM_ACCOUNT)
    }
}

impl Drop for Accounts {
    fn drop(&mut self) {
        // Accounts that import from each other hold each other.
        self.desk.clear();
        for account in self.all() {
            account.rules.store(Arc::default());
            account.services.lock().clear();
            account.shadows.lock().clear();
            account.responses.clear();
            account.waiting.clear();
            account.sublist.clear();
        }
    }
}

impl Accounts {
    /// The global account and the account of the system, which has this name.
    #[must_use]
    pub fn new(system: &str) -> Self {
        let name = AccountName::from(system);
        let desk = Arc::<ServiceDesk>::default();
        let system = Arc::new(Account::new(0, name.clone(), true, Arc::clone(&desk)));
        let accounts = Self {
            by_name: RwLock::new(BTreeMap::from([(name, Arc::clone(&system))])),
            system,
            births: OnceLock::new(),
            book: Mutex::default(),
            desk,
            cluster: None,
        };
        accounts.get_or_create(&AccountName::global());
        accounts
    }

    /// The account of the system.
    #[must_use]
    pub fn system(&self) -> &Arc<Account> {
        &self.system
    }

    /// Has `birth` called for every account there is, and for each that is made, before it can be
    /// used. Only the first call of this function counts.
    pub(crate) fn at_birth(&self, birth: fn(&Account)) {
        let by_name = self.by_name.write();
        if self.births.set(birth).is_ok() {
            for account in by_name.values() {
                birth(account);
            }
        }
    }

    /// The account of this name, if it was ever named.
    #[must_use]
    pub fn get(&self, name: &AccountName) -> Option<Arc<Account>> {
        self.by_name.read().get(name).cloned()
    }

    /// The account of this name.
    pub fn get_or_create(&self, name: &AccountName) -> Arc<Account> {
        if let Some(account) = self.get(name) {
            return account;
        }
        let mut by_name = self.by_name.write();
        let id = u32::try_from(by_name.len()).expect("memory ends before 4 G accounts");
        let account = by_name.entry(name.clone()).or_insert_with(|| {
            let account = Account::new(id, name.clone(), false, Arc::clone(&self.desk));
            if let Some(birth) = self.births.get() {
                birth(&account);
            }
            Arc::new(account)
        });
        Arc::clone(account)
    }

    /// All accounts, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Account>> {
        self.by_name.read().values().cloned().collect()
    }

    /// Asks `check` about activation tokens from now on.
    pub fn set_activation_check(&self, check: Arc<dyn ActivationCheck>) {
        self.book.lock().set_check(check);
    }

    /// Puts descriptions in force, in place of those that these accounts had. Other accounts stay
    /// as they are, but their imports from these are looked at again. Gives the imports that do
    /// not hold.
    pub fn describe(
        &self,
        descriptions: impl IntoIterator<Item = AccountDescription>,
    ) -> Vec<Refusal> {
        let mut book = self.book.lock();
        let (touched, refusals) = book.describe(descriptions);
        self.apply(&book, &touched);
        refusals
    }

    /// As [`Accounts::describe`], and forgets the descriptions of all other accounts: they share
    /// nothing and have no limits any more.
    pub fn describe_all(&self, descriptions: Vec<AccountDescription>) -> Vec<Refusal> {
        let mut book = self.book.lock();
        let gone: Vec<AccountName> = book
            .names()
            .filter(|name| descriptions.iter().all(|d| d.name != **name))
            .cloned()
            .collect();
        let mut touched = BTreeSet::new();
        for name in &gone {
            touched.extend(book.remove(name).0);
        }
        let (more, refusals) = book.describe(descriptions);
        touched.extend(more);
        self.apply(&book, &touched);
        refusals
    }

    /// Forgets what was said of an account.
    pub fn remove_description(&self, name: &AccountName) -> Vec<Refusal> {
        let mut book = self.book.lock();
        let (touched, refusals) = book.remove(name);
        self.apply(&book, &touched);
        refusals
    }

    fn apply(&self, book: &Book, touched: &BTreeSet<AccountName>) {
        for name in touched {
            self.get_or_create(name).apply(book, self);
        }
    }

    pub(crate) fn desk(&self) -> &Arc<ServiceDesk> {
        &self.desk
    }
}

#[cfg(test)]
mod tests;
