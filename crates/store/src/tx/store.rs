//! The pool and the ways to a transaction.

use std::time::Duration;

use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use serde::Deserialize;
use virtualstack_model::credential::Credential;
use virtualstack_model::id::{JobId, TenantId};
use virtualstack_model::log::{Actor, Audit, Outcome as AuditOutcome};
use virtualstack_model::{Error, Result};
use virtualstack_queue::{Lease, Outcome};

use crate::tx::error::{CONFLICT, from_diesel, is_fatal, unavailable};
use crate::tx::metrics::Action;
use crate::tx::room::Room;
use crate::tx::scope::{AccountScope, SystemPurpose, SystemScope, TenantScope};
pub use crate::tx::tx_fn::TxFn;
use crate::tx::{AccountTx, Connection, Ending, Read, SystemTx, TenantTx, Write};

/// Tries of a transaction that met another one.
const TRIES: u32 = 5;

/// Repeats a transaction that met another one.
macro_rules! retrying {
    ($action:expr, $transaction:block) => {{
        let mut tries = 1;
        loop {
            match async { $transaction }.await {
                Err(error) if error.reason() == CONFLICT && tries < TRIES => {
                    $action.count_conflict();
                    tokio::time::sleep(Duration::from_millis(u64::from(tries) * 10)).await;
                    tries += 1;
                }
                result => return result,
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
    queue_url: String,
    listen_url: String,
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
        Ok(Self {
            pool: pool(url, config.max_connections, wait)?,
            queue_url,
            listen_url,
            patience: wait,
            room: Room::default(),
        })
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

    /// Whether the database answers, and takes writes.
    pub async fn ping(&self) -> Result<()> {
        self.room.check()?;
        self.open("BEGIN READ ONLY", &Action::of("ping")).await?.end(Ending::Commit).await
    }

    /// Refuses a database whose messages are not in English: some errors are told by their text.
    pub async fn check_language(&self) -> Result<()> {
        let mut connection = self.open("BEGIN READ ONLY", &Action::of("check_language")).await?;
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
        self.read_by("BEGIN READ ONLY", scope, f).await
    }

    /// Reads a tenant's data as it was at one moment, however many queries `f` makes.
    pub async fn read_consistently<T, F>(&self, scope: &TenantScope, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut TenantTx<Read>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Read>, Result<T>>,
    {
        self.read_by("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", scope, f).await
    }

    async fn read_by<T, F>(&self, begin: &str, scope: &TenantScope, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut TenantTx<Read>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Read>, Result<T>>,
    {
        let opening = format!("{begin}; {}", tenant_opening(scope));
        let action = Action::of("read");
        retrying!(action, {
            let mut tx = TenantTx::<Read>::new(self.open(&opening, &action).await?, scope.tenant);
            tx.account = Some(scope.account);
            let done = f(&mut tx).await;
            end(tx.connection, Ending::Commit, done).await
        })
    }

    /// Writes a tenant's data: what `f` does, its audit row and its change rows in one commit, or none of them. A dry run
    /// does all of it and then takes it back.
    pub async fn write<T, F>(&self, scope: &TenantScope, audit: Audit, ending: Ending, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut TenantTx<Write>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Write>, Result<T>>,
    {
        let opening = format!("BEGIN; {}", tenant_opening(scope));
        let action = Action::of(&audit.action);
        retrying!(action, {
            let mut tx = TenantTx::<Write>::new(self.open(&opening, &action).await?, scope.tenant);
            tx.account = Some(scope.account);
            tx.traceparent.clone_from(&audit.traceparent);
            tx.audit = Some(audit.clone());
            let done = match f(&mut tx).await {
                Ok(value) => tx.conclude().await.map(|()| value),
                Err(error) => Err(error),
            };
            end(tx.connection, ending, done).await
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
        let opening = format!(
            "BEGIN; {} SET LOCAL ROLE virtualstack_account; SET LOCAL virtualstack.account_id = '{}'",
            check(&scope.access),
            scope.account()
        );
        let action = Action::of("account");
        retrying!(action, {
            let mut tx = AccountTx { connection: self.open(&opening, &action).await?, account: scope.account() };
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
            SystemPurpose::Platform(access) => format!("BEGIN; {}", check(access)),
            _ => "BEGIN; SET LOCAL ROLE virtualstack_system".to_owned(),
        };
        let action = Action::of(purpose.label());
        retrying!(action, {
            let mut tx = SystemTx { connection: self.open(&opening, &action).await? };
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
        let opening = format!("BEGIN READ ONLY; {}", tenant_role(tenant));
        let action = Action::of(&lease.kind);
        retrying!(action, {
            let mut tx = TenantTx::<Read>::new(self.open(&opening, &action).await?, tenant);
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
        let opening = format!(
            "BEGIN; SET LOCAL ROLE virtualstack_queue; SELECT background_jobs.fence('{}', {}); {}",
            lease.id,
            lease.token,
            tenant_role(tenant)
        );
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
        retrying!(action, {
            let mut tx = TenantTx::<Write>::new(self.open(&opening, &action).await?, tenant);
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
        let opening = format!(
            "BEGIN; SET LOCAL ROLE virtualstack_queue; SELECT background_jobs.fence('{}', {}); SET LOCAL ROLE virtualstack_system",
            lease.id, lease.token
        );
        let action = Action::of(&lease.kind);
        retrying!(action, {
            let mut tx = SystemTx { connection: self.open(&opening, &action).await? };
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
        let opening = format!("BEGIN; {}", tenant_role(tenant));
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
        retrying!(action, {
            let mut tx = TenantTx::<Write>::new(self.open(&opening, &action).await?, tenant);
            tx.audit = Some(audit.clone());
            let done = match f(&mut tx).await {
                Ok(value) => tx.conclude().await.map(|()| value),
                Err(error) => Err(error),
            };
            end(tx.connection, Ending::Commit, done).await
        })
    }

    /// Opens a transaction. Connections that died in the pool are thrown away on the way, as many as there can be. A
    /// database that hangs cannot enforce its own time-outs, so this one is ours.
    async fn open(&self, statements: &str, action: &Action) -> Result<Connection> {
        let mut left = self.pool.status().max_size;
        loop {
            let mut connection = self.acquire().await?;
            action.time(&mut connection);
            let opening = Connection::open(connection, statements);
            match tokio::time::timeout(self.patience, opening).await {
                Ok(Err(error)) if is_fatal(&error) && left > 0 => left -= 1,
                Ok(opened) => {
                    return opened.map(|mut opened| {
                        opened.room = self.room.clone();
                        opened
                    });
                }
                Err(late) => return Err(unavailable(late)),
            }
        }
    }

    async fn acquire(&self) -> Result<Object<AsyncPgConnection>> {
        let wait = metrics::histogram!("virtualstack_database_acquire_seconds");
        let start = std::time::Instant::now();
        let connection = self.pool.get().await.map_err(unavailable);
        wait.record(start.elapsed().as_secs_f64());
        connection
    }
}

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
    let room = connection.room.clone();
    let ended = match done {
        Ok(value) => connection.end(ending).await.map(|()| value),
        Err(error) => {
            connection.rollback().await;
            Err(error)
        }
    };
    room.note(&ended);
    ended
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

/// Statements that check the access a decision rests on, then enter the tenant. Values are typed ids and numbers, so
/// they can stand in the text; one message does it all.
fn tenant_opening(scope: &TenantScope) -> String {
    format!("{} {}", check(scope), tenant_role(scope.tenant))
}

fn check(access: &TenantScope) -> String {
    let TenantScope { tenant, account, user, epoch, .. } = access;
    let assertion = match &access.credential {
        Credential::Session(session) | Credential::Support { session, .. } => {
            format!("iam.assert_access('{session}', '{account}', '{user}', '{tenant}', {epoch})")
        }
        Credential::ApiKey { id, generation, version } => {
            format!("iam.assert_key('{id}', {generation}, {version}, '{account}', '{user}', '{tenant}', {epoch})")
        }
    };
    format!("SET LOCAL ROLE virtualstack_system; SELECT {assertion};")
}

fn tenant_role(tenant: TenantId) -> String {
    format!("SET LOCAL ROLE virtualstack_tenant; SET LOCAL virtualstack.tenant_id = '{tenant}'")
}

/// Jobs of tenants are grouped by tenant.
fn job_tenant(lease: &Lease) -> Result<TenantId> {
    lease.group_key.parse().map_err(Error::internal)
}
