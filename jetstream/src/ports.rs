//! The seams: what the engine needs from the world, as traits.
//!
//! `storage` implements the stores on real disks, `broker` the outbox on real sockets, `sim` all of
//! them in memory with faults. Every call is synchronous and returns at once or reads a disk; none
//! waits for another machine.

use std::ops::Range;

use bytes::Bytes;
use thiserror::Error;

use crate::ids::{AccountName, GroupId};

/// Place of an entry in the log: rises with every entry appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// Number of the segment, rising over the life of the log; a recycled file gets a new number.
    pub segment: u64,
    /// Byte offset of the entry in its segment.
    pub offset: u32,
}

/// Where an entry lies and how long it is, header included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EntryLocation {
    /// Start of the entry.
    pub position: LogPosition,
    /// Bytes of the whole entry on disk.
    pub len: u32,
}

/// What an entry is about; the log stores it and does not look inside the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A batch of proposed messages, [`crate::record`].
    Publish = 1,
    /// Administrative commands as JSON, [`crate::command`].
    Command = 2,
    /// A batch of consumer events, [`crate::consumer`].
    Consumer = 3,
    /// A command of the application group, opaque to the engine.
    Application = 4,
}

impl EntryKind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_u8(kind: u8) -> Option<Self> {
        match kind {
            1 => Some(Self::Publish),
            2 => Some(Self::Command),
            3 => Some(Self::Consumer),
            4 => Some(Self::Application),
            _ => None,
        }
    }
}

/// One log entry: everything one group gathered in a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose entry it is.
    pub group: GroupId,
    /// Position in the group's own log, from 1 without gaps.
    pub index: u64,
    /// Raft term; 1 on a server that has no peers.
    pub term: u64,
    /// What the payload holds.
    pub kind: EntryKind,
    /// Whether a store should spend time to keep the payload in less room. It is the same payload
    /// when it is read.
    pub compress: bool,
    /// The command.
    pub payload: Bytes,
}

/// Number of an append; everything up to it is durable once [`LogStore::poll_synced`] reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What an append returns at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Wait for this ticket before telling anyone.
    pub ticket: Ticket,
    /// One location per entry, in the order given.
    pub locations: Vec<EntryLocation>,
}

/// How a store failed, sorted by what the caller must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// No space: refuse publishes, keep serving reads and deletes.
    Full,
    /// What was read contradicts what was written: report, never guess.
    Corrupt,
    /// Poisoned or shut down: nothing works until the process starts again.
    Closed,
    /// The operating system refused; the store is poisoned from here on.
    Io,
}

/// A store operation that did not work.
#[derive(Clone, Debug, Error)]
#[error("{what}")]
pub struct StoreError {
    /// What the caller must do about it.
    pub kind: StoreErrorKind,
    /// For people: what happened, where.
    pub what: String,
}

impl StoreError {
    /// An error of this kind.
    pub fn new(kind: StoreErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
        }
    }
}

/// The one log of a server, shared by all groups.
///
/// The implementation writes what was appended in order, as few writes as it can, and syncs once
/// for all that came in while the last sync ran. It wakes the driver when a sync ends.
pub trait LogStore {
    /// Queues entries in this order and returns where they will lie. They are readable through
    /// [`LogStore::read`] at once, and durable when `poll_synced` reaches the ticket.
    ///
    /// # Errors
    /// `Full` when there is no space, `Closed` once poisoned. Then none of the entries was taken.
    fn append(&mut self, entries: &[Entry]) -> Result<Appended, StoreError>;

    /// The highest ticket covered by a finished sync.
    ///
    /// # Errors
    /// The write or sync that poisoned the log. Nothing later will ever be durable.
    fn poll_synced(&mut self) -> Result<Ticket, StoreError>;

    /// The payload of the entry at `location`, its checksum and identity verified.
    ///
    /// # Errors
    /// `Corrupt` when the bytes there are not what was appended for this group and index.
    fn read(
        &self,
        location: EntryLocation,
        group: GroupId,
        index: u64,
    ) -> Result<Bytes, StoreError>;

    /// Whether parts of a payload of this length can be read from `location`: it lies there as it
    /// is, not in another form.
    fn has_parts(&self, location: EntryLocation, payload_len: usize) -> bool {
        let _ = (location, payload_len);
        true
    }

    /// Bytes of the payload of the entry at `location`. Nothing of them is verified, the caller
    /// knows what they must be; `group` and `index` only serve to find an entry that is still on its
    /// way to the disk. `None` where there are no such bytes, also where the entry is not what it
    /// should be: reading all of it tells.
    ///
    /// # Errors
    /// `Io` when the operating system refuses.
    fn read_part(
        &self,
        location: EntryLocation,
        group: GroupId,
        index: u64,
        range: Range<u32>,
    ) -> Result<Option<Bytes>, StoreError> {
        match self.read(location, group, index) {
            Ok(payload) => Ok(part(&payload, &range)),
            Err(error) if error.kind == StoreErrorKind::Corrupt => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Visits every durable entry after the one at `from`, in order. `from` is the position of the
    /// last entry applied; the default position means from the very first entry on. Called before
    /// the first append, and more than once when `visit` stops it in between.
    ///
    /// # Errors
    /// `Corrupt` for damage that is not a torn tail, when no entry starts at `from`, and when a
    /// segment after it is missing. Whatever `visit` returns.
    fn replay(
        &mut self,
        from: LogPosition,
        visit: &mut dyn FnMut(EntryLocation, Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// Numbers of the segments that exist, oldest first; the last one is being written.
    fn segments(&self) -> Vec<u64>;

    /// Gives up segments that nothing refers to any more; the files are reused.
    ///
    /// # Errors
    /// As `append`. Asking for the segment being written is an error.
    fn recycle(&mut self, segments: &[u64]) -> Result<(), StoreError>;
}

/// A part of a payload, when there is as much of it: what [`LogStore::read_part`] gives of one that
/// is in memory.
#[must_use]
pub fn part(payload: &Bytes, range: &Range<u32>) -> Option<Bytes> {
    let range = range.start as usize..range.end as usize;
    payload.get(range.clone())?;
    Some(payload.slice(range))
}

/// A kind of row in the state store. Rows of one table are ordered by key, bytewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Streams that exist, counters, the applied position.
    Meta,
    /// Which log entry holds which sequences of a stream.
    Block,
    /// Per stream and subject: count, first and last sequence.
    Subject,
    /// Per stream, subject and block: the sequences.
    SubjectSeq,
    /// Consumer configuration and state.
    Consumer,
    /// Message ids inside the duplicate window.
    Dedup,
    /// Rows of the application group.
    Application,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 7] = [
        Self::Meta,
        Self::Block,
        Self::Subject,
        Self::SubjectSeq,
        Self::Consumer,
        Self::Dedup,
        Self::Application,
    ];

    /// Name of the column family.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Block => "block",
            Self::Subject => "subject",
            Self::SubjectSeq => "subject_seq",
            Self::Consumer => "consumer",
            Self::Dedup => "dedup",
            Self::Application => "application",
        }
    }
}

/// One change of the state store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets a row.
    Put(Table, Vec<u8>, Vec<u8>),
    /// Removes a row.
    Delete(Table, Vec<u8>),
    /// Removes every row with `from <= key < to`.
    DeleteRange(Table, Vec<u8>, Vec<u8>),
}

/// Changes applied together or not at all, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSet {
    /// The changes.
    pub writes: Vec<Write>,
    /// The log is applied up to and including the entry that starts here. Written in the same
    /// atomic step; `None` leaves it as it was.
    pub applied: Option<LogPosition>,
}

/// Which way to look from a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The first row at or after the key.
    AtOrAfter,
    /// The last row at or before the key.
    AtOrBefore,
}

/// A row: key and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Applied state: what can be rebuilt by replaying the log from [`StateStore::durable_applied`].
///
/// Writes are visible to reads at once and survive a crash only as a prefix: after a crash the
/// store is exactly as it was after some earlier write set, never a mixture.
pub trait StateStore {
    /// Applies one write set.
    ///
    /// # Errors
    /// Any error poisons the store.
    fn write(&mut self, writes: &WriteSet) -> Result<(), StoreError>;

    /// The value of a row.
    ///
    /// # Errors
    /// `Corrupt` or `Io`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The nearest row in the given direction, if there is one in the table.
    ///
    /// # Errors
    /// `Corrupt` or `Io`.
    fn seek(&self, table: Table, key: &[u8], seek: Seek) -> Result<Option<Row>, StoreError>;

    /// Visits rows with `from <= key < to` in rising order until `visit` returns false.
    ///
    /// # Errors
    /// `Corrupt` or `Io`.
    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;

    /// The applied position that a crash now would leave behind; `None` in a new store. The log
    /// must keep everything after it.
    fn durable_applied(&self) -> Option<LogPosition>;

    /// The applied position of the last write set; `None` in a new store.
    fn applied(&self) -> Option<LogPosition>;

    /// Starts to make everything written so far durable, in the background; `durable_applied`
    /// moves when it is done.
    ///
    /// # Errors
    /// Any error poisons the store.
    fn begin_flush(&mut self) -> Result<(), StoreError>;
}

/// A message on its way out: to a client, to another stream, to whoever subscribes.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Account in which it is routed.
    pub account: &'a AccountName,
    /// Subject that selects the receivers.
    pub target: &'a [u8],
    /// Subject the receivers see. A delivered stream message keeps its own subject while `target`
    /// is the inbox of the consumer.
    pub subject: &'a [u8],
    /// Reply subject, empty for none.
    pub reply: &'a [u8],
    /// Header block from `NATS/1.0` to the blank line, empty for none.
    pub header: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

/// The way to clients.
pub trait Outbox {
    /// Routes a message. True when at least one receiver took it.
    fn send(&mut self, message: Outgoing<'_>) -> bool;

    /// Whether anyone subscribes to `subject`; with a `queue`, only members of that queue group
    /// count.
    fn has_interest(&mut self, account: &AccountName, subject: &[u8], queue: Option<&[u8]>)
    -> bool;

    /// Whether anyone subscribes to `subject` itself, not to a pattern that it matches.
    fn has_exact_interest(&mut self, account: &AccountName, subject: &[u8]) -> bool {
        self.has_interest(account, subject, None)
    }

    /// Whether a receiver of `subject` already has a lot waiting to be read. Deliveries then pause
    /// until it has caught up, so that a long backlog does not make it a slow consumer.
    fn is_congested(&mut self, account: &AccountName, subject: &[u8]) -> bool {
        let _ = (account, subject);
        false
    }
}
