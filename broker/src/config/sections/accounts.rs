//! `accounts`.

use super::super::grammar::{ConfigError, Node, Value};
use super::super::settings::Settings;
use super::users::{permissions, user};
use super::values::{key, list, map, not_built, texts, unknown};

pub(super) fn accounts(node: &Node, settings: &mut Settings) -> Result<(), ConfigError> {
    let Value::Map(accounts) = &node.value else {
        // A list of names makes accounts without users; they exist when first named.
        texts(node)?;
        return Ok(());
    };
    for account in &accounts.fields {
        let mut defaults = None;
        let mut users = Vec::new();
        for field in &map(&account.node)?.fields {
            match key(field).as_str() {
                "users" => {
                    for node in list(&field.node)? {
                        users.push(user(node, Some(&account.key))?);
                    }
                }
                "default_permissions" => defaults = Some(permissions(&field.node)?),
                "jetstream" => {
                    let on = match &field.node.value {
                        Value::Bool(on) => *on,
                        Value::String(word) => word.eq_ignore_ascii_case("enabled"),
                        _ => true,
                    };
                    if on {
                        settings.jetstream_accounts.push(account.key.clone());
                    }
                }
                "nkey" | "imports" | "exports" | "mappings" | "maps" | "limits" | "msg_trace"
                | "trace_dest" => return Err(not_built(field)),
                _ => unknown(field)?,
            }
        }
        for user in &mut users {
            if user.permissions.is_none() {
                user.permissions.clone_from(&defaults);
            }
        }
        settings.server.auth.users.append(&mut users);
    }
    Ok(())
}
