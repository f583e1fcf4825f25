//! Objects must be objects.
//!
//! The deserialiser takes a list for a structure, its fields in order, and an empty list for a
//! structure of defaults: `"pub": []` would allow everything. Go refuses both, and so does this.

use serde_json::{Map, Value};

/// Whether everything inside `nats` that stands for a structure is an object.
pub(crate) fn is_right(nats: &Value) -> bool {
    let Some(nats) = nats.as_object() else {
        return false;
    };
    let parts = [
        "limits",
        "default_permissions",
        "authorization",
        "trace",
        "server_id",
        "client_info",
        "connect_opts",
        "client_tls",
    ];
    has_permissions(nats)
        && are_objects(nats, &parts)
        && inner(nats, "default_permissions").is_none_or(has_permissions)
        && inner(nats, "limits").is_none_or(|limits| has_values(limits, "tiered_limits"))
        && is_list(nats.get("imports"), |_| true)
        && is_list(nats.get("exports"), |export| {
            are_objects(export, &["service_latency"])
        })
        && inner(nats, "mappings").is_none_or(|mappings| {
            mappings
                .values()
                .all(|parts| is_list(Some(parts), |_| true))
        })
        && signing_keys(nats.get("signing_keys"))
}

fn inner<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Map<String, Value>> {
    map.get(name)?.as_object()
}

fn are_objects(map: &Map<String, Value>, names: &[&str]) -> bool {
    names
        .iter()
        .all(|name| map.get(*name).is_none_or(Value::is_object))
}

fn has_permissions(map: &Map<String, Value>) -> bool {
    are_objects(map, &["pub", "sub", "resp"]) && is_list(map.get("times"), |_| true)
}

fn has_values(map: &Map<String, Value>, name: &str) -> bool {
    match map.get(name) {
        None => true,
        Some(Value::Object(values)) => values.values().all(Value::is_object),
        Some(_) => false,
    }
}

/// A list of objects that are each right; or anything else, which the deserialiser refuses.
fn is_list(value: Option<&Value>, is_right: impl Fn(&Map<String, Value>) -> bool) -> bool {
    let Some(Value::Array(list)) = value else {
        return true;
    };
    list.iter()
        .all(|entry| entry.as_object().is_some_and(&is_right))
}

fn signing_keys(value: Option<&Value>) -> bool {
    let Some(Value::Array(keys)) = value else {
        return true;
    };
    keys.iter().all(|key| {
        let Some(scope) = key.as_object() else {
            return true;
        };
        are_objects(scope, &["template"]) && inner(scope, "template").is_none_or(has_permissions)
    })
}
