//! How a tenant begins and ends: the one place that knows every module, for each has rows to make or to remove then.

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection as _};
use serde_json::json;
use virtualstack_model::Result;
use virtualstack_model::compute::quota::Limits;
use virtualstack_model::iam::tenant::{Settings, TenantState};
use virtualstack_model::iam::user::TENANT_ADMIN;
use virtualstack_model::id::TenantId;
use virtualstack_model::log::{Audit, Change};

use crate::compute::{quotas, user_templates, vms};
use crate::iam::invitations::{self, InvitationGrant, Invite};
use crate::iam::tenants::Tenant;
use crate::iam::{accounts, system_roles, users};
use crate::schema::tenants as table;
use crate::tx::error::from_diesel;
use crate::tx::{SystemTx, TenantTx, Write};

/// A tenant to make.
#[derive(Clone, Copy, Debug)]
pub struct NewTenant<'a> {
    pub id: TenantId,
    pub slug: &'a str,
    pub display_name: &'a str,
    pub settings: Settings,
    pub quota: Limits,
}

impl<'a> NewTenant<'a> {
    /// With a new id, no settings and no limits.
    #[must_use]
    pub fn new(slug: &'a str, display_name: &'a str) -> Self {
        Self { id: TenantId::new(), slug, display_name, settings: Settings::default(), quota: Limits::default() }
    }
}

/// The first admin of a tenant.
#[derive(Clone, Copy, Debug)]
pub struct FirstAdmin<'a> {
    pub email: &'a str,
    /// Name for people, of an account that is made.
    pub display_name: &'a str,
    /// With one, an account is made, unless the address has one.
    pub password_hash: Option<&'a str>,
}

/// Makes a tenant with its system roles.
pub async fn create(tx: &mut SystemTx, new: &NewTenant<'_>) -> Result<Tenant> {
    let tenant: Tenant = diesel::insert_into(table::table)
        .values((
            table::id.eq(new.id),
            table::slug.eq(new.slug),
            table::display_name.eq(new.display_name),
            table::settings.eq(json!(new.settings)),
        ))
        .returning(Tenant::as_returning())
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    quotas::create(tx, tenant.id, &new.quota).await?;
    system_roles::ensure(tx, tenant.id, &tenant.slug).await?;
    Ok(tenant)
}

/// Gives a new tenant its first admin: a new account at once, if there is a password for it; any other address an
/// invitation. Writes the tenant's logs.
pub async fn add_first_admin(tx: &mut SystemTx, audit: &Audit, tenant: &Tenant, admin: &FirstAdmin<'_>) -> Result<()> {
    let mut user = None;
    if admin.password_hash.is_some() {
        let (account, made) = accounts::ensure(tx, admin.email, admin.display_name, admin.password_hash).await?;
        if made {
            user = Some(users::add_active(tx, tenant.id, account, TENANT_ADMIN).await?);
        }
    }
    let role = system_roles::id(tx, tenant.id, TENANT_ADMIN).await?;
    let fields = json!({"slug": tenant.slug, "displayName": tenant.display_name});
    let made = Change::of(tenant.id.name(), "TENANT_CREATED", "The tenant was created", fields);
    let made = Change { state: tenant.state.as_str(), ..made };
    tx.enter(tenant.id, audit, async |inside| {
        inside.change(made.clone());
        match user {
            Some(user) => {
                let fields = json!({"email": admin.email, "roles": [role.name()]});
                inside.change(Change::of(user.name(), "USER_CREATED", "The tenant's first admin", fields));
            }
            None => {
                let grant = InvitationGrant::Role(role);
                let invite = Invite { email: admin.email, grant, inviter: None, expires_at: None };
                invitations::open(inside, &invite).await?;
            }
        }
        Ok(())
    })
    .await
}

/// Deleted tenants whose time has come.
pub async fn purgeable(tx: &mut SystemTx, limit: i64) -> Result<Vec<TenantId>> {
    let due = table::table.filter(sql::<Bool>(DUE)).order(table::purge_at).limit(limit);
    due.select(table::id).load(tx.connection()?).await.map_err(from_diesel)
}

/// Whether a tenant is to be purged, by the database's clock.
const DUE: &str = "coalesce(state = 'DELETED' AND purge_at <= clock_timestamp(), false)";

/// Whether the tenant that a transaction is in is to be purged. If so it stays so: nobody takes that back.
pub async fn is_due(tx: &mut TenantTx<Write>) -> Result<bool> {
    let tenant = tx.tenant();
    let due = table::table.filter(table::id.eq(tenant)).filter(sql::<Bool>(DUE)).select(table::id).for_no_key_update();
    let due: Option<TenantId> = due.first(tx.connection()?).await.optional().map_err(from_diesel)?;
    Ok(due.is_some())
}

/// Forgets up to `limit` operations and as many changes of a tenant that is to be purged: the two tables that may be too
/// large for one statement. Returns whether it removed any.
pub async fn forget_history(tx: &mut SystemTx, tenant: TenantId, limit: i64) -> Result<bool> {
    let mut forgotten = 0;
    for (history, key) in [("compute.operations", "id"), ("audit.changes", "position")] {
        let forget = format!(
            "DELETE FROM {history} WHERE tenant_id = '{tenant}' AND {key} IN \
             (SELECT {key} FROM {history} WHERE tenant_id = '{tenant}' LIMIT {limit}) \
             AND EXISTS (SELECT FROM iam.tenants WHERE id = '{tenant}' AND {DUE})"
        );
        forgotten += diesel::sql_query(forget).execute(tx.connection()?).await.map_err(from_diesel)?;
    }
    Ok(forgotten > 0)
}

/// Tables whose rows go with a tenant; a table comes before those that it refers to. A test holds them against the schema.
/// The audit log stays, and so do the accounts of members.
pub const PURGED: &[&str] = &[
    "notifications.notices",
    "notifications.mails",
    "notifications.broadcast_marks",
    "notifications.broadcasts",
    "notifications.preferences",
    "notifications.cursors",
    "notifications.quota_marks",
    "support.desk_items",
    "support.desk_tickets",
    "support.internal_attachments",
    "support.ticket_attachments",
    "support.internal_comments",
    "support.ticket_staff",
    "support.ticket_comments",
    "support.tickets",
    "support.ticket_usage",
    "iam.api_keys",
    "iam.retired_api_keys",
    "iam.invitations",
    "iam.user_tenant_roles",
    "iam.tenant_role_permissions",
    "iam.tenant_roles",
    "iam.memberships",
    "iam.request_ids",
    "iam.refresh_tokens",
    "compute.provider_template_grants",
    "compute.console_tickets",
    "compute.operations",
    "compute.quotas",
    "audit.changes",
    "audit.change_heads",
];

/// Purges a tenant that has no VM any more; whether it did.
pub async fn purge(tx: &mut SystemTx, audit: &Audit, tenant: TenantId) -> Result<bool> {
    // With its slug the row changes what others refer to, so this waits for whoever is at work in the tenant.
    let due = table::table.filter(table::id.eq(tenant)).filter(sql::<Bool>(DUE)).select(table::id).for_update();
    let due: Option<TenantId> = due.first(tx.connection()?).await.optional().map_err(from_diesel)?;
    if due.is_none() || vms::any_of_tenant(tx, tenant).await? || user_templates::any_of_tenant(tx, tenant).await? {
        return Ok(false);
    }
    let all: String = PURGED.iter().map(|table| format!("DELETE FROM {table} WHERE tenant_id = '{tenant}';")).collect();
    tx.connection()?.batch_execute(&all).await.map_err(from_diesel)?;
    diesel::update(table::table.find(tenant))
        .set((
            table::state.eq(TenantState::Purged.as_str()),
            // Free again.
            table::slug.eq(tenant.to_string()),
            table::purge_at.eq(None::<DateTime<Utc>>),
            table::settings.eq(json!({})),
            table::authz_epoch.eq(table::authz_epoch + 1),
            table::updated_at.eq(Utc::now()),
            table::version.eq(table::version + 1),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    tx.audit(Some(tenant), audit).await?;
    Ok(true)
}
