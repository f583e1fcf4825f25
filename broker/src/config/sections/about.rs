//! What a server says about itself, and what it is asked to try.

use std::collections::BTreeMap;

use super::super::grammar::{ConfigError, Node, Value};
use super::values::{boolean, map, text, wrong};

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

/// `ocsp`: what is not asked for need not be done.
pub(super) fn ocsp(node: &Node) -> Result<(), ConfigError> {
    let mode = match &node.value {
        // It honours certificates that insist; none is asked whether it does.
        Value::Bool(_) => return Ok(()),
        Value::Map(map) => map.get("mode").map(|field| text(&field.node)).transpose()?,
        _ => return Err(wrong(node, "expected true, false or a map with a mode")),
    };
    match mode
        .as_deref()
        .unwrap_or("auto")
        .to_ascii_lowercase()
        .as_str()
    {
        "auto" | "never" => Ok(()),
        "always" | "must" => Err(wrong(
            node,
            "OCSP stapling is not supported by this version",
        )),
        other => Err(wrong(
            node,
            &format!("error parsing ocsp config: unsupported ocsp mode {other:?}"),
        )),
    }
}
