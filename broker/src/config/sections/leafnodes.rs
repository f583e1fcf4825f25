//! `leafnodes`: not built, except that nobody is told of a port nobody could know.

use super::super::grammar::{ConfigError, Field};
use super::super::settings::Settings;
use super::values::{address, key, map, not_built, port};

/// Accepts a block that only asks for a listener on a port of the system's choice: no other server
/// can have been told of it. Everything else is refused.
pub(super) fn leafnodes(field: &Field, settings: &mut Settings) -> Result<(), ConfigError> {
    let mut is_random = false;
    for inner in &map(&field.node)?.fields {
        match key(inner).as_str() {
            "host" | "net" => {}
            "port" => is_random = port(&inner.node)? == 0,
            "listen" => is_random = address(&inner.node, "0.0.0.0")?.port == 0,
            _ => return Err(not_built(inner)),
        }
    }
    if !is_random {
        return Err(not_built(field));
    }
    settings.warnings.push(format!(
        "{}: {:?} is not supported by this version: nothing listens for leafnodes",
        field.place, field.key
    ));
    Ok(())
}
