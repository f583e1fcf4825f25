//! The hand-over between connections and the engine.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use menes_broker::connection::client::ClientId;
use menes_broker::routing::Message;
use menes_broker::server::Hooks;
use menes_broker::streams::ingest::{IngestBatch, IngestKind, IngestQueue, IngestTag};
use menes_jetstream::ids::AccountName;

use crate::harness::{PATIENCE, Running, options};

struct Engine {
    queue: Arc<IngestQueue>,
    wakes: Receiver<()>,
}

impl Engine {
    fn new(limit_bytes: usize) -> Self {
        let (wake, wakes) = channel();
        // The receiver is gone only when the test is over.
        let wake = Arc::new(move || wake.send(()).unwrap_or_default());
        Self {
            queue: Arc::new(IngestQueue::new(limit_bytes, wake)),
            wakes,
        }
    }

    fn hooks(&self) -> Hooks {
        Hooks {
            ingest: Some(Arc::clone(&self.queue)),
            ..Hooks::default()
        }
    }

    /// Waits for a wake and takes what is there.
    fn turn(&self) -> Vec<IngestBatch> {
        self.wakes.recv_timeout(PATIENCE).expect("something comes");
        let mut batches = Vec::new();
        self.queue.take(&mut batches);
        batches
    }
}

const STREAM: IngestTag = IngestTag {
    kind: IngestKind::Stream,
    id: 7,
};

#[test]
fn the_engine_is_a_subscriber_and_a_publisher() {
    let engine = Engine::new(1 << 20);
    let server = Running::with_hooks(options(), engine.hooks());
    let account = server
        .handle()
        .accounts()
        .get_or_create(&AccountName::global());
    let _kept = account.subscribe_engine(STREAM, b"orders.>", None);
    let mut peer = server.modern();
    peer.say("SUB ack.* 1\r\n");
    peer.say("HPUB orders.new ack.1 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPUB orders.old ack.2 0\r\n\r\n");
    peer.sync();
    let batches = engine.turn();
    let items: Vec<_> = batches
        .iter()
        .flat_map(|b| b.items().iter().map(move |i| (b, i)))
        .collect();
    assert_eq!(items.len(), 2);
    let (batch, item) = items[0];
    assert_eq!(item.tag, STREAM);
    assert_eq!(batch.account().name(), &AccountName::global());
    assert_eq!(batch.origin().map(|origin| origin.id()), Some(ClientId(1)));
    assert_eq!(batch.header(item), b"NATS/1.0\r\n\r\n");
    assert_eq!(
        (batch.subject(item), batch.payload(item)),
        (&b"orders.new"[..], &b"hi"[..])
    );
    let mut route = server.handle().route_batch();
    for (batch, item) in items {
        let ack = Message::new(batch.reply(item), b"{}");
        assert_eq!(account.route(&mut route, &ack, None), 1);
    }
    // What the engine publishes may be for the engine: it comes in the next turn.
    assert_eq!(
        account.route(&mut route, &Message::new(b"orders.again", b"x"), None),
        1
    );
    route.flush();
    peer.expect("MSG ack.1 1 2\r\n{}\r\nMSG ack.2 1 2\r\n{}\r\n");
    let batches = engine.turn();
    assert!(batches[0].origin().is_none());
    assert_eq!(batches[0].subject(&batches[0].items()[0]), b"orders.again");
}

#[test]
fn readers_stop_while_the_engine_is_behind() {
    let engine = Engine::new(1000);
    let server = Running::with_hooks(options(), engine.hooks());
    let account = server
        .handle()
        .accounts()
        .get_or_create(&AccountName::global());
    let _kept = account.subscribe_engine(STREAM, b"s", None);
    let mut other = server.client();
    let mut peer = server.client();
    // One that brings much is stopped at once, one that brings little when it comes again.
    for (sizes, count) in [(&[8000][..], 1), (&[2000, 10][..], 2)] {
        for size in sizes {
            let before = engine.queue.bytes();
            peer.say(&format!("PUB s {size}\r\n{}\r\n", "x".repeat(*size)));
            let until = Instant::now() + PATIENCE;
            while engine.queue.bytes() == before {
                assert!(Instant::now() < until, "the message does not come");
                std::thread::yield_now();
            }
        }
        peer.say("PING\r\n");
        // Others are served, this one waits.
        other.sync();
        assert!(peer.is_silent());
        let mut batches = Vec::new();
        engine.queue.take(&mut batches);
        assert_eq!(batches.len(), count);
        peer.expect("PONG\r\n");
    }
}

#[test]
fn interest_follows_the_subscriptions() {
    let server = Running::new(options());
    let account = server
        .handle()
        .accounts()
        .get_or_create(&AccountName::global());
    let mut route = server.handle().route_batch();
    let mut peer = server.client();
    assert!(!route.has_interest(&account, b"deliver", None));
    peer.say("SUB deliver g 1\r\n");
    peer.sync();
    assert!(route.has_interest(&account, b"deliver", Some(b"g")));
    assert!(!route.has_interest(&account, b"deliver", Some(b"h")));
    assert!(account.has_interest(b"deliver", None));
    peer.say("UNSUB 1\r\n");
    peer.sync();
    assert!(!route.has_interest(&account, b"deliver", None));
}
