//! The management API: `/api/v1` over HTTP.
//!
//! Every route is one request to the broker's own interface below `$MENES.API.`, made through a
//! connection of the user who asks ([`crate::inside`]): nothing can be done here that cannot be done
//! there, and nobody may do here what they may not do there. [`routes`] is the one table of both,
//! and the OpenAPI document is written from it.
//!
//! A user is whoever the `Authorization` header says: a bearer token from `POST /api/v1/sessions`,
//! or a name and a password (`Basic`). Where the server lets anyone in, so does this.
//!
//! # Invariants
//!
//! 1. No page of another site can have a browser change anything: a POST comes as
//!    `application/json`, and no other site is allowed to ask for that, or for other methods.
//! 2. Everything a stranger sends is bounded.

mod openapi;
mod routes;

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
use data_encoding::BASE64;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use self::routes::{Found, Shape};
use crate::http::session::{Credentials, Session, Sessions};
use crate::http::token::Tokens;
use crate::http::{self, Bounds, Peer, RunningHttp};
use crate::inside::{LoginError, RequestError};
use crate::server::Shared;
use crate::tls::Tls;

/// Largest body.
const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;
/// Time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for the broker to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time a bearer token holds.
const TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// How long a user who sends name and password stays connected.
const BASIC_LIFETIME: Duration = Duration::from_secs(60);
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
}

/// Starts the API on a thread of its own. It ends when the result is dropped.
pub(crate) fn start(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    tls: Option<Arc<Tls>>,
) -> io::Result<RunningHttp> {
    let address = listener.local_addr()?;
    let management = Arc::new(Management {
        sessions: Sessions::new(shared, address),
        tokens: Tokens::new(),
    });
    let router = Router::new().fallback_service(any(handle).with_state(Arc::clone(&management)));
    let expiry = async move { management.sessions.expire().await };
    http::start("menes-api", listener, router, tls, BOUNDS, expiry)
}

/// What went wrong, as a problem document (RFC 9457).
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
        }
    }

    fn unauthorized() -> Self {
        let detail = "log in: POST /api/v1/sessions, or send name and password";
        Self::new(StatusCode::UNAUTHORIZED, "E-AUTH-LOGIN", detail)
    }

    /// What the broker said, by what it means for whoever asked.
    fn refused(detail: &str) -> Self {
        let (status, code) = if detail.contains("does not exist")
            || detail.contains("has no version")
            || detail.contains("no such request")
        {
            (StatusCode::NOT_FOUND, "E-API-MISSING")
        } else if detail.contains("already exist") || detail.contains("exists already") {
            (StatusCode::CONFLICT, "E-API-CONFLICT")
        } else if detail.contains("not allowed") {
            (StatusCode::FORBIDDEN, "E-AUTH-DENIED")
        } else if detail.contains("changed by another request") {
            (StatusCode::CONFLICT, "E-API-CHANGED")
        } else {
            (StatusCode::UNPROCESSABLE_ENTITY, "E-API-REFUSED")
        };
        Self::new(status, code, detail)
    }

    fn respond(self) -> Response<Body> {
        let document = json!({
            "type": "about:blank",
            "code": self.code,
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut response = respond(self.status, &document);
        let fields = response.headers_mut();
        fields.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.status == StatusCode::UNAUTHORIZED {
            fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<LoginError> for Problem {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Refused => Self::unauthorized(),
            LoginError::Unavailable(reason) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "E-API-BUSY", reason)
            }
        }
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        let detail = error.to_string();
        match error {
            RequestError::Denied(_) => Self::new(StatusCode::FORBIDDEN, "E-AUTH-DENIED", detail),
            RequestError::TooLarge(_) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "E-MSG-SIZE", detail)
            }
            RequestError::NoResponders => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "E-API-STREAMS",
                "JetStream is not enabled for this account",
            ),
            RequestError::Timeout(_) | RequestError::Closed => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "E-API-UNKNOWN",
                format!("{detail}: it may have been done all the same"),
            ),
        }
    }
}

async fn handle(State(management): State<Arc<Management>>, request: Request) -> Response<Body> {
    let is_head = request.method() == Method::HEAD;
    let mut response = match management.answer(request).await {
        Ok((status, document)) => respond(status, &document),
        Err(problem) => problem.respond(),
    };
    if is_head {
        *response.body_mut() = Body::empty();
    }
    response
}

fn respond(status: StatusCode, document: &Value) -> Response<Body> {
    let empty = status == StatusCode::NO_CONTENT;
    let mut response = Response::new(if empty {
        Body::empty()
    } else {
        Body::from(document.to_string())
    });
    *response.status_mut() = status;
    let fields = response.headers_mut();
    if !empty {
        fields.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
    }
    fields.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
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
    async fn answer(&self, request: Request) -> Result<(StatusCode, Value), Problem> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().trim_end_matches('/').to_owned();
        let peer = head.extensions.get::<Peer>();
        let peer = peer.map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |peer| peer.0);
        let missing = || {
            let detail = format!("there is no {} {}", head.method, head.uri.path());
            Problem::new(StatusCode::NOT_FOUND, "E-API-ROUTE", detail)
        };
        let Some(rest) = path.strip_prefix(BASE) else {
            return Err(missing());
        };
        let is_read = matches!(head.method, Method::GET | Method::HEAD);
        match rest {
            "/health" if is_read => return Ok((StatusCode::OK, json!({"status": "ok"}))),
            "/openapi.json" if is_read => return Ok((StatusCode::OK, openapi::document())),
            _ => {}
        }
        // The other methods no page may use without being asked first.
        if head.method == Method::POST {
            is_json(&head.headers)?;
        }
        if rest == "/sessions" && head.method == Method::POST {
            return self.open_session(&read(body).await?, peer).await;
        }
        let segments: Option<Vec<String>> = rest
            .trim_start_matches('/')
            .split('/')
            .map(|segment| Some(percent_decode_str(segment).decode_utf8().ok()?.into_owned()))
            .collect();
        let method = if is_read { &Method::GET } else { &head.method };
        let segments = segments.ok_or_else(missing)?;
        let found = routes::find(method, &segments).ok_or_else(missing)?;
        let session = self.session(&head.headers, peer).await?;
        let fields = if is_read {
            query_fields(head.uri.query().unwrap_or_default(), &found)?
        } else {
            body_fields(&read(body).await?, &found)?
        };
        self.ask(&session, &found, fields).await
    }

    async fn open_session(
        &self,
        body: &[u8],
        peer: SocketAddr,
    ) -> Result<(StatusCode, Value), Problem> {
        let login: LoginBody = http::object(body).map_err(|error| {
            Problem::new(StatusCode::BAD_REQUEST, "E-API-BODY", error.to_string())
        })?;
        let credentials = Credentials {
            user: login.username,
            password: login.password,
            token: login.token,
        };
        let session = self
            .sessions
            .log_in(credentials, TOKEN_LIFETIME, peer)
            .await?;
        let document = json!({
            "token": self.tokens.sign(&session.id, TOKEN_LIFETIME),
            "expires_in_ms": TOKEN_LIFETIME.as_millis() as u64,
            "username": session.user,
        });
        Ok((StatusCode::CREATED, document))
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
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            // Let in where everyone is.
            return Ok(self.sessions.log_in(nobody, BASIC_LIFETIME, peer).await?);
        };
        let text = value.to_str().map_err(|_| Problem::unauthorized())?;
        let (scheme, proof) = text.split_once(' ').ok_or_else(Problem::unauthorized)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            let id = self.tokens.session(proof.trim());
            let session = id.and_then(|id| self.sessions.find(&id));
            return session.ok_or_else(Problem::unauthorized);
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

    async fn ask(
        &self,
        session: &Session,
        found: &Found,
        fields: Map<String, Value>,
    ) -> Result<(StatusCode, Value), Problem> {
        let inside = session.inside(&self.sessions).await?;
        let subject = format!("{}{}", menes_stations::api::PREFIX, found.route.request);
        let body = Value::Object(fields).to_string();
        let answer = inside
            .request(&subject, b"", body.as_bytes(), ANSWER_TIMEOUT)
            .await?;
        let mut answer: Value = serde_json::from_slice(&answer.payload).map_err(|_| {
            Problem::new(
                StatusCode::BAD_GATEWAY,
                "E-API-UNKNOWN",
                "the broker's answer is no JSON",
            )
        })?;
        if let Some(text) = answer["error"]["description"].as_str() {
            return Err(Problem::refused(text));
        }
        Ok(match found.route.shape {
            Shape::Object => (StatusCode::OK, answer),
            Shape::Created => (StatusCode::CREATED, answer),
            Shape::Done => (StatusCode::NO_CONTENT, Value::Null),
            Shape::List(key) => {
                let items = answer[key].take();
                let cursor = answer["next"].as_u64().map(|next| next.to_string());
                (
                    StatusCode::OK,
                    json!({"items": items, "next_cursor": cursor}),
                )
            }
        })
    }
}

fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "E-API-TYPE",
            "send Content-Type: application/json",
        ))
    }
}

/// Reads a body that is not too large and does not take too long.
async fn read(body: Body) -> Result<Bytes, Problem> {
    let whole = Limited::new(body, MAX_BODY_BYTES).collect();
    match tokio::time::timeout(BODY_TIMEOUT, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "E-API-SIZE",
            format!("a body has at most {MAX_BODY_BYTES} bytes"),
        )),
        Ok(Err(_)) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "E-API-BODY",
            "the body ended early",
        )),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "E-API-BODY",
            "the body took too long",
        )),
    }
}

/// The fields of a request: those of its body, and what its path names.
fn body_fields(body: &[u8], found: &Found) -> Result<Map<String, Value>, Problem> {
    let wrong = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "E-API-BODY", detail);
    let mut fields: Map<String, Value> = if body.iter().all(u8::is_ascii_whitespace) {
        Map::new()
    } else {
        serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?
    };
    if let Some(unknown) = fields.keys().find(|key| found.route.field(key).is_none()) {
        let known: Vec<&str> = found.route.fields.iter().map(|field| field.name).collect();
        return Err(wrong(format!(
            "there is no field {unknown:?}; there are: {}",
            known.join(", ")
        )));
    }
    for field in found.route.fields {
        // The broker's word for it.
        if field.name != field.request
            && let Some(value) = fields.remove(field.name)
        {
            fields.insert(field.request.to_owned(), value);
        }
    }
    fields.extend(found.named());
    Ok(fields)
}

/// The same for a request without a body: its query.
fn query_fields(query: &str, found: &Found) -> Result<Map<String, Value>, Problem> {
    let wrong = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "E-API-QUERY", detail);
    let mut fields = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = value.replace('+', " ");
        let value = percent_decode_str(&value)
            .decode_utf8()
            .map_err(|_| wrong(format!("{name} is not UTF-8")))?;
        let field = found
            .route
            .field(name)
            .ok_or_else(|| wrong(format!("there is no parameter {name:?}")))?;
        let value = if field.kind == "integer" {
            let number: i64 = value
                .parse()
                .map_err(|_| wrong(format!("{name} has to be a number")))?;
            Value::from(number)
        } else {
            Value::from(value.into_owned())
        };
        fields.insert(field.request.to_owned(), value);
    }
    fields.extend(found.named());
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_whose_turn_it_is() {
        for (text, status) in [
            ("station a does not exist", 404),
            ("Schema a has no version 3", 404),
            ("station a exists already", 409),
            ("user u is not allowed to change station s", 403),
            ("time is not an RFC 3339 time", 422),
        ] {
            assert_eq!(Problem::refused(text).status.as_u16(), status, "{text}");
        }
    }

    fn found(method: &Method, path: &str) -> Found {
        let segments: Vec<String> = path.split('/').map(str::to_owned).collect();
        routes::find(method, &segments).expect("a route")
    }

    #[test]
    fn the_path_names_what_the_body_leaves_out() {
        let route = found(&Method::POST, "stations/a.b/groups/g/reset");
        assert_eq!(route.route.request, "GROUP.RESET");
        let fields = body_fields(br#"{"to":"end","partition":2}"#, &route).expect("good");
        assert_eq!(
            Value::Object(fields),
            json!({"to": "end", "partition": 2, "station": "a.b", "group": "g"})
        );
        assert!(body_fields(br#"{"station":"other"}"#, &route).is_err());
        assert!(body_fields(b"[]", &route).is_err());
        let list = found(&Method::GET, "stations/a/dead-letters");
        let fields = query_fields("cursor=7&search=a+b%21", &list).expect("good");
        assert_eq!(
            Value::Object(fields),
            json!({"after": 7, "search": "a b!", "station": "a"})
        );
        assert!(query_fields("cursor=x", &list).is_err());
        assert!(query_fields("other=1", &list).is_err());
    }

    #[test]
    fn what_is_no_route_is_none() {
        for (method, path) in [
            (Method::GET, ""),
            (Method::GET, "station"),
            (Method::PUT, "stations/a"),
            (Method::GET, "stations/a/groups/g/reset"),
            (Method::GET, "stations//groups"),
        ] {
            let segments: Vec<String> = path.split('/').map(str::to_owned).collect();
            assert!(
                routes::find(&method, &segments).is_none(),
                "{method} {path}"
            );
        }
    }

    #[test]
    fn the_document_has_every_route() {
        let document = openapi::document();
        for route in routes::ROUTES {
            let path = format!("{BASE}{}", route.path);
            let method = route.method.to_lowercase();
            let operation = &document["paths"][path][method];
            assert_eq!(
                operation["summary"], route.about,
                "{} {}",
                route.method, route.path
            );
        }
    }
}
