//! From one account into another: requests to imported services, and their responses.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use menes_protocol::headers::{HeaderBlock, HeaderBuilder};
use rand::Rng;

use super::{Message, RouteBatch};
use crate::account::Account;
use crate::account::description::LatencyOptions;
use crate::account::latency::{ClientDetails, LatencyReport, Outcome, Sample};
use crate::account::mapping::Mapped;
use crate::account::service::{Pending, ServiceImport, Tracking};
use crate::connection::client::Client;
use crate::system::trace::{self, Trace};

/// What a message met in one account that leads to another.
#[derive(Debug)]
pub(super) enum Crossing {
    /// An imported service.
    Request(Arc<ServiceImport>),
    /// The place where responses of exported services arrive.
    Response,
}

/// The imports that a message came through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain<'a> {
    import: &'a ServiceImport,
    /// What the header says of the requester, once it was passed on.
    details: Option<&'a ClientDetails>,
    before: Option<&'a Self>,
    /// How many there are.
    len: usize,
}

/// Imports that a message may come through: each takes room on the stack.
const MAX_CHAIN: usize = 32;

impl Chain<'_> {
    /// Whether a message must not go through this import too: it was there, or has come far enough.
    fn refuses(&self, import: &ServiceImport) -> bool {
        self.len >= MAX_CHAIN || self.has(import)
    }

    fn has(&self, import: &ServiceImport) -> bool {
        self.import.is_of_export(import) || self.before.is_some_and(|before| before.has(import))
    }
}

/// Says who sent a request.
const REQUEST_INFO: &str = "Nats-Request-Info";

/// A message on its way between accounts.
#[derive(Clone, Copy)]
pub(super) struct Traveller<'a> {
    /// The account that it is in.
    pub(super) account: &'a Arc<Account>,
    pub(super) message: &'a Message<'a>,
    pub(super) origin: Option<&'a Arc<Client>>,
    pub(super) chain: Option<&'a Chain<'a>>,
}

impl RouteBatch {
    /// Passes a message on and returns how many took it.
    #[cold]
    #[inline(never)]
    pub(super) fn cross(&mut self, traveller: Traveller<'_>, crossings: &[Crossing]) -> usize {
        let pass = |crossing: &Crossing| self.cross_one(traveller, crossing, &mut None);
        crossings.iter().map(pass).sum()
    }

    /// Passes a message on in one of the ways that it met, and tells of that in `trace`.
    pub(super) fn cross_one(
        &mut self,
        traveller: Traveller<'_>,
        crossing: &Crossing,
        trace: &mut Option<&mut Trace>,
    ) -> usize {
        match crossing {
            Crossing::Request(import) => self.request(traveller, import, trace),
            Crossing::Response => self.response(traveller),
        }
    }

    fn request(
        &mut self,
        traveller: Traveller<'_>,
        import: &Arc<ServiceImport>,
        trace: &mut Option<&mut Trace>,
    ) -> usize {
        let Traveller {
            account,
            message,
            origin,
            chain,
        } = traveller;
        if chain.is_some_and(|chain| chain.refuses(import)) {
            return 0;
        }
        let share = chain
            .map_or(&**import, |chain| chain.import)
            .agreement()
            .share;
        let latency = import.agreement().options.latency.as_ref();
        let latency = latency.filter(|_| !self.is_reporting);
        let sample = latency.and_then(|l| Sample::take(l, message.header, self.random.random()));
        let pending = if message.reply.is_empty() {
            if let (Some(sample), Some(latency)) = (sample, latency) {
                let requester = origin.map(|client| self.details(client, share));
                let times = (SystemTime::now(), Duration::ZERO);
                let outcome = Outcome::BadRequest;
                let report = LatencyReport::new(outcome, requester, None, sample.headers, times);
                self.report(import.exporter(), latency, &report);
            }
            None
        } else {
            let tracking = sample.map(|sample| Tracking {
                requester: origin.cloned(),
                sample,
            });
            import
                .exporter()
                .expect_response(message.reply, account, import, tracking)
        };
        let mut details = match chain.and_then(|chain| chain.details) {
            Some(details) => details.clone().through(account.name().as_str()),
            None => origin.map_or_else(
                || ClientDetails::of_account(account.name().as_str()),
                |client| self.details(client, share),
            ),
        };
        if import.exporter().is_system() {
            details.set_server(&self.server_name);
        }
        let header = with_details(message.header, &details);
        let is_only = trace.as_ref().is_some_and(|trace| trace.is_only());
        let header = match trace {
            // The place for traces of other servers, of which there are none.
            Some(trace) => {
                let (_, destination) = trace.destination();
                let place = import
                    .exporter()
                    .expect_response(destination, account, import, None);
                let place = place.inspect(|place| import.exporter().forget_response(place));
                let token = place.as_ref().map_or(&b""[..], |place| &place.token);
                trace::with_destination(&header, token).into()
            }
            None => header,
        };
        let chain = Chain {
            import,
            details: Some(&details),
            before: chain,
            len: 1 + chain.map_or(0, |chain| chain.len),
        };
        let reply = reply_there(message.reply, pending.as_deref());
        let target = import.subject_there(message.target);
        let message = Message {
            reply,
            header: &header,
            ..*message
        };
        let count = self.arrive(import.exporter(), &message, target, origin, &chain, trace);
        if (count == 0 || is_only)
            && let Some(pending) = pending
        {
            self.end(&pending, Outcome::NobodyServes);
        }
        count
    }

    fn response(&mut self, traveller: Traveller<'_>) -> usize {
        let Traveller {
            account,
            message,
            origin,
            chain,
        } = traveller;
        let Some(pending) = account.responses().get(message.target) else {
            return 0;
        };
        let import = Arc::clone(&pending.import);
        if chain.is_some_and(|chain| chain.refuses(&import)) {
            return 0;
        }
        let is_last = pending.ends_with(message.header.is_empty() && message.payload.is_empty());
        // A response of one message is one, however many answer.
        if is_last && account.responses().take(message.target).is_none() {
            return 0;
        }
        self.tell(&pending, Outcome::Answered, origin);
        // Whoever answers may want an answer too.
        let own = if message.reply.is_empty() {
            None
        } else {
            let importer = &pending.importer;
            importer.expect_response(message.reply, account, &import, None)
        };
        let chain = Chain {
            import: &import,
            details: None,
            before: chain,
            len: 1 + chain.map_or(0, |chain| chain.len),
        };
        let reply = reply_there(message.reply, own.as_deref());
        let message = Message { reply, ..*message };
        let target = pending.reply.to_vec();
        let count = self.arrive(
            &pending.importer,
            &message,
            target,
            origin,
            &chain,
            &mut None,
        );
        if count == 0 || is_last {
            account.forget_response(&pending);
        } else {
            pending.delivered();
        }
        if count == 0
            && let Some(own) = own
        {
            own.holder.forget_response(&own);
        }
        count
    }

    /// Routes a message in the account that it came to, under this subject.
    fn arrive(
        &mut self,
        account: &Arc<Account>,
        message: &Message<'_>,
        mut target: Vec<u8>,
        origin: Option<&Arc<Client>>,
        chain: &Chain<'_>,
        trace: &mut Option<&mut Trace>,
    ) -> usize {
        match self.map(account, &target) {
            Some(Mapped::To(mapped)) => target = mapped,
            Some(Mapped::Lost) => return 0,
            None => {}
        }
        // What streams deliver is seen under the subject it was stored under, in every account.
        let subject = if message.subject == message.target {
            &target
        } else {
            message.subject
        };
        let message = Message {
            target: &target,
            subject,
            ..*message
        };
        match trace {
            Some(trace) => self.route_along_traced(account, &message, origin, Some(chain), trace),
            None => self.route_along(account, &message, origin, Some(chain)),
        }
    }

    /// What becomes of a subject in this account.
    #[inline]
    pub(crate) fn map(&mut self, account: &Account, subject: &[u8]) -> Option<Mapped> {
        if account.is_mapped() {
            account.map(subject, self.random.random())
        } else {
            None
        }
    }

    /// Ends waiting for a response, which did not come because of `outcome`.
    pub(crate) fn end(&mut self, pending: &Arc<Pending>, outcome: Outcome) {
        pending.holder.forget_response(pending);
        self.tell(pending, outcome, None);
    }

    /// Reports how a request went, if that is wanted and was not reported yet.
    fn tell(&mut self, pending: &Pending, outcome: Outcome, responder: Option<&Arc<Client>>) {
        let import = &pending.import;
        let agreement = import.agreement();
        let (Some(latency), Some(tracking)) = (&agreement.options.latency, pending.take_tracking())
        else {
            return;
        };
        let requester = tracking.requester.as_ref();
        let requester = requester.map(|client| self.details(client, agreement.share));
        let responder = responder.map(|client| self.details(client, true));
        let headers = tracking.sample.headers.clone();
        let times = (pending.arrived.0, pending.arrived.1.elapsed());
        let report = LatencyReport::new(outcome, requester, responder, headers, times);
        self.report(import.exporter(), latency, &report);
    }

    fn report(&mut self, exporter: &Arc<Account>, to: &LatencyOptions, report: &LatencyReport) {
        let json = report.to_json();
        let message = Message::new(to.subject.as_bytes(), &json);
        // Measuring reports would never end where two accounts report to each other's services.
        let before = std::mem::replace(&mut self.is_reporting, true);
        self.route(exporter, &message, None);
        self.is_reporting = before;
    }

    fn details(&self, client: &Client, share: bool) -> ClientDetails {
        ClientDetails::of(client, share.then_some(&*self.server_name))
    }
}

/// The reply subject of a request at its exporter.
fn reply_there<'r>(reply: &'r [u8], pending: Option<&'r Pending>) -> &'r [u8] {
    match pending {
        Some(pending) => &pending.token,
        None if reply.starts_with(b"$JS.ACK.") => reply,
        None => b"",
    }
}

/// The header block with a field that says who sent the request.
fn with_details(header: &[u8], details: &ClientDetails) -> Bytes {
    let json = serde_json::to_vec(details).expect("texts and numbers always serialize");
    let mut builder = match HeaderBlock::parse(header) {
        Ok(block) => HeaderBuilder::from_block(&block),
        Err(_) => HeaderBuilder::new(),
    };
    builder
        .remove(REQUEST_INFO)
        .push(REQUEST_INFO, json)
        .finish()
}
