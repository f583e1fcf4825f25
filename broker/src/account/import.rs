//! Imported streams: subscriptions of one account that listen in another.

use std::borrow::Cow;
use std::sync::Arc;

use menes_protocol::subject;
use menes_protocol::transform::Transform;

use super::Account;
use super::book::StreamAgreement;
use crate::routing::Subscription;

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
