//! The OpenAPI document, written from the table of routes.

use serde_json::{Map, Value, json};

use super::BASE;
use super::routes::{Field, ROUTES, Route, Shape};

/// The document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths
            .entry(format!("{BASE}{}", route.path))
            .or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation(route);
    }
    paths.insert(
        format!("{BASE}/health"),
        json!({"get": {
            "summary": "Says that the server is there", "operationId": "get_health", "security": [],
            "responses": {"200": {"description": "It is."}},
        }}),
    );
    paths.insert(
        format!("{BASE}/sessions"),
        json!({"post": {
            "summary": "Logs a user in", "operationId": "post_sessions", "security": [],
            "requestBody": {"required": true, "content": {"application/json": {"schema": {
                "type": "object", "required": ["username"], "additionalProperties": false,
                "properties": {
                    "username": {"type": "string"}, "password": {"type": "string"},
                    "token": {"type": "string"},
                },
            }}}},
            "responses": {
                "201": {"description": "A bearer token: token, expires_in_ms, username."},
                "default": {"$ref": "#/components/responses/problem"},
            },
        }}),
    );
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
    let mut parameters: Vec<Value> = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    if route.method == "GET" {
        parameters.extend(route.fields.iter().map(|field| {
            json!({"name": field.name, "in": "query", "description": field.about, "schema": schema(field)})
        }));
    } else {
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
    let (status, content) = match route.shape {
        Shape::Object => ("200", Some(json!({"type": "object"}))),
        Shape::Created => ("201", Some(json!({"type": "object"}))),
        Shape::Done => ("204", None),
        Shape::List(_) => (
            "200",
            Some(
                json!({"type": "object", "required": ["items"], "properties": {
                    "items": {"type": "array", "items": {"type": "object"}},
                    "next_cursor": {"type": ["string", "null"]},
                }}),
            ),
        ),
    };
    let mut answer = json!({"description": "Done."});
    if let Some(schema) = content {
        answer["content"] = json!({"application/json": {"schema": schema}});
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
        kind => json!({"type": kind}),
    }
}
