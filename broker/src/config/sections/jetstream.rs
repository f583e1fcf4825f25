//! `jetstream`.

use super::super::grammar::{ConfigError, Node, Value};
use super::super::settings::Settings;
use super::values::{boolean, expected, key, not_built, store_size, text, unknown};

pub(super) fn jetstream(node: &Node, settings: &mut Settings) -> Result<(), ConfigError> {
    let mut streams = settings.jetstream.take().unwrap_or_default();
    match &node.value {
        Value::Bool(false) => return Ok(()),
        Value::Bool(true) => {}
        Value::String(word) if word.eq_ignore_ascii_case("enabled") => {}
        Value::String(word) if word.eq_ignore_ascii_case("disabled") => return Ok(()),
        Value::Map(map) => {
            for field in &map.fields {
                let node = &field.node;
                match key(field).as_str() {
                    "enabled" | "enable" => {
                        if !boolean(node)? {
                            return Ok(());
                        }
                    }
                    "store_dir" | "store" | "storedir" => {
                        streams.store_dir = Some(text(node)?.into());
                    }
                    "max_memory_store" | "max_mem_store" | "max_mem" => {
                        streams.max_memory = Some(store_size(node)?);
                    }
                    "max_file_store" | "max_file" => streams.max_file = Some(store_size(node)?),
                    "domain" => streams.domain = Some(text(node)?),
                    "sync_interval" | "sync" => {
                        // Every acknowledgement waits for a sync, whatever is asked for.
                        if text(node).is_ok_and(|word| word != "always") {
                            settings.warnings.push(format!(
                                "{}: acknowledgements always wait for the disk here",
                                field.place
                            ));
                        }
                    }
                    "key"
                    | "ek"
                    | "encryption_key"
                    | "prev_key"
                    | "prev_ek"
                    | "prev_encryption_key"
                    | "cipher"
                    | "tpm" => return Err(not_built(field)),
                    "strict"
                    | "unique_tag"
                    | "extension_hint"
                    | "limits"
                    | "max_outstanding_catchup"
                    | "max_buffered_size"
                    | "max_buffered_msgs"
                    | "request_queue_limit"
                    | "info_queue_limit"
                    | "meta_compact"
                    | "meta_compact_size"
                    | "meta_compact_sync"
                    | "max_concurrent_io" => {
                        settings.warnings.push(format!(
                            "{}: {:?} has no effect in this version",
                            field.place, field.key
                        ));
                    }
                    _ => unknown(field)?,
                }
            }
        }
        _ => return Err(expected(node, "true, false, enabled, disabled or a map")),
    }
    settings.jetstream = Some(streams);
    Ok(())
}
