//! The system: what the server tells of itself, and what it does on request, by messages.
//!
//! The account of the system (`$SYS` unless configured otherwise) belongs to operators. What is
//! published there as `$SYS.REQ.…` is answered by the server; what happens to clients and accounts
//! is announced there. Users of other accounts may ask for what is their own. Subjects and
//! documents are those of nats-server.
//!
//! ```text
//!   connections ─▶ router ─▶ own subscription ─┐
//!   connect, disconnect, refusal ──────────────┴─▶ Port ─▶ thread of the system ─▶ account routing
//!                                                                 │
//!                                                          monitoring documents
//! ```
//!
//! # Invariants
//!
//! 1. A message that none of the server's subscriptions matches does not come near this module.
//! 2. What nobody subscribes to is not written.
//! 3. Whatever is asked, connections are not held up: the work is done on a thread of its own, and
//!    what waits for it is bounded.

mod documents;
mod events;
mod port;
mod services;
pub(crate) mod trace;

use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, interval_at, sleep_until};

pub(crate) use self::documents::ServerInfo;
pub use self::port::Port;
use self::port::Work;
pub use self::trace::TraceDestination;
use crate::account::Account;
use crate::logging::traffic;
use crate::monitoring::Monitor;
use crate::routing::{Message, RouteBatch};
use crate::server::Shared;

/// How often the figures of the server are announced.
const STATSZ_INTERVAL: Duration = Duration::from_secs(10);
/// The same just after the start: from here it doubles.
const FIRST_STATSZ_INTERVAL: Duration = Duration::from_millis(250);
/// How often the number of connections of every account is announced without a change.
const COUNT_INTERVAL: Duration = Duration::from_secs(30);

/// Answers that are being gathered at a time; further requests wait in the [`Port`].
const MAX_ANSWERS: usize = 64;

/// A request to read the configuration again; the answer says what was wrong.
pub(crate) type Reload = oneshot::Sender<Result<(), String>>;

/// What the thread works with.
pub(crate) struct System {
    shared: Arc<Shared>,
    monitor: Arc<Monitor>,
    batch: Mutex<RouteBatch>,
    reloads: mpsc::UnboundedSender<Reload>,
    answers: Arc<Semaphore>,
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System").finish_non_exhaustive()
    }
}

/// The running system. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct RunningSystem {
    system: Arc<System>,
    stop: watch::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

/// Starts the system of a server. Requests to read the configuration go to `reloads`.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn start(
    shared: Arc<Shared>,
    monitor: Arc<Monitor>,
    reloads: mpsc::UnboundedSender<Reload>,
) -> std::io::Result<RunningSystem> {
    let batch = shared.route_batch(None, shared.add_counters());
    let system = Arc::new(System {
        shared,
        monitor,
        batch: Mutex::new(batch),
        reloads,
        answers: Arc::new(Semaphore::new(MAX_ANSWERS)),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (stop, stopping) = watch::channel(());
    let running = Arc::clone(&system);
    let thread = thread::Builder::new()
        .name("menes-system".to_owned())
        .spawn(move || runtime.block_on(running.run(stopping)))?;
    services::subscribe(&system.shared);
    system.shared.system().open();
    Ok(RunningSystem {
        system,
        stop,
        thread: Some(thread),
    })
}

impl RunningSystem {
    /// Says that no client is taken any more and those there are will be closed.
    pub(crate) fn announce_lame_duck(&self) {
        self.system.announce_end("LAMEDUCK");
    }

    /// Says that the server ends. Nothing is said or answered afterwards.
    pub(crate) fn shut_down(mut self) {
        self.system.shared.system().close();
        self.end();
        self.system.announce_end("SHUTDOWN");
    }

    fn end(&mut self) {
        // It is gone already if the thread ended.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the system ended in a panic");
        }
    }
}

impl Drop for RunningSystem {
    fn drop(&mut self) {
        self.end();
    }
}

impl System {
    async fn run(self: Arc<Self>, mut stopping: watch::Receiver<()>) {
        let mut interval = FIRST_STATSZ_INTERVAL;
        let mut next = Instant::now() + interval;
        let mut counts = interval_at(Instant::now() + COUNT_INTERVAL, COUNT_INTERVAL);
        loop {
            tokio::select! {
                work = self.shared.system().take() => {
                    for work in work {
                        self.work(work).await;
                    }
                }
                () = sleep_until(next) => {
                    self.announce_statsz();
                    interval = (interval * 2).min(STATSZ_INTERVAL);
                    next = Instant::now() + interval;
                }
                _ = counts.tick() => self.announce_all_counts(),
                _ = stopping.changed() => return,
            }
        }
    }

    async fn work(self: &Arc<Self>, work: Work) {
        match work {
            // Some answers take a while, and others must not wait for them.
            Work::Answer(request) => {
                let permit = Arc::clone(&self.answers).acquire_owned().await;
                let system = Arc::clone(self);
                drop(tokio::spawn(async move {
                    system.answer(request).await;
                    drop(permit);
                }));
            }
            Work::Tell(event) => self.announce(&event),
            Work::Count(account) => self.announce_count(&account),
        }
    }

    fn info(&self) -> ServerInfo<'_> {
        ServerInfo::of(&self.shared)
    }

    fn account(&self) -> &Arc<Account> {
        self.shared.accounts().system()
    }

    /// Whether someone hears what is said in the account of the system.
    fn is_heard(&self, subject: &str) -> bool {
        self.account().has_interest(subject.as_bytes(), None)
    }

    /// Publishes a document in the account of the system, if someone hears it.
    fn say(&self, subject: &str, document: &impl Serialize) {
        self.send(self.account(), subject, document);
    }

    fn send(&self, account: &Arc<Account>, subject: &str, document: &impl Serialize) {
        match serde_json::to_vec(document) {
            Ok(body) => self.send_bytes(account, subject.as_bytes(), &body),
            Err(error) => tracing::error!("a document of the system cannot be written: {error}"),
        }
    }

    fn send_bytes(&self, account: &Arc<Account>, subject: &[u8], body: &[u8]) {
        let mut batch = self.batch.lock();
        traffic::published_by_system(subject, body);
        account.route(&mut batch, &Message::new(subject, body), None);
        batch.flush();
    }
}
