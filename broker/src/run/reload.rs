//! Reading the configuration again while the server runs.
//!
//! The log and who may connect can change. A reload that would change anything else is refused as a
//! whole, and says what.

use crate::config::settings::Settings;
use crate::logging::Logging;
use crate::server::ServerHandle;

/// Reads the settings anew and applies them, or says why not and leaves everything as it is.
///
/// # Errors
/// What is wrong, for people; it is in the log as well.
pub(super) fn reload(
    server: &ServerHandle,
    settings: &mut Settings,
    logging: &Logging,
) -> Result<(), String> {
    match try_reload(server, settings, logging) {
        Ok(changes) => {
            for change in changes {
                tracing::info!("Reloaded: {change}");
            }
            let digest = settings.config_digest.as_deref().unwrap_or_default();
            tracing::info!("Reloaded server configuration ({digest})");
            Ok(())
        }
        Err(error) => {
            tracing::error!("Failed to reload server configuration: {error}");
            Err(error)
        }
    }
}

fn try_reload(
    server: &ServerHandle,
    settings: &mut Settings,
    logging: &Logging,
) -> Result<Vec<String>, String> {
    let (Some(again), Some(_)) = (&settings.again, &settings.config_file) else {
        return Err(
            "can only reload config when a file is provided using -c or --config".to_owned(),
        );
    };
    let fresh = again.make()?;
    if let Some(refusal) = first_fixed_change(settings, &fresh) {
        return Err(refusal);
    }
    let mut changes = log_changes(settings, &fresh);
    if !changes.is_empty() {
        logging
            .apply(&fresh.log)
            .map_err(|error| format!("the log file cannot be opened: {error}"))?;
    }
    if format!("{:?}", settings.server.auth) != format!("{:?}", fresh.server.auth) {
        server.update_auth(fresh.server.auth.clone());
        settings.server.auth.clone_from(&fresh.server.auth);
        // The values are secrets.
        changes.push("authorization".to_owned());
    }
    if settings.server.accounts != fresh.server.accounts {
        server.update_accounts(fresh.server.accounts.clone());
        settings.server.accounts.clone_from(&fresh.server.accounts);
        changes.push("accounts".to_owned());
    }
    for warning in &fresh.warnings {
        tracing::warn!("{warning}");
    }
    settings.log = fresh.log;
    settings.lame_duck = fresh.lame_duck;
    settings.config_digest = fresh.config_digest;
    Ok(changes)
}

fn log_changes(old: &Settings, new: &Settings) -> Vec<String> {
    let (old, new) = (&old.log, &new.log);
    let mut changes = Vec::new();
    let mut note = |name: &str, is_changed: bool, value: &dyn std::fmt::Display| {
        if is_changed {
            changes.push(format!("{name} = {value}"));
        }
    };
    note("debug", old.debug != new.debug, &new.debug);
    note("trace", old.trace != new.trace, &new.trace);
    note("logtime", old.time != new.time, &new.time);
    let file = new
        .file
        .as_ref()
        .map_or_else(|| "stderr".to_owned(), |f| f.display().to_string());
    note("log_file", old.file != new.file, &file);
    changes
}

/// What cannot change while the server runs, by name and value.
fn fixed(settings: &Settings) -> Vec<(&'static str, String)> {
    let server = &settings.server;
    let show = |value: &dyn std::fmt::Debug| format!("{value:?}");
    vec![
        ("Host", show(&server.host)),
        ("Port", show(&server.ports)),
        ("MemphisPort", show(&settings.memphis_port)),
        ("ClientAdvertise", show(&server.client_advertise)),
        ("ServerName", show(&server.server_name)),
        ("SystemAccount", show(&server.system_account)),
        ("Tags", show(&server.tags)),
        ("Metadata", show(&server.metadata)),
        ("NoHeaderSupport", show(&server.no_header_support)),
        ("SystemAccount", show(&server.system_account)),
        ("Operator", show(&server.operator)),
        ("Limits", show(&server.limits)),
        ("Timing", show(&server.timing)),
        ("Websocket", show(&server.websocket)),
        ("HTTPHost", show(&settings.monitor)),
        ("HTTPBasePath", show(&settings.http_base_path)),
        ("JetStream", show(&settings.jetstream)),
        ("PidFile", show(&settings.pid_file)),
        ("PortsFileDir", show(&settings.ports_file_dir)),
    ]
}

fn first_fixed_change(old: &Settings, new: &Settings) -> Option<String> {
    fixed(old)
        .into_iter()
        .zip(fixed(new))
        .find(|((_, old), (_, new))| old != new)
        .map(|((name, old), (_, new))| {
            format!("config reload not supported for {name}: old={old}, new={new}")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_change_is_named_with_both_values() {
        let old = Settings::default();
        let mut new = Settings::default();
        assert_eq!(first_fixed_change(&old, &new), None);
        new.log.debug = true;
        assert_eq!(first_fixed_change(&old, &new), None);
        assert_eq!(log_changes(&old, &new), ["debug = true"]);
        new.server.host = "127.0.0.1".to_owned();
        assert_eq!(
            first_fixed_change(&old, &new).as_deref(),
            Some("config reload not supported for Host: old=\"0.0.0.0\", new=\"127.0.0.1\"")
        );
    }
}
