//! Stores that fail.

use std::cell::Cell;
use std::rc::Rc;

use menes_jetstream::engine::Options;
use menes_jetstream::memory::{MemoryLog, MemoryState};
use menes_jetstream::ports::{
    LogPosition, Row, Seek, StateStore, StoreError, StoreErrorKind, Table, WriteSet,
};

use super::server::Server;

#[test]
fn after_a_failed_sync_every_waiter_is_refused_and_nothing_is_acked() {
    let mut server = Server::new();
    server.stream("S", &["s.>"], "");
    server.stream("M", &["m.>"], r#","storage":"memory""#);
    server.consumer("S", "C", "");
    server.store("s.a");
    let got = server.pull("S", "C", 1);
    let pull = server.request("$JS.API.CONSUMER.MSG.NEXT.S.C", r#"{"batch":5}"#);
    let published = server.publish("s.b");
    let purge = server.request("$JS.API.STREAM.PURGE.S", "");
    let ack = server.ack(&got[0], "+ACK");
    server.engine().propose_application(&b"command"[..], 7);
    server.turn();
    server.log.fail("the disk said no");
    let later = server.publish("s.c");
    server.turn();
    for inbox in [&published, &purge, &later] {
        let answer = server.answer(inbox);
        assert!(answer.contains(r#""err_code":10008"#), "{answer}");
    }
    assert!(server.answer(&pull).starts_with("NATS/1.0 409"));
    assert!(!server.is_answered(&ack));
    let completions = server.engine().take_completions();
    assert_eq!((completions.len(), completions[0].token), (1, 7));
    assert!(completions[0].result.is_err());
    assert!(server.engine().poisoned().is_some());
    assert_eq!(server.engine().in_flight(), 0);

    // Whatever comes later is refused as well.
    let info = server.request("$JS.API.STREAM.INFO.S", "");
    let next = server.request("$JS.API.CONSUMER.MSG.NEXT.S.C", "");
    let memory = server.publish("m.a");
    let ack = server.ack(&got[0], "+ACK");
    server.turn();
    assert!(server.answer(&info).contains("10008"));
    assert!(server.answer(&memory).contains("10008"));
    assert!(server.answer(&next).starts_with("NATS/1.0 503"));
    assert!(!server.is_answered(&ack));
    assert_eq!(server.engine().next_deadline(), None);

    server.crash();
    assert_eq!(server.store("s.d"), r#"{"stream":"S","seq":2}"#);
}

/// A state store that can be told to fail.
struct Fragile {
    rows: MemoryState,
    fails: Rc<Cell<bool>>,
}

impl StateStore for Fragile {
    fn write(&mut self, writes: &WriteSet) -> Result<(), StoreError> {
        if self.fails.get() {
            return Err(StoreError::new(StoreErrorKind::Io, "told to fail"));
        }
        self.rows.write(writes)
    }
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.rows.get(table, key)
    }
    fn seek(&self, table: Table, key: &[u8], seek: Seek) -> Result<Option<Row>, StoreError> {
        self.rows.seek(table, key, seek)
    }
    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.rows.scan(table, from, to, visit)
    }
    fn durable_applied(&self) -> Option<LogPosition> {
        self.rows.durable_applied()
    }
    fn applied(&self) -> Option<LogPosition> {
        self.rows.applied()
    }
    fn begin_flush(&mut self) -> Result<(), StoreError> {
        self.rows.begin_flush()
    }
}

#[test]
fn an_entry_that_cannot_be_applied_is_refused_with_all_behind_it() {
    let fails = Rc::new(Cell::new(false));
    let state = Fragile {
        rows: MemoryState::new(),
        fails: Rc::clone(&fails),
    };
    let flushed = state.rows.flushed();
    let mut server = Server::over(MemoryLog::manual(), state, flushed, Options::default());
    server.stream("S", &["s.>"], "");
    server.stream("T", &["t.>"], "");
    let first = server.publish("s.a");
    let second = server.publish("t.a");
    let made = server.request(
        "$JS.API.STREAM.CREATE.U",
        r#"{"name":"U","subjects":["u"]}"#,
    );
    fails.set(true);
    server.sync();
    for inbox in [first, second, made] {
        let answer = server.answer(&inbox);
        assert!(answer.contains(r#""err_code":10008"#), "{answer}");
    }
    // The store would work again; the engine trusts it no more.
    fails.set(false);
    let later = server.publish("s.b");
    server.sync();
    assert!(server.answer(&later).contains("10008"));
}
