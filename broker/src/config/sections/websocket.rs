//! `websocket`.

use std::time::Duration;

use menes_ws::{HeaderName, HeaderValue, Origin};

use super::super::grammar::{ConfigError, Node};
use super::super::options::{ListenerAuthOptions, UserOptions, WebSocketOptions};
use super::super::settings::Settings;
use super::advertised;
use super::tls::tls;
use super::values::{address, boolean, duration, key, map, port, text, texts, unknown, wrong};

pub(super) fn websocket(node: &Node, settings: &mut Settings) -> Result<(), ConfigError> {
    let mut listener = WebSocketOptions::at("0.0.0.0", 0);
    let mut plain = false;
    let mut own = ListenerAuthOptions::default();
    for field in &map(node)?.fields {
        let node = &field.node;
        match key(field).as_str() {
            "listen" => {
                let address = address(node, "0.0.0.0")?;
                listener.host = address.host;
                listener.port = address.port;
            }
            "host" | "net" => listener.host = text(node)?,
            "port" => listener.port = port(node)?,
            "no_tls" => plain = boolean(node)?,
            "same_origin" => listener.origins.same_origin = boolean(node)?,
            "allowed_origins" | "allowed_origin" | "allow_origins" | "allow_origin" | "origins"
            | "origin" => {
                for text in texts(node)? {
                    let origin = Origin::parse(&text)
                        .map_err(|error| wrong(node, &format!("{text:?}: {error}")))?;
                    listener.origins.allowed.push(origin);
                }
            }
            "handshake_timeout" => listener.handshake_timeout = duration(node)?,
            "compression" => listener.compression = boolean(node)?,
            "advertise" => listener.advertise = Some(advertised(node)?),
            "ping_interval" => listener.ping_interval = Some(duration(node)?),
            "headers" => listener.headers = headers(node)?,
            "jwt_cookie" => listener.cookies.jwt = Some(text(node)?),
            "user_cookie" => listener.cookies.user = Some(text(node)?),
            "pass_cookie" => listener.cookies.password = Some(text(node)?),
            "token_cookie" => listener.cookies.token = Some(text(node)?),
            "tls" => listener.tls = Some(tls(node, &mut settings.warnings)?),
            "authorization" | "authentication" => {
                listener.auth_timeout = own_authorization(node, &mut own)?;
            }
            "no_auth_user" => own.no_auth_user = Some(text(node)?),
            _ => unknown(field)?,
        }
    }
    if listener.tls.is_none() && !plain {
        return Err(wrong(
            node,
            "websocket requires TLS configuration, or no_tls: true",
        ));
    }
    settings.server.websocket = Some(listener);
    let is_own = own.user.is_some() || own.token.is_some() || own.no_auth_user.is_some();
    settings.server.auth.websocket = is_own.then_some(own);
    Ok(())
}

/// One user or one token for this listener; gives the time for CONNECT, if that is said.
fn own_authorization(
    node: &Node,
    own: &mut ListenerAuthOptions,
) -> Result<Option<Duration>, ConfigError> {
    let mut user = UserOptions {
        is_single: true,
        ..UserOptions::default()
    };
    let mut timeout = None;
    for field in &map(node)?.fields {
        let node = &field.node;
        match key(field).as_str() {
            "user" | "username" => user.user = text(node)?,
            "pass" | "password" => user.password = text(node)?,
            "token" => own.token = Some(text(node)?),
            "timeout" => timeout = Some(duration(node)?),
            _ => unknown(field)?,
        }
    }
    own.user = (!user.user.is_empty()).then_some(user);
    Ok(timeout)
}

/// Headers for the answer of an upgrade; those that the protocol needs itself cannot be set.
fn headers(node: &Node) -> Result<Vec<(String, String)>, ConfigError> {
    let mut headers = Vec::new();
    for field in &map(node)?.fields {
        let name = key(field);
        let refuse = |what: &str| {
            let what = format!("websocket: invalid header {:?}{what}", field.key);
            Err(wrong(&field.node, &what))
        };
        if [
            "host",
            "content-length",
            "connection",
            "upgrade",
            "nats-no-masking",
        ]
        .contains(&name.as_str())
        {
            return refuse(" not allowed");
        }
        if name.starts_with("sec-websocket-") {
            return refuse(", \"Sec-WebSocket-\" prefix not allowed");
        }
        let value = text(&field.node)?;
        if HeaderName::from_bytes(name.as_bytes()).is_err()
            || HeaderValue::from_str(&value).is_err()
        {
            return refuse("");
        }
        headers.push((field.key.clone(), value));
    }
    Ok(headers)
}
