//! What connections hand to the engine.
//!
//! A subscription of the engine carries an [`IngestTag`]. A message that matches one is copied into
//! the arena of an [`IngestBatch`], once however many tags it matched, and the batch goes into the
//! [`IngestQueue`] when the thread has handled everything that was ready, or at once if it is much.
//! So a turn of a thread costs the engine one lock and one wake, however many messages came, and
//! from however many connections.
//!
//! The queue is bounded in bytes by its readers' manners: a batch is always taken, and a connection
//! that finds the queue over its limit stops reading its socket until the engine has caught up.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use menes_jetstream::api::response::AccountLimits;
use menes_jetstream::engine::ServerLimits;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::schemas::Enforcement;
use crate::account::Account;
use crate::connection::client::Client;

/// What the engine takes a message for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IngestKind {
    /// To be stored in a stream.
    Stream,
    /// A request of the JetStream API.
    Api,
    /// An acknowledgement.
    Ack,
    /// An answer to a flow control request.
    FlowControl,
    /// A pull request.
    Next,
    /// For a mirror or source, by the number under which it listens.
    Link,
    /// For the application layer.
    Application,
    /// Not to be stored: it violates the schema of its station.
    Refused,
}

/// Says which of its subscriptions the engine sees a message for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IngestTag {
    /// What it is taken for.
    pub kind: IngestKind,
    /// The engine's number for the subscriber; the router does not look at it.
    pub id: u64,
}

/// One message for one tag. The ranges lie in the arena of its batch.
#[derive(Clone, Copy, Debug)]
pub struct IngestItem {
    /// The subscription of the engine that matched.
    pub tag: IngestTag,
    start: u32,
    subject: u32,
    reply: u32,
    header: u32,
    payload: u32,
}

/// Messages of one connection and account, in the order they were published.
#[derive(Debug)]
pub struct IngestBatch {
    account: Arc<Account>,
    origin: Option<Arc<Client>>,
    arena: Vec<u8>,
    items: Vec<IngestItem>,
    /// Why items are refused, by their place.
    refusals: BTreeMap<usize, String>,
}

impl IngestBatch {
    /// An empty batch with room for `capacity` bytes of messages.
    pub(crate) fn new(account: Arc<Account>, origin: Option<Arc<Client>>, capacity: usize) -> Self {
        Self {
            account,
            origin,
            arena: Vec::with_capacity(capacity),
            items: Vec::new(),
            refusals: BTreeMap::new(),
        }
    }

    /// Holds the messages against the schemas of their stations.
    fn check(&mut self, enforcement: &Enforcement) {
        let (mut all, mut rejected) = (0, 0);
        for at in 0..self.items.len() {
            let item = self.items[at];
            if item.tag.kind != IngestKind::Stream {
                continue;
            }
            let Some(checked) = enforcement.of(item.tag.id) else {
                continue;
            };
            all += 1;
            if let Some(violation) = checked.violation(self.payload(&item)) {
                rejected += 1;
                self.items[at].tag.kind = IngestKind::Refused;
                self.refusals.insert(at, violation);
            }
        }
        enforcement.count(all, rejected);
    }

    /// Why the item at this place is refused.
    pub(crate) fn refusal(&self, at: usize) -> &str {
        self.refusals.get(&at).map_or("", String::as_str)
    }

    /// Bytes of the messages alone.
    pub(crate) fn arena_len(&self) -> usize {
        self.arena.len()
    }

    /// The account the messages were published in.
    #[must_use]
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// The connection they came from, with its identity; `None` for the server itself.
    #[must_use]
    pub fn origin(&self) -> Option<&Arc<Client>> {
        self.origin.as_ref()
    }

    /// The messages, a message once for each tag it matched.
    #[must_use]
    pub fn items(&self) -> &[IngestItem] {
        &self.items
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.arena.len() + self.items.len() * size_of::<IngestItem>()
    }

    /// Subject of an item of this batch.
    #[must_use]
    pub fn subject(&self, item: &IngestItem) -> &[u8] {
        self.part(item.start, item.subject)
    }

    /// Reply subject, empty for none.
    #[must_use]
    pub fn reply(&self, item: &IngestItem) -> &[u8] {
        self.part(item.start + item.subject, item.reply)
    }

    /// Header block, empty for none.
    #[must_use]
    pub fn header(&self, item: &IngestItem) -> &[u8] {
        self.part(item.start + item.subject + item.reply, item.header)
    }

    /// Payload.
    #[must_use]
    pub fn payload(&self, item: &IngestItem) -> &[u8] {
        self.part(
            item.start + item.subject + item.reply + item.header,
            item.payload,
        )
    }

    fn part(&self, start: u32, len: u32) -> &[u8] {
        let start = start as usize;
        self.arena.get(start..start + len as usize).unwrap_or(&[])
    }

    pub(crate) fn is_of(&self, account: &Arc<Account>, origin: Option<&Arc<Client>>) -> bool {
        Arc::ptr_eq(&self.account, account)
            && match (&self.origin, origin) {
                (None, None) => true,
                (Some(mine), Some(other)) => Arc::ptr_eq(mine, other),
                _ => false,
            }
    }

    /// Adds a message for each of `tags`.
    pub(crate) fn push(
        &mut self,
        tags: impl IntoIterator<Item = IngestTag>,
        subject: &[u8],
        reply: &[u8],
        header: &[u8],
        payload: &[u8],
    ) {
        let start = self.arena.len();
        self.arena
            .reserve(subject.len() + reply.len() + header.len() + payload.len());
        self.arena.extend_from_slice(subject);
        self.arena.extend_from_slice(reply);
        self.arena.extend_from_slice(header);
        self.arena.extend_from_slice(payload);
        let number = |n: usize| u32::try_from(n).expect("a batch is handed over long before 4 GiB");
        let item = |tag| IngestItem {
            tag,
            start: number(start),
            subject: number(subject.len()),
            reply: number(reply.len()),
            header: number(header.len()),
            payload: number(payload.len()),
        };
        self.items.extend(tags.into_iter().map(item));
    }
}

/// Batches and the bytes they hold: one lock for both, so that they always agree.
#[derive(Default)]
struct Waiting {
    batches: Vec<IngestBatch>,
    bytes: usize,
}

/// The way from connections to the engine.
pub struct IngestQueue {
    waiting: Mutex<Waiting>,
    limit: usize,
    /// The engine was told and has not looked yet.
    told: AtomicBool,
    /// More waits than the limit.
    is_over: AtomicBool,
    wake: Arc<dyn Fn() + Send + Sync>,
    enforcement: Arc<Enforcement>,
    drained: Notify,
    /// The engine wants to know of new subscriptions.
    interest_wanted: AtomicBool,
    interest_changed: AtomicBool,
    limit_changes: Mutex<Vec<LimitChange>>,
}

/// What may be used of JetStream from now on.
#[derive(Debug)]
pub(crate) enum LimitChange {
    /// By one account; `None` when it may not use it.
    Account(Arc<Account>, Option<AccountLimits>),
    /// By all together.
    Server(ServerLimits),
}

impl fmt::Debug for IngestQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IngestQueue")
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

impl IngestQueue {
    /// Default bound on what waits for the engine, in bytes: a few turns' worth, so that a turn
    /// batches well, and little beside what the log holds in memory.
    pub const LIMIT_BYTES: usize = 16 * 1024 * 1024;

    /// An empty queue. `wake` makes the engine look; it is called from any thread, at most once
    /// between two calls of [`IngestQueue::take`].
    #[must_use]
    pub fn new(limit_bytes: usize, wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self {
            waiting: Mutex::default(),
            limit: limit_bytes,
            told: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            wake,
            enforcement: Arc::default(),
            drained: Notify::new(),
            interest_wanted: AtomicBool::new(false),
            interest_changed: AtomicBool::new(false),
            limit_changes: Mutex::default(),
        }
    }

    /// Tells the engine what may be used.
    pub(crate) fn change_limits(&self, change: LimitChange) {
        self.limit_changes.lock().push(change);
        (self.wake)();
    }

    /// What may be used, where that changed since the last call, oldest first.
    pub(crate) fn take_limit_changes(&self) -> Vec<LimitChange> {
        std::mem::take(&mut *self.limit_changes.lock())
    }

    /// Hands over batches, which are taken out of `batches`. False when the queue is over its limit
    /// now: the caller then waits for [`IngestQueue::drained`] before it reads more from its socket.
    pub fn push(&self, batches: &mut Vec<IngestBatch>) -> bool {
        if self.enforcement.is_active() {
            for batch in &mut *batches {
                batch.check(&self.enforcement);
            }
        }
        let added: usize = batches.iter().map(IngestBatch::bytes).sum();
        let is_over = {
            let mut waiting = self.waiting.lock();
            waiting.bytes += added;
            waiting.batches.append(batches);
            let is_over = waiting.bytes > self.limit;
            self.is_over.store(is_over, Ordering::Release);
            is_over
        };
        if !self.told.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
        !is_over
    }

    /// Whether the queue is over its limit, as [`IngestQueue::push`] would find it.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Moves everything that waits to the end of `into`, oldest first, and lets stopped readers
    /// read again. Called by the engine at the start of a turn.
    pub fn take(&self, into: &mut Vec<IngestBatch>) {
        self.told.store(false, Ordering::Release);
        let before = {
            let mut waiting = self.waiting.lock();
            into.append(&mut waiting.batches);
            self.is_over.store(false, Ordering::Release);
            std::mem::take(&mut waiting.bytes)
        };
        if before > self.limit {
            self.drained.notify_waiters();
        }
    }

    /// What messages are held against on their way.
    pub(crate) fn enforcement(&self) -> &Arc<Enforcement> {
        &self.enforcement
    }

    /// Notes that a client subscribed to something, in case a push consumer waits for it.
    pub fn subscribed(&self) {
        if self.interest_wanted.load(Ordering::Acquire) {
            self.interest_changed.store(true, Ordering::Release);
            (self.wake)();
        }
    }

    /// Whether anyone subscribed since the last call, while that was wanted.
    pub(crate) fn take_interest_change(&self) -> bool {
        self.interest_changed.swap(false, Ordering::AcqRel)
    }

    /// Says whether new subscriptions matter. True when they begin to: what came just before went
    /// unnoticed, so the caller looks once more.
    pub(crate) fn want_interest(&self, wanted: bool) -> bool {
        let before = self.interest_wanted.swap(wanted, Ordering::AcqRel);
        wanted && !before
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.waiting.lock().bytes
    }

    /// Returns once the queue is under its limit.
    pub async fn drained(&self) {
        loop {
            let notified = self.drained.notified();
            if self.bytes() <= self.limit {
                return;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn batch(payload: &[u8]) -> IngestBatch {
        let mut batch = IngestBatch::new(Account::for_tests(), None, 0);
        let tag = |id| IngestTag {
            kind: IngestKind::Stream,
            id,
        };
        batch.push([tag(1), tag(2)], b"a.b", b"r", b"", payload);
        batch
    }

    #[test]
    fn a_message_is_kept_once_for_all_its_tags() {
        let batch = batch(b"hello");
        assert_eq!(batch.items().len(), 2);
        assert_eq!(batch.arena.len(), 9);
        for item in batch.items() {
            assert_eq!(batch.subject(item), b"a.b");
            assert_eq!(batch.reply(item), b"r");
            assert_eq!(batch.header(item), b"");
            assert_eq!(batch.payload(item), b"hello");
        }
    }

    #[test]
    fn the_engine_is_woken_once_until_it_looks() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&wakes);
        let queue = IngestQueue::new(
            1 << 20,
            Arc::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
            }),
        );
        assert!(queue.push(&mut vec![batch(b"1")]));
        assert!(queue.push(&mut vec![batch(b"2")]));
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        let mut taken = Vec::new();
        queue.take(&mut taken);
        assert_eq!(taken.len(), 2);
        assert_eq!(queue.bytes(), 0);
        queue.push(&mut vec![batch(b"3")]);
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_full_queue_tells_the_reader_to_stop() {
        let queue = IngestQueue::new(10, Arc::new(|| {}));
        assert!(!queue.push(&mut vec![batch(b"more than ten bytes")]));
        let mut taken = Vec::new();
        queue.take(&mut taken);
        assert_eq!(queue.bytes(), 0);
    }
}
