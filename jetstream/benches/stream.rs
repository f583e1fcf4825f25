//! What a stream costs per message: applying blocks, reading back, removing.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use menes_jetstream::memory::{MemoryLog, MemoryState};
use menes_jetstream::ports::{Entry, EntryKind, LogStore, StateStore};
use menes_jetstream::record::BlockBuilder;
use menes_jetstream::stream::{
    BlockCache, Context, Filters, SegmentUse, Stream, StreamConfig, View,
};
use menes_jetstream::txn::Txn;
use menes_jetstream::{AccountName, GroupId, StreamSeq, Timestamp};

const GROUP: GroupId = GroupId(16);
const PER_BLOCK: usize = 500;
const PAYLOAD: [u8; 128] = [7; 128];

/// A stream with its stores.
struct Fixture {
    state: MemoryState,
    log: MemoryLog,
    cache: BlockCache,
    segments: SegmentUse,
    stream: Stream,
    index: u64,
    now: i64,
}

impl Fixture {
    fn new(config: StreamConfig) -> Self {
        let account = AccountName::global();
        Self {
            state: MemoryState::new(),
            log: MemoryLog::new(),
            cache: BlockCache::default(),
            segments: SegmentUse::default(),
            stream: Stream::create(GROUP, account, config, Timestamp(1)),
            index: 0,
            now: 1,
        }
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut Stream, &mut Context<'_, '_>) -> T) -> T {
        let mut txn = Txn::new(&self.state);
        let mut cx = Context {
            txn: &mut txn,
            log: &self.log,
            cache: &mut self.cache,
            segments: &mut self.segments,
        };
        let value = change(&mut self.stream, &mut cx);
        self.segments.write_changes(&mut txn);
        let writes = txn.into_writes();
        self.state.write(&writes).expect("memory takes it");
        value
    }

    fn block(&mut self, records: usize, message: &dyn Fn(usize) -> (String, String)) -> Bytes {
        let mut block = BlockBuilder::new(Timestamp(self.now));
        for n in 0..records {
            let (subject, header) = message(self.index as usize * PER_BLOCK + n);
            let time = Timestamp(self.now);
            block.push(time, subject.as_bytes(), header.as_bytes(), &PAYLOAD);
        }
        self.now += 1_000_000;
        block.finish()
    }

    fn apply(&mut self, block: &Bytes) {
        self.index += 1;
        let entry = Entry {
            group: GROUP,
            index: self.index,
            term: 1,
            kind: EntryKind::Publish,
            compress: false,
            payload: block.clone(),
        };
        let at = self
            .log
            .append(&[entry])
            .expect("memory has room")
            .locations[0];
        let index = self.index;
        self.change(|stream, cx| {
            let (mut outcomes, mut removed) = (Vec::new(), Vec::new());
            stream
                .apply_publish(
                    Some(at),
                    index,
                    block,
                    &mut |_| true,
                    cx,
                    &mut outcomes,
                    &mut removed,
                )
                .expect("memory serves");
            black_box((outcomes, removed));
        });
    }
}

fn config() -> StreamConfig {
    StreamConfig {
        name: "S".into(),
        max_msgs: -1,
        max_bytes: -1,
        max_msgs_per_subject: -1,
        max_msg_size: -1,
        duplicate_window: 1_000_000_000,
        ..StreamConfig::default()
    }
}

fn spread(subjects: usize) -> impl Fn(usize) -> (String, String) {
    move |n| (format!("orders.{}", n * 7919 % subjects), String::new())
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    let keep = |max_msgs, max_msgs_per_subject| StreamConfig {
        max_msgs,
        max_msgs_per_subject,
        ..config()
    };
    let ids = |n| {
        (
            "orders".to_owned(),
            format!("NATS/1.0\r\nNats-Msg-Id: {n}\r\n\r\n"),
        )
    };
    type Message = Box<dyn Fn(usize) -> (String, String)>;
    let cases: [(&str, StreamConfig, usize, Message); 6] = [
        (
            "one subject",
            keep(1_000_000, -1),
            PER_BLOCK,
            Box::new(spread(1)),
        ),
        (
            "one subject, one message",
            keep(100_000, -1),
            1,
            Box::new(spread(1)),
        ),
        (
            "one subject, full",
            keep(10_000, -1),
            PER_BLOCK,
            Box::new(spread(1)),
        ),
        (
            "500 subjects",
            keep(1_000_000, -1),
            PER_BLOCK,
            Box::new(spread(500)),
        ),
        (
            "10,000 keys, history 1",
            keep(-1, 1),
            PER_BLOCK,
            Box::new(spread(10_007)),
        ),
        ("ids", keep(1_000_000, -1), PER_BLOCK, Box::new(ids)),
    ];
    for (name, config, records, message) in cases {
        let mut fixture = Fixture::new(config);
        for _ in 0..50 {
            let block = fixture.block(records, &message);
            fixture.apply(&block);
        }
        group.throughput(Throughput::Elements(records as u64));
        group.bench_function(name, |bencher| {
            let fixture = std::cell::RefCell::new(&mut fixture);
            bencher.iter_batched(
                || fixture.borrow_mut().block(records, &message),
                |block| fixture.borrow_mut().apply(&block),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let mut fixture = Fixture::new(config());
    for _ in 0..100 {
        let block = fixture.block(PER_BLOCK, &spread(10));
        fixture.apply(&block);
    }
    let Fixture {
        state,
        log,
        cache,
        stream,
        ..
    } = &mut fixture;
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(stream.messages()));
    group.bench_function("by sequence", |bencher| {
        bencher.iter(|| {
            for seq in 1..=stream.last_seq().0 {
                let mut view = View::new(state, log, cache);
                black_box(
                    stream
                        .message(StreamSeq(seq), &mut view)
                        .expect("memory serves"),
                );
            }
        });
    });
    for filter in [">", "orders.3", "orders.*", "*.3"] {
        let filters = Filters::new([filter]);
        group.bench_function(filter, |bencher| {
            bencher.iter(|| {
                let mut from = StreamSeq(1);
                let mut view = View::new(state, log, cache);
                while let Some(message) = stream
                    .next_message(from, &filters, &mut view)
                    .expect("memory serves")
                {
                    from = message.seq.next();
                    black_box(message);
                }
            });
        });
    }
    group.finish();
}

fn remove(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("remove");
    for batch in [1u64, 100] {
        let mut fixture = Fixture::new(config());
        let mut next = 1;
        group.throughput(Throughput::Elements(batch));
        group.bench_function(format!("{batch} in order"), |bencher| {
            bencher.iter(|| {
                while fixture.stream.last_seq().0 < next + batch {
                    let block = fixture.block(PER_BLOCK, &spread(10));
                    fixture.apply(&block);
                }
                let seqs: Vec<_> = (next..next + batch).map(StreamSeq).collect();
                next += batch;
                fixture.change(|stream, cx| {
                    let mut removed = Vec::new();
                    let count = stream
                        .remove_all(&seqs, cx, &mut removed)
                        .expect("memory serves");
                    black_box((count, removed));
                });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, apply, read, remove);
criterion_main!(benches);
