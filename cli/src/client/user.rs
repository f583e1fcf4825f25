//! `menes user`, `menes token` and `menes tenant`.

use std::io::{self, BufRead};

use clap::{Args, Subcommand, ValueEnum};
use rand::seq::IndexedRandom;
use serde_json::{Map, Value, json};

use super::output::{Output, cell};
use super::server::Server;
use super::{Outcome, Trouble};

/// Users in one request.
const PAGE: u64 = 500;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List users, those of the configuration among them
    Ls {
        /// Only those of this kind
        #[arg(long = "type", value_enum)]
        kind: Option<Kind>,
        #[command(flatten)]
        of: Of,
    },
    /// Show a user with its permissions and tokens
    Show {
        /// The user
        #[arg(value_name = "USER")]
        name: String,
        #[command(flatten)]
        of: Of,
    },
    /// Make a user; without --new-password, one is made up and shown this once
    #[command(
        visible_alias = "create",
        after_help = "Examples:\n  menes user add billing --read 'orders.*' --write invoices\n  menes user add ci --with-token --no-password\n  menes user add ada --type management --new-password -"
    )]
    Add(Add),
    /// Change what a user may do, and what is noted about it
    Edit {
        /// The user
        #[arg(value_name = "USER")]
        name: String,
        #[command(flatten)]
        lists: Lists,
        /// It may use every station
        #[arg(long, conflicts_with_all = ["read", "write", "deny_read", "deny_write"])]
        all_stations: bool,
        #[command(flatten)]
        notes: Notes,
        #[command(flatten)]
        of: Of,
    },
    /// Set another password; whoever uses the old one is disconnected
    Passwd {
        /// The user
        #[arg(value_name = "USER")]
        name: String,
        /// The password, or - to read it from the input; one is made up otherwise
        #[arg(long, value_name = "PASSWORD")]
        new_password: Option<String>,
        #[command(flatten)]
        of: Of,
    },
    /// Remove a user and end its connections
    Rm {
        /// The user
        #[arg(value_name = "USER")]
        name: String,
        #[command(flatten)]
        of: Of,
    },
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// The user
    #[arg(value_name = "USER")]
    name: String,
    /// What it is there for
    #[arg(long = "type", value_enum, default_value = "application")]
    kind: Kind,
    /// The password, or - to read it from the input
    #[arg(long, value_name = "PASSWORD")]
    new_password: Option<String>,
    /// No password: it logs in with tokens
    #[arg(long, conflicts_with = "new_password")]
    no_password: bool,
    /// Make a connection token as well
    #[arg(long)]
    with_token: bool,
    #[command(flatten)]
    lists: Lists,
    #[command(flatten)]
    notes: Notes,
    #[command(flatten)]
    of: Of,
}

/// Whose users.
#[derive(Debug, Args)]
pub(super) struct Of {
    /// Of this tenant; for root
    #[arg(long)]
    tenant: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Lists {
    /// Stations it may consume; * after a dot stands for anything
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    read: Vec<String>,
    /// Stations it may produce to
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    write: Vec<String>,
    /// Stations it may not consume, whatever else is allowed
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    deny_read: Vec<String>,
    /// Stations it may not produce to, whatever else is allowed
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    deny_write: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Notes {
    /// What it is for
    #[arg(long)]
    description: Option<String>,
    /// Its name in full
    #[arg(long)]
    full_name: Option<String>,
    /// Its team
    #[arg(long)]
    team: Option<String>,
    /// Who answers for it
    #[arg(long)]
    owner: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// A program: produces and consumes
    Application,
    /// A person: manages everything of the tenant
    Management,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Management => "management",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// List the connection tokens of a user
    Ls {
        /// The user
        #[arg(value_name = "USER")]
        name: String,
        #[command(flatten)]
        of: Of,
    },
    /// Make a connection token and show it this once
    #[command(visible_alias = "add")]
    Create {
        /// The user
        #[arg(value_name = "USER")]
        name: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        #[command(flatten)]
        of: Of,
    },
    /// End a connection token and the connections that came with it
    Rm {
        /// The user
        #[arg(value_name = "USER")]
        name: String,
        /// Id of the token, as `ls` shows it
        #[arg(value_name = "TOKEN")]
        id: String,
        #[command(flatten)]
        of: Of,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum TenantCommand {
    /// List tenants
    Ls,
    /// Show a tenant
    Show {
        /// The tenant
        tenant: String,
    },
    /// Make a tenant
    #[command(visible_alias = "create")]
    Add {
        /// The tenant
        tenant: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Remove a tenant that has no stations, with its users
    Rm {
        /// The tenant
        tenant: String,
    },
}

impl Of {
    fn body(&self, user: &str) -> Value {
        let mut body = json!({ "user": user });
        if let Some(tenant) = &self.tenant {
            body["tenant"] = tenant.as_str().into();
        }
        body
    }
}

impl Lists {
    fn is_empty(&self) -> bool {
        let lists = [&self.read, &self.write, &self.deny_read, &self.deny_write];
        lists.iter().all(|list| list.is_empty())
    }

    /// The lists that are given; with `all` the others too, empty.
    fn value(&self, all: bool) -> Value {
        let lists = [
            ("allow_read", &self.read),
            ("allow_write", &self.write),
            ("deny_read", &self.deny_read),
            ("deny_write", &self.deny_write),
        ];
        let given = lists
            .into_iter()
            .filter(|(_, list)| all || !list.is_empty());
        given
            .map(|(name, list)| (name.to_owned(), json!(list)))
            .collect::<Map<_, _>>()
            .into()
    }
}

impl Notes {
    fn put_into(self, body: &mut Value) {
        let fields = [
            ("description", self.description),
            ("full_name", self.full_name),
            ("team", self.team),
            ("owner", self.owner),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                body[name] = value.into();
            }
        }
    }
}

/// A password as it was given: itself, or for `-` the first line of the input.
fn given(password: String) -> Outcome<String> {
    if password != "-" {
        return Ok(password);
    }
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Trouble::Failed(error.to_string()))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A password that keeps to the broker's rules.
fn made_up() -> String {
    const LETTERS: &[u8] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let mut random = rand::rng();
    loop {
        let text: String = (0..20)
            .map(|at| match LETTERS.choose(&mut random) {
                Some(letter) if at % 7 != 6 => char::from(*letter),
                _ => '-',
            })
            .collect();
        let has = |kind: fn(&char) -> bool| text.chars().any(|letter| kind(&letter));
        if has(char::is_ascii_uppercase)
            && has(char::is_ascii_lowercase)
            && has(char::is_ascii_digit)
        {
            return text;
        }
    }
}

fn list(value: &Value) -> String {
    let patterns: Vec<String> = value.as_array().into_iter().flatten().map(cell).collect();
    if patterns.is_empty() {
        "–".to_owned()
    } else {
        patterns.join(" ")
    }
}

pub(super) async fn run(server: &Server, output: &Output, command: Command) -> Outcome {
    match command {
        Command::Ls { kind, of } => {
            let users = all(server, kind, &of).await?;
            let headings = ["USER", "TYPE", "FROM", "READ", "WRITE", "DENIED", "TOKENS"];
            output.table(&users, &headings, |user| {
                let lists = &user["permissions"];
                let denied: Vec<Value> = ["deny_read", "deny_write"]
                    .iter()
                    .flat_map(|name| lists[*name].as_array().cloned().unwrap_or_default())
                    .collect();
                vec![
                    cell(&user["name"]),
                    cell(&user["type"]),
                    cell(&user["origin"]),
                    list(&lists["allow_read"]),
                    list(&lists["allow_write"]),
                    list(&denied.into()),
                    user["tokens"].as_array().map_or(0, Vec::len).to_string(),
                ]
            })
        }
        Command::Show { name, of } => {
            let answer = server.ask("USER.INFO", of.body(&name)).await?;
            output.fields(&answer)
        }
        Command::Add(asked) => add(server, output, asked).await,
        Command::Edit {
            name,
            lists,
            all_stations,
            notes,
            of,
        } => {
            let mut body = of.body(&name);
            if all_stations || !lists.is_empty() {
                body["permissions"] = lists.value(all_stations);
            }
            notes.put_into(&mut body);
            let answer = server.ask("USER.UPDATE", body).await?;
            output.done(&format!("changed user {name}"), &answer)
        }
        Command::Passwd {
            name,
            new_password,
            of,
        } => {
            let mut body = of.body(&name);
            let is_made_up = new_password.is_none();
            let password = new_password.map_or_else(|| Ok(made_up()), given)?;
            body["password"] = password.as_str().into();
            server.ask("USER.PASSWORD", body).await?;
            let mut answer = json!({"user": name, "changed": true});
            if !is_made_up {
                return output.done(&format!("changed the password of {name}"), &answer);
            }
            answer["password"] = password.as_str().into();
            let text = format!("password of {name}: {password}");
            output.done(&text, &answer)?;
            output.remark("it is shown this once");
            Ok(())
        }
        Command::Rm { name, of } => {
            output.sure(&format!("remove user {name} and end its connections"))?;
            let answer = server.ask("USER.DELETE", of.body(&name)).await?;
            output.done(&format!("removed user {name}"), &answer)
        }
    }
}

/// Every page of the list.
async fn all(server: &Server, kind: Option<Kind>, of: &Of) -> Outcome<Value> {
    let mut users = Vec::new();
    let mut after = String::new();
    loop {
        let mut body = json!({"after": after, "limit": PAGE});
        if let Some(kind) = kind {
            body["type"] = kind.word().into();
        }
        if let Some(tenant) = &of.tenant {
            body["tenant"] = tenant.as_str().into();
        }
        let answer = server.ask("USER.LIST", body).await?;
        users.extend(answer["users"].as_array().cloned().unwrap_or_default());
        match answer["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => return Ok(users.into()),
        }
    }
}

async fn add(server: &Server, output: &Output, asked: Add) -> Outcome {
    let mut body = asked.of.body(&asked.name);
    body["type"] = asked.kind.word().into();
    let mut shown = None;
    if !asked.no_password {
        let password = match asked.new_password {
            Some(password) => given(password)?,
            None => shown.insert(made_up()).clone(),
        };
        body["password"] = password.into();
    }
    if asked.with_token {
        body["token"] = true.into();
    }
    if !asked.lists.is_empty() {
        body["permissions"] = asked.lists.value(false);
    }
    asked.notes.put_into(&mut body);
    let mut answer = server.ask("USER.CREATE", body).await?;
    if let Some(password) = &shown {
        answer["password"] = password.as_str().into();
    }
    if output.is_document() {
        return output.document(&answer);
    }
    let name = cell(&answer["name"]);
    output.line(&format!("made {} user {name}", asked.kind.word()))?;
    if let Some(password) = shown {
        output.line(&format!("password: {password}"))?;
    }
    if let Some(token) = answer["token"].as_str() {
        output.line(&format!("token: {token}"))?;
    }
    output.remark("secrets are shown this once");
    Ok(())
}

pub(super) async fn run_token(server: &Server, output: &Output, command: TokenCommand) -> Outcome {
    match command {
        TokenCommand::Ls { name, of } => {
            let answer = server.ask("TOKEN.LIST", of.body(&name)).await?;
            output.table(&answer["tokens"], &["TOKEN", "CREATED", "FOR"], |token| {
                vec![
                    cell(&token["id"]),
                    cell(&token["created"]),
                    cell(&token["description"]),
                ]
            })
        }
        TokenCommand::Create {
            name,
            description,
            of,
        } => {
            let mut body = of.body(&name);
            body["description"] = description.into();
            let answer = server.ask("TOKEN.CREATE", body).await?;
            output.done(&cell(&answer["token"]), &answer)?;
            output.remark("it is shown this once");
            Ok(())
        }
        TokenCommand::Rm { name, id, of } => {
            output.sure(&format!("end token {id} of user {name}"))?;
            let mut body = of.body(&name);
            body["token"] = id.as_str().into();
            let answer = server.ask("TOKEN.DELETE", body).await?;
            output.done(&format!("ended token {id}"), &answer)
        }
    }
}

pub(super) async fn run_tenant(
    server: &Server,
    output: &Output,
    command: TenantCommand,
) -> Outcome {
    match command {
        TenantCommand::Ls => {
            let answer = server.ask("TENANT.LIST", Value::Object(Map::new())).await?;
            let headings = ["TENANT", "ID", "STATIONS", "USERS"];
            output.table(&answer["tenants"], &headings, |tenant| {
                vec![
                    cell(&tenant["name"]),
                    cell(&tenant["id"]),
                    cell(&tenant["stations"]),
                    cell(&tenant["users"]),
                ]
            })
        }
        TenantCommand::Show { tenant } => {
            let answer = server
                .ask("TENANT.INFO", json!({ "tenant": tenant }))
                .await?;
            output.fields(&answer)
        }
        TenantCommand::Add {
            tenant,
            description,
        } => {
            let body = json!({"tenant": tenant, "description": description});
            let answer = server.ask("TENANT.CREATE", body).await?;
            let id = cell(&answer["id"]);
            output.done(&format!("made tenant {tenant}, account id {id}"), &answer)
        }
        TenantCommand::Rm { tenant } => {
            output.sure(&format!("remove tenant {tenant} with its users"))?;
            let answer = server
                .ask("TENANT.DELETE", json!({ "tenant": tenant }))
                .await?;
            output.done(&format!("removed tenant {tenant}"), &answer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_password_has_every_kind_of_character() {
        let password = made_up();
        assert_eq!(password.len(), 20);
        assert!(password.contains('-') && password.chars().any(|c| c.is_ascii_digit()));
        assert_ne!(password, made_up());
    }
}
