//! Registering and removing producers.

use menes_jetstream::AccountName;

use crate::command::Command;
use crate::lock::{Hold, LockKey};
use crate::name::{ProducerName, StationName};
use crate::producer::{ClientKind, Producer};
use crate::sdk::body::Body;
use crate::sdk::station::not_allowed_to_create;
use crate::sdk::{
    Opened, Refused, Registrant, Request, meant_connection, not_allowed_to_access, owner, reply,
};
use crate::state::StationEntry;
use crate::station::{self, Station};
use crate::task::{Context, Failure, Job, Next, Plan, Step};
use crate::upkeep::{Standing, standing, station_lock};
use crate::user::display_name;

const BAD_KIND: &str = "producer type has to be one of the following application/connector";
const NO_STATION: &str = "this station does not exist, a default station can not be created \
                          automatically, please upgrade your SDK version";
const PARTITIONED: &str = "to produce to this station please upgrade your SDK version";

/// Reads a request to register a producer.
pub(super) fn open_creation(request: &Request<'_>) -> Result<Opened, Refused> {
    let body = Body::parse(request.payload)?;
    let registrant = Registrant::read(&body, &request.client)?;
    let (name, kind) = (body.text("name")?, body.text("producer_type")?);
    let station = StationName::parse(&body.text("station_name")?)?;
    let name = ProducerName::parse(&name)?;
    let kind = ClientKind::parse(&kind).ok_or_else(|| Refused(BAD_KIND.to_owned()))?;
    if !registrant.caller.known {
        return Err(Refused(format!(
            "User {} does not exist",
            registrant.caller.name
        )));
    }
    let connection = registrant.connection.clone();
    let permitted = request.client.access.may_write(&station);
    let job = Creation {
        name,
        kind,
        station,
        registrant,
        permitted,
        owner: owner(&request.client),
        recorded: false,
    };
    Ok(Opened::Job {
        job: Box::new(job),
        registers_from: Some(connection),
        account: None,
    })
}

/// Reads a request to remove a producer. One that cannot exist is as good as removed.
pub(super) fn open_destruction(request: &Request<'_>) -> Result<Opened, Refused> {
    let body = Body::parse(request.payload)?;
    let connection = meant_connection(&body, &request.client)?;
    let station = StationName::parse(&body.text("station_name")?);
    let name = ProducerName::parse(&body.text("name")?);
    Ok(match (station, name) {
        (Ok(station), Ok(_)) if !request.client.access.may_write(&station) => {
            let user = display_name(request.client.user);
            return Err(Refused(not_allowed_to_access(user, &station)));
        }
        (Ok(station), Ok(name)) => Opened::job(Destruction {
            name,
            station,
            connection,
            owner: owner(&request.client),
        }),
        _ => Opened::Reply(Vec::new()),
    })
}

struct Creation {
    name: ProducerName,
    kind: ClientKind,
    station: StationName,
    registrant: Registrant,
    permitted: bool,
    /// Whose registrations may be added to; none for anybody's.
    owner: Option<String>,
    recorded: bool,
}

impl Creation {
    fn plan(&mut self, cx: &Context<'_>) -> Result<Next, String> {
        let user = &self.registrant.caller.name;
        let legacy = self.registrant.version < 2;
        match standing(cx, &self.station) {
            Standing::Ready(entry) if self.recorded => {
                let schema = cx.state.schema_of(cx.account, &entry.station);
                Ok(Next::Reply(reply::producer(&entry.station, schema)))
            }
            Standing::Ready(_) if legacy => Err(PARTITIONED.to_owned()),
            Standing::Ready(_) if !self.permitted => {
                Err(not_allowed_to_access(user, &self.station))
            }
            Standing::Ready(entry) if self.is_of_another(entry) => Err(format!(
                "producer {} is registered by another user",
                self.name.external()
            )),
            Standing::Ready(_) => Ok(Next::Run(self.registration(cx))),
            Standing::Missing if legacy => Err(NO_STATION.to_owned()),
            Standing::Missing if !self.permitted => Err(not_allowed_to_create(user, &self.station)),
            Standing::Missing | Standing::Unfinished(_) if !cx.exclusive => Ok(Next::Exclusive),
            Standing::Missing => {
                let station = Station::with_defaults(self.station.clone(), user, cx.now);
                Ok(Next::Run(station::creation(cx.account, &station)))
            }
            Standing::Unfinished(plan) => Ok(Next::Run(plan)),
        }
    }

    /// Whether it would take over a producer of another user by naming that user's connection.
    fn is_of_another(&self, entry: &StationEntry) -> bool {
        self.owner.as_ref().is_some_and(|user| {
            entry.producers().any(|known| {
                known.name == self.name
                    && known.connection == self.registrant.connection
                    && known.user != *user
            })
        })
    }

    fn registration(&mut self, cx: &Context<'_>) -> Plan {
        self.recorded = true;
        let registrant = &self.registrant;
        let producer = Producer {
            name: self.name.clone(),
            connection: registrant.connection.clone(),
            kind: self.kind,
            app_id: registrant.app_id.clone(),
            sdk: registrant.sdk.clone(),
            user: registrant.caller.name.clone(),
            registered: cx.now,
            registrations: 0,
        };
        let mut plan = Plan::default();
        plan.step(Step::record(Command::ProducerRegistered {
            account: cx.account.clone(),
            station: self.station.clone(),
            producer: Box::new(producer),
        }));
        plan
    }
}

impl Job for Creation {
    fn locks(&self, account: &AccountName, stations: Hold) -> Vec<(LockKey, Hold)> {
        vec![station_lock(account, &self.station, stations)]
    }

    fn starts_shared(&self) -> bool {
        true
    }

    fn next(&mut self, cx: &Context<'_>) -> Next {
        self.plan(cx)
            .unwrap_or_else(|text| Next::Reply(reply::producer_error(&text)))
    }

    fn failed(&self, failure: &Failure) -> Option<Vec<u8>> {
        Some(reply::producer_error(&reply::failure_text(
            failure,
            &self.station,
        )))
    }
}

struct Destruction {
    name: ProducerName,
    station: StationName,
    /// None for all of them.
    connection: Option<String>,
    /// Whose registrations may be removed; none for anybody's.
    owner: Option<String>,
}

impl Job for Destruction {
    fn locks(&self, account: &AccountName, stations: Hold) -> Vec<(LockKey, Hold)> {
        vec![station_lock(account, &self.station, stations)]
    }

    fn starts_shared(&self) -> bool {
        true
    }

    fn next(&mut self, cx: &Context<'_>) -> Next {
        let meant = |producer: &Producer| {
            producer.name == self.name
                && self
                    .connection
                    .as_ref()
                    .is_none_or(|id| producer.connection == *id)
                && self
                    .owner
                    .as_ref()
                    .is_none_or(|user| producer.user == *user)
        };
        let entry = cx.state.station(cx.account, &self.station);
        let all = entry.into_iter().flat_map(StationEntry::producers);
        let mut found = all.filter(|producer| meant(producer)).peekable();
        if found.peek().is_none() {
            return Next::Reply(Vec::new());
        }
        let connections: Vec<Option<String>> = match self.owner {
            // One by one: those of others stay.
            Some(_) => found.map(|known| Some(known.connection.clone())).collect(),
            None => vec![self.connection.clone()],
        };
        let mut plan = Plan::default();
        for connection in connections {
            plan.step(Step::record(Command::ProducerRemoved {
                account: cx.account.clone(),
                station: self.station.clone(),
                producer: self.name.clone(),
                connection,
            }));
        }
        Next::Run(plan)
    }

    fn failed(&self, failure: &Failure) -> Option<Vec<u8>> {
        Some(reply::failure_text(failure, &self.station).into_bytes())
    }
}
