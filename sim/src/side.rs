//! Streams beside the modelled ones, each with a promise of its own.
//!
//! | Stream | Promise |
//! |---|---|
//! | `COUNT` | every sum follows from the one before it; what was acknowledged is in it |
//! | `COPY`, `TOTAL` | a mirror and a source come to the same as `COUNT` |
//! | `FED` | so does a mirror that is fed by a consumer made beforehand |
//! | `BATCH` | a batch is there as a whole, or not at all |
//! | `FAST` | what a batch that allows no gaps stored are its first messages |
//! | `PLAN` | a schedule for once produces one message, and is gone; others go on |
//!
//! They have a generator of their own, so that a seed does the same to the modelled streams.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use menes_jetstream::engine::{ApiRequest, Publish as Message};
use menes_jetstream::{GroupId, Timestamp};
use serde_json::Value;

use crate::disk::Space;
use crate::random::Random;
use crate::wire::Sent;
use crate::world::{SECOND, World};

const SUBJECTS: u64 = 3;

/// An increment under way.
#[derive(Debug)]
struct Increment {
    inbox: String,
    by: i64,
    id: Option<u64>,
}

/// A counter as its clients know it.
#[derive(Debug, Default)]
struct Counter {
    sum: i64,
    flight: VecDeque<Increment>,
    /// A purge is under way.
    purging: bool,
}

/// What the clients of the side streams know.
pub(crate) struct Side {
    random: Random,
    groups: BTreeMap<String, GroupId>,
    counters: BTreeMap<String, Counter>,
    /// Message ids of increments that were stored, or may have been.
    ids: BTreeSet<u64>,
    /// Batches by number: how many messages, and whether they were acknowledged.
    batches: BTreeMap<u64, (u64, bool)>,
    batch_flight: BTreeMap<String, u64>,
    /// Schedules by number: whether they were acknowledged.
    plans: BTreeMap<u64, bool>,
    plan_flight: BTreeMap<String, u64>,
    /// Fast batches by id, and how many of their messages were acknowledged.
    fast: BTreeMap<u64, u64>,
    pub(crate) is_made: bool,
    checks: u64,
}

impl Side {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed ^ 0x5eed_5eed_5eed_5eed),
            groups: BTreeMap::new(),
            counters: (0..SUBJECTS)
                .map(|k| (format!("count.k{k}"), Counter::default()))
                .collect(),
            ids: BTreeSet::new(),
            batches: BTreeMap::new(),
            batch_flight: BTreeMap::new(),
            plans: BTreeMap::new(),
            plan_flight: BTreeMap::new(),
            fast: BTreeMap::new(),
            is_made: false,
            checks: 0,
        }
    }

    /// A stream captures these subjects under this number.
    pub(crate) fn captured(&mut self, subject: &str, group: GroupId) {
        let name = subject.trim_end_matches(".>");
        self.groups.insert(name.to_owned(), group);
    }
}

impl World {
    /// Makes the streams; on a healthy disk.
    pub(crate) fn make_side_streams(&mut self) -> Result<(), String> {
        let storage = ["file", "memory"][self.side.random.below(2) as usize];
        let keep = 1 + self.side.random.below(3);
        let streams = [
            (
                "COUNT",
                format!(
                    r#""subjects":["count.>"],"allow_msg_counter":true,"max_msgs_per_subject":{keep}"#
                ),
            ),
            ("COPY", r#""mirror":{"name":"COUNT"}"#.to_owned()),
            (
                "FED",
                r#""mirror":{"name":"COUNT","consumer":{"name":"FEED","deliver_subject":"$JS.M.feed"}}"#
                    .to_owned(),
            ),
            (
                "TOTAL",
                format!(
                    r#""sources":[{{"name":"COUNT"}}],"allow_msg_counter":true,"storage":"{storage}""#
                ),
            ),
            (
                "BATCH",
                r#""subjects":["batch.>"],"allow_atomic":true"#.to_owned(),
            ),
            (
                "FAST",
                r#""subjects":["fast.>"],"allow_batched":true"#.to_owned(),
            ),
            (
                "PLAN",
                r#""subjects":["plan.>"],"allow_msg_schedules":true"#.to_owned(),
            ),
        ];
        for (name, config) in streams {
            let body = format!(r#"{{"name":"{name}",{config}}}"#);
            self.request(&format!("$JS.API.STREAM.CREATE.{name}"), "side.made", &body);
            self.settle_disk()?;
            if name == "COUNT" {
                let body = r#"{"stream_name":"COUNT","config":{"durable_name":"FEED","ack_policy":"flow_control","deliver_subject":"$JS.M.feed","max_ack_pending":7}}"#;
                self.request("$JS.API.CONSUMER.CREATE.COUNT.FEED", "side.made", body);
                self.settle_disk()?;
            }
        }
        self.side.is_made = true;
        let header =
            "NATS/1.0\r\nNats-Schedule: @every 1s\r\nNats-Schedule-Target: plan.tick\r\n\r\n";
        self.publish_aside("plan", "plan.every", header, "tick", "side.every");
        self.settle_disk()
    }

    fn publish_aside(
        &mut self,
        stream: &str,
        subject: &str,
        header: &str,
        body: &str,
        reply: &str,
    ) {
        let Some(group) = self.side.groups.get(stream).copied() else {
            return;
        };
        self.note(|| format!("aside to {subject} for {reply}: {header:?} {body}"));
        if let Some(engine) = &mut self.engine {
            let message = Message {
                reply: reply.as_bytes(),
                subject: subject.as_bytes(),
                header: header.as_bytes(),
                payload: body.as_bytes(),
            };
            engine.publish(group, self.now, message, &mut self.wire);
        }
    }

    /// Something is done to the side streams.
    pub(crate) fn act_aside(&mut self) {
        let acts = self.side.is_made && self.engine.is_some();
        if !acts || !self.side.random.chance(25) {
            return;
        }
        match self.side.random.below(10) {
            0..=5 => self.count_aside(),
            6 => self.purge_aside(),
            7 => self.batch_aside(),
            8 => self.fast_aside(),
            _ => self.plan_aside(),
        }
    }

    fn count_aside(&mut self) {
        for _ in 0..=self.side.random.below(6) {
            let subject = format!("count.k{}", self.side.random.below(SUBJECTS));
            let by = self.side.random.below(2001) as i64 - 1000;
            let number = self.number();
            let id = self.side.random.chance(30).then(|| {
                let known = self.side.ids.len() as u64;
                let again = known > 0 && self.side.random.chance(40);
                let at = self.side.random.below(known.max(1)) as usize;
                match self.side.ids.iter().rev().nth(at.min(3)) {
                    Some(id) if again => *id,
                    _ => number,
                }
            });
            let inbox = format!("side.count.{number}");
            let Some(counter) = self.side.counters.get_mut(&subject) else {
                return;
            };
            if counter.purging {
                continue;
            }
            counter.flight.push_back(Increment {
                inbox: inbox.clone(),
                by,
                id,
            });
            self.side.ids.extend(id);
            let id = id.map_or(String::new(), |id| format!("Nats-Msg-Id: {id}\r\n"));
            let header = format!("NATS/1.0\r\nNats-Incr: {by}\r\n{id}\r\n");
            self.publish_aside("count", &subject, &header, "", &inbox);
        }
    }

    fn purge_aside(&mut self) {
        let subject = format!("count.k{}", self.side.random.below(SUBJECTS));
        let Some(counter) = self.side.counters.get_mut(&subject) else {
            return;
        };
        if counter.purging || !counter.flight.is_empty() || !self.side.random.chance(30) {
            return;
        }
        counter.purging = true;
        let inbox = format!("side.purge.{subject}");
        self.note(|| format!("purge {subject}"));
        let body = format!(r#"{{"filter":"{subject}"}}"#);
        self.request("$JS.API.STREAM.PURGE.COUNT", &inbox, &body);
    }

    fn batch_aside(&mut self) {
        let number = self.number();
        let total = 1 + self.side.random.below(5);
        self.side.batches.insert(number, (total, false));
        for index in 1..=total {
            let inbox = format!("side.batch.{number}.{index}");
            let commit = if index == total {
                "Nats-Batch-Commit: 1\r\n"
            } else {
                ""
            };
            let header = format!(
                "NATS/1.0\r\nNats-Batch-Id: {number}\r\nNats-Batch-Sequence: {index}\r\n{commit}\r\n"
            );
            let body = format!("{number} {index}");
            if index == total {
                self.side.batch_flight.insert(inbox.clone(), number);
            }
            self.publish_aside("batch", "batch.a", &header, &body, &inbox);
        }
    }

    fn fast_aside(&mut self) {
        let number = self.number();
        let total = 2 + self.side.random.below(20);
        self.side.fast.insert(number, 0);
        for index in 1..=total {
            let operation = match index {
                1 => 0,
                _ if index == total => 2,
                _ => 1,
            };
            // Now and then one that is refused, and with it all behind it.
            let is_bad = index > 1 && self.side.random.chance(3);
            let header = if is_bad {
                "NATS/1.0\r\nNats-Expected-Stream: ELSEWHERE\r\n\r\n"
            } else {
                ""
            };
            let inbox = format!("side.fast.{number}.3.fail.{index}.{operation}.$FI");
            let body = format!("{number} {index}");
            self.publish_aside("fast", "fast.a", header, &body, &inbox);
        }
    }

    fn plan_aside(&mut self) {
        let number = self.number();
        let due = Timestamp(self.now.0 + self.side.random.below(4 * SECOND as u64) as i64);
        let inbox = format!("side.plan.{number}");
        self.side.plans.insert(number, false);
        self.side.plan_flight.insert(inbox.clone(), number);
        let header = format!(
            "NATS/1.0\r\nNats-Schedule: @at {due}\r\nNats-Schedule-Target: plan.out.{number}\r\n\r\n"
        );
        let subject = format!("plan.in.{number}");
        self.publish_aside("plan", &subject, &header, &number.to_string(), &inbox);
    }

    /// An answer for a client of the side streams.
    pub(crate) fn answered_aside(&mut self, sent: &Sent) -> Result<(), String> {
        let text = &sent.payload;
        self.note(|| format!("{}: {text}", sent.target));
        let answer: Value = serde_json::from_str(text).unwrap_or_default();
        let code = answer["error"]["err_code"].as_u64().unwrap_or(0);
        let fail = |why: &str| Err(format!("{} got {text}: {why}", sent.target));
        let is_full = code == 10047 && self.space != Space::Enough;
        let is_unknown = code == 10008 && self.may_fail;
        let kind = sent.target.split('.').nth(1).unwrap_or_default();
        match kind {
            "count" => {
                let found = self.side.counters.iter_mut().find_map(|(_, counter)| {
                    let at = counter.flight.iter().position(|i| i.inbox == sent.target)?;
                    Some((counter, at))
                });
                let Some((counter, at)) = found else {
                    return fail("nobody waits for it");
                };
                if is_unknown {
                    return Ok(());
                }
                if is_full {
                    counter.flight.remove(at);
                    return Ok(());
                }
                // What came before it in the same run may have to be counted again.
                if answer["duplicate"] == true {
                    return match counter.flight.remove(at).and_then(|done| done.id) {
                        Some(_) => Ok(()),
                        None => fail("it had no id"),
                    };
                }
                if at != 0 || code != 0 {
                    return fail("out of order, or refused");
                }
                let Some(done) = counter.flight.pop_front() else {
                    return Ok(());
                };
                let sum = counter.sum + done.by;
                if answer["val"].as_str() != Some(&sum.to_string()) {
                    return Err(format!("{} got {text}: the sum is {sum}", sent.target));
                }
                counter.sum = sum;
                self.report.acked += 1;
            }
            "purge" => {
                let subject = sent.target.trim_start_matches("side.purge.");
                if let Some(counter) = self.side.counters.get_mut(subject) {
                    if code == 0 {
                        counter.sum = 0;
                    } else if is_unknown {
                        return Ok(());
                    } else if !is_full {
                        return fail("a purge is refused");
                    }
                    counter.purging = false;
                }
            }
            "batch" => {
                let number = self.side.batch_flight.remove(&sent.target);
                if let Some(number) = number.filter(|_| !text.is_empty())
                    && code == 0
                    && let Some(batch) = self.side.batches.get_mut(&number)
                {
                    batch.1 = true;
                } else if code != 0 && !is_full && !is_unknown {
                    return fail("a batch is refused");
                }
            }
            "fast" => {
                let number = sent.target.split('.').nth(2).and_then(|n| n.parse().ok());
                let acked = match (answer["type"].as_str(), answer["count"].as_u64()) {
                    (Some("ack"), _) => answer["seq"].as_u64(),
                    (None, Some(count)) => Some(count),
                    _ => None,
                };
                if let (Some(number), Some(acked)) = (number, acked)
                    && let Some(known) = self.side.fast.get_mut(&number)
                {
                    *known = (*known).max(acked);
                }
            }
            "plan" => {
                let number = self.side.plan_flight.remove(&sent.target);
                match number {
                    Some(number) if code == 0 => {
                        self.side.plans.insert(number, true);
                    }
                    Some(number) if is_full => {
                        self.side.plans.remove(&number);
                    }
                    _ if is_unknown => {}
                    _ => return fail("a schedule is refused"),
                }
            }
            "made" | "every" => {
                if code != 0 {
                    return fail("it cannot be made");
                }
            }
            _ => return fail("nobody asked"),
        }
        Ok(())
    }

    /// What the engine sends to itself: requests of links, what their consumers deliver, acks.
    pub(crate) fn routed(&mut self, sent: &Sent) -> bool {
        if !sent.target.starts_with("$JS.") && !self.wire.links.contains_key(&sent.target) {
            return false;
        }
        let Some(engine) = &mut self.engine else {
            return true;
        };
        let request = ApiRequest {
            account: &self.account,
            subject: sent.subject.as_bytes(),
            reply: sent.reply.as_bytes(),
            header: sent.header.as_bytes(),
            payload: sent.payload.as_bytes(),
            client: b"",
        };
        if let Some(listener) = self.wire.links.get(&sent.target).copied() {
            engine.link_message(listener, request, self.now, &mut self.wire);
        } else if sent.target.starts_with("$JS.API.") {
            engine.request(request, self.now, &mut self.wire);
        } else if sent.target.starts_with("$JS.FC.") {
            engine.flow_control(request, self.now, &mut self.wire);
        } else if sent.target.starts_with("$JS.ACK.") {
            engine.ack(request, self.now, &mut self.wire);
        }
        true
    }

    fn last_aside(&mut self, stream: &str, subject: &str) -> Result<Option<(u64, String)>, String> {
        let body = format!(r#"{{"last_by_subj":"{subject}"}}"#);
        let answer = self.ask(&format!("$JS.API.STREAM.MSG.GET.{stream}"), &body)?;
        let answer: Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
        let data = answer["message"]["data"].as_str().unwrap_or_default();
        let data = decode(data).ok_or("no base64")?;
        Ok(answer["message"]["seq"].as_u64().map(|seq| (seq, data)))
    }

    /// The server has started again: what holds has to hold still.
    pub(crate) fn recover_side(&mut self) -> Result<(), String> {
        if !self.side.is_made {
            return Ok(());
        }
        let subjects: Vec<String> = self.side.counters.keys().cloned().collect();
        for subject in &subjects {
            let last = self.last_aside("COUNT", subject)?;
            let actual = match &last {
                Some((_, body)) => sum_of(body)?,
                None => 0,
            };
            let Some(counter) = self.side.counters.get_mut(subject) else {
                continue;
            };
            let mut possible = vec![counter.sum];
            let mut sums = BTreeSet::from([counter.sum]);
            // Any increment with an id may have been a duplicate.
            for increment in &counter.flight {
                let more: Vec<i64> = sums.iter().map(|sum| sum + increment.by).collect();
                if increment.id.is_none() {
                    sums.clear();
                }
                sums.extend(more);
                possible.extend(&sums);
            }
            if counter.purging {
                possible.push(0);
            }
            if !possible.contains(&actual) {
                return Err(format!("{subject} is {actual} and not one of {possible:?}"));
            }
            counter.sum = actual;
            counter.flight.clear();
            counter.purging = false;
        }
        self.side.batch_flight.clear();
        self.side.plan_flight.clear();
        self.side.checks += 1;
        // It takes a while.
        if self.side.checks.is_multiple_of(4) {
            self.check_batches()?;
        }
        Ok(())
    }

    /// Bodies of a stream that nothing is removed from, in order.
    pub(crate) fn bodies(&mut self, stream: &str) -> Result<Vec<(u64, u64)>, String> {
        let info = self.ask(&format!("$JS.API.STREAM.INFO.{stream}"), "")?;
        let info: Value = serde_json::from_str(&info).map_err(|error| error.to_string())?;
        let last = info["state"]["last_seq"].as_u64().unwrap_or(0);
        let mut bodies = Vec::new();
        for seq in 1..=last {
            let body = format!(r#"{{"seq":{seq}}}"#);
            let answer = self.ask(&format!("$JS.API.STREAM.MSG.GET.{stream}"), &body)?;
            let answer: Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
            let data = answer["message"]["data"].as_str().unwrap_or_default();
            let text = decode(data).ok_or("no base64")?;
            let (batch, index) = text
                .split_once(' ')
                .ok_or_else(|| format!("{stream} {seq}: {answer}"))?;
            let number = |text: &str| text.parse().map_err(|_| format!("{answer}"));
            bodies.push((number(batch)?, number(index)?));
        }
        Ok(bodies)
    }

    fn check_batches(&mut self) -> Result<(), String> {
        let mut found: BTreeMap<u64, u64> = BTreeMap::new();
        let mut before = (0, 0);
        for (batch, index) in self.bodies("BATCH")? {
            if index != 1 && before != (batch, index - 1) {
                return Err(format!("message {index} of batch {batch} is alone"));
            }
            before = (batch, index);
            found.insert(batch, index);
        }
        for (number, (total, is_acked)) in &self.side.batches {
            match found.get(number) {
                Some(count) if count == total => {}
                None if !is_acked => {}
                count => return Err(format!("batch {number} of {total} has {count:?}")),
            }
        }
        let mut found: BTreeMap<u64, u64> = BTreeMap::new();
        for (batch, index) in self.bodies("FAST")? {
            let count = found.entry(batch).or_default();
            *count += 1;
            if index != *count {
                return Err(format!(
                    "message {index} of fast batch {batch} is behind a gap"
                ));
            }
        }
        for (number, acked) in &self.side.fast {
            let count = found.get(number).copied().unwrap_or(0);
            if count < *acked {
                return Err(format!("fast batch {number} has {count} of {acked}"));
            }
        }
        Ok(())
    }

    fn subjects_aside(&mut self, stream: &str) -> Result<BTreeMap<String, u64>, String> {
        let body = r#"{"subjects_filter":">"}"#;
        let info = self.ask(&format!("$JS.API.STREAM.INFO.{stream}"), body)?;
        let info: Value = serde_json::from_str(&info).map_err(|error| error.to_string())?;
        let subjects = info["state"]["subjects"].as_object();
        let counts = subjects.into_iter().flatten();
        Ok(counts
            .map(|(subject, count)| (subject.clone(), count.as_u64().unwrap_or(0)))
            .collect())
    }

    /// The faults have stopped: everything must come to what was promised.
    pub(crate) fn check_side(&mut self) -> Result<(), String> {
        if !self.side.is_made {
            return Ok(());
        }
        let ticks =
            |subjects: &BTreeMap<String, u64>| subjects.get("plan.tick").copied().unwrap_or(0);
        let before = self.subjects_aside("PLAN")?;
        for _ in 0..60 {
            self.wait(SECOND);
            self.settle_disk()?;
        }
        let subjects = self.subjects_aside("PLAN")?;
        if ticks(&subjects) < ticks(&before) + 30 || ticks(&subjects) > ticks(&before) + 70 {
            return Err(format!("{before:?} became {subjects:?} in a minute"));
        }
        for (number, is_acked) in &self.side.plans {
            let out = subjects.get(&format!("plan.out.{number}")).copied();
            let rest = subjects.get(&format!("plan.in.{number}"));
            if out.unwrap_or(0) > 1 || rest.is_some() || (*is_acked && out.is_none()) {
                return Err(format!(
                    "schedule {number}, acknowledged: {is_acked}, produced {out:?} and left {rest:?}"
                ));
            }
        }
        self.check_batches()?;
        self.check_backups()?;
        for subject in self.side.counters.keys().cloned().collect::<Vec<_>>() {
            let Some((seq, body)) = self.last_aside("COUNT", &subject)? else {
                continue;
            };
            let sum = self.side.counters[&subject].sum;
            if sum_of(&body)? != sum {
                return Err(format!("{subject} is {body} and not {sum}"));
            }
            for mirror in ["COPY", "FED"] {
                let copy = self.last_aside(mirror, &subject)?;
                if copy != Some((seq, body.clone())) {
                    return Err(format!("{mirror} has {copy:?} for {seq} {body}"));
                }
            }
            let total = self.last_aside("TOTAL", &subject)?.map(|(_, body)| body);
            if total.as_deref() != Some(body.as_str()) {
                return Err(format!("the source came to {total:?} and not to {body}"));
            }
        }
        Ok(())
    }
}

fn sum_of(body: &str) -> Result<i64, String> {
    let value: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let sum = value["val"].as_str().and_then(|sum| sum.parse().ok());
    sum.ok_or_else(|| format!("{body} is no sum"))
}

/// Text in base64.
fn decode(text: &str) -> Option<String> {
    let bytes = data_encoding::BASE64.decode(text.as_bytes()).ok()?;
    String::from_utf8(bytes).ok()
}
