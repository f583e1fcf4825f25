//! `menes`: the broker and its command line.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use menes_broker::config::options::{AuthOptions, Options, UserOptions};
use menes_broker::server::Server;

#[derive(Parser)]
#[command(
    name = "menes",
    version,
    about = "A message broker that keeps what it acknowledged"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Starts the server.
    Serve(Serve),
}

#[derive(Args, Default)]
struct Serve {
    /// Port for clients; may be given several times.
    #[arg(short = 'p', long = "port")]
    ports: Vec<u16>,
    /// Address to listen on.
    #[arg(short = 'a', long = "addr")]
    addr: Option<String>,
    /// User that clients must log in as.
    #[arg(long, requires = "pass")]
    user: Option<String>,
    /// Password of that user.
    #[arg(long, requires = "user")]
    pass: Option<String>,
}

impl Serve {
    fn options(self) -> Options {
        let mut options = Options::default();
        if !self.ports.is_empty() {
            options.ports = self.ports;
        }
        if let Some(addr) = self.addr {
            options.host = addr;
        }
        if let (Some(user), Some(password)) = (self.user, self.pass) {
            let user = UserOptions {
                user,
                password,
                ..UserOptions::default()
            };
            options.auth = AuthOptions {
                users: vec![user],
                ..AuthOptions::default()
            };
        }
        options
    }
}

fn main() -> ExitCode {
    let Command::Serve(serve) = Cli::parse()
        .command
        .unwrap_or_else(|| Command::Serve(Serve::default()));
    match run(serve.options()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("menes: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    let server = Server::start(options)?;
    for address in server.addresses() {
        eprintln!("Listening for client connections on {address}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted?,
            _ = terminate.recv() => {}
        }
        server.shutdown().await;
        Ok(())
    })
}
