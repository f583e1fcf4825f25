//! The OpenAPI document, written from the table of routes.

use serde_json::{Map, Value, json};

use super::BASE;
use super::routes::{Field, Own, ROUTES, Route, Shape};

/// The document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths
            .entry(format!("{BASE}{}", route.path))
            .or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Menes", "version": env!("CARGO_PKG_VERSION")},
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
            "responses": {"problem": {
                "description": "What went wrong (RFC 9457).",
                "content": {"application/problem+json": {"schema": {
                    "type": "object", "required": ["code", "status", "detail"],
                    "properties": {
                        "type": {"type": "string"}, "title": {"type": "string"},
                        "status": {"type": "integer"}, "code": {"type": "string"},
                        "detail": {"type": "string"},
                    },
                }}},
            }},
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "summary": route.about,
        "operationId": route.request.to_lowercase().replace('.', "_"),
    });
    let own = match route.shape {
        Shape::Own(own) => Some(own),
        _ => None,
    };
    if own.is_some_and(Own::is_public) {
        operation["security"] = json!([]);
    }
    let mut parameters: Vec<Value> = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    if route.method == "GET" || own == Some(Own::Produce) {
        parameters.extend(route.fields.iter().map(|field| {
            json!({"name": field.name, "in": "query", "description": field.about, "schema": schema(field)})
        }));
    } else if own.is_none() || own == Some(Own::PutStation) {
        parameters.push(
            json!({"name": "dry_run", "in": "query", "schema": {"type": "boolean"},
            "description": "Only say what would be done: 200 with steps."}),
        );
    }
    if route.method == "POST" && own.is_none_or(|own| own == Own::Produce) {
        parameters.push(
            json!({"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"},
            "description": "Requests with the same key are done once; kept for a day."}),
        );
    }
    if matches!(own, Some(Own::Events | Own::Tail)) {
        parameters.push(
            json!({"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"},
            "description": "Go on behind this event."}),
        );
    }
    let has_body = route.method != "GET" && !route.fields.is_empty();
    if own == Some(Own::Produce) {
        operation["requestBody"] = json!({"required": true, "content": {
            "application/json": {}, "application/octet-stream": {}, "application/x-ndjson": {},
        }});
    } else if has_body {
        let properties: Map<String, Value> = route
            .fields
            .iter()
            .map(|field| {
                let mut schema = schema(field);
                schema["description"] = field.about.into();
                (field.name.to_owned(), schema)
            })
            .collect();
        operation["requestBody"] = json!({"content": {"application/json": {"schema": {
            "type": "object", "additionalProperties": false, "properties": properties,
        }}}});
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    let list = || {
        json!({"type": "object", "required": ["items"], "properties": {
            "items": {"type": "array", "items": {"type": "object"}},
            "next_cursor": {"type": ["string", "null"]},
            "total": {"type": "integer"},
        }})
    };
    let object = || json!({"type": "object"});
    let (status, kind, schema) = match (route.shape, own) {
        (Shape::Done, _) | (_, Some(Own::LogOut | Own::Settle(_))) => ("204", "", Value::Null),
        (Shape::List(_), _) | (_, Some(Own::Fetch)) => ("200", "application/json", list()),
        (Shape::Created, _) | (_, Some(Own::LogIn | Own::Produce)) => {
            ("201", "application/json", object())
        }
        (_, Some(Own::Events | Own::Tail)) => {
            ("200", "text/event-stream", json!({"type": "string"}))
        }
        _ => ("200", "application/json", object()),
    };
    let mut answer = json!({"description": "Done."});
    if !kind.is_empty() {
        answer["content"] = json!({kind: {"schema": schema}});
    }
    operation["responses"] = json!({
        status: answer,
        "default": {"$ref": "#/components/responses/problem"},
    });
    operation
}

fn schema(field: &Field) -> Value {
    match field.kind {
        "array" => json!({"type": "array", "items": {"type": "integer"}}),
        "texts" => json!({"type": "array", "items": {"type": "string"}}),
        "size" => json!({"type": ["integer", "string"]}),
        kind => json!({"type": kind}),
    }
}
