//! How transactions begin: in which mode, and as whom. Nothing of it outlives the transaction, so a pooler may hand out another
//! connection for each.

use diesel_async::AsyncPgConnection;
use virtualstack_model::Result;
use virtualstack_model::credential::Credential;
use virtualstack_model::id::TenantId;
use virtualstack_queue::Lease;

use crate::tx::scope::{AccountScope, TenantScope};
use crate::tx::statement::{Bind, Statement};

/// How a transaction begins: in which mode, and as whom.
pub(crate) struct Opening {
    begin: Statement,
    enter: Statement,
}

const BEGIN: &str = "BEGIN";
const BEGIN_READING: &str = "BEGIN READ ONLY";

impl Opening {
    /// A member's access to their tenant, which is checked again.
    pub(crate) fn tenant(scope: &TenantScope) -> Self {
        Self::of("virtualstack_tenant", scope)
    }

    /// An account's access to what is its own.
    pub(crate) fn account(scope: &AccountScope) -> Self {
        Self::of("virtualstack_account", &scope.access)
    }

    /// An operator's access to the platform.
    pub(crate) fn platform(access: &TenantScope) -> Self {
        Self::of("virtualstack_system", access)
    }

    fn of(role: &'static str, access: &TenantScope) -> Self {
        let TenantScope { tenant, account, user, epoch, .. } = access;
        let mut binds = vec![Bind::Text(role)];
        let sql = match &access.credential {
            Credential::Session(session) | Credential::Support { session, .. } => {
                binds.push(Bind::Uuid(session.0));
                "SELECT iam.enter_by_session("
            }
            Credential::ApiKey { id, generation, version } => {
                binds.extend([Bind::Uuid(id.0), Bind::Integer(*generation), Bind::BigInt(*version)]);
                "SELECT iam.enter_by_key("
            }
        };
        binds.extend([Bind::Uuid(account.0), Bind::Uuid(user.0), Bind::Uuid(tenant.0), Bind::BigInt(*epoch)]);
        Self::new(Statement { sql, binds })
    }

    /// The system across tenants.
    pub(crate) fn system() -> Self {
        Self::new(Statement { sql: "SELECT iam.enter_system(", binds: Vec::new() })
    }

    /// The system in a tenant that it has found by itself.
    pub(crate) fn system_in(tenant: TenantId) -> Self {
        Self::new(Statement { sql: "SELECT iam.enter_tenant(", binds: vec![Bind::Uuid(tenant.0)] })
    }

    /// A claimed job's step. It first locks the job by its fencing token.
    pub(crate) fn job(lease: &Lease, tenant: Option<TenantId>) -> Self {
        let binds =
            vec![Bind::Uuid(lease.id), Bind::BigInt(lease.token), Bind::MaybeUuid(tenant.map(|tenant| tenant.0))];
        Self::new(Statement { sql: "SELECT background_jobs.enter(", binds })
    }

    /// The login role itself, which can read nothing.
    pub(crate) fn bare() -> Self {
        Self::new(Statement { sql: "SELECT (", binds: vec![Bind::Integer(1)] })
    }

    /// The simulated hypervisor, whose changes wait for one another.
    pub(crate) fn simulator() -> Self {
        let lock = "SELECT pg_advisory_xact_lock(hashtext('virtualstack.simulated_hypervisor')";
        Self::new(Statement { sql: lock, binds: Vec::new() })
    }

    fn new(enter: Statement) -> Self {
        Self { begin: Statement::plain(BEGIN), enter }
    }

    /// Nothing is written.
    pub(crate) fn reading(self) -> Self {
        Self { begin: Statement::plain(BEGIN_READING), ..self }
    }

    /// Nothing is written, and every statement sees what the first one saw.
    pub(crate) fn reading_consistently(self) -> Self {
        Self { begin: Statement::plain("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"), ..self }
    }

    pub(crate) async fn begin(&self, connection: &AsyncPgConnection) -> Result<()> {
        self.begin.send(connection).await
    }

    pub(crate) async fn enter(&self, connection: &AsyncPgConnection) -> Result<()> {
        self.enter.send(connection).await
    }
}
