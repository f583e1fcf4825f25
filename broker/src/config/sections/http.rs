//! `rest_gateway` and `management`.

use super::super::grammar::{ConfigError, Node, Value};
use super::super::settings::{HttpSettings, Settings};
use super::tls::tls;
use super::values::{address, key, map, port, text, unknown};

/// A listener for HTTP: a port, `host:port`, or a map.
pub(super) fn listener(
    node: &Node,
    usual_port: u16,
    settings: &mut Settings,
) -> Result<HttpSettings, ConfigError> {
    let mut listener = HttpSettings::at("0.0.0.0", usual_port);
    if !matches!(node.value, Value::Map(_)) {
        listener.address = address(node, "0.0.0.0")?;
        return Ok(listener);
    }
    for field in &map(node)?.fields {
        let node = &field.node;
        match key(field).as_str() {
            "listen" => listener.address = address(node, "0.0.0.0")?,
            "host" | "net" => listener.address.host = text(node)?,
            "port" => listener.address.port = port(node)?,
            "tls" => listener.tls = Some(tls(node, &mut settings.warnings)?),
            _ => unknown(field)?,
        }
    }
    Ok(listener)
}
