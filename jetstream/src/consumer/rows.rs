//! Consumers in the state store.
//!
//! ```text
//! key:       group u64 | consumer id u32 | part u8 [| chunk u64]      big endian
//! config:    JSON: name, created, config
//! position:  version, delivered, ack floor
//! latest:    version, where it ends, sequences        while the first messages are handed out
//! chunk:     version, pending deliveries of 256 stream sequences
//! ```
//!
//! An ack rewrites the position and one chunk, however many deliveries are pending.

use serde::{Deserialize, Serialize};

use super::Consumer;
use super::config::ConsumerConfig;
use super::latest::Latest;
use super::pending::Delivery;
use super::state::{CHUNK, Position, State};
use super::varint::{self, Reader};
use crate::ids::{ConsumerSeq, GroupId, StreamSeq};
use crate::ports::{StateStore, StoreError, StoreErrorKind, Table};
use crate::time::Timestamp;
use crate::txn::Txn;

const VERSION: u8 = 1;
const CONFIG: u8 = 0;
const POSITION: u8 = 1;
const LATEST: u8 = 2;
const PENDING: u8 = 3;
/// Above every part.
const END: u8 = 0xff;

#[derive(Serialize, Deserialize)]
struct ConfigRow {
    name: String,
    created_ns: i64,
    config: ConsumerConfig,
}

impl Consumer {
    /// Writes the rows that changed since the last time.
    pub fn write_rows(&mut self, group: GroupId, txn: &mut Txn<'_>) {
        if !self.is_logged && !self.is_config_dirty {
            return;
        }
        if std::mem::take(&mut self.is_config_dirty) {
            let row = ConfigRow {
                name: self.name.clone(),
                created_ns: self.created.0,
                config: self.config.clone(),
            };
            let value = serde_json::to_vec(&row).expect("plain data always serialises");
            txn.put(Table::Consumer, key(group, self.id, CONFIG), value);
        }
        let position = encode_position(self.state.delivered, self.state.ack_floor);
        txn.put(Table::Consumer, key(group, self.id, POSITION), position);
        if std::mem::take(&mut self.is_latest_dirty) {
            let key = key(group, self.id, LATEST);
            match &self.latest {
                Some(latest) => txn.put(Table::Consumer, key, encode_latest(latest)),
                None => txn.delete(Table::Consumer, key),
            }
        }
        for chunk in std::mem::take(&mut self.state.dirty_chunks) {
            let key = chunk_key(group, self.id, chunk);
            match encode_chunk(&self.state, chunk) {
                Some(value) => txn.put(Table::Consumer, key, value),
                None => txn.delete(Table::Consumer, key),
            }
        }
    }

    /// Removes every row.
    pub fn drop_rows(&mut self, group: GroupId, txn: &mut Txn<'_>) {
        let (from, to) = (key(group, self.id, CONFIG), key(group, self.id, END));
        txn.delete_range(Table::Consumer, from, to);
    }

    /// The consumer with this id, if there is one.
    ///
    /// # Errors
    /// What the store reports, and `Corrupt` for rows that no server wrote.
    pub fn load(
        group: GroupId,
        id: u32,
        state: &dyn StateStore,
    ) -> Result<Option<Self>, StoreError> {
        let (from, to) = (key(group, id, CONFIG), key(group, id, END));
        Ok(load_range(&from, &to, state)?.pop())
    }

    /// Every consumer of a stream, in order of their ids.
    ///
    /// # Errors
    /// As [`Consumer::load`].
    pub fn load_all(group: GroupId, state: &dyn StateStore) -> Result<Vec<Self>, StoreError> {
        load_range(&key(group, 0, CONFIG), &key(group, u32::MAX, END), state)
    }
}

/// A consumer while its rows are read.
struct Loading {
    id: u32,
    config: ConfigRow,
    state: State,
    latest: Option<Latest>,
}

impl Loading {
    fn finish(self) -> Consumer {
        let Self {
            id,
            config,
            mut state,
            latest,
        } = self;
        state.dirty_chunks.clear();
        let created = Timestamp(config.created_ns);
        let mut consumer = Consumer::at(id, config.name, config.config, created, state);
        consumer.latest = latest;
        consumer.begin_again();
        consumer
    }
}

fn load_range(from: &[u8], to: &[u8], state: &dyn StateStore) -> Result<Vec<Consumer>, StoreError> {
    let mut consumers = Vec::new();
    let mut loading: Option<Loading> = None;
    let mut damage = None;
    state.scan(Table::Consumer, from, to, &mut |key, value| {
        if load_row(key, value, &mut loading, &mut consumers).is_none() {
            damage = Some(key.to_vec());
        }
        damage.is_none()
    })?;
    if let Some(key) = damage {
        let what = format!("consumer row {key:02x?} is not readable");
        return Err(StoreError::new(StoreErrorKind::Corrupt, what));
    }
    consumers.extend(loading.map(Loading::finish));
    Ok(consumers)
}

fn load_row(
    key: &[u8],
    value: &[u8],
    loading: &mut Option<Loading>,
    done: &mut Vec<Consumer>,
) -> Option<()> {
    let (id, rest) = key.get(8..)?.split_first_chunk::<4>()?;
    let id = u32::from_be_bytes(*id);
    let (part, rest) = rest.split_first()?;
    if *part == CONFIG {
        let config = serde_json::from_slice(value).ok()?;
        let next = Loading {
            id,
            config,
            state: State::default(),
            latest: None,
        };
        done.extend(loading.replace(next).map(Loading::finish));
        return Some(());
    }
    let consumer = loading.as_mut().filter(|consumer| consumer.id == id)?;
    let mut reader = Reader::new(value);
    if reader.byte()? != VERSION {
        return None;
    }
    match *part {
        POSITION => {
            consumer.state.delivered = position(&mut reader)?;
            consumer.state.ack_floor = position(&mut reader)?;
        }
        LATEST => consumer.latest = Some(decode_latest(&mut reader)?),
        PENDING => {
            let chunk = u64::from_be_bytes(rest.try_into().ok()?);
            decode_chunk(&mut reader, chunk, &mut consumer.state)?;
        }
        _ => return None,
    }
    reader.is_empty().then_some(())
}

fn key(group: GroupId, id: u32, part: u8) -> Vec<u8> {
    let mut key = Vec::with_capacity(21);
    key.extend_from_slice(&group.0.to_be_bytes());
    key.extend_from_slice(&id.to_be_bytes());
    key.push(part);
    key
}

fn chunk_key(group: GroupId, id: u32, chunk: u64) -> Vec<u8> {
    let mut key = key(group, id, PENDING);
    key.extend_from_slice(&chunk.to_be_bytes());
    key
}

fn encode_position(delivered: Position, ack_floor: Position) -> Vec<u8> {
    let mut value = vec![VERSION];
    for position in [delivered, ack_floor] {
        varint::put(&mut value, position.consumer.0);
        varint::put(&mut value, position.stream.0);
    }
    value
}

fn position(reader: &mut Reader<'_>) -> Option<Position> {
    let consumer = ConsumerSeq(reader.number()?);
    Some(Position {
        consumer,
        stream: StreamSeq(reader.number()?),
    })
}

fn encode_latest(latest: &Latest) -> Vec<u8> {
    let mut value = vec![VERSION];
    varint::put(&mut value, latest.through);
    let mut previous = 0;
    for seq in latest.all() {
        varint::put(&mut value, seq - previous);
        previous = seq;
    }
    value
}

fn decode_latest(reader: &mut Reader<'_>) -> Option<Latest> {
    let through = reader.number()?;
    let mut seqs = Vec::new();
    let mut previous: u64 = 0;
    while !reader.is_empty() {
        previous = previous
            .checked_add(reader.number()?)
            .filter(|seq| *seq <= through)?;
        seqs.push(previous);
    }
    Some(Latest::stored(seqs, through))
}

/// The recorded deliveries of a chunk; `None` when there are none.
fn encode_chunk(state: &State, chunk: u64) -> Option<Vec<u8>> {
    let (from, to) = (chunk * CHUNK, (chunk + 1) * CHUNK);
    let mut value = vec![VERSION];
    let mut before = (0, 0);
    for delivery in state
        .pending
        .range(from, to)
        .filter(|delivery| delivery.is_recorded())
    {
        varint::put(&mut value, delivery.seq - from);
        varint::put(&mut value, u64::from(delivery.deliveries) << 1);
        varint::put_signed(&mut value, delivery.first.wrapping_sub(before.0) as i64);
        varint::put_signed(&mut value, delivery.logged_due.wrapping_sub(before.1));
        before = (delivery.first, delivery.logged_due);
    }
    for (seq, deliveries) in state.exhausted.range(from..to) {
        varint::put(&mut value, seq - from);
        varint::put(&mut value, u64::from(*deliveries) << 1 | 1);
    }
    (value.len() > 1).then_some(value)
}

fn decode_chunk(reader: &mut Reader<'_>, chunk: u64, state: &mut State) -> Option<()> {
    let from = chunk.checked_mul(CHUNK)?;
    let mut before = (0u64, 0i64);
    while !reader.is_empty() {
        let seq = from.checked_add(reader.number().filter(|offset| *offset < CHUNK)?)?;
        let kind = reader.number()?;
        let deliveries = u32::try_from(kind >> 1).ok()?;
        if kind & 1 == 1 {
            state.exhausted.insert(seq, deliveries);
            continue;
        }
        before.0 = before.0.wrapping_add(reader.signed()? as u64);
        before.1 = before.1.wrapping_add(reader.signed()?);
        state.pending.insert(Delivery::recorded(
            seq,
            before.0,
            deliveries.max(1),
            before.1,
        ));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn chunks_come_back(
            pending in proptest::collection::btree_map(512u64..768, (1u32..9, any::<u32>(), any::<i64>()), 0..50),
            exhausted in proptest::collection::btree_map(512u64..768, any::<u32>(), 0..50),
        ) {
            let mut state = State::default();
            for (seq, (deliveries, first, due)) in pending {
                if !exhausted.contains_key(&seq) {
                    state.pending.insert(Delivery::recorded(seq, u64::from(first), deliveries, due));
                }
            }
            state.exhausted = exhausted;
            let mut read = State::default();
            if let Some(value) = encode_chunk(&state, 2) {
                let mut reader = Reader::new(&value);
                prop_assert_eq!(reader.byte(), Some(VERSION));
                prop_assert_eq!(decode_chunk(&mut reader, 2, &mut read), Some(()));
            }
            prop_assert_eq!(
                read.pending.iter().cloned().collect::<Vec<_>>(),
                state.pending.iter().cloned().collect::<Vec<_>>()
            );
            prop_assert_eq!(read.exhausted, state.exhausted);
        }

        #[test]
        fn foreign_rows_get_an_answer(
            part in 0u8..5,
            value in proptest::collection::vec(any::<u8>(), 0..60),
            rest in proptest::collection::vec(any::<u8>(), 0..10),
        ) {
            let config = ConfigRow {
                name: "C".to_owned(),
                created_ns: 0,
                config: ConsumerConfig::default(),
            };
            let mut loading =
                Some(Loading { id: 1, config, state: State::default(), latest: None });
            let mut key = key(GroupId(16), 1, part);
            key.extend_from_slice(&rest);
            let _ = load_row(&key, &value, &mut loading, &mut Vec::new());
        }
    }
}
