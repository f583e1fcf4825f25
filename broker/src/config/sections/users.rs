//! Users and what they may do.

use menes_auth::admission::ConnectionType;
use menes_auth::key::KeyKind;
use menes_protocol::subject;

use super::super::grammar::{ConfigError, Node, Value};
use super::super::options::{PermissionOptions, SubjectRules, UserOptions};
use super::values::{
    boolean, duration, integer, key, map, text, texts, unknown, unless_negative, wrong,
};
use crate::auth::permissions::ResponseLimits;

pub(super) fn user(node: &Node, account: Option<&str>) -> Result<UserOptions, ConfigError> {
    let map = map(node)?;
    let mut nkey = String::new();
    let mut user = UserOptions {
        account: account.map(str::to_owned),
        ..UserOptions::default()
    };
    for field in &map.fields {
        let node = &field.node;
        match key(field).as_str() {
            "user" | "username" => user.user = text(node)?,
            "pass" | "password" => user.password = text(node)?,
            "permissions" | "permission" | "authorization" => {
                user.permissions = Some(permissions(node)?);
            }
            "nkey" => nkey = text(node)?,
            "allowed_connection_types" | "connection_types" | "clients" => {
                user.connection_types = connection_types(node)?;
            }
            "proxy_required" => user.proxy_required = boolean(node)?,
            _ => unknown(field)?,
        }
    }
    if !nkey.is_empty() {
        if !KeyKind::User.is_public_key(&nkey) {
            return Err(wrong(node, "Not a valid public nkey for a user"));
        }
        if !user.user.is_empty() || !user.password.is_empty() {
            return Err(wrong(node, "Nkey users do not take usernames or passwords"));
        }
        user.user = nkey;
        user.is_nkey = true;
    }
    if user.user.is_empty() {
        return Err(wrong(node, "User entry requires a user"));
    }
    Ok(user)
}

/// Ways of connecting, by their names in tokens.
fn connection_types(node: &Node) -> Result<Vec<ConnectionType>, ConfigError> {
    texts(node)?
        .iter()
        .map(|text| {
            ConnectionType::parse(text)
                .ok_or_else(|| wrong(node, &format!("unknown connection type {text:?}")))
        })
        .collect()
}

pub(super) fn permissions(node: &Node) -> Result<PermissionOptions, ConfigError> {
    let mut options = PermissionOptions::default();
    for field in &map(node)?.fields {
        let node = &field.node;
        match key(field).as_str() {
            "publish" | "pub" | "import" => options.publish = rules(node, false)?,
            "subscribe" | "sub" | "export" => options.subscribe = rules(node, true)?,
            "allow_responses" | "publish_allow_responses" => options.responses = responses(node)?,
            _ => unknown(field)?,
        }
    }
    Ok(options)
}

/// Subjects that are allowed and denied; for subscriptions perhaps with a queue behind each.
fn rules(node: &Node, with_queues: bool) -> Result<SubjectRules, ConfigError> {
    let Value::Map(map) = &node.value else {
        return Ok(SubjectRules {
            allow: Some(subjects(node, with_queues)?),
            deny: Vec::new(),
        });
    };
    let mut rules = SubjectRules::default();
    for field in &map.fields {
        let node = &field.node;
        match key(field).as_str() {
            "allow" => rules.allow = Some(subjects(node, with_queues)?),
            "deny" => rules.deny = subjects(node, with_queues)?,
            _ => unknown(field)?,
        }
    }
    Ok(rules)
}

/// One subject or a list. One that nothing can match would be a rule that does not hold.
fn subjects(node: &Node, with_queues: bool) -> Result<Vec<String>, ConfigError> {
    let given = texts(node)?;
    for text in &given {
        let parts: Vec<&str> = text.split_ascii_whitespace().collect();
        let subject = match parts.as_slice() {
            [subject] => Some(*subject),
            [subject, _queue] if with_queues => Some(*subject),
            _ => None,
        };
        match subject {
            Some(subject) if subject::is_valid(subject.as_bytes()) => {}
            Some(_) if parts.len() == 2 => {
                let what = format!("subject {text:?} contains an invalid subject");
                return Err(wrong(node, &what));
            }
            _ => {
                let what = format!("subject {text:?} is not a valid subject");
                return Err(wrong(node, &what));
            }
        }
    }
    Ok(given)
}

pub(super) fn responses(node: &Node) -> Result<Option<ResponseLimits>, ConfigError> {
    let mut limits = ResponseLimits::default();
    match &node.value {
        Value::Bool(true) => {}
        Value::Bool(false) => return Ok(None),
        _ => {
            for field in &map(node)?.fields {
                match key(field).as_str() {
                    "max" | "max_msgs" | "max_messages" | "max_responses" => {
                        limits.max = u32::try_from(integer(&field.node)?).ok();
                    }
                    "expires" | "expiration" | "ttl" => {
                        limits.ttl = unless_negative(&field.node, duration)?;
                    }
                    _ => unknown(field)?,
                }
            }
        }
    }
    Ok(Some(limits))
}
