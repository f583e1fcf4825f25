//! Commands that ask a running server: stations, messages, groups, dead letters, schemas.
//!
//! Everything goes over NATS, as any client's requests do: to the broker's own interface below
//! `$MENES.API.`, and to stations as the SDKs know them. Data goes to standard output, everything
//! else to standard error, and the exit code says how it ended ([`Trouble`]).

mod group;
mod letters;
mod messages;
mod output;
mod schema;
mod server;
mod station;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand, ValueEnum};

use self::output::Output;
use self::server::{Server, Where};

/// Words that begin these commands.
pub(crate) const COMMANDS: &[&str] = &[
    "station", "st", "produce", "consume", "group", "dls", "schema", "status",
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
    #[command(subcommand)]
    command: Command,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How much there is of everything
    Status,
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
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Refused(_) => 4,
            Self::Unreachable(_) => 5,
            Self::Conflict(_) => 6,
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
        }
    }
}

type Outcome<T = ()> = Result<T, Trouble>;

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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(carry_out(arguments)),
        Err(error) => Err(Trouble::Failed(error.to_string())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("error: {}", trouble.text());
            ExitCode::from(trouble.code())
        }
    }
}

async fn carry_out(arguments: Arguments) -> Outcome {
    let server = Server::connect(&arguments.at).await?;
    let output = Output {
        is_json: arguments.output == Format::Json,
        is_sure: arguments.yes,
    };
    let outcome = match arguments.command {
        Command::Status => {
            let status = server.ask("STATUS", serde_json::json!({})).await?;
            output.fields(&status)
        }
        Command::Station(command) => station::run(&server, &output, command).await,
        Command::Produce(command) => messages::produce(&server, &output, command).await,
        Command::Consume(command) => messages::consume(&server, &output, command).await,
        Command::Group(command) => group::run(&server, &output, command).await,
        Command::Dls(command) => letters::run(&server, &output, command).await,
        Command::Schema(command) => schema::run(&server, &output, command).await,
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
