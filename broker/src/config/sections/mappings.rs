//! `mappings`: what published subjects become.

use menes_protocol::subject;

use super::super::grammar::{ConfigError, Node, Value};
use super::values::{integer, key, map, text, wrong};
use crate::account::description::{Destination, MappingDescription};
use crate::account::mapping::Mappings;

pub(super) fn mappings(node: &Node) -> Result<Vec<MappingDescription>, ConfigError> {
    let mut all = Vec::new();
    for field in &map(node)?.fields {
        let source = &field.key;
        if !subject::is_valid(source.as_bytes()) {
            let what = format!("Subject {source:?} is not a valid subject");
            return Err(wrong(&field.node, &what));
        }
        let (destinations, to) = match &field.node.value {
            Value::String(to) => (vec![whole(to)], format!(" to {to:?}")),
            Value::Array(items) => {
                let destinations: Result<_, _> = items.iter().map(destination).collect();
                (destinations?, String::new())
            }
            _ => (vec![destination(&field.node)?], String::new()),
        };
        let mapping = MappingDescription {
            source: source.clone(),
            destinations,
        };
        if let Err((_, error)) = Mappings::new(std::slice::from_ref(&mapping), None) {
            let what = format!("Error adding mapping for {source:?}{to} : {error}");
            return Err(wrong(&field.node, &what));
        }
        all.push(mapping);
    }
    Ok(all)
}

fn whole(subject: &str) -> Destination {
    Destination {
        subject: subject.to_owned(),
        weight: 100,
        cluster: None,
    }
}

fn destination(node: &Node) -> Result<Destination, ConfigError> {
    let Value::Map(map) = &node.value else {
        return Err(wrong(node, "Expected an entry for the mapping destination"));
    };
    let mut destination = whole("");
    let mut has_weight = false;
    for field in &map.fields {
        match key(field).as_str() {
            "dest" | "destination" => destination.subject = text(&field.node)?,
            "weight" => {
                destination.weight = weight(&field.node)?;
                has_weight = true;
            }
            "cluster" => destination.cluster = Some(text(&field.node)?),
            _ => {
                let what = format!("Unknown field {:?} for mapping destination", field.key);
                return Err(wrong(&field.node, &what));
            }
        }
    }
    if !has_weight {
        let subject = &destination.subject;
        let what = format!("Missing weight for mapping destination {subject:?}");
        return Err(wrong(node, &what));
    }
    Ok(destination)
}

/// `50` or `"50%"`.
fn weight(node: &Node) -> Result<u8, ConfigError> {
    let number = match &node.value {
        Value::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or(text);
            digits.parse().map_err(|_| {
                let what = format!("Invalid weight {digits:?} for mapping destination");
                wrong(node, &what)
            })?
        }
        _ => integer(node)?,
    };
    u8::try_from(number)
        .ok()
        .filter(|&weight| weight <= 100)
        .ok_or_else(|| {
            let what = format!("Invalid weight {number} for mapping destination");
            wrong(node, &what)
        })
}
