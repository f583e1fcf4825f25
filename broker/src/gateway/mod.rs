//! The REST gateway: stations for those who have nothing but HTTP.
//!
//! Paths, fields and answers are those of the Memphis REST gateway, so programs written for it go
//! on working; this one is inside the broker and acts for the user who logged in, through a client
//! connection of its own ([`crate::inside`]).
//!
//! | Route | Does |
//! |---|---|
//! | `POST /auth/authenticate` | logs in: a token for requests and one to renew it |
//! | `POST /auth/refreshToken` | renews |
//! | `POST /stations/<station>/produce/single` | stores the body as one message |
//! | `POST /stations/<station>/produce/batch` | stores every object of a JSON list |
//! | `POST /stations/<station>/consume/batch` | takes messages for a group, and acknowledges them |
//! | `GET /monitoring/status` | says that it is there |
//!
//! # Invariants
//!
//! 1. "Stored" is said after the broker said it; the messages of a group are acknowledged before
//!    they are handed out.
//! 2. Everything a stranger sends is bounded: the body, the head, the time, the users logged in.
//! 3. The caller's token never gets into a message.

mod consume;
pub(crate) mod produce;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use axum::routing::any;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::http::session::{Credentials, Session, Sessions};
use crate::http::token::Tokens;
use crate::http::{self, Bounds, MAX_LOGIN_BYTES, Pages, Peer, RunningHttp};
use crate::inside::LoginError;
use crate::server::Shared;
use crate::tls::Tls;

/// Largest body.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
/// Time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Minutes that a token holds unless asked otherwise.
const DEFAULT_MINUTES: i64 = 15;
/// Most minutes that a token holds: a month.
const MAX_MINUTES: i64 = 31 * 24 * 60;

const BOUNDS: Bounds = Bounds {
    connections: 1_024,
    head_bytes: 64 * 1024,
    headers: 128,
    head_timeout: Duration::from_secs(75),
    connection_timeout: None,
};

/// What an unreadable login is told.
const BAD_FIELDS: &str = "Some of your fields are not valid it is usually because you are missing \
    some fields or you are sending wrong data types, also please notice that account_id field \
    should be sent as a number rather than a string";

/// The gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    sessions: Sessions,
    access: Tokens,
    refresh: Tokens,
}

/// Starts the gateway on a thread of its own. It ends when the result is dropped.
pub(crate) fn start(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    tls: Option<Arc<Tls>>,
) -> io::Result<RunningHttp> {
    let address = listener.local_addr()?;
    let pages = Pages::of(&shared.options());
    let gateway = Arc::new(Gateway {
        sessions: Sessions::new(shared, address),
        access: Tokens::new(),
        refresh: Tokens::new(),
    });
    let router = Router::new().fallback_service(any(handle).with_state(Arc::clone(&gateway)));
    let expiry = async move { gateway.sessions.expire().await };
    http::start("menes-rest", listener, router, tls, (BOUNDS, pages), expiry)
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    body: Content,
}

#[derive(Debug)]
enum Content {
    Json(Value),
    Text(String),
}

impl Answer {
    fn json(status: u16, value: Value) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            body: Content::Json(value),
        }
    }

    fn text(status: u16, text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            body: Content::Text(text.into()),
        }
    }

    fn message(status: u16, text: &str) -> Self {
        Self::json(status, json!({ "message": text }))
    }

    fn unauthorized() -> Self {
        Self::message(401, "Unauthorized")
    }

    /// Nothing was done, or not all of it.
    fn failed(status: u16, error: impl Into<Value>) -> Self {
        Self::json(status, json!({ "success": false, "error": error.into() }))
    }

    fn done() -> Self {
        Self::json(200, json!({ "success": true, "error": null }))
    }
}

impl From<LoginError> for Answer {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Refused => Self::unauthorized(),
            LoginError::Unavailable(reason) => {
                tracing::warn!("REST gateway: a user cannot log in: {reason}");
                Self::message(500, "Server error")
            }
        }
    }
}

async fn handle(State(gateway): State<Arc<Gateway>>, request: Request) -> Response<Body> {
    let asked = request
        .headers()
        .get(header::ACCESS_CONTROL_REQUEST_HEADERS)
        .cloned();
    let mut response = if request.method() == Method::OPTIONS {
        preflight(asked)
    } else {
        let is_head = request.method() == Method::HEAD;
        let answer = gateway
            .answer(request)
            .await
            .unwrap_or_else(|answer| answer);
        respond(answer, is_head)
    };
    response.headers_mut().insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    response
}

/// What a browser asks before it lets a page ask.
fn preflight(headers: Option<HeaderValue>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let fields = response.headers_mut();
    fields.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET,POST,HEAD,PUT,DELETE,PATCH"),
    );
    if let Some(headers) = headers {
        fields.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, headers);
    }
    response
}

fn respond(answer: Answer, is_head: bool) -> Response<Body> {
    let (kind, text) = match answer.body {
        Content::Json(value) => ("application/json", value.to_string()),
        Content::Text(text) => ("text/plain; charset=utf-8", text),
    };
    let body = if is_head {
        Body::empty()
    } else {
        Body::from(text)
    };
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    fields.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LoginBody {
    username: Option<String>,
    password: Option<String>,
    connection_token: Option<String>,
    account_id: Option<i64>,
    token_expiry_in_minutes: Option<i64>,
    refresh_token_expiry_in_minutes: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RefreshBody {
    jwt_refresh_token: Option<String>,
    token_expiry_in_minutes: Option<i64>,
    refresh_token_expiry_in_minutes: Option<i64>,
}

#[derive(Debug, Serialize)]
struct TokensBody {
    jwt: String,
    expires_in: i64,
    jwt_refresh_token: String,
    refresh_token_expires_in: i64,
}

/// The minutes asked for, bounded.
fn minutes(asked: Option<i64>) -> i64 {
    match asked {
        Some(minutes) if minutes > 0 => minutes.min(MAX_MINUTES),
        _ => DEFAULT_MINUTES,
    }
}

fn duration(minutes: i64) -> Duration {
    Duration::from_secs(minutes.unsigned_abs() * 60)
}

impl Gateway {
    async fn answer(&self, request: Request) -> Result<Answer, Answer> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_lowercase();
        let trimmed = path.trim_matches('/');
        let segments: Vec<&str> = trimmed.split('/').collect();
        let query = head.uri.query().unwrap_or_default();
        let peer = head.extensions.get::<Peer>();
        let peer = peer.map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |peer| peer.0);
        match (&head.method, segments.as_slice()) {
            (&Method::POST, ["auth", "authenticate"]) => {
                return self
                    .authenticate(&read(body, MAX_LOGIN_BYTES).await?, query, peer)
                    .await;
            }
            (&Method::POST, ["auth", "refreshtoken"]) => {
                return self.renew(&read(body, MAX_LOGIN_BYTES).await?).await;
            }
            (&(Method::GET | Method::HEAD), ["monitoring", "status"]) => {
                return Ok(Answer::json(200, json!({ "status": "ok" })));
            }
            _ => {}
        }
        let unknown = || Answer::text(404, format!("Cannot {} {}", head.method, head.uri.path()));
        if trimmed.is_empty() {
            return Err(unknown());
        }
        let session = self
            .bearer(&head.headers, query)
            .and_then(|token| self.access.session(&token))
            .and_then(|id| self.sessions.find(&id))
            .ok_or_else(Answer::unauthorized)?;
        if head.method != Method::POST {
            return Err(unknown());
        }
        let ["stations", station, what, how] = segments.as_slice() else {
            return Err(unknown());
        };
        let station = percent_decoded(station)
            .filter(|name| menes_stations::name::StationName::parse(name).is_ok());
        let call = Call {
            gateway: self,
            session,
            station: station.unwrap_or_default(),
            headers: &head.headers,
        };
        match (*what, *how) {
            ("produce", "single") => call.produce_single(read(body, MAX_BODY_BYTES).await?).await,
            ("produce", "batch") => call.produce_batch(&read(body, MAX_BODY_BYTES).await?).await,
            ("consume", "batch") => call.consume_batch(&read(body, MAX_BODY_BYTES).await?).await,
            _ => Err(unknown()),
        }
    }

    /// The token of a request, from its header or, without one, from its query.
    fn bearer(&self, headers: &HeaderMap, query: &str) -> Option<String> {
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let mut words = value.to_str().ok()?.split(' ');
            let (_, token, end) = (words.next()?, words.next()?, words.next());
            return end.is_none().then(|| token.to_owned());
        }
        parameter(query, "authorization")
    }

    async fn authenticate(
        &self,
        body: &[u8],
        query: &str,
        peer: SocketAddr,
    ) -> Result<Answer, Answer> {
        let asked: LoginBody = http::object(body).map_err(|_| Answer::message(400, BAD_FIELDS))?;
        let Some(username) = asked.username.filter(|name| !name.is_empty()) else {
            let missing = json!({"message": [{"field": "Username", "reason": "required"}]});
            return Err(Answer::json(400, missing));
        };
        let account = asked.account_id.filter(|id| *id != 0);
        let account = account.or_else(|| parameter(query, "accountid")?.parse().ok());
        let user = match account {
            Some(id) if !username.contains('$') => format!("{username}${id}"),
            _ => username,
        };
        let (access, refresh) = (
            minutes(asked.token_expiry_in_minutes),
            minutes(asked.refresh_token_expiry_in_minutes),
        );
        let credentials = Credentials {
            user,
            password: asked.password.unwrap_or_default(),
            token: asked.connection_token.unwrap_or_default(),
        };
        let lifetime = duration(access.max(refresh));
        let session = self.sessions.log_in(credentials, lifetime, peer).await?;
        Ok(self.tokens(&session, access, refresh))
    }

    async fn renew(&self, body: &[u8]) -> Result<Answer, Answer> {
        let asked: RefreshBody =
            http::object(body).map_err(|_| Answer::message(500, "Server error"))?;
        let session = asked
            .jwt_refresh_token
            .and_then(|token| self.refresh.session(&token))
            .and_then(|id| self.sessions.find(&id))
            .ok_or_else(Answer::unauthorized)?;
        // The user may be gone, or have another password.
        session.inside(&self.sessions).await?;
        let (access, refresh) = (
            minutes(asked.token_expiry_in_minutes),
            minutes(asked.refresh_token_expiry_in_minutes),
        );
        self.sessions
            .extend(&session, duration(access.max(refresh)));
        Ok(self.tokens(&session, access, refresh))
    }

    fn tokens(&self, session: &Session, access: i64, refresh: i64) -> Answer {
        let body = TokensBody {
            jwt: self.access.sign(&session.id, duration(access)),
            // Milliseconds.
            expires_in: access * 60_000,
            jwt_refresh_token: self.refresh.sign(&session.id, duration(refresh)),
            refresh_token_expires_in: refresh * 60_000,
        };
        Answer::json(200, json!(body))
    }
}

/// A request of a user who is logged in.
struct Call<'a> {
    gateway: &'a Gateway,
    session: Arc<Session>,
    /// Name as it came; empty if it is none.
    station: String,
    headers: &'a HeaderMap,
}

/// Reads a body that is not too large and does not take too long.
async fn read(body: Body, most: usize) -> Result<Bytes, Answer> {
    let whole = Limited::new(body, most).collect();
    match tokio::time::timeout(BODY_TIMEOUT, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Answer::text(413, "Request Entity Too Large"))
        }
        Ok(Err(_)) => Err(Answer::text(400, "Bad Request")),
        Err(_) => Err(Answer::text(408, "Request Timeout")),
    }
}

/// The value of a parameter, by its name in any case.
fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut named = pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name));
    percent_decoded(named.next()?.1)
}

fn percent_decoded(text: &str) -> Option<String> {
    let decoded = percent_decode_str(text).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minutes_of_a_token_are_bounded() {
        for (asked, given) in [
            (None, 15),
            (Some(0), 15),
            (Some(-1), 15),
            (Some(1), 1),
            (Some(i64::MAX), MAX_MINUTES),
        ] {
            assert_eq!(minutes(asked), given);
        }
    }

    #[test]
    fn parameters_are_found_by_name_in_any_case() {
        assert_eq!(
            parameter("a=1&accountId=%32", "accountid").as_deref(),
            Some("2")
        );
        assert_eq!(parameter("a=1&b", "b"), None);
        assert_eq!(parameter("a=%e4", "a"), None);
        assert_eq!(parameter("", "a"), None);
    }
}
