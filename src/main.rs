//! VirtualStack: the one binary. It parses, loads the settings, starts roles and drains; what they do is in their crates.

mod admin;
mod cli;
mod config;
mod crash;
mod ops;
mod roles;
mod telemetry;
mod up;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

/// Gives memory back after a burst, and takes less of every call than the system's; see `make bench`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code of wrong settings, as sysexits.h has it.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        let _ = error.print();
        let code = if error.use_stderr() { i32::from(USAGE) } else { 0 };
        #[expect(clippy::disallowed_methods, reason = "nothing runs yet that would have to be drained")]
        std::process::exit(code)
    });
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("virtualstack: {error:#}");
            ExitCode::from(if error.is::<config::Wrong>() { USAGE } else { 1 })
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    if let Command::Migrate { print_roles: true } = cli.command {
        return admin::print_roles();
    }
    let config = config::load(cli.config.as_deref(), cli.command.settings())?;
    let metrics = telemetry::install(&config.log)?;
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
