//! Accounts: tenants whose subjects do not meet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use menes_jetstream::ids::AccountName;
use parking_lot::RwLock;

use crate::connection::client::{Client, Traffic, TrafficCount};
use crate::routing::{Message, RouteBatch, Sublist, Subscription};
use crate::streams::ingest::IngestTag;

/// The account of the system.
pub const SYSTEM_ACCOUNT: &str = "$SYS";

/// One tenant: a subject space and who subscribes in it.
#[derive(Debug)]
pub struct Account {
    id: u32,
    name: AccountName,
    sublist: Sublist,
    connections: AtomicU32,
    /// Of connections that ended.
    past_traffic: Traffic,
}

impl Account {
    fn new(id: u32, name: AccountName) -> Self {
        Self {
            id,
            name,
            sublist: Sublist::new(),
            connections: AtomicU32::new(0),
            past_traffic: Traffic::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Arc<Self> {
        Arc::new(Self::new(0, AccountName::global()))
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

    /// Whether it is the system's.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.name.as_str() == SYSTEM_ACCOUNT
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

    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Subscribes the engine: what matches `subject` goes into the ingest queue under `tag`. With a
    /// queue group the engine is one of its members. Remove it with [`Account::unsubscribe`].
    #[must_use = "the subscription is needed to remove it"]
    pub fn subscribe_engine(
        &self,
        tag: IngestTag,
        subject: &[u8],
        queue: Option<&[u8]>,
    ) -> Arc<Subscription> {
        let subscription = Arc::new(Subscription::of_engine(tag, subject, queue));
        self.sublist.insert(&subscription);
        subscription
    }

    /// Ends a subscription. False when it had ended already.
    pub fn unsubscribe(&self, subscription: &Arc<Subscription>) -> bool {
        subscription.close();
        self.sublist.remove(subscription)
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
        self.sublist.has_interest(subject, queue)
    }
}

/// The accounts of a server. They are made when first named and stay.
#[derive(Debug)]
pub struct Accounts {
    by_name: RwLock<BTreeMap<AccountName, Arc<Account>>>,
}

impl Default for Accounts {
    fn default() -> Self {
        Self::new()
    }
}

impl Accounts {
    /// The global and the system account.
    #[must_use]
    pub fn new() -> Self {
        let accounts = Self {
            by_name: RwLock::new(BTreeMap::new()),
        };
        accounts.get_or_create(&AccountName::global());
        accounts.get_or_create(&AccountName::from(SYSTEM_ACCOUNT));
        accounts
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
        let account = by_name
            .entry(name.clone())
            .or_insert_with(|| Arc::new(Account::new(id, name.clone())));
        Arc::clone(account)
    }

    /// All accounts, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Account>> {
        self.by_name.read().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_made_once() {
        let accounts = Accounts::new();
        let first = accounts.get_or_create(&AccountName::from("a"));
        let again = accounts.get_or_create(&AccountName::from("a"));
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(accounts.all().len(), 3);
        assert_ne!(
            first.id(),
            accounts.get_or_create(&AccountName::from("b")).id()
        );
    }
}
