//! Registering consumers, making their groups, and removing both.

use menes_jetstream::AccountName;

use crate::command::Command;
use crate::group::{self, Group, GroupStatus, Member, Start, first_of_last};
use crate::lock::{Hold, LockKey, LockName};
use crate::name::{ConsumerName, GroupName, StationName, relaxed};
use crate::producer::ClientKind;
use crate::sdk::body::Body;
use crate::sdk::station::not_allowed_to_create;
use crate::sdk::{
    Opened, Refused, Registrant, Request, meant_connection, not_allowed_to_access, owner, reply,
};
use crate::state::{GroupEntry, StationEntry};
use crate::station::{self, Station};
use crate::task::{Context, Failure, Job, Next, Plan, Step, StepResult};
use crate::upkeep::{Standing, standing, station_lock};
use crate::user::display_name;

const NO_STATION: &str = "This station does not exist, a default station can not be created \
                          automatically, please upgrade your SDK version";
const PARTITIONED: &str = "to consume from this station please upgrade your SDK version";

/// Reads a request to register a consumer.
pub(super) fn open_creation(request: &Request<'_>) -> Result<Opened, Refused> {
    let body = Body::parse(request.payload)?;
    let registrant = Registrant::read(&body, &request.client)?;
    let (name, kind) = (body.text("name")?, body.text("consumer_type")?);
    let (group, station) = (body.text("consumers_group")?, body.text("station_name")?);
    let ack_time = body.number("max_ack_time_ms")?;
    let deliveries = body.number("max_msg_deliveries")?;
    let sequence = body.number("start_consume_from_sequence")?;
    let start = Start::from_options(sequence, body.number("last_messages")?)?;
    let name = ConsumerName::parse(&name)?;
    let group = GroupName::parse(if group.is_empty() {
        name.external()
    } else {
        &group
    })?;
    let kind = ClientKind::parse(&kind).ok_or_else(|| {
        let choice = "consumer type has to be one of the following application/connector";
        Refused(format!("{choice} and not {kind}"))
    })?;
    let station = StationName::parse(&station)?;
    if !registrant.caller.known {
        return Err(Refused("user does not exist".to_owned()));
    }
    let connection = registrant.connection.clone();
    let access = request.client.access;
    let job = Creation {
        name,
        kind,
        wanted: Group::new(group, ack_time, deliveries, start),
        java: body.text("connection_id")?.contains("::"),
        may_read: access.may_read(&station),
        may_create: access.may_write(&station),
        station,
        registrant,
        owner: owner(&request.client),
        ends: None,
        issued: false,
    };
    Ok(Opened::Job {
        job: Box::new(job),
        registers_from: Some(connection),
        account: None,
    })
}

/// Reads a request to remove a consumer.
pub(super) fn open_destruction(request: &Request<'_>) -> Result<Opened, Refused> {
    let body = Body::parse(request.payload)?;
    let connection = meant_connection(&body, &request.client)?;
    let (name, station) = (body.text("name")?, body.text("station_name")?);
    let missing = missing(&relaxed(&name), &relaxed(&station));
    match (ConsumerName::parse(&name), StationName::parse(&station)) {
        (Ok(_), Ok(station)) if !request.client.access.may_read(&station) => {
            let user = display_name(request.client.user);
            Err(Refused(not_allowed_to_access(user, &station)))
        }
        (Ok(name), Ok(station)) => Ok(Opened::job(Destruction {
            name,
            station,
            connection,
            owner: owner(&request.client),
            issued: false,
        })),
        _ => Err(Refused(missing)),
    }
}

fn missing(name: &str, station: &str) -> String {
    format!("Consumer {name} at station {station} does not exist")
}

struct Creation {
    name: ConsumerName,
    kind: ClientKind,
    station: StationName,
    wanted: Group,
    registrant: Registrant,
    /// Whose registrations may be added to; none for anybody's.
    owner: Option<String>,
    /// Sent by the Java SDK.
    java: bool,
    may_read: bool,
    may_create: bool,
    /// Where each partition ends, once that was asked.
    ends: Option<Vec<u64>>,
    /// The plan that ends with the member joining was issued.
    issued: bool,
}

impl Creation {
    fn plan(&mut self, cx: &Context<'_>) -> Result<Next, String> {
        let user = &self.registrant.caller.name;
        let legacy = self.registrant.version < 2;
        match standing(cx, &self.station) {
            Standing::Ready(entry) if self.issued => {
                let schema = cx.state.schema_of(cx.account, &entry.station);
                Ok(Next::Reply(reply::consumer(
                    &entry.station,
                    schema,
                    self.java,
                )))
            }
            Standing::Ready(_) if legacy => Err(PARTITIONED.to_owned()),
            Standing::Ready(_) if !self.may_read => Err(not_allowed_to_access(user, &self.station)),
            Standing::Ready(entry) if self.is_of_another(entry) => Err(format!(
                "consumer {} is registered by another user",
                self.name.external()
            )),
            Standing::Ready(entry) => Ok(Next::Run(self.joining(cx, entry))),
            Standing::Missing if legacy => Err(NO_STATION.to_owned()),
            Standing::Missing if !self.may_create => {
                Err(not_allowed_to_create(user, &self.station))
            }
            Standing::Missing | Standing::Unfinished(_) if !cx.exclusive => Ok(Next::Exclusive),
            Standing::Missing => {
                let station = Station::with_defaults(self.station.clone(), user, cx.now);
                Ok(Next::Run(station::creation(cx.account, &station)))
            }
            Standing::Unfinished(plan) => Ok(Next::Run(plan)),
        }
    }

    /// Whether it would take over a member of another user by naming that user's connection.
    fn is_of_another(&self, entry: &StationEntry) -> bool {
        let mut groups = entry.groups().map(|group| group.members());
        self.owner.as_ref().is_some_and(|user| {
            groups.any(|mut members| {
                members.any(|known| {
                    known.name == self.name
                        && known.connection == self.registrant.connection
                        && known.user != *user
                })
            })
        })
    }

    /// The next plan towards being a member of the group.
    fn joining(&mut self, cx: &Context<'_>, entry: &StationEntry) -> Plan {
        let (account, station) = (cx.account, &entry.station);
        let Some(known) = entry.group(&self.wanted.name) else {
            let Some(group) = self.placed(None) else {
                return ends(station);
            };
            self.issued = true;
            return group::creation(account, station, &group, self.member(cx));
        };
        if known.group.status != GroupStatus::Ready {
            return group::removal(account, station, &self.wanted.name, None);
        }
        if !is_active(cx, known) {
            let Some(group) = self.placed(Some(&known.group)) else {
                return ends(station);
            };
            self.issued = true;
            return group::renewal(account, station, &known.group, &group, self.member(cx));
        }
        self.issued = true;
        if self.wanted.same_limits(&known.group) {
            return group::join(account, station, &known.group, self.member(cx));
        }
        let group = Group {
            max_ack_time_ms: self.wanted.max_ack_time_ms,
            max_msg_deliveries: self.wanted.max_msg_deliveries,
            ..known.group.clone()
        };
        group::update(account, station, &known.group, &group, self.member(cx))
    }

    /// The wanted group with its first sequences; none while the ends of the partitions must be
    /// asked for. A known group that began the same way keeps its own.
    fn placed(&self, known: Option<&Group>) -> Option<Group> {
        let mut group = Group {
            first_partitions: known.map_or(0, |known| known.first_partitions),
            retry: known.and_then(|known| known.retry.clone()),
            ..self.wanted.clone()
        };
        if let Start::Last(count) = group.start {
            group.first_sequences = match (known, &self.ends) {
                (Some(known), _) if known.start == group.start => known.first_sequences.clone(),
                (_, Some(ends)) => ends.iter().map(|end| first_of_last(*end, count)).collect(),
                (_, None) => return None,
            };
        }
        Some(group)
    }

    fn member(&self, cx: &Context<'_>) -> Member {
        let registrant = &self.registrant;
        Member {
            name: self.name.clone(),
            connection: registrant.connection.clone(),
            kind: self.kind,
            app_id: registrant.app_id.clone(),
            sdk: registrant.sdk.clone(),
            user: registrant.caller.name.clone(),
            joined: cx.now,
            registrations: 0,
        }
    }
}

/// Asks where the partitions end.
fn ends(station: &Station) -> Plan {
    let mut plan = Plan::default();
    for partition in station.partition_numbers() {
        plan.step(Step::QueryStream(station.name.stream(partition)));
    }
    plan
}

fn is_active(cx: &Context<'_>, group: &GroupEntry) -> bool {
    group
        .members()
        .any(|member| cx.presence.is_open(cx.account, &member.connection))
}

impl Job for Creation {
    fn locks(&self, account: &AccountName, stations: Hold) -> Vec<(LockKey, Hold)> {
        let station = station_lock(account, &self.station, stations);
        let group = LockKey {
            account: account.clone(),
            name: LockName::Group(self.station.clone(), self.wanted.name.clone()),
        };
        vec![station, (group, Hold::Exclusive)]
    }

    fn starts_shared(&self) -> bool {
        true
    }

    fn next(&mut self, cx: &Context<'_>) -> Next {
        self.plan(cx)
            .unwrap_or_else(|text| Next::Reply(text.into_bytes()))
    }

    fn absorb(&mut self, results: &[StepResult]) {
        let ends: Option<Vec<u64>> = results
            .iter()
            .map(|result| match result {
                StepResult::Stream(state) => Some(state.last_seq),
                _ => None,
            })
            .collect();
        if ends.is_some() {
            self.ends = ends;
        }
    }

    fn failed(&self, failure: &Failure) -> Option<Vec<u8>> {
        Some(match failure {
            Failure::Engine(error) => error.to_string().into_bytes(),
            Failure::Record(_) => reply::failure_text(failure, &self.station).into_bytes(),
        })
    }
}

struct Destruction {
    name: ConsumerName,
    station: StationName,
    /// None for any.
    connection: Option<String>,
    /// Whose members may be removed; none for anybody's.
    owner: Option<String>,
    issued: bool,
}

impl Destruction {
    fn find<'a>(&self, entry: &'a StationEntry) -> Option<(&'a GroupEntry, &'a Member)> {
        let meant = |member: &&Member| {
            member.name == self.name
                && self
                    .connection
                    .as_ref()
                    .is_none_or(|id| member.connection == *id)
                && self.owner.as_ref().is_none_or(|user| member.user == *user)
        };
        let live = entry
            .groups()
            .filter(|group| group.group.status == GroupStatus::Ready);
        live.filter_map(|group| Some((group, group.members().find(meant)?)))
            .next()
    }
}

impl Job for Destruction {
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
        let entry = cx
            .state
            .station(cx.account, &self.station)
            .filter(|e| e.station.is_ready());
        let found = entry.and_then(|entry| Some((entry, self.find(entry)?)));
        let Some((entry, (group, member))) = found else {
            let text = missing(self.name.external(), self.station.external());
            return Next::Reply(text.into_bytes());
        };
        let others = group.members().any(|other| {
            let stays = !std::ptr::eq(other, member) || other.registrations > 1;
            stays && cx.presence.is_open(cx.account, &other.connection)
        });
        self.issued = true;
        let leave = Command::MemberLeft {
            account: cx.account.clone(),
            station: self.station.clone(),
            group: group.group.name.clone(),
            consumer: self.name.clone(),
            connection: member.connection.clone(),
            remove_group: !others,
        };
        if others {
            let mut plan = Plan::default();
            plan.step(Step::record(leave));
            return Next::Run(plan);
        }
        Next::Run(group::removal(
            cx.account,
            &entry.station,
            &group.group.name,
            Some(leave),
        ))
    }

    fn failed(&self, failure: &Failure) -> Option<Vec<u8>> {
        Some(reply::failure_text(failure, &self.station).into_bytes())
    }
}
