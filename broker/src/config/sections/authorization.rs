//! `authorization`: who may connect, outside of accounts.

use std::time::Duration;

use menes_auth::key::KeyKind;

use super::super::grammar::{ConfigError, Node, Value};
use super::super::options::{CalloutOptions, UserOptions};
use super::super::settings::Settings;
use super::accounts::SINGLE_AND_ACCOUNTS;
use super::users::{permissions, user};
use super::values::{boolean, duration, expected, key, list, map, text, texts, unknown, wrong};

/// Whoever gives clients longer to log in probably means something else.
const LONG_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn authorization(node: &Node, settings: &mut Settings) -> Result<(), ConfigError> {
    let map = map(node)?;
    let mut single = UserOptions::default();
    let mut defaults = None;
    let mut users = Vec::new();
    for field in &map.fields {
        let node = &field.node;
        match key(field).as_str() {
            "user" | "username" => single.user = text(node)?,
            "pass" | "password" => single.password = text(node)?,
            "token" => settings.server.auth.token = Some(text(node)?),
            "timeout" => {
                let timeout = duration(node)?;
                if timeout > LONG_TIMEOUT {
                    settings.warnings.push(format!(
                        "{}: a timeout of {} seconds is high, consider keeping it under {} \
                         seconds; a duration is written in quotes, as \"1m\"",
                        field.place,
                        timeout.as_secs(),
                        LONG_TIMEOUT.as_secs(),
                    ));
                }
                settings.auth_timeout = Some(timeout);
            }
            "users" => {
                for node in list(node)? {
                    users.push(user(node, None)?);
                }
            }
            "default_permissions" | "default_permission" | "permissions" => {
                defaults = Some(permissions(node)?);
            }
            "auth_callout" | "auth_hook" => {
                settings.server.auth.callout = Some(callout(node)?);
            }
            "proxy_required" => settings.server.auth.proxy_required = boolean(node)?,
            _ => unknown(field)?,
        }
    }
    if settings.server.auth.token.is_some() && !users.is_empty() {
        return Err(wrong(node, "Can not have a token and a users array"));
    }
    if !single.user.is_empty() {
        let mut others = settings.server.auth.users.iter();
        if others.any(|user| user.account.is_some()) {
            return Err(wrong(node, SINGLE_AND_ACCOUNTS));
        }
        if settings.server.auth.token.is_some() {
            return Err(wrong(node, "Cannot have a user/pass and token"));
        }
        if !users.is_empty() {
            return Err(wrong(
                node,
                "Can not have a single user/pass and a users array",
            ));
        }
        single.is_single = true;
        single.proxy_required = settings.server.auth.proxy_required;
        users.push(single);
    }
    for user in &mut users {
        if user.permissions.is_none() {
            user.permissions.clone_from(&defaults);
        }
    }
    settings.server.auth.users.append(&mut users);
    Ok(())
}

/// `proxies`: keys of those that clients may come through.
pub(super) fn proxies(node: &Node, settings: &mut Settings) -> Result<(), ConfigError> {
    for field in &map(node)?.fields {
        match key(field).as_str() {
            "trusted" => {
                let Value::Array(entries) = &field.node.value else {
                    return Err(expected(&field.node, "a list"));
                };
                settings.server.auth.trusted_proxies =
                    entries.iter().map(proxy).collect::<Result<_, _>>()?;
            }
            _ => unknown(field)?,
        }
    }
    Ok(())
}

fn proxy(node: &Node) -> Result<String, ConfigError> {
    let mut public_key = String::new();
    for field in &map(node)?.fields {
        match key(field).as_str() {
            "key" | "public_key" => {
                public_key = text(&field.node)?;
                if !menes_auth::key::is_public(&public_key) {
                    let what = format!("invalid proxy key {public_key:?}");
                    return Err(wrong(&field.node, &what));
                }
            }
            _ => unknown(field)?,
        }
    }
    if public_key.is_empty() {
        return Err(wrong(node, "proxy trusted key \"\" is invalid"));
    }
    Ok(public_key)
}

/// `auth_callout`: a service decides about users.
fn callout(node: &Node) -> Result<CalloutOptions, ConfigError> {
    let mut options = CalloutOptions {
        account: "$G".to_owned(),
        ..CalloutOptions::default()
    };
    for field in &map(node)?.fields {
        let node = &field.node;
        match key(field).as_str() {
            "issuer" => {
                options.issuer = text(node)?;
                if !KeyKind::Account.is_public_key(&options.issuer) {
                    let what = format!(
                        "Expected callout user to be a valid public account nkey, got {:?}",
                        options.issuer
                    );
                    return Err(wrong(node, &what));
                }
            }
            "account" | "acc" => options.account = text(node)?,
            "auth_users" | "users" => options.auth_users = texts(node)?,
            "allowed_accounts" => options.allowed_accounts = texts(node)?,
            "xkey" | "key" => {
                let key = text(node)?;
                if !KeyKind::Curve.is_public_key(&key) {
                    let what =
                        format!("Expected callout xkey to be a valid public xkey, got {key:?}");
                    return Err(wrong(node, &what));
                }
                options.xkey = Some(key);
            }
            _ => unknown(field)?,
        }
    }
    if options.issuer.is_empty() {
        let what = "Authorization callouts require an issuer to be specified";
        return Err(wrong(node, what));
    }
    if options.auth_users.is_empty() {
        let what = "Authorization callouts require authorized users to be specified";
        return Err(wrong(node, what));
    }
    Ok(options)
}
