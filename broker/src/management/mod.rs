//! The management API: `/api/v1` over HTTP.
//!
//! Nearly every route is one request to the broker's own interface below `$MENES.API.`, made
//! through a connection of the user who asks ([`crate::inside`]): nothing can be done here that
//! cannot be done there, and nobody may do here what they may not do there. [`routes`] is the one
//! table of both, and the OpenAPI document is written from it. [`messages`] and [`events`] are what
//! is not one request; [`memphis`] speaks the older routes below `/api/`.
//!
//! A user is whoever the `Authorization` header says: a bearer token from `POST /api/v1/sessions`,
//! or a name and a password (`Basic`); or the cookie that came with the token. Where the server
//! lets anyone in, so does this.
//!
//! # Invariants
//!
//! 1. No page of another site can have a browser change anything: a POST comes with a type that no
//!    form has, the cookie is only for pages of this site, and no other site is allowed to ask for
//!    that, or for other methods.
//! 2. Everything a stranger sends is bounded.

mod answer;
mod answers;
mod ask;
mod events;
mod memphis;
mod messages;
mod openapi;
mod repeats;
mod routes;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use axum::routing::any;
use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use rand::Rng;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use self::answer::{Answer, Problem, REQUEST_ID};
use self::messages::Place;
use self::repeats::{Begun, Repeats};
use self::routes::{Found, Own, Shape};
use crate::codes;
use crate::http::session::{Credentials, Session, Sessions};
use crate::http::token::Tokens;
use crate::http::{self, Bounds, MAX_LOGIN_BYTES, Pages, Peer, RunningHttp};
use crate::server::Shared;
use crate::tls::Tls;

/// Largest body, unless it is a message.
const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;
/// What the body of a request that stores messages may have beyond the largest message.
const MESSAGE_EXTRA_BYTES: usize = 1024 * 1024;
/// Time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time a bearer token holds.
const TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// How long a user who sends name and password stays connected.
const BASIC_LIFETIME: Duration = Duration::from_secs(60);
/// The cookie that holds a bearer token.
const COOKIE: &str = "menes_session";
/// Longest name that a client may give its request.
const MAX_REQUEST_ID: usize = 64;
/// Where the routes begin.
const BASE: &str = "/api/v1";

const BOUNDS: Bounds = Bounds {
    connections: 512,
    head_bytes: 32 * 1024,
    headers: 64,
    head_timeout: Duration::from_secs(75),
    connection_timeout: None,
};

/// The API.
#[derive(Debug)]
struct Management {
    sessions: Sessions,
    tokens: Tokens,
    /// Those that only renew others.
    renewals: Tokens,
    repeats: Repeats,
    /// Live views that may still be opened.
    views: Arc<Semaphore>,
    /// It is spoken inside TLS.
    is_secure: bool,
    /// Where it listens.
    port: u16,
    /// Where the REST gateway listens, as a URL for this machine; none if it does not.
    rest: Option<(u16, String)>,
}

/// Starts the API on a thread of its own; `rest` is where the gateway listens, if it does. It ends
/// when the result is dropped.
pub(crate) fn start(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    tls: Option<Arc<Tls>>,
    rest: Option<(u16, String)>,
) -> io::Result<RunningHttp> {
    let address = listener.local_addr()?;
    let pages = Pages::of(&shared.options());
    let management = Arc::new(Management {
        sessions: Sessions::new(shared, address),
        tokens: Tokens::new(),
        renewals: Tokens::new(),
        repeats: Repeats::default(),
        views: Arc::new(Semaphore::new(events::MAX_VIEWS)),
        is_secure: tls.is_some(),
        port: address.port(),
        rest,
    });
    let router = Router::new().fallback_service(any(handle).with_state(Arc::clone(&management)));
    let expiry = async move { management.sessions.expire().await };
    http::start("menes-api", listener, router, tls, (BOUNDS, pages), expiry)
}

async fn handle(State(management): State<Arc<Management>>, request: Request) -> Response<Body> {
    let is_head = request.method() == Method::HEAD;
    let path = request.uri().path().to_owned();
    let id = request_id(request.headers());
    let mut response = if memphis::is_meant(&path) && !path.starts_with(BASE) {
        memphis::answer(&management, request).await
    } else {
        management.respond(request, &path, &id).await
    };
    if is_head {
        *response.body_mut() = Body::empty();
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The client's name of a request, or a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let given = given.filter(|id| (1..=MAX_REQUEST_ID).contains(&id.len()));
    given.map_or_else(
        || HEXLOWER.encode(&rand::rng().random::<[u8; 8]>()),
        str::to_owned,
    )
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginBody {
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    token: String,
}

impl Management {
    async fn respond(self: &Arc<Self>, request: Request, path: &str, id: &str) -> Response<Body> {
        match self.answer(request).await {
            Ok(answer) => answer.respond(),
            Err(problem) => {
                tracing::debug!(request_id = id, code = problem.code, "{}", problem.detail);
                problem.respond(path, id)
            }
        }
    }

    async fn answer(self: &Arc<Self>, request: Request) -> Result<Answer, Problem> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().trim_end_matches('/').to_owned();
        let peer = head.extensions.get::<Peer>();
        let peer = peer.map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |peer| peer.0);
        let found = found(&head.method, &path).ok_or_else(|| no_route(&head, &path))?;
        let own = match found.route.shape {
            Shape::Own(own) => Some(own),
            _ => None,
        };
        is_as_it_is(&head.headers)?;
        // The other methods no page may use without being asked first.
        if head.method == Method::POST {
            is_typed(&head.headers, own == Some(Own::Produce))?;
        }
        if own.is_some_and(Own::is_public) {
            return self.answer_anyone(&found, body, peer).await;
        }
        let session = self.session(&head.headers, peer).await?;
        if ask::is_read(&head.method) {
            let query = head.uri.query().unwrap_or_default();
            let fields = ask::query_fields(query, &found)?;
            return self.look(&session, &found, fields, &head).await;
        }
        let most = if own == Some(Own::Produce) {
            self.sessions.shared().options().limits.max_payload + MESSAGE_EXTRA_BYTES
        } else {
            MAX_BODY_BYTES
        };
        let body = read(body, most).await?;
        let ticket = match self.begin(&session, &head, &body)? {
            Some(Begun::Fresh(ticket)) => Some(ticket),
            Some(Begun::Again(answer)) => return Ok(answer),
            Some(Begun::Running) => {
                let text = "this request is being carried out: repeat it later";
                return Err(Problem::new(StatusCode::CONFLICT, "E-API-RUNNING", text));
            }
            Some(Begun::Other) => {
                let text = "this Idempotency-Key was used for another request";
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                return Err(Problem::new(status, "E-API-REPEAT", text));
            }
            None => None,
        };
        let answer = self.change(&session, &found, &head, body).await?;
        if let Some(ticket) = ticket {
            ticket.done(&answer);
        }
        Ok(answer)
    }

    /// A POST that names a key is done once.
    fn begin(
        &self,
        session: &Session,
        head: &Parts,
        body: &[u8],
    ) -> Result<Option<Begun>, Problem> {
        let Some(key) = head.headers.get("idempotency-key") else {
            return Ok(None);
        };
        let key = key.to_str().unwrap_or_default();
        if head.method != Method::POST || !(1..=repeats::MAX_KEY).contains(&key.len()) {
            return Err(Problem::query(format!(
                "Idempotency-Key is for POST, and has 1 to {} bytes",
                repeats::MAX_KEY
            )));
        }
        let mut digest = Sha256::new();
        digest.update(head.uri.to_string());
        digest.update([0]);
        digest.update(body);
        let digest = digest.finalize().into();
        let begun = self.repeats.begin(&session.id, key, digest, Instant::now());
        Ok(Some(begun))
    }

    async fn answer_anyone(
        &self,
        found: &Found,
        body: Body,
        peer: SocketAddr,
    ) -> Result<Answer, Problem> {
        match found.route.shape {
            Shape::Own(Own::Document) => Ok(Answer::ok(openapi::document())),
            Shape::Own(Own::Explain) => {
                let code = found.part("code");
                let known = codes::find(code)
                    .ok_or_else(|| Problem::refused(&format!("code {code:?} does not exist")))?;
                Ok(Answer::ok(json!({
                    "code": known.code,
                    "what": known.what,
                    "cause": known.cause,
                    "fix": known.fix,
                })))
            }
            Shape::Own(Own::LogIn) => {
                self.open_session(&read(body, MAX_LOGIN_BYTES).await?, peer)
                    .await
            }
            _ => Ok(Answer::ok(json!({"status": "ok"}))),
        }
    }

    /// Requests that change nothing.
    async fn look(
        self: &Arc<Self>,
        session: &Arc<Session>,
        found: &Found,
        fields: Map<String, Value>,
        head: &Parts,
    ) -> Result<Answer, Problem> {
        let last = head.headers.get("last-event-id");
        let last = last.and_then(|id| id.to_str().ok());
        let keeps = (!brings_token(&head.headers)).then_some(BASIC_LIFETIME);
        match found.route.shape {
            Shape::Own(Own::WhoAmI) => Ok(Answer::ok(json!({"username": session.user}))),
            Shape::Own(Own::Overview) => Ok(Answer::ok(self.overview(session).await?)),
            Shape::Own(Own::Events) => {
                events::follow(self, Arc::clone(session), &fields, last, keeps)
            }
            Shape::Own(Own::Tail) => {
                events::tail(self, Arc::clone(session), &fields, last, keeps).await
            }
            _ => ask::route(self, session, found, fields, &head.headers).await,
        }
    }

    /// Requests that change something.
    async fn change(
        &self,
        session: &Session,
        found: &Found,
        head: &Parts,
        body: Bytes,
    ) -> Result<Answer, Problem> {
        let query = head.uri.query().unwrap_or_default();
        let place = || Place::new(self, session, found.part("station"));
        let group = found.part("group");
        if let Shape::Own(Own::Produce) = found.route.shape {
            let fields = ask::query_fields(query, found)?;
            return place()?.produce(&fields, &head.headers, body).await;
        }
        let fields = ask::body_fields(&body, query, found)?;
        match found.route.shape {
            Shape::Own(Own::LogOut) => {
                self.sessions.log_out(session);
                let cookie = format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
                Ok(Answer::done().with(header::SET_COOKIE, &cookie))
            }
            Shape::Own(Own::PutStation) => {
                ask::put_station(self, session, found, fields, &head.headers).await
            }
            Shape::Own(Own::Fetch) => place()?.fetch(group, &fields).await,
            Shape::Own(Own::Settle(settling)) => place()?.settle(group, &fields, settling).await,
            _ => ask::route(self, session, found, fields, &head.headers).await,
        }
    }

    async fn open_session(&self, body: &[u8], peer: SocketAddr) -> Result<Answer, Problem> {
        let login: LoginBody =
            http::object(body).map_err(|error| Problem::body(error.to_string()))?;
        let credentials = Credentials {
            user: login.username,
            password: login.password,
            token: login.token,
        };
        let session = self
            .sessions
            .log_in(credentials, TOKEN_LIFETIME, peer)
            .await?;
        let token = self.tokens.sign(&session.id, TOKEN_LIFETIME);
        let seconds = TOKEN_LIFETIME.as_secs();
        let secure = if self.is_secure { "; Secure" } else { "" };
        let cookie = format!(
            "{COOKIE}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
        );
        let document = json!({
            "token": token,
            "expires_in_ms": seconds * 1_000,
            "username": session.user,
        });
        let answer = Answer::json(StatusCode::CREATED, document);
        Ok(answer.with(header::SET_COOKIE, &cookie))
    }

    /// Who asks.
    async fn session(
        &self,
        headers: &HeaderMap,
        peer: SocketAddr,
    ) -> Result<Arc<Session>, Problem> {
        let nobody = Credentials {
            user: String::new(),
            password: String::new(),
            token: String::new(),
        };
        let by_token = |token: &str| {
            let id = self.tokens.session(token);
            let session = id.and_then(|id| self.sessions.find(&id));
            session.ok_or_else(Problem::unauthorized)
        };
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            if let Some(token) = cookie(headers, COOKIE) {
                return by_token(token);
            }
            // Let in where everyone is.
            return Ok(self.sessions.log_in(nobody, BASIC_LIFETIME, peer).await?);
        };
        let text = value.to_str().map_err(|_| Problem::unauthorized())?;
        let (scheme, proof) = text.split_once(' ').ok_or_else(Problem::unauthorized)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return by_token(proof.trim());
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(Problem::unauthorized());
        }
        let pair = BASE64.decode(proof.trim().as_bytes()).ok();
        let pair = pair.and_then(|pair| String::from_utf8(pair).ok());
        let pair = pair.ok_or_else(Problem::unauthorized)?;
        let (user, password) = pair.split_once(':').ok_or_else(Problem::unauthorized)?;
        let credentials = Credentials {
            user: user.to_owned(),
            password: password.to_owned(),
            ..nobody
        };
        Ok(self
            .sessions
            .log_in(credentials, BASIC_LIFETIME, peer)
            .await?)
    }

    /// Counts of the user's account, what moves there, and the server.
    async fn overview(&self, session: &Session) -> Result<Value, Problem> {
        let mut shown = ask::broker(self, session, "STATUS", json!({})).await?;
        let shared = self.sessions.shared();
        shown["server"] = json!({
            "name": shared.name(),
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_ms": shared.started().elapsed().as_millis() as u64,
        });
        let client = shared.client_of(&session.connection_id);
        if let Some(account) = client.and_then(|client| client.identity().account.clone()) {
            let traffic = shared.traffic_by_account();
            let traffic = traffic.get(account.name()).copied().unwrap_or_default();
            shown["traffic"] = json!({
                "in_msgs": traffic.in_msgs,
                "in_bytes": traffic.in_bytes,
                "out_msgs": traffic.out_msgs,
                "out_bytes": traffic.out_bytes,
            });
        }
        Ok(shown)
    }
}

/// What a path below the base names; none where it is no path of it.
fn segments(path: &str) -> Option<Vec<String>> {
    let rest = path.strip_prefix(BASE)?.strip_prefix('/')?;
    rest.split('/')
        .map(|segment| Some(percent_decode_str(segment).decode_utf8().ok()?.into_owned()))
        .collect()
}

/// There is nothing at a path, or nothing that is done so.
fn no_route(head: &Parts, path: &str) -> Problem {
    let known = segments(path).map(|segments| routes::methods(&segments));
    let known = known.unwrap_or_default();
    let detail = format!("there is no {} {}", head.method, head.uri.path());
    if known.is_empty() {
        return Problem::new(StatusCode::NOT_FOUND, "E-API-ROUTE", detail);
    }
    let known = known.join(", ");
    let detail = format!("{detail}, but {known}");
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "E-API-ROUTE", detail);
    problem.allowing(known)
}

/// The route of a request.
fn found(method: &Method, path: &str) -> Option<Found> {
    let segments = segments(path);
    let method = if ask::is_read(method) {
        &Method::GET
    } else {
        method
    };
    routes::find(method, &segments?)
}

/// Whether a request, which was let in, said its session and not the password.
fn brings_token(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return cookie(headers, COOKIE).is_some();
    };
    let scheme = value.as_bytes().get(..6).unwrap_or_default();
    scheme.eq_ignore_ascii_case(b"bearer")
}

/// The value of a cookie.
fn cookie<'h>(headers: &'h HeaderMap, wanted: &str) -> Option<&'h str> {
    let all = headers.get_all(header::COOKIE);
    let pairs = all
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'));
    let mut pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == wanted)?;
    Some(value)
}

/// Whether a body has a type that no form has.
fn is_typed(headers: &HeaderMap, is_message: bool) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let others = ["application/octet-stream", "application/x-ndjson"];
    let is_other = is_message && others.iter().any(|other| kind.eq_ignore_ascii_case(other));
    if kind.eq_ignore_ascii_case("application/json") || is_other {
        return Ok(());
    }
    let text = if is_message {
        "send Content-Type: application/json, application/octet-stream or application/x-ndjson"
    } else {
        "send Content-Type: application/json"
    };
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "E-API-TYPE",
        text,
    ))
}

/// Bodies are read as they come: nothing is unpacked, so nothing unpacks to more than was sent.
fn is_as_it_is(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(header::CONTENT_ENCODING) {
        None => Ok(()),
        Some(encoding) if encoding.as_bytes().eq_ignore_ascii_case(b"identity") => Ok(()),
        Some(_) => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "E-API-TYPE",
            "send the body without a Content-Encoding",
        )),
    }
}

/// Reads a body that is not too large and does not take too long.
async fn read(body: Body, most: usize) -> Result<Bytes, Problem> {
    let whole = Limited::new(body, most).collect();
    match tokio::time::timeout(BODY_TIMEOUT, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "E-API-SIZE",
            format!("a body has at most {most} bytes"),
        )),
        Ok(Err(_)) => Err(Problem::body("the body ended early")),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "E-API-BODY",
            "the body took too long",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_route_is_none() {
        for (method, path) in [
            (Method::GET, ""),
            (Method::GET, "/"),
            (Method::GET, "/station"),
            (Method::PUT, "/stations"),
            (Method::GET, "/stations/a/groups/g/reset"),
            (Method::GET, "/stations//groups"),
            (Method::GET, "/stations/%ff"),
        ] {
            let path = format!("{BASE}{path}");
            assert!(found(&method, &path).is_none(), "{method} {path}");
        }
        assert!(found(&Method::GET, "/api/v2/stations").is_none());
        assert!(found(&Method::HEAD, "/api/v1/stations").is_some());
    }

    #[test]
    fn the_document_has_every_route_and_every_route_of_the_document_answers() {
        let document = openapi::document();
        let paths = document["paths"].as_object().expect("paths");
        let mut described = 0;
        for (path, operations) in paths {
            for (method, operation) in operations.as_object().expect("operations") {
                described += 1;
                let method: Method = method.to_uppercase().parse().expect("a method");
                let path = path.replace(['{', '}'], "");
                let found = found(&method, &path).expect("an answer");
                assert_eq!(operation["summary"], found.route.about, "{method} {path}");
            }
        }
        assert_eq!(described, routes::ROUTES.len());
    }

    #[test]
    fn the_cookie_is_one_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(
            header::COOKIE,
            HeaderValue::from_static("a=b; menes_session=t.o.k"),
        );
        assert_eq!(cookie(&headers, COOKIE), Some("t.o.k"));
        headers.clear();
        headers.append(header::COOKIE, HeaderValue::from_static("xmenes_session=t"));
        assert_eq!(cookie(&headers, COOKIE), None);
    }

    #[test]
    fn a_name_of_a_request_is_kept_if_it_is_short() {
        let mut headers = HeaderMap::new();
        assert_eq!(request_id(&headers).len(), 16);
        headers.insert(REQUEST_ID, HeaderValue::from_static("mine"));
        assert_eq!(request_id(&headers), "mine");
    }
}
