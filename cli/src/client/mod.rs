//! Commands that ask a running server: stations, messages, groups, dead letters, schemas.
//!
//! Everything goes over NATS, as any client's requests do: to the broker's own interface below
//! `$MENES.API.`, and to stations as the SDKs know them. Data goes to standard output, everything
//! else to standard error, and the exit code says how it ended ([`Trouble`]).

mod bench;
mod context;
mod explain;
mod group;
mod health;
mod import;
mod letters;
mod mem;
mod messages;
mod output;
mod samples;
mod schema;
mod server;
mod station;
mod status;
mod user;

use std::process::ExitCode;

use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::Value;

use self::output::Output;
use self::server::{Server, Where};

/// Words that begin these commands.
pub(crate) const COMMANDS: &[&str] = &[
    "station", "st", "produce", "consume", "group", "dls", "schema", "status", "health", "explain",
    "context", "ctx", "import", "bench", "user", "token", "tenant",
];

/// Commands for a running server
#[derive(Debug, Parser)]
#[command(name = "menes", disable_version_flag = true, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    at: Where,
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    output: Format,
    /// Do not ask
    #[arg(short, long, global = true)]
    yes: bool,
    /// Only data, no remarks
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Say what would be done, and do nothing
    #[arg(long, global = true)]
    dry_run: bool,
    /// Seconds to connect, and to be answered
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    #[command(subcommand)]
    command: Command,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// What the server answers
    Json,
    /// The same for those who read it too
    Yaml,
    /// Rows for a spreadsheet
    Csv,
    /// Only the first column
    Name,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What there is, and what needs attention
    Status,
    /// Whether a server is there and takes clients; exit code 0 or not
    #[command(
        after_help = "Examples:\n  menes health\n  menes health --live --server nats://broker:4222 --timeout 2"
    )]
    Health(health::Health),
    /// What the code of an error means, and what helps
    Explain {
        /// The code, as E-API-MISSING; all of them without one
        code: Option<String>,
    },
    /// Servers and credentials under a name
    #[command(subcommand, visible_alias = "ctx")]
    Context(context::Command),
    /// Stations: where messages are kept
    #[command(subcommand, visible_alias = "st")]
    Station(station::Command),
    /// Send messages to a station; it is made if there is none
    #[command(
        after_help = "Examples:\n  menes produce orders '{\"id\": 1}'\n  menes produce orders @order.json -H kind:test\n  tail -f log | menes produce logs --lines"
    )]
    Produce(messages::Produce),
    /// Take messages from a station as a member of a group
    #[command(
        after_help = "Examples:\n  menes consume orders --group billing\n  menes consume orders --group billing --count 10 -o json"
    )]
    Consume(messages::Consume),
    /// Groups: who reads a station, and how far they are
    #[command(subcommand)]
    Group(group::Command),
    /// Dead letters: messages that were given up
    #[command(subcommand)]
    Dls(letters::Command),
    /// Schemas: what messages have to look like
    #[command(subcommand)]
    Schema(schema::Command),
    /// Take over what another server has
    #[command(subcommand)]
    Import(import::Command),
    /// How fast a server is, with a station that is made for it and removed
    #[command(subcommand)]
    Bench(bench::Command),
    /// Users: who may log in, and what for
    #[command(subcommand)]
    User(user::Command),
    /// Connection tokens of application users
    #[command(subcommand)]
    Token(user::TokenCommand),
    /// Tenants: stations and users of their own; for root
    #[command(subcommand)]
    Tenant(user::TenantCommand),
}

/// Why a command did not do what it was told. Each has an exit code of its own.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// 1: it failed.
    Failed(String),
    /// 2: it was called wrongly.
    Usage(String),
    /// 3: what it names does not exist.
    NotFound(String),
    /// 4: the user may not.
    Refused(String),
    /// 5: the server cannot be reached, or does not answer.
    Unreachable(String),
    /// 6: it is there already, or somebody else was faster.
    Conflict(String),
    /// 0: nothing was done, as asked: these are the steps.
    Rehearsed(Value),
}

impl Trouble {
    /// What the server's text means.
    fn of(text: String) -> Self {
        if text.contains("does not exist") || text.contains("has no version") {
            Self::NotFound(text)
        } else if text.contains("not allowed") || text.contains("Permissions Violation") {
            Self::Refused(text)
        } else if text.contains("already exist")
            || text.contains("exists already")
            || text.contains("changed by another")
        {
            Self::Conflict(text)
        } else {
            Self::Failed(text)
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Rehearsed(_) => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Refused(_) => 4,
            Self::Unreachable(_) => 5,
            Self::Conflict(_) => 6,
        }
    }

    /// What `menes explain` knows it by.
    fn name(&self) -> &'static str {
        match self {
            Self::Failed(text) if text.contains("Schema validation has failed") => {
                "E-SCHEMA-VIOLATION"
            }
            Self::Failed(text) if text.contains("max_payload") => "E-MSG-SIZE",
            Self::Failed(_) => "E-API-REFUSED",
            Self::Usage(_) => "E-CLI-USAGE",
            Self::NotFound(text) if text.starts_with("context ") => "E-CLI-CONTEXT",
            Self::NotFound(_) => "E-API-MISSING",
            Self::Refused(text) if text.contains("uthorization") => "E-AUTH-LOGIN",
            Self::Refused(_) => "E-AUTH-DENIED",
            Self::Unreachable(_) => "E-CONN-REFUSED",
            Self::Conflict(text) if text.contains("changed by another") => "E-API-CHANGED",
            Self::Conflict(_) => "E-API-CONFLICT",
            Self::Rehearsed(_) => "",
        }
    }

    /// Tells the person what happened, and what helps.
    fn report(&self) {
        eprintln!("error: {}  [{}]", self.text(), self.name());
        if let Some(known) = menes_broker::codes::find(self.name()) {
            eprintln!("  fix: {}", known.fix);
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Failed(text)
            | Self::Usage(text)
            | Self::NotFound(text)
            | Self::Refused(text)
            | Self::Unreachable(text)
            | Self::Conflict(text) => text,
            Self::Rehearsed(_) => "",
        }
    }
}

type Outcome<T = ()> = Result<T, Trouble>;

/// Carries out a command of `mem`.
pub(crate) fn run_mem(arguments: &[String]) -> ExitCode {
    let outcome = match mem::meaning(arguments) {
        Ok(mem::Meaning::Ours(words)) => {
            let known = words.first().map(String::as_str).unwrap_or_default();
            if COMMANDS.contains(&known) || known.starts_with('-') || known == "help" {
                return run(&words);
            }
            Err(Trouble::Usage(format!(
                "mem: unknown command {known:?}: connect, station, user, producer, consumer, cluster, or any of `menes help`"
            )))
        }
        Ok(mem::Meaning::Connect {
            server,
            user,
            password,
        }) => connect(&server, &user, &password),
        Ok(mem::Meaning::Gone(text)) => Err(Trouble::Failed(text.to_owned())),
        Err(text) => Err(Trouble::Usage(text)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            trouble.report();
            ExitCode::from(trouble.code())
        }
    }
}

/// Keeps a server as the context `memphis`, once it let the user in.
fn connect(server: &str, user: &str, password: &str) -> Outcome {
    let url = mem::url(server);
    let words = [
        "menes",
        "-s",
        &url,
        "--user",
        user,
        "--password",
        password,
        "status",
        "-o",
        "json",
    ];
    let arguments =
        Arguments::try_parse_from(words).map_err(|error| Trouble::Usage(error.to_string()))?;
    runtime()?.block_on(async {
        let timeout = Duration::from_secs(arguments.timeout);
        let server = Server::connect(&arguments.at, timeout, false).await?;
        server.ask("STATUS", serde_json::json!({})).await.map(drop)
    })?;
    let fields = serde_json::json!({
        "description": "kept by mem connect", "url": url, "user": user, "password": password,
    });
    let fields = fields.as_object().cloned().unwrap_or_default();
    context::save("memphis", &fields, true)?;
    eprintln!("connected to {url} as {user}; kept as context memphis");
    Ok(())
}

fn runtime() -> Outcome<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Trouble::Failed(error.to_string()))
}

/// Carries out a command; `arguments` begin with its first word.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let words = std::iter::once("menes".to_owned()).chain(arguments.iter().cloned());
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            let is_help = matches!(error.kind(), ErrorKind::DisplayHelp);
            // Nowhere to say that nothing can be said.
            drop(error.print());
            return if is_help {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(2)
            };
        }
    };
    let output = arguments.output();
    let outcome = runtime().and_then(|runtime| runtime.block_on(carry_out(arguments, &output)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble::Rehearsed(steps)) => match rehearsed(&output, &steps) {
            Ok(()) => ExitCode::SUCCESS,
            Err(trouble) => ExitCode::from(trouble.code()),
        },
        Err(trouble) => {
            trouble.report();
            ExitCode::from(trouble.code())
        }
    }
}

impl Arguments {
    fn output(&self) -> Output {
        Output {
            format: self.output,
            is_sure: self.yes || self.dry_run,
            is_quiet: self.quiet,
        }
    }
}

/// Shows what would be done.
fn rehearsed(output: &Output, plan: &Value) -> Outcome {
    if output.is_document() {
        return output.document(plan);
    }
    for step in plan["steps"].as_array().into_iter().flatten() {
        let (does, what) = (output::cell(&step["does"]), output::cell(&step["what"]));
        output.line(&format!("would {does} {what}"))?;
    }
    output.line("nothing was done: --dry-run only shows")
}

async fn carry_out(arguments: Arguments, output: &Output) -> Outcome {
    let timeout = Duration::from_secs(arguments.timeout);
    let mut at = arguments.at;
    let command = match arguments.command {
        Command::Explain { code } => return explain::run(output, code.as_deref()),
        Command::Health(command) => {
            return health::run(output, &command, &at.url()?, timeout);
        }
        Command::Context(command) => match context::run(output, command, &at.login())? {
            None => return Ok(()),
            Some(name) => {
                at.use_context(name);
                Command::Context(context::Command::Ls)
            }
        },
        Command::Schema(command) => match schema::alone(output, command)? {
            None => return Ok(()),
            Some(command) => Command::Schema(command),
        },
        Command::Import(command) => {
            let target = import::Target {
                at: &at,
                timeout,
                is_rehearsal: arguments.dry_run,
            };
            return import::run(&target, output, command).await;
        }
        other => other,
    };
    let server = Server::connect(&at, timeout, arguments.dry_run).await?;
    let outcome = match command {
        Command::Status => status::run(&server, output).await,
        Command::Station(command) => station::run(&server, output, command).await,
        Command::Produce(command) => messages::produce(&server, output, command).await,
        Command::Consume(command) => messages::consume(&server, output, command).await,
        Command::Group(command) => group::run(&server, output, command).await,
        Command::Dls(command) => letters::run(&server, output, command).await,
        Command::Schema(command) => schema::run(&server, output, command).await,
        Command::Bench(command) => bench::run(&server, &at, output, command, timeout).await,
        Command::User(command) => user::run(&server, output, command).await,
        Command::Token(command) => user::run_token(&server, output, command).await,
        Command::Tenant(command) => user::run_tenant(&server, output, command).await,
        // Only the test of one is left.
        Command::Context(_) | Command::Explain { .. } | Command::Health(_) | Command::Import(_) => {
            let info = server.client.server_info();
            let text = format!("logged in at {}", info.server_name);
            output.done(&text, &serde_json::json!({"server": info.server_name}))
        }
    };
    server.close().await;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_well_formed() {
        Arguments::command().debug_assert();
        for word in COMMANDS {
            let known = Arguments::command();
            let names = known.get_subcommands();
            let is_known = names.into_iter().any(|command| {
                command.get_name() == *word || command.get_all_aliases().any(|name| name == *word)
            });
            assert!(is_known, "{word}");
        }
    }

    #[test]
    fn exit_codes_tell_what_kind_of_trouble_it_is() {
        for (text, code) in [
            ("station a does not exist", 3),
            ("user a is not allowed to change station b", 4),
            ("station a exists already", 6),
            ("content has to be 1 to 262144 bytes", 1),
        ] {
            assert_eq!(Trouble::of(text.to_owned()).code(), code, "{text}");
        }
    }
}
