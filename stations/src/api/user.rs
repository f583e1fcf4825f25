//! Users, and the tokens they connect with. Passwords and tokens are in requests and in the answer
//! that makes a token, and nowhere else.

use std::collections::BTreeMap;

use menes_jetstream::{AccountName, Timestamp};
use serde_json::{Value, json};

use super::{Course, Turn, course_in, done};
use crate::command::Command;
use crate::lock::{Hold, LockName};
use crate::sdk::body::Body;
use crate::sdk::{Opened, Refused, Request};
use crate::task::{Context, Job, NewToken, Plan, Secret, Step, StepResult};
use crate::user::{
    Access, ConfiguredUser, DEFAULT_TENANT, PasswordHash, Profile, Role, StationPattern, Token,
    User, UserChange, UserKind, UserName, check_password, display_name,
};

/// Most users in one answer, and how many come unasked.
const MAX_LISTED: i64 = 500;
/// Longest description of a token, characters.
const MAX_DESCRIPTION: usize = 100;

pub(super) fn open(verb: &str, body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    match verb {
        "SELF" => Ok(own(request)),
        "LIST" => list(body, request),
        "INFO" => {
            let (account, name) = (account_of(body, request)?, name_of(body)?);
            Ok(course_in(account, Vec::new(), move |cx, _| {
                Ok(Turn::Done(found(cx, &name)?))
            }))
        }
        "CREATE" => create(body, request),
        "UPDATE" => update(body, request),
        "PASSWORD" => change_password(body, request),
        "DELETE" => delete(body, request),
        _ => Err(super::unknown()),
    }
}

pub(super) fn open_token(
    verb: &str,
    body: &Body,
    request: &Request<'_>,
) -> Result<Opened, Refused> {
    match verb {
        "LIST" => {
            let (account, name) = (account_of(body, request)?, name_of(body)?);
            Ok(course_in(account, Vec::new(), move |cx, _| {
                let user = stored(cx, &name)?;
                let tokens: Vec<Value> = user.tokens.values().map(shown_token).collect();
                Ok(Turn::Done(json!({ "tokens": tokens })))
            }))
        }
        "CREATE" => create_token(body, request),
        "DELETE" => delete_token(body, request),
        _ => Err(super::unknown()),
    }
}

/// Makes root unless there is one.
pub(super) fn first_root(password: PasswordHash, now: Timestamp) -> Box<dyn Job> {
    let mut password = Some(password);
    Box::new(Course::new(lock(), move |cx, _| {
        let mut users = cx.state.people().users(cx.account);
        let has_root = users.any(|user| user.kind == UserKind::Root);
        let (Some(password), false) = (password.take(), has_root) else {
            return Ok(done());
        };
        let user = User {
            name: UserName::parse("root").map_err(|error| error.to_string())?,
            kind: UserKind::Root,
            password: Some(password),
            password_changes: 0,
            tokens: BTreeMap::new(),
            access: Access::ALL,
            profile: Profile::default(),
            created: now,
            created_by: String::new(),
        };
        Ok(record(Command::UserCreated {
            account: cx.account.clone(),
            user: Box::new(user),
        }))
    }))
}

pub(super) fn lock() -> Vec<(LockName, Hold)> {
    vec![(LockName::Users, Hold::Exclusive)]
}

pub(super) fn record(command: Command) -> Turn {
    let mut plan = Plan::default();
    plan.step(Step::record(command));
    Turn::Run(plan)
}

fn one(step: Step) -> Turn {
    let mut plan = Plan::default();
    plan.step(step);
    Turn::Run(plan)
}

/// The account a request is about: its own, unless root names another tenant.
fn account_of(body: &Body, request: &Request<'_>) -> Result<AccountName, Refused> {
    let account = match body.text("tenant")?.as_str() {
        "" => return Ok(request.account.clone()),
        DEFAULT_TENANT => AccountName::global(),
        name => UserName::parse(name)?.account(),
    };
    if account != *request.account && request.client.role != Role::Root {
        return Err(Refused(format!(
            "user {} is not allowed to manage other tenants",
            display_name(request.client.user)
        )));
    }
    Ok(account)
}

pub(super) fn tenant_of(account: &AccountName) -> &str {
    if *account == AccountName::global() {
        DEFAULT_TENANT
    } else {
        account.as_str()
    }
}

fn name_of(body: &Body) -> Result<UserName, Refused> {
    Ok(UserName::parse(&body.text("user")?)?)
}

fn missing(name: &UserName) -> String {
    format!("user {name} does not exist")
}

fn configured<'a>(cx: &Context<'a>, name: &str) -> Option<&'a ConfiguredUser> {
    let mut users = cx.configured.iter();
    users.find(|user| user.account == *cx.account && user.name == name)
}

/// A stored user; one of the configuration cannot be changed.
fn stored<'a>(cx: &Context<'a>, name: &UserName) -> Result<&'a User, String> {
    if configured(cx, name.as_str()).is_some() {
        return Err(format!(
            "user {name} comes from the configuration: it is not allowed to change it here"
        ));
    }
    cx.state
        .people()
        .user(cx.account, name)
        .ok_or_else(|| missing(name))
}

fn found(cx: &Context<'_>, name: &UserName) -> Result<Value, String> {
    if let Some(user) = configured(cx, name.as_str()) {
        return Ok(shown_configured(user));
    }
    let user = cx.state.people().user(cx.account, name);
    let user = user.ok_or_else(|| missing(name))?;
    Ok(shown(cx.account, user))
}

fn shown(account: &AccountName, user: &User) -> Value {
    let tokens: Vec<Value> = user.tokens.values().map(shown_token).collect();
    let access = &user.access;
    json!({
        "name": user.name,
        "type": user.kind,
        "tenant": tenant_of(account),
        "origin": "stored",
        "has_password": user.password.is_some(),
        "tokens": tokens,
        "permissions": {
            "allow_read": access.allow_read,
            "allow_write": access.allow_write,
            "deny_read": access.deny_read,
            "deny_write": access.deny_write,
        },
        "description": user.profile.description,
        "full_name": user.profile.full_name,
        "team": user.profile.team,
        "position": user.profile.position,
        "owner": user.profile.owner,
        "avatar_id": user.profile.avatar_id,
        "created": user.created,
        "created_by": user.created_by,
    })
}

fn shown_configured(user: &ConfiguredUser) -> Value {
    let kind = match user.role {
        Role::Root => UserKind::Root,
        Role::Management | Role::Limited => UserKind::Management,
        Role::Application => UserKind::Application,
    };
    json!({
        "name": user.name,
        "type": kind,
        "tenant": tenant_of(&user.account),
        "origin": "configuration",
    })
}

fn shown_token(token: &Token) -> Value {
    json!({
        "id": token.id,
        "description": token.description,
        "created": token.created,
    })
}

fn own(request: &Request<'_>) -> Opened {
    let name = display_name(request.client.user).to_owned();
    let role = request.client.role;
    course_in(request.account.clone(), Vec::new(), move |cx, _| {
        let known = UserName::parse(&name).ok();
        let known = known.and_then(|name| found(cx, &name).ok());
        Ok(Turn::Done(known.unwrap_or_else(|| {
            let account = cx.account.clone();
            shown_configured(&ConfiguredUser {
                account,
                name: name.clone(),
                role,
            })
        })))
    })
}

fn list(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let account = account_of(body, request)?;
    let kind = body.text("type")?;
    let after = body.text("after")?;
    let limit = match body.number("limit")? {
        0 => MAX_LISTED,
        asked => asked.clamp(1, MAX_LISTED),
    };
    let limit = usize::try_from(limit).unwrap_or(1);
    Ok(course_in(account, Vec::new(), move |cx, _| {
        let mut users = BTreeMap::new();
        for user in cx.state.people().users(cx.account) {
            users.insert(user.name.as_str().to_owned(), shown(cx.account, user));
        }
        // Where both have a user of this name, it is the one of the configuration who logs in.
        for user in cx.configured.iter().filter(|u| u.account == *cx.account) {
            users.insert(user.name.clone(), shown_configured(user));
        }
        if !kind.is_empty() {
            users.retain(|_, user| user["type"] == kind.as_str());
        }
        let mut rest = users.into_iter().filter(|(name, _)| *name > after);
        let page: Vec<(String, Value)> = rest.by_ref().take(limit).collect();
        let last = page.last().map(|(name, _)| name.clone());
        let next = rest.next().and(last);
        let users: Vec<Value> = page.into_iter().map(|(_, user)| user).collect();
        Ok(Turn::Done(json!({ "users": users, "next": next })))
    }))
}

/// A password in a request: in clear, to be hashed, or hashed already.
enum Given {
    None,
    Clear(Secret),
    Hash(PasswordHash),
}

impl Given {
    fn read(body: &Body) -> Result<Self, Refused> {
        let hash = body.text("password_hash")?;
        if !hash.is_empty() {
            return Ok(Self::Hash(PasswordHash::parse(&hash)?));
        }
        let password = body.text("password")?;
        if password.is_empty() {
            return Ok(Self::None);
        }
        check_password(&password)?;
        Ok(Self::Clear(Secret::new(password)))
    }
}

fn hashed(results: &[StepResult]) -> Option<PasswordHash> {
    results.iter().find_map(|result| match result {
        StepResult::Hashed(hash) => Some(hash.clone()),
        _ => None,
    })
}

fn made_token(results: &[StepResult]) -> Option<NewToken> {
    results.iter().find_map(|result| match result {
        StepResult::Token(token) => Some((**token).clone()),
        _ => None,
    })
}

/// The lists that a request brings; what it does not mention stays.
#[derive(Clone, Debug, Default)]
struct AccessChange {
    allow_read: Option<Vec<StationPattern>>,
    allow_write: Option<Vec<StationPattern>>,
    deny_read: Option<Vec<StationPattern>>,
    deny_write: Option<Vec<StationPattern>>,
}

impl AccessChange {
    fn applied_to(&self, before: &Access) -> Access {
        let list = |change: &Option<Vec<StationPattern>>, before: &Vec<StationPattern>| {
            change.as_ref().unwrap_or(before).clone()
        };
        Access {
            allow_read: list(&self.allow_read, &before.allow_read),
            allow_write: list(&self.allow_write, &before.allow_write),
            deny_read: list(&self.deny_read, &before.deny_read),
            deny_write: list(&self.deny_write, &before.deny_write),
        }
    }
}

/// The lists of a request, if it has any: in `permissions`, or under Memphis's names. A list of
/// another name is refused: a misspelt one would leave its user free.
fn access(body: &Body) -> Result<Option<AccessChange>, Refused> {
    const LISTS: [(&str, &str); 4] = [
        ("allow_read", "allow_read_permissions"),
        ("allow_write", "allow_write_permissions"),
        ("deny_read", "deny_read_permissions"),
        ("deny_write", "deny_write_permissions"),
    ];
    let nested = body.object("permissions")?;
    let is_known = |key: &str| {
        LISTS
            .iter()
            .any(|(short, long)| key == *short || key == *long)
    };
    if let Some(unknown) = nested.keys().find(|key| !is_known(key)) {
        return Err(Refused(format!(
            "permissions has allow_read, allow_write, deny_read and deny_write, not {unknown:?}"
        )));
    }
    let read = |(short, long): (&'static str, &'static str)| -> Result<_, Refused> {
        let texts = if nested.has(short) {
            nested.texts(short)?
        } else if body.has(long) {
            body.texts(long)?
        } else if nested.has(long) {
            nested.texts(long)?
        } else {
            return Ok(None);
        };
        if texts.len() > crate::user::MAX_PATTERNS {
            let most = crate::user::MAX_PATTERNS;
            return Err(Refused(format!("{short} has at most {most} patterns")));
        }
        let patterns: Result<Vec<StationPattern>, _> = texts
            .iter()
            .map(|text| StationPattern::parse(text))
            .collect();
        Ok(Some(patterns?))
    };
    let [allow_read, allow_write, deny_read, deny_write] = LISTS;
    let change = AccessChange {
        allow_read: read(allow_read)?,
        allow_write: read(allow_write)?,
        deny_read: read(deny_read)?,
        deny_write: read(deny_write)?,
    };
    let AccessChange {
        allow_read,
        allow_write,
        deny_read,
        deny_write,
    } = &change;
    let has_any = [allow_read, allow_write, deny_read, deny_write]
        .iter()
        .any(|list| list.is_some());
    Ok((has_any || body.has("permissions")).then_some(change))
}

/// What is noted about a user after the request.
fn profile(body: &Body, before: &Profile) -> Result<Profile, Refused> {
    let text = |key: &'static str, before: &String| -> Result<String, Refused> {
        if body.has(key) {
            Ok(body.text(key)?)
        } else {
            Ok(before.clone())
        }
    };
    let profile = Profile {
        description: text("description", &before.description)?,
        full_name: text("full_name", &before.full_name)?,
        team: text("team", &before.team)?,
        position: text("position", &before.position)?,
        owner: text("owner", &before.owner)?,
        avatar_id: if body.has("avatar_id") {
            body.number("avatar_id")?
        } else {
            before.avatar_id
        },
    };
    profile.check().map_err(Refused)?;
    Ok(profile)
}

fn create(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let (account, name) = (account_of(body, request)?, name_of(body)?);
    let kind = match body.text("type")?.as_str() {
        "" => UserKind::Application,
        word => UserKind::parse(word).ok_or_else(|| {
            Refused("type can be one of the following management/application".to_owned())
        })?,
    };
    let access = access(body)?.unwrap_or_default();
    let access = access.applied_to(&Access::default());
    if kind != UserKind::Application && !access.is_all() {
        return Err(Refused(
            "only application users have permissions".to_owned(),
        ));
    }
    let mut password = Given::read(body)?;
    let wants_token = body.flag("token")?;
    if kind == UserKind::Management && matches!(password, Given::None) {
        return Err(Refused("a management user needs a password".to_owned()));
    }
    if kind == UserKind::Management && wants_token {
        return Err(Refused("only application users have tokens".to_owned()));
    }
    let mut user = User {
        name: name.clone(),
        kind,
        password: None,
        password_changes: 0,
        tokens: BTreeMap::new(),
        access,
        profile: profile(body, &Profile::default())?,
        created: request.now,
        created_by: display_name(request.client.user).to_owned(),
    };
    let now = request.now;
    let mut token = None;
    let mut is_recorded = false;
    Ok(course_in(account, lock(), move |cx, results| {
        if is_recorded {
            let mut answer = found(cx, &name)?;
            if let Some(token) = token.take() {
                let token: NewToken = token;
                answer["token"] = token.secret.expose().into();
                answer["token_id"] = token.id.into();
            }
            return Ok(Turn::Done(answer));
        }
        if let Some(hash) = hashed(&results) {
            user.password = Some(hash);
        }
        if let Some(made) = made_token(&results) {
            let stored = Token {
                id: made.id.clone(),
                digest: made.digest.clone(),
                description: String::new(),
                created: now,
            };
            user.tokens.insert(stored.id.clone(), stored);
            token = Some(made);
        }
        let people = cx.state.people();
        if !people.has_account(cx.account) {
            return Err(format!("tenant {} does not exist", cx.account));
        }
        if people.user(cx.account, &name).is_some() || configured(cx, name.as_str()).is_some() {
            return Err(format!("user {name} exists already"));
        }
        match std::mem::replace(&mut password, Given::None) {
            Given::Clear(secret) => return Ok(one(Step::HashPassword(secret))),
            Given::Hash(hash) => user.password = Some(hash),
            Given::None => {}
        }
        if wants_token && token.is_none() {
            return Ok(one(Step::MakeToken));
        }
        is_recorded = true;
        Ok(record(Command::UserCreated {
            account: cx.account.clone(),
            user: Box::new(user.clone()),
        }))
    }))
}

fn update(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let (account, name) = (account_of(body, request)?, name_of(body)?);
    let access = access(body)?;
    let body = body.clone();
    // Looked at before anything is done.
    profile(&body, &Profile::default())?;
    let mut is_recorded = false;
    Ok(course_in(account, lock(), move |cx, _| {
        if std::mem::replace(&mut is_recorded, true) {
            return Ok(Turn::Done(found(cx, &name)?));
        }
        let user = stored(cx, &name)?;
        if access.is_some() && user.kind != UserKind::Application {
            return Err("only application users have permissions".to_owned());
        }
        let noted = profile(&body, &user.profile).map_err(|Refused(text)| text)?;
        Ok(record(Command::UserChanged {
            account: cx.account.clone(),
            user: name.clone(),
            change: Box::new(UserChange {
                access: access
                    .as_ref()
                    .map(|access| access.applied_to(&user.access)),
                profile: (noted != user.profile).then_some(noted),
            }),
        }))
    }))
}

fn change_password(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let (account, name) = (account_of(body, request)?, name_of(body)?);
    let mut password = Given::read(body)?;
    if matches!(password, Given::None) {
        return Err(Refused("password is needed".to_owned()));
    }
    let (caller, role) = (
        display_name(request.client.user).to_owned(),
        request.client.role,
    );
    let mut is_recorded = false;
    Ok(course_in(account, lock(), move |cx, results| {
        if is_recorded {
            return Ok(done());
        }
        let user = stored(cx, &name)?;
        if user.kind == UserKind::Root && role != Role::Root {
            return Err(format!(
                "user {caller} is not allowed to change the password of {name}"
            ));
        }
        let hash = match std::mem::replace(&mut password, Given::None) {
            Given::Clear(secret) => return Ok(one(Step::HashPassword(secret))),
            Given::Hash(hash) => Some(hash),
            Given::None => hashed(&results),
        };
        is_recorded = true;
        let password = hash.ok_or("the password could not be hashed")?;
        Ok(record(Command::UserPasswordChanged {
            account: cx.account.clone(),
            user: name.clone(),
            password,
        }))
    }))
}

fn delete(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let (account, name) = (account_of(body, request)?, name_of(body)?);
    let caller = display_name(request.client.user).to_owned();
    let is_home = account == *request.account;
    let mut is_recorded = false;
    Ok(course_in(account, lock(), move |cx, _| {
        if std::mem::replace(&mut is_recorded, true) {
            return Ok(done());
        }
        let user = stored(cx, &name)?;
        if user.kind == UserKind::Root {
            return Err("it is not allowed to remove root".to_owned());
        }
        if is_home && caller == name.as_str() {
            return Err(format!("user {name} is not allowed to remove itself"));
        }
        Ok(record(Command::UserRemoved {
            account: cx.account.clone(),
            user: name.clone(),
        }))
    }))
}

fn create_token(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let (account, name) = (account_of(body, request)?, name_of(body)?);
    let description = body.text("description")?;
    if description.chars().count() > MAX_DESCRIPTION {
        let text = format!("description should be at most {MAX_DESCRIPTION} characters");
        return Err(Refused(text));
    }
    let now = request.now;
    let mut answer = None;
    Ok(course_in(account, lock(), move |cx, results| {
        if let Some(answer) = answer.take() {
            return Ok(Turn::Done(answer));
        }
        let user = stored(cx, &name)?;
        if user.kind != UserKind::Application {
            return Err("only application users have tokens".to_owned());
        }
        let Some(made) = made_token(&results) else {
            return Ok(one(Step::MakeToken));
        };
        let token = Token {
            id: made.id,
            digest: made.digest,
            description: description.clone(),
            created: now,
        };
        let mut shown = shown_token(&token);
        shown["token"] = made.secret.expose().into();
        shown["user"] = name.as_str().into();
        answer = Some(shown);
        Ok(record(Command::UserTokenAdded {
            account: cx.account.clone(),
            user: name.clone(),
            token: Box::new(token),
        }))
    }))
}

fn delete_token(body: &Body, request: &Request<'_>) -> Result<Opened, Refused> {
    let (account, name) = (account_of(body, request)?, name_of(body)?);
    let id = body.short_text("token")?;
    let mut is_recorded = false;
    Ok(course_in(account, lock(), move |cx, _| {
        if std::mem::replace(&mut is_recorded, true) {
            return Ok(done());
        }
        if !stored(cx, &name)?.tokens.contains_key(&id) {
            return Err(format!("token {id} of user {name} does not exist"));
        }
        Ok(record(Command::UserTokenRemoved {
            account: cx.account.clone(),
            user: name.clone(),
            token: id.clone(),
        }))
    }))
}
