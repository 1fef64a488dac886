//! The pool and the ways to a transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel_async::methods::LoadQuery;
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use serde::Deserialize;
use tokio::sync::Mutex;
use virtualstack_model::id::{JobId, TenantId};
use virtualstack_model::log::{Actor, Audit, Outcome as AuditOutcome};
use virtualstack_model::{Error, Result};
use virtualstack_queue::{Lease, Outcome};

use crate::digest::DigestKeys;
use crate::seal::MasterKey;
use crate::tx::error::{CONFLICT, from_diesel, is_fatal, unavailable};
use crate::tx::metrics::Action;
use crate::tx::room::Room;
use crate::tx::scope::{AccountScope, SystemPurpose, SystemScope, TenantScope};
use crate::tx::shares::{Share, Shares};
use crate::tx::statement::Cost;
pub use crate::tx::tx_fn::TxFn;
use crate::tx::{AccountTx, Connection, Ending, Leased, Opening, Read, SystemTx, TenantTx, Write};

/// Tries of a transaction that met another one.
const TRIES: u32 = 5;

/// Repeats a transaction that met another one.
macro_rules! retrying {
    ($store:ident, $action:expr, $transaction:block) => {{
        let mut tries = 1;
        loop {
            match async { $transaction }.await {
                Err(error) if error.reason() == CONFLICT && tries < TRIES => {
                    $action.count_conflict();
                    tokio::time::sleep(Duration::from_millis(u64::from(tries) * 10)).await;
                    tries += 1;
                }
                result => {
                    $store.room.note(&result);
                    return result;
                }
            }
        }
    }};
}

/// Settings of the database.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where servers and workers connect, as the login role.
    pub url: String,
    /// Where migrations connect, as the owner of the schema; by default as `url` says.
    pub migrate_url: Option<String>,
    /// Connections of this process at most.
    pub max_connections: usize,
    /// Milliseconds that one statement may take.
    pub statement_timeout_ms: u32,
    /// Milliseconds that a request waits for a free connection.
    pub acquire_timeout_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: String::new(),
            migrate_url: None,
            max_connections: 16,
            statement_timeout_ms: 10_000,
            acquire_timeout_ms: 3_000,
        }
    }
}

impl Config {
    /// Connection string that starts in a role: also when `url` names a mightier login, we work as the one that owns
    /// nothing and can read nothing.
    pub(crate) fn connect_as(&self, role: &str, settings: &str) -> String {
        let options = format!("-c role={role} {settings}");
        let url = &self.url;
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let separator = if url.contains('?') { '&' } else { '?' };
            format!("{url}{separator}options={}", options.trim().replace(' ', "%20").replace('=', "%3D"))
        } else {
            format!("{url} options='{}'", options.trim())
        }
    }

    /// Where migrations connect.
    #[must_use]
    pub fn migrate_url(&self) -> &str {
        self.migrate_url.as_deref().unwrap_or(&self.url)
    }
}

/// The database, behind its scopes.
#[derive(Clone)]
pub struct Store {
    pool: Pool<AsyncPgConnection>,
    shares: Shares,
    digests: DigestKeys,
    health: Arc<Health>,
    queue_url: Arc<str>,
    listen_url: Arc<str>,
    /// How long the first answer of a connection may take.
    patience: Duration,
    /// Whether writes are taken.
    room: Room,
}

impl Store {
    /// Makes the pool; connects when it is first used.
    pub fn new(config: &Config) -> Result<Self> {
        let timeout = config.statement_timeout_ms;
        let url = config.connect_as(
            "virtualstack_login",
            &format!("-c statement_timeout={timeout} -c idle_in_transaction_session_timeout={timeout} -c lock_timeout={timeout}"),
        );
        let wait = Duration::from_millis(config.acquire_timeout_ms);
        let queue_url = config.connect_as("virtualstack_queue", "-c statement_timeout=10000");
        let listen_url = config.connect_as("virtualstack_login", "");
        let shares = Shares::new(config.max_connections);
        let health = Arc::new(Health { pool: pool(url.clone(), 1, wait)?, last: Mutex::default() });
        Ok(Self {
            pool: pool(url, config.max_connections, wait)?,
            shares,
            // Good for this process alone, until it is keyed.
            digests: MasterKey::generate()?.digests()?,
            health,
            queue_url: queue_url.into(),
            listen_url: listen_url.into(),
            patience: wait,
            room: Room::default(),
        })
    }

    /// The same with digests that are good for all who hold the master key.
    pub fn keyed(self, key: &MasterKey) -> Result<Self> {
        Ok(Self { digests: key.digests()?, ..self })
    }

    /// What digests are keyed with.
    #[must_use]
    pub fn digests(&self) -> &DigestKeys {
        &self.digests
    }

    /// Where the queue's runner connects: as the role that works on jobs and sees nothing else.
    #[must_use]
    pub fn queue_url(&self) -> &str {
        &self.queue_url
    }

    /// Where to listen for notifications: as the role that can read nothing.
    pub(crate) fn listen_url(&self) -> &str {
        &self.listen_url
    }

    /// Whether the database answers, and takes writes. It is asked on a connection of its own, and once for all who want to know, so that it
    /// depends neither on the load nor on who asks how often.
    pub async fn ping(&self) -> Result<()> {
        self.room.check()?;
        let mut last = self.health.last.lock().await;
        if last.is_some_and(|last: Instant| last.elapsed() < FRESH) {
            return Ok(());
        }
        let ask = async || {
            let leased = Leased::new(self.health.pool.get().await.map_err(unavailable)?, None);
            let opened = Connection::open(leased, &Opening::bare().reading()).await;
            opened.map_err(|(error, _)| error)?.end(Ending::Commit).await
        };
        let asked = match ask().await {
            // The connection died since; another one is made.
            Err(error) if is_fatal(&error) => ask().await,
            asked => asked,
        };
        *last = asked.is_ok().then(Instant::now);
        asked
    }

    /// Refuses a database whose messages are not in English: some errors are told by their text.
    pub async fn check_language(&self) -> Result<()> {
        let action = Action::of("check_language");
        let mut connection = self.open(&Opening::bare().reading(), None, &action).await?;
        let setting = diesel::sql_query("SELECT current_setting('lc_messages') AS language");
        let read = async { setting.get_result::<Language>(connection.get()?).await.map_err(from_diesel) };
        let read = read.await;
        let Language { language } = end(connection, Ending::Commit, read).await?;
        let name = language.split(['_', '.']).next().unwrap_or_default();
        if ["C", "POSIX", "en", "English"].contains(&name) {
            return Ok(());
        }
        Err(Error::precondition(
            "DATABASE_LANGUAGE",
            "virtualstack_login",
            format!(
                "messages of the database are in another language (lc_messages is {language:?}); \
                 let a superuser run: ALTER ROLE virtualstack_login SET lc_messages = 'C'"
            ),
        ))
    }

    /// Reads a tenant's data. Repeats `f` when the transaction meets another one.
    pub async fn read<T, F>(&self, scope: &TenantScope, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut TenantTx<Read>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Read>, Result<T>>,
    {
        self.read_by(&Opening::tenant(scope).reading(), scope, f).await
    }

    /// Reads a tenant's data as it was at one moment, however many queries `f` makes.
    pub async fn read_consistently<T, F>(&self, scope: &TenantScope, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut TenantTx<Read>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Read>, Result<T>>,
    {
        self.read_by(&Opening::tenant(scope).reading_consistently(), scope, f).await
    }

    async fn read_by<T, F>(&self, opening: &Opening, scope: &TenantScope, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut TenantTx<Read>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Read>, Result<T>>,
    {
        let action = Action::of("read");
        retrying!(self, action, {
            let share = self.shares.of_member(scope).await?;
            let mut tx = TenantTx::<Read>::new(self.open(opening, Some(share), &action).await?, scope.tenant);
            tx.account = Some(scope.account);
            let done = f(&mut tx).await;
            end(tx.connection, Ending::Commit, done).await
        })
    }

    /// See [`Self::single`].
    pub(crate) async fn read_one<T, Q>(
        &self,
        scope: &TenantScope,
        cost: Cost,
        query: impl Fn() -> Result<Q> + Send,
    ) -> Result<Vec<T>>
    where
        T: Send,
        Q: for<'c> LoadQuery<'static, &'c AsyncPgConnection, T> + Send + 'static,
    {
        let (opening, action) = (Opening::tenant(scope).reading(), Action::of("read"));
        let mut left = self.pool.status().max_size;
        loop {
            let query = query()?;
            let leased = self.lease(Some(self.shares.of_member(scope).await?), &action).await?;
            let read = Connection::read_one(leased, &opening, cost, query);
            match read.await {
                // The connection died in the pool.
                Err(error) if is_fatal(&error) && left > 0 => left -= 1,
                done => return done,
            }
        }
    }

    /// Writes a tenant's data: what `f` does, its audit row and its change rows in one commit, or none of them. A dry run
    /// does all of it and then takes it back.
    pub async fn write<T, F>(&self, scope: &TenantScope, audit: Audit, ending: Ending, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut TenantTx<Write>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Write>, Result<T>>,
    {
        let opening = Opening::tenant(scope);
        let action = Action::of(&audit.action);
        retrying!(self, action, {
            let share = self.shares.of_member(scope).await?;
            let mut tx = TenantTx::<Write>::new(self.open(&opening, Some(share), &action).await?, scope.tenant);
            tx.account = Some(scope.account);
            tx.traceparent.clone_from(&audit.traceparent);
            tx.audit = Some(audit.clone());
            finish(tx, ending, &f).await
        })
    }

    /// Works on what belongs to an account.
    pub async fn account<T, F>(&self, scope: &AccountScope, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut AccountTx) -> Result<T> + for<'r> TxFn<&'r mut AccountTx, Result<T>>,
    {
        self.account_ending(scope, Ending::Commit, f).await
    }

    /// The same for a request that may be a dry run.
    pub async fn account_ending<T, F>(&self, scope: &AccountScope, ending: Ending, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut AccountTx) -> Result<T> + for<'r> TxFn<&'r mut AccountTx, Result<T>>,
    {
        let opening = Opening::account(scope);
        let action = Action::of("account");
        retrying!(self, action, {
            let share = self.shares.of_member(&scope.access).await?;
            let connection = self.open(&opening, Some(share), &action).await?;
            let mut tx = AccountTx { connection, account: scope.account() };
            let done = f(&mut tx).await;
            end(tx.connection, ending, done).await
        })
    }

    /// Works across tenants, for a written purpose.
    pub async fn system<T, F>(&self, scope: SystemScope, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut SystemTx) -> Result<T> + for<'r> TxFn<&'r mut SystemTx, Result<T>>,
    {
        self.system_ending(scope, Ending::Commit, f).await
    }

    /// The same for a request that may be a dry run.
    pub async fn system_ending<T, F>(&self, scope: SystemScope, ending: Ending, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut SystemTx) -> Result<T> + for<'r> TxFn<&'r mut SystemTx, Result<T>>,
    {
        let SystemScope { purpose } = scope;
        let opening = match &purpose {
            SystemPurpose::Platform(access) => Opening::platform(access),
            _ => Opening::system(),
        };
        let action = Action::of(purpose.label());
        retrying!(self, action, {
            let share = self.shares.of_purpose(&purpose).await?;
            let mut tx = SystemTx { connection: self.open(&opening, share, &action).await? };
            let done = f(&mut tx).await;
            end(tx.connection, ending, done).await
        })
    }

    /// Reads the tenant of a claimed job. Not fenced: whatever comes of it is written by a fenced commit.
    pub async fn read_for_job<T, F>(&self, lease: &Lease, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut TenantTx<Read>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Read>, Result<T>>,
    {
        let tenant = job_tenant(lease)?;
        let opening = Opening::system_in(tenant).reading();
        let action = Action::of(&lease.kind);
        retrying!(self, action, {
            let mut tx = TenantTx::<Read>::new(self.open(&opening, None, &action).await?, tenant);
            let done = f(&mut tx).await;
            end(tx.connection, Ending::Commit, done).await
        })
    }

    /// Writes one step of a claimed job: what `f` does, the logs, and where the job stands then, in one commit. It first
    /// locks the job by its fencing token, so a worker whose lease was taken over cannot write.
    pub async fn write_for_job<T, F>(&self, lease: &Lease, action: &str, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut TenantTx<Write>) -> Result<(T, Outcome)>
            + for<'r> TxFn<&'r mut TenantTx<Write>, Result<(T, Outcome)>>,
    {
        let tenant = job_tenant(lease)?;
        let opening = Opening::job(lease, Some(tenant));
        let audit = Audit {
            action: action.to_owned(),
            actor: Actor::System("worker"),
            resource: JobId(lease.id).name(),
            request_id: lease.id.to_string(),
            client_address: None,
            traceparent: None,
            outcome: AuditOutcome::Done,
        };
        let action = Action::of(action);
        retrying!(self, action, {
            let mut tx = TenantTx::<Write>::new(self.open(&opening, None, &action).await?, tenant);
            tx.audit = Some(audit.clone());
            tx.traceparent.clone_from(&lease.traceparent);
            let done = match f(&mut tx).await {
                Ok((value, outcome)) => settle(&mut tx, lease, &outcome).await.map(|()| value),
                Err(error) => Err(error),
            };
            end(tx.connection, Ending::Commit, done).await
        })
    }

    /// Settles a claimed job that has no tenant, together with what `f` does across tenants.
    pub async fn system_for_job<T, F>(&self, lease: &Lease, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut SystemTx) -> Result<(T, Outcome)> + for<'r> TxFn<&'r mut SystemTx, Result<(T, Outcome)>>,
    {
        let opening = Opening::job(lease, None);
        let action = Action::of(&lease.kind);
        retrying!(self, action, {
            let mut tx = SystemTx { connection: self.open(&opening, None, &action).await? };
            let done = match f(&mut tx).await {
                Ok((value, outcome)) => settle_job(&mut tx.connection, lease, &outcome).await.map(|()| value),
                Err(error) => Err(error),
            };
            end(tx.connection, Ending::Commit, done).await
        })
    }

    /// A tenant transaction of the system's own, for reconcilers that have found the tenant by themselves.
    pub async fn write_as_system<T, F>(&self, _scope: &SystemScope, tenant: TenantId, action: &str, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut TenantTx<Write>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Write>, Result<T>>,
    {
        let opening = Opening::system_in(tenant);
        let audit = Audit {
            action: action.to_owned(),
            actor: Actor::System("reconciler"),
            resource: tenant.name(),
            request_id: String::new(),
            client_address: None,
            traceparent: None,
            outcome: AuditOutcome::Done,
        };
        let action = Action::of(action);
        retrying!(self, action, {
            let mut tx = TenantTx::<Write>::new(self.open(&opening, None, &action).await?, tenant);
            tx.audit = Some(audit.clone());
            finish(tx, Ending::Commit, &f).await
        })
    }

    /// Opens a transaction. Connections that died in the pool are thrown away on the way, as many as there can be. A
    /// database that hangs cannot enforce its own time-outs, so this one is ours.
    async fn open(&self, opening: &Opening, mut share: Option<Share>, action: &Action) -> Result<Connection> {
        let mut left = self.pool.status().max_size;
        loop {
            let leased = self.lease(share.take(), action).await?;
            let opened = tokio::time::timeout(self.patience, Connection::open(leased, opening)).await;
            match opened.unwrap_or_else(|late| Err((unavailable(late), None))) {
                Err((error, kept)) if is_fatal(&error) && left > 0 => {
                    left -= 1;
                    share = kept;
                }
                Err((error, _)) => return Err(error),
                Ok(opened) => return Ok(opened),
            }
        }
    }

    /// A connection of the pool, for whoever has this share of it.
    async fn lease(&self, share: Option<Share>, action: &Action) -> Result<Leased> {
        let wait = metrics::histogram!("virtualstack_database_acquire_seconds");
        let start = Instant::now();
        let connection = if self.pool.status().available > 0 {
            self.pool.get().await.map_err(unavailable)
        } else {
            // To connect takes longer than some callers wait: who goes away must not take the connection along.
            let pool = self.pool.clone();
            let connecting = tokio::spawn(async move { pool.get().await });
            connecting.await.map_err(Error::internal).and_then(|got| got.map_err(unavailable))
        };
        wait.record(start.elapsed().as_secs_f64());
        let mut connection = connection?;
        action.time(&mut connection);
        Ok(Leased::new(connection, share).keyed(&self.digests))
    }
}

/// How it was known whether the database answers.
struct Health {
    pool: Pool<AsyncPgConnection>,
    /// When it did last.
    last: Mutex<Option<Instant>>,
}

/// For so long an answer is good.
const FRESH: Duration = Duration::from_millis(250);

#[derive(diesel::QueryableByName)]
struct Language {
    #[diesel(sql_type = diesel::sql_types::Text)]
    language: String,
}

/// A pool of connections to `url`.
pub(crate) fn pool(url: String, size: usize, wait: Duration) -> Result<Pool<AsyncPgConnection>> {
    let mut manager = ManagerConfig::default();
    // No ping before each use: a dead connection shows itself when the transaction opens, and is replaced then.
    manager.recycling_method = RecyclingMethod::Fast;
    Pool::builder(AsyncDieselConnectionManager::new_with_config(url, manager))
        .max_size(size)
        .runtime(deadpool::Runtime::Tokio1)
        .wait_timeout(Some(wait))
        .create_timeout(Some(wait))
        .recycle_timeout(Some(wait))
        .build()
        .map_err(Error::internal)
}

async fn end<T>(connection: Connection, ending: Ending, done: Result<T>) -> Result<T> {
    match done {
        Ok(value) => connection.end(ending).await.map(|()| value),
        Err(error) => {
            connection.rollback().await;
            Err(error)
        }
    }
}

/// Does `f`, writes the logs and ends the transaction.
async fn finish<T, F>(mut tx: TenantTx<Write>, ending: Ending, f: &F) -> Result<T>
where
    F: AsyncFn(&mut TenantTx<Write>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Write>, Result<T>>,
{
    match f(&mut tx).await {
        Ok(value) => tx.end(ending).await.map(|()| value),
        Err(error) => {
            tx.connection.rollback().await;
            Err(error)
        }
    }
}

async fn settle(tx: &mut TenantTx<Write>, lease: &Lease, outcome: &Outcome) -> Result<()> {
    // A step that only looked again, or got a little further, changes nothing that anybody would ask about.
    if tx.changes.iter().all(|change| change.fields.is_null()) {
        tx.audit = None;
    }
    tx.conclude().await?;
    settle_job(&mut tx.connection, lease, outcome).await
}

async fn settle_job(connection: &mut Connection, lease: &Lease, outcome: &Outcome) -> Result<()> {
    use diesel_async::SimpleAsyncConnection;
    let connection = connection.get()?;
    connection.batch_execute("SET LOCAL ROLE virtualstack_queue").await.map_err(from_diesel)?;
    virtualstack_queue::settle(connection, lease, outcome).await.map_err(from_diesel)
}

/// Jobs of tenants are grouped by tenant.
fn job_tenant(lease: &Lease) -> Result<TenantId> {
    lease.group_key.parse().map_err(Error::internal)
}
