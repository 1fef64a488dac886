//! System roles: rows of each tenant, made from the product's one list and the catalogue, which nobody else changes.

use diesel::prelude::*;
use diesel::sql_types::{Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use virtualstack_model::iam::id::RoleId;
use virtualstack_model::iam::tenant::{PROVIDER_SLUG, TenantState};
use virtualstack_model::iam::user::SYSTEM_ROLES;
use virtualstack_model::id::TenantId;
use virtualstack_model::{Error, Result};

use crate::schema::{tenant_roles as table, tenants};
use crate::tx::SystemTx;
use crate::tx::error::from_diesel;

/// The id of a tenant's system role.
pub(crate) async fn id(tx: &mut SystemTx, tenant: TenantId, key: &str) -> Result<RoleId> {
    table::table
        .filter(table::tenant_id.eq(tenant.0).and(table::system).and(table::display_name.eq(key)))
        .select(table::id)
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?
        .ok_or_else(|| Error::not_found("ROLE_NOT_FOUND", format!("{}/{key}", RoleId::COLLECTION)))
}

/// Makes the system roles of every tenant hold what the catalogue says; for after an upgrade.
pub async fn ensure_all(tx: &mut SystemTx) -> Result<()> {
    let living: Vec<(TenantId, String)> = tenants::table
        .filter(tenants::state.ne(TenantState::Purged.as_str()))
        .select((tenants::id, tenants::slug))
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    for (tenant, slug) in &living {
        ensure(tx, *tenant, slug).await?;
    }
    Ok(())
}

/// Makes the system roles of a tenant hold what the catalogue says.
pub(crate) async fn ensure(tx: &mut SystemTx, tenant: TenantId, slug: &str) -> Result<()> {
    for role in SYSTEM_ROLES.iter().filter(|role| !role.platform || slug == PROVIDER_SLUG) {
        diesel::insert_into(table::table)
            .values((
                table::tenant_id.eq(tenant.0),
                table::id.eq(RoleId::new().0),
                table::display_name.eq(role.key),
                table::description.eq(role.description),
                table::system.eq(true),
            ))
            .on_conflict_do_nothing()
            .execute(tx.connection()?)
            .await
            .map_err(from_diesel)?;
        for statement in [GRANT, WITHDRAW] {
            diesel::sql_query(statement)
                .bind::<SqlUuid, _>(tenant.0)
                .bind::<Text, _>(role.key)
                .execute(tx.connection()?)
                .await
                .map_err(from_diesel)?;
        }
    }
    Ok(())
}

/// Gives the system role `$2` of the tenant `$1` what the catalogue says that it holds.
const GRANT: &str = "INSERT INTO iam.tenant_role_permissions (tenant_id, role_id, permission) \
    SELECT r.tenant_id, r.id, p.code FROM iam.tenant_roles r JOIN iam.permissions p ON $2 = ANY (p.roles) \
    WHERE r.tenant_id = $1 AND r.display_name = $2 AND r.system ON CONFLICT DO NOTHING";

/// Takes from it what the catalogue does not say. Whoever was let in for that is decided anew.
const WITHDRAW: &str = "WITH gone AS (DELETE FROM iam.tenant_role_permissions h USING iam.tenant_roles r, iam.permissions p \
        WHERE r.tenant_id = $1 AND r.display_name = $2 AND r.system AND h.tenant_id = r.tenant_id AND h.role_id = r.id \
        AND p.code = h.permission AND $2 <> ALL (p.roles) RETURNING h.permission) \
    UPDATE iam.tenants SET authz_epoch = authz_epoch + 1 WHERE id = $1 AND EXISTS (SELECT FROM gone)";
