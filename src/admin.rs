//! What must work without the API: roles and schema, the first admin, signing keys.

use anyhow::Context as _;
use virtualstack_server::{FirstAdmin, HashCost, bootstrap, rotate_keys, update_permissions};
use virtualstack_store::Store;
use virtualstack_store::schema::migrate;

use crate::cli::{AdminCommand, KeysCommand};
use crate::config::{Config, Wrong};

/// Prints the script that makes the database roles.
#[expect(clippy::print_stdout, reason = "it is what the command is for")]
pub(crate) fn print_roles() -> anyhow::Result<()> {
    print!("{}", migrate::ROLES);
    Ok(())
}

/// Brings roles, schema and permissions up to date.
pub(crate) async fn migrate(config: Config) -> anyhow::Result<()> {
    let database = config.required_database()?;
    let ran = migrate::run(database.migrate_url()).await.context("cannot migrate")?;
    update_permissions(&Store::new(database)?).await.context("cannot update the permissions")?;
    tracing::info!(?ran, "the schema is up to date");
    Ok(())
}

/// Runs an admin command.
pub(crate) async fn run(config: Config, command: AdminCommand) -> anyhow::Result<()> {
    let store = Store::new(config.required_database()?)?;
    match command {
        AdminCommand::FirstAdmin => {
            let missing =
                |key: &str| Wrong(format!("admin.{key}: is required (VIRTUALSTACK_ADMIN_{})", key.to_uppercase()));
            let email = config.admin.email.ok_or_else(|| missing("email"))?;
            let password = config.admin.password.ok_or_else(|| missing("password"))?;
            let admin = FirstAdmin { email, password, demo_tenant: None };
            let made = bootstrap(&store, &admin, HashCost::default()).await?;
            tracing::info!(made, "the provider tenant has its first admin");
            Ok(())
        }
        AdminCommand::Keys(KeysCommand::Rotate { revoke_old }) => {
            let master_key = config.required_master_key()?;
            let rotated = rotate_keys(&store, &master_key, &config.server, revoke_old).await;
            rotated.context("cannot rotate the signing keys")?;
            tracing::info!(revoke_old, "there is a new signing key; servers use it within seconds");
            Ok(())
        }
    }
}
