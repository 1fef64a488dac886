//! Roles and migrations. Safe to run twice, and from several processes at once.

use diesel_async::{AsyncConnection, AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use virtualstack_model::{Error, Result};

use crate::tx::error::unavailable;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations");

/// The script that makes the roles, for an administrator to run where the migrating login may not.
pub const ROLES: &str = include_str!("database_roles.sql");

const MISSING_ROLES: &str = "SELECT count(*) FROM unnest(ARRAY['tenant', 'account', 'system', 'queue', 'simulator']) name \
    WHERE NOT EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles l ON l.oid = m.member \
                      WHERE r.rolname = 'virtualstack_' || name AND l.rolname = 'virtualstack_login')";

/// Makes the roles and brings the schema up to date; the names of the migrations that were run.
pub async fn run(url: &str) -> Result<Vec<String>> {
    let mut connection = AsyncPgConnection::establish(url).await.map_err(unavailable)?;
    // One process at a time; the lock ends with the connection.
    connection
        .batch_execute("SELECT pg_advisory_lock(hashtext('virtualstack.migrate'))")
        .await
        .map_err(Error::internal)?;
    let missing: i64 = diesel::select(diesel::dsl::sql::<diesel::sql_types::BigInt>(&format!("({MISSING_ROLES})")))
        .get_result(&mut connection)
        .await
        .map_err(Error::internal)?;
    if missing > 0
        && let Err(error) = connection.batch_execute(ROLES).await
    {
        return Err(Error::precondition(
            "ROLES_MISSING",
            "virtualstack_login",
            format!(
                "database roles are missing and this login may not create them ({error}); \
                 let an administrator run the script of `virtualstack migrate --print-roles`"
            ),
        ));
    }
    let mut harness = AsyncMigrationHarness::new(connection);
    let run = harness.run_pending_migrations(MIGRATIONS).map_err(Error::internal)?;
    Ok(run.iter().map(ToString::to_string).collect())
}

/// Makes a database unless there is one of this name. `url` leads to another database of the cluster.
pub async fn ensure_database(url: &str, name: &str) -> Result<()> {
    let mut connection = AsyncPgConnection::establish(url).await.map_err(unavailable)?;
    let exists: bool = diesel::select(diesel::dsl::sql::<diesel::sql_types::Bool>(&format!(
        "EXISTS (SELECT FROM pg_database WHERE datname = '{name}')"
    )))
    .get_result(&mut connection)
    .await
    .map_err(Error::internal)?;
    if !exists {
        connection.batch_execute(&format!("CREATE DATABASE {name}")).await.map_err(Error::internal)?;
    }
    Ok(())
}
