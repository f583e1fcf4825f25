//! JSON Schema.
//!
//! Before a definition is compiled it is measured: how often one place of a message can be looked
//! at, at the deepest nesting a message may have. A definition that refers to itself in place would
//! never end, and one whose alternatives multiply would end too late; both are refused.

use std::collections::{BTreeMap, BTreeSet};

use jsonschema::PatternOptions;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::{MAX_MESSAGE_DEPTH, SchemaError, Violation};

/// Most looks at one place of a message.
const MAX_LOOKS: u64 = 20_000;
/// Most places in a definition.
const MAX_PLACES: usize = 20_000;
/// Largest compiled pattern, bytes.
const MAX_PATTERN: usize = 1 << 20;

/// A compiled JSON Schema.
#[derive(Debug)]
pub(crate) struct Schema(jsonschema::Validator);

fn refused(text: impl Into<String>) -> SchemaError {
    SchemaError::Json(text.into())
}

fn parse(content: &str) -> Result<Value, SchemaError> {
    let schema: Value =
        serde_json::from_str(content).map_err(|error| refused(error.to_string()))?;
    if schema.is_object() || schema.is_boolean() {
        Ok(schema)
    } else {
        Err(refused("it is neither an object nor a boolean"))
    }
}

impl Schema {
    pub(crate) fn compile(content: &str) -> Result<Self, SchemaError> {
        let schema = parse(content)?;
        Measure::new(&schema).run()?;
        jsonschema::options()
            .should_validate_formats(false)
            .with_pattern_options(PatternOptions::regex().size_limit(MAX_PATTERN))
            .build(&schema)
            .map(Self)
            .map_err(|error| refused(error.to_string()))
    }

    pub(crate) fn check(&self, payload: &[u8]) -> Result<(), Violation> {
        let message = crate::message(payload)?;
        self.0.validate(&message).map_err(|error| {
            let place = error.instance_path.to_string();
            if place.is_empty() {
                Violation::new(error.to_string())
            } else {
                Violation::new(format!("{error} at {place}"))
            }
        })
    }
}

/// Keywords whose value is a schema for the same place of the message.
const IN_PLACE: [&str; 4] = ["not", "if", "then", "else"];
/// Keywords whose value is a list of schemas for the same place.
const IN_PLACE_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Keywords whose value is an object of schemas for the same place.
const IN_PLACE_MAPS: [&str; 2] = ["dependentSchemas", "dependencies"];
/// Keywords whose value is a schema, or a list of them, for items.
const ITEMS: [&str; 5] = [
    "items",
    "prefixItems",
    "additionalItems",
    "contains",
    "unevaluatedItems",
];
/// Keywords whose value is a schema for properties in general.
const PROPERTIES: [&str; 3] = [
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
];
/// Keywords that look at the message from elsewhere than where they stand.
const ELSEWHERE: [&str; 2] = ["$dynamicRef", "$recursiveRef"];

/// Measures a definition.
struct Measure<'a> {
    root: &'a Value,
    /// Looks by place in the definition (an address) and depth that remains.
    known: BTreeMap<(usize, usize), u64>,
    /// Places being measured at one depth.
    open: BTreeSet<(usize, usize)>,
    places: usize,
}

impl<'a> Measure<'a> {
    fn new(root: &'a Value) -> Self {
        Self {
            root,
            known: BTreeMap::new(),
            open: BTreeSet::new(),
            places: 0,
        }
    }

    fn run(mut self) -> Result<(), SchemaError> {
        self.references(self.root, true)?;
        let looks = self.looks(self.root, MAX_MESSAGE_DEPTH)?;
        if looks > MAX_LOOKS {
            return Err(refused("its alternatives multiply too much"));
        }
        Ok(())
    }

    /// Refuses references that are not a path within the definition.
    fn references(&mut self, value: &Value, is_root: bool) -> Result<(), SchemaError> {
        self.places += 1;
        if self.places > MAX_PLACES {
            return Err(refused("it is too large"));
        }
        match value {
            Value::Array(items) => items
                .iter()
                .try_for_each(|item| self.references(item, false)),
            Value::Object(object) => {
                for keyword in ELSEWHERE {
                    if object.get(keyword).is_some_and(Value::is_string) {
                        return Err(refused(format!("{keyword} is not supported")));
                    }
                }
                for keyword in ["$id", "id"] {
                    if !is_root && object.get("$ref").is_none() && is_base(object, keyword) {
                        return Err(refused(format!("{keyword} is supported at the top only")));
                    }
                }
                if let Some(Value::String(target)) = object.get("$ref") {
                    self.target(target)?;
                }
                object
                    .values()
                    .try_for_each(|value| self.references(value, false))
            }
            _ => Ok(()),
        }
    }

    fn target(&self, reference: &str) -> Result<&'a Value, SchemaError> {
        let outside = || refused(format!("the reference {reference:?} leads out of it"));
        let pointer = reference.strip_prefix('#').ok_or_else(outside)?;
        let pointer = percent_decode_str(pointer)
            .decode_utf8()
            .map_err(|_| outside())?;
        self.root.pointer(&pointer).ok_or_else(outside)
    }

    /// How often a place of a message is looked at, at most, by `schema` and what it leads to.
    fn looks(&mut self, schema: &'a Value, depth: usize) -> Result<u64, SchemaError> {
        let Value::Object(object) = schema else {
            return Ok(1);
        };
        let key = (std::ptr::from_ref(schema).addr(), depth);
        if let Some(known) = self.known.get(&key) {
            return Ok(*known);
        }
        if !self.open.insert(key) {
            return Err(refused("it refers to itself without an end"));
        }
        let mut total = 1_u64;
        if let Some(Value::String(target)) = object.get("$ref") {
            let target = self.target(target)?;
            total = total.saturating_add(self.looks(target, depth)?);
        }
        for keyword in IN_PLACE {
            if let Some(schema) = object.get(keyword) {
                total = total.saturating_add(self.looks(schema, depth)?);
            }
        }
        for schema in IN_PLACE_LISTS
            .iter()
            .flat_map(|keyword| list(object, keyword))
        {
            total = total.saturating_add(self.looks(schema, depth)?);
        }
        for schema in IN_PLACE_MAPS
            .iter()
            .flat_map(|keyword| map(object, keyword))
        {
            total = total.saturating_add(self.looks(schema.1, depth)?);
        }
        if depth > 0 {
            total = total.saturating_add(self.looks_below(object, depth - 1)?);
        }
        self.open.remove(&key);
        self.known.insert(key, total);
        Ok(total)
    }

    /// The most looks at one item or property below.
    fn looks_below(
        &mut self,
        object: &'a Map<String, Value>,
        depth: usize,
    ) -> Result<u64, SchemaError> {
        let mut items = 0_u64;
        for keyword in ITEMS {
            let single = object.get(keyword).filter(|schema| !schema.is_array());
            let mut most = 0;
            // An item is held against one schema of a list.
            for schema in list(object, keyword) {
                most = most.max(self.looks(schema, depth)?);
            }
            if let Some(schema) = single {
                most = self.looks(schema, depth)?;
            }
            items = items.saturating_add(most);
        }
        let mut any = 0_u64;
        for schema in PROPERTIES.iter().filter_map(|keyword| object.get(*keyword)) {
            any = any.saturating_add(self.looks(schema, depth)?);
        }
        for (_, schema) in map(object, "patternProperties") {
            any = any.saturating_add(self.looks(schema, depth)?);
        }
        let mut named = 0;
        for (_, schema) in map(object, "properties") {
            named = named.max(self.looks(schema, depth)?);
        }
        Ok(items.max(any.saturating_add(named)))
    }
}

/// Whether an object names a base for the references below it. A property may be called so, too.
fn is_base(object: &Map<String, Value>, keyword: &str) -> bool {
    object.get(keyword).is_some_and(Value::is_string)
        && object.keys().any(|key| {
            key == "type" || key.starts_with('$') || key == "properties" || key == "allOf"
        })
}

fn list<'a>(object: &'a Map<String, Value>, keyword: &str) -> impl Iterator<Item = &'a Value> {
    let list = object.get(keyword).and_then(Value::as_array);
    list.into_iter().flatten()
}

fn map<'a>(
    object: &'a Map<String, Value>,
    keyword: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let map = object.get(keyword).and_then(Value::as_object);
    map.into_iter().flatten()
}

/// Keywords that describe and do not restrict.
const DESCRIBING: [&str; 12] = [
    "$schema",
    "$id",
    "id",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "format",
    "deprecated",
    "readOnly",
    "writeOnly",
];

/// Whether whatever satisfies `old` satisfies `new`. Keywords other than types, properties, items
/// and enumerations have to be the same on both sides.
pub(crate) fn compatible(old: &str, new: &str) -> Result<(), SchemaError> {
    let (old, new) = (parse(old)?, parse(new)?);
    wider(&old, &new, "").map_err(SchemaError::Incompatible)
}

fn wider(old: &Value, new: &Value, place: &str) -> Result<(), String> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        let anything = new == &Value::Bool(true) || old == &Value::Bool(false) || old == new;
        return if anything {
            Ok(())
        } else {
            Err(format!("{} is not the same", shown(place)))
        };
    };
    if let Some(allowed) = types(new) {
        let stays = types(old).is_some_and(|types| {
            types.iter().all(|old| {
                allowed.contains(old) || (*old == "integer" && allowed.contains(&"number"))
            })
        });
        if !stays {
            return Err(format!("the type of {} is narrower", shown(place)));
        }
    }
    let required: Vec<&Value> = list(old, "required").collect();
    if let Some(field) = list(new, "required").find(|field| !required.contains(field)) {
        return Err(format!("{field} of {} is required now", shown(place)));
    }
    if let Some(Value::Array(allowed)) = new.get("enum") {
        let before = old.get("enum").and_then(Value::as_array);
        let stays = before.is_some_and(|before| before.iter().all(|v| allowed.contains(v)));
        if !stays {
            return Err(format!("{} allows fewer values", shown(place)));
        }
    }
    for (name, schema) in map(new, "properties") {
        let place = format!("{place}/{name}");
        match old.get("properties").and_then(|before| before.get(name)) {
            Some(before) => wider(before, schema, &place)?,
            // What was never described may have been anything.
            None if is_closed(old) => {}
            None => return Err(format!("{} was not described before", shown(&place))),
        }
    }
    let gone = map(old, "properties")
        .find(|(name, _)| new.get("properties").and_then(|p| p.get(*name)).is_none());
    if is_closed(new)
        && let Some((name, _)) = gone
    {
        return Err(format!(
            "{} is not allowed any more",
            shown(&format!("{place}/{name}"))
        ));
    }
    if is_closed(new) && !is_closed(old) {
        return Err(format!("{} allows no other properties now", shown(place)));
    }
    match (old.get("items"), new.get("items")) {
        (_, None) => {}
        (Some(before), Some(after)) => wider(before, after, &format!("{place}[]"))?,
        (None, Some(_)) => return Err(format!("items of {} are restricted now", shown(place))),
    }
    same_rest(old, new, place)
}

fn same_rest(
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    place: &str,
) -> Result<(), String> {
    let compared = [
        "type",
        "required",
        "enum",
        "properties",
        "items",
        "additionalProperties",
    ];
    let differs = new.iter().find(|(keyword, value)| {
        let keyword = keyword.as_str();
        !compared.contains(&keyword)
            && !DESCRIBING.contains(&keyword)
            && old.get(keyword) != Some(value)
    });
    match differs {
        Some((keyword, _)) => Err(format!("{keyword} of {} is not the same", shown(place))),
        None => Ok(()),
    }
}

fn is_closed(schema: &Map<String, Value>) -> bool {
    schema.get("additionalProperties") == Some(&Value::Bool(false))
}

fn types(schema: &Map<String, Value>) -> Option<Vec<&str>> {
    match schema.get("type")? {
        Value::String(one) => Some(vec![one]),
        Value::Array(several) => Some(several.iter().filter_map(Value::as_str).collect()),
        _ => None,
    }
}

fn shown(place: &str) -> &str {
    if place.is_empty() {
        "the message"
    } else {
        place
    }
}
