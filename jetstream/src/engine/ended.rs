//! Deliveries that ended without an ack, kept until somebody took the message over.
//!
//! The record of such an end is written by the very entry that ends the delivery, so it survives
//! whatever the end itself survives. Whoever takes the message over, by storing it as a dead letter
//! for instance, does so at least once and says so with [`Engine::handed_over`]; only then does
//! the record go. A record carries the message itself where the stream lets go of settled messages.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Application, Engine, Origin};
use crate::command::StreamCommand;
use crate::consumer::Notice;
use crate::ids::{AccountName, GroupId, StreamSeq};
use crate::ports::{LogStore, StateStore, StoreError, StoreErrorKind, Table};
use crate::record::{self, BlockBuilder, StoredMessage};
use crate::txn::Txn;

const PREFIX: &[u8] = b"ended/";

/// Names the record of an end: the entry that ended the delivery, and the place in it. Never used
/// twice, and the same when the log is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndedKey {
    /// Group of the stream.
    pub group: GroupId,
    /// Index of the entry in the group's log.
    pub index: u64,
    /// Place among the ends of that entry.
    pub place: u32,
}

/// The end of a message's deliveries to one consumer that was no ack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Owner of the stream.
    pub account: AccountName,
    /// Name of the stream.
    pub stream: String,
    /// What ended.
    pub notice: Notice,
    /// Its record; none if nobody is to take the message over.
    pub key: Option<EndedKey>,
}

/// A record as it is stored, followed by the copied block.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    account: AccountName,
    stream: String,
    consumer: String,
    stream_seq: StreamSeq,
    /// None when a client refused the message.
    deliveries: Option<u64>,
}

impl Row {
    fn into_ended(self, key: EndedKey) -> Ended {
        let (consumer, stream_seq) = (self.consumer, self.stream_seq);
        let notice = match self.deliveries {
            Some(deliveries) => Notice::MaxDeliveries {
                consumer,
                stream_seq,
                deliveries,
            },
            None => Notice::Terminated {
                consumer,
                stream_seq,
            },
        };
        Ended {
            account: self.account,
            stream: self.stream,
            notice,
            key: Some(key),
        }
    }
}

/// Writes the record of an end.
pub(super) fn write(ended: &Ended, message: Option<&StoredMessage>, txn: &mut Txn<'_>) {
    let Some(key) = ended.key else { return };
    let (consumer, stream_seq, deliveries) = match &ended.notice {
        Notice::MaxDeliveries {
            consumer,
            stream_seq,
            deliveries,
        } => (consumer, stream_seq, Some(*deliveries)),
        Notice::Terminated {
            consumer,
            stream_seq,
        } => (consumer, stream_seq, None),
    };
    let row = Row {
        account: ended.account.clone(),
        stream: ended.stream.clone(),
        consumer: consumer.clone(),
        stream_seq: *stream_seq,
        deliveries,
    };
    let text = serde_json::to_vec(&row).expect("a record is plain data");
    let mut value = u32::try_from(text.len())
        .expect("names are short")
        .to_be_bytes()
        .to_vec();
    value.extend_from_slice(&text);
    if let Some(message) = message {
        let mut block = BlockBuilder::new(message.time());
        block.push(
            message.time(),
            message.subject(),
            message.header(),
            message.payload(),
        );
        value.extend_from_slice(&block.finish());
    }
    txn.put(Table::Meta, row_key(key), value);
}

/// Removes records of a stream.
pub(super) fn remove(group: GroupId, ends: &[(u64, u32)], txn: &mut Txn<'_>) {
    for &(index, place) in ends {
        let key = EndedKey {
            group,
            index,
            place,
        };
        txn.delete(Table::Meta, row_key(key));
    }
}

/// Removes every record of a stream that goes.
pub(super) fn remove_all(group: GroupId, txn: &mut Txn<'_>) {
    let from = group_prefix(group);
    let to = group_prefix(group.next());
    txn.delete_range(Table::Meta, from, to);
}

/// Every record in the store, oldest first within a stream.
pub(super) fn load(state: &dyn StateStore) -> Result<Vec<Ended>, StoreError> {
    let mut ends = Vec::new();
    let mut damaged = None;
    let mut end = PREFIX.to_vec();
    end.push(0xff);
    state.scan(Table::Meta, PREFIX, &end, &mut |key, value| {
        match parse(key, value) {
            Some((ended, _)) => ends.push(ended),
            None => damaged = Some(String::from_utf8_lossy(key).into_owned()),
        }
        true
    })?;
    match damaged {
        None => Ok(ends),
        Some(key) => Err(StoreError::new(
            StoreErrorKind::Corrupt,
            format!("the record {key} of an ended delivery cannot be read"),
        )),
    }
}

fn parse<'v>(key: &[u8], value: &'v [u8]) -> Option<(Ended, &'v [u8])> {
    let key = key.strip_prefix(PREFIX)?;
    let key = EndedKey {
        group: GroupId(u64::from_be_bytes(key.get(..8)?.try_into().ok()?)),
        index: u64::from_be_bytes(key.get(8..16)?.try_into().ok()?),
        place: u32::from_be_bytes(key.get(16..)?.try_into().ok()?),
    };
    let (len, rest) = value.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    let (text, block) = rest.split_at_checked(len)?;
    let row: Row = serde_json::from_slice(text).ok()?;
    Some((row.into_ended(key), block))
}

fn group_prefix(group: GroupId) -> Vec<u8> {
    let mut key = PREFIX.to_vec();
    key.extend_from_slice(&group.0.to_be_bytes());
    key
}

fn row_key(key: EndedKey) -> Vec<u8> {
    let mut row = group_prefix(key.group);
    row.extend_from_slice(&key.index.to_be_bytes());
    row.extend_from_slice(&key.place.to_be_bytes());
    row
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Says that these messages were taken over; `token` comes back as a completion. All keys are
    /// of one stream, `group`; one that is gone with its stream is taken for done.
    pub fn handed_over(&mut self, group: GroupId, keys: &[EndedKey], token: u64) {
        if !self.groups.contains_key(&group) {
            self.completions.push(super::Completion {
                token,
                result: Ok(()),
            });
            return;
        }
        let ends = keys
            .iter()
            .filter(|key| key.group == group)
            .map(|key| (key.index, key.place))
            .collect();
        let command = StreamCommand::HandedOver { ends };
        self.propose_stream(group, command, Origin::Internal(token));
    }

    /// The message whose delivery ended: from its stream, or where that let it go from the record.
    ///
    /// # Errors
    /// What reading it gave.
    pub fn ended_message(
        &mut self,
        key: EndedKey,
        seq: StreamSeq,
    ) -> Result<Option<StoredMessage>, StoreError> {
        let Some(target) = self.groups.get(&key.group) else {
            return Ok(None);
        };
        let state: &dyn StateStore = if target.in_memory {
            &self.volatile
        } else {
            &self.state
        };
        let mut view = crate::stream::View::new(state, &self.log, &mut self.cache);
        if let Some(message) = target.stream.message(seq, &mut view)? {
            return Ok(Some(message));
        }
        let row = row_key(key);
        let Some(value) = state.get(Table::Meta, &row)? else {
            return Ok(None);
        };
        let block = parse(&row, &value).map_or(&[][..], |(_, block)| block);
        let block = Bytes::copy_from_slice(block);
        let span = record::records(&block).and_then(|mut records| records.next());
        Ok(span.map(|span| StoredMessage { seq, block, span }))
    }
}

/// Numbers what consumers reported in one entry.
pub(super) fn number(
    account: &AccountName,
    stream: &str,
    (group, index): (GroupId, u64),
    notices: Vec<Notice>,
    is_kept: bool,
) -> Vec<Ended> {
    let ended = |(place, notice)| Ended {
        account: account.clone(),
        stream: stream.to_owned(),
        notice,
        key: is_kept.then_some(EndedKey {
            group,
            index,
            place,
        }),
    };
    (0u32..).zip(notices).map(ended).collect()
}

impl Ended {
    /// Which message.
    #[must_use]
    pub fn stream_seq(&self) -> StreamSeq {
        match &self.notice {
            Notice::MaxDeliveries { stream_seq, .. } | Notice::Terminated { stream_seq, .. } => {
                *stream_seq
            }
        }
    }

    /// How often it was delivered, if it was too often.
    #[must_use]
    pub const fn deliveries(&self) -> Option<u64> {
        match &self.notice {
            Notice::MaxDeliveries { deliveries, .. } => Some(*deliveries),
            Notice::Terminated { .. } => None,
        }
    }

    /// Name of the consumer.
    #[must_use]
    pub fn consumer(&self) -> &str {
        match &self.notice {
            Notice::MaxDeliveries { consumer, .. } | Notice::Terminated { consumer, .. } => {
                consumer
            }
        }
    }
}
