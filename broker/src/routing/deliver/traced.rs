//! Delivery of a message whose way is told, see [`crate::system::trace`].
//!
//! The same as for any other message, with a note for every subscription that matches; slower, and
//! only for messages that ask for it.

use super::*;
use crate::system::trace::{Trace, disabled, refusal};

impl RouteBatch {
    /// As [`RouteBatch::route`], noting in `trace` who gets the message and who does not. A message
    /// that is only traced is given to nobody.
    pub(crate) fn route_traced(
        &mut self,
        account: &Arc<Account>,
        message: &Message<'_>,
        origin: Option<&Arc<Client>>,
        trace: &mut Trace,
    ) -> usize {
        self.route_along_traced(account, message, origin, None, trace)
    }

    /// As [`RouteBatch::route_traced`], for a message that came through the imports of `chain`.
    pub(super) fn route_along_traced(
        &mut self,
        account: &Arc<Account>,
        message: &Message<'_>,
        origin: Option<&Arc<Client>>,
        chain: Option<&Chain<'_>>,
        trace: &mut Trace,
    ) -> usize {
        let matched = self.cache.lookup(account, message.target);
        // Beyond this account nobody traces it, and what is stored is not traced again.
        let header = disabled(message.header);
        let untraced = Message {
            header: &header,
            ..*message
        };
        let mut delivery = Delivery {
            stage: &mut self.stage,
            account,
            message,
            origin,
            has_engine: self.ingest.is_some(),
            is_passed_on: chain.is_some(),
            is_private: is_private(message.target),
            tags: SmallVec::new(),
            crossings: SmallVec::new(),
        };
        delivery
            .stage
            .begin(matched.plain.len() + matched.queues.len());
        let mut count = 0;
        for subscription in &matched.plain {
            count += usize::from(delivery.deliver_traced(subscription, &untraced, trace));
        }
        for group in &matched.queues {
            let first = self.random.random_range(0..group.members.len());
            let order = group.members[first..].iter().chain(&group.members[..first]);
            for member in order {
                if delivery.deliver_traced(member, &untraced, trace) {
                    count += 1;
                    break;
                }
            }
        }
        let tags = std::mem::take(&mut delivery.tags);
        if !tags.is_empty() {
            count -= tags.len() - 1;
            delivery.stage.ingest(account, origin, tags, &untraced);
        }
        for crossing in delivery.crossings {
            let is_told = matches!(&crossing, Crossing::Request(import) if import.allows_trace());
            let traveller = Traveller {
                account,
                message: if is_told { message } else { &untraced },
                origin,
                chain,
            };
            let mut told = is_told.then_some(&mut *trace);
            count += self.cross_one(traveller, &crossing, &mut told);
        }
        count
    }
}

impl<'a> Delivery<'a> {
    fn deliver_traced(
        &mut self,
        subscription: &Arc<Subscription>,
        untraced: &'a Message<'a>,
        trace: &mut Trace,
    ) -> bool {
        if self.is_private && !subscription.is_the_broker() {
            return false;
        }
        match subscription.target() {
            Target::Client(client) => {
                let error = self.refusal(subscription, client).or_else(|| {
                    let is_refused = !trace.is_only() && !self.deliver(subscription);
                    is_refused.then_some(refusal::LIMIT_REACHED)
                });
                trace.went_out(subscription, client, self.account, error);
                return error.is_none();
            }
            Target::Ingest(tag) => {
                if tag.kind == IngestKind::Stream {
                    trace.stored(subscription.sid(), self.message.subject);
                }
            }
            Target::Import(shadow) => {
                let Some(place) = shadow.place_of(self.message.target) else {
                    return false;
                };
                if self.is_passed_on {
                    return false;
                }
                trace.exported(shadow.importer.name(), &place);
                if !shadow.import.agreement().allow_trace {
                    return trace.is_only() || self.deliver(subscription);
                }
                return self.deliver_import_traced(subscription, shadow, &place, trace);
            }
            Target::ServiceImport(import) => {
                let to = import.subject_there(self.message.target);
                trace.imported(import.exporter().name(), self.message.target, &to);
                if import.allows_trace() {
                    return self.deliver(subscription);
                }
            }
            Target::Service | Target::Receiver(_) | Target::Responses => {}
        }
        if trace.is_only() {
            return true;
        }
        let traced = std::mem::replace(&mut self.message, untraced);
        let is_taken = self.deliver(subscription);
        self.message = traced;
        is_taken
    }

    /// Gives the message to a subscription of an account that tells what becomes of it.
    fn deliver_import_traced(
        &mut self,
        subscription: &Arc<Subscription>,
        shadow: &Shadow,
        place: &[u8],
        trace: &mut Trace,
    ) -> bool {
        let parent = &shadow.parent;
        match parent.target() {
            Target::Client(client) => {
                let error = self.refusal(parent, client).or_else(|| {
                    let is_refused = !trace.is_only() && !self.deliver(subscription);
                    is_refused.then_some(refusal::LIMIT_REACHED)
                });
                trace.went_out(subscription, client, &shadow.importer, error);
                error.is_none()
            }
            _ => {
                if matches!(parent.target(), Target::Ingest(tag) if tag.kind == IngestKind::Stream)
                {
                    trace.stored(parent.sid(), place);
                }
                trace.is_only() || self.deliver(subscription)
            }
        }
    }

    /// Why a client does not get the message, as far as that can be told before.
    fn refusal(&self, subscription: &Subscription, client: &Client) -> Option<&'static str> {
        let is_own = self.origin.is_some_and(|origin| origin.id() == client.id());
        if is_own && !client.has_echo() {
            Some(refusal::NO_ECHO)
        } else if subscription.is_closed() {
            Some(refusal::SUBSCRIPTION_CLOSED)
        } else if client.is_closed() {
            Some(refusal::CLIENT_CLOSED)
        } else if self.stage.drops(client) {
            Some(refusal::SLOW)
        } else {
            None
        }
    }
}
