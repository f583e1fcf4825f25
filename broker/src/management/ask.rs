//! Routes that are one request of the broker's own interface: what comes over HTTP in its words,
//! and its answer in ours.

use std::time::Duration;

use axum::http::{HeaderMap, Method, StatusCode, header};
use menes_stations::units;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Problem};
use super::routes::{Found, Shape};
use super::{BASE, Management};
use crate::config::reference::closest_of;
use crate::http::session::Session;

/// Time for the broker to answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Entries of a list unless asked otherwise.
const PAGE: u64 = 100;
/// Requests that look at `if_match`, and how the object they change is shown.
const MATCHING: &[(&str, &str)] = &[
    ("STATION.UPDATE", "STATION.INFO"),
    ("STATION.DELETE", "STATION.INFO"),
    ("GROUP.UPDATE", "GROUP.INFO"),
    ("GROUP.DELETE", "GROUP.INFO"),
    ("SCHEMA.ACTIVATE", "SCHEMA.INFO"),
    ("SCHEMA.DELETE", "SCHEMA.INFO"),
];

/// One request of the broker's own interface.
pub(super) async fn broker(
    management: &Management,
    session: &Session,
    request: &str,
    body: impl Into<Value>,
) -> Result<Value, Problem> {
    let inside = session.inside(&management.sessions).await?;
    let subject = format!("{}{request}", menes_stations::api::PREFIX);
    let body = body.into().to_string();
    let answer = inside
        .request(&subject, b"", body.as_bytes(), ANSWER_TIMEOUT)
        .await?;
    let answer: Value =
        serde_json::from_slice(&answer.payload).map_err(|_| Problem::unreadable())?;
    match answer["error"]["description"].as_str() {
        Some(text) => Err(Problem::refused(text)),
        None => Ok(answer),
    }
}

/// Carries out a route of the table.
pub(super) async fn route(
    management: &Management,
    session: &Session,
    found: &Found,
    mut fields: Map<String, Value>,
    headers: &HeaderMap,
) -> Result<Answer, Problem> {
    let request = found.route.request;
    let is_rehearsal = fields.get("dry_run") == Some(&Value::Bool(true));
    if let Some(tag) = if_match(headers)? {
        if !MATCHING.iter().any(|(changing, _)| *changing == request) {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "E-API-QUERY",
                "this route does not look at If-Match",
            ));
        }
        fields.insert("if_match".to_owned(), tag.into());
    }
    if found.route.field("limit").is_some() && !fields.contains_key("limit") {
        fields.insert("limit".to_owned(), PAGE.into());
    }
    canonical(&mut fields)?;
    let answered = broker(management, session, request, fields).await;
    let mut answer = match answered {
        Err(mut problem) if problem.status == StatusCode::PRECONDITION_FAILED => {
            let shows = MATCHING.iter().find(|(changing, _)| *changing == request);
            if let Some((_, shows)) = shows {
                problem.current = broker(management, session, shows, found.named()).await.ok();
            }
            return Err(problem);
        }
        other => other?,
    };
    if is_rehearsal {
        return Ok(Answer::ok(answer));
    }
    let etag = answer["etag"].as_str().map(|tag| format!("\"{tag}\""));
    if request.starts_with("STATION.")
        && matches!(found.route.shape, Shape::Object | Shape::Created)
    {
        link(&mut answer);
    }
    let mut shaped = match found.route.shape {
        Shape::Object | Shape::Own(_) => Answer::ok(answer),
        Shape::Created => {
            let place = answer["name"]
                .as_str()
                .map(|name| format!("{BASE}{}/{}", found.route.path, segment(name)));
            let created = Answer::json(StatusCode::CREATED, answer);
            match place {
                Some(place) => created.with(header::LOCATION, &place),
                None => created,
            }
        }
        Shape::Done => Answer::done(),
        Shape::List(key) => {
            let cursor = match &answer["next"] {
                Value::Number(number) => Some(number.to_string()),
                Value::String(text) => Some(text.clone()),
                _ => None,
            };
            let mut list = json!({"items": answer[key].take(), "next_cursor": cursor});
            if answer["total"].is_u64() {
                list["total"] = answer["total"].take();
            }
            Answer::ok(list)
        }
    };
    if let Some(tag) = etag {
        shaped = shaped.with(header::ETAG, &tag);
    }
    Ok(shaped)
}

/// Creates a station, or changes the one that is there to what is asked for.
pub(super) async fn put_station(
    management: &Management,
    session: &Session,
    found: &Found,
    fields: Map<String, Value>,
    headers: &HeaderMap,
) -> Result<Answer, Problem> {
    let named = |request: &str| found.as_request(request);
    if headers.contains_key(header::IF_MATCH) {
        let change = named("STATION.UPDATE");
        return change_station(management, session, &change, fields, headers).await;
    }
    let made = route(
        management,
        session,
        &named("STATION.CREATE"),
        fields.clone(),
        headers,
    )
    .await;
    match made {
        Err(problem) if problem.code == "E-API-CONFLICT" => {
            let change = named("STATION.UPDATE");
            change_station(management, session, &change, fields, headers).await
        }
        other => other,
    }
}

/// What cannot be changed has to be as it is.
async fn change_station(
    management: &Management,
    session: &Session,
    change: &Found,
    mut fields: Map<String, Value>,
    headers: &HeaderMap,
) -> Result<Answer, Problem> {
    let now = broker(management, session, "STATION.INFO", change.named()).await?;
    for (field, shown) in [
        ("storage_type", &now["storage"]),
        ("idempotency_window_in_ms", &now["idempotency_window_ms"]),
        ("schema_name", &now["schema"]["name"]),
    ] {
        let Some(wanted) = fields.remove(field) else {
            continue;
        };
        if wanted != *shown {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "E-API-CONFLICT",
                format!("{field} of the station is {shown}, and cannot become {wanted}"),
            ));
        }
    }
    route(management, session, change, fields, headers).await
}

/// Where people look at it.
fn link(station: &mut Value) {
    if let Some(name) = station["name"].as_str() {
        let page = format!("/stations/{}", segment(name));
        station["links"] = json!({ "dashboard": page });
    }
}

/// A name as a part of a path.
fn segment(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC)
        .to_string()
        .replace("%2E", ".")
        .replace("%2D", "-")
        .replace("%5F", "_")
}

fn if_match(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let tag = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    let tag = tag.filter(|tag| !tag.is_empty() && !tag.contains('"'));
    tag.map(|tag| Some(tag.to_owned()))
        .ok_or_else(|| Problem::query("If-Match has to be one etag in quotes"))
}

/// What people may write about a station, as the broker has it.
fn canonical(fields: &mut Map<String, Value>) -> Result<(), Problem> {
    let mut found: Option<(&str, i64)> = None;
    for key in [
        "max_age",
        "max_age_ms",
        "max_messages",
        "max_bytes",
        "until_acked",
    ] {
        let Some(value) = fields.remove(key) else {
            continue;
        };
        let wrong = || Problem::body(format!("{key} cannot be {value}"));
        let (kind, amount) = match (key, &value) {
            ("max_age", Value::String(text)) => {
                let age = units::parse_duration(text).ok_or_else(wrong)?;
                ("message_age_sec", age.as_secs())
            }
            ("max_age_ms", Value::Number(ms)) => {
                ("message_age_sec", ms.as_u64().ok_or_else(wrong)? / 1_000)
            }
            ("max_messages", Value::Number(count)) => {
                ("messages", count.as_u64().ok_or_else(wrong)?)
            }
            ("max_bytes", Value::Number(bytes)) => ("bytes", bytes.as_u64().ok_or_else(wrong)?),
            ("max_bytes", Value::String(text)) => {
                ("bytes", units::parse_bytes(text).ok_or_else(wrong)?)
            }
            ("until_acked", Value::Bool(true)) => ("ack_based", 1),
            _ => return Err(wrong()),
        };
        let amount = i64::try_from(amount).ok().filter(|amount| *amount > 0);
        let amount = amount.ok_or_else(wrong)?;
        if found.is_some() || fields.contains_key("retention_type") {
            return Err(Problem::body(
                "say one thing about how long messages are kept",
            ));
        }
        found = Some((kind, amount));
    }
    if let Some((kind, amount)) = found {
        fields.insert("retention_type".to_owned(), kind.into());
        fields.insert("retention_value".to_owned(), amount.into());
    }
    Ok(())
}

/// The fields of a request: those of its body, what its path names, and `dry_run` of its query.
pub(super) fn body_fields(
    body: &[u8],
    query: &str,
    found: &Found,
) -> Result<Map<String, Value>, Problem> {
    let mut fields: Map<String, Value> = if body.iter().all(u8::is_ascii_whitespace) {
        Map::new()
    } else {
        serde_json::from_slice(body).map_err(|error| Problem::body(error.to_string()))?
    };
    if let Some(unknown) = fields.keys().find(|key| found.route.field(key).is_none()) {
        let known: Vec<&str> = found.route.fields.iter().map(|field| field.name).collect();
        return Err(Problem::body(unknown_field(unknown, &known)));
    }
    rename(&mut fields, found);
    fields.extend(found.named());
    for (name, value) in pairs(query)? {
        match (name.as_str(), value.as_str()) {
            ("dry_run", "" | "true") => {
                fields.insert(name, true.into());
            }
            ("dry_run", "false") => {}
            _ => {
                return Err(Problem::query(format!(
                    "there is no parameter {name:?}: dry_run=true, the rest goes into the body"
                )));
            }
        }
    }
    Ok(fields)
}

fn unknown_field(unknown: &str, known: &[&str]) -> String {
    let near = closest_of(unknown, known.iter().copied());
    let meant = near.map_or_else(String::new, |name| format!(", did you mean {name:?}?"));
    format!(
        "there is no field {unknown:?}{meant}; there are: {}",
        known.join(", ")
    )
}

/// The same for a request without a body: its query.
pub(super) fn query_fields(query: &str, found: &Found) -> Result<Map<String, Value>, Problem> {
    let mut fields = Map::new();
    for (name, value) in pairs(query)? {
        let field = found
            .route
            .field(&name)
            .ok_or_else(|| Problem::query(format!("there is no parameter {name:?}")))?;
        let value = match field.kind {
            "integer" => {
                let number: i64 = value
                    .parse()
                    .map_err(|_| Problem::query(format!("{name} has to be a number")))?;
                Value::from(number)
            }
            "boolean" => match value.as_str() {
                "" | "true" => Value::from(true),
                "false" => Value::from(false),
                _ => return Err(Problem::query(format!("{name} has to be true or false"))),
            },
            _ => Value::from(value),
        };
        fields.insert(name, value);
    }
    rename(&mut fields, found);
    fields.extend(found.named());
    Ok(fields)
}

/// The broker's words for them.
fn rename(fields: &mut Map<String, Value>, found: &Found) {
    for field in found.route.fields {
        if field.name != field.request
            && let Some(value) = fields.remove(field.name)
        {
            fields.insert(field.request.to_owned(), value);
        }
    }
}

fn pairs(query: &str) -> Result<Vec<(String, String)>, Problem> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = value.replace('+', " ");
            let value = percent_decode_str(&value)
                .decode_utf8()
                .map_err(|_| Problem::query(format!("{name} is not UTF-8")))?;
            Ok((name.to_owned(), value.into_owned()))
        })
        .collect()
}

/// Whether a request only looks.
pub(super) fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

#[cfg(test)]
mod tests {
    use super::super::routes;
    use super::*;

    fn found(method: &Method, path: &str) -> Found {
        let segments: Vec<String> = path.split('/').map(str::to_owned).collect();
        routes::find(method, &segments).expect("a route")
    }

    #[test]
    fn the_path_names_what_the_body_leaves_out() {
        let route = found(&Method::POST, "stations/a.b/groups/g/reset");
        assert_eq!(route.route.request, "GROUP.RESET");
        let fields = body_fields(br#"{"to":"end","partition":2}"#, "", &route).expect("good");
        assert_eq!(
            Value::Object(fields),
            json!({"to": "end", "partition": 2, "station": "a.b", "group": "g"})
        );
        assert!(body_fields(br#"{"station":"other"}"#, "", &route).is_err());
        assert!(body_fields(b"[]", "", &route).is_err());
        let dry = body_fields(b"", "dry_run=true", &route).expect("good");
        assert_eq!(dry["dry_run"], true);
        assert!(body_fields(b"", "dry=1", &route).is_err());
        let list = found(&Method::GET, "stations/a/dead-letters");
        let fields = query_fields("cursor=7&search=a+b%21", &list).expect("good");
        assert_eq!(
            Value::Object(fields),
            json!({"after": 7, "search": "a b!", "station": "a"})
        );
        assert!(query_fields("cursor=x", &list).is_err());
        assert!(query_fields("other=1", &list).is_err());
    }

    #[test]
    fn a_mistyped_field_is_met_with_the_nearest_one() {
        let route = found(&Method::POST, "stations");
        let wrong = body_fields(br#"{"partitons":2}"#, "", &route).expect_err("mistyped");
        assert!(
            wrong.detail.contains("did you mean \"partitions\"?"),
            "{}",
            wrong.detail
        );
    }

    #[test]
    fn how_long_messages_are_kept_is_said_once_and_with_a_unit() {
        let told = |text: &str| {
            let mut fields: Map<String, Value> = serde_json::from_str(text).expect("JSON");
            canonical(&mut fields).map(|()| Value::Object(fields)).ok()
        };
        for (text, kind, value) in [
            (r#"{"max_age":"7d"}"#, "message_age_sec", 604_800_i64),
            (r#"{"max_age_ms":60000}"#, "message_age_sec", 60),
            (r#"{"max_bytes":"200GiB"}"#, "bytes", 200 << 30),
            (r#"{"max_bytes":5}"#, "bytes", 5),
            (r#"{"max_messages":5}"#, "messages", 5),
        ] {
            let fields = told(text).expect(text);
            assert_eq!(
                (&fields["retention_type"], &fields["retention_value"]),
                (&json!(kind), &json!(value))
            );
        }
        for bad in [
            r#"{"max_age":"soon"}"#,
            r#"{"max_age":7}"#,
            r#"{"max_messages":0}"#,
            r#"{"max_age":"1d","max_bytes":1}"#,
            r#"{"max_age":"1d","retention_type":"bytes"}"#,
            r#"{"until_acked":false}"#,
        ] {
            assert_eq!(told(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_etag_comes_in_quotes() {
        let told = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, axum::http::HeaderValue::from_static(text));
            if_match(&headers).ok()
        };
        assert_eq!(told("\"a1\""), Some(Some("a1".to_owned())));
        assert_eq!(told("*"), Some(None));
        for bad in ["a1", "\"a\", \"b\"", "\"\"", "W/\"a\""] {
            assert_eq!(told(bad), None, "{bad}");
        }
    }
}
