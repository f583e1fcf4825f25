//! The way from connections to the thread of the system.
//!
//! Whoever serves a connection calls in here and goes on: a request for a service of the server, or
//! news of a client. What nobody would hear is dropped on the spot, so an account of the system
//! without subscribers costs one look at its subscriptions per connection, and messages nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::account::{Account, GLOBAL_ACCOUNT};
use crate::connection::client::{Client, ClientInfo, Identity, TrafficCount};
use crate::error::CloseReason;
use crate::routing::Message;

/// What waits at most; more is dropped. Requests are small and rare, so this is a flood.
const MAX_WAITING: usize = 16 * 1024;
/// Bytes of requests that wait at most.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Port {
    system: Arc<Account>,
    /// Somebody takes what comes in.
    is_open: AtomicBool,
    waiting: Mutex<Waiting>,
    told: Notify,
    /// Number of the last document of this server.
    sequence: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    work: Vec<Work>,
    bytes: usize,
}

/// Something for the system to do.
#[derive(Debug)]
pub(super) enum Work {
    /// Answer a request.
    Answer(Request),
    /// Tell who listens about a client.
    Tell(Event),
    /// Tell who listens how many clients an account has.
    Count(Arc<Account>),
}

/// A message for one of the server's own subscriptions.
#[derive(Debug)]
pub(super) struct Request {
    /// Where it was published.
    pub(super) account: Arc<Account>,
    /// Who published it.
    pub(super) origin: Option<Arc<Client>>,
    pub(super) subject: String,
    pub(super) reply: Vec<u8>,
    pub(super) header: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

/// What happened to a client.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) kind: EventKind,
    pub(super) client: ClientInfo,
    pub(super) traffic: TrafficCount,
    pub(super) rtt: std::time::Duration,
    pub(super) at: SystemTime,
}

/// Kinds of events.
#[derive(Clone, Debug)]
pub(super) enum EventKind {
    /// CONNECT was accepted.
    Connected,
    /// A connection is gone.
    Disconnected(CloseReason),
    /// CONNECT was refused.
    Refused {
        /// The account the client wanted to be in, where that is known.
        account: Option<Arc<Account>>,
        /// The words of the event.
        reason: String,
    },
}

impl Port {
    /// The way to the system whose account this is. Nothing goes through until
    /// [`Port::open`] is called.
    pub(crate) fn new(system: Arc<Account>) -> Self {
        Self {
            system,
            is_open: AtomicBool::new(false),
            waiting: Mutex::default(),
            told: Notify::new(),
            sequence: AtomicU64::new(0),
        }
    }

    pub(super) fn open(&self) {
        self.is_open.store(true, Ordering::Release);
    }

    /// Nothing goes through any more.
    pub(super) fn close(&self) {
        self.is_open.store(false, Ordering::Release);
        *self.waiting.lock() = Waiting::default();
    }

    /// Numbers what a server sends, from 1.
    pub(super) fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Takes a message that one of the server's subscriptions matched. False when nobody will see
    /// it.
    pub(crate) fn ask(
        &self,
        account: &Arc<Account>,
        origin: Option<&Arc<Client>>,
        message: &Message<'_>,
    ) -> bool {
        if !self.is_open() {
            return false;
        }
        let request = Request {
            account: Arc::clone(account),
            origin: origin.cloned(),
            subject: String::from_utf8_lossy(message.subject).into_owned(),
            reply: message.reply.to_vec(),
            header: message.header.to_vec(),
            payload: message.payload.to_vec(),
        };
        self.push(Work::Answer(request))
    }

    /// A client is connected.
    pub(crate) fn connected(&self, client: &Client) {
        if self.is_open() {
            self.tell(client, EventKind::Connected);
        }
    }

    /// A connection is gone.
    pub(crate) fn disconnected(&self, client: &Client, reason: CloseReason) {
        if self.is_open() {
            self.tell(client, EventKind::Disconnected(reason));
        }
    }

    /// The number of connections of an account has changed.
    pub(crate) fn counted(&self, account: &Arc<Account>) {
        if self.is_open() && self.wants_counts(account) {
            self.push(Work::Count(Arc::clone(account)));
        }
    }

    /// A client was refused that said it was `claimed`; `account` is the one it wanted, where that
    /// is known.
    pub(crate) fn refused(
        &self,
        client: &Client,
        account: Option<&Arc<Account>>,
        claimed: Identity,
        reason: CloseReason,
    ) {
        if self.is_open() {
            let kind = EventKind::Refused {
                account: account.cloned(),
                reason: reason.to_string(),
            };
            let info = ClientInfo {
                identity: Arc::new(claimed),
                ..client.info()
            };
            self.push_event(client, info, kind);
        }
    }

    fn tell(&self, client: &Client, kind: EventKind) {
        let identity = client.identity();
        let account = identity.account.as_ref();
        let subject = event_subject(account.map_or(GLOBAL_ACCOUNT, |a| a.name().as_str()), &kind);
        if self.system.has_interest(subject.as_bytes(), None) {
            self.push_event(client, client.info(), kind);
        }
    }

    fn push_event(&self, client: &Client, info: ClientInfo, kind: EventKind) {
        self.push(Work::Tell(Event {
            kind,
            client: info,
            traffic: client.traffic().count(),
            rtt: client.rtt().unwrap_or_default(),
            at: SystemTime::now(),
        }));
    }

    /// Whether somebody wants to know how many connections an account has. As with nats-server
    /// nobody is told of the global account.
    pub(super) fn wants_counts(&self, account: &Account) -> bool {
        account.name().as_str() != GLOBAL_ACCOUNT
            && count_subjects(account)
                .iter()
                .any(|subject| self.system.has_interest(subject.as_bytes(), None))
    }

    fn push(&self, work: Work) -> bool {
        {
            let mut waiting = self.waiting.lock();
            let bytes = match &work {
                Work::Answer(request) => request.payload.len() + request.header.len(),
                Work::Tell(_) | Work::Count(_) => 0,
            };
            if waiting.work.len() >= MAX_WAITING || waiting.bytes + bytes > MAX_WAITING_BYTES {
                return false;
            }
            waiting.bytes += bytes;
            waiting.work.push(work);
        }
        self.told.notify_one();
        true
    }

    /// Waits until there is something, and takes all there is.
    pub(super) async fn take(&self) -> Vec<Work> {
        loop {
            let taken = self.take_now();
            if !taken.is_empty() {
                return taken;
            }
            self.told.notified().await;
        }
    }

    /// Takes all there is.
    pub(super) fn take_now(&self) -> Vec<Work> {
        std::mem::take(&mut *self.waiting.lock()).work
    }
}

/// Where it is published that a client came or went.
pub(super) fn event_subject(account: &str, kind: &EventKind) -> String {
    let what = match kind {
        EventKind::Connected => "CONNECT",
        EventKind::Disconnected(_) | EventKind::Refused { .. } => "DISCONNECT",
    };
    format!("$SYS.ACCOUNT.{account}.{what}")
}

/// Where the number of connections of an account is published: the subject of today and that of
/// before.
pub(super) fn count_subjects(account: &Account) -> [String; 2] {
    let name = account.name().as_str();
    [
        format!("$SYS.SERVER.ACCOUNT.{name}.CONNS"),
        format!("$SYS.ACCOUNT.{name}.SERVER.CONNS"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Accounts;

    #[test]
    fn nothing_goes_through_a_closed_port() {
        let accounts = Accounts::default();
        let port = Port::new(Arc::clone(accounts.system()));
        let message = Message::new(b"$SYS.REQ.SERVER.PING", b"");
        assert!(!port.ask(accounts.system(), None, &message));
        port.open();
        assert!(port.ask(accounts.system(), None, &message));
        assert_eq!(port.take_now().len(), 1);
        assert!(port.ask(accounts.system(), None, &message));
        port.close();
        assert!(port.take_now().is_empty());
    }

    #[test]
    fn a_flood_of_requests_is_cut_off() {
        let accounts = Accounts::default();
        let port = Port::new(Arc::clone(accounts.system()));
        port.open();
        let payload = vec![0; 1024 * 1024];
        let message = Message::new(b"$SYS.REQ.SERVER.PING", &payload);
        let taken = (0..100)
            .filter(|_| port.ask(accounts.system(), None, &message))
            .count();
        assert_eq!(taken, MAX_WAITING_BYTES / payload.len());
    }
}
