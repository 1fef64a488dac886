//! Users: accounts as members of one tenant. The tenant's rows carry address and name, so that no tenant reads accounts.
//!
//! What changes who may come in comes after [`crate::iam::principals::reauthorize`], which makes such changes wait for one another.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};
use virtualstack_model::iam::id::RoleId;
use virtualstack_model::iam::user::MembershipState;
use virtualstack_model::id::{AccountId, TenantId, UserId};
use virtualstack_model::log::{Change, changed_fields};
use virtualstack_model::{Error, Result};

use crate::iam::invitations::{self, InvitationGrant, Invite};
use crate::iam::memberships::{self, Edit, Membership, NewMembership};
use crate::iam::roles::{self, Admins, Role};
use crate::iam::{accounts, epoch, system_roles};
use crate::listing::{Field, Fragment, ListRequest, Listed, Listing, literal};
use crate::schema::{api_keys, memberships as table, user_tenant_roles, users as account_rows};
use crate::tx::error::from_diesel;
use crate::tx::reader::TenantReader;
use crate::tx::{AccountTx, Mode, SystemTx, TenantTx, Write, etag};

/// A member as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = table)]
pub struct User {
    pub id: UserId,
    pub account_id: AccountId,
    pub email: String,
    pub display_name: String,
    pub state: MembershipState,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub version: i64,
    /// To activate them is to invite them again.
    pub deactivated_invited: bool,
}

impl User {
    /// Changes with each change.
    #[must_use]
    pub fn etag(&self) -> String {
        etag(self.version)
    }
}

/// A member with the roles they hold, by the roles' names.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = table)]
pub struct Member {
    #[diesel(embed)]
    pub user: User,
    #[diesel(select_expression = held(), select_expression_type = Fragment<table::table, Array<SqlUuid>>)]
    pub roles: Vec<RoleId>,
}

/// Roles of the member of a row.
fn held() -> Fragment<table::table, Array<SqlUuid>> {
    literal(
        "ARRAY(SELECT r.id FROM iam.user_tenant_roles ur \
         JOIN iam.tenant_roles r ON r.tenant_id = ur.tenant_id AND r.id = ur.role_id \
         WHERE ur.tenant_id = iam.memberships.tenant_id AND ur.membership_id = iam.memberships.id \
         ORDER BY r.display_name)",
    )
}

/// A member to be.
#[derive(Clone, Debug)]
pub struct NewUser<'a> {
    pub email: &'a str,
    /// Name for people, as the tenant sees it.
    pub display_name: &'a str,
    /// Hash of the password that a new account gets.
    pub password_hash: Option<&'a str>,
    pub roles: &'a [Role],
    /// Who adds them; none for the platform.
    pub inviter: Option<UserId>,
}

/// Reads the account as a member of the tenant that its credential is for; an operator who has entered it is none.
pub async fn me(tx: &mut AccountTx, tenant: TenantId) -> Result<User> {
    let account = tx.account;
    table::table
        .filter(table::tenant_id.eq(tenant.0).and(table::account_id.eq(account.0)))
        .filter(table::state.eq(MembershipState::Active.as_str()))
        .select(User::as_select())
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?
        .ok_or_else(|| Error::not_found("USER_NOT_FOUND", "users/me"))
}

/// Makes an account an active member with a system role; one who is a member already keeps their other roles.
pub async fn add_active(tx: &mut SystemTx, tenant: TenantId, account: AccountId, role: &str) -> Result<UserId> {
    let (email, display_name): (String, String) = account_rows::table
        .find(account)
        .select((account_rows::email, account_rows::display_name))
        .first(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let role = system_roles::id(tx, tenant, role).await?;
    let connection = tx.connection()?;
    let user = match memberships::lock_by_account(connection, tenant, account).await? {
        Some(membership) => membership.id,
        None => {
            let (email, display_name) = (&*email, &*display_name);
            let state = MembershipState::Active;
            let new = NewMembership { account, email, display_name, state, activates_at_login: false };
            memberships::insert(connection, tenant, &new).await?
        }
    };
    memberships::give_roles(connection, tenant, &[user], &[role]).await?;
    Ok(user)
}

/// A member who is there.
fn present(tenant: TenantId) -> table::BoxedQuery<'static, diesel::pg::Pg> {
    table::table
        .filter(table::tenant_id.eq(tenant.0).and(table::state.ne(MembershipState::Removed.as_str())))
        .into_boxed()
}

fn missing(id: UserId) -> Error {
    Error::not_found("USER_NOT_FOUND", id.name())
}

/// Reads a member.
pub async fn get(reader: &mut impl TenantReader, id: UserId) -> Result<Member> {
    let tenant = reader.tenant();
    let one = move || present(tenant).filter(table::id.eq(id)).select(Member::as_select());
    reader.find(one).await?.ok_or_else(|| missing(id))
}

/// Reads a member and locks them until the end of the transaction.
pub async fn lock(tx: &mut TenantTx<Write>, id: UserId) -> Result<Member> {
    // Read after the lock and not with it, for the roles stand in rows of their own.
    let row = table::table.filter(table::tenant_id.eq(tx.tenant().0).and(table::id.eq(id)));
    row.select(table::id).for_update().execute(tx.connection()?).await.map_err(from_diesel)?;
    get(tx, id).await
}

/// What filters and orders of members may name.
const LISTING: Listing<table::table> = Listing {
    collection: UserId::COLLECTION,
    id: Field::id("name", UserId::COLLECTION, &table::id),
    fields: &[
        Field::text("email", &table::email).sorted().searched(),
        Field::text("displayName", &table::display_name).sorted().searched(),
        Field::words("state", MembershipState::SHOWN, &table::state).sorted(),
        Field::time("createTime", &table::created_at).sorted(),
        Field::time("updateTime", &table::updated_at).sorted(),
    ],
};

/// Lists members: all, or those who hold a role.
pub async fn list(
    reader: &mut impl TenantReader,
    request: &ListRequest,
    holding: Option<RoleId>,
) -> Result<Listed<Member>> {
    let tenant = reader.tenant();
    let variant = holding.map(RoleId::name).unwrap_or_default();
    let base = move || match holding {
        None => present(tenant),
        Some(role) => {
            let holders = user_tenant_roles::table
                .filter(user_tenant_roles::tenant_id.eq(tenant.0).and(user_tenant_roles::role_id.eq(role.0)));
            present(tenant).filter(table::id.eq_any(holders.select(user_tenant_roles::membership_id)))
        }
    };
    LISTING.read(reader, request, &variant, base).await
}

/// Refuses ids that are not those of members, by the first of them.
pub async fn check_members<M: Mode>(tx: &mut TenantTx<M>, ids: &[UserId]) -> Result<()> {
    let found = present(tx.tenant()).filter(table::id.eq_any(ids.iter().map(|id| id.0))).select(table::id);
    let found: Vec<UserId> = found.load(tx.connection()?).await.map_err(from_diesel)?;
    ids.iter().find(|id| !found.contains(id)).map_or(Ok(()), |id| Err(missing(*id)))
}

/// Makes somebody an invited member, and an account of the address if there is none. All come in by the mail that goes
/// out; a new account with a password also by its first login. What the tenant is told is the same.
pub async fn add(tx: &mut TenantTx<Write>, new: &NewUser<'_>) -> Result<Member> {
    let tenant = tx.tenant();
    let ensure =
        async |system: &mut SystemTx| accounts::ensure(system, new.email, new.display_name, new.password_hash).await;
    let (account, made) = tx.as_system(ensure).await?;
    let activates_at_login = made && new.password_hash.is_some();
    let (connection, state) = (tx.connection()?, MembershipState::Invited);
    let id = match memberships::lock_by_account(connection, tenant, account).await? {
        None => {
            let (email, display_name) = (new.email, new.display_name);
            let new = NewMembership { account, email, display_name, state, activates_at_login };
            memberships::insert(connection, tenant, &new).await?
        }
        // Who comes back is who they were.
        Some(Membership { id, state: MembershipState::Removed, .. }) => {
            let edit = Edit {
                email: Some(new.email),
                display_name: Some(new.display_name),
                state: Some(state),
                activates_at_login: Some(activates_at_login),
                ..Edit::default()
            };
            memberships::update(connection, tenant, id, edit).await?;
            id
        }
        Some(Membership { id, .. }) => {
            let message = format!("user.email: {} is a member of the tenant already", new.email);
            return Err(Error::exists("USER_EXISTS", id.name(), message));
        }
    };
    let roles: Vec<_> = new.roles.iter().map(|role| role.id).collect();
    memberships::give_roles(connection, tenant, &[id], &roles).await?;
    // This takes the place of what was open for the address.
    invitations::revoke_all(tx, new.email).await?;
    // Also where the first login would do: whether there was an account must not show.
    let invite =
        Invite { email: new.email, grant: InvitationGrant::Member(id), inviter: new.inviter, expires_at: None };
    invitations::open(tx, &invite).await?;
    let member = get(tx, id).await?;
    let roles: Vec<_> = member.roles.iter().map(|role| role.name()).collect();
    let fields = json!({"email": member.user.email, "displayName": member.user.display_name, "roles": roles});
    log(tx, &member, "USER_CREATED", format!("{} was added", member.user.email), fields);
    Ok(member)
}

/// Changes the name by which the tenant knows a locked member.
pub async fn rename(tx: &mut TenantTx<Write>, before: &Member, display_name: &str) -> Result<Member> {
    let id = before.user.id;
    let (tenant, edit) = (tx.tenant(), Edit { display_name: Some(display_name), ..Edit::default() });
    memberships::update(tx.connection()?, tenant, id, edit).await?;
    let fields = changed_fields([("displayName", json!(before.user.display_name), json!(display_name))]);
    let change = Change::update(id.name(), "USER_UPDATED", fields);
    tx.change(Change { state: before.user.state.as_str(), ..change });
    get(tx, id).await
}

/// Lets a deactivated member in again, or, if they had not come in before, invites them again.
pub async fn activate(tx: &mut TenantTx<Write>, id: UserId) -> Result<Member> {
    let before = lock(tx, id).await?;
    let state = match before.user.state {
        MembershipState::Active => return Ok(before),
        MembershipState::Inactive if before.user.deactivated_invited => MembershipState::Invited,
        MembershipState::Inactive => MembershipState::Active,
        MembershipState::Invited | MembershipState::Removed => {
            let message = "an invited member becomes active by accepting, or by the first login";
            return Err(Error::precondition("USER_INVITED", id.name(), message));
        }
    };
    set_state(tx, &before, state, "USER_ACTIVATED").await
}

/// Keeps a member out.
pub async fn deactivate(tx: &mut TenantTx<Write>, id: UserId) -> Result<Member> {
    let before = lock(tx, id).await?;
    if before.user.state == MembershipState::Inactive {
        return Ok(before);
    }
    roles::check_take(tx, &[id]).await?;
    let member = set_state(tx, &before, MembershipState::Inactive, "USER_DEACTIVATED").await?;
    invitations::revoke_unfounded(tx, &[id]).await?;
    Ok(member)
}

async fn set_state(
    tx: &mut TenantTx<Write>,
    before: &Member,
    state: MembershipState,
    reason: &'static str,
) -> Result<Member> {
    let (tenant, id) = (tx.tenant(), before.user.id);
    epoch::raise(tx).await?;
    let admins = Admins::of(tx).await?;
    let deactivated_invited = (before.user.state, state) == (MembershipState::Invited, MembershipState::Inactive);
    let edit = Edit { state: Some(state), deactivated_invited: Some(deactivated_invited), ..Edit::default() };
    memberships::update(tx.connection()?, tenant, id, edit).await?;
    admins.check_left(tx).await?;
    let member = get(tx, id).await?;
    let fields = json!({"state": [before.user.state, state]});
    log(tx, &member, reason, format!("{} is now {state}", member.user.email), fields);
    Ok(member)
}

/// Takes a locked member out of the tenant, with their roles, their API keys and what is open to let them in.
pub async fn remove(tx: &mut TenantTx<Write>, member: &Member) -> Result<()> {
    let (tenant, id) = (tx.tenant(), member.user.id);
    roles::check_take(tx, &[id]).await?;
    epoch::raise(tx).await?;
    let admins = Admins::of(tx).await?;
    memberships::take_all_roles(tx.connection()?, tenant, id).await?;
    let keys = api_keys::table.filter(api_keys::tenant_id.eq(tenant.0).and(api_keys::owner_id.eq(id.0)));
    diesel::delete(keys).execute(tx.connection()?).await.map_err(from_diesel)?;
    invitations::revoke_all(tx, &member.user.email).await?;
    let edit = Edit {
        state: Some(MembershipState::Removed),
        activates_at_login: Some(false),
        deactivated_invited: Some(false),
        ..Edit::default()
    };
    memberships::update(tx.connection()?, tenant, id, edit).await?;
    admins.check_left(tx).await?;
    invitations::revoke_unfounded(tx, &[id]).await?;
    let fields = json!({"state": [member.user.state, MembershipState::Removed]});
    let change = Change::of(id.name(), "USER_DELETED", format!("{} was taken out", member.user.email), fields);
    tx.change(Change { state: MembershipState::Removed.as_str(), ..change });
    Ok(())
}

fn log(tx: &mut TenantTx<Write>, member: &Member, reason: &'static str, message: String, fields: Value) {
    let change = Change::of(member.user.id.name(), reason, message, fields);
    tx.change(Change { state: member.user.state.as_str(), ..change });
}
