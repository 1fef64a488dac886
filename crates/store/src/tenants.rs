//! Tenants, their members and their system roles.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use virtualstack_model::Result;
use virtualstack_model::id::{RoleId, TenantId};
use virtualstack_model::tenant::{PROVIDER_SLUG, Settings, TenantState};
use virtualstack_model::user::SYSTEM_ROLES;

use crate::error::from_diesel;
use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::{permissions, tenant_roles, tenants as table};
use crate::tx::{AccountTx, Mode, SystemTx, TenantTx, Write};

/// A tenant as it is kept.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = table)]
#[expect(missing_docs, reason = "the contract says what the fields are")]
pub struct Tenant {
    pub id: TenantId,
    pub slug: String,
    pub display_name: String,
    pub state: TenantState,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    settings: Value,
    pub deleted_at: Option<DateTime<Utc>>,
    pub purge_at: Option<DateTime<Utc>>,
    pub version: i64,
}

impl Tenant {
    /// Changes with each change.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"{}\"", self.version)
    }

    /// What its admins have set.
    #[must_use]
    pub fn settings(&self) -> Settings {
        serde_json::from_value(self.settings.clone()).unwrap_or_default()
    }
}

/// Which tenant is meant: both stand in full names.
#[derive(Clone, Debug)]
pub enum Key {
    /// By id.
    Id(TenantId),
    /// By slug.
    Slug(String),
}

impl Key {
    /// Reads "tenants/{id or slug}", or a bare slug.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        let key = name.strip_prefix("tenants/").unwrap_or(name);
        key.parse().map_or_else(|_| Self::Slug(key.to_owned()), Self::Id)
    }
}

type Query<'a> = table::BoxedQuery<'a, diesel::pg::Pg>;

fn by_key(key: &Key) -> Query<'_> {
    match key {
        Key::Id(id) => table::table.filter(table::id.eq(*id)).into_boxed(),
        Key::Slug(slug) => table::table.filter(table::slug.eq(slug)).into_boxed(),
    }
}

/// Reads any tenant.
pub async fn find_any(tx: &mut SystemTx, key: &Key) -> Result<Option<Tenant>> {
    let found = by_key(key).filter(table::state.ne(TenantState::Purged.as_str()));
    found.select(Tenant::as_select()).first(tx.connection()?).await.optional().map_err(from_diesel)
}

/// Reads a tenant that the account can enter.
pub async fn find_mine(tx: &mut AccountTx, key: &Key) -> Result<Option<Tenant>> {
    by_key(key).select(Tenant::as_select()).first(tx.connection()?).await.optional().map_err(from_diesel)
}

/// Reads the tenant that a transaction is in.
pub async fn current<M: Mode>(tx: &mut TenantTx<M>) -> Result<Tenant> {
    let tenant = tx.tenant();
    table::table.find(tenant).select(Tenant::as_select()).first(tx.connection()?).await.map_err(from_diesel)
}

/// What filters and orders of tenants may name.
const LISTING: Listing<table::table> = Listing {
    collection: TenantId::COLLECTION,
    id: Field::id("name", TenantId::COLLECTION, &table::id),
    fields: &[
        Field::text("slug", &table::slug).sorted().searched(),
        Field::text("displayName", &table::display_name).sorted().searched(),
        Field::words("state", TenantState::WORDS, &table::state).sorted(),
        Field::time("createTime", &table::created_at).sorted(),
        Field::time("updateTime", &table::updated_at).sorted(),
    ],
};

/// Lists all tenants.
pub async fn list_any(tx: &mut SystemTx, request: &ListRequest) -> Result<Listed<Tenant>> {
    LISTING.read(tx, request, "", || table::table.into_boxed()).await
}

/// Lists the tenant that a transaction is in: to an API key there is no other.
pub async fn list_current<M: Mode>(tx: &mut TenantTx<M>, request: &ListRequest) -> Result<Listed<Tenant>> {
    LISTING.read(tx, request, "", || table::table.into_boxed()).await
}

/// Lists the tenants that the account can enter.
pub async fn list_mine(tx: &mut AccountTx, request: &ListRequest) -> Result<Listed<Tenant>> {
    LISTING.read(tx, request, "", || table::table.into_boxed()).await
}

/// Makes a tenant with its system roles.
pub async fn create(tx: &mut SystemTx, slug: &str, display_name: &str) -> Result<Tenant> {
    let tenant = diesel::insert_into(table::table)
        .values((table::id.eq(TenantId::new()), table::slug.eq(slug), table::display_name.eq(display_name)))
        .returning(Tenant::as_returning())
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    ensure_system_roles(tx, &tenant).await?;
    Ok(tenant)
}

/// Makes the system roles of every tenant say what the product's list says; for after an upgrade.
pub async fn ensure_all_system_roles(tx: &mut SystemTx) -> Result<()> {
    let tenants: Vec<Tenant> =
        table::table.select(Tenant::as_select()).load(tx.connection()?).await.map_err(from_diesel)?;
    for tenant in &tenants {
        ensure_system_roles(tx, tenant).await?;
    }
    Ok(())
}

async fn ensure_system_roles(tx: &mut SystemTx, tenant: &Tenant) -> Result<()> {
    let codes: Vec<String> =
        permissions::table.select(permissions::code).load(tx.connection()?).await.map_err(from_diesel)?;
    for role in SYSTEM_ROLES.iter().filter(|role| !role.platform || tenant.slug == PROVIDER_SLUG) {
        diesel::insert_into(tenant_roles::table)
            .values((
                tenant_roles::tenant_id.eq(tenant.id.0),
                tenant_roles::id.eq(RoleId::new().0),
                tenant_roles::display_name.eq(role.key),
                tenant_roles::description.eq(role.description),
                tenant_roles::system.eq(true),
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
        .bind::<SqlUuid, _>(tenant.id.0)
        .bind::<Text, _>(role.key)
        .bind::<Array<Text>, _>(granted)
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    }
    Ok(())
}

/// Makes every decision about access in the tenant be made anew, from the next request on. What takes access away, or
/// depends on who has it, starts with this: it also makes such changes wait for one another.
pub async fn raise_epoch(tx: &mut TenantTx<Write>) -> Result<()> {
    let tenant = tx.tenant();
    diesel::update(table::table.find(tenant))
        .set(table::authz_epoch.eq(table::authz_epoch + 1))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}
