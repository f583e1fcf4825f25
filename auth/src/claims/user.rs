//! Users, and what limits them.

use serde::{Deserialize, Deserializer, Serialize};

use super::{Generic, Kind, NO_LIMIT, is_default, is_false, is_zero};

/// Subjects allowed and denied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Permission {
    /// Allowed; empty allows all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Denied; wins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
}

impl Permission {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}

/// The right to answer to what was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResponsePermission {
    /// Answers per reply subject; 0 is the default, negative is unlimited.
    pub max: i64,
    /// Nanoseconds; 0 is the default, negative is unlimited.
    pub ttl: i64,
}

/// What may be published and subscribed to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Permissions {
    /// Subjects to publish to.
    #[serde(rename = "pub")]
    pub publish: Permission,
    /// Subjects to subscribe to; an entry may be `subject queue`.
    #[serde(rename = "sub")]
    pub subscribe: Permission,
    /// The right to answer.
    #[serde(rename = "resp", skip_serializing_if = "Option::is_none")]
    pub responses: Option<ResponsePermission>,
}

impl Permissions {
    /// Whether they say nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        is_default(self)
    }
}

/// Hours of a day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeRange {
    /// `15:04:05`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub start: String,
    /// `15:04:05`; earlier than `start` when midnight lies between them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub end: String,
}

/// Permissions and limits of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserPermissionLimits {
    /// What may be published and subscribed to.
    #[serde(flatten)]
    pub permissions: Permissions,
    /// Networks the user may come from; empty is all. Written as a list, read as a comma-separated
    /// text too.
    #[serde(
        rename = "src",
        deserialize_with = "networks",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub sources: Vec<String>,
    /// Hours in which the user may be connected; empty is all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub times: Vec<TimeRange>,
    /// IANA name of the zone of `times`; empty is the server's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub times_location: String,
    /// Subscriptions; -1 is unlimited.
    #[serde(skip_serializing_if = "is_zero")]
    pub subs: i64,
    /// Bytes; -1 is unlimited. Nothing enforces it.
    #[serde(skip_serializing_if = "is_zero")]
    pub data: i64,
    /// Bytes of a message; -1 is unlimited.
    #[serde(skip_serializing_if = "is_zero")]
    pub payload: i64,
    /// The token alone is proof: no signature over the nonce.
    #[serde(skip_serializing_if = "is_false")]
    pub bearer_token: bool,
    /// The connection must come through a trusted proxy.
    #[serde(skip_serializing_if = "is_false")]
    pub proxy_required: bool,
    /// `STANDARD`, `WEBSOCKET`, ...; empty is all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_connection_types: Vec<String>,
}

impl UserPermissionLimits {
    /// Everything allowed, nothing limited.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            subs: NO_LIMIT,
            data: NO_LIMIT,
            payload: NO_LIMIT,
            ..Self::default()
        }
    }
}

/// A list of texts, or one text with commas.
fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::List(list) => list,
        Either::Text(text) => text
            .split(',')
            .map(|part| part.trim().to_ascii_lowercase())
            .filter(|part| !part.is_empty())
            .collect(),
    })
}

/// What a user's token says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserClaims {
    /// Permissions and limits.
    #[serde(flatten)]
    pub limits: UserPermissionLimits,
    /// The account, when one of its signing keys signed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub issuer_account: String,
    /// Tags, kind and version.
    #[serde(flatten)]
    pub generic: Generic,
}

impl Kind for UserClaims {
    const NAME: &'static str = "user";

    fn generic_mut(&mut self) -> &mut Generic {
        &mut self.generic
    }
}
