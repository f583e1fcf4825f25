//! Activations: one account lets another import.

use serde::{Deserialize, Serialize};

use super::account::ExportKind;
use super::{Generic, Kind};

/// What an activation says. Its subject is the importing account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ActivationClaims {
    /// The subject that may be imported.
    #[serde(rename = "subject", skip_serializing_if = "String::is_empty")]
    pub import_subject: String,
    /// Stream or service.
    #[serde(rename = "kind", skip_serializing_if = "Option::is_none")]
    pub import_kind: Option<ExportKind>,
    /// The exporting account, when one of its signing keys signed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub issuer_account: String,
    /// Tags, kind and version.
    #[serde(flatten)]
    pub generic: Generic,
}

impl Kind for ActivationClaims {
    const NAME: &'static str = "activation";

    fn generic_mut(&mut self) -> &mut Generic {
        &mut self.generic
    }
}
