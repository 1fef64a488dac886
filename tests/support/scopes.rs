//! Leave to work across tenants, for tests that look at the store itself.

use uuid::Uuid;
use virtualstack_model::credential::Credential;
use virtualstack_model::id::{AccountId, SessionId, TenantId, UserId};
use virtualstack_store::{SystemPurpose, SystemScope, TenantScope};

use super::Database;

#[expect(clippy::disallowed_methods, reason = "a test is nobody's call")]
pub(crate) fn system(purpose: SystemPurpose) -> SystemScope {
    SystemScope::new(purpose)
}

/// A member's own scope, by their latest session: what the authorization layer would give a call of theirs.
#[expect(clippy::disallowed_methods, reason = "the test plays the authorization layer")]
pub(crate) async fn member_scope(database: &Database, email: &str, tenant: &str) -> TenantScope {
    #[derive(serde::Deserialize)]
    struct Row {
        tenant: Uuid,
        account: Uuid,
        member: Uuid,
        session: Uuid,
        epoch: i64,
    }
    let row: Vec<Row> = database
        .rows(&format!(
            "SELECT t.id AS tenant, u.id AS account, m.id AS member, s.id AS session, t.authz_epoch AS epoch \
             FROM iam.users u JOIN iam.memberships m ON m.account_id = u.id JOIN iam.tenants t ON t.id = m.tenant_id \
             JOIN iam.sessions s ON s.account_id = u.id \
             WHERE u.email = '{email}' AND t.slug = '{tenant}' ORDER BY s.id DESC LIMIT 1"
        ))
        .await;
    let Row { tenant, account, member, session, epoch } = row.into_iter().next().expect("a session of the member");
    let credential = Credential::Session(SessionId(session));
    TenantScope::new(TenantId(tenant), AccountId(account), UserId(member), credential, epoch)
}
