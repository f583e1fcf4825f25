//! Dead letters: messages that nobody could use, kept as messages in a stream of their own.
//!
//! One stream for each account, [`STREAM`]. The sequence in it is the id that clients know; the
//! subject says where the message comes from, so what belongs to a station, to one of its messages
//! or to a group is found by subject:
//!
//! ```text
//! $memphis_dead_letters.<station>.poison.<partition>.<sequence>.<group>
//! $memphis_dead_letters.<station>.schema
//! ```
//!
//! The payload is the original one. The header is the original one with the fields that would
//! direct a stream renamed, and behind it what this module notes. A message that several groups
//! failed is kept once for each of them, so that each can be resent and settled by itself.
//!
//! A message a consumer gave up comes from a record that its stream wrote in the same step
//! ([`menes_jetstream::engine::ended`]); the record goes only after the dead letter is stored, and
//! the dead letter's message id is the name of the record: exactly once, whatever happens between.

mod record;

use bytes::Bytes;
use menes_jetstream::Timestamp;
use menes_jetstream::stream::StreamConfig;
use menes_protocol::headers::{HeaderBlock, HeaderBuilder};

pub(crate) use record::{Recording, Refusal, Source};

use crate::name::{GroupName, StationName};
use crate::station::Station;
use crate::task::{Message, Outbound, Step};

/// Name of the stream.
pub const STREAM: &str = "$memphis_dead_letters";
/// Hours that dead letters are kept unless set otherwise.
pub const DEFAULT_RETENTION_HOURS: i64 = 3;
/// Longest reason that is kept, bytes.
const MAX_REASON: usize = 2_048;
/// Longest original header that is kept, bytes; the rest of the block is ours.
const MAX_HEADER: usize = 60_000;

/// Name of the producer of a message, set by every SDK.
pub(crate) const PRODUCED_BY: &str = "$memphis_producedBy";
/// Producer of messages that were sent again.
pub(crate) const DEAD_LETTER_PRODUCER: &str = "$memphis_dls";
/// Id of a dead letter that is sent again.
const RESENT_ID: &str = "$memphis_pm_id";
/// Group it is sent to.
const RESENT_GROUP: &str = "$memphis_pm_cg_name";
const REASON: &str = "$memphis_dead_letter_reason";
const SENT: &str = "$memphis_dead_letter_time_sent";
const DELIVERIES: &str = "$memphis_dead_letter_deliveries";
/// Before the name of a field that would direct the stream it is stored in.
const KEPT: &str = "$memphis_dead_letter_kept_";
/// What all fields that are noted here begin with.
const NOTED: &str = "$memphis_dead_letter_";

/// Why a message is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Delivered too often, or given up by a consumer.
    Poison,
    /// Violates the schema of its station.
    Schema,
}

impl Kind {
    /// The word in subjects and replies.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Poison => "poison",
            Self::Schema => "schema",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "poison" => Some(Self::Poison),
            "schema" => Some(Self::Schema),
            _ => None,
        }
    }

    /// The word on copies in a dead-letter station.
    const fn copy_word(self) -> &'static str {
        match self {
            Self::Poison => "unacked",
            Self::Schema => "failed_schema",
        }
    }
}

/// Where a poison message lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Partition.
    pub partition: u32,
    /// Its sequence there.
    pub sequence: u64,
    /// Group that failed it.
    pub group: GroupName,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Id: its sequence in the stream of dead letters.
    pub id: u64,
    /// Station it was meant for.
    pub station: StationName,
    /// Why.
    pub kind: Kind,
    /// Where it lies; none for messages that were never stored.
    pub origin: Option<Origin>,
    /// The violation, or what the consumer said; may be empty.
    pub reason: String,
    /// How often the group had got it when the deliveries ran out; none where that is not why.
    pub deliveries: Option<u64>,
    /// When it was stored, or refused.
    pub sent: Timestamp,
    /// When it became a dead letter.
    pub failed: Timestamp,
    /// The original header block, empty for none.
    pub header: Bytes,
    /// The original payload.
    pub payload: Bytes,
}

/// Configuration of the stream of dead letters.
#[must_use]
pub fn stream_config(retention_hours: i64) -> StreamConfig {
    let max_age = retention_hours.saturating_mul(3_600_000_000_000);
    StreamConfig {
        name: STREAM.to_owned(),
        subjects: vec![format!("{STREAM}.>")],
        max_consumers: -1,
        max_msgs: -1,
        max_bytes: -1,
        max_age,
        max_msgs_per_subject: -1,
        max_msg_size: -1,
        num_replicas: 1,
        duplicate_window: max_age,
        allow_direct: true,
        ..StreamConfig::default()
    }
}

/// Subjects of the dead letters of a station, all kinds or one.
#[must_use]
pub fn filter(station: &StationName, kind: Option<Kind>) -> String {
    match kind {
        None => format!("{STREAM}.{}.>", station.internal()),
        Some(Kind::Schema) => format!("{STREAM}.{}.schema", station.internal()),
        Some(Kind::Poison) => format!("{STREAM}.{}.poison.>", station.internal()),
    }
}

/// Subjects of the dead letters of a group.
#[must_use]
pub(crate) fn group_filter(station: &StationName, group: &GroupName) -> String {
    format!(
        "{STREAM}.{}.poison.*.*.{}",
        station.internal(),
        group.internal()
    )
}

/// Removes the dead letters on these subjects.
pub(crate) fn purge(filter: String) -> Step {
    Step::Purge {
        stream: STREAM.to_owned(),
        filter: Some(filter),
    }
}

/// A dead letter about to be stored.
pub(crate) struct Draft<'a> {
    pub(crate) station: &'a StationName,
    pub(crate) origin: Option<&'a Origin>,
    pub(crate) reason: &'a str,
    pub(crate) deliveries: Option<u64>,
    pub(crate) sent: Timestamp,
    pub(crate) header: &'a [u8],
    pub(crate) payload: &'a Bytes,
    /// The same for every attempt to store it.
    pub(crate) id: Option<&'a str>,
}

impl Draft<'_> {
    /// The message for the stream of dead letters.
    pub(crate) fn publication(&self) -> Step {
        Step::Publish {
            stream: STREAM.to_owned(),
            message: Box::new(self.message()),
        }
    }

    fn message(&self) -> Outbound {
        let mut header = HeaderBuilder::new();
        // Only this server says why a message is dead.
        let original = fields(self.header).filter(|(name, _)| !name.starts_with(NOTED.as_bytes()));
        for (name, value) in original {
            let pushed = if is_directive(name) {
                header.try_push(&[KEPT.as_bytes(), name].concat(), value)
            } else {
                header.try_push(name, value)
            };
            debug_assert!(pushed.is_ok(), "the name was accepted before");
        }
        if !self.reason.is_empty() {
            header.push(REASON, shorten(self.reason, MAX_REASON));
        }
        header.push(SENT, self.sent.0.to_string());
        if let Some(deliveries) = self.deliveries {
            header.push(DELIVERIES, deliveries.to_string());
        }
        let subject = match self.origin {
            None => filter(self.station, Some(Kind::Schema)),
            Some(origin) => {
                // The same group fails the same message once.
                header.push("Nats-Expected-Last-Subject-Sequence", "0");
                format!(
                    "{STREAM}.{}.poison.{}.{}.{}",
                    self.station.internal(),
                    origin.partition,
                    origin.sequence,
                    origin.group.internal()
                )
            }
        };
        if let Some(id) = self.id {
            header.push("Nats-Msg-Id", id);
        }
        Outbound {
            subject,
            header: header.finish(),
            payload: self.payload.clone(),
        }
    }

    /// The copy for a dead-letter station; the same for every attempt and every group.
    pub(crate) fn copy(&self, target: &Station) -> Step {
        let kind = if self.origin.is_some() {
            Kind::Poison
        } else {
            Kind::Schema
        };
        let mut header = HeaderBuilder::new();
        for (name, value) in fields(self.header).filter(|(name, _)| !name.starts_with(b"Nats-")) {
            let pushed = header.try_push(name, value);
            debug_assert!(pushed.is_ok(), "the name was accepted before");
        }
        header.push("station", self.station.external());
        header.push("type", kind.copy_word());
        let at = match self.origin {
            Some(origin) => {
                let id = format!(
                    "{}.{}.{}.{}",
                    self.station.internal(),
                    origin.partition,
                    origin.sequence,
                    self.sent.0
                );
                header.push("Nats-Msg-Id", id);
                origin.sequence
            }
            None => self.sent.0.unsigned_abs(),
        };
        let partitions = u64::from(target.partitions.max(1));
        let partition = u32::try_from(at % partitions).unwrap_or(0) + 1;
        publication(
            target.name.stream(partition),
            target.name.subject(partition),
            header.finish(),
            self.payload,
        )
    }
}

/// A dead letter that another server recorded.
#[derive(Clone, Debug)]
pub struct Foreign<'a> {
    /// Its station.
    pub station: &'a StationName,
    /// Where it lies, and who failed it; none for a message that violates the schema.
    pub origin: Option<&'a Origin>,
    /// The violation, or what the consumer said; may be empty.
    pub reason: &'a str,
    /// When it was sent.
    pub sent: Timestamp,
    /// Fields of its header. What cannot be one is left out.
    pub fields: &'a [(String, String)],
    /// Its payload.
    pub payload: &'a Bytes,
    /// The same for every attempt to take it over.
    pub id: &'a str,
}

impl Foreign<'_> {
    /// The message for the stream of dead letters. Stored again it is refused, or a duplicate.
    #[must_use]
    pub fn publication(&self) -> Outbound {
        let mut header = HeaderBuilder::new();
        for (name, value) in self.fields {
            // Another server took what this one does not.
            drop(header.try_push(name.as_bytes(), value.as_bytes()));
        }
        let header = if header.is_empty() {
            Bytes::new()
        } else {
            header.finish()
        };
        let draft = Draft {
            station: self.station,
            origin: self.origin,
            reason: self.reason,
            deliveries: None,
            sent: self.sent,
            header: &header,
            payload: self.payload,
            id: Some(self.id),
        };
        draft.message()
    }
}

fn publication(stream: String, subject: String, header: Bytes, payload: &Bytes) -> Step {
    Step::Publish {
        stream,
        message: Box::new(Outbound {
            subject,
            header,
            payload: payload.clone(),
        }),
    }
}

impl DeadLetter {
    /// Reads a message of the stream of dead letters; none if it is not one.
    #[must_use]
    pub fn parse(message: &Message) -> Option<Self> {
        let rest = message.subject.strip_prefix(STREAM)?.strip_prefix('.')?;
        let tokens: Vec<&str> = rest.split('.').collect();
        let (station, kind, origin) = match tokens[..] {
            [station, "schema"] => (station, Kind::Schema, None),
            [station, "poison", partition, sequence, group] => {
                let origin = Origin {
                    partition: partition.parse().ok()?,
                    sequence: sequence.parse().ok()?,
                    group: GroupName::parse(group).ok()?,
                };
                (station, Kind::Poison, Some(origin))
            }
            _ => return None,
        };
        let mut letter = Self {
            id: message.seq,
            station: StationName::parse(station).ok()?,
            kind,
            origin,
            reason: String::new(),
            deliveries: None,
            sent: message.time,
            failed: message.time,
            header: Bytes::new(),
            payload: message.payload.clone(),
        };
        let mut header = HeaderBuilder::new();
        for (name, value) in fields(&message.header) {
            let text = || String::from_utf8_lossy(value).into_owned();
            if name == REASON.as_bytes() {
                letter.reason = text();
            } else if name == SENT.as_bytes() {
                letter.sent = text().parse().map_or(message.time, Timestamp);
            } else if name == DELIVERIES.as_bytes() {
                letter.deliveries = text().parse().ok();
            } else if let Some(kept) = name.strip_prefix(KEPT.as_bytes()) {
                header.try_push(kept, value).ok()?;
            } else if !is_directive(name) {
                header.try_push(name, value).ok()?;
            }
        }
        if !header.is_empty() {
            letter.header = header.finish();
        }
        Some(letter)
    }

    /// Name of its producer.
    #[must_use]
    pub fn producer(&self) -> String {
        match field(&self.header, PRODUCED_BY) {
            Some(name) if !name.is_empty() => String::from_utf8_lossy(name).into_owned(),
            _ => "unknown".to_owned(),
        }
    }

    /// The messages that bring it to its group again, with its payload or another one, for newer
    /// and older SDKs; none for a message that no group failed.
    pub(crate) fn resending(&self, payload: Option<&Bytes>) -> Vec<Step> {
        let payload = payload.unwrap_or(&self.payload);
        let Some(origin) = &self.origin else {
            return Vec::new();
        };
        let mut header = HeaderBuilder::new();
        let ours = [PRODUCED_BY, RESENT_ID, RESENT_GROUP, "producedBy"];
        for (name, value) in fields(&self.header) {
            if !ours.iter().any(|ours| ours.as_bytes() == name) {
                let pushed = header.try_push(name, value);
                debug_assert!(pushed.is_ok(), "the name was accepted before");
            }
        }
        header.push(RESENT_ID, self.id.to_string());
        header.push(RESENT_GROUP, origin.group.external());
        header.push(PRODUCED_BY, DEAD_LETTER_PRODUCER);
        let header = header.finish();
        let (station, group) = (self.station.internal(), origin.group.internal());
        [".", "_"]
            .map(|separator| {
                Step::Send(Box::new(Outbound {
                    subject: format!("$memphis_dls_{station}{separator}{group}"),
                    header: header.clone(),
                    payload: payload.clone(),
                }))
            })
            .into()
    }

    /// Its payload, or another one, as a new message of its station.
    pub(crate) fn republishing(&self, station: &Station, payload: Option<Bytes>) -> Step {
        let mut header = HeaderBuilder::new();
        for (name, value) in fields(&self.header).filter(|(name, _)| !is_directive(name)) {
            let pushed = header.try_push(name, value);
            debug_assert!(pushed.is_ok(), "the name was accepted before");
        }
        // Asking again for the same edit stores it once.
        let id = format!("dead-letter-{}-{}", self.id, self.failed.0);
        header.push("Nats-Msg-Id", id);
        let partition = self.origin.as_ref().map_or(1, |origin| origin.partition);
        let partition = partition.clamp(1, station.partitions.max(1));
        let payload = payload.unwrap_or_else(|| self.payload.clone());
        publication(
            station.name.stream(partition),
            station.name.subject(partition),
            header.finish(),
            &payload,
        )
    }
}

/// Whether a field directs the stream that stores the message.
fn is_directive(name: &[u8]) -> bool {
    name.starts_with(b"Nats-") || name == b"msg-id"
}

/// The fields of a header block; none if it is empty, malformed or too long to keep.
pub(crate) fn fields(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let block = (!header.is_empty() && header.len() <= MAX_HEADER)
        .then(|| HeaderBlock::parse(header).ok())
        .flatten();
    block.into_iter().flat_map(|block| block.iter())
}

pub(crate) fn field<'h>(header: &'h [u8], name: &str) -> Option<&'h [u8]> {
    fields(header)
        .find(|(field, _)| *field == name.as_bytes())
        .map(|(_, value)| value)
}

/// At most `limit` bytes of a text.
fn shorten(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin {
            partition: 2,
            sequence: 7,
            group: GroupName::parse("grp.c").expect("a good name"),
        }
    }

    fn stored(step: Step) -> Message {
        let Step::Publish { message, .. } = step else {
            panic!("a dead letter is published");
        };
        Message {
            seq: 5,
            time: Timestamp(20),
            subject: message.subject,
            header: message.header,
            payload: message.payload,
        }
    }

    fn draft(header: &[u8]) -> DeadLetter {
        let (station, origin) = (StationName::parse("my.st").expect("good"), origin());
        let draft = Draft {
            station: &station,
            origin: Some(&origin),
            reason: "two\r\nlines",
            deliveries: Some(3),
            sent: Timestamp(10),
            header,
            payload: &Bytes::from_static(b"body"),
            id: Some("1.2.3"),
        };
        DeadLetter::parse(&stored(draft.publication())).expect("it is one")
    }

    #[test]
    fn a_dead_letter_comes_back_with_its_original_header() {
        let header =
            b"NATS/1.0\r\nk: v\r\nNats-TTL: 1s\r\nmsg-id: x\r\n$memphis_producedBy: p\r\n\r\n";
        let letter = draft(header);
        assert_eq!(letter.deliveries, Some(3));
        assert_eq!(&letter.header[..], header);
        assert_eq!((letter.id, letter.producer().as_str()), (5, "p"));
        assert_eq!(letter.reason, "two  lines");
        assert_eq!(letter.origin, Some(origin()));
        assert_eq!((letter.sent, letter.failed), (Timestamp(10), Timestamp(20)));
        assert!(draft(b"").header.is_empty());
    }

    #[test]
    fn nobody_says_for_the_server_why_a_message_is_dead() {
        let forged = b"NATS/1.0\r\n$memphis_dead_letter_deliveries: 99\r\nk: v\r\n\r\n";
        let letter = draft(forged);
        assert_eq!(letter.deliveries, Some(3));
        assert_eq!(&letter.header[..], b"NATS/1.0\r\nk: v\r\n\r\n");
    }

    #[test]
    fn a_mended_payload_is_sent_in_place_of_the_original() {
        let sent = draft(b"").resending(Some(&Bytes::from_static(b"mended")));
        for step in sent {
            assert!(matches!(step, Step::Send(message) if &message.payload[..] == b"mended"));
        }
    }

    #[test]
    fn nothing_of_the_original_directs_the_stream_it_is_kept_in() {
        let (station, origin) = (StationName::parse("st").expect("good"), origin());
        let draft = Draft {
            station: &station,
            origin: Some(&origin),
            reason: "",
            deliveries: None,
            sent: Timestamp(10),
            header: b"NATS/1.0\r\nNats-Msg-Id: theirs\r\nNats-Rollup: all\r\nmsg-id: m\r\n\r\n",
            payload: &Bytes::new(),
            id: Some("ours"),
        };
        let message = stored(draft.publication());
        let directives: Vec<_> = fields(&message.header)
            .filter(|(name, _)| is_directive(name))
            .collect();
        assert_eq!(
            directives,
            [
                (&b"Nats-Expected-Last-Subject-Sequence"[..], &b"0"[..]),
                (b"Nats-Msg-Id", b"ours")
            ]
        );
    }

    #[test]
    fn a_resent_message_tells_its_id_and_group_on_both_subjects() {
        let letter = draft(b"NATS/1.0\r\nk: v\r\n$memphis_producedBy: p\r\nproducedBy: p\r\n\r\n");
        let sent: Vec<_> = letter
            .resending(None)
            .into_iter()
            .map(|step| match step {
                Step::Send(message) => *message,
                other => panic!("{other:?} is no sending"),
            })
            .collect();
        let subjects: Vec<_> = sent.iter().map(|message| &message.subject[..]).collect();
        assert_eq!(
            subjects,
            ["$memphis_dls_my#st.grp#c", "$memphis_dls_my#st_grp#c"]
        );
        let names: Vec<_> = fields(&sent[0].header)
            .map(|(name, value)| {
                (
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(value),
                )
            })
            .collect();
        let expected = [
            ("k", "v"),
            ("$memphis_pm_id", "5"),
            ("$memphis_pm_cg_name", "grp.c"),
            ("$memphis_producedBy", "$memphis_dls"),
        ];
        assert_eq!(names, expected.map(|(n, v)| (n.into(), v.into())));
    }
}
