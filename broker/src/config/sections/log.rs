//! Keys about the log.

use super::super::grammar::{ConfigError, Node};
use super::super::settings::Settings;
use super::values::{boolean, integer, text, wrong};
use crate::logging::SyslogTarget;

/// Takes a key about the log; false if it is about something else.
pub(super) fn log(key: &str, node: &Node, settings: &mut Settings) -> Result<bool, ConfigError> {
    let log = &mut settings.log;
    match key {
        "debug" => log.debug = boolean(node)?,
        "trace" => log.trace = boolean(node)?,
        "trace_verbose" => {
            log.trace_verbose = boolean(node)?;
            log.trace |= log.trace_verbose;
        }
        "trace_headers" => {
            log.trace_headers = boolean(node)?;
            log.trace |= log.trace_headers;
        }
        "logtime" => log.time = boolean(node)?,
        "logtime_utc" => log.utc = boolean(node)?,
        "logfile" | "log_file" => log.file = Some(text(node)?.into()),
        "logfile_size_limit" | "log_size_limit" => log.size_limit = count(node)?,
        "logfile_max_num" | "log_max_num" => {
            log.max_files = usize::try_from(count(node)?).unwrap_or(usize::MAX);
        }
        "syslog" => {
            let is_local = boolean(node)?;
            if log.syslog.is_none() || !is_local {
                log.syslog = is_local.then_some(SyslogTarget::Local);
            }
        }
        "remote_syslog" => {
            let target = SyslogTarget::parse(&text(node)?);
            log.syslog = Some(target.map_err(|what| wrong(node, &what))?);
        }
        "max_traced_msg_len" => {
            log.max_traced = usize::try_from(count(node)?).unwrap_or(usize::MAX);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// A number for which 0, and below, means that there is no limit.
fn count(node: &Node) -> Result<u64, ConfigError> {
    Ok(u64::try_from(integer(node)?).unwrap_or(0))
}
