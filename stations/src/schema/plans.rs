//! The steps that give a station a schema, take it away, and tell its clients.

use menes_jetstream::AccountName;

use crate::command::Command;
use crate::schema::{Schema, SchemaVersion};
use crate::sdk::reply;
use crate::station::{SchemaLink, Station};
use crate::task::{Outbound, Plan, Step};

/// Gives a station a schema; clients are told before the plan ends.
pub(crate) fn attachment(
    account: &AccountName,
    station: &Station,
    schema: &Schema,
    version: &SchemaVersion,
    is_enforced: bool,
) -> Plan {
    let mut plan = Plan::default();
    plan.step(Step::PrepareSchema {
        name: schema.name.clone(),
        version: version.number,
    });
    let changed = Station {
        schema: Some(SchemaLink {
            name: schema.name.clone(),
            is_enforced,
        }),
        ..station.clone()
    };
    plan.step(Step::record(Command::StationChanged {
        account: account.clone(),
        station: Box::new(changed),
    }));
    plan.step(announce(station, Some((schema, version))));
    plan
}

/// Takes a station's schema away.
pub(crate) fn detachment(account: &AccountName, station: &Station) -> Plan {
    let mut plan = Plan::default();
    let changed = Station {
        schema: None,
        ..station.clone()
    };
    plan.step(Step::record(Command::StationChanged {
        account: account.clone(),
        station: Box::new(changed),
    }));
    plan.step(announce(station, None));
    plan
}

/// Tells the clients of a station which schema it has now.
pub(crate) fn announce(station: &Station, schema: Option<(&Schema, &SchemaVersion)>) -> Step {
    Step::Send(Box::new(Outbound {
        subject: format!("$memphis_schema_updates_{}", station.name.internal()),
        header: bytes::Bytes::new(),
        payload: reply::schema_changed(schema).into(),
    }))
}
