//! The steps that make and remove a station, in an order that survives a stop at any of them.

use menes_jetstream::AccountName;

use crate::command::Command;
use crate::dead_letter;
use crate::name::SchemaName;
use crate::station::Station;
use crate::task::{Plan, Step};

/// Makes a station nobody knows yet: takes the name, makes the streams, announces it.
pub(crate) fn creation(account: &AccountName, station: &Station) -> Plan {
    with_schema(account, station, None)
}

/// The same, once the server is ready to check messages against a version of a schema.
pub(crate) fn with_schema(
    account: &AccountName,
    station: &Station,
    prepare: Option<(SchemaName, u32)>,
) -> Plan {
    let mut plan = Plan::default();
    if let Some((name, version)) = prepare {
        plan.step(Step::PrepareSchema { name, version });
    }
    let planned = Command::StationPlanned {
        account: account.clone(),
        station: Box::new(station.clone()),
    };
    plan.undoable(Step::record(planned), Some(removed(account, station)), None);
    for partition in station.partition_numbers() {
        let config = station.stream_config(partition);
        // One that was there goes too unless it holds messages: nobody else owns the name.
        let undo = Some(delete_unused(config.name.clone()));
        plan.undoable(Step::CreateStream(Box::new(config)), undo.clone(), undo);
    }
    plan.step(created(account, station));
    plan
}

/// Makes what is missing of a station that was begun. If that fails, all of it goes, also what
/// this plan did not come to: an earlier attempt may have made it.
pub(crate) fn completion(account: &AccountName, station: &Station) -> Plan {
    let mut plan = Plan::default();
    for partition in station.partition_numbers() {
        let config = station.stream_config(partition);
        plan.after_undo(delete_unused(config.name.clone()));
        plan.step(Step::CreateStream(Box::new(config)));
    }
    plan.step(created(account, station));
    plan.after_undo(removed(account, station));
    plan
}

/// Removes a station, or what is left of one. Never undone, only finished.
pub(crate) fn removal(account: &AccountName, station: &Station) -> Plan {
    let mut plan = Plan::default();
    plan.step(Step::record(Command::StationRemoving {
        account: account.clone(),
        station: station.name.clone(),
    }));
    for partition in station.partition_numbers() {
        let name = station.name.stream(partition);
        plan.step(Step::DeleteStream {
            name,
            only_if_unused: false,
        });
    }
    plan.step(dead_letter::purge(dead_letter::filter(&station.name, None)));
    plan.step(removed(account, station));
    plan
}

fn delete_unused(name: String) -> Step {
    Step::DeleteStream {
        name,
        only_if_unused: true,
    }
}

fn created(account: &AccountName, station: &Station) -> Step {
    let (account, station) = (account.clone(), station.name.clone());
    Step::record(Command::StationCreated { account, station })
}

fn removed(account: &AccountName, station: &Station) -> Step {
    let (account, station) = (account.clone(), station.name.clone());
    Step::record(Command::StationRemoved { account, station })
}
