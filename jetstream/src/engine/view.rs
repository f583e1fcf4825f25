//! A stream as its consumers see it.

use crate::StreamSeq;
use crate::consumer::MessageSource;
use crate::ports::{StoreError, StoreErrorKind};
use crate::record::StoredMessage;
use crate::stream::{Filters, Stream, View};
use crate::time::Timestamp;

/// One stream and what it takes to read it.
///
/// A message that is damaged on disk is not there for a consumer: it is passed over, and the log of
/// the server says so. One bad block must not stop everything behind it.
pub(crate) struct StreamView<'a> {
    stream: &'a Stream,
    view: View<'a>,
}

impl<'a> StreamView<'a> {
    pub(crate) fn new(stream: &'a Stream, view: View<'a>) -> Self {
        Self { stream, view }
    }

    fn is_damage(&self, error: &StoreError, seq: StreamSeq) -> bool {
        let is_damage = error.kind == StoreErrorKind::Corrupt;
        if is_damage {
            let name = self.stream.name();
            tracing::error!("message {seq} of stream {name} is passed over: {error}");
        }
        is_damage
    }
}

impl MessageSource for StreamView<'_> {
    fn first_seq(&self) -> StreamSeq {
        self.stream.first_seq()
    }

    fn last_seq(&self) -> StreamSeq {
        self.stream.last_seq()
    }

    fn message(&mut self, seq: StreamSeq) -> Result<Option<StoredMessage>, StoreError> {
        match self.stream.message(seq, &mut self.view) {
            Err(error) if self.is_damage(&error, seq) => Ok(None),
            result => result,
        }
    }

    fn next_message(
        &mut self,
        from: StreamSeq,
        filters: &Filters,
    ) -> Result<Option<StoredMessage>, StoreError> {
        let mut from = from;
        loop {
            let error = match self.stream.next_message(from, filters, &mut self.view) {
                Err(error) if error.kind == StoreErrorKind::Corrupt => error,
                result => return result,
            };
            match self.stream.next_sequence(from, filters, &mut self.view)? {
                Some(seq) if self.is_damage(&error, seq) => from = seq.next(),
                _ => return Err(error),
            }
        }
    }

    fn count_matching(&mut self, from: StreamSeq, filters: &Filters) -> Result<u64, StoreError> {
        self.stream.count_matching(from, filters, &mut self.view)
    }

    fn seq_at_time(&mut self, time: Timestamp) -> Result<StreamSeq, StoreError> {
        let found = self.stream.seq_at_time(time, &mut self.view)?;
        Ok(found.unwrap_or_else(|| self.stream.last_seq().next()))
    }

    fn last_per_subject(&mut self, filters: &Filters) -> Result<Vec<StreamSeq>, StoreError> {
        self.stream
            .last_per_subject(filters, None, usize::MAX, &mut self.view)
    }

    fn keeps_one_per_subject(&self) -> bool {
        self.stream.config().max_msgs_per_subject == 1
    }
}
