//! Which SDK connections are open. Known to the leader alone, lost with it, rebuilt as clients
//! reconnect.

use std::collections::{BTreeMap, BTreeSet};

use menes_jetstream::{AccountName, Timestamp};

type ConnectionKey = (AccountName, String);

#[derive(Debug, Default)]
struct Open {
    /// Sockets with this id: an SDK opens a probe and its real connection under one id.
    sockets: u32,
    /// Something is registered from it.
    registered: bool,
    /// Ids that registered through this connection without having one of their own.
    adopted: BTreeSet<String>,
}

/// Open connections by id, and since when those that left registrations behind are closed.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    open: BTreeMap<ConnectionKey, Open>,
    closed: BTreeMap<ConnectionKey, Timestamp>,
    /// Nothing counts as closed before this time.
    loaded: Timestamp,
}

impl Presence {
    pub(crate) fn new(loaded: Timestamp) -> Self {
        Self {
            loaded,
            ..Self::default()
        }
    }

    pub(crate) fn opened(&mut self, account: &AccountName, id: &str) {
        let key = (account.clone(), id.to_owned());
        let was_registered = self.closed.remove(&key).is_some();
        let open = self.open.entry(key).or_default();
        open.sockets = open.sockets.saturating_add(1);
        open.registered |= was_registered;
    }

    pub(crate) fn closed(&mut self, account: &AccountName, id: &str, now: Timestamp) {
        let key = (account.clone(), id.to_owned());
        let Some(open) = self.open.get_mut(&key) else {
            return;
        };
        open.sockets = open.sockets.saturating_sub(1);
        if open.sockets > 0 {
            return;
        }
        let Some(open) = self.open.remove(&key) else {
            return;
        };
        if open.registered {
            self.closed.insert(key, now);
        }
        for adopted in open.adopted {
            self.closed(account, &adopted, now);
        }
    }

    /// Lets `id` live as long as the connection `owner`, unless it has a connection of its own.
    pub(crate) fn adopt(&mut self, account: &AccountName, owner: &str, id: &str) {
        if self.is_open(account, id) {
            return;
        }
        if let Some(open) = self.open.get_mut(&(account.clone(), owner.to_owned())) {
            open.adopted.insert(id.to_owned());
            self.opened(account, id);
        }
    }

    /// Notes that something was registered from `id`.
    pub(crate) fn registered(&mut self, account: &AccountName, id: &str, when: Timestamp) {
        let key = (account.clone(), id.to_owned());
        match self.open.get_mut(&key) {
            Some(open) => open.registered = true,
            None => {
                self.closed.insert(key, when.max(self.loaded));
            }
        }
    }

    /// Forgets closed connections from which nothing is registered any more.
    pub(crate) fn forget(&mut self, account: &AccountName, ids: &BTreeSet<String>) {
        for id in ids {
            self.closed.remove(&(account.clone(), id.clone()));
        }
    }

    pub(crate) fn is_open(&self, account: &AccountName, id: &str) -> bool {
        self.open.contains_key(&(account.clone(), id.to_owned()))
    }

    /// Forgets the connections closed at or before `until` and returns them.
    pub(crate) fn take_closed(&mut self, until: Timestamp) -> BTreeSet<ConnectionKey> {
        let gone: BTreeSet<_> = self
            .closed
            .iter()
            .filter(|(_, closed)| **closed <= until)
            .map(|(key, _)| key.clone())
            .collect();
        self.closed.retain(|key, _| !gone.contains(key));
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> AccountName {
        AccountName::from("$memphis")
    }

    #[test]
    fn a_probe_that_closes_leaves_the_connection_open() {
        let mut presence = Presence::default();
        presence.opened(&account(), "c");
        presence.opened(&account(), "c");
        presence.closed(&account(), "c", Timestamp(1));
        assert!(presence.is_open(&account(), "c"));
        presence.closed(&account(), "c", Timestamp(2));
        assert!(!presence.is_open(&account(), "c"));
        presence.closed(&account(), "c", Timestamp(3));
        presence.opened(&account(), "c");
        assert!(presence.is_open(&account(), "c"));
    }

    #[test]
    fn only_connections_that_registered_something_are_remembered() {
        let mut presence = Presence::new(Timestamp(5));
        presence.opened(&account(), "idle");
        presence.opened(&account(), "busy");
        presence.registered(&account(), "busy", Timestamp(6));
        presence.registered(&account(), "gone", Timestamp(1));
        presence.closed(&account(), "idle", Timestamp(7));
        presence.closed(&account(), "busy", Timestamp(8));
        let names = |keys: BTreeSet<ConnectionKey>| -> Vec<String> {
            keys.into_iter().map(|(_, id)| id).collect()
        };
        assert_eq!(
            names(presence.take_closed(Timestamp(4))),
            Vec::<String>::new()
        );
        assert_eq!(names(presence.take_closed(Timestamp(5))), ["gone"]);
        assert_eq!(names(presence.take_closed(Timestamp(8))), ["busy"]);
        assert_eq!(
            names(presence.take_closed(Timestamp(9))),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_connection_that_comes_back_is_not_forgotten_as_a_registrant() {
        let mut presence = Presence::default();
        presence.registered(&account(), "c", Timestamp(1));
        presence.opened(&account(), "c");
        assert!(presence.take_closed(Timestamp(9)).is_empty());
        presence.closed(&account(), "c", Timestamp(10));
        assert_eq!(presence.take_closed(Timestamp(10)).len(), 1);
    }

    #[test]
    fn an_id_without_a_connection_lives_with_the_one_it_came_through() {
        let mut presence = Presence::default();
        presence.opened(&account(), "plain");
        presence.adopt(&account(), "plain", "made-up");
        presence.adopt(&account(), "plain", "made-up");
        presence.adopt(&account(), "unknown", "other");
        assert!(presence.is_open(&account(), "made-up"));
        assert!(!presence.is_open(&account(), "other"));
        presence.closed(&account(), "plain", Timestamp(1));
        assert!(!presence.is_open(&account(), "made-up"));
    }
}
