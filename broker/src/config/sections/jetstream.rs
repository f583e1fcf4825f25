//! `jetstream`.

use menes_jetstream::api::response::AccountLimits;
use menes_storage::CipherSuite;

use super::super::grammar::{ConfigError, Map, Node, Value};
use super::super::settings::Settings;
use super::values::{boolean, expected, integer, key, not_built, store_size, text, unknown};

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
                        streams.max_memory = limit(node)?;
                    }
                    "max_file_store" | "max_file" => streams.max_file = limit(node)?,
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
                    "key" | "ek" | "encryption_key" => {
                        streams.encryption.key = phrase(node)?;
                    }
                    "prev_key" | "prev_ek" | "prev_encryption_key" => {
                        streams.encryption.previous = phrase(node)?;
                    }
                    "cipher" => streams.encryption.cipher = cipher(node)?,
                    "tpm" => return Err(not_built(field)),
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

/// An encryption key; an empty one is none, as where a variable of the environment is empty.
fn phrase(node: &Node) -> Result<Option<String>, ConfigError> {
    Ok(Some(text(node)?).filter(|key| !key.is_empty()))
}

fn cipher(node: &Node) -> Result<CipherSuite, ConfigError> {
    match text(node)?.to_ascii_lowercase().as_str() {
        "chacha" | "chachapoly" => Ok(CipherSuite::ChaCha),
        "aes" => Ok(CipherSuite::Aes),
        _ => Err(expected(node, "chacha, chachapoly or aes")),
    }
}

/// What the `jetstream` map of an account allows it; nothing said is no limit.
pub(super) fn account_limits(map: &Map) -> Result<AccountLimits, ConfigError> {
    let mut limits = AccountLimits::default();
    for field in &map.fields {
        let node = &field.node;
        match key(field).as_str() {
            "max_memory" | "max_mem" | "memory" | "mem" => limits.max_memory = size(node)?,
            "max_store" | "max_file" | "max_disk" | "store" | "disk" => {
                limits.max_storage = size(node)?;
            }
            "max_streams" | "streams" => limits.max_streams = integer(node)?,
            "max_consumers" | "consumers" => limits.max_consumers = integer(node)?,
            "max_ack_pending" => limits.max_ack_pending = integer(node)?,
            "max_bytes_required" | "max_stream_bytes" | "max_bytes" => {
                limits.max_bytes_required = boolean(node)?;
            }
            "memory_max_stream_bytes" | "mem_max_stream_bytes" => {
                limits.memory_max_stream_bytes = size(node)?;
            }
            "store_max_stream_bytes" | "disk_max_stream_bytes" => {
                limits.storage_max_stream_bytes = size(node)?;
            }
            // Where traffic of a cluster goes; there is none.
            "cluster_traffic" => {}
            "enabled" | "enable" => {}
            _ => unknown(field)?,
        }
    }
    Ok(limits)
}

/// A number of bytes; a negative one leaves it to the server.
fn limit(node: &Node) -> Result<Option<u64>, ConfigError> {
    if matches!(node.value, Value::Integer(..0)) {
        return Ok(None);
    }
    store_size(node).map(Some)
}

/// A number of bytes; -1 is no limit.
fn size(node: &Node) -> Result<i64, ConfigError> {
    if matches!(node.value, Value::Integer(-1)) {
        return Ok(-1);
    }
    Ok(i64::try_from(store_size(node)?).unwrap_or(i64::MAX))
}
