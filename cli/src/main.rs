//! `menes`: one file, called as itself or as `nats-server`.

mod client;
mod config;
mod flags;
mod signal;

use std::path::Path;
use std::process::ExitCode;

use flags::{Face, Flags};
use menes_broker::NATS_VERSION;

fn usage() -> String {
    format!(
        "\
Menes {}, a message broker: NATS, Memphis SDKs, and every acknowledged message kept.

  menes dev [FLAGS]      start a server here and now: loopback only, no passwords, data in
                         ./menes-data; plain `menes` is the same
  menes serve [FLAGS]    start a server for others: the first start makes the user root and prints
                         its password; `menes serve --help` lists the flags
  menes config           check, show and explain configuration files
  menes version          print the version

For a running server, each with --help:

  menes status           what there is, and what needs attention
  menes health           whether it takes clients, for probes
  menes station, st      make, show, change, remove stations
  menes produce, consume send messages, take messages
  menes group            see who reads and how far, reset, pause, retry policy
  menes dls              list, resend, edit, drop, export dead letters
  menes schema           make schemas and versions, attach them to stations
  menes context          servers and credentials under a name
  menes explain CODE     what the code of an error means
  menes import           take over what a Memphis has
  menes bench            how fast the server is
  menes user, token      who may log in, with what, and to which stations
  menes tenant           stations and users of their own

Called as mem, or after `menes mem`, it takes the commands of Memphis's own tool. Called as nats-server, or with that server's flags first, it behaves as nats-server {NATS_VERSION}.
",
        env!("CARGO_PKG_VERSION")
    )
}

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let mut arguments: Vec<String> = arguments.collect();
    let called = Path::new(&program)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("menes");
    if called == "mem" {
        return mem(&arguments);
    }
    let face = if called.starts_with("nats-server") {
        Face::NatsServer
    } else {
        match arguments.first().map(String::as_str) {
            Some("serve") => {
                arguments.remove(0);
                Face::Menes
            }
            Some("dev") => {
                arguments.remove(0);
                Face::Dev
            }
            None => Face::Dev,
            Some(word) if client::COMMANDS.contains(&word) => return client::run(&arguments),
            Some("mem") => return mem(&arguments[1..]),
            Some("config") => return config::run(&arguments[1..]),
            Some("-h" | "--help" | "help") => return say(&usage()),
            Some("version" | "--version") => {
                let version = env!("CARGO_PKG_VERSION");
                return say(&format!("menes {version} (speaks NATS {NATS_VERSION})\n"));
            }
            Some(flag) if flag.starts_with('-') => Face::NatsServer,
            Some(other) => return unknown(other),
        }
    };
    run(called, &arguments, face)
}

/// Says which command may have been meant.
fn unknown(word: &str) -> ExitCode {
    let others = ["serve", "dev", "config", "version", "mem", "help"];
    let known = client::COMMANDS.iter().chain(&others).copied();
    let meant = menes_broker::config::reference::closest_of(word, known);
    let meant = meant.map_or_else(String::new, |meant| format!(", did you mean {meant}?"));
    eprintln!("menes: unknown command {word:?}{meant} `menes help` lists them");
    ExitCode::from(2)
}

fn mem(arguments: &[String]) -> ExitCode {
    match arguments.first().map(String::as_str) {
        None | Some("-h" | "--help") => say(&usage()),
        Some("-v" | "--version") => say(&format!("{}\n", env!("CARGO_PKG_VERSION"))),
        Some(_) => client::run_mem(arguments),
    }
}

fn run(program: &str, arguments: &[String], face: Face) -> ExitCode {
    let flags = match Flags::parse_from(arguments) {
        Ok(flags) => flags,
        Err(error) if error.use_stderr() => {
            return fail(&format!("{program}: {}", error.to_string().trim_end()));
        }
        Err(help) => return say(&format!("{help}\n{}", flags::short_forms())),
    };
    if flags.version {
        return say(&format!("nats-server: v{NATS_VERSION}\n"));
    }
    if flags.help_tls {
        return say(&help_tls());
    }
    if let Some(signal) = &flags.signal {
        return match signal::send(signal) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("{program}: {error}")),
        };
    }
    let settings = match flags.settings(face) {
        Ok(settings) => settings,
        Err(error) => return fail(&format!("{program}: {error}")),
    };
    if flags.check {
        let Some(file) = &settings.config_file else {
            return fail(&format!(
                "{program}: must specify [-c, --config] option to check configuration file syntax"
            ));
        };
        let digest = settings.config_digest.as_deref().unwrap_or_default();
        eprintln!(
            "{program}: configuration file {} is valid ({digest})",
            file.display()
        );
        return ExitCode::SUCCESS;
    }
    match menes_broker::run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        // The log has said why.
        Err(_) => ExitCode::FAILURE,
    }
}

/// What TLS can be told.
fn help_tls() -> String {
    let list = |names: Vec<&str>| names.join("\n    ");
    let keys = menes_broker::config::reference::find("tls");
    let keys = keys.iter().map(|entry| entry.key).collect();
    format!(
        "TLS is told about in the configuration, or by --tlscert, --tlskey, --tlscacert and \
         --tlsverify.\n\nKeys, see `menes config explain KEY`:\n    {}\n\n\
         Cipher suites:\n    {}\n\nCurve preferences:\n    {}\n",
        list(keys),
        list(menes_broker::tls::cipher_suites().collect()),
        list(menes_broker::tls::curves().collect()),
    )
}

#[expect(clippy::print_stdout, reason = "this is what the person asked to see")]
fn say(text: &str) -> ExitCode {
    print!("{text}");
    ExitCode::SUCCESS
}

fn fail(text: &str) -> ExitCode {
    eprintln!("{text}");
    ExitCode::FAILURE
}
