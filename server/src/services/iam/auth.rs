//! Signing in and out.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use virtualstack_model::credential::Credential;
use virtualstack_model::iam::jobs::PasswordResetMail;
use virtualstack_model::iam::tenant::TenantState;
use virtualstack_model::iam::user::{AccountState, ENTER_TENANTS, MembershipState, normalize_email};
use virtualstack_model::id::{AccountId, SessionId, TenantId, UserId};
use virtualstack_model::log::{Actor, Outcome};
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::iam::v1::{
    ExplainRequest, ExplainResponse, LoginRequest, LoginResponse, LogoutRequest, RefreshRequest,
    RequestPasswordResetRequest, ResetPasswordRequest, SwitchTenantRequest, TenantChoice,
};
use virtualstack_store::iam::accounts::{self, Choice};
use virtualstack_store::iam::invitations;
use virtualstack_store::iam::sessions::{self, Redeemed, Support};
use virtualstack_store::iam::tenants::{self, Key};
use virtualstack_store::iam::{mail_tokens, password_resets, principals};
use virtualstack_store::{AccountTx, Store, SystemPurpose, SystemScope, SystemTx, resources};

use crate::auth::journal::{Journal, Whose};
use crate::auth::limits::Limits;
use crate::auth::passwords::{Checked, Passwords, check_policy};
use crate::auth::tokens::{self, Grant, Tokens};
use crate::call::caller::{CallInfo, PlatformCaller};
use crate::call::{AccountCall, PublicCall};
use crate::config::Config;
use crate::generated::virtualstack::iam::v1::AuthService;
use crate::services::parts::Parts;
use crate::shares::Holder;

/// Reason of every refresh by a token that is worth nothing.
const REFRESH_TOKEN_INVALID: &str = "REFRESH_TOKEN_INVALID";
/// Reason of every login that does not succeed for what was sent.
const CREDENTIALS_WRONG: &str = "CREDENTIALS_WRONG";
/// Lets its holder have the access of other members explained.
const EXPLAIN: &str = "access:explain";

/// The caller, as a member.
const ME: &str = "users/me";

pub(crate) struct Auth {
    store: Store,
    tokens: Tokens,
    passwords: Passwords,
    limits: Limits,
    journal: Journal,
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

/// Why a refresh token is worth nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// It was used before: somebody else may hold it.
    Reused,
    /// Nobody knows it, or its session has ended.
    Unknown,
}

/// How long an operator's session in a tenant that is not theirs lives; a refresh does not make it longer.
const SUPPORT_SESSION: TimeDelta = TimeDelta::hours(8);

impl Auth {
    pub(crate) fn new(parts: Parts, config: &Config) -> Self {
        let Parts { store, tokens, passwords, limits, journal, .. } = parts;
        let session_lifetime = TimeDelta::seconds(config.session_seconds);
        Self { store, tokens, passwords, limits, journal, session_lifetime }
    }

    async fn sign_in(&self, call: &PublicCall<LoginRequest>) -> Result<Granted> {
        let (request, info) = (&call.request, &call.info);
        let authenticate = || call.system(SystemPurpose::Authenticate);
        let email = normalize_email(&request.email);
        self.limits.account("login", &email, info.client_address).await?;
        let found = if email.contains('\0') {
            // PostgreSQL has no such text, so nobody has such an address.
            None
        } else {
            self.store.system(authenticate(), async |tx| accounts::by_email(tx, &email).await).await?
        };
        // The same work and the same answer for an unknown address, a wrong password and an inactive account.
        let hash = found.as_ref().and_then(|account| account.password_hash.clone());
        let checked =
            self.passwords.check(request.password.clone(), hash.clone(), Holder::network(info.client_address)).await?;
        let known = found.as_ref().map(|account| account.id);
        let entitled = found.filter(|account| account.state == AccountState::Active && checked != Checked::Wrong);
        let Some(account) = entitled else {
            self.note_failed_login(known, &request.tenant, CREDENTIALS_WRONG, info);
            return Err(credentials_wrong());
        };
        let fresh_hash = match checked {
            Checked::RightButWeak => {
                Some(self.passwords.hash(request.password.clone(), Holder::network(info.client_address)).await?)
            }
            _ => None,
        };
        let (refresh_token, digest) = new_refresh_token()?;
        let (session, tenant, choices) = self
            .store
            .system(authenticate(), async |tx| {
                if !accounts::lock_checked(tx, account.id, hash.as_deref()).await? {
                    return Err(credentials_wrong());
                }
                if let (Some(old), Some(new)) = (&hash, &fresh_hash) {
                    accounts::rehash(tx, account.id, old, new).await?;
                }
                invitations::accept_at_login(tx, account.id).await?;
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
            .await
            .inspect_err(|error| self.note_failed_login(known, &request.tenant, error.reason(), info))?;
        Ok(Granted { account: account.id, session, tenant, refresh_token, choices, support: false })
    }

    /// Writes down at whose account somebody did not get in, where the tenants of the account see it. An address that nobody
    /// has is left out: people type passwords there.
    fn note_failed_login(&self, known: Option<AccountId>, tenant: &str, reason: &'static str, info: &CallInfo) {
        let actor = known.map_or(Actor::Nobody, |account| Actor::User { account, user: None, credential: None });
        let mut audit = info.audit(actor, known.map(AccountId::name).unwrap_or_default());
        audit.outcome = Outcome::Failed(reason.into());
        let whose = known.map_or(Whose::Nobody, |account| Whose::Account(account, tenant.to_owned()));
        self.journal.record(whose, audit);
    }

    async fn renew(&self, call: &PublicCall<RefreshRequest>) -> Result<Granted> {
        let info = &call.info;
        let client = info.client_address;
        let old = tokens::digest(&call.request.refresh_token);
        // By itself: the count stands also when what follows is undone.
        let known = self
            .store
            .system(call.system(SystemPurpose::RateLimit), async |tx| {
                let known = sessions::owner(tx, &old).await?;
                let account = known.map_or_else(|| URL_SAFE_NO_PAD.encode(&old), |account| account.to_string());
                self.limits.account_in(tx, "refresh", &account, client).await?;
                Ok(known)
            })
            .await?;
        let (fresh, digest) = new_refresh_token()?;
        // The end of a session whose token was used twice is committed, so it is a value here and not an error.
        let granted = self
            .store
            .system(call.system(SystemPurpose::Authenticate), async |tx| {
                let (session, tenant) = match sessions::redeem(tx, &old, client).await? {
                    Redeemed::Good { session, tenant } => (session, tenant),
                    Redeemed::Reused => return Ok(Err(Refused::Reused)),
                    Redeemed::Unknown => return Ok(Err(Refused::Unknown)),
                };
                let principal = principals::of_session(tx, session, tenant).await?;
                principal.access.authorize("")?;
                sessions::extend(tx, session, self.session_lifetime, client).await?;
                sessions::add_refresh_token(tx, session, tenant, &digest).await?;
                let account = principal.access.account;
                let choices = accounts::choices(tx, account).await?;
                let support = principal.credential.support_reason().is_some();
                Ok(Ok(Granted { account, session, tenant, refresh_token: fresh.clone(), choices, support }))
            })
            .await
            .inspect_err(|error| self.note_failed_login(known, "", error.reason(), info))?;
        granted.map_err(|refused| {
            let reason = if refused == Refused::Reused { "REFRESH_TOKEN_REUSED" } else { REFRESH_TOKEN_INVALID };
            self.note_failed_login(known, "", reason, info);
            Error::unauthenticated(REFRESH_TOKEN_INVALID, "the refresh token is not valid; sign in again")
        })
    }

    async fn switch(&self, call: &AccountCall<SwitchTenantRequest>) -> Result<Granted> {
        let request = &call.request;
        if call.principal.credential.support_reason().is_some() {
            let message = "a session in a tenant that is not yours is for that tenant only; go on in your own session";
            return Err(Error::denied("SUPPORT_SESSION", message));
        }
        let account = call.access().account;
        let session = call.session()?;
        let operator = call.as_operator(ENTER_TENANTS);
        let (refresh_token, digest) = new_refresh_token()?;
        let switched = self
            .store
            .system(authentication(), async |tx: &mut SystemTx| {
                let choices = accounts::choices(tx, account).await?;
                let tenant = match choose(&choices, &request.tenant, None) {
                    // The caller is no member there, and may enter as an operator.
                    Err(error) if NOT_A_MEMBER.contains(&error.reason()) && operator.is_some() => {
                        return Ok(None);
                    }
                    chosen => chosen?,
                };
                // Tells a session that has ended before tokens are given for it.
                principals::of_session(tx, session, tenant).await?.access.authorize("")?;
                accounts::set_last_tenant(tx, account, tenant).await?;
                sessions::add_refresh_token(tx, session, tenant, &digest).await?;
                tx.audit(Some(tenant), &call.audit(tenant.name())).await?;
                let refresh_token = refresh_token.clone();
                Ok(Some(Granted { account, session, tenant, refresh_token, choices, support: false }))
            })
            .await?;
        match (switched, operator) {
            (Some(granted), _) => Ok(granted),
            (None, Some(operator)) => self.enter(&operator, request).await,
            (None, None) => Err(Error::internal("only operators go on where they are no members")),
        }
    }

    /// An operator enters a tenant that is not theirs: a session of its own, which both tenants' audit logs tell.
    async fn enter(&self, operator: &PlatformCaller, request: &SwitchTenantRequest) -> Result<Granted> {
        if request.reason.is_empty() {
            return Err(Error::invalid("reason", "is required to enter a tenant that is not yours"));
        }
        let access = operator.access();
        let (account, client, parent) = (access.account, operator.info.client_address, operator.session()?);
        let (refresh_token, digest) = new_refresh_token()?;
        let (session, tenant, choices) = self
            .store
            .system(operator.platform(), async |tx| {
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
                sessions::hold(tx, parent).await?;
                let support = Support { tenant: tenant.id, reason: request.reason.clone(), parent };
                let session = sessions::start(tx, account, SUPPORT_SESSION, client, Some(&support)).await?;
                sessions::add_refresh_token(tx, session, tenant.id, &digest).await?;
                let credential = Some(Credential::Support { session, reason: support.reason.into() });
                let actor = Actor::User { account, user: Some(access.user), credential };
                let audit = operator.info.audit(actor, tenant.id.name());
                for log in [tenant.id, access.tenant] {
                    tx.audit(Some(log), &audit).await?;
                }
                Ok((session, tenant.id, accounts::choices(tx, account).await?))
            })
            .await?;
        Ok(Granted { account, session, tenant, refresh_token, choices, support: true })
    }

    /// Decides as the authorization layer does for a call, and says why.
    async fn decide(&self, call: &AccountCall<ExplainRequest>) -> Result<ExplainResponse> {
        let ExplainRequest { permission, resource, user } = call.request.clone();
        if !virtualstack_proto::permissions().any(|known| known.code == permission) {
            return Err(Error::invalid("permission", "there is no such permission"));
        }
        let own = call.access();
        let member = match user.as_str() {
            "" | ME => own.user,
            user => UserId::parse("user", user)?,
        };
        if member != own.user {
            own.authorize(EXPLAIN)?;
        }
        let (decision, found) = self
            .store
            .read(&call.own_tenant(), async |tx| {
                let access = if member == own.user {
                    own.clone()
                } else {
                    let access = principals::of_member(tx, member).await?;
                    access.ok_or_else(|| Error::not_found("USER_NOT_FOUND", member.name()))?
                };
                let found = resource.is_empty() || resources::exists(tx, access.account, &resource).await?;
                // A key asks what itself may do, and of others what they may.
                let barrier = access.session_barrier(virtualstack_proto::session_only(&permission));
                Ok((barrier.unwrap_or_else(|| access.decide(&permission)), found))
            })
            .await?;
        // As for a call, what the member may not do comes before what is not there.
        if decision.allowed() && !found {
            return Ok(ExplainResponse {
                allowed: false,
                reason: "RESOURCE_NOT_FOUND".to_owned(),
                message: format!("{resource} is not in the tenant"),
                decided_by: resource,
                permission,
            });
        }
        Ok(ExplainResponse {
            allowed: decision.allowed(),
            reason: decision.verdict.reason().to_owned(),
            message: decision.message(&permission),
            decided_by: decision.decided_by,
            permission,
        })
    }

    async fn reset(&self, call: &PublicCall<ResetPasswordRequest>) -> Result<()> {
        let (request, info) = (&call.request, &call.info);
        let digest = mail_tokens::digest(&request.token);
        self.limits.token("resetPassword", &digest, info.client_address).await?;
        let reset = || call.system(SystemPurpose::ResetPassword);
        let holder = self.store.system(reset(), async |tx| password_resets::by_token(tx, &digest).await).await?;
        check_policy(&request.password, "password", &[&holder.email, &holder.display_name])?;
        let hash = self.passwords.hash(request.password.clone(), Holder::network(info.client_address)).await?;
        self.store
            .system(reset(), async |tx| {
                let account = password_resets::redeem(tx, &digest, &hash).await?;
                let actor = Actor::User { account, user: None, credential: None };
                tx.audit(None, &info.audit(actor, account.name())).await
            })
            .await
    }

    fn reply(&self, granted: Granted) -> Result<LoginResponse> {
        let Granted { account, session, tenant, support, .. } = granted;
        let access_token = self.tokens.sign(Grant { account, session, tenant, support })?;
        Ok(LoginResponse {
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
        })
    }
}

impl AuthService for Auth {
    async fn login(&self, call: PublicCall<LoginRequest>) -> Result<LoginResponse> {
        self.reply(self.sign_in(&call).await?)
    }

    async fn refresh(&self, call: PublicCall<RefreshRequest>) -> Result<LoginResponse> {
        self.reply(self.renew(&call).await?)
    }

    async fn logout(&self, call: AccountCall<LogoutRequest>) -> Result<()> {
        let session = call.session()?;
        let end = async |tx: &mut AccountTx| {
            sessions::end(tx, session).await?;
            tx.audit(&call.audit(session.name()), &[]).await
        };
        call.write(&self.store, end).await
    }

    async fn switch_tenant(&self, call: AccountCall<SwitchTenantRequest>) -> Result<LoginResponse> {
        self.reply(self.switch(&call).await?)
    }

    async fn explain(&self, call: AccountCall<ExplainRequest>) -> Result<ExplainResponse> {
        self.decide(&call).await
    }

    async fn request_password_reset(&self, call: PublicCall<RequestPasswordResetRequest>) -> Result<()> {
        let info = &call.info;
        let email = normalize_email(&call.request.email);
        self.limits.account("requestPasswordReset", &email, info.client_address).await?;
        // Whether or not somebody has the address.
        self.limits.mail(None, &email).await?;
        let asked = self.store.system(call.system(SystemPurpose::ResetPassword), async |tx| {
            // PostgreSQL has no text with a NUL.
            let holder = if email.contains('\0') { None } else { password_resets::holder(tx, &email).await? };
            // Whether there is such an account, only the worker learns: everybody else sees the same work.
            let account = holder.as_ref().map_or_else(AccountId::new, |holder| holder.id);
            tx.enqueue(&PasswordResetMail { account }, Some(info.traceparent.clone())).await?;
            let resource = holder.map(|holder| holder.id.name()).unwrap_or_default();
            tx.audit(None, &info.audit(Actor::Nobody, resource)).await
        });
        asked.await
    }

    async fn reset_password(&self, call: PublicCall<ResetPasswordRequest>) -> Result<()> {
        self.reset(&call).await
    }
}

/// Leave to look at all of the caller's memberships, in whatever tenant, as a login does.
#[expect(clippy::disallowed_methods, reason = "who switches signs in to another tenant")]
fn authentication() -> SystemScope {
    SystemScope::new(SystemPurpose::Authenticate)
}

fn credentials_wrong() -> Error {
    Error::unauthenticated(CREDENTIALS_WRONG, "address or password is wrong")
}

fn new_refresh_token() -> Result<(String, Vec<u8>)> {
    let token = tokens::refresh_token()?;
    let digest = tokens::digest(&token);
    Ok((token, digest))
}

/// Reasons of [`choose`] that do not keep an operator out.
const NOT_A_MEMBER: [&str; 2] = ["TENANT_NOT_YOURS", "MEMBERSHIP_INACTIVE"];

/// The tenant to enter: the one asked for, the one used last, or the first by slug.
fn choose(choices: &[Choice], desired: &str, last: Option<TenantId>) -> Result<TenantId> {
    let choice = if desired.is_empty() {
        let open = || choices.iter().filter(|choice| choice.is_open());
        // Where all are closed, the first says why.
        let choice = open().find(|choice| Some(choice.id) == last).or_else(|| open().next()).or(choices.first());
        choice.ok_or_else(|| Error::denied("NO_TENANT", "the account is not a member of any tenant"))?
    } else {
        let matches = |choice: &&Choice| match Key::parse(desired) {
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
