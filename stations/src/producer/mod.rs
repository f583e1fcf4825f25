//! A producer: a registration, nothing more. Messages are published straight to the streams.

use menes_jetstream::Timestamp;
use serde::{Deserialize, Serialize};

use crate::name::ProducerName;

/// What a client says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientKind {
    /// An application.
    Application,
    /// A connector.
    Connector,
}

impl ClientKind {
    /// The kind with this name, in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_lowercase().as_str() {
            "application" => Some(Self::Application),
            "connector" => Some(Self::Connector),
            _ => None,
        }
    }
}

/// A registered producer. It stays registered when its connection closes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    /// Name; not unique.
    pub name: ProducerName,
    /// Connection it registered from, up to the first `::`.
    pub connection: String,
    /// What it says it is.
    pub kind: ClientKind,
    /// Process it runs in; the connection where the SDK does not tell.
    pub app_id: String,
    /// Language of its SDK.
    pub sdk: String,
    /// User it authenticated as.
    pub user: String,
    /// When it registered last.
    pub registered: Timestamp,
    /// How often it registered under this name from this connection.
    pub registrations: u32,
}
