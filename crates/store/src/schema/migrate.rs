//! Roles and migrations. Safe to run twice, and from several processes at once.

use diesel::migration::{Migration, MigrationSource};
use diesel::pg::Pg;
use diesel_async::{AsyncConnection, AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use virtualstack_model::{Error, Result};

use crate::schema::reach;
use crate::tx::error::unavailable;
use crate::tx::store::Config;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations");

/// The script that makes the roles, for an administrator to run where the migrating login may not.
pub const ROLES: &str = include_str!("database_roles.sql");

const MISSING_ROLES: &str = "SELECT count(*) FROM unnest(ARRAY['tenant', 'account', 'system', 'queue', 'simulator']) name \
    WHERE NOT EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles l ON l.oid = m.member \
                      WHERE r.rolname = 'virtualstack_' || name AND l.rolname = 'virtualstack_login')";

const MAY_LOOK: &str = "GRANT SELECT ON public.__diesel_schema_migrations TO virtualstack_system";

/// Makes the roles and brings the schema up to date; the names of the migrations that were run.
pub async fn run(url: &str) -> Result<Vec<String>> {
    let mut connection = connect(url).await?;
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
    let run = harness.run_pending_migrations(MIGRATIONS).map_err(lacking)?;
    let run = run.iter().map(ToString::to_string).collect();
    // Servers and workers look whether the schema is that of their version.
    harness.into_inner().batch_execute(MAY_LOOK).await.map_err(|error| lacking(error.into()))?;
    Ok(run)
}

/// Makes sure that servers and workers can work on a database: it lets them in, in the roles that they work in, and its schema
/// is that of this version or a later one.
pub async fn check(config: &Config) -> Result<()> {
    let url = config.connect_as("virtualstack_login", "");
    let place = reach::place(&url)?;
    let client = reach::connect(&url).await?;
    // Everything in one message, so it is one transaction, and the role ends with it.
    let applied = client
        .simple_query("SET LOCAL ROLE virtualstack_system; SELECT version FROM public.__diesel_schema_migrations")
        .await
        .map_err(|error| unmigrated(&place, &reach::refusal(&error)))?;
    let applied: Vec<_> = applied
        .iter()
        .filter_map(|row| match row {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
        .collect();
    let missing: Vec<_> = versions()?.into_iter().filter(|version| !applied.contains(version)).collect();
    match missing.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(unmigrated(&place, &format!("{} migrations are missing, from {first}", missing.len()))),
    }
}

fn unmigrated(place: &str, why: &str) -> Error {
    Error::precondition(
        "SCHEMA_BEHIND",
        place,
        format!("the schema of the database at {place} is not that of this version ({why}); run: virtualstack migrate"),
    )
}

/// The version of each migration that this version has.
fn versions() -> Result<Vec<String>> {
    let migrations: Vec<Box<dyn Migration<Pg>>> = MIGRATIONS.migrations().map_err(Error::internal)?;
    Ok(migrations.iter().map(|migration| migration.name().version().to_string()).collect())
}

/// What went wrong in a migration; a right that is missing is not a mistake of ours.
fn lacking(source: virtualstack_model::error::Source) -> Error {
    let text = source.to_string();
    if !["permission denied", "must be owner", "must be member"].iter().any(|words| text.contains(words)) {
        return Error::internal(source);
    }
    let told = "this login may not change the schema; migrate_url must name the owner of the database";
    Error::precondition("DATABASE_REFUSES", "database.migrate_url", format!("{told} ({text})"))
}

/// Connects; who cannot is told why.
async fn connect(url: &str) -> Result<AsyncPgConnection> {
    reach::connect(url).await?;
    AsyncPgConnection::establish(url).await.map_err(unavailable)
}

/// Makes a database unless there is one of this name. `url` leads to another database of the cluster.
pub async fn ensure_database(url: &str, name: &str) -> Result<()> {
    let mut connection = connect(url).await?;
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
