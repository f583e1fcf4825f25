//! How fast publishes are parsed and deliveries encoded, per size of payload.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use menes_protocol::{
    encoder::{client, server::Delivery},
    parser::{Limits, client::ClientParser},
    subject,
};

const SIZES: [usize; 4] = [16, 128, 1_024, 4_096];
const SUBJECT: &[u8] = b"orders.eu.created";
const HEADER: &[u8] = b"NATS/1.0\r\nNats-Msg-Id: 1234567890\r\n\r\n";
/// What a reader has at hand after one read.
const BUFFER_BYTES: usize = 65_536;

fn parse_all(parser: &mut ClientParser, mut bytes: &[u8]) -> u64 {
    let mut count = 0;
    while let Ok(Some((used, op))) = parser.parse(bytes) {
        black_box(op);
        count += 1;
        bytes = &bytes[used..];
    }
    count
}

fn filled(mut put: impl FnMut(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < BUFFER_BYTES {
        put(&mut bytes);
    }
    bytes
}

fn parsing(criterion: &mut Criterion) {
    let mut parser = ClientParser::new(Limits::default());
    parser.set_headers(true);
    for (name, header) in [("parse PUB", &b""[..]), ("parse HPUB", HEADER)] {
        let mut group = criterion.benchmark_group(name);
        for size in SIZES {
            let payload = vec![b'x'; size];
            let bytes = filled(|out| match header {
                b"" => client::publish(out, SUBJECT, None, &payload),
                header => client::hpub(out, SUBJECT, Some(b"_INBOX.abcdef.1"), header, &payload),
            });
            group.throughput(Throughput::Elements(parse_all(&mut parser, &bytes)));
            group.bench_function(size.to_string(), |bench| {
                bench.iter(|| parse_all(&mut parser, black_box(&bytes)));
            });
        }
        group.finish();
    }
}

fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode MSG");
    for size in SIZES {
        let payload = vec![b'x'; size];
        let delivery = Delivery {
            subject: SUBJECT,
            reply: None,
            header: b"",
            payload: &payload,
        };
        let mut out = Vec::with_capacity(2 * size + 128);
        group.throughput(Throughput::Elements(1));
        group.bench_function(size.to_string(), |bench| {
            bench.iter(|| {
                out.clear();
                black_box(&delivery).encode(&mut out, b"12", true);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

fn matching(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("match subject");
    group.throughput(Throughput::Elements(1));
    for filter in ["orders.eu.created", "orders.*.created", "orders.>"] {
        group.bench_function(filter, |bench| {
            bench.iter(|| subject::matches(black_box(filter.as_bytes()), black_box(SUBJECT)));
        });
    }
    group.finish();
}

criterion_group!(benches, parsing, encoding, matching);
criterion_main!(benches);
