//! What an engine holds, in numbers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Application, Engine};
use crate::api::response::{AccountLimits, StreamInfo};
use crate::consumer::ConsumerInfo;
use crate::ids::{AccountName, GroupId};
use crate::ports::{LogStore, Outbox, StateStore};
use crate::stream::Stream;
use crate::stream::config::Storage;
use crate::time::Timestamp;

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
    /// What it may use.
    pub limits: AccountLimits,
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

    /// Totals, kept up to date with every entry: asking costs nothing.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.accounts.total()
    }

    /// Every account with its streams and their consumers, by name. Work for each of them: only on
    /// demand. What cannot be read is left out.
    pub fn details(&mut self, now: Timestamp, out: &mut dyn Outbox) -> Vec<AccountFigures> {
        let groups: Vec<_> = self.groups.keys().copied().collect();
        let mut accounts: BTreeMap<AccountName, AccountFigures> = (self.accounts.names())
            .map(|account| {
                let empty = AccountFigures {
                    account: account.clone(),
                    figures: Figures {
                        accounts: 1,
                        ..self.accounts.used(account)
                    },
                    limits: self.accounts.limits(account),
                    streams: Vec::new(),
                };
                (account.clone(), empty)
            })
            .collect();
        for group in groups {
            let Ok(info) = self.info_of(group, now) else {
                continue;
            };
            let Some(target) = self.groups.get(&group) else {
                continue;
            };
            let Some(entry) = accounts.get_mut(&target.account) else {
                continue;
            };
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
            account
                .streams
                .sort_by(|a, b| a.info.config.name.cmp(&b.info.config.name));
        }
        accounts
    }
}

impl Figures {
    /// What one stream counts for.
    pub(super) fn of(stream: &Stream, consumers: usize) -> Self {
        let storage = stream.config().storage;
        let mut figures = Self {
            streams: 1,
            consumers: consumers as u64,
            messages: stream.messages(),
            bytes: stream.bytes(),
            ..Self::default()
        };
        *figures.bytes_in_mut(storage) = stream.bytes();
        *figures.reserved_in_mut(storage) = u64::try_from(stream.config().max_bytes).unwrap_or(0);
        figures
    }

    /// Adds what a stream, or a part of one, counts for.
    pub(super) fn add(&mut self, other: &Self) {
        self.replace(&Self::default(), other);
    }

    /// Something that counted for `before` counts for `now`. Accounts and requests are not
    /// touched: they are no part of a stream.
    pub(super) fn replace(&mut self, before: &Self, now: &Self) {
        let pairs = [
            (&mut self.streams, before.streams, now.streams),
            (&mut self.consumers, before.consumers, now.consumers),
            (&mut self.messages, before.messages, now.messages),
            (&mut self.bytes, before.bytes, now.bytes),
            (&mut self.memory, before.memory, now.memory),
            (&mut self.storage, before.storage, now.storage),
            (
                &mut self.reserved_memory,
                before.reserved_memory,
                now.reserved_memory,
            ),
            (
                &mut self.reserved_storage,
                before.reserved_storage,
                now.reserved_storage,
            ),
        ];
        for (sum, before, now) in pairs {
            *sum = sum.saturating_sub(before).saturating_add(now);
        }
    }

    pub(super) const fn bytes_in(&self, storage: Storage) -> u64 {
        match storage {
            Storage::File => self.storage,
            Storage::Memory => self.memory,
        }
    }

    pub(super) const fn bytes_in_mut(&mut self, storage: Storage) -> &mut u64 {
        match storage {
            Storage::File => &mut self.storage,
            Storage::Memory => &mut self.memory,
        }
    }

    pub(super) const fn reserved_in(&self, storage: Storage) -> u64 {
        match storage {
            Storage::File => self.reserved_storage,
            Storage::Memory => self.reserved_memory,
        }
    }

    pub(super) const fn reserved_in_mut(&mut self, storage: Storage) -> &mut u64 {
        match storage {
            Storage::File => &mut self.reserved_storage,
            Storage::Memory => &mut self.reserved_memory,
        }
    }
}
