//! Work nobody asked for: finishing what was left half done, and forgetting who never came back.

use std::collections::BTreeSet;

use menes_jetstream::AccountName;

use crate::command::Command;
use crate::group::{self, GroupStatus};
use crate::lock::{Hold, LockKey, LockName};
use crate::name::{SchemaName, StationName};
use crate::state::StationEntry;
use crate::station::{self, StationStatus};
use crate::task::{Context, Failure, Job, Next, Plan, Step, StepResult};

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
            name: LockName::Station(station.clone()),
        },
        hold,
    )
}

pub(crate) fn schema_lock(
    account: &AccountName,
    schema: &SchemaName,
    hold: Hold,
) -> (LockKey, Hold) {
    (
        LockKey {
            account: account.clone(),
            name: LockName::Schema(schema.clone()),
        },
        hold,
    )
}

/// Carries out a plan, and nothing else.
pub(crate) fn just(plan: Plan) -> Box<dyn Job> {
    Box::new(Just(Some(plan)))
}

/// Removes a station if all of its streams are gone.
pub(crate) fn abandonment(station: StationName) -> Box<dyn Job> {
    Box::new(Abandonment {
        station,
        remaining: None,
    })
}

struct Just(Option<Plan>);

impl Job for Just {
    fn locks(&self, _account: &AccountName, _stations: Hold) -> Vec<(LockKey, Hold)> {
        Vec::new()
    }

    fn starts_shared(&self) -> bool {
        true
    }

    fn next(&mut self, _cx: &Context<'_>) -> Next {
        self.0.take().map_or(Next::Silent, Next::Run)
    }

    fn failed(&self, failure: &Failure) -> Option<Vec<u8>> {
        tracing::warn!(?failure, "work of the stations' own failed");
        None
    }
}

struct Abandonment {
    station: StationName,
    /// How many of its streams there are.
    remaining: Option<u64>,
}

impl Job for Abandonment {
    fn locks(&self, account: &AccountName, stations: Hold) -> Vec<(LockKey, Hold)> {
        vec![station_lock(account, &self.station, stations)]
    }

    fn starts_shared(&self) -> bool {
        false
    }

    fn next(&mut self, cx: &Context<'_>) -> Next {
        let entry = cx.state.station(cx.account, &self.station);
        let Some(station) = entry.map(|entry| &entry.station).filter(|s| s.is_ready()) else {
            return Next::Silent;
        };
        match self.remaining {
            Some(0) => Next::Run(station::removal(cx.account, station)),
            Some(_) => Next::Silent,
            None => {
                let mut plan = Plan::default();
                let streams = station.partition_numbers();
                let streams = streams.map(|partition| station.name.stream(partition));
                plan.step(Step::CountStreams(streams.collect()));
                Next::Run(plan)
            }
        }
    }

    fn absorb(&mut self, results: &[StepResult]) {
        if let [StepResult::Sequence(count)] = results {
            self.remaining = Some(*count);
        }
    }

    fn failed(&self, failure: &Failure) -> Option<Vec<u8>> {
        tracing::warn!(station = %self.station, ?failure, "a station without streams stays");
        None
    }
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
