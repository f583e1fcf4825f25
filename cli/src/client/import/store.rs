//! The folder in which the reference server, and Memphis with it, keeps streams. It is only read.
//!
//! ```text
//! jetstream/<account>/streams/<stream>/meta.inf, msgs/<n>.blk, <n>.idx or index.db,
//!                                      obs/<consumer>/meta.inf, o.dat
//! ```
//!
//! Nothing here is believed: files are read only up to a size, links are not followed, records are
//! held against their checksums, and what is damaged is left out and named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use highway::{HighwayHash, HighwayHasher, Key};
use menes_jetstream::archive::{
    BlockReader, BlockRecord, ConsumerPosition, Entry, Gone, block_index, consumer_position,
    stream_index,
};
use menes_jetstream::consumer::ConsumerConfig;
use menes_jetstream::stream::StreamConfig;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Largest block that is read: the largest of the reference server, with room.
const MAX_BLOCK: u64 = 128 << 20;
/// Largest other file that is read.
const MAX_FILE: u64 = 64 << 20;
/// Places of damage that are named for each stream.
const MAX_DAMAGE: usize = 8;
/// Removed messages that are remembered for each stream.
const MAX_REMOVED: usize = 50_000_000;

/// A stream on disk.
#[derive(Debug)]
pub(super) struct StoredStream {
    /// Its name.
    pub(super) name: String,
    /// Its configuration.
    pub(super) config: StreamConfig,
    /// Blocks by number.
    blocks: Vec<(u64, PathBuf)>,
    /// Its durables, by name.
    pub(super) consumers: Vec<StoredConsumer>,
}

/// A durable on disk.
#[derive(Debug)]
pub(super) struct StoredConsumer {
    /// Its name.
    pub(super) name: String,
    /// Its configuration.
    pub(super) config: ConsumerConfig,
    /// How far it is.
    pub(super) position: ConsumerPosition,
}

/// What a stream holds, after it was read once.
#[derive(Debug, Default)]
pub(super) struct Survey {
    gone: Gone,
    /// By block: everything in it below is gone.
    heads: BTreeMap<u64, u64>,
    /// Messages there are.
    pub(super) messages: u64,
    /// Bytes of their subjects, headers and payloads.
    pub(super) bytes: u64,
    /// The first sequence and the last one that was given out.
    pub(super) first: u64,
    pub(super) last: u64,
    /// When those were stored, nanoseconds.
    pub(super) first_time: i64,
    pub(super) last_time: i64,
    /// What could not be read.
    pub(super) damage: Damage,
}

/// Streams that were found, and folders that are none and why.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) streams: Vec<StoredStream>,
    pub(super) refused: Vec<(String, String)>,
}

/// Reads what there is of the first of these accounts that has streams. `folder` is the folder of
/// the store, or the folder `jetstream` in it.
pub(super) fn open(folder: &Path, accounts: &[&str]) -> Result<Store, String> {
    let inner = folder.join("jetstream");
    let folder = if inner.is_dir() { &inner } else { folder };
    let mut store = Store::default();
    let mut is_found = false;
    for account in accounts {
        let streams = folder.join(account).join("streams");
        if !streams.is_dir() {
            continue;
        }
        is_found = true;
        for (name, path) in folders(&streams)? {
            // An earlier account has it already.
            if store.streams.iter().any(|known| known.name == name) {
                let why = format!("the one of another account is taken, not that of {account}");
                store.refused.push((name, why));
                continue;
            }
            match read_stream(&path) {
                Ok(stream) => store.streams.push(stream),
                Err(error) => store.refused.push((name, error)),
            }
        }
    }
    if !is_found {
        let names = accounts.join(" or ");
        let place = folder.display();
        return Err(format!("{place} has no streams of account {names}"));
    }
    Ok(store)
}

/// The folders in a folder, by name. Links are left out.
fn folders(folder: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let failed = |error: io::Error| format!("{}: {error}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            let name = entry.file_name().to_string_lossy().into_owned();
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// A whole file that is no larger than this; none if there is none.
fn read(path: &Path, most: u64) -> Result<Option<Vec<u8>>, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let about = match fs::symlink_metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if !about.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    if about.len() > most {
        let size = about.len();
        return Err(format!(
            "{} has {size} bytes, at most {most} are read",
            path.display()
        ));
    }
    fs::read(path).map(Some).map_err(failed)
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, String> {
    let text = read(path, MAX_FILE)?.ok_or_else(|| format!("{} is missing", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn read_stream(folder: &Path) -> Result<StoredStream, String> {
    if folder.join("meta.key").exists() {
        return Err("it is encrypted; start the old server without a key once, or drain it".into());
    }
    let config: StreamConfig = read_json(&folder.join("meta.inf"))?;
    let mut blocks = Vec::new();
    let messages = folder.join("msgs");
    if messages.is_dir() {
        let failed = |error: io::Error| format!("{}: {error}", messages.display());
        for entry in fs::read_dir(&messages).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let number = path
                .file_name()
                .and_then(|name| name.to_str()?.strip_suffix(".blk")?.parse().ok());
            blocks.extend(number.map(|number: u64| (number, path)));
        }
        blocks.sort();
    }
    let mut consumers = Vec::new();
    let durables = folder.join("obs");
    if durables.is_dir() {
        for (name, path) in folders(&durables)? {
            consumers.extend(read_consumer(name, &path)?);
        }
    }
    Ok(StoredStream {
        name: config.name.clone(),
        config,
        blocks,
        consumers,
    })
}

/// A durable; none if it is one of those that go with their client.
fn read_consumer(name: String, folder: &Path) -> Result<Option<StoredConsumer>, String> {
    #[derive(Deserialize)]
    struct Meta {
        #[serde(flatten)]
        config: ConsumerConfig,
    }
    let meta: Meta = read_json(&folder.join("meta.inf"))?;
    let durable = meta.config.durable_name.as_deref().unwrap_or_default();
    if durable.is_empty() {
        return Ok(None);
    }
    let state = read(&folder.join("o.dat"), MAX_FILE)?;
    let position = match &state {
        None => ConsumerPosition::default(),
        Some(bytes) if bytes.is_empty() => ConsumerPosition::default(),
        Some(bytes) => consumer_position(bytes)
            .ok_or_else(|| format!("the position of consumer {name} cannot be read"))?,
    };
    Ok(Some(StoredConsumer {
        name,
        config: meta.config,
        position,
    }))
}

impl StoredStream {
    /// Reads everything, to know what there is.
    pub(super) fn survey(&self) -> Result<Survey, String> {
        let mut survey = Survey::default();
        for (number, path) in &self.blocks {
            let folder = path.parent().unwrap_or(path);
            let index = read(&folder.join(format!("{number}.idx")), MAX_FILE)?;
            if let Some(gone) = index.as_deref().and_then(block_index) {
                survey.heads.insert(*number, gone.below);
                survey.gone.sequences.extend(gone.sequences);
                survey.last = survey.last.max(gone.last);
            }
        }
        if let Some((_, path)) = self.blocks.first() {
            let folder = path.parent().unwrap_or(path);
            let index = read(&folder.join("index.db"), MAX_BLOCK)?;
            if let Some(gone) = index.as_deref().and_then(stream_index) {
                survey.last = survey.last.max(gone.last);
                survey.gone.below = gone.below;
                survey.gone.sequences.extend(gone.sequences);
            }
        }
        // A message may be removed by a record in a later block.
        let (mut last, mut removed) = (survey.last, BTreeSet::new());
        let mut damage = Damage::default();
        for at in 0..self.blocks.len() {
            self.records(at, &mut damage, |record| {
                match record {
                    BlockRecord::Removed(seq) => {
                        removed.insert(*seq);
                        last = last.max(*seq);
                    }
                    BlockRecord::Message(message) => last = last.max(message.seq),
                }
                match removed.len() {
                    0..=MAX_REMOVED => Ok(()),
                    _ => Err(format!("more than {MAX_REMOVED} removed messages")),
                }
            })?;
        }
        (survey.last, survey.damage) = (last, damage);
        survey.gone.sequences.extend(removed);
        let mut previous = 0;
        for at in 0..self.blocks.len() {
            for entry in self.block(at, &survey, &mut previous)? {
                if survey.messages == 0 {
                    (survey.first, survey.first_time) = (entry.seq, entry.time);
                }
                survey.messages += 1;
                let bytes = entry.name.len() + entry.header.len() + entry.payload.len();
                survey.bytes += bytes as u64;
                survey.last_time = entry.time;
            }
        }
        if survey.messages == 0 {
            survey.first = survey.last.saturating_add(1);
        }
        Ok(survey)
    }

    /// How many blocks there are.
    pub(super) fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// The messages of one block that there are, behind `previous`, which moves on with them:
    /// blocks that were written anew after a crash may repeat.
    pub(super) fn block(
        &self,
        at: usize,
        survey: &Survey,
        previous: &mut u64,
    ) -> Result<Vec<Entry>, String> {
        let number = self.blocks.get(at).map(|(number, _)| number);
        let head = number.and_then(|number| survey.heads.get(number));
        let head = head.copied().unwrap_or(0);
        let mut entries = Vec::new();
        self.records(at, &mut Damage::default(), |record| {
            if let BlockRecord::Message(message) = record
                && message.seq > *previous
                && message.seq >= head
                && !survey.gone.has(message.seq)
            {
                *previous = message.seq;
                entries.push(message.entry());
            }
            Ok(())
        })?;
        Ok(entries)
    }

    /// Every record of a block whose checksum is right.
    fn records(
        &self,
        at: usize,
        damage: &mut Damage,
        mut take: impl FnMut(&BlockRecord<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let Some((number, path)) = self.blocks.get(at) else {
            return Ok(());
        };
        let Some(block) = read(path, MAX_BLOCK)? else {
            return Ok(());
        };
        if BlockReader::is_compressed(&block) {
            return Err(format!("block {number} is compressed, which is not read"));
        }
        let key = key_of(&self.name, *number);
        let mut reader = BlockReader::new(&block);
        loop {
            let at = reader.position();
            let record = match reader.next() {
                None => return Ok(()),
                Some(Ok(record)) => record,
                Some(Err(_)) => {
                    let lost = block.len() - at;
                    damage.note(format!(
                        "block {number}: {lost} bytes from {at} on are damaged"
                    ));
                    return Ok(());
                }
            };
            if is_sound(key, &record) {
                take(&record)?;
            } else {
                damage.note(format!("block {number}: the message at {at} is damaged"));
            }
        }
    }
}

/// What could not be read of a stream.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// How many places.
    pub(super) count: u64,
    /// The first of them, for people.
    pub(super) places: Vec<String>,
}

impl Damage {
    fn note(&mut self, place: String) {
        self.count += 1;
        if self.places.len() < MAX_DAMAGE {
            self.places.push(place);
        }
    }
}

/// The key of the checksums of a block.
fn key_of(stream: &str, block: u64) -> Key {
    let digest = Sha256::digest(format!("{stream}-{block}"));
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(digest.chunks_exact(8)) {
        *word = bytes
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    }
    Key(words)
}

fn is_sound(key: Key, record: &BlockRecord<'_>) -> bool {
    let BlockRecord::Message(message) = record else {
        return true;
    };
    let (head, parts) = message.summed();
    let mut hasher = HighwayHasher::new(key);
    hasher.append(&head);
    for part in parts {
        hasher.append(part);
    }
    hasher.finalize64() == message.checksum
}
