//! The document of `INFO`.
//!
//! Fields are written in the order of nats-server and left out where it leaves them out; some
//! clients decode strictly.

use serde::{Deserialize, Deserializer, Serialize};

/// What a server says about itself and about this connection. Zero, empty and false mean "left
/// out", except where noted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    /// Public key of the server process; always written.
    pub server_id: String,
    /// Configured name, or the id; always written.
    pub server_name: String,
    /// Version that clients gate features on; always written.
    pub version: String,
    /// 1; always written.
    pub proto: i64,
    /// Commit the server was built from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub git_commit: String,
    /// Version of the toolchain; always written, clients require it.
    pub go: String,
    /// Address to reach the listener at; always written.
    pub host: String,
    /// Port of the listener; always written.
    pub port: u16,
    /// Whether headers are supported; always written.
    pub headers: bool,
    /// CONNECT must carry credentials.
    #[serde(skip_serializing_if = "is_false")]
    pub auth_required: bool,
    /// TLS must follow.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_required: bool,
    /// The client must present a certificate.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_verify: bool,
    /// TLS may follow.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_available: bool,
    /// Most bytes of header and payload on this connection; always written.
    pub max_payload: i64,
    /// JetStream is on.
    #[serde(skip_serializing_if = "is_false")]
    pub jetstream: bool,
    /// Address of a peer; routes and leafnodes only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// Number of this connection.
    #[serde(skip_serializing_if = "is_zero")]
    pub client_id: u64,
    /// Address the server sees the client at.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_ip: String,
    /// What the client must sign.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nonce: String,
    /// Cluster name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// The cluster name was generated.
    #[serde(skip_serializing_if = "is_false")]
    pub cluster_dynamic: bool,
    /// JetStream domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// `host:port` of every client listener in the cluster, this server's first.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub connect_urls: Vec<String>,
    /// The same for WebSocket; between servers only.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub ws_connect_urls: Vec<String>,
    /// The server is about to leave.
    #[serde(skip_serializing_if = "is_false")]
    pub ldm: bool,
    /// Compression of a link; routes and leafnodes only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub compression: String,
    /// This is the INFO that follows the first PONG.
    #[serde(skip_serializing_if = "is_false")]
    pub connect_info: bool,
    /// Account the connection is bound to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_account: String,
    /// That account is the system account.
    #[serde(skip_serializing_if = "is_false")]
    pub acc_is_sys: bool,
    /// Level of the JetStream API.
    #[serde(skip_serializing_if = "is_zero")]
    pub api_lvl: u64,
    /// Subjects a link may import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import: Option<SubjectPermission>,
    /// Subjects a link may export.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<SubjectPermission>,
    /// A route understands `LS+` with an origin cluster.
    #[serde(skip_serializing_if = "is_false")]
    pub lnoc: bool,
    /// A route understands `LS-` with an origin cluster.
    #[serde(skip_serializing_if = "is_false")]
    pub lnocu: bool,
    /// A route sends INFO before CONNECT is answered.
    #[serde(skip_serializing_if = "is_false")]
    pub info_on_connect: bool,
    /// Connections per route.
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub route_pool_size: i64,
    /// Index of this connection in the pool.
    #[serde(skip_serializing_if = "is_zero_i64")]
    pub route_pool_idx: i64,
    /// Account this route is dedicated to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route_account: String,
    /// Request to move an account to a dedicated route.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route_acc_add_reqid: String,
    /// How new routes are gossiped.
    #[serde(skip_serializing_if = "is_zero_u8")]
    pub gossip_mode: u8,
    /// Cluster name of a gateway.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// Addresses of the gateways of a cluster.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub gateway_urls: Vec<String>,
    /// Address of this gateway.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway_url: String,
    /// Command between gateways.
    #[serde(skip_serializing_if = "is_zero_u8")]
    pub gateway_cmd: u8,
    /// Its argument, in base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway_cmd_payload: String,
    /// A gateway understands the new reply prefix.
    #[serde(skip_serializing_if = "is_false")]
    pub gateway_nrp: bool,
    /// A gateway goes interest-only at once.
    #[serde(skip_serializing_if = "is_false")]
    pub gateway_iom: bool,
    /// Addresses of the leafnode listeners; on that port never empty.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub leafnode_urls: Vec<String>,
    /// Curve key of the server, for auth callout.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub xkey: String,
}

/// Which subjects a link may carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubjectPermission {
    /// These; all when empty.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub allow: Vec<String>,
    /// But not these.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub deny: Vec<String>,
}

impl Info {
    /// Reads the document behind `INFO`; unknown keys are ignored.
    ///
    /// # Errors
    ///
    /// What is not one JSON object with fields of the right types.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// The document.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts, numbers and booleans always serialise")
    }
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero_i64(value: &i64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero_u8(value: &u8) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_must_be_there_is_written() {
        let json = String::from_utf8(Info::default().to_json()).expect("text");
        assert_eq!(
            json,
            r#"{"server_id":"","server_name":"","version":"","proto":0,"go":"","host":"","port":0,"headers":false,"max_payload":0}"#
        );
    }

    #[test]
    fn fields_keep_the_order_of_nats_server() {
        let list = || vec![String::from("x")];
        let permission = || {
            Some(SubjectPermission {
                allow: list(),
                deny: list(),
            })
        };
        let info = Info {
            server_id: "N".into(),
            server_name: "n".into(),
            version: "2.15.0".into(),
            proto: 1,
            git_commit: "c".into(),
            go: "go".into(),
            host: "h".into(),
            port: 1,
            headers: true,
            auth_required: true,
            tls_required: true,
            tls_verify: true,
            tls_available: true,
            max_payload: 1,
            jetstream: true,
            ip: "i".into(),
            client_id: 1,
            client_ip: "i".into(),
            nonce: "n".into(),
            cluster: "c".into(),
            cluster_dynamic: true,
            domain: "d".into(),
            connect_urls: list(),
            ws_connect_urls: list(),
            ldm: true,
            compression: "c".into(),
            connect_info: true,
            remote_account: "a".into(),
            acc_is_sys: true,
            api_lvl: 1,
            import: permission(),
            export: permission(),
            lnoc: true,
            lnocu: true,
            info_on_connect: true,
            route_pool_size: 1,
            route_pool_idx: 1,
            route_account: "a".into(),
            route_acc_add_reqid: "r".into(),
            gossip_mode: 1,
            gateway: "g".into(),
            gateway_urls: list(),
            gateway_url: "u".into(),
            gateway_cmd: 1,
            gateway_cmd_payload: "p".into(),
            gateway_nrp: true,
            gateway_iom: true,
            leafnode_urls: list(),
            xkey: "x".into(),
        };
        let json = String::from_utf8(info.to_json()).expect("text");
        let order = "server_id server_name version proto git_commit go host port headers \
            auth_required tls_required tls_verify tls_available max_payload jetstream ip client_id \
            client_ip nonce cluster cluster_dynamic domain connect_urls ws_connect_urls ldm \
            compression connect_info remote_account acc_is_sys api_lvl import export lnoc lnocu \
            info_on_connect route_pool_size route_pool_idx route_account route_acc_add_reqid \
            gossip_mode gateway gateway_urls gateway_url gateway_cmd gateway_cmd_payload \
            gateway_nrp gateway_iom leafnode_urls xkey";
        let mut at = 0;
        for key in order.split_whitespace() {
            let key = format!("\"{key}\":");
            at += json[at..].find(&key).expect(&key);
        }
        assert_eq!(Info::parse(json.as_bytes()).expect("own output"), info);
    }

    #[test]
    fn a_stranger_is_understood() {
        let info = Info::parse(br#"{"server_id":"N","connect_urls":null,"future":[{}]}"#);
        let info = info.expect("valid");
        assert_eq!(info.server_id, "N");
        assert!(info.connect_urls.is_empty());
        assert!(Info::parse(b"[").is_err());
    }
}
