//! Memphis's own management API below `/api/`, for its command line tool and people's scripts.
//!
//! Paths, fields and answers are those of Memphis 1.4, misspellings included; every route is one
//! or more requests of the broker's own interface, made as the user who asks, and has no rules of
//! its own. What has no counterpart here is refused with a text that says so, never answered with
//! something invented.
//!
//! What differs on purpose: nobody signs themselves up; tokens hold no claims about the user; no
//! page of another site may ask; passwords and connection tokens are in no answer.

mod monitoring;
mod schemas;
mod settings;
mod stations;
mod users;

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Content, Problem};
use super::{MAX_BODY_BYTES, Management, ask, read};
use crate::http::session::{Credentials, Session};
use crate::http::{MAX_LOGIN_BYTES, Peer};

/// Version of Memphis whose routes these are.
const VERSION: &str = "1.4.4";
/// Time that a token for requests holds.
const ACCESS: Duration = Duration::from_secs(15 * 60);
/// Time that a token to renew it holds.
const REFRESH: Duration = Duration::from_secs(48 * 3600);
const REFRESH_COOKIE: &str = "memphis-jwt-refresh-token";
/// Where the routes begin.
const BASE: &str = "/api/";
/// Most names in a list of a request.
const MAX_NAMES: usize = 1_000;

/// Whether a path is one of these routes.
pub(super) fn is_meant(path: &str) -> bool {
    path.get(..BASE.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(BASE))
}

/// An answer that is not what was asked for: `{"message": …}`.
#[derive(Debug)]
struct Refusal {
    status: u16,
    message: Value,
}

impl Refusal {
    fn new(status: u16, text: impl Into<String>) -> Self {
        Self {
            status,
            message: Value::String(text.into()),
        }
    }

    /// A text for the person who asks.
    fn shown(text: impl Into<String>) -> Self {
        Self::new(406, text)
    }

    fn unauthorized() -> Self {
        Self::new(401, "Unauthorized")
    }

    /// A field that is needed, or has a wrong type.
    fn field(field: &str, reason: &str) -> Self {
        Self {
            status: 400,
            message: json!([{"field": field, "reason": reason}]),
        }
    }

    fn respond(self) -> Response<Body> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Answer::json(status, json!({"message": self.message})).respond()
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        match problem.status.as_u16() {
            401 => Self::unauthorized(),
            403 | 404 | 409 | 412 | 422 => Self::shown(problem.detail),
            413 => Self::new(413, problem.detail),
            _ => {
                tracing::warn!("management: {}", problem.detail);
                Self::new(500, "Server error")
            }
        }
    }
}

/// Answers a request.
pub(super) async fn answer(management: &Management, request: Request) -> Response<Body> {
    match Call::receive(management, request).await {
        Ok(answer) => answer.respond(),
        Err(refusal) => refusal.respond(),
    }
}

/// The fields of a request, from its body or its query.
#[derive(Debug, Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn text(&self, key: &str) -> Result<String, Refusal> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(Refusal::field(key, "string")),
        }
    }

    /// A text that has to be there.
    fn needed(&self, key: &str) -> Result<String, Refusal> {
        match self.text(key)? {
            text if text.is_empty() => Err(Refusal::field(key, "required")),
            text => Ok(text),
        }
    }

    /// A number; in a query it is a text.
    fn number(&self, key: &str) -> Result<Option<i64>, Refusal> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => text
                .parse()
                .map(Some)
                .map_err(|_| Refusal::field(key, "number")),
            Some(value) => value
                .as_i64()
                .map(Some)
                .ok_or_else(|| Refusal::field(key, "number")),
        }
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, Refusal> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(text)) if text == "true" => Ok(Some(true)),
            Some(Value::String(text)) if text == "false" || text.is_empty() => Ok(Some(false)),
            Some(_) => Err(Refusal::field(key, "boolean")),
        }
    }

    fn list(&self, key: &str) -> Result<&[Value], Refusal> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(values)) if values.len() <= MAX_NAMES => Ok(values),
            Some(_) => Err(Refusal::field(key, "list")),
        }
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, Refusal> {
        let values = self.list(key)?.iter();
        values
            .map(|value| value.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| Refusal::field(key, "list of strings"))
    }

    fn object(&self, key: &str) -> Self {
        Self(
            self.0
                .get(key)
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
        )
    }
}

type Outcome = Result<Value, Refusal>;

/// A request of somebody who is logged in.
struct Call<'a> {
    management: &'a Management,
    session: &'a Session,
    fields: Fields,
}

impl Call<'_> {
    async fn receive(management: &Management, request: Request) -> Result<Answer, Refusal> {
        let (head, body) = request.into_parts();
        let peer = head.extensions.get::<Peer>();
        let peer = peer.map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |peer| peer.0);
        let path = head.uri.path()[BASE.len()..].trim_matches('/').to_owned();
        let query = head.uri.query().unwrap_or_default();
        let open = path.to_lowercase();
        match (&head.method, open.as_str()) {
            (&Method::GET | &Method::HEAD, "status") => {
                return Ok(Answer::ok(json!({"message": "Ok"})));
            }
            (&Method::GET | &Method::HEAD, "monitoring/getclusterinfo") => {
                return Ok(Answer::ok(json!({"version": VERSION})));
            }
            (&Method::GET | &Method::HEAD, "usermgmt/getsignupflag") => {
                return Ok(Answer::ok(json!({"show_signup": false})));
            }
            (&Method::POST, "usermgmt/addusersignup") => {
                let text = "nobody signs up here: users are made by those who manage them";
                return Err(Refusal::shown(text));
            }
            (&Method::POST, "usermgmt/login") => {
                let fields = fields(body, query, MAX_LOGIN_BYTES).await?;
                return log_in(management, &fields, peer).await;
            }
            (&Method::POST, "usermgmt/refreshtoken") => {
                return renew(management, &head.headers).await;
            }
            _ => {}
        }
        let session = bearer(&head.headers)
            .and_then(|token| management.tokens.session(token))
            .and_then(|id| management.sessions.find(&id))
            .ok_or_else(Refusal::unauthorized)?;
        // What strangers send is not read.
        let fields = fields(body, query, MAX_BODY_BYTES).await?;
        let call = Call {
            management,
            session: &session,
            fields,
        };
        let method = if ask::is_read(&head.method) {
            "GET"
        } else {
            head.method.as_str()
        };
        let (family, route) = path.split_once('/').unwrap_or((path.as_str(), ""));
        let answered = match family {
            "stations" => call.stations(method, route).await?,
            "monitoring" => call.monitoring(method, route).await?,
            "schemas" => call.schemas(method, route).await?,
            "usermgmt" => call.users(method, route).await?,
            "producers" | "consumers" => call.clients(method, family, route).await?,
            _ => call.settings(method, family, route).await?,
        };
        match answered {
            Some(document) => Ok(Answer::ok(document)),
            None => Err(Refusal::new(404, "page not found")),
        }
    }

    /// One request of the broker's own interface.
    async fn ask(&self, request: &str, body: Value) -> Outcome {
        Ok(ask::broker(self.management, self.session, request, body).await?)
    }
}

/// The fields of a request's body, or without one those of its query.
async fn fields(body: Body, query: &str, most: usize) -> Result<Fields, Refusal> {
    let body = read(body, most).await?;
    if body.iter().all(u8::is_ascii_whitespace) {
        return from_query(query);
    }
    let fields: Result<Map<String, Value>, _> = serde_json::from_slice(&body);
    let fields = fields.map_err(|_| Refusal::field("body", "JSON object"))?;
    Ok(Fields(fields))
}

fn from_query(query: &str) -> Result<Fields, Refusal> {
    let mut fields = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = value.replace('+', " ");
        let value = percent_decode_str(&value)
            .decode_utf8()
            .map_err(|_| Refusal::field(name, "string"))?;
        fields.insert(name.to_owned(), value.into_owned().into());
    }
    Ok(Fields(fields))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

async fn log_in(
    management: &Management,
    fields: &Fields,
    peer: SocketAddr,
) -> Result<Answer, Refusal> {
    let credentials = Credentials {
        user: fields.needed("username")?,
        password: fields.needed("password")?,
        token: String::new(),
    };
    let logged_in = management.sessions.log_in(credentials, REFRESH, peer).await;
    let session = logged_in.map_err(Problem::from)?;
    welcome(management, &session).await
}

async fn renew(management: &Management, headers: &HeaderMap) -> Result<Answer, Refusal> {
    let session = super::cookie(headers, REFRESH_COOKIE)
        .and_then(|token| management.renewals.session(token))
        .and_then(|id| management.sessions.find(&id))
        .ok_or_else(Refusal::unauthorized)?;
    // The user may be gone, or have another password.
    let open = session.inside(&management.sessions).await;
    open.map_err(Problem::from)?;
    management.sessions.extend(&session, REFRESH);
    welcome(management, &session).await
}

/// What a login is answered.
async fn welcome(management: &Management, session: &Session) -> Result<Answer, Refusal> {
    let call = Call {
        management,
        session,
        fields: Fields::default(),
    };
    // Whoever connects as an application does not manage.
    let Some(user) = call.whoever().await else {
        management.sessions.log_out(session);
        return Err(Refusal::unauthorized());
    };
    let shared = management.sessions.shared();
    let options = shared.options();
    let port = shared.addresses().first().map(SocketAddr::port);
    let settings = call.cluster_config().await?;
    let mut document = json!({
        "jwt": management.tokens.sign(&session.id, ACCESS),
        "expires_in": ACCESS.as_millis() as u64,
        "user_id": number_of(&session.user),
        "username": session.user,
        "user_type": user["type"].as_str().unwrap_or("root"),
        "created_at": user["created"],
        "already_logged_in": true,
        "avatar_id": user["avatar_id"].as_i64().unwrap_or(1),
        "last_login": null,
        "send_analytics": false,
        "env": "docker",
        "namespace": "",
        "full_name": user["full_name"].as_str().unwrap_or_default(),
        "skip_get_started": true,
        "http_port": management.port,
        "clients_port": port,
        "user_pass_based_auth": true,
        "connection_token": "",
        "account_id": 1,
        "internal_ws_pass": "",
        "max_msg_size_mb": options.limits.max_payload / (1024 * 1024),
    });
    if let (Some(into), Some(from)) = (document.as_object_mut(), settings.as_object()) {
        into.extend(from.clone());
    }
    let token = management.renewals.sign(&session.id, REFRESH);
    let secure = if management.is_secure { "; Secure" } else { "" };
    let cookie = format!(
        "{REFRESH_COOKIE}={token}; Path=/; Max-Age={}; HttpOnly; SameSite=Strict{secure}",
        REFRESH.as_secs()
    );
    let mut answer = Answer::of(StatusCode::OK, Content::Json(document));
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        answer.headers.push((header::SET_COOKIE, cookie));
    }
    Ok(answer)
}

/// A number for what has a name: scripts keep numbers of things, and compare them.
fn number_of(name: &str) -> u32 {
    // FNV-1a, the same in every version; positive where a script takes it as 32 bits.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (hash >> 1).max(1)
}

/// Bytes as Memphis writes them.
fn hex(base64: &Value) -> String {
    let text = base64.as_str().unwrap_or_default();
    let bytes = data_encoding::BASE64.decode(text.as_bytes());
    data_encoding::HEXLOWER.encode(&bytes.unwrap_or_default())
}

/// The headers of a message, without Memphis's own.
fn shown_headers(headers: &Value) -> Value {
    let pairs = headers.as_object().into_iter().flatten();
    let own = pairs.filter(|(name, _)| !name.starts_with("$memphis"));
    Value::Object(
        own.map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_the_newer_api_are_not_meant_twice() {
        assert!(is_meant("/api/status") && is_meant("/API/usermgmt/login"));
        assert!(!is_meant("/apix") && !is_meant("/") && !is_meant("/ä/i/x"));
    }

    #[test]
    fn numbers_are_steady_and_positive() {
        assert_eq!(number_of("orders"), number_of("orders"));
        assert_ne!(number_of("orders"), number_of("refunds"));
        assert!(i32::try_from(number_of("orders")).is_ok());
    }

    #[test]
    fn fields_of_a_query_are_texts() {
        let fields = from_query("a=1&b=x+y%21&c=true&d").expect("good");
        assert_eq!(fields.number("a").expect("a number"), Some(1));
        assert_eq!(fields.text("b").expect("a text"), "x y!");
        assert_eq!(fields.flag("c").expect("a flag"), Some(true));
        assert_eq!(fields.number("d").expect("none"), None);
        assert!(fields.number("b").is_err() && fields.needed("d").is_err());
        assert!(from_query("a=%ff").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_query_is_too_much(query in "\\PC{0,60}") {
            drop(from_query(&query));
        }
    }
}
