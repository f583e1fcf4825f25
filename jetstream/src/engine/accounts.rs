//! What accounts use and what they may use.
//!
//! Every stream knows what it counted for when it was looked at last; after each entry the
//! difference goes to its account and to the totals. So figures cost nothing to ask for, however
//! many streams there are, and a limit can be checked for every message.
//!
//! Limits come from the configuration, not from the log: they refuse what is proposed, and never
//! what is applied. What was let through and is not applied yet is a *claim*; it counts as used.

use std::collections::BTreeMap;

use super::{Application, Engine, Figures};
use crate::api::response::AccountLimits;
use crate::api::{ApiError, consumer_config, stream_config};
use crate::ids::{AccountName, GroupId};
use crate::ports::{LogStore, StateStore};
use crate::stream::StreamConfig;
use crate::stream::config::Storage;

/// Most bytes of all accounts together; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerLimits {
    /// In memory.
    pub memory: Option<u64>,
    /// On disk.
    pub storage: Option<u64>,
}

impl ServerLimits {
    const fn of(&self, storage: Storage) -> Option<u64> {
        match storage {
            Storage::Memory => self.memory,
            Storage::File => self.storage,
        }
    }
}

/// Number of an account in this run of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AccountSlot(usize);

/// Something let through that is not applied yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    slot: AccountSlot,
    figures: Figures,
}

#[derive(Debug, Default)]
struct AccountUse {
    used: Figures,
    claimed: Figures,
    limits: AccountLimits,
}

/// Every account that has, or had, something.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    slots: BTreeMap<AccountName, AccountSlot>,
    list: Vec<AccountUse>,
    total: Figures,
    claimed: Figures,
    server: ServerLimits,
}

impl Accounts {
    pub(super) fn new(server: ServerLimits) -> Self {
        Self {
            server,
            ..Self::default()
        }
    }

    /// The number of an account, given to it now if it has none.
    pub(super) fn slot(&mut self, account: &AccountName) -> AccountSlot {
        if let Some(slot) = self.slots.get(account) {
            return *slot;
        }
        let slot = AccountSlot(self.list.len());
        self.list.push(AccountUse::default());
        self.slots.insert(account.clone(), slot);
        slot
    }

    /// Every account that has, had or may have something, by name.
    pub(super) fn names(&self) -> impl Iterator<Item = &AccountName> {
        self.slots.keys()
    }

    /// Totals over all accounts.
    pub(super) const fn total(&self) -> Figures {
        self.total
    }

    /// What an account uses.
    pub(super) fn used(&self, account: &AccountName) -> Figures {
        self.of(account).map_or_else(Figures::default, |a| a.used)
    }

    /// What an account may use.
    pub(super) fn limits(&self, account: &AccountName) -> AccountLimits {
        self.of(account)
            .map_or_else(AccountLimits::default, |a| a.limits)
    }

    fn of(&self, account: &AccountName) -> Option<&AccountUse> {
        self.list.get(self.slots.get(account)?.0)
    }

    fn set_limits(&mut self, account: &AccountName, limits: AccountLimits) {
        let slot = self.slot(account);
        if let Some(entry) = self.list.get_mut(slot.0) {
            entry.limits = limits;
        }
    }

    /// Counts a request to the API, answered or refused.
    pub(super) fn count_request(&mut self, account: &AccountName, is_refused: bool) {
        let slot = self.slot(account);
        let used = self.list.get_mut(slot.0).map(|entry| &mut entry.used);
        for figures in used.into_iter().chain([&mut self.total]) {
            figures.api_total += 1;
            figures.api_errors += u64::from(is_refused);
        }
    }

    /// A stream that counted for `before` counts for `now`.
    pub(super) fn replace(&mut self, slot: AccountSlot, before: &Figures, now: &Figures) {
        let Some(entry) = self.list.get_mut(slot.0) else {
            return;
        };
        let had_streams = entry.used.streams > 0;
        entry.used.replace(before, now);
        self.total.replace(before, now);
        match (had_streams, entry.used.streams > 0) {
            (false, true) => self.total.accounts += 1,
            (true, false) => self.total.accounts -= 1,
            _ => {}
        }
    }

    /// Lets a message of `bytes` through, or says why not. A claim of earlier messages of the same
    /// entry grows.
    pub(super) fn claim_message(
        &mut self,
        slot: AccountSlot,
        storage: Storage,
        bytes: u64,
        claim: &mut Option<Claim>,
    ) -> Result<(), ApiError> {
        let Some(entry) = self.list.get_mut(slot.0) else {
            return Ok(());
        };
        let held = self.total.bytes_in(storage) + self.claimed.bytes_in(storage);
        if self.server.of(storage).is_some_and(|most| held > most) {
            return Err(ApiError::insufficient_resources());
        }
        let most = match storage {
            Storage::Memory => entry.limits.max_memory,
            Storage::File => entry.limits.max_storage,
        };
        let wanted = entry.used.bytes_in(storage) + entry.claimed.bytes_in(storage) + bytes;
        if u64::try_from(most).is_ok_and(|most| wanted > most) {
            return Err(ApiError::account_resources_exceeded());
        }
        let claim = claim.get_or_insert(Claim {
            slot,
            figures: Figures::default(),
        });
        let held = [&mut entry.claimed, &mut self.claimed, &mut claim.figures];
        for figures in held {
            *figures.bytes_in_mut(storage) += bytes;
        }
        Ok(())
    }

    /// Lets a new stream through, or says why not.
    pub(super) fn claim_stream(
        &mut self,
        account: &AccountName,
        config: &StreamConfig,
    ) -> Result<Claim, ApiError> {
        let limits = self.limits(account);
        let held = self.held(account);
        let most = u64::try_from(limits.max_streams).unwrap_or(0);
        if most > 0 && held.streams >= most {
            return Err(ApiError::stream_limit_reached());
        }
        self.check_reservation(account, config.storage, config.max_bytes)?;
        let slot = self.slot(account);
        let mut figures = Figures {
            streams: 1,
            ..Figures::default()
        };
        *figures.reserved_in_mut(config.storage) = u64::try_from(config.max_bytes).unwrap_or(0);
        if let Some(entry) = self.list.get_mut(slot.0) {
            entry.claimed.add(&figures);
        }
        self.claimed.add(&figures);
        Ok(Claim { slot, figures })
    }

    /// Lets a stream promise more bytes, or says why not.
    pub(super) fn check_growth(
        &self,
        account: &AccountName,
        current: &StreamConfig,
        wanted: &StreamConfig,
    ) -> Result<(), ApiError> {
        let more = wanted.max_bytes.saturating_sub(current.max_bytes).max(0);
        self.check_reservation(account, wanted.storage, more)
    }

    /// Whether `bytes` more may be promised; -1 stands for a stream without a bound.
    fn check_reservation(
        &self,
        account: &AccountName,
        storage: Storage,
        bytes: i64,
    ) -> Result<(), ApiError> {
        // As the reference server has it: no bound counts as one byte.
        let bytes = u64::try_from(bytes).unwrap_or(1);
        let limits = self.limits(account);
        let most = match storage {
            Storage::Memory => limits.max_memory,
            Storage::File => limits.max_storage,
        };
        let fits = |most: u64, held: u64| held.saturating_add(bytes) <= most;
        let of_account = self.held(account).reserved_in(storage);
        let of_server = self.total.reserved_in(storage) + self.claimed.reserved_in(storage);
        if u64::try_from(most).is_ok_and(|most| !fits(most, of_account))
            || (self.server.of(storage)).is_some_and(|most| !fits(most, of_server))
        {
            return Err(match storage {
                Storage::File => ApiError::insufficient_storage(),
                Storage::Memory => ApiError::insufficient_memory(),
            });
        }
        Ok(())
    }

    /// What an account uses and claims.
    fn held(&self, account: &AccountName) -> Figures {
        self.of(account).map_or_else(Figures::default, |entry| {
            let mut held = entry.used;
            held.add(&entry.claimed);
            held
        })
    }

    /// What a claim was for is applied, or refused.
    pub(super) fn release(&mut self, claim: Option<Claim>) {
        let Some(Claim { slot, figures }) = claim else {
            return;
        };
        let nothing = Figures::default();
        if let Some(entry) = self.list.get_mut(slot.0) {
            entry.claimed.replace(&figures, &nothing);
        }
        self.claimed.replace(&figures, &nothing);
    }
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// What an account may use from now on; until this is called it may use everything. What it
    /// has already stays.
    pub fn set_account_limits(&mut self, account: &AccountName, limits: AccountLimits) {
        self.accounts.set_limits(account, limits);
    }

    /// What all accounts together may use from now on. What they have already stays.
    pub fn set_server_limits(&mut self, limits: ServerLimits) {
        self.accounts.server = limits;
    }

    /// Counts a stream again after something was applied to it.
    pub(super) fn recount(&mut self, group: GroupId) {
        let Some(target) = self.groups.get_mut(&group) else {
            return;
        };
        let now = Figures::of(&target.stream, target.consumers.len());
        let before = std::mem::replace(&mut target.counted, now);
        self.accounts.replace(target.slot, &before, &now);
    }

    /// What streams of an account may ask for.
    pub(super) fn stream_bounds(&self, account: &AccountName) -> stream_config::Bounds {
        let limits = self.accounts.limits(account);
        let bounds = self.options.stream_bounds;
        stream_config::Bounds {
            max_bytes_required: limits.max_bytes_required || bounds.max_bytes_required,
            file_max_bytes: lower(bounds.file_max_bytes, limits.storage_max_stream_bytes),
            memory_max_bytes: lower(bounds.memory_max_bytes, limits.memory_max_stream_bytes),
            max_consumers: lower(bounds.max_consumers, limits.max_consumers),
            ..bounds
        }
    }

    /// What consumers of an account may ask for.
    pub(super) fn consumer_bounds(&self, account: &AccountName) -> consumer_config::Bounds {
        let limits = self.accounts.limits(account);
        let bounds = self.options.consumer_bounds;
        consumer_config::Bounds {
            account_max_ack_pending: lower(bounds.account_max_ack_pending, limits.max_ack_pending),
            max_consumers: lower(bounds.max_consumers, limits.max_consumers),
            ..bounds
        }
    }
}

/// The lower of two limits; 0 or less is none.
fn lower(a: i64, b: i64) -> i64 {
    if a > 0 && b > 0 { a.min(b) } else { a.max(b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(max_bytes: i64) -> StreamConfig {
        StreamConfig {
            max_bytes,
            ..StreamConfig::default()
        }
    }

    #[test]
    fn claims_count_until_they_are_released() {
        let account = AccountName::global();
        let mut accounts = Accounts::default();
        accounts.set_limits(
            &account,
            AccountLimits {
                max_streams: 1,
                max_storage: 100,
                ..AccountLimits::default()
            },
        );
        let first = accounts.claim_stream(&account, &config(60)).expect("fits");
        let refused = accounts.claim_stream(&account, &config(10));
        assert_eq!(refused.err(), Some(ApiError::stream_limit_reached()));
        accounts.release(Some(first));
        assert!(accounts.claim_stream(&account, &config(100)).is_ok());
    }

    #[test]
    fn promised_bytes_have_to_fit() {
        let account = AccountName::global();
        let mut accounts = Accounts::new(ServerLimits {
            memory: None,
            storage: Some(1000),
        });
        assert!(accounts.claim_stream(&account, &config(900)).is_ok());
        let refused = accounts.claim_stream(&account, &config(101));
        assert_eq!(refused.err(), Some(ApiError::insufficient_storage()));
        assert!(accounts.claim_stream(&account, &config(-1)).is_ok());
    }

    #[test]
    fn a_message_beyond_the_limit_is_refused() {
        let account = AccountName::global();
        let mut accounts = Accounts::default();
        let slot = accounts.slot(&account);
        let limits = AccountLimits {
            max_memory: 100,
            ..AccountLimits::default()
        };
        accounts.set_limits(&account, limits);
        let mut claim = None;
        let mut store = |bytes| accounts.claim_message(slot, Storage::Memory, bytes, &mut claim);
        assert!(store(100).is_ok());
        assert_eq!(store(1), Err(ApiError::account_resources_exceeded()));
        accounts.release(claim.take());
        assert!(
            accounts
                .claim_message(slot, Storage::Memory, 1, &mut claim)
                .is_ok()
        );
    }
}
