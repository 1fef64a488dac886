//! Invitations: how people come into a tenant. Tokens are made by the worker when it sends the mail; here is only what
//! they hash to.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;
use virtualstack_model::Result;
use virtualstack_model::audit::Change;
use virtualstack_model::id::{InvitationId, JobId, RoleId, UserId};
use virtualstack_model::jobs::InvitationMail;
use virtualstack_model::tenant::INVITATION_DAYS;
use virtualstack_model::user::InvitationState;

use crate::error::from_diesel;
use crate::schema::invitations as table;
use crate::tenants;
use crate::tx::{Due, TenantTx, Write};

/// An invitation as it is kept.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = table)]
#[expect(missing_docs, reason = "the contract says what the fields are")]
pub struct Invitation {
    pub id: InvitationId,
    pub email: String,
    pub role_id: Option<RoleId>,
    pub user_id: Option<UserId>,
    pub state: InvitationState,
    pub inviter_id: Option<UserId>,
    pub expires_at: DateTime<Utc>,
    pub sent_at: Option<DateTime<Utc>>,
    pub accepted_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What an invitation brings.
#[derive(Clone, Copy, Debug)]
pub enum Brings {
    /// A new membership with this role.
    Role(RoleId),
    /// The activation of a member who was made beforehand, with roles of their own.
    Member(UserId),
}

/// An invitation to make.
#[derive(Clone, Debug)]
pub struct Invite<'a> {
    /// Normalised address.
    pub email: &'a str,
    /// What it brings.
    pub brings: Brings,
    /// Who invites; none for the platform.
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
            .filter(table::state.eq(InvitationState::Pending.as_str()).and(table::expires_at.le(now))),
    )
    .set(table::state.eq(InvitationState::Revoked.as_str()))
    .execute(tx.connection()?)
    .await
    .map_err(from_diesel)?;
    let days = match tenants::current(tx).await?.settings().invitation_days {
        0 => INVITATION_DAYS,
        days => days,
    };
    let (role, user) = match invite.brings {
        Brings::Role(role) => (Some(role.0), None),
        Brings::Member(user) => (None, Some(user.0)),
    };
    let made: Option<Invitation> = diesel::insert_into(table::table)
        .values((
            table::tenant_id.eq(tenant.0),
            table::id.eq(InvitationId::new().0),
            table::email.eq(invite.email),
            table::role_id.eq(role),
            table::user_id.eq(user),
            table::inviter_id.eq(invite.inviter.map(|inviter| inviter.0)),
            table::expires_at.eq(invite.expires_at.unwrap_or(now + TimeDelta::days(days.into()))),
        ))
        .on_conflict_do_nothing()
        .returning(Invitation::as_returning())
        .get_result(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    let Some(invitation) = made else {
        return table::table
            .filter(table::tenant_id.eq(tenant.0).and(table::email.eq(invite.email)))
            .filter(table::state.eq(InvitationState::Pending.as_str()))
            .select(Invitation::as_select())
            .first(tx.connection()?)
            .await
            .map_err(from_diesel);
    };
    tx.enqueue(JobId::new(), &InvitationMail { invitation: invitation.id }, Due::Now).await?;
    let fields = json!({"email": invitation.email, "role": invitation.role_id.map(RoleId::name)});
    let message = format!("{} was invited", invitation.email);
    tx.change(Change::of(invitation.id.name(), "INVITATION_CREATED", message, fields));
    Ok(invitation)
}
