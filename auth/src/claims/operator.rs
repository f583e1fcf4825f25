//! Operators.

use serde::{Deserialize, Serialize};

use super::{Generic, Kind, is_false};

/// What an operator's token says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OperatorClaims {
    /// Other keys that sign for the operator.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signing_keys: Vec<String>,
    /// Where tools find account tokens.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub account_server_url: String,
    /// Where tools connect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operator_service_urls: Vec<String>,
    /// Public key of the system account.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system_account: String,
    /// Oldest server version that may be used, `major.minor.update`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub assert_server_version: String,
    /// Only signing keys may sign, not the identity.
    #[serde(skip_serializing_if = "is_false")]
    pub strict_signing_key_usage: bool,
    /// Tags, kind and version.
    #[serde(flatten)]
    pub generic: Generic,
}

impl Kind for OperatorClaims {
    const NAME: &'static str = "operator";

    fn generic_mut(&mut self) -> &mut Generic {
        &mut self.generic
    }
}
