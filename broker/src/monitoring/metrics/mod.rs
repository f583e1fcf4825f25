//! Metrics for Prometheus: `/metrics`.
//!
//! The names are ours, `menes_…`; those of the NATS exporter and of Memphis's come beside them when
//! they are asked for, so that dashboards made for those show data ([`NameSet`]). Numbers are read
//! when somebody scrapes: nothing is kept for it but the counters that count anyway.
//!
//! # Invariants
//!
//! 1. A scrape never holds up the engine: what streams hold is gathered some at a time, between
//!    turns, and a scrape that gets no answer in time shows the totals and says so.
//! 2. The number of series is bounded: by streams and consumers shown, and no label is taken from
//!    what a client may choose freely, but the names of streams and durable consumers.

mod exporter;
mod own;
mod text;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use axum::routing::any;

use self::text::{Format, Page};
use super::Monitor;
use super::query::Query;
use crate::config::settings::{MetricsSettings, NameSet};
use crate::http::{self, Bounds, Pages, RunningHttp};
use crate::streams::status::StreamsStatus;
use crate::tls::Tls;

/// Time for the engine to gather details.
const DETAILS_WAIT: Duration = Duration::from_secs(5);

const BOUNDS: Bounds = Bounds {
    connections: 32,
    head_bytes: 16 * 1024,
    headers: 64,
    head_timeout: Duration::from_secs(75),
    connection_timeout: None,
};

/// Answers scrapers.
#[derive(Debug)]
struct Metrics {
    monitor: Arc<Monitor>,
    settings: MetricsSettings,
}

/// Serves metrics on a thread of its own until the result is dropped, inside TLS if there is one.
pub(crate) fn start(
    listener: std::net::TcpListener,
    monitor: Arc<Monitor>,
    settings: MetricsSettings,
    tls: Option<Arc<Tls>>,
) -> io::Result<RunningHttp> {
    let pages = Pages::of(&monitor.shared.options());
    let metrics = Arc::new(Metrics { monitor, settings });
    let router = Router::new().fallback_service(any(handle).with_state(metrics));
    let bounds = (BOUNDS, pages);
    http::start("menes-metrics", listener, router, tls, bounds, async {})
}

async fn handle(State(metrics): State<Arc<Metrics>>, request: Request) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
    }
    match request.uri().path() {
        "/metrics" => {}
        "/" => return respond("text/plain; charset=utf-8", "metrics are at /metrics\n"),
        _ => return refuse(StatusCode::NOT_FOUND, "metrics are at /metrics"),
    }
    let accept = request.headers().get(header::ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let names = match query.text("names") {
        "" => Ok(metrics.settings.names.clone()),
        asked => NameSet::parse_list(asked),
    };
    let names = match names {
        Ok(names) => names,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error),
    };
    match metrics.page(&names).await.write(format) {
        Ok(text) => respond(format.content_type(), text),
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "no text"),
    }
}

fn respond(content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn refuse(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = respond("text/plain; charset=utf-8", format!("{text}\n"));
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// The streams, as one scrape sees them.
struct Streams {
    status: Arc<StreamsStatus>,
    /// The details are of now.
    is_fresh: bool,
}

impl Metrics {
    async fn page(&self, names: &[NameSet]) -> Page {
        let streams = match self.monitor.streams() {
            None => None,
            Some(status) => {
                let ticket = status.ask_details();
                let status = status.details_for(ticket, DETAILS_WAIT).await;
                let is_fresh = status.answered >= ticket;
                Some(Streams { status, is_fresh })
            }
        };
        let mut families = Vec::new();
        for set in names {
            let more = match set {
                NameSet::Menes => own::families(&self.monitor, streams.as_ref(), &self.settings),
                NameSet::Nats => {
                    let names = exporter::Namespace::NATS;
                    exporter::families(&self.monitor, streams.as_ref(), &self.settings, names)
                }
                NameSet::Memphis => {
                    let names = exporter::Namespace::MEMPHIS;
                    exporter::families(&self.monitor, streams.as_ref(), &self.settings, names)
                }
            };
            families.extend(more);
        }
        Page(families)
    }
}
