//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum as _};

use crate::config::HypervisorKind;

/// A multi-tenant control plane for self-service VMs.
#[derive(Debug, Parser)]
#[command(name = "virtualstack", version)]
pub(crate) struct Cli {
    /// Settings file; ./virtualstack.toml if it is there.
    #[arg(long, global = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Everything in one process, with a PostgreSQL of its own unless told otherwise.
    Up(UpArguments),
    /// The gRPC server.
    Server,
    /// REST in front of it.
    Gateway,
    /// What does the work.
    Worker,
    /// Brings roles and schema up to date.
    Migrate {
        /// Print the script that makes the roles, for an administrator to run.
        #[arg(long)]
        print_roles: bool,
    },
    /// What must work without the API.
    #[command(subcommand)]
    Admin(AdminCommand),
}

#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// Folder of everything that is kept.
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where gRPC and grpc-web listen; port 0 picks a free one.
    #[arg(long)]
    pub(crate) grpc_addr: Option<SocketAddr>,
    /// Where REST listens; port 0 picks a free one.
    #[arg(long)]
    pub(crate) http_addr: Option<SocketAddr>,
    /// Where health and metrics listen; port 0 picks a free one.
    #[arg(long)]
    pub(crate) ops_addr: Option<SocketAddr>,
    /// A PostgreSQL to use instead of a private one.
    #[arg(long)]
    pub(crate) database_url: Option<String>,
    #[arg(long)]
    pub(crate) hypervisor: Option<HypervisorKind>,
    /// Where to write addresses and credentials, as JSON, once everything serves.
    #[arg(long)]
    pub(crate) ready_file: Option<PathBuf>,
}

impl Command {
    /// The settings that the arguments stand for: keys, flags and values.
    pub(crate) fn settings(&self) -> Vec<(&'static str, &'static str, String)> {
        let Self::Up(arguments) = self else { return Vec::new() };
        let kind = |kind: &HypervisorKind| kind.to_possible_value().map(|value| value.get_name().to_owned());
        [
            ("data_dir", "--data-dir", arguments.data_dir.as_ref().map(|path| path.display().to_string())),
            ("server.listen", "--grpc-addr", arguments.grpc_addr.map(|address| address.to_string())),
            ("gateway.listen", "--http-addr", arguments.http_addr.map(|address| address.to_string())),
            ("ops.listen", "--ops-addr", arguments.ops_addr.map(|address| address.to_string())),
            ("database.url", "--database-url", arguments.database_url.clone()),
            ("hypervisor.kind", "--hypervisor", arguments.hypervisor.as_ref().and_then(kind)),
        ]
        .into_iter()
        .filter_map(|(key, flag, value)| Some((key, flag, value?)))
        .collect()
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Makes the provider tenant and its first admin, from VIRTUALSTACK_ADMIN_EMAIL and VIRTUALSTACK_ADMIN_PASSWORD.
    FirstAdmin,
    /// Gives an account a new password and ends its sessions: that of VIRTUALSTACK_ADMIN_PASSWORD, or one that is made and
    /// shown. Works on the database of the settings, or on that of an `up` that runs.
    ResetPassword {
        /// The account's address.
        email: String,
    },
    /// Prints a mail as its reader would get it, with made-up contents; without a name, which mails there are.
    MailPreview {
        /// Which mail.
        mail: Option<String>,
        /// Its language: en or de.
        #[arg(long, default_value = "en")]
        language: String,
        /// Print the HTML instead of the text.
        #[arg(long)]
        html: bool,
    },
    /// The keys that access tokens are signed with.
    #[command(subcommand)]
    Keys(KeysCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Makes a new key. The old ones verify what they have signed until it expires.
    Rotate {
        /// The old ones verify nothing any more: for a key that somebody else may have. Sessions go on by a refresh.
        #[arg(long)]
        revoke_old: bool,
    },
}
