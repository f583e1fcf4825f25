//! `menes import memphis`: stations with everything that belongs to them, from the Postgres
//! database and the JetStream folder of a Memphis that was stopped.
//!
//! ```text
//!   Postgres ──▶ metadata ─┐
//!                          ├─▶ plan ──▶ streams ▶ stations ▶ groups ▶ schemas ▶ dead letters
//!   jetstream/ ─▶ store ───┘     └────▶ report
//! ```
//!
//! Nothing is written where it is read from. In the server nothing is written over: what is there
//! already is left as it is, so an import that was interrupted is simply run again. A stream comes
//! whole or not at all.

mod metadata;
mod postgres;
mod report;
mod secrets;
mod store;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use data_encoding::HEXLOWER_PERMISSIVE;
use menes_jetstream::Timestamp;
use menes_jetstream::consumer::config::DeliverPolicy;
use menes_jetstream::stream::StreamConfig;
use menes_stations::dead_letter::{self, Foreign, Origin};
use menes_stations::group::{Group, Start};
use menes_stations::name::{GroupName, StationName};
use menes_stations::station::{Station, StationOptions};
use serde_json::json;

use self::metadata::{ConsumerRow, LetterRow, Metadata, StationRow};
use self::report::Report;
use self::store::{Store, StoredStream, Survey};
use self::transfer::{Durable, Taken};
use super::output::Output;
use super::server::{Server, Where};
use super::{Outcome, Trouble};

/// The tenant of an installation itself has two names, by the way clients log in.
const OWN_TENANT: [&str; 2] = ["$memphis", "$G"];

/// Take over what another server has
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// From Memphis: stations, groups and their positions, schemas, dead letters
    #[command(
        after_help = "Memphis must be stopped. Examples:\n  menes import memphis --postgres postgres://memphis@db/memphis --jetstream /data --dry-run\n  menes import memphis --postgres postgres://memphis@db/memphis --jetstream /data --to nats://127.0.0.1:4222"
    )]
    Memphis(Memphis),
}

/// Where Memphis is, and what of it is wanted
#[derive(Debug, Args)]
pub(super) struct Memphis {
    /// Its metadata, as postgres://user@host:5432/memphis; the password otherwise from PGPASSWORD
    #[arg(long, value_name = "URL")]
    postgres: String,
    /// The folder of its JetStream store, as store_dir names it
    #[arg(long, visible_alias = "store", value_name = "DIR")]
    jetstream: PathBuf,
    /// The server that takes it over, as --server
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// Write what was done, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The key that opens passwords of application users; otherwise from ENCRYPTION_SECRET_KEY, as
    /// Memphis's brokers have it
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    memphis_key: Option<String>,
    /// Another tenant than that of the installation; log in as a user of the account it is to become
    #[arg(long)]
    tenant: Option<String>,
}

/// Where to, and whether really.
pub(super) struct Target<'a> {
    pub(super) at: &'a Where,
    pub(super) timeout: Duration,
    pub(super) is_rehearsal: bool,
}

/// Carries out `import`.
pub(super) async fn run(target: &Target<'_>, output: &Output, command: Command) -> Outcome {
    let Command::Memphis(asked) = command;
    let tenants: Vec<&str> = match asked.tenant.as_deref() {
        None => OWN_TENANT.to_vec(),
        Some(tenant) if OWN_TENANT.contains(&tenant) => OWN_TENANT.to_vec(),
        Some(tenant) => vec![tenant],
    };
    let metadata = metadata::read(&asked.postgres, &tenants).await?;
    let key = asked
        .memphis_key
        .or_else(|| std::env::var(secrets::KEY_VARIABLE).ok());
    let passwords = secrets::hashes(&metadata.users, key.as_deref())?;
    let store = store::open(&asked.jetstream, &tenants).map_err(Trouble::NotFound)?;
    let mut report = Report {
        dry_run: target.is_rehearsal,
        tenant: tenants[0].to_owned(),
        ..Report::default()
    };
    let server = if target.is_rehearsal {
        None
    } else {
        let at = target.at.or_to(asked.to.as_deref());
        Some(Server::connect(&at, target.timeout, false).await?)
    };
    let mut import = Import {
        server: server.as_ref(),
        output,
        metadata: &metadata,
        passwords: &passwords,
        store: &store,
        report: &mut report,
        ready: BTreeMap::new(),
        taken: BTreeSet::new(),
    };
    let outcome = import.carry_out(&tenants).await;
    if let Some(server) = &server {
        server.close().await;
    }
    if let Some(path) = &asked.report {
        let text = serde_json::to_string_pretty(&report)
            .map_err(|error| Trouble::Failed(error.to_string()))?;
        std::fs::write(path, text + "\n")
            .map_err(|error| Trouble::Failed(format!("{}: {error}", path.display())))?;
    }
    report.print(output)?;
    outcome?;
    report.outcome()
}

struct Import<'a> {
    /// None in a dry run.
    server: Option<&'a Server>,
    output: &'a Output,
    metadata: &'a Metadata,
    /// Hashes of passwords that a key opened, by user.
    passwords: &'a BTreeMap<String, String>,
    store: &'a Store,
    report: &'a mut Report,
    /// Stations that are there, by their number in the database.
    ready: BTreeMap<i64, Station>,
    /// Streams that were looked at.
    taken: BTreeSet<String>,
}

impl<'a> Import<'a> {
    fn stored(&self, name: &str) -> Option<&'a StoredStream> {
        let mut streams = self.store.streams.iter();
        streams.find(|stored| stored.name == name)
    }

    async fn carry_out(&mut self, tenants: &[&str]) -> Outcome {
        self.remark_on_the_rest(tenants);
        self.users().await?;
        self.schemas().await?;
        let metadata = self.metadata;
        for row in &metadata.stations {
            self.station(row).await?;
        }
        self.dead_letter_stations().await?;
        self.attachments().await?;
        self.other_streams().await?;
        self.dead_letters().await
    }

    /// Whether something goes wrong with one thing only, which the others survive.
    fn survives(&mut self, what: &str, trouble: Trouble) -> Outcome {
        match trouble {
            Trouble::Unreachable(_) | Trouble::Refused(_) => Err(trouble),
            trouble => {
                self.report.stop(format!("{what}: {}", trouble.text()));
                Ok(())
            }
        }
    }

    /// What is known not to be taken over.
    fn remark_on_the_rest(&mut self, tenants: &[&str]) {
        let metadata = self.metadata;
        for (table, count) in &metadata.others {
            self.report
                .note(format!("table {table}: {count} rows are not taken over"));
        }
        for (tenant, stations) in &metadata.tenants {
            if !tenants.contains(&tenant.as_str()) {
                self.report.note(format!(
                    "tenant {tenant} with {stations} stations: take it over with --tenant {tenant}, \
                     as a user of the account it is to become"
                ));
            }
        }
        for odd in &metadata.odd {
            self.report.stop(odd.clone());
        }
    }

    /// Users with what they may do. Passwords come along where Memphis kept hashes of them, or
    /// where its key opened them.
    async fn users(&mut self) -> Outcome {
        let metadata = self.metadata;
        self.report.found.users = metadata.users.len() as u64;
        let mut without = Vec::new();
        for user in &metadata.users {
            if user.kind == "root" {
                self.report.note(format!(
                    "user {} is left out: this server has its own",
                    user.username
                ));
                continue;
            }
            let mut body = json!({"user": user.username, "type": user.kind});
            let opened = self.passwords.get(&user.username).map(String::as_str);
            let kept = Some(user.password.as_str()).filter(|kept| kept.starts_with("$2"));
            let hash = opened.or(kept);
            match hash {
                Some(hash) => body["password_hash"] = hash.into(),
                None => without.push(user.username.as_str()),
            }
            let mut permissions = BTreeMap::<String, Vec<String>>::new();
            let rows = metadata.permissions.iter();
            for row in rows.filter(|row| user.roles.contains(&row.role_id)) {
                let list = format!("{}_{}", row.restriction_type, row.kind);
                permissions
                    .entry(list)
                    .or_default()
                    .push(plain_pattern(&row.pattern));
            }
            if !permissions.is_empty() {
                body["permissions"] = json!(permissions);
            }
            let taken = match self.server {
                None => Ok(Taken::New),
                Some(server) => transfer::user(server, body, hash).await,
            };
            match taken {
                Ok(taken) => self.report.count("users", taken == Taken::New),
                Err(trouble) => self.survives(&format!("user {}", user.username), trouble)?,
            }
        }
        if !self.passwords.is_empty() {
            let count = self.passwords.len();
            self.report.note(format!(
                "users: the passwords of {count} application users were opened and are kept as hashes"
            ));
        }
        if !without.is_empty() {
            let is_locked = metadata.users.iter().any(|user| {
                secrets::is_sealed(user) && !self.passwords.contains_key(&user.username)
            });
            let how = match is_locked {
                true if self.passwords.is_empty() => {
                    "Memphis kept them encrypted: --memphis-key opens them, or set them anew"
                }
                true => "the key does not open them, or there were none: set them anew",
                false => "there were none: set them anew",
            };
            self.report.note(format!(
                "{} users come without their passwords ({}): {how}",
                without.len(),
                named(&without)
            ));
        }
        let denies = metadata.permissions.iter();
        if denies.filter(|row| row.restriction_type == "deny").count() > 0 {
            self.report
                .note("permissions that deny are kept here; Memphis never looked at them");
        }
        Ok(())
    }

    async fn schemas(&mut self) -> Outcome {
        let metadata = self.metadata;
        for schema in &metadata.schemas {
            self.report.found.schemas += 1;
            let mut versions: Vec<_> = metadata
                .versions
                .iter()
                .filter(|version| version.schema_id == schema.id)
                .collect();
            versions.sort_by_key(|version| version.version_number);
            self.report.found.schema_versions += versions.len() as u64;
            let Some(server) = self.server else {
                self.report.count("schemas", true);
                continue;
            };
            let known = match server
                .ask("SCHEMA.INFO", json!({"name": schema.name}))
                .await
            {
                Ok(known) => known["versions"].as_array().map_or(0, Vec::len),
                Err(Trouble::NotFound(_)) => 0,
                Err(trouble) => return Err(trouble),
            };
            let mut is_whole = true;
            // The versions of an import that was interrupted are there already. The active one
            // becomes it in the same request, so that it cannot be missed then.
            for (at, version) in versions.iter().enumerate().skip(known) {
                let body = json!({
                    "name": schema.name,
                    "type": schema.kind,
                    "content": version.schema_content,
                    "message": version.msg_struct_name,
                    "activate": version.active,
                });
                let made = server.ask("SCHEMA.CREATE", body).await;
                let made = match made {
                    // An import that was just interrupted had asked for it.
                    Err(Trouble::Conflict(_))
                        if transfer::has_version(server, schema, at, version).await? =>
                    {
                        Ok(())
                    }
                    made => made.map(|_| ()),
                };
                if let Err(trouble) = made {
                    let number = version.version_number;
                    self.survives(&format!("schema {} version {number}", schema.name), trouble)?;
                    is_whole = false;
                    break;
                }
            }
            if is_whole {
                self.report.count("schemas", known < versions.len());
            }
        }
        Ok(())
    }

    /// A station with its messages and groups.
    async fn station(&mut self, row: &StationRow) -> Outcome {
        if row.is_deleted {
            self.report.note(format!(
                "station {} was about to be removed and is left out",
                row.name
            ));
            return Ok(());
        }
        let is_plain = !row.is_native || row.version < 1 || row.partitions.is_empty();
        if is_plain {
            self.report.note(format!(
                "station {} is from before partitions, or of a NATS client: kept as a stream under \
                 its old subjects",
                row.name
            ));
            return Ok(());
        }
        self.report.found.stations += 1;
        self.report.found.partitions += row.partitions.len() as u64;
        let what = format!("station {}", row.name);
        match self.station_of(row) {
            Err(why) => self.report.stop(format!("{what}: {why}")),
            Ok((options, station)) => {
                if let Err(trouble) = self.take_station(row, &options, station).await {
                    self.survives(&what, trouble)?;
                }
            }
        }
        Ok(())
    }

    /// The station a row stands for here.
    fn station_of(&mut self, row: &StationRow) -> Result<(StationOptions, Station), String> {
        let name = StationName::parse(&row.name).map_err(|error| error.to_string())?;
        let highest = row.partitions.iter().max().copied().unwrap_or(1);
        let mut options = StationOptions {
            retention_type: row.retention_type.clone(),
            retention_value: row.retention_value,
            storage_type: row.storage_type.clone(),
            replicas: row.replicas,
            idempotency_window_ms: row.idempotency_window_ms,
            poison: row.dls_configuration_poison,
            schemaverse: row.dls_configuration_schemaverse,
            tiered_storage: row.tiered_storage_enabled,
            partitions: highest,
            ..StationOptions::default()
        };
        if row.replicas > 1 {
            let replicas = row.replicas;
            self.report.note(format!(
                "station {name} had {replicas} replicas and has one here"
            ));
            options.replicas = 1;
        }
        let longest = row.retention_value.saturating_mul(1000);
        if row.retention_type == "message_age_sec" && longest < options.idempotency_window_ms {
            options.idempotency_window_ms = longest;
        }
        let now = jiff::Timestamp::now().as_nanosecond();
        let now = Timestamp(i64::try_from(now).unwrap_or(0));
        let station = options
            .station(name, "", now)
            .map_err(|error| error.to_string())?;
        Ok((options, station))
    }

    async fn take_station(
        &mut self,
        row: &StationRow,
        options: &StationOptions,
        station: Station,
    ) -> Outcome {
        let groups = self.groups_of(row, &station);
        self.report.found.groups += groups.len() as u64;
        let mut shown = report::Station {
            name: station.name.external().to_owned(),
            groups: groups
                .iter()
                .map(|group| group.name.external().to_owned())
                .collect(),
            ..report::Station::default()
        };
        for partition in station.partition_numbers() {
            let config = station.stream_config(partition);
            let Some(stored) = self.stored(&config.name) else {
                self.report.note(format!(
                    "station {} has no messages on partition {partition}: its stream is missing",
                    station.name
                ));
                continue;
            };
            let durables: Vec<Durable> = groups
                .iter()
                .filter_map(|group| {
                    let name = group.name.internal();
                    let known = stored.consumers.iter().find(|known| known.name == name)?;
                    Some(Durable {
                        name,
                        config: group.consumer_config(&station, partition),
                        ack_floor: known.position.ack_floor,
                    })
                })
                .collect();
            let survey = self.take_stream(&config, stored, &durables).await?;
            shown.partitions.push(report::Partition {
                stream: config.name,
                messages: survey.messages,
                first_sequence: survey.first,
                last_sequence: survey.last,
            });
        }
        self.report.stations.push(shown);
        if let Some(server) = self.server {
            let body = json!({
                "station": station.name,
                "retention_type": options.retention_type,
                "retention_value": options.retention_value,
                "storage_type": options.storage_type,
                "replicas": options.replicas,
                "idempotency_window_in_ms": options.idempotency_window_ms,
                "dls_configuration": {
                    "poison": options.poison,
                    "schemaverse": options.schemaverse,
                },
                "tiered_storage_enabled": options.tiered_storage,
                "partitions_number": options.partitions,
            });
            let made = transfer::make(server, "STATION.CREATE", body).await?;
            // Somebody else may have one of its names.
            let question = json!({"station": station.name});
            server.ask("STATION.INFO", question).await?;
            self.report.count("stations", made == Taken::New);
            for group in &groups {
                let (sequence, last) = options_of(group.start);
                let body = json!({
                    "station": station.name,
                    "group": group.name,
                    "max_ack_time_ms": group.max_ack_time_ms,
                    "max_msg_deliveries": group.max_msg_deliveries,
                    "start_consume_from_sequence": sequence,
                    "last_messages": last,
                    "first_sequences": group.first_sequences,
                });
                match transfer::make(server, "GROUP.CREATE", body).await {
                    Ok(made) => self.report.count("groups", made == Taken::New),
                    Err(trouble) => {
                        let what = format!("group {} of station {}", group.name, station.name);
                        self.survives(&what, trouble)?;
                    }
                }
            }
        } else {
            self.report.count("stations", true);
            groups
                .iter()
                .for_each(|_| self.report.count("groups", true));
        }
        self.ready.insert(row.id, station);
        Ok(())
    }

    /// The groups of a station: those of the database, and those that only have positions left,
    /// because their members have not been seen for a while.
    fn groups_of(&mut self, row: &StationRow, station: &Station) -> Vec<Group> {
        let mut newest: BTreeMap<GroupName, &ConsumerRow> = BTreeMap::new();
        let members = self.metadata.consumers.iter();
        for member in members.filter(|member| member.station_id == row.id) {
            match GroupName::parse(&member.consumers_group) {
                Ok(name) => {
                    let known = newest.entry(name).or_insert(member);
                    if known.updated_at < member.updated_at {
                        *known = member;
                    }
                }
                Err(error) => self.report.stop(format!(
                    "group {:?} of station {}: {error}",
                    member.consumers_group, station.name
                )),
            }
        }
        let mut names: BTreeSet<GroupName> = newest.keys().cloned().collect();
        for partition in station.partition_numbers() {
            if let Some(stored) = self.stored(&station.name.stream(partition)) {
                let subject = station.name.subject(partition);
                let own = stored
                    .consumers
                    .iter()
                    .filter(|known| known.config.filter_subject == subject);
                names.extend(own.filter_map(|known| GroupName::parse(&known.name).ok()));
            }
        }
        names
            .into_iter()
            .map(|name| self.group_of(newest.get(&name).copied(), name, station))
            .collect()
    }

    fn group_of(&self, row: Option<&ConsumerRow>, name: GroupName, station: &Station) -> Group {
        let durable = |partition| {
            let stored = self.stored(&station.name.stream(partition))?;
            let internal = name.internal();
            stored.consumers.iter().find(|known| known.name == internal)
        };
        let any = station.partition_numbers().find_map(durable);
        let (ack_time, deliveries) = match (any, row) {
            (Some(known), _) => (known.config.ack_wait / 1_000_000, known.config.max_deliver),
            (None, Some(row)) => (row.max_ack_time_ms, row.max_msg_deliveries),
            (None, None) => (0, 0),
        };
        let from_row = row.and_then(|row| {
            Start::from_options(row.start_consume_from_seq.max(1), row.last_msgs).ok()
        });
        let start = from_row.unwrap_or_else(|| match any.map(|known| &known.config) {
            Some(config) if config.deliver_policy == DeliverPolicy::New => Start::New,
            Some(config) if config.deliver_policy == DeliverPolicy::ByStartSequence => {
                match config.opt_start_seq {
                    0 | 1 => Start::All,
                    sequence => Start::Sequence(sequence),
                }
            }
            _ => Start::All,
        });
        let firsts = station.partition_numbers().map(|partition| {
            let first = durable(partition).map(|known| known.config.opt_start_seq);
            first.unwrap_or(1).max(1)
        });
        let first_sequences = match start {
            Start::Last(_) => firsts.collect(),
            _ => Vec::new(),
        };
        Group {
            first_sequences,
            ..Group::new(name, ack_time, deliveries, start)
        }
    }

    /// Takes over a stream; what it holds.
    async fn take_stream(
        &mut self,
        config: &StreamConfig,
        stored: &StoredStream,
        durables: &[Durable],
    ) -> Outcome<Survey> {
        self.taken.insert(stored.name.clone());
        let survey = stored
            .survey()
            .map_err(|error| Trouble::Failed(format!("stream {}: {error}", stored.name)))?;
        self.report.found.messages += survey.messages;
        self.report.found.bytes += survey.bytes;
        if survey.damage.count > 0 {
            let (count, name) = (survey.damage.count, &stored.name);
            let places = survey.damage.places.join("; ");
            self.report.note(format!(
                "stream {name}: {count} damaged places are left out: {places}"
            ));
        }
        for durable in durables {
            let known = stored
                .consumers
                .iter()
                .find(|known| known.name == durable.name);
            let Some(position) = known.map(|known| known.position) else {
                continue;
            };
            // Everything above the floor comes again, settled or not.
            let beyond = position.delivered.1.saturating_sub(position.ack_floor.1);
            if beyond > 0 {
                self.report.note(format!(
                    "group {} on {}: up to {beyond} messages above {} are delivered again",
                    durable.name, stored.name, position.ack_floor.1
                ));
            }
        }
        let taken = match self.server {
            None => Taken::New,
            Some(server) => {
                let count = survey.messages;
                self.output
                    .remark(&format!("stream {}: {count} messages", config.name));
                transfer::stream(server, config, stored, &survey, durables).await?
            }
        };
        self.report.count("streams", taken == Taken::New);
        Ok(survey)
    }

    /// Stations that take the dead letters of others, once all stations are there.
    async fn dead_letter_stations(&mut self) -> Outcome {
        let (metadata, Some(server)) = (self.metadata, self.server) else {
            return Ok(());
        };
        for row in metadata
            .stations
            .iter()
            .filter(|row| !row.dls_station.is_empty())
        {
            let Some(station) = self.ready.get(&row.id) else {
                continue;
            };
            let body = json!({"station": station.name, "dls_station": row.dls_station});
            if let Err(trouble) = server.ask("STATION.UPDATE", body).await {
                let what = format!("dead-letter station of {}", row.name);
                self.survives(&what, trouble)?;
            }
        }
        Ok(())
    }

    /// Schemas of stations. Memphis left the check to its clients; here the server checks.
    async fn attachments(&mut self) -> Outcome {
        let metadata = self.metadata;
        for row in metadata
            .stations
            .iter()
            .filter(|row| !row.schema_name.is_empty())
        {
            let Some(station) = self.ready.get(&row.id) else {
                continue;
            };
            let mut versions = metadata.versions.iter();
            let schema = metadata
                .schemas
                .iter()
                .find(|schema| schema.name == row.schema_name);
            let active = schema.and_then(|schema| {
                versions.find(|version| version.schema_id == schema.id && version.active)
            });
            if active.is_some_and(|active| active.version_number != row.schema_version_number) {
                let version = row.schema_version_number;
                self.report.note(format!(
                    "station {} was at version {version} of schema {}: it follows the active one",
                    station.name, row.schema_name
                ));
            }
            let Some(server) = self.server else {
                continue;
            };
            let known = server
                .ask("STATION.INFO", json!({"station": station.name}))
                .await?;
            if known["schema"]["name"] == row.schema_name.as_str() {
                continue;
            }
            let body = json!({"name": row.schema_name, "station": station.name});
            if let Err(trouble) = server.ask("SCHEMA.ATTACH", body).await {
                self.survives(&format!("schema of station {}", row.name), trouble)?;
            }
        }
        Ok(())
    }

    /// Streams that belong to no station.
    async fn other_streams(&mut self) -> Outcome {
        let store = self.store;
        for (name, why) in &store.refused {
            if !name.starts_with("$memphis") {
                self.report.stop(format!("stream {name}: {why}"));
            }
        }
        for stored in &store.streams {
            if self.taken.contains(&stored.name) {
                continue;
            }
            if stored.name.starts_with("$memphis") {
                self.report.note(format!(
                    "stream {} is Memphis's own and is left out",
                    stored.name
                ));
                continue;
            }
            self.report.found.other_streams += 1;
            let mut config = stored.config.clone();
            if config.num_replicas > 1 {
                config.num_replicas = 1;
            }
            let durables: Vec<Durable> = stored
                .consumers
                .iter()
                .map(|known| {
                    let mut config = known.config.clone();
                    config.num_replicas = 0;
                    Durable {
                        name: known.name.clone(),
                        config,
                        ack_floor: known.position.ack_floor,
                    }
                })
                .collect();
            if let Err(trouble) = self.take_stream(&config, stored, &durables).await {
                self.survives(&format!("stream {}", stored.name), trouble)?;
            }
        }
        Ok(())
    }

    async fn dead_letters(&mut self) -> Outcome {
        let metadata = self.metadata;
        self.report.found.dead_letters = metadata.letters.len() as u64;
        if metadata.letters.is_empty() {
            return Ok(());
        }
        let usual = dead_letter::DEFAULT_RETENTION_HOURS;
        let hours = metadata.dead_letter_hours.unwrap_or(usual).max(1);
        if let Some(server) = self.server {
            transfer::ensure_stream(server, &dead_letter::stream_config(hours)).await?;
            server
                .ask("DEAD_LETTER.RETENTION", json!({"hours": hours}))
                .await?;
        }
        self.report.note(format!(
            "dead letters are kept for {hours} hours from now, and have new numbers"
        ));
        for row in &metadata.letters {
            if let Err(trouble) = self.dead_letter(row).await {
                self.survives(&format!("dead letter {}", row.id), trouble)?;
            }
        }
        Ok(())
    }

    /// A dead letter: one here for every group that failed it.
    async fn dead_letter(&mut self, row: &LetterRow) -> Outcome {
        let failed = |text: String| Err(Trouble::Failed(text));
        let Some(station) = self.ready.get(&row.station_id).cloned() else {
            return failed(format!("its station {} is not taken over", row.station_id));
        };
        let payload = match HEXLOWER_PERMISSIVE.decode(row.message_details.data.as_bytes()) {
            Ok(payload) => Bytes::from(payload),
            Err(error) => return failed(format!("its payload is no hex: {error}")),
        };
        let time = |text: &str| {
            let time = text.parse::<jiff::Timestamp>().ok();
            time.and_then(|time| i64::try_from(time.as_nanosecond()).ok())
        };
        let sent = time(&row.message_details.time_sent)
            .or_else(|| time(&row.updated_at))
            .unwrap_or(0);
        let fields: Vec<(String, String)> =
            row.message_details.headers.clone().into_iter().collect();
        let mut origins = Vec::new();
        if row.message_type == "poison" {
            for group in &row.poisoned_cgs {
                let group = GroupName::parse(group)
                    .map_err(|error| Trouble::Failed(format!("group {group:?}: {error}")))?;
                origins.push(Some(Origin {
                    partition: u32::try_from(row.partition_number).unwrap_or(1).max(1),
                    sequence: u64::try_from(row.message_seq).unwrap_or(0),
                    group,
                }));
            }
        } else {
            origins.push(None);
        }
        for (at, origin) in origins.iter().enumerate() {
            let id = format!("memphis-{}-{at}", row.id);
            let message = Foreign {
                station: &station.name,
                origin: origin.as_ref(),
                reason: &row.validation_error,
                sent: Timestamp(sent),
                fields: &fields,
                payload: &payload,
                id: &id,
            }
            .publication();
            let taken = match self.server {
                None => Taken::New,
                Some(server) => transfer::message(server, &message).await?,
            };
            self.report.count("dead letters", taken == Taken::New);
        }
        Ok(())
    }
}

/// Some of the names, for a line.
fn named(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let rest = if names.len() > SHOWN { ", …" } else { "" };
    let shown: Vec<&str> = names.iter().take(SHOWN).copied().collect();
    format!("{}{rest}", shown.join(", "))
}

/// A pattern of stations as people write it, from the regular expression it was kept as.
fn plain_pattern(kept: &str) -> String {
    let inner = kept.strip_prefix('^').unwrap_or(kept);
    let inner = inner.strip_suffix('$').unwrap_or(inner);
    inner.replace('\\', "")
}

/// The two options of a consumer creation that ask for a start.
fn options_of(start: Start) -> (u64, i64) {
    match start {
        Start::All => (1, -1),
        Start::New => (1, 0),
        Start::Sequence(sequence) => (sequence, -1),
        Start::Last(count) => (1, i64::try_from(count).unwrap_or(i64::MAX)),
    }
}
