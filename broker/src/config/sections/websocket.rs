//! `websocket`.

use menes_ws::Origin;

use super::super::grammar::{ConfigError, Node};
use super::super::options::WebSocketOptions;
use super::super::settings::Settings;
use super::values::{
    address, boolean, duration, key, map, not_built, port, text, texts, unknown, wrong,
};

pub(super) fn websocket(node: &Node, settings: &mut Settings) -> Result<(), ConfigError> {
    let mut listener = WebSocketOptions::at("0.0.0.0", 0);
    let mut plain = false;
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
            "compression" => {
                if boolean(node)? {
                    settings.warnings.push(format!(
                        "{}: compression is not offered, clients speak without",
                        field.place
                    ));
                }
            }
            "advertise" | "ping_interval" | "headers" => settings.warnings.push(format!(
                "{}: {:?} has no effect in this version",
                field.place, field.key
            )),
            "tls" | "authorization" | "jwt_cookie" | "user_cookie" | "pass_cookie"
            | "token_cookie" | "no_auth_user" => return Err(not_built(field)),
            _ => unknown(field)?,
        }
    }
    if !plain {
        return Err(wrong(
            node,
            "websocket requires TLS configuration or no_tls: true; TLS is not supported by this version",
        ));
    }
    settings.server.websocket = Some(listener);
    Ok(())
}
