//! Looking at stations and changing living ones.

use menes_jetstream::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::guard::{IfMatch, etag};
use super::{Turn, course, done, ready, station_lock, station_of};
use crate::command::Command;
use crate::dead_letter;
use crate::group::Group;
use crate::lock::{Hold, LockName};
use crate::name::StationName;
use crate::schema::Schema;
use crate::sdk::body::Body;
use crate::sdk::{self, Opened, Refused, Request, reply};
use crate::state::StationEntry;
use crate::station::{self, MAX_PARTITIONS, Station, StationOptions, StationRetention};
use crate::task::{Context, Plan, Step, StepResult};
use crate::upkeep::{Standing, standing};

/// How long a station keeps messages unless asked otherwise, seconds: a week. What SDKs make keeps
/// them for as long as Memphis did.
const DEFAULT_AGE_SECS: i64 = 7 * 86_400;

pub(super) fn open(verb: &str, body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    match verb {
        "LIST" => list(body, request),
        "INFO" => info(body, request),
        "CREATE" => create(body, request),
        "UPDATE" => update(body, request),
        "PURGE" => purge(body, request),
        "DELETE" => delete(body, request),
        _ => Err(super::unknown()),
    }
}

/// A station as it is shown.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    station: &'a Station,
    etag: String,
    created_at: Timestamp,
    #[serde(flatten)]
    retention: ShownRetention,
    groups: Vec<ShownGroup<'a>>,
    producers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    figures: Option<Value>,
}

/// What it keeps, once more in words of their own.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum ShownRetention {
    MaxAgeMs(i64),
    MaxMessages(i64),
    MaxBytes(i64),
    UntilAcked(bool),
}

#[derive(Serialize)]
struct ShownGroup<'a> {
    group: &'a Group,
    members: usize,
}

impl<'a> Shown<'a> {
    fn of(entry: &'a StationEntry) -> Self {
        let station = &entry.station;
        let groups = entry.groups().map(|group| ShownGroup {
            group: &group.group,
            members: group.members().count(),
        });
        Self {
            station,
            etag: etag(station),
            created_at: station.created,
            retention: match station.retention {
                StationRetention::MessageAgeSec(seconds) => {
                    ShownRetention::MaxAgeMs(seconds.saturating_mul(1_000))
                }
                StationRetention::Messages(count) => ShownRetention::MaxMessages(count),
                StationRetention::Bytes(bytes) => ShownRetention::MaxBytes(bytes),
                StationRetention::AckBased => ShownRetention::UntilAcked(true),
            },
            groups: groups.collect(),
            producers: entry.producers().count(),
            figures: None,
        }
    }
}

fn shown(entry: &StationEntry) -> Value {
    json!(Shown::of(entry))
}

/// One station, with figures if asked.
fn info(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let name = station_of(body)?;
    super::may_see(request, &name)?;
    let figures = body.flag("figures")?;
    let mut asked = false;
    Ok(course(Vec::new(), move |cx, results| {
        let entry = ready(cx, &name)?;
        if !figures {
            return Ok(Turn::Done(shown(entry)));
        }
        if !std::mem::replace(&mut asked, true) {
            let mut plan = Plan::default();
            ask_figures(&entry.station, &mut plan);
            return Ok(Turn::Run(plan));
        }
        let mut shown = Shown::of(entry);
        shown.figures = Some(figures_of(&mut results.into_iter(), true));
        Ok(Turn::Done(json!(shown)))
    }))
}

/// Asks for what [`figures_of`] shows.
fn ask_figures(station: &Station, plan: &mut Plan) {
    for partition in station.partition_numbers() {
        plan.step(Step::QueryStream(station.name.stream(partition)));
    }
    plan.step(Step::List {
        stream: dead_letter::STREAM.to_owned(),
        filter: dead_letter::filter(&station.name, None),
        from: 1,
        limit: 1,
    });
}

/// How much a station holds: the next results, up to the one about dead letters.
fn figures_of(results: &mut impl Iterator<Item = StepResult>, with_each: bool) -> Value {
    let (mut messages, mut bytes, mut stored) = (0_u64, 0_u64, 0_u64);
    let mut each = Vec::new();
    let mut has_dead_letters = false;
    for result in results {
        match result {
            StepResult::Stream(state) => {
                messages = messages.saturating_add(state.messages);
                bytes = bytes.saturating_add(state.bytes);
                stored = stored.saturating_add(state.last_seq);
                each.push(json!({
                    "partition": each.len() + 1,
                    "messages": state.messages,
                    "bytes": state.bytes,
                    "first_sequence": state.first_seq,
                    "last_sequence": state.last_seq,
                    "last_time": (state.last_seq > 0).then_some(state.last_ts),
                }));
            }
            StepResult::Messages(found) => {
                has_dead_letters = !found.is_empty();
                break;
            }
            _ => {}
        }
    }
    let mut figures = json!({
        "messages": messages,
        "bytes": bytes,
        "stored": stored,
        "has_dead_letters": has_dead_letters,
    });
    if with_each {
        figures["partitions"] = each.into();
    }
    figures
}

/// Which stations a list shows, and how much of each.
struct Listing {
    /// Where the last page ended.
    after: String,
    limit: usize,
    /// In lower case; empty for all.
    search: String,
    figures: bool,
}

impl Listing {
    fn read(body: &Body) -> Result<Self, Refused> {
        let limit = usize::try_from(body.number("limit")?).unwrap_or(0);
        Ok(Self {
            after: body.text("after")?,
            limit: if limit == 0 { usize::MAX } else { limit },
            search: body.text("search")?.to_lowercase(),
            figures: body.flag("figures")?,
        })
    }

    /// The stations of this page among all that may be seen.
    fn choose(&self, mut all: Vec<Listed>) -> Page {
        if !self.search.is_empty() {
            all.retain(|one| one.key.to_lowercase().contains(&self.search));
        }
        all.sort_by(|a, b| a.key.cmp(&b.key));
        let total = all.len();
        let mut rest = all.into_iter().skip_while(|one| one.key <= self.after);
        let chosen: Vec<Listed> = rest.by_ref().take(self.limit).collect();
        let last = chosen.last().map(|one| one.key.clone());
        Page {
            total,
            next: rest.next().and(last),
            chosen,
        }
    }
}

/// A station of a list, or a stream that a NATS client made.
struct Listed {
    /// What the list is sorted by: a stream may have the name of a station.
    key: String,
    station: Option<StationName>,
}

impl Listed {
    fn station(name: &StationName) -> Self {
        Self {
            key: format!("{name}/0"),
            station: Some(name.clone()),
        }
    }

    fn stream(name: &str) -> Self {
        Self {
            key: format!("{name}/1"),
            station: None,
        }
    }

    /// None if it went while figures were read.
    fn shown<'a>(
        &'a self,
        cx: &Context<'a>,
        figures: &mut Option<impl Iterator<Item = StepResult>>,
    ) -> Option<ListedShown<'a>> {
        let Some(name) = &self.station else {
            return Some(ListedShown::Stream {
                name: self.key.trim_end_matches("/1"),
                is_native: false,
            });
        };
        let figures = figures.as_mut().map(|results| figures_of(results, false));
        let entry = cx.state.station(cx.account, name)?;
        let mut shown = Shown::of(entry);
        shown.figures = figures;
        Some(ListedShown::Station(Box::new(shown)))
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum ListedShown<'a> {
    Station(Box<Shown<'a>>),
    Stream { name: &'a str, is_native: bool },
}

#[derive(Serialize)]
struct ShownPage<'a> {
    stations: Vec<ListedShown<'a>>,
    total: usize,
    next: &'a Option<String>,
}

#[derive(Default)]
struct Page {
    total: usize,
    next: Option<String>,
    chosen: Vec<Listed>,
}

/// Stations, and streams that NATS clients made.
fn list(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let access = request.client.access.clone();
    let listing = Listing::read(body)?;
    let mut page = Page::default();
    let mut turn = 0;
    Ok(course(Vec::new(), move |cx, results| {
        turn += 1;
        if turn == 1 {
            let mut plan = Plan::default();
            plan.step(Step::ListStreams);
            return Ok(Turn::Run(plan));
        }
        let mut figures = None;
        if turn == 2 {
            let entries = cx.state.stations(cx.account).map(|entry| &entry.station);
            let own = entries.filter(|one| one.is_ready() && access.may_read(&one.name));
            let mut all: Vec<Listed> = own.map(|one| Listed::station(&one.name)).collect();
            for result in results {
                let StepResult::Names(streams) = result else {
                    continue;
                };
                let foreign = streams.iter().filter(|stream| {
                    !stream.starts_with("$memphis")
                        && cx.state.partition(cx.account, stream).is_none()
                });
                all.extend(foreign.map(|name| Listed::stream(name)));
            }
            page = listing.choose(all);
            if listing.figures {
                let mut plan = Plan::default();
                for name in page.chosen.iter().filter_map(|one| one.station.as_ref()) {
                    if let Ok(entry) = ready(cx, name) {
                        ask_figures(&entry.station, &mut plan);
                    }
                }
                if !plan.is_empty() {
                    return Ok(Turn::Run(plan));
                }
            }
        } else {
            figures = Some(results.into_iter());
        }
        let chosen = page.chosen.iter();
        let shown = ShownPage {
            stations: chosen
                .filter_map(|one| one.shown(cx, &mut figures))
                .collect(),
            total: page.total,
            next: &page.next,
        };
        let answer = serde_json::to_vec(&shown).map_err(|error| error.to_string())?;
        Ok(Turn::Written(answer))
    }))
}

/// Makes a station; one that exists is not what was asked for.
fn create(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let name = station_of(body)?;
    super::may_write(request, &name)?;
    let mut options = sdk::station::options(body)?;
    if !body.has("partitions_number") {
        options.partitions = 1;
    }
    if !body.has("retention_type") {
        options.retention_type = "message_age_sec".to_owned();
        options.retention_value = DEFAULT_AGE_SECS;
    }
    if !body.has("dls_configuration") {
        (options.poison, options.schemaverse) = (true, true);
    }
    let user = crate::user::display_name(request.client.user);
    let station = options.station(name.clone(), user, request.now)?;
    let schema = station.schema.as_ref().map(|link| link.name.clone());
    let mut is_begun = false;
    let mut locks = station_lock(&name, Hold::Exclusive);
    if let Some(schema) = &schema {
        locks.push((LockName::Schema(schema.clone()), Hold::Shared));
    }
    Ok(course(locks, move |cx, _| match standing(cx, &name) {
        Standing::Ready(entry) if is_begun => Ok(Turn::Done(shown(entry))),
        Standing::Ready(_) => Err(format!("station {name} exists already")),
        Standing::Unfinished(plan) => Ok(Turn::Run(plan)),
        Standing::Missing if is_begun => Err(format!("station {name} was removed meanwhile")),
        Standing::Missing => {
            if let Some(target) = &station.dead_letter_station {
                ready(cx, target)?;
            }
            let prepare = match &schema {
                Some(schema) => {
                    let known = cx.state.schema(cx.account, schema);
                    let version = known
                        .and_then(Schema::active)
                        .ok_or_else(|| format!("Schema {schema} does not exist"))?;
                    Some((schema.clone(), version.number))
                }
                None => None,
            };
            is_begun = true;
            Ok(Turn::Run(station::with_schema(
                cx.account, &station, prepare,
            )))
        }
    }))
}

/// Removes messages: all, or those of one partition, and dead letters if asked.
fn purge(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let name = station_of(body)?;
    super::may_write(request, &name)?;
    let only = match body.number("partition")? {
        0 => None,
        number => Some(
            u32::try_from(number).map_err(|_| Refused("partition is out of range".to_owned()))?,
        ),
    };
    let dead_letters = body.flag("dead_letters")?;
    let messages = !body.has("messages") || body.flag("messages")?;
    let mut asked = false;
    let lock = station_lock(&name, Hold::Shared);
    Ok(course(lock, move |cx, _| {
        if std::mem::replace(&mut asked, true) {
            return Ok(done());
        }
        let entry = ready(cx, &name)?;
        let mut plan = Plan::default();
        let meant = |partition: &u32| only.is_none_or(|only| only == *partition);
        if !entry
            .station
            .partition_numbers()
            .any(|partition| meant(&partition))
        {
            return Err("partition is out of range".to_owned());
        }
        if messages {
            for partition in entry.station.partition_numbers().filter(meant) {
                plan.step(Step::Purge {
                    stream: name.stream(partition),
                    filter: None,
                });
            }
        }
        if dead_letters {
            plan.step(dead_letter::purge(dead_letter::filter(&name, None)));
        }
        if plan.is_empty() {
            return Err("neither messages nor dead_letters are to go".to_owned());
        }
        Ok(Turn::Run(plan))
    }))
}

fn delete(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let name = station_of(body)?;
    super::may_write(request, &name)?;
    let if_match = IfMatch::read(body)?;
    let mut asked = false;
    let lock = station_lock(&name, Hold::Exclusive);
    Ok(course(lock, move |cx, _| {
        if std::mem::replace(&mut asked, true) {
            return Ok(done());
        }
        let Some(entry) = cx.state.station(cx.account, &name) else {
            return Err(format!("station {name} does not exist"));
        };
        if_match.check(&format!("station {name}"), &entry.station)?;
        let mut plan = station::removal(cx.account, &entry.station);
        plan.step(reply::clients_update(&name, "remove_station", None));
        Ok(Turn::Run(plan))
    }))
}

/// What is to change; the rest stays.
struct Change {
    retention: Option<StationOptions>,
    replicas: Option<i64>,
    partitions: Option<i64>,
    poison: Option<bool>,
    schemaverse: Option<bool>,
    dead_letter_station: Option<String>,
}

impl Change {
    fn read(body: &Body) -> Result<Self, Refused> {
        let retention = if body.has("retention_type") || body.has("retention_value") {
            Some(StationOptions {
                retention_type: body.text("retention_type")?,
                retention_value: body.number("retention_value")?,
                ..StationOptions::default()
            })
        } else {
            None
        };
        let number = |key| -> Result<Option<i64>, Refused> {
            Ok(if body.has(key) {
                Some(body.number(key)?)
            } else {
                None
            })
        };
        let switches = body.object("dls_configuration")?;
        let switch = |key| -> Result<Option<bool>, Refused> {
            Ok(if switches.has(key) {
                Some(switches.flag(key)?)
            } else {
                None
            })
        };
        Ok(Self {
            retention,
            replicas: number("replicas")?,
            partitions: number("partitions_number")?,
            poison: switch("poison")?,
            schemaverse: switch("schemaverse")?,
            dead_letter_station: if body.has("dls_station") {
                Some(body.text("dls_station")?)
            } else {
                None
            },
        })
    }

    fn of(&self, station: &Station) -> Result<Station, String> {
        let mut changed = station.clone();
        if let Some(wanted) = &self.retention {
            changed.retention = wanted.retention().map_err(|error| error.to_string())?;
        }
        if let Some(replicas) = self.replicas {
            changed.replicas = station::replicas(replicas);
        }
        if let Some(partitions) = self.partitions {
            changed.partitions = u32::try_from(partitions)
                .ok()
                .filter(|count| (station.partitions..=MAX_PARTITIONS).contains(count))
                .ok_or_else(|| {
                    let now = station.partitions;
                    format!("partitions can only be added: {now} to {MAX_PARTITIONS}")
                })?;
        }
        if let Some(poison) = self.poison {
            changed.dead_letters.poison = poison;
        }
        if let Some(schemaverse) = self.schemaverse {
            changed.dead_letters.schemaverse = schemaverse;
        }
        match self.dead_letter_station.as_deref() {
            None => {}
            Some("") => changed.dead_letter_station = None,
            Some(name) => {
                let name = StationName::parse(name).map_err(|error| error.to_string())?;
                changed.dead_letter_station = Some(name);
            }
        }
        Ok(changed)
    }
}

fn update(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let name = station_of(body)?;
    super::may_write(request, &name)?;
    let change = Change::read(body)?;
    let if_match = IfMatch::read(body)?;
    let mut asked = false;
    let lock = station_lock(&name, Hold::Exclusive);
    Ok(course(lock, move |cx, _| {
        let entry = ready(cx, &name)?;
        if std::mem::replace(&mut asked, true) {
            return Ok(Turn::Done(shown(entry)));
        }
        if_match.check(&format!("station {name}"), &entry.station)?;
        let changed = change.of(&entry.station)?;
        if let Some(target) = &changed.dead_letter_station {
            ready(cx, target)?;
        }
        if changed == entry.station {
            return Ok(Turn::Done(shown(entry)));
        }
        let mut plan = streams(&entry.station, &changed);
        grow(cx.account, entry, &changed, &mut plan);
        plan.step(Step::record(Command::StationChanged {
            account: cx.account.clone(),
            station: Box::new(changed.clone()),
        }));
        let schemaverse = changed.dead_letters.schemaverse;
        if schemaverse != entry.station.dead_letters.schemaverse {
            let what = "schemaverse_to_dls";
            plan.step(reply::clients_update(&name, what, Some(schemaverse)));
        }
        Ok(Turn::Run(plan))
    }))
}

/// Changes the streams that are there and makes those that are new.
fn streams(station: &Station, changed: &Station) -> Plan {
    let mut plan = Plan::default();
    for partition in changed.partition_numbers() {
        let config = changed.stream_config(partition);
        if partition > station.partitions {
            let undo = Step::DeleteStream {
                name: config.name.clone(),
                only_if_unused: true,
            };
            plan.undoable(
                Step::CreateStream(Box::new(config)),
                Some(undo.clone()),
                Some(undo),
            );
            continue;
        }
        let before = station.stream_config(partition);
        if before != config {
            let undo = Step::UpdateStream(Box::new(before));
            plan.undoable(Step::UpdateStream(Box::new(config)), Some(undo), None);
        }
    }
    plan
}

/// Gives every group its durables on new partitions. They begin at the first message there,
/// wherever the group began on the others.
fn grow(
    account: &menes_jetstream::AccountName,
    entry: &StationEntry,
    changed: &Station,
    plan: &mut Plan,
) {
    let before = entry.station.partitions;
    if changed.partitions == before {
        return;
    }
    for known in entry.groups() {
        let group = Group {
            first_partitions: match known.group.first_partitions {
                0 => before,
                count => count,
            },
            ..known.group.clone()
        };
        for partition in before + 1..=changed.partitions {
            plan.step(Step::CreateConsumer {
                stream: changed.name.stream(partition),
                config: Box::new(group.consumer_config(changed, partition)),
            });
        }
        plan.step(Step::record(Command::GroupChanged {
            account: account.clone(),
            station: changed.name.clone(),
            group: Box::new(group),
        }));
    }
}
