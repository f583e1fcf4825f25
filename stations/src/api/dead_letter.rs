//! Looking at dead letters and doing something about them.

use bytes::Bytes;
use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use super::{Turn, course, done, group_of, messages, ready, station_lock, station_of};
use crate::dead_letter::{self, DeadLetter, Kind, STREAM, fields};
use crate::lock::Hold;
use crate::name::{GroupName, StationName};
use crate::sdk::body::Body;
use crate::sdk::{Opened, Refused, Request};
use crate::task::{Context, Message, Plan, Step};

/// Most dead letters looked at for one request.
const MAX_SCAN: usize = 1_000;
/// Most dead letters in one answer.
const MAX_LISTED: usize = 256;
/// Most ids in one request.
const MAX_IDS: usize = 1_000;
/// Hours that dead letters may be kept.
const RETENTION_HOURS: std::ops::RangeInclusive<i64> = 1..=720;

pub(super) fn open(verb: &str, body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    match verb {
        "LIST" => list(body, request),
        "GET" => get(body, request),
        "RESEND" => resend(body, request),
        "EDIT" => edit(body, request),
        "DROP" => discard(body, request),
        "RETENTION" => retention(body),
        _ => Err(super::unknown()),
    }
}

/// Which dead letters are meant.
#[derive(Clone)]
struct Selection {
    /// None for every station that the user may deal with.
    station: Option<StationName>,
    kind: Option<Kind>,
    group: Option<GroupName>,
    ids: Vec<u64>,
}

impl Selection {
    fn read(body: &Body) -> Result<Self, Refused> {
        let kind = match body.text("kind")?.as_str() {
            "" => None,
            word => Some(Kind::parse(word).ok_or_else(|| {
                Refused("kind can be one of the following poison/schema".to_owned())
            })?),
        };
        let ids = body.numbers("ids")?;
        if ids.len() > MAX_IDS {
            return Err(Refused(format!("at most {MAX_IDS} ids at a time")));
        }
        Ok(Self {
            station: if body.has("station") {
                Some(station_of(body)?)
            } else {
                None
            },
            kind,
            group: if body.has("group") {
                Some(group_of(body)?)
            } else {
                None
            },
            ids,
        })
    }

    /// Subjects among which they are; [`Selection::holds`] says which of them are meant.
    fn filter(&self) -> String {
        match (&self.station, &self.group) {
            (None, _) => format!("{STREAM}.>"),
            (Some(station), Some(group)) => dead_letter::group_filter(station, group),
            (Some(station), None) => dead_letter::filter(station, self.kind),
        }
    }

    /// Refuses what could mean everything by mistake.
    fn said(&self, body: &Body) -> Result<(), Refused> {
        if self.station.is_some() || !self.ids.is_empty() || body.flag("all")? {
            return Ok(());
        }
        let text = "which ones? a station, ids, or all: true for those of every station";
        Err(Refused(text.to_owned()))
    }

    /// Refuses a station that does not exist.
    fn ready(&self, cx: &Context<'_>) -> Result<(), String> {
        match &self.station {
            None => Ok(()),
            Some(station) => ready(cx, station).map(drop),
        }
    }

    fn may_write(&self, request: &Request<'_>) -> Result<(), Refused> {
        match &self.station {
            None => Ok(()),
            Some(station) => super::may_write(request, station),
        }
    }

    fn listing(&self, from: u64) -> Plan {
        let mut plan = Plan::default();
        plan.step(Step::List {
            stream: STREAM.to_owned(),
            filter: self.filter(),
            from,
            limit: MAX_SCAN,
        });
        plan
    }

    /// What to look at next: the ids, once, or everything from `from` on.
    fn looking(&self, from: u64) -> Plan {
        if self.ids.is_empty() {
            self.listing(from)
        } else {
            self.reading()
        }
    }

    /// Where to look on after `found`, if there may be more.
    fn next(&self, found: &[Message]) -> Option<u64> {
        match (self.ids.is_empty(), found.last()) {
            (true, Some(last)) if found.len() == MAX_SCAN => Some(last.seq + 1),
            _ => None,
        }
    }

    fn reading(&self) -> Plan {
        let mut plan = Plan::default();
        for id in &self.ids {
            plan.step(read(*id));
        }
        plan
    }

    /// Whether a dead letter that was found is meant.
    fn holds(&self, letter: &DeadLetter) -> bool {
        self.station
            .as_ref()
            .is_none_or(|station| letter.station == *station)
            && self.kind.is_none_or(|kind| letter.kind == kind)
            && self.group.as_ref().is_none_or(|group| {
                letter
                    .origin
                    .as_ref()
                    .is_some_and(|origin| origin.group == *group)
            })
    }
}

fn read(id: u64) -> Step {
    Step::Read {
        stream: STREAM.to_owned(),
        seq: id,
    }
}

fn list(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let selection = Selection::read(body)?;
    if let Some(station) = &selection.station {
        super::may_read(request, station)?;
    }
    let access = request.client.access.clone();
    let search = body.text("search")?.to_lowercase();
    let after = u64::try_from(body.number("after")?).unwrap_or(0);
    let limit = match usize::try_from(body.number("limit")?) {
        Ok(limit @ 1..=MAX_LISTED) => limit,
        _ => MAX_LISTED,
    };
    let mut asked = false;
    Ok(course(Vec::new(), move |cx, results| {
        selection.ready(cx)?;
        if !std::mem::replace(&mut asked, true) {
            return Ok(Turn::Run(selection.listing(after.saturating_add(1))));
        }
        let scanned = messages(results);
        let mut seen = after;
        let mut found = Vec::new();
        for message in &scanned {
            if found.len() == limit {
                break;
            }
            seen = message.seq;
            let letter = DeadLetter::parse(message);
            found.extend(letter.filter(|letter| {
                mentions(letter, &search)
                    && selection.holds(letter)
                    && access.may_read(&letter.station)
            }));
        }
        let is_end = scanned.len() < MAX_SCAN && scanned.last().is_none_or(|m| m.seq == seen);
        let letters: Vec<Value> = found.iter().map(shown).collect();
        Ok(Turn::Done(json!({
            "dead_letters": letters,
            "next": (!is_end).then_some(seen),
        })))
    }))
}

/// Whether a lower-case text occurs in what people see of a dead letter.
fn mentions(letter: &DeadLetter, search: &str) -> bool {
    search.is_empty()
        || [
            &letter.header[..],
            &letter.payload,
            letter.reason.as_bytes(),
        ]
        .iter()
        .any(|part| {
            String::from_utf8_lossy(part)
                .to_lowercase()
                .contains(search)
        })
}

fn shown(letter: &DeadLetter) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Map<String, Value> = fields(&letter.header)
        .map(|(name, value)| (text(name), Value::String(text(value))))
        .collect();
    json!({
        "id": letter.id,
        "station": letter.station,
        "kind": letter.kind.word(),
        "partition": letter.origin.as_ref().map(|origin| origin.partition),
        "sequence": letter.origin.as_ref().map(|origin| origin.sequence),
        "group": letter.origin.as_ref().map(|origin| &origin.group),
        "reason": letter.reason,
        "deliveries": letter.deliveries,
        "producer": letter.producer(),
        "time_sent": letter.sent,
        "time_failed": letter.failed,
        "size": letter.payload.len() + letter.header.len(),
        "headers": headers,
        "payload": BASE64.encode(&letter.payload),
    })
}

/// The dead letter of a request that names one.
fn one(results: Vec<crate::task::StepResult>, id: u64) -> Result<DeadLetter, String> {
    let found = messages(results);
    found
        .first()
        .and_then(DeadLetter::parse)
        .ok_or_else(|| format!("dead letter {id} does not exist"))
}

fn id_of(body: &Body) -> Result<u64, Refused> {
    let id = body.number_or_text("id")?;
    u64::try_from(id).map_err(|_| Refused("id has to be a positive number".to_owned()))
}

fn get(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let id = id_of(body)?;
    let access = request.client.access.clone();
    let mut asked = false;
    Ok(course(Vec::new(), move |_, results| {
        if !std::mem::replace(&mut asked, true) {
            let mut plan = Plan::default();
            plan.step(read(id));
            return Ok(Turn::Run(plan));
        }
        let letter = one(results, id)?;
        if !access.may_read(&letter.station) {
            return Err(format!("dead letter {id} does not exist"));
        }
        Ok(Turn::Done(shown(&letter)))
    }))
}

fn resend(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let selection = Selection {
        kind: Some(Kind::Poison),
        ..Selection::read(body)?
    };
    selection.said(body)?;
    selection.may_write(request)?;
    let access = request.client.access.clone();
    let payload = payload_of(body)?;
    if payload.is_some() && selection.ids.len() != 1 {
        let text = "another payload is for one dead letter: ids has to have one";
        return Err(Refused(text.to_owned()));
    }
    let mut from = Some(1);
    let mut resent = 0_u64;
    let mut reading = false;
    let lock = match &selection.station {
        Some(station) => station_lock(station, Hold::Shared),
        // Whose they are is known only once they are read. Each turn sends what it found for
        // stations that are there and finished in that turn; of one that goes right behind it nobody
        // is left to hear it, and what changes of another has no part in what is sent.
        None => Vec::new(),
    };
    Ok(course(lock, move |cx, results| {
        selection.ready(cx)?;
        if std::mem::replace(&mut reading, false) {
            let found = messages(results);
            from = selection.next(&found);
            let mut plan = Plan::default();
            for letter in found.iter().filter_map(DeadLetter::parse) {
                if selection.holds(&letter)
                    && access.may_write(&letter.station)
                    && ready(cx, &letter.station).is_ok()
                {
                    resent += 1;
                    if let Some(payload) = &payload {
                        plan.step(Step::CheckMessage {
                            station: letter.station.clone(),
                            payload: payload.clone(),
                        });
                    }
                    for step in letter.resending(payload.as_ref()) {
                        plan.step(step);
                    }
                }
            }
            if !plan.is_empty() {
                return Ok(Turn::Run(plan));
            }
        }
        let Some(next) = from.take() else {
            return Ok(Turn::Done(json!({ "resent": resent })));
        };
        reading = true;
        Ok(Turn::Run(selection.looking(next)))
    }))
}

/// Another payload for a dead letter, if a request brings one.
fn payload_of(body: &Body) -> Result<Option<Bytes>, Refused> {
    if body.has("payload") {
        let bytes = BASE64
            .decode(body.text("payload")?.as_bytes())
            .map_err(|_| Refused("payload is not base64".to_owned()))?;
        return Ok(Some(Bytes::from(bytes)));
    }
    if body.has("text") {
        return Ok(Some(Bytes::from(body.text("text")?)));
    }
    Ok(None)
}

fn edit(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let id = id_of(body)?;
    let mut payload = payload_of(body)?;
    let access = request.client.access.clone();
    let mut turn = 0;
    Ok(course(Vec::new(), move |cx, results| {
        turn += 1;
        let mut plan = Plan::default();
        match turn {
            1 => plan.step(read(id)),
            2 => {
                let letter = one(results, id)?;
                if !access.may_write(&letter.station) {
                    return Err(format!("dead letter {id} does not exist"));
                }
                let station = &ready(cx, &letter.station)?.station;
                plan.step(Step::CheckMessage {
                    station: station.name.clone(),
                    payload: payload.clone().unwrap_or_else(|| letter.payload.clone()),
                });
                plan.step(letter.republishing(station, payload.take()));
                plan.step(Step::DeleteMessage {
                    stream: STREAM.to_owned(),
                    seq: id,
                });
            }
            _ => return Ok(done()),
        }
        Ok(Turn::Run(plan))
    }))
}

fn discard(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let selection = Selection::read(body)?;
    selection.said(body)?;
    selection.may_write(request)?;
    let access = request.client.access.clone();
    // No group fails what violates a schema.
    let is_nothing = selection.kind == Some(Kind::Schema) && selection.group.is_some();
    let is_purge = selection.station.is_some() && selection.ids.is_empty() && !is_nothing;
    let mut from = Some(1);
    let mut dropped = 0;
    let mut reading = false;
    let mut turn = 0;
    Ok(course(Vec::new(), move |cx, results| {
        selection.ready(cx)?;
        turn += 1;
        if is_purge {
            if turn > 1 {
                return Ok(Turn::Done(json!({ "dropped": null })));
            }
            let mut plan = Plan::default();
            plan.step(dead_letter::purge(selection.filter()));
            return Ok(Turn::Run(plan));
        }
        if std::mem::replace(&mut reading, false) {
            let found = messages(results);
            from = selection.next(&found);
            let mut plan = Plan::default();
            let letters = found.iter().filter_map(DeadLetter::parse);
            for letter in letters
                .filter(|letter| selection.holds(letter) && access.may_write(&letter.station))
            {
                plan.step(Step::DeleteMessage {
                    stream: STREAM.to_owned(),
                    seq: letter.id,
                });
            }
            dropped += plan.len();
            if !plan.is_empty() {
                return Ok(Turn::Run(plan));
            }
        }
        let Some(next) = from.take() else {
            return Ok(Turn::Done(json!({ "dropped": dropped })));
        };
        reading = true;
        Ok(Turn::Run(selection.looking(next)))
    }))
}

fn retention(body: &Body) -> Result<Opened, Refused> {
    let hours = body.number("hours")?;
    if !RETENTION_HOURS.contains(&hours) {
        return Err(Refused("hours has to be 1 to 720".to_owned()));
    }
    let mut asked = false;
    Ok(course(Vec::new(), move |_, _| {
        if std::mem::replace(&mut asked, true) {
            return Ok(done());
        }
        let config = Box::new(dead_letter::stream_config(hours));
        let mut plan = Plan::default();
        plan.step(Step::EnsureStream(config.clone()));
        plan.step(Step::UpdateStream(config));
        Ok(Turn::Run(plan))
    }))
}
