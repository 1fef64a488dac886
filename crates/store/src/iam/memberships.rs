//! Memberships: the rows that make an account a user of a tenant, and the roles that a member holds. Only this file
//! writes them; `users`, `invitations`, `roles` and `accounts` say when.

use chrono::Utc;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use virtualstack_model::Result;
use virtualstack_model::iam::id::RoleId;
use virtualstack_model::iam::user::MembershipState;
use virtualstack_model::id::{AccountId, TenantId, UserId};

use crate::schema::{memberships as table, user_tenant_roles as roles};
use crate::tx::error::from_diesel;

/// What the writers of memberships need to know of one.
#[derive(Clone, Copy, Debug, Queryable, Selectable)]
#[diesel(table_name = table)]
pub(crate) struct Membership {
    pub(crate) id: UserId,
    pub(crate) account_id: AccountId,
    pub(crate) state: MembershipState,
}

/// The membership of a normalised address.
pub(crate) async fn by_email(
    connection: &mut AsyncPgConnection,
    tenant: TenantId,
    email: &str,
) -> Result<Option<Membership>> {
    table::table
        .filter(table::tenant_id.eq(tenant.0).and(table::email.eq(email)))
        .select(Membership::as_select())
        .first(connection)
        .await
        .optional()
        .map_err(from_diesel)
}

/// Reads the membership of an account and locks it until the end of the transaction.
pub(crate) async fn lock_by_account(
    connection: &mut AsyncPgConnection,
    tenant: TenantId,
    account: AccountId,
) -> Result<Option<Membership>> {
    table::table
        .filter(table::tenant_id.eq(tenant.0).and(table::account_id.eq(account.0)))
        .select(Membership::as_select())
        .for_update()
        .first(connection)
        .await
        .optional()
        .map_err(from_diesel)
}

/// A membership to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewMembership<'a> {
    pub(crate) account: AccountId,
    /// Normalised address of the account.
    pub(crate) email: &'a str,
    /// Name for people, as the tenant sees it.
    pub(crate) display_name: &'a str,
    pub(crate) state: MembershipState,
    /// Whether the first login makes it active.
    pub(crate) activates_at_login: bool,
}

/// Makes a membership. An account that has one in the tenant already is refused.
pub(crate) async fn insert(
    connection: &mut AsyncPgConnection,
    tenant: TenantId,
    new: &NewMembership<'_>,
) -> Result<UserId> {
    let id = UserId::new();
    diesel::insert_into(table::table)
        .values((
            table::tenant_id.eq(tenant.0),
            table::id.eq(id),
            table::account_id.eq(new.account.0),
            table::email.eq(new.email),
            table::display_name.eq(new.display_name),
            table::state.eq(new.state.as_str()),
            table::activates_at_login.eq(new.activates_at_login),
        ))
        .execute(connection)
        .await
        .map_err(from_diesel)?;
    Ok(id)
}

/// What is written of a membership. Fields that are None stay as they are.
#[derive(Clone, Copy, Debug, Default, AsChangeset)]
#[diesel(table_name = table)]
pub(crate) struct Edit<'a> {
    pub(crate) email: Option<&'a str>,
    pub(crate) display_name: Option<&'a str>,
    pub(crate) state: Option<MembershipState>,
    pub(crate) activates_at_login: Option<bool>,
    pub(crate) deactivated_invited: Option<bool>,
}

/// Changes a membership.
pub(crate) async fn update(
    connection: &mut AsyncPgConnection,
    tenant: TenantId,
    id: UserId,
    edit: Edit<'_>,
) -> Result<()> {
    diesel::update(table::table.filter(table::tenant_id.eq(tenant.0).and(table::id.eq(id))))
        .set((edit, table::version.eq(table::version + 1), table::updated_at.eq(Utc::now())))
        .execute(connection)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

/// Activates the memberships of an account that wait for its first login, but for some; which ones, whatever their tenants.
pub(crate) async fn activate_at_login(
    connection: &mut AsyncPgConnection,
    account: AccountId,
    but: &[UserId],
) -> Result<Vec<UserId>> {
    diesel::update(
        table::table
            .filter(table::account_id.eq(account.0).and(table::id.ne_all(but.iter().map(|user| user.0))))
            .filter(table::activates_at_login.and(table::state.eq(MembershipState::Invited.as_str()))),
    )
    .set((
        table::state.eq(MembershipState::Active.as_str()),
        table::activates_at_login.eq(false),
        table::version.eq(table::version + 1),
        table::updated_at.eq(Utc::now()),
    ))
    .returning(table::id)
    .get_results(connection)
    .await
    .map_err(from_diesel)
}

/// Gives all memberships of an account another name for people.
pub(crate) async fn rename_all(
    connection: &mut AsyncPgConnection,
    account: AccountId,
    display_name: &str,
) -> Result<()> {
    diesel::update(table::table.filter(table::account_id.eq(account.0)))
        .set((
            table::display_name.eq(display_name),
            table::version.eq(table::version + 1),
            table::updated_at.eq(Utc::now()),
        ))
        .execute(connection)
        .await
        .map_err(from_diesel)?;
    Ok(())
}

/// Notes that members have changed, as those do whose roles change; the state of each.
pub(crate) async fn touch(
    connection: &mut AsyncPgConnection,
    tenant: TenantId,
    users: &[UserId],
) -> Result<Vec<(UserId, MembershipState)>> {
    diesel::update(table::table.filter(table::tenant_id.eq(tenant.0)).filter(table::id.eq_any(users)))
        .set((table::version.eq(table::version + 1), table::updated_at.eq(Utc::now())))
        .returning((table::id, table::state))
        .get_results(connection)
        .await
        .map_err(from_diesel)
}

/// Gives each member each role; the members who got one that they did not hold. A role that is gone breaks a foreign key,
/// and fails all of it.
pub(crate) async fn give_roles(
    connection: &mut AsyncPgConnection,
    tenant: TenantId,
    users: &[UserId],
    given: &[RoleId],
) -> Result<Vec<UserId>> {
    let row = |user: &UserId, role: &RoleId| {
        (roles::tenant_id.eq(tenant.0), roles::membership_id.eq(user.0), roles::role_id.eq(role.0))
    };
    let rows: Vec<_> = users.iter().flat_map(|user| given.iter().map(move |role| row(user, role))).collect();
    diesel::insert_into(roles::table)
        .values(rows)
        .on_conflict_do_nothing()
        .returning(roles::membership_id)
        .get_results(connection)
        .await
        .map_err(from_diesel)
}

/// Takes a role from members; those who held it.
pub(crate) async fn take_role(
    connection: &mut AsyncPgConnection,
    tenant: TenantId,
    users: &[UserId],
    taken: RoleId,
) -> Result<Vec<UserId>> {
    let held = roles::table
        .filter(roles::tenant_id.eq(tenant.0).and(roles::role_id.eq(taken.0)))
        .filter(roles::membership_id.eq_any(users));
    diesel::delete(held).returning(roles::membership_id).get_results(connection).await.map_err(from_diesel)
}

/// Takes all roles from a member.
pub(crate) async fn take_all_roles(connection: &mut AsyncPgConnection, tenant: TenantId, user: UserId) -> Result<()> {
    let held = roles::table.filter(roles::tenant_id.eq(tenant.0).and(roles::membership_id.eq(user.0)));
    diesel::delete(held).execute(connection).await.map_err(from_diesel)?;
    Ok(())
}
