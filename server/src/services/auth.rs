//! Signing in and out.

use std::net::IpAddr;

use chrono::TimeDelta;
use tonic::{Request, Response, Status};
use virtualstack_model::access::Credential;
use virtualstack_model::id::{AccountId, SessionId, TenantId};
use virtualstack_model::jobs::PasswordResetMail;
use virtualstack_model::tenant::TenantState;
use virtualstack_model::user::{AccountState, MembershipState, normalize_email};
use virtualstack_model::{Error, audit::Actor};
use virtualstack_proto::virtualstack::iam::v1 as proto;
use virtualstack_proto::virtualstack::iam::v1::{
    LoginRequest, LoginResponse, LogoutRequest, RefreshRequest, RequestPasswordResetRequest, ResetPasswordRequest,
    SwitchTenantRequest, TenantChoice,
};
use virtualstack_store::accounts::{self, Choice};
use virtualstack_store::sessions::{self, Redeemed};
use virtualstack_store::tenants::Key;
use virtualstack_store::{Store, SystemPurpose, SystemTx, mail_tokens, password_resets, principals};

use crate::caller::{CallInfo, Caller};
use crate::config::Config;
use crate::generated::virtualstack::iam::v1::auth_service_server::AuthService;
use crate::passwords::{Checked, Passwords, check_policy};
use crate::status::from_error;
use crate::tokens::{self, Tokens};

pub(crate) struct Auth {
    store: Store,
    tokens: Tokens,
    passwords: Passwords,
    session_lifetime: TimeDelta,
}

/// A session that tokens are to be given for.
struct Granted {
    account: AccountId,
    session: SessionId,
    tenant: TenantId,
    refresh_token: String,
    choices: Vec<Choice>,
}

impl Auth {
    pub(crate) fn new(store: Store, tokens: Tokens, passwords: Passwords, config: &Config) -> Self {
        Self { store, tokens, passwords, session_lifetime: TimeDelta::seconds(config.session_seconds) }
    }

    async fn sign_in(&self, request: LoginRequest, info: &CallInfo) -> Result<Granted, Error> {
        let email = normalize_email(&request.email);
        let found = if email.contains('\0') {
            // PostgreSQL has no such text, so nobody has such an address.
            None
        } else {
            self.store.system(SystemPurpose::Authenticate, async |tx| accounts::by_email(tx, &email).await).await?
        };
        // The same work and the same answer for an unknown address, a wrong password and an inactive account.
        let hash = found.as_ref().and_then(|account| account.password_hash.clone());
        let checked = self.passwords.check(request.password.clone(), hash.clone()).await?;
        let wrong = || Error::unauthenticated("CREDENTIALS_WRONG", "address or password is wrong");
        let account = found
            .filter(|account| account.state == AccountState::Active && checked != Checked::Wrong)
            .ok_or_else(wrong)?;
        let fresh_hash = match checked {
            Checked::RightButWeak => Some(self.passwords.hash(request.password).await?),
            _ => None,
        };
        let (refresh_token, digest) = new_refresh_token()?;
        let (session, tenant, choices) = self
            .store
            .system(SystemPurpose::Authenticate, async |tx| {
                if let (Some(old), Some(new)) = (&hash, &fresh_hash) {
                    accounts::rehash(tx, account.id, old, new).await?;
                }
                accounts::activate_at_login(tx, account.id).await?;
                let choices = accounts::choices(tx, account.id).await?;
                let tenant = choose(&choices, &request.tenant, account.last_tenant_id)?;
                accounts::set_last_tenant(tx, account.id, tenant).await?;
                let session = sessions::start(tx, account.id, self.session_lifetime, info.client_address, None).await?;
                sessions::add_refresh_token(tx, session, tenant, &digest).await?;
                let credential = Some(Credential::Session(session));
                let actor = Actor::User { account: account.id, user: None, credential };
                tx.audit(Some(tenant), &info.audit(actor, session.name())).await?;
                Ok((session, tenant, choices))
            })
            .await?;
        Ok(Granted { account: account.id, session, tenant, refresh_token, choices })
    }

    async fn renew(&self, refresh_token: &str, client: Option<IpAddr>) -> Result<Granted, Error> {
        let old = tokens::digest(refresh_token);
        let (fresh, digest) = new_refresh_token()?;
        // The end of a session whose token was used twice is committed, so it is a value here and not an error.
        let granted = self
            .store
            .system(SystemPurpose::Authenticate, async |tx| {
                let (session, tenant) = match sessions::redeem(tx, &old, client).await? {
                    Redeemed::Good { session, tenant } => (session, tenant),
                    Redeemed::Reused | Redeemed::Unknown => return Ok(None),
                };
                let principal = principals::of_session(tx, session, tenant).await?;
                principal.access.authorize("")?;
                sessions::extend(tx, session, self.session_lifetime, client).await?;
                sessions::add_refresh_token(tx, session, tenant, &digest).await?;
                let account = principal.access.account;
                let choices = accounts::choices(tx, account).await?;
                Ok(Some((account, session, tenant, choices)))
            })
            .await?;
        let (account, session, tenant, choices) = granted.ok_or_else(|| {
            Error::unauthenticated("REFRESH_TOKEN_INVALID", "the refresh token is not valid; sign in again")
        })?;
        Ok(Granted { account, session, tenant, refresh_token: fresh, choices })
    }

    async fn switch(&self, caller: &Caller, wanted: &str) -> Result<Granted, Error> {
        let account = caller.principal.access.account;
        let session = caller.session()?;
        let (refresh_token, digest) = new_refresh_token()?;
        let (tenant, choices) = self
            .store
            .system(SystemPurpose::Authenticate, async |tx: &mut SystemTx| {
                let choices = accounts::choices(tx, account).await?;
                let tenant = choose(&choices, wanted, None)?;
                // Tells a session that has ended before tokens are given for it.
                principals::of_session(tx, session, tenant).await?.access.authorize("")?;
                accounts::set_last_tenant(tx, account, tenant).await?;
                sessions::add_refresh_token(tx, session, tenant, &digest).await?;
                tx.audit(Some(tenant), &caller.audit(tenant.name())).await?;
                Ok((tenant, choices))
            })
            .await?;
        Ok(Granted { account, session, tenant, refresh_token, choices })
    }

    async fn reset(&self, request: ResetPasswordRequest, info: &CallInfo) -> Result<(), Error> {
        let digest = mail_tokens::digest(&request.token);
        let reset = SystemPurpose::ResetPassword;
        let holder = self.store.system(reset.clone(), async |tx| password_resets::by_token(tx, &digest).await).await?;
        check_policy(&request.password, "password", &[&holder.email, &holder.display_name])?;
        let hash = self.passwords.hash(request.password).await?;
        self.store
            .system(reset, async |tx| {
                let account = password_resets::redeem(tx, &digest, &hash).await?;
                let actor = Actor::User { account, user: None, credential: None };
                tx.audit(None, &info.audit(actor, account.name())).await
            })
            .await
    }

    fn reply(&self, granted: Result<Granted, Error>) -> Result<Response<LoginResponse>, Status> {
        let granted = granted.map_err(from_error)?;
        let access_token = self.tokens.sign(granted.account, granted.session, granted.tenant).map_err(from_error)?;
        Ok(Response::new(LoginResponse {
            access_token,
            refresh_token: granted.refresh_token,
            token_type: "Bearer".to_owned(),
            expires_in: i32::try_from(self.tokens.seconds()).unwrap_or(i32::MAX),
            tenant: granted.tenant.name(),
            tenants: granted
                .choices
                .into_iter()
                .filter(Choice::is_open)
                .map(|choice| TenantChoice {
                    name: choice.id.name(),
                    slug: choice.slug,
                    display_name: choice.display_name,
                })
                .collect(),
        }))
    }
}

#[tonic::async_trait]
impl AuthService for Auth {
    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        let info = CallInfo::of(&request)?;
        self.reply(self.sign_in(request.into_inner(), &info).await)
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<LoginResponse>, Status> {
        let info = CallInfo::of(&request)?;
        self.reply(self.renew(&request.get_ref().refresh_token, info.client_address).await)
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Result<Response<()>, Status> {
        let caller = Caller::of(&request)?;
        let session = caller.session().map_err(from_error)?;
        let audit = caller.audit(session.name());
        self.store
            .account(&caller.account(), async |tx| {
                sessions::end(tx, session).await?;
                tx.audit(&audit, &[]).await
            })
            .await
            .map_err(from_error)?;
        Ok(Response::new(()))
    }

    async fn switch_tenant(&self, request: Request<SwitchTenantRequest>) -> Result<Response<LoginResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.reply(self.switch(&caller, &request.get_ref().tenant).await)
    }
    async fn explain(&self, _: Request<proto::ExplainRequest>) -> Result<Response<proto::ExplainResponse>, Status> {
        Err(Status::unimplemented("PLACEHOLDER"))
    }

    async fn request_password_reset(
        &self,
        request: Request<RequestPasswordResetRequest>,
    ) -> Result<Response<()>, Status> {
        let info = CallInfo::of(&request)?;
        let email = normalize_email(&request.get_ref().email);
        let asked = self.store.system(SystemPurpose::ResetPassword, async |tx| {
            // PostgreSQL has no text with a NUL.
            let holder = if email.contains('\0') { None } else { password_resets::holder(tx, &email).await? };
            // Whether there is such an account, only the worker learns: everybody else sees the same work.
            let account = holder.as_ref().map_or_else(AccountId::new, |holder| holder.id);
            tx.enqueue(&PasswordResetMail { account }, Some(info.traceparent.clone())).await?;
            let resource = holder.map(|holder| holder.id.name()).unwrap_or_default();
            tx.audit(None, &info.audit(Actor::Nobody, resource)).await
        });
        asked.await.map(Response::new).map_err(from_error)
    }

    async fn reset_password(&self, request: Request<ResetPasswordRequest>) -> Result<Response<()>, Status> {
        let info = CallInfo::of(&request)?;
        self.reset(request.into_inner(), &info).await.map(Response::new).map_err(from_error)
    }
}

fn new_refresh_token() -> Result<(String, Vec<u8>), Error> {
    let token = tokens::refresh_token()?;
    let digest = tokens::digest(&token);
    Ok((token, digest))
}

/// The tenant to enter: the one asked for, the one used last, or the first by slug.
fn choose(choices: &[Choice], wanted: &str, last: Option<TenantId>) -> Result<TenantId, Error> {
    let choice = if wanted.is_empty() {
        let open = || choices.iter().filter(|choice| choice.is_open());
        // Where all are closed, the first says why.
        let choice = open().find(|choice| Some(choice.id) == last).or_else(|| open().next()).or(choices.first());
        choice.ok_or_else(|| Error::denied("NO_TENANT", "the account is not a member of any tenant"))?
    } else {
        let matches = |choice: &&Choice| match Key::parse(wanted) {
            Key::Id(id) => choice.id == id,
            Key::Slug(slug) => choice.slug == slug,
        };
        let choice = choices.iter().find(matches);
        choice.ok_or_else(|| Error::denied("TENANT_NOT_YOURS", "tenant: the account cannot enter this tenant"))?
    };
    match (choice.tenant_state, choice.member_state) {
        (TenantState::Suspended, _) => Err(Error::denied("TENANT_SUSPENDED", "tenant: the tenant is suspended")),
        (TenantState::Deleted | TenantState::Purged, _) => {
            Err(Error::denied("TENANT_DELETED", "tenant: the tenant is deleted"))
        }
        (TenantState::Active, MembershipState::Active) => Ok(choice.id),
        (TenantState::Active, _) => {
            Err(Error::denied("MEMBERSHIP_INACTIVE", "tenant: the membership in this tenant is not active"))
        }
    }
}
