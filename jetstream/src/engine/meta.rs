//! Which streams exist: the state of the metadata group.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{AccountName, GroupId};
use crate::ports::{StateStore, StoreError, StoreErrorKind, Table};
use crate::stream::StreamConfig;
use crate::time::Timestamp;
use crate::txn::Txn;

const STREAM_PREFIX: &[u8] = b"stream/";
const CONSUMER_PREFIX: &[u8] = b"consumer/";
const INDEX_PREFIX: &[u8] = b"index/";
const NEXT_CONSUMER_PREFIX: &[u8] = b"next_consumer/";
const NEXT_GROUP: &[u8] = b"next_group";

/// What the metadata group keeps about a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StreamRow {
    pub(crate) account: AccountName,
    pub(crate) group: GroupId,
    pub(crate) created: Timestamp,
    pub(crate) config: StreamConfig,
    /// Its backup is not read to the end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) restoring: bool,
}

/// What is kept about a consumer of a memory stream, whose state does not survive a restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct VolatileConsumerRow {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    pub(crate) config: crate::consumer::ConsumerConfig,
}

/// The streams of every account, by name.
#[derive(Debug, Default)]
pub(crate) struct Meta {
    names: BTreeMap<AccountName, BTreeMap<String, Known>>,
    next_group: GroupId,
}

/// A stream that has a name.
#[derive(Clone, Copy, Debug)]
struct Known {
    group: GroupId,
    /// Nobody sees it before its backup is read to the end; its name is taken all the same.
    restoring: bool,
}

impl Meta {
    /// Reads what the state store holds.
    pub(crate) fn load(state: &dyn StateStore) -> Result<(Self, Vec<StreamRow>), StoreError> {
        let mut rows: Vec<StreamRow> = Vec::new();
        let mut damaged = None;
        scan_prefix(
            state,
            STREAM_PREFIX,
            &mut |key, value| match serde_json::from_slice::<StreamRow>(value) {
                Ok(row) => rows.push(row),
                Err(error) => damaged = Some((String::from_utf8_lossy(key).into_owned(), error)),
            },
        )?;
        if let Some((key, error)) = damaged {
            return Err(StoreError::new(
                StoreErrorKind::Corrupt,
                format!("the metadata of {key} cannot be read: {error}"),
            ));
        }
        let next_group = match state.get(Table::Meta, NEXT_GROUP)? {
            Some(value) => GroupId(read_u64(&value).unwrap_or(GroupId::FIRST_STREAM.0)),
            None => GroupId::FIRST_STREAM,
        };
        let mut meta = Self {
            names: BTreeMap::new(),
            next_group,
        };
        for row in &rows {
            meta.insert(&row.account, &row.config.name, row.group, row.restoring);
        }
        Ok((meta, rows))
    }

    /// The group of a stream that is there.
    pub(crate) fn group(&self, account: &AccountName, name: &str) -> Option<GroupId> {
        let known = self.names.get(account)?.get(name)?;
        (!known.restoring).then_some(known.group)
    }

    /// The group of a stream, also of one that is being restored.
    pub(crate) fn holder(&self, account: &AccountName, name: &str) -> Option<GroupId> {
        Some(self.names.get(account)?.get(name)?.group)
    }

    /// Names and groups of an account's streams that are there, sorted by name.
    pub(crate) fn streams(
        &self,
        account: &AccountName,
    ) -> impl Iterator<Item = (&str, GroupId)> + use<'_> {
        let names = self.names.get(account).into_iter().flatten();
        names
            .filter(|(_, known)| !known.restoring)
            .map(|(name, known)| (name.as_str(), known.group))
    }

    /// Gives the next group number, never used before.
    pub(crate) fn allocate(&mut self, txn: &mut Txn<'_>) -> GroupId {
        let group = self.next_group;
        self.next_group = group.next();
        txn.put(
            Table::Meta,
            NEXT_GROUP.to_vec(),
            self.next_group.0.to_be_bytes().to_vec(),
        );
        group
    }

    /// Notes a stream in memory, or that it is restored now.
    pub(crate) fn insert(
        &mut self,
        account: &AccountName,
        name: &str,
        group: GroupId,
        restoring: bool,
    ) {
        let known = Known { group, restoring };
        self.names
            .entry(account.clone())
            .or_default()
            .insert(name.to_owned(), known);
    }

    /// Forgets a stream, here and in the store.
    pub(crate) fn remove(&mut self, account: &AccountName, name: &str, txn: &mut Txn<'_>) {
        if let Some(names) = self.names.get_mut(account) {
            names.remove(name);
        }
        txn.delete(Table::Meta, stream_key(account, name));
    }

    /// Writes the row of a stream.
    pub(crate) fn write(row: &StreamRow, txn: &mut Txn<'_>) {
        let value = serde_json::to_vec(row).expect("a configuration is plain data");
        txn.put(
            Table::Meta,
            stream_key(&row.account, &row.config.name),
            value,
        );
    }
}

/// Writes the row that brings back a consumer of a memory stream.
pub(crate) fn write_volatile_consumer(
    group: GroupId,
    row: &VolatileConsumerRow,
    txn: &mut Txn<'_>,
) {
    let value = serde_json::to_vec(row).expect("a configuration is plain data");
    txn.put(Table::Meta, consumer_key(group, row.id), value);
}

/// Removes that row.
pub(crate) fn delete_volatile_consumer(group: GroupId, id: u32, txn: &mut Txn<'_>) {
    txn.delete(Table::Meta, consumer_key(group, id));
}

/// The consumers of a memory stream as they were configured.
pub(crate) fn load_volatile_consumers(
    group: GroupId,
    state: &dyn StateStore,
) -> Result<Vec<VolatileConsumerRow>, StoreError> {
    let mut rows = Vec::new();
    let mut damage = None;
    let mut prefix = CONSUMER_PREFIX.to_vec();
    prefix.extend_from_slice(&group.0.to_be_bytes());
    scan_prefix(
        state,
        &prefix,
        &mut |_, value| match serde_json::from_slice(value) {
            Ok(row) => rows.push(row),
            Err(error) => damage = Some(error),
        },
    )?;
    match damage {
        None => Ok(rows),
        Some(error) => Err(StoreError::new(
            StoreErrorKind::Corrupt,
            format!("a consumer of group {group} cannot be read: {error}"),
        )),
    }
}

/// Notes the number that the next consumer of a stream gets. Numbers of consumers that are gone
/// are not given again: the log still speaks of them.
pub(crate) fn write_next_consumer(group: GroupId, next: u32, txn: &mut Txn<'_>) {
    let value = u64::from(next).to_be_bytes().to_vec();
    txn.put(Table::Meta, group_key(NEXT_CONSUMER_PREFIX, group), value);
}

/// Forgets it.
pub(crate) fn delete_next_consumer(group: GroupId, txn: &mut Txn<'_>) {
    txn.delete(Table::Meta, group_key(NEXT_CONSUMER_PREFIX, group));
}

/// The number that the next consumer of a stream gets at least.
pub(crate) fn read_next_consumer(
    group: GroupId,
    state: &dyn StateStore,
) -> Result<u32, StoreError> {
    let value = state.get(Table::Meta, &group_key(NEXT_CONSUMER_PREFIX, group))?;
    let next = value.and_then(|value| u32::try_from(read_u64(&value)?).ok());
    Ok(next.unwrap_or(1))
}

/// Notes the last applied index of a group.
pub(crate) fn write_index(group: GroupId, index: u64, txn: &mut Txn<'_>) {
    txn.put(
        Table::Meta,
        group_key(INDEX_PREFIX, group),
        index.to_be_bytes().to_vec(),
    );
}

/// Forgets the index of a group that is gone.
pub(crate) fn delete_index(group: GroupId, txn: &mut Txn<'_>) {
    txn.delete(Table::Meta, group_key(INDEX_PREFIX, group));
}

/// The last applied index of a group.
pub(crate) fn read_index(group: GroupId, state: &dyn StateStore) -> Result<u64, StoreError> {
    Ok(state
        .get(Table::Meta, &group_key(INDEX_PREFIX, group))?
        .and_then(|value| read_u64(&value))
        .unwrap_or(0))
}

fn scan_prefix(
    state: &dyn StateStore,
    prefix: &[u8],
    visit: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<(), StoreError> {
    let mut end = prefix.to_vec();
    end.extend_from_slice(&[0xff; 300]);
    state.scan(Table::Meta, prefix, &end, &mut |key, value| {
        visit(key, value);
        true
    })
}

fn stream_key(account: &AccountName, name: &str) -> Vec<u8> {
    let mut key = STREAM_PREFIX.to_vec();
    key.extend_from_slice(account.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(name.as_bytes());
    key
}

fn consumer_key(group: GroupId, id: u32) -> Vec<u8> {
    let mut key = CONSUMER_PREFIX.to_vec();
    key.extend_from_slice(&group.0.to_be_bytes());
    key.extend_from_slice(&id.to_be_bytes());
    key
}

fn group_key(prefix: &[u8], group: GroupId) -> Vec<u8> {
    [prefix, &group.0.to_be_bytes()].concat()
}

fn read_u64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}
