//! Tests of the stream as a whole, over both stores in memory.

mod facts;
mod model;

use bytes::Bytes;

use crate::command::Purge;
use crate::ids::{AccountName, GroupId, StreamSeq};
use crate::memory::{MemoryLog, MemoryState};
use crate::ports::{Entry, EntryKind, LogStore, StateStore};
use crate::record::{BlockBuilder, StoredMessage};
use crate::time::Timestamp;
use crate::txn::Txn;

use super::Purged;
use super::config::{Storage, StreamConfig};
use super::{
    BlockCache, Context, Filters, PublishOutcome, Removed, SegmentUse, Stream, StreamState, View,
};

const GROUP: GroupId = GroupId(16);
const SECOND: i64 = 1_000_000_000;
/// Times of tests count from here.
const START: i64 = 1_700_000_000 * SECOND;

/// One proposed message.
#[derive(Clone, Debug, Default)]
struct Proposal {
    subject: String,
    header: String,
    payload: Vec<u8>,
}

/// A proposal without a header.
fn plain(subject: &str, payload: &str) -> Proposal {
    Proposal {
        subject: subject.into(),
        header: String::new(),
        payload: payload.into(),
    }
}

/// A proposal with header fields `Name: value`.
fn with(subject: &str, fields: &[&str]) -> Proposal {
    let mut header = String::from("NATS/1.0\r\n");
    for field in fields {
        header.push_str(field);
        header.push_str("\r\n");
    }
    header.push_str("\r\n");
    Proposal {
        subject: subject.into(),
        header,
        payload: b"x".to_vec(),
    }
}

fn config() -> StreamConfig {
    StreamConfig {
        name: "S".into(),
        subjects: vec![">".into()],
        max_msgs: -1,
        max_bytes: -1,
        max_msgs_per_subject: -1,
        max_msg_size: -1,
        ..StreamConfig::default()
    }
}

/// A stream with everything it needs.
struct World {
    state: MemoryState,
    log: MemoryLog,
    cache: BlockCache,
    segments: SegmentUse,
    stream: Stream,
    index: u64,
    now: i64,
    interest: fn(&[u8]) -> bool,
    removed: Vec<Removed>,
    /// Every entry, to apply them again elsewhere.
    history: Vec<Operation>,
    /// What came of the last purge.
    purged: Option<Purged>,
}

/// What a stream was told.
#[derive(Clone, Debug)]
enum Operation {
    Publish(u64, Bytes, Option<crate::ports::EntryLocation>),
    Purge(Purge),
    Remove(Vec<StreamSeq>),
    Advance(Timestamp),
    Update(Box<StreamConfig>, Timestamp),
}

/// How many messages expire or are purged with one operation, about.
const MAX_EXPIRED: u32 = 3;

impl World {
    fn new(config: StreamConfig) -> Self {
        Self::with_cache(config, BlockCache::default())
    }

    fn with_cache(config: StreamConfig, cache: BlockCache) -> Self {
        let account = AccountName::global();
        Self {
            state: MemoryState::new(),
            log: MemoryLog::new().with_segment_bytes(1 << 14),
            cache,
            segments: SegmentUse::default(),
            stream: Stream::create(GROUP, account, config, Timestamp(START)),
            index: 0,
            now: 0,
            interest: |_| true,
            removed: Vec::new(),
            history: Vec::new(),
            purged: None,
        }
    }

    /// Moves the clock on.
    fn wait(&mut self, nanos: i64) {
        self.now += nanos;
    }

    fn time(&self) -> Timestamp {
        Timestamp(START + self.now)
    }

    fn publish(&mut self, proposals: &[Proposal]) -> Vec<PublishOutcome> {
        let mut builder = BlockBuilder::new(self.time());
        for proposal in proposals {
            builder.push(
                self.time(),
                proposal.subject.as_bytes(),
                proposal.header.as_bytes(),
                &proposal.payload,
            );
            self.now += 1;
        }
        let block = builder.finish();
        self.index += 1;
        let at = (self.stream.config().storage == Storage::File).then(|| {
            let entry = Entry {
                group: GROUP,
                index: self.index,
                term: 1,
                kind: EntryKind::Publish,
                compress: false,
                payload: block.clone(),
            };
            self.log
                .append(&[entry])
                .expect("memory has room")
                .locations[0]
        });
        self.apply(&Operation::Publish(self.index, block, at))
    }

    fn publish_one(&mut self, proposal: Proposal) -> PublishOutcome {
        self.publish(&[proposal]).remove(0)
    }

    fn purge(&mut self, purge: Purge) -> u64 {
        let before = self.stream.messages();
        let mut rest = Some(Purge {
            most: Some(MAX_EXPIRED),
            ..purge
        });
        let mut told = 0;
        while let Some(purge) = rest {
            self.apply(&Operation::Purge(purge));
            let purged = self.purged.take().expect("it was applied");
            assert!(
                purged.rest.is_none() || purged.purged <= before,
                "each gets further"
            );
            (told, rest) = (purged.purged, purged.rest);
        }
        let went = before - self.stream.messages();
        assert_eq!(told, went);
        went
    }

    fn remove(&mut self, seq: u64) -> bool {
        let before = self.stream.messages();
        self.apply(&Operation::Remove(vec![StreamSeq(seq)]));
        before > self.stream.messages()
    }

    fn advance(&mut self) {
        let now = self.time();
        self.apply(&Operation::Advance(now));
        self.finish_expiry(now);
    }

    fn update(&mut self, config: StreamConfig) {
        let now = self.time();
        self.apply(&Operation::Update(Box::new(config), now));
        self.finish_expiry(now);
    }

    /// Lets expire what was left for later.
    fn finish_expiry(&mut self, now: Timestamp) {
        let mut rounds = 0;
        while self.stream.next_expiry().is_some_and(|next| next <= now) {
            self.apply(&Operation::Advance(now));
            rounds += 1;
            assert!(rounds < 10_000, "each round gets further");
        }
    }

    fn apply(&mut self, operation: &Operation) -> Vec<PublishOutcome> {
        self.history.push(operation.clone());
        let mut outcomes = Vec::new();
        let mut txn = Txn::new(&self.state);
        let mut cx = Context {
            txn: &mut txn,
            log: &self.log,
            cache: &mut self.cache,
            segments: &mut self.segments,
        };
        let removed = &mut self.removed;
        match operation.clone() {
            Operation::Publish(index, block, at) => {
                let mut interest = self.interest;
                self.stream
                    .apply_publish(
                        at,
                        index,
                        &block,
                        &mut interest,
                        &mut cx,
                        &mut outcomes,
                        removed,
                    )
                    .expect("applies");
            }
            Operation::Purge(purge) => {
                let purged = self.stream.purge(&purge, &mut cx, removed);
                self.purged = Some(purged.expect("purges"));
            }
            Operation::Remove(seqs) => {
                self.stream
                    .remove_all(&seqs, &mut cx, removed)
                    .expect("removes");
            }
            Operation::Advance(now) => self
                .stream
                .advance(now, MAX_EXPIRED, &mut cx, removed)
                .expect("advances"),
            Operation::Update(config, now) => {
                self.stream
                    .update_config(*config, now, MAX_EXPIRED, &mut cx, removed)
                    .expect("updates");
            }
        }
        self.segments.write_changes(&mut txn);
        let writes = txn.into_writes();
        self.state.write(&writes).expect("memory takes it");
        outcomes
    }

    /// As after a restart: what is not in the store is gone.
    fn reload(&mut self) {
        self.cache = BlockCache::new(1 << 12);
        self.segments = SegmentUse::load(&self.state).expect("rows are sound");
        self.stream = Stream::load(
            GROUP,
            self.stream.account().clone(),
            self.stream.config().clone(),
            self.stream.created(),
            &self.state,
        )
        .expect("rows are sound");
    }

    fn read<T>(&mut self, read: impl FnOnce(&Stream, &mut View<'_>) -> T) -> T {
        read(
            &self.stream,
            &mut View::new(&self.state, &self.log, &mut self.cache),
        )
    }

    fn message(&mut self, seq: u64) -> Option<StoredMessage> {
        self.read(|stream, view| stream.message(StreamSeq(seq), view).expect("readable"))
    }

    fn state(&mut self) -> StreamState {
        self.read(|stream, view| stream.state(view).expect("readable"))
    }

    /// Sequences that match, by walking from one to the next.
    fn walk(&mut self, filters: &Filters) -> Vec<u64> {
        let mut seqs = Vec::new();
        let mut from = 0;
        while let Some(message) = self.read(|stream, view| {
            stream
                .next_message(StreamSeq(from), filters, view)
                .expect("readable")
        }) {
            seqs.push(message.seq.0);
            from = message.seq.0 + 1;
        }
        seqs
    }

    fn seqs(&mut self) -> Vec<u64> {
        self.walk(&Filters::all())
    }
}

fn seq(outcome: &PublishOutcome) -> u64 {
    match outcome {
        PublishOutcome::Stored { seq, .. } => seq.0,
        other => panic!("not stored: {other:?}"),
    }
}

/// The code of a refusal.
fn code(outcome: &PublishOutcome) -> u16 {
    match outcome {
        PublishOutcome::Refused(error) => error.err_code,
        other => panic!("not refused: {other:?}"),
    }
}
