//! Transactions: what query functions take as their first parameter.

pub mod error;
mod log;
pub mod scope;
pub mod store;

use std::marker::PhantomData;

use diesel_async::pooled_connection::deadpool::Object;
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use virtualstack_model::Result;
use virtualstack_model::id::{AccountId, JobId, TenantId};
use virtualstack_model::jobs::Job;
use virtualstack_model::log::{Audit, Change};
use virtualstack_queue::NewJob;

use crate::tx::error::{from_diesel, unavailable};

/// A connection in an open transaction. Dropped without an end, it is closed instead of going back to the pool:
/// nobody may inherit its role.
pub(crate) struct Connection {
    open: Option<Object<AsyncPgConnection>>,
    /// Whether what is done in it is taken back at the end, for requests that are only to be validated.
    rehearsal: bool,
}

impl Connection {
    /// Sends the statements that open a transaction and switch its role, as one message.
    pub(crate) async fn open(connection: Object<AsyncPgConnection>, statements: &str) -> Result<Self> {
        let mut opened = Self { open: Some(connection), rehearsal: false };
        match opened.get()?.batch_execute(statements).await.map_err(from_diesel) {
            Ok(()) => Ok(opened),
            Err(error) => {
                opened.rollback().await;
                Err(error)
            }
        }
    }

    pub(crate) fn get(&mut self) -> Result<&mut AsyncPgConnection> {
        self.open.as_deref_mut().ok_or_else(|| unavailable("the connection is gone"))
    }

    /// Makes it a rehearsal, if it is to be one: everything is done, every check with it, and nothing of it is kept.
    pub(crate) fn rehearse(&mut self, validate_only: bool) {
        self.rehearsal |= validate_only;
    }

    pub(crate) async fn commit(mut self) -> Result<()> {
        // A rehearsal meets the checks that wait for the commit, too.
        let end = if self.rehearsal { "SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK" } else { "COMMIT" };
        self.get()?.batch_execute(end).await.map_err(from_diesel)?;
        self.release();
        Ok(())
    }

    pub(crate) async fn rollback(mut self) {
        if let Ok(connection) = self.get()
            && connection.batch_execute("ROLLBACK").await.is_ok()
        {
            self.release();
        }
    }

    /// Hands the open transaction on.
    fn take(&mut self) -> Self {
        Self { open: self.open.take(), rehearsal: self.rehearsal }
    }

    /// Back to the pool.
    fn release(&mut self) {
        drop(self.open.take());
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(connection) = self.open.take() {
            drop(Object::take(connection));
        }
    }
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

/// A transaction that lists are read in, whatever its scope.
pub(crate) trait Transaction: Send {
    /// Whose data it sees; page tokens are bound to it.
    fn scope(&self) -> String;

    /// The connection.
    fn connection(&mut self) -> Result<&mut AsyncPgConnection>;
}

impl<M: Mode> Transaction for TenantTx<M> {
    fn scope(&self) -> String {
        self.tenant.name()
    }

    fn connection(&mut self) -> Result<&mut AsyncPgConnection> {
        self.connection.get()
    }
}

impl Transaction for AccountTx {
    fn scope(&self) -> String {
        self.account.name()
    }

    fn connection(&mut self) -> Result<&mut AsyncPgConnection> {
        self.connection.get()
    }
}

impl Transaction for SystemTx {
    fn scope(&self) -> String {
        "system".to_owned()
    }

    fn connection(&mut self) -> Result<&mut AsyncPgConnection> {
        self.connection.get()
    }
}

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

    /// The same transaction as the system, for the few rows of other scopes that a tenant's transaction touches, e.g. the
    /// account of somebody who is invited. [`Self::resume`] goes on; without it the transaction is lost.
    pub(crate) async fn as_system(&mut self) -> Result<SystemTx> {
        let mut connection = self.connection.take();
        connection.get()?.batch_execute("SET LOCAL ROLE virtualstack_system").await.map_err(from_diesel)?;
        Ok(SystemTx { connection })
    }

    /// Goes on as the tenant.
    pub(crate) async fn resume(&mut self, system: SystemTx) -> Result<()> {
        self.connection = system.connection;
        self.connection()?.batch_execute("SET LOCAL ROLE virtualstack_tenant").await.map_err(from_diesel)
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

    /// Puts a job in its queue, due now or once [`Self::release`]d.
    pub async fn enqueue<J: Job>(&mut self, id: JobId, job: &J, due: Due) -> Result<()> {
        let job = NewJob {
            id: id.0,
            queue: J::QUEUE,
            kind: J::KIND,
            group_key: self.tenant.to_string(),
            payload: serde_json::to_value(job).map_err(virtualstack_model::Error::internal)?,
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
        if !self.releases.is_empty() {
            // A tenant may put jobs in, and no more.
            self.connection()?.batch_execute("SET LOCAL ROLE virtualstack_queue").await.map_err(from_diesel)?;
            for job in std::mem::take(&mut self.releases) {
                virtualstack_queue::release(self.connection()?, job.0).await.map_err(from_diesel)?;
            }
            self.connection()?.batch_execute("SET LOCAL ROLE virtualstack_tenant").await.map_err(from_diesel)?;
        }
        let actor = self.actor();
        if let Some(audit) = self.audit.take() {
            log::append_audit(self.connection.get()?, Some(self.tenant), &audit, &self.changes).await?;
        }
        let changes = std::mem::take(&mut self.changes);
        log::append(self.connection.get()?, self.tenant, &actor, &changes).await
    }
}

/// When a job is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Now.
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

    /// Makes it a rehearsal if the request is only to be validated: all is done, and at the end taken back. Of tenants'
    /// writes [`Audit::rehearsed`] says it.
    pub fn rehearse(&mut self, validate_only: bool) {
        self.connection.rehearse(validate_only);
    }

    /// The same transaction as the system, for what the account role may not see of its own account, e.g. the hash of
    /// its password. [`Self::resume`] goes on; without it the transaction is lost.
    pub(crate) async fn as_system(&mut self) -> Result<SystemTx> {
        let mut connection = self.connection.take();
        connection.get()?.batch_execute("SET LOCAL ROLE virtualstack_system").await.map_err(from_diesel)?;
        Ok(SystemTx { connection })
    }

    /// Goes on as the account.
    pub(crate) async fn resume(&mut self, system: SystemTx) -> Result<()> {
        self.connection = system.connection;
        self.connection()?.batch_execute("SET LOCAL ROLE virtualstack_account").await.map_err(from_diesel)
    }

    /// Appends an audit row, in this commit, with what was changed.
    pub async fn audit(&mut self, audit: &Audit, rows: &[Change]) -> Result<()> {
        log::append_audit(self.connection()?, None, audit, rows).await
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

    /// Makes it a rehearsal if the request is only to be validated: all is done, and at the end taken back. Of tenants'
    /// writes [`Audit::rehearsed`] says it.
    pub fn rehearse(&mut self, validate_only: bool) {
        self.connection.rehearse(validate_only);
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

    /// The same transaction as a tenant, for what an operator does inside of one. [`Self::leave`] goes on; without it
    /// the transaction is lost.
    pub(crate) async fn enter(&mut self, tenant: TenantId, audit: &Audit) -> Result<TenantTx<Write>> {
        let mut connection = self.connection.take();
        let role = format!("SET LOCAL ROLE virtualstack_tenant; SET LOCAL virtualstack.tenant_id = '{tenant}'");
        connection.get()?.batch_execute(&role).await.map_err(from_diesel)?;
        let mut tx = TenantTx::new(connection, tenant);
        tx.traceparent.clone_from(&audit.traceparent);
        tx.audit = Some(audit.clone());
        Ok(tx)
    }

    /// Goes on as the system, with the tenant's logs written.
    pub(crate) async fn leave(&mut self, mut tx: TenantTx<Write>) -> Result<()> {
        tx.conclude().await?;
        self.connection = tx.connection.take();
        self.connection()?.batch_execute("SET LOCAL ROLE virtualstack_system").await.map_err(from_diesel)
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
        log::append_audit(self.connection()?, tenant, audit, &[]).await
    }

    /// Appends an audit row and change rows of a tenant, in this commit.
    pub async fn log(&mut self, tenant: TenantId, audit: &Audit, rows: &[Change]) -> Result<()> {
        log::append_audit(self.connection()?, Some(tenant), audit, rows).await?;
        log::append(self.connection()?, tenant, &audit.actor.name(), rows).await
    }
}

fn system_job<J: Job>(job: &J, traceparent: Option<String>) -> Result<NewJob> {
    Ok(NewJob {
        id: JobId::new().0,
        queue: J::QUEUE,
        kind: J::KIND,
        group_key: "system".to_owned(),
        payload: serde_json::to_value(job).map_err(virtualstack_model::Error::internal)?,
        max_attempts: J::MAX_ATTEMPTS,
        held: false,
        unique_key: None,
        traceparent,
    })
}
