//! What a consumer reads of its stream.

use crate::StreamSeq;
use crate::ports::StoreError;
use crate::record::StoredMessage;
use crate::stream::Filters;
use crate::time::Timestamp;

/// A stream as its consumers see it. All answers are of the same moment.
pub trait MessageSource {
    /// Sequence of the first message; last + 1 when the stream is empty.
    fn first_seq(&self) -> StreamSeq;

    /// Last sequence given, also when its message is gone; 0 in a new stream.
    fn last_seq(&self) -> StreamSeq;

    /// The message with this sequence, if it is still stored.
    ///
    /// # Errors
    /// Whatever the stores report.
    fn message(&mut self, seq: StreamSeq) -> Result<Option<StoredMessage>, StoreError>;

    /// The first message at or after `from` that the filters match.
    ///
    /// # Errors
    /// Whatever the stores report.
    fn next_message(
        &mut self,
        from: StreamSeq,
        filters: &Filters,
    ) -> Result<Option<StoredMessage>, StoreError>;

    /// How many messages at or after `from` the filters match.
    ///
    /// # Errors
    /// Whatever the stores report.
    fn count_matching(&mut self, from: StreamSeq, filters: &Filters) -> Result<u64, StoreError>;

    /// Sequence of the first message stored at or after `time`; last + 1 when there is none.
    ///
    /// # Errors
    /// Whatever the stores report.
    fn seq_at_time(&mut self, time: Timestamp) -> Result<StreamSeq, StoreError>;

    /// The last message of each subject that the filters match, in rising order of sequence.
    ///
    /// # Errors
    /// Whatever the stores report.
    fn last_per_subject(&mut self, filters: &Filters) -> Result<Vec<StreamSeq>, StoreError>;

    /// The last message that the filters match. The default asks for the last one of each subject.
    ///
    /// # Errors
    /// Whatever the stores report.
    fn last_matching(&mut self, filters: &Filters) -> Result<Option<StreamSeq>, StoreError> {
        if filters.is_all() {
            return Ok(Some(self.last_seq()).filter(|last| *last >= self.first_seq()));
        }
        Ok(self.last_per_subject(filters)?.last().copied())
    }

    /// Whether the stream keeps one message per subject at most, so that every message is the last
    /// of its subject. False when in doubt.
    fn keeps_one_per_subject(&self) -> bool {
        false
    }
}
