//! `exports` and `imports` of an account.

use std::collections::BTreeSet;
use std::time::Duration;

use menes_jetstream::ids::AccountName;

use super::super::grammar::{ConfigError, Field, Node, Value};
use super::values::{boolean, integer, key, parse_duration, text, texts, unknown, wrong};
use crate::account::description::{
    Audience, Export, ExportKind, Import, ImportKind, LatencyOptions, ResponseKind, Sampling,
    ServiceOptions, StreamPlace,
};

/// An export or import and where it stands.
pub(super) type Placed<'n, T> = (&'n Node, T);

pub(super) fn exports(node: &Node) -> Result<Vec<Placed<'_, Export>>, ConfigError> {
    let Value::Array(items) = &node.value else {
        let what = format!("Exports should be an array, got {}", node.value.kind());
        return Err(wrong(node, &what));
    };
    let read = |item| Ok((item, export(item)?));
    items.iter().map(read).collect()
}

pub(super) fn imports(node: &Node) -> Result<Vec<Placed<'_, Import>>, ConfigError> {
    let Value::Array(items) = &node.value else {
        let what = format!("Imports should be an array, got {}", node.value.kind());
        return Err(wrong(node, &what));
    };
    let read = |item| Ok((item, import(item)?));
    items.iter().map(read).collect()
}

fn fields<'n>(node: &'n Node, what: &str) -> Result<&'n [Field], ConfigError> {
    match &node.value {
        Value::Map(map) => Ok(&map.fields),
        other => {
            let kind = other.kind();
            let what = format!("{what} Items should be a map with type entry, got {kind}");
            Err(wrong(node, &what))
        }
    }
}

fn export(node: &Node) -> Result<Export, ConfigError> {
    let mut stream = None;
    let mut service = None;
    let mut options = ServiceOptions::default();
    let mut of_services: Option<(&Node, &str)> = None;
    let mut audience = Audience::Everyone;
    let mut account_token_position = None;
    for field in fields(node, "Export")? {
        let node = &field.node;
        match key(field).as_str() {
            "stream" => stream = Some(text(node)?),
            "service" => service = Some(text(node)?),
            "response" | "response_type" => {
                options.response = response(node)?;
                of_services.get_or_insert((node, "response"));
            }
            "threshold" | "response_threshold" | "response_max_time" | "response_time" => {
                options.threshold = threshold(node)?;
                of_services.get_or_insert((node, "response"));
            }
            "latency" => {
                options.latency = Some(latency(node)?);
                of_services.get_or_insert((node, "latency"));
            }
            "accounts" => {
                let names = texts(node)?;
                let names: BTreeSet<_> = names.iter().map(|n| AccountName::from(&**n)).collect();
                audience = if names.is_empty() {
                    Audience::Activated
                } else {
                    Audience::Accounts(names)
                };
            }
            "account_token_position" => {
                account_token_position = usize::try_from(integer(node)?).ok().filter(|&n| n > 0);
            }
            "allow_trace" => {
                options.allow_trace = boolean(node)?;
                of_services.get_or_insert((node, "allow_trace"));
            }
            _ => unknown(field)?,
        }
    }
    let (subject, kind) = match (stream, service) {
        (Some(subject), None) => (subject, ExportKind::Stream),
        (None, Some(subject)) => (subject, ExportKind::Service(options)),
        (Some(stream), Some(_)) => {
            let what = format!("Detected stream {stream:?} but already saw a service");
            return Err(wrong(node, &what));
        }
        (None, None) => return Err(wrong(node, "an export is a stream or a service")),
    };
    if let (ExportKind::Stream, Some((node, name))) = (&kind, of_services) {
        let what = format!("Detected {name} directive on non-service");
        return Err(wrong(node, &what));
    }
    Ok(Export {
        subject,
        kind,
        audience,
        account_token_position,
    })
}

fn response(node: &Node) -> Result<ResponseKind, ConfigError> {
    let word = text(node)?;
    match word.to_ascii_lowercase().as_str() {
        "single" | "singleton" => Ok(ResponseKind::Singleton),
        "stream" => Ok(ResponseKind::Stream),
        "chunk" | "chunked" => Ok(ResponseKind::Chunked),
        _ => Err(wrong(node, &format!("Unknown response type: {word:?}"))),
    }
}

fn threshold(node: &Node) -> Result<Duration, ConfigError> {
    let what = "Expected response threshold to be a parseable time duration, got";
    let Value::String(text) = &node.value else {
        return Err(wrong(node, &format!("{what} {}", node.value.kind())));
    };
    parse_duration(text).ok_or_else(|| wrong(node, &format!("{what} {text:?}")))
}

fn latency(node: &Node) -> Result<LatencyOptions, ConfigError> {
    let mut options = LatencyOptions {
        sampling: Sampling::Percent(100),
        subject: String::new(),
    };
    let map = match &node.value {
        Value::String(subject) => {
            options.subject.clone_from(subject);
            return Ok(options);
        }
        Value::Map(map) => map,
        other => {
            let kind = other.kind();
            let what = format!("Expected latency entry to be a map/struct or string, got {kind}");
            return Err(wrong(node, &what));
        }
    };
    for field in &map.fields {
        match key(field).as_str() {
            "sampling" => options.sampling = sampling(&field.node)?,
            "subject" => options.subject = text(&field.node)?,
            _ => unknown(field)?,
        }
    }
    if options.subject.is_empty() {
        return Err(wrong(node, "Latency subject required, but missing"));
    }
    Ok(options)
}

/// `50`, `"50%"` or `headers`.
fn sampling(node: &Node) -> Result<Sampling, ConfigError> {
    let number = match &node.value {
        Value::String(text) if text.trim().eq_ignore_ascii_case("headers") => {
            return Ok(Sampling::Headers);
        }
        Value::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or(text);
            let failed = |error| wrong(node, &format!("Failed to parse latency sample: {error}"));
            digits.parse().map_err(failed)?
        }
        _ => integer(node)?,
    };
    let percent = u8::try_from(number).ok().filter(|n| (1..=100).contains(n));
    percent
        .map(Sampling::Percent)
        .ok_or_else(|| wrong(node, "bad sampling percentage, should be 1-100"))
}

fn import(node: &Node) -> Result<Import, ConfigError> {
    let mut stream = None;
    let mut service = None;
    let mut prefix = None;
    let mut to = None;
    let mut share = false;
    let mut traces = None;
    let mut allow_trace = false;
    for field in fields(node, "Import")? {
        let node = &field.node;
        match key(field).as_str() {
            "stream" => stream = Some(source(node, "Stream")?),
            "service" => service = Some(source(node, "Service")?),
            "prefix" => prefix = Some(text(node)?),
            "to" => to = Some((node, text(node)?)),
            "share" => share = boolean(node)?,
            "allow_trace" => {
                allow_trace = boolean(node)?;
                traces = Some(node);
            }
            _ => unknown(field)?,
        }
    }
    let ((account, subject), kind) = match (stream, service) {
        (Some(source), None) => (source, stream_kind(prefix, to, allow_trace)?),
        (None, Some(source)) => {
            if let Some(node) = traces {
                let what = "Detected allow_trace directive on a non-stream";
                return Err(wrong(node, what));
            }
            let to = to.map(|(_, to)| to);
            (source, ImportKind::Service { to, share })
        }
        (Some(_), Some(_)) => {
            return Err(wrong(node, "Detected stream but already saw a service"));
        }
        (None, None) => return Err(wrong(node, "an import is a stream or a service")),
    };
    Ok(Import {
        account: AccountName::from(&*account),
        subject,
        kind,
        token: None,
    })
}

fn stream_kind(
    prefix: Option<String>,
    to: Option<(&Node, String)>,
    allow_trace: bool,
) -> Result<ImportKind, ConfigError> {
    let place = match (prefix.filter(|prefix| !prefix.is_empty()), to) {
        (Some(_), Some((node, _))) => {
            let what = "Stream import can not have a 'prefix' and a 'to' property";
            return Err(wrong(node, what));
        }
        (Some(prefix), None) => StreamPlace::Prefix(prefix),
        (None, Some((_, to))) if !to.is_empty() => StreamPlace::To(to),
        (None, _) => StreamPlace::Same,
    };
    Ok(ImportKind::Stream { place, allow_trace })
}

/// Account and subject of an import.
fn source(node: &Node, kind: &str) -> Result<(String, String), ConfigError> {
    let Value::Map(map) = &node.value else {
        let found = node.value.kind();
        let what = format!("{kind} entry should be an account map, got {found}");
        return Err(wrong(node, &what));
    };
    let (mut account, mut subject) = (String::new(), String::new());
    for field in &map.fields {
        match key(field).as_str() {
            "account" => account = text(&field.node)?,
            "subject" => subject = text(&field.node)?,
            _ => unknown(field)?,
        }
    }
    if account.is_empty() || subject.is_empty() {
        return Err(wrong(node, "Expect an account name and a subject"));
    }
    Ok((account, subject))
}
