//! System roles: rows of each tenant, made from the product's one list, which nobody else changes.

use diesel::prelude::*;
use diesel::sql_types::{Array, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use virtualstack_model::iam::id::RoleId;
use virtualstack_model::iam::tenant::{PROVIDER_SLUG, TenantState};
use virtualstack_model::iam::user::SYSTEM_ROLES;
use virtualstack_model::id::TenantId;
use virtualstack_model::{Error, Result};

use crate::schema::{permissions, tenant_roles as table, tenants};
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

/// Makes the system roles of every tenant say what the product's list says; for after an upgrade.
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

/// Makes the system roles of a tenant say what the product's list says.
pub(crate) async fn ensure(tx: &mut SystemTx, tenant: TenantId, slug: &str) -> Result<()> {
    let codes: Vec<String> =
        permissions::table.select(permissions::code).load(tx.connection()?).await.map_err(from_diesel)?;
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
        let granted: Vec<_> = codes.iter().filter(|code| (role.grants)(code)).collect();
        diesel::sql_query(
            "INSERT INTO iam.tenant_role_permissions (tenant_id, role_id, permission) \
             SELECT r.tenant_id, r.id, code FROM iam.tenant_roles r, unnest($3) AS code \
             WHERE r.tenant_id = $1 AND r.display_name = $2 AND r.system ON CONFLICT DO NOTHING",
        )
        .bind::<SqlUuid, _>(tenant.0)
        .bind::<Text, _>(role.key)
        .bind::<Array<Text>, _>(granted)
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    }
    Ok(())
}
