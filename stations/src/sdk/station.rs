//! Making and removing stations.

use menes_jetstream::AccountName;

use crate::lock::{Hold, LockKey};
use crate::name::{SchemaName, StationName};
use crate::sdk::body::{Body, BodyError};
use crate::sdk::{Caller, Opened, Refused, Request, reply};
use crate::station::{self, Station, StationError, StationOptions};
use crate::task::{Context, Failure, Job, Next};
use crate::upkeep::{Standing, standing, station_lock};

/// The doubled space is what clients have always been told.
const NO_STATION: &str = "Station  does not exist";

/// Reads a request for a station.
pub(super) fn open_creation(request: &Request<'_>) -> Result<Opened, Refused> {
    let body = Body::parse(request.payload)?;
    let options = options(&body)?;
    let caller = Caller::read(&body, &request.client)?;
    let name = StationName::parse(&body.text("name")?)?;
    let station = options.station(name.clone(), &caller.name, request.now);
    let access = request.client.access;
    let dead_letters = station
        .as_ref()
        .ok()
        .and_then(|s| s.dead_letter_station.as_ref());
    Ok(Opened::job(Creation {
        permitted: access.may_write(&name),
        dead_letters_permitted: dead_letters.is_none_or(|name| access.may_write(name)),
        schema: SchemaName::parse(&options.schema_name).ok(),
        name,
        caller,
        station,
    }))
}

/// Reads a request to remove a station.
pub(super) fn open_destruction(request: &Request<'_>) -> Result<Opened, Refused> {
    let body = Body::parse(request.payload)?;
    let caller = Caller::read(&body, &request.client)?;
    let station = StationName::parse(&body.text("station_name")?)
        .map_err(|_| Refused(NO_STATION.to_owned()))?;
    let permitted = request.client.access.may_write(&station);
    Ok(Opened::job(Destruction {
        station,
        username: caller.name,
        permitted,
        issued: false,
    }))
}

/// What a user who may not make a station is told.
pub(super) fn not_allowed_to_create(username: &str, station: &StationName) -> String {
    format!("user {username} is not allowed to create station {station}")
}

/// What a body asks for.
pub(crate) fn options(body: &Body) -> Result<StationOptions, BodyError> {
    let dead_letters = body.object("dls_configuration")?;
    Ok(StationOptions {
        retention_type: body.text("retention_type")?,
        retention_value: body.number("retention_value")?,
        storage_type: body.text("storage_type")?,
        replicas: body.number("replicas")?,
        idempotency_window_ms: body.number("idempotency_window_in_ms")?,
        schema_name: body.text("schema_name")?,
        poison: dead_letters.flag("poison")?,
        schemaverse: dead_letters.flag("schemaverse")?,
        tiered_storage: body.flag("tiered_storage_enabled")?,
        partitions: body.number("partitions_number")?,
        dead_letter_station: body.text("dls_station")?,
    })
}

struct Creation {
    name: StationName,
    caller: Caller,
    permitted: bool,
    /// The dead-letter station may be made if it is missing.
    dead_letters_permitted: bool,
    schema: Option<SchemaName>,
    station: Result<Station, StationError>,
}

impl Creation {
    /// The dead-letter station, unless the station is its own.
    fn dead_letter_station(&self) -> Option<&StationName> {
        let name = self.station.as_ref().ok()?.dead_letter_station.as_ref()?;
        (*name != self.name).then_some(name)
    }

    /// The next step towards a station that does not exist.
    fn make(&self, cx: &Context<'_>) -> Result<Next, String> {
        if !self.caller.known {
            return Err(format!("User {} does not exist", self.caller.name));
        }
        if !self.permitted {
            return Err(not_allowed_to_create(&self.caller.name, &self.name));
        }
        if let Err(error @ (StationError::OldSdk | StationError::Partitions(..))) = &self.station {
            return Err(error.to_string());
        }
        let mut prepare = None;
        if let Some(name) = &self.schema {
            let schema = cx.state.schema(cx.account, name);
            let Some(version) = schema.and_then(|schema| schema.active()) else {
                return Err(StationError::Schema(name.to_string()).to_string());
            };
            prepare = Some((name.clone(), version.number));
        }
        let station = self.station.as_ref().map_err(ToString::to_string)?;
        if !cx.exclusive {
            return Ok(Next::Exclusive);
        }
        if let Some(name) = self.dead_letter_station() {
            match standing(cx, name) {
                Standing::Ready(_) => {}
                Standing::Unfinished(plan) => return Ok(Next::Run(plan)),
                Standing::Missing if !self.dead_letters_permitted => {
                    return Err(not_allowed_to_create(&self.caller.name, name));
                }
                Standing::Missing => {
                    let other = Station::with_defaults(name.clone(), &self.caller.name, cx.now);
                    return Ok(Next::Run(station::creation(cx.account, &other)));
                }
            }
        }
        let plan = station::with_schema(cx.account, station, prepare);
        Ok(Next::Run(plan))
    }
}

impl Job for Creation {
    fn locks(&self, account: &AccountName, stations: Hold) -> Vec<(LockKey, Hold)> {
        let names = std::iter::once(&self.name).chain(self.dead_letter_station());
        names
            .map(|name| station_lock(account, name, stations))
            .collect()
    }

    fn starts_shared(&self) -> bool {
        true
    }

    fn next(&mut self, cx: &Context<'_>) -> Next {
        match standing(cx, &self.name) {
            // Whatever the options: a station that exists is what was asked for.
            Standing::Ready(_) => Next::Reply(Vec::new()),
            Standing::Unfinished(_) if !cx.exclusive => Next::Exclusive,
            Standing::Unfinished(plan) => Next::Run(plan),
            Standing::Missing => self
                .make(cx)
                .unwrap_or_else(|text| Next::Reply(text.into_bytes())),
        }
    }

    fn failed(&self, failure: &Failure) -> Option<Vec<u8>> {
        Some(reply::failure_text(failure, &self.name).into_bytes())
    }
}

struct Destruction {
    station: StationName,
    username: String,
    permitted: bool,
    issued: bool,
}

impl Job for Destruction {
    fn locks(&self, account: &AccountName, stations: Hold) -> Vec<(LockKey, Hold)> {
        vec![station_lock(account, &self.station, stations)]
    }

    fn starts_shared(&self) -> bool {
        false
    }

    fn next(&mut self, cx: &Context<'_>) -> Next {
        match cx.state.station(cx.account, &self.station) {
            None if self.issued => Next::Reply(Vec::new()),
            None => Next::Reply(NO_STATION.as_bytes().to_vec()),
            Some(_) if !self.permitted => {
                let text = format!(
                    "user {} is not allowed to remove station {}",
                    self.username, self.station
                );
                Next::Reply(text.into_bytes())
            }
            Some(entry) => {
                self.issued = true;
                Next::Run(station::removal(cx.account, &entry.station))
            }
        }
    }

    fn failed(&self, failure: &Failure) -> Option<Vec<u8>> {
        Some(reply::failure_text(failure, &self.station).into_bytes())
    }
}
