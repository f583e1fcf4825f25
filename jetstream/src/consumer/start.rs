//! Where a new consumer begins.

use super::config::{ConsumerConfig, DeliverPolicy};
use super::latest::Latest;
use super::source::MessageSource;
use crate::ids::StreamSeq;
use crate::ports::StoreError;
use crate::stream::Filters;
use crate::time::Timestamp;

/// The sequence after which a consumer begins, and the messages it begins with where those are
/// not simply the following ones.
pub(super) fn position(
    config: &ConsumerConfig,
    filters: &Filters,
    source: &mut dyn MessageSource,
) -> Result<(StreamSeq, Option<Latest>), StoreError> {
    let first = source.first_seq();
    let last = source.last_seq();
    let after_last = last.next();
    let mut latest = None;
    let start = match config.deliver_policy {
        DeliverPolicy::All => first,
        DeliverPolicy::New => after_last,
        // Without a match the reference begins where the stream does.
        DeliverPolicy::Last => source.last_matching(filters)?.unwrap_or(first),
        DeliverPolicy::LastPerSubject if source.keeps_one_per_subject() => first,
        DeliverPolicy::LastPerSubject => {
            let seqs = source.last_per_subject(filters)?;
            latest = Latest::new(&seqs, last);
            // Without a match the reference begins with the last message, whatever it is.
            seqs.first().copied().unwrap_or(last)
        }
        // A sequence that is still to come is waited for.
        DeliverPolicy::ByStartSequence => {
            let wanted = StreamSeq(config.opt_start_seq);
            return Ok((wanted.max(first).max(StreamSeq(1)).before(), None));
        }
        DeliverPolicy::ByStartTime => {
            source.seq_at_time(config.opt_start_time.unwrap_or(Timestamp::ZERO))?
        }
    };
    let start = start.min(after_last).max(first).max(StreamSeq(1));
    Ok((start.before(), latest))
}
