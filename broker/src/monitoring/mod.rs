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
mod process;
mod query;
mod subsz;
mod text;
mod varz;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use menes_jetstream::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;

pub(crate) use self::http::{RunningMonitor, start};
use self::process::Process;
use self::query::{Query, QueryError};
use crate::config::settings::{JetStreamSettings, Settings};
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
    jetstream: Option<JetStreamSettings>,
    base_path: String,
    http_host: String,
    http_port: u16,
    config_digest: String,
    started: Timestamp,
    process: Process,
    /// Requests by path.
    requests: Mutex<BTreeMap<&'static str, u64>>,
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
];

impl Monitor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        settings: &Settings,
        status: Option<Arc<Status>>,
    ) -> Self {
        Self {
            status,
            jetstream: settings.jetstream.clone(),
            base_path: settings.http_base_path.clone(),
            http_host: settings
                .monitor
                .as_ref()
                .map(|at| at.host.clone())
                .unwrap_or_default(),
            http_port: 0,
            config_digest: settings.config_digest.clone().unwrap_or_default(),
            started: now(),
            process: Process::new(shared.started()),
            requests: Mutex::default(),
            shared,
        }
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
            "/connz" => Answer::json(&self.connz(query)?),
            "/subsz" => Answer::json(&self.subsz(query)?),
            "/routez" => Answer::json(&self.routez()),
            "/gatewayz" => Answer::json(&self.gatewayz()),
            "/leafz" => Answer::json(&self.leafz()),
            "/accountz" => Answer::json(&self.accountz(query)?),
            "/accstatz" => Answer::json(&self.accstatz(query)?),
            "/jsz" => Answer::json(&self.jsz(query).await?),
            "/healthz" => {
                let health = self.healthz(query).await?;
                Answer::compact(health.http_status(), &health)
            }
            "/raftz" => Answer::text(404, "No Raft nodes registered"),
            "/ipqueuesz" => Answer::compact(200, &BTreeMap::<String, u64>::new()),
            _ => not_found(),
        })
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

    /// The latest of the streams, with details.
    async fn details(&self) -> Option<Arc<StreamsStatus>> {
        let status = self.status.as_ref()?;
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
