//! What a server says about itself, and what it is asked to try.

use std::collections::BTreeMap;

use super::super::grammar::{ConfigError, Node, Value};
use super::super::options::{OcspMode, OcspOptions};
use super::values::{boolean, map, text, texts, wrong};

/// Flags that nats-server has.
const FLAGS: &[&str] = &[
    "js_ack_fc_v2",
    "js_raft_delete_range",
    "js_snapshot_sources",
];

/// Tags: one, or a list; in lower case, each once.
pub(super) fn tags(node: &Node) -> Result<Vec<String>, ConfigError> {
    let wrong_type = |node: &Node| {
        let what = format!(
            "error parsing tags: expected text, found {}",
            node.value.kind()
        );
        wrong(node, &what)
    };
    let items = match &node.value {
        Value::Array(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut tags: Vec<String> = Vec::new();
    for item in items {
        let tag = text(item).map_err(|_| wrong_type(item))?;
        let tag = tag.trim().to_lowercase();
        if !tag.is_empty() && !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(tags)
}

/// Texts by name.
pub(super) fn metadata(node: &Node) -> Result<BTreeMap<String, String>, ConfigError> {
    let fields = &map(node)?.fields;
    fields
        .iter()
        .map(|field| Ok((field.key.clone(), text(&field.node)?)))
        .collect()
}

/// Warns of flags that are switched on: there is nothing behind them here.
pub(super) fn feature_flags(node: &Node, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    for field in &map(node)?.fields {
        let is_on = boolean(&field.node).map_err(|_| {
            let kind = field.node.value.kind();
            let what = format!(
                "error parsing feature flag {:?}: expected bool, got {kind}",
                field.key
            );
            wrong(&field.node, &what)
        })?;
        if !FLAGS.contains(&field.key.as_str()) {
            warnings.push(format!(
                "{}: unknown feature flag {:?}",
                field.place, field.key
            ));
        } else if is_on {
            warnings.push(format!(
                "{}: {:?} has no effect in this version",
                field.place, field.key
            ));
        }
    }
    Ok(())
}

/// `ocsp`: which certificates are stapled, and whom to ask.
pub(super) fn ocsp(node: &Node) -> Result<OcspOptions, ConfigError> {
    let mut options = OcspOptions::default();
    let map = match &node.value {
        Value::Bool(true) => return Ok(options),
        Value::Bool(false) => {
            options.mode = OcspMode::Never;
            return Ok(options);
        }
        Value::Map(map) => map,
        other => {
            let what = format!(
                "error parsing ocsp config: unsupported type {}",
                other.kind()
            );
            return Err(wrong(node, &what));
        }
    };
    for field in &map.fields {
        match field.key.as_str() {
            "mode" => options.mode = ocsp_mode(&field.node)?,
            "url" | "urls" => options.urls = texts(&field.node)?,
            other => {
                let what = format!("error parsing ocsp config: unsupported field {other:?}");
                return Err(wrong(&field.node, &what));
            }
        }
    }
    Ok(options)
}

fn ocsp_mode(node: &Node) -> Result<OcspMode, ConfigError> {
    let mode = text(node)?;
    match mode.to_ascii_lowercase().as_str() {
        "auto" => Ok(OcspMode::Auto),
        "always" => Ok(OcspMode::Always),
        "must" => Ok(OcspMode::Must),
        "never" => Ok(OcspMode::Never),
        _ => {
            let what = format!("error parsing ocsp config: unsupported ocsp mode {mode:?}");
            Err(wrong(node, &what))
        }
    }
}
