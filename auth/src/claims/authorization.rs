//! Auth callout: a server asks, a service answers.

use serde::{Deserialize, Serialize};

use super::{Generic, Kind, is_zero};

/// The server that asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerId {
    /// Name.
    pub name: String,
    /// Address clients connect to.
    pub host: String,
    /// Public key.
    pub id: String,
    /// Version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// Tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Public X key, when the request is sealed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub xkey: String,
}

/// The client that wants to connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientInformation {
    /// Its address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// Its number.
    #[serde(skip_serializing_if = "is_zero")]
    pub id: i64,
    /// User, key or token given.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// What it calls itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Tags of its token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Name in its token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name_tag: String,
    /// `Client`, `Leafnode`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// `nats`, `websocket`, `mqtt`.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub transport: String,
    /// Client id of MQTT.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mqtt_id: String,
    /// The server's nonce, when CONNECT has a signature.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nonce: String,
}

/// What CONNECT said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectOptions {
    /// User token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jwt: String,
    /// Public key.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nkey: String,
    /// Signature over the nonce.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sig: String,
    /// Token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth_token: String,
    /// User.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pass: String,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Language of its library.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub lang: String,
    /// Version of its library.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// 0 or 1.
    pub protocol: i64,
}

/// What TLS says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientTls {
    /// `1.3`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Name of the cipher suite.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cipher: String,
    /// Certificates that were not verified, in PEM.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certs: Vec<String>,
    /// Verified chains, in PEM, the client's first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verified_chains: Vec<Vec<String>>,
}

/// What a server asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthorizationRequest {
    /// Who asks.
    pub server_id: ServerId,
    /// Key made for this request; the answer is about it.
    pub user_nkey: String,
    /// Who wants to connect.
    pub client_info: ClientInformation,
    /// What CONNECT said.
    pub connect_opts: ConnectOptions,
    /// What TLS says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_tls: Option<ClientTls>,
    /// Unused.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_nonce: String,
    /// Tags, kind and version.
    #[serde(flatten)]
    pub generic: Generic,
}

impl Kind for AuthorizationRequest {
    const NAME: &'static str = "authorization_request";

    fn generic_mut(&mut self) -> &mut Generic {
        &mut self.generic
    }
}

/// What a service answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthorizationResponse {
    /// A user token for the key of the request.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jwt: String,
    /// Why not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// The account, when one of its signing keys signed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub issuer_account: String,
    /// Tags, kind and version.
    #[serde(flatten)]
    pub generic: Generic,
}

impl Kind for AuthorizationResponse {
    const NAME: &'static str = "authorization_response";

    fn generic_mut(&mut self) -> &mut Generic {
        &mut self.generic
    }
}
