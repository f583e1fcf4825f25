//! Everything about stations that survives a restart.
//!
//! Rows are one per station, producer, group and member. A row's key is [`ROW_PREFIX`] and a JSON
//! array of its kind and names: connection ids are chosen by clients, so no separator byte is safe.

use std::collections::BTreeMap;

use menes_jetstream::AccountName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::command::{Applied, Command, Outcome, RowChange};
use crate::group::{Group, GroupStatus, Member};
use crate::name::{ConsumerName, GroupName, NameError, ProducerName, SchemaName, StationName};
use crate::producer::Producer;
use crate::schema::{Schema, SchemaKind, SchemaVersion};
use crate::station::{Station, StationStatus};
use crate::user::People;

/// First bytes of every key this crate writes; other rows of the table are not looked at.
pub const ROW_PREFIX: &[u8] = b"stations/";

/// A stored row that cannot be understood.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The key names no kind of row that this version knows.
    #[error("row key {0:?} is not known")]
    Key(String),
    /// A name in the key breaks the rules for names.
    #[error("row key {key:?}: {cause}")]
    Name {
        /// The key.
        key: String,
        /// The rule.
        cause: NameError,
    },
    /// The value is not what the key promises.
    #[error("row {key:?}: {cause}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong.
        cause: serde_json::Error,
    },
    /// The station or group that a row belongs to has no row.
    #[error("row {0:?} belongs to nothing")]
    Orphan(String),
}

/// A producer or member is known by its name and connection.
type ClientKey<N> = (N, String);

/// A station and what is registered on it.
#[derive(Clone, Debug, PartialEq)]
pub struct StationEntry {
    /// The station.
    pub station: Station,
    producers: BTreeMap<ClientKey<ProducerName>, Producer>,
    groups: BTreeMap<GroupName, GroupEntry>,
}

impl StationEntry {
    fn new(station: Station) -> Self {
        Self {
            station,
            producers: BTreeMap::new(),
            groups: BTreeMap::new(),
        }
    }

    /// Its producers, by name and connection.
    pub fn producers(&self) -> impl Iterator<Item = &Producer> {
        self.producers.values()
    }

    /// Its groups, by name.
    pub fn groups(&self) -> impl Iterator<Item = &GroupEntry> {
        self.groups.values()
    }

    /// The group with this name.
    #[must_use]
    pub fn group(&self, name: &GroupName) -> Option<&GroupEntry> {
        self.groups.get(name)
    }
}

/// A group and its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupEntry {
    /// The group.
    pub group: Group,
    members: BTreeMap<ClientKey<ConsumerName>, Member>,
}

impl GroupEntry {
    /// Its members, by name and connection.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }
}

/// The stations of all accounts, and who uses them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    accounts: BTreeMap<AccountName, BTreeMap<StationName, StationEntry>>,
    schemas: BTreeMap<AccountName, BTreeMap<SchemaName, Schema>>,
    people: People,
}

impl State {
    /// Rebuilds the state from rows, in any order. Rows of others are skipped.
    ///
    /// # Errors
    /// The first row that cannot be understood.
    pub fn load(rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Self, LoadError> {
        let mut rows: Vec<StoredRow> = rows
            .into_iter()
            .filter(|(key, _)| key.starts_with(ROW_PREFIX))
            .map(|(key, value)| StoredRow::parse(&key, value))
            .collect::<Result<_, _>>()?;
        rows.sort_by_key(|row| row.kind);
        let mut state = Self::default();
        for row in rows {
            state.load_row(row)?;
        }
        Ok(state)
    }

    /// Every account that has stations, with them.
    pub fn accounts(
        &self,
    ) -> impl Iterator<Item = (&AccountName, &BTreeMap<StationName, StationEntry>)> {
        self.accounts.iter()
    }

    /// The stations of an account by name, unfinished ones included.
    pub fn stations(&self, account: &AccountName) -> impl Iterator<Item = &StationEntry> {
        self.accounts
            .get(account)
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    /// The station with this name, finished or not.
    #[must_use]
    pub fn station(&self, account: &AccountName, name: &StationName) -> Option<&StationEntry> {
        self.accounts.get(account)?.get(name)
    }

    /// Users and tenants.
    #[must_use]
    pub fn people(&self) -> &People {
        &self.people
    }

    /// The schemas of an account by name.
    pub fn schemas(&self, account: &AccountName) -> impl Iterator<Item = &Schema> {
        self.schemas
            .get(account)
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    /// The schema with this name.
    #[must_use]
    pub fn schema(&self, account: &AccountName, name: &SchemaName) -> Option<&Schema> {
        self.schemas.get(account)?.get(name)
    }

    /// The schema of a station with its active version, if it has one.
    #[must_use]
    pub fn schema_of(
        &self,
        account: &AccountName,
        station: &Station,
    ) -> Option<(&Schema, &SchemaVersion)> {
        let schema = self.schema(account, &station.schema.as_ref()?.name)?;
        Some((schema, schema.active()?))
    }

    /// The station and the partition behind a stream.
    #[must_use]
    pub fn partition(&self, account: &AccountName, stream: &str) -> Option<(&StationEntry, u32)> {
        let (station, partition) = stream.rsplit_once('$')?;
        let partition = partition.parse().ok()?;
        let name = StationName::parse(station).ok()?;
        let entry = self.station(account, &name)?;
        let is_its = name.stream(partition) == stream
            && entry.station.partition_numbers().contains(&partition);
        is_its.then_some((entry, partition))
    }

    /// Carries out a command. Commands that ask for what is already so are [`Outcome::Done`].
    pub fn apply(&mut self, command: &Command) -> Applied {
        let mut rows = Vec::new();
        let outcome = match self.decide(command, &mut rows) {
            Ok(()) => Outcome::Done,
            Err(refusal) => {
                debug_assert!(rows.is_empty(), "a refusal changes nothing");
                refusal
            }
        };
        Applied { outcome, rows }
    }

    fn decide(&mut self, command: &Command, rows: &mut Vec<RowChange>) -> Result<(), Outcome> {
        match command {
            Command::StationPlanned { account, station } => {
                let stations = self.accounts.entry(account.clone()).or_default();
                if stations.contains_key(&station.name) {
                    return Err(Outcome::StationExists);
                }
                let mut station = Station::clone(station);
                station.status = StationStatus::Creating;
                rows.push(station_row(account, &station));
                stations.insert(station.name.clone(), StationEntry::new(station));
                Ok(())
            }
            Command::StationCreated { account, station } => {
                let entry = self.entry(account, station)?;
                if entry.station.status == StationStatus::Removing {
                    return Err(Outcome::StationMissing);
                }
                entry.station.status = StationStatus::Ready;
                rows.push(station_row(account, &entry.station));
                Ok(())
            }
            Command::StationRemoving { account, station } => {
                let entry = self.entry(account, station)?;
                entry.station.status = StationStatus::Removing;
                rows.push(station_row(account, &entry.station));
                Ok(())
            }
            Command::StationRemoved { account, station } => {
                self.remove_station(account, station, rows);
                Ok(())
            }
            Command::ProducerRegistered {
                account,
                station,
                producer,
            } => {
                let entry = self.ready(account, station)?;
                let key = (producer.name.clone(), producer.connection.clone());
                let before = entry
                    .producers
                    .get(&key)
                    .map_or(0, |known| known.registrations);
                let mut producer = Producer::clone(producer);
                producer.registrations = before.saturating_add(1);
                rows.push(producer_row(account, station, &producer));
                entry.producers.insert(key, producer);
                Ok(())
            }
            Command::ProducerRemoved {
                account,
                station,
                producer,
                connection,
            } => {
                if let Ok(entry) = self.entry(account, station) {
                    entry.retain_producers(account, rows, |known| {
                        known.name != *producer
                            || connection
                                .as_ref()
                                .is_some_and(|id| known.connection != *id)
                    });
                }
                Ok(())
            }
            Command::GroupPlanned {
                account,
                station,
                group,
            } => {
                let entry = self.ready(account, station)?;
                if entry.groups.contains_key(&group.name) {
                    return Err(Outcome::GroupExists);
                }
                let mut group = Group::clone(group);
                group.status = GroupStatus::Creating;
                rows.push(group_row(account, station, &group));
                let name = group.name.clone();
                entry.groups.insert(
                    name,
                    GroupEntry {
                        group,
                        members: BTreeMap::new(),
                    },
                );
                Ok(())
            }
            Command::GroupCreated {
                account,
                station,
                group,
            } => {
                let entry = self.group(account, station, group)?;
                if entry.group.status == GroupStatus::Removing {
                    return Err(Outcome::GroupMissing);
                }
                entry.group.status = GroupStatus::Ready;
                rows.push(group_row(account, station, &entry.group));
                Ok(())
            }
            Command::MemberJoined {
                account,
                station,
                group,
                member,
            } => self
                .ready(account, station)?
                .join(account, group, member, rows),
            Command::MemberLeft {
                account,
                station,
                group,
                consumer,
                connection,
                remove_group,
            } => {
                let entry = self.group(account, station, group)?;
                let key = (consumer.clone(), connection.clone());
                let member = entry.members.get_mut(&key).ok_or(Outcome::MemberMissing)?;
                member.registrations = member.registrations.saturating_sub(1);
                if member.registrations == 0 {
                    rows.push((member_key(account, station, group, member), None));
                    entry.members.remove(&key);
                } else {
                    rows.push(member_row(account, station, group, member));
                }
                if *remove_group {
                    entry.group.status = GroupStatus::Removing;
                    rows.push(group_row(account, station, &entry.group));
                }
                Ok(())
            }
            Command::GroupRemoving {
                account,
                station,
                group,
            } => {
                let entry = self.group(account, station, group)?;
                entry.group.status = GroupStatus::Removing;
                rows.push(group_row(account, station, &entry.group));
                Ok(())
            }
            Command::GroupRemoved {
                account,
                station,
                group,
            } => {
                if let Ok(entry) = self.entry(account, station)
                    && let Some(gone) = entry.groups.remove(group)
                {
                    gone.removal_rows(account, station, rows);
                }
                Ok(())
            }
            Command::RegistrationsExpired {
                account,
                station,
                connections,
            } => {
                let entry = self.entry(account, station)?;
                entry.retain_producers(account, rows, |known| {
                    !connections.contains(&known.connection)
                });
                for group in entry.groups.values_mut() {
                    group.retain_members(account, station, rows, |known| {
                        !connections.contains(&known.connection)
                    });
                }
                Ok(())
            }
            Command::StationChanged { account, station } => {
                let entry = self.ready(account, &station.name)?;
                let status = entry.station.status;
                entry.station = Station {
                    status,
                    ..Station::clone(station)
                };
                rows.push(station_row(account, &entry.station));
                Ok(())
            }
            Command::GroupChanged {
                account,
                station,
                group,
            } => {
                let entry = self.group(account, station, &group.name)?;
                let status = entry.group.status;
                entry.group = Group {
                    status,
                    ..Group::clone(group)
                };
                rows.push(group_row(account, station, &entry.group));
                Ok(())
            }
            Command::SchemaVersionAdded {
                account,
                schema,
                kind,
                version,
                activate,
            } => self.add_version(account, schema, *kind, version, *activate, rows),
            Command::SchemaActivated {
                account,
                schema,
                version,
            } => {
                let schema = self
                    .schemas
                    .get_mut(account)
                    .and_then(|schemas| schemas.get_mut(schema))
                    .ok_or(Outcome::SchemaMissing)?;
                if schema.version(*version).is_none() {
                    return Err(Outcome::SchemaMissing);
                }
                schema.active = *version;
                rows.push(schema_row(account, schema));
                Ok(())
            }
            Command::SchemaRemoved { account, schema } => {
                self.remove_schema(account, schema, rows);
                Ok(())
            }
            Command::UserCreated { account, user } => self.people.create_user(account, user, rows),
            Command::UserChanged {
                account,
                user,
                change,
            } => self.people.change_user(account, user, change, rows),
            Command::UserPasswordChanged {
                account,
                user,
                password,
            } => self.people.change_password(account, user, password, rows),
            Command::UserTokenAdded {
                account,
                user,
                token,
            } => self.people.add_token(account, user, token, rows),
            Command::UserTokenRemoved {
                account,
                user,
                token,
            } => self.people.remove_token(account, user, token, rows),
            Command::UserRemoved { account, user } => self.people.remove_user(account, user, rows),
            Command::TenantCreated { tenant } => self.people.create_tenant(tenant, rows),
            Command::TenantRemoved { tenant } => {
                let account = tenant.account();
                if self.people.tenant(tenant).is_some()
                    && (self.accounts.contains_key(&account) || self.schemas.contains_key(&account))
                {
                    return Err(Outcome::TenantInUse);
                }
                self.people.remove_tenant(tenant, rows);
                Ok(())
            }
        }
    }

    fn add_version(
        &mut self,
        account: &AccountName,
        name: &SchemaName,
        kind: SchemaKind,
        version: &SchemaVersion,
        activate: bool,
        rows: &mut Vec<RowChange>,
    ) -> Result<(), Outcome> {
        let known = self
            .schemas
            .get(account)
            .and_then(|schemas| schemas.get(name));
        let last = known.map_or(0, Schema::last_number);
        if version.number != last + 1 || known.is_some_and(|known| known.kind != kind) {
            return Err(Outcome::SchemaChanged);
        }
        let schema = self
            .schemas
            .entry(account.clone())
            .or_default()
            .entry(name.clone())
            .or_insert_with(|| Schema::new(name.clone(), kind));
        schema.add(version.clone(), activate);
        rows.push(schema_row(account, schema));
        rows.push(schema_version_row(account, name, version));
        Ok(())
    }

    /// Removes a schema and takes it from every station.
    fn remove_schema(
        &mut self,
        account: &AccountName,
        name: &SchemaName,
        rows: &mut Vec<RowChange>,
    ) {
        let Some(schemas) = self.schemas.get_mut(account) else {
            return;
        };
        let Some(gone) = schemas.remove(name) else {
            return;
        };
        if schemas.is_empty() {
            self.schemas.remove(account);
        }
        rows.push((
            key(RowKind::Schema, &[account.as_str(), name.external()]),
            None,
        ));
        for version in gone.versions() {
            rows.push((schema_version_key(account, name, version.number), None));
        }
        for entry in self
            .accounts
            .get_mut(account)
            .into_iter()
            .flat_map(BTreeMap::values_mut)
        {
            let link = entry.station.schema.as_ref();
            if link.is_some_and(|link| link.name == *name) {
                entry.station.schema = None;
                rows.push(station_row(account, &entry.station));
            }
        }
    }

    fn entry(
        &mut self,
        account: &AccountName,
        station: &StationName,
    ) -> Result<&mut StationEntry, Outcome> {
        self.accounts
            .get_mut(account)
            .and_then(|stations| stations.get_mut(station))
            .ok_or(Outcome::StationMissing)
    }

    fn ready(
        &mut self,
        account: &AccountName,
        station: &StationName,
    ) -> Result<&mut StationEntry, Outcome> {
        let entry = self.entry(account, station)?;
        if entry.station.is_ready() {
            Ok(entry)
        } else {
            Err(Outcome::StationMissing)
        }
    }

    fn group(
        &mut self,
        account: &AccountName,
        station: &StationName,
        group: &GroupName,
    ) -> Result<&mut GroupEntry, Outcome> {
        self.entry(account, station)?
            .groups
            .get_mut(group)
            .ok_or(Outcome::GroupMissing)
    }

    /// Removes a station and lets go of it where it receives dead letters.
    fn remove_station(
        &mut self,
        account: &AccountName,
        name: &StationName,
        rows: &mut Vec<RowChange>,
    ) {
        let Some(stations) = self.accounts.get_mut(account) else {
            return;
        };
        let Some(gone) = stations.remove(name) else {
            return;
        };
        rows.push((station_key(account, name), None));
        for producer in gone.producers.values() {
            rows.push((producer_key(account, name, producer), None));
        }
        for group in gone.groups.values() {
            group.removal_rows(account, name, rows);
        }
        for entry in stations.values_mut() {
            if entry.station.dead_letter_station.as_ref() == Some(name) {
                entry.station.dead_letter_station = None;
                rows.push(station_row(account, &entry.station));
            }
        }
        if stations.is_empty() {
            self.accounts.remove(account);
        }
    }

    fn load_row(&mut self, row: StoredRow) -> Result<(), LoadError> {
        if matches!(
            row.kind,
            RowKind::User | RowKind::Tenant | RowKind::LastTenant
        ) {
            return self.people.load_row(&row);
        }
        let account = AccountName::from(row.names[0].as_str());
        if matches!(row.kind, RowKind::Schema | RowKind::SchemaVersion) {
            return self.load_schema_row(account, &row);
        }
        let station = row.name(1, StationName::parse)?;
        if row.kind == RowKind::Station {
            let value: Station = row.value()?;
            self.accounts
                .entry(account)
                .or_default()
                .insert(station, StationEntry::new(value));
            return Ok(());
        }
        let entry = self.entry(&account, &station).map_err(|_| row.orphan())?;
        match row.kind {
            RowKind::Station
            | RowKind::Schema
            | RowKind::SchemaVersion
            | RowKind::User
            | RowKind::Tenant
            | RowKind::LastTenant => {}
            RowKind::Producer => {
                let producer: Producer = row.value()?;
                let key = (producer.name.clone(), producer.connection.clone());
                entry.producers.insert(key, producer);
            }
            RowKind::Group => {
                let group = GroupEntry {
                    group: row.value()?,
                    members: BTreeMap::new(),
                };
                entry.groups.insert(group.group.name.clone(), group);
            }
            RowKind::Member => {
                let group = row.name(2, GroupName::parse)?;
                let member: Member = row.value()?;
                let group = entry.groups.get_mut(&group).ok_or_else(|| row.orphan())?;
                let key = (member.name.clone(), member.connection.clone());
                group.members.insert(key, member);
            }
        }
        Ok(())
    }

    fn load_schema_row(&mut self, account: AccountName, row: &StoredRow) -> Result<(), LoadError> {
        let name = row.name(1, SchemaName::parse)?;
        let schemas = self.schemas.entry(account).or_default();
        if row.kind == RowKind::Schema {
            schemas.insert(name, row.value()?);
            return Ok(());
        }
        let schema = schemas.get_mut(&name).ok_or_else(|| row.orphan())?;
        schema.restore(row.value()?);
        Ok(())
    }
}

impl StationEntry {
    fn join(
        &mut self,
        account: &AccountName,
        group: &Group,
        member: &Member,
        rows: &mut Vec<RowChange>,
    ) -> Result<(), Outcome> {
        let station = self.station.name.clone();
        let entry = self
            .groups
            .get_mut(&group.name)
            .ok_or(Outcome::GroupMissing)?;
        if entry.group.status == GroupStatus::Removing {
            return Err(Outcome::GroupMissing);
        }
        entry.group = Group {
            status: GroupStatus::Ready,
            ..group.clone()
        };
        rows.push(group_row(account, &station, &entry.group));
        let key = (member.name.clone(), member.connection.clone());
        let before = entry
            .members
            .get(&key)
            .map_or(0, |known| known.registrations);
        let member = Member {
            registrations: before.saturating_add(1),
            ..member.clone()
        };
        rows.push(member_row(account, &station, &entry.group.name, &member));
        entry.members.insert(key, member);
        Ok(())
    }

    fn retain_producers(
        &mut self,
        account: &AccountName,
        rows: &mut Vec<RowChange>,
        keep: impl Fn(&Producer) -> bool,
    ) {
        let station = &self.station.name;
        self.producers.retain(|_, known| {
            let kept = keep(known);
            if !kept {
                rows.push((producer_key(account, station, known), None));
            }
            kept
        });
    }
}

impl GroupEntry {
    fn retain_members(
        &mut self,
        account: &AccountName,
        station: &StationName,
        rows: &mut Vec<RowChange>,
        keep: impl Fn(&Member) -> bool,
    ) {
        let group = &self.group.name;
        self.members.retain(|_, known| {
            let kept = keep(known);
            if !kept {
                rows.push((member_key(account, station, group, known), None));
            }
            kept
        });
    }

    fn removal_rows(
        &self,
        account: &AccountName,
        station: &StationName,
        rows: &mut Vec<RowChange>,
    ) {
        let group = &self.group.name;
        rows.push((
            key(
                RowKind::Group,
                &[account.as_str(), station.external(), group.external()],
            ),
            None,
        ));
        for member in self.members.values() {
            rows.push((member_key(account, station, group, member), None));
        }
    }
}

/// Kinds of rows; what a row belongs to comes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RowKind {
    Station,
    Producer,
    Group,
    Member,
    Schema,
    SchemaVersion,
    Tenant,
    User,
    LastTenant,
}

impl RowKind {
    const ALL: [Self; 9] = [
        Self::Station,
        Self::Producer,
        Self::Group,
        Self::Member,
        Self::Schema,
        Self::SchemaVersion,
        Self::Tenant,
        Self::User,
        Self::LastTenant,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Station => "station",
            Self::Producer => "producer",
            Self::Group => "group",
            Self::Member => "member",
            Self::Schema => "schema",
            Self::SchemaVersion => "schema_version",
            Self::Tenant => "tenant",
            Self::User => "user",
            Self::LastTenant => "last_tenant",
        }
    }

    /// Names in the key: account, station, then what tells the row from its siblings.
    const fn names(self) -> usize {
        match self {
            Self::Tenant | Self::LastTenant => 1,
            Self::Station | Self::Schema | Self::User => 2,
            Self::Producer => 4,
            Self::Group | Self::SchemaVersion => 3,
            Self::Member => 5,
        }
    }
}

pub(crate) struct StoredRow {
    pub(crate) kind: RowKind,
    pub(crate) names: Vec<String>,
    key: String,
    value: Vec<u8>,
}

impl StoredRow {
    fn parse(key: &[u8], value: Vec<u8>) -> Result<Self, LoadError> {
        let text = String::from_utf8_lossy(key).into_owned();
        let unknown = || LoadError::Key(text.clone());
        let array = key.strip_prefix(ROW_PREFIX).ok_or_else(unknown)?;
        let mut names: Vec<String> = serde_json::from_slice(array).map_err(|_| unknown())?;
        if names.is_empty() {
            return Err(unknown());
        }
        let word = names.remove(0);
        let kind = RowKind::ALL
            .into_iter()
            .find(|kind| kind.word() == word)
            .ok_or_else(unknown)?;
        if names.len() != kind.names() {
            return Err(unknown());
        }
        Ok(Self {
            kind,
            names,
            key: text,
            value,
        })
    }

    fn name<N>(
        &self,
        index: usize,
        parse: impl Fn(&str) -> Result<N, NameError>,
    ) -> Result<N, LoadError> {
        parse(&self.names[index]).map_err(|cause| LoadError::Name {
            key: self.key.clone(),
            cause,
        })
    }

    pub(crate) fn value<T: DeserializeOwned>(&self) -> Result<T, LoadError> {
        serde_json::from_slice(&self.value).map_err(|cause| LoadError::Value {
            key: self.key.clone(),
            cause,
        })
    }

    fn orphan(&self) -> LoadError {
        LoadError::Orphan(self.key.clone())
    }
}

pub(crate) fn key(kind: RowKind, names: &[&str]) -> Vec<u8> {
    debug_assert_eq!(names.len(), kind.names());
    let mut parts = vec![kind.word()];
    parts.extend_from_slice(names);
    let mut key = ROW_PREFIX.to_vec();
    key.extend(serde_json::to_vec(&parts).expect("strings are always JSON"));
    key
}

pub(crate) fn value<T: Serialize>(record: &T) -> Option<Vec<u8>> {
    Some(serde_json::to_vec(record).expect("records hold only strings and numbers"))
}

fn station_key(account: &AccountName, station: &StationName) -> Vec<u8> {
    key(RowKind::Station, &[account.as_str(), station.external()])
}

fn station_row(account: &AccountName, station: &Station) -> RowChange {
    (station_key(account, &station.name), value(station))
}

fn schema_row(account: &AccountName, schema: &Schema) -> RowChange {
    let names = [account.as_str(), schema.name.external()];
    (key(RowKind::Schema, &names), value(schema))
}

fn schema_version_key(account: &AccountName, schema: &SchemaName, number: u32) -> Vec<u8> {
    let number = number.to_string();
    let names = [account.as_str(), schema.external(), &number];
    key(RowKind::SchemaVersion, &names)
}

fn schema_version_row(
    account: &AccountName,
    schema: &SchemaName,
    version: &SchemaVersion,
) -> RowChange {
    let key = schema_version_key(account, schema, version.number);
    (key, value(version))
}

fn producer_key(account: &AccountName, station: &StationName, producer: &Producer) -> Vec<u8> {
    key(
        RowKind::Producer,
        &[
            account.as_str(),
            station.external(),
            producer.name.external(),
            &producer.connection,
        ],
    )
}

fn producer_row(account: &AccountName, station: &StationName, producer: &Producer) -> RowChange {
    (producer_key(account, station, producer), value(producer))
}

fn group_row(account: &AccountName, station: &StationName, group: &Group) -> RowChange {
    let names = [account.as_str(), station.external(), group.name.external()];
    (key(RowKind::Group, &names), value(group))
}

fn member_key(
    account: &AccountName,
    station: &StationName,
    group: &GroupName,
    member: &Member,
) -> Vec<u8> {
    key(
        RowKind::Member,
        &[
            account.as_str(),
            station.external(),
            group.external(),
            member.name.external(),
            &member.connection,
        ],
    )
}

fn member_row(
    account: &AccountName,
    station: &StationName,
    group: &GroupName,
    member: &Member,
) -> RowChange {
    (member_key(account, station, group, member), value(member))
}
