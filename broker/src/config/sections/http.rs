//! `rest_gateway`, `management` and `metrics`.

use super::super::grammar::{ConfigError, Node, Value};
use super::super::settings::{HttpSettings, MetricsSettings, NameSet, Settings};
use super::tls::tls;
use super::values::{address, integer, key, map, port, text, texts, unknown, wrong};

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

/// Metrics: a port, `host:port`, a map, or `false` for none.
pub(super) fn metrics(
    node: &Node,
    settings: &mut Settings,
) -> Result<Option<MetricsSettings>, ConfigError> {
    const HOST: &str = "127.0.0.1";
    let mut metrics = MetricsSettings::at(HOST, 7777);
    match &node.value {
        Value::Bool(is_on) => return Ok(is_on.then_some(metrics)),
        Value::Map(_) => {}
        _ => {
            metrics.listener.address = address(node, HOST)?;
            return Ok(Some(metrics));
        }
    }
    for field in &map(node)?.fields {
        let node = &field.node;
        let listener = &mut metrics.listener;
        match key(field).as_str() {
            "listen" => listener.address = address(node, HOST)?,
            "host" | "net" => listener.address.host = text(node)?,
            "port" => listener.address.port = port(node)?,
            "tls" => listener.tls = Some(tls(node, &mut settings.warnings)?),
            "names" => {
                let list = texts(node)?.join(",");
                metrics.names = NameSet::parse_list(&list).map_err(|text| wrong(node, &text))?;
            }
            "max_streams" => metrics.max_streams = count(node)?,
            "max_consumers" => metrics.max_consumers = count(node)?,
            _ => unknown(field)?,
        }
    }
    Ok(Some(metrics))
}

fn count(node: &Node) -> Result<usize, ConfigError> {
    usize::try_from(integer(node)?).map_err(|_| wrong(node, "it must be 0 or more"))
}
