//! What an engine holds, in numbers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Application, Engine};
use crate::ids::AccountName;
use crate::ports::{LogStore, StateStore};
use crate::stream::StreamConfig;
use crate::stream::config::Storage;
use crate::time::Timestamp;

/// Totals over streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Streams.
    pub streams: u64,
    /// Consumers.
    pub consumers: u64,
    /// Messages stored.
    pub messages: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// Bytes of them in memory.
    pub memory: u64,
    /// Bytes of them on disk.
    pub storage: u64,
    /// Bytes promised to memory streams.
    pub reserved_memory: u64,
    /// Bytes promised to file streams.
    pub reserved_storage: u64,
    /// API requests served.
    pub api_total: u64,
    /// API requests refused.
    pub api_errors: u64,
}

/// One account.
#[derive(Clone, Debug)]
pub struct AccountFigures {
    /// Its name.
    pub account: AccountName,
    /// Its totals.
    pub figures: Figures,
    /// Its streams, by name.
    pub streams: Vec<StreamFigures>,
}

/// One stream.
#[derive(Clone, Debug)]
pub struct StreamFigures {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// Its configuration.
    pub config: StreamConfig,
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
    /// First sequence.
    pub first_seq: u64,
    /// Last sequence.
    pub last_seq: u64,
    /// Time of the last message.
    pub last_ts: Timestamp,
    /// Distinct subjects.
    pub num_subjects: u64,
    /// Names of its consumers.
    pub consumers: Vec<String>,
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Totals, and every account with its streams. Walks all streams: not for the hot path.
    #[must_use]
    pub fn figures(&self) -> (Figures, Vec<AccountFigures>) {
        let mut accounts: BTreeMap<&AccountName, AccountFigures> = BTreeMap::new();
        let mut total = Figures {
            api_total: self.api_total,
            api_errors: self.api_errors,
            ..Figures::default()
        };
        for target in self.groups.values() {
            let stream = &target.stream;
            let entry = accounts
                .entry(&target.account)
                .or_insert_with(|| AccountFigures {
                    account: target.account.clone(),
                    figures: Figures::default(),
                    streams: Vec::new(),
                });
            let reserved = u64::try_from(stream.config().max_bytes).unwrap_or(0);
            for figures in [&mut total, &mut entry.figures] {
                figures.streams += 1;
                figures.consumers += target.consumers.len() as u64;
                figures.messages += stream.messages();
                figures.bytes += stream.bytes();
                match stream.config().storage {
                    Storage::File => {
                        figures.storage += stream.bytes();
                        figures.reserved_storage += reserved;
                    }
                    Storage::Memory => {
                        figures.memory += stream.bytes();
                        figures.reserved_memory += reserved;
                    }
                }
            }
            entry.streams.push(StreamFigures {
                name: stream.name().to_owned(),
                created: target.created,
                config: stream.config().clone(),
                messages: stream.messages(),
                bytes: stream.bytes(),
                first_seq: stream.first_seq().0,
                last_seq: stream.last_seq().0,
                last_ts: stream.last_time(),
                num_subjects: stream.num_subjects(),
                consumers: target.consumers.keys().cloned().collect(),
            });
        }
        let mut accounts: Vec<AccountFigures> = accounts.into_values().collect();
        for account in &mut accounts {
            account.streams.sort_by(|a, b| a.name.cmp(&b.name));
        }
        (total, accounts)
    }
}
