//! The server goes down and comes back; in the end the faults stop and everything must be there.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::disk::Space;
use crate::model::{Acks, Contents, Op, StreamModel};
use crate::world::{MILLISECOND, SECOND, World};

impl World {
    /// The power goes. The server starts again on what is left, and what the streams hold then must
    /// be what the clients know, give or take operations that were never answered.
    pub(crate) fn crash(&mut self) -> Result<(), String> {
        self.note(|| "crash".to_owned());
        self.report.crashes += 1;
        self.engine = None;
        self.disk.crash(&mut self.random);
        self.may_fail = false;
        self.wire.sent.clear();
        self.acks.clear();
        self.pulls.clear();
        self.wait(MILLISECOND);
        self.start()?;
        for slot in 0..self.slots.len() {
            self.recover(slot)
                .map_err(|error| format!("S{slot} after a crash: {error}"))?;
        }
        // Clients forget most of what they were working on.
        let random = &mut self.random;
        self.open.retain(|_| random.chance(20));
        self.recover_side()?;
        self.recover_backups()?;
        self.recover_tally()
    }

    fn recover(&mut self, slot: usize) -> Result<(), String> {
        let actual = self.read(slot)?;
        let now = self.now.0;
        let flight = std::mem::take(&mut self.slots[slot].flight);
        let mut model = self.slots[slot].model.clone();
        let mut found: Option<(usize, StreamModel)> = None;
        let mut why = Vec::new();
        for count in 0..=flight.len() {
            let mut candidate = model.clone();
            candidate.restart();
            let result = match &actual {
                Some(actual) => candidate.compare(actual, now),
                None if candidate.shape.is_none() => Ok(()),
                None => Err("there is no stream".to_owned()),
            };
            match result {
                Ok(()) => found = Some((count, candidate)),
                Err(error) => why.push(error),
            }
            if let Some(flight) = flight.get(count) {
                let in_memory = model.shape.as_ref().is_some_and(|shape| shape.in_memory);
                if !(in_memory && matches!(flight.op, Op::Publish(_))) {
                    model.apply(&flight.op, now);
                }
            }
        }
        let Some((count, model)) = found else {
            let waiting: Vec<_> = flight.iter().map(|flight| &flight.op).collect();
            return Err(format!(
                "{why:?}; not answered were {waiting:?}; it holds {actual:?}"
            ));
        };
        self.note(|| format!("S{slot}: {count} of {} are in the log", flight.len()));
        let entry = &mut self.slots[slot];
        entry.model = model;
        entry.retry.truncate(20);
        for flight in flight {
            if let Op::Publish(publish) = flight.op
                && publish.with_id
            {
                entry.retry.push((publish.id, publish.subject));
            }
        }
        Ok(())
    }

    fn recover_tally(&mut self) -> Result<(), String> {
        let Some(engine) = &self.engine else {
            return Ok(());
        };
        let actual = engine.application().0.clone();
        let sure = self.tally.len();
        let sent: Vec<u64> = self
            .tally
            .iter()
            .chain(&self.tally_flight)
            .copied()
            .collect();
        if actual.len() < sure || !sent.starts_with(&actual) {
            return Err(format!(
                "the application has {actual:?}; done were {:?}, sent {:?}",
                self.tally, self.tally_flight
            ));
        }
        self.tally = actual;
        self.tally_flight.clear();
        Ok(())
    }

    /// What a stream holds, if there is one.
    fn read(&mut self, slot: usize) -> Result<Option<Contents>, String> {
        let info = self.ask_json(&format!("$JS.API.STREAM.INFO.S{slot}"), "")?;
        if info["error"]["err_code"] == 10059 {
            return Ok(None);
        }
        let number = |value: &Value| {
            value
                .as_u64()
                .ok_or_else(|| format!("{info} lacks a number"))
        };
        let limit = |value: &Value| value.as_i64().and_then(|limit| u64::try_from(limit).ok());
        let state = &info["state"];
        let config = &info["config"];
        let mut contents = Contents {
            last: number(&state["last_seq"])?,
            limits: (
                limit(&config["max_msgs"]),
                limit(&config["max_msgs_per_subject"]),
            ),
            ..Contents::default()
        };
        let first = number(&state["first_seq"])?.max(1);
        let count = number(&state["messages"])?;
        for seq in first..=contents.last {
            let answer = self.ask(
                &format!("$JS.API.DIRECT.GET.S{slot}"),
                &format!(r#"{{"seq":{seq}}}"#),
            )?;
            if answer.starts_with("NATS/1.0 404") {
                continue;
            }
            let subject = answer
                .lines()
                .find_map(|line| line.strip_prefix("Nats-Subject: "))
                .ok_or_else(|| format!("{seq} cannot be read: {answer}"))?;
            let id = answer.rsplit("\r\n").next().and_then(|id| id.parse().ok());
            let id = id.ok_or_else(|| format!("{seq} carries foreign bytes: {answer}"))?;
            contents.messages.insert(seq, (id, subject.to_owned()));
        }
        if contents.messages.len() as u64 != count {
            return Err(format!("{count} messages are counted in {contents:?}"));
        }
        if contents.messages.first_key_value().map(|(seq, _)| *seq) != (count > 0).then_some(first)
        {
            return Err(format!("{first} is not the first of {contents:?}"));
        }
        let list = self.ask_json(&format!("$JS.API.CONSUMER.LIST.S{slot}"), "")?;
        for consumer in list["consumers"].as_array().into_iter().flatten() {
            let name = consumer["name"].as_str().unwrap_or_default().to_owned();
            let filter = consumer["config"]["filter_subject"]
                .as_str()
                .map(str::to_owned);
            contents.consumers.insert(name, filter);
        }
        Ok(Some(contents))
    }

    fn ask_json(&mut self, subject: &str, payload: &str) -> Result<Value, String> {
        let answer = self.ask(subject, payload)?;
        serde_json::from_str(&answer).map_err(|error| format!("{subject}: {error}: {answer}"))
    }

    /// The faults stop; everything must be there and everything must flow.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        self.space = Space::Enough;
        self.disk.set_space(Space::Enough);
        self.wire.deaf.clear();
        self.wire.congested.clear();
        self.crash()?;
        self.note(|| "the faults stop".to_owned());
        if let Some(engine) = &mut self.engine {
            engine.interest_changed();
        }
        self.settle_disk()?;
        for slot in 0..self.slots.len() {
            if self.slots[slot].model.shape.is_none() {
                self.create_stream(slot);
                self.settle_disk()?;
            }
            self.publish(slot);
            self.settle_disk()?;
            if let Some(flight) = self.slots[slot].flight.front() {
                return Err(format!("{flight:?} is not answered"));
            }
            self.drain(slot)
                .map_err(|error| format!("S{slot} in the end: {error}"))?;
        }
        self.wait(20 * SECOND);
        self.settle_disk()?;
        for slot in 0..self.slots.len() {
            self.check_end(slot)
                .map_err(|error| format!("S{slot} at the end: {error}"))?;
        }
        self.check_side()
    }

    /// Every message is delivered to every consumer that wants it, and settled.
    fn drain(&mut self, slot: usize) -> Result<(), String> {
        // What clients held back is forgotten: all of it is delivered again.
        self.open.clear();
        self.settle_disk()?;
        let before = self.wanted(slot);
        let mut quiet = 0;
        for _ in 0..300 {
            let consumers = &self.slots[slot].model.consumers;
            let pullers: Vec<String> = consumers
                .iter()
                .filter(|(_, consumer)| !consumer.shape.push)
                .map(|(name, _)| name.clone())
                .collect();
            for name in pullers {
                self.send_pull(slot, &name, 1000, false);
            }
            self.settle_disk()?;
            let open = std::mem::take(&mut self.open);
            quiet = if open.is_empty() { quiet + 1 } else { 0 };
            if quiet > 3 {
                break;
            }
            for delivery in open {
                self.send_ack(delivery, "+ACK", true, true);
            }
            self.settle_disk()?;
            self.wait(SECOND);
        }
        let now = self.now.0;
        let model = &self.slots[slot].model;
        for (name, seqs) in before {
            let Some(consumer) = model.consumers.get(&name) else {
                continue;
            };
            for seq in seqs {
                let is_over = consumer.settled.contains(&seq)
                    || consumer.attempted.contains(&seq)
                    || consumer.delivered.contains(&seq)
                    || !model.messages.contains_key(&seq)
                    || model.may_be_gone(seq, now);
                if !is_over {
                    return Err(format!("{seq} was never delivered to {name}"));
                }
            }
        }
        Ok(())
    }

    /// What each consumer still has to deliver for all its clients know.
    fn wanted(&self, slot: usize) -> BTreeMap<String, Vec<u64>> {
        let model = &self.slots[slot].model;
        let of_consumer = |name: &String| {
            let consumer = &model.consumers[name];
            let seqs = model
                .messages
                .iter()
                .filter(|(seq, message)| {
                    consumer.covers(**seq, &message.subject)
                        && **seq > consumer.changed_at
                        && !consumer.settled.contains(seq)
                        && !consumer.attempted.contains(seq)
                })
                .map(|(seq, _)| *seq)
                .collect();
            (name.clone(), seqs)
        };
        model.consumers.keys().map(of_consumer).collect()
    }

    fn check_end(&mut self, slot: usize) -> Result<(), String> {
        let Some(actual) = self.read(slot)? else {
            return match self.slots[slot].model.shape {
                None => Ok(()),
                Some(_) => Err("there is no stream".to_owned()),
            };
        };
        let now = self.now.0;
        let model = &mut self.slots[slot].model;
        model.compare(&actual, now)?;
        let age = model.shape.as_ref().and_then(|shape| shape.max_age);
        let old = age.and_then(|age| {
            let mut messages = model.messages.iter();
            messages.find(|(_, message)| message.time + age + SECOND < now)
        });
        if let Some((seq, message)) = old {
            return Err(format!("{seq} did not expire: {message:?}"));
        }
        let names: Vec<_> = model
            .consumers
            .iter()
            .map(|(name, consumer)| (name.clone(), consumer.shape.clone()))
            .collect();
        for (name, shape) in names {
            let info = self.ask_json(&format!("$JS.API.CONSUMER.INFO.S{slot}.{name}"), "")?;
            let zeros = ["num_pending", "num_ack_pending"];
            let rest = zeros.iter().find(|key| info[**key] != 0);
            if let Some(key) = rest {
                return Err(format!("{key} of {name} is not zero: {info}"));
            }
            let floor = &info["ack_floor"]["stream_seq"];
            let delivered = &info["delivered"]["stream_seq"];
            if shape.acks != Acks::None && floor != delivered {
                return Err(format!("the ack floor of {name} stays behind: {info}"));
            }
        }
        Ok(())
    }
}
