//! How far a stream has come in each of its sources.
//!
//! A position is a row written with the message that moved it, so after a crash copying goes on
//! exactly behind the last copy that is there.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::GroupId;
use crate::ports::{StoreError, Table};
use crate::txn::Txn;

use super::codec::{behind_prefix, corrupt};
use super::config::StreamSource;
use super::rows::Rows;

const PREFIX: &[u8] = b"origin/";

/// The number under which a stream remembers how far it has come in a source. It is the same as
/// long as origin, filter, transforms and way are.
#[must_use]
pub fn source_id(source: &StreamSource) -> u64 {
    let mut text = source.name.clone();
    if let Some(external) = &source.external {
        text.push('\0');
        text.push_str(&external.api);
    }
    text.push('\u{1}');
    text.push_str(&source.filter_subject);
    for transform in &source.subject_transforms {
        text.push('\u{2}');
        text.push_str(&transform.src);
        text.push('\u{3}');
        text.push_str(&transform.dest);
    }
    if let Some(consumer) = &source.consumer {
        text.push('\u{4}');
        text.push_str(&consumer.name);
    }
    xxh3_64(text.as_bytes())
}

/// Origin, filters and what they become, as the reference server writes them.
#[must_use]
pub fn source_identity(source: &StreamSource) -> String {
    let mut name = source.name.clone();
    if let Some(external) = &source.external {
        name.push(':');
        name.push_str(&short_hash(&external.api));
    }
    if let Some(durable) = &source.consumer {
        name.push_str(":C=");
        name.push_str(&short_hash(&durable.name));
    }
    let or_all = |text: &str| if text.is_empty() { ">" } else { text }.to_owned();
    if source.subject_transforms.is_empty() {
        return format!("{name} {} >", or_all(&source.filter_subject));
    }
    let transforms = source.subject_transforms.iter();
    let sources: Vec<String> = transforms.clone().map(|t| or_all(&t.src)).collect();
    let destinations: Vec<String> = transforms.map(|t| or_all(&t.dest)).collect();
    format!(
        "{name} {} {}",
        sources.join("\u{c}"),
        destinations.join("\u{c}")
    )
}

/// Eight letters and digits that stand for a name, as nats-server shortens names.
fn short_hash(name: &str) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    Sha256::digest(name.as_bytes())
        .iter()
        .take(8)
        .map(|byte| char::from(DIGITS[usize::from(*byte) % 62]))
        .collect()
}

/// Which of the sources a copy names in its header, and the sequence it had there.
pub(super) fn named_source(sources: &[StreamSource], value: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(value).ok()?;
    let mut words = text.split(' ');
    let name = words.next()?;
    let seq = words.next()?.parse().ok()?;
    let rest: Vec<&str> = words.take(2).collect();
    let is_named = |source: &&StreamSource| match rest.as_slice() {
        [filters, destinations] => {
            source_identity(source) == format!("{name} {filters} {destinations}")
        }
        // As servers of long ago wrote it.
        _ => source.name == name,
    };
    let source = sources.iter().find(is_named)?;
    Some((source_id(source), seq))
}

/// Sequence of the last message taken from each source.
#[derive(Debug, Default)]
pub(super) struct Origins(BTreeMap<u64, u64>);

impl Origins {
    pub(super) fn load(rows: Rows<'_>, group: GroupId) -> Result<Self, StoreError> {
        let from = prefix(group);
        let to = behind_prefix(from.clone());
        let mut positions = BTreeMap::new();
        let mut bad = false;
        rows.scan(Table::Meta, &from, &to, &mut |key, value| {
            let id = key.get(from.len()..).and_then(|id| id.try_into().ok());
            match (id, value.try_into()) {
                (Some(id), Ok(seq)) => {
                    positions.insert(u64::from_be_bytes(id), u64::from_le_bytes(seq));
                }
                _ => bad = true,
            }
            !bad
        })?;
        if bad {
            return Err(corrupt(group, "a position in a source"));
        }
        Ok(Self(positions))
    }

    pub(super) fn get(&self, id: u64) -> u64 {
        self.0.get(&id).copied().unwrap_or(0)
    }

    pub(super) fn set(&mut self, txn: &mut Txn<'_>, group: GroupId, id: u64, seq: u64) {
        self.0.insert(id, seq);
        let key = [prefix(group).as_slice(), &id.to_be_bytes()].concat();
        txn.put(Table::Meta, key, seq.to_le_bytes().to_vec());
    }
}

/// What the keys of a group begin with.
pub(super) fn prefix(group: GroupId) -> Vec<u8> {
    [PREFIX, &group.0.to_be_bytes()].concat()
}
