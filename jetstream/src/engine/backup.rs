//! A stream goes out as a backup, piece by piece.
//!
//! The receiver acknowledges every piece; only so many are on their way at once. Messages are read
//! when their turn comes, so what is removed meanwhile is not in the backup, and what comes in
//! meanwhile is not either.

use std::time::Duration;

use serde::Serialize;

use super::request::send;
use super::{Application, Change, Engine};
use crate::api::ApiError;
use crate::api::request::SnapshotRequest;
use crate::api::response::Snapshot;
use crate::archive::{self, Entry, Packer};
use crate::consumer::{Consumer, ConsumerConfig};
use crate::ids::{AccountName, GroupId, StreamSeq};
use crate::ports::{LogStore, Outbox, Outgoing, StateStore};
use crate::stream::Filters;
use crate::time::Timestamp;

/// How long the receiver may take to acknowledge something.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// How long the receiver may take to subscribe.
const INTEREST_WAIT: Duration = Duration::from_secs(2);
/// How often it is looked whether it has.
const INTEREST_CHECK: Duration = Duration::from_millis(20);

/// The status of a backup that was sent to its end.
const DONE: &str = "204";

/// A backup that is being sent.
#[derive(Debug)]
pub(super) struct Backup {
    account: AccountName,
    group: GroupId,
    deliver: String,
    ack: String,
    chunk: usize,
    /// Pieces that may be on their way at once.
    window: u64,
    in_flight: u64,
    sent: u64,
    /// Of those, how many are to be acknowledged.
    acknowledged: u64,
    packer: Packer,
    next: StreamSeq,
    last: StreamSeq,
    is_read: bool,
    /// When the receiver is given up, or looked at again.
    pub(super) due: Timestamp,
    patience: Timestamp,
    was_heard: bool,
    /// There is something to do before it is due.
    is_ready: bool,
}

/// How a consumer stands in a backup.
#[derive(Serialize)]
struct ConsumerEntry<'a> {
    config: &'a ConsumerConfig,
    state: ConsumerState,
}

#[derive(Serialize)]
struct ConsumerState {
    delivered: Pair,
    ack_floor: Pair,
}

#[derive(Clone, Copy, Serialize)]
struct Pair {
    consumer_seq: u64,
    stream_seq: u64,
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Begins to send a stream; gives the answer to the request.
    pub(super) fn begin_backup(
        &mut self,
        account: &AccountName,
        stream: &str,
        wanted: &SnapshotRequest,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Result<Snapshot, ApiError> {
        let (group, config) = self.stream_config(account, stream)?;
        let config = config.clone();
        let info = self.info_of(group, now)?;
        let mut state = info.state;
        let mut packer = Packer::default();
        packer.push(archive::MAGIC);
        let mut consumers = Vec::new();
        if !wanted.no_consumers {
            let target = self.groups.get(&group);
            let ids = target.map_or_else(Vec::new, |target| {
                target.consumers.values().map(Consumer::id).collect()
            });
            for id in ids {
                let info = self.consumer_info(group, id, now, out)?;
                if info.config.as_ref().is_some_and(|config| !config.direct) {
                    consumers.push(info);
                }
            }
        }
        state.consumer_count = consumers.len() as u64;
        if state.messages == 0 {
            state.first_seq = state.last_seq + 1;
        }
        let mut plain = Vec::new();
        let body = serde_json::to_vec(&state).expect("plain data");
        archive::write_entry(&mut plain, b"state.json", now.0, 0, b"", &body);
        for consumer in &consumers {
            let Some(config) = &consumer.config else {
                continue;
            };
            let pair = |at: &crate::consumer::info::SequenceInfo| Pair {
                consumer_seq: at.consumer_seq,
                stream_seq: at.stream_seq,
            };
            let ack_floor = pair(&consumer.ack_floor);
            // What was handed out and not settled is handed out again.
            let delivered = if consumer.num_ack_pending > 0 {
                ack_floor
            } else {
                pair(&consumer.delivered)
            };
            let entry = ConsumerEntry {
                config,
                state: ConsumerState {
                    delivered,
                    ack_floor,
                },
            };
            let body = serde_json::to_vec(&entry).expect("plain data");
            let name = format!("consumers/{}", consumer.name);
            archive::write_entry(&mut plain, name.as_bytes(), now.0, 0, b"", &body);
        }
        packer.push(&plain);
        let id = self.next_id();
        let listener = self.listeners.next();
        let ack = format!("$JS.SNAPSHOT.ACK.{stream}.{id}");
        self.changes.push(Change::Listen {
            account: account.clone(),
            listener,
            subjects: vec![format!("{ack}.>")],
        });
        let backup = Backup {
            account: account.clone(),
            group,
            deliver: wanted.deliver_subject.clone(),
            ack,
            chunk: wanted.chunk_size,
            window: (wanted.window_size / wanted.chunk_size).max(1) as u64,
            in_flight: 0,
            sent: 0,
            acknowledged: 0,
            packer,
            next: StreamSeq(state.first_seq),
            last: StreamSeq(state.last_seq),
            is_read: false,
            due: now,
            patience: now.plus(INTEREST_WAIT),
            was_heard: false,
            is_ready: true,
        };
        self.backups.insert(listener, backup);
        Ok(Snapshot {
            config: Some(config),
            state: Some(state),
        })
    }

    /// The receiver has taken a piece.
    pub(super) fn backup_acknowledged(&mut self, listener: u64, subject: &[u8], now: Timestamp) {
        if let Some(backup) = self.backups.get_mut(&listener)
            && subject.starts_with(backup.ack.as_bytes())
        {
            backup.in_flight = backup.in_flight.saturating_sub(1);
            backup.due = now.plus(ACK_WAIT);
            backup.is_ready = true;
        }
    }

    /// Sends what may be sent.
    pub(super) fn run_backups(&mut self, now: Timestamp, out: &mut dyn Outbox) {
        let due: Vec<u64> = self
            .backups
            .iter()
            .filter(|(_, backup)| backup.is_ready || backup.due <= now)
            .map(|(listener, _)| *listener)
            .collect();
        for listener in due {
            let Some(mut backup) = self.backups.remove(&listener) else {
                continue;
            };
            match self.send_pieces(&mut backup, now, out) {
                None => {
                    self.backups.insert(listener, backup);
                }
                Some(status) => {
                    // As the reference server: a backup of less than a piece has no status.
                    let is_short = status == DONE && backup.acknowledged == 0;
                    let header = if is_short {
                        String::new()
                    } else {
                        format!("NATS/1.0 {status}\r\n\r\n")
                    };
                    let deliver = backup.deliver.as_bytes();
                    send(&backup.account, deliver, header.as_bytes(), b"", out);
                    self.changes.push(Change::Unlisten { listener });
                }
            }
        }
    }

    /// Sends pieces as far as the window goes; the status that ends the backup, if it has ended.
    fn send_pieces(
        &mut self,
        backup: &mut Backup,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> Option<String> {
        backup.is_ready = false;
        let deliver = backup.deliver.as_bytes();
        if !backup.was_heard && now < backup.patience {
            // Clients that ask with an inbox of many answers subscribe to this one later.
            if !out.has_exact_interest(&backup.account, deliver) {
                backup.due = now.plus(INTEREST_CHECK);
                return None;
            }
        } else if !out.has_interest(&backup.account, deliver, None) {
            return Some("408 No Interest".to_owned());
        }
        if backup.in_flight >= backup.window {
            return (now >= backup.due).then(|| "408 No Flow Response".to_owned());
        }
        if !std::mem::replace(&mut backup.was_heard, true) || now >= backup.due {
            backup.due = now.plus(ACK_WAIT);
        }
        while backup.in_flight < backup.window {
            if let Err(error) = self.fill(backup) {
                return Some(format!("500 {}", error.description));
            }
            let piece = backup.packer.take(backup.chunk);
            let is_last = backup.is_read && backup.packer.ready() == 0;
            let is_whole = piece.len() == backup.chunk;
            if !piece.is_empty() {
                backup.sent += 1;
                let (len, index) = (piece.len(), backup.sent);
                // The last piece, if it is a part of one, is not acknowledged.
                let reply = if is_whole {
                    format!("{}.{len}.{index}", backup.ack)
                } else {
                    String::new()
                };
                out.send(Outgoing {
                    account: &backup.account,
                    target: backup.deliver.as_bytes(),
                    subject: backup.deliver.as_bytes(),
                    reply: reply.as_bytes(),
                    header: b"",
                    payload: &piece,
                });
                backup.in_flight += u64::from(is_whole);
                backup.acknowledged += u64::from(is_whole);
            }
            if is_last {
                return Some(DONE.to_owned());
            }
        }
        None
    }

    /// Reads messages until a piece is full or there are no more.
    fn fill(&mut self, backup: &mut Backup) -> Result<(), ApiError> {
        let mut plain = Vec::new();
        while !backup.is_read && backup.packer.ready() < backup.chunk {
            let (from, last) = (backup.next, backup.last);
            let message = self.with_view(backup.group, |target, view| {
                target.stream.next_message(from, &Filters::all(), view)
            })?;
            plain.clear();
            match message.filter(|message| message.seq <= last) {
                Some(message) => {
                    backup.next = message.seq.next();
                    archive::write_entry(
                        &mut plain,
                        message.subject(),
                        message.time().0,
                        message.seq.0,
                        message.header(),
                        message.payload(),
                    );
                    backup.packer.push(&plain);
                }
                None => {
                    Entry::default().write(&mut plain);
                    backup.packer.push(&plain);
                    backup.packer.finish();
                    backup.is_read = true;
                }
            }
        }
        Ok(())
    }
}
