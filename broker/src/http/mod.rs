//! HTTP around what answers: listening, TLS, and bounds on what a stranger may take up.
//!
//! Each face of the server over HTTP has a thread of its own, so that none can hold up messages or
//! another face.

pub(crate) mod pulling;
pub(crate) mod session;
pub(crate) mod token;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router, middleware};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::config::options::Options;
use crate::tls::Tls;

/// Pause after an accept that failed for want of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Largest body of a request that anyone may make: a login, or the renewal of one.
pub(crate) const MAX_LOGIN_BYTES: usize = 128 * 1024;

/// What connections may take up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Connections served at a time; others wait.
    pub(crate) connections: usize,
    /// Bytes of the head of a request.
    pub(crate) head_bytes: usize,
    /// Headers of a request.
    pub(crate) headers: usize,
    /// Time for the head of a request, idle time of a kept connection included.
    pub(crate) head_timeout: Duration,
    /// Time for a whole connection.
    pub(crate) connection_timeout: Option<Duration>,
}

/// Reads a JSON object.
///
/// # Errors
/// Anything else, lists included.
pub(crate) fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    let fields: Map<String, Value> = serde_json::from_slice(body)?;
    serde_json::from_value(Value::Object(fields))
}

/// Where a request comes from, among its extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Requests answered, by the first digit of their status.
#[derive(Debug, Default)]
pub(crate) struct HttpCounts([AtomicU64; 5]);

impl HttpCounts {
    fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100);
        if let Some(count) = class.checked_sub(1).and_then(|class| self.0.get(class)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Those with 1xx, 2xx, 3xx, 4xx and 5xx.
    pub(crate) fn by_class(&self) -> [u64; 5] {
        std::array::from_fn(|class| self.0[class].load(Ordering::Relaxed))
    }
}

/// A face that is served until this is dropped.
#[derive(Debug)]
pub(crate) struct RunningHttp {
    address: SocketAddr,
    counts: Arc<HttpCounts>,
    /// Dropping it ends the thread.
    _stop: watch::Sender<()>,
}

impl RunningHttp {
    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has answered.
    pub(crate) fn counts(&self) -> &Arc<HttpCounts> {
        &self.counts
    }
}

/// Which pages may have a browser ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    /// Those that the face itself lets.
    Any,
    /// Those of this machine, by a name of this machine; only where the listener is on loopback.
    Local,
}

impl Pages {
    pub(crate) fn of(options: &Options) -> Self {
        if options.local_pages {
            Self::Local
        } else {
            Self::Any
        }
    }
}

/// What is wrong with a request that only pages of this machine may make.
fn strange(request: &Request) -> Option<String> {
    let text = |name| {
        request
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap_or_default())
    };
    let host = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    // A browser always names the host.
    if let Some(host) = host.or_else(|| text(header::HOST))
        && !menes_ws::is_local_host(host)
    {
        return Some(format!("{host:?} is not a name of this machine"));
    }
    let page = text(header::ORIGIN)?;
    let is_own = menes_ws::Origin::parse(page).is_ok_and(|page| page.is_local());
    (!is_own).then(|| format!("page {page:?} is not of this machine"))
}

async fn only_local(request: Request, next: Next) -> Response {
    let Some(why) = strange(&request) else {
        return next.run(request).await;
    };
    let fix = "ask for localhost; with users, `menes serve` answers others";
    let document = json!({"code": "E-API-HOST", "detail": why, "message": why, "fix": fix});
    (StatusCode::FORBIDDEN, Json(document)).into_response()
}

/// Starts serving `router` on a thread called `name`, inside TLS if there is one. `beside` runs on
/// the same thread for as long.
pub(crate) fn start(
    name: &'static str,
    listener: std::net::TcpListener,
    router: Router,
    tls: Option<Arc<Tls>>,
    (bounds, pages): (Bounds, Pages),
    beside: impl Future<Output = ()> + Send + 'static,
) -> io::Result<RunningHttp> {
    let address = meant(&listener)?;
    let router = if pages == Pages::Local && address.ip().is_loopback() {
        router.layer(middleware::from_fn(only_local))
    } else {
        router
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listener = {
        let _context = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let counts = Arc::new(HttpCounts::default());
    let counted = Arc::clone(&counts);
    let router = router.layer(middleware::map_response(move |answer: Response| {
        counted.count(answer.status());
        std::future::ready(answer)
    }));
    let (stop, stopping) = watch::channel(());
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            runtime.spawn(beside);
            runtime.block_on(serve(listener, router, tls, bounds, stopping));
            // Requests that are under way end with the runtime.
        })?;
    Ok(RunningHttp {
        address,
        counts,
        _stop: stop,
    })
}

/// Where a listener listens, as it was asked for: one for both IPv4 and IPv6 was asked for as
/// `0.0.0.0`.
fn meant(listener: &std::net::TcpListener) -> io::Result<SocketAddr> {
    let mut address = listener.local_addr()?;
    if address.ip() == Ipv6Addr::UNSPECIFIED && !SockRef::from(listener).only_v6()? {
        address.set_ip(Ipv4Addr::UNSPECIFIED.into());
    }
    Ok(address)
}

async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<Tls>>,
    bounds: Bounds,
    mut stopping: watch::Receiver<()>,
) {
    let permits = Arc::new(Semaphore::new(bounds.connections));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.changed() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!("HTTP accept error: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone().layer(Extension(Peer(peer))));
        let tls = tls.clone();
        tokio::spawn(async move {
            let conversation = converse(stream, tls, service, bounds);
            // What goes wrong is between the peer and itself; it has been answered if it could be.
            match bounds.connection_timeout {
                Some(limit) => drop(tokio::time::timeout(limit, conversation).await),
                None => conversation.await,
            }
            drop(permit);
        });
    }
}

async fn converse(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    service: TowerToHyperService<Router>,
    bounds: Bounds,
) {
    let mut http = http1::Builder::new();
    http.title_case_headers(true)
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .max_buf_size(bounds.head_bytes)
        .max_headers(bounds.headers);
    let outcome = match tls.and_then(|tls| tls.current()) {
        None => http.serve_connection(TokioIo::new(stream), service).await,
        Some(tls) => {
            let limit = tls.options().timeout;
            let handshake = tls.open_acceptor().accept(stream);
            match tokio::time::timeout(limit, handshake).await {
                Ok(Ok(stream)) => http.serve_connection(TokioIo::new(stream), service).await,
                Ok(Err(error)) => return tracing::debug!("HTTP TLS handshake error: {error}"),
                Err(_) => return tracing::debug!("HTTP TLS handshake timeout"),
            }
        }
    };
    if let Err(error) = outcome {
        tracing::trace!("HTTP connection ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, headers: &[(header::HeaderName, &str)]) -> Request {
        let mut request = axum::http::Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        request.body(axum::body::Body::empty()).expect("a request")
    }

    #[test]
    fn a_name_that_leads_here_does_not_make_a_page_one_of_this_machine() {
        let (host, origin) = (header::HOST, header::ORIGIN);
        for (target, headers) in [
            ("/", vec![]),
            ("/", vec![(host.clone(), "127.0.0.1:9000")]),
            (
                "http://localhost:9000/",
                vec![(host.clone(), "evil.example")],
            ),
            (
                "/",
                vec![
                    (host.clone(), "[::1]:9000"),
                    (origin.clone(), "http://localhost:3000"),
                ],
            ),
        ] {
            assert_eq!(
                strange(&request(target, &headers)),
                None,
                "{target} {headers:?}"
            );
        }
        for (target, headers) in [
            ("/", vec![(host.clone(), "evil.example:9000")]),
            ("http://evil.example/", vec![(host.clone(), "localhost")]),
            (
                "/",
                vec![
                    (host.clone(), "localhost"),
                    (origin.clone(), "https://evil.example"),
                ],
            ),
            ("/", vec![(host.clone(), "localhost"), (origin, "null")]),
            ("/", vec![(host, "")]),
        ] {
            assert!(
                strange(&request(target, &headers)).is_some(),
                "{target} {headers:?}"
            );
        }
    }

    #[test]
    fn a_listener_for_everything_is_shown_as_it_was_asked_for() {
        for (host, shown) in [("0.0.0.0", "0.0.0.0"), ("127.0.0.1", "127.0.0.1")] {
            let (listener, own) = crate::listener::bind(host, 0).expect("a free port");
            let address = meant(&listener).expect("an address");
            assert_eq!((address, address.ip().to_string()), (own, shown.to_owned()));
        }
    }
}
