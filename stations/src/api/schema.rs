//! Schemas: versions, which one is active, and who uses them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::guard::{IfMatch, etag};
use super::{Turn, course, done, ready, station_lock, station_of};
use crate::command::Command;
use crate::lock::{Hold, LockName};
use crate::name::SchemaName;
use crate::schema::{self, Schema, SchemaKind};
use crate::sdk::body::Body;
use crate::sdk::schema::NewVersion;
use crate::sdk::{Opened, Refused, Request};
use crate::station::Station;
use crate::task::{Context, Plan, Step};

pub(super) fn open(verb: &str, body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    match verb {
        "LIST" => Ok(course(Vec::new(), |cx, _| {
            let mut followers: BTreeMap<&SchemaName, Vec<&str>> = BTreeMap::new();
            for station in followed(cx) {
                if let Some(link) = &station.schema {
                    let names = followers.entry(&link.name).or_default();
                    names.push(station.name.external());
                }
            }
            let schemas: Vec<Value> = cx
                .state
                .schemas(cx.account)
                .map(|schema| summary(schema, followers.remove(&schema.name)))
                .collect();
            Ok(Turn::Done(json!({ "schemas": schemas })))
        })),
        "INFO" => {
            let name = name_of(body)?;
            Ok(course(Vec::new(), move |cx, _| {
                let schema = known(cx, &name)?;
                let versions: Vec<Value> =
                    schema.versions().map(|version| json!(version)).collect();
                let names = stations_of(cx, &name).map(|station| station.name.external());
                let mut shown = summary(schema, Some(names.collect()));
                shown["versions"] = versions.into();
                Ok(Turn::Done(shown))
            }))
        }
        "CREATE" => create(body, request),
        "ACTIVATE" => activate(body),
        "DELETE" => delete(body),
        "ATTACH" => attach(body, request),
        "DETACH" => detach(body, request),
        _ => Err(super::unknown()),
    }
}

fn name_of(body: &Body) -> Result<SchemaName, Refused> {
    Ok(SchemaName::parse(&body.text("name")?)?)
}

fn known<'a>(cx: &Context<'a>, name: &SchemaName) -> Result<&'a Schema, String> {
    cx.state
        .schema(cx.account, name)
        .ok_or_else(|| format!("Schema {name} does not exist"))
}

/// The stations that follow any schema.
fn followed<'a>(cx: &Context<'a>) -> impl Iterator<Item = &'a Station> {
    cx.state
        .stations(cx.account)
        .map(|entry| &entry.station)
        .filter(|station| station.is_ready() && station.schema.is_some())
}

/// The stations that follow this one.
fn stations_of<'a>(cx: &Context<'a>, name: &'a SchemaName) -> impl Iterator<Item = &'a Station> {
    followed(cx).filter(move |station| {
        let link = station.schema.as_ref();
        link.is_some_and(|link| link.name == *name)
    })
}

fn summary(schema: &Schema, stations: Option<Vec<&str>>) -> Value {
    let stations = stations.unwrap_or_default();
    json!({
        "name": schema.name,
        "type": schema.kind,
        "active": schema.active,
        "latest": schema.latest().map(|version| version.number),
        "stations": stations,
        "etag": etag(&definition(schema)),
    })
}

/// What a schema is, whoever uses it.
fn definition(schema: &Schema) -> Value {
    let latest = schema.latest().map(|version| version.number);
    json!({"name": schema.name, "type": schema.kind, "active": schema.active, "latest": latest})
}

fn lock(name: &SchemaName) -> Vec<(LockName, Hold)> {
    vec![(LockName::Schema(name.clone()), Hold::Exclusive)]
}

fn create(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let name = name_of(body)?;
    let kind = SchemaKind::parse(&body.text("type")?)
        .ok_or_else(|| Refused("unsupported schema type".to_owned()))?;
    let content = body.text("content")?;
    if content.trim().is_empty() || content.len() > schema::MAX_CONTENT {
        let limit = schema::MAX_CONTENT;
        return Err(Refused(format!("content has to be 1 to {limit} bytes")));
    }
    let user = crate::user::display_name(request.client.user).to_owned();
    let (message, role) = (body.text("message")?, request.client.role);
    let mut version = NewVersion::new(name.clone(), kind, content, message, user, role);
    version.compatible = body.flag("compatible")?;
    let activates = body.flag("activate")?;
    let mut activating = false;
    Ok(course(lock(&name), move |cx, results| {
        version.absorb(&results);
        if let Some(plan) = version.plan(cx)? {
            return Ok(Turn::Run(plan));
        }
        let number = version.added.unwrap_or(0);
        if activates && !std::mem::replace(&mut activating, true) {
            return Ok(Turn::Run(activation(cx, &name, number)?));
        }
        Ok(Turn::Done(json!({ "version": number })))
    }))
}

/// Makes a version the active one and tells the clients of every station that follows.
fn activation(cx: &Context<'_>, name: &SchemaName, number: u32) -> Result<Plan, String> {
    let schema = known(cx, name)?;
    let version = schema
        .version(number)
        .ok_or_else(|| format!("Schema {name} has no version {number}"))?;
    let mut plan = Plan::default();
    plan.step(Step::PrepareSchema {
        name: name.clone(),
        version: number,
    });
    plan.step(Step::record(Command::SchemaActivated {
        account: cx.account.clone(),
        schema: name.clone(),
        version: number,
    }));
    for station in stations_of(cx, name) {
        plan.step(schema::announce(station, Some((schema, version))));
    }
    Ok(plan)
}

fn activate(body: &Body) -> Result<Opened, Refused> {
    let name = name_of(body)?;
    let number = u32::try_from(body.number("version")?).unwrap_or(0);
    let if_match = IfMatch::read(body)?;
    let mut asked = false;
    Ok(course(lock(&name), move |cx, _| {
        if std::mem::replace(&mut asked, true) {
            return Ok(done());
        }
        if_match.check(&format!("schema {name}"), &definition(known(cx, &name)?))?;
        Ok(Turn::Run(activation(cx, &name, number)?))
    }))
}

fn delete(body: &Body) -> Result<Opened, Refused> {
    let name = name_of(body)?;
    let if_match = IfMatch::read(body)?;
    let mut asked = false;
    Ok(course(lock(&name), move |cx, _| {
        if std::mem::replace(&mut asked, true) {
            return Ok(done());
        }
        if_match.check(&format!("schema {name}"), &definition(known(cx, &name)?))?;
        let mut plan = Plan::default();
        plan.step(Step::record(Command::SchemaRemoved {
            account: cx.account.clone(),
            schema: name.clone(),
        }));
        for station in stations_of(cx, &name) {
            plan.step(schema::announce(station, None));
        }
        Ok(Turn::Run(plan))
    }))
}

fn attach(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let (name, station) = (name_of(body)?, station_of(body)?);
    super::may_write(request, &station)?;
    let enforce = !body.has("enforce") || body.flag("enforce")?;
    let mut locks = station_lock(&station, Hold::Exclusive);
    locks.push((LockName::Schema(name.clone()), Hold::Shared));
    let mut asked = false;
    Ok(course(locks, move |cx, _| {
        if std::mem::replace(&mut asked, true) {
            return Ok(done());
        }
        let station = &ready(cx, &station)?.station;
        let schema = known(cx, &name)?;
        let version = schema
            .active()
            .ok_or_else(|| format!("Schema {name} has no active version"))?;
        Ok(Turn::Run(schema::attachment(
            cx.account, station, schema, version, enforce,
        )))
    }))
}

fn detach(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let station = station_of(body)?;
    super::may_write(request, &station)?;
    let mut asked = false;
    let lock = station_lock(&station, Hold::Exclusive);
    Ok(course(lock, move |cx, _| {
        if std::mem::replace(&mut asked, true) {
            return Ok(done());
        }
        let station = &ready(cx, &station)?.station;
        Ok(Turn::Run(schema::detachment(cx.account, station)))
    }))
}
