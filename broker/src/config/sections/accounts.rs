//! `accounts`.

use std::collections::BTreeSet;

use menes_jetstream::ids::AccountName;
use menes_protocol::subject;

use super::super::grammar::{ConfigError, Field, Node, Value};
use super::super::settings::Settings;
use super::jetstream::account_limits;
use super::mappings::mappings;
use super::sharing::{Placed, exports, imports};
use super::users::{permissions, user};
use super::values::{integer, key, list, map, not_built, text, unknown, wrong};
use crate::account::book::{Book, ImportError, check_export};
use crate::account::description::{
    AccountDescription, AccountLimits, Audience, Export, ExportKind, Import, ImportKind,
};
use crate::system::TraceDestination;

/// An account and what must be looked at once all accounts are known.
struct Draft<'n> {
    description: AccountDescription,
    exports: Vec<Placed<'n, Export>>,
    imports: Vec<Placed<'n, Import>>,
}

pub(super) fn accounts(node: &Node, settings: &mut Settings) -> Result<(), ConfigError> {
    let mut drafts = Vec::new();
    match &node.value {
        Value::Map(accounts) => {
            for field in accounts.fields.iter().filter(|field| !field.referred) {
                drafts.push(account(field, settings)?);
            }
        }
        _ => {
            let mut names = BTreeSet::new();
            for node in list(node)? {
                let name = text(node)?;
                refuse_reserved(&name, node)?;
                if !names.insert(name.clone()) {
                    return Err(wrong(node, &format!("Duplicate Account Entry: {name}")));
                }
                drafts.push(Draft::new(&name));
            }
        }
    }
    check(&drafts)?;
    let described = drafts.into_iter().map(|draft| draft.description);
    settings.server.accounts.extend(described);
    Ok(())
}

impl Draft<'_> {
    fn new(name: &str) -> Self {
        Self {
            description: AccountDescription::new(AccountName::from(name)),
            exports: Vec::new(),
            imports: Vec::new(),
        }
    }
}

fn refuse_reserved(name: &str, node: &Node) -> Result<(), ConfigError> {
    if name == AccountName::global().as_str() {
        return Err(wrong(node, &format!("{name:?} is a Reserved Account")));
    }
    Ok(())
}

fn account<'n>(field: &'n Field, settings: &mut Settings) -> Result<Draft<'n>, ConfigError> {
    let mut draft = Draft::new(&field.key);
    if !matches!(field.node.value, Value::Map(_)) {
        return Err(wrong(&field.node, "Expected map entries for accounts"));
    }
    refuse_reserved(&field.key, &field.node)?;
    let mut users = Vec::new();
    let mut users_node = None;
    for inner in &map(&field.node)?.fields {
        let node = &inner.node;
        let description = &mut draft.description;
        match key(inner).as_str() {
            "users" => {
                users_node = Some(node);
                for node in list(node)? {
                    users.push(user(node, Some(&field.key))?);
                }
            }
            "default_permissions" => description.default_permissions = Some(permissions(node)?),
            "jetstream" => {
                let on = match &node.value {
                    Value::Bool(on) => *on,
                    Value::String(word) => word.eq_ignore_ascii_case("enabled"),
                    _ => true,
                };
                if on {
                    settings.jetstream_accounts.push(field.key.clone());
                }
                if let Value::Map(limits) = &node.value {
                    let limits = account_limits(limits)?;
                    settings.account_limits.insert(field.key.clone(), limits);
                }
            }
            "exports" => draft.exports = exports(node)?,
            "imports" => draft.imports = imports(node)?,
            "mappings" | "maps" => description.mappings = mappings(node)?,
            "limits" => description.limits = limits(node)?,
            "msg_trace" | "trace_dest" => description.trace = trace(inner)?,
            "nkey" => return Err(not_built(inner)),
            _ => unknown(inner)?,
        }
    }
    let own = |(_, item): &Placed<'_, Export>| item.clone();
    draft.description.exports = draft.exports.iter().map(own).collect();
    let own = |(_, item): &Placed<'_, Import>| item.clone();
    draft.description.imports = draft.imports.iter().map(own).collect();
    if let Some(node) = users_node.filter(|_| !users.is_empty())
        && settings.server.auth.token.is_some()
    {
        return Err(wrong(node, "Can not have a token and accounts"));
    }
    if let Some(node) = users_node.filter(|_| !users.is_empty())
        && settings.server.auth.users.iter().any(|user| user.is_single)
    {
        return Err(wrong(node, SINGLE_AND_ACCOUNTS));
    }
    for user in &mut users {
        if user.permissions.is_none() {
            let defaults = &draft.description.default_permissions;
            user.permissions.clone_from(defaults);
        }
    }
    settings.server.auth.users.append(&mut users);
    Ok(draft)
}

/// One user for everybody, and users of accounts: nobody could say who is meant.
pub(super) const SINGLE_AND_ACCOUNTS: &str = "Can not have a single user/pass and accounts";

fn limits(node: &Node) -> Result<AccountLimits, ConfigError> {
    let mut limits = AccountLimits::default();
    let Value::Map(map) = &node.value else {
        let found = node.value.kind();
        let what = format!("Expected account limits to be a map/struct, got {found}");
        return Err(wrong(node, &what));
    };
    // Below zero is no limit.
    let count = |node| Ok(u32::try_from(integer(node)?).ok());
    let size = |node| Ok(usize::try_from(integer(node)?).ok());
    for field in &map.fields {
        let node = &field.node;
        match key(field).as_str() {
            "max_connections" | "max_conn" => limits.max_connections = count(node)?,
            "max_subscriptions" | "max_subs" => limits.max_subscriptions = size(node)?,
            "max_payload" | "max_pay" => limits.max_payload = size(node)?,
            "max_leafnodes" | "max_leafs" => limits.max_leafnodes = count(node)?,
            _ if field.referred => {}
            _ => {
                let what = format!("Unknown field {:?} parsing account limits", field.key);
                return Err(wrong(node, &what));
            }
        }
    }
    Ok(limits)
}

/// `msg_trace`: a subject, or a map of `dest` and `sampling`.
fn trace(field: &Field) -> Result<Option<TraceDestination>, ConfigError> {
    let node = &field.node;
    let mut subject = String::new();
    let mut sampling = None;
    match &node.value {
        Value::Map(map) => {
            for inner in &map.fields {
                match key(inner).as_str() {
                    "dest" => {
                        let Value::String(text) = &inner.node.value else {
                            let found = inner.node.value.kind();
                            let what = format!("Field \"dest\" should be a string, got {found}");
                            return Err(wrong(&inner.node, &what));
                        };
                        subject.clone_from(text);
                    }
                    "sampling" => sampling = Some(percent(&inner.node)?),
                    _ if inner.referred => {}
                    _ => {
                        let (inner, outer) = (&inner.key, &field.key);
                        let what = format!(
                            "Unknown field {inner:?} parsing account message trace map/struct \
                             {outer:?}"
                        );
                        return Err(wrong(node, &what));
                    }
                }
            }
        }
        Value::String(text) => subject.clone_from(text),
        other => {
            let (key, found) = (&field.key, other.kind());
            let what = format!(
                "Expected account message trace {key:?} to be a string or a map/struct, got {found}"
            );
            return Err(wrong(node, &what));
        }
    }
    if subject.is_empty() {
        return Ok(None);
    }
    if !subject::is_literal(subject.as_bytes()) {
        let what = format!("Trace destination {subject:?} is not valid");
        return Err(wrong(node, &what));
    }
    Ok(Some(TraceDestination {
        subject,
        sampling: sampling.unwrap_or(100),
    }))
}

/// `50` or `"50%"`, from 1 to 100.
fn percent(node: &Node) -> Result<u8, ConfigError> {
    let number = match &node.value {
        Value::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or(text);
            digits.parse().map_err(|_| {
                let what = format!("Invalid trace destination sampling value {text:?}");
                wrong(node, &what)
            })?
        }
        _ => integer(node)?,
    };
    let percent = u8::try_from(number).ok().filter(|n| (1..=100).contains(n));
    percent.ok_or_else(|| {
        let what =
            format!("Ttrace destination sampling value {number} is invalid, needs to be [1..100]");
        wrong(node, &what)
    })
}

/// Exports and imports must go together.
fn check(drafts: &[Draft<'_>]) -> Result<(), ConfigError> {
    let names: BTreeSet<&AccountName> = drafts.iter().map(|d| &d.description.name).collect();
    for draft in drafts {
        for (node, export) in &draft.exports {
            check_one_export(&draft.description, node, export, &names)?;
        }
    }
    let mut book = Book::default();
    let (_, refusals) = book.describe(drafts.iter().map(|draft| draft.description.clone()));
    let Some(refusal) = refusals.first() else {
        return Ok(());
    };
    let importer = drafts
        .iter()
        .find(|d| d.description.name == refusal.importer);
    let (node, import) = importer
        .and_then(|draft| draft.imports.get(refusal.import))
        .expect("the import is one of those described");
    let kind = match import.kind {
        ImportKind::Stream { .. } => "stream",
        ImportKind::Service { .. } => "service",
    };
    let subject = &import.subject;
    Err(match &refusal.error {
        ImportError::NoExporter => {
            let account = import.account.as_str();
            let what = format!("{account:?} account not defined for {kind} import");
            wrong(node, &what)
        }
        error => {
            let what = format!("Error adding {kind} import {subject:?}: {error}");
            wrong(node, &what)
        }
    })
}

fn check_one_export(
    account: &AccountDescription,
    node: &Node,
    export: &Export,
    names: &BTreeSet<&AccountName>,
) -> Result<(), ConfigError> {
    let (kind, latency) = match &export.kind {
        ExportKind::Stream => ("stream", None),
        ExportKind::Service(options) => ("service", options.latency.as_ref()),
    };
    if let Audience::Accounts(audience) = &export.audience
        && let Some(missing) = audience.iter().find(|name| !names.contains(name))
    {
        let missing = missing.as_str();
        let what = format!("{missing:?} account not defined for {kind} export");
        return Err(wrong(node, &what));
    }
    let subject = &export.subject;
    check_export(account, export).map_err(|error| {
        let what = match latency {
            Some(latency) if error != crate::account::book::ExportError::InvalidSubject => {
                let to = &latency.subject;
                format!(
                    "Error adding service latency sampling for {subject:?} on subject {to:?}: \
                     {error}"
                )
            }
            _ => format!("Error adding {kind} export {subject:?}: {error}"),
        };
        wrong(node, &what)
    })
}
