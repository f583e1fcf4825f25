//! Work nobody asked for: finishing what was left half done, and forgetting who never came back.

use std::collections::BTreeSet;

use menes_jetstream::AccountName;

use crate::command::Command;
use crate::group::{self, GroupStatus};
use crate::lock::{Hold, LockKey};
use crate::name::StationName;
use crate::state::StationEntry;
use crate::station::{self, StationStatus};
use crate::task::{Context, Failure, Job, Next, Plan, Step};

/// How a station stands towards a request that names it.
pub(crate) enum Standing<'a> {
    Ready(&'a StationEntry),
    Missing,
    /// Something was left half done; this finishes it.
    Unfinished(Plan),
}

/// How the station `name` stands.
pub(crate) fn standing<'a>(cx: &Context<'a>, name: &StationName) -> Standing<'a> {
    match cx.state.station(cx.account, name) {
        None => Standing::Missing,
        Some(entry) => match entry.station.status {
            StationStatus::Ready => Standing::Ready(entry),
            StationStatus::Creating => {
                Standing::Unfinished(station::completion(cx.account, &entry.station))
            }
            StationStatus::Removing => {
                Standing::Unfinished(station::removal(cx.account, &entry.station))
            }
        },
    }
}

/// Whether a station or one of its groups was left half done.
pub(crate) fn is_unfinished(entry: &StationEntry) -> bool {
    !entry.station.is_ready() || unfinished_group(entry).is_some()
}

fn unfinished_group(entry: &StationEntry) -> Option<&group::Group> {
    entry
        .groups()
        .map(|group| &group.group)
        .find(|group| group.status != GroupStatus::Ready)
}

/// Finishes whatever is half done about a station.
pub(crate) fn settling(station: StationName) -> Box<dyn Job> {
    Box::new(Settling { station })
}

/// Removes what is registered from `connections`; none if there are none.
pub(crate) fn expiry(station: StationName, connections: BTreeSet<String>) -> Option<Box<dyn Job>> {
    if connections.is_empty() {
        return None;
    }
    Some(Box::new(Expiry {
        station,
        connections,
        recorded: false,
    }))
}

pub(crate) fn station_lock(
    account: &AccountName,
    station: &StationName,
    hold: Hold,
) -> (LockKey, Hold) {
    (
        LockKey {
            account: account.clone(),
            station: station.clone(),
            group: None,
        },
        hold,
    )
}

struct Settling {
    station: StationName,
}

impl Job for Settling {
    fn locks(&self, account: &AccountName, stations: Hold) -> Vec<(LockKey, Hold)> {
        vec![station_lock(account, &self.station, stations)]
    }

    fn starts_shared(&self) -> bool {
        false
    }

    fn next(&mut self, cx: &Context<'_>) -> Next {
        match standing(cx, &self.station) {
            Standing::Missing => Next::Silent,
            Standing::Unfinished(plan) => Next::Run(plan),
            Standing::Ready(entry) => match unfinished_group(entry) {
                Some(group) => Next::Run(group::removal(
                    cx.account,
                    &entry.station,
                    &group.name,
                    None,
                )),
                None => Next::Silent,
            },
        }
    }

    fn failed(&self, failure: &Failure) -> Option<Vec<u8>> {
        tracing::warn!(station = %self.station, ?failure, "station is left half done");
        None
    }
}

struct Expiry {
    station: StationName,
    connections: BTreeSet<String>,
    recorded: bool,
}

impl Job for Expiry {
    fn locks(&self, account: &AccountName, stations: Hold) -> Vec<(LockKey, Hold)> {
        vec![station_lock(account, &self.station, stations)]
    }

    fn starts_shared(&self) -> bool {
        false
    }

    fn next(&mut self, cx: &Context<'_>) -> Next {
        // One that came back while this waited stays.
        self.connections
            .retain(|id| !cx.presence.is_open(cx.account, id));
        if self.recorded || self.connections.is_empty() {
            return Next::Silent;
        }
        self.recorded = true;
        let mut plan = Plan::default();
        plan.step(Step::record(Command::RegistrationsExpired {
            account: cx.account.clone(),
            station: self.station.clone(),
            connections: self.connections.clone(),
        }));
        Next::Run(plan)
    }

    fn failed(&self, failure: &Failure) -> Option<Vec<u8>> {
        tracing::warn!(station = %self.station, ?failure, "old registrations stay");
        None
    }
}
