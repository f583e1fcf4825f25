//! One store with one byte flipped: opened, and read through.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use menes_jetstream::engine::{ApiRequest, Change, Engine, NoApplication, Options, Publish};
use menes_jetstream::ports::{Outbox, Outgoing, StateStore, StoreError, Table};
use menes_jetstream::{AccountName, GroupId, Timestamp};
use menes_storage::disk_space::Watermarks;
use menes_storage::log::{LogOptions, SegmentLog};
use menes_storage::state::{RocksState, StateOptions};
use menes_storage::{Encryption, Store, StoreOptions};
use serde_json::Value;
use tempfile::TempDir;

use crate::reference::Image;

/// What came of a flip.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything read is right.
    Right,
    /// Something could not be read, and that was said; everything read is right.
    Reported,
    /// Something else was read.
    Wrong(String),
}

/// What a sound store says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    rows: Vec<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Answers by question.
    answers: Vec<(Question, String)>,
    /// What each consumer hands out.
    deliveries: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    subject: String,
    body: String,
}

/// Where cases are tried, one at a time.
pub(crate) struct Case<'a> {
    image: &'a Image,
    folder: TempDir,
    now: Timestamp,
}

type Running = Engine<SegmentLog, RocksState, NoApplication>;

/// What the engine sent, by where it went.
#[derive(Default)]
struct Wire {
    sent: Vec<(String, String)>,
}

impl Outbox for Wire {
    fn send(&mut self, message: Outgoing<'_>) -> bool {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let shown = format!(
            "{} {} {}{}",
            text(message.subject),
            place_of(&text(message.reply)),
            text(message.header),
            text(message.payload)
        );
        self.sent.push((text(message.target), shown));
        true
    }

    fn has_interest(&mut self, _: &AccountName, subject: &[u8], _: Option<&[u8]>) -> bool {
        subject.starts_with(b"_INBOX.")
    }
}

/// Of the subject of an ack the sequence in the stream: deliveries are counted without what could
/// not be read.
fn place_of(reply: &str) -> String {
    let is_ack = reply.starts_with("$JS.ACK.");
    let place = reply.split('.').nth(5).filter(|_| is_ack);
    place.unwrap_or(reply).to_owned()
}

/// A place in memory, if there is one: a case writes some hundred kilobytes.
fn folder() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    Ok(if memory.is_dir() {
        TempDir::with_prefix_in("menes-sweep-", memory)?
    } else {
        TempDir::with_prefix("menes-sweep-")?
    })
}

impl<'a> Case<'a> {
    pub(crate) fn new(image: &'a Image) -> Result<Self> {
        let since = image.made.duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(Self {
            image,
            folder: folder()?,
            now: Timestamp(i64::try_from(since.as_nanos())?),
        })
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn lay(&self, flip: Option<(usize, usize, u8)>) -> Result<()> {
        let data = self.data();
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        for (number, file) in self.image.files.iter().enumerate() {
            let path = data.join(&file.name);
            fs::create_dir_all(path.parent().context("it lies in a folder")?)?;
            let mut laid = fs::File::create(&path)?;
            laid.write_all(&file.bytes)?;
            laid.set_len(file.len as u64)?;
            if let Some((_, at, bits)) = flip.filter(|(flipped, ..)| *flipped == number) {
                let byte = file.bytes.get(at).copied().unwrap_or(0) ^ bits;
                std::os::unix::fs::FileExt::write_all_at(&laid, &[byte], at as u64)?;
            }
        }
        Ok(())
    }

    fn open(&self) -> Result<Store, String> {
        let options = StoreOptions {
            log: LogOptions {
                segment_bytes: 1 << 20,
                prewrite: false,
                scrub: None,
                watermarks: Watermarks {
                    low_bytes: Some(0),
                    critical_bytes: Some(0),
                },
                ..LogOptions::default()
            },
            state: StateOptions {
                scrub: None,
                background_jobs: 1,
                ..StateOptions::default()
            },
            encryption: Encryption {
                key: self.image.key.clone(),
                ..Encryption::default()
            },
            ballast_bytes: 0,
        };
        Store::open(&self.data(), &options, Arc::new(|| {})).map_err(|error| error.to_string())
    }

    /// What the store says when nothing is wrong with it.
    pub(crate) fn truth(&self) -> Result<Truth> {
        self.lay(None)?;
        let mut truth = Truth::default();
        let store = self.open().map_err(anyhow::Error::msg)?;
        for table in Table::ALL {
            truth.rows.push(rows(&store.state, table)?);
        }
        let mut opened = Opened::new(store, self.now)?;
        truth.answers = opened.interview()?;
        truth.deliveries = opened.pull_everything(&truth.answers)?;
        opened.repeat_ids(self.image)?;
        opened.close();
        // Nothing of it depends on when, or how often, it is asked.
        ensure!(
            self.flipped_with(None, &truth)? == Verdict::Right,
            "it is not the same twice: {:?}",
            self.flipped_with(None, &truth)?
        );
        Ok(truth)
    }

    /// Sees that the least difference counts: a sweep that overlooks it proves nothing.
    pub(crate) fn notices(&self, truth: &Truth) -> Result<()> {
        let mut others = vec![truth.clone(); 4];
        let row = others[0].rows.iter_mut().find_map(BTreeMap::first_entry);
        row.context("there are rows")?.get_mut().push(0);
        others[1].rows[0].pop_first();
        let answer = others[2].answers.last_mut();
        answer.context("there are answers")?.1.push(' ');
        others[3].deliveries.pop_first();
        for (number, other) in others.iter().enumerate() {
            let verdict = self.flipped_with(None, other)?;
            ensure!(
                matches!(verdict, Verdict::Wrong(_)),
                "difference {number} is {verdict:?}"
            );
        }
        Ok(())
    }

    /// What comes of one flip.
    pub(crate) fn flipped(
        &self,
        file: usize,
        at: usize,
        bits: u8,
        truth: &Truth,
    ) -> Result<Verdict> {
        self.flipped_with(Some((file, at, bits)), truth)
    }

    fn flipped_with(&self, flip: Option<(usize, usize, u8)>, truth: &Truth) -> Result<Verdict> {
        self.lay(flip)?;
        let Ok(store) = self.open() else {
            return Ok(Verdict::Reported);
        };
        for (table, right) in Table::ALL.into_iter().zip(&truth.rows) {
            match rows(&store.state, table) {
                Ok(found) if found == *right => {}
                Ok(found) => {
                    let changed = found
                        .iter()
                        .find(|(key, value)| right.get(*key) != Some(value));
                    return Ok(Verdict::Wrong(format!(
                        "{table:?} holds {} rows for {}; {changed:?}",
                        found.len(),
                        right.len()
                    )));
                }
                Err(_) => return Ok(Verdict::Reported),
            }
        }
        let Ok(mut opened) = Opened::new(store, self.now) else {
            return Ok(Verdict::Reported);
        };
        let mut is_reported = false;
        for (question, right) in &truth.answers {
            let Some(answer) = opened.ask(question)? else {
                return Ok(Verdict::Reported);
            };
            if answer == *right {
                continue;
            }
            if reports(right) || !reports(&answer) {
                return Ok(Verdict::Wrong(difference(question, &answer, right)));
            }
            is_reported = true;
        }
        let delivered = match opened.pull_everything(&truth.answers) {
            Ok(delivered) => delivered,
            Err(_) if opened.engine.poisoned().is_some() => return Ok(Verdict::Reported),
            Err(error) => return Err(error),
        };
        if let Some(other) = delivered.difference(&truth.deliveries).next() {
            return Ok(Verdict::Wrong(format!("{other} is delivered")));
        }
        if let Some(missing) = truth.deliveries.difference(&delivered).next()
            && !is_reported
        {
            return Ok(Verdict::Wrong(format!("{missing} is not delivered")));
        }
        match opened.repeat_ids(self.image) {
            Ok(()) => {}
            Err(_) if opened.engine.poisoned().is_some() => return Ok(Verdict::Reported),
            Err(error) => return Ok(Verdict::Wrong(error.to_string())),
        }
        opened.close();
        Ok(if is_reported {
            Verdict::Reported
        } else {
            Verdict::Right
        })
    }
}

/// Two answers from where they part.
fn difference(question: &Question, answer: &str, right: &str) -> String {
    let equal = answer
        .char_indices()
        .zip(right.chars())
        .find(|((_, a), b)| a != b);
    let at = equal.map_or(0, |((at, _), _)| at.saturating_sub(60));
    let part = |text: &str| -> String { text.chars().skip(at).take(400).collect() };
    format!(
        "{question:?} is answered {} for {}",
        part(answer),
        part(right)
    )
}

/// Whether an answer says that something cannot be read, and not that it is not there.
fn reports(answer: &str) -> bool {
    let code = ["\"err_code\":", "NATS/1.0 "].iter().find_map(|key| {
        let rest = answer.split(key).nth(1)?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    });
    // Not found: the stream, the consumer, the message.
    code.is_some_and(|code| !matches!(code, 404 | 10059 | 10014 | 10037 | 10057))
}

fn rows(state: &RocksState, table: Table) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
    let mut rows = BTreeMap::new();
    state.scan(table, b"", &[0xff; 64], &mut |key, value| {
        rows.insert(key.to_vec(), value.to_vec());
        true
    })?;
    // As readers do that know a key.
    for (key, value) in &rows {
        if state.get(table, key)?.as_ref() != Some(value) {
            rows.insert(key.clone(), b"another one when asked for".to_vec());
            break;
        }
    }
    Ok(rows)
}

/// An engine over a store.
struct Opened {
    engine: Running,
    wire: Wire,
    now: Timestamp,
    groups: BTreeMap<String, GroupId>,
    asked: u64,
}

impl Opened {
    fn new(store: Store, now: Timestamp) -> Result<Self, StoreError> {
        let options = Options {
            server_name: "sweep".to_owned(),
            ..Options::default()
        };
        let mut engine = Engine::open(store.log, store.state, NoApplication, options, now)?;
        let mut groups = BTreeMap::new();
        for change in engine.take_changes() {
            if let Change::Capture {
                group, subjects, ..
            } = change
            {
                groups.extend(subjects.into_iter().map(|subject| (subject, group)));
            }
        }
        Ok(Self {
            engine,
            wire: Wire::default(),
            now,
            groups,
            asked: 0,
        })
    }

    fn close(self) {
        let (log, state) = self.engine.into_stores();
        // Some were poisoned by what was found.
        drop((Store { state, log }).close());
    }

    /// Asks; gives the inbox to which the answer goes.
    fn send(&mut self, question: &Question) -> String {
        self.asked += 1;
        let inbox = format!("_INBOX.{}", self.asked);
        let request = ApiRequest {
            account: &AccountName::global(),
            subject: question.subject.as_bytes(),
            reply: inbox.as_bytes(),
            header: b"",
            payload: question.body.as_bytes(),
            client: b"",
        };
        self.engine.request(request, self.now, &mut self.wire);
        inbox
    }

    /// The answer, or none of an engine that gave up.
    fn ask(&mut self, question: &Question) -> Result<Option<String>> {
        let inbox = self.send(question);
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(at) = self.wire.sent.iter().position(|(to, _)| *to == inbox) {
                return Ok(Some(self.wire.sent.swap_remove(at).1.replace(&inbox, "")));
            }
            if self.engine.poisoned().is_some() {
                return Ok(None);
            }
            ensure!(Instant::now() < until, "{question:?} is not answered");
            self.engine.turn(self.now, &mut self.wire);
            std::thread::yield_now();
        }
    }

    fn answer(
        &mut self,
        subject: String,
        body: &str,
        into: &mut Vec<(Question, String)>,
    ) -> Result<Value> {
        let body = body.to_owned();
        let question = Question { subject, body };
        let answer = self.ask(&question)?.context("the engine gave up")?;
        let json = answer
            .find('{')
            .and_then(|at| answer.get(at..))
            .unwrap_or("null");
        let json = serde_json::from_str(json).unwrap_or_default();
        into.push((question, answer));
        Ok(json)
    }

    /// Everything that can be asked about everything.
    fn interview(&mut self) -> Result<Vec<(Question, String)>> {
        let mut answers = Vec::new();
        let list = self.answer("$JS.API.STREAM.LIST".to_owned(), "", &mut answers)?;
        let streams = list["streams"].as_array().context("a list")?.clone();
        ensure!(streams.len() == 8, "{list}");
        for stream in &streams {
            let name = stream["config"]["name"].as_str().context("a name")?;
            let wish = r#"{"deleted_details":true,"subjects_filter":">"}"#;
            self.answer(format!("$JS.API.STREAM.INFO.{name}"), wish, &mut answers)?;
            self.answer(format!("$JS.API.CONSUMER.LIST.{name}"), "", &mut answers)?;
            let last = stream["state"]["last_seq"].as_u64().context("a number")?;
            for seq in 1..=last {
                let wish = format!(r#"{{"seq":{seq}}}"#);
                self.answer(
                    format!("$JS.API.STREAM.MSG.GET.{name}"),
                    &wish,
                    &mut answers,
                )?;
            }
            let wish = r#"{"multi_last":[">"]}"#;
            self.answer(format!("$JS.API.DIRECT.GET.{name}"), wish, &mut answers)?;
        }
        Ok(answers)
    }

    /// What the consumers have to hand out.
    fn pull_everything(&mut self, answers: &[(Question, String)]) -> Result<BTreeSet<String>> {
        let mut got = BTreeSet::new();
        for (question, answer) in answers {
            let Some(stream) = question.subject.strip_prefix("$JS.API.CONSUMER.LIST.") else {
                continue;
            };
            let list: Value = serde_json::from_str(answer.trim())?;
            for consumer in list["consumers"].as_array().into_iter().flatten() {
                let name = consumer["name"].as_str().context("a name")?;
                if consumer["config"]["deliver_subject"].is_string() {
                    continue;
                }
                let question = Question {
                    subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"),
                    body: r#"{"batch":100,"no_wait":true}"#.to_owned(),
                };
                let inbox = self.send(&question);
                let until = Instant::now() + Duration::from_secs(20);
                let mut is_over = false;
                while !is_over {
                    ensure!(self.engine.poisoned().is_none(), "the engine gave up");
                    ensure!(Instant::now() < until, "{question:?} does not end");
                    self.engine.turn(self.now, &mut self.wire);
                    for (to, text) in std::mem::take(&mut self.wire.sent) {
                        if to != inbox {
                            continue;
                        }
                        if text.contains("NATS/1.0 404") || text.contains("NATS/1.0 408") {
                            is_over = true;
                        } else {
                            got.insert(format!("{stream} {name}: {text}"));
                        }
                    }
                }
            }
        }
        Ok(got)
    }

    /// Message ids are known still.
    fn repeat_ids(&mut self, image: &Image) -> Result<()> {
        for (stream, id, seq) in &image.ids {
            let group = self
                .groups
                .get("orders.>")
                .copied()
                .context("it captures")?;
            let header = format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n");
            let inbox = format!("_INBOX.again.{id}");
            let message = Publish {
                reply: inbox.as_bytes(),
                subject: b"orders.a",
                header: header.as_bytes(),
                payload: b"again",
            };
            self.engine
                .publish(group, self.now, message, &mut self.wire);
            let until = Instant::now() + Duration::from_secs(20);
            let answer = loop {
                if let Some(at) = self.wire.sent.iter().position(|(to, _)| *to == inbox) {
                    break self.wire.sent.swap_remove(at).1;
                }
                if let Some(error) = self.engine.poisoned() {
                    bail!("{error}");
                }
                ensure!(Instant::now() < until, "a publish is not answered");
                self.engine.turn(self.now, &mut self.wire);
                std::thread::yield_now();
            };
            let is_known = answer.contains("\"duplicate\": true")
                && answer.contains(&format!("\"seq\":{seq},"));
            ensure!(is_known, "{id} of {stream} is answered {answer}");
        }
        Ok(())
    }
}
