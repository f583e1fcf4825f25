//! Groups: how far behind they are, where they go on, and whether they do.

use std::time::Duration;

use menes_jetstream::Timestamp;
use serde_json::{Value, json};

use super::{Turn, course, done, group_of, ready, station_lock, station_of};
use crate::group::GroupStatus;
use crate::lock::Hold;
use crate::sdk::body::Body;
use crate::sdk::{Opened, Refused, Request};
use crate::station::Station;
use crate::task::{Plan, Step, StepResult};

/// Longest pause, seconds: a year.
const MAX_PAUSE: u64 = 365 * 86_400;

pub(super) fn open(verb: &str, body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    match verb {
        "LIST" => list(body, request),
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

fn list(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let station = station_of(body)?;
    super::may_read(request, &station)?;
    let mut names: Option<Vec<(String, u32)>> = None;
    let lock = station_lock(&station, Hold::Shared);
    Ok(course(lock, move |cx, results| {
        let entry = ready(cx, &station)?;
        let Some(asked) = &names else {
            let groups = entry
                .groups()
                .filter(|g| g.group.status == GroupStatus::Ready);
            let each: Vec<(String, u32)> = groups
                .flat_map(|group| {
                    let name = group.group.name.external().to_owned();
                    entry
                        .station
                        .partition_numbers()
                        .map(move |p| (name.clone(), p))
                })
                .collect();
            let mut plan = Plan::default();
            for (group, partition) in &each {
                plan.step(Step::QueryConsumer {
                    stream: station.stream(*partition),
                    name: group.replace('.', "#"),
                });
            }
            names = Some(each);
            if plan.is_empty() {
                return Ok(Turn::Done(json!({ "groups": [] })));
            }
            return Ok(Turn::Run(plan));
        };
        let mut partitions: std::collections::BTreeMap<&str, Vec<Value>> = Default::default();
        for ((group, partition), result) in asked.iter().zip(results) {
            if let StepResult::Consumer(info) = result {
                let shown = json!({
                    "partition": partition,
                    "lag": info.num_pending,
                    "in_process": info.num_ack_pending,
                    "delivered": info.delivered.stream_seq,
                    "ack_floor": info.ack_floor.stream_seq,
                    "is_paused": info.paused,
                });
                partitions.entry(group).or_default().push(shown);
            }
        }
        let groups: Vec<Value> = partitions
            .into_iter()
            .map(|(group, partitions)| {
                let sum = |key: &str| -> u64 { partitions.iter().filter_map(|p| p[key].as_u64()).sum() };
                let (lag, in_process) = (sum("lag"), sum("in_process"));
                json!({"group": group, "lag": lag, "in_process": in_process, "partitions": partitions})
            })
            .collect();
        Ok(Turn::Done(json!({ "groups": groups })))
    }))
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
