//! One PostgreSQL per test run, one database per test, copied from a template that was made once.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use diesel::QueryResult;
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use virtualstack_objects::Objects;
use virtualstack_postgres::PrivatePostgres;
use virtualstack_server::bootstrap;
use virtualstack_store::schema::migrate;
use virtualstack_store::{Config, Store};

use super::first_admin::{first_admin, least_cost};

/// Migrated, and nothing else.
const MIGRATED: &str = "template_migrated";

/// With the first admin and the demo tenant too.
const BOOTSTRAPPED: &str = "template_bootstrapped";

static CLUSTER: OnceCell<PrivatePostgres> = OnceCell::const_new();
static BOOTSTRAP: OnceCell<()> = OnceCell::const_new();
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A database of one test.
#[derive(Clone)]
pub(crate) struct Database {
    name: String,
    /// Kept for the next look: many tests look again and again, and a PostgreSQL process for each costs more than the look.
    looking: Arc<Mutex<Option<AsyncPgConnection>>>,
    /// What a server or worker would be given.
    pub(crate) config: Config,
    /// Where files of templates are kept.
    folder: Arc<TempDir>,
}

impl Database {
    /// The object store that goes with it.
    pub(crate) fn objects(&self) -> Objects {
        let folder = Some(self.folder.path().to_owned());
        Objects::open(&virtualstack_objects::Config { folder, ..Default::default() }).expect("a folder")
    }

    /// The files that the objects are.
    pub(crate) fn object_files(&self) -> Vec<PathBuf> {
        let (mut folders, mut files) = (vec![self.folder.path().to_owned()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files
    }

    /// The keys of the objects.
    pub(crate) fn object_keys(&self) -> Vec<String> {
        let key = |file: PathBuf| Some(file.strip_prefix(self.folder.path()).ok()?.to_str()?.to_owned());
        self.object_files().into_iter().filter_map(key).collect()
    }

    /// A migrated database that nobody else uses.
    pub(crate) async fn new() -> Self {
        Self::copy_of(MIGRATED).await
    }

    /// One with the first admin and the demo tenant, whose password was hashed at the least cost.
    pub(crate) async fn bootstrapped() -> Self {
        let make = async || {
            let database = Self::named(BOOTSTRAPPED.to_owned(), MIGRATED).await;
            let store = Store::new(&database.config).expect("a store");
            bootstrap(&store, &first_admin(), least_cost()).await.expect("a first admin");
            // PostgreSQL copies no database that somebody is connected to.
            drop(store);
            connect(&cluster().await.admin_url("postgres"))
                .await
                .batch_execute(&format!(
                    "ALTER DATABASE {BOOTSTRAPPED} ALLOW_CONNECTIONS false; \
                 SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{BOOTSTRAPPED}'"
                ))
                .await
                .expect("a template");
        };
        BOOTSTRAP.get_or_init(make).await;
        Self::copy_of(BOOTSTRAPPED).await
    }

    /// A database with nothing in it.
    pub(crate) async fn empty() -> Self {
        Self::copy_of("template0").await
    }

    /// An empty database whose owner is no superuser and may not make roles, as a provider's DBA would give it.
    pub(crate) async fn of_plain_owner() -> Self {
        let mut database = Self::empty().await;
        let owner = format!("owner_of_{}", database.name);
        let mut admin = database.admin().await;
        let statements =
            format!("CREATE ROLE {owner} LOGIN NOCREATEROLE; ALTER DATABASE {} OWNER TO {owner}", database.name);
        admin.batch_execute(&statements).await.expect("an owner");
        database.config.migrate_url = Some(cluster().await.url(&owner, &database.name));
        database
    }

    async fn copy_of(template: &str) -> Self {
        Self::named(format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed)), template).await
    }

    async fn named(name: String, template: &str) -> Self {
        let cluster = cluster().await;
        let mut admin = connect(&cluster.admin_url("postgres")).await;
        admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await.expect("a database");
        let config = Config {
            url: cluster.url("virtualstack_login", &name),
            migrate_url: Some(cluster.admin_url(&name)),
            max_connections: 8,
            // A hundred may ask at once, on a machine that runs other tests too.
            acquire_timeout_ms: 30_000,
            ..Config::default()
        };
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        Self { name, looking: Arc::default(), config, folder }
    }

    /// A connection that may do everything, to look and to break things.
    pub(crate) async fn admin(&self) -> AsyncPgConnection {
        connect(&cluster().await.admin_url(&self.name)).await
    }

    /// Uses the kept connection, or one of its own where that is in use. One that an error or a panic has left is not kept.
    async fn look<T>(&self, f: impl AsyncFnOnce(&mut AsyncPgConnection) -> QueryResult<T>) -> QueryResult<T> {
        let kept = self.looking.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut connection = match kept {
            Some(kept) => kept,
            None => self.admin().await,
        };
        let seen = f(&mut connection).await;
        if seen.is_ok() {
            self.looking.lock().unwrap_or_else(PoisonError::into_inner).replace(connection);
        }
        seen
    }

    /// Runs statements as the superuser.
    pub(crate) async fn execute(&self, statements: &str) {
        self.look(async |connection| connection.batch_execute(statements).await).await.expect("statements");
    }

    /// The one number that a query gives.
    pub(crate) async fn count(&self, query: &str) -> i64 {
        use diesel_async::RunQueryDsl;
        let number = diesel::dsl::sql::<diesel::sql_types::BigInt>(&format!("({query})"));
        self.look(async |connection| diesel::select(number).get_result(connection).await).await.expect("a number")
    }

    /// How many rows a statement changes.
    pub(crate) async fn changed(&self, statement: &str) -> usize {
        use diesel_async::RunQueryDsl;
        self.look(async |connection| diesel::sql_query(statement).execute(connection).await).await.expect("a change")
    }

    /// The rows of a query.
    pub(crate) async fn rows<T: serde::de::DeserializeOwned>(&self, query: &str) -> Vec<T> {
        use diesel_async::RunQueryDsl;
        let rows = format!("(SELECT coalesce(json_agg(found), '[]')::text FROM ({query}) found)");
        let rows = diesel::dsl::sql::<diesel::sql_types::Text>(&rows);
        let rows: String =
            self.look(async |connection| diesel::select(rows).get_result(connection).await).await.expect("rows");
        serde_json::from_str(&rows).expect("rows of this form")
    }
}

async fn connect(url: &str) -> AsyncPgConnection {
    AsyncPgConnection::establish(url).await.expect("a connection")
}

async fn cluster() -> &'static PrivatePostgres {
    CLUSTER
        .get_or_init(|| async {
            let cluster = tokio::task::spawn_blocking(PrivatePostgres::temporary).await.expect("no panic");
            let cluster = cluster.expect("a cluster");
            migrate::ensure_database(&cluster.admin_url("postgres"), MIGRATED).await.expect("a template");
            migrate::run(&cluster.admin_url(MIGRATED)).await.expect("migrations");
            cluster
        })
        .await
}
