//! Backups of servers before 2.15: a tar file with the message blocks as they lay on disk.
//!
//! ```text
//! meta.inf | msgs/<n>.blk ... | obs/<consumer>/meta.inf, o.dat ...
//! record:  len u32 | seq u64 | time i64 | subject len u16 | subject
//!          | header len u32 | header | payload | checksum 8        the two of the header if it has one
//! ```
//!
//! A block may hold records of messages that are gone: their sequence carries a mark, or a record
//! of its own says so later.

use serde::Deserialize;

use super::{ArchiveError, Entry};
use crate::consumer::ConsumerConfig;

const BLOCK: usize = 512;
/// Largest file that is read: the largest message block of the reference server, with room.
const MAX_FILE: usize = 128 << 20;
const RECORD_HEAD: usize = 22;
const CHECKSUM: usize = 8;
const HAS_HEADER: u32 = 1 << 31;
const ERASED: u64 = 1 << 63;
const TOMBSTONE: u64 = 1 << 62;

/// Something out of an old backup.
#[derive(Debug)]
pub enum OldPart {
    /// A message.
    Message(Entry),
    /// This sequence has no message any more.
    Removed(u64),
    /// A consumer and where it stands, ack floor and deliveries in both countings.
    Consumer {
        /// Its configuration.
        config: Box<ConsumerConfig>,
        /// Name of the file's folder, which is that of the consumer.
        name: String,
        /// Deliveries and messages of the stream up to the ack floor.
        ack_floor: (u64, u64),
    },
    /// The file has ended.
    End,
}

/// Takes an old backup apart whose bytes come in pieces.
#[derive(Debug, Default)]
pub struct OldArchive {
    buffer: Vec<u8>,
    at: usize,
    records: Vec<u8>,
    record_at: usize,
    consumer: Option<(String, Box<ConsumerConfig>)>,
    has_ended: bool,
}

impl OldArchive {
    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 && self.at >= self.buffer.len() / 2 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next part, `None` until more bytes come.
    ///
    /// # Errors
    /// When the bytes are no such backup.
    pub fn next_part(&mut self) -> Result<Option<OldPart>, ArchiveError> {
        loop {
            if let Some(part) = self.next_record()? {
                return Ok(Some(part));
            }
            let Some((name, content)) = self.next_file()? else {
                return Ok(None);
            };
            if name.is_empty() {
                self.has_ended = self.consumer.is_none();
                return Ok(Some(match self.consumer.take() {
                    Some((name, config)) => without_state(name, config),
                    None => OldPart::End,
                }));
            }
            if name.starts_with("msgs/") && name.ends_with(".blk") {
                (self.records, self.record_at) = (content, 0);
            } else if let Some(rest) = name.strip_prefix("obs/")
                && let Some(part) = self.consumer_file(rest, &content)?
            {
                return Ok(Some(part));
            }
        }
    }

    /// The next file; its name is empty at the end of the archive.
    fn next_file(&mut self) -> Result<Option<(String, Vec<u8>)>, ArchiveError> {
        if self.has_ended {
            return Ok(None);
        }
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        let Some(head) = rest.get(..BLOCK) else {
            return Ok(None);
        };
        if head.iter().all(|byte| *byte == 0) {
            return Ok(Some((String::new(), Vec::new())));
        }
        let text = |range: std::ops::Range<usize>| {
            let field = head.get(range).unwrap_or_default();
            let end = field.iter().position(|byte| *byte == 0);
            String::from_utf8_lossy(&field[..end.unwrap_or(field.len())]).into_owned()
        };
        if !text(257..263).starts_with("ustar") {
            return Err(ArchiveError::Invalid);
        }
        let size =
            usize::from_str_radix(text(124..136).trim(), 8).map_err(|_| ArchiveError::Invalid)?;
        if size > MAX_FILE {
            return Err(ArchiveError::TooLarge);
        }
        let name = match text(345..500).as_str() {
            "" => text(0..100),
            prefix => format!("{prefix}/{}", text(0..100)),
        };
        let Some(content) = rest.get(BLOCK..BLOCK + size) else {
            return Ok(None);
        };
        let whole = BLOCK + size.next_multiple_of(BLOCK);
        if rest.len() < whole {
            return Ok(None);
        }
        let content = content.to_vec();
        self.at += whole;
        Ok(Some((name, content)))
    }

    fn next_record(&mut self) -> Result<Option<OldPart>, ArchiveError> {
        const BAD: ArchiveError = ArchiveError::Invalid;
        while self.record_at < self.records.len() {
            let rest = &self.records[self.record_at..];
            let head = rest.get(..RECORD_HEAD).ok_or(BAD)?;
            let number = |at: usize| {
                let bytes = head.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
                bytes.map(u64::from_le_bytes).ok_or(BAD)
            };
            let len = u32::from_le_bytes(head[..4].try_into().map_err(|_| BAD)?);
            let has_header = len & HAS_HEADER != 0;
            let len = (len & !HAS_HEADER) as usize;
            let (seq, time) = (number(4)?, number(12)?.cast_signed());
            let subject = usize::from(u16::from_le_bytes([head[20], head[21]]));
            let record = rest.get(..len).ok_or(BAD)?;
            let body = record
                .get(RECORD_HEAD..len.checked_sub(CHECKSUM).ok_or(BAD)?)
                .ok_or(BAD)?;
            self.record_at += len;
            if seq & TOMBSTONE != 0 {
                return Ok(Some(OldPart::Removed(seq & !(TOMBSTONE | ERASED))));
            }
            if seq == 0 || seq & ERASED != 0 {
                continue;
            }
            let (name, mut rest) = body.split_at_checked(subject).ok_or(BAD)?;
            let mut header = &[][..];
            if has_header {
                let (len, behind) = rest.split_first_chunk::<4>().ok_or(BAD)?;
                let len = u32::from_le_bytes(*len) as usize;
                (header, rest) = behind.split_at_checked(len).ok_or(BAD)?;
            }
            return Ok(Some(OldPart::Message(Entry {
                name: name.to_vec(),
                time,
                seq,
                header: header.to_vec(),
                payload: rest.to_vec(),
            })));
        }
        Ok(None)
    }

    fn consumer_file(
        &mut self,
        path: &str,
        content: &[u8],
    ) -> Result<Option<OldPart>, ArchiveError> {
        #[derive(Deserialize)]
        struct Meta {
            #[serde(flatten)]
            config: ConsumerConfig,
        }
        let Some((name, file)) = path.split_once('/') else {
            return Ok(None);
        };
        if file == "meta.inf" {
            let meta: Meta = serde_json::from_slice(content).map_err(|_| ArchiveError::Invalid)?;
            let consumer = (name.to_owned(), Box::new(meta.config));
            let before = self.consumer.replace(consumer);
            return Ok(before.map(|(name, config)| without_state(name, config)));
        }
        let Some((name, config)) = self
            .consumer
            .take_if(|(known, _)| file == "o.dat" && known == name)
        else {
            return Ok(None);
        };
        // Magic byte and version, then the numbers.
        let mut rest = content.get(2..).unwrap_or_default();
        let mut number = || super::varint(&mut rest).ok().flatten().unwrap_or(0);
        let ack_floor = (number(), number());
        Ok(Some(OldPart::Consumer {
            config,
            name,
            ack_floor,
        }))
    }
}

/// A consumer that nothing was ever delivered to.
fn without_state(name: String, config: Box<ConsumerConfig>) -> OldPart {
    OldPart::Consumer {
        config,
        name,
        ack_floor: (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(out: &mut Vec<u8>, name: &str, content: &[u8]) {
        let mut head = vec![0; BLOCK];
        head[..name.len()].copy_from_slice(name.as_bytes());
        let size = format!("{:011o}\0", content.len());
        head[124..136].copy_from_slice(size.as_bytes());
        head[257..262].copy_from_slice(b"ustar");
        out.extend_from_slice(&head);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }

    fn record(out: &mut Vec<u8>, seq: u64, subject: &str, header: &[u8], payload: &[u8]) {
        let extra = if header.is_empty() { 0 } else { 4 };
        let len = RECORD_HEAD + subject.len() + extra + header.len() + payload.len() + CHECKSUM;
        let mark = if header.is_empty() { 0 } else { HAS_HEADER };
        out.extend_from_slice(&(len as u32 | mark).to_le_bytes());
        out.extend_from_slice(&seq.to_le_bytes());
        out.extend_from_slice(&77i64.to_le_bytes());
        out.extend_from_slice(&(subject.len() as u16).to_le_bytes());
        out.extend_from_slice(subject.as_bytes());
        if !header.is_empty() {
            out.extend_from_slice(&(header.len() as u32).to_le_bytes());
            out.extend_from_slice(header);
        }
        out.extend_from_slice(payload);
        out.extend_from_slice(&[0; CHECKSUM]);
    }

    #[test]
    fn an_old_backup_is_taken_apart() {
        let mut block = Vec::new();
        record(&mut block, 3, "a.b", b"", b"plain");
        record(&mut block, 4 | ERASED, "", b"", b"gone");
        record(&mut block, 5, "c", b"NATS/1.0\r\n\r\n", b"");
        record(&mut block, 3 | TOMBSTONE, "", b"", b"");
        let mut archive = Vec::new();
        file(&mut archive, "meta.inf", b"{}");
        file(&mut archive, "msgs/1.blk", &block);
        file(
            &mut archive,
            "obs/C/meta.inf",
            br#"{"name":"C","durable_name":"C"}"#,
        );
        file(&mut archive, "obs/C/o.dat", &[22, 2, 7, 5, 9, 8]);
        file(&mut archive, "obs/D/meta.inf", br#"{"name":"D"}"#);
        archive.resize(archive.len() + 2 * BLOCK, 0);
        for piece in [1, 100, archive.len()] {
            let mut reader = OldArchive::default();
            let mut parts = Vec::new();
            for bytes in archive.chunks(piece) {
                reader.push(bytes);
                while let Some(part) = reader.next_part().expect("a sound archive") {
                    parts.push(part);
                }
            }
            let [
                OldPart::Message(plain),
                OldPart::Message(other),
                OldPart::Removed(3),
                OldPart::Consumer {
                    name,
                    ack_floor: (7, 5),
                    ..
                },
                OldPart::Consumer {
                    ack_floor: (0, 0), ..
                },
                OldPart::End,
            ] = parts.as_slice()
            else {
                panic!("{parts:?}");
            };
            assert_eq!((plain.seq, plain.time), (3, 77));
            assert_eq!(
                (&*plain.name, &*plain.payload),
                (&b"a.b"[..], &b"plain"[..])
            );
            assert_eq!((other.seq, &*other.header), (5, &b"NATS/1.0\r\n\r\n"[..]));
            assert_eq!(name, "C");
        }
    }
}
