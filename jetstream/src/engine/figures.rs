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

    /// Begins to gather every account with its streams and their consumers.
    #[must_use]
    pub fn begin_details(&self) -> Details {
        Details {
            left: self.groups.keys().copied().collect(),
            accounts: BTreeMap::new(),
        }
    }

    /// Goes on with that for about this many streams and consumers, because each is work. What
    /// cannot be read is left out; what comes and goes meanwhile may be in it or not.
    pub fn gather_details(
        &mut self,
        details: &mut Details,
        most: usize,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        let mut gathered = 0;
        while gathered < most
            && let Some(group) = details.left.pop()
        {
            gathered += 1 + self.gather_stream(details, group, now, out);
        }
    }

    /// Adds one stream; the number of its consumers.
    fn gather_stream(
        &mut self,
        details: &mut Details,
        group: GroupId,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) -> usize {
        let Ok(info) = self.info_of(group, now) else {
            return 0;
        };
        let Some(target) = self.groups.get(&group) else {
            return 0;
        };
        let account = target.account.clone();
        let ids: Vec<u32> = target.names.keys().copied().collect();
        let mut consumers: Vec<ConsumerInfo> = ids
            .into_iter()
            .filter_map(|id| self.consumer_info(group, id, now, out).ok())
            .collect();
        consumers.sort_by(|a, b| a.name.cmp(&b.name));
        let count = consumers.len();
        let streams = details.accounts.entry(account).or_default();
        streams.push(StreamFigures { info, consumers });
        count
    }

    /// Every account that has or may have streams, with what was gathered of it, by name.
    #[must_use]
    pub fn finish_details(&self, details: Details) -> Vec<AccountFigures> {
        let mut gathered = details.accounts;
        let of_account = |account: &AccountName| {
            let mut streams = gathered.remove(account).unwrap_or_default();
            streams.sort_by(|a, b| a.info.config.name.cmp(&b.info.config.name));
            AccountFigures {
                account: account.clone(),
                figures: Figures {
                    accounts: 1,
                    ..self.accounts.used(account)
                },
                limits: self.accounts.limits(account),
                streams,
            }
        };
        self.accounts.names().map(of_account).collect()
    }
}

/// Accounts, streams and consumers that are being gathered, some at a time.
#[derive(Debug)]
pub struct Details {
    left: Vec<GroupId>,
    accounts: BTreeMap<AccountName, Vec<StreamFigures>>,
}

impl Details {
    /// Whether nothing is left to gather.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.left.is_empty()
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
