//! The steps that make, change and remove the durables of a group.

use menes_jetstream::AccountName;

use crate::command::Command;
use crate::dead_letter;
use crate::group::{Group, Member};
use crate::name::GroupName;
use crate::station::Station;
use crate::task::{Plan, Step};

/// Makes a group nobody knows yet, with its first member.
pub(crate) fn creation(
    account: &AccountName,
    station: &Station,
    group: &Group,
    member: Member,
) -> Plan {
    let mut plan = beginning(account, station, group);
    plan.step(joined(account, station, group, member));
    plan
}

/// Makes a group nobody knows yet, before anybody joins it. Durables that are there as the group
/// wants them are its own, and keep their positions.
pub(crate) fn empty(account: &AccountName, station: &Station, group: &Group) -> Plan {
    let mut plan = beginning(account, station, group);
    plan.step(Step::record(Command::GroupCreated {
        account: account.clone(),
        station: station.name.clone(),
        group: group.name.clone(),
    }));
    plan
}

fn beginning(account: &AccountName, station: &Station, group: &Group) -> Plan {
    let mut plan = Plan::default();
    let planned = Command::GroupPlanned {
        account: account.clone(),
        station: station.name.clone(),
        group: Box::new(group.clone()),
    };
    let removed = removed(account, station, &group.name);
    plan.undoable(Step::record(planned), Some(removed), None);
    for partition in station.partition_numbers() {
        let fresh = delete(station, &group.name, partition);
        plan.undoable(create(station, group, partition), Some(fresh), None);
    }
    plan
}

/// Brings a group without active members back to life: the durables are asked for again, so that
/// the engine decides whether what changed may change.
pub(crate) fn renewal(
    account: &AccountName,
    station: &Station,
    known: &Group,
    group: &Group,
    member: Member,
) -> Plan {
    let mut plan = Plan::default();
    for partition in station.partition_numbers() {
        let fresh = delete(station, &group.name, partition);
        let existed = (!group.same_limits(known)).then(|| create(station, known, partition));
        plan.undoable(create(station, group, partition), Some(fresh), existed);
    }
    plan.step(joined(account, station, group, member));
    plan
}

/// Changes the limits of a live group, with one more member.
pub(crate) fn update(
    account: &AccountName,
    station: &Station,
    known: &Group,
    group: &Group,
    member: Member,
) -> Plan {
    let change = |group: &Group, partition| Step::UpdateConsumer {
        stream: station.name.stream(partition),
        config: Box::new(group.consumer_config(station, partition)),
    };
    let mut plan = Plan::default();
    for partition in station.partition_numbers() {
        let back = Some(change(known, partition));
        plan.undoable(change(group, partition), back.clone(), back);
    }
    plan.step(joined(account, station, group, member));
    plan
}

/// Changes the limits of a live group.
pub(crate) fn change(
    account: &AccountName,
    station: &Station,
    known: &Group,
    group: &Group,
) -> Plan {
    let mut plan = Plan::default();
    for partition in station.partition_numbers() {
        let step = |group: &Group| Step::UpdateConsumer {
            stream: station.name.stream(partition),
            config: Box::new(group.consumer_config(station, partition)),
        };
        let back = Some(step(known));
        plan.undoable(step(group), back.clone(), back);
    }
    plan.step(Step::record(Command::GroupChanged {
        account: account.clone(),
        station: station.name.clone(),
        group: Box::new(group.clone()),
    }));
    plan
}

/// Adds a member to a live group.
pub(crate) fn join(
    account: &AccountName,
    station: &Station,
    group: &Group,
    member: Member,
) -> Plan {
    let mut plan = Plan::default();
    plan.step(joined(account, station, group, member));
    plan
}

/// Removes a group, or what is left of one, after `first`, which marks it. Never undone, only
/// finished.
pub(crate) fn removal(
    account: &AccountName,
    station: &Station,
    group: &GroupName,
    first: Option<Command>,
) -> Plan {
    let mut plan = Plan::default();
    if let Some(command) = first {
        plan.step(Step::record(command));
    }
    for partition in station.partition_numbers() {
        plan.step(delete(station, group, partition));
    }
    plan.step(dead_letter::purge(dead_letter::group_filter(
        &station.name,
        group,
    )));
    plan.step(removed(account, station, group));
    plan
}

fn create(station: &Station, group: &Group, partition: u32) -> Step {
    Step::CreateConsumer {
        stream: station.name.stream(partition),
        config: Box::new(group.consumer_config(station, partition)),
    }
}

fn delete(station: &Station, group: &GroupName, partition: u32) -> Step {
    Step::DeleteConsumer {
        stream: station.name.stream(partition),
        name: group.internal(),
    }
}

fn joined(account: &AccountName, station: &Station, group: &Group, member: Member) -> Step {
    Step::record(Command::MemberJoined {
        account: account.clone(),
        station: station.name.clone(),
        group: Box::new(group.clone()),
        member: Box::new(member),
    })
}

fn removed(account: &AccountName, station: &Station, group: &GroupName) -> Step {
    Step::record(Command::GroupRemoved {
        account: account.clone(),
        station: station.name.clone(),
        group: group.clone(),
    })
}
