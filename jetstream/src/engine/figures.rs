//! What an engine holds, in numbers.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Application, Engine};
use crate::api::response::StreamInfo;
use crate::consumer::ConsumerInfo;
use crate::ids::{AccountName, GroupId};
use crate::ports::{LogStore, Outbox, StateStore};
use crate::stream::Stream;
use crate::stream::config::Storage;
use crate::time::Timestamp;

/// Requests of one account to the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ApiUse {
    /// Requests.
    pub(super) total: u64,
    /// Those that were refused.
    pub(super) errors: u64,
}

/// Totals over streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Accounts that have streams.
    pub accounts: u64,
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
    /// As `STREAM.INFO` shows it.
    pub info: StreamInfo,
    /// As `CONSUMER.INFO` shows them, by name.
    pub consumers: Vec<ConsumerInfo>,
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// The name of the stream with this group.
    #[must_use]
    pub fn stream_name(&self, group: GroupId) -> Option<&str> {
        let target = self.groups.get(&group)?;
        Some(target.stream.config().name.as_str())
    }

    /// Totals. Adds up over all streams and reads no store.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let mut total = Figures {
            api_total: self.api.values().map(|used| used.total).sum(),
            api_errors: self.api.values().map(|used| used.errors).sum(),
            ..Figures::default()
        };
        let mut accounts = BTreeSet::new();
        for target in self.groups.values() {
            accounts.insert(&target.account);
            total.add(&target.stream, target.consumers.len());
        }
        total.accounts = accounts.len() as u64;
        total
    }

    /// Every account with its streams and their consumers, by name. Work for each of them: only on
    /// demand. What cannot be read is left out.
    pub fn details(&mut self, now: Timestamp, out: &mut dyn Outbox) -> Vec<AccountFigures> {
        let groups: Vec<_> = self.groups.keys().copied().collect();
        let mut accounts: BTreeMap<AccountName, AccountFigures> = BTreeMap::new();
        for group in groups {
            let Ok(info) = self.info_of(group, now) else {
                continue;
            };
            let Some(target) = self.groups.get(&group) else {
                continue;
            };
            let entry = accounts
                .entry(target.account.clone())
                .or_insert_with(|| AccountFigures {
                    account: target.account.clone(),
                    figures: Figures {
                        accounts: 1,
                        ..Figures::default()
                    },
                    streams: Vec::new(),
                });
            entry.figures.add(&target.stream, target.consumers.len());
            let ids: Vec<u32> = target.names.keys().copied().collect();
            let mut consumers: Vec<ConsumerInfo> = ids
                .into_iter()
                .filter_map(|id| self.consumer_info(group, id, now, out).ok())
                .collect();
            consumers.sort_by(|a, b| a.name.cmp(&b.name));
            entry.streams.push(StreamFigures { info, consumers });
        }
        let mut accounts: Vec<AccountFigures> = accounts.into_values().collect();
        for account in &mut accounts {
            if let Some(used) = self.api.get(&account.account) {
                account.figures.api_total = used.total;
                account.figures.api_errors = used.errors;
            }
            account
                .streams
                .sort_by(|a, b| a.info.config.name.cmp(&b.info.config.name));
        }
        accounts
    }
}

impl Figures {
    fn add(&mut self, stream: &Stream, consumers: usize) {
        let reserved = u64::try_from(stream.config().max_bytes).unwrap_or(0);
        self.streams += 1;
        self.consumers += consumers as u64;
        self.messages += stream.messages();
        self.bytes += stream.bytes();
        match stream.config().storage {
            Storage::File => {
                self.storage += stream.bytes();
                self.reserved_storage += reserved;
            }
            Storage::Memory => {
                self.memory += stream.bytes();
                self.reserved_memory += reserved;
            }
        }
    }
}
