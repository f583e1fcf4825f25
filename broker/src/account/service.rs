//! Imported services: where requests go, and how responses find back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use menes_protocol::subject;
use parking_lot::Mutex;
use rand::Rng;
use rand::distr::Alphanumeric;
use tokio::sync::Notify;

use super::Account;
use super::book::{ServiceAgreement, Way};
use super::description::ResponseKind;
use super::latency::Sample;
use crate::connection::client::Client;
use crate::routing::Subscription;

/// A service import in force.
#[derive(Debug)]
pub struct ServiceImport {
    exporter: Arc<Account>,
    agreement: ServiceAgreement,
}

impl ServiceImport {
    pub(crate) fn new(exporter: Arc<Account>, agreement: ServiceAgreement) -> Self {
        Self {
            exporter,
            agreement,
        }
    }

    pub(crate) fn exporter(&self) -> &Arc<Account> {
        &self.exporter
    }

    pub(crate) fn agreement(&self) -> &ServiceAgreement {
        &self.agreement
    }

    /// Whether whoever asks is told what becomes of a traced request.
    pub(crate) fn allows_trace(&self) -> bool {
        self.agreement.options.allow_trace
    }

    /// Whether both lead to the same export.
    pub(crate) fn is_of_export(&self, other: &Self) -> bool {
        self.exporter.id() == other.exporter.id() && self.agreement.export == other.agreement.export
    }

    /// What the subject of a request becomes at the exporter.
    pub(crate) fn subject_there(&self, subject: &[u8]) -> Vec<u8> {
        match &self.agreement.way {
            Way::Same => subject.to_vec(),
            Way::Fixed => self.agreement.to.as_bytes().to_vec(),
            Way::Through(transform) => transform.rewrite(subject, 0),
        }
    }
}

/// A request whose response has not come, or not all of it.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The subject that the responder sees as reply.
    pub(crate) token: Box<[u8]>,
    /// The account that the responder sees it in.
    pub(crate) holder: Arc<Account>,
    /// The requester's reply subject, and the account it is in.
    pub(crate) reply: Box<[u8]>,
    pub(crate) importer: Arc<Account>,
    /// The import through which the request went; for a response that wants an answer itself, the
    /// one through which its request went.
    pub(crate) import: Arc<ServiceImport>,
    pub(crate) tracking: Option<Tracking>,
    pub(crate) arrived: (SystemTime, Instant),
    /// When something was last delivered, in milliseconds since it arrived.
    active_ms: AtomicU64,
    /// The measurement is over.
    reported: AtomicBool,
}

/// Who asked, of a request that is measured.
#[derive(Clone, Debug)]
pub(crate) struct Tracking {
    pub(crate) requester: Option<Arc<Client>>,
    pub(crate) sample: Sample,
}

impl Pending {
    /// Whether a message with this body is the last of the response.
    pub(crate) fn ends_with(&self, is_empty: bool) -> bool {
        self.kind() == ResponseKind::Singleton || is_empty
    }

    pub(crate) fn kind(&self) -> ResponseKind {
        self.import.agreement.options.response
    }

    /// Another part of the response was delivered: it may take its time again.
    pub(crate) fn delivered(&self) {
        let millis = self.arrived.1.elapsed().as_millis();
        self.active_ms
            .store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The tracking, for whoever asks first.
    pub(crate) fn take_tracking(&self) -> Option<&Tracking> {
        let tracking = self.tracking.as_ref()?;
        (!self.reported.swap(true, Ordering::AcqRel)).then_some(tracking)
    }

    fn is_expired(&self, now: Instant) -> bool {
        let active = Duration::from_millis(self.active_ms.load(Ordering::Relaxed));
        let age = now.saturating_duration_since(self.arrived.1);
        age.saturating_sub(active) >= self.import.agreement.options.threshold
    }
}

/// What the subjects begin with under which responses arrive.
pub(crate) const RESPONSE_PREFIX: &[u8] = b"_R_.";

/// Responses that may still come are remembered, for all requests of an account's services, up to
/// this number; requests beyond it are passed on without a way back.
const MAX_PENDING: usize = 1 << 20;

/// The responses that the services of one account owe.
#[derive(Debug, Default)]
pub(crate) struct Responses {
    /// What all tokens begin with, `_R_.` and six letters and a dot; made for the first one.
    prefix: OnceLock<Box<[u8]>>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_token: HashMap<Box<[u8]>, Arc<Pending>>,
    /// The desk knows that something is owed.
    is_known: bool,
}

impl Responses {
    /// Remembers a request of `importer` to a service of `holder`. The first time, `begin` is
    /// called with what all tokens begin with. True with it when the desk is to be told. `None` when
    /// too many are remembered.
    pub(crate) fn add(
        &self,
        begin: impl FnOnce(&[u8]),
        (reply, importer): (&[u8], &Arc<Account>),
        (holder, import): (&Arc<Account>, &Arc<ServiceImport>),
        tracking: Option<Tracking>,
    ) -> Option<(Arc<Pending>, bool)> {
        let prefix = self.prefix.get_or_init(|| {
            let mut made = RESPONSE_PREFIX.to_vec();
            put_letters(&mut made);
            made.push(b'.');
            begin(&made);
            made.into()
        });
        let mut table = self.table.lock();
        if table.by_token.len() >= MAX_PENDING {
            return None;
        }
        let token = loop {
            let mut token = prefix.to_vec();
            put_letters(&mut token);
            if !table.by_token.contains_key(&*token) {
                break token.into_boxed_slice();
            }
        };
        let entry = Arc::new(Pending {
            token: token.clone(),
            holder: Arc::clone(holder),
            reply: reply.into(),
            importer: Arc::clone(importer),
            import: Arc::clone(import),
            tracking,
            arrived: (SystemTime::now(), Instant::now()),
            active_ms: AtomicU64::new(0),
            reported: AtomicBool::new(false),
        });
        table.by_token.insert(token, Arc::clone(&entry));
        let is_first = !std::mem::replace(&mut table.is_known, true);
        Some((entry, is_first))
    }

    /// Whether subjects that begin like this one are for responses.
    pub(crate) fn covers(&self, subject: &[u8]) -> bool {
        let prefix = self.prefix.get();
        prefix.is_some_and(|prefix| subject.starts_with(prefix))
    }

    pub(crate) fn get(&self, token: &[u8]) -> Option<Arc<Pending>> {
        self.table.lock().by_token.get(token).cloned()
    }

    /// Forgets a request. `None` when it was forgotten before.
    pub(crate) fn take(&self, token: &[u8]) -> Option<Arc<Pending>> {
        self.table.lock().by_token.remove(token)
    }

    /// Forgets everything, at the end of a server.
    pub(crate) fn clear(&self) {
        let old = std::mem::take(&mut *self.table.lock());
        drop(old);
    }

    /// Moves what did not come in time to `expired`. True while something is owed; else the desk
    /// is to be told when that changes.
    fn take_expired(&self, now: Instant, expired: &mut Vec<Arc<Pending>>) -> bool {
        let mut table = self.table.lock();
        let taken = table.by_token.extract_if(|_, entry| entry.is_expired(now));
        expired.extend(taken.map(|(_, entry)| entry));
        table.is_known = !table.by_token.is_empty();
        table.is_known
    }
}

/// Six letters and digits that nobody guesses.
fn put_letters(out: &mut Vec<u8>) {
    out.extend(rand::rng().sample_iter(Alphanumeric).take(6));
}

type ByReply = HashMap<Box<[u8]>, Vec<Arc<Pending>>>;

/// The responses that the clients of one account wait for: reply subjects, and where to forget
/// them when nobody listens any more.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// Looked at whenever a subscription ends.
    count: AtomicUsize,
    by_reply: Mutex<ByReply>,
}

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn add(&self, pending: &Arc<Pending>) {
        let mut by_reply = self.by_reply.lock();
        let list = by_reply.entry(pending.reply.clone()).or_default();
        list.push(Arc::clone(pending));
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, pending: &Arc<Pending>) {
        let mut by_reply = self.by_reply.lock();
        let Some(list) = by_reply.get_mut(&pending.reply) else {
            return;
        };
        if let Some(at) = list.iter().position(|known| Arc::ptr_eq(known, pending)) {
            list.swap_remove(at);
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        if list.is_empty() {
            by_reply.remove(&pending.reply);
        }
    }

    /// Reply subjects that `filter` matches.
    pub(crate) fn replies(&self, filter: &[u8]) -> Vec<Box<[u8]>> {
        let by_reply = self.by_reply.lock();
        if !subject::has_wildcard(filter) {
            let known = by_reply.get_key_value(filter);
            return known.into_iter().map(|(reply, _)| reply.clone()).collect();
        }
        let matching = by_reply.keys().filter(|r| subject::matches(filter, r));
        matching.cloned().collect()
    }

    /// Forgets everything, at the end of a server.
    pub(crate) fn clear(&self) {
        let old = std::mem::take(&mut *self.by_reply.lock());
        drop(old);
    }

    /// Forgets all that wait for `reply`.
    pub(crate) fn take(&self, reply: &[u8]) -> Vec<Arc<Pending>> {
        let taken = self.by_reply.lock().remove(reply).unwrap_or_default();
        self.count.fetch_sub(taken.len(), Ordering::Relaxed);
        taken
    }
}

/// What all accounts of a server have in common: the accounts that owe responses, and requests
/// whose requester left.
#[derive(Debug, Default)]
pub(crate) struct ServiceDesk {
    debtors: Mutex<Vec<Arc<Account>>>,
    left: Mutex<Vec<Arc<Pending>>>,
    news: Notify,
}

impl ServiceDesk {
    /// An account owes a response, and owed none before.
    fn owes(&self, exporter: &Arc<Account>) {
        self.debtors.lock().push(Arc::clone(exporter));
        self.news.notify_one();
    }

    /// The requester left, and somebody measures.
    fn left(&self, pending: Arc<Pending>) {
        self.left.lock().push(pending);
        self.news.notify_one();
    }

    pub(crate) fn take_left(&self) -> Vec<Arc<Pending>> {
        std::mem::take(&mut *self.left.lock())
    }

    /// Returns when something was said since the last call.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// Takes responses that did not come in time. True while others are owed.
    pub(crate) fn take_expired(&self, now: Instant) -> (Vec<Arc<Pending>>, bool) {
        let mut expired = Vec::new();
        let mut debtors = std::mem::take(&mut *self.debtors.lock());
        debtors.retain(|account| account.responses.take_expired(now, &mut expired));
        let mut all = self.debtors.lock();
        all.append(&mut debtors);
        (expired, !all.is_empty())
    }

    /// Forgets everything, at the end of a server.
    pub(super) fn clear(&self) {
        let old = (
            std::mem::take(&mut *self.debtors.lock()),
            std::mem::take(&mut *self.left.lock()),
        );
        drop(old);
    }
}

/// Services.
impl Account {
    pub(crate) fn responses(&self) -> &Responses {
        &self.responses
    }

    /// Remembers that a response to `reply` in `importer` is expected under a subject here. `None`
    /// for replies that are passed on as they are, and when too many are remembered.
    pub(crate) fn expect_response(
        self: &Arc<Self>,
        reply: &[u8],
        importer: &Arc<Self>,
        import: &Arc<ServiceImport>,
        tracking: Option<Tracking>,
    ) -> Option<Arc<Pending>> {
        if reply.starts_with(b"$JS.ACK.") {
            return None;
        }
        let arrive = |prefix: &[u8]| {
            let filter = [prefix, b">"].concat();
            let subscription = Arc::new(Subscription::of_responses(&filter));
            self.sublist.insert(&subscription);
        };
        let (pending, is_first) =
            self.responses
                .add(arrive, (reply, importer), (self, import), tracking)?;
        importer.waiting.add(&pending);
        if is_first {
            self.desk.owes(self);
        }
        Some(pending)
    }

    /// Expects this response no longer.
    pub(crate) fn forget_response(&self, pending: &Arc<Pending>) {
        self.responses.take(&pending.token);
        pending.importer.waiting.remove(pending);
    }

    /// The request whose response arrives under this subject, if there is one.
    pub(crate) fn expected_response(&self, subject: &[u8]) -> Option<Arc<Pending>> {
        if subject.starts_with(RESPONSE_PREFIX) {
            self.responses.get(subject)
        } else {
            None
        }
    }

    /// Whether a message under this subject would find somebody who waits for a response; `None`
    /// when it is not one of those under which responses arrive.
    pub(crate) fn response_has_interest(&self, subject: &[u8]) -> Option<bool> {
        if !subject.starts_with(RESPONSE_PREFIX) || !self.responses.covers(subject) {
            return None;
        }
        let pending = self.responses.get(subject);
        Some(pending.is_some_and(|pending| {
            let importer = &pending.importer;
            importer.has_interest(&pending.reply, None)
        }))
    }

    /// Expects no responses any more whose reply subjects only `filter` covered.
    pub(super) fn requesters_left(&self, filter: &[u8]) {
        for reply in self.waiting.replies(filter) {
            if self.sublist.has_interest(&reply, None) {
                continue;
            }
            for pending in self.waiting.take(&reply) {
                pending.holder.responses.take(&pending.token);
                if pending.tracking.is_some() {
                    self.desk.left(pending);
                }
            }
        }
    }
}
