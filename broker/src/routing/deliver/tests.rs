use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use super::*;
use crate::connection::client::{Endpoint, Identity, Taken};
use crate::error::CloseReason;
use crate::streams::ingest::IngestKind;

fn batch(ingest: Option<Arc<IngestQueue>>) -> RouteBatch {
    RouteBatch::new(Equipment {
        counters: Arc::default(),
        pool: BufferPool::default(),
        inboxes: Arc::new([Inbox::default()]),
        home: None,
        ingest,
        system: Arc::new(Port::new(Account::for_tests())),
        server_name: "test".into(),
        no_fast_producer_stall: Arc::default(),
    })
}

fn client(id: u64) -> Arc<Client> {
    let client = Client::new(ClientId(id), Endpoint::for_tests(), 1 << 20);
    client.identify(Identity::default(), true, true);
    Arc::new(client)
}

fn subscribe(
    account: &Account,
    client: &Arc<Client>,
    subject: &str,
    queue: Option<&str>,
    sid: &str,
) {
    let subscription = Arc::new(Subscription::of_client(
        Arc::clone(client),
        subject.as_bytes(),
        queue.map(str::as_bytes),
        sid.as_bytes(),
        None,
    ));
    assert!(client.add_subscription(&subscription));
    account.sublist().insert(&subscription);
}

/// Takes what waits for the client.
fn output(client: &Client) -> String {
    let mut queue = ByteQueue::default();
    let mut text = Vec::new();
    if let Taken::Bytes = client.take_output(&mut queue, Waker::noop()) {
        let mut slices = [std::io::IoSlice::new(&[]); 64];
        let count = queue.slices(&mut slices);
        text.extend(slices[..count].iter().flat_map(|slice| slice.to_vec()));
        client.wrote(text.len());
    }
    String::from_utf8(text).expect("tests send text")
}

fn tag(id: u64) -> IngestTag {
    IngestTag {
        kind: IngestKind::Stream,
        id,
    }
}

#[test]
fn receivers_get_everything_at_the_flush_and_in_order() {
    let account = Account::for_tests();
    let mut batch = batch(None);
    let clients: Vec<_> = (0..20).map(client).collect();
    for client in &clients {
        subscribe(&account, client, "a.*", None, "7");
    }
    for payload in [b"1", b"2"] {
        assert_eq!(
            account.route(&mut batch, &Message::new(b"a.b", payload), None),
            20
        );
    }
    assert_eq!(output(&clients[3]), "");
    batch.flush();
    for client in &clients {
        assert_eq!(output(client), "MSG a.b 7 1\r\n1\r\nMSG a.b 7 1\r\n2\r\n");
    }
    assert_eq!(account.route(&mut batch, &Message::new(b"b", b""), None), 0);
}

#[test]
fn the_seen_subject_may_differ_from_the_target() {
    let account = Account::for_tests();
    let mut batch = batch(None);
    let client = client(1);
    subscribe(&account, &client, "_INBOX.1", None, "1");
    let message = Message {
        subject: b"orders",
        reply: b"ack",
        ..Message::new(b"_INBOX.1", b"x")
    };
    assert_eq!(account.route(&mut batch, &message, None), 1);
    batch.flush();
    assert_eq!(output(&client), "MSG orders 1 ack 1\r\nx\r\n");
}

#[test]
fn the_engine_gets_a_message_once_with_all_its_tags() {
    let wakes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&wakes);
    let wake = Arc::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let queue = Arc::new(IngestQueue::new(1 << 20, wake));
    let account = Account::for_tests();
    let mut batch = batch(Some(Arc::clone(&queue)));
    let publisher = client(5);
    let first = account.subscribe_engine(tag(1), b"a.>", None);
    let _second = account.subscribe_engine(tag(2), b"a.b", Some(b"q"));
    for _ in 0..3 {
        let message = Message {
            reply: b"r",
            ..Message::new(b"a.b", b"hi")
        };
        assert_eq!(account.route(&mut batch, &message, Some(&publisher)), 1);
    }
    account.unsubscribe(&first);
    assert_eq!(
        account.route(&mut batch, &Message::new(b"a.b", b""), None),
        1
    );
    assert_eq!(
        account.route(&mut batch, &Message::new(b"a.c", b""), None),
        0
    );
    assert!(!batch.flush().engine_behind);
    assert_eq!(wakes.load(Ordering::Relaxed), 1);
    let mut taken = Vec::new();
    queue.take(&mut taken);
    assert_eq!(taken.len(), 2, "one batch per origin");
    let tags: Vec<_> = taken[0].items().iter().map(|item| item.tag.id).collect();
    assert_eq!(tags, [1, 2, 1, 2, 1, 2]);
    assert_eq!(
        taken[0].origin().map(|origin| origin.id()),
        Some(ClientId(5))
    );
    let item = &taken[0].items()[3];
    assert_eq!(
        (taken[0].subject(item), taken[0].reply(item)),
        (&b"a.b"[..], &b"r"[..])
    );
    assert_eq!(taken[0].payload(item), b"hi");
    assert!(taken[1].origin().is_none());
}

#[test]
fn without_an_engine_its_subscriptions_take_nothing() {
    let account = Account::for_tests();
    let _kept = account.subscribe_engine(tag(1), b"a", None);
    assert_eq!(
        account.route(&mut batch(None), &Message::new(b"a", b""), None),
        0
    );
}

#[test]
fn a_closed_member_is_passed_over() {
    let account = Account::for_tests();
    let mut batch = batch(None);
    let (gone, there) = (client(1), client(2));
    subscribe(&account, &gone, "a", Some("q"), "1");
    subscribe(&account, &there, "a", Some("q"), "2");
    gone.close(CloseReason::ClientClosed);
    for _ in 0..20 {
        assert_eq!(
            account.route(&mut batch, &Message::new(b"a", b"x"), None),
            1
        );
    }
    batch.flush();
    assert_eq!(output(&there), "MSG a 2 1\r\nx\r\n".repeat(20));
}

#[test]
fn a_receiver_far_behind_is_named() {
    let account = Account::for_tests();
    let mut batch = batch(None);
    let client = client(1);
    subscribe(&account, &client, "a", None, "1");
    let payload = vec![b'x'; 400_000];
    account.route(&mut batch, &Message::new(b"a", &payload), None);
    assert!(batch.flush().behind.is_none());
    account.route(&mut batch, &Message::new(b"a", &payload), None);
    let behind = batch.flush().behind;
    assert_eq!(behind.map(|client| client.id()), Some(ClientId(1)));
    account.route(&mut batch, &Message::new(b"a", &payload), None);
    batch.flush();
    assert_eq!(
        client.close_reason(),
        Some(CloseReason::SlowConsumerPendingBytes)
    );
}

#[test]
fn shared_payloads_are_whole_with_and_without_header() {
    let account = Account::for_tests();
    let mut batch = batch(None);
    let (new, old) = (client(1), client(2));
    old.identify(Identity::default(), false, true);
    subscribe(&account, &new, "a", None, "1");
    subscribe(&account, &old, "a", None, "2");
    let header = b"NATS/1.0\r\n\r\n";
    let stored = Bytes::from([&header[..], &[b'y'; 3000]].concat());
    let payload = "y".repeat(3000);
    for shared in [None, Some(&stored)] {
        let message = Message {
            header: &stored[..12],
            shared,
            ..Message::new(b"a", &stored[12..])
        };
        assert_eq!(account.route(&mut batch, &message, None), 2);
        batch.flush();
        assert_eq!(
            output(&new),
            format!("HMSG a 1 12 3012\r\nNATS/1.0\r\n\r\n{payload}\r\n")
        );
        assert_eq!(output(&old), format!("MSG a 2 3000\r\n{payload}\r\n"));
    }
}

#[test]
fn the_last_delivery_of_a_limited_subscription_removes_it() {
    let account = Account::for_tests();
    let mut batch = batch(None);
    let client = client(1);
    subscribe(&account, &client, "a", None, "1");
    let subscription = client.subscription(b"1").expect("made just now");
    assert!(subscription.limit(2));
    let counts: Vec<_> = (0..3)
        .map(|_| account.route(&mut batch, &Message::new(b"a", b""), None))
        .collect();
    assert_eq!(counts, [1, 1, 0]);
    assert!(account.sublist().is_empty());
    assert_eq!(client.subscription_count(), 0);
    assert!(!subscription.limit(2));
}
