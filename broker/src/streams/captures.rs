//! What the engine subscribes to for streams: the subjects they capture, and what their origins send.
//!
//! An account may lose JetStream while the server runs. Its streams then stand still: nothing is
//! captured, until it has JetStream again. What was published meanwhile is not stored, as with
//! nats-server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use menes_jetstream::ids::{AccountName, GroupId};

use super::ingest::{IngestKind, IngestTag};
use crate::account::Account;
use crate::routing::Subscription;

/// The subscriptions of all streams.
#[derive(Default)]
pub(super) struct Captures {
    streams: BTreeMap<GroupId, Capture>,
    /// Those of mirrors and sources, by the number under which they listen.
    listeners: BTreeMap<u64, (Arc<Account>, Vec<Arc<Subscription>>)>,
    /// Accounts in which nothing is subscribed.
    paused: BTreeSet<AccountName>,
}

/// What one stream captures.
struct Capture {
    account: Arc<Account>,
    stream: String,
    wanted: Vec<String>,
    made: Vec<Arc<Subscription>>,
}

impl Capture {
    /// Makes the subscriptions those wanted, or none.
    fn follow(&mut self, group: GroupId, is_paused: bool) {
        let wanted: &[String] = if is_paused { &[] } else { &self.wanted };
        let is_wanted = |subscription: &Arc<Subscription>| {
            let is_it = |subject: &String| subject.as_bytes() == subscription.subject();
            wanted.iter().any(is_it)
        };
        // First what goes, then what is new: a message matched by both is stored once. What stays
        // is not touched, so nothing slips through in between.
        for gone in self.made.extract_if(.., |made| !is_wanted(made)) {
            self.account.unsubscribe(&gone);
        }
        let tag = IngestTag {
            kind: IngestKind::Stream,
            id: group.0,
        };
        for subject in wanted.iter().map(String::as_bytes) {
            if !self.made.iter().any(|made| made.subject() == subject) {
                let made = self.account.subscribe_stream(tag, subject, &self.stream);
                self.made.push(made);
            }
        }
    }
}

impl Captures {
    /// A stream captures these subjects from now on.
    pub(super) fn capture(
        &mut self,
        group: GroupId,
        account: Arc<Account>,
        stream: &str,
        subjects: Vec<String>,
    ) {
        let is_paused = self.paused.contains(account.name());
        let capture = self.streams.entry(group).or_insert_with(|| Capture {
            account,
            stream: stream.to_owned(),
            wanted: Vec::new(),
            made: Vec::new(),
        });
        capture.wanted = subjects;
        capture.follow(group, is_paused);
    }

    /// A stream is gone.
    pub(super) fn release(&mut self, group: GroupId) {
        if let Some(mut capture) = self.streams.remove(&group) {
            capture.wanted.clear();
            capture.follow(group, false);
        }
    }

    /// A mirror or source listens to its origin.
    pub(super) fn listen(&mut self, listener: u64, account: Arc<Account>, subjects: &[String]) {
        // It notices that nothing comes, and asks again.
        if self.paused.contains(account.name()) {
            return;
        }
        let tag = IngestTag {
            kind: IngestKind::Link,
            id: listener,
        };
        let subscribe = |subject: &String| account.subscribe_engine(tag, subject.as_bytes(), None);
        let made = subjects.iter().map(subscribe).collect();
        self.listeners.insert(listener, (account, made));
    }

    /// It does no longer.
    pub(super) fn unlisten(&mut self, listener: u64) {
        if let Some((account, made)) = self.listeners.remove(&listener) {
            for subscription in made {
                account.unsubscribe(&subscription);
            }
        }
    }

    /// Gives everything up.
    pub(super) fn clear(&mut self) {
        for (group, mut capture) in std::mem::take(&mut self.streams) {
            capture.wanted.clear();
            capture.follow(group, false);
        }
        let listeners: Vec<u64> = self.listeners.keys().copied().collect();
        for listener in listeners {
            self.unlisten(listener);
        }
    }

    /// An account has JetStream from now on, or not.
    pub(super) fn pause(&mut self, account: &AccountName, is_paused: bool) {
        let changed = if is_paused {
            self.paused.insert(account.clone())
        } else {
            self.paused.remove(account)
        };
        if !changed {
            return;
        }
        let of_account = |capture: &&mut Capture| capture.account.name() == account;
        for (group, capture) in &mut self.streams {
            if of_account(&capture) {
                capture.follow(*group, is_paused);
            }
        }
        let listening = self.listeners.iter();
        let silent: Vec<u64> = listening
            .filter(|(_, (of, _))| of.name() == account && is_paused)
            .map(|(listener, _)| *listener)
            .collect();
        for listener in silent {
            self.unlisten(listener);
        }
    }

    /// Whether an account has no JetStream.
    pub(super) fn is_paused(&self, account: &AccountName) -> bool {
        self.paused.contains(account)
    }
}
