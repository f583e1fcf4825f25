//! A stream comes back from a backup, piece by piece.
//!
//! The stream is made at once, but captures nothing and is not seen until the backup is read to its
//! end; then one command makes it a stream like any other. A restore that fails, is given up or is
//! interrupted by a restart removes it again.

use std::collections::VecDeque;
use std::time::Duration;

use menes_protocol::subject;
use serde::Deserialize;

use super::gather::Record;
use super::request::{ApiRequest, Applied, send};
use super::{Application, Change, Engine, Origin};
use crate::api::request::RestoreRequest;
use crate::api::{ApiError, Call, response, stream_config};
use crate::archive::{self, Entry, EntryReader, OldArchive, OldPart, Unpacker};
use crate::command::{MetaCommand, Purge, StreamCommand};
use crate::consumer::ConsumerConfig;
use crate::ids::{AccountName, GroupId, StreamSeq};
use crate::ports::{self, LogStore, Outbox, StateStore};
use crate::record::{self, Tag};
use crate::stream::{PublishOutcome, StreamConfig, StreamState};
use crate::time::Timestamp;

/// How long the sender may be silent.
const IDLE: Duration = Duration::from_secs(5);
/// Bytes on their way to the disk with which pieces are no longer acknowledged at once.
const MAX_IN_FLIGHT: usize = 16 << 20;

/// A backup that is being read.
pub(super) struct Restore {
    account: AccountName,
    config: Box<StreamConfig>,
    /// As the request says, and then the backup itself.
    state: StreamState,
    unpacker: Unpacker,
    format: Format,
    /// Consumers to come before the messages.
    consumers_left: u64,
    /// The stream was asked for.
    begun: bool,
    group: Option<GroupId>,
    /// The last message proposed.
    previous: u64,
    /// The backup was read to its end.
    has_ended: bool,
    /// Pieces that are not acknowledged yet.
    waiting: VecDeque<Vec<u8>>,
    /// Who waits for the end.
    finish: Option<Vec<u8>>,
    is_finishing: bool,
    /// Everything was proposed, and some of it is still on its way.
    is_held: bool,
    error: Option<ApiError>,
    is_done: bool,
    /// Nothing came any more.
    is_stalled: bool,
    pub(super) due: Timestamp,
}

enum Format {
    /// The first bytes are not here yet.
    Unknown(Vec<u8>),
    Entries(EntryReader),
    Old(OldArchive, Vec<u64>),
}

#[derive(Deserialize)]
struct ConsumerEntry {
    config: ConsumerConfig,
    #[serde(default)]
    state: ConsumerState,
}

#[derive(Default, Deserialize)]
struct ConsumerState {
    #[serde(default)]
    ack_floor: Pair,
}

#[derive(Default, Deserialize)]
struct Pair {
    #[serde(default)]
    consumer_seq: u64,
    #[serde(default)]
    stream_seq: u64,
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// Begins to take a backup; says where it has to be sent.
    pub(super) fn begin_restore(
        &mut self,
        account: &AccountName,
        stream: &str,
        wanted: RestoreRequest,
        now: Timestamp,
    ) -> Result<response::Restore, ApiError> {
        let RestoreRequest { mut config, state } = wanted;
        if config.name.is_empty() {
            stream.clone_into(&mut config.name);
        }
        if config.name != stream {
            return Err(ApiError::stream_name_does_not_match_subject());
        }
        let config = stream_config::validate(config, false, &self.stream_bounds(account))?;
        if self.meta.holder(account, stream).is_some() || self.is_restoring(account, stream) {
            return Err(ApiError::restore_name_in_use());
        }
        if self.overlaps_another(account, stream, &config.subjects) {
            return Err(ApiError::subjects_overlap());
        }
        let listener = self.listeners.next();
        let subject = format!("$JS.SNAPSHOT.RESTORE.{stream}.{}", self.next_id());
        self.changes.push(Change::Listen {
            account: account.clone(),
            listener,
            subjects: vec![subject.clone()],
        });
        let restore = Restore {
            account: account.clone(),
            config: Box::new(config),
            state,
            unpacker: Unpacker::default(),
            format: Format::Unknown(Vec::new()),
            consumers_left: 0,
            begun: false,
            group: None,
            previous: 0,
            has_ended: false,
            waiting: VecDeque::new(),
            finish: None,
            is_finishing: false,
            is_held: false,
            error: None,
            is_done: false,
            is_stalled: false,
            due: now.plus(IDLE),
        };
        self.restores.insert(listener, restore);
        Ok(response::Restore {
            deliver_subject: subject,
        })
    }

    /// Whether somebody sends a backup of a stream, whether or not it was begun.
    pub(super) fn is_restoring(&self, account: &AccountName, stream: &str) -> bool {
        let mut restores = self.restores.values();
        restores.any(|other| other.account == *account && other.config.name == stream)
    }

    /// A piece of a backup; an empty one is the end.
    pub(super) fn restore_chunk(
        &mut self,
        listener: u64,
        message: &ApiRequest<'_>,
        now: Timestamp,
        out: &mut dyn Outbox,
    ) {
        let Some(restore) = self.restores.get_mut(&listener) else {
            return;
        };
        restore.due = now.plus(IDLE);
        if message.reply.is_empty() {
            restore.fail("each piece needs a reply subject");
        } else if message.payload.is_empty() {
            restore.finish = Some(message.reply.to_vec());
        } else {
            restore.waiting.push_back(message.reply.to_vec());
            if let Err(error) = restore.take(message.payload) {
                restore.fail(error);
            }
        }
        self.restore_goes_on(listener, now, out);
    }

    /// Does for every restore what can be done now.
    pub(super) fn run_restores(&mut self, now: Timestamp, out: &mut dyn Outbox) {
        let all: Vec<u64> = self.restores.keys().copied().collect();
        for listener in all {
            if let Some(restore) = self.restores.get_mut(&listener)
                && restore.due <= now
            {
                if restore.finish.is_none() && restore.waiting.is_empty() {
                    restore.is_stalled = true;
                    restore.fail("restore is stalled");
                }
                restore.due = now.plus(IDLE);
            }
            self.restore_goes_on(listener, now, out);
        }
    }

    /// A command of a restore was applied.
    pub(super) fn restore_went_on(
        &mut self,
        listener: u64,
        result: Result<Applied, ApiError>,
        _now: Timestamp,
    ) {
        let Some(restore) = self.restores.get_mut(&listener) else {
            return;
        };
        match result {
            Ok(Applied::Stream(group)) if restore.is_finishing => {
                restore.is_done = true;
                restore.group = Some(group);
            }
            Ok(Applied::Stream(group)) => restore.group = Some(group),
            Ok(_) => {}
            Err(error) => {
                restore.error.get_or_insert(error);
            }
        }
    }

    /// What became of restored messages.
    pub(super) fn restored(&mut self, entry: &ports::Entry, outcomes: &[PublishOutcome]) {
        let is_restoring = |target: &super::StreamGroup| target.restoring;
        if !self.groups.get(&entry.group).is_some_and(is_restoring) {
            return;
        }
        let refused = outcomes.iter().find_map(|outcome| match outcome {
            PublishOutcome::Refused(error) => Some(error),
            _ => None,
        });
        let restore = self
            .restores
            .values_mut()
            .find(|restore| restore.group == Some(entry.group));
        if let (Some(error), Some(restore)) = (refused, restore) {
            restore.error.get_or_insert_with(|| error.clone());
        }
        debug_assert!(record::is_tagged(&entry.payload));
    }

    /// Messages of a stream did not get into the log.
    pub(super) fn restored_refused(&mut self, group: GroupId, error: &ApiError) {
        let mut restores = self.restores.values_mut();
        if let Some(restore) = restores.find(|restore| restore.group == Some(group)) {
            restore.error.get_or_insert_with(|| error.clone());
        }
    }

    /// Whether a restore gets further with the next turn, whatever comes in.
    pub(super) fn restores_go_on(&self) -> bool {
        // While messages are on their way to the disk, the end of that is what it goes on with.
        let is_waiting = |restore: &Restore| {
            let target = restore.group.and_then(|group| self.groups.get(&group));
            target.is_some_and(|target| target.waiting > 0)
        };
        let mut restores = self.restores.values();
        restores.any(|restore| {
            restore.is_held && !is_waiting(restore)
                || restore.error.is_some() && restore.can_be_told()
        })
    }

    fn restore_goes_on(&mut self, listener: u64, now: Timestamp, out: &mut dyn Outbox) {
        let Some(mut restore) = self.restores.remove(&listener) else {
            return;
        };
        if restore.error.is_none()
            && let Err(error) = self.propose_restored(&mut restore, listener, now)
        {
            restore.error = Some(error);
        }
        // Whoever sends it hears of it with the next piece.
        let is_heard = restore.is_stalled || restore.can_be_told();
        if restore.error.is_some() && !is_heard {
            self.restores.insert(listener, restore);
            return;
        }
        if let Some(error) = restore.error.take() {
            self.restore_fails(restore, listener, &error, out);
            return;
        }
        if restore.is_done {
            self.changes.push(Change::Unlisten { listener });
            let info = restore.group.map(|group| self.info_of(group, now));
            let body = response::StreamCreated {
                info: info.and_then(Result::ok),
                did_create: false,
            };
            let call = Call::StreamCreate {
                stream: &restore.config.name,
            };
            if let Some(reply) = &restore.finish {
                let payload = response::ok(&call, &body);
                send(&restore.account, reply, b"", &payload, out);
            }
            return;
        }
        if self.in_flight_bytes < MAX_IN_FLIGHT {
            for reply in restore.waiting.drain(..) {
                send(&restore.account, &reply, b"", b"", out);
            }
        }
        self.restores.insert(listener, restore);
    }

    fn restore_fails(
        &mut self,
        restore: Restore,
        listener: u64,
        error: &ApiError,
        out: &mut dyn Outbox,
    ) {
        self.changes.push(Change::Unlisten { listener });
        let name = restore.config.name.clone();
        tracing::warn!("stream {name} cannot be restored: {error}");
        let why = &*error.description;
        let error = ApiError::restore(why.strip_prefix("restore failed: ").unwrap_or(why));
        let payload = response::error(&Call::StreamCreate { stream: &name }, &error);
        let mut replies: Vec<Vec<u8>> = restore.waiting.into();
        replies.extend(restore.finish);
        // All but the last are pieces that were taken.
        if let Some(last) = replies.pop() {
            for reply in replies {
                send(&restore.account, &reply, b"", b"", out);
            }
            send(&restore.account, &last, b"", &payload, out);
        }
        if restore.group.is_some() {
            let command = MetaCommand::DeleteStream {
                account: restore.account,
                name,
                only_if_unused: false,
            };
            self.propose_meta(command, Origin::None, None);
        }
    }

    /// Proposes what was read so far.
    fn propose_restored(
        &mut self,
        restore: &mut Restore,
        listener: u64,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let mut was_proposed = false;
        loop {
            if restore.group.is_none() && restore.has_begun() {
                return Ok(());
            }
            let Some(part) = restore.next_part().map_err(ApiError::restore)? else {
                break;
            };
            self.propose_part(restore, part, listener, now)?;
            was_proposed = true;
        }
        if restore.finish.is_none() || restore.is_finishing {
            return Ok(());
        }
        if !restore.has_ended {
            return Err(ApiError::restore(archive::ArchiveError::Truncated));
        }
        // Of what is on its way some may be refused yet, as on a full disk: it would be missing.
        let is_idle = restore.group.is_none_or(|group| self.is_idle(group));
        restore.is_held = was_proposed || !is_idle;
        if restore.is_held {
            return Ok(());
        }
        restore.is_finishing = true;
        let command = MetaCommand::FinishRestore {
            account: restore.account.clone(),
            name: restore.config.name.clone(),
            last: StreamSeq(restore.state.last_seq),
            last_time: restore.state.last_ts,
            now,
        };
        self.propose_meta(command, Origin::Restore(listener), None);
        Ok(())
    }

    fn propose_part(
        &mut self,
        restore: &mut Restore,
        part: Part,
        listener: u64,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let origin = Origin::Restore(listener);
        match (part, restore.group) {
            (Part::Begin, _) => {
                let claim = self
                    .accounts
                    .claim_stream(&restore.account, &restore.config)?;
                let command = MetaCommand::CreateStream {
                    account: restore.account.clone(),
                    config: restore.config.clone(),
                    now,
                    restoring: true,
                };
                self.propose_meta(command, origin, Some(claim));
            }
            (Part::Consumer(name, config, settled), Some(group)) => {
                let command = StreamCommand::CreateConsumer {
                    name,
                    config,
                    now,
                    settled: Some(settled),
                };
                self.propose_stream(group, command, origin);
            }
            (Part::Message(entry), Some(group)) => {
                let first = restore.state.first_seq;
                if restore.previous == 0 && first > 1 {
                    let below = Some(StreamSeq(first));
                    let purge = Purge {
                        below,
                        ..Purge::default()
                    };
                    self.propose_stream(group, StreamCommand::Purge(purge), Origin::None);
                    restore.previous = first - 1;
                }
                // What is below the first one was gone already.
                if entry.seq < first {
                    return Ok(());
                }
                if !subject::is_literal(&entry.name) {
                    let why = format!("message {} has no valid subject", entry.seq);
                    return Err(ApiError::restore(why));
                }
                if entry.seq <= restore.previous {
                    let why = format!("message sequence {} out of order", entry.seq);
                    return Err(ApiError::restore(why));
                }
                let record = Record {
                    tag: Tag::Mirror {
                        previous: restore.previous,
                        seq: entry.seq,
                        time: Timestamp(entry.time),
                    },
                    reply: b"",
                    subject: &entry.name,
                    header: &entry.header,
                    payload: &entry.payload,
                };
                self.gather(group, now, record)?;
                restore.previous = entry.seq;
            }
            (Part::End(removed), Some(group)) => {
                for seq in removed {
                    let seq = StreamSeq(seq);
                    let command = StreamCommand::DeleteMessage { seq };
                    self.propose_stream(group, command, Origin::None);
                }
                restore.has_ended = true;
            }
            (_, None) => return Err(ApiError::restore("it begins with something else")),
        }
        Ok(())
    }

    /// Removes a stream whose restore was interrupted; whether it was one.
    pub(super) fn drop_unfinished(&mut self, group: GroupId) -> bool {
        let Some(target) = self.groups.get(&group).filter(|target| target.restoring) else {
            return false;
        };
        let command = MetaCommand::DeleteStream {
            account: target.account.clone(),
            name: target.name.to_string(),
            only_if_unused: false,
        };
        self.propose_meta(command, Origin::None, None);
        true
    }
}

/// A piece of a backup, whatever its format.
enum Part {
    /// What it is of is known; the stream can be made.
    Begin,
    /// A consumer with its name and what it has settled.
    Consumer(String, Box<ConsumerConfig>, (u64, u64)),
    Message(Entry),
    /// The end, and sequences that have no message after all.
    End(Vec<u64>),
}

impl Restore {
    fn fail(&mut self, why: impl std::fmt::Display) {
        self.error.get_or_insert_with(|| ApiError::restore(why));
    }

    /// Whether somebody waits for an answer.
    fn can_be_told(&self) -> bool {
        self.finish.is_some() || !self.waiting.is_empty()
    }

    /// Whether the stream was asked for.
    fn has_begun(&self) -> bool {
        self.begun
    }

    /// Takes packed bytes.
    fn take(&mut self, packed: &[u8]) -> Result<(), archive::ArchiveError> {
        let mut plain = Vec::new();
        self.unpacker.push(packed, &mut plain)?;
        if let Format::Unknown(start) = &mut self.format {
            start.append(&mut plain);
            if start.len() < archive::MAGIC.len() {
                return Ok(());
            }
            plain = std::mem::take(start);
            self.format = match plain.strip_prefix(archive::MAGIC) {
                Some(rest) => {
                    plain = rest.to_vec();
                    Format::Entries(EntryReader::default())
                }
                None => Format::Old(OldArchive::default(), Vec::new()),
            };
        }
        match &mut self.format {
            Format::Unknown(_) => {}
            Format::Entries(reader) => reader.push(&plain),
            Format::Old(reader, _) => reader.push(&plain),
        }
        Ok(())
    }

    fn next_part(&mut self) -> Result<Option<Part>, String> {
        if self.has_ended {
            return Ok(None);
        }
        let text = |error: archive::ArchiveError| error.to_string();
        match &mut self.format {
            Format::Unknown(_) => Ok(None),
            Format::Entries(reader) => {
                let Some(entry) = reader.next_entry().map_err(text)? else {
                    return Ok(None);
                };
                self.part_of(entry).map(Some)
            }
            Format::Old(reader, removed) => {
                if !std::mem::replace(&mut self.begun, true) {
                    return Ok(Some(Part::Begin));
                }
                loop {
                    return Ok(match reader.next_part().map_err(text)? {
                        None => None,
                        Some(OldPart::Message(entry)) => Some(Part::Message(entry)),
                        Some(OldPart::Removed(seq)) => {
                            removed.push(seq);
                            continue;
                        }
                        Some(OldPart::Consumer {
                            config,
                            name,
                            ack_floor,
                        }) => Some(Part::Consumer(name, config, ack_floor)),
                        Some(OldPart::End) => Some(Part::End(std::mem::take(removed))),
                    });
                }
            }
        }
    }

    fn part_of(&mut self, entry: Entry) -> Result<Part, String> {
        if !self.begun {
            if entry.name != b"state.json" {
                return Err("expected state.json first".to_owned());
            }
            self.state = serde_json::from_slice(&entry.payload)
                .map_err(|error| format!("error in state.json: {error}"))?;
            self.consumers_left = self.state.consumer_count;
            self.begun = true;
            return Ok(Part::Begin);
        }
        if self.consumers_left > 0 {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            let Some(name) = name.strip_prefix("consumers/") else {
                return Err(format!("expected consumer, found {name:?}"));
            };
            let found: ConsumerEntry = serde_json::from_slice(&entry.payload)
                .map_err(|error| format!("failed to decode consumer {name:?} state: {error}"))?;
            self.consumers_left -= 1;
            let floor = found.state.ack_floor;
            let settled = (floor.consumer_seq, floor.stream_seq);
            return Ok(Part::Consumer(
                name.to_owned(),
                Box::new(found.config),
                settled,
            ));
        }
        if entry.is_end() {
            return Ok(Part::End(Vec::new()));
        }
        if entry.seq == 0 {
            return Err("expected message sequence".to_owned());
        }
        Ok(Part::Message(entry))
    }
}
