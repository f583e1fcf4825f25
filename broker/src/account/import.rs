//! Imported streams: subscriptions of one account that listen in another.

use std::borrow::Cow;
use std::sync::Arc;

use menes_protocol::subject;
use menes_protocol::transform::Transform;

use super::Account;
use super::book::StreamAgreement;
use crate::routing::{Subscription, Target};

/// A stream import in force.
#[derive(Debug)]
pub(crate) struct StreamImport {
    exporter: Arc<Account>,
    agreement: StreamAgreement,
    /// From here to there.
    back: Option<Transform>,
}

impl StreamImport {
    pub(crate) fn new(exporter: Arc<Account>, agreement: StreamAgreement) -> Self {
        let back = agreement.transform.as_ref().and_then(Transform::reverse);
        Self {
            exporter,
            agreement,
            back,
        }
    }

    pub(crate) fn exporter(&self) -> &Arc<Account> {
        &self.exporter
    }

    pub(crate) fn agreement(&self) -> &StreamAgreement {
        &self.agreement
    }

    /// What of the exporter's subjects a subscription to `filter` here is after.
    pub(crate) fn shadow_of(&self, filter: &[u8]) -> Option<Vec<u8>> {
        let wanted = subject::intersection(filter, self.agreement.to.as_bytes())?;
        Some(match (&self.agreement.transform, &self.back) {
            (None, _) => wanted,
            (Some(_), Some(back)) => back.rewrite(&wanted, 0),
            // Several subjects there have one place here: all of them are listened to, and looked
            // at one by one.
            (Some(_), None) => self.agreement.from.clone().into_bytes(),
        })
    }

    /// Where a message of the exporter appears here.
    pub(crate) fn place_of<'s>(&self, subject: &'s [u8]) -> Cow<'s, [u8]> {
        match &self.agreement.transform {
            None => Cow::Borrowed(subject),
            Some(transform) => Cow::Owned(transform.rewrite(subject, 0)),
        }
    }
}

/// A subscription in the exporting account on behalf of one in the importing account.
#[derive(Clone, Debug)]
pub struct Shadow {
    pub(crate) importer: Arc<Account>,
    pub(crate) import: Arc<StreamImport>,
    /// The subscription that a person would see.
    pub(crate) parent: Arc<Subscription>,
}

impl Shadow {
    /// Whether it does the same as `other`.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.parent, &other.parent) && Arc::ptr_eq(&self.import, &other.import)
    }

    /// Where a message of the exporter appears to the subscription, if it does.
    pub(crate) fn place_of<'s>(&self, subject: &'s [u8]) -> Option<Cow<'s, [u8]>> {
        let place = self.import.place_of(subject);
        subject::matches(self.parent.subject(), &place).then_some(place)
    }
}

fn address(subscription: &Arc<Subscription>) -> usize {
    Arc::as_ptr(subscription) as usize
}

fn remove_shadows(shadows: &[Arc<Subscription>]) {
    for shadow in shadows {
        shadow.close();
        if let Target::Import(import) = shadow.target() {
            import.import.exporter().sublist.remove(shadow);
        }
    }
}

/// Imported streams.
impl Account {
    /// Makes a subscription listen to what the streams imported now call for, and to nothing else.
    pub(super) fn renew_shadows(self: &Arc<Self>, subscription: &Arc<Subscription>) {
        if !matches!(subscription.target(), Target::Client(_) | Target::Ingest(_)) {
            return;
        }
        let mut shadows = self.shadows.lock();
        let old = shadows.remove(&address(subscription)).unwrap_or_default();
        let rules = self.rules.load();
        // One that ended meanwhile listens to nothing any more.
        let streams = rules.streams.iter().filter(|_| !subscription.is_closed());
        let wanted: Vec<(Vec<u8>, Shadow)> = streams
            .filter_map(|import| {
                let shadow = Shadow {
                    importer: Arc::clone(self),
                    import: Arc::clone(import),
                    parent: Arc::clone(subscription),
                };
                Some((import.shadow_of(subscription.subject())?, shadow))
            })
            .collect();
        let is_as = |known: &Arc<Subscription>, wanted: &Shadow| matches!(known.target(), Target::Import(shadow) if shadow.is_as(wanted));
        let (mut all, removed): (Vec<_>, Vec<_>) = old
            .into_iter()
            .partition(|known| wanted.iter().any(|(_, shadow)| is_as(known, shadow)));
        for (subject, shadow) in wanted {
            if !all.iter().any(|known| is_as(known, &shadow)) {
                let exporter = Arc::clone(shadow.import.exporter());
                let added = Arc::new(Subscription::of_import(shadow, &subject));
                exporter.sublist.insert(&added);
                all.push(added);
            }
        }
        remove_shadows(&removed);
        if !all.is_empty() {
            shadows.insert(address(subscription), all);
        }
    }

    /// Makes a subscription that ended listen nowhere else.
    pub(super) fn drop_shadows(&self, subscription: &Arc<Subscription>) {
        let mut shadows = self.shadows.lock();
        let own = shadows.remove(&address(subscription));
        remove_shadows(&own.unwrap_or_default());
    }

    pub(super) fn renew_all_shadows(self: &Arc<Self>) {
        let mut all = Vec::new();
        self.sublist.for_each(&mut |s| all.push(Arc::clone(s)));
        for subscription in &all {
            self.renew_shadows(subscription);
        }
    }
}
