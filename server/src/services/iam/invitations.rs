//! Invitations. Verifying and accepting are public: the token of the mail is the credential.

use chrono::{DateTime, TimeDelta, Utc};
use prost_types::Timestamp;
use virtualstack_model::iam::access::ASSIGN_ROLES;
use virtualstack_model::iam::id::{InvitationId, RoleId};
use virtualstack_model::iam::user::{AccountState, InvitationState, MembershipState, normalize_email};
use virtualstack_model::id::UserId;
use virtualstack_model::log::{Actor, Outcome};
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::iam::v1 as proto;
use virtualstack_proto::virtualstack::iam::v1::invitation;
use virtualstack_store::iam::accounts::{self, Credentials, Invited};
use virtualstack_store::iam::invitations::{self, Invitation, InvitationGrant, Invite, Joined, Presented};
use virtualstack_store::iam::{mail_tokens, roles};
use virtualstack_store::{Mode, Store, SystemPurpose, SystemScope, TenantTx, Write};

use crate::auth::limits::Limits;
use crate::auth::passwords::{Checked, Passwords, check_policy};
use crate::call::caller::{CallInfo, TenantCaller};
use crate::call::list::{List as _, page};
use crate::call::message::{date_time, time};
use crate::call::write::Answer;
use crate::call::{PublicCall, TenantCall};
use crate::generated::virtualstack::iam::v1::InvitationService;
use crate::shares::Holder;

/// How long an invitation may be open.
const LONGEST: TimeDelta = TimeDelta::days(90);

pub(crate) struct Invitations {
    pub(crate) store: Store,
    pub(crate) passwords: Passwords,
    pub(crate) limits: Limits,
}

impl InvitationService for Invitations {
    async fn list_invitations(
        &self,
        call: TenantCall<proto::ListInvitationsRequest>,
    ) -> Result<proto::ListInvitationsResponse> {
        let request = call.request.list();
        let listed = invitations::list(&mut self.store.single(&call.tenant()), &request).await?;
        Ok(page(listed, message))
    }

    async fn get_invitation(&self, call: TenantCall<proto::GetInvitationRequest>) -> Result<proto::Invitation> {
        let id = InvitationId::parse("name", &call.request.name)?;
        invitations::get(&mut self.store.single(&call.tenant()), id).await.map(message)
    }

    async fn create_invitation(&self, call: TenantCall<proto::CreateInvitationRequest>) -> Result<proto::Invitation> {
        let desired = call.request.invitation.clone().unwrap_or_default();
        let email = normalize_email(&desired.email);
        let expires_at = desired.expire_time.map(end).transpose()?;
        if !call.request.validate_only {
            self.limits.mail(Some(call.tenant_id()), &email).await?;
        }
        let create = async |tx: &mut TenantTx<Write>| {
            let role = grantable(&call, tx, &desired.role).await?;
            if let Some(MembershipState::Active | MembershipState::Inactive) =
                invitations::member_state(tx, &email).await?
            {
                let message = "invitation.email: somebody with this address is in the tenant already";
                return Err(Error::exists("USER_EXISTS", "users", message));
            }
            let inviter = Some(call.user());
            let invite = Invite { email: &email, grant: InvitationGrant::Role(role), inviter, expires_at };
            let invitation = invitations::open(tx, &invite).await?;
            tx.audit_resource(invitation.id.name());
            Ok(message(invitation))
        };
        call.write(&self.store, "", create).await
    }

    async fn revoke_invitation(&self, call: TenantCall<proto::RevokeInvitationRequest>) -> Result<proto::Invitation> {
        let id = InvitationId::parse("name", &call.request.name)?;
        let revoke = async |tx: &mut TenantTx<Write>| invitations::revoke(tx, id).await.map(message);
        call.write(&self.store, id.name(), revoke).await
    }

    async fn resend_invitation(&self, call: TenantCall<proto::ResendInvitationRequest>) -> Result<proto::Invitation> {
        let id = InvitationId::parse("name", &call.request.name)?;
        let invited = invitations::get(&mut self.store.single(&call.tenant()), id).await?;
        self.limits.mail(Some(call.tenant_id()), &invited.email).await?;
        let resend = async |tx: &mut TenantTx<Write>| {
            let invitation = invitations::lock(tx, id).await?;
            // A new term is a new grant.
            if let Some(role) = invitation.role_id {
                grantable(&call, tx, &role.name()).await?;
            }
            if let Some(user) = invitation.user_id {
                let codes = roles::permissions_of(tx, &[user]).await?;
                call.access().check_grant(codes.iter().map(String::as_str))?;
            }
            invitations::resend(tx, &invitation, call.user()).await.map(message)
        };
        call.write(&self.store, id.name(), resend).await
    }

    async fn verify_invitation(
        &self,
        call: PublicCall<proto::VerifyInvitationRequest>,
    ) -> Result<proto::VerifyInvitationResponse> {
        let digest = mail_tokens::digest(&call.request.token);
        self.limits.token("verify", &digest, call.info.client_address).await?;
        let (presented, account) = self.present(call.system(SystemPurpose::AcceptInvitation), &digest).await?;
        let Presented { invitation, tenant, tenant_display_name } = presented;
        Ok(proto::VerifyInvitationResponse {
            email: invitation.email,
            tenant: tenant.name(),
            tenant_display_name,
            account_exists: account.is_some_and(|account| account.password_hash.is_some()),
            expire_time: Some(time(invitation.expires_at)),
        })
    }

    async fn accept_invitation(
        &self,
        call: PublicCall<proto::AcceptInvitationRequest>,
    ) -> Result<proto::AcceptInvitationResponse> {
        let Joined { user, tenant, email } = self.accept(&call).await?;
        Ok(proto::AcceptInvitationResponse { user: user.name(), tenant: tenant.name(), email })
    }
}

impl Answer<TenantTx<Write>> for proto::Invitation {
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    async fn find(tx: &mut TenantTx<Write>, name: &str) -> Result<Self> {
        invitations::get(tx, InvitationId::parse("request_id", name)?).await.map(message)
    }
}

impl Invitations {
    /// The open invitation that a token belongs to, and the account of its address, if there is one.
    async fn present(&self, scope: SystemScope, digest: &[u8]) -> Result<(Presented, Option<Credentials>)> {
        let presented = self.store.system(scope, async |tx| {
            let presented = invitations::by_token(tx, digest).await?;
            let account = accounts::by_email(tx, &presented.invitation.email).await?;
            Ok((presented, account))
        });
        presented.await
    }

    async fn accept(&self, call: &PublicCall<proto::AcceptInvitationRequest>) -> Result<Joined> {
        let proto::AcceptInvitationRequest { token, password, display_name } = call.request.clone();
        let (scope, info) = (call.system(SystemPurpose::AcceptInvitation), &call.info);
        let digest = mail_tokens::digest(&token);
        self.limits.token("accept", &digest, info.client_address).await?;
        let (presented, account) = self.present(scope.clone(), &digest).await?;
        let active = account.as_ref().is_none_or(|account| account.state == AccountState::Active);
        let known = account.and_then(|account| account.password_hash.map(|hash| (account.id, hash)));
        // One piece of Argon2 work either way, with no transaction open.
        let (account, hash, right) = match known {
            Some((id, hash)) => {
                let checked =
                    self.passwords.check(password, Some(hash.clone()), Holder::network(info.client_address)).await?;
                (Some(id), hash, checked != Checked::Wrong)
            }
            None => {
                check_policy(&password, "password", &[&presented.invitation.email, &display_name])?;
                (None, self.passwords.hash(password, Holder::network(info.client_address)).await?, true)
            }
        };
        if !(right && active) {
            return Err(self.turned_away(scope, &digest, info).await?);
        }
        let invited = match account {
            Some(account) => Invited::Known { account, password_hash: &hash },
            None => Invited::New { password_hash: &hash, display_name: &display_name },
        };
        let audit = info.audit(Actor::Nobody, presented.invitation.id.name());
        self.store.system(scope, async |tx| invitations::accept(tx, &digest, invited, &audit).await).await
    }

    /// Writes down a wrong password, where the tenant's admins see it; the answer to it. An invitation that somebody else
    /// has just accepted, thereby making the account, has simply ended.
    async fn turned_away(&self, scope: SystemScope, digest: &[u8], info: &CallInfo) -> Result<Error> {
        const REASON: &str = "CREDENTIALS_WRONG";
        let written = self.store.system(scope, async |tx| {
            let presented = invitations::by_token(tx, digest).await?;
            let mut audit = info.audit(Actor::Nobody, presented.invitation.id.name());
            audit.outcome = Outcome::Failed(REASON.into());
            tx.audit(Some(presented.tenant), &audit).await
        });
        written.await?;
        Ok(Error::unauthenticated(REASON, "password: it is not that of the account with this address"))
    }
}

/// A role that the caller may give to somebody.
async fn grantable<M: Mode>(caller: &TenantCaller, tx: &mut TenantTx<M>, role: &str) -> Result<RoleId> {
    let access = caller.access();
    access.authorize(ASSIGN_ROLES)?;
    let (role, codes) = invitations::role(tx, role).await?;
    access.check_grant(codes.iter().map(String::as_str))?;
    Ok(role)
}

/// When an invitation ends that says so.
fn end(desired: Timestamp) -> Result<DateTime<Utc>> {
    let (time, now) = (date_time("invitation.expire_time", desired)?, Utc::now());
    if !(now..=now + LONGEST).contains(&time) {
        return Err(Error::invalid("invitation.expire_time", "must be in the future, at most 90 days from now"));
    }
    Ok(time)
}

/// An invitation.
pub(crate) fn message(row: Invitation) -> proto::Invitation {
    let state = match row.state {
        InvitationState::Pending => invitation::State::Pending,
        InvitationState::Accepted => invitation::State::Accepted,
        InvitationState::Revoked => invitation::State::Revoked,
        InvitationState::Expired => invitation::State::Expired,
    };
    proto::Invitation {
        name: row.id.name(),
        email: row.email,
        role: row.role_id.map(RoleId::name).unwrap_or_default(),
        expire_time: Some(time(row.expires_at)),
        state: state.into(),
        inviter: row.inviter_id.map(UserId::name).unwrap_or_default(),
        send_time: row.sent_at.map(time),
        accept_time: row.accepted_at.map(time),
        create_time: Some(time(row.created_at)),
        update_time: Some(time(row.updated_at)),
    }
}
