//! Tenants, their members and their system roles.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Array, Bool, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection as _};
use serde_json::{Value, json};
use virtualstack_model::Result;
use virtualstack_model::audit::{Audit, Change, changed_fields};
use virtualstack_model::id::{RoleId, TenantId};
use virtualstack_model::tenant::{PROVIDER_SLUG, Settings, TenantState};
use virtualstack_model::user::{SYSTEM_ROLES, TENANT_ADMIN};

use crate::error::from_diesel;
use crate::invitations::{self, Brings, Invite};
use crate::listing::{Field, ListRequest, Listed, Listing};
use crate::schema::{permissions, tenant_roles, tenants as table};
use crate::tx::{AccountTx, Mode, SystemTx, TenantTx, Write};
use crate::{accounts, quotas, users, vms};

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

    /// What an update may change, as it is now.
    #[must_use]
    pub fn edit(&self) -> Edit {
        Edit { display_name: self.display_name.clone(), settings: self.settings() }
    }
}

/// What an update may change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the contract says what the fields are")]
pub struct Edit {
    pub display_name: String,
    pub settings: Settings,
}

/// A tenant to make.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the contract says what the fields are")]
pub struct NewTenant<'a> {
    pub id: TenantId,
    pub slug: &'a str,
    pub display_name: &'a str,
    pub settings: Settings,
}

impl<'a> NewTenant<'a> {
    /// With a new id and no settings.
    #[must_use]
    pub fn new(slug: &'a str, display_name: &'a str) -> Self {
        Self { id: TenantId::new(), slug, display_name, settings: Settings::default() }
    }
}

/// The first admin of a tenant.
#[derive(Clone, Copy, Debug)]
pub struct FirstAdmin<'a> {
    /// Normalised address.
    pub email: &'a str,
    /// Name for people, of an account that is made.
    pub display_name: &'a str,
    /// With one, an account is made, unless the address has one.
    pub password_hash: Option<&'a str>,
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
pub async fn current<M: Mode>(tx: &mut TenantTx<M>) -> Result<Tenant> {
    let tenant = tx.tenant();
    table::table.find(tenant).select(Tenant::as_select()).first(tx.connection()?).await.map_err(from_diesel)
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
        || table::table.filter(table::state.ne_all([hidden.as_str(), TenantState::Purged.as_str()])).into_boxed();
    LISTING.read(tx, request, variant, rows).await
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
pub async fn create(tx: &mut SystemTx, new: &NewTenant<'_>) -> Result<Tenant> {
    let tenant = diesel::insert_into(table::table)
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
    quotas::create(tx, tenant.id).await?;
    ensure_system_roles(tx, &tenant).await?;
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
    let role: RoleId = tenant_roles::table
        .filter(tenant_roles::tenant_id.eq(tenant.id.0).and(tenant_roles::display_name.eq(TENANT_ADMIN)))
        .select(tenant_roles::id)
        .first(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let mut inside = tx.enter(tenant.id, audit).await?;
    let fields = json!({"slug": tenant.slug, "displayName": tenant.display_name});
    let made = Change::of(tenant.id.name(), "TENANT_CREATED", "The tenant was created", fields);
    inside.change(Change { state: tenant.state.as_str(), ..made });
    match user {
        Some(user) => {
            let fields = json!({"email": admin.email, "roles": [role.name()]});
            inside.change(Change::of(user.name(), "USER_CREATED", "The tenant's first admin", fields));
        }
        None => {
            let brings = Brings::Role(role);
            let invite = Invite { email: admin.email, brings, inviter: None, expires_at: None };
            invitations::open(&mut inside, &invite).await?;
        }
    }
    tx.leave(inside).await
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

/// What a change of state writes. Fields that are none stay as they are.
#[derive(AsChangeset)]
#[diesel(table_name = table)]
struct Turn {
    state: &'static str,
    deleted_at: Option<Option<DateTime<Utc>>>,
    purge_at: Option<Option<DateTime<Utc>>>,
    undelete_state: Option<Option<&'static str>>,
}

/// Suspends a tenant. Like all that follows here, it holds from the next request on: every decision is made anew.
pub async fn suspend(tx: &mut SystemTx, audit: &Audit, tenant: &Tenant) -> Result<Tenant> {
    let to = Turn { state: TenantState::Suspended.as_str(), deleted_at: None, purge_at: None, undelete_state: None };
    turn(tx, audit, tenant, to, "TENANT_SUSPENDED", "The tenant was suspended").await
}

/// Ends a suspension.
pub async fn activate(tx: &mut SystemTx, audit: &Audit, tenant: &Tenant) -> Result<Tenant> {
    let to = Turn { state: TenantState::Active.as_str(), deleted_at: None, purge_at: None, undelete_state: None };
    turn(tx, audit, tenant, to, "TENANT_ACTIVATED", "The suspension has ended").await
}

/// Deletes a tenant, to be purged after `kept`, or moves the purge of one that is deleted already.
pub async fn delete(tx: &mut SystemTx, audit: &Audit, tenant: &Tenant, kept: TimeDelta) -> Result<Tenant> {
    let now = Utc::now();
    let first = tenant.state != TenantState::Deleted;
    let to = Turn {
        state: TenantState::Deleted.as_str(),
        deleted_at: first.then_some(Some(now)),
        purge_at: Some(Some(now + kept)),
        undelete_state: first.then(|| Some(tenant.state.as_str())),
    };
    turn(tx, audit, tenant, to, "TENANT_DELETED", "The tenant was deleted; it is kept until its purge time").await
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
    let to = Turn { state, deleted_at: Some(None), purge_at: Some(None), undelete_state: Some(None) };
    turn(tx, audit, tenant, to, "TENANT_UNDELETED", "The deletion was taken back").await.map(Some)
}

async fn turn(
    tx: &mut SystemTx,
    audit: &Audit,
    before: &Tenant,
    to: Turn,
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
/// large for one statement. Whether any were left.
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

/// All that goes with a tenant, what refers first. Its audit log stays, and so do the accounts of its members.
const PURGED: &[&str] = &[
    "iam.api_keys",
    "iam.invitations",
    "iam.user_tenant_roles",
    "iam.tenant_role_permissions",
    "iam.tenant_roles",
    "iam.memberships",
    "iam.request_ids",
    "iam.refresh_tokens",
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
    if due.is_none() || vms::any_of_tenant(tx, tenant).await? {
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

/// Makes the system roles of every tenant say what the product's list says; for after an upgrade.
pub async fn ensure_all_system_roles(tx: &mut SystemTx) -> Result<()> {
    let living = table::table.filter(table::state.ne(TenantState::Purged.as_str())).select(Tenant::as_select());
    let tenants: Vec<Tenant> = living.load(tx.connection()?).await.map_err(from_diesel)?;
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

/// Makes changes of who may do what in the tenant wait for one another, until the end of the transaction.
pub(crate) async fn lock_access(tx: &mut TenantTx<Write>) -> Result<()> {
    let row = table::table.find(tx.tenant()).select(table::id).for_no_key_update();
    row.execute(tx.connection()?).await.map_err(from_diesel)?;
    Ok(())
}

/// Makes every decision about access in the tenant be made anew, from the next request on.
pub async fn raise_epoch(tx: &mut TenantTx<Write>) -> Result<()> {
    let tenant = tx.tenant();
    diesel::update(table::table.find(tenant))
        .set(table::authz_epoch.eq(table::authz_epoch + 1))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}
