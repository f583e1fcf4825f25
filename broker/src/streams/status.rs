//! What the outside may know of the streams, without asking their thread.
//!
//! The engine thread publishes a [`StreamsStatus`] about twice a second; monitoring reads the
//! latest. Totals are always there. Details cost work for every stream and consumer, so they are
//! gathered only when someone asked, and some at a time, between turns that serve clients:
//! [`Status::ask_details`] gives out a ticket, and the first snapshot whose `answered` has reached
//! it has them.
//!
//! ```text
//!   monitoring                          engine thread
//!   ask_details() -> 7                  asked is 7, answered was 6: gather details, turn by turn
//!   details_for(7) ◀──── publish(answered 7, accounts)
//! ```

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use menes_jetstream::engine::{AccountFigures, Application, Engine, Figures};
use menes_jetstream::ports::{LogPosition, LogStore, StateStore};
use menes_storage::log::LogMonitor;
use menes_storage::state::StateMonitor;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The engine at one moment.
#[derive(Clone, Debug, Default)]
pub struct StreamsStatus {
    /// Whether everything was recovered and requests are served.
    pub is_ready: bool,
    /// Totals.
    pub figures: Figures,
    /// Per account, by name. Empty until someone asked.
    pub accounts: Arc<Vec<AccountFigures>>,
    /// The highest ticket whose details are in `accounts`.
    pub answered: u64,
    /// Why nothing is acknowledged any more, for people.
    pub poisoned: Option<String>,
    /// What of the stored messages is damaged, for people.
    pub damage: Option<String>,
}

/// Where the engine thread publishes and others read.
#[derive(Default)]
pub struct Status {
    latest: ArcSwap<StreamsStatus>,
    asked: AtomicU64,
    published: Notify,
    /// Makes the engine thread look.
    wake: OnceLock<Arc<dyn Fn() + Send + Sync>>,
    stores: Mutex<Option<(LogMonitor, StateMonitor)>>,
    /// There are no streams now, and none that are about to come.
    is_off: AtomicBool,
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status")
            .field("latest", &self.latest)
            .finish_non_exhaustive()
    }
}

impl Status {
    /// As the default, with a way to make the engine thread look when details are asked for.
    pub(crate) fn waking(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self {
            wake: OnceLock::from(wake),
            ..Self::default()
        }
    }

    /// Tells of the damage in these stores, too.
    pub(crate) fn watch(&self, log: LogMonitor, state: StateMonitor) {
        *self.stores.lock() = Some((log, state));
    }

    /// Streams are switched on, or off: what was known of them is forgotten.
    pub(crate) fn switch(&self, is_on: bool) {
        self.is_off.store(!is_on, Ordering::Release);
        if !is_on {
            *self.stores.lock() = None;
            self.latest.store(Arc::default());
        }
    }

    /// Whether there are streams, be it that they are still recovered.
    pub(crate) fn is_on(&self) -> bool {
        !self.is_off.load(Ordering::Acquire)
    }

    /// What is damaged, for people; `None` as far as nobody knows of anything.
    fn damage(&self) -> Option<String> {
        let stores = self.stores.lock();
        let (log, state) = stores.as_ref()?;
        describe(&log.damage()).or_else(|| state.damage())
    }

    /// The latest figures, at most a second old.
    #[must_use]
    pub fn load(&self) -> Arc<StreamsStatus> {
        self.latest.load_full()
    }

    /// Asks for details; they come with the ticket that is returned.
    #[must_use]
    pub fn ask_details(&self) -> u64 {
        let ticket = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        if let Some(wake) = self.wake.get() {
            wake();
        }
        ticket
    }

    /// Whether someone waits for details.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked() > self.latest.load().answered
    }

    /// The first snapshot that answers `ticket`; the latest one if there is none within `limit`.
    pub async fn details_for(&self, ticket: u64, limit: Duration) -> Arc<StreamsStatus> {
        let answered = async {
            loop {
                let published = self.published.notified();
                let status = self.load();
                if status.answered >= ticket {
                    return status;
                }
                published.await;
            }
        };
        match tokio::time::timeout(limit, answered).await {
            Ok(status) => status,
            Err(_) => self.load(),
        }
    }

    /// The highest ticket given out.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    /// What the log tells of itself, once there is one.
    pub(crate) fn log(&self) -> Option<LogMonitor> {
        let stores = self.stores.lock();
        stores.as_ref().map(|(log, _)| log.clone())
    }

    /// Publishes details that answer this ticket.
    pub(crate) fn answer(&self, ticket: u64, accounts: Vec<AccountFigures>) {
        self.publish(StreamsStatus {
            accounts: Arc::new(accounts),
            answered: ticket,
            ..StreamsStatus::clone(&self.latest.load())
        });
    }

    /// Publishes how the engine is now.
    pub(crate) fn update<L: LogStore, S: StateStore, A: Application>(
        &self,
        engine: &Engine<L, S, A>,
    ) {
        let mut status = StreamsStatus::clone(&self.latest.load());
        status.figures = engine.figures();
        status.is_ready = true;
        status.poisoned = engine.poisoned().map(ToString::to_string);
        status.damage = self.damage();
        self.publish(status);
    }

    pub(crate) fn publish(&self, status: StreamsStatus) {
        self.latest.store(Arc::new(status));
        self.published.notify_waiters();
    }
}

fn describe(damage: &[LogPosition]) -> Option<String> {
    let first = damage.first()?;
    let (segment, offset) = (first.segment, first.offset);
    let more = match damage.len() {
        1 => String::new(),
        count => format!(", and {} more segments", count - 1),
    };
    Some(format!(
        "messages in segment {segment} of the log are damaged at offset {offset}{more}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_streams(streams: u64, answered: u64) -> StreamsStatus {
        let figures = Figures {
            streams,
            ..Figures::default()
        };
        StreamsStatus {
            figures,
            answered,
            ..StreamsStatus::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn details_come_with_the_snapshot_that_answers() {
        let status = Arc::new(Status::default());
        let ticket = status.ask_details();
        let waiting = tokio::spawn({
            let status = Arc::clone(&status);
            async move { status.details_for(ticket, Duration::from_secs(60)).await }
        });
        tokio::task::yield_now().await;
        status.publish(with_streams(1, 0));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        status.publish(with_streams(2, ticket));
        assert_eq!(waiting.await.expect("no panic").figures.streams, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_does_not_answer_leaves_the_latest() {
        let status = Status::default();
        status.publish(with_streams(5, 0));
        let ticket = status.ask_details();
        let latest = status.details_for(ticket, Duration::from_secs(1)).await;
        assert_eq!(latest.figures.streams, 5);
    }
}
