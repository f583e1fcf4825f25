//! Backups of servers before 2.15: a tar file with the message blocks as they lay on disk.
//!
//! ```text
//! meta.inf | msgs/<n>.blk ... | obs/<consumer>/meta.inf, o.dat ...
//! ```

use serde::Deserialize;

use super::block::{BlockReader, BlockRecord};
use super::{ArchiveError, Entry, consumer_position};
use crate::consumer::ConsumerConfig;

const BLOCK: usize = 512;
/// Largest file that is read: the largest message block of the reference server, with room.
const MAX_FILE: usize = 128 << 20;

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
        let rest = self.records.get(self.record_at..).unwrap_or_default();
        let mut reader = BlockReader::new(rest);
        let Some(record) = reader.next().transpose()? else {
            self.record_at = self.records.len();
            return Ok(None);
        };
        self.record_at += reader.position();
        Ok(match record {
            BlockRecord::Removed(seq) => Some(OldPart::Removed(seq)),
            BlockRecord::Message(message) => Some(OldPart::Message(message.entry())),
        })
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
        let ack_floor = consumer_position(content).unwrap_or_default().ack_floor;
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

    const ERASED: u64 = 1 << 63;
    const TOMBSTONE: u64 = 1 << 62;

    fn record(out: &mut Vec<u8>, seq: u64, subject: &str, header: &[u8], payload: &[u8]) {
        crate::archive::block::write(out, seq, 77, subject, header, payload);
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
        file(&mut archive, "obs/C/o.dat", &[22, 2, 7, 5, 9, 8, 0, 0]);
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
