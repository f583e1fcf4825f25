//! The monitoring endpoints of nats-server: what the server is doing, over HTTP, for anyone who may
//! connect to the port.
//!
//! [`Monitor::answer`] turns a path and a query into a document; [`http`] carries it. Names, order
//! and omissions of the JSON are those of nats-server, because exporters and the `nats` tool read
//! them.
//!
//! # Invariants
//!
//! 1. Nothing is changed through here: only GET and HEAD are answered.
//! 2. No document holds a password, a token, a payload or the command line.
//! 3. It runs on a thread of its own and takes no lock for longer than one connection or one
//!    subscription tree takes to read: monitoring cannot hold up messages.

mod accounts;
mod connz;
mod healthz;
mod http;
mod jsz;
mod links;
mod metrics;
mod process;
mod query;
mod sharing;
mod subsz;
pub(crate) mod text;
mod varz;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use menes_jetstream::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;

pub(crate) use self::accounts::{AccountStat, DataStats};
use self::accounts::{AccountzOptions, AccstatzOptions};
use self::connz::ConnzOptions;
use self::healthz::HealthzOptions;
pub(crate) use self::http::start;
use self::jsz::JszOptions;
pub(crate) use self::metrics::start as start_metrics;
use self::process::Process;
use self::query::{Query, QueryError};
use self::subsz::SubszOptions;
pub(crate) use self::varz::ServerStats;
use crate::account::Account;
use crate::config::settings::{JetStreamSettings, Settings};
use crate::http::{HttpCounts, RunningHttp};
use crate::server::Shared;
use crate::streams::status::{Status, StreamsStatus};

/// Time for the engine to gather details.
const DETAILS_WAIT: Duration = Duration::from_secs(2);
/// Entries of a list, unless asked otherwise.
const DEFAULT_LIMIT: usize = 1024;

/// Answers questions about a server.
#[derive(Debug)]
pub(crate) struct Monitor {
    shared: Arc<Shared>,
    /// `None` where JetStream is off.
    status: Option<Arc<Status>>,
    loaded: ArcSwap<Loaded>,
    base_path: String,
    http_host: String,
    /// The port taken, once there is one.
    http_port: AtomicU16,
    /// The same inside TLS.
    https_port: AtomicU16,
    started: Timestamp,
    process: Process,
    /// Requests by path.
    requests: Mutex<BTreeMap<&'static str, u64>>,
    /// What is served over HTTP, by name.
    faces: Mutex<Vec<(&'static str, Arc<HttpCounts>)>>,
}

/// What the settings say, until they are read again.
#[derive(Debug)]
struct Loaded {
    /// When they were read.
    at: Timestamp,
    digest: String,
    jetstream: Option<JetStreamSettings>,
    /// The accounts that were given streams; none stands for all.
    jetstream_accounts: Vec<String>,
}

impl Loaded {
    fn of(settings: &Settings) -> Self {
        Self {
            at: now(),
            digest: settings.config_digest.clone().unwrap_or_default(),
            jetstream: settings.jetstream.clone(),
            jetstream_accounts: settings.jetstream_accounts.clone(),
        }
    }
}

/// A document that can be asked for in the account of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Varz,
    Connz,
    Subsz,
    Routez,
    Gatewayz,
    Leafz,
    Accountz,
    AccountInfo,
    AccountStatz,
    AccountJsz,
    Jsz,
    Healthz,
    Expvarz,
    Ipqueuesz,
    Raftz,
}

/// Why there is no document. The texts are for people.
#[derive(Debug, Error)]
pub(crate) enum DocumentError {
    /// The options are no options.
    #[error("{0}")]
    Options(serde_json::Error),
    /// They ask for what there is not.
    #[error("{0}")]
    Meaning(#[from] QueryError),
    /// The document cannot be written.
    #[error("{0}")]
    Document(serde_json::Error),
}

fn read<T: DeserializeOwned + Default>(options: Value) -> Result<T, DocumentError> {
    if options.is_null() {
        return Ok(T::default());
    }
    serde_json::from_value(options).map_err(DocumentError::Options)
}

fn raw(document: &impl Serialize) -> Result<Option<Box<RawValue>>, DocumentError> {
    serde_json::value::to_raw_value(document)
        .map(Some)
        .map_err(DocumentError::Document)
}

/// What waits in a queue.
#[derive(Serialize)]
struct Pending {
    pending: usize,
}

#[derive(Serialize)]
struct Expvarz {
    cmdline: [&'static str; 1],
    memstats: MemStats,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct MemStats {
    alloc: u64,
    sys: u64,
    heap_alloc: u64,
    heap_sys: u64,
}

/// A document, or why there is none.
#[derive(Debug)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// Media type.
    pub(crate) content_type: &'static str,
    /// The document.
    pub(crate) body: Vec<u8>,
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

impl Answer {
    /// Indented, as people read it.
    fn json(document: &impl Serialize) -> Self {
        Self::of(200, serde_json::to_vec_pretty(document))
    }

    fn compact(status: u16, document: &impl Serialize) -> Self {
        Self::of(status, serde_json::to_vec(document))
    }

    fn of(status: u16, body: serde_json::Result<Vec<u8>>) -> Self {
        match body {
            Ok(body) => Self {
                status,
                content_type: JSON,
                body,
            },
            Err(error) => Self::text(500, &format!("the document cannot be written: {error}")),
        }
    }

    fn text(status: u16, text: &str) -> Self {
        Self {
            status,
            content_type: TEXT,
            body: text.as_bytes().to_vec(),
        }
    }
}

/// The pages, and what they are called on the first one.
const PAGES: &[(&str, &str)] = &[
    ("/varz", "General"),
    ("/jsz", "JetStream"),
    ("/connz", "Connections"),
    ("/accountz", "Accounts"),
    ("/accstatz", "Account statistics"),
    ("/subsz", "Subscriptions"),
    ("/routez", "Routes"),
    ("/leafz", "Leaf nodes"),
    ("/gatewayz", "Gateways"),
    ("/healthz", "Health"),
    ("/raftz", "Raft groups"),
    ("/ipqueuesz", "Queues"),
    ("/debug/vars", "Expvar"),
    ("/stacksz", "Threads"),
];

impl Monitor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        settings: &Settings,
        status: Option<Arc<Status>>,
    ) -> Self {
        Self {
            status,
            loaded: ArcSwap::from_pointee(Loaded::of(settings)),
            base_path: settings.http_base_path.clone(),
            http_host: settings
                .monitor
                .as_ref()
                .or(settings.secure_monitor.as_ref())
                .map(|at| at.host.clone())
                .unwrap_or_default(),
            http_port: AtomicU16::new(0),
            https_port: AtomicU16::new(0),
            started: now(),
            process: Process::new(shared.started()),
            requests: Mutex::default(),
            faces: Mutex::default(),
            shared,
        }
    }

    /// Figures of the streams, where there are any.
    pub(super) fn streams(&self) -> Option<&Arc<Status>> {
        self.status.as_ref().filter(|status| status.is_on())
    }

    /// Shows settings that were read again. What the start made of them stays.
    pub(crate) fn reload(&self, settings: &Settings) {
        let mut fresh = Loaded::of(settings);
        let before = self.loaded.load();
        if let (Some(now), Some(before)) = (&mut fresh.jetstream, &before.jetstream) {
            now.store_dir.clone_from(&before.store_dir);
            now.max_memory = now.max_memory.or(before.max_memory);
            now.max_file = now.max_file.or(before.max_file);
        }
        self.loaded.store(Arc::new(fresh));
    }

    /// Shows what is answered by something served over HTTP, under this name.
    pub(crate) fn watch(&self, name: &'static str, running: &RunningHttp) {
        self.faces.lock().push((name, Arc::clone(running.counts())));
    }

    /// Most bytes in memory streams.
    pub(crate) fn max_memory(&self) -> Option<u64> {
        self.loaded.load().jetstream.as_ref()?.max_memory
    }

    /// Where HTTP is served, for varz.
    fn serves_at(&self, port: u16, is_secure: bool) {
        let place = if is_secure {
            &self.https_port
        } else {
            &self.http_port
        };
        place.store(port, Ordering::Relaxed);
    }

    /// What a GET of `path` shows.
    pub(crate) async fn answer(&self, path: &str, query: &str) -> Answer {
        let Some(path) = path.strip_prefix(self.base_path.as_str()) else {
            return not_found();
        };
        let path = match path {
            "" | "/" => "/",
            "/subscriptionsz" => "/subsz",
            path => match PAGES.iter().find(|(page, _)| *page == path) {
                Some((page, _)) => page,
                None => return not_found(),
            },
        };
        *self.requests.lock().entry(path).or_default() += 1;
        match self.page(path, &Query::parse(query)).await {
            Ok(answer) => answer,
            Err(error) => Answer::text(400, &error.to_string()),
        }
    }

    async fn page(&self, path: &'static str, query: &Query) -> Result<Answer, QueryError> {
        Ok(match path {
            "/" => self.index(),
            "/varz" => Answer::json(&self.varz()),
            "/connz" => Answer::json(&self.connz(&ConnzOptions::of_query(query)?)?),
            "/subsz" => Answer::json(&self.subsz(&SubszOptions::of_query(query)?)?),
            "/routez" => {
                query.subscriptions()?;
                Answer::json(&self.routez())
            }
            "/gatewayz" => {
                query.flag("accs")?;
                Answer::json(&self.gatewayz())
            }
            "/leafz" => {
                query.flag("subs")?;
                Answer::json(&self.leafz())
            }
            "/accountz" => Answer::json(&self.accountz(&AccountzOptions::of_query(query))?),
            "/accstatz" => Answer::json(&self.accstatz(&AccstatzOptions::of_query(query)?)),
            "/jsz" => match self.jsz(&JszOptions::of_query(query)?).await {
                Some(document) => Answer::json(&document),
                None => Answer::text(400, "filtered response: not leader"),
            },
            "/healthz" => {
                let health = self.healthz(&HealthzOptions::of_query(query)?).await;
                Answer::compact(health.http_status(), &health)
            }
            "/raftz" => Answer::text(404, "No Raft nodes registered"),
            "/ipqueuesz" => Answer::compact(200, &self.ipqueuesz()),
            "/debug/vars" => Answer {
                content_type: "application/json; charset=utf-8",
                ..Answer::json(&self.expvarz())
            },
            "/stacksz" => Answer::text(200, &process::threads()),
            _ => not_found(),
        })
    }

    /// Queues between threads, by name, that something waits in.
    fn ipqueuesz(&self) -> BTreeMap<&'static str, Pending> {
        let mut queues = BTreeMap::new();
        if let Some(ingest) = self.shared.ingest() {
            let pending = ingest.bytes();
            if pending > 0 {
                queues.insert("Ingest bytes", Pending { pending });
            }
        }
        queues
    }

    /// What Go's runtime tells of itself, as far as it means something here.
    fn expvarz(&self) -> Expvarz {
        let memory = self.process.memory();
        Expvarz {
            // The arguments may hold a password.
            cmdline: ["menes"],
            memstats: MemStats {
                alloc: memory,
                sys: memory,
                heap_alloc: memory,
                heap_sys: memory,
            },
        }
    }

    /// The answer to a system request, as compact JSON; `None` where this server keeps silent.
    ///
    /// # Errors
    /// What is wrong with the options.
    pub(crate) async fn document(
        &self,
        asked: Endpoint,
        options: Value,
        account: Option<&str>,
    ) -> Result<Option<Box<RawValue>>, DocumentError> {
        let named = |name: &mut String| {
            if let Some(account) = account {
                account.clone_into(name);
            }
        };
        match asked {
            Endpoint::Varz => raw(&self.varz()),
            Endpoint::Connz => {
                let mut options: ConnzOptions = read(options)?;
                named(&mut options.account);
                raw(&self.connz(&options)?)
            }
            Endpoint::Subsz => {
                let mut options: SubszOptions = read(options)?;
                options.subscriptions |= account.is_some();
                named(&mut options.account);
                raw(&self.subsz(&options)?)
            }
            Endpoint::Routez => raw(&self.routez()),
            Endpoint::Gatewayz => raw(&self.gatewayz()),
            Endpoint::Leafz => raw(&self.leafz()),
            Endpoint::Accountz => raw(&self.accountz(&read(options)?)?),
            Endpoint::AccountInfo => raw(&self.account_info(account.unwrap_or_default())?),
            Endpoint::AccountStatz => {
                let mut options: AccstatzOptions = read(options)?;
                options.accounts.extend(account.map(ToOwned::to_owned));
                let document = self.accstatz(&options);
                if document.is_empty() && !options.include_unused {
                    return Ok(None);
                }
                raw(&document)
            }
            Endpoint::AccountJsz => {
                let mut options: JszOptions = read(options)?;
                named(&mut options.account);
                raw(&self.account_jsz(&options).await?)
            }
            Endpoint::Jsz => match self.jsz(&read(options)?).await {
                Some(document) => raw(&document),
                None => Ok(None),
            },
            Endpoint::Healthz => raw(&self.healthz(&read(options)?).await.with_code()),
            Endpoint::Expvarz => raw(&self.expvarz()),
            Endpoint::Ipqueuesz => raw(&self.ipqueuesz()),
            Endpoint::Raftz => Ok(Some(RawValue::NULL.to_owned())),
        }
    }

    /// A page with links to the others.
    fn index(&self) -> Answer {
        let mut page = "<!DOCTYPE html>\n<html lang=\"en\">\n<head><title>Menes</title></head>\n\
                        <body>\n<h1>Menes</h1>\n<ul>\n"
            .to_owned();
        for (path, name) in PAGES {
            // Relative, so that they work behind a base path and behind a proxy.
            page.push_str(&format!("<li><a href=\".{path}\">{name}</a></li>\n"));
        }
        page.push_str("</ul>\n</body>\n</html>\n");
        Answer {
            status: 200,
            content_type: "text/html; charset=utf-8",
            body: page.into_bytes(),
        }
    }

    /// Whether an account may have streams.
    fn may_have_streams(&self, account: &Account) -> bool {
        let loaded = self.loaded.load();
        let chosen = &loaded.jetstream_accounts;
        let is_chosen = |name: &String| name == account.name().as_str();
        !account.is_system() && (chosen.is_empty() || chosen.iter().any(is_chosen))
    }

    /// The accounts that may have streams, by name.
    fn accounts_with_streams(&self) -> Vec<Arc<Account>> {
        let mut accounts = self.shared.accounts().all();
        accounts.retain(|account| self.may_have_streams(account));
        accounts
    }

    /// The latest of the streams, with details.
    async fn details(&self) -> Option<Arc<StreamsStatus>> {
        let status = self.streams()?;
        Some(status.details_for(status.ask_details(), DETAILS_WAIT).await)
    }
}

fn not_found() -> Answer {
    Answer::text(404, "404 page not found\n")
}

fn now() -> Timestamp {
    timestamp(SystemTime::now())
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::ZERO.plus(since)
}

#[cfg(test)]
mod tests;
