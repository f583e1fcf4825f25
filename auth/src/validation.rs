//! Whether what a token says makes sense, and holds now.
//!
//! A signature says who wrote a token; this module says whether what was written can be used. The
//! texts are those of the NATS JWT library: services and logs show them.

use std::collections::BTreeMap;
use std::fmt;

use menes_protocol::subject;

use crate::claims::account::{
    ALL_KEYS, AccountClaims, Export, ExportKind, ExternalAuthorization, Import, MessageTrace,
    Sampling, WeightedMapping,
};
use crate::claims::activation::ActivationClaims;
use crate::claims::authorization::AuthorizationResponse;
use crate::claims::operator::OperatorClaims;
use crate::claims::user::{Permission, Permissions, UserClaims, UserPermissionLimits};
use crate::claims::{Claims, Common, NO_LIMIT};
use crate::key::KeyKind;
use crate::{token, window};

/// Longest description of an account or an export.
const MAX_INFO_LEN: usize = 8 * 1024;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// To be mended, and harmless.
    Warning,
    /// Not valid at this time.
    Time,
    /// Wrong.
    Error,
}

/// One thing that is wrong with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// How bad.
    pub severity: Severity,
    /// What.
    pub description: String,
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description)
    }
}

/// What is wrong with a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issues(Vec<Issue>);

impl Issues {
    /// The first thing that makes the token void, if any.
    #[must_use]
    pub fn blocking(&self) -> Option<&Issue> {
        self.0
            .iter()
            .find(|issue| issue.severity != Severity::Warning)
    }

    /// The first thing of any severity.
    #[must_use]
    pub fn first(&self) -> Option<&Issue> {
        self.0.first()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Issue> {
        self.0.iter()
    }

    fn add(&mut self, severity: Severity, description: impl Into<String>) {
        self.0.push(Issue {
            severity,
            description: description.into(),
        });
    }

    fn error(&mut self, description: impl Into<String>) {
        self.add(Severity::Error, description);
    }
}

/// Something that can be looked at for issues; `now` is in Unix seconds.
pub trait Validate {
    /// What is wrong with it.
    fn issues(&self, now: i64) -> Issues;
}

impl Validate for Claims<OperatorClaims> {
    fn issues(&self, now: i64) -> Issues {
        let mut issues = Issues::default();
        times(&self.common, now, &mut issues);
        for key in &self.nats.signing_keys {
            if !KeyKind::Operator.is_public_key(key) {
                issues.error(format!("{key} is not an operator public key"));
            }
        }
        let system = &self.nats.system_account;
        if !system.is_empty() && !KeyKind::Account.is_public_key(system) {
            issues.error(format!("{system} is not an account public key"));
        }
        if let Err(error) = parse_version(&self.nats.assert_server_version) {
            issues.error(format!("assert server version error: {error}"));
        }
        issues
    }
}

/// `major.minor.update`; empty is 0.0.0.
///
/// # Errors
/// Any other form, for people.
pub fn parse_version(text: &str) -> Result<(u64, u64, u64), String> {
    if text.is_empty() {
        return Ok((0, 0, 0));
    }
    let parts: Vec<_> = text.split('.').collect();
    let [major, minor, update] = parts.as_slice() else {
        return Err(
            "asserted server version must be of the form <major>.<minor>.<update>".to_owned(),
        );
    };
    let number = |part: &str| {
        part.parse::<u64>()
            .map_err(|_| format!("asserted server version cant parse {part} to int"))
    };
    Ok((number(major)?, number(minor)?, number(update)?))
}

impl Validate for Claims<UserClaims> {
    fn issues(&self, now: i64) -> Issues {
        let mut issues = Issues::default();
        times(&self.common, now, &mut issues);
        user_limits(&self.nats.limits, &mut issues);
        let account = &self.nats.issuer_account;
        if !account.is_empty() && !KeyKind::Account.is_public_key(account) {
            issues.error("account_id is not an account public key");
        }
        issues
    }
}

impl Validate for Claims<AuthorizationResponse> {
    fn issues(&self, now: i64) -> Issues {
        let mut issues = Issues::default();
        if !KeyKind::User.is_public_key(&self.common.subject) {
            issues.error("Subject must be a user public key");
        }
        if !KeyKind::Server.is_public_key(&self.common.audience) {
            issues.error("Audience must be a server public key");
        }
        if self.nats.error.is_empty() && self.nats.jwt.is_empty() {
            issues.error("Error or Jwt is required");
        }
        if !self.nats.error.is_empty() && !self.nats.jwt.is_empty() {
            issues.error("Only Error or Jwt can be set");
        }
        let account = &self.nats.issuer_account;
        if !account.is_empty() && !KeyKind::Account.is_public_key(account) {
            issues.error("issuer_account is not an account public key");
        }
        times(&self.common, now, &mut issues);
        issues
    }
}

impl Validate for Claims<ActivationClaims> {
    fn issues(&self, now: i64) -> Issues {
        let mut issues = Issues::default();
        times(&self.common, now, &mut issues);
        activation(&self.nats, &mut issues);
        issues
    }
}

impl Validate for Claims<serde_json::Map<String, serde_json::Value>> {
    fn issues(&self, now: i64) -> Issues {
        let mut issues = Issues::default();
        times(&self.common, now, &mut issues);
        issues
    }
}

impl Validate for Claims<AccountClaims> {
    fn issues(&self, now: i64) -> Issues {
        let mut issues = Issues::default();
        let account = &self.nats;
        times(&self.common, now, &mut issues);
        imports(&account.imports, &self.common.subject, &mut issues);
        exports(&account.exports, &mut issues);
        if account.limits.tiered_limits.contains_key("") {
            issues.error("Tiered JetStream Limits can not contain a blank \"\" tier name");
        }
        permissions(&account.default_permissions, &mut issues);
        for (from, to) in &account.mappings {
            mapping(from, to, &mut issues);
        }
        external_authorization(&account.authorization, &mut issues);
        if let Some(destination) = &account.trace {
            trace(destination, &mut issues);
        }
        counts(account, &mut issues);
        for (key, scope) in account.signing_keys.iter() {
            if !KeyKind::Account.is_public_key(key) {
                issues.error(match scope {
                    Some(_) => format!("{key} is not an account public key"),
                    None => format!("{key:?} is not a valid account signing key"),
                });
            }
        }
        info(&account.description, &account.info_url, &mut issues);
        if !matches!(account.cluster_traffic.as_str(), "" | "system" | "owner") {
            issues.error(format!(
                "unknown cluster traffic option: {:?}",
                account.cluster_traffic
            ));
        }
        if KeyKind::Account.is_public_key(&self.common.issuer) && account.limits != <_>::default() {
            issues.add(
                Severity::Warning,
                "self-signed account JWTs shouldn't contain operator limits",
            );
        }
        issues
    }
}

fn times(common: &Common, now: i64, issues: &mut Issues) {
    if common.expires > 0 && now > common.expires {
        issues.add(Severity::Time, "claim is expired");
    }
    if common.not_before > 0 && common.not_before > now {
        issues.add(Severity::Time, "claim is not yet valid");
    }
}

fn subject_text(text: &str, issues: &mut Issues) {
    if text.is_empty() {
        return issues.error("subject cannot be empty");
    }
    if text.contains(' ') {
        issues.error(format!("subject {text:?} cannot have spaces"));
    }
    if text.starts_with('.') || text.ends_with('.') {
        issues.error(format!("subject {text:?} cannot start or end with a `.`"));
    }
    if text.contains("..") {
        issues.error(format!("subject {text:?} cannot contain consecutive `.`"));
    }
}

fn permission_subject(text: &str, may_name_queue: bool, issues: &mut Issues) {
    let parts: Vec<_> = text.split(' ').collect();
    match parts.as_slice() {
        [name] => subject_text(name, issues),
        [name, queue] => {
            subject_text(name, issues);
            subject_text(queue, issues);
            if !may_name_queue {
                issues.error(format!(
                    "Permission Subject \"{text}\" is not allowed to contain queue"
                ));
            }
        }
        _ => issues.error(format!(
            "Permission Subject \"{text}\" contains too many spaces"
        )),
    }
}

fn permission(rules: &Permission, may_name_queue: bool, issues: &mut Issues) {
    for text in rules.allow.iter().chain(&rules.deny) {
        permission_subject(text, may_name_queue, issues);
    }
}

fn permissions(all: &Permissions, issues: &mut Issues) {
    permission(&all.subscribe, true, issues);
    permission(&all.publish, false, issues);
}

fn user_limits(limits: &UserPermissionLimits, issues: &mut Issues) {
    permissions(&limits.permissions, issues);
    for network in &limits.sources {
        if window::Network::parse(network).is_none() {
            issues.error(format!("invalid cidr {network:?} in user src limits"));
        }
    }
    for range in &limits.times {
        for (name, text) in [("start", &range.start), ("end", &range.end)] {
            if text.is_empty() {
                issues.error(format!(
                    "time ranges {name} must contain a{} {name}",
                    if name == "end" { "n" } else { "" }
                ));
            } else if window::clock(text).is_none() {
                issues.error(format!("{name} in time range is invalid {text:?}"));
            }
        }
    }
    let zone = &limits.times_location;
    if !zone.is_empty() && window::zone(zone).is_none() {
        issues.error(format!(
            "could not parse iana time zone by name: unknown time zone {zone}"
        ));
    }
}

fn kind_name(kind: Option<ExportKind>) -> &'static str {
    match kind {
        Some(ExportKind::Stream) => "stream",
        Some(ExportKind::Service) => "service",
        None => "unknown",
    }
}

fn activation(claims: &ActivationClaims, issues: &mut Issues) {
    if claims.import_kind.is_none() {
        issues.error("invalid import type: \"unknown\"");
    }
    subject_text(&claims.import_subject, issues);
    let account = &claims.issuer_account;
    if !account.is_empty() && !KeyKind::Account.is_public_key(account) {
        issues.error("account_id is not an account public key");
    }
}

fn contains(wide: &str, narrow: &str) -> bool {
    subject::is_subset(narrow.as_bytes(), wide.as_bytes())
}

fn has_wildcard(text: &str) -> bool {
    subject::has_wildcard(text.as_bytes())
}

/// `$2` and `$10` stand for wildcards; they are `*` for whoever compares subjects.
fn with_wildcards(text: &str) -> String {
    let tokens: Vec<_> = text
        .split('.')
        .map(|token| {
            if reference(token).is_some() {
                "*"
            } else {
                token
            }
        })
        .collect();
    tokens.join(".")
}

fn reference(token: &str) -> Option<usize> {
    token.strip_prefix('$')?.parse().ok()
}

/// Imports are compared pairwise within an account; more than this many services are not looked at.
fn imports(all: &[Import], importer: &str, issues: &mut Issues) {
    let mut services: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for import in all {
        if import.kind == Some(ExportKind::Service) {
            let local = [&import.to, &import.local_subject]
                .into_iter()
                .find(|text| !text.is_empty())
                .unwrap_or(&import.subject);
            let local = with_wildcards(local);
            let others = services.entry(&import.account).or_default();
            for other in others.iter() {
                if contains(other, &local) || contains(&local, other) {
                    issues.error(format!(
                        "overlapping subject namespace for {local:?} and {other:?} in same account {:?}",
                        import.account
                    ));
                }
            }
            others.push(local);
        }
        check_import(import, importer, issues);
    }
}

fn check_import(import: &Import, importer: &str, issues: &mut Issues) {
    let is_service = import.kind == Some(ExportKind::Service);
    if import.kind.is_none() {
        issues.error("invalid import type: \"unknown\"");
    }
    if is_service && import.allow_trace {
        issues.error("AllowTrace only valid for stream import");
    }
    if import.account.is_empty() {
        issues.error("account to import from is not specified");
    }
    if !import.to.is_empty() {
        issues.add(
            Severity::Warning,
            "the field to has been deprecated (use LocalSubject instead)",
        );
    }
    subject_text(&import.subject, issues);
    if !import.local_subject.is_empty() {
        renaming(&import.local_subject, &import.subject, issues);
        if !import.to.is_empty() {
            issues.error("Local Subject replaces To");
        }
    }
    if import.share && !is_service {
        issues.error(format!(
            "sharing information (for latency tracking) is only valid for services: {:?}",
            import.subject
        ));
    }
    if !import.token.is_empty() {
        check_import_token(import, importer, issues);
    }
}

fn check_import_token(import: &Import, importer: &str, issues: &mut Issues) {
    let name = &import.subject;
    let Ok(token) = token::decode_activation(&import.token) else {
        return issues.error(format!(
            "import {name:?} contains an invalid activation token"
        ));
    };
    if token.common.issuer != import.account && token.nats.issuer_account != import.account {
        issues.error(format!(
            "activation token doesn't match account for import {name:?}"
        ));
    }
    if token.common.subject != importer {
        issues.error(format!(
            "activation token doesn't match account it is being included in, {name:?}"
        ));
    }
    if token.nats.import_kind != import.kind {
        issues.error(format!(
            "mismatch between token import type {} and type of import {}",
            kind_name(token.nats.import_kind),
            kind_name(import.kind)
        ));
    }
    activation(&token.nats, issues);
    let is_renamed = import.kind == Some(ExportKind::Service) && !import.to.is_empty();
    let imported = if is_renamed { &import.to } else { name };
    if !contains(&token.nats.import_subject, imported) {
        issues.error(format!(
            "activation token import subject {:?} doesn't match import {name:?}",
            token.nats.import_subject
        ));
    }
}

fn renaming(local: &str, from: &str, issues: &mut Issues) {
    subject_text(local, issues);
    if from.is_empty() {
        issues.error("subject cannot be empty");
    }
    let is_open = |text: &str| text == ">" || text.ends_with(".>");
    if is_open(local) != is_open(from) {
        issues.error("both, renaming subject and subject, need to end or not end in >");
    }
    let available = from.split('.').filter(|token| *token == "*").count();
    let mut used = 0;
    for token in local.split('.') {
        match reference(token) {
            _ if token == "*" => used += 1,
            Some(index) if index > available => issues.error(format!(
                "Reference ${index} in {local:?} reference * in {from:?} that do not exist"
            )),
            Some(_) => used += 1,
            None => {}
        }
    }
    if used != available {
        issues.error("subject does not contain enough * or reference wildcards $[0-9]");
    }
}

fn exports(all: &[Export], issues: &mut Issues) {
    for kind in [ExportKind::Service, ExportKind::Stream] {
        let subjects: Vec<_> = all
            .iter()
            .filter(|export| export.kind == Some(kind))
            .map(|export| export.subject.as_str())
            .collect();
        for (index, wide) in subjects.iter().enumerate() {
            let inner = subjects
                .iter()
                .enumerate()
                .find(|(other, narrow)| *other != index && contains(wide, narrow));
            if let Some((_, narrow)) = inner {
                issues.error(format!(
                    "{} export subject {wide:?} already exports {narrow:?}",
                    kind_name(Some(kind))
                ));
            }
        }
    }
    for export in all {
        check_export(export, issues);
    }
}

fn check_export(export: &Export, issues: &mut Issues) {
    let is_service = export.kind == Some(ExportKind::Service);
    if export.kind.is_none() {
        issues.error("invalid export type: \"unknown\"");
    }
    let kind = export.response_type.as_str();
    if is_service && !matches!(kind, "" | "Singleton" | "Stream" | "Chunked") {
        issues.error(format!("invalid response type for service: {kind:?}"));
    }
    if !is_service && !kind.is_empty() {
        issues.error(format!("invalid response type for stream: {kind:?}"));
    }
    if !is_service && export.allow_trace {
        issues.error("AllowTrace only valid for service export");
    }
    if let Some(latency) = &export.service_latency {
        if !is_service {
            issues.error("latency tracking only permitted for services");
        }
        if matches!(latency.sampling, Sampling::Percent(percent) if !(1..=100).contains(&percent)) {
            issues.error("sampling percentage needs to be between 1-100");
        }
        subject_text(&latency.results, issues);
        if has_wildcard(&latency.results) {
            issues.error("results subject can not contain wildcards");
        }
    }
    if export.response_threshold < 0 {
        issues.error("negative response threshold is invalid");
    }
    if export.response_threshold > 0 && !is_service {
        issues.error("response threshold only valid for services");
    }
    subject_text(&export.subject, issues);
    account_position(export, issues);
    info(&export.description, &export.info_url, issues);
}

fn account_position(export: &Export, issues: &mut Issues) {
    let position = export.account_token_position;
    if position == 0 {
        return;
    }
    let subject = &export.subject;
    if !has_wildcard(subject) {
        return issues.error(format!(
            "Account Token Position can only be used with wildcard subjects: {subject}"
        ));
    }
    let index = usize::try_from(position)
        .ok()
        .and_then(|at| at.checked_sub(1));
    match index.and_then(|index| subject.split('.').nth(index)) {
        None => issues.error(format!(
            "Account Token Position {position} exceeds length of subject '{subject}'"
        )),
        Some("*") => {}
        Some(token) => issues.error(format!(
            "Account Token Position {position} matches '{token}' but must match a * in: {subject}"
        )),
    }
}

fn mapping(from: &str, to: &[WeightedMapping], issues: &mut Issues) {
    subject_text(from, issues);
    let mut totals: BTreeMap<&str, u32> = BTreeMap::new();
    for part in to {
        subject_text(&part.subject, issues);
        let percent = part.percent();
        if percent > 100 {
            issues.error(format!(
                "Mapping {from:?} has a weight {percent} that exceeds 100"
            ));
        }
        *totals.entry(&part.cluster).or_default() += u32::from(percent);
    }
    for (cluster, _) in totals.iter().filter(|(_, total)| **total > 100) {
        issues.error(if cluster.is_empty() {
            format!("Mapping {from:?} exceeds 100% among all of it's weighted to mappings")
        } else {
            format!(
                "Mapping {from:?} in cluster {cluster:?} exceeds 100% among all of it's weighted to mappings"
            )
        });
    }
}

fn external_authorization(rules: &ExternalAuthorization, issues: &mut Issues) {
    if !rules.allowed_accounts.is_empty() && rules.auth_users.is_empty() {
        issues.error("External authorization cannot have accounts without users specified");
    }
    for user in &rules.auth_users {
        if !KeyKind::User.is_public_key(user) {
            issues.error(format!("AuthUser {user:?} is not a valid user public key"));
        }
    }
    for account in &rules.allowed_accounts {
        if account == ALL_KEYS {
            if rules.allowed_accounts.len() > 1 {
                issues.error("AllowedAccounts can only be a list of accounts or \"*\"");
            }
        } else if !KeyKind::Account.is_public_key(account) {
            issues.error(format!(
                "Account {account:?} is not a valid account public key"
            ));
        }
    }
    if !rules.xkey.is_empty() && !KeyKind::Curve.is_public_key(&rules.xkey) {
        issues.error(format!("XKey {:?} is not a valid public xkey", rules.xkey));
    }
}

fn trace(trace: &MessageTrace, issues: &mut Issues) {
    let mut inner = Issues::default();
    subject_text(&trace.destination, &mut inner);
    if let Some(issue) = inner.first() {
        issues.error(format!("the account Trace.Destination {issue}"));
    }
    if has_wildcard(&trace.destination) {
        issues.error(format!(
            "the account Trace.Destination subject {:?} is not a valid publish subject",
            trace.destination
        ));
    }
    if !(0..=100).contains(&trace.sampling) {
        issues.error(format!(
            "the account Trace.Sampling value '{}' is not valid, should be in the range [1..100]",
            trace.sampling
        ));
    }
}

fn counts(account: &AccountClaims, issues: &mut Issues) {
    let limits = &account.limits;
    let exceeds = |count: usize, limit: i64| {
        limit != NO_LIMIT && i64::try_from(count).unwrap_or(i64::MAX) > limit
    };
    if exceeds(account.imports.len(), limits.imports) {
        issues.error("the account contains more imports than allowed by the operator");
    }
    if exceeds(account.exports.len(), limits.exports) {
        issues.error("the account contains more exports than allowed by the operator");
    }
    if limits.exports != NO_LIMIT
        && !limits.wildcards
        && account
            .exports
            .iter()
            .any(|export| has_wildcard(&export.subject))
    {
        issues.error("the account contains wildcard exports that are not allowed by the operator");
    }
}

fn info(description: &str, url: &str, issues: &mut Issues) {
    if description.len() > MAX_INFO_LEN {
        issues.error("Description is too long");
    }
    if url.len() > MAX_INFO_LEN {
        issues.error("Info URL is too long");
    }
    let has_host = url
        .split_once("://")
        .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
    if !url.is_empty() && !has_host {
        issues.error("error parsing info url: no hostname or scheme");
    }
}
