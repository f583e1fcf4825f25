//! Delivery: bytes for every receiver, gathered and handed over in batches.

mod crossing;
mod traced;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use bytes::{BufMut, Bytes, BytesMut};
use menes_protocol::encoder::server::{Lengths, message_line};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use smallvec::SmallVec;

use self::crossing::{Chain, Crossing, Traveller};
use super::cache::RouteCache;
use super::hash::BytesHash;
use super::sublist::MatchResult;
use super::subscription::{Admission, Subscription, Target};
use crate::account::Account;
use crate::account::import::Shadow;
use crate::connection::client::{Client, ClientId, Enqueued};
use crate::connection::counters::Counters;
use crate::connection::inbox::Inbox;
use crate::connection::output::{BufferPool, Buffers, ByteQueue};
use crate::logging::traffic;
use crate::streams::ingest::{IngestBatch, IngestKind, IngestQueue, IngestTag};
use crate::system::Port;

/// A message to be routed.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Subject that selects the receivers.
    pub target: &'a [u8],
    /// Subject the receivers see, most often `target`.
    pub subject: &'a [u8],
    /// Reply subject, empty for none.
    pub reply: &'a [u8],
    /// Header block from `NATS/1.0` to the blank line, empty for none.
    pub header: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
    /// Shared bytes that `payload` is part of, if there are any: a large payload is then delivered
    /// without being copied.
    pub shared: Option<&'a Bytes>,
}

impl<'a> Message<'a> {
    /// A message without reply and header, seen under the subject that selects its receivers.
    #[must_use]
    pub fn new(subject: &'a [u8], payload: &'a [u8]) -> Self {
        Self {
            target: subject,
            subject,
            reply: &[],
            header: &[],
            payload,
            shared: None,
        }
    }

    fn body_bytes(&self) -> usize {
        self.header.len() + self.payload.len()
    }
}

/// What the publisher must do after a flush.
#[derive(Debug, Default)]
pub struct Flushed {
    /// A receiver that is far behind: wait a little for it, see
    /// [`STALL`](crate::connection::limits::STALL).
    pub behind: Option<Arc<Client>>,
    /// The engine is behind: wait for [`IngestQueue::drained`].
    pub engine_behind: bool,
}

/// Routes messages for one thread and gathers what their receivers get.
#[derive(Debug)]
pub struct RouteBatch {
    cache: RouteCache,
    stage: Stage,
    ingest: Option<Arc<IngestQueue>>,
    /// For the engine, until the thread has handled everything that was ready: what several
    /// publishers have for it is then one batch and one wake, and one sync of the disk.
    held: Held,
    random: SmallRng,
    server_name: Arc<str>,
    /// The message at hand reports how long a service took.
    is_reporting: bool,
}

/// See [`RouteBatch`].
#[derive(Debug, Default)]
struct Held {
    batches: Vec<IngestBatch>,
    bytes: usize,
}

/// More bytes than this are not held back from the engine.
const HELD_BYTES: usize = 4 * 1024;

/// Payloads from this size on are shared by their receivers instead of copied to each. Below,
/// copying is cheaper than counting references and writing one more slice.
const SHARE_BYTES: usize = 2048;
/// A payload for one receiver is copied behind what waits for it, unless it is this large.
const SHARE_SINGLE_BYTES: usize = 32 * 1024;
/// [`RouteBatch::is_full`] from this many gathered bytes on: about what a core's cache holds.
const FULL_BYTES: usize = 512 * 1024;

/// What a batch works with.
pub(crate) struct Equipment {
    /// Counters of its thread.
    pub(crate) counters: Arc<Counters>,
    /// Buffers of all threads.
    pub(crate) pool: BufferPool,
    /// Inboxes of the workers, by number.
    pub(crate) inboxes: Arc<[Inbox]>,
    /// Number of the worker whose batch it is; `None` for other threads.
    pub(crate) home: Option<usize>,
    /// The way to the engine, if there is one.
    pub(crate) ingest: Option<Arc<IngestQueue>>,
    /// The way to the services of the server itself.
    pub(crate) system: Arc<Port>,
    /// Name of the server.
    pub(crate) server_name: Arc<str>,
    /// See [`Limits`](crate::config::options::Limits); it may change.
    pub(crate) no_fast_producer_stall: Arc<AtomicBool>,
}

impl RouteBatch {
    /// An empty batch.
    pub(crate) fn new(mut equipment: Equipment) -> Self {
        Self {
            cache: RouteCache::new(),
            ingest: equipment.ingest.take(),
            held: Held::default(),
            server_name: Arc::clone(&equipment.server_name),
            is_reporting: false,
            stage: Stage::new(equipment),
            random: SmallRng::from_os_rng(),
        }
    }

    /// Gathers `message` for everyone interested and returns how many that were. The engine counts
    /// as one, however many of its subscriptions match.
    pub(crate) fn route(
        &mut self,
        account: &Arc<Account>,
        message: &Message<'_>,
        origin: Option<&Arc<Client>>,
    ) -> usize {
        self.route_along(account, message, origin, None)
    }

    /// As [`RouteBatch::route`], for a message that came through the imports of `chain`.
    #[inline]
    fn route_along(
        &mut self,
        account: &Arc<Account>,
        message: &Message<'_>,
        origin: Option<&Arc<Client>>,
        chain: Option<&Chain<'_>>,
    ) -> usize {
        let matched = self.cache.lookup(account, message.target);
        if matched.is_empty() {
            return 0;
        }
        let mut delivery = Delivery {
            stage: &mut self.stage,
            account,
            message,
            origin,
            has_engine: self.ingest.is_some(),
            is_passed_on: chain.is_some(),
            is_private: is_private(message.target),
            tags: SmallVec::new(),
            crossings: SmallVec::new(),
        };
        delivery
            .stage
            .begin(matched.plain.len() + matched.queues.len());
        let count = delivery.run(matched, &mut self.random);
        if delivery.crossings.is_empty() {
            return count;
        }
        let crossings = delivery.crossings;
        let traveller = Traveller {
            account,
            message,
            origin,
            chain,
        };
        count + self.cross(traveller, &crossings)
    }

    /// Delivers `message` to one plain subscription of `client` that matches, if there is one. As in
    /// nats-server this does not count towards the maximum of the subscription, and the client gets
    /// it where others' messages are denied to it.
    pub(crate) fn answer(
        &mut self,
        account: &Arc<Account>,
        message: &Message<'_>,
        client: &Arc<Client>,
    ) {
        let matched = self.cache.lookup(account, message.target);
        let own = matched.plain.iter().find(|subscription| {
            matches!(subscription.target(), Target::Client(owner) if owner.id() == client.id())
        });
        let own = own
            .cloned()
            .or_else(|| client.filtered_subscription(message.target));
        if let Some(own) = own.filter(|own| !own.is_closed()) {
            self.stage.begin(1);
            self.stage.push(message, own.sid(), client);
        }
    }

    /// As [`Account::has_interest`], remembered until a subscription comes or goes.
    pub fn has_interest(
        &mut self,
        account: &Arc<Account>,
        literal: &[u8],
        queue: Option<&[u8]>,
    ) -> bool {
        if let Some(interest) = account.response_has_interest(literal) {
            return interest;
        }
        let matched = self.cache.lookup(account, literal);
        match queue {
            Some(name) => matched.queues.iter().any(|group| *group.name == *name),
            None => !matched.is_empty(),
        }
    }

    /// Whether anyone subscribes to `literal` itself, not to a pattern.
    pub(crate) fn has_exact_interest(&mut self, account: &Arc<Account>, literal: &[u8]) -> bool {
        let matched = self.cache.lookup(account, literal);
        matched
            .plain
            .iter()
            .any(|subscription| subscription.subject() == literal)
    }

    /// Whether a client that would get a message on `target` has much waiting to be read already: a
    /// quarter of what closes it, so that there is room for what is under way.
    pub(crate) fn has_congested(&mut self, account: &Arc<Account>, target: &[u8]) -> bool {
        if let Some(pending) = account.expected_response(target) {
            return self.has_congested(&pending.importer, &pending.reply);
        }
        let is_congested = |subscription: &Arc<Subscription>| match subscription.receiver() {
            Some(client) => client.pending_bytes() > client.max_pending() / 4,
            None => false,
        };
        let matched = self.cache.lookup(account, target);
        matched.plain.iter().any(is_congested)
            || matched
                .queues
                .iter()
                .any(|group| group.members.iter().all(is_congested))
    }

    /// Where to append protocol lines for `client`, behind what is gathered for it.
    pub(crate) fn line_to(&mut self, client: &Arc<Client>) -> &mut Vec<u8> {
        self.stage.slot(client).queue.tail()
    }

    /// Whether to flush before routing more, because much is gathered.
    #[inline]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.stage.bytes >= FULL_BYTES
    }

    /// Hands everything gathered to its receivers and wakes them, and the engine its messages: at
    /// once, or when the thread has handled what was ready.
    pub fn flush(&mut self) -> Flushed {
        let mut flushed = Flushed {
            behind: self.stage.flush(),
            engine_behind: false,
        };
        if self.stage.ingest.is_empty() {
            return flushed;
        }
        let bytes = |batch: &IngestBatch| batch.bytes();
        self.held.bytes += self.stage.ingest.iter().map(bytes).sum::<usize>();
        self.held.batches.append(&mut self.stage.ingest);
        if self.stage.remote.home.is_none() || self.held.bytes > HELD_BYTES {
            flushed.engine_behind = !self.hand_over();
        } else {
            // Many who bring little would fill the memory while the engine stands still.
            flushed.engine_behind = self.ingest.as_ref().is_some_and(|queue| queue.is_over());
            self.stage.remote.wants_settling();
        }
        flushed
    }

    /// Gives the engine what is held for it; false when it is behind.
    pub(crate) fn hand_over(&mut self) -> bool {
        if self.held.batches.is_empty() {
            return true;
        }
        self.held.bytes = 0;
        match &self.ingest {
            Some(queue) => queue.push(&mut self.held.batches),
            None => {
                self.held.batches.clear();
                true
            }
        }
    }

    /// Sees to the engine and to receivers on other threads; `settler` is woken when there is
    /// something for them again. What goes to the engine goes first: it was published before
    /// anything that answers what the receivers get.
    pub(crate) fn settle(&mut self, settler: &Waker) {
        // Too little to hold anybody up for; who brings more, or comes again, is held up then.
        self.hand_over();
        self.stage.remote.settle(&mut self.stage.buffers);
        self.stage.remote.settler = Some(settler.clone());
    }

    pub(crate) fn buffers(&mut self) -> &mut Buffers {
        &mut self.stage.buffers
    }
}

/// Whether this is asked of the broker itself. It may hold passwords, so nobody else sees it, not
/// even a stream of all subjects.
#[inline]
fn is_private(target: &[u8]) -> bool {
    target.first() == Some(&b'$') && target.starts_with(menes_stations::api::PREFIX.as_bytes())
}

/// One message on its way to its receivers.
struct Delivery<'a> {
    stage: &'a mut Stage,
    account: &'a Arc<Account>,
    message: &'a Message<'a>,
    origin: Option<&'a Arc<Client>>,
    has_engine: bool,
    /// It came through an imported service.
    is_passed_on: bool,
    /// It is for the broker alone.
    is_private: bool,
    /// Subscriptions of the engine that matched.
    tags: SmallVec<[IngestTag; 4]>,
    /// What leads to other accounts.
    crossings: SmallVec<[Crossing; 2]>,
}

impl Delivery<'_> {
    fn run(&mut self, matched: &MatchResult, random: &mut SmallRng) -> usize {
        let mut count = 0;
        for subscription in &matched.plain {
            count += usize::from(self.deliver(subscription));
        }
        for group in &matched.queues {
            let members = &group.members;
            let first = if members.len() == 1 {
                0
            } else {
                random.random_range(0..members.len())
            };
            let order = members[first..].iter().chain(&members[..first]);
            for member in order {
                if self.deliver(member) {
                    count += 1;
                    break;
                }
            }
        }
        if !self.tags.is_empty() {
            let tags = std::mem::take(&mut self.tags);
            count -= tags.len() - 1;
            self.stage
                .ingest(self.account, self.origin, tags, self.message);
        }
        count
    }

    /// Gathers the message for one subscription. False when it does not get it.
    #[inline]
    fn deliver(&mut self, subscription: &Arc<Subscription>) -> bool {
        match subscription.target() {
            _ if self.is_private && !subscription.is_the_broker() => false,
            Target::Client(client) => {
                self.deliver_to(self.account, subscription, client, self.message)
            }
            Target::Ingest(tag) => {
                let takes = self.has_engine && !subscription.is_closed();
                if takes {
                    self.tags.push(*tag);
                }
                takes
            }
            Target::Service => self
                .stage
                .system
                .ask(self.account, self.origin, self.message),
            Target::Import(shadow) => self.deliver_import(shadow),
            Target::ServiceImport(import) => {
                self.crossings.push(Crossing::Request(Arc::clone(import)));
                false
            }
            Target::Receiver(receiver) => {
                !subscription.is_closed() && receiver.receive(self.account, self.message)
            }
            Target::Responses => {
                self.crossings.push(Crossing::Response);
                false
            }
        }
    }

    #[inline]
    fn deliver_to(
        &mut self,
        account: &Account,
        subscription: &Arc<Subscription>,
        client: &Arc<Client>,
        message: &Message<'_>,
    ) -> bool {
        let is_own = self.origin.is_some_and(|origin| origin.id() == client.id());
        if client.is_closed() || (is_own && !client.has_echo()) || self.stage.drops(client) {
            return false;
        }
        // A message of a stream comes under another subject than its own.
        if subscription.is_filtered() && !subscription.may_see(message.subject) {
            return false;
        }
        match subscription.admit() {
            Admission::Deliver => {}
            Admission::DeliverLast => end(account, subscription, client),
            Admission::Refused => return false,
        }
        if !message.reply.is_empty() {
            client.grant_response(message.reply);
        }
        self.stage.push(message, subscription.sid(), client);
        true
    }

    /// Gathers the message for a subscription of another account, which sees it in its own place.
    /// Requests to services do not flow on into streams.
    #[cold]
    #[inline(never)]
    fn deliver_import(&mut self, shadow: &Shadow) -> bool {
        let Some(place) = shadow.place_of(self.message.target) else {
            return false;
        };
        if self.is_passed_on {
            return false;
        }
        let mut message = Message {
            target: &place,
            ..*self.message
        };
        // A message that is seen under another subject than that of its receivers stays so.
        if message.subject == self.message.target {
            message.subject = &place;
        }
        match shadow.parent.target() {
            Target::Client(client) => {
                self.deliver_to(&shadow.importer, &shadow.parent, client, &message)
            }
            Target::Ingest(tag) if self.has_engine && !shadow.parent.is_closed() => {
                let tags = SmallVec::from_iter([*tag]);
                self.stage
                    .ingest(&shadow.importer, self.origin, tags, &message);
                true
            }
            _ => false,
        }
    }
}

#[cold]
fn end(account: &Account, subscription: &Arc<Subscription>, client: &Arc<Client>) {
    client.forget_subscription(subscription);
    account.unsubscribe(subscription);
}

/// What is gathered.
#[derive(Debug)]
struct Stage {
    counters: Arc<Counters>,
    buffers: Buffers,
    remote: Remote,
    slots: Vec<Slot>,
    /// Slots by receiver, when there are more than a few.
    index: HashMap<u64, usize, BytesHash>,
    /// The slot used last. Messages of a batch often go to the same receivers in the same order, so
    /// the next one is tried first.
    last: usize,
    bytes: usize,
    /// Body of the message at hand with its CRLF, once it is shared between receivers.
    body: Option<Bytes>,
    /// Receivers the message at hand may have.
    receivers: usize,
    ingest: Vec<IngestBatch>,
    /// Size of the last batch for the engine, to make the next one at once as large.
    ingest_bytes: usize,
    system: Arc<Port>,
    no_fast_producer_stall: Arc<AtomicBool>,
    /// The same, as it was at the last flush.
    drop_when_behind: bool,
}

#[derive(Debug)]
struct Slot {
    client: Arc<Client>,
    queue: ByteQueue,
    msgs: u64,
    bytes: u64,
}

/// Verb, separators, two sizes and two line ends at most.
const LINE_EXTRA: usize = 64;
/// Slots are found by a table from this many on.
const INDEXED: usize = 8;

impl Stage {
    fn new(equipment: Equipment) -> Self {
        Self {
            counters: equipment.counters,
            buffers: Buffers::new(equipment.pool),
            remote: Remote::new(equipment.inboxes, equipment.home),
            slots: Vec::new(),
            index: HashMap::default(),
            last: 0,
            bytes: 0,
            body: None,
            receivers: 0,
            ingest: Vec::new(),
            ingest_bytes: 0,
            system: equipment.system,
            drop_when_behind: equipment.no_fast_producer_stall.load(Ordering::Relaxed),
            no_fast_producer_stall: equipment.no_fast_producer_stall,
        }
    }

    /// Prepares for a message with at most this many receivers.
    #[inline]
    fn begin(&mut self, receivers: usize) {
        self.receivers = receivers;
        self.body = None;
    }

    /// Whether a message for `client` is dropped rather than its publisher held up.
    #[inline]
    fn drops(&self, client: &Client) -> bool {
        self.drop_when_behind && is_behind(client.pending_bytes(), client.max_pending())
    }

    #[inline]
    fn push(&mut self, message: &Message<'_>, sid: &[u8], client: &Arc<Client>) {
        let with_header = !message.header.is_empty() && client.has_headers();
        let header: &[u8] = if with_header { message.header } else { &[] };
        let reply = (!message.reply.is_empty()).then_some(message.reply);
        let lengths = Lengths {
            header: header.len(),
            payload: message.payload.len(),
        };
        let body = header.len() + message.payload.len();
        let shares = message.payload.len() >= SHARE_BYTES
            && (self.receivers > 1 || message.payload.len() >= SHARE_SINGLE_BYTES);
        let at = self.slot_number(client);
        let slot = &mut self.slots[at];
        let before = slot.queue.len();
        let tail = slot.queue.tail();
        let start = tail.len();
        let line = message.subject.len() + sid.len() + message.reply.len() + LINE_EXTRA;
        tail.reserve(line + if shares { 0 } else { body });
        message_line(tail, message.subject, sid, reply, lengths);
        if traffic::is_on() {
            traffic::delivered(client, &tail[start..], header, message);
        }
        if shares {
            push_shared(&mut slot.queue, &mut self.body, message, with_header);
        } else {
            tail.extend_from_slice(header);
            tail.extend_from_slice(message.payload);
            tail.extend_from_slice(b"\r\n");
        }
        slot.msgs += 1;
        slot.bytes += body as u64;
        self.bytes += slot.queue.len() - before;
    }

    #[inline]
    fn slot(&mut self, client: &Arc<Client>) -> &mut Slot {
        let at = self.slot_number(client);
        &mut self.slots[at]
    }

    /// The slot of `client`, made if need be.
    #[inline]
    fn slot_number(&mut self, client: &Arc<Client>) -> usize {
        let is_of = |slot: &Slot| Arc::ptr_eq(&slot.client, client);
        let next = if self.last + 1 < self.slots.len() {
            self.last + 1
        } else {
            0
        };
        for guess in [next, self.last] {
            if self.slots.get(guess).is_some_and(is_of) {
                self.last = guess;
                return guess;
            }
        }
        self.last = self.find_slot(client);
        self.last
    }

    #[inline(never)]
    fn find_slot(&mut self, client: &Arc<Client>) -> usize {
        let ClientId(id) = client.id();
        let found = if self.index.is_empty() {
            self.slots
                .iter()
                .position(|slot| Arc::ptr_eq(&slot.client, client))
        } else {
            self.index.get(&id).copied()
        };
        if let Some(found) = found {
            return found;
        }
        let at = self.slots.len();
        let queue = ByteQueue::with_buffer(self.buffers.take());
        self.slots.push(Slot {
            client: Arc::clone(client),
            queue,
            msgs: 0,
            bytes: 0,
        });
        if at == INDEXED {
            let ids = self.slots.iter().map(|slot| slot.client.id().0);
            self.index.extend(ids.enumerate().map(|(at, id)| (id, at)));
        } else if at > INDEXED {
            self.index.insert(id, at);
        }
        at
    }

    fn ingest(
        &mut self,
        account: &Arc<Account>,
        origin: Option<&Arc<Client>>,
        tags: SmallVec<[IngestTag; 4]>,
        message: &Message<'_>,
    ) {
        if !self
            .ingest
            .last()
            .is_some_and(|batch| batch.is_of(account, origin))
        {
            let room = self.ingest_bytes;
            self.ingest
                .push(IngestBatch::new(Arc::clone(account), origin.cloned(), room));
        }
        let batch = self.ingest.last_mut().expect("there is one now");
        self.bytes += message.body_bytes();
        // A mirror wants to know the subject of what its origin delivers to it; everything else is
        // about where the message went.
        let is_link = tags.iter().any(|tag| tag.kind == IngestKind::Link);
        batch.push(
            tags,
            if is_link {
                message.subject
            } else {
                message.target
            },
            message.reply,
            message.header,
            message.payload,
        );
    }

    /// Hands over what is gathered for clients; returns one that is far behind, if there is one.
    fn flush(&mut self) -> Option<Arc<Client>> {
        self.drop_when_behind = self.no_fast_producer_stall.load(Ordering::Relaxed);
        let mut behind: Option<Arc<Client>> = None;
        if self.index.capacity() > 16 * self.slots.len().max(INDEXED) {
            self.index = HashMap::default();
        } else {
            self.index.clear();
        }
        let (mut msgs, mut bytes) = (0, 0);
        for mut slot in self.slots.drain(..) {
            match slot.client.enqueue(&mut slot.queue) {
                Enqueued::Queued { pending, writer } => {
                    if let Some(writer) = writer {
                        self.remote.wake(&slot.client, writer);
                    }
                    if slot.msgs > 0 {
                        slot.client.traffic().delivered(slot.msgs, slot.bytes);
                        msgs += slot.msgs;
                        bytes += slot.bytes;
                    }
                    if is_behind(pending, slot.client.max_pending()) {
                        behind = Some(slot.client);
                    }
                }
                Enqueued::Closed => {}
                Enqueued::SlowConsumer => {
                    self.counters.slow_by_size();
                    tracing::info!(
                        "{} - Slow Consumer Detected: MaxPending of {} Exceeded",
                        slot.client.who(),
                        slot.client.max_pending(),
                    );
                }
            }
            self.buffers.put(slot.queue.take_buffer());
        }
        if self.remote.home.is_none() {
            self.remote.settle(&mut self.buffers);
        }
        if msgs > 0 {
            self.counters.delivered(msgs, bytes);
        }
        self.last = 0;
        self.bytes = 0;
        self.body = None;
        if let Some(batch) = self.ingest.last() {
            self.ingest_bytes = batch.arena_len();
        }
        behind
    }
}

/// Receivers on other threads whose writers must be woken.
///
/// They are gathered until the thread has handled everything that was ready, so that what several
/// publishers have for one receiver goes out together. Then, if a thread sleeps and few of its
/// receivers have something, they are written to from here: waking it costs more. Otherwise all
/// receivers of a thread are woken with one post to its inbox.
#[derive(Debug)]
struct Remote {
    inboxes: Arc<[Inbox]>,
    /// The worker whose batch this is.
    home: Option<usize>,
    /// Receivers and their writers' wakers, per worker.
    waiting: Vec<Vec<(Arc<Client>, Waker)>>,
    posts: Vec<Waker>,
    /// Wakes the task that calls [`Remote::settle`].
    settler: Option<Waker>,
}

/// Receivers of a sleeping thread that are written to from another one. More are worth a wake.
const REMOTE_WRITES: usize = 4;

impl Remote {
    fn new(inboxes: Arc<[Inbox]>, home: Option<usize>) -> Self {
        let waiting = inboxes.iter().map(|_| Vec::new()).collect();
        Self {
            inboxes,
            home,
            waiting,
            posts: Vec::new(),
            settler: None,
        }
    }

    fn wake(&mut self, client: &Arc<Client>, writer: Waker) {
        let worker = client.worker();
        match self.waiting.get_mut(worker) {
            Some(waiting) if self.home != Some(worker) => {
                waiting.push((Arc::clone(client), writer));
                self.wants_settling();
            }
            _ => writer.wake(),
        }
    }

    fn wants_settling(&mut self) {
        if let Some(settler) = self.settler.take() {
            settler.wake();
        }
    }

    fn settle(&mut self, buffers: &mut Buffers) {
        for (inbox, waiting) in self.inboxes.iter().zip(&mut self.waiting) {
            let writes = waiting.len() <= REMOTE_WRITES && inbox.is_asleep();
            for (client, writer) in waiting.drain(..) {
                let writer = if writes {
                    client.write_for_writer(writer, buffers)
                } else {
                    Some(writer)
                };
                self.posts.extend(writer);
            }
            inbox.post(&mut self.posts);
        }
    }
}

/// Whether a receiver with so many bytes waiting is far behind: three quarters of the way to being
/// closed.
fn is_behind(pending: usize, max_pending: usize) -> bool {
    pending > max_pending / 4 * 3
}

/// Appends header, payload and CRLF as shared bytes.
fn push_shared(
    queue: &mut ByteQueue,
    body: &mut Option<Bytes>,
    message: &Message<'_>,
    with_header: bool,
) {
    if let Some(shared) = message.shared {
        if with_header {
            queue.tail().extend_from_slice(message.header);
        }
        queue.push_shared(shared.slice_ref(message.payload));
        queue.tail().extend_from_slice(b"\r\n");
        return;
    }
    let body = body.get_or_insert_with(|| {
        let mut body = BytesMut::with_capacity(message.body_bytes() + 2);
        body.put_slice(message.header);
        body.put_slice(message.payload);
        body.put_slice(b"\r\n");
        body.freeze()
    });
    queue.push_shared(if with_header {
        body.clone()
    } else {
        body.slice(message.header.len()..)
    });
}

#[cfg(test)]
mod tests;
