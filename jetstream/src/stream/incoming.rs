//! What a stream makes of a message before it is proposed.
//!
//! A renamed subject, a raised time to live: these depend on the configuration alone, so they are
//! settled by the server that proposes, and the block holds the message as it will be delivered.

use std::borrow::Cow;

use menes_protocol::headers::{HeaderBlock, HeaderBuilder};

use super::Stream;
use super::directives::{Directives, Ttl};

/// A message as it goes into the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// Subject it is stored under.
    pub subject: Cow<'a, [u8]>,
    /// Header block, empty for none.
    pub header: Cow<'a, [u8]>,
}

impl Stream {
    /// Makes a published message ready. `random` is for transforms that ask for it.
    #[must_use]
    pub fn prepare<'a>(
        &self,
        subject: &'a [u8],
        header: &'a [u8],
        random: impl FnOnce() -> u32,
    ) -> Incoming<'a> {
        let subject = match &self.limits.transform {
            Some(transform) => transform
                .apply(subject, random())
                .map_or(Cow::Borrowed(subject), Cow::Owned),
            None => Cow::Borrowed(subject),
        };
        let header = self.raise_ttl(header);
        let header = match self.schedule_rolls_up(&header) {
            Some(own) => Cow::Owned(own.to_vec()),
            None => header,
        };
        Incoming { subject, header }
    }

    /// Where a stored message is published again, if it is.
    #[must_use]
    pub fn republished(&self, subject: &[u8], random: impl FnOnce() -> u32) -> Option<Vec<u8>> {
        let target = self.limits.republish.as_ref()?.apply(subject, random())?;
        menes_protocol::subject::is_literal(&target).then_some(target)
    }

    /// Whether stored messages are published again.
    #[must_use]
    pub fn republishes(&self) -> bool {
        self.limits.republish.is_some()
    }

    /// A message that goes before the marker of an older one would hide that marker, so it stays
    /// at least as long; not where it replaces everything before it anyway.
    fn raise_ttl<'a>(&self, header: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(least) = self.limits.marker_ttl.map(|ttl| ttl.as_secs()) else {
            return Cow::Borrowed(header);
        };
        if header.is_empty() || self.limits.per_subject == 1 {
            return Cow::Borrowed(header);
        }
        let wanted = Directives::parse(header).and_then(|directives| directives.ttl());
        match (wanted, HeaderBlock::parse(header)) {
            (Ok(Some(Ttl::Seconds(seconds))), Ok(block)) if seconds < least => {
                let mut raised = HeaderBuilder::from_block(&block);
                raised
                    .remove("Nats-TTL")
                    .push("Nats-TTL", least.to_string());
                Cow::Owned(raised.finish().to_vec())
            }
            _ => Cow::Borrowed(header),
        }
    }
}
