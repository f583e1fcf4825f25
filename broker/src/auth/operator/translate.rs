//! What a token says, in the words of the server.

use std::sync::Weak;
use std::time::Duration;

use menes_auth::admission::TrustedAccount;
use menes_auth::claims::{NO_LIMIT, account, user};
use menes_auth::token;
use menes_auth::validation::Validate;
use menes_jetstream::api::response::AccountLimits as JetStreamLimits;
use menes_jetstream::ids::AccountName;
use menes_protocol::subject;

use super::{Operator, now};
use crate::account::book::ActivationCheck;
use crate::account::description::{
    AccountDescription, AccountLimits, Audience, Destination, Export, ExportKind, Import,
    ImportKind, LatencyOptions, MappingDescription, RESPONSE_THRESHOLD, ResponseKind, Sampling,
    ServiceOptions, StreamPlace,
};
use crate::auth::permissions::ResponseLimits;
use crate::config::options::{PermissionOptions, SubjectRules};
use crate::system::TraceDestination;

/// Permissions; `None` when the token has none.
pub(crate) fn permission_options(permissions: &user::Permissions) -> Option<PermissionOptions> {
    if permissions.is_empty() {
        return None;
    }
    let rules = |rules: &user::Permission| SubjectRules {
        allow: (!rules.allow.is_empty()).then(|| rules.allow.clone()),
        deny: rules.deny.clone(),
    };
    Some(PermissionOptions {
        publish: rules(&permissions.publish),
        subscribe: rules(&permissions.subscribe),
        responses: permissions.responses.map(response_limits),
    })
}

fn response_limits(limits: user::ResponsePermission) -> ResponseLimits {
    let default = ResponseLimits::default();
    ResponseLimits {
        max: match limits.max {
            0 => default.max,
            max => u32::try_from(max).ok(),
        },
        ttl: match limits.ttl {
            0 => default.ttl,
            ttl => u64::try_from(ttl).ok().map(Duration::from_nanos),
        },
    }
}

/// What an account is, in the words of the server.
pub(super) fn description(account: &TrustedAccount) -> AccountDescription {
    let claims = &account.claims().nats;
    let mut description = AccountDescription::new(AccountName::from(account.key()));
    let name = account.name();
    description.title = (!name.is_empty()).then(|| name.to_owned());
    description.exports = claims.exports.iter().filter_map(export).collect();
    description.imports = claims.imports.iter().filter_map(import).collect();
    description.mappings = claims
        .mappings
        .iter()
        .map(|(source, parts)| mapping(source, parts))
        .collect();
    description.trace = claims.trace.as_ref().and_then(trace);
    description.limits = limits(&claims.limits);
    description.default_permissions = permission_options(&claims.default_permissions);
    description
}

/// Where messages are traced; nowhere if the token names no subject.
fn trace(trace: &account::MessageTrace) -> Option<TraceDestination> {
    let sampling = u8::try_from(trace.sampling).ok();
    subject::is_literal(trace.destination.as_bytes()).then(|| TraceDestination {
        subject: trace.destination.clone(),
        sampling: sampling
            .filter(|percent| (1..=100).contains(percent))
            .unwrap_or(100),
    })
}

fn export(export: &account::Export) -> Option<Export> {
    let kind = match export.kind? {
        account::ExportKind::Stream => ExportKind::Stream,
        account::ExportKind::Service => ExportKind::Service(service(export)),
    };
    Some(Export {
        subject: export.subject.clone(),
        kind,
        audience: if export.token_req {
            Audience::Activated
        } else {
            Audience::Everyone
        },
        account_token_position: usize::try_from(export.account_token_position)
            .ok()
            .filter(|position| *position > 0),
    })
}

fn service(export: &account::Export) -> ServiceOptions {
    let response = match export.response_type.as_str() {
        "Stream" => ResponseKind::Stream,
        "Chunked" => ResponseKind::Chunked,
        _ => ResponseKind::Singleton,
    };
    let threshold = u64::try_from(export.response_threshold).unwrap_or(0);
    let latency = export
        .service_latency
        .as_ref()
        .map(|latency| LatencyOptions {
            sampling: match latency.sampling {
                account::Sampling::Headers => Sampling::Headers,
                account::Sampling::Percent(percent) => {
                    Sampling::Percent(u8::try_from(percent).unwrap_or(0))
                }
            },
            subject: latency.results.clone(),
        });
    ServiceOptions {
        response,
        threshold: if threshold == 0 {
            RESPONSE_THRESHOLD
        } else {
            Duration::from_nanos(threshold)
        },
        latency,
        allow_trace: export.allow_trace,
    }
}

fn import(import: &account::Import) -> Option<Import> {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (subject, kind) = match import.kind? {
        account::ExportKind::Stream => {
            let place = match (given(&import.local_subject), given(&import.to)) {
                (Some(local), _) => StreamPlace::To(local),
                (None, Some(prefix)) => StreamPlace::Prefix(prefix),
                (None, None) => StreamPlace::Same,
            };
            (
                import.subject.clone(),
                ImportKind::Stream {
                    place,
                    allow_trace: import.allow_trace,
                },
            )
        }
        account::ExportKind::Service => {
            // The old way names the subject here first, the new way the subject there.
            let (there, here) = match (given(&import.local_subject), given(&import.to)) {
                (None, Some(to)) => (to, Some(import.subject.clone())),
                (local, _) => (import.subject.clone(), local),
            };
            let share = import.share;
            (there, ImportKind::Service { to: here, share })
        }
    };
    Some(Import {
        account: AccountName::from(import.account.as_str()),
        subject,
        kind,
        token: given(&import.token),
    })
}

fn mapping(source: &str, parts: &[account::WeightedMapping]) -> MappingDescription {
    MappingDescription {
        source: source.to_owned(),
        destinations: parts
            .iter()
            .map(|part| Destination {
                subject: part.subject.clone(),
                weight: part.percent(),
                cluster: (!part.cluster.is_empty()).then(|| part.cluster.clone()),
            })
            .collect(),
    }
}

fn limits(limits: &account::AccountLimits) -> AccountLimits {
    let count = |number: i64| {
        (number != NO_LIMIT).then(|| u32::try_from(number.max(0)).unwrap_or(u32::MAX))
    };
    let size = |number: i64| {
        (number != NO_LIMIT).then(|| usize::try_from(number.max(0)).unwrap_or(usize::MAX))
    };
    AccountLimits {
        max_connections: count(limits.conn),
        max_leafnodes: count(limits.leaf),
        max_subscriptions: size(limits.subs),
        max_payload: size(limits.payload),
    }
}

/// What an account may use of JetStream; `None` when it may not use it. All streams have one
/// replica, so of tiers it is the first that counts.
pub(super) fn jetstream_limits(limits: &account::AccountLimits) -> Option<JetStreamLimits> {
    if !limits.has_jetstream() {
        return None;
    }
    let tier = limits.tiered_limits.get("R1");
    let given = match tier {
        Some(tier) => *tier,
        None if limits.tiered_limits.is_empty() => limits.jetstream,
        None => return None,
    };
    let unless_zero = |number: i64| if number > 0 { number } else { NO_LIMIT };
    Some(JetStreamLimits {
        max_memory: given.mem_storage,
        max_storage: given.disk_storage,
        max_streams: unless_zero(given.streams),
        max_consumers: unless_zero(given.consumer),
        max_ack_pending: unless_zero(given.max_ack_pending),
        memory_max_stream_bytes: unless_zero(given.mem_max_stream_bytes),
        storage_max_stream_bytes: unless_zero(given.disk_max_stream_bytes),
        max_bytes_required: given.max_bytes_required,
        is_tier: tier.is_some(),
    })
}

/// Decides about activation tokens by the tokens of accounts in force.
pub(super) struct Activations(pub(super) Weak<Operator>);

impl ActivationCheck for Activations {
    fn allows(
        &self,
        exporter: &AccountDescription,
        export: &Export,
        importer: &AccountName,
        import: &Import,
    ) -> bool {
        let (Some(operator), Some(token)) = (self.0.upgrade(), &import.token) else {
            return false;
        };
        let Some(exporter) = operator.loaded(exporter.name.as_str()) else {
            return false;
        };
        let Ok(activation) = token::decode_activation(token) else {
            return false;
        };
        let kind = match export.kind {
            ExportKind::Stream => account::ExportKind::Stream,
            ExportKind::Service(_) => account::ExportKind::Service,
        };
        let allowed = activation.nats.import_subject.as_bytes();
        let claims = exporter.claims();
        let mut exports = claims.nats.exports.iter();
        let is_void = exports
            .find(|found| found.subject == export.subject && found.kind == Some(kind))
            .is_none_or(|found| {
                let common = &activation.common;
                account::is_revoked(&found.revocations, &common.subject, common.issued_at)
            });
        activation.common.subject == importer.as_str()
            && activation.nats.import_kind == Some(kind)
            && exporter.did_activate(&activation)
            && subject::is_subset(import.subject.as_bytes(), allowed)
            && activation.issues(now()).blocking().is_none()
            && !is_void
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_the_default_and_less_is_unlimited() {
        let limits = |max, ttl| response_limits(user::ResponsePermission { max, ttl });
        assert_eq!(limits(0, 0), ResponseLimits::default());
        let unlimited = limits(-1, -1);
        assert_eq!((unlimited.max, unlimited.ttl), (None, None));
        assert_eq!(limits(3, 5_000_000_000).ttl, Some(Duration::from_secs(5)));
    }

    #[test]
    fn no_permissions_are_none() {
        assert_eq!(permission_options(&user::Permissions::default()), None);
        let permissions = user::Permissions {
            publish: user::Permission {
                deny: vec!["x".to_owned()],
                ..Default::default()
            },
            ..Default::default()
        };
        let options = permission_options(&permissions).expect("given");
        assert_eq!(options.publish.allow, None);
        assert_eq!(options.publish.deny, ["x"]);
        assert_eq!(options.subscribe, SubjectRules::default());
    }
}
