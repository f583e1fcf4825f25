//! HTTP around the documents.
//!
//! Everything a stranger sends is bounded: connections, time to send a request, its size. Requests
//! with a body are not read.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use axum::routing::any;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::{Answer, Monitor};
use crate::tls::Tls;

/// Connections served at a time; others wait.
const MAX_CONNECTIONS: usize = 256;
/// Bytes of the head of a request.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// Time for the head of a request, idle time of a kept connection included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Time for a whole connection: nothing here takes long.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// Pause after an accept that failed for want of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves a monitor on a thread of its own until it is dropped.
#[derive(Debug)]
pub(crate) struct RunningMonitor {
    address: SocketAddr,
    /// Dropping it ends the thread.
    _stop: watch::Sender<()>,
}

impl RunningMonitor {
    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Starts serving, inside TLS if there is one.
pub(crate) fn start(
    listener: std::net::TcpListener,
    monitor: Arc<Monitor>,
    tls: Option<Arc<Tls>>,
) -> io::Result<RunningMonitor> {
    let address = listener.local_addr()?;
    monitor.serves_at(address.port(), tls.is_some());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listener = {
        let _context = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let (stop, stopping) = watch::channel(());
    thread::Builder::new()
        .name("menes-monitor".to_owned())
        .spawn(move || {
            runtime.block_on(serve(listener, monitor, tls, stopping));
            // Requests that are under way end with the runtime.
        })?;
    Ok(RunningMonitor {
        address,
        _stop: stop,
    })
}

async fn serve(
    listener: TcpListener,
    monitor: Arc<Monitor>,
    tls: Option<Arc<Tls>>,
    mut stopping: watch::Receiver<()>,
) {
    let router = Router::new().fallback_service(any(handle).with_state(monitor));
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.changed() => return,
        };
        let (stream, _) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!("Monitoring accept error: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let tls = tls.clone();
        tokio::spawn(async move {
            // What goes wrong is between the peer and itself; it has been answered if it could be.
            drop(tokio::time::timeout(CONNECTION_TIMEOUT, converse(stream, tls, service)).await);
            drop(permit);
        });
    }
}

async fn converse(stream: TcpStream, tls: Option<Arc<Tls>>, service: TowerToHyperService<Router>) {
    let mut http = http1::Builder::new();
    http.title_case_headers(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    let outcome = match tls.and_then(|tls| tls.current()) {
        None => http.serve_connection(TokioIo::new(stream), service).await,
        Some(tls) => {
            let limit = tls.options().timeout;
            let handshake = tls.open_acceptor().accept(stream);
            match tokio::time::timeout(limit, handshake).await {
                Ok(Ok(stream)) => http.serve_connection(TokioIo::new(stream), service).await,
                Ok(Err(error)) => {
                    return tracing::debug!("Monitoring TLS handshake error: {error}");
                }
                Err(_) => return tracing::debug!("Monitoring TLS handshake timeout"),
            }
        }
    };
    if let Err(error) = outcome {
        tracing::trace!("Monitoring connection ended: {error}");
    }
}

async fn handle(State(monitor): State<Arc<Monitor>>, request: Request) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = respond(Answer::text(405, "only GET is answered here\n"));
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let uri = request.uri();
    respond(
        monitor
            .answer(uri.path(), uri.query().unwrap_or_default())
            .await,
    )
}

fn respond(answer: Answer) -> Response<Body> {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(answer.content_type),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if answer.content_type == super::JSON {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("*"),
        );
    }
    response
}
