//! HTTP around the documents.
//!
//! Everything a stranger sends is bounded: connections, time to send a request, its size. Requests
//! with a body are not read.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use axum::routing::any;

use super::{Answer, Monitor};
use crate::http::{self, Bounds, Pages, RunningHttp};
use crate::tls::Tls;

const BOUNDS: Bounds = Bounds {
    connections: 256,
    head_bytes: 16 * 1024,
    headers: 64,
    head_timeout: Duration::from_secs(15),
    // Nothing here takes long.
    connection_timeout: Some(Duration::from_secs(300)),
};

/// Serves a monitor on a thread of its own until the result is dropped, inside TLS if there is one.
pub(crate) fn start(
    listener: std::net::TcpListener,
    monitor: Arc<Monitor>,
    tls: Option<Arc<Tls>>,
) -> io::Result<RunningHttp> {
    monitor.serves_at(listener.local_addr()?.port(), tls.is_some());
    let pages = Pages::of(&monitor.shared.options());
    let router = Router::new().fallback_service(any(handle).with_state(monitor));
    let bounds = (BOUNDS, pages);
    http::start("menes-monitor", listener, router, tls, bounds, async {})
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
