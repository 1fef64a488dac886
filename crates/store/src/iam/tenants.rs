//! Tenants. How one begins and ends stands in [`crate::tenant_life`].

use chrono::{DateTime, TimeDelta, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Nullable};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::{Value, json};
use virtualstack_model::iam::tenant::{Settings, TenantState};
use virtualstack_model::id::TenantId;
use virtualstack_model::log::{Audit, Change, changed_fields};
use virtualstack_model::{Error, Result};

use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::tenants as table;
use crate::tx::error::from_diesel;
use crate::tx::reader::TenantReader;
use crate::tx::{AccountTx, SystemTx, TenantTx, Write, etag};

/// A tenant as it is kept.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = table)]
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
        etag(self.version)
    }

    /// What its admins have set.
    #[must_use]
    pub fn settings(&self) -> Settings {
        serde_json::from_value(self.settings.clone()).unwrap_or_default()
    }

    /// What an update may change, as it is now.
    #[must_use]
    pub fn edit(&self) -> Edit {
        Edit { display_name: self.display_name.clone(), settings: self.settings() }
    }
}

/// What an update may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    pub display_name: String,
    pub settings: Settings,
}

/// Which tenant is meant: both stand in full names.
#[derive(Clone, Debug)]
pub enum Key {
    Id(TenantId),
    Slug(String),
}

impl Key {
    /// Whether it is this tenant's.
    #[must_use]
    pub fn is_of(&self, tenant: &Tenant) -> bool {
        match self {
            Self::Id(id) => *id == tenant.id,
            Self::Slug(slug) => *slug == tenant.slug,
        }
    }

    /// Reads "tenants/{id or slug}", or a bare slug.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        let key = name.strip_prefix("tenants/").unwrap_or(name);
        key.parse().map_or_else(|_| Self::Slug(key.to_owned()), Self::Id)
    }

    /// Whether PostgreSQL can compare it: it has no text with a NUL, so nobody has such a slug.
    fn is_text(&self) -> bool {
        !matches!(self, Self::Slug(slug) if slug.contains('\0'))
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
    if !key.is_text() {
        return Ok(None);
    }
    let found = by_key(key).filter(table::state.ne(TenantState::Purged.as_str()));
    found.select(Tenant::as_select()).first(tx.connection()?).await.optional().map_err(from_diesel)
}

/// The tenants of these names, each once; one that is not there is told by where it stands in `field`.
pub async fn find_all(tx: &mut SystemTx, field: &str, names: &[String]) -> Result<Vec<TenantId>> {
    let keys: Vec<_> = names.iter().map(|name| Key::parse(name)).collect();
    let slugs = keys.iter().filter(|key| key.is_text()).filter_map(|key| match key {
        Key::Slug(slug) => Some(slug),
        Key::Id(_) => None,
    });
    let ids = keys.iter().filter_map(|key| match key {
        Key::Id(id) => Some(*id),
        Key::Slug(_) => None,
    });
    let named = table::id.eq_any(ids.collect::<Vec<_>>()).or(table::slug.eq_any(slugs.collect::<Vec<_>>()));
    let found: Vec<(TenantId, String)> = table::table
        .filter(table::state.ne(TenantState::Purged.as_str()).and(named))
        .select((table::id, table::slug))
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let is_there = |key: &&Key| {
        found.iter().any(|(id, slug)| match key {
            Key::Id(named) => named == id,
            Key::Slug(named) => named == slug,
        })
    };
    if let Some(index) = keys.iter().position(|key| !is_there(&key)) {
        return Err(Error::invalid(format!("{field}[{index}]"), format!("there is no {}", names[index])));
    }
    Ok(found.into_iter().map(|(id, _)| id).collect())
}

/// Reads any tenant and locks it until the end of the transaction.
pub async fn lock_any(tx: &mut SystemTx, key: &Key) -> Result<Option<Tenant>> {
    let Some(found) = find_any(tx, key).await? else { return Ok(None) };
    table::table
        .filter(table::id.eq(found.id).and(table::state.ne(TenantState::Purged.as_str())))
        .select(Tenant::as_select())
        .for_no_key_update()
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)
}

/// Reads a tenant that the account can enter.
pub async fn find_mine(tx: &mut AccountTx, key: &Key) -> Result<Option<Tenant>> {
    if !key.is_text() {
        return Ok(None);
    }
    by_key(key).select(Tenant::as_select()).first(tx.connection()?).await.optional().map_err(from_diesel)
}

/// Reads the tenant that a transaction is in.
pub async fn current(reader: &mut impl TenantReader) -> Result<Tenant> {
    let tenant = reader.tenant();
    let one = move || table::table.find(tenant).select(Tenant::as_select());
    reader.find(one).await?.ok_or_else(|| Error::internal("a tenant's transaction does not see the tenant"))
}

/// Reads the tenant that a transaction is in and locks it until the end of the transaction.
pub async fn lock_current(tx: &mut TenantTx<Write>) -> Result<Tenant> {
    let tenant = tx.tenant();
    let row = table::table.filter(table::id.eq(tenant)).select(Tenant::as_select()).for_no_key_update();
    row.first(tx.connection()?).await.map_err(from_diesel)
}

/// What filters and orders of tenants may name.
const LISTING: Listing<table::table> = Listing {
    collection: TenantId::COLLECTION,
    id: Field::id("name", TenantId::COLLECTION, &table::id),
    fields: &[
        Field::text("slug", &table::slug).sorted().searched(),
        Field::text("displayName", &table::display_name).sorted().searched(),
        Field::words("state", TenantState::SHOWN, &table::state).sorted(),
        Field::time("createTime", &table::created_at).sorted(),
        Field::time("updateTime", &table::updated_at).sorted(),
    ],
};

/// Lists all tenants; deleted ones only if asked for, and those that are purged never.
pub async fn list_any(tx: &mut SystemTx, request: &ListRequest, show_deleted: bool) -> Result<Listed<Tenant>> {
    let hidden = if show_deleted { TenantState::Purged } else { TenantState::Deleted };
    let variant = if show_deleted { "deleted too" } else { "" };
    let rows =
        move || table::table.filter(table::state.ne_all([hidden.as_str(), TenantState::Purged.as_str()])).into_boxed();
    LISTING.read(tx, request, variant, rows).await
}

/// Lists the tenant that a transaction is in: to an API key there is no other.
pub async fn list_current(reader: &mut impl TenantReader, request: &ListRequest) -> Result<Listed<Tenant>> {
    LISTING.read(reader, request, "", || table::table.into_boxed()).await
}

/// Lists the tenants that the account can enter.
pub async fn list_mine(tx: &mut AccountTx, request: &ListRequest) -> Result<Listed<Tenant>> {
    LISTING.read(tx, request, "", || table::table.into_boxed()).await
}

/// Changes the tenant that a transaction is in, which is as `before` says.
pub async fn update(tx: &mut TenantTx<Write>, before: &Tenant, edit: &Edit) -> Result<Tenant> {
    let Some(change) = edited(before, edit) else { return Ok(before.clone()) };
    tx.change(change);
    write(tx.connection()?, before.id, edit).await
}

/// Changes any tenant, which is as `before` says, and writes its logs.
pub async fn update_any(tx: &mut SystemTx, audit: &Audit, before: &Tenant, edit: &Edit) -> Result<Tenant> {
    let change = edited(before, edit);
    tx.log(before.id, audit, change.as_slice()).await?;
    if change.is_none() { Ok(before.clone()) } else { write(tx.connection()?, before.id, edit).await }
}

fn edited(before: &Tenant, edit: &Edit) -> Option<Change> {
    let (was, is) = (before.settings(), edit.settings);
    let fields = changed_fields([
        ("displayName", json!(before.display_name), json!(edit.display_name)),
        ("settings.invitationDays", json!(was.invitation_days), json!(is.invitation_days)),
        ("settings.apiKeyMaxDays", json!(was.api_key_max_days), json!(is.api_key_max_days)),
    ]);
    let update = || Change::update(before.id.name(), "TENANT_UPDATED", fields.clone());
    (!fields.is_empty()).then(|| Change { state: before.state.as_str(), ..update() })
}

async fn write(connection: &mut AsyncPgConnection, id: TenantId, edit: &Edit) -> Result<Tenant> {
    diesel::update(table::table.find(id))
        .set((
            table::display_name.eq(&edit.display_name),
            table::settings.eq(json!(edit.settings)),
            table::updated_at.eq(Utc::now()),
            table::version.eq(table::version + 1),
        ))
        .returning(Tenant::as_returning())
        .get_result(connection)
        .await
        .map_err(from_diesel)
}

/// What a change of state writes. Fields that are None stay as they are.
#[derive(AsChangeset)]
#[diesel(table_name = table)]
struct StateChange {
    state: &'static str,
    deleted_at: Option<Option<DateTime<Utc>>>,
    purge_at: Option<Option<DateTime<Utc>>>,
    undelete_state: Option<Option<&'static str>>,
}

/// Suspends a tenant. Like all that follows here, it holds from the next request on: every decision is made anew.
pub async fn suspend(tx: &mut SystemTx, audit: &Audit, tenant: &Tenant) -> Result<Tenant> {
    let to =
        StateChange { state: TenantState::Suspended.as_str(), deleted_at: None, purge_at: None, undelete_state: None };
    change_state(tx, audit, tenant, to, "TENANT_SUSPENDED", "The tenant was suspended").await
}

/// Ends a suspension.
pub async fn activate(tx: &mut SystemTx, audit: &Audit, tenant: &Tenant) -> Result<Tenant> {
    let to =
        StateChange { state: TenantState::Active.as_str(), deleted_at: None, purge_at: None, undelete_state: None };
    change_state(tx, audit, tenant, to, "TENANT_ACTIVATED", "The suspension has ended").await
}

/// Deletes a tenant, to be purged after `kept`, or moves the purge of one that is deleted already.
pub async fn delete(tx: &mut SystemTx, audit: &Audit, tenant: &Tenant, kept: TimeDelta) -> Result<Tenant> {
    let now = Utc::now();
    let first = tenant.state != TenantState::Deleted;
    let to = StateChange {
        state: TenantState::Deleted.as_str(),
        deleted_at: first.then_some(Some(now)),
        purge_at: Some(Some(now + kept)),
        undelete_state: first.then(|| Some(tenant.state.as_str())),
    };
    change_state(tx, audit, tenant, to, "TENANT_DELETED", "The tenant was deleted; it is kept until its purge time")
        .await
}

/// Takes the deletion of a tenant back, unless its purge has begun: then it is none. The database's clock decides, as for
/// the purge.
pub async fn undelete(tx: &mut SystemTx, audit: &Audit, tenant: &Tenant) -> Result<Option<Tenant>> {
    let before: Option<Option<String>> = table::table
        .find(tenant.id)
        .filter(sql::<Nullable<Bool>>("purge_at > clock_timestamp()"))
        .select(table::undelete_state)
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    let Some(before) = before else { return Ok(None) };
    let before = before.as_deref().and_then(TenantState::from_word);
    let state = before.unwrap_or(TenantState::Suspended).as_str();
    let to = StateChange { state, deleted_at: Some(None), purge_at: Some(None), undelete_state: Some(None) };
    change_state(tx, audit, tenant, to, "TENANT_UNDELETED", "The deletion was taken back").await.map(Some)
}

async fn change_state(
    tx: &mut SystemTx,
    audit: &Audit,
    before: &Tenant,
    to: StateChange,
    reason: &'static str,
    message: &str,
) -> Result<Tenant> {
    let after: Tenant = diesel::update(table::table.find(before.id))
        .set((
            to,
            table::authz_epoch.eq(table::authz_epoch + 1),
            table::updated_at.eq(Utc::now()),
            table::version.eq(table::version + 1),
        ))
        .returning(Tenant::as_returning())
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let fields = changed_fields([
        ("state", json!(before.state), json!(after.state)),
        ("purgeTime", json!(before.purge_at), json!(after.purge_at)),
    ]);
    let change = Change::of(before.id.name(), reason, message, fields.into());
    tx.log(before.id, audit, &[Change { state: after.state.as_str(), ..change }]).await?;
    Ok(after)
}
