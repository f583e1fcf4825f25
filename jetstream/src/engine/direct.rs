//! Direct gets: messages without a JSON envelope, from applied state.

use super::request::{ApiRequest, no_responders, select, send, start};
use super::{Application, Engine, StreamGroup};
use crate::api::direct::{self, DirectGet, Found, MAX_MULTI_LAST, Place, UpTo};
use crate::ids::{AccountName, GroupId, StreamSeq};
use crate::ports::{LogStore, Outbox, StateStore, StoreError};
use crate::record::StoredMessage;
use crate::stream::{Filters, Stream, View};

/// Most bytes of a batch, whatever the request says. All of it is handed to the connection at once,
/// which closes when too much waits there; who wants more asks again for the rest.
const MAX_BATCH_BYTES: u64 = 16 << 20;

/// Takes the header block and the payload of an answer.
type Emit<'a> = &'a mut dyn FnMut(&[u8], &[u8]);

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
        let is_allowed = |target: &StreamGroup| target.stream.config().allow_direct;
        let target = target
            .filter(|(_, target)| is_allowed(target))
            // A mirror answers for an origin that is elsewhere.
            .or_else(|| {
                self.mirror_of(request.account, stream)
                    .filter(|_| group.is_none())
            })
            .filter(|_| self.poisoned.is_none());
        let Some((group, _)) = target else {
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
        let (account, reply) = (request.account, request.reply);
        let emit: Emit<'_> = &mut |header, payload| send(account, reply, header, payload, out);
        let result = self.with_view(group, |target, view| {
            answer_all(&target.stream, &wanted, view, emit)
        });
        if let Err(error) = result {
            let header = format!("NATS/1.0 500 {}\r\n\r\n", error.description);
            send(account, reply, header.as_bytes(), b"", out);
        }
    }
}

impl<L: LogStore, S: StateStore, A: Application> Engine<L, S, A> {
    /// A mirror that may answer for its origin, which is not in this server.
    fn mirror_of(&self, account: &AccountName, origin: &str) -> Option<(GroupId, &StreamGroup)> {
        self.meta
            .streams(account)
            .filter_map(|(_, group)| Some((group, self.groups.get(&group)?)))
            .find(|(_, target)| {
                let config = target.stream.config();
                let mirror = config.mirror.as_ref();
                config.mirror_direct && mirror.is_some_and(|mirror| mirror.name == origin)
            })
    }
}

fn answer_all(
    stream: &Stream,
    wanted: &DirectGet,
    view: &mut View<'_>,
    emit: Emit<'_>,
) -> Result<(), StoreError> {
    match wanted {
        DirectGet::One {
            selector,
            no_headers,
        } => match select(stream, selector, view)? {
            Some(message) => answer(stream, &message, None, *no_headers, emit),
            None => emit(direct::NOT_FOUND, b""),
        },
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
            let mut room = max_bytes.unwrap_or(u64::MAX).min(MAX_BATCH_BYTES);
            let mut count = 0;
            while count < *batch && room > 0 {
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
                answer(stream, &message, Some(place), *no_headers, emit);
                count += 1;
            }
            if count == 0 {
                emit(direct::NOT_FOUND, b"");
                return Ok(());
            }
            let end = direct::end_of_batch(Place {
                num_pending: pending,
                last_seq,
            });
            emit(&end, b"");
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
                emit(direct::NO_RESULTS, b"");
                return Ok(());
            }
            if seqs.len() > MAX_MULTI_LAST {
                emit(direct::TOO_MANY_RESULTS, b"");
                return Ok(());
            }
            let most = batch.unwrap_or(u64::MAX);
            let mut room = max_bytes.unwrap_or(u64::MAX).min(MAX_BATCH_BYTES);
            let mut pending = seqs.len() as u64;
            let mut last_seq = StreamSeq(0);
            let mut count = 0;
            for seq in seqs {
                if count >= most || room == 0 {
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
                answer(stream, &message, Some(place), false, emit);
                count += 1;
            }
            let place = Place {
                num_pending: pending,
                last_seq,
            };
            emit(&direct::end_of_multi(place, up_to), b"");
        }
    }
    Ok(())
}

fn size(message: &StoredMessage) -> u64 {
    (message.subject().len() + message.header().len() + message.payload().len()) as u64
}

fn answer(
    stream: &Stream,
    message: &StoredMessage,
    place: Option<Place>,
    no_headers: bool,
    emit: Emit<'_>,
) {
    let found = Found {
        stream: stream.name(),
        subject: message.subject(),
        seq: message.seq,
        time: message.time(),
        place,
    };
    let header = if no_headers {
        Vec::new()
    } else {
        direct::header_block(message.header(), &found)
    };
    emit(&header, message.payload());
}
