//! Direct gets: messages without a JSON envelope, from applied state.

use super::request::{ApiRequest, no_responders, select, send, start};
use super::{Application, Engine};
use crate::api::direct::{self, DirectGet, Found, MAX_MULTI_LAST, Place, UpTo};
use crate::ids::StreamSeq;
use crate::ports::{LogStore, Outbox, StateStore, StoreError};
use crate::record::StoredMessage;
use crate::stream::{Filters, Stream, View};

/// Bytes a batch may hold where the request says nothing: what a connection may have pending.
const DEFAULT_MAX_BYTES: u64 = 64 << 20;

/// A header block and a payload to send.
type Answer = (Vec<u8>, Vec<u8>);

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    pub(super) fn direct_get(
        &mut self,
        request: &ApiRequest<'_>,
        stream: &str,
        subject: Option<&str>,
        out: &mut dyn Outbox,
    ) {
        if request.reply.is_empty() {
            return;
        }
        let group = self.meta.group(request.account, stream);
        let target = group.and_then(|group| Some((group, self.groups.get(&group)?)));
        let Some((group, _)) = target.filter(|(_, target)| target.stream.config().allow_direct)
        else {
            no_responders(request, out);
            return;
        };
        let wanted = match direct::parse(subject, request.payload) {
            Ok(wanted) => wanted,
            Err(status) => {
                send(request.account, request.reply, status, b"", out);
                return;
            }
        };
        let answers = self.with_view(group, |target, view| answers(&target.stream, &wanted, view));
        match answers {
            Ok(answers) => {
                for (header, payload) in answers {
                    send(request.account, request.reply, &header, &payload, out);
                }
            }
            Err(error) => {
                let header = format!("NATS/1.0 500 {}\r\n\r\n", error.description);
                send(request.account, request.reply, header.as_bytes(), b"", out);
            }
        }
    }
}

fn answers(
    stream: &Stream,
    wanted: &DirectGet,
    view: &mut View<'_>,
) -> Result<Vec<Answer>, StoreError> {
    match wanted {
        DirectGet::One {
            selector,
            no_headers,
        } => {
            let found = select(stream, selector, view)?;
            Ok(vec![match found {
                Some(message) => answer(stream, &message, None, *no_headers),
                None => (direct::NOT_FOUND.to_vec(), Vec::new()),
            }])
        }
        DirectGet::Batch {
            from,
            filter,
            batch,
            max_bytes,
            no_headers,
        } => {
            let filters = Filters::new(filter.as_deref());
            let from = start(stream, *from, view)?;
            let mut pending = stream.count_matching(from, &filters, view)?;
            let mut next = from;
            let mut last_seq = StreamSeq(0);
            let mut room = max_bytes.unwrap_or(DEFAULT_MAX_BYTES);
            let mut answers = Vec::new();
            while (answers.len() as u64) < *batch && room > 0 {
                let Some(message) = stream.next_message(next, &filters, view)? else {
                    break;
                };
                pending = pending.saturating_sub(1);
                let place = Place {
                    num_pending: pending,
                    last_seq,
                };
                next = message.seq.next();
                last_seq = message.seq;
                room = room.saturating_sub(size(&message));
                answers.push(answer(stream, &message, Some(place), *no_headers));
            }
            if answers.is_empty() {
                return Ok(vec![(direct::NOT_FOUND.to_vec(), Vec::new())]);
            }
            let end = direct::end_of_batch(Place {
                num_pending: pending,
                last_seq,
            });
            answers.push((end, Vec::new()));
            Ok(answers)
        }
        DirectGet::MultiLast {
            filters,
            from,
            up_to,
            batch,
            max_bytes,
        } => {
            let filters = Filters::new(filters.iter().map(String::as_str));
            let up_to = match up_to {
                UpTo::End => stream.last_seq(),
                UpTo::Seq(seq) => *seq,
                UpTo::Time(time) => match stream.seq_at_time(*time, view)? {
                    Some(seq) => seq.before(),
                    None => stream.last_seq(),
                },
            };
            let limit = MAX_MULTI_LAST + 1;
            let mut seqs = stream.last_per_subject(&filters, Some(up_to), limit, view)?;
            seqs.retain(|seq| *seq >= *from);
            if seqs.is_empty() {
                return Ok(vec![(direct::NO_RESULTS.to_vec(), Vec::new())]);
            }
            if seqs.len() > MAX_MULTI_LAST {
                return Ok(vec![(direct::TOO_MANY_RESULTS.to_vec(), Vec::new())]);
            }
            let most = batch.unwrap_or(u64::MAX);
            let mut room = max_bytes.unwrap_or(DEFAULT_MAX_BYTES);
            let mut pending = seqs.len() as u64;
            let mut last_seq = StreamSeq(0);
            let mut answers = Vec::new();
            for seq in seqs {
                if answers.len() as u64 >= most || room == 0 {
                    break;
                }
                pending -= 1;
                let Some(message) = stream.message(seq, view)? else {
                    continue;
                };
                let place = Place {
                    num_pending: pending,
                    last_seq,
                };
                last_seq = seq;
                room = room.saturating_sub(size(&message));
                answers.push(answer(stream, &message, Some(place), false));
            }
            let place = Place {
                num_pending: pending,
                last_seq,
            };
            answers.push((direct::end_of_multi(place, up_to), Vec::new()));
            Ok(answers)
        }
    }
}

fn size(message: &StoredMessage) -> u64 {
    (message.subject().len() + message.header().len() + message.payload().len()) as u64
}

fn answer(
    stream: &Stream,
    message: &StoredMessage,
    place: Option<Place>,
    no_headers: bool,
) -> Answer {
    let header = if no_headers {
        Vec::new()
    } else {
        let found = Found {
            stream: stream.name(),
            subject: message.subject(),
            seq: message.seq,
            time: message.time(),
            place,
        };
        direct::header_block(message.header(), &found)
    };
    (header, message.payload().to_vec())
}
