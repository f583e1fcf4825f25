//! The HTTP request that becomes a WebSocket.
//!
//! One request, checked in a fixed order, answered with 101 or with a refusal and the end of the
//! connection. The path does not matter, but for those of other protocols: a proxy in front may serve
//! the server anywhere.

use std::{io, net::IpAddr};

use data_encoding::BASE64;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout_at},
};
use tokio_tungstenite::tungstenite::{
    error::{Error as WsError, ProtocolError},
    handshake::{derive_accept_key, machine::TryParse, server::Request},
    http::{HeaderMap, HeaderName, StatusCode, header},
};

use crate::{
    frame::{Limits, Rules},
    origin::OriginRules,
    stream::WsStream,
};

/// Most bytes of a request, its empty line included.
const MAX_REQUEST_BYTES: usize = 16_384;
/// Most payload of a frame to a browser.
const BROWSER_FRAME_BYTES: usize = 4_096;
/// Most payload of a frame to anybody else; longer lengths take longer headers.
const FRAME_BYTES: usize = 65_535;
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const NATS_NO_MASKING: HeaderName = HeaderName::from_static("nats-no-masking");
/// Older drafts of the protocol called the origin this.
const SEC_WEBSOCKET_ORIGIN: HeaderName = HeaderName::from_static("sec-websocket-origin");

/// How a listener upgrades.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The listener speaks TLS, so that its pages are `https`.
    pub tls: bool,
    /// Which web pages may connect.
    pub origins: OriginRules,
    /// Headers to add to the answer.
    pub response_headers: HeaderMap,
    /// Bounds on messages.
    pub limits: Limits,
    /// Clients may compress messages, and are sent compressed ones. Default false.
    pub compression: bool,
}

/// A connection after its upgrade.
#[derive(Debug)]
pub struct Upgraded<S> {
    /// The bytes inside its frames.
    pub stream: WsStream<S>,
    /// The request it came with.
    pub request: HttpRequest,
}

/// What a client said when it asked for the upgrade.
#[derive(Clone)]
pub struct HttpRequest {
    headers: HeaderMap,
    rules: Rules,
}

impl std::fmt::Debug for HttpRequest {
    /// Leaves out the headers: they may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpRequest").finish_non_exhaustive()
    }
}

impl HttpRequest {
    /// The first header called `name`, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The first cookie called `name`.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let cookies = self.headers.get_all(header::COOKIE).into_iter();
        let pairs = cookies
            .filter_map(|value| value.to_str().ok())
            .flat_map(|text| text.split(';'));
        for pair in pairs {
            if let Some((key, value)) = pair.split_once('=')
                && key.trim() == name
            {
                let value = value.trim();
                let inner = value
                    .strip_prefix('"')
                    .and_then(|value| value.strip_suffix('"'));
                return Some(inner.unwrap_or(value));
            }
        }
        None
    }

    /// The first address of `X-Forwarded-For`, if it is one. Anybody may claim any address: it is
    /// for people to read, and only when a proxy that is trusted set it.
    #[must_use]
    pub fn forwarded_for(&self) -> Option<IpAddr> {
        let value = self.headers.get(X_FORWARDED_FOR)?.to_str().ok()?;
        value.split(',').next()?.trim().parse().ok()
    }

    /// Whether a browser sent it.
    #[must_use]
    pub fn is_browser(&self) -> bool {
        self.header("user-agent")
            .is_some_and(|agent| agent.contains("Mozilla/"))
    }

    /// Whether it is Safari, and not one of the browsers that name it too.
    fn is_safari(&self) -> bool {
        let agent = self.header("user-agent").unwrap_or_default();
        agent.contains("Mozilla/") && agent.contains("Version/") && agent.contains("Safari/")
    }

    /// What was agreed on for its frames.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.rules
    }
}

/// Why there is no WebSocket. The connection is closed.
#[derive(Debug, Error)]
pub enum UpgradeError {
    /// The request was refused, and the client told so.
    #[error("{status}: {reason}")]
    Refused {
        /// HTTP status of the answer.
        status: u16,
        /// Text of the answer.
        reason: String,
    },
    /// The deadline passed.
    #[error("no upgrade in time")]
    Timeout,
    /// The client went away before its request was complete.
    #[error("connection closed before the request was complete")]
    Closed,
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads one HTTP request from a fresh connection and answers it, all before `deadline`.
///
/// # Errors
///
/// See [`UpgradeError`]; a refusal was sent before it is returned.
pub async fn upgrade<S>(
    mut io: S,
    config: &Config,
    deadline: Instant,
) -> Result<Upgraded<S>, UpgradeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answered = timeout_at(deadline, answer(&mut io, config)).await;
    let request = answered.map_err(|_| UpgradeError::Timeout)??;
    let frame_bytes = if request.is_browser() {
        BROWSER_FRAME_BYTES
    } else {
        FRAME_BYTES
    };
    // Safari cannot put compressed fragments together.
    let compressed_bytes = if request.is_safari() {
        usize::MAX
    } else {
        frame_bytes
    };
    let rules = request.rules;
    Ok(Upgraded {
        stream: WsStream::new(io, config.limits, frame_bytes).with_rules(rules, compressed_bytes),
        request,
    })
}

async fn answer<S>(io: &mut S, config: &Config) -> Result<HttpRequest, UpgradeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let outcome = match read_request(io).await? {
        Ok(bytes) => check(&bytes, config),
        Err(refusal) => Err(refusal),
    };
    match outcome {
        Ok((request, accept)) => {
            io.write_all(&switching(&accept, config, request.rules))
                .await?;
            io.flush().await?;
            Ok(request)
        }
        Err(refusal) => {
            io.write_all(&refusal.response()).await?;
            io.shutdown().await?;
            let status = refusal.status.as_u16();
            Err(UpgradeError::Refused {
                status,
                reason: refusal.reason,
            })
        }
    }
}

/// Reads up to the empty line, and whatever came with it.
async fn read_request<S>(io: &mut S) -> Result<Result<Vec<u8>, Refusal>, UpgradeError>
where
    S: AsyncRead + Unpin,
{
    let mut bytes = Vec::with_capacity(1_024);
    loop {
        let known = bytes.len();
        if io.read_buf(&mut bytes).await? == 0 {
            return Err(UpgradeError::Closed);
        }
        // The end may lie across the border of two reads.
        let fresh = &bytes[known.saturating_sub(3)..];
        let has_end = fresh.windows(4).any(|window| window == b"\r\n\r\n")
            || fresh.windows(2).any(|window| window == b"\n\n");
        if has_end {
            return Ok(Ok(bytes));
        }
        if bytes.len() > MAX_REQUEST_BYTES {
            return Ok(Err(Refusal::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "request is too large",
            )));
        }
    }
}

#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    reason: String,
}

impl Refusal {
    fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
        }
    }

    fn bad(reason: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    fn response(&self) -> Vec<u8> {
        let mut extra = "";
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            extra = "Allow: GET\r\n";
        } else if self.reason == INVALID_VERSION {
            extra = "Sec-WebSocket-Version: 13\r\n";
        }
        format!(
            "HTTP/1.1 {}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             X-Content-Type-Options: nosniff\r\n{extra}Connection: close\r\n\
             Content-Length: {}\r\n\r\n{}\n",
            self.status,
            self.reason.len() + 1,
            self.reason,
        )
        .into_bytes()
    }
}

const INVALID_VERSION: &str = "invalid version";

/// Checks a request in the order of nats-server; gives it and the answer to its key.
fn check(bytes: &[u8], config: &Config) -> Result<(HttpRequest, String), Refusal> {
    let (len, request) = match Request::try_parse(bytes) {
        Ok(Some(parsed)) => parsed,
        Err(WsError::Protocol(ProtocolError::WrongHttpMethod)) => {
            return Err(Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "request method must be GET",
            ));
        }
        Ok(None) | Err(_) => return Err(Refusal::bad("not a HTTP/1.1 request")),
    };
    match request.uri().path() {
        path if path.ends_with("/mqtt") => {
            return Err(not_found("mqtt websocket endpoint not enabled"));
        }
        path if path.ends_with("/leafnode") => {
            return Err(not_found("leafnode websocket endpoint not enabled"));
        }
        _ => {}
    }
    let headers = request.headers();
    let host = single(headers, header::HOST).filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| Refusal::bad("'Host' missing in request"))?;
    if !has_token(headers, header::UPGRADE, "websocket") {
        return Err(Refusal::bad("invalid value for header 'Upgrade'"));
    }
    if !has_token(headers, header::CONNECTION, "upgrade") {
        return Err(Refusal::bad("invalid value for header 'Connection'"));
    }
    if !headers.contains_key(header::SEC_WEBSOCKET_KEY) {
        return Err(Refusal::bad("key missing"));
    }
    let key = single(headers, header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key));
    let key = key.ok_or_else(|| Refusal::bad("invalid websocket key"))?;
    if single(headers, header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(Refusal::bad(INVALID_VERSION));
    }
    check_origin(headers, host, config)?;
    if len != bytes.len() {
        return Err(Refusal::bad(
            "client sent data before handshake is complete",
        ));
    }
    let accept = derive_accept_key(key.as_bytes());
    let rules = Rules {
        compression: config.compression && offers_compression(headers),
        unmasked: single(headers, NATS_NO_MASKING) == Some("true"),
    };
    Ok((
        HttpRequest {
            headers: request.into_parts().0.headers,
            rules,
        },
        accept,
    ))
}

fn check_origin(headers: &HeaderMap, host: &str, config: &Config) -> Result<(), Refusal> {
    let mut origins = Vec::new();
    for name in [header::ORIGIN, SEC_WEBSOCKET_ORIGIN] {
        if origins.is_empty() {
            // What is no text is no origin either.
            let values = headers.get_all(name).into_iter();
            origins.extend(values.map(|value| value.to_str().unwrap_or_default()));
        }
    }
    let has_cookie = headers.contains_key(header::COOKIE);
    config
        .origins
        .check(&origins, host, config.tls, has_cookie)
        .map_err(|reason| {
            Refusal::new(
                StatusCode::FORBIDDEN,
                format!("origin not allowed: {reason}"),
            )
        })
}

fn not_found(reason: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, reason)
}

/// The value of a header that occurs exactly once, as text.
fn single(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().map(str::trim),
        _ => None,
    }
}

/// Whether a header lists `token`, in any case.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

fn is_key(key: &str) -> bool {
    BASE64
        .decode(key.as_bytes())
        .is_ok_and(|nonce| nonce.len() == 16)
}

/// Whether one of the client's offers of permessage-deflate is one this server can keep: any
/// window of its own, and no limit on ours.
fn offers_compression(headers: &HeaderMap) -> bool {
    let values = headers
        .get_all(header::SEC_WEBSOCKET_EXTENSIONS)
        .into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .any(|offer| {
            let mut parts = offer.split(';').map(str::trim);
            let is_deflate = parts
                .next()
                .is_some_and(|name| name.eq_ignore_ascii_case("permessage-deflate"));
            is_deflate && parts.all(is_acceptable)
        })
}

fn is_acceptable(parameter: &str) -> bool {
    let (name, value) = match parameter.split_once('=') {
        Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
        None => (parameter, None),
    };
    match (name.to_ascii_lowercase().as_str(), value) {
        ("server_no_context_takeover" | "client_no_context_takeover", None) => true,
        ("client_max_window_bits", None) => true,
        ("client_max_window_bits", Some(bits)) => {
            bits.parse().is_ok_and(|bits| (8..=15).contains(&bits))
        }
        ("server_max_window_bits", Some("15")) => true,
        _ => false,
    }
}

fn switching(accept: &str, config: &Config, rules: Rules) -> Vec<u8> {
    let mut response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n"
    )
    .into_bytes();
    if rules.compression {
        response.extend_from_slice(
            b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
              client_no_context_takeover\r\n",
        );
    }
    if rules.unmasked {
        response.extend_from_slice(b"Nats-No-Masking: true\r\n");
    }
    for (name, value) in &config.response_headers {
        response.extend_from_slice(name.as_str().as_bytes());
        response.extend_from_slice(b": ");
        response.extend_from_slice(value.as_bytes());
        response.extend_from_slice(b"\r\n");
    }
    response.extend_from_slice(b"\r\n");
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::duplex;

    use super::*;
    use crate::origin::Origin;

    const GOOD: &str = "GET / HTTP/1.1\r\nHost: broker:7770\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    fn with(line: &str) -> String {
        GOOD.replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"))
    }

    fn without(name: &str) -> String {
        GOOD.split_inclusive("\r\n")
            .filter(|line| !line.starts_with(name))
            .collect()
    }

    fn outcome(request: &str, config: &Config) -> (u16, String) {
        match check(request.as_bytes(), config) {
            Ok((_, accept)) => (101, accept),
            Err(refusal) => (refusal.status.as_u16(), refusal.reason),
        }
    }

    fn refused(request: &str) -> (u16, String) {
        outcome(request, &Config::default())
    }

    fn bad(reason: &str) -> (u16, String) {
        (400, reason.to_owned())
    }

    #[test]
    fn a_good_request_is_accepted() {
        // The example of RFC 6455.
        let accepted = (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned());
        assert_eq!(refused(GOOD), accepted);
        assert_eq!(refused(&GOOD.replace("/ ", "/?a=b ")), accepted);
        assert_eq!(
            refused(&GOOD.replace("websocket\r", "WebSocket\r")),
            accepted
        );
        assert_eq!(
            refused(&with("Sec-WebSocket-Extensions: permessage-deflate")),
            accepted
        );
    }

    #[test]
    fn bad_requests_are_told_why() {
        assert_eq!(
            refused(&GOOD.replace("GET", "POST")),
            (405, "request method must be GET".to_owned())
        );
        assert_eq!(refused(&without("Host")), bad("'Host' missing in request"));
        assert_eq!(
            refused(&with("Host: other")),
            bad("'Host' missing in request")
        );
        assert_eq!(
            refused(&without("Upgrade")),
            bad("invalid value for header 'Upgrade'")
        );
        assert_eq!(
            refused(&GOOD.replace("Upgrade: websocket", "Upgrade: h2c")),
            bad("invalid value for header 'Upgrade'")
        );
        assert_eq!(
            refused(&without("Connection")),
            bad("invalid value for header 'Connection'")
        );
        assert_eq!(refused(&without("Sec-WebSocket-Key")), bad("key missing"));
        for key in [
            "",
            "x",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBsZSBub25jZWQ=",
            "%%%",
        ] {
            let request = GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", key);
            assert_eq!(refused(&request), bad("invalid websocket key"), "{key}");
        }
        assert_eq!(
            refused(&with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")),
            bad("invalid websocket key")
        );
        assert_eq!(
            refused(&without("Sec-WebSocket-Version")),
            bad("invalid version")
        );
        assert_eq!(
            refused(&GOOD.replace(": 13", ": 8")),
            bad("invalid version")
        );
        assert_eq!(
            refused(&format!("{GOOD}\x02\x01x")),
            bad("client sent data before handshake is complete")
        );
        for request in [
            GOOD.replace("HTTP/1.1", "HTTP/1.0"),
            GOOD.replace("HTTP/1.1", "HTTP/2"),
            "CONNECT {}\r\n\r\n".to_owned(),
            "\x16\x03\x01\r\n\r\n".to_owned(),
            with("no colon"),
            with("A\0: b"),
        ] {
            let status = refused(&request).0;
            assert!(status == 400 || status == 405, "{request:?}: {status}");
        }
    }

    #[test]
    fn any_path_will_do_but_those_of_other_protocols() {
        let at = |path: &str| GOOD.replace("GET /", &format!("GET {path}"));
        for path in ["/mqtt", "/nats/mqtt"] {
            let expected = (404, "mqtt websocket endpoint not enabled".to_owned());
            assert_eq!(refused(&at(path)), expected, "{path}");
        }
        for path in ["/leafnode", "/a/leafnode"] {
            assert_eq!(refused(&at(path)).0, 404, "{path}");
        }
        for path in ["/nats", "/a/b?c=d", "//", "/mqtt/", "/leafnodes"] {
            let request = at(path);
            assert!(
                check(request.as_bytes(), &Config::default()).is_ok(),
                "{path}"
            );
        }
    }

    #[test]
    fn origins_are_checked() {
        let mut config = Config::default();
        config.origins.allowed = vec![Origin::parse("https://good.example").expect("valid")];
        assert_eq!(outcome(GOOD, &config).0, 101);
        assert_eq!(
            outcome(&with("Origin: https://good.example"), &config).0,
            101
        );
        for origin in [
            "Origin: https://good.example.evil.com",
            "Origin: null",
            "Origin: http://good.example",
            "Origin: https://good.example:8443",
            "Origin: https://good.example\r\nOrigin: https://good.example",
            "Origin:",
            "Sec-WebSocket-Origin: https://evil.com",
        ] {
            let (status, reason) = outcome(&with(origin), &config);
            assert_eq!(status, 403, "{origin}");
            assert!(reason.starts_with("origin not allowed: "), "{reason}");
        }
    }

    #[test]
    fn a_cookie_login_needs_an_origin() {
        let mut config = Config::default();
        config.origins.cookie_login = true;
        assert_eq!(outcome(GOOD, &config).0, 101);
        assert_eq!(outcome(&with("Cookie: jwt=x"), &config).0, 403);
        let own = with("Cookie: jwt=x\r\nOrigin: http://broker:7770");
        assert_eq!(outcome(&own, &config).0, 101);
        assert_eq!(
            outcome(&own.replace("http://broker", "http://evil"), &config).0,
            403
        );
    }

    #[test]
    fn the_request_is_at_hand_afterwards() {
        let request = with(
            "User-Agent: Mozilla/5.0\r\nX-Forwarded-For: 10.1.2.3, 1.1.1.1\r\n\
             Cookie: a=1; jwt=\"x.y\"\r\nCookie: b=2",
        );
        let (request, _) = check(request.as_bytes(), &Config::default()).expect("valid");
        assert!(request.is_browser());
        assert_eq!(request.forwarded_for(), Some(IpAddr::from([10, 1, 2, 3])));
        assert_eq!(request.cookie("jwt"), Some("x.y"));
        assert_eq!(request.cookie("b"), Some("2"));
        assert_eq!(request.cookie("c"), None);
        assert_eq!(request.header("host"), Some("broker:7770"));
        assert!(!format!("{request:?}").contains("x.y"));
        for value in ["", "x", "10.0.0", &"1".repeat(10_240)] {
            let request = with(&format!("X-Forwarded-For: {value}"));
            let (request, _) = check(request.as_bytes(), &Config::default()).expect("valid");
            assert_eq!(request.forwarded_for(), None);
        }
    }

    #[test]
    fn compression_is_agreed_on_where_it_is_offered_and_wanted() {
        let wanted = Config {
            compression: true,
            ..Config::default()
        };
        let rules = |lines: &str, config: &Config| {
            let (request, _) = check(with(lines).as_bytes(), config).expect("valid");
            request.rules().compression
        };
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "Permessage-Deflate;server_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; client_max_window_bits=10",
            "x-webkit-deflate-frame, permessage-deflate",
            "permessage-deflate; server_max_window_bits=10, permessage-deflate",
        ] {
            let line = format!("Sec-WebSocket-Extensions: {offer}");
            assert!(rules(&line, &wanted), "{offer}");
            assert!(!rules(&line, &Config::default()), "{offer}");
        }
        for offer in [
            "",
            "permessage-bzip2",
            "permessage-deflate; server_max_window_bits=10",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; nonsense",
            "permessage-deflate; server_no_context_takeover=1",
        ] {
            let line = format!("Sec-WebSocket-Extensions: {offer}");
            assert!(!rules(&line, &wanted), "{offer}");
        }
        let rules = Rules {
            compression: true,
            unmasked: true,
        };
        let answer = String::from_utf8(switching("x", &wanted, rules)).expect("text");
        assert!(answer.contains(
            "\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
             client_no_context_takeover\r\nNats-No-Masking: true\r\n"
        ));
        let (request, _) = check(with("Nats-No-Masking: true").as_bytes(), &wanted).expect("valid");
        assert!(request.rules().unmasked);
    }

    async fn exchange(pieces: &[&[u8]]) -> (Result<(), UpgradeError>, String) {
        let (server, mut client) = duplex(1 << 16);
        let config = Config::default();
        let deadline = Instant::now() + Duration::from_secs(2);
        let serving = tokio::spawn(async move { upgrade(server, &config, deadline).await });
        for piece in pieces {
            client.write_all(piece).await.expect("room");
            tokio::task::yield_now().await;
        }
        let result = serving.await.expect("no panic").map(drop);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("text");
        (result, answer)
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_is_a_response() {
        let (request, end) = GOOD.as_bytes().split_at(GOOD.len() - 3);
        let (result, answer) = exchange(&[&request[..40], &request[40..], end]).await;
        assert!(result.is_ok());
        assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"));
        assert!(answer.ends_with("\r\n\r\n"));
        assert!(!answer.contains("Extensions"));

        let (result, answer) = exchange(&[b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"]).await;
        assert!(matches!(
            result,
            Err(UpgradeError::Refused { status: 405, .. })
        ));
        assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"));
        assert!(answer.ends_with("\r\n\r\nrequest method must be GET\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_has_to_end_in_time_and_size() {
        let (server, client) = duplex(1 << 16);
        let config = Config::default();
        let deadline = Instant::now() + Duration::from_secs(2);
        let result = upgrade(server, &config, deadline).await;
        assert!(matches!(result, Err(UpgradeError::Timeout)));
        assert_eq!(Instant::now(), deadline);
        drop(client);

        let endless = vec![b'x'; MAX_REQUEST_BYTES + 1];
        let (result, answer) = exchange(&[&endless]).await;
        assert!(matches!(
            result,
            Err(UpgradeError::Refused { status: 431, .. })
        ));
        assert!(answer.starts_with("HTTP/1.1 431 "));
    }

    #[tokio::test]
    async fn a_client_may_go_away() {
        let (server, client) = duplex(64);
        drop(client);
        let deadline = Instant::now() + Duration::from_secs(2);
        let result = upgrade(server, &Config::default(), deadline).await;
        assert!(matches!(result, Err(UpgradeError::Closed)));
    }
}
