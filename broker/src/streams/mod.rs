//! The engine in this server: its thread, its stores, and the way in and out.
//!
//! ```text
//!   connections ─▶ IngestQueue ─▶ engine thread ─▶ account routing ─▶ connections
//!                                    │    ▲
//!                              append│    │synced
//!                                    ▼    │
//!                                  log thread
//! ```

mod audit;
mod captures;
mod diversion;
mod driver;
pub mod ingest;
mod passwords;
mod presence;
mod schemas;
mod stations;
pub mod status;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use menes_jetstream::AccountName;
use menes_jetstream::api::metadata::Identity;
use menes_jetstream::api::response::AccountLimits;
use menes_jetstream::api::stream_config::{Bounds, Features};
use menes_jetstream::engine::{Engine, Options, ServerLimits};
use menes_stations::Secret;
use menes_storage::{Encryption, Store, StoreOptions};
use thiserror::Error;

use self::driver::{Alarm, Clock, Driver, Links, Routes};
use self::ingest::IngestQueue;
use self::passwords::PasswordDesk;
use self::presence::Presence;
use self::schemas::SchemaDesk;
use self::stations::StationsDriver;
use self::status::Status;
use crate::auth::directory::Directory;
use crate::connection::client::ConnectionObserver;
use crate::server::{API_LEVEL, Hooks, NATS_VERSION, Shared};

/// Why the streams cannot start.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct StreamsError(String);

/// Time to store the first user.
const ROOT_TIMEOUT: Duration = Duration::from_secs(30);

/// How streams are served.
#[derive(Clone, Debug, Default)]
pub struct StreamsOptions {
    /// JetStream domain. Default none.
    pub domain: Option<String>,
    /// Most bytes of all accounts together. Default no limit.
    pub limits: ServerLimits,
    /// The accounts that may use JetStream, and how much of it. Default all, without limits.
    pub accounts: Option<BTreeMap<AccountName, AccountLimits>>,
    /// What the stores are encrypted with. Default nothing.
    pub encryption: Encryption,
    /// Make root, if nobody is stored who could be it. Default false.
    pub wants_root: bool,
}

impl StreamsOptions {
    /// What an account may use; `None` when it may not use JetStream.
    #[must_use]
    pub fn of(&self, account: &AccountName) -> Option<AccountLimits> {
        match &self.accounts {
            None => Some(AccountLimits::default()),
            Some(accounts) => accounts.get(account).copied(),
        }
    }
}

/// The way from the server to an engine. Made first, because the server wants its hooks, and the
/// engine wants the server; it stays when the engine goes, so that another one can start.
pub struct Streams {
    alarm: Arc<Alarm>,
    queue: Arc<IngestQueue>,
    presence: Arc<Presence>,
    status: Arc<Status>,
    directory: Arc<Directory>,
}

impl Default for Streams {
    fn default() -> Self {
        let alarm = Arc::new(Alarm::default());
        let wake = Arc::clone(&alarm);
        let queue = IngestQueue::new(IngestQueue::LIMIT_BYTES, Arc::new(move || wake.ring()));
        let asked = Arc::clone(&alarm);
        let look = Arc::new(move || asked.ring());
        let presence = Arc::new(Presence::new(Arc::clone(&alarm)));
        Self {
            alarm,
            queue: Arc::new(queue),
            presence,
            status: Arc::new(Status::waking(look)),
            directory: Arc::default(),
        }
    }
}

impl Streams {
    /// What the server has to call.
    #[must_use]
    pub fn hooks(&self) -> Hooks {
        let observer: Arc<dyn ConnectionObserver> = Arc::clone(&self.presence) as _;
        Hooks {
            ingest: Some(Arc::clone(&self.queue)),
            observer: Some(observer),
            directory: Arc::clone(&self.directory),
        }
    }

    /// For a server that has no streams, so far.
    pub(crate) fn stay_off(&self) {
        self.presence.switch(false);
        self.status.switch(false);
    }

    /// Figures for monitoring; they say "not ready" until the engine runs.
    #[must_use]
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Opens the stores in `folder`, replays what the log holds beyond them, and starts the engine
    /// thread. Returns when it is ready to serve.
    ///
    /// # Errors
    /// For people: what is wrong with the folder and what to do.
    pub(crate) fn start(
        &self,
        folder: &Path,
        server: &Arc<Shared>,
        asked: &StreamsOptions,
    ) -> Result<StreamsHandle, StreamsError> {
        // Left by an engine before this one: its numbers of streams may be others.
        self.queue.take(&mut Vec::new());
        let wake = Arc::clone(&self.alarm);
        let store = Store::open(
            folder,
            &StoreOptions {
                encryption: asked.encryption.clone(),
                ..StoreOptions::default()
            },
            Arc::new(move || wake.ring()),
        )
        .map_err(|error| StreamsError(error.to_string()))?;
        self.status
            .watch(store.log.monitor(), store.state.monitor());
        let mut clock = Clock::new();
        let now = clock.now();
        let features = Features {
            msg_ttl: true,
            ..Features::default()
        };
        let options = Options {
            seed: rand::random(),
            stream_bounds: Bounds {
                features,
                ..Bounds::default()
            },
            identity: Identity {
                version: NATS_VERSION.to_owned(),
                level: u32::try_from(API_LEVEL).unwrap_or(0),
            },
            server_name: server.name().to_owned(),
            domain: asked.domain.clone(),
            limits: asked.limits,
            ..Options::default()
        };
        let enforcement = Arc::clone(self.queue.enforcement());
        let schemas = SchemaDesk::new(Arc::clone(&self.alarm), enforcement)
            .map_err(|error| StreamsError(format!("the schema thread cannot start: {error}")))?;
        let passwords = PasswordDesk::new(Arc::clone(&self.alarm))
            .map_err(|error| StreamsError(format!("the password thread cannot start: {error}")))?;
        let directory = Arc::clone(&self.directory);
        let application = StationsDriver::new(schemas, passwords, directory, now);
        let mut engine = Engine::open(store.log, store.state, application, options, now)
            .map_err(|error| StreamsError(format!("{}: {error}", folder.display())))?;
        for (account, limits) in asked.accounts.iter().flatten() {
            engine.set_account_limits(account, *limits);
        }
        clock.not_before(engine.log_time());
        stations::recover(&mut engine, clock.now());
        let first_password = asked
            .wants_root
            .then(|| stations::make_root(&mut engine, clock.now()))
            .flatten();
        let stop = Arc::new(AtomicBool::new(false));
        let leaves = Arc::new(AtomicBool::new(false));
        let status = Arc::clone(&self.status);
        let counters = server.add_counters();
        let routes = Routes::new(server.shared_accounts(), server.route_batch(None, counters));
        let links = Links {
            queue: Arc::clone(&self.queue),
            alarm: Arc::clone(&self.alarm),
            stop: Arc::clone(&stop),
            leaves: Arc::clone(&leaves),
            status: Arc::clone(&status),
            presence: Arc::clone(&self.presence),
        };
        let mut driver = Driver::new(engine, links, clock, routes, server.name().to_owned());
        self.presence.switch(true);
        status.switch(true);
        driver.subscribe(asked);
        let thread = thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                let (log, state) = driver.run();
                if let Err(error) = (Store { state, log }).close() {
                    tracing::error!("the stores did not close cleanly: {error}");
                }
            })
            .map_err(|error| StreamsError(format!("the engine thread cannot start: {error}")))?;
        Ok(StreamsHandle {
            alarm: Arc::clone(&self.alarm),
            stop,
            leaves,
            presence: Arc::clone(&self.presence),
            status,
            folder: folder.to_owned(),
            thread: Some(thread),
            directory: Arc::clone(&self.directory),
            first_password,
        })
    }
}

/// A running engine.
pub struct StreamsHandle {
    alarm: Arc<Alarm>,
    stop: Arc<AtomicBool>,
    /// Clients stay and have no streams any more.
    leaves: Arc<AtomicBool>,
    presence: Arc<Presence>,
    status: Arc<Status>,
    folder: PathBuf,
    thread: Option<JoinHandle<()>>,
    directory: Arc<Directory>,
    /// Of root, who is being made.
    first_password: Option<Secret>,
}

impl StreamsHandle {
    /// Figures for monitoring.
    #[must_use]
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Where the stores are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The password of root, if root has been made by this start; given out once, after root is on
    /// disk.
    ///
    /// # Errors
    /// Root could not be stored.
    pub fn take_first_password(&mut self) -> Result<Option<String>, StreamsError> {
        let Some(password) = self.first_password.take() else {
            return Ok(None);
        };
        if self.directory.wait_for_root(ROOT_TIMEOUT) {
            Ok(Some(password.expose().to_owned()))
        } else {
            Err(StreamsError(
                "the first user could not be stored".to_owned(),
            ))
        }
    }

    /// Finishes what is in flight, closes the stores, and returns when that is done.
    pub fn stop(mut self) {
        self.end();
    }

    /// The same for a server that goes on without streams: nobody listens to what belonged to them.
    pub(crate) fn switch_off(mut self) {
        self.leaves.store(true, Ordering::Release);
        self.end();
        self.presence.switch(false);
        self.status.switch(false);
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.alarm.ring();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the engine thread ended in a panic");
        }
    }
}

impl Drop for StreamsHandle {
    fn drop(&mut self) {
        self.end();
    }
}
