//! What accounts share with each other, and what their subjects become.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::account::description::{
    AccountDescription, Audience, Export, ExportKind, Import, ImportKind, MappingDescription,
    ResponseKind, Sampling, StreamPlace,
};

/// One subject that a mapping leads to.
#[derive(Debug, Serialize)]
pub(super) struct MapDestination {
    subject: String,
    /// Up to this number out of a hundred it is chosen, counted from the one before.
    weight: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
}

/// Something other accounts may import.
#[derive(Debug, Serialize)]
pub(super) struct ExportDocument {
    subject: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    token_req: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_latency: Option<Latency>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    approved_accounts: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Latency {
    #[serde(serialize_with = "sampling")]
    sampling: Sampling,
    results: String,
}

fn sampling<S: Serializer>(sampling: &Sampling, serializer: S) -> Result<S::Ok, S::Error> {
    match sampling {
        Sampling::Percent(percent) => serializer.serialize_u8(*percent),
        Sampling::Headers => serializer.serialize_str("headers"),
    }
}

/// Something taken from another account.
#[derive(Debug, Serialize)]
pub(super) struct ImportDocument {
    subject: String,
    account: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    local_subject: String,
    #[serde(rename = "type")]
    kind: &'static str,
    invalid: bool,
    share: bool,
    tracking: bool,
}

/// The mappings of an account, by source.
pub(super) fn mappings(account: &AccountDescription) -> BTreeMap<String, Vec<MapDestination>> {
    let all = account.mappings.iter();
    all.map(|mapping| (mapping.source.clone(), destinations(mapping)))
        .collect()
}

fn destinations(mapping: &MappingDescription) -> Vec<MapDestination> {
    let mut all: Vec<_> = mapping.destinations.iter().collect();
    all.sort_by_key(|destination| destination.weight);
    let mut sum = 0_u8;
    all.into_iter()
        .map(|destination| {
            sum = sum.saturating_add(destination.weight);
            MapDestination {
                subject: destination.subject.clone(),
                weight: sum,
                cluster: destination.cluster.clone(),
            }
        })
        .collect()
}

/// The exports of an account.
pub(super) fn exports(account: &AccountDescription) -> Vec<ExportDocument> {
    account.exports.iter().map(export).collect()
}

fn export(export: &Export) -> ExportDocument {
    let (kind, options) = match &export.kind {
        ExportKind::Stream => ("stream", None),
        ExportKind::Service(options) => ("service", Some(options)),
    };
    let approved_accounts = match &export.audience {
        Audience::Accounts(names) => names.iter().map(|n| n.as_str().to_owned()).collect(),
        Audience::Everyone | Audience::Activated => Vec::new(),
    };
    ExportDocument {
        subject: export.subject.clone(),
        kind,
        token_req: matches!(export.audience, Audience::Activated),
        response_type: options.map(|options| match options.response {
            ResponseKind::Singleton => "Singleton",
            ResponseKind::Stream => "Stream",
            ResponseKind::Chunked => "Chunked",
        }),
        service_latency: options
            .and_then(|options| options.latency.as_ref())
            .map(|latency| Latency {
                sampling: latency.sampling,
                results: latency.subject.clone(),
            }),
        approved_accounts,
    }
}

/// The imports of an account.
pub(super) fn imports(account: &AccountDescription) -> Vec<ImportDocument> {
    account.imports.iter().map(import).collect()
}

fn import(import: &Import) -> ImportDocument {
    let subject = import.subject.clone();
    let (kind, to, local_subject, share) = match &import.kind {
        ImportKind::Stream { place, .. } => {
            let local = match place {
                StreamPlace::Same => subject.clone(),
                StreamPlace::Prefix(prefix) => format!("{prefix}.{subject}"),
                StreamPlace::To(to) => to.clone(),
            };
            ("stream", None, local, false)
        }
        ImportKind::Service { to, share } => {
            let to = to.clone().unwrap_or_else(|| subject.clone());
            ("service", Some(to.clone()), to, *share)
        }
    };
    ImportDocument {
        subject,
        account: import.account.as_str().to_owned(),
        to,
        local_subject,
        kind,
        invalid: false,
        share,
        tracking: false,
    }
}
