//! Transactions: what query functions take as their first parameter.

mod connection;
mod ending;
pub mod error;
mod log;
pub mod metrics;
mod opening;
pub mod reader;
mod room;
pub mod scope;
mod shares;
mod single;
pub mod statement;
pub mod store;
mod tx_fn;

use std::marker::PhantomData;

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use virtualstack_model::iam::access::Access;
use virtualstack_model::id::{AccountId, JobId, TenantId};
use virtualstack_model::jobs::Job;
use virtualstack_model::log::{Audit, Change, Tally};
use virtualstack_model::{Error, Result};
use virtualstack_queue::NewJob;

pub(crate) use crate::tx::connection::{Connection, Leased};
pub use crate::tx::ending::Ending;
use crate::tx::error::from_diesel;
pub(crate) use crate::tx::opening::Opening;
use crate::tx::tx_fn::TxFn;

/// The etag of a row: it changes with each change of the row.
pub(crate) fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

/// Whether a tenant transaction may write.
pub trait Mode: Send + Sync + 'static {}

/// Reads only, in SQL too.
#[derive(Debug)]
pub struct Read;

/// Reads and writes.
#[derive(Debug)]
pub struct Write;

impl Mode for Read {}
impl Mode for Write {}

/// A transaction on the data of one tenant.
pub struct TenantTx<M> {
    pub(crate) connection: Connection,
    pub(crate) tenant: TenantId,
    pub(crate) account: Option<AccountId>,
    pub(crate) audit: Option<Audit>,
    pub(crate) asked_by: Option<String>,
    pub(crate) changes: Vec<Change>,
    pub(crate) releases: Vec<JobId>,
    pub(crate) traceparent: Option<String>,
    pub(crate) access: Option<Access>,
    pub(crate) mode: PhantomData<M>,
}

impl<M> TenantTx<M> {
    pub(crate) fn new(connection: Connection, tenant: TenantId) -> Self {
        Self {
            connection,
            tenant,
            account: None,
            audit: None,
            asked_by: None,
            changes: Vec::new(),
            releases: Vec::new(),
            traceparent: None,
            access: None,
            mode: PhantomData,
        }
    }
}

impl<M: Mode> TenantTx<M> {
    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    pub(crate) fn connection(&mut self) -> Result<&mut AsyncPgConnection> {
        self.connection.get()
    }

    /// The same transaction, to read in, for what does not care whether it may write. [`Self::take_back`] goes on; without
    /// it the transaction is lost.
    pub fn lend(&mut self) -> TenantTx<Read> {
        TenantTx::new(self.connection.take(), self.tenant)
    }

    /// Goes on with what was lent.
    pub fn take_back(&mut self, lent: TenantTx<Read>) {
        self.connection = lent.connection;
    }

    /// Does `f` as the system in the same transaction, for the few rows of other scopes that a tenant's transaction
    /// touches, e.g. the account of somebody who is invited.
    pub(crate) async fn as_system<T, F>(&mut self, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut SystemTx) -> Result<T> + for<'r> TxFn<&'r mut SystemTx, Result<T>>,
    {
        as_system(&mut self.connection, "virtualstack_tenant", f).await
    }
}

impl TenantTx<Write> {
    /// Appends to the change log, in this commit.
    pub fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Says which resource the audit row is about, once it is known.
    pub fn audit_resource(&mut self, name: impl Into<String>) {
        if let Some(audit) = &mut self.audit {
            audit.resource = name.into();
        }
    }

    /// Says who asked for what the system does here: the change log tells them as the actor, the audit log the system.
    pub fn asked_by(&mut self, actor: &str) {
        self.asked_by = Some(actor.to_owned());
    }

    /// Full name of who acts.
    #[must_use]
    pub fn actor(&self) -> String {
        let audited = || self.audit.as_ref().map_or_else(|| "system".to_owned(), |audit| audit.actor.name());
        self.asked_by.clone().unwrap_or_else(audited)
    }

    /// The caller's access, as it was decided again in this transaction.
    pub fn access(&self) -> Result<Access> {
        self.access.clone().ok_or_else(|| Error::internal("the access was not decided again in this transaction"))
    }

    /// Puts a job in its queue, due now or once [`Self::release`]d.
    pub async fn enqueue<J: Job>(&mut self, id: JobId, job: &J, due: Due) -> Result<()> {
        let job = NewJob {
            id: id.0,
            queue: J::QUEUE,
            kind: J::KIND,
            group_key: self.tenant.to_string(),
            payload: serde_json::to_value(job).map_err(Error::internal)?,
            max_attempts: J::MAX_ATTEMPTS,
            held: matches!(due, Due::Held),
            unique_key: None,
            traceparent: self.traceparent.clone(),
        };
        virtualstack_queue::insert(self.connection()?, &job).await.map_err(from_diesel)
    }

    /// Makes a job due with this commit that waits for something, or for its next try.
    pub(crate) fn release(&mut self, job: JobId) {
        self.releases.push(job);
    }

    /// Releases jobs and writes the logs; last the change log, whose head others wait for until the commit.
    pub(crate) async fn conclude(&mut self) -> Result<()> {
        self.release_jobs().await?;
        let logs = self.logs()?;
        let connection = self.connection.get()?;
        logs.append(connection).await
    }

    /// The same, and the end of the transaction, in one round trip.
    pub(crate) async fn end(mut self, ending: Ending) -> Result<()> {
        self.release_jobs().await?;
        let logs = self.logs()?;
        let sent = self.connection.shared()?;
        let (logged, ended) = futures::join!(logs.append(sent), ending.send(sent));
        self.connection.ended(logged, ended)
    }

    async fn release_jobs(&mut self) -> Result<()> {
        if self.releases.is_empty() {
            return Ok(());
        }
        // A tenant may put jobs in, and no more.
        self.connection()?.batch_execute("SET LOCAL ROLE virtualstack_queue").await.map_err(from_diesel)?;
        for job in std::mem::take(&mut self.releases) {
            virtualstack_queue::release(self.connection()?, job.0).await.map_err(from_diesel)?;
        }
        self.connection()?.batch_execute("SET LOCAL ROLE virtualstack_tenant").await.map_err(from_diesel)
    }

    /// The rows of the logs, which are written once.
    fn logs(&mut self) -> Result<Logs> {
        let (actor, audit, changes) = (self.actor(), self.audit.take(), std::mem::take(&mut self.changes));
        if let Some(audit) = audit.as_ref().filter(|audit| audit.resource.is_empty()) {
            // A log that does not say what was done to which resource is of no use to anybody.
            tracing::error!(action = audit.action, "an audit row names no resource");
            if cfg!(debug_assertions) {
                return Err(Error::internal(format!("the audit row of {} names no resource", audit.action)));
            }
        }
        Ok(Logs { tenant: self.tenant, actor, audit, changes })
    }
}

/// What a write appends to the logs.
struct Logs {
    tenant: TenantId,
    actor: String,
    audit: Option<Audit>,
    changes: Vec<Change>,
}

impl Logs {
    /// Appends all of it, in one round trip.
    async fn append(&self, connection: &AsyncPgConnection) -> Result<()> {
        let audit = async {
            match &self.audit {
                Some(audit) => log::append_audit(connection, Some(self.tenant), audit, &self.changes).await,
                None => Ok(()),
            }
        };
        let changes = log::append(connection, self.tenant, &self.actor, &self.changes);
        let (audit, changes) = futures::join!(audit, changes);
        audit.and(changes)
    }
}

impl TenantTx<Write> {
    /// Writes no audit row: this is a part of what has one already, e.g. a piece of an upload.
    pub fn continue_audited(&mut self) {
        self.asked_by = Some(self.actor());
        self.audit = None;
    }
}

/// When a job is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Now,
    /// When something else releases it.
    Held,
}

/// A transaction on what belongs to one account.
pub struct AccountTx {
    pub(crate) connection: Connection,
    pub(crate) account: AccountId,
}

impl AccountTx {
    pub(crate) fn connection(&mut self) -> Result<&mut AsyncPgConnection> {
        self.connection.get()
    }

    /// Does `f` as the system in the same transaction, for what the account role may not see of its own account, e.g.
    /// the hash of its password.
    pub(crate) async fn as_system<T, F>(&mut self, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut SystemTx) -> Result<T> + for<'r> TxFn<&'r mut SystemTx, Result<T>>,
    {
        as_system(&mut self.connection, "virtualstack_account", f).await
    }

    /// Appends an audit row, in this commit, with what was changed.
    pub async fn audit(&mut self, audit: &Audit, rows: &[Change]) -> Result<()> {
        log::append_audit(self.connection.get()?, None, audit, rows).await
    }
}

/// A transaction across tenants, for a written purpose.
pub struct SystemTx {
    pub(crate) connection: Connection,
}

impl SystemTx {
    pub(crate) fn connection(&mut self) -> Result<&mut AsyncPgConnection> {
        self.connection.get()
    }

    /// Puts in a job that belongs to no tenant and of which one is enough, e.g. periodic work.
    pub async fn schedule<J: Job>(&mut self, job: &J) -> Result<()> {
        let job = NewJob { unique_key: Some(J::KIND.to_owned()), ..system_job(job, None)? };
        virtualstack_queue::insert_unique(self.connection()?, &job).await.map_err(from_diesel).map(|_| ())
    }

    /// Activates the scheduled job of a kind: it runs at once, ahead of its timer, and once more where it is at work now. Any
    /// worker may take it.
    pub async fn activate<J: Job>(&mut self) -> Result<()> {
        let connection = self.connection()?;
        // Only the queue's role may change a job.
        connection.batch_execute("SET LOCAL ROLE virtualstack_queue").await.map_err(from_diesel)?;
        virtualstack_queue::activate(connection, J::KIND).await.map_err(from_diesel)?;
        connection.batch_execute("SET LOCAL ROLE virtualstack_system").await.map_err(from_diesel)
    }

    /// Puts in a job that belongs to no tenant, due now.
    pub async fn enqueue<J: Job>(&mut self, job: &J, traceparent: Option<String>) -> Result<()> {
        let job = system_job(job, traceparent)?;
        virtualstack_queue::insert(self.connection()?, &job).await.map_err(from_diesel)
    }

    /// Puts a job in that takes turns with other tenants' jobs, as one of this tenant's.
    pub async fn enqueue_for<J: Job>(&mut self, tenant: TenantId, job: &J) -> Result<()> {
        let job = NewJob { group_key: tenant.to_string(), ..system_job(job, None)? };
        virtualstack_queue::insert(self.connection()?, &job).await.map_err(from_diesel)
    }

    /// Does `f` as a tenant in the same transaction, for what somebody from outside does in one, and writes the tenant's
    /// logs.
    pub(crate) async fn enter<T, F>(&mut self, tenant: TenantId, audit: &Audit, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut TenantTx<Write>) -> Result<T> + for<'r> TxFn<&'r mut TenantTx<Write>, Result<T>>,
    {
        let role = format!("SET LOCAL ROLE virtualstack_tenant; SET LOCAL virtualstack.tenant_id = '{tenant}'");
        let mut inside = TenantTx::new(self.connection.switch(&role).await?, tenant);
        inside.traceparent.clone_from(&audit.traceparent);
        inside.audit = Some(audit.clone());
        let done = match f(&mut inside).await {
            Ok(value) => inside.conclude().await.map(|()| value),
            Err(error) => Err(error),
        };
        self.connection.resume(inside.connection, "virtualstack_system", done).await
    }

    /// Removes jobs that were completed before `before`.
    pub async fn prune_jobs(&mut self, before: chrono::DateTime<chrono::Utc>) -> Result<usize> {
        virtualstack_queue::prune(self.connection()?, before).await.map_err(from_diesel)
    }

    /// Removes open jobs of queues that no worker has claimed from since `before`.
    pub async fn prune_abandoned_jobs(
        &mut self,
        queues: &[&str],
        before: chrono::DateTime<chrono::Utc>,
    ) -> Result<usize> {
        virtualstack_queue::prune_abandoned(self.connection()?, queues, before).await.map_err(from_diesel)
    }

    /// Appends an audit row, in this commit.
    pub async fn audit(&mut self, tenant: Option<TenantId>, audit: &Audit) -> Result<()> {
        log::append_audit(self.connection.get()?, tenant, audit, &[]).await
    }

    /// Appends an audit row that stands for several equal things, or tells how many they are by now.
    pub async fn audit_counted(&mut self, tenant: Option<TenantId>, audit: &Audit, tally: Tally) -> Result<()> {
        log::count_audit(self.connection()?, tenant, audit, tally).await
    }

    /// Appends an audit row and change rows of a tenant, in this commit.
    pub async fn log(&mut self, tenant: TenantId, audit: &Audit, rows: &[Change]) -> Result<()> {
        log::append_audit(self.connection.get()?, Some(tenant), audit, rows).await?;
        log::append(self.connection()?, tenant, &audit.actor.name(), rows).await
    }
}

/// Does `f` as the system, and goes on in `role`.
async fn as_system<T, F>(connection: &mut Connection, role: &str, f: F) -> Result<T>
where
    T: Send,
    F: AsyncFn(&mut SystemTx) -> Result<T> + for<'r> TxFn<&'r mut SystemTx, Result<T>>,
{
    let mut system = SystemTx { connection: connection.switch("SET LOCAL ROLE virtualstack_system").await? };
    let done = f(&mut system).await;
    connection.resume(system.connection, role, done).await
}

fn system_job<J: Job>(job: &J, traceparent: Option<String>) -> Result<NewJob> {
    Ok(NewJob {
        id: JobId::new().0,
        queue: J::QUEUE,
        kind: J::KIND,
        group_key: "system".to_owned(),
        payload: serde_json::to_value(job).map_err(Error::internal)?,
        max_attempts: J::MAX_ATTEMPTS,
        held: false,
        unique_key: None,
        traceparent,
    })
}
