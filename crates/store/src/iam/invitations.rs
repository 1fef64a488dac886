//! Invitations: how people come into a tenant. Tokens are made by the worker when it sends the mail; here is only what
//! they hash to.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::{Value, json};
use virtualstack_model::iam::access::{ADD_USERS, ASSIGN_ROLES, Access, INVITE};
use virtualstack_model::iam::id::{InvitationId, RoleId};
use virtualstack_model::iam::jobs::InvitationMail;
use virtualstack_model::iam::tenant::{INVITATION_DAYS, TenantState};
use virtualstack_model::iam::user::{InvitationState, MembershipState};
use virtualstack_model::id::{AccountId, JobId, TenantId, UserId};
use virtualstack_model::log::{Actor, Audit, Change, changed_fields};
use virtualstack_model::{Error, Result};

use crate::iam::accounts::{self, Invited};
use crate::iam::memberships::{self, Edit, Membership, NewMembership};
use crate::iam::tenants::{self, Key};
use crate::iam::{epoch, principals};
use crate::listing::{Field, Fragment, Kind, ListRequest, Listed, Listing, literal};
use crate::schema::{invitations as table, memberships as members, tenant_role_permissions, tenant_roles};
use crate::tx::error::{CONFLICT, from_diesel};
use crate::tx::reader::TenantReader;
use crate::tx::{Due, Mode, SystemTx, TenantTx, Write};

/// Where an invitation stands, in SQL: nobody writes down that its time has run out.
pub(crate) const STATE: &str = "CASE WHEN iam.invitations.state = 'PENDING' AND iam.invitations.expires_at <= now() \
    THEN 'EXPIRED' ELSE iam.invitations.state END";

/// An invitation as it is kept.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = table)]
pub struct Invitation {
    pub id: InvitationId,
    pub email: String,
    pub role_id: Option<RoleId>,
    pub user_id: Option<UserId>,
    #[diesel(select_expression = literal(STATE), select_expression_type = Fragment<table::table, Text>)]
    pub state: InvitationState,
    pub inviter_id: Option<UserId>,
    pub expires_at: DateTime<Utc>,
    /// When the mail of its present term was handed over.
    pub sent_at: Option<DateTime<Utc>>,
    pub accepted_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What an invitation grants.
#[derive(Clone, Copy, Debug)]
pub enum InvitationGrant {
    /// A new membership with this role.
    Role(RoleId),
    /// The activation of a member who was made beforehand, with roles of their own.
    Member(UserId),
}

/// An invitation to make.
#[derive(Clone, Debug)]
pub struct Invite<'a> {
    pub email: &'a str,
    pub grant: InvitationGrant,
    /// Who invites; None for the platform.
    pub inviter: Option<UserId>,
    /// When it ends; as the tenant's settings say, if unset.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Invites an address, with the mail in the same commit. While an invitation of the address is open, it is that one.
pub async fn open(tx: &mut TenantTx<Write>, invite: &Invite<'_>) -> Result<Invitation> {
    let (tenant, now) = (tx.tenant(), Utc::now());
    // One whose time has run out makes room.
    diesel::update(
        table::table
            .filter(table::tenant_id.eq(tenant.0).and(table::email.eq(invite.email)))
            .filter(table::state.eq(InvitationState::Pending).and(table::expires_at.le(now))),
    )
    .set((table::state.eq(InvitationState::Revoked), table::digest.eq(None::<Vec<u8>>), table::updated_at.eq(now)))
    .execute(tx.connection()?)
    .await
    .map_err(from_diesel)?;
    let expires_at = match invite.expires_at {
        Some(end) => end,
        None => default_end(tx).await?,
    };
    let (role, user) = match invite.grant {
        InvitationGrant::Role(role) => (Some(role.0), None),
        InvitationGrant::Member(user) => (None, Some(user.0)),
    };
    let made: Option<Invitation> = diesel::insert_into(table::table)
        .values((
            table::tenant_id.eq(tenant.0),
            table::id.eq(InvitationId::new().0),
            table::email.eq(invite.email),
            table::role_id.eq(role),
            table::user_id.eq(user),
            table::inviter_id.eq(invite.inviter.map(|inviter| inviter.0)),
            table::expires_at.eq(expires_at),
        ))
        .on_conflict_do_nothing()
        .returning(Invitation::as_returning())
        .get_result(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    let Some(invitation) = made else {
        let open = table::table
            .filter(table::tenant_id.eq(tenant.0).and(table::email.eq(invite.email)))
            .filter(table::state.eq(InvitationState::Pending))
            .select(Invitation::as_select())
            .first(tx.connection()?)
            .await
            .optional()
            .map_err(from_diesel)?;
        return open.ok_or_else(|| Error::aborted(CONFLICT, "the open invitation has just ended; repeat it"));
    };
    tx.enqueue(JobId::new(), &InvitationMail { invitation: invitation.id }, Due::Now).await?;
    let fields = json!({"email": invitation.email, "role": invitation.role_id.map(RoleId::name)});
    let message = format!("{} was invited", invitation.email);
    tx.change(Change::of(invitation.id.name(), "INVITATION_CREATED", message, fields));
    Ok(invitation)
}

/// When an invitation of now ends that does not say.
async fn default_end<M: Mode>(tx: &mut TenantTx<M>) -> Result<DateTime<Utc>> {
    let days = match tenants::current(tx).await?.settings().invitation_days {
        0 => INVITATION_DAYS,
        days => days,
    };
    Ok(Utc::now() + TimeDelta::days(days.into()))
}

/// A role that an invitation is to grant, "roles/{id or key of a system role}", and the codes of its permissions.
pub async fn role<M: Mode>(tx: &mut TenantTx<M>, name: &str) -> Result<(RoleId, Vec<String>)> {
    let tenant = tx.tenant();
    let roles = tenant_roles::table.filter(tenant_roles::tenant_id.eq(tenant.0)).select(tenant_roles::id);
    let found: Option<RoleId> = match RoleId::parse("role", name) {
        Ok(id) => roles.filter(tenant_roles::id.eq(id.0)).first(tx.connection()?).await,
        Err(_) => {
            let key = name.strip_prefix("roles/").unwrap_or(name);
            roles.filter(tenant_roles::system.and(tenant_roles::display_name.eq(key))).first(tx.connection()?).await
        }
    }
    .optional()
    .map_err(from_diesel)?;
    let role = found.ok_or_else(|| Error::not_found("ROLE_NOT_FOUND", name))?;
    let codes = codes_of(tx.connection()?, tenant, role).await?;
    Ok((role, codes))
}

/// Codes of the permissions of a role.
async fn codes_of(connection: &mut AsyncPgConnection, tenant: TenantId, role: RoleId) -> Result<Vec<String>> {
    tenant_role_permissions::table
        .filter(tenant_role_permissions::tenant_id.eq(tenant.0).and(tenant_role_permissions::role_id.eq(role.0)))
        .select(tenant_role_permissions::permission)
        .load(connection)
        .await
        .map_err(from_diesel)
}

/// State of the member with a normalised address. None if there is no such member, or they were removed.
pub async fn member_state<M: Mode>(tx: &mut TenantTx<M>, email: &str) -> Result<Option<MembershipState>> {
    let tenant = tx.tenant();
    let member = memberships::by_email(tx.connection()?, tenant, email).await?;
    Ok(member.map(|member| member.state).filter(|state| *state != MembershipState::Removed))
}

/// Reads an invitation.
pub async fn get(reader: &mut impl TenantReader, id: InvitationId) -> Result<Invitation> {
    let tenant = reader.tenant();
    let one = move || table::table.find((tenant.0, id.0)).select(Invitation::as_select());
    reader.find(one).await?.ok_or_else(|| not_found(id))
}

/// Reads an invitation and keeps others from changing it.
pub async fn lock(tx: &mut TenantTx<Write>, id: InvitationId) -> Result<Invitation> {
    find_locked(tx, id).await?.ok_or_else(|| not_found(id))
}

async fn find_locked(tx: &mut TenantTx<Write>, id: InvitationId) -> Result<Option<Invitation>> {
    let tenant = tx.tenant();
    table::table
        .find((tenant.0, id.0))
        .select(Invitation::as_select())
        .for_update()
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)
}

fn not_found(id: InvitationId) -> Error {
    Error::not_found("INVITATION_NOT_FOUND", id.name())
}

/// What filters and orders of invitations may name.
const LISTING: Listing<table::table> = Listing {
    collection: InvitationId::COLLECTION,
    id: Field::id("name", InvitationId::COLLECTION, &table::id),
    fields: &[
        Field::text("email", &table::email).sorted().searched(),
        Field::sql("state", Kind::Words(InvitationState::WORDS), STATE).sorted(),
        Field::time("createTime", &table::created_at).sorted(),
        Field::time("expireTime", &table::expires_at).sorted(),
    ],
};

/// Lists invitations.
pub async fn list(reader: &mut impl TenantReader, request: &ListRequest) -> Result<Listed<Invitation>> {
    let tenant = reader.tenant();
    LISTING.read(reader, request, "", move || table::table.filter(table::tenant_id.eq(tenant.0)).into_boxed()).await
}

/// Ends an invitation that was not accepted, and its token.
pub async fn revoke(tx: &mut TenantTx<Write>, id: InvitationId) -> Result<Invitation> {
    let invitation = lock(tx, id).await?;
    match invitation.state {
        InvitationState::Revoked => return Ok(invitation),
        InvitationState::Accepted => return Err(accepted(id)),
        InvitationState::Pending | InvitationState::Expired => {}
    }
    let tenant = tx.tenant();
    let revoked = diesel::update(table::table.find((tenant.0, id.0)))
        .set((
            table::state.eq(InvitationState::Revoked),
            table::digest.eq(None::<Vec<u8>>),
            table::updated_at.eq(Utc::now()),
        ))
        .returning(Invitation::as_returning())
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let fields = changed_fields([("state", json!(invitation.state), json!(revoked.state))]);
    let message = format!("The invitation of {} was revoked", revoked.email);
    tx.change(Change::of(id.name(), "INVITATION_REVOKED", message, fields.into()));
    Ok(revoked)
}

/// Closes what is open for an address.
pub(crate) async fn revoke_all(tx: &mut TenantTx<Write>, email: &str) -> Result<()> {
    let open = table::table
        .filter(table::tenant_id.eq(tx.tenant().0).and(table::email.eq(email)))
        .filter(table::state.eq(InvitationState::Pending.as_str()));
    let revoked: Vec<InvitationId> = diesel::update(open)
        .set((table::state.eq(InvitationState::Revoked.as_str()), table::updated_at.eq(Utc::now())))
        .returning(table::id)
        .get_results(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    for id in revoked {
        let fields = json!({"state": [InvitationState::Pending, InvitationState::Revoked]});
        let change = Change::of(id.name(), "INVITATION_REVOKED", format!("{email} is invited no more"), fields);
        tx.change(Change { state: InvitationState::Revoked.as_str(), ..change });
    }
    Ok(())
}

/// Whether an invitation holds: whoever made it could still make it.
async fn holds(tx: &mut SystemTx, tenant: TenantId, invitation: &Invitation) -> Result<bool> {
    let Some(inviter) = invitation.inviter_id else { return Ok(true) };
    match principals::member(tx, tenant, inviter).await? {
        Some(inviter) => could_be_made_by(tx, &inviter, invitation).await,
        None => Ok(false),
    }
}

async fn could_be_made_by(tx: &mut SystemTx, inviter: &Access, invitation: &Invitation) -> Result<bool> {
    if let Some(role) = invitation.role_id {
        let codes = codes_of(tx.connection()?, inviter.tenant, role).await?;
        return Ok(inviter.may_let_in(&[INVITE, ASSIGN_ROLES], codes.iter().map(String::as_str)));
    }
    let Some(user) = invitation.user_id else { return Ok(true) };
    let Some(member) = principals::member(tx, inviter.tenant, user).await? else { return Ok(false) };
    let codes = member.roles.iter().flat_map(|role| &role.permissions).map(String::as_str);
    let by: &[_] = if member.roles.is_empty() { &[ADD_USERS] } else { &[ADD_USERS, ASSIGN_ROLES] };
    Ok(inviter.may_let_in(by, codes))
}

/// Revokes open invitations of members who could not make them any more. Whoever takes rights away ends with this.
pub(crate) async fn revoke_unfounded(tx: &mut TenantTx<Write>, inviters: &[UserId]) -> Result<()> {
    let tenant = tx.tenant();
    let theirs = table::table
        .filter(table::tenant_id.eq(tenant.0).and(table::inviter_id.eq_any(inviters.iter().map(|inviter| inviter.0))))
        .filter(table::state.eq(InvitationState::Pending.as_str()))
        .select(Invitation::as_select());
    let theirs: Vec<Invitation> = theirs.load(tx.connection()?).await.map_err(from_diesel)?;
    for invitation in theirs {
        let decide = async |system: &mut SystemTx| holds(system, tenant, &invitation).await;
        if tx.as_system(decide).await? {
            continue;
        }
        if let Some(user) = invitation.user_id {
            // Nor does the first login let them in.
            let edit = Edit { activates_at_login: Some(false), ..Edit::default() };
            memberships::update(tx.connection()?, tenant, user, edit).await?;
        }
        revoke_all(tx, &invitation.email).await?;
    }
    Ok(())
}

/// Makes the open invitations of these members the caller's where they hold by the caller alone: whoever gives a member to be
/// more than the inviter has answers for it.
pub(crate) async fn take_over(tx: &mut TenantTx<Write>, users: &[UserId]) -> Result<()> {
    let (tenant, access) = (tx.tenant(), tx.access()?);
    let open = table::table
        .filter(table::tenant_id.eq(tenant.0).and(table::user_id.eq_any(users.iter().map(|user| user.0))))
        .filter(table::state.eq(InvitationState::Pending.as_str()))
        .select(Invitation::as_select());
    let open: Vec<Invitation> = open.load(tx.connection()?).await.map_err(from_diesel)?;
    for invitation in open {
        let decide = async |system: &mut SystemTx| {
            Ok(!holds(system, tenant, &invitation).await? && could_be_made_by(system, &access, &invitation).await?)
        };
        if tx.as_system(decide).await? {
            diesel::update(table::table.find((tenant.0, invitation.id.0)))
                .set(table::inviter_id.eq(access.user.0))
                .execute(tx.connection()?)
                .await
                .map_err(from_diesel)?;
        }
    }
    Ok(())
}

/// Gives an invitation that [`lock`] gave, and that is open or has run out, a new term and a new mail. Its token ends now, and
/// it is that of who sends it.
pub async fn resend(tx: &mut TenantTx<Write>, invitation: &Invitation, inviter: UserId) -> Result<Invitation> {
    let id = invitation.id;
    match invitation.state {
        InvitationState::Pending | InvitationState::Expired => {}
        InvitationState::Accepted => return Err(accepted(id)),
        InvitationState::Revoked => {
            let message = "the invitation was revoked; make a new one";
            return Err(Error::precondition("INVITATION_REVOKED", id.name(), message));
        }
    }
    let tenant = tx.tenant();
    let resent = diesel::update(table::table.find((tenant.0, id.0)))
        .set((
            table::expires_at.eq(default_end(tx).await?),
            table::inviter_id.eq(inviter.0),
            table::digest.eq(None::<Vec<u8>>),
            table::sent_at.eq(None::<DateTime<Utc>>),
            table::updated_at.eq(Utc::now()),
        ))
        .returning(Invitation::as_returning())
        .get_result(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    tx.enqueue(JobId::new(), &InvitationMail { invitation: id }, Due::Now).await?;
    let fields = changed_fields([
        ("state", json!(invitation.state), json!(resent.state)),
        ("expireTime", json!(invitation.expires_at), json!(resent.expires_at)),
    ]);
    let message = format!("{} was invited again", resent.email);
    tx.change(Change::of(id.name(), "INVITATION_RESENT", message, fields.into()));
    Ok(resent)
}

fn accepted(id: InvitationId) -> Error {
    Error::precondition("INVITATION_ACCEPTED", id.name(), "the invitation was accepted already")
}

/// What the mail of an invitation says besides its token.
#[derive(Clone, Debug)]
pub struct MailContent {
    pub email: String,
    /// The tenant's name for people.
    pub tenant: String,
    /// The inviter's name for people; None for the platform.
    pub inviter: Option<String>,
    pub expires_at: DateTime<Utc>,
}

/// Keeps the digest of a new token, which replaces an older one; what the mail then says. None where no mail is due: the
/// invitation has ended, its mail has gone, or nobody can enter the tenant.
pub async fn set_token(tx: &mut TenantTx<Write>, id: InvitationId, digest: &[u8]) -> Result<Option<MailContent>> {
    let Some(invitation) = find_locked(tx, id).await? else { return Ok(None) };
    let tenant = tenants::current(tx).await?;
    let due = invitation.state == InvitationState::Pending && invitation.sent_at.is_none();
    if !due || tenant.state != TenantState::Active {
        return Ok(None);
    }
    diesel::update(table::table.find((tenant.id.0, id.0)))
        .set(table::digest.eq(digest))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let inviter = match invitation.inviter_id {
        None => None,
        Some(inviter) => members::table
            .find((tenant.id.0, inviter.0))
            .select(members::display_name)
            .first(tx.connection()?)
            .await
            .optional()
            .map_err(from_diesel)?,
    };
    let Invitation { email, expires_at, .. } = invitation;
    Ok(Some(MailContent { email, tenant: tenant.display_name, inviter, expires_at }))
}

/// Remembers that the mail with a token was handed over, unless that token has ended meanwhile.
pub async fn set_sent(tx: &mut TenantTx<Write>, id: InvitationId, digest: &[u8]) -> Result<()> {
    let (tenant, now) = (tx.tenant(), Utc::now());
    let sent = diesel::update(table::table.find((tenant.0, id.0)).filter(table::digest.eq(digest)))
        .set(table::sent_at.eq(now))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    if sent == 1 {
        let fields = changed_fields([("sendTime", Value::Null, json!(now))]);
        tx.change(Change::of(id.name(), "INVITATION_SENT", "The mail was handed over", fields.into()));
    }
    Ok(())
}

/// An invitation as who has its token sees it.
#[derive(Clone, Debug)]
pub struct Presented {
    pub invitation: Invitation,
    /// The tenant it is to.
    pub tenant: TenantId,
    /// The tenant's name for people.
    pub tenant_display_name: String,
}

/// The open invitation that a token belongs to.
pub async fn by_token(tx: &mut SystemTx, digest: &[u8]) -> Result<Presented> {
    let found: Option<(TenantId, Invitation)> = table::table
        .filter(table::digest.eq(digest))
        .select((table::tenant_id, Invitation::as_select()))
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    let (tenant, invitation) = found.ok_or_else(invalid)?;
    let tenant = tenants::find_any(tx, &Key::Id(tenant)).await?.ok_or_else(invalid)?;
    let member = memberships::by_email(tx.connection()?, tenant.id, &invitation.email).await?;
    check_open(&invitation, tenant.state, member.as_ref())?;
    if !holds(tx, tenant.id, &invitation).await? {
        return Err(invalid());
    }
    Ok(Presented { invitation, tenant: tenant.id, tenant_display_name: tenant.display_name })
}

/// What came of an accepted invitation.
#[derive(Clone, Debug)]
pub struct Joined {
    pub user: UserId,
    pub tenant: TenantId,
    pub email: String,
}

/// Accepts the invitation that a token belongs to: account, membership, role and logs together, or nothing of it. All of
/// it but the account happens inside the invitation's tenant, behind its row-level security.
pub async fn accept(tx: &mut SystemTx, digest: &[u8], invited: Invited<'_>, audit: &Audit) -> Result<Joined> {
    let tenant = by_token(tx, digest).await?.tenant;
    tx.enter(tenant, audit, async |inside| join(inside, digest, invited).await).await
}

async fn join(tx: &mut TenantTx<Write>, digest: &[u8], invited: Invited<'_>) -> Result<Joined> {
    // From here on nobody else changes who is in the tenant. The invitation is locked after that, as everywhere.
    epoch::raise(tx).await?;
    let tenant = tenants::current(tx).await?;
    let invitation: Invitation = table::table
        .filter(table::tenant_id.eq(tenant.id.0).and(table::digest.eq(digest)))
        .select(Invitation::as_select())
        .for_update()
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?
        .ok_or_else(invalid)?;
    let member = memberships::by_email(tx.connection()?, tenant.id, &invitation.email).await?;
    check_open(&invitation, tenant.state, member.as_ref())?;
    let decide = async |system: &mut SystemTx| holds(system, tenant.id, &invitation).await;
    if !tx.as_system(decide).await? {
        return Err(invalid());
    }
    let (account, name) = claim(tx, &invitation.email, invited).await?;
    if member.as_ref().is_some_and(|member| member.account_id != account) {
        return Err(invalid());
    }
    let before = member.as_ref().map(|member| member.state);
    // A member who was removed comes back as who they are now, with nothing of what they had.
    let back = before == Some(MembershipState::Removed);
    let chosen = matches!(invited, Invited::New { display_name, .. } if !display_name.is_empty());
    let connection = tx.connection()?;
    let user = match member {
        Some(member) => {
            if back {
                memberships::take_all_roles(connection, tenant.id, member.id).await?;
            }
            let edit = Edit {
                display_name: (back || chosen).then_some(&*name),
                state: Some(MembershipState::Active),
                activates_at_login: Some(false),
                ..Edit::default()
            };
            memberships::update(connection, tenant.id, member.id, edit).await?;
            member.id
        }
        None => {
            let (email, state) = (&*invitation.email, MembershipState::Active);
            let new = NewMembership { account, email, display_name: &name, state, activates_at_login: false };
            memberships::insert(connection, tenant.id, &new).await?
        }
    };
    memberships::give_roles(connection, tenant.id, &[user], invitation.role_id.as_slice()).await?;
    let now = Utc::now();
    diesel::update(table::table.find((tenant.id.0, invitation.id.0)))
        .set((
            table::state.eq(InvitationState::Accepted),
            table::digest.eq(None::<Vec<u8>>),
            table::accepted_at.eq(now),
            table::updated_at.eq(now),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    if let Some(audit) = &mut tx.audit {
        audit.actor = Actor::User { account, user: Some(user), credential: None };
        audit.resource = invitation.id.name();
    }
    let email = invitation.email;
    let fields = changed_fields([("state", json!(invitation.state), json!(InvitationState::Accepted))]);
    let message = format!("{email} accepted the invitation");
    tx.change(Change::of(invitation.id.name(), "INVITATION_ACCEPTED", message, fields.into()));
    let fields = changed_fields([
        ("state", json!(before), json!(MembershipState::Active)),
        ("role", Value::Null, json!(invitation.role_id.map(RoleId::name))),
    ]);
    tx.change(Change::of(user.name(), "USER_JOINED", format!("{email} joined"), fields.into()));
    Ok(Joined { user, tenant: tenant.id, email })
}

/// The account, which is no tenant's.
async fn claim(tx: &mut TenantTx<Write>, email: &str, invited: Invited<'_>) -> Result<(AccountId, String)> {
    tx.as_system(async |system| accounts::claim(system, email, invited).await).await
}

/// Whether an invitation can be accepted.
fn check_open(invitation: &Invitation, tenant: TenantState, member: Option<&Membership>) -> Result<()> {
    let in_time = invitation.state == InvitationState::Pending && invitation.expires_at > Utc::now();
    let welcome = match (invitation.user_id, member) {
        (Some(user), Some(member)) => {
            member.id == user && matches!(member.state, MembershipState::Invited | MembershipState::Active)
        }
        (Some(_), None) => false,
        (None, Some(member)) => member.state != MembershipState::Inactive,
        (None, None) => true,
    };
    if in_time && welcome && tenant == TenantState::Active { Ok(()) } else { Err(invalid()) }
}

/// Why a token is worth nothing is not told.
fn invalid() -> Error {
    let message = "the invitation is not valid: it has ended, or was used; ask who invited you for a new one";
    Error::precondition("INVITATION_INVALID", InvitationId::COLLECTION, message)
}

/// The first login of a new account makes it active in the tenants that made it; what invited it there is accepted then.
pub async fn accept_at_login(tx: &mut SystemTx, account: AccountId) -> Result<()> {
    let waiting = members::table.filter(members::account_id.eq(account.0).and(members::activates_at_login));
    let waiting: Vec<UserId> = waiting.select(members::id).load(tx.connection()?).await.map_err(from_diesel)?;
    let waiting: Vec<(TenantId, Invitation)> = table::table
        .filter(table::user_id.eq_any(waiting.iter().map(|user| user.0)))
        .filter(table::state.eq(InvitationState::Pending.as_str()))
        .select((table::tenant_id, Invitation::as_select()))
        .load(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    let mut unfounded = Vec::new();
    for (tenant, invitation) in waiting {
        if !holds(tx, tenant, &invitation).await? {
            unfounded.extend(invitation.user_id);
        }
    }
    let activated = memberships::activate_at_login(tx.connection()?, account, &unfounded).await?;
    if activated.is_empty() {
        return Ok(());
    }
    let open = table::state.eq(InvitationState::Pending.as_str());
    let activated = activated.iter().map(|user| user.0);
    diesel::update(table::table.filter(table::user_id.eq_any(activated)).filter(open))
        .set((
            table::state.eq(InvitationState::Accepted.as_str()),
            table::digest.eq(None::<Vec<u8>>),
            table::accepted_at.eq(Utc::now()),
            table::updated_at.eq(Utc::now()),
        ))
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)?;
    Ok(())
}
