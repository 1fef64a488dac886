//! VirtualStack: the one binary. It parses, loads the settings, starts roles and drains; what they do is in their crates.

mod admin;
mod cli;
mod config;
mod crash;
mod data_folder;
mod given;
mod ops;
mod ranges;
mod roles;
mod signals;
mod telemetry;
mod up;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

/// Gives memory back after a burst, and takes less of every call than the system's; see `make bench`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code of wrong settings, as sysexits.h has it.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody takes what is said, the code says it.
            let _ = writeln!(std::io::stderr(), "virtualstack: {error:#}");
            ExitCode::from(if error.is::<given::Wrong>() { USAGE } else { 1 })
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    if let Command::Migrate { print_roles: true } = cli.command {
        return admin::print_roles();
    }
    let config = config::load(cli.config.as_deref(), cli.command.settings())?;
    let metrics = telemetry::install(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Up(arguments) => up::run(config, arguments, metrics).await,
            Command::Server => roles::server(config, metrics).await,
            Command::Gateway => roles::gateway(config, metrics).await,
            Command::Worker => roles::worker(config, metrics).await,
            Command::Migrate { .. } => admin::migrate(config).await,
            Command::Admin(command) => admin::run(config, command).await,
        }
    })
}
