//! Making schemas, and giving them to stations.

use menes_jetstream::AccountName;

use crate::command::{Command, Outcome};
use crate::lock::{Hold, LockKey};
use crate::name::{SchemaName, StationName, relaxed};
use crate::schema::{
    self, CheckedSchema, MAX_CONTENT, MAX_VERSIONS, Room, SchemaKind, SchemaVersion,
};
use crate::sdk::body::Body;
use crate::sdk::{Caller, Opened, Refused, Request, reply};
use crate::task::{Context, Failure, Job, Next, Plan, SchemaSource, Step, StepResult};
use crate::upkeep::{Standing, schema_lock, standing, station_lock};
use crate::user::Role;

/// Reads a request for a schema, or for a version of one.
pub(super) fn open_creation(request: &Request<'_>) -> Result<Opened, Refused> {
    let body = Body::parse(request.payload)?;
    let (name, kind) = (body.text("name")?, body.text("type")?);
    let content = body.text("schema_content")?;
    let name = SchemaName::parse(&name)?;
    let kind = SchemaKind::parse(&kind).ok_or_else(|| Refused("unsupported schema type".into()))?;
    if content.trim().is_empty() {
        return Err(Refused("your schema content is invalid".to_owned()));
    }
    if content.len() > MAX_CONTENT {
        let text = format!("schema content can not exceed {MAX_CONTENT} bytes");
        return Err(Refused(text));
    }
    let caller = Caller::of(&body, &request.client, "created_by_username")?;
    Ok(Opened::job(Creation(NewVersion::new(
        name,
        kind,
        content,
        String::new(),
        caller.name,
        request.client.role,
    ))))
}

/// Reads a request to give a station a schema.
pub(super) fn open_attachment(request: &Request<'_>) -> Result<Opened, Refused> {
    let body = Body::parse(request.payload)?;
    let (name, station) = (body.text("name")?, body.text("station_name")?);
    let missing = |station: &str| Refused(format!("memphis: Station {station} does not exist"));
    let parsed = StationName::parse(&station).map_err(|_| missing(&relaxed(&station)))?;
    let schema = SchemaName::parse(&name)
        .map_err(|_| Refused(format!("Schema {} does not exist", relaxed(&name))))?;
    let caller = Caller::of(&body, &request.client, "username")?;
    Ok(Opened::job(Attachment {
        permitted: request.client.access.may_write(&parsed),
        station: parsed,
        schema,
        user: caller.name,
        issued: false,
    }))
}

/// Reads a request to take a station's schema away.
pub(super) fn open_detachment(request: &Request<'_>) -> Result<Opened, Refused> {
    let body = Body::parse(request.payload)?;
    let station = body.text("station_name")?;
    let parsed = StationName::parse(&station)
        .map_err(|_| Refused(format!("station {} does not exist", relaxed(&station))))?;
    let caller = Caller::of(&body, &request.client, "username")?;
    Ok(Opened::job(Detachment {
        permitted: request.client.access.may_write(&parsed),
        station: parsed,
        user: caller.name,
        issued: false,
    }))
}

/// Adds a version to a schema, or makes the schema: the part that every face shares.
pub(crate) struct NewVersion {
    pub(crate) name: SchemaName,
    kind: SchemaKind,
    content: String,
    message: String,
    user: String,
    /// Make it the active one at once.
    pub(crate) activate: bool,
    /// Refuse what consumers or producers of the active version could not use.
    pub(crate) compatible: bool,
    /// What the account may have of definitions.
    room: Room,
    checked: Option<(u32, CheckedSchema)>,
    /// Number of the version, once it was asked to be added.
    pub(crate) added: Option<u32>,
}

impl NewVersion {
    pub(crate) fn new(
        name: SchemaName,
        kind: SchemaKind,
        content: String,
        message: String,
        user: String,
        role: Role,
    ) -> Self {
        Self {
            name,
            kind,
            content,
            message,
            user,
            activate: false,
            compatible: false,
            room: if role == Role::Application {
                Room::APPLICATION
            } else {
                Room::MANAGEMENT
            },
            checked: None,
            added: None,
        }
    }

    /// The next plan; none when the version is there.
    ///
    /// # Errors
    /// The text for whoever asked.
    pub(crate) fn plan(&mut self, cx: &Context<'_>) -> Result<Option<Plan>, String> {
        if self.added.is_some() {
            return Ok(None);
        }
        let known = cx.state.schema(cx.account, &self.name);
        let mut number = 1;
        if let Some(known) = known {
            if known.kind != self.kind {
                let kind = known.kind.word();
                return Err(format!("{} already exist with type - {kind}", self.name));
            }
            if known
                .latest()
                .is_some_and(|latest| latest.content == self.content)
            {
                return Err(format!(
                    "{} already exists in the db with the same schema content",
                    self.name
                ));
            }
            if known.versions().count() >= MAX_VERSIONS {
                return Err(format!("{} has too many versions", self.name));
            }
            number = known.last_number() + 1;
        }
        let (mut schemas, mut bytes) = (usize::from(known.is_none()), self.content.len());
        for schema in cx.state.schemas(cx.account) {
            schemas += 1;
            bytes = bytes.saturating_add(schema.bytes());
        }
        if schemas > self.room.schemas || bytes > self.room.bytes {
            let Room { schemas, bytes } = self.room;
            return Err(format!(
                "there is no room for {}: {schemas} schemas and {bytes} bytes of definitions are the most",
                self.name
            ));
        }
        let mut plan = Plan::default();
        let Some((_, checked)) = self.checked.take().filter(|(of, _)| *of == number) else {
            let active = known.and_then(schema::Schema::active);
            plan.step(Step::CheckSchema(Box::new(SchemaSource {
                name: self.name.clone(),
                version: number,
                kind: self.kind,
                content: self.content.clone(),
                message: self.message.clone(),
                follows: active
                    .filter(|_| self.compatible)
                    .map(|active| active.content.clone()),
            })));
            self.checked = Some((number, CheckedSchema::default()));
            return Ok(Some(plan));
        };
        self.added = Some(number);
        plan.step(Step::record(Command::SchemaVersionAdded {
            account: cx.account.clone(),
            schema: self.name.clone(),
            kind: self.kind,
            version: Box::new(SchemaVersion {
                number,
                content: self.content.clone(),
                message: checked.message,
                descriptor: checked.descriptor,
                created_by: self.user.clone(),
                created: cx.now,
            }),
            activate: self.activate,
        }));
        Ok(Some(plan))
    }

    pub(crate) fn absorb(&mut self, results: &[StepResult]) {
        if let [StepResult::Checked(checked)] = results
            && let Some((_, place)) = &mut self.checked
        {
            *place = CheckedSchema::clone(checked);
        }
    }

    pub(crate) fn failed(&self, failure: &Failure) -> String {
        match failure {
            Failure::Engine(error) => error.description.clone(),
            Failure::Record(Outcome::SchemaChanged) => {
                format!("schema {} is being changed, try again", self.name)
            }
            Failure::Record(_) => format!("schema {} could not be stored", self.name),
        }
    }
}

struct Creation(NewVersion);

impl Job for Creation {
    fn locks(&self, account: &AccountName, _stations: Hold) -> Vec<(LockKey, Hold)> {
        vec![schema_lock(account, &self.0.name, Hold::Exclusive)]
    }

    fn starts_shared(&self) -> bool {
        true
    }

    fn next(&mut self, cx: &Context<'_>) -> Next {
        match self.0.plan(cx) {
            Ok(Some(plan)) => Next::Run(plan),
            Ok(None) => Next::Reply(reply::error("")),
            Err(text) => Next::Reply(reply::error(&text)),
        }
    }

    fn absorb(&mut self, results: &[StepResult]) {
        self.0.absorb(results);
    }

    fn failed(&self, failure: &Failure) -> Option<Vec<u8>> {
        Some(reply::error(&self.0.failed(failure)))
    }
}

struct Attachment {
    station: StationName,
    schema: SchemaName,
    user: String,
    permitted: bool,
    issued: bool,
}

impl Job for Attachment {
    fn locks(&self, account: &AccountName, _stations: Hold) -> Vec<(LockKey, Hold)> {
        vec![
            station_lock(account, &self.station, Hold::Exclusive),
            schema_lock(account, &self.schema, Hold::Shared),
        ]
    }

    fn starts_shared(&self) -> bool {
        false
    }

    fn next(&mut self, cx: &Context<'_>) -> Next {
        if self.issued {
            return Next::Reply(Vec::new());
        }
        let text = match (
            standing(cx, &self.station),
            cx.state.schema(cx.account, &self.schema),
        ) {
            (Standing::Unfinished(plan), _) => return Next::Run(plan),
            (Standing::Missing, _) => {
                format!("memphis: Station {} does not exist", self.station)
            }
            (Standing::Ready(_), _) if !self.permitted => format!(
                "user {} is not allowed to access station {}",
                self.user, self.station
            ),
            (Standing::Ready(_), None) => format!("Schema {} does not exist", self.schema),
            (Standing::Ready(entry), Some(schema)) => {
                self.issued = true;
                let Some(version) = schema.active() else {
                    return Next::Reply(b"the schema has no active version".to_vec());
                };
                // One that was attached before keeps its word on who checks.
                let link = entry.station.schema.as_ref();
                let is_enforced = link.is_none_or(|link| link.is_enforced);
                return Next::Run(schema::attachment(
                    cx.account,
                    &entry.station,
                    schema,
                    version,
                    is_enforced,
                ));
            }
        };
        Next::Reply(text.into_bytes())
    }

    fn failed(&self, failure: &Failure) -> Option<Vec<u8>> {
        Some(reply::failure_text(failure, &self.station).into_bytes())
    }
}

struct Detachment {
    station: StationName,
    user: String,
    permitted: bool,
    issued: bool,
}

impl Job for Detachment {
    fn locks(&self, account: &AccountName, stations: Hold) -> Vec<(LockKey, Hold)> {
        vec![station_lock(account, &self.station, stations)]
    }

    fn starts_shared(&self) -> bool {
        false
    }

    fn next(&mut self, cx: &Context<'_>) -> Next {
        if self.issued {
            return Next::Reply(Vec::new());
        }
        match standing(cx, &self.station) {
            Standing::Unfinished(plan) => Next::Run(plan),
            Standing::Missing => {
                Next::Reply(format!("station {} does not exist", self.station).into_bytes())
            }
            Standing::Ready(_) if !self.permitted => {
                let text = format!(
                    "user {} is not allowed to access station {}",
                    self.user, self.station
                );
                Next::Reply(text.into_bytes())
            }
            Standing::Ready(entry) => {
                self.issued = true;
                Next::Run(schema::detachment(cx.account, &entry.station))
            }
        }
    }

    fn failed(&self, failure: &Failure) -> Option<Vec<u8>> {
        Some(reply::failure_text(failure, &self.station).into_bytes())
    }
}
