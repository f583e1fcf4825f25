//! `/healthz`: whether to send work here.

use serde::Serialize;

use super::Monitor;
use super::query::{Query, QueryError};
use crate::streams::status::StreamsStatus;

/// Healthy, or what is wrong.
#[derive(Serialize)]
pub(super) struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<HealthError>,
    #[serde(skip)]
    http_status: u16,
}

impl Health {
    pub(super) fn http_status(&self) -> u16 {
        self.http_status
    }

    fn ok() -> Self {
        Self {
            status: "ok",
            error: None,
            errors: Vec::new(),
            http_status: 200,
        }
    }
}

/// One thing that is wrong.
#[derive(Serialize)]
struct HealthError {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(skip_serializing_if = "String::is_empty")]
    account: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    stream: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    consumer: String,
    error: String,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Kind {
    #[serde(rename = "BAD_REQUEST")]
    BadRequest,
    JetStream,
    Account,
    Stream,
    Consumer,
}

impl Kind {
    const fn status(self) -> (&'static str, u16) {
        match self {
            Self::BadRequest => ("error", 400),
            Self::JetStream => ("unavailable", 503),
            Self::Account | Self::Stream | Self::Consumer => ("unavailable", 404),
        }
    }
}

/// What was asked about.
struct Asked<'q> {
    account: &'q str,
    stream: &'q str,
    consumer: &'q str,
    /// Whether the server lives is all that is asked.
    only_enabled: bool,
    /// No single stream is asked about.
    only_server: bool,
    with_details: bool,
}

impl<'q> Asked<'q> {
    fn read(query: &'q Query) -> Result<Self, QueryError> {
        Ok(Self {
            account: query.text("account"),
            stream: query.text("stream"),
            consumer: query.text("consumer"),
            only_enabled: query.flag("js-enabled-only")? | query.flag("js-enabled")?,
            only_server: query.flag("js-server-only")? | query.flag("js-meta-only")?,
            with_details: query.flag("details")?,
        })
    }

    fn mistake(&self) -> Option<(Kind, String)> {
        let text = if !self.stream.is_empty() && self.account.is_empty() {
            "\"account\" must not be empty when checking stream health"
        } else if !self.consumer.is_empty() && self.stream.is_empty() {
            "\"stream\" must not be empty when checking consumer health"
        } else {
            return None;
        };
        Some((Kind::BadRequest, text.to_owned()))
    }

    fn missing(&self, status: &StreamsStatus) -> Option<(Kind, String)> {
        let Self {
            account,
            stream,
            consumer,
            ..
        } = self;
        if account.is_empty() {
            return None;
        }
        let Some(found) = status
            .accounts
            .iter()
            .find(|found| found.account.as_str() == *account)
        else {
            return Some((
                Kind::Account,
                format!("JetStream account {account:?} not found"),
            ));
        };
        if stream.is_empty() {
            return None;
        }
        let Some(found) = found.streams.iter().find(|s| s.info.config.name == *stream) else {
            let text = format!("JetStream stream {stream:?} not found on account {account:?}");
            return Some((Kind::Stream, text));
        };
        let is_there = consumer.is_empty() || found.consumers.iter().any(|c| c.name == *consumer);
        (!is_there).then(|| {
            let text = format!(
                "JetStream consumer {consumer:?} not found for stream {stream:?} on account \
                 {account:?}"
            );
            (Kind::Consumer, text)
        })
    }

    fn failure(&self, kind: Kind, text: String) -> Health {
        tracing::warn!("Healthcheck failed: {text:?}");
        let (status, http_status) = kind.status();
        let mut health = Health {
            status,
            error: None,
            errors: Vec::new(),
            http_status,
        };
        if self.with_details {
            health.errors.push(HealthError {
                kind,
                account: self.account.to_owned(),
                stream: self.stream.to_owned(),
                consumer: self.consumer.to_owned(),
                error: text,
            });
        } else {
            health.error = Some(text);
        }
        health
    }
}

impl Monitor {
    pub(super) async fn healthz(&self, query: &Query) -> Result<Health, QueryError> {
        let asked = Asked::read(query)?;
        if let Some((kind, text)) = asked.mistake() {
            return Ok(asked.failure(kind, text));
        }
        let Some(status) = &self.status else {
            return Ok(Health::ok());
        };
        let now = status.load();
        if let Some(reason) = &now.poisoned {
            return Ok(asked.failure(Kind::JetStream, reason.clone()));
        }
        if asked.only_enabled {
            return Ok(Health::ok());
        }
        if !now.is_ready {
            let text = "JetStream is still recovering meta layer".to_owned();
            return Ok(asked.failure(Kind::JetStream, text));
        }
        if asked.only_server || asked.account.is_empty() {
            return Ok(Health::ok());
        }
        let Some(details) = self.details().await else {
            return Ok(Health::ok());
        };
        Ok(match asked.missing(&details) {
            Some((kind, text)) => asked.failure(kind, text),
            None => Health::ok(),
        })
    }
}
