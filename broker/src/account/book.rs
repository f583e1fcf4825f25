//! Which imports hold: the descriptions of all accounts, and what follows from them.
//!
//! An import holds when the exporter exports it to the importer and when it closes no circle of
//! imports. It is looked at when its account is described, and again when its exporter is, against
//! the imports of the others that hold by then.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use menes_jetstream::ids::AccountName;
use menes_protocol::subject;
use menes_protocol::transform::{Transform, TransformError, number_wildcards, wildcards_of};

use super::description::{
    AccountDescription, Audience, Export, ExportKind, Import, ImportKind, LatencyOptions,
    ResponseKind, Sampling, ServiceOptions, StreamPlace,
};

/// Decides about activation tokens, which exports to whoever brings one want.
pub trait ActivationCheck: Send + Sync {
    /// Whether the token of `import` lets `importer` import `export` of `exporter`.
    fn allows(
        &self,
        exporter: &AccountDescription,
        export: &Export,
        importer: &AccountName,
        import: &Import,
    ) -> bool;
}

/// Why an import does not hold; the texts are those of nats-server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The exporter is not known, or not yet.
    #[error("account missing")]
    NoExporter,
    /// A subject that is none.
    #[error("sublist: invalid subject")]
    InvalidSubject,
    /// No stream is exported there, or not to this account.
    #[error("stream import not authorized")]
    StreamNotAuthorized,
    /// No service is exported there, or not to this account.
    #[error("service import not authorized")]
    ServiceNotAuthorized,
    /// The prefix has a wildcard.
    #[error("stream import prefix can not contain wildcard tokens")]
    PrefixWithWildcard,
    /// The stream is imported already.
    #[error("stream import already exists")]
    DuplicateStream,
    /// A service of the same exporter is at the same place already.
    #[error(
        "duplicate service import subject {place:?}, previously used in import for account \
         {account:?}, subject {subject:?}"
    )]
    DuplicateService {
        /// Where requests would be sent to.
        place: String,
        /// The exporter.
        account: String,
        /// The subject there.
        subject: String,
    },
    /// The place does not go with the subject.
    #[error(
        "failed to create mapping transform for {kind} import subject from {from:?} to {to:?}: \
         {error}"
    )]
    Transform {
        /// `stream` or `service`.
        kind: &'static str,
        /// The one subject.
        from: String,
        /// The other.
        to: String,
        /// What is wrong.
        error: TransformError,
    },
    /// Messages could go round.
    #[error("import forms a cycle")]
    Cycle,
    /// The search for circles was given up.
    #[error("search cycle depth exhausted")]
    SearchDepth,
}

/// Why an export is refused; the texts are those of nats-server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The account token's position is not that of a `*`.
    #[error("sublist: invalid subject")]
    InvalidSubject,
    /// Results of measuring cannot be published there.
    #[error("invalid publish subject")]
    LatencySubject,
    /// Only responses of one message are measured.
    #[error("bad service response type")]
    LatencyOfMany,
    /// Not a number from 1 to 100.
    #[error("bad sampling percentage, should be 1-100")]
    Sampling,
}

/// Checks an export by itself and against the others of its account.
///
/// # Errors
/// What is wrong with it.
pub fn check_export(account: &AccountDescription, export: &Export) -> Result<(), ExportError> {
    if let Some(position) = export.account_token_position.filter(|&at| at > 0) {
        let token = subject::tokens(export.subject.as_bytes()).nth(position - 1);
        if token != Some(b"*") {
            return Err(ExportError::InvalidSubject);
        }
    }
    let ExportKind::Service(ServiceOptions {
        latency: Some(LatencyOptions { subject, sampling }),
        response,
        ..
    }) = &export.kind
    else {
        return Ok(());
    };
    if matches!(sampling, Sampling::Percent(0 | 101..)) {
        return Err(ExportError::Sampling);
    }
    let loops = account.exports.iter().any(|other| {
        matches!(other.kind, ExportKind::Service(_))
            && subject::is_subset(subject.as_bytes(), other.subject.as_bytes())
    });
    if !subject::is_literal(subject.as_bytes()) || loops {
        return Err(ExportError::LatencySubject);
    }
    if *response != ResponseKind::Singleton {
        return Err(ExportError::LatencyOfMany);
    }
    Ok(())
}

/// A stream import that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamAgreement {
    /// The exporter.
    pub exporter: AccountName,
    /// The subjects there.
    pub from: String,
    /// The subjects here.
    pub to: String,
    /// From there to here, where the two differ.
    pub transform: Option<Transform>,
    /// Whether the exporter is told what becomes of a traced message.
    pub allow_trace: bool,
}

/// A service import that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAgreement {
    /// The exporter.
    pub exporter: AccountName,
    /// The subjects here.
    pub from: String,
    /// The subjects there.
    pub to: String,
    /// From here to there.
    pub way: Way,
    /// The export, by its subject.
    pub export: String,
    /// How the service answers.
    pub options: ServiceOptions,
    /// Whether the exporter learns who asks.
    pub share: bool,
}

/// What the subject of a request becomes at the exporter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The same.
    Same,
    /// Always [`ServiceAgreement::to`].
    Fixed,
    /// This.
    Through(Transform),
}

/// An import that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whose import it is.
    pub importer: AccountName,
    /// Its number among the imports of that account.
    pub import: usize,
    /// Why.
    pub error: ImportError,
}

/// See the module.
#[derive(Default)]
pub struct Book {
    entries: BTreeMap<AccountName, Entry>,
    /// Who imports, or wants to, from an account.
    importers: BTreeMap<AccountName, BTreeSet<AccountName>>,
    check: Option<Arc<dyn ActivationCheck>>,
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Book")
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

/// One account.
#[derive(Debug)]
struct Entry {
    description: Arc<AccountDescription>,
    streams: Vec<StreamAgreement>,
    services: Vec<ServiceAgreement>,
}

/// Accounts looked at for one circle, at most.
const SEARCH_DEPTH: usize = 1024;

impl Book {
    /// A book that asks `check` about activation tokens; without one they are worth nothing.
    #[must_use]
    pub fn new(check: Option<Arc<dyn ActivationCheck>>) -> Self {
        Self {
            entries: BTreeMap::new(),
            importers: BTreeMap::new(),
            check,
        }
    }

    /// Asks someone else about activation tokens from now on.
    pub fn set_check(&mut self, check: Arc<dyn ActivationCheck>) {
        self.check = Some(check);
    }

    /// The description of an account.
    #[must_use]
    pub fn get(&self, account: &AccountName) -> Option<&Arc<AccountDescription>> {
        self.entries.get(account).map(|entry| &entry.description)
    }

    /// Names of all accounts that are described.
    pub fn names(&self) -> impl Iterator<Item = &AccountName> {
        self.entries.keys()
    }

    /// Stream imports of an account that hold.
    #[must_use]
    pub fn streams(&self, account: &AccountName) -> &[StreamAgreement] {
        self.entries.get(account).map_or(&[], |e| &e.streams)
    }

    /// Service imports of an account that hold.
    #[must_use]
    pub fn services(&self, account: &AccountName) -> &[ServiceAgreement] {
        self.entries.get(account).map_or(&[], |e| &e.services)
    }

    /// Writes accounts in or over. Gives the accounts whose imports may hold or not hold now, those
    /// described among them, and all imports of theirs that do not hold.
    pub fn describe(
        &mut self,
        descriptions: impl IntoIterator<Item = AccountDescription>,
    ) -> (BTreeSet<AccountName>, Vec<Refusal>) {
        let mut order = Vec::new();
        for description in descriptions {
            let name = description.name.clone();
            self.erase(&name);
            for import in &description.imports {
                let importers = self.importers.entry(import.account.clone());
                importers.or_default().insert(name.clone());
            }
            let entry = Entry {
                description: Arc::new(description),
                streams: Vec::new(),
                services: Vec::new(),
            };
            self.entries.insert(name.clone(), entry);
            order.push(name);
        }
        self.settle(order)
    }

    /// Forgets an account. Gives what [`Book::describe`] gives.
    pub fn remove(&mut self, account: &AccountName) -> (BTreeSet<AccountName>, Vec<Refusal>) {
        self.erase(account);
        let (mut touched, refusals) = self.settle(vec![account.clone()]);
        touched.insert(account.clone());
        (touched, refusals)
    }

    fn erase(&mut self, account: &AccountName) {
        let Some(old) = self.entries.remove(account) else {
            return;
        };
        for import in &old.description.imports {
            if let Some(importers) = self.importers.get_mut(&import.account) {
                importers.remove(account);
                if importers.is_empty() {
                    self.importers.remove(&import.account);
                }
            }
        }
    }

    /// Looks at the imports of these accounts, and of those that import from them: first at all
    /// streams, then at all services.
    fn settle(&mut self, mut order: Vec<AccountName>) -> (BTreeSet<AccountName>, Vec<Refusal>) {
        let changed: BTreeSet<AccountName> = order.iter().cloned().collect();
        let importers = changed.iter().filter_map(|name| self.importers.get(name));
        let importers: BTreeSet<&AccountName> = importers.flatten().collect();
        let others = importers.into_iter().filter(|name| !changed.contains(name));
        order.extend(others.cloned());
        let mut refusals = Vec::new();
        for name in &order {
            if let Some(entry) = self.entries.get_mut(name) {
                entry.streams.clear();
                entry.services.clear();
            }
        }
        for streams in [true, false] {
            for name in &order {
                self.settle_one(name, streams, &mut refusals);
            }
        }
        (order.into_iter().collect(), refusals)
    }

    fn settle_one(&mut self, name: &AccountName, streams: bool, refusals: &mut Vec<Refusal>) {
        let Some(entry) = self.entries.get(name) else {
            return;
        };
        let importer = Arc::clone(&entry.description);
        for (at, import) in importer.imports.iter().enumerate() {
            let done = match &import.kind {
                ImportKind::Stream { place, allow_trace } if streams => self
                    .stream(name, import, (place, *allow_trace))
                    .map(|agreement| self.entry(name).streams.push(agreement)),
                ImportKind::Service { to, share } if !streams => self
                    .service(name, import, to.as_deref(), *share)
                    .map(|agreement| self.entry(name).services.push(agreement)),
                ImportKind::Stream { .. } | ImportKind::Service { .. } => Ok(()),
            };
            if let Err(error) = done {
                refusals.push(Refusal {
                    importer: name.clone(),
                    import: at,
                    error,
                });
            }
        }
    }

    fn entry(&mut self, name: &AccountName) -> &mut Entry {
        self.entries.get_mut(name).expect("it was looked up before")
    }

    fn stream(
        &self,
        importer: &AccountName,
        import: &Import,
        (place, allow_trace): (&StreamPlace, bool),
    ) -> Result<StreamAgreement, ImportError> {
        let exporter = self.exporter(import)?;
        let from = import.subject.as_str();
        if !subject::is_valid(from.as_bytes())
            || self
                .find_export(exporter, false, importer, import)
                .is_none()
        {
            return Err(ImportError::StreamNotAuthorized);
        }
        let to = match place {
            StreamPlace::Same => from.to_owned(),
            StreamPlace::To(to) => to.clone(),
            StreamPlace::Prefix(prefix) => {
                if subject::has_wildcard(prefix.as_bytes()) {
                    return Err(ImportError::PrefixWithWildcard);
                }
                let dot = if prefix.ends_with('.') { "" } else { "." };
                format!("{prefix}{dot}{from}")
            }
        };
        for place in [&*to, from] {
            let mut visited = BTreeSet::from([importer]);
            self.check_circles(false, &import.account, place, &mut visited)?;
        }
        let (to, transform) = if to == from {
            (to, None)
        } else {
            let transform = Transform::strict(from, &number_wildcards(&to)).map_err(|error| {
                ImportError::Transform {
                    kind: "stream",
                    from: from.to_owned(),
                    to: to.clone(),
                    error,
                }
            })?;
            (wildcards_of(transform.destination()).0, Some(transform))
        };
        let known = self.streams(importer).iter();
        if known
            .into_iter()
            .any(|known| known.exporter == import.account && known.from == from)
        {
            return Err(ImportError::DuplicateStream);
        }
        Ok(StreamAgreement {
            exporter: import.account.clone(),
            from: from.to_owned(),
            to,
            transform,
            allow_trace,
        })
    }

    fn service(
        &self,
        importer: &AccountName,
        import: &Import,
        place: Option<&str>,
        share: bool,
    ) -> Result<ServiceAgreement, ImportError> {
        let exporter = self.exporter(import)?;
        let to = import.subject.as_str();
        let from = place.filter(|place| !place.is_empty()).unwrap_or(to);
        if !subject::is_valid(from.as_bytes()) || !subject::is_valid(to.as_bytes()) {
            return Err(ImportError::InvalidSubject);
        }
        let export = self
            .find_export(exporter, true, importer, import)
            .ok_or(ImportError::ServiceNotAuthorized)?;
        let is_wild = subject::has_wildcard(to.as_bytes());
        let (from, way) = if is_wild && from != to {
            let failed = |error| ImportError::Transform {
                kind: "service",
                from: from.to_owned(),
                to: to.to_owned(),
                error,
            };
            // Marks may stand only on the one side, so this is the way back.
            let back = Transform::strict(to, &number_wildcards(from)).map_err(failed)?;
            let way = back
                .reverse()
                .ok_or_else(|| failed(TransformError::UnusedWildcard(from.to_owned())))?;
            (way.source().to_owned(), Way::Through(way))
        } else if is_wild {
            (from.to_owned(), Way::Same)
        } else {
            (from.to_owned(), Way::Fixed)
        };
        let mut visited = BTreeSet::from([importer]);
        self.check_circles(true, &import.account, &from, &mut visited)?;
        let known = self.services(importer).iter();
        if let Some(known) = known
            .into_iter()
            .find(|known| known.exporter == import.account && known.from == from)
        {
            return Err(ImportError::DuplicateService {
                place: from,
                account: known.exporter.to_string(),
                subject: known.to.clone(),
            });
        }
        let ExportKind::Service(options) = &export.kind else {
            unreachable!("a service was looked for");
        };
        Ok(ServiceAgreement {
            exporter: import.account.clone(),
            from,
            to: to.to_owned(),
            way,
            export: export.subject.clone(),
            options: options.clone(),
            share,
        })
    }

    fn exporter(&self, import: &Import) -> Result<&AccountDescription, ImportError> {
        let entry = self.entries.get(&import.account);
        entry
            .map(|entry| &*entry.description)
            .ok_or(ImportError::NoExporter)
    }

    /// The export that covers the import, if it is for the importer: the one with the same subject,
    /// else the first that is wider.
    fn find_export<'b>(
        &self,
        exporter: &'b AccountDescription,
        services: bool,
        importer: &AccountName,
        import: &Import,
    ) -> Option<&'b Export> {
        let of_kind = |export: &&Export| matches!(export.kind, ExportKind::Service(_)) == services;
        let wanted = import.subject.as_bytes();
        let all = || exporter.exports.iter().filter(of_kind);
        let exact = all().find(|export| export.subject == import.subject);
        let wider = || all().find(|e| subject::is_subset(wanted, e.subject.as_bytes()));
        let export = exact.or_else(wider)?;
        if let Some(position) = export.account_token_position.filter(|&at| at > 0) {
            let token = subject::tokens(wanted).nth(position - 1);
            let is_own = token == Some(importer.as_str().as_bytes());
            return (exact.is_none() && is_own).then_some(export);
        }
        let is_for = match &export.audience {
            Audience::Everyone => true,
            Audience::Accounts(accounts) => accounts.contains(importer),
            Audience::Activated => self
                .check
                .as_ref()
                .is_some_and(|check| check.allows(exporter, export, importer, import)),
        };
        is_for.then_some(export)
    }

    /// Looks for a way back from `place` in `account` to an account that was visited: imported
    /// streams, or services, that lead on from there.
    fn check_circles<'b>(
        &'b self,
        services: bool,
        account: &'b AccountName,
        place: &str,
        visited: &mut BTreeSet<&'b AccountName>,
    ) -> Result<(), ImportError> {
        let Some(entry) = self.entries.get(account) else {
            return Ok(());
        };
        if visited.len() >= SEARCH_DEPTH {
            return Err(ImportError::SearchDepth);
        }
        let is_exported = entry.description.exports.iter().any(|export| {
            export.kind == ExportKind::Stream
                && subject::is_subset(place.as_bytes(), export.subject.as_bytes())
        });
        if !services && !is_exported {
            return Ok(());
        }
        let streams = entry.streams.iter().filter(|_| !services);
        let streams = streams.map(|import| (&import.exporter, &import.to, &import.to));
        let others = entry.services.iter().filter(|_| services);
        let others = others.map(|import| (&import.exporter, &import.to, &import.from));
        for (exporter, to, next) in streams.chain(others) {
            if subject::overlaps(place.as_bytes(), to.as_bytes()) {
                if visited.contains(exporter) {
                    return Err(ImportError::Cycle);
                }
                visited.insert(account);
                self.check_circles(services, exporter, narrower(place, next), visited)?;
            }
        }
        Ok(())
    }
}

/// `other` where it lies in `place`.
fn narrower<'s>(place: &'s str, other: &'s str) -> &'s str {
    if subject::is_subset(other.as_bytes(), place.as_bytes()) {
        other
    } else {
        place
    }
}

#[cfg(test)]
mod tests;
