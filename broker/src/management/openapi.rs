//! The OpenAPI document, written from the table of routes and from what answers look like
//! ([`super::answers`]).

use serde_json::{Map, Value, json};

use super::BASE;
use super::answers;
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
            "schemas": answers::schemas(),
            "responses": {"problem": {
                "description": "What went wrong (RFC 9457).",
                "content": {"application/problem+json": {"schema": answers::named("Problem")}},
            }},
        },
    })
}

/// A name for a route: what it asks for, and how often that was asked for before.
fn operation_id(route: &Route) -> String {
    let name = route.request.to_lowercase().replace('.', "_");
    let same = ROUTES.iter().filter(|other| other.request == route.request);
    // The shortest path is about more than one thing's.
    let is_wider = same
        .clone()
        .any(|other| other.path.len() > route.path.len());
    if is_wider {
        format!("{name}_all")
    } else {
        name
    }
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "summary": route.about,
        "operationId": operation_id(route),
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
            json!({"name": field.name, "in": "query", "description": field.about,
                "required": field.is_needed, "schema": schema(field)})
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
        let needed = route.fields.iter().filter(|field| field.is_needed);
        let needed: Vec<&str> = needed.map(|field| field.name).collect();
        operation["requestBody"] = json!({
            "required": !needed.is_empty(),
            "content": {"application/json": {"schema": {
                "type": "object", "additionalProperties": false, "required": needed,
                "properties": properties,
            }}},
        });
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation["responses"] = responses(route, own);
    operation
}

fn responses(route: &Route, own: Option<Own>) -> Value {
    let document = |schema: &Value| json!({"application/json": {"schema": schema}});
    let shown = answers::of(route.request);
    let list = json!({"type": "object", "required": ["items"], "properties": {
        "items": {"type": "array", "items": shown},
        "next_cursor": {"type": ["string", "null"]},
        "total": {"type": "integer"},
    }});
    let (status, content) = match (route.shape, own) {
        (Shape::Done, _) | (_, Some(Own::LogOut | Own::Settle(_))) => ("204", None),
        (Shape::List(_), _) | (_, Some(Own::Fetch)) => ("200", Some(document(&list))),
        (_, Some(Own::Produce)) => {
            let mut both = document(&shown);
            both["application/x-ndjson"] = json!({"schema": {"type": "string"}});
            ("201", Some(both))
        }
        (Shape::Created, _) | (_, Some(Own::LogIn)) => ("201", Some(document(&shown))),
        (_, Some(Own::Events | Own::Tail)) => {
            let events = json!({"text/event-stream": {"schema": {"type": "string"}}});
            ("200", Some(events))
        }
        _ => ("200", Some(document(&shown))),
    };
    let mut answer = json!({"description": "Done."});
    if let Some(content) = content {
        answer["content"] = content;
    }
    let mut responses = json!({
        status: answer,
        "default": {"$ref": "#/components/responses/problem"},
    });
    match own {
        Some(Own::PutStation) => responses["201"] = responses["200"].clone(),
        // What was stored before under its id is not made again.
        Some(Own::Produce) => responses["200"] = responses["201"].clone(),
        _ => {}
    }
    let is_rehearsed = route.method != "GET" && (own.is_none() || own == Some(Own::PutStation));
    if is_rehearsed {
        let steps = answers::named("Steps");
        let both = match responses["200"]["content"]["application/json"]["schema"].take() {
            Value::Null => steps,
            schema => json!({"anyOf": [schema, steps]}),
        };
        responses["200"] = json!({"description": "Done, or with dry_run what would be done.",
            "content": document(&both)});
    }
    responses
}

fn schema(field: &Field) -> Value {
    match field.kind {
        "array" => json!({"type": "array", "items": {"type": "integer"}}),
        "texts" => json!({"type": "array", "items": {"type": "string"}}),
        "size" => json!({"type": ["integer", "string"]}),
        kind => json!({"type": kind}),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_operation_has_a_name_of_its_own_and_says_what_it_answers() {
        let document = document();
        let paths = document["paths"].as_object().expect("paths");
        let mut names = BTreeSet::new();
        for operation in paths
            .values()
            .flat_map(|path| path.as_object().expect("operations").values())
        {
            let name = operation["operationId"].as_str().expect("a name");
            assert!(names.insert(name.to_owned()), "{name} comes twice");
            let answers = operation["responses"].as_object().expect("answers");
            let done = answers.iter().find(|(status, _)| status.starts_with('2'));
            assert!(done.is_some(), "{name}");
        }
        assert_eq!(names.len(), ROUTES.len());
    }

    #[test]
    fn every_schema_that_is_referred_to_is_there() {
        let document = document();
        let text = document.to_string();
        let schemas = document["components"]["schemas"]
            .as_object()
            .expect("schemas");
        for (_, rest) in text
            .match_indices("#/components/schemas/")
            .map(|(at, found)| (at, &text[at + found.len()..]))
        {
            let name = rest.split('"').next().expect("an end");
            assert!(schemas.contains_key(name), "{name}");
        }
    }
}
