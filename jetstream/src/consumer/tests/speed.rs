//! What one message costs, printed: `cargo test -p menes-jetstream --release speed -- --ignored
//! --nocapture`.

use std::time::Instant;

use super::*;

/// Takes everything and keeps nothing.
#[derive(Default)]
struct Nowhere {
    bytes: usize,
}

impl Outbox for Nowhere {
    fn send(&mut self, message: Outgoing<'_>) -> bool {
        self.bytes += message.reply.len() + message.payload.len();
        true
    }

    fn has_interest(&mut self, _: &AccountName, _: &[u8], _: Option<&[u8]>) -> bool {
        true
    }
}

/// Messages in one block, found by index.
struct Flat(Vec<StoredMessage>);

impl MessageSource for Flat {
    fn first_seq(&self) -> StreamSeq {
        StreamSeq(1)
    }

    fn last_seq(&self) -> StreamSeq {
        StreamSeq(self.0.len() as u64)
    }

    fn message(&mut self, seq: StreamSeq) -> Result<Option<StoredMessage>, StoreError> {
        Ok(self.0.get(seq.0 as usize - 1).cloned())
    }

    fn next_message(
        &mut self,
        from: StreamSeq,
        _: &Filters,
    ) -> Result<Option<StoredMessage>, StoreError> {
        self.message(from)
    }

    fn count_matching(&mut self, from: StreamSeq, _: &Filters) -> Result<u64, StoreError> {
        Ok((self.0.len() as u64 + 1).saturating_sub(from.0))
    }

    fn seq_at_time(&mut self, _: Timestamp) -> Result<StreamSeq, StoreError> {
        Ok(StreamSeq(1))
    }

    fn last_per_subject(&mut self, _: &Filters) -> Result<Vec<StreamSeq>, StoreError> {
        Ok(Vec::new())
    }
}

#[test]
#[ignore = "prints times instead of checking anything"]
#[expect(clippy::print_stdout, reason = "the times are the result")]
fn a_message_costs_this_much() {
    const BATCH: u64 = 500;
    const ROUNDS: u64 = 400;
    let mut builder = BlockBuilder::new(Timestamp(0));
    for _ in 0..BATCH * ROUNDS {
        builder.push(Timestamp(0), b"orders.eu.1", b"", &[0; 128]);
    }
    let block = builder.finish();
    let messages = records(&block)
        .expect("a block")
        .enumerate()
        .map(|(at, span)| StoredMessage {
            seq: StreamSeq(at as u64 + 1),
            block: block.clone(),
            span,
        });
    let mut source = Flat(messages.collect());
    let mut out = Nowhere::default();
    let account = AccountName::global();
    let now = Timestamp(1_700_000_000_000_000_000);
    let mut consumer = Consumer::create(1, "C".to_owned(), pull_config(), now, &mut source)
        .expect("a flat stream never fails");
    let (mut events, mut notices, mut settled) = (Vec::new(), Vec::new(), Vec::new());
    let store = MemoryState::new();
    let (mut deliver, mut ack, mut apply, mut rows) = (0, 0, 0, 0);
    for round in 0..ROUNDS {
        let mut turn = Turn {
            now,
            account: &account,
            stream: "ORDERS",
            domain: None,
            source: &mut source,
            out: &mut out,
            events: &mut events,
            notices: &mut notices,
        };
        let start = Instant::now();
        consumer
            .pull(b"_INBOX.abcdefghijklmnop.1", b"500", &mut turn)
            .expect("never fails");
        consumer.deliver(&mut turn, 1024).expect("never fails");
        deliver += start.elapsed().as_nanos();
        let start = Instant::now();
        for seq in round * BATCH + 1..=(round + 1) * BATCH {
            let subject = format!(
                "$JS.ACK.ORDERS.C.1.{seq}.{seq}.1700000000000000000.{}",
                200_000 - seq
            );
            let token = AckToken::parse(subject.as_bytes()).expect("an ack subject");
            consumer
                .ack(&token, b"+ACK", b"", &mut turn)
                .expect("never fails");
        }
        ack += start.elapsed().as_nanos();
        let start = Instant::now();
        let bytes = encode_batch(events.iter().map(|p| &p.event));
        for Proposed { event, .. } in events.drain(..) {
            consumer.apply(&event, &mut settled);
        }
        apply += start.elapsed().as_nanos();
        let start = Instant::now();
        let mut txn = Txn::new(&store);
        consumer.write_rows(GROUP, &mut txn);
        assert!(!txn.into_writes().writes.is_empty() && bytes.len() > 500);
        rows += start.elapsed().as_nanos();
    }
    assert_eq!(settled.len() as u64, BATCH * ROUNDS);
    let count = u128::from(BATCH * ROUNDS);
    println!(
        "ns per message: deliver {}, ack with its subject {}, encode and apply {}, rows {}",
        deliver / count,
        ack / count,
        apply / count,
        rows / count
    );
}
