//! A stream goes out to a backup and comes back under another name, crashes in between.
//!
//! What comes back must be what the stream held when the backup began, message by message; a restore
//! that was cut short must leave nothing, and one that was answered must leave all of it.

use menes_jetstream::engine::ApiRequest;
use serde_json::{Value, json};

use crate::disk::Space;
use crate::random::Random;
use crate::wire::Sent;
use crate::world::{SECOND, World};

/// The stream that goes out; nothing is ever removed from it.
const ORIGIN: &str = "BATCH";
/// The name under which it comes back.
const COPY: &str = "BACK";

/// A backup that is whole.
#[derive(Debug)]
struct Taken {
    config: Value,
    state: Value,
    pieces: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    /// Pieces come in.
    Taking(Taken),
    /// It was asked for a subject to send the pieces to.
    Asked,
    /// Pieces go out; the subject, and how many have.
    Returning(String, usize),
    /// It has been told that this was all.
    Told,
    /// It is back, and has to be looked at.
    Back,
    /// It was looked at, and has to go.
    Removing,
}

/// The one backup of a run.
pub(crate) struct Backups {
    random: Random,
    stage: Stage,
    /// Number of what is under way; answers to what came before are late.
    number: u64,
    taken: Option<Taken>,
}

impl Backups {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed ^ 0xbac0_bac0_bac0_bac0),
            stage: Stage::Idle,
            number: 0,
            taken: None,
        }
    }
}

impl World {
    /// Goes on with the backup, or begins one.
    pub(crate) fn act_on_backups(&mut self) -> Result<(), String> {
        let acts = self.side.is_made && self.engine.is_some();
        if !acts || !self.backups.random.chance(15) {
            return Ok(());
        }
        match &mut self.backups.stage {
            Stage::Idle => {
                let number = self.number();
                self.backups.number = number;
                let wants_new = self.backups.random.chance(50);
                match &self.backups.taken {
                    Some(taken) if !wants_new => {
                        let mut config = taken.config.clone();
                        config["name"] = COPY.into();
                        config["subjects"] = json!(["back.>"]);
                        let body = json!({"config": config, "state": taken.state}).to_string();
                        self.backups.stage = Stage::Asked;
                        let inbox = format!("back.asked.{number}");
                        self.note(|| format!("restore for {inbox}"));
                        self.request(&format!("$JS.API.STREAM.RESTORE.{COPY}"), &inbox, &body);
                    }
                    _ => {
                        self.backups.stage = Stage::Taking(Taken {
                            config: Value::Null,
                            state: Value::Null,
                            pieces: Vec::new(),
                        });
                        let inbox = format!("back.begun.{number}");
                        self.note(|| format!("backup for {inbox}"));
                        let body = format!(
                            r#"{{"deliver_subject":"back.piece.{number}","chunk_size":1024}}"#
                        );
                        self.request(&format!("$JS.API.STREAM.SNAPSHOT.{ORIGIN}"), &inbox, &body);
                    }
                }
            }
            // Given up, because nothing came for too long.
            Stage::Returning(subject, _) if !self.wire.links.contains_key(subject) => {
                self.backups.stage = Stage::Idle;
            }
            Stage::Returning(subject, sent) => {
                let (subject, at) = (subject.clone(), *sent);
                *sent += 1;
                let pieces = self.backups.taken.as_ref().map_or(&[][..], |t| &t.pieces);
                let piece = pieces.get(at).cloned().unwrap_or_default();
                if piece.is_empty() {
                    self.backups.stage = Stage::Told;
                }
                let inbox = format!("back.put.{}", self.backups.number);
                self.note(|| format!("piece {at} of {} bytes to {subject}", piece.len()));
                self.tell(&subject, &inbox, &piece);
            }
            Stage::Back => {
                // Questions about a stream wait for what is on its way to it.
                self.settle_disk()?;
                if matches!(self.backups.stage, Stage::Back) {
                    self.report.restored += 1;
                    self.compare_copy()?;
                    self.remove_copy();
                }
            }
            Stage::Taking(_) | Stage::Asked | Stage::Told | Stage::Removing => {}
        }
        Ok(())
    }

    /// Sends something to whoever of the engine listens there.
    fn tell(&mut self, subject: &str, reply: &str, payload: &[u8]) {
        let listener = self.wire.links.get(subject).copied();
        if let (Some(listener), Some(engine)) = (listener, &mut self.engine) {
            let request = ApiRequest {
                account: &self.account,
                subject: subject.as_bytes(),
                reply: reply.as_bytes(),
                header: b"",
                payload,
                client: b"",
            };
            engine.link_message(listener, request, self.now, &mut self.wire);
        }
    }

    /// Something for the client that takes backups and brings them back.
    pub(crate) fn told_of_backup(&mut self, sent: &Sent) -> Result<(), String> {
        let mut words = sent.target.split('.').skip(1);
        let (kind, number) = (words.next().unwrap_or_default(), words.next());
        let head = sent.header.trim_end();
        self.note(|| format!("{} got {head:?}, {} bytes", sent.target, sent.bytes.len()));
        if number.and_then(|text| text.parse().ok()) != Some(self.backups.number) {
            return Ok(());
        }
        let answer: Value = serde_json::from_str(&sent.payload).unwrap_or_default();
        let code = answer["error"]["err_code"].as_u64().unwrap_or(0);
        let excused = (code == 10047 && self.space != Space::Enough)
            || (code == 10008 && self.may_fail)
            // Refused pieces, and clients that were too slow for it.
            || code == 10062
            // One that was given up has not been cleared away yet.
            || (kind == "asked" && code == 10130);
        match (kind, std::mem::take(&mut self.backups.stage)) {
            ("begun", Stage::Taking(mut taken)) if code == 0 => {
                taken.config = answer["config"].clone();
                taken.state = answer["state"].clone();
                self.backups.stage = Stage::Taking(taken);
            }
            ("piece", Stage::Taking(taken)) if sent.bytes.is_empty() => {
                // One of a single piece ends without a status, as with nats-server.
                if head.is_empty() || head.starts_with("NATS/1.0 204") {
                    self.backups.taken = Some(taken);
                }
            }
            ("piece", Stage::Taking(mut taken)) => {
                taken.pieces.push(sent.bytes.clone());
                self.backups.stage = Stage::Taking(taken);
                if !sent.reply.is_empty() {
                    self.tell(&sent.reply, "", b"");
                }
            }
            ("asked", Stage::Asked) if code == 0 => {
                let subject = answer["deliver_subject"].as_str().unwrap_or_default();
                self.backups.stage = Stage::Returning(subject.to_owned(), 0);
            }
            ("put", stage @ Stage::Returning(..)) if code == 0 => self.backups.stage = stage,
            // Confirmations of pieces are empty.
            ("put", Stage::Told) if sent.bytes.is_empty() => self.backups.stage = Stage::Told,
            ("put", Stage::Told) if code == 0 => self.backups.stage = Stage::Back,
            ("gone", Stage::Removing) if code == 0 || code == 10059 => {}
            ("gone", Stage::Removing) if excused => self.remove_copy(),
            ("begun" | "asked" | "put", _) if excused => {}
            (_, stage) => {
                let text = &sent.payload;
                return Err(format!("{} got {text:?} in {stage:?}", sent.target));
            }
        }
        Ok(())
    }

    fn remove_copy(&mut self) {
        self.backups.stage = Stage::Removing;
        let inbox = format!("back.gone.{}", self.backups.number);
        self.request(&format!("$JS.API.STREAM.DELETE.{COPY}"), &inbox, "");
    }

    /// The copy holds what the stream held when the backup began.
    fn compare_copy(&mut self) -> Result<(), String> {
        let Some(taken) = &self.backups.taken else {
            return Err("a restore without a backup".to_owned());
        };
        let held = taken.state["messages"].as_u64().unwrap_or(0) as usize;
        let copied = self.bodies(COPY)?;
        let mut origin = self.bodies(ORIGIN)?;
        origin.truncate(held);
        if copied != origin {
            return Err(format!(
                "{} messages came back of {held}: {copied:?}",
                copied.len()
            ));
        }
        Ok(())
    }

    /// The server has started again: the copy is whole, or is not there.
    pub(crate) fn recover_backups(&mut self) -> Result<(), String> {
        let stage = std::mem::take(&mut self.backups.stage);
        self.backups.number = 0;
        if !self.side.is_made {
            return Ok(());
        }
        let info = self.ask(&format!("$JS.API.STREAM.INFO.{COPY}"), "")?;
        let info: Value = serde_json::from_str(&info).map_err(|error| error.to_string())?;
        if info["error"]["err_code"] == 10059 {
            return Ok(());
        }
        match stage {
            Stage::Told | Stage::Back | Stage::Removing => {
                self.compare_copy()?;
                self.backups.number = self.number();
                self.remove_copy();
                Ok(())
            }
            stage => Err(format!("in {stage:?} there is a {info}")),
        }
    }

    /// The faults have stopped: a backup can be taken and brought back.
    pub(crate) fn check_backups(&mut self) -> Result<(), String> {
        let before = self.report.restored;
        for _ in 0..2_000 {
            self.act_on_backups()?;
            self.settle_disk()?;
            if self.report.restored > before {
                return Ok(());
            }
            // One that got stuck before is given up.
            if self.backups.random.chance(2) {
                self.wait(6 * SECOND);
            }
        }
        Err(format!("no backup comes back: {:?}", self.backups.stage))
    }
}
