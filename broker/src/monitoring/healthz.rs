//! `/healthz`: whether to send work here.

use serde::{Deserialize, Serialize};

use super::Monitor;
use super::query::{Query, QueryError};
use crate::streams::status::StreamsStatus;

/// Healthy, or what is wrong.
#[derive(Serialize)]
pub(super) struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
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

    /// With the code inside, for those who do not ask over HTTP.
    pub(super) fn with_code(mut self) -> Self {
        self.status_code = Some(self.http_status);
        self
    }

    fn ok() -> Self {
        Self {
            status: "ok",
            status_code: None,
            error: None,
            errors: Vec::new(),
            http_status: 200,
        }
    }

    /// Everything is served but what is named here; to go elsewhere would not help.
    fn degraded(why: String) -> Self {
        Self {
            status: "degraded",
            error: Some(why),
            ..Self::ok()
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
    Connection,
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
            Self::Connection => ("error", 500),
            Self::BadRequest => ("error", 400),
            Self::JetStream => ("unavailable", 503),
            Self::Account | Self::Stream | Self::Consumer => ("unavailable", 404),
        }
    }
}

/// What is asked about, under the names of a system request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct HealthzOptions {
    /// Whether the server lives is all that is asked; the name of before.
    js_enabled: bool,
    js_enabled_only: bool,
    /// No single stream is asked about.
    js_server_only: bool,
    js_meta_only: bool,
    account: String,
    stream: String,
    consumer: String,
    details: bool,
}

impl HealthzOptions {
    pub(super) fn of_query(query: &Query) -> Result<Self, QueryError> {
        Ok(Self {
            js_enabled: query.flag("js-enabled")?,
            js_enabled_only: query.flag("js-enabled-only")?,
            js_server_only: query.flag("js-server-only")?,
            js_meta_only: query.flag("js-meta-only")?,
            account: query.text("account").to_owned(),
            stream: query.text("stream").to_owned(),
            consumer: query.text("consumer").to_owned(),
            details: query.flag("details")?,
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
            .find(|found| found.account.as_str() == account)
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
            status: if self.details { "error" } else { status },
            status_code: None,
            error: None,
            errors: Vec::new(),
            http_status,
        };
        // A request that makes no sense names nothing.
        let named = |name: &String| {
            let is_wrong = matches!(kind, Kind::BadRequest | Kind::Connection);
            if is_wrong {
                String::new()
            } else {
                name.clone()
            }
        };
        if self.details {
            health.errors.push(HealthError {
                kind,
                account: named(&self.account),
                stream: named(&self.stream),
                consumer: named(&self.consumer),
                error: text,
            });
        } else {
            health.error = Some(text);
        }
        health
    }
}

impl Monitor {
    pub(super) async fn healthz(&self, asked: &HealthzOptions) -> Health {
        if let Some((kind, text)) = asked.mistake() {
            return asked.failure(kind, text);
        }
        if self.shared.is_lame_duck() {
            let mut listeners = vec!["server"];
            if self.shared.websocket_address().is_some() {
                listeners.push("websocket");
            }
            let listeners = listeners.join(", ");
            let text = format!("failed to be ready for connections after 1ms: {listeners}");
            return asked.failure(Kind::Connection, text);
        }
        let Some(status) = self.streams() else {
            return Health::ok();
        };
        let now = status.load();
        if let Some(reason) = &now.poisoned {
            return asked.failure(Kind::JetStream, reason.clone());
        }
        if asked.js_enabled || asked.js_enabled_only {
            return Health::ok();
        }
        if !now.is_ready {
            let text = "JetStream is still recovering meta layer".to_owned();
            return asked.failure(Kind::JetStream, text);
        }
        let is_of_server = asked.js_server_only || asked.js_meta_only;
        if is_of_server || asked.account.is_empty() {
            return now.damage.clone().map_or_else(Health::ok, Health::degraded);
        }
        let Some(details) = self.details().await else {
            return Health::ok();
        };
        match asked.missing(&details) {
            Some((kind, text)) => asked.failure(kind, text),
            None => Health::ok(),
        }
    }
}
