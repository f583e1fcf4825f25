//! `authorization`: who may connect, outside of accounts.

use super::super::grammar::{ConfigError, Node};
use super::super::options::UserOptions;
use super::super::settings::Settings;
use super::users::{permissions, user};
use super::values::{duration, key, list, map, not_built, text, unknown, wrong};

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
            "timeout" => settings.server.timing.auth_timeout = duration(node)?,
            "users" => {
                for node in list(node)? {
                    users.push(user(node, None)?);
                }
            }
            "default_permissions" | "default_permission" | "permissions" => {
                defaults = Some(permissions(node)?);
            }
            "auth_callout" | "auth_hook" | "proxy_required" => return Err(not_built(field)),
            _ => unknown(field)?,
        }
    }
    if !single.user.is_empty() {
        if settings.server.auth.token.is_some() {
            return Err(wrong(node, "Cannot have a user/pass and token"));
        }
        if !users.is_empty() {
            return Err(wrong(
                node,
                "Can not have a single user/pass and a users array",
            ));
        }
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
