//! One run: a server, its disk, clients that remember everything, and what must always hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use menes_jetstream::engine::{ApiRequest, Change, Engine, NoApplication, Options, Publish};
use menes_jetstream::ports::{Outbox, Outgoing};
use menes_jetstream::{AccountName, GroupId, Timestamp};

use crate::disk::{SimDisk, SimLog, SimState};
use crate::mutant::Mutant;
use crate::random::Random;

const START: i64 = 1_800_000_000_000_000_000;
const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MILLISECOND;

/// What a run is told to do.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Everything the run draws comes from this.
    pub seed: u64,
    /// Steps before the faults stop.
    pub steps: u64,
    /// A planted bug.
    pub mutant: Option<Mutant>,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Report {
    /// Publishes acknowledged.
    pub acked: u64,
    /// Crashes.
    pub crashes: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Double acks answered.
    pub settled: u64,
    /// Hash of everything that happened, in order.
    pub trace: u64,
    /// The last events, oldest first.
    pub events: VecDeque<String>,
}

/// An invariant that did not hold.
#[derive(Debug)]
pub struct Violation {
    /// Which, and how.
    pub what: String,
    /// What the run had done by then.
    pub report: Report,
}

/// A message that went out of the server.
struct Sent {
    target: Vec<u8>,
    subject: Vec<u8>,
    reply: Vec<u8>,
    header: Vec<u8>,
    payload: Vec<u8>,
}

/// Collects what the engine sends; everyone has interest.
#[derive(Default)]
struct Wire(Vec<Sent>);

impl Outbox for Wire {
    fn send(&mut self, message: Outgoing<'_>) -> bool {
        self.0.push(Sent {
            target: message.target.to_vec(),
            subject: message.subject.to_vec(),
            reply: message.reply.to_vec(),
            header: message.header.to_vec(),
            payload: message.payload.to_vec(),
        });
        true
    }

    fn has_interest(&mut self, _: &AccountName, _: &[u8], _: Option<&[u8]>) -> bool {
        true
    }
}

/// A publish whose outcome the client waits for.
#[derive(Clone)]
struct Attempt {
    stream: usize,
    id: u64,
    with_id: bool,
}

/// What the clients of one stream know.
#[derive(Default)]
struct Ledger {
    /// Whether messages go once they are settled.
    removes_settled: bool,
    /// Sequence of each acknowledged message.
    acked: BTreeMap<u64, u64>,
    /// Ids ever sent.
    sent: BTreeSet<u64>,
    /// Highest sequence ever acknowledged.
    highest: u64,
    /// Sequences whose double ack was answered.
    settled: BTreeSet<u64>,
    /// Sequences delivered at least once, with the id they carried.
    delivered: BTreeMap<u64, u64>,
    /// Sequences for which an ack was sent, answered or not.
    attempted: BTreeSet<u64>,
    /// Ids that may be sent again with their message id: sent before a crash, never answered.
    unknown: Vec<u64>,
}

/// A run in progress.
pub struct World {
    settings: Settings,
    random: Random,
    now: Timestamp,
    disk: SimDisk,
    engine: Option<Engine<SimLog, SimState, NoApplication>>,
    wire: Wire,
    account: AccountName,
    groups: BTreeMap<usize, GroupId>,
    streams: usize,
    ledgers: Vec<Ledger>,
    attempts: BTreeMap<Vec<u8>, Attempt>,
    acks: BTreeMap<Vec<u8>, (usize, u64)>,
    next_id: u64,
    next_reply: u64,
    /// Deliveries not acknowledged yet: stream, sequence, ack subject.
    open: Vec<(usize, u64, Vec<u8>)>,
    answers: BTreeMap<Vec<u8>, Sent>,
    report: Report,
}

impl World {
    /// Runs one seed to the end.
    ///
    /// # Errors
    /// The first invariant that did not hold.
    pub fn run(settings: Settings) -> Result<Report, Violation> {
        let mut random = Random::new(settings.seed);
        let streams = 1 + random.below(3) as usize;
        let mut world = Self {
            settings,
            random,
            now: Timestamp(START),
            disk: SimDisk::new(settings.mutant),
            engine: None,
            wire: Wire::default(),
            account: AccountName::global(),
            groups: BTreeMap::new(),
            streams,
            ledgers: (0..streams).map(|_| Ledger::default()).collect(),
            attempts: BTreeMap::new(),
            acks: BTreeMap::new(),
            next_id: 1,
            next_reply: 1,
            open: Vec::new(),
            answers: BTreeMap::new(),
            report: Report::default(),
        };
        match world.play() {
            Ok(()) => Ok(world.report),
            Err(what) => Err(Violation {
                what,
                report: world.report,
            }),
        }
    }

    fn play(&mut self) -> Result<(), String> {
        self.start()?;
        for stream in 0..self.streams {
            self.create(stream)?;
        }
        for _ in 0..self.settings.steps {
            self.step()?;
        }
        self.heal()
    }

    fn note(&mut self, event: impl FnOnce() -> String) {
        let text = event();
        // FNV-1a over the text.
        let mut hash = self.report.trace ^ 0xcbf2_9ce4_8422_2325;
        for byte in text.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.report.trace = hash;
        if self.report.events.len() == 200 {
            self.report.events.pop_front();
        }
        self.report.events.push_back(text);
    }

    fn start(&mut self) -> Result<(), String> {
        let (log, state) = self.disk.open();
        let options = Options {
            seed: self.random.draw(),
            ..Options::default()
        };
        let engine = Engine::open(log, state, NoApplication, options, self.now)
            .map_err(|error| format!("the engine does not open: {error}"))?;
        self.engine = Some(engine);
        self.groups.clear();
        self.take_changes();
        Ok(())
    }

    fn take_changes(&mut self) {
        let Some(engine) = &mut self.engine else {
            return;
        };
        for change in engine.take_changes() {
            if let Change::Capture {
                group, subjects, ..
            } = change
            {
                for subject in subjects {
                    let stream = subject
                        .trim_start_matches('s')
                        .trim_end_matches(".>")
                        .parse();
                    if let Ok(stream) = stream {
                        self.groups.insert(stream, group);
                    }
                }
            }
        }
    }

    fn reply(&mut self, kind: &str) -> Vec<u8> {
        self.next_reply += 1;
        format!("_INBOX.{kind}.{}", self.next_reply).into_bytes()
    }

    fn create(&mut self, stream: usize) -> Result<(), String> {
        let retention = match self.random.below(10) {
            0..=5 => "limits",
            6 | 7 => "workqueue",
            _ => "interest",
        };
        self.ledgers[stream].removes_settled = retention != "limits";
        self.note(|| format!("S{stream} keeps by {retention}"));
        let config = format!(
            r#"{{"name":"S{stream}","subjects":["s{stream}.>"],"retention":"{retention}","storage":"file","allow_direct":true,"duplicate_window":120000000000}}"#
        );
        let answer = self.call(
            &format!("$JS.API.STREAM.CREATE.S{stream}"),
            config.as_bytes(),
        )?;
        if answer.windows(7).any(|w| w == b"\"error\"") {
            return Err(format!(
                "stream not created: {}",
                String::from_utf8_lossy(&answer)
            ));
        }
        let consumer = format!(
            r#"{{"stream_name":"S{stream}","config":{{"durable_name":"C","ack_policy":"explicit","ack_wait":2000000000,"max_ack_pending":10000}},"action":"create"}}"#
        );
        let answer = self.call(
            &format!("$JS.API.CONSUMER.CREATE.S{stream}.C"),
            consumer.as_bytes(),
        )?;
        if answer.windows(7).any(|w| w == b"\"error\"") {
            return Err(format!(
                "consumer not created: {}",
                String::from_utf8_lossy(&answer)
            ));
        }
        Ok(())
    }

    /// An API request, answered with a healthy disk.
    fn call(&mut self, subject: &str, payload: &[u8]) -> Result<Vec<u8>, String> {
        let reply = self.reply("call");
        self.request(subject.as_bytes(), &reply, payload);
        for _ in 0..100 {
            if let Some(answer) = self.answers.remove(&reply) {
                return Ok(if answer.payload.is_empty() {
                    answer.header
                } else {
                    answer.payload
                });
            }
            self.settle_disk()?;
        }
        Err(format!("no answer to {subject}"))
    }

    fn request(&mut self, subject: &[u8], reply: &[u8], payload: &[u8]) {
        let Some(engine) = &mut self.engine else {
            return;
        };
        let request = ApiRequest {
            account: &self.account,
            subject,
            reply,
            header: b"",
            payload,
        };
        engine.request(request, self.now, &mut self.wire);
    }

    fn settle_disk(&mut self) -> Result<(), String> {
        self.turn()?;
        self.disk.begin_sync();
        self.disk.end_sync();
        self.turn()?;
        self.now = Timestamp(self.now.0 + MILLISECOND);
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        self.now = Timestamp(self.now.0 + (self.random.below(5_000_000) as i64));
        match self.random.below(100) {
            0..=34 => self.publish(),
            35..=54 => self.turn(),
            55..=66 => {
                self.disk.begin_sync();
                Ok(())
            }
            67..=76 => {
                self.disk.end_sync();
                self.turn()
            }
            77..=80 => {
                self.disk.end_flush();
                Ok(())
            }
            81..=88 => {
                self.pull();
                Ok(())
            }
            89..=95 => {
                self.acknowledge();
                Ok(())
            }
            96 => {
                let wait = self.random.below(3) as i64 * SECOND;
                self.now = Timestamp(self.now.0 + wait);
                self.turn()
            }
            97 => {
                let Some(engine) = &mut self.engine else {
                    return Ok(());
                };
                engine.flush_state().map_err(|error| error.to_string())
            }
            _ => self.crash(),
        }
    }

    fn publish(&mut self) -> Result<(), String> {
        let stream = self.random.below(self.streams as u64) as usize;
        let Some(&group) = self.groups.get(&stream) else {
            return Ok(());
        };
        for _ in 0..=self.random.below(8) {
            let retry = self.random.chance(30);
            let (id, with_id) = match self.ledgers[stream].unknown.pop() {
                Some(id) if retry => (id, true),
                other => {
                    self.ledgers[stream].unknown.extend(other);
                    self.next_id += 1;
                    (self.next_id, self.random.chance(60))
                }
            };
            let reply = self.reply("ack");
            let subject = format!("s{stream}.k{}", self.random.below(4));
            let header = if with_id {
                format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n").into_bytes()
            } else {
                Vec::new()
            };
            let payload = id.to_string().into_bytes();
            self.note(|| format!("publish {id} to {subject}, with id {with_id}"));
            self.ledgers[stream].sent.insert(id);
            self.attempts.insert(
                reply.clone(),
                Attempt {
                    stream,
                    id,
                    with_id,
                },
            );
            let Some(engine) = &mut self.engine else {
                return Ok(());
            };
            engine.publish(
                group,
                self.now,
                Publish {
                    reply: &reply,
                    subject: subject.as_bytes(),
                    header: &header,
                    payload: &payload,
                },
                &mut self.wire,
            );
        }
        Ok(())
    }

    fn pull(&mut self) {
        let stream = self.random.below(self.streams as u64) as usize;
        let inbox = format!("_INBOX.pull.{stream}").into_bytes();
        let batch = 1 + self.random.below(20);
        self.note(|| format!("pull {batch} from S{stream}"));
        self.request(
            format!("$JS.API.CONSUMER.MSG.NEXT.S{stream}.C").as_bytes(),
            &inbox,
            format!(r#"{{"batch":{batch},"expires":1000000000}}"#).as_bytes(),
        );
    }

    fn acknowledge(&mut self) {
        if self.open.is_empty() {
            return;
        }
        for _ in 0..=self.random.below(6) {
            if self.open.is_empty() {
                return;
            }
            let at = self.random.below(self.open.len() as u64) as usize;
            let (stream, seq, subject) = self.open.swap_remove(at);
            let payload: &[u8] = if self.random.chance(85) {
                b"+ACK"
            } else {
                b"-NAK"
            };
            let reply = self.reply("done");
            if payload == b"+ACK" {
                self.acks.insert(reply.clone(), (stream, seq));
                self.ledgers[stream].attempted.insert(seq);
            }
            self.note(|| format!("ack S{stream} {seq}"));
            let Some(engine) = &mut self.engine else {
                return;
            };
            let request = ApiRequest {
                account: &self.account,
                subject: &subject,
                reply: &reply,
                header: b"",
                payload,
            };
            engine.ack(request, self.now, &mut self.wire);
        }
    }

    fn crash(&mut self) -> Result<(), String> {
        self.note(|| "crash".to_owned());
        self.report.crashes += 1;
        self.engine = None;
        self.disk.crash(&mut self.random);
        self.wire.0.clear();
        for attempt in std::mem::take(&mut self.attempts).into_values() {
            if attempt.with_id {
                self.ledgers[attempt.stream].unknown.push(attempt.id);
            }
        }
        self.acks.clear();
        self.open.clear();
        self.answers.clear();
        self.start()
    }

    fn turn(&mut self) -> Result<(), String> {
        for _ in 0..50 {
            let Some(engine) = &mut self.engine else {
                return Ok(());
            };
            let more = engine.turn(self.now, &mut self.wire);
            if let Some(error) = engine.poisoned() {
                return Err(format!("the engine poisoned itself: {error}"));
            }
            self.take_changes();
            self.receive()?;
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// The clients read what was sent to them.
    fn receive(&mut self) -> Result<(), String> {
        for sent in std::mem::take(&mut self.wire.0) {
            if let Some(attempt) = self.attempts.remove(&sent.target) {
                self.publish_answered(&attempt, &sent)?;
            } else if let Some((stream, seq)) = self.acks.remove(&sent.target) {
                self.note(|| format!("S{stream} {seq} settled"));
                self.ledgers[stream].settled.insert(seq);
                self.report.settled += 1;
            } else if sent.target.starts_with(b"_INBOX.pull.") {
                self.delivered(&sent)?;
            } else {
                self.answers.insert(sent.target.clone(), sent);
            }
        }
        Ok(())
    }

    fn publish_answered(&mut self, attempt: &Attempt, sent: &Sent) -> Result<(), String> {
        let text = String::from_utf8_lossy(&sent.payload).into_owned();
        let Some(seq) = number_after(&text, "\"seq\":") else {
            return Err(format!("publish {} answered with {text}", attempt.id));
        };
        let duplicate = text.contains("\"duplicate\"");
        self.note(|| format!("{} acked: {text}", attempt.id));
        if text.contains("\"error\"") {
            return Err(format!("publish {} refused: {text}", attempt.id));
        }
        self.report.acked += 1;
        let ledger = &mut self.ledgers[attempt.stream];
        if let Some(other) = ledger.acked.insert(seq, attempt.id)
            && other != attempt.id
        {
            return Err(format!(
                "sequence {seq} was acked for {other} and for {}",
                attempt.id
            ));
        }
        if !duplicate {
            if seq <= ledger.highest {
                return Err(format!("ack {seq} after ack {}", ledger.highest));
            }
            ledger.highest = seq;
        }
        Ok(())
    }

    fn delivered(&mut self, sent: &Sent) -> Result<(), String> {
        let Some(text) = std::str::from_utf8(&sent.reply)
            .ok()
            .filter(|t| t.starts_with("$JS.ACK."))
        else {
            return Ok(());
        };
        let tokens: Vec<&str> = text.split('.').collect();
        let stream: usize = tokens[2]
            .trim_start_matches('S')
            .parse()
            .map_err(|_| text.to_owned())?;
        let seq: u64 = tokens[5].parse().map_err(|_| text.to_owned())?;
        let id: u64 = String::from_utf8_lossy(&sent.payload)
            .parse()
            .map_err(|_| format!("S{stream} {seq} carries foreign bytes"))?;
        self.note(|| format!("S{stream} {seq} delivered: {text}"));
        self.report.delivered += 1;
        if !sent.subject.starts_with(format!("s{stream}.").as_bytes()) {
            return Err(format!("S{stream} delivered {seq} with a foreign subject"));
        }
        let ledger = &mut self.ledgers[stream];
        if ledger.settled.contains(&seq) {
            return Err(format!(
                "S{stream} {seq} delivered after its double ack was answered"
            ));
        }
        if let Some(acked) = ledger.acked.get(&seq)
            && *acked != id
        {
            return Err(format!(
                "S{stream} {seq} was acked as {acked} and delivered as {id}"
            ));
        }
        ledger.delivered.insert(seq, id);
        self.open.push((stream, seq, sent.reply.clone()));
        Ok(())
    }

    /// The faults stop; everything must be there and everything must flow.
    fn heal(&mut self) -> Result<(), String> {
        self.crash()?;
        for _ in 0..20 {
            self.settle_disk()?;
        }
        for stream in 0..self.streams {
            self.check_stored(stream)?;
        }
        for stream in 0..self.streams {
            self.drain(stream)?;
        }
        if self.settings.mutant.is_none() && self.report.acked == 0 {
            return Err("this run did nothing".to_owned());
        }
        Ok(())
    }

    fn last_seq(&mut self, stream: usize) -> Result<u64, String> {
        let info = self.call(&format!("$JS.API.STREAM.INFO.S{stream}"), b"")?;
        let text = String::from_utf8_lossy(&info).into_owned();
        number_after(&text, "\"last_seq\":").ok_or_else(|| format!("no last sequence in {text}"))
    }

    fn check_stored(&mut self, stream: usize) -> Result<(), String> {
        let last = self.last_seq(stream)?;
        if last < self.ledgers[stream].highest {
            return Err(format!(
                "S{stream} ends at {last}, but {} was acked",
                self.ledgers[stream].highest
            ));
        }
        let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
        for seq in 1..=last {
            let get = format!(r#"{{"seq":{seq}}}"#);
            let answer = self.call(&format!("$JS.API.DIRECT.GET.S{stream}"), get.as_bytes())?;
            let text = String::from_utf8_lossy(&answer).into_owned();
            let ledger = &self.ledgers[stream];
            if ledger.removes_settled && text.starts_with("NATS/1.0 404") {
                if ledger.attempted.contains(&seq) {
                    continue;
                }
                return Err(format!("S{stream} {seq} went without an ack"));
            }
            let Ok(id) = text.parse::<u64>() else {
                return Err(format!("S{stream} {seq} cannot be read: {text}"));
            };
            if ledger.removes_settled && ledger.settled.contains(&seq) {
                return Err(format!("S{stream} {seq} is still there after its ack"));
            }
            if let Some(acked) = self.ledgers[stream].acked.get(&seq)
                && *acked != id
            {
                return Err(format!("S{stream} {seq} was acked as {acked} and is {id}"));
            }
            if !self.ledgers[stream].sent.contains(&id) {
                return Err(format!("S{stream} {seq} holds {id}, which nobody sent"));
            }
            if let Some(first) = seen.insert(id, seq) {
                return Err(format!("S{stream} holds {id} twice, at {first} and {seq}"));
            }
        }
        Ok(())
    }

    /// Every message that was not settled is delivered, none that was.
    fn drain(&mut self, stream: usize) -> Result<(), String> {
        let last = self.last_seq(stream)?;
        let mut left: BTreeSet<u64> = (1..=last)
            .filter(|seq| !self.ledgers[stream].settled.contains(seq))
            .collect();
        self.open.clear();
        // An ack that was sent and not answered before a crash may have been kept: such a message
        // may be gone for the consumer, and the client knows it did not hear back.
        for _ in 0..200 {
            if left.is_empty() {
                return Ok(());
            }
            let inbox = format!("_INBOX.pull.{stream}").into_bytes();
            self.request(
                format!("$JS.API.CONSUMER.MSG.NEXT.S{stream}.C").as_bytes(),
                &inbox,
                br#"{"batch":1000,"expires":1000000000}"#,
            );
            self.settle_disk()?;
            for (from, seq, subject) in std::mem::take(&mut self.open) {
                if from == stream {
                    left.remove(&seq);
                }
                let request = ApiRequest {
                    account: &self.account,
                    subject: &subject,
                    reply: b"",
                    header: b"",
                    payload: b"+ACK",
                };
                if let Some(engine) = &mut self.engine {
                    engine.ack(request, self.now, &mut self.wire);
                }
            }
            self.now = Timestamp(self.now.0 + SECOND);
            self.settle_disk()?;
        }
        left.retain(|seq| !self.ledgers[stream].attempted.contains(seq));
        if left.is_empty() {
            return Ok(());
        }
        let mut list = String::new();
        for seq in left.iter().take(10) {
            let _ = write!(list, " {seq}");
        }
        Err(format!("S{stream} never delivered{list}"))
    }
}

fn number_after(text: &str, key: &str) -> Option<u64> {
    let rest = text.get(text.find(key)? + key.len()..)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
