//! Reply subjects of a batch, kept beside the log entry on the server that proposed it.

/// The reply subjects of the records of one block, in order.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Replies {
    /// Adds the reply of the next record; empty for none.
    pub(crate) fn push(&mut self, reply: &[u8]) {
        self.bytes.extend_from_slice(reply);
        self.ends.push(self.bytes.len());
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
