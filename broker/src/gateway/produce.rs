//! Messages from HTTP into stations.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header;
use bytes::Bytes;
use menes_protocol::headers::HeaderBuilder;
use menes_stations::name::StationName;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{Answer, Call};
use crate::http::session::Route;
use crate::inside::{Answers, Inside, RequestError};

/// What the gateway is called among the producers of a station.
const PRODUCER: &str = "rest-gateway";
/// How the names of headers begin that belong to Memphis.
const RESERVED: &str = "$memphis";
/// Time for the broker to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages of a batch that are on their way to the disk at a time.
const MAX_UNDER_WAY: usize = 256;
/// Why a message is refused that violates a schema; the text goes on.
const SCHEMA_VIOLATION: &str = "Schema validation has failed";

/// Why a message was not stored.
enum Failure {
    /// It is the message's fault.
    Schema(String),
    Other(String),
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self::Other(error.to_string())
    }
}

impl Failure {
    fn answer(self, wrap: impl FnOnce(String) -> Value) -> Answer {
        match self {
            Self::Schema(text) => Answer::failed(400, wrap(text)),
            Self::Other(text) => Answer::failed(500, wrap(text)),
        }
    }
}

impl Call<'_> {
    /// Stores the body as it is.
    pub(super) async fn produce_single(&self, body: Bytes) -> Result<Answer, Answer> {
        let kind = self.content_type();
        let is_known = kind.contains("text")
            || media_type(&kind) == "application/json"
            || kind == "application/x-protobuf";
        if !is_known {
            return Err(Answer::text(500, "unsupported content type"));
        }
        let headers = self.message_headers(true)?;
        let inside = self.session.inside(&self.gateway.sessions).await?;
        match self.store(&inside, &headers, &body).await {
            Ok(()) => Ok(Answer::done()),
            Err(failure) => Err(failure.answer(Value::from)),
        }
    }

    /// Stores every object of a list, up to the first that is refused.
    pub(super) async fn produce_batch(&self, body: &[u8]) -> Result<Answer, Answer> {
        if media_type(&self.content_type()) != "application/json" {
            return Err(Answer::text(500, "unsupported content type"));
        }
        let messages: Vec<Map<String, Value>> =
            serde_json::from_slice(body).map_err(|_| Answer::text(500, "unsupported request"))?;
        // One id for all of them would make all but the first a repetition.
        let headers = self.message_headers(false)?;
        let inside = self.session.inside(&self.gateway.sessions).await?;
        let mut messages = messages.into_iter();
        let stored = async {
            // The first one makes a station that is missing.
            if let Some(first) = messages.next() {
                let text = Value::Object(first).to_string();
                self.store(&inside, &headers, text.as_bytes()).await?;
            }
            self.store_all(&inside, &headers, messages).await
        };
        match stored.await {
            Ok(()) => Ok(Answer::done()),
            Err(failure) => Err(failure.answer(|text| json!([text]))),
        }
    }

    /// Stores messages in their order, several on their way at a time: one sync of the disk serves
    /// them all. Where messages are held against a schema each waits for the one before, because
    /// nothing may be stored behind one that is refused.
    async fn store_all(
        &self,
        inside: &Inside,
        headers: &[u8],
        messages: impl Iterator<Item = Map<String, Value>>,
    ) -> Result<(), Failure> {
        let route = self.producer(inside).await?;
        let is_checked = self.gateway.sessions.checks(&self.station);
        let most = if is_checked { 1 } else { MAX_UNDER_WAY };
        let mut under_way = VecDeque::new();
        for message in messages {
            if under_way.len() == most {
                settle(under_way.pop_front()).await?;
            }
            let text = Value::Object(message).to_string();
            let subject = format!("{}.final", route.next_stream());
            under_way.push_back(inside.ask(&subject, headers, text.as_bytes()).await?);
        }
        while !under_way.is_empty() {
            settle(under_way.pop_front()).await?;
        }
        Ok(())
    }

    fn content_type(&self) -> String {
        let value = self.headers.get(header::CONTENT_TYPE);
        let text = value.and_then(|value| value.to_str().ok());
        text.unwrap_or_default().to_lowercase()
    }

    /// The headers of a message: those of the request, except for what proves who the caller is.
    fn message_headers(&self, has_id: bool) -> Result<Bytes, Answer> {
        let refused = || Answer::failed(500, "Server error");
        let mut headers = HeaderBuilder::new();
        headers.push("$memphis_producedBy", PRODUCER);
        headers.push("$memphis_connectionId", &self.session.connection_id);
        for (name, value) in self.headers {
            if name.as_str().starts_with(RESERVED) {
                return Err(refused());
            }
            if name == header::AUTHORIZATION || name == header::COOKIE {
                continue;
            }
            let name = match name.as_str() {
                // Names it, so that it is stored once.
                "msg-id" if has_id => "msg-id".to_owned(),
                "msg-id" => continue,
                other => canonical(other),
            };
            headers
                .try_push(name.as_bytes(), value.as_bytes())
                .map_err(|_| refused())?;
        }
        Ok(headers.finish())
    }

    /// Stores a message. A station that was removed is made again, once.
    async fn store(&self, inside: &Inside, headers: &[u8], payload: &[u8]) -> Result<(), Failure> {
        for is_last in [false, true] {
            let route = self.producer(inside).await?;
            let subject = format!("{}.final", route.next_stream());
            let answer = inside
                .request(&subject, headers, payload, ANSWER_TIMEOUT)
                .await;
            match answer {
                Ok(answer) => return outcome(&answer.payload),
                Err(RequestError::NoResponders) if !is_last => self.session.forget(&self.station),
                Err(error) => return Err(error.into()),
            }
        }
        Err(RequestError::NoResponders.into())
    }

    /// The station's partitions; the gateway is one of its producers from then on.
    async fn producer(&self, inside: &Inside) -> Result<Arc<Route>, Failure> {
        if let Some(known) = self.session.producer(&self.station) {
            return Ok(known);
        }
        let name =
            StationName::parse(&self.station).map_err(|error| Failure::Other(error.to_string()))?;
        let request = json!({
            "name": PRODUCER,
            "station_name": self.station,
            "connection_id": self.session.connection_id,
            "producer_type": "application",
            "req_version": 4,
            "username": self.session.user,
            "app_id": self.session.connection_id,
            "sdk_lang": "rest",
        });
        let subject = "$memphis_producer_creations";
        let partitions = register(inside, subject, &request)
            .await
            .map_err(Failure::Other)?;
        let route = Arc::new(Route::new(name.internal(), String::new(), partitions));
        self.session.remember_producer(self.station.clone(), &route);
        Ok(route)
    }
}

/// Waits until a message is stored.
async fn settle(asked: Option<Answers<'_>>) -> Result<(), Failure> {
    let Some(mut asked) = asked else {
        return Ok(());
    };
    let answer = asked.next(Instant::now() + ANSWER_TIMEOUT).await?;
    if answer.payload.is_empty() && answer.status() == Some(503) {
        return Err(RequestError::NoResponders.into());
    }
    outcome(&answer.payload)
}

/// Registers a producer or a consumer; gives the partitions of the station.
pub(crate) async fn register(
    inside: &Inside,
    subject: &str,
    request: &Value,
) -> Result<Vec<u32>, String> {
    let body = request.to_string();
    let answer = inside
        .request(subject, b"", body.as_bytes(), ANSWER_TIMEOUT)
        .await
        .map_err(|error| error.to_string())?;
    let answer: Value = serde_json::from_slice(&answer.payload)
        .map_err(|_| String::from_utf8_lossy(&answer.payload).into_owned())?;
    match answer["error"].as_str() {
        None | Some("") => {}
        Some(text) => return Err(text.to_owned()),
    }
    let partitions = &answer["partitions_update"]["partitions_list"];
    let numbers = partitions.as_array().into_iter().flatten();
    let numbers: Vec<u32> = numbers
        .filter_map(|number| u32::try_from(number.as_u64()?).ok())
        .collect();
    if numbers.is_empty() {
        return Err("the station has no partitions".to_owned());
    }
    Ok(numbers)
}

/// What a stream answers to a publish.
fn outcome(payload: &[u8]) -> Result<(), Failure> {
    let ack: Value = serde_json::from_slice(payload)
        .map_err(|_| Failure::Other("the broker's answer cannot be read".to_owned()))?;
    match ack["error"]["description"].as_str() {
        None => Ok(()),
        Some(text) if text.starts_with(SCHEMA_VIOLATION) => Err(Failure::Schema(text.to_owned())),
        Some(text) => Err(Failure::Other(text.to_owned())),
    }
}

fn media_type(content_type: &str) -> &str {
    let kind = content_type.split(';').next();
    kind.unwrap_or_default().trim()
}

/// The name of a header as HTTP libraries write it: every word begins with a capital.
pub(crate) fn canonical(name: &str) -> String {
    let mut is_start = true;
    name.chars()
        .map(|letter| {
            let shown = if is_start {
                letter.to_ascii_uppercase()
            } else {
                letter.to_ascii_lowercase()
            };
            is_start = letter == '-';
            shown
        })
        .collect()
}

/// The fields of a message that are not Memphis's own.
pub(crate) fn shown_headers(block: &[u8]) -> Map<String, Value> {
    let mut shown = Map::new();
    if let Ok(block) = menes_protocol::headers::HeaderBlock::parse(block) {
        for (name, value) in block.iter() {
            let name = String::from_utf8_lossy(name);
            if !name.starts_with(RESERVED) {
                let value = String::from_utf8_lossy(value).into_owned();
                shown.insert(name.into_owned(), value.into());
            }
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_headers_are_written_as_http_libraries_do() {
        for (name, written) in [
            ("content-type", "Content-Type"),
            ("x", "X"),
            ("x-MY-header", "X-My-Header"),
            ("", ""),
            ("-a", "-A"),
        ] {
            assert_eq!(canonical(name), written);
        }
    }

    #[test]
    fn headers_of_memphis_are_not_shown() {
        let mut headers = HeaderBuilder::new();
        headers.push("$memphis_producedBy", "p").push("A", "b");
        let shown = Value::Object(shown_headers(&headers.finish()));
        assert_eq!(shown, json!({"A": "b"}));
        assert!(shown_headers(b"").is_empty());
    }
}
