//! A stream as its consumers see it.

use crate::StreamSeq;
use crate::consumer::MessageSource;
use crate::ports::StoreError;
use crate::record::StoredMessage;
use crate::stream::{Filters, Stream, View};
use crate::time::Timestamp;

/// One stream and what it takes to read it.
pub(crate) struct StreamView<'a> {
    pub(crate) stream: &'a Stream,
    pub(crate) view: View<'a>,
}

impl MessageSource for StreamView<'_> {
    fn first_seq(&self) -> StreamSeq {
        self.stream.first_seq()
    }

    fn last_seq(&self) -> StreamSeq {
        self.stream.last_seq()
    }

    fn message(&mut self, seq: StreamSeq) -> Result<Option<StoredMessage>, StoreError> {
        self.stream.message(seq, &mut self.view)
    }

    fn next_message(
        &mut self,
        from: StreamSeq,
        filters: &Filters,
    ) -> Result<Option<StoredMessage>, StoreError> {
        self.stream.next_message(from, filters, &mut self.view)
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
