//! Match results kept by one thread.

use std::sync::Arc;

use super::hash::HashKey;
use super::sublist::{Footprint, MatchResult};
use crate::account::Account;

/// Results by account and subject, valid as long as the generation of their subject stands.
///
/// A subject has one slot; another subject with the same slot takes it over, entry, buffers and
/// all. The table grows with its use up to [`MAX_SLOTS`], so its size is bounded whatever is
/// published.
#[derive(Debug)]
pub(super) struct RouteCache {
    key: HashKey,
    slots: Vec<Option<Box<Entry>>>,
    /// Takeovers since the table last grew.
    takeovers: usize,
    /// The slot used last: messages often come many on one subject.
    last: usize,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    account: u32,
    subject: Vec<u8>,
    footprint: Footprint,
    generation: u64,
    result: MatchResult,
}

/// No sum of counters gets there: the result is not of this subject yet.
const NEVER: u64 = u64::MAX;
const FIRST_SLOTS: usize = 64;
const MAX_SLOTS: usize = 16 * 1024;
/// A reused entry gives up room beyond this many subscriptions.
const KEPT_ROOM: usize = 64;

impl RouteCache {
    pub(super) fn new() -> Self {
        Self {
            key: HashKey::of_process(),
            slots: Vec::new(),
            takeovers: 0,
            last: 0,
        }
    }

    /// What matches `literal` in `account`, now.
    #[inline]
    pub(super) fn lookup(&mut self, account: &Arc<Account>, literal: &[u8]) -> &MatchResult {
        let is_wanted = |entry: &Entry| entry.account == account.id() && entry.subject == literal;
        let last = self.slots.get(self.last).and_then(Option::as_deref);
        if !last.is_some_and(is_wanted) {
            self.last = self.find(account, literal);
        }
        let entry = self.slots[self.last].as_mut();
        let entry = entry.expect("found or put there just now");
        let generation = account.sublist().generation(entry.footprint);
        if entry.generation != generation {
            entry.generation = generation;
            if entry.result.plain.capacity() > KEPT_ROOM {
                entry.result = MatchResult::default();
            }
            account.sublist().match_into(literal, &mut entry.result);
        }
        &entry.result
    }

    /// The slot of the entry for a subject; it may be new.
    fn find(&mut self, account: &Arc<Account>, literal: &[u8]) -> usize {
        let hash = self.key.hash(literal) ^ u64::from(account.id()).rotate_right(20);
        if self.slots.is_empty() {
            self.slots.resize_with(FIRST_SLOTS, || None);
        }
        let at = slot_of(hash, self.slots.len());
        let known = self.slots[at].as_ref().is_some_and(|entry| {
            entry.hash == hash && entry.account == account.id() && entry.subject == literal
        });
        if known {
            at
        } else {
            self.take_over(hash, account, literal)
        }
    }

    /// Makes an entry for a subject that has none; its result is still that of the former one.
    #[inline(never)]
    fn take_over(&mut self, hash: u64, account: &Arc<Account>, literal: &[u8]) -> usize {
        if self.takeovers > self.slots.len() && self.slots.len() < MAX_SLOTS {
            self.grow();
        }
        let at = slot_of(hash, self.slots.len());
        let footprint = account.sublist().footprint(literal);
        match &mut self.slots[at] {
            Some(entry) => {
                self.takeovers += 1;
                entry.hash = hash;
                entry.account = account.id();
                entry.subject.clear();
                entry.subject.extend_from_slice(literal);
                entry.footprint = footprint;
                entry.generation = NEVER;
            }
            empty => {
                *empty = Some(Box::new(Entry {
                    hash,
                    account: account.id(),
                    subject: literal.to_vec(),
                    footprint,
                    generation: NEVER,
                    result: MatchResult::default(),
                }));
            }
        }
        at
    }

    fn grow(&mut self) {
        let count = (self.slots.len() * 4).min(MAX_SLOTS);
        let old = std::mem::take(&mut self.slots);
        self.slots.resize_with(count, || None);
        for entry in old.into_iter().flatten() {
            let at = slot_of(entry.hash, count);
            self.slots[at] = Some(entry);
        }
        self.takeovers = 0;
    }
}

#[inline]
fn slot_of(hash: u64, count: usize) -> usize {
    debug_assert!(count.is_power_of_two());
    usize::try_from(hash & (count as u64 - 1)).expect("below the number of slots")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::Subscription;
    use crate::streams::ingest::{IngestKind, IngestTag};

    #[test]
    fn a_result_follows_the_subscriptions() {
        let account = Account::for_tests();
        let mut cache = RouteCache::new();
        assert!(cache.lookup(&account, b"a.b").is_empty());
        let tag = IngestTag {
            kind: IngestKind::Application,
            id: 1,
        };
        let subscription = account.subscribe_engine(tag, b"a.*", None);
        assert_eq!(cache.lookup(&account, b"a.b").plain.len(), 1);
        account.unsubscribe(&subscription);
        assert!(cache.lookup(&account, b"a.b").is_empty());
    }

    #[test]
    fn many_subjects_stay_within_bounds_and_right() {
        let account = Account::for_tests();
        let tag = IngestTag {
            kind: IngestKind::Application,
            id: 1,
        };
        let subscription = Arc::new(Subscription::of_engine(tag, b"s.7.*", None));
        account.sublist().insert(&subscription);
        let mut cache = RouteCache::new();
        for n in 0..50_000 {
            let subject = format!("s.{}.{n}", n % 10);
            let found = !cache.lookup(&account, subject.as_bytes()).is_empty();
            assert_eq!(found, n % 10 == 7);
        }
        assert!(cache.slots.len() <= MAX_SLOTS);
    }
}
