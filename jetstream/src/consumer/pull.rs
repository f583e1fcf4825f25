//! Pull requests: taken, refused, expired.

use std::time::Duration;

use super::duration::format_go_duration;
use super::waiting::{PullRequest, Request, duration};
use super::{Consumer, Turn, send_status, status};
use crate::ports::StoreError;

/// A full queue is searched for requests that nobody waits for any more this often at most.
const CLEAN_EVERY: Duration = Duration::from_secs(1);

impl Consumer {
    /// Takes a pull request whose messages go to `inbox`, or answers why not. Messages are sent by
    /// the next [`Consumer::deliver`].
    ///
    /// # Errors
    /// Whatever reading the stream reports.
    pub fn pull(
        &mut self,
        inbox: &[u8],
        payload: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), StoreError> {
        self.begin_turn(turn.now);
        if inbox.is_empty() {
            return Ok(());
        }
        let request = match self.accept(payload) {
            Ok(request) => request,
            Err(line) => {
                self.refuse(inbox, &line, turn);
                return Ok(());
            }
        };
        self.last_activity = turn.now;
        if self.waiting.is_full() && turn.now.since(self.last_cleaned) > CLEAN_EVERY {
            self.last_cleaned = turn.now;
            self.drop_deserted(turn);
        }
        if request.no_wait {
            let pending = self.pending_or_due(turn)?;
            if pending == 0 && request.expires <= 0 {
                self.refuse(inbox, "404 No Messages", turn);
                return Ok(());
            }
            if pending > 0 && !self.waiting.is_empty() {
                self.drop_deserted(turn);
                if pending < self.waiting.wanted() {
                    self.refuse(inbox, "408 Requests Pending", turn);
                    return Ok(());
                }
            }
        }
        if self.waiting.is_full() {
            // A client that listens for heartbeats notices by their absence; telling it would only
            // make it ask again at once.
            if request.idle_heartbeat <= 0 {
                self.refuse(inbox, "409 Exceeded MaxWaiting", turn);
            }
            return Ok(());
        }
        self.waiting
            .push(Request::new(inbox, &request, turn.now, self.priority));
        Ok(())
    }

    /// The request if it may be served at all, else the status line of the refusal.
    fn accept(&mut self, payload: &[u8]) -> Result<PullRequest, String> {
        let config = &self.config;
        if config.is_push() {
            return Err("409 Consumer is push based".to_owned());
        }
        let request = PullRequest::parse(payload)
            .map_err(|reason| format!("400 Bad Request - {}", one_line(&reason)))?;
        if config.max_batch > 0 && request.batch > config.max_batch {
            return Err(format!(
                "409 Exceeded MaxRequestBatch of {}",
                config.max_batch
            ));
        }
        if config.max_expires > 0 && request.expires > config.max_expires {
            let longest = format_go_duration(duration(config.max_expires));
            return Err(format!("409 Exceeded MaxRequestExpires of {longest}"));
        }
        if config.max_bytes > 0 && request.max_bytes > config.max_bytes {
            return Err(format!(
                "409 Exceeded MaxRequestMaxBytes of {}",
                config.max_bytes
            ));
        }
        self.accept_priority(&request)?;
        Ok(request)
    }

    /// Messages that could be sent now: new ones, and those that are due again.
    fn pending_or_due(&mut self, turn: &mut Turn<'_>) -> Result<u64, StoreError> {
        self.collect_due(turn)?;
        self.ensure_count(turn.source)?;
        Ok(self.count.messages + self.redeliver.len() as u64)
    }

    fn refuse(&mut self, inbox: &[u8], line: &str, turn: &mut Turn<'_>) {
        status::write(&mut self.status, line, &[]);
        send_status(turn.out, turn.account, inbox, b"", &self.status);
    }

    /// Ends the requests that wanted only what there was. While too much waits for acks they stay
    /// until a heartbeat is due: only [`Consumer::expire_requests`] ends them then.
    pub(super) fn finish_no_wait(&mut self, turn: &mut Turn<'_>) {
        if !self.waiting.has_no_wait() {
            return;
        }
        status::write(&mut self.status, "404 No Messages", &[]);
        self.waiting.retain(|request| {
            let is_done = request.wanted_what_there_was();
            if is_done {
                send_status(turn.out, turn.account, &request.inbox, b"", &self.status);
            }
            !is_done
        });
    }

    /// Ends the requests whose time is up, and those that wanted only what there was, and sends
    /// heartbeats to the others.
    pub(super) fn expire_requests(&mut self, turn: &mut Turn<'_>) {
        if self.waiting.wake().is_none_or(|wake| wake > turn.now.0) {
            return;
        }
        let (last_consumer, last_stream) = (self.sent.consumer.0, self.cursor - 1);
        self.waiting.retain(|request| {
            if request.has_expired(turn.now) {
                status::write_remaining(
                    &mut self.status,
                    "408 Request Timeout",
                    request.left,
                    request.bytes_left,
                );
                send_status(turn.out, turn.account, &request.inbox, b"", &self.status);
                return false;
            }
            if request.wanted_what_there_was() {
                status::write(&mut self.status, "404 No Messages", &[]);
                send_status(turn.out, turn.account, &request.inbox, b"", &self.status);
                return false;
            }
            if request.take_heartbeat(turn.now) {
                status::write_heartbeat(&mut self.status, last_consumer, last_stream, None);
                return send_status(turn.out, turn.account, &request.inbox, b"", &self.status);
            }
            true
        });
    }

    /// Drops the requests that have expired or whose inbox nobody listens on.
    pub(super) fn drop_deserted(&mut self, turn: &mut Turn<'_>) {
        self.expire_requests(turn);
        if !self.waiting.is_empty() {
            self.waiting
                .retain(|request| turn.out.has_interest(turn.account, &request.inbox, None));
        }
    }
}

/// A header value must not break the block.
fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}
