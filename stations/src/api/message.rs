//! Looking at the messages of a station, page by page, without moving any group.
//!
//! A page is as many messages as fit, of one partition or of several in the order of time; where
//! it ended is a text that the next request brings back: the position on each partition, as
//! `1:17,2:9`.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use super::{Turn, course, done, messages, ready, station_of};
use crate::dead_letter::fields;
use crate::name::StationName;
use crate::sdk::body::Body;
use crate::sdk::{Opened, Refused, Request};
use crate::task::{Message, Plan, Step, StepResult};

/// Messages of a page unless asked otherwise.
const DEFAULT_PAGE: usize = 50;
/// Most messages of a page.
const MAX_PAGE: usize = 100;
/// Most partitions looked at for one page.
const MAX_PARTITIONS: usize = 16;
/// Bytes of each payload in a page, unless asked otherwise.
const DEFAULT_PREVIEW: usize = 1_024;
/// Most bytes of each payload in a page.
const MAX_PREVIEW: usize = 64 * 1_024;

pub(super) fn open(verb: &str, body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    match verb {
        "LIST" => list(body, request),
        "GET" => get(body, request),
        "DELETE" => delete(body, request),
        _ => Err(super::unknown()),
    }
}

/// Where a reader stands on each partition.
type Positions = BTreeMap<u32, u64>;

fn read_positions(text: &str) -> Option<Positions> {
    let pairs = text.split(',').filter(|part| !part.is_empty());
    pairs
        .map(|pair| {
            let (partition, position) = pair.split_once(':')?;
            Some((partition.parse().ok()?, position.parse().ok()?))
        })
        .collect()
}

fn write_positions(positions: &Positions) -> String {
    let pairs: Vec<String> = positions
        .iter()
        .map(|(partition, position)| format!("{partition}:{position}"))
        .collect();
    pairs.join(",")
}

/// What is asked for.
struct Reading {
    station: StationName,
    partition: Option<u32>,
    /// After the last one seen; before it where the newest come first.
    positions: Positions,
    newest_first: bool,
    limit: usize,
    preview: usize,
    /// In lower case; empty for everything.
    search: String,
}

impl Reading {
    fn read(body: &Body) -> Result<Self, Refused> {
        let within = |key, default: usize, most: usize| -> Result<usize, Refused> {
            let given = body.number(key)?;
            Ok(match usize::try_from(given) {
                Ok(0) | Err(_) => default,
                Ok(number) => number.min(most),
            })
        };
        let positions = read_positions(&body.text("after")?)
            .ok_or_else(|| Refused("after is not where an answer ended".to_owned()))?;
        Ok(Self {
            station: station_of(body)?,
            partition: partition_of(body)?,
            positions,
            newest_first: body.flag("newest_first")?,
            limit: within("limit", DEFAULT_PAGE, MAX_PAGE)?,
            preview: within("payload_bytes", DEFAULT_PREVIEW, MAX_PREVIEW)?,
            search: body.text("search")?.to_lowercase(),
        })
    }

    fn listing(&self, partition: u32, from: u64) -> Step {
        Step::List {
            stream: self.station.stream(partition),
            filter: ">".to_owned(),
            from,
            limit: self.limit,
        }
    }

    fn mentions(&self, message: &Message) -> bool {
        self.search.is_empty()
            || [&message.header[..], &message.payload].iter().any(|part| {
                String::from_utf8_lossy(part)
                    .to_lowercase()
                    .contains(&self.search)
            })
    }

    /// The page, and where the next one begins.
    fn page(&self, mut found: Vec<(u32, Message)>, ends: &Ends) -> Value {
        if self.newest_first {
            found.sort_by_key(|(partition, message)| {
                std::cmp::Reverse((message.time, *partition, message.seq))
            });
        } else {
            found.sort_by_key(|(partition, message)| (message.time, *partition, message.seq));
        }
        let left: Vec<u32> = found
            .iter()
            .skip(self.limit)
            .map(|(partition, _)| *partition)
            .collect();
        found.truncate(self.limit);
        let mut positions = ends.positions.clone();
        for partition in &left {
            // Not all of it was taken: the last one taken is where it goes on.
            positions.insert(*partition, ends.begun.get(partition).copied().unwrap_or(0));
        }
        for (partition, message) in &found {
            if left.contains(partition) {
                positions.insert(*partition, message.seq);
            }
        }
        let is_end = left.is_empty() && ends.is_end;
        let meant = found.iter().filter(|(_, message)| self.mentions(message));
        let shown: Vec<Value> = meant
            .map(|(partition, message)| shown(*partition, message, self.preview))
            .collect();
        json!({
            "messages": shown,
            "next": (!is_end).then(|| write_positions(&positions)),
            "position": write_positions(&positions),
        })
    }
}

/// How far the streams were read.
#[derive(Default)]
struct Ends {
    /// Where reading began on each partition.
    begun: Positions,
    /// Where it stands when everything that was read is taken.
    positions: Positions,
    /// There is nothing behind it.
    is_end: bool,
}

fn partition_of(body: &Body) -> Result<Option<u32>, Refused> {
    match body.number("partition")? {
        0 => Ok(None),
        number => u32::try_from(number)
            .map(Some)
            .map_err(|_| Refused("partition is out of range".to_owned())),
    }
}

fn shown(partition: u32, message: &Message, preview: usize) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Map<String, Value> = fields(&message.header)
        .map(|(name, value)| (text(name), Value::String(text(value))))
        .collect();
    let payload = &message.payload[..message.payload.len().min(preview)];
    json!({
        "partition": partition,
        "sequence": message.seq,
        "time": message.time,
        "size": message.payload.len() + message.header.len(),
        "headers": headers,
        "payload": BASE64.encode(payload),
        "is_cut": payload.len() < message.payload.len(),
    })
}

fn list(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let reading = Reading::read(body)?;
    super::may_read(request, &reading.station)?;
    let mut partitions: Vec<u32> = Vec::new();
    let mut ends = Ends::default();
    let mut turn = 0;
    Ok(course(Vec::new(), move |cx, results| {
        turn += 1;
        let mut plan = Plan::default();
        match turn {
            1 => {
                let entry = ready(cx, &reading.station)?;
                let meant = |number: &u32| reading.partition.is_none_or(|only| only == *number);
                partitions = entry.station.partition_numbers().filter(meant).collect();
                if partitions.is_empty() {
                    return Err("partition is out of range".to_owned());
                }
                if partitions.len() > MAX_PARTITIONS {
                    return Err(format!(
                        "the station has more than {MAX_PARTITIONS} partitions: name one"
                    ));
                }
                for partition in &partitions {
                    plan.step(Step::QueryStream(reading.station.stream(*partition)));
                }
            }
            2 => {
                ends.is_end = true;
                for (partition, result) in partitions.iter().zip(&results) {
                    let StepResult::Stream(state) = result else {
                        return Err(format!("partition {partition} cannot be read"));
                    };
                    let known = reading.positions.get(partition).copied();
                    if reading.newest_first {
                        let before = known.unwrap_or_else(|| state.last_seq.saturating_add(1));
                        let from = before.saturating_sub(reading.limit as u64).max(1);
                        ends.begun.insert(*partition, before);
                        ends.positions.insert(*partition, from);
                        ends.is_end &= from <= state.first_seq;
                        plan.step(reading.listing(*partition, from));
                    } else {
                        let after = known.unwrap_or(0);
                        ends.begun.insert(*partition, after);
                        plan.step(reading.listing(*partition, after.saturating_add(1)));
                    }
                }
            }
            _ => {
                let mut found = Vec::new();
                for (partition, result) in partitions.iter().zip(results) {
                    let page = messages(vec![result]);
                    let begun = ends.begun.get(partition).copied().unwrap_or(0);
                    if reading.newest_first {
                        let older = page.into_iter().filter(|message| message.seq < begun);
                        found.extend(older.map(|message| (*partition, message)));
                        continue;
                    }
                    ends.is_end &= page.len() < reading.limit;
                    let last = page.last().map_or(begun, |message| message.seq);
                    ends.positions.insert(*partition, last);
                    found.extend(page.into_iter().map(|message| (*partition, message)));
                }
                return Ok(Turn::Done(reading.page(found, &ends)));
            }
        }
        Ok(Turn::Run(plan))
    }))
}

/// Partition and sequence of a request about one message.
fn place(body: &Body) -> Result<(u32, u64), Refused> {
    let partition = u32::try_from(body.number_or_text("partition")?).ok();
    let sequence = u64::try_from(body.number_or_text("sequence")?).ok();
    match (partition, sequence) {
        (Some(partition @ 1..), Some(sequence @ 1..)) => Ok((partition, sequence)),
        _ => Err(Refused(
            "partition and sequence have to be positive numbers".to_owned(),
        )),
    }
}

fn get(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let station = station_of(body)?;
    super::may_read(request, &station)?;
    let (partition, sequence) = place(body)?;
    let mut asked = false;
    Ok(course(Vec::new(), move |cx, results| {
        ready(cx, &station)?;
        if !std::mem::replace(&mut asked, true) {
            let mut plan = Plan::default();
            plan.step(Step::Read {
                stream: station.stream(partition),
                seq: sequence,
            });
            return Ok(Turn::Run(plan));
        }
        let found = messages(results);
        let message = found
            .first()
            .ok_or_else(|| missing(&station, partition, sequence))?;
        Ok(Turn::Done(shown(partition, message, usize::MAX)))
    }))
}

fn missing(station: &StationName, partition: u32, sequence: u64) -> String {
    format!("message {sequence} on partition {partition} of station {station} does not exist")
}

fn delete(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let station = station_of(body)?;
    super::may_write(request, &station)?;
    let (partition, sequence) = place(body)?;
    let mut turn = 0;
    Ok(course(Vec::new(), move |cx, results| {
        let entry = ready(cx, &station)?;
        turn += 1;
        let mut plan = Plan::default();
        match turn {
            1 if !entry.station.partition_numbers().contains(&partition) => {
                return Err(missing(&station, partition, sequence));
            }
            1 => plan.step(Step::Read {
                stream: station.stream(partition),
                seq: sequence,
            }),
            2 if messages(results).is_empty() => {
                return Err(missing(&station, partition, sequence));
            }
            2 => plan.step(Step::DeleteMessage {
                stream: station.stream(partition),
                seq: sequence,
            }),
            _ => return Ok(done()),
        }
        Ok(Turn::Run(plan))
    }))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use menes_jetstream::Timestamp;

    use super::*;

    fn reading(limit: usize, newest_first: bool) -> Reading {
        Reading {
            station: StationName::parse("s").expect("a name"),
            partition: None,
            positions: Positions::new(),
            newest_first,
            limit,
            preview: 4,
            search: String::new(),
        }
    }

    fn message(seq: u64, time: i64) -> Message {
        Message {
            seq,
            time: Timestamp(time),
            subject: String::new(),
            header: Bytes::new(),
            payload: Bytes::from(format!("payload {seq}")),
        }
    }

    #[test]
    fn positions_are_read_as_they_are_written() {
        let positions = Positions::from([(1, 17), (2, u64::MAX)]);
        assert_eq!(
            read_positions(&write_positions(&positions)),
            Some(positions)
        );
        assert_eq!(read_positions(""), Some(Positions::new()));
        for bad in ["1", "1:", ":1", "a:1", "1:-1", "1:2;"] {
            assert_eq!(read_positions(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_page_of_several_partitions_goes_on_where_each_of_them_ended() {
        let ends = Ends {
            begun: Positions::from([(1, 0), (2, 0), (3, 0)]),
            positions: Positions::from([(1, 2), (2, 2), (3, 0)]),
            is_end: true,
        };
        let found = vec![
            (1, message(1, 10)),
            (1, message(2, 30)),
            (2, message(1, 20)),
            (2, message(2, 40)),
        ];
        let page = reading(3, false).page(found.clone(), &ends);
        assert_eq!(page["next"], "1:2,2:1,3:0");
        assert_eq!(page["messages"].as_array().map(Vec::len), Some(3));
        assert_eq!(page["messages"][0]["is_cut"], true);
        assert_eq!(page["messages"][0]["payload"], BASE64.encode(b"payl"));
        let page = reading(1, false).page(found.clone(), &ends);
        assert_eq!(page["next"], "1:1,2:0,3:0");
        let page = reading(4, false).page(found, &ends);
        assert_eq!(
            (&page["next"], &page["position"]),
            (&Value::Null, &json!("1:2,2:2,3:0"))
        );
    }

    #[test]
    fn the_newest_come_first_when_asked() {
        let ends = Ends {
            begun: Positions::from([(1, 9)]),
            positions: Positions::from([(1, 6)]),
            is_end: false,
        };
        let found = vec![(1, message(6, 6)), (1, message(7, 7)), (1, message(8, 8))];
        let page = reading(2, true).page(found.clone(), &ends);
        assert_eq!(
            (&page["messages"][0]["sequence"], &page["next"]),
            (&json!(8), &json!("1:7"))
        );
        let page = reading(3, true).page(found, &ends);
        assert_eq!(page["next"], "1:6");
    }
}
