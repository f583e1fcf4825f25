//! Groups: how far behind they are, where they go on, and whether they do.

use std::collections::BTreeMap;
use std::time::Duration;

use menes_jetstream::Timestamp;
use serde_json::{Value, json};

use super::guard::{IfMatch, etag};
use super::{Turn, course, done, group_of, ready, station_lock, station_of};
use crate::command::Command;
use crate::group::{self, Group, GroupStatus, Start};
use crate::lock::Hold;
use crate::name::GroupName;
use crate::sdk::body::Body;
use crate::sdk::{Opened, Refused, Request};
use crate::state::{GroupEntry, StationEntry};
use crate::station::Station;
use crate::task::{Context, Plan, Step, StepResult};

/// Longest pause, seconds: a year.
const MAX_PAUSE: u64 = 365 * 86_400;
/// Longest wait before a message is tried again, milliseconds: a week.
const MAX_WAIT_MS: i64 = 7 * 86_400_000;
/// Most waits of a policy.
const MAX_BACKOFF: usize = 100;
/// Most deliveries that a policy may ask for, unless it has no end.
const MAX_POLICY_DELIVERIES: i64 = 10_000;

pub(super) fn open(verb: &str, body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    match verb {
        "LIST" => list(body, request, None),
        "INFO" => list(body, request, Some(group_of(body)?)),
        "CREATE" => create(body, request),
        "UPDATE" => update(body, request),
        "DELETE" => delete(body, request),
        "RESET" => reset(body, request),
        "PAUSE" => {
            let seconds = u64::try_from(body.number("seconds")?).unwrap_or(0);
            if !(1..=MAX_PAUSE).contains(&seconds) {
                return Err(Refused(format!("seconds has to be 1 to {MAX_PAUSE}")));
            }
            let until = request.now.plus(Duration::from_secs(seconds));
            pause(body, request, until)
        }
        "RESUME" => pause(body, request, Timestamp::ZERO),
        _ => Err(super::unknown()),
    }
}

/// Makes a group before anybody is in it. With `last_messages`, `first_sequences` says where it
/// begins on each partition; durables that are there as the group wants them keep their positions.
fn create(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let (station, name) = (station_of(body)?, group_of(body)?);
    super::may_read(request, &station)?;
    let number = |key, usual| -> Result<i64, Refused> {
        Ok(if body.has(key) {
            body.number(key)?
        } else {
            usual
        })
    };
    let sequence = number("start_consume_from_sequence", 1)?;
    let start = Start::from_options(sequence, number("last_messages", -1)?)?;
    let ack_time = body.number("max_ack_time_ms")?;
    let deliveries = body.number("max_msg_deliveries")?;
    let mut group = Group::new(name.clone(), ack_time, deliveries, start);
    if let Start::Last(_) = start {
        let firsts = body.numbers("first_sequences")?;
        group.first_sequences = firsts.into_iter().map(|first| first.max(1)).collect();
    }
    let mut is_begun = false;
    let lock = station_lock(&station, Hold::Exclusive);
    Ok(course(lock, move |cx, _| {
        let entry = ready(cx, &station)?;
        if std::mem::replace(&mut is_begun, true) {
            return Ok(done());
        }
        let plan = match entry.group(&name) {
            Some(known) if known.group.status == GroupStatus::Ready => {
                return Err(format!("group {name} at station {station} exists already"));
            }
            Some(_) => {
                is_begun = false;
                group::removal(cx.account, &entry.station, &name, None)
            }
            None => {
                let firsts = group.first_sequences.len();
                let wanted = match start {
                    Start::Last(_) => usize::try_from(entry.station.partitions).unwrap_or(0),
                    _ => 0,
                };
                if firsts != wanted {
                    return Err(format!("first_sequences has to have {wanted} numbers"));
                }
                group::empty(cx.account, &entry.station, &group)
            }
        };
        Ok(Turn::Run(plan))
    }))
}

/// The groups of a station, or one of them.
fn list(body: &Body, request: &Request<'_>, only: Option<GroupName>) -> Result<Opened, Refused> {
    let station = station_of(body)?;
    super::may_read(request, &station)?;
    let mut asked: Option<Vec<(GroupName, u32)>> = None;
    let lock = station_lock(&station, Hold::Shared);
    Ok(course(lock, move |cx, results| {
        let entry = ready(cx, &station)?;
        let is_meant = |group: &GroupEntry| {
            group.group.status == GroupStatus::Ready
                && only.as_ref().is_none_or(|name| group.group.name == *name)
        };
        if let Some(name) = &only
            && !entry.groups().any(is_meant)
        {
            return Err(format!("group {name} at station {station} does not exist"));
        }
        let Some(asked) = &asked else {
            let meant = entry.groups().filter(|group| is_meant(group));
            let each: Vec<(GroupName, u32)> = meant
                .flat_map(|group| {
                    let numbers = entry.station.partition_numbers();
                    numbers.map(|partition| (group.group.name.clone(), partition))
                })
                .collect();
            let mut plan = Plan::default();
            for (group, partition) in &each {
                plan.step(Step::QueryConsumer {
                    stream: station.stream(*partition),
                    name: group.internal(),
                });
            }
            asked = Some(each);
            if plan.is_empty() {
                return Ok(Turn::Done(json!({ "groups": [] })));
            }
            return Ok(Turn::Run(plan));
        };
        let mut partitions: BTreeMap<&GroupName, Vec<Value>> = BTreeMap::new();
        for ((group, partition), result) in asked.iter().zip(results) {
            if let StepResult::Consumer(info) = result {
                let shown = json!({
                    "partition": partition,
                    "lag": info.num_pending,
                    "in_process": info.num_ack_pending,
                    "redelivered": info.num_redelivered,
                    "waiting": info.num_waiting,
                    "delivered": info.delivered.stream_seq,
                    "ack_floor": info.ack_floor.stream_seq,
                    "is_paused": info.paused,
                });
                partitions.entry(group).or_default().push(shown);
            }
        }
        let mut groups = Vec::new();
        for (name, partitions) in partitions {
            // It may have gone while the partitions were asked.
            if let Some(group) = entry.group(name) {
                groups.push(shown(cx, group, partitions));
            }
        }
        match (&only, groups.pop()) {
            (Some(_), Some(group)) => Ok(Turn::Done(group)),
            (Some(name), None) => Err(format!("group {name} at station {station} does not exist")),
            (None, last) => {
                groups.extend(last);
                Ok(Turn::Done(json!({ "groups": groups })))
            }
        }
    }))
}

/// A group with where it stands on each partition, and who is in it.
fn shown(cx: &Context<'_>, entry: &GroupEntry, partitions: Vec<Value>) -> Value {
    let sum = |key: &str| -> u64 { partitions.iter().filter_map(|p| p[key].as_u64()).sum() };
    let retries = entry.group.retries();
    let members: Vec<Value> = entry
        .members()
        .map(|member| {
            json!({
                "name": member.name,
                "connection_id": member.connection,
                "user": member.user,
                "sdk": member.sdk,
                "app_id": member.app_id,
                "joined": member.joined,
                "is_active": cx.presence.is_open(cx.account, &member.connection),
            })
        })
        .collect();
    json!({
        "group": entry.group.name,
        "lag": sum("lag"),
        "in_process": sum("in_process"),
        "is_paused": partitions.iter().any(|p| p["is_paused"] == true),
        "max_ack_time_ms": retries.max_ack_time_ms,
        "max_msg_deliveries": retries.max_msg_deliveries,
        "backoff_ms": retries.backoff_ms,
        "has_policy": entry.group.retry.is_some(),
        "etag": etag(&entry.group),
        "members": members,
        "partitions": partitions,
    })
}

/// What is to change about how messages are tried again; the rest stays.
struct Retries {
    /// What the members ask for holds again.
    follows_members: bool,
    ack_time: Option<i64>,
    deliveries: Option<i64>,
    backoff: Option<Vec<i64>>,
}

impl Retries {
    fn read(body: &Body) -> Result<Self, Refused> {
        let within = |key: &'static str, most: i64| -> Result<Option<i64>, Refused> {
            if !body.has(key) {
                return Ok(None);
            }
            match body.number(key)? {
                number if (1..=most).contains(&number) => Ok(Some(number)),
                _ => Err(Refused(format!("{key} has to be 1 to {most}"))),
            }
        };
        let deliveries = match body.number("max_msg_deliveries")? {
            -1 => Some(-1),
            _ => within("max_msg_deliveries", MAX_POLICY_DELIVERIES)?,
        };
        let backoff = if body.has("backoff_ms") {
            let waits = body.numbers("backoff_ms")?;
            let waits: Option<Vec<i64>> = waits
                .into_iter()
                .map(|wait| i64::try_from(wait).ok())
                .map(|wait| wait.filter(|wait| (1..=MAX_WAIT_MS).contains(wait)))
                .collect();
            let waits = waits.filter(|waits| waits.len() <= MAX_BACKOFF);
            Some(waits.ok_or_else(|| {
                Refused(format!(
                    "backoff_ms has to be at most {MAX_BACKOFF} numbers from 1 to {MAX_WAIT_MS}"
                ))
            })?)
        } else {
            None
        };
        let change = Self {
            follows_members: body.flag("follow_members")?,
            ack_time: within("max_ack_time_ms", MAX_WAIT_MS)?,
            deliveries,
            backoff,
        };
        let changes_any =
            change.ack_time.is_some() || change.deliveries.is_some() || change.backoff.is_some();
        if change.follows_members == changes_any {
            return Err(Refused(
                "max_ack_time_ms, max_msg_deliveries and backoff_ms are needed, any of them, or \
                 follow_members alone"
                    .to_owned(),
            ));
        }
        Ok(change)
    }

    fn of(&self, group: &Group) -> Group {
        let mut policy = group.retries();
        policy.max_ack_time_ms = self.ack_time.unwrap_or(policy.max_ack_time_ms);
        policy.max_msg_deliveries = self.deliveries.unwrap_or(policy.max_msg_deliveries);
        if let Some(backoff) = &self.backoff {
            policy.backoff_ms.clone_from(backoff);
        }
        Group {
            retry: (!self.follows_members).then_some(policy),
            ..group.clone()
        }
    }
}

fn update(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let (station, group) = (station_of(body)?, group_of(body)?);
    super::may_read(request, &station)?;
    let change = Retries::read(body)?;
    let if_match = IfMatch::read(body)?;
    let mut asked = false;
    let lock = station_lock(&station, Hold::Exclusive);
    Ok(course(lock, move |cx, _| {
        if std::mem::replace(&mut asked, true) {
            return Ok(done());
        }
        let entry = ready(cx, &station)?;
        let known = live(entry, &group)?;
        if_match.check(&format!("group {group}"), &known.group)?;
        let changed = change.of(&known.group);
        Ok(Turn::Run(group::change(
            cx.account,
            &entry.station,
            &known.group,
            &changed,
        )))
    }))
}

fn delete(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let (station, group) = (station_of(body)?, group_of(body)?);
    let if_match = IfMatch::read(body)?;
    super::may_read(request, &station)?;
    let mut asked = false;
    let lock = station_lock(&station, Hold::Exclusive);
    Ok(course(lock, move |cx, _| {
        if std::mem::replace(&mut asked, true) {
            return Ok(done());
        }
        let entry = ready(cx, &station)?;
        let known = live(entry, &group)?;
        if_match.check(&format!("group {group}"), &known.group)?;
        let mark = Command::GroupRemoving {
            account: cx.account.clone(),
            station: station.clone(),
            group: group.clone(),
        };
        let plan = group::removal(cx.account, &entry.station, &group, Some(mark));
        Ok(Turn::Run(plan))
    }))
}

/// A group that is whole.
fn live<'a>(entry: &'a StationEntry, group: &GroupName) -> Result<&'a GroupEntry, String> {
    let station = &entry.station.name;
    entry
        .group(group)
        .filter(|known| known.group.status == GroupStatus::Ready)
        .ok_or_else(|| format!("group {group} at station {station} does not exist"))
}

/// Where a group is to go on.
#[derive(Clone, Copy)]
enum Target {
    Start,
    End,
    Sequence(u64),
    Time(Timestamp),
}

impl Target {
    fn read(body: &Body) -> Result<Self, Refused> {
        if body.has("sequence") {
            let sequence = u64::try_from(body.number("sequence")?).unwrap_or(0);
            return Ok(Self::Sequence(sequence.max(1)));
        }
        if body.has("time") {
            let time = Timestamp::parse(&body.text("time")?)
                .ok_or_else(|| Refused("time is not an RFC 3339 time".to_owned()))?;
            return Ok(Self::Time(time));
        }
        match body.text("to")?.as_str() {
            "start" => Ok(Self::Start),
            "end" => Ok(Self::End),
            _ => Err(Refused(
                "one of sequence, time or to (start, end) is needed".to_owned(),
            )),
        }
    }

    fn finding(self, station: &Station, partition: u32) -> Step {
        let stream = station.name.stream(partition);
        match self {
            Self::Time(time) => Step::FindTime { stream, time },
            Self::Start | Self::End | Self::Sequence(_) => Step::QueryStream(stream),
        }
    }

    fn sequence(self, found: &StepResult) -> Option<u64> {
        match (self, found) {
            (Self::Sequence(sequence), _) => Some(sequence),
            (_, StepResult::Sequence(sequence)) => Some(*sequence),
            (Self::Start, StepResult::Stream(state)) => Some(state.first_seq.max(1)),
            (Self::End, StepResult::Stream(state)) => Some(state.last_seq + 1),
            _ => None,
        }
    }
}

fn reset(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let (station, group) = (station_of(body)?, group_of(body)?);
    super::may_read(request, &station)?;
    let target = Target::read(body)?;
    let only = match body.number("partition")? {
        0 => None,
        number => Some(
            u32::try_from(number).map_err(|_| Refused("partition is out of range".to_owned()))?,
        ),
    };
    let mut turn = 0;
    let mut sequences: Vec<Value> = Vec::new();
    let lock = station_lock(&station, Hold::Exclusive);
    Ok(course(lock, move |cx, results| {
        let entry = ready(cx, &station)?;
        if entry.group(&group).is_none() {
            return Err(format!("group {group} at station {station} does not exist"));
        }
        let partitions: Vec<u32> = entry
            .station
            .partition_numbers()
            .filter(|partition| only.is_none_or(|only| only == *partition))
            .collect();
        if partitions.is_empty() {
            return Err("partition is out of range".to_owned());
        }
        turn += 1;
        let mut plan = Plan::default();
        match turn {
            1 => {
                for partition in partitions {
                    plan.step(target.finding(&entry.station, partition));
                }
            }
            2 => {
                for (partition, found) in partitions.into_iter().zip(&results) {
                    let start = target
                        .sequence(found)
                        .ok_or_else(|| format!("partition {partition} cannot be read"))?;
                    sequences.push(json!({"partition": partition, "sequence": start}));
                    plan.step(Step::ResetConsumer {
                        stream: station.stream(partition),
                        name: group.internal(),
                        start,
                    });
                }
            }
            _ => return Ok(Turn::Done(json!({ "sequences": sequences }))),
        }
        Ok(Turn::Run(plan))
    }))
}

fn pause(body: &Body, request: &Request<'_>, until: Timestamp) -> Result<Opened, Refused> {
    let (station, group) = (station_of(body)?, group_of(body)?);
    super::may_read(request, &station)?;
    let mut asked = false;
    let lock = station_lock(&station, Hold::Exclusive);
    Ok(course(lock, move |cx, _| {
        if std::mem::replace(&mut asked, true) {
            return Ok(done());
        }
        let entry = ready(cx, &station)?;
        if entry.group(&group).is_none() {
            return Err(format!("group {group} at station {station} does not exist"));
        }
        let mut plan = Plan::default();
        for partition in entry.station.partition_numbers() {
            plan.step(Step::PauseConsumer {
                stream: station.stream(partition),
                name: group.internal(),
                until,
            });
        }
        Ok(Turn::Run(plan))
    }))
}
