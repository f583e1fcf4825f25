//! Single values: what a node must be to be one.

use std::time::Duration;

use super::super::grammar::{ConfigError, Field, Map, Node, Value};
use super::super::settings::Address;

pub(super) fn key(field: &Field) -> String {
    field.key.to_ascii_lowercase()
}

pub(super) fn unknown(field: &Field) -> Result<(), ConfigError> {
    if field.referred {
        return Ok(());
    }
    Err(ConfigError {
        place: field.place.clone(),
        what: format!("unknown field {:?}", field.key),
    })
}

pub(super) fn not_built(field: &Field) -> ConfigError {
    ConfigError {
        place: field.place.clone(),
        what: format!("{:?} is not supported by this version", field.key),
    }
}

pub(super) fn wrong(node: &Node, what: &str) -> ConfigError {
    ConfigError {
        place: node.place.clone(),
        what: what.to_owned(),
    }
}

pub(super) fn expected(node: &Node, what: &str) -> ConfigError {
    ConfigError {
        place: node.place.clone(),
        what: format!("expected {what}, found {}", node.value.kind()),
    }
}

pub(super) fn map(node: &Node) -> Result<&Map, ConfigError> {
    match &node.value {
        Value::Map(map) => Ok(map),
        _ => Err(expected(node, "a map")),
    }
}

pub(super) fn list(node: &Node) -> Result<&[Node], ConfigError> {
    match &node.value {
        Value::Array(items) => Ok(items),
        _ => Err(expected(node, "a list")),
    }
}

pub(super) fn text(node: &Node) -> Result<String, ConfigError> {
    match &node.value {
        Value::String(text) => Ok(text.clone()),
        // A password of digits is still a password.
        Value::Integer(number) => Ok(number.to_string()),
        _ => Err(expected(node, "text")),
    }
}

pub(super) fn texts(node: &Node) -> Result<Vec<String>, ConfigError> {
    match &node.value {
        Value::Array(items) => items.iter().map(text).collect(),
        _ => Ok(vec![text(node)?]),
    }
}

pub(super) fn boolean(node: &Node) -> Result<bool, ConfigError> {
    match node.value {
        Value::Bool(value) => Ok(value),
        _ => Err(expected(node, "true or false")),
    }
}

pub(super) fn integer(node: &Node) -> Result<i64, ConfigError> {
    match node.value {
        Value::Integer(number) => Ok(number),
        _ => Err(expected(node, "a whole number")),
    }
}

pub(super) fn limit(node: &Node) -> Result<Option<usize>, ConfigError> {
    Ok(usize::try_from(integer(node)?)
        .ok()
        .filter(|limit| *limit > 0))
}

pub(super) fn size(node: &Node) -> Result<usize, ConfigError> {
    usize::try_from(integer(node)?).map_err(|_| wrong(node, "a size must be 0 or more"))
}

/// A size of a store: a number, or text with K, M, G or T counting in 1024s.
pub(super) fn store_size(node: &Node) -> Result<u64, ConfigError> {
    let Value::String(text) = &node.value else {
        return u64::try_from(integer(node)?).map_err(|_| wrong(node, "a size must be 0 or more"));
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text
        .get(digits.len()..)
        .unwrap_or("")
        .to_ascii_uppercase()
        .as_str()
    {
        "" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(wrong(node, "a size is a number with K, M, G or T")),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| wrong(node, "a size is a number with K, M, G or T"))
}

pub(super) fn port(node: &Node) -> Result<u16, ConfigError> {
    match integer(node)? {
        -1 => Ok(0),
        number => u16::try_from(number).map_err(|_| {
            wrong(
                node,
                "a port is a number from 0 to 65535, or -1 for any free one",
            )
        }),
    }
}

pub(super) fn address(node: &Node, default_host: &str) -> Result<Address, ConfigError> {
    if let Value::Integer(_) = node.value {
        return Ok(Address {
            host: default_host.to_owned(),
            port: port(node)?,
        });
    }
    let text = text(node)?;
    let (host, number) = text.rsplit_once(':').unwrap_or(("", &text));
    let number: i64 = number
        .parse()
        .map_err(|_| wrong(node, "expected a port or host:port"))?;
    let number = if number == -1 { 0 } else { number };
    let port = u16::try_from(number).map_err(|_| wrong(node, "a port is at most 65535"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.is_empty() { default_host } else { host };
    Ok(Address {
        host: host.to_owned(),
        port,
    })
}

/// A duration: text as `2m` or `1h30m`, a bare number counts seconds.
pub(super) fn duration(node: &Node) -> Result<Duration, ConfigError> {
    let parsed = match &node.value {
        Value::Integer(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
        Value::Float(seconds) => Duration::try_from_secs_f64(*seconds).ok(),
        Value::String(text) => parse_duration(text),
        _ => None,
    };
    parsed.ok_or_else(|| wrong(node, "expected a duration such as \"2m\" or \"500ms\""))
}

/// A duration as Go writes it: numbers with `ns us ms s m h`, one after the other.
#[must_use]
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let factor = match rest.get(..unit)? {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number * factor;
        rest = rest.get(unit..)?;
    }
    Duration::try_from_secs_f64(total).ok()
}

/// A value for which a negative number means that there is no limit.
pub(super) fn unless_negative<T>(
    node: &Node,
    read: impl Fn(&Node) -> Result<T, ConfigError>,
) -> Result<Option<T>, ConfigError> {
    match node.value {
        Value::Integer(number) if number < 0 => Ok(None),
        _ => read(node).map(Some),
    }
}
