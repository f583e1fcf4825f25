//! One subscription: who wants which subject.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::deliver::Message;
use crate::account::Account;
use crate::account::import::Shadow;
use crate::account::service::ServiceImport;
use crate::auth::permissions::Permissions;
use crate::connection::client::Client;
use crate::streams::ingest::{IngestKind, IngestTag};

/// Who receives what a subscription matches.
#[derive(Clone, Debug)]
pub enum Target {
    /// A client connection.
    Client(Arc<Client>),
    /// The engine, which knows the tag.
    Ingest(IngestTag),
    /// The server itself, see [`crate::system`].
    Service,
    /// A subscription of another account, which imports the stream.
    Import(Box<Shadow>),
    /// A service of another account.
    ServiceImport(Arc<ServiceImport>),
    /// Whoever waits for the response of an exported service.
    Responses,
    /// Code of the server itself.
    Receiver(Arc<dyn Receiver>),
}

/// Takes messages inside the server. Calls come from the threads that publish: they must return at
/// once, and must not publish.
pub trait Receiver: Send + Sync + fmt::Debug {
    /// Takes a message that was published in `account`. False when it does not get it.
    fn receive(&self, account: &Arc<Account>, message: &Message<'_>) -> bool;
}

/// Place of a subscription in the [`Sublist`](super::Sublist) that holds it.
#[derive(Debug)]
pub(super) struct Place {
    /// Node of the tree.
    pub(super) node: AtomicU32,
    /// Index among the plain subscriptions or the members of its queue group at that node.
    pub(super) slot: AtomicU32,
}

/// Interest of one target in a subject.
#[derive(Debug)]
pub struct Subscription {
    subject: Box<[u8]>,
    queue: Option<Box<[u8]>>,
    sid: Box<[u8]>,
    target: Target,
    /// Set when a denied subject lies inside a wildcard subscription, see
    /// [`Permissions::may_receive`].
    filter: Option<Arc<Permissions>>,
    /// Messages delivered since SUB.
    delivered: AtomicU64,
    /// Remove when this many were delivered; 0 is never.
    max: AtomicU64,
    closed: AtomicBool,
    pub(super) place: Place,
}

/// What a delivery attempt does to the count of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Deliver.
    Deliver,
    /// Deliver; it is the last one.
    DeliverLast,
    /// The subscription takes nothing any more.
    Refused,
}

impl Subscription {
    /// A subscription of a client under the id the client chose.
    #[must_use]
    pub fn of_client(
        client: Arc<Client>,
        subject: &[u8],
        queue: Option<&[u8]>,
        sid: &[u8],
        filter: Option<Arc<Permissions>>,
    ) -> Self {
        Self::new(Target::Client(client), subject, queue, sid, filter)
    }

    /// The same with other permissions to go by; what was delivered counts.
    pub(crate) fn filtered_by(&self, filter: Option<Arc<Permissions>>) -> Self {
        let target = self.target.clone();
        Self {
            delivered: AtomicU64::new(self.delivered()),
            max: AtomicU64::new(self.max()),
            ..Self::new(target, &self.subject, self.queue(), &self.sid, filter)
        }
    }

    /// Whether some of what it matches is denied.
    pub(crate) fn is_filtered(&self) -> bool {
        self.filter.is_some()
    }

    /// Whether a message of this subject may be handed out through it, under whatever subject.
    pub(super) fn may_see(&self, subject: &[u8]) -> bool {
        let mut filter = self.filter.iter();
        filter.all(|permissions| permissions.may_see(subject))
    }

    /// Whether it takes what is asked of the broker itself, here or where that is imported from.
    pub(super) fn is_the_broker(&self) -> bool {
        match &self.target {
            Target::Ingest(tag) => tag.kind == IngestKind::Application,
            Target::ServiceImport(_) => true,
            _ => false,
        }
    }

    /// A subscription of the engine.
    #[must_use]
    pub fn of_engine(tag: IngestTag, subject: &[u8], queue: Option<&[u8]>) -> Self {
        Self::new(Target::Ingest(tag), subject, queue, b"", None)
    }

    /// A subscription of the engine for a stream; it goes under the name of the stream.
    pub(crate) fn of_stream(tag: IngestTag, subject: &[u8], stream: &[u8]) -> Self {
        Self::new(Target::Ingest(tag), subject, None, stream, None)
    }

    /// A subscription of the server itself.
    pub(crate) fn of_service(subject: &[u8]) -> Self {
        Self::new(Target::Service, subject, None, b"", None)
    }

    /// A subscription that listens to `subject` on behalf of one in another account.
    pub(crate) fn of_import(shadow: Shadow, subject: &[u8]) -> Self {
        let parent = Arc::clone(&shadow.parent);
        let filter = parent.filter.clone();
        let target = Target::Import(Box::new(shadow));
        Self::new(target, subject, parent.queue(), parent.sid(), filter)
    }

    /// The subscription that takes requests to an imported service.
    pub(crate) fn of_service_import(import: Arc<ServiceImport>) -> Self {
        let subject = import.agreement().from.clone();
        let target = Target::ServiceImport(import);
        Self::new(target, subject.as_bytes(), None, b"", None)
    }

    /// The subscription that takes responses of exported services.
    pub(crate) fn of_responses(subject: &[u8]) -> Self {
        Self::new(Target::Responses, subject, None, b"", None)
    }

    /// A subscription of the server itself.
    #[must_use]
    pub fn of_receiver(receiver: Arc<dyn Receiver>, subject: &[u8], queue: Option<&[u8]>) -> Self {
        Self::new(Target::Receiver(receiver), subject, queue, b"", None)
    }

    fn new(
        target: Target,
        subject: &[u8],
        queue: Option<&[u8]>,
        sid: &[u8],
        filter: Option<Arc<Permissions>>,
    ) -> Self {
        Self {
            subject: subject.into(),
            queue: queue.map(Into::into),
            sid: sid.into(),
            target,
            filter,
            delivered: AtomicU64::new(0),
            max: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            place: Place {
                node: AtomicU32::new(u32::MAX),
                slot: AtomicU32::new(0),
            },
        }
    }

    /// The subject or wildcard subscribed to.
    #[must_use]
    pub fn subject(&self) -> &[u8] {
        &self.subject
    }

    /// The queue group, if any.
    #[must_use]
    pub fn queue(&self) -> Option<&[u8]> {
        self.queue.as_deref()
    }

    /// The client's id for it. Of the engine's, those for streams have the name of the stream.
    #[must_use]
    pub fn sid(&self) -> &[u8] {
        &self.sid
    }

    /// Who receives.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The client that gets the messages, in whatever account, if it is one.
    #[must_use]
    pub fn receiver(&self) -> Option<&Arc<Client>> {
        match &self.target {
            Target::Client(client) => Some(client),
            Target::Import(shadow) => shadow.parent.receiver(),
            Target::Ingest(_)
            | Target::Service
            | Target::Receiver(_)
            | Target::ServiceImport(_)
            | Target::Responses => None,
        }
    }

    /// Messages delivered since it was made.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// The count at which it ends, 0 when it does not.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// Whether it was removed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether a message on `subject` may reach it.
    #[inline]
    pub(super) fn may_receive(&self, subject: &[u8]) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| self.passes(filter, subject))
    }

    #[cold]
    fn passes(&self, filter: &Permissions, subject: &[u8]) -> bool {
        let place = match &self.target {
            Target::Import(shadow) => shadow.place_of(subject),
            _ => Some(Cow::Borrowed(subject)),
        };
        place.is_some_and(|place| {
            filter.may_receive(&place, self.queue()) && filter.may_overhear(&self.subject, &place)
        })
    }

    /// Ends it after `max` messages, counted from SUB. False when that many were delivered already:
    /// then it is to be removed now.
    pub(crate) fn limit(&self, max: u64) -> bool {
        // A delivery on another thread either sees the limit or is seen here: both orders of the
        // two stores and the two loads are covered.
        self.max.store(max, Ordering::SeqCst);
        max > self.delivered.load(Ordering::SeqCst)
    }

    /// Marks it removed. False when it was already.
    pub(crate) fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    /// Counts one delivery, if it still takes one.
    #[inline]
    pub(super) fn admit(&self) -> Admission {
        if self.closed.load(Ordering::Relaxed) {
            return Admission::Refused;
        }
        let count = self.delivered.fetch_add(1, Ordering::SeqCst) + 1;
        let max = self.max.load(Ordering::SeqCst);
        match max {
            0 => Admission::Deliver,
            _ if count < max => Admission::Deliver,
            _ if count == max => Admission::DeliverLast,
            _ => Admission::Refused,
        }
    }
}
