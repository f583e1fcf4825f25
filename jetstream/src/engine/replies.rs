//! Reply subjects of a batch, kept beside the log entry on the server that proposed it.

use std::sync::Arc;

use super::StreamGroup;
use super::accounts::Claim;
use crate::ids::AccountName;

/// Who waits for the messages of one block. Answers can be sent when the stream is gone already.
#[derive(Debug)]
pub(crate) struct Publishers {
    pub(crate) account: AccountName,
    pub(crate) stream: Arc<str>,
    pub(crate) replies: Replies,
    pub(crate) claim: Option<Claim>,
}

impl Publishers {
    /// Nobody yet.
    pub(crate) fn of(target: &StreamGroup) -> Self {
        Self {
            account: target.account.clone(),
            stream: Arc::clone(&target.name),
            replies: Replies::default(),
            claim: None,
        }
    }
}

/// The reply subjects of the records of one block, in order.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Records that the driver waits for, by place, with its tokens.
    tokens: Vec<(usize, u64)>,
}

impl Replies {
    /// Adds the reply of the next record; empty for none.
    pub(crate) fn push(&mut self, reply: &[u8]) {
        self.bytes.extend_from_slice(reply);
        self.ends.push(self.bytes.len());
    }

    /// Lets the driver wait for the outcome of the record added last.
    pub(crate) fn expect_last(&mut self, token: u64) {
        if let Some(place) = self.ends.len().checked_sub(1) {
            self.tokens.push((place, token));
        }
    }

    /// Places of the records that the driver waits for, with its tokens.
    pub(crate) fn tokens(&self) -> &[(usize, u64)] {
        &self.tokens
    }

    /// The reply of each record.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let reply = self.bytes.get(start..end).unwrap_or(&[]);
            start = end;
            reply
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_come_back_in_order() {
        let mut replies = Replies::default();
        replies.push(b"a");
        replies.push(b"");
        replies.push(b"bc");
        assert_eq!(replies.iter().collect::<Vec<_>>(), [&b"a"[..], b"", b"bc"]);
    }
}
