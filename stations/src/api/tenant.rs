//! Tenants: accounts with their own stations, groups, schemas and users. For root alone.

use serde_json::{Value, json};

use super::user::{lock, record, tenant_of};
use super::{Turn, course_in, done};
use crate::command::Command;
use crate::dead_letter;
use crate::sdk::body::Body;
use crate::sdk::{Opened, Refused, Request};
use crate::task::{Context, Plan, Step, StepResult};
use crate::user::{DEFAULT_ACCOUNT_ID, DEFAULT_TENANT, Role, Tenant, UserName, display_name};

/// Longest description, characters.
const MAX_DESCRIPTION: usize = 100;

pub(super) fn open(verb: &str, body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    if request.client.role != Role::Root {
        return Err(Refused(format!(
            "user {} is not allowed to manage tenants",
            display_name(request.client.user)
        )));
    }
    match verb {
        "LIST" => Ok(course_in(request.account.clone(), Vec::new(), |cx, _| {
            let default = json!({
                "name": DEFAULT_TENANT,
                "id": DEFAULT_ACCOUNT_ID,
                "users": cx.state.people().users(&menes_jetstream::AccountName::global()).count(),
                "stations": cx.state.stations(&menes_jetstream::AccountName::global()).count(),
            });
            let others = cx.state.people().tenants().map(|tenant| shown(cx, tenant));
            let tenants: Vec<Value> = std::iter::once(default).chain(others).collect();
            Ok(Turn::Done(json!({ "tenants": tenants })))
        })),
        "INFO" => {
            let name = name_of(body)?;
            Ok(course_in(name.account(), Vec::new(), move |cx, _| {
                Ok(Turn::Done(shown(cx, known(cx, &name)?)))
            }))
        }
        "CREATE" => create(body, request),
        "DELETE" => delete(body),
        _ => Err(super::unknown()),
    }
}

fn name_of(body: &Body) -> Result<UserName, Refused> {
    let text = body.text("tenant")?;
    UserName::parse(&text)
        .map_err(|error| Refused(error.to_string().replacen("username", "tenant name", 1)))
}

fn known<'a>(cx: &Context<'a>, name: &UserName) -> Result<&'a Tenant, String> {
    let tenant = cx.state.people().tenant(name);
    tenant.ok_or_else(|| format!("tenant {name} does not exist"))
}

fn shown(cx: &Context<'_>, tenant: &Tenant) -> Value {
    let account = tenant.name.account();
    json!({
        "name": tenant_of(&account),
        "id": tenant.id,
        "description": tenant.description,
        "users": cx.state.people().users(&account).count(),
        "stations": cx.state.stations(&account).count(),
        "created": tenant.created,
        "created_by": tenant.created_by,
    })
}

fn create(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let name = name_of(body)?;
    let description = body.text("description")?;
    if description.chars().count() > MAX_DESCRIPTION {
        let text = format!("description should be at most {MAX_DESCRIPTION} characters");
        return Err(Refused(text));
    }
    let tenant = Tenant {
        name: name.clone(),
        id: 0,
        description,
        created: request.now,
        created_by: display_name(request.client.user).to_owned(),
    };
    let mut is_recorded = false;
    Ok(course_in(name.account(), lock(), move |cx, _| {
        if std::mem::replace(&mut is_recorded, true) {
            return Ok(Turn::Done(shown(cx, known(cx, &name)?)));
        }
        let is_configured = cx.configured.iter().any(|user| user.account == *cx.account);
        if cx.state.people().tenant(&name).is_some() || is_configured {
            return Err(format!("tenant {name} exists already"));
        }
        Ok(record(Command::TenantCreated {
            tenant: Box::new(tenant.clone()),
        }))
    }))
}

fn delete(body: &Body) -> Result<Opened, Refused> {
    let name = name_of(body)?;
    let mut has_looked = false;
    let mut is_recorded = false;
    Ok(course_in(name.account(), lock(), move |cx, results| {
        if is_recorded {
            return Ok(done());
        }
        known(cx, &name)?;
        if !std::mem::replace(&mut has_looked, true) {
            let mut plan = Plan::default();
            plan.step(Step::ListStreams);
            return Ok(Turn::Run(plan));
        }
        let streams = results.iter().map(|result| match result {
            // The broker's own is empty where there are no stations.
            StepResult::Names(names) => names.iter().filter(|n| *n != dead_letter::STREAM).count(),
            _ => 0,
        });
        let streams: usize = streams.sum();
        let stations = cx.state.stations(cx.account).count();
        let schemas = cx.state.schemas(cx.account).count();
        if streams + stations + schemas > 0 {
            return Err(format!(
                "tenant {name} is in use: {stations} stations, {streams} streams, {schemas} \
                 schemas; remove them first"
            ));
        }
        is_recorded = true;
        Ok(record(Command::TenantRemoved {
            tenant: name.clone(),
        }))
    }))
}
