//! Signing in and out.

use std::net::IpAddr;

use chrono::TimeDelta;
use tonic::{Request, Response, Status};
use virtualstack_model::access::Credential;
use virtualstack_model::id::{AccountId, SessionId, TenantId};
use virtualstack_model::tenant::TenantState;
use virtualstack_model::user::{AccountState, ENTER_TENANTS, MembershipState, normalize_email};
use virtualstack_model::{Error, audit::Actor};
use virtualstack_proto::virtualstack::iam::v1 as proto;
use virtualstack_proto::virtualstack::iam::v1::{
    LoginRequest, LoginResponse, LogoutRequest, RefreshRequest, SwitchTenantRequest, TenantChoice,
};
use virtualstack_store::accounts::{self, Choice};
use virtualstack_store::sessions::{self, Redeemed, Support};
use virtualstack_store::tenants::{self, Key};
use virtualstack_store::{Store, SystemPurpose, SystemTx, principals};

use crate::caller::{CallInfo, Caller};
use crate::config::Config;
use crate::generated::virtualstack::iam::v1::auth_service_server::AuthService;
use crate::passwords::{Checked, Passwords};
use crate::status::from_error;
use crate::tokens::{self, Grant, Tokens};

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
    /// Whether it is an operator's in a tenant that is not theirs.
    support: bool,
}

/// How long an operator's session in a tenant that is not theirs lives; a refresh does not make it longer.
const SUPPORT_SESSION: TimeDelta = TimeDelta::hours(8);

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
        Ok(Granted { account: account.id, session, tenant, refresh_token, choices, support: false })
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
                let support = principal.credential.support_reason().is_some();
                Ok(Some(Granted { account, session, tenant, refresh_token: fresh.clone(), choices, support }))
            })
            .await?;
        granted.ok_or_else(|| {
            Error::unauthenticated("REFRESH_TOKEN_INVALID", "the refresh token is not valid; sign in again")
        })
    }

    async fn switch(&self, caller: &Caller, request: &SwitchTenantRequest) -> Result<Granted, Error> {
        if caller.principal.credential.support_reason().is_some() {
            let message = "a session in a tenant that is not yours is for that tenant only; go on in your own session";
            return Err(Error::denied("SUPPORT_SESSION", message));
        }
        let account = caller.principal.access.account;
        let session = caller.session()?;
        let (refresh_token, digest) = new_refresh_token()?;
        let switched = self
            .store
            .system(SystemPurpose::Authenticate, async |tx: &mut SystemTx| {
                let choices = accounts::choices(tx, account).await?;
                let tenant = match choose(&choices, &request.tenant, None) {
                    // Not as a member, then.
                    Err(error) if NOT_A_MEMBER.contains(&error.reason()) && caller.holds(ENTER_TENANTS) => {
                        return Ok(None);
                    }
                    chosen => chosen?,
                };
                // Tells a session that has ended before tokens are given for it.
                principals::of_session(tx, session, tenant).await?.access.authorize("")?;
                accounts::set_last_tenant(tx, account, tenant).await?;
                sessions::add_refresh_token(tx, session, tenant, &digest).await?;
                tx.audit(Some(tenant), &caller.audit(tenant.name())).await?;
                let refresh_token = refresh_token.clone();
                Ok(Some(Granted { account, session, tenant, refresh_token, choices, support: false }))
            })
            .await?;
        match switched {
            Some(granted) => Ok(granted),
            None => self.enter(caller, request).await,
        }
    }

    /// An operator enters a tenant that is not theirs: a session of its own, which both tenants' audit logs tell.
    async fn enter(&self, caller: &Caller, request: &SwitchTenantRequest) -> Result<Granted, Error> {
        if request.reason.is_empty() {
            return Err(Error::invalid("reason", "is required to enter a tenant that is not yours"));
        }
        let access = &caller.principal.access;
        let (account, client) = (access.account, caller.info.client_address);
        let (refresh_token, digest) = new_refresh_token()?;
        let (session, tenant, choices) = self
            .store
            .system(caller.platform(), async |tx| {
                let found = tenants::find_any(tx, &Key::parse(&request.tenant)).await?;
                let tenant = found.ok_or_else(|| Error::not_found("TENANT_NOT_FOUND", &request.tenant))?;
                match tenant.state {
                    TenantState::Active => {}
                    TenantState::Suspended => {
                        return Err(Error::denied("TENANT_SUSPENDED", "tenant: the tenant is suspended"));
                    }
                    TenantState::Deleted | TenantState::Purged => {
                        let message = "tenant: the tenant is deleted";
                        return Err(Error::precondition("TENANT_DELETED", tenant.id.name(), message));
                    }
                }
                let support = Support { tenant: tenant.id, reason: request.reason.clone() };
                let session = sessions::start(tx, account, SUPPORT_SESSION, client, Some(&support)).await?;
                sessions::add_refresh_token(tx, session, tenant.id, &digest).await?;
                let credential = Some(Credential::Support { session, reason: support.reason.into() });
                let actor = Actor::User { account, user: Some(access.user), credential };
                let audit = caller.info.audit(actor, tenant.id.name());
                for log in [tenant.id, access.tenant] {
                    tx.audit(Some(log), &audit).await?;
                }
                Ok((session, tenant.id, accounts::choices(tx, account).await?))
            })
            .await?;
        Ok(Granted { account, session, tenant, refresh_token, choices, support: true })
    }

    fn reply(&self, granted: Result<Granted, Error>) -> Result<Response<LoginResponse>, Status> {
        let granted = granted.map_err(from_error)?;
        let Granted { account, session, tenant, support, .. } = granted;
        let access_token = self.tokens.sign(Grant { account, session, tenant, support }).map_err(from_error)?;
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
        self.reply(self.switch(&caller, request.get_ref()).await)
    }

    async fn explain(&self, _: Request<proto::ExplainRequest>) -> Result<Response<proto::ExplainResponse>, Status> {
        Err(Status::unimplemented("PLACEHOLDER"))
    }

    async fn request_password_reset(
        &self,
        _: Request<proto::RequestPasswordResetRequest>,
    ) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("PLACEHOLDER"))
    }

    async fn reset_password(&self, _: Request<proto::ResetPasswordRequest>) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("PLACEHOLDER"))
    }
}

fn new_refresh_token() -> Result<(String, Vec<u8>), Error> {
    let token = tokens::refresh_token()?;
    let digest = tokens::digest(&token);
    Ok((token, digest))
}

/// Reasons of [`choose`] that do not keep an operator out.
const NOT_A_MEMBER: [&str; 2] = ["TENANT_NOT_YOURS", "MEMBERSHIP_INACTIVE"];

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
