//! Accounts: what a tenant may do, shares, and trusts.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::user::{Permissions, UserPermissionLimits};
use super::{Generic, Kind, is_default, is_false, is_zero};

/// Unix seconds by public key, or by `*` for all: tokens issued then or before are void.
pub type Revocations = BTreeMap<String, i64>;

/// Stands for every key among [`Revocations`].
pub const ALL_KEYS: &str = "*";

/// Whether tokens of `key` issued at `issued_at` are void.
#[must_use]
pub fn is_revoked(revocations: &Revocations, key: &str, issued_at: i64) -> bool {
    [ALL_KEYS, key]
        .into_iter()
        .any(|key| revocations.get(key).is_some_and(|&at| at >= issued_at))
}

/// What is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportKind {
    /// Messages flow to the importer.
    Stream,
    /// Requests flow to the exporter.
    Service,
}

/// How often latency is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sampling {
    /// When a tracing header asks for it.
    #[default]
    Headers,
    /// This share of requests, in percent.
    Percent(i64),
}

impl Serialize for Sampling {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Headers => serializer.serialize_str("headers"),
            Self::Percent(percent) => serializer.serialize_i64(*percent),
        }
    }
}

impl<'de> Deserialize<'de> for Sampling {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) if text.eq_ignore_ascii_case("headers") => {
                Ok(Self::Headers)
            }
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(0) => Ok(Self::Headers),
                Some(percent) => Ok(Self::Percent(percent)),
                None => Err(D::Error::custom("unknown sampling rate")),
            },
            _ => Err(D::Error::custom("unknown sampling rate")),
        }
    }
}

/// Where latency measurements go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceLatency {
    /// How often.
    pub sampling: Sampling,
    /// Subject of the measurements.
    pub results: String,
}

/// Something shared with other accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Export {
    /// Name for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Subject, wildcards allowed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// Stream or service.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ExportKind>,
    /// Importers need an activation.
    #[serde(skip_serializing_if = "is_false")]
    pub token_req: bool,
    /// Void activations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub revocations: Revocations,
    /// `Singleton`, `Stream` or `Chunked`; empty is the first.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub response_type: String,
    /// Nanoseconds to wait for a response; 0 is the default.
    #[serde(skip_serializing_if = "is_zero")]
    pub response_threshold: i64,
    /// Latency measurements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_latency: Option<ServiceLatency>,
    /// Token of the subject, from 1, that must be the importer's key; 0 is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub account_token_position: i64,
    /// Shown to others.
    #[serde(skip_serializing_if = "is_false")]
    pub advertise: bool,
    /// Traces go on into this account.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_trace: bool,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub info_url: String,
}

/// Something used of another account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Import {
    /// Name for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Subject as the publisher sees it: of a stream the exporter's, of a service the importer's
    /// when `to` is used, else the exporter's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// Public key of the exporter.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub account: String,
    /// Activation.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub token: String,
    /// Old way to rename.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub to: String,
    /// Subject in this account; `$1` stands for the first wildcard.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub local_subject: String,
    /// Stream or service.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ExportKind>,
    /// The exporter may see who asks.
    #[serde(skip_serializing_if = "is_false")]
    pub share: bool,
    /// Traces go on into this account.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_trace: bool,
}

/// JetStream limits of an account, or of one tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JetStreamLimits {
    /// Bytes in memory; 0 switches it off.
    #[serde(skip_serializing_if = "is_zero")]
    pub mem_storage: i64,
    /// Bytes on disk; 0 switches it off.
    #[serde(skip_serializing_if = "is_zero")]
    pub disk_storage: i64,
    /// Streams.
    #[serde(skip_serializing_if = "is_zero")]
    pub streams: i64,
    /// Consumers.
    #[serde(skip_serializing_if = "is_zero")]
    pub consumer: i64,
    /// Unacknowledged messages of a consumer; 0 and less is unlimited.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_ack_pending: i64,
    /// Bytes of one stream in memory; 0 and less is unlimited.
    #[serde(skip_serializing_if = "is_zero")]
    pub mem_max_stream_bytes: i64,
    /// Bytes of one stream on disk; 0 and less is unlimited.
    #[serde(skip_serializing_if = "is_zero")]
    pub disk_max_stream_bytes: i64,
    /// Streams must say how many bytes they may have.
    #[serde(skip_serializing_if = "is_false")]
    pub max_bytes_required: bool,
}

impl JetStreamLimits {
    /// Whether streams can exist under it.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.mem_storage != 0 || self.disk_storage != 0
    }
}

/// What the operator grants an account. -1 is unlimited, 0 is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AccountLimits {
    /// Subscriptions of one connection.
    #[serde(skip_serializing_if = "is_zero")]
    pub subs: i64,
    /// Bytes; nothing enforces it.
    #[serde(skip_serializing_if = "is_zero")]
    pub data: i64,
    /// Bytes of a message.
    #[serde(skip_serializing_if = "is_zero")]
    pub payload: i64,
    /// Imports.
    #[serde(skip_serializing_if = "is_zero")]
    pub imports: i64,
    /// Exports.
    #[serde(skip_serializing_if = "is_zero")]
    pub exports: i64,
    /// Exports may have wildcards.
    #[serde(skip_serializing_if = "is_false")]
    pub wildcards: bool,
    /// Users must prove their keys.
    #[serde(skip_serializing_if = "is_false")]
    pub disallow_bearer: bool,
    /// Connections.
    #[serde(skip_serializing_if = "is_zero")]
    pub conn: i64,
    /// Leafnodes.
    #[serde(skip_serializing_if = "is_zero")]
    pub leaf: i64,
    /// JetStream, without tiers.
    #[serde(flatten)]
    pub jetstream: JetStreamLimits,
    /// JetStream by tier (`R1`, `R3`); in place of the limits without.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tiered_limits: BTreeMap<String, JetStreamLimits>,
}

impl AccountLimits {
    /// Nothing limited, JetStream off: what tools begin with.
    #[must_use]
    pub fn unlimited() -> Self {
        use super::NO_LIMIT;
        Self {
            subs: NO_LIMIT,
            data: NO_LIMIT,
            payload: NO_LIMIT,
            imports: NO_LIMIT,
            exports: NO_LIMIT,
            wildcards: true,
            conn: NO_LIMIT,
            leaf: NO_LIMIT,
            ..Self::default()
        }
    }

    /// Whether streams can exist.
    #[must_use]
    pub fn has_jetstream(&self) -> bool {
        if self.tiered_limits.is_empty() {
            self.jetstream.is_enabled()
        } else {
            self.tiered_limits.values().any(JetStreamLimits::is_enabled)
        }
    }
}

/// A key that signs users who get what its template says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserScope {
    /// Public key.
    #[serde(default)]
    pub key: String,
    /// Name of the role.
    #[serde(default)]
    pub role: String,
    /// What its users may do.
    #[serde(default = "UserPermissionLimits::default")]
    pub template: UserPermissionLimits,
    /// For people.
    #[serde(default)]
    pub description: String,
}

/// Keys that sign for an account, each with or without a scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SigningKeys(BTreeMap<String, Option<UserScope>>);

impl SigningKeys {
    /// The scope of a key, `Some(None)` when it has none, `None` when it is unknown.
    #[must_use]
    pub fn scope(&self, key: &str) -> Option<Option<&UserScope>> {
        self.0.get(key).map(Option::as_ref)
    }

    /// Adds a key.
    pub fn add(&mut self, key: &str, scope: Option<UserScope>) {
        self.0.insert(key.to_owned(), scope);
    }

    /// All keys with their scopes, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&UserScope>)> {
        self.0
            .iter()
            .map(|(key, scope)| (key.as_str(), scope.as_ref()))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

const USER_SCOPE: &str = "user_scope";

impl Serialize for SigningKeys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Entry<'a> {
            Plain(&'a str),
            Scoped {
                kind: &'static str,
                #[serde(flatten)]
                scope: &'a UserScope,
            },
        }
        serializer.collect_seq(self.iter().map(|(key, scope)| match scope {
            None => Entry::Plain(key),
            Some(scope) => Entry::Scoped {
                kind: USER_SCOPE,
                scope,
            },
        }))
    }
}

impl<'de> Deserialize<'de> for SigningKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut keys = Self::default();
        for entry in Vec::<serde_json::Value>::deserialize(deserializer)? {
            match entry {
                serde_json::Value::String(key) => keys.add(&key, None),
                serde_json::Value::Object(mut map) => {
                    let kind = map.remove("kind");
                    if kind.as_ref().and_then(serde_json::Value::as_str) != Some(USER_SCOPE) {
                        return Err(D::Error::custom("unknown signing key scope"));
                    }
                    unlimited_unless_said(&mut map);
                    let scope: UserScope =
                        serde_json::from_value(map.into()).map_err(D::Error::custom)?;
                    keys.add(&scope.key.clone(), Some(scope));
                }
                _ => return Err(D::Error::custom("a signing key is a key or a scope")),
            }
        }
        Ok(keys)
    }
}

/// A template that does not name a limit has none: unlike elsewhere, where it would be 0.
fn unlimited_unless_said(scope: &mut serde_json::Map<String, serde_json::Value>) {
    let template = scope
        .entry("template")
        .or_insert_with(|| serde_json::Map::new().into());
    if let Some(template) = template.as_object_mut() {
        for limit in ["subs", "data", "payload"] {
            template
                .entry(limit)
                .or_insert_with(|| super::NO_LIMIT.into());
        }
    }
}

/// A part of a mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WeightedMapping {
    /// Subject, or transform, it maps to.
    pub subject: String,
    /// Percent; 0 is 100.
    #[serde(skip_serializing_if = "is_default")]
    pub weight: u8,
    /// Only in this cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
}

impl WeightedMapping {
    /// The share in percent.
    #[must_use]
    pub fn percent(&self) -> u8 {
        if self.weight == 0 { 100 } else { self.weight }
    }
}

/// Who decides about users in place of their tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExternalAuthorization {
    /// Users that are not asked about; with none the whole is off.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub auth_users: Vec<String>,
    /// Accounts the service may put users into; `*` is all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_accounts: Vec<String>,
    /// X key to seal requests for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub xkey: String,
}

impl ExternalAuthorization {
    /// Whether it is on.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        !self.auth_users.is_empty()
    }

    /// Whether the service may put users into `account`.
    #[must_use]
    pub fn allows_account(&self, account: &str) -> bool {
        match self.allowed_accounts.as_slice() {
            [all] if all == ALL_KEYS => true,
            accounts => accounts.iter().any(|allowed| allowed == account),
        }
    }
}

/// Where message traces go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageTrace {
    /// Subject.
    #[serde(rename = "dest", skip_serializing_if = "String::is_empty")]
    pub destination: String,
    /// Percent; 0 is 100.
    #[serde(skip_serializing_if = "is_zero")]
    pub sampling: i64,
}

/// What an account's token says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AccountClaims {
    /// What it uses of others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<Import>,
    /// What it shares.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exports: Vec<Export>,
    /// What the operator grants.
    pub limits: AccountLimits,
    /// Other keys that sign its users.
    #[serde(skip_serializing_if = "SigningKeys::is_empty")]
    pub signing_keys: SigningKeys,
    /// Void user tokens.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub revocations: Revocations,
    /// For users whose tokens have no permissions.
    pub default_permissions: Permissions,
    /// Subjects that become others when published to.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub mappings: BTreeMap<String, Vec<WeightedMapping>>,
    /// Who decides about users.
    pub authorization: ExternalAuthorization,
    /// Where message traces go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<MessageTrace>,
    /// `system` or `owner`: who carries replication.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_traffic: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub info_url: String,
    /// Tags, kind and version.
    #[serde(flatten)]
    pub generic: Generic,
}

impl Kind for AccountClaims {
    const NAME: &'static str = "account";

    fn generic_mut(&mut self) -> &mut Generic {
        &mut self.generic
    }
}
