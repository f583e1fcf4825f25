//! What is answered: documents, problems, and streams of events.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::inside::{LoginError, RequestError};

/// Names a request in the log and in problems.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Seconds that a client should wait before it tries again.
const RETRY_SECONDS: &str = "2";

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content: Content,
    /// Headers beyond those that every answer has.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// Its body.
#[derive(Debug)]
pub(super) enum Content {
    Nothing,
    Json(Value),
    /// One JSON document to a line.
    Lines(String),
    /// Server-sent events.
    Events(Body),
}

impl Answer {
    pub(super) fn json(status: StatusCode, document: Value) -> Self {
        Self {
            status,
            content: Content::Json(document),
            headers: Vec::new(),
        }
    }

    pub(super) fn ok(document: Value) -> Self {
        Self::json(StatusCode::OK, document)
    }

    pub(super) fn done() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            content: Content::Nothing,
            headers: Vec::new(),
        }
    }

    pub(super) fn of(status: StatusCode, content: Content) -> Self {
        Self {
            status,
            content,
            headers: Vec::new(),
        }
    }

    /// Adds a header, if the value can be one.
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    pub(super) fn respond(self) -> Response<Body> {
        let (kind, body) = match self.content {
            Content::Nothing => ("", Body::empty()),
            Content::Json(document) => ("application/json", Body::from(document.to_string())),
            Content::Lines(lines) => ("application/x-ndjson", Body::from(lines)),
            Content::Events(body) => ("text/event-stream", body),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let fields = response.headers_mut();
        if !kind.is_empty() {
            fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        fields.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in self.headers {
            fields.append(name, value);
        }
        response
    }
}

/// What went wrong, as a problem document (RFC 9457).
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) detail: String,
    /// The object as it is now, where a change was meant for what it was.
    pub(super) current: Option<Value>,
    /// What may be done in place of what was asked for.
    allow: Option<String>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            current: None,
            allow: None,
        }
    }

    /// Names the methods that there are.
    pub(super) fn allowing(mut self, methods: String) -> Self {
        self.allow = Some(methods);
        self
    }

    pub(super) fn body(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "E-API-BODY", detail)
    }

    pub(super) fn query(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "E-API-QUERY", detail)
    }

    pub(super) fn unauthorized() -> Self {
        let detail = "log in: POST /api/v1/sessions, or send name and password";
        Self::new(StatusCode::UNAUTHORIZED, "E-AUTH-LOGIN", detail)
    }

    pub(super) fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "E-API-BUSY", detail)
    }

    pub(super) fn unreadable() -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "E-API-UNKNOWN",
            "the broker's answer is no JSON",
        )
    }

    /// What the broker said, by what it means for whoever asked.
    pub(super) fn refused(detail: &str) -> Self {
        let (status, code) = if detail.contains("does not exist")
            || detail.contains("has no version")
            || detail.contains("no such request")
        {
            (StatusCode::NOT_FOUND, "E-API-MISSING")
        } else if detail.contains("already exist") || detail.contains("exists already") {
            (StatusCode::CONFLICT, "E-API-CONFLICT")
        } else if detail.contains("not allowed") {
            (StatusCode::FORBIDDEN, "E-AUTH-DENIED")
        } else if detail.contains("is not what it was") {
            (StatusCode::PRECONDITION_FAILED, "E-API-MATCH")
        } else if detail.contains("changed by another request") {
            (StatusCode::CONFLICT, "E-API-CHANGED")
        } else if detail.contains("Schema validation has failed") {
            (StatusCode::UNPROCESSABLE_ENTITY, "E-SCHEMA-VIOLATION")
        } else {
            (StatusCode::UNPROCESSABLE_ENTITY, "E-API-REFUSED")
        };
        Self::new(status, code, detail)
    }

    /// As a document about a request to `path`.
    pub(super) fn document(&self, path: &str, request_id: &str) -> Value {
        let mut document = json!({
            "type": format!("/api/v1/errors/{}", self.code),
            "code": self.code,
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "instance": path,
            "request_id": request_id,
        });
        if let Some(text) = crate::codes::find(self.code) {
            document["fix"] = text.fix.into();
        }
        if let Some(current) = &self.current {
            document["current"] = current.clone();
        }
        document
    }

    pub(super) fn respond(self, path: &str, request_id: &str) -> Response<Body> {
        let document = self.document(path, request_id);
        let etag = self.current.as_ref().and_then(|it| it["etag"].as_str());
        let mut answer = Answer::json(self.status, document);
        if let Some(tag) = etag {
            answer = answer.with(header::ETAG, &format!("\"{tag}\""));
        }
        if let Some(methods) = &self.allow {
            answer = answer.with(header::ALLOW, methods);
        }
        let mut response = answer.respond();
        let fields = response.headers_mut();
        fields.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        match self.status {
            StatusCode::UNAUTHORIZED => {
                fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                fields.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
            }
            _ => {}
        }
        response
    }
}

impl From<LoginError> for Problem {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Refused => Self::unauthorized(),
            LoginError::Unavailable(reason) => Self::busy(reason),
        }
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        let detail = error.to_string();
        match error {
            RequestError::Denied(_) => Self::new(StatusCode::FORBIDDEN, "E-AUTH-DENIED", detail),
            RequestError::TooLarge(_) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "E-MSG-SIZE", detail)
            }
            RequestError::NoResponders => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "E-API-STREAMS",
                "JetStream is not enabled for this account",
            ),
            RequestError::Timeout(_) | RequestError::Closed => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "E-API-UNKNOWN",
                format!("{detail}: it may have been done all the same"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_whose_turn_it_is() {
        for (text, status) in [
            ("station a does not exist", 404),
            ("Schema a has no version 3", 404),
            ("station a exists already", 409),
            ("user u is not allowed to change station s", 403),
            ("station s is not what it was: its etag is 1", 412),
            ("time is not an RFC 3339 time", 422),
        ] {
            assert_eq!(Problem::refused(text).status.as_u16(), status, "{text}");
        }
    }
}
