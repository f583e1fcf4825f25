//! What clients send, and how they take what they get.

use menes_jetstream::Timestamp;
use menes_jetstream::engine::{ApiRequest, Publish as Message};

use crate::disk::Space;
use crate::model::{
    Acks, Answer, ConsumerShape, Expect, Op, Publish, Retention, Rollup, StreamShape,
};
use crate::wire::Sent;
use crate::world::{Delivery, Flight, Pull, SECOND, World};

/// Error numbers of a disk without space, and of a store that failed.
const FULL: u64 = 10047;
const POISONED: u64 = 10008;

impl World {
    pub(crate) fn create_stream(&mut self, slot: usize) {
        let retention = match self.random.below(10) {
            0..=5 => Retention::Limits,
            6 | 7 => Retention::WorkQueue,
            _ => Retention::Interest,
        };
        let is_limits = retention == Retention::Limits;
        let max_age = self
            .random
            .chance(20)
            .then(|| (2 + self.random.below(5) as i64) * SECOND);
        let discard_new = is_limits && max_age.is_none() && self.random.chance(30);
        let max_msgs = (is_limits && self.random.chance(40)).then(|| 3 + self.random.below(30));
        let per_subject = (is_limits && self.random.chance(30)).then(|| 1 + self.random.below(5));
        let discard_new_per_subject =
            discard_new && per_subject.is_some() && self.random.chance(50);
        let shape = StreamShape {
            in_memory: self.random.chance(25),
            retention,
            max_msgs,
            per_subject,
            max_age,
            discard_new,
            discard_new_per_subject,
            window: max_age.map_or(120 * SECOND, |age| age.min(120 * SECOND)),
        };
        let body = stream_body(slot, &shape);
        self.send_op(
            slot,
            Op::CreateStream(shape),
            &format!("STREAM.CREATE.S{slot}"),
            &body,
        );
    }

    pub(crate) fn create_consumer(&mut self, slot: usize) {
        let model = &self.slots[slot].model;
        let Some(stream) = model.shape.clone() else {
            return;
        };
        let free = ["A", "B", "C"]
            .into_iter()
            .find(|name| !model.consumers.contains_key(*name));
        let Some(name) = free else { return };
        let is_queue = stream.retention == Retention::WorkQueue;
        // The consumers of a work queue share it by subject.
        let filter = match (is_queue, name) {
            (true, "A") => Some(format!("s{slot}.k0")),
            (true, "B") => Some(format!("s{slot}.k1")),
            (true, _) => Some(format!("s{slot}.k2")),
            (false, _) => self
                .random
                .chance(30)
                .then(|| format!("s{slot}.k{}", self.random.below(4))),
        };
        let acks = match self.random.below(10) {
            _ if is_queue => Acks::Explicit,
            0..=5 => Acks::Explicit,
            6 | 7 => Acks::All,
            _ => Acks::None,
        };
        let push = self.random.chance(30);
        let shape = ConsumerShape {
            acks,
            filter,
            only_new: !is_queue && self.random.chance(15),
            push,
            flow_control: push && self.random.chance(40),
            max_deliver: (acks != Acks::None && self.random.chance(20))
                .then(|| 1 + self.random.below(3)),
            max_ack_pending: [-1, 3, 100][self.random.below(3) as usize],
            mem_storage: self.random.chance(15),
        };
        let body = consumer_body(slot, name, &shape);
        let incarnation = self.number();
        let what = format!("CONSUMER.CREATE.S{slot}.{name}");
        let op = Op::CreateConsumer(name.to_owned(), incarnation, shape);
        self.send_op(slot, op, &what, &body);
    }

    /// One of the things that administrators do.
    pub(crate) fn change(&mut self, slot: usize) {
        let what = self.random.below(20);
        let number = self.random.draw();
        let is_changing = self.slots[slot].is_changing();
        let model = &self.slots[slot].model;
        let pick = |count: usize| (number % count.max(1) as u64) as usize;
        let name = model
            .consumers
            .keys()
            .nth(pick(model.consumers.len()))
            .cloned();
        match (what, model.shape.clone(), name) {
            (_, None, _) if !is_changing => self.create_stream(slot),
            (_, None, _) => {}
            (0..=3, _, _) => self.purge(slot),
            (4..=7, _, _) => {
                let seq = 1 + self.random.below(model.last + 2);
                let body = format!(r#"{{"seq":{seq}}}"#);
                let what = format!("STREAM.MSG.DELETE.S{slot}");
                self.send_op(slot, Op::DeleteMessage(seq), &what, &body);
            }
            _ if is_changing => {}
            (8..=11, _, _) => self.create_consumer(slot),
            (12..=14, _, Some(name)) => {
                let what = format!("CONSUMER.DELETE.S{slot}.{name}");
                self.send_op(slot, Op::DeleteConsumer(name), &what, "");
            }
            (15, Some(stream), Some(name)) if stream.retention != Retention::WorkQueue => {
                let mut shape = model.consumers[&name].shape.clone();
                shape.filter = Some(format!("s{slot}.k{}", number % 4));
                let body = consumer_body(slot, &name, &shape);
                let what = format!("CONSUMER.CREATE.S{slot}.{name}");
                self.send_op(slot, Op::UpdateConsumer(name, shape), &what, &body);
            }
            (16 | 17, Some(mut shape), _) if shape.retention == Retention::Limits => {
                shape.max_msgs = self.random.chance(60).then(|| 3 + self.random.below(30));
                if !shape.discard_new_per_subject {
                    shape.per_subject = self.random.chance(40).then(|| 1 + self.random.below(5));
                }
                let body = stream_body(slot, &shape);
                let what = format!("STREAM.UPDATE.S{slot}");
                self.send_op(slot, Op::UpdateStream(shape), &what, &body);
            }
            (18, _, _) => {
                let what = format!("STREAM.DELETE.S{slot}");
                self.send_op(slot, Op::DeleteStream, &what, "");
            }
            _ => {}
        }
    }

    fn purge(&mut self, slot: usize) {
        let last = self.slots[slot].model.last;
        let filter = self
            .random
            .chance(40)
            .then(|| format!("s{slot}.k{}", self.random.below(4)));
        let (below, keep) = match self.random.below(3) {
            0 => (None, None),
            1 => (Some(1 + self.random.below(last + 1)), None),
            _ => (None, Some(1 + self.random.below(5))),
        };
        let mut fields = Vec::new();
        fields.extend(
            filter
                .as_ref()
                .map(|filter| format!(r#""filter":"{filter}""#)),
        );
        fields.extend(below.map(|below| format!(r#""seq":{below}"#)));
        fields.extend(keep.map(|keep| format!(r#""keep":{keep}"#)));
        let body = format!("{{{}}}", fields.join(","));
        let op = Op::Purge {
            filter,
            below,
            keep,
        };
        self.send_op(slot, op, &format!("STREAM.PURGE.S{slot}"), &body);
    }

    fn send_op(&mut self, slot: usize, op: Op, what: &str, body: &str) {
        let inbox = format!("op.{slot}.{}", self.number());
        self.note(|| format!("{what} {body} for {inbox}"));
        let flight = Flight {
            op,
            inbox: inbox.clone(),
        };
        self.slots[slot].flight.push_back(flight);
        self.request(&format!("$JS.API.{what}"), &inbox, body);
    }

    pub(crate) fn publish(&mut self, slot: usize) {
        for _ in 0..=self.random.below(8) {
            let Some(group) = self.slots[slot].group else {
                return;
            };
            let is_retry = self.random.chance(30);
            let (id, subject, with_id) = match self.slots[slot].retry.pop() {
                Some((id, subject)) if is_retry => (id, subject, true),
                other => {
                    self.slots[slot].retry.extend(other);
                    let subject = format!("s{slot}.k{}", self.random.below(4));
                    (self.number(), subject, self.random.chance(60))
                }
            };
            let model = &self.slots[slot].model;
            let is_exact = model.shape.as_ref().is_some_and(StreamShape::is_exact);
            let last = model.last + self.slots[slot].flight.len() as u64;
            let expect = match self.random.below(20) {
                0 if is_exact => Expect::Last(last),
                1 if is_exact => Expect::LastOfSubject(self.random.below(last + 1)),
                2 if is_exact => Expect::LastOfSubject(0),
                _ => Expect::Nothing,
            };
            let rollup = match self.random.below(60) {
                0 => Rollup::All,
                1 | 2 => Rollup::Subject,
                _ => Rollup::No,
            };
            let header = header(id, with_id, expect, rollup);
            let inbox = format!("op.{slot}.{}", self.number());
            self.note(|| format!("publish {id} to {subject} for {inbox}: {header:?}"));
            let op = Op::Publish(Publish {
                id,
                subject: subject.clone(),
                time: self.now.0,
                with_id,
                expect,
                rollup,
            });
            let flight = Flight {
                op,
                inbox: inbox.clone(),
            };
            self.slots[slot].flight.push_back(flight);
            let payload = id.to_string();
            if let Some(engine) = &mut self.engine {
                let message = Message {
                    reply: inbox.as_bytes(),
                    subject: subject.as_bytes(),
                    header: header.as_bytes(),
                    payload: payload.as_bytes(),
                };
                engine.publish(group, self.now, message, &mut self.wire);
            }
        }
    }

    pub(crate) fn pull(&mut self, slot: usize) {
        let consumers = &self.slots[slot].model.consumers;
        let pullers: Vec<String> = consumers
            .iter()
            .filter(|(_, consumer)| !consumer.shape.push)
            .map(|(name, _)| name.clone())
            .collect();
        if pullers.is_empty() {
            return;
        }
        let consumer = pullers[self.random.below(pullers.len() as u64) as usize].clone();
        let left = 1 + self.random.below(20);
        let no_wait = self.random.chance(30);
        self.send_pull(slot, &consumer, left, no_wait);
    }

    pub(crate) fn send_pull(&mut self, slot: usize, consumer: &str, left: u64, no_wait: bool) {
        let inbox = format!("pull.{}", self.number());
        self.note(|| format!("pull {left} from S{slot} {consumer} for {inbox}"));
        let pull = Pull {
            slot,
            consumer: consumer.to_owned(),
            left,
        };
        self.pulls.insert(inbox.clone(), pull);
        let body = format!(r#"{{"batch":{left},"expires":1000000000,"no_wait":{no_wait}}}"#);
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.S{slot}.{consumer}");
        self.request(&subject, &inbox, &body);
    }

    pub(crate) fn toggle_listener(&mut self, slot: usize) {
        let name = ["A", "B", "C"][self.random.below(3) as usize];
        let subject = format!("push.{slot}.{name}");
        let set = if self.random.chance(50) {
            &mut self.wire.deaf
        } else {
            &mut self.wire.congested
        };
        if !set.remove(&subject) {
            set.insert(subject);
        }
        if let Some(engine) = &mut self.engine {
            engine.interest_changed();
        }
    }

    pub(crate) fn acknowledge(&mut self) {
        for _ in 0..=self.random.below(6) {
            if self.open.is_empty() {
                return;
            }
            let at = self.random.below(self.open.len() as u64) as usize;
            let delivery = self.open.swap_remove(at);
            // While it changes whose delivery that is, the clients hold back.
            if self.slots[delivery.slot].is_changing() {
                self.open.push(delivery);
                return;
            }
            let (payload, settles) = match self.random.below(20) {
                0..=13 => ("+ACK", true),
                14 => ("+TERM tired", true),
                15 => ("-NAK", false),
                16 => (r#"-NAK {"delay":500000000}"#, false),
                17 => ("+WPI", false),
                _ => ("", true),
            };
            let is_confirmed = !payload.is_empty();
            self.send_ack(delivery, payload, settles, is_confirmed);
        }
    }

    /// Sends an ack; `settles` if it ends the delivery, `is_confirmed` if it asks for an answer.
    pub(crate) fn send_ack(
        &mut self,
        delivery: Delivery,
        payload: &str,
        settles: bool,
        is_confirmed: bool,
    ) {
        let reply = if is_confirmed {
            format!("ack.{}", self.number())
        } else {
            String::new()
        };
        self.note(|| format!("{payload} {delivery:?} for {reply:?}"));
        let model = &mut self.slots[delivery.slot].model;
        // An ack for an earlier stream must do nothing.
        if settles && model.incarnation == delivery.stream {
            model.attempt(&delivery.consumer, delivery.seq);
            if is_confirmed {
                self.acks.insert(reply.clone(), delivery.clone());
            }
        }
        if let Some(engine) = &mut self.engine {
            let request = ApiRequest {
                account: &self.account,
                subject: delivery.subject.as_bytes(),
                reply: reply.as_bytes(),
                header: b"",
                payload: payload.as_bytes(),
                client: b"",
            };
            engine.ack(request, self.now, &mut self.wire);
        }
    }

    /// The clients read what was sent to them.
    pub(crate) fn receive(&mut self) -> Result<(), String> {
        for sent in std::mem::take(&mut self.wire.sent) {
            if self.routed(&sent) {
                continue;
            }
            let kind = sent.target.split('.').next().unwrap_or_default();
            match kind {
                "side" => self.answered_aside(&sent)?,
                "back" => self.told_of_backup(&sent)?,
                "op" => self.answered(&sent)?,
                "ack" => {
                    if let Some(delivery) = self.acks.remove(&sent.target) {
                        self.note(|| format!("{delivery:?} settled"));
                        self.report.settled += 1;
                        let model = &mut self.slots[delivery.slot].model;
                        if model.incarnation == delivery.stream {
                            model.settle(&delivery.consumer, delivery.incarnation, delivery.seq);
                        }
                    }
                }
                "pull" | "push" => self.take_delivery(sent)?,
                _ => return Err(format!("nobody asked for {:?}", sent.target)),
            }
        }
        Ok(())
    }

    fn answered(&mut self, sent: &Sent) -> Result<(), String> {
        let slot: usize = sent
            .target
            .split('.')
            .nth(1)
            .and_then(|number| number.parse().ok())
            .ok_or("a foreign inbox")?;
        let text = &sent.payload;
        self.note(|| format!("{}: {text}", sent.target));
        let now = self.now.0;
        let entry = &mut self.slots[slot];
        let at = entry
            .flight
            .iter()
            .position(|flight| flight.inbox == sent.target);
        let at = at.ok_or_else(|| format!("{} is answered twice: {text}", sent.target))?;
        let code = number_after(text, r#""err_code":"#).unwrap_or(0);
        if code == FULL && self.space != Space::Enough {
            self.report.refused += 1;
            entry.flight.remove(at);
            return Ok(());
        }
        if code == POISONED && self.may_fail {
            // Unknown: it may be in the log.
            return Ok(());
        }
        if at > 0 {
            let first = &entry.flight[0];
            return Err(format!("{} is answered before {first:?}", sent.target));
        }
        let Some(Flight { op, .. }) = entry.flight.pop_front() else {
            return Err("nothing is in flight".to_owned());
        };
        let expected = entry.model.apply(&op, now);
        if matches!(op, Op::Publish(_)) {
            self.report.acked += u64::from(code == 0);
        } else {
            self.report.commands += 1;
        }
        if is_as_expected(expected, code, text) {
            Ok(())
        } else {
            Err(format!(
                "{op:?} is answered with {text}, not with {expected:?}"
            ))
        }
    }

    fn take_delivery(&mut self, sent: Sent) -> Result<(), String> {
        if !sent.reply.starts_with("$JS.ACK.") {
            if sent.reply.starts_with("$JS.FC.")
                && let Some(engine) = &mut self.engine
            {
                let request = ApiRequest {
                    account: &self.account,
                    subject: sent.reply.as_bytes(),
                    reply: b"",
                    header: b"",
                    payload: b"",
                    client: b"",
                };
                engine.flow_control(request, self.now, &mut self.wire);
            } else if !sent.header.starts_with("NATS/1.0 100") {
                self.note(|| format!("{}: {:?}", sent.target, sent.header));
                self.pulls.remove(&sent.target);
            }
            return Ok(());
        }
        self.report.delivered += 1;
        self.note(|| format!("{} got {} {}", sent.target, sent.payload, sent.reply));
        let delivery = self.check_delivery(&sent)?;
        if sent.target.starts_with("pull.") {
            let pull = self.pulls.get_mut(&sent.target);
            let pull = pull.filter(|p| p.slot == delivery.slot && p.consumer == delivery.consumer);
            let Some(pull) = pull else {
                return Err(format!("{} got more than it asked for", sent.target));
            };
            pull.left -= 1;
            if pull.left == 0 {
                self.pulls.remove(&sent.target);
            }
        }
        self.open.push(delivery);
        Ok(())
    }

    /// Whether a delivery is one that may be made now.
    fn check_delivery(&mut self, sent: &Sent) -> Result<Delivery, String> {
        let what = format!("{} {} {:?}", sent.reply, sent.subject, sent.payload);
        let fail = |why: &str| Err(format!("{what}: {why}"));
        let tokens: Vec<&str> = sent.reply.split('.').collect();
        let number = |at: usize| tokens.get(at).and_then(|token| token.parse::<u64>().ok());
        let (Some(count), Some(seq), Some(consumer_seq), Some(pending)) =
            (number(4), number(5), number(6), number(8))
        else {
            return fail("not an ack subject");
        };
        let slot = tokens[2]
            .strip_prefix('S')
            .and_then(|slot| slot.parse::<usize>().ok());
        let Some(entry) = slot.and_then(|slot| self.slots.get_mut(slot)) else {
            return fail("of no stream");
        };
        let model = &mut entry.model;
        let is_exact = model.shape.as_ref().is_some_and(StreamShape::is_exact);
        let Some(message) = model.messages.get(&seq) else {
            return fail("it is not in the stream");
        };
        if message.id.to_string() != sent.payload || message.subject != sent.subject {
            return fail("it is another message");
        }
        let name = tokens[3];
        let Some(consumer) = model.consumers.get_mut(name) else {
            return fail("there is no such consumer");
        };
        let is_again = count > 1 && seq <= consumer.changed_at;
        if !consumer.covers(seq, &sent.subject) && !is_again {
            return fail("the consumer does not want it");
        }
        if consumer.settled.contains(&seq) {
            return fail("it was settled, and that was confirmed");
        }
        if consumer.shape.max_deliver.is_some_and(|max| count > max) {
            return fail("it was delivered often enough");
        }
        if consumer
            .last_consumer_seq
            .is_some_and(|last| consumer_seq != last + 1)
        {
            return fail("the consumer sequence has a gap");
        }
        consumer.last_consumer_seq = Some(consumer_seq);
        let before = consumer.counts.insert(seq, count);
        if before.is_some_and(|before| count <= before) {
            return fail("deliveries are counted backwards");
        }
        if count == 1 {
            if seq <= consumer.cursor {
                return fail("first deliveries are out of order");
            }
            consumer.cursor = seq;
            let to_come = model
                .messages
                .range(seq + 1..)
                .filter(|(_, message)| consumer.matches(&message.subject))
                .count() as u64;
            if is_exact && pending != to_come {
                return Err(format!("{what}: {to_come} messages are to come"));
            }
        }
        consumer.delivered.insert(seq);
        let incarnation = consumer.incarnation;
        let is_unacked = consumer.shape.acks == Acks::None;
        if is_unacked {
            model.attempt(name, seq);
        }
        Ok(Delivery {
            slot: slot.unwrap_or_default(),
            stream: model.incarnation,
            consumer: name.to_owned(),
            incarnation,
            seq,
            subject: sent.reply.clone(),
        })
    }

    pub(crate) fn wait(&mut self, nanos: i64) {
        self.now = Timestamp(self.now.0 + nanos);
    }
}

fn stream_body(slot: usize, shape: &StreamShape) -> String {
    let limit = |limit: Option<u64>| limit.map_or(-1, |limit| limit as i64);
    format!(
        r#"{{"name":"S{slot}","subjects":["s{slot}.>"],"retention":"{}","storage":"{}","max_msgs":{},"max_msgs_per_subject":{},"max_age":{},"discard":"{}","discard_new_per_subject":{},"duplicate_window":{},"allow_direct":true,"allow_rollup_hdrs":true}}"#,
        shape.retention.name(),
        if shape.in_memory { "memory" } else { "file" },
        limit(shape.max_msgs),
        limit(shape.per_subject),
        shape.max_age.unwrap_or(0),
        if shape.discard_new { "new" } else { "old" },
        shape.discard_new_per_subject,
        shape.window,
    )
}

fn consumer_body(slot: usize, name: &str, shape: &ConsumerShape) -> String {
    let mut fields = vec![
        format!(r#""durable_name":"{name}""#),
        format!(r#""ack_policy":"{}""#, shape.acks.name()),
        format!(r#""mem_storage":{}"#, shape.mem_storage),
    ];
    if shape.acks != Acks::None {
        fields.push(r#""ack_wait":2000000000"#.to_owned());
        fields.push(format!(r#""max_ack_pending":{}"#, shape.max_ack_pending));
    }
    if shape.only_new {
        fields.push(r#""deliver_policy":"new""#.to_owned());
    }
    if let Some(filter) = &shape.filter {
        fields.push(format!(r#""filter_subject":"{filter}""#));
    }
    if shape.push {
        fields.push(format!(r#""deliver_subject":"push.{slot}.{name}""#));
    }
    if shape.flow_control {
        fields.push(r#""flow_control":true,"idle_heartbeat":1000000000"#.to_owned());
    }
    if let Some(max) = shape.max_deliver {
        fields.push(format!(r#""max_deliver":{max}"#));
    }
    let config = fields.join(",");
    format!(r#"{{"stream_name":"S{slot}","config":{{{config}}}}}"#)
}

fn header(id: u64, with_id: bool, expect: Expect, rollup: Rollup) -> String {
    let mut lines = Vec::new();
    if with_id {
        lines.push(format!("Nats-Msg-Id: {id}"));
    }
    match expect {
        Expect::Nothing => {}
        Expect::Last(last) => lines.push(format!("Nats-Expected-Last-Sequence: {last}")),
        Expect::LastOfSubject(last) => {
            lines.push(format!("Nats-Expected-Last-Subject-Sequence: {last}"));
        }
    }
    match rollup {
        Rollup::No => {}
        Rollup::Subject => lines.push("Nats-Rollup: sub".to_owned()),
        Rollup::All => lines.push("Nats-Rollup: all".to_owned()),
    }
    if lines.is_empty() {
        return String::new();
    }
    format!("NATS/1.0\r\n{}\r\n\r\n", lines.join("\r\n"))
}

fn is_as_expected(expected: Answer, code: u64, text: &str) -> bool {
    // The reference server has three refusals for a message that is not there.
    let is_code = |wanted: u64| code == wanted || (wanted == 10043 && code == 10057);
    let seq = number_after(text, r#""seq":"#);
    let is_duplicate = text.contains(r#""duplicate": true"#);
    match expected {
        Answer::Stored(wanted) => code == 0 && seq == Some(wanted) && !is_duplicate,
        Answer::Duplicate(wanted) => code == 0 && seq == Some(wanted) && is_duplicate,
        Answer::Code(wanted) => is_code(wanted),
        Answer::DoneOr(wanted) => code == 0 || is_code(wanted),
        Answer::Purged { least, most } => {
            let purged = number_after(text, r#""purged":"#);
            code == 0 && purged.is_some_and(|purged| (least..=most).contains(&purged))
        }
    }
}

pub(crate) fn number_after(text: &str, key: &str) -> Option<u64> {
    let rest = text.get(text.find(key)? + key.len()..)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
