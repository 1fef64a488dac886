//! Tenants: members see theirs, operators of the platform all of them.

use chrono::TimeDelta;
use prost_types::FieldMask;
use virtualstack_model::iam::tenant::{PROVIDER_SLUG, Settings, TenantState};
use virtualstack_model::iam::user;
use virtualstack_model::id::TenantId;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::iam::v1 as proto;
use virtualstack_proto::virtualstack::iam::v1::tenant;
use virtualstack_store::iam::tenants::{self, Edit, Key, Tenant};
use virtualstack_store::tenant_life::{self, FirstAdmin, NewTenant};
use virtualstack_store::{Store, SystemTx, TenantTx, Write};

use crate::auth::journal::{Journal, Whose};
use crate::auth::limits::Limits;
use crate::auth::passwords::{self, Passwords};
use crate::call::codec;
use crate::call::list::{List as _, page};
use crate::call::message::{time, update_mask};
use crate::call::write::{Answer, Mutation};
use crate::call::{AccountCall, PlatformCall, TenantCall};
use crate::config::DefaultQuota;
use crate::generated::virtualstack::iam::v1::TenantService;
use crate::services::parts::Parts;
use crate::shares::Holder;

/// Lets its holder see every tenant.
const READ_ALL: &str = "platform:tenant:read";

/// The tenant that the access token is for. No tenant may have this slug.
const CURRENT: &str = "tenants/current";

/// Slugs that no tenant may have.
const RESERVED: [&str; 2] = ["current", PROVIDER_SLUG];

/// How long a deleted tenant is kept.
const KEPT: TimeDelta = TimeDelta::days(30);

const UPDATABLE: [&str; 4] = ["display_name", "settings", "settings.invitation_days", "settings.api_key_max_days"];

pub(crate) struct Tenants {
    store: Store,
    journal: Journal,
    passwords: Passwords,
    limits: Limits,
    /// Quota of a new one.
    quota: DefaultQuota,
}

impl TenantService for Tenants {
    async fn list_tenants(&self, call: AccountCall<proto::ListTenantsRequest>) -> Result<proto::ListTenantsResponse> {
        let (request, show_deleted) = (call.request.list(), call.request.show_deleted);
        let operator = call.as_operator(READ_ALL);
        if show_deleted && operator.is_none() {
            return Err(Error::denied(
                "PERMISSION_MISSING",
                format!("showDeleted: this needs the permission {READ_ALL}"),
            ));
        }
        let listed = if let Some(operator) = operator {
            let list = async |tx: &mut SystemTx| tenants::list_any(tx, &request, show_deleted).await;
            self.store.system(operator.platform(), list).await?
        } else if call.is_api_key() {
            tenants::list_current(&mut self.store.single(&call.own_tenant()), &request).await?
        } else {
            self.store.account(&call.account(), async |tx| tenants::list_mine(tx, &request).await).await?
        };
        Ok(page(listed, message))
    }

    async fn get_tenant(&self, call: AccountCall<proto::GetTenantRequest>) -> Result<proto::Tenant> {
        let name = &call.request.name;
        let key = if name == CURRENT { Key::Id(call.tenant_id()) } else { Key::parse(name) };
        // Also for who is in it without being a member, by an API key or to help out.
        let current = tenants::current(&mut self.store.single(&call.own_tenant())).await?;
        let found = if key.is_of(&current) {
            Some(current)
        } else if let Some(operator) = call.as_operator(READ_ALL) {
            let found = self.store.system(operator.platform(), async |tx| tenants::find_any(tx, &key).await).await?;
            if let Some(tenant) = &found {
                self.journal.record(Whose::Tenant(tenant.id), operator.audit(tenant.id.name()));
            }
            found
        } else {
            let mine = self.store.account(&call.account(), async |tx| tenants::find_mine(tx, &key).await).await?;
            mine.filter(|_| !call.is_api_key())
        };
        found.map(message).ok_or_else(|| not_found(name))
    }

    async fn create_tenant(&self, mut call: PlatformCall<proto::CreateTenantRequest>) -> Result<proto::Tenant> {
        // Taken out of the request, of which a digest is kept: that is no hash to keep a password by.
        let password = std::mem::take(&mut call.request.admin_password);
        let request = &call.request;
        let desired = request.tenant.clone().unwrap_or_default();
        if RESERVED.contains(&desired.slug.as_str()) {
            return Err(Error::invalid("tenant.slug", "is reserved"));
        }
        let email = user::normalize_email(&request.admin_email);
        let name = if request.admin_display_name.is_empty() { &email } else { &request.admin_display_name };
        if !password.is_empty() {
            passwords::check_policy(&password, "admin_password", &[&email, name, &desired.slug])?;
        }
        if !request.validate_only {
            self.limits.mail(None, &email).await?;
        }
        // The same work with and without one, and whether or not the address has an account.
        let with_password = !password.is_empty();
        let hash = self.passwords.hash(password, Holder::Tenant(call.tenant_id())).await?;
        let admin =
            FirstAdmin { email: &email, display_name: name, password_hash: with_password.then_some(hash.as_str()) };
        let new = NewTenant {
            id: TenantId::new(),
            slug: &desired.slug,
            display_name: &desired.display_name,
            settings: settings(&desired),
            quota: self.quota.into(),
        };
        let create = async |tx: &mut SystemTx| {
            let made = tenant_life::create(tx, &new).await?;
            tenant_life::add_first_admin(tx, &call.audit(made.id.name()), &made, &admin).await?;
            Ok(message(made))
        };
        call.write(&self.store, create).await
    }

    async fn update_tenant(&self, call: PlatformCall<proto::UpdateTenantRequest>) -> Result<proto::Tenant> {
        let desired = call.request.tenant.clone().unwrap_or_default();
        let fields = fields(call.request.update_mask.clone(), &desired)?;
        let update = async |tx: &mut SystemTx| {
            let before = lock(tx, "tenant.name", &desired.name).await?;
            if before.state == TenantState::Deleted {
                return Err(deleted(&before, "a deleted tenant cannot be changed"));
            }
            let edit = edit(&before, &desired, &fields)?;
            tenants::update_any(tx, &call.audit(before.id.name()), &before, &edit).await.map(message)
        };
        call.write(&self.store, update).await
    }

    async fn update_current_tenant(
        &self,
        call: TenantCall<proto::UpdateCurrentTenantRequest>,
    ) -> Result<proto::Tenant> {
        let desired = call.request.tenant.clone().unwrap_or_default();
        let fields = fields(call.request.update_mask.clone(), &desired)?;
        let update = async |tx: &mut TenantTx<Write>| {
            let before = tenants::lock_current(tx).await?;
            let edit = edit(&before, &desired, &fields)?;
            tenants::update(tx, &before, &edit).await.map(message)
        };
        call.write(&self.store, call.tenant_id().name(), update).await
    }

    async fn delete_tenant(&self, call: PlatformCall<proto::DeleteTenantRequest>) -> Result<proto::Tenant> {
        let request = &call.request;
        let kept = if request.force { TimeDelta::zero() } else { KEPT };
        let delete = async |tx: &mut SystemTx| {
            let before = lock(tx, "name", &request.name).await?;
            Error::check_etag(&request.etag, &before.etag())?;
            not_the_provider(&before)?;
            if before.state == TenantState::Deleted && !request.force {
                return Err(deleted(&before, "the tenant is deleted already; force purges it"));
            }
            tenants::delete(tx, &call.audit(before.id.name()), &before, kept).await.map(message)
        };
        call.write(&self.store, delete).await
    }

    async fn undelete_tenant(&self, call: PlatformCall<proto::UndeleteTenantRequest>) -> Result<proto::Tenant> {
        self.change(&call, &call.request.name, Change::Undelete).await
    }

    async fn suspend_tenant(&self, call: PlatformCall<proto::SuspendTenantRequest>) -> Result<proto::Tenant> {
        self.change(&call, &call.request.name, Change::Suspend).await
    }

    async fn activate_tenant(&self, call: PlatformCall<proto::ActivateTenantRequest>) -> Result<proto::Tenant> {
        self.change(&call, &call.request.name, Change::Activate).await
    }
}

/// A change of a tenant's state that needs nothing but the tenant.
#[derive(Clone, Copy)]
enum Change {
    Undelete,
    Suspend,
    Activate,
}

impl Tenants {
    pub(crate) fn new(parts: Parts, quota: DefaultQuota) -> Self {
        let Parts { store, journal, passwords, limits, .. } = parts;
        Self { store, journal, passwords, limits, quota }
    }

    async fn change<R: Mutation>(&self, call: &PlatformCall<R>, name: &str, change: Change) -> Result<proto::Tenant> {
        let make = async |tx: &mut SystemTx| {
            let before = lock(tx, "name", name).await?;
            let name = before.id.name();
            let audit = call.audit(&name);
            let after = match (change, before.state) {
                (Change::Undelete, TenantState::Deleted) => {
                    let purged = || Error::precondition("TENANT_PURGED", name, "the purge of the tenant has begun");
                    tenants::undelete(tx, &audit, &before).await?.ok_or_else(purged)?
                }
                (Change::Undelete, _) => {
                    return Err(Error::exists("TENANT_NOT_DELETED", name, "the tenant is not deleted"));
                }
                (Change::Suspend, state) => {
                    not_the_provider(&before)?;
                    match state {
                        TenantState::Active => tenants::suspend(tx, &audit, &before).await?,
                        TenantState::Suspended => before,
                        _ => return Err(deleted(&before, "the tenant is deleted")),
                    }
                }
                (Change::Activate, TenantState::Suspended) => tenants::activate(tx, &audit, &before).await?,
                (Change::Activate, TenantState::Active) => before,
                (Change::Activate, _) => return Err(deleted(&before, "the tenant is deleted; undelete it")),
            };
            Ok(message(after))
        };
        call.write(&self.store, make).await
    }
}

impl Answer<SystemTx> for proto::Tenant {
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    async fn find(tx: &mut SystemTx, name: &str) -> Result<Self> {
        tenants::find_any(tx, &Key::parse(name)).await?.map(message).ok_or_else(|| not_found(name))
    }
}

impl Answer<TenantTx<Write>> for proto::Tenant {
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    async fn find(tx: &mut TenantTx<Write>, _: &str) -> Result<Self> {
        tenants::current(tx).await.map(message)
    }
}

/// Reads a tenant by the name that `field` gives, and locks it.
async fn lock(tx: &mut SystemTx, field: &str, name: &str) -> Result<Tenant> {
    if !name.starts_with("tenants/") {
        return Err(Error::invalid(field, "must be a full name, tenants/{tenant}"));
    }
    tenants::lock_any(tx, &Key::parse(name)).await?.ok_or_else(|| not_found(name))
}

fn not_found(name: &str) -> Error {
    Error::not_found("TENANT_NOT_FOUND", name)
}

fn deleted(tenant: &Tenant, message: &str) -> Error {
    Error::precondition("TENANT_DELETED", tenant.id.name(), message)
}

/// Nobody could take it back.
fn not_the_provider(tenant: &Tenant) -> Result<()> {
    if tenant.slug == PROVIDER_SLUG {
        let message = "the provider's tenant can be neither suspended nor deleted";
        return Err(Error::precondition("PROVIDER_TENANT", tenant.id.name(), message));
    }
    Ok(())
}

/// The fields that an update names, or those that are set.
fn fields(mask: Option<FieldMask>, desired: &proto::Tenant) -> Result<Vec<&'static str>> {
    update_mask(mask, &UPDATABLE, |field| match field {
        "display_name" => !desired.display_name.is_empty(),
        "settings" => desired.settings.is_some(),
        _ => false,
    })
}

fn settings(tenant: &proto::Tenant) -> Settings {
    let settings = tenant.settings.unwrap_or_default();
    Settings { invitation_days: settings.invitation_days, api_key_max_days: settings.api_key_max_days }
}

/// What an update makes of a tenant. The rules hold for the tenant that comes of it, not for the part that was sent.
fn edit(before: &Tenant, desired: &proto::Tenant, fields: &[&str]) -> Result<Edit> {
    Error::check_etag(&desired.etag, &before.etag())?;
    let (mut edit, sent) = (before.edit(), settings(desired));
    for field in fields {
        match *field {
            "display_name" => edit.display_name.clone_from(&desired.display_name),
            "settings" => edit.settings = sent,
            "settings.invitation_days" => edit.settings.invitation_days = sent.invitation_days,
            _ => edit.settings.api_key_max_days = sent.api_key_max_days,
        }
    }
    let mut after = message(before.clone());
    after.display_name.clone_from(&edit.display_name);
    after.settings = Some(proto::tenant::Settings {
        invitation_days: edit.settings.invitation_days,
        api_key_max_days: edit.settings.api_key_max_days,
    });
    let admin_email = "nobody@example.com".to_owned();
    codec::validate(&proto::CreateTenantRequest { tenant: Some(after), admin_email, ..Default::default() })?;
    Ok(edit)
}

/// A tenant.
pub(crate) fn message(row: Tenant) -> proto::Tenant {
    let etag = row.etag();
    let state = match row.state {
        TenantState::Active => tenant::State::Active,
        TenantState::Suspended => tenant::State::Suspended,
        TenantState::Deleted | TenantState::Purged => tenant::State::Deleted,
    };
    let settings = row.settings();
    proto::Tenant {
        name: row.id.name(),
        slug: row.slug,
        display_name: row.display_name,
        state: state.into(),
        create_time: Some(time(row.created_at)),
        update_time: Some(time(row.updated_at)),
        settings: Some(tenant::Settings {
            invitation_days: settings.invitation_days,
            api_key_max_days: settings.api_key_max_days,
        }),
        delete_time: row.deleted_at.map(time),
        purge_time: row.purge_at.map(time),
        etag,
    }
}
