//! Clients that come over WebSocket: an upgrade, then a connection like any other.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use menes_protocol::connect::Connect;
use menes_ws::{HeaderMap, HeaderValue};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;

use super::client::Transport;
use super::worker::Worker;
use crate::config::options::{CookieNames, WebSocketOptions};
use crate::tls::{Prepared, Secured, Tls};

/// A WebSocket message may hold several protocol messages of the largest size.
const MESSAGES_PER_FRAME: u64 = 8;

/// How a listener upgrades its connections.
#[derive(Debug)]
pub(crate) struct Upgrade {
    config: menes_ws::Config,
    timeout: Duration,
    tls: Arc<Tls>,
    cookies: CookieNames,
}

/// Credentials that came with the upgrade.
#[derive(Default)]
pub(crate) struct Cookies {
    jwt: Option<String>,
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
}

impl std::fmt::Debug for Cookies {
    /// Leaves out what they hold.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cookies").finish_non_exhaustive()
    }
}

impl Cookies {
    fn of(names: &CookieNames, request: &menes_ws::HttpRequest) -> Self {
        let pick = |name: &Option<String>| {
            let value = request.cookie(name.as_deref()?)?;
            Some(value.to_owned())
        };
        Self {
            jwt: pick(&names.jwt),
            user: pick(&names.user),
            password: pick(&names.password),
            token: pick(&names.token),
        }
    }

    /// Fills in what `connect` lacks.
    pub(super) fn fill(&self, connect: &mut Connect) {
        let fill = |field: &mut Option<String>, cookie: &Option<String>| {
            if field.as_deref().is_none_or(str::is_empty) && cookie.is_some() {
                field.clone_from(cookie);
            }
        };
        fill(&mut connect.jwt, &self.jwt);
        fill(&mut connect.user, &self.user);
        fill(&mut connect.pass, &self.password);
        fill(&mut connect.auth_token, &self.token);
    }
}

impl Upgrade {
    pub(crate) fn new(options: &WebSocketOptions, max_payload: usize, tls: Arc<Tls>) -> Self {
        let usual = menes_ws::Limits::default();
        let max_payload = u64::try_from(max_payload).unwrap_or(u64::MAX);
        let limits = menes_ws::Limits {
            max_message_bytes: usual
                .max_message_bytes
                .max(max_payload.saturating_mul(MESSAGES_PER_FRAME)),
            ..usual
        };
        let mut origins = options.origins.clone();
        // A browser sends cookies by itself: only pages that are known may use them.
        origins.cookie_login |= options.cookies != CookieNames::default();
        let headers = options.headers.iter().filter_map(|(name, value)| {
            Some((name.parse().ok()?, HeaderValue::from_str(value).ok()?))
        });
        let config = menes_ws::Config {
            tls: tls.is_on(),
            origins,
            limits,
            compression: options.compression,
            response_headers: headers.collect::<HeaderMap>(),
        };
        Self {
            config,
            timeout: options.handshake_timeout,
            tls,
            cookies: options.cookies.clone(),
        }
    }
}

/// Upgrades a connection and serves it until it ends.
pub(super) async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    upgrade: Arc<Upgrade>,
    address: SocketAddr,
    listener: SocketAddr,
) {
    let Some(tls) = upgrade.tls.current() else {
        return serve_over(worker, stream, &upgrade, (address, listener), None).await;
    };
    match handshake(stream, &tls).await {
        Ok((stream, secured)) => {
            serve_over(worker, stream, &upgrade, (address, listener), Some(secured)).await;
        }
        Err(error) => tracing::error!("{address} - websocket TLS handshake error: {error}"),
    }
}

async fn handshake(
    stream: TcpStream,
    tls: &Prepared,
) -> Result<(TlsStream<TcpStream>, Secured), String> {
    let stream = timeout(tls.options().timeout, tls.acceptor().accept(stream))
        .await
        .map_err(|_| "timeout".to_owned())?
        .map_err(|error| error.to_string())?;
    let secured = Secured::of(stream.get_ref().1, false);
    if secured.is_pinned(&tls.options().pinned_certs) {
        Ok((stream, secured))
    } else {
        Err("certificate not pinned".to_owned())
    }
}

async fn serve_over<S>(
    worker: Rc<Worker>,
    stream: S,
    upgrade: &Upgrade,
    (address, listener): (SocketAddr, SocketAddr),
    secured: Option<Secured>,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let deadline = Instant::now() + upgrade.timeout;
    let mut config = Cow::Borrowed(&upgrade.config);
    if listener.ip().is_loopback() && worker.shared().options().local_pages {
        config.to_mut().origins.only_local = true;
    }
    let upgraded = match menes_ws::upgrade(stream, &config, deadline).await {
        Ok(upgraded) => upgraded,
        Err(error) => return tracing::debug!("{address} - websocket handshake error: {error}"),
    };
    let (read, write) = tokio::io::split(upgraded.stream);
    let client = Arc::new(worker.new_client(Transport::WebSocket, address, listener));
    if let Some(ip) = upgraded.request.forwarded_for() {
        client.now_forwarded_for(ip);
    }
    client.now_has(Cookies::of(&upgrade.cookies, &upgraded.request));
    if let Some(secured) = secured {
        client.is_secured(secured);
    }
    super::serve(worker, client, read, write).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_stand_in_for_what_connect_lacks() {
        let cookies = Cookies {
            user: Some("ada".to_owned()),
            password: Some("canary".to_owned()),
            ..Cookies::default()
        };
        let mut connect = Connect::parse(br#"{"user":"","lang":"x"}"#).expect("JSON");
        cookies.fill(&mut connect);
        assert_eq!(connect.user.as_deref(), Some("ada"));
        assert_eq!(connect.pass.as_deref(), Some("canary"));
        assert_eq!(connect.auth_token, None);
        let mut connect = Connect::parse(br#"{"user":"bob","pass":"b"}"#).expect("JSON");
        cookies.fill(&mut connect);
        assert_eq!(connect.user.as_deref(), Some("bob"));
        assert!(!format!("{cookies:?}").contains("canary"));
    }
}
