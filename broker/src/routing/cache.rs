//! Match results kept by one thread.

use std::sync::Arc;

use super::hash::HashKey;
use super::sublist::{Footprint, MatchResult};
use crate::account::Account;

/// Results by account and subject, valid as long as the generation of their subject stands.
///
/// A subject has one slot; another subject with the same slot takes it over, entry, buffers and
/// all, but only when it comes for the second time. Most subjects that come once never come again:
/// those of replies. Their results are made in one place that stays in the processor's cache, and
/// of the subject remains a mark. Subjects of inboxes, each of which mostly comes once, share a few
/// slots: a look into a large table costs as much as matching does. The table grows with its use by
/// others up to [`MAX_SLOTS`], so its size is bounded whatever is published.
#[derive(Debug)]
pub(super) struct RouteCache {
    key: HashKey,
    slots: Vec<Slot>,
    /// Subjects that found no entry since the table last grew.
    misses: usize,
    /// The slot used last, or [`ONCE`]: messages often come many on one subject.
    last: usize,
    /// The subject that came last for the first time.
    once: Box<Entry>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Half of the hash of the subject that came last without an entry.
    mark: u32,
    entry: Option<Box<Entry>>,
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
/// Stands for [`RouteCache::once`].
const ONCE: usize = usize::MAX;
/// Where clients have their answers sent, mostly each to a subject of its own.
const INBOXES: &[u8] = b"_INBOX.";
const FIRST_SLOTS: usize = 64;
const MAX_SLOTS: usize = 16 * 1024;
/// A reused entry gives up room beyond this many subscriptions.
const KEPT_ROOM: usize = 64;

impl Entry {
    fn new() -> Self {
        Self {
            hash: 0,
            account: 0,
            subject: Vec::new(),
            footprint: Footprint::default(),
            generation: NEVER,
            result: MatchResult::default(),
        }
    }

    /// Makes it the entry of another subject; its result is still that of the former one.
    fn become_of(&mut self, hash: u64, account: &Arc<Account>, literal: &[u8]) {
        self.hash = hash;
        self.account = account.id();
        self.subject.clear();
        self.subject.extend_from_slice(literal);
        self.footprint = account.sublist().footprint(literal);
        self.generation = NEVER;
    }

    fn is_of(&self, account: &Account, literal: &[u8]) -> bool {
        self.account == account.id() && self.subject == literal
    }
}

impl RouteCache {
    pub(super) fn new() -> Self {
        Self {
            key: HashKey::of_process(),
            slots: Vec::new(),
            misses: 0,
            last: ONCE,
            once: Box::new(Entry::new()),
        }
    }

    /// What matches `literal` in `account`, now.
    #[inline]
    pub(super) fn lookup(&mut self, account: &Arc<Account>, literal: &[u8]) -> &MatchResult {
        let last = self.entry(self.last);
        if !last.is_some_and(|entry| entry.is_of(account, literal)) {
            self.last = self.find(account, literal);
        }
        let entry = match self.slots.get_mut(self.last) {
            Some(slot) => slot.entry.as_mut().expect("found or put there just now"),
            None => &mut self.once,
        };
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

    #[inline]
    fn entry(&self, at: usize) -> Option<&Entry> {
        match self.slots.get(at) {
            Some(slot) => slot.entry.as_deref(),
            None => Some(&self.once),
        }
    }

    /// Where the entry for a subject is; it may be new.
    fn find(&mut self, account: &Arc<Account>, literal: &[u8]) -> usize {
        let hash = self.key.hash(literal) ^ u64::from(account.id()).rotate_right(20);
        if self.slots.is_empty() {
            self.slots.resize_with(FIRST_SLOTS, Slot::default);
        }
        let at = self.slot_of(hash, literal);
        let known = self.slots[at]
            .entry
            .as_ref()
            .is_some_and(|entry| entry.hash == hash && entry.is_of(account, literal));
        if known {
            at
        } else {
            self.miss(hash, account, literal)
        }
    }

    /// Makes an entry for a subject that has none.
    #[inline(never)]
    fn miss(&mut self, hash: u64, account: &Arc<Account>, literal: &[u8]) -> usize {
        if !literal.starts_with(INBOXES) {
            self.misses += 1;
        }
        if self.misses > 2 * self.slots.len() && self.slots.len() < MAX_SLOTS {
            self.grow();
        }
        let at = self.slot_of(hash, literal);
        let slot = &mut self.slots[at];
        let mark = mark_of(hash);
        if slot.mark != mark {
            slot.mark = mark;
            self.once.become_of(hash, account, literal);
            return ONCE;
        }
        let entry = slot.entry.get_or_insert_with(|| Box::new(Entry::new()));
        entry.become_of(hash, account, literal);
        at
    }

    /// The slot of a subject; inboxes share the first few.
    #[inline]
    fn slot_of(&self, hash: u64, literal: &[u8]) -> usize {
        let count = match literal.starts_with(INBOXES) {
            true => FIRST_SLOTS,
            false => self.slots.len(),
        };
        slot_of(hash, count)
    }

    fn grow(&mut self) {
        let count = (self.slots.len() * 4).min(MAX_SLOTS);
        let old = std::mem::take(&mut self.slots);
        self.slots.resize_with(count, Slot::default);
        for entry in old.into_iter().filter_map(|slot| slot.entry) {
            let at = self.slot_of(entry.hash, &entry.subject);
            self.slots[at].entry = Some(entry);
        }
        self.misses = 0;
    }
}

#[inline]
fn slot_of(hash: u64, count: usize) -> usize {
    debug_assert!(count.is_power_of_two());
    usize::try_from(hash & (count as u64 - 1)).expect("below the number of slots")
}

/// The half of a hash that does not choose the slot; never that of an empty slot.
#[inline]
fn mark_of(hash: u64) -> u32 {
    u32::try_from(hash >> 32).expect("half of it") | 1
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
        assert!(cache.slots.iter().all(|slot| slot.entry.is_none()));
    }

    #[test]
    fn inboxes_do_not_make_the_table_grow_and_follow_the_subscriptions() {
        let account = Account::for_tests();
        let mut cache = RouteCache::new();
        let tag = IngestTag {
            kind: IngestKind::Application,
            id: 1,
        };
        for _ in 0..3 {
            assert!(cache.lookup(&account, b"_INBOX.a.1").is_empty());
            assert!(cache.lookup(&account, b"once").is_empty());
        }
        drop(account.subscribe_engine(tag, b"_INBOX.a.*", None));
        for n in 0..300 {
            let subject = format!("_INBOX.a.{}", n % 10);
            assert_eq!(cache.lookup(&account, subject.as_bytes()).plain.len(), 1);
        }
        assert_eq!(cache.slots.len(), FIRST_SLOTS);
        for _ in 0..3 {
            for n in 0..4 {
                let subject = format!("_INBOX.a.{n}");
                assert_eq!(cache.lookup(&account, subject.as_bytes()).plain.len(), 1);
            }
        }
        let is_inbox = |slot: &Slot| {
            slot.entry
                .as_ref()
                .is_some_and(|entry| entry.subject[0] == b'_')
        };
        assert!(
            cache.slots.iter().any(is_inbox),
            "those that come again are kept"
        );
    }

    #[test]
    fn a_subject_that_comes_again_gets_an_entry() {
        let account = Account::for_tests();
        let mut cache = RouteCache::new();
        let subjects: Vec<_> = (b'a'..=b'z').collect();
        for subject in [&subjects[..], &subjects[..]].concat() {
            assert!(cache.lookup(&account, &[subject]).is_empty());
        }
        // Two of them may share a slot; not all of them do.
        assert!(cache.slots.iter().any(|slot| slot.entry.is_some()));
        let tag = IngestTag {
            kind: IngestKind::Application,
            id: 1,
        };
        drop(account.subscribe_engine(tag, b"b", None));
        assert!(cache.lookup(&account, b"a").is_empty());
        assert_eq!(cache.lookup(&account, b"b").plain.len(), 1);
        assert_eq!(cache.lookup(&account, b"once").plain.len(), 0);
        assert_eq!(cache.lookup(&account, b"b").plain.len(), 1);
    }
}
