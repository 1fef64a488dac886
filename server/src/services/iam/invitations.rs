//! Invitations. Verifying and accepting are public: the token of the mail is the credential.

use chrono::{DateTime, TimeDelta, Utc};
use prost_types::Timestamp;
use tonic::{Request, Response, Status};
use virtualstack_model::iam::id::{InvitationId, RoleId};
use virtualstack_model::iam::user::{AccountState, MembershipState, normalize_email};
use virtualstack_model::log::{Actor, Outcome};
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::iam::v1 as proto;
use virtualstack_store::iam::accounts::{self, Credentials, Invited};
use virtualstack_store::iam::invitations::{self, InvitationGrant, Invite, Joined, Presented};
use virtualstack_store::iam::{mail_tokens, roles};
use virtualstack_store::{ListRequest, Listed, Mode, Store, SystemPurpose, TenantTx, request_ids};

use super::users::repeat;
use crate::auth::limits::Limits;
use crate::auth::passwords::{Checked, Passwords, check_policy};
use crate::call::caller::{CallInfo, Caller};
use crate::call::status::from_error;
use crate::generated::virtualstack::iam::v1::invitation_service_server::InvitationService;
use crate::wire::iam::invitation_message;
use crate::wire::time;

/// Lets its holder give roles to people.
const ASSIGN: &str = "role:assign";

/// How long an invitation may be open.
const LONGEST: TimeDelta = TimeDelta::days(90);

pub(crate) struct Invitations {
    pub(crate) store: Store,
    pub(crate) passwords: Passwords,
    pub(crate) limits: Limits,
}

#[tonic::async_trait]
impl InvitationService for Invitations {
    async fn list_invitations(
        &self,
        request: Request<proto::ListInvitationsRequest>,
    ) -> Result<Response<proto::ListInvitationsResponse>, Status> {
        let scope = Caller::of(&request)?.tenant();
        let proto::ListInvitationsRequest { page_size, page_token, filter, order_by, show_total } =
            request.into_inner();
        let request = ListRequest { page_size, page_token, filter, order_by, show_total };
        let Listed { rows, next_page_token, total_size } =
            self.store.read(&scope, async |tx| invitations::list(tx, &request).await).await.map_err(from_error)?;
        let invitations = rows.into_iter().map(invitation_message).collect();
        Ok(Response::new(proto::ListInvitationsResponse { invitations, next_page_token, total_size }))
    }

    async fn get_invitation(
        &self,
        request: Request<proto::GetInvitationRequest>,
    ) -> Result<Response<proto::Invitation>, Status> {
        let scope = Caller::of(&request)?.tenant();
        let id = InvitationId::parse("name", &request.get_ref().name).map_err(from_error)?;
        let row = self.store.read(&scope, async |tx| invitations::get(tx, id).await).await;
        row.map(invitation_message).map(Response::new).map_err(from_error)
    }

    async fn create_invitation(
        &self,
        request: Request<proto::CreateInvitationRequest>,
    ) -> Result<Response<proto::Invitation>, Status> {
        let caller = Caller::of(&request)?;
        let repeat =
            repeat("CreateInvitation", request.get_ref(), &request.get_ref().request_id).map_err(from_error)?;
        let request = request.into_inner();
        let wanted = request.invitation.unwrap_or_default();
        let email = normalize_email(&wanted.email);
        let expires_at = wanted.expire_time.map(end).transpose().map_err(from_error)?;
        let scope = caller.tenant();
        let audit = caller.audit("").rehearsed(request.validate_only);
        let made = self.store.write(&scope, audit, async |tx| {
            if let Some(name) = request_ids::answered(tx, &repeat).await? {
                return invitations::get(tx, InvitationId::parse("request_id", &name)?).await;
            }
            let role = grantable(&caller, tx, &wanted.role).await?;
            if let Some(MembershipState::Active | MembershipState::Inactive) =
                invitations::member_state(tx, &email).await?
            {
                let message = "invitation.email: somebody with this address is in the tenant already";
                return Err(Error::exists("USER_EXISTS", "users", message));
            }
            let inviter = Some(caller.principal.access.user);
            let invite = Invite { email: &email, grant: InvitationGrant::Role(role), inviter, expires_at };
            let invitation = invitations::open(tx, &invite).await?;
            tx.audit_resource(invitation.id.name());
            request_ids::remember(tx, &repeat, &invitation.id.name()).await?;
            Ok(invitation)
        });
        made.await.map(invitation_message).map(Response::new).map_err(from_error)
    }

    async fn revoke_invitation(
        &self,
        request: Request<proto::RevokeInvitationRequest>,
    ) -> Result<Response<proto::Invitation>, Status> {
        let caller = Caller::of(&request)?;
        let id = InvitationId::parse("name", &request.get_ref().name).map_err(from_error)?;
        let revoked = self
            .store
            .write(&caller.tenant(), caller.audit(id.name()), async |tx| invitations::revoke(tx, id).await)
            .await;
        revoked.map(invitation_message).map(Response::new).map_err(from_error)
    }

    async fn resend_invitation(
        &self,
        request: Request<proto::ResendInvitationRequest>,
    ) -> Result<Response<proto::Invitation>, Status> {
        let caller = Caller::of(&request)?;
        let id = InvitationId::parse("name", &request.get_ref().name).map_err(from_error)?;
        let scope = caller.tenant();
        let resent = self.store.write(&scope, caller.audit(id.name()), async |tx| {
            let invitation = invitations::lock(tx, id).await?;
            // A new term is a new grant.
            if let Some(role) = invitation.role_id {
                grantable(&caller, tx, &role.name()).await?;
            }
            if let Some(user) = invitation.user_id {
                let codes = roles::permissions_of(tx, user).await?;
                caller.principal.access.check_grant(codes.iter().map(String::as_str))?;
            }
            invitations::resend(tx, &invitation).await
        });
        resent.await.map(invitation_message).map(Response::new).map_err(from_error)
    }

    async fn verify_invitation(
        &self,
        request: Request<proto::VerifyInvitationRequest>,
    ) -> Result<Response<proto::VerifyInvitationResponse>, Status> {
        let info = CallInfo::of(&request)?;
        let digest = mail_tokens::digest(&request.get_ref().token);
        self.limits.token("verify", &digest, info.client_address).await.map_err(from_error)?;
        let (presented, account) = self.present(&digest).await.map_err(from_error)?;
        let Presented { invitation, tenant, tenant_display_name } = presented;
        Ok(Response::new(proto::VerifyInvitationResponse {
            email: invitation.email,
            tenant: tenant.name(),
            tenant_display_name,
            account_exists: account.is_some_and(|account| account.password_hash.is_some()),
            expire_time: Some(time(invitation.expires_at)),
        }))
    }

    async fn accept_invitation(
        &self,
        request: Request<proto::AcceptInvitationRequest>,
    ) -> Result<Response<proto::AcceptInvitationResponse>, Status> {
        let info = CallInfo::of(&request)?;
        let joined = self.accept(request.into_inner(), &info).await.map_err(from_error)?;
        Ok(Response::new(proto::AcceptInvitationResponse {
            user: joined.user.name(),
            tenant: joined.tenant.name(),
            email: joined.email,
        }))
    }
}

impl Invitations {
    /// The open invitation that a token belongs to, and the account of its address, if there is one.
    async fn present(&self, digest: &[u8]) -> Result<(Presented, Option<Credentials>)> {
        let presented = self.store.system(SystemPurpose::AcceptInvitation, async |tx| {
            let presented = invitations::by_token(tx, digest).await?;
            let account = accounts::by_email(tx, &presented.invitation.email).await?;
            Ok((presented, account))
        });
        presented.await
    }

    async fn accept(&self, request: proto::AcceptInvitationRequest, info: &CallInfo) -> Result<Joined> {
        let proto::AcceptInvitationRequest { token, password, display_name } = request;
        let digest = mail_tokens::digest(&token);
        self.limits.token("accept", &digest, info.client_address).await?;
        let (presented, account) = self.present(&digest).await?;
        let active = account.as_ref().is_none_or(|account| account.state == AccountState::Active);
        let known = account.and_then(|account| account.password_hash.map(|hash| (account.id, hash)));
        // One piece of Argon2 work either way, with no transaction open.
        let (account, hash, right) = match known {
            Some((id, hash)) => {
                let checked = self.passwords.check(password, Some(hash.clone())).await?;
                (Some(id), hash, checked != Checked::Wrong)
            }
            None => {
                check_policy(&password, "password", &[&presented.invitation.email, &display_name])?;
                (None, self.passwords.hash(password).await?, true)
            }
        };
        if !(right && active) {
            return Err(self.turned_away(&digest, info).await?);
        }
        let invited = match account {
            Some(account) => Invited::Known { account, password_hash: &hash },
            None => Invited::New { password_hash: &hash, display_name: &display_name },
        };
        let audit = info.audit(Actor::Nobody, presented.invitation.id.name());
        let accept = SystemPurpose::AcceptInvitation;
        self.store.system(accept, async |tx| invitations::accept(tx, &digest, invited, &audit).await).await
    }

    /// Writes down a wrong password, where the tenant's admins see it; the answer to it. An invitation that somebody else
    /// has just accepted, thereby making the account, has simply ended.
    async fn turned_away(&self, digest: &[u8], info: &CallInfo) -> Result<Error> {
        const REASON: &str = "CREDENTIALS_WRONG";
        let written = self.store.system(SystemPurpose::AcceptInvitation, async |tx| {
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
async fn grantable<M: Mode>(caller: &Caller, tx: &mut TenantTx<M>, role: &str) -> Result<RoleId> {
    let access = &caller.principal.access;
    access.authorize(ASSIGN)?;
    let (role, codes) = invitations::role(tx, role).await?;
    access.check_grant(codes.iter().map(String::as_str))?;
    Ok(role)
}

/// When an invitation ends that says so.
fn end(wanted: Timestamp) -> Result<DateTime<Utc>> {
    let time = u32::try_from(wanted.nanos).ok().and_then(|nanos| DateTime::from_timestamp(wanted.seconds, nanos));
    let now = Utc::now();
    time.filter(|time| (now..=now + LONGEST).contains(time))
        .ok_or_else(|| Error::invalid("invitation.expire_time", "must be in the future, at most 90 days from now"))
}
