//! Roles: named sets of permissions, who holds them, and the catalogue of permissions.
//!
//! What depends on who holds what comes after [`crate::iam::principals::reauthorize`], which makes such changes wait for one
//! another. A role that is taken into use elsewhere meanwhile is kept by its foreign keys.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use diesel::dsl::{exists, select, sql};
use diesel::prelude::*;
use diesel::sql_types::{Array, Text};
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};
use virtualstack_model::iam::id::RoleId;
use virtualstack_model::iam::user::{InvitationState, MembershipState, PLATFORM_ADMIN, SYSTEM_ROLES, TENANT_ADMIN};
use virtualstack_model::id::{TenantId, UserId};
use virtualstack_model::log::{Change, changed_fields};
use virtualstack_model::{Error, Result, name};

use crate::iam::{epoch, invitations, memberships};
use crate::listing::{Field, Fragment, ListRequest, Listed, Listing, literal};
use crate::schema::{
    invitations as invited, memberships as members, permissions as catalogue, tenant_role_permissions as contents,
    tenant_roles as table, user_tenant_roles as holders,
};
use crate::tx::error::from_diesel;
use crate::tx::reader::TenantReader;
use crate::tx::{Mode, SystemTx, TenantTx, Write, etag};

/// A role as it is kept, with the codes of its permissions.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = table)]
pub struct Role {
    pub id: RoleId,
    pub display_name: String,
    pub description: String,
    pub system: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i64,
    #[diesel(select_expression = codes(), select_expression_type = Fragment<table::table, Array<Text>>)]
    pub permissions: Vec<String>,
}

/// Permissions of the role of a row, by code.
fn codes() -> Fragment<table::table, Array<Text>> {
    literal(
        "ARRAY(SELECT rp.permission FROM iam.tenant_role_permissions rp \
         WHERE rp.tenant_id = iam.tenant_roles.tenant_id AND rp.role_id = iam.tenant_roles.id ORDER BY rp.permission COLLATE \"C\")",
    )
}

impl Role {
    /// Changes with each change.
    #[must_use]
    pub fn etag(&self) -> String {
        etag(self.version)
    }
}

/// A permission of the catalogue.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = catalogue)]
pub struct Permission {
    pub code: String,
    pub title: String,
    pub description: String,
    pub module: String,
}

/// Which role is meant: both stand in full names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Id(RoleId),
    /// A system role, by key.
    System(String),
}

impl Key {
    /// Reads "roles/{id or key}"; `field` is named when it is neither.
    pub fn parse(field: &str, name: &str) -> Result<Self> {
        let key = name.strip_prefix("roles/").filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| Error::invalid(field, "must be a full name, roles/{id}"))?;
        Ok(key.parse().map_or_else(|_| Self::System(key.to_owned()), Self::Id))
    }

    fn name(&self) -> String {
        match self {
            Self::Id(id) => id.name(),
            Self::System(key) => format!("{}/{key}", RoleId::COLLECTION),
        }
    }
}

/// The role that is meant.
fn by_key(tenant: TenantId, key: &Key) -> table::BoxedQuery<'static, diesel::pg::Pg> {
    let query = table::table.filter(table::tenant_id.eq(tenant.0)).into_boxed();
    match key {
        Key::Id(id) => query.filter(table::id.eq(*id)),
        Key::System(key) => query.filter(table::system.and(table::display_name.eq(key.clone()))),
    }
}

/// Reads a role.
pub async fn get(reader: &mut impl TenantReader, key: &Key) -> Result<Role> {
    let tenant = reader.tenant();
    let one = || by_key(tenant, key).select(Role::as_select());
    reader.find(one).await?.ok_or_else(|| Error::not_found("ROLE_NOT_FOUND", key.name()))
}

/// Reads a custom role to change or delete it, and locks it until the end of the transaction.
pub async fn lock_custom(tx: &mut TenantTx<Write>, key: &Key) -> Result<Role> {
    // Read after the lock and not with it, for the permissions stand in rows of their own.
    if let Key::Id(id) = key {
        let row = table::table.filter(table::tenant_id.eq(tx.tenant().0).and(table::id.eq(*id)));
        row.select(table::id).for_update().execute(tx.connection()?).await.map_err(from_diesel)?;
    }
    let role = get(tx, key).await?;
    if role.system {
        let message = format!("{} is a system role, which nobody changes; create one of your own", role.display_name);
        return Err(Error::denied("SYSTEM_ROLE", message));
    }
    Ok(role)
}

/// What filters and orders of roles may name.
const LISTING: Listing<table::table> = Listing {
    collection: RoleId::COLLECTION,
    id: Field::id("name", RoleId::COLLECTION, &table::id),
    fields: &[
        Field::text("displayName", &table::display_name).sorted().searched(),
        Field::bool("system", &table::system).sorted(),
        Field::time("createTime", &table::created_at).sorted(),
        Field::time("updateTime", &table::updated_at).sorted(),
    ],
};

/// Lists roles.
pub async fn list(reader: &mut impl TenantReader, request: &ListRequest) -> Result<Listed<Role>> {
    let tenant = reader.tenant();
    LISTING.read(reader, request, "", move || table::table.filter(table::tenant_id.eq(tenant.0)).into_boxed()).await
}

/// What filters and orders of permissions may name.
const CATALOGUE: Listing<catalogue::table> = Listing {
    collection: "permissions",
    id: Field::text("code", &catalogue::code).sorted().searched(),
    fields: &[
        Field::text("title", &catalogue::title).sorted().searched(),
        Field::text("description", &catalogue::description).searched(),
        Field::text("module", &catalogue::module).sorted(),
    ],
};

/// Lists the catalogue, by code.
pub async fn list_permissions(reader: &mut impl TenantReader, request: &ListRequest) -> Result<Listed<Permission>> {
    CATALOGUE.read(reader, request, "", || catalogue::table.into_boxed()).await
}

/// Those of these codes that are in the catalogue.
pub async fn known<M: Mode>(tx: &mut TenantTx<M>, codes: &[String]) -> Result<BTreeSet<String>> {
    let known = catalogue::table.filter(catalogue::code.eq_any(codes)).select(catalogue::code);
    let known: Vec<String> = known.load(tx.connection()?).await.map_err(from_diesel)?;
    Ok(known.into_iter().collect())
}

/// Refuses names that mean a role of the product's somewhere, so that they mean the same everywhere.
fn check_name(display_name: &str) -> Result<()> {
    let key = name::key(display_name);
    if SYSTEM_ROLES.iter().any(|role| role.key == key) {
        let message = format!("role.displayName: {display_name} is the name of a system role");
        return Err(Error::exists("ROLE_NAME_TAKEN", "roles", message));
    }
    Ok(())
}

/// Gives custom roles of before the keys of their names. Of those whose names are the same, all but the oldest keep theirs by
/// their ids behind it.
pub async fn ensure_name_keys(tx: &mut SystemTx) -> Result<()> {
    let without: Vec<(TenantId, RoleId, String)> = table::table
        .filter(table::name_key.is_null().and(diesel::dsl::not(table::system)))
        .order((table::created_at, table::id))
        .select((table::tenant_id, table::id, table::display_name))
        .for_update()
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    for (tenant, id, display_name) in without {
        let key = name::key(&display_name);
        let taken = table::table.filter(table::tenant_id.eq(tenant).and(table::name_key.eq(&key)));
        let taken: bool = select(exists(taken)).get_result(tx.connection()?).await.map_err(from_diesel)?;
        let key = if taken { format!("{key}~{id}") } else { key };
        diesel::update(table::table.filter(table::tenant_id.eq(tenant).and(table::id.eq(id))))
            .set(table::name_key.eq(key))
            .execute(tx.connection()?)
            .await
            .map_err(from_diesel)?;
    }
    Ok(())
}

/// Makes a custom role.
pub async fn insert(
    tx: &mut TenantTx<Write>,
    id: RoleId,
    display_name: &str,
    description: &str,
    permissions: &[String],
) -> Result<Role> {
    check_name(display_name)?;
    let tenant = tx.tenant();
    diesel::insert_into(table::table)
        .values((
            table::tenant_id.eq(tenant.0),
            table::id.eq(id),
            table::display_name.eq(display_name),
            table::name_key.eq(name::key(display_name)),
            table::description.eq(description),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    put_in(tx, id, permissions).await?;
    let role = get(tx, &Key::Id(id)).await?;
    let fields =
        json!({"displayName": role.display_name, "description": role.description, "permissions": role.permissions});
    tx.change(Change::of(id.name(), "ROLE_CREATED", format!("Role {} was created", role.display_name), fields));
    Ok(role)
}

async fn put_in(tx: &mut TenantTx<Write>, role: RoleId, permissions: &[String]) -> Result<()> {
    let tenant = tx.tenant();
    let row = |code| (contents::tenant_id.eq(tenant.0), contents::role_id.eq(role.0), contents::permission.eq(code));
    diesel::insert_into(contents::table)
        .values(permissions.iter().map(row).collect::<Vec<_>>())
        .on_conflict_do_nothing()
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

/// Makes a locked role what `desired` says: display name, description, permissions.
pub async fn update(tx: &mut TenantTx<Write>, before: &Role, desired: &Role) -> Result<Role> {
    let (tenant, id) = (tx.tenant(), before.id);
    let taken = before.permissions.iter().any(|code| !desired.permissions.contains(code));
    let holders: Vec<_> = if taken { holders_of(tx, id).await?.into_iter().collect() } else { Vec::new() };
    if taken {
        tx.access()?.check_take(before.permissions.iter().map(String::as_str))?;
        check_take(tx, &holders).await?;
    }
    let renamed = (desired.display_name != before.display_name).then(|| name::key(&desired.display_name));
    if renamed.is_some() {
        check_name(&desired.display_name)?;
    }
    diesel::update(table::table.filter(table::tenant_id.eq(tenant.0).and(table::id.eq(id))))
        .set((
            table::display_name.eq(&desired.display_name),
            renamed.map(|key| table::name_key.eq(key)),
            table::description.eq(&desired.description),
            table::updated_at.eq(Utc::now()),
            table::version.eq(before.version + 1),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    diesel::delete(
        contents::table
            .filter(contents::tenant_id.eq(tenant.0).and(contents::role_id.eq(id.0)))
            .filter(contents::permission.ne_all(&desired.permissions)),
    )
    .execute(tx.connection()?)
    .await
    .map_err(from_diesel)?;
    put_in(tx, id, &desired.permissions).await?;
    if desired.permissions != before.permissions {
        epoch::raise(tx).await?;
    }
    invitations::revoke_unfounded(tx, &holders).await?;
    let role = get(tx, &Key::Id(id)).await?;
    let fields = changed_fields([
        ("displayName", json!(before.display_name), json!(role.display_name)),
        ("description", json!(before.description), json!(role.description)),
        ("permissions", json!(before.permissions), json!(role.permissions)),
    ]);
    tx.change(Change::update(id.name(), "ROLE_UPDATED", fields));
    Ok(role)
}

/// Deletes a locked role that nobody holds and no open invitation names.
pub async fn delete(tx: &mut TenantTx<Write>, role: &Role) -> Result<()> {
    tx.access()?.check_take(role.permissions.iter().map(String::as_str))?;
    let (tenant, now) = (tx.tenant(), Utc::now());
    let held = holders::table.filter(holders::tenant_id.eq(tenant.0).and(holders::role_id.eq(role.id.0)));
    let named = invited::table.filter(invited::tenant_id.eq(tenant.0).and(invited::role_id.eq(role.id.0)));
    let pending = invited::state.eq(InvitationState::Pending.as_str());
    let used: (bool, bool) = select((exists(held), exists(named.filter(pending.and(invited::expires_at.gt(now))))))
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let in_use =
        |by| Error::precondition("ROLE_IN_USE", role.id.name(), format!("{by}; a role in use cannot be deleted"));
    match used {
        (true, _) => return Err(in_use("members hold the role")),
        (_, true) => return Err(in_use("an open invitation names the role")),
        (false, false) => {}
    }
    // Invitations that nobody can accept any more let go of it.
    diesel::update(named)
        .set((
            invited::role_id.eq(None::<uuid::Uuid>),
            invited::state.eq(sql::<Text>("CASE state WHEN 'PENDING' THEN 'REVOKED' ELSE state END")),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    diesel::delete(contents::table.filter(contents::tenant_id.eq(tenant.0).and(contents::role_id.eq(role.id.0))))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    diesel::delete(table::table.filter(table::tenant_id.eq(tenant.0).and(table::id.eq(role.id))))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let message = format!("Role {} was deleted", role.display_name);
    tx.change(Change::of(role.id.name(), "ROLE_DELETED", message, json!({"displayName": role.display_name})));
    Ok(())
}

/// All that the roles of these members hold.
pub async fn permissions_of<M: Mode>(tx: &mut TenantTx<M>, users: &[UserId]) -> Result<Vec<String>> {
    let held = holders::table
        .filter(
            holders::tenant_id.eq(tx.tenant().0).and(holders::membership_id.eq_any(users.iter().map(|user| user.0))),
        )
        .select(holders::role_id);
    let codes = contents::table
        .filter(contents::tenant_id.eq(tx.tenant().0).and(contents::role_id.eq_any(held)))
        .select(contents::permission)
        .distinct();
    codes.load(tx.connection()?).await.map_err(from_diesel)
}

/// Refuses to take anything from members who hold more than the caller.
pub(crate) async fn check_take(tx: &mut TenantTx<Write>, users: &[UserId]) -> Result<()> {
    let held = permissions_of(tx, users).await?;
    tx.access()?.check_take(held.iter().map(String::as_str))
}

/// The members who hold a role.
pub async fn holders_of<M: Mode>(tx: &mut TenantTx<M>, role: RoleId) -> Result<BTreeSet<UserId>> {
    let held = holders::table.filter(holders::tenant_id.eq(tx.tenant().0).and(holders::role_id.eq(role.0)));
    let held: Vec<UserId> = held.select(holders::membership_id).load(tx.connection()?).await.map_err(from_diesel)?;
    Ok(held.into_iter().collect())
}

/// Gives a role to members. Those who hold it already stay as they are.
pub async fn assign(tx: &mut TenantTx<Write>, role: &Role, users: &[UserId]) -> Result<()> {
    let tenant = tx.tenant();
    let changed = memberships::give_roles(tx.connection()?, tenant, users, &[role.id]).await?;
    invitations::take_over(tx, users).await?;
    let message = format!("Role {} was assigned", role.display_name);
    touch(tx, &changed, "ROLE_ASSIGNED", &message, &json!({"role": [null, role.id.name()]})).await
}

/// Takes a role from members. Those who do not hold it stay as they are.
pub async fn unassign(tx: &mut TenantTx<Write>, role: &Role, users: &[UserId]) -> Result<()> {
    check_take(tx, users).await?;
    let admins = Admins::of(tx).await?;
    let tenant = tx.tenant();
    let changed = memberships::take_role(tx.connection()?, tenant, users, role.id).await?;
    admins.check_left(tx).await?;
    invitations::revoke_unfounded(tx, &changed).await?;
    let message = format!("Role {} was taken away", role.display_name);
    touch(tx, &changed, "ROLE_UNASSIGNED", &message, &json!({"role": [role.id.name(), null]})).await
}

/// Members whose roles have changed are changed themselves.
async fn touch(
    tx: &mut TenantTx<Write>,
    users: &[UserId],
    reason: &'static str,
    message: &str,
    fields: &Value,
) -> Result<()> {
    let tenant = tx.tenant();
    let states = memberships::touch(tx.connection()?, tenant, users).await?;
    if !states.is_empty() {
        epoch::raise(tx).await?;
    }
    for (user, state) in states {
        tx.change(Change { state: state.as_str(), ..Change::of(user.name(), reason, message, fields.clone()) });
    }
    Ok(())
}

/// The administering roles that somebody active holds, before a change that may take the last one away.
pub(crate) struct Admins(BTreeSet<String>);

impl Admins {
    pub(crate) async fn of(tx: &mut TenantTx<Write>) -> Result<Self> {
        let held: Vec<String> = holders::table
            .inner_join(table::table.on(table::tenant_id.eq(holders::tenant_id).and(table::id.eq(holders::role_id))))
            .inner_join(
                members::table
                    .on(members::tenant_id.eq(holders::tenant_id).and(members::id.eq(holders::membership_id))),
            )
            .filter(holders::tenant_id.eq(tx.tenant().0).and(members::state.eq(MembershipState::Active.as_str())))
            .filter(table::system.and(table::display_name.eq_any([TENANT_ADMIN, PLATFORM_ADMIN])))
            .select(table::display_name)
            .distinct()
            .load(tx.connection()?)
            .await
            .map_err(from_diesel)?;
        Ok(Self(held.into_iter().collect()))
    }

    /// Refuses the change if it took the last one away.
    pub(crate) async fn check_left(self, tx: &mut TenantTx<Write>) -> Result<()> {
        let left = Self::of(tx).await?;
        let Some(role) = self.0.difference(&left.0).next() else { return Ok(()) };
        let subject = format!("{}/{role}", RoleId::COLLECTION);
        Err(Error::precondition(
            "LAST_ADMIN",
            subject,
            format!("somebody active must hold {role}; give it to another first"),
        ))
    }
}
