//! The first admin and the demo tenant: what `up` and `virtualstack admin` need before anybody can sign in.

use virtualstack_model::Result;
use virtualstack_model::iam::permission::Permission;
use virtualstack_model::iam::tenant::PROVIDER_SLUG;
use virtualstack_model::iam::user::{PLATFORM_ADMIN, TENANT_ADMIN, normalize_email};
use virtualstack_model::log::{Actor, Audit, Outcome};
use virtualstack_store::iam::system_roles;
use virtualstack_store::iam::tenants::{self, Key};
use virtualstack_store::iam::{accounts, password_resets, permissions, roles, sessions, users};
use virtualstack_store::tenant_life::{self, NewTenant};
use virtualstack_store::{Store, SystemPurpose, SystemScope};

use crate::auth::passwords::{HashCost, Passwords, check_policy};
use crate::shares::Holder;

/// The admin to make.
#[derive(Clone)]
pub struct FirstAdmin {
    pub email: String,
    /// Password; ignored for an address that has an account.
    pub password: String,
    /// Slug of a tenant that they are admin of too, made if there is none.
    pub demo_tenant: Option<String>,
}

/// Makes the catalogue of permissions and every tenant's system roles what the contract says: what came with an upgrade comes
/// in, what an upgrade has taken out goes.
pub async fn update_permissions(store: &Store) -> Result<()> {
    let catalogue: Vec<_> = virtualstack_proto::permissions()
        .map(|known| Permission {
            code: known.code,
            title: known.title,
            description: known.description,
            module: known.module,
            roles: known.roles,
        })
        .collect();
    store
        .system(system(), async |tx| {
            permissions::replace(tx, &catalogue).await?;
            system_roles::ensure_all(tx).await?;
            roles::ensure_name_keys(tx).await
        })
        .await
}

/// Brings permissions and system roles up to date, and makes the provider tenant and its first admin if there is no
/// provider tenant yet. Returns whether it made one.
pub async fn bootstrap(store: &Store, admin: &FirstAdmin, cost: HashCost) -> Result<bool> {
    let provider = Key::Slug(PROVIDER_SLUG.to_owned());
    update_permissions(store).await?;
    let exists = store.system(system(), async |tx| Ok(tenants::find_any(tx, &provider).await?.is_some())).await?;
    if exists {
        return Ok(false);
    }
    let hash = Passwords::new(1, cost).await?.hash(admin.password.clone(), Holder::All).await?;
    let made = store
        .system(system(), async |tx| {
            if tenants::find_any(tx, &provider).await?.is_some() {
                return Ok(false);
            }
            let (account, _) =
                accounts::ensure(tx, &normalize_email(&admin.email), "Administrator", Some(&hash)).await?;
            let provider = tenant_life::create(tx, &NewTenant::new(PROVIDER_SLUG, "Provider")).await?;
            users::add_active(tx, provider.id, account, PLATFORM_ADMIN).await?;
            users::add_active(tx, provider.id, account, TENANT_ADMIN).await?;
            if let Some(slug) = &admin.demo_tenant {
                let demo = tenant_life::create(tx, &NewTenant::new(slug, "Demo")).await?;
                users::add_active(tx, demo.id, account, TENANT_ADMIN).await?;
                accounts::set_last_tenant(tx, account, demo.id).await?;
            }
            Ok(true)
        })
        .await;
    match made {
        // Another process was faster.
        Err(error) if error.reason() == "TENANT_SLUG_TAKEN" => Ok(false),
        made => made,
    }
}

/// Gives an account another password, and ends its sessions and what it has asked to reset its password by. Says whether there
/// is one of this address.
pub async fn reset_password(store: &Store, email: &str, password: &str, cost: HashCost) -> Result<bool> {
    let email = normalize_email(email);
    check_policy(password, "password", &[&email])?;
    let hash = Passwords::new(1, cost).await?.hash(password.to_owned(), Holder::All).await?;
    store
        .system(system(), async |tx| {
            let Some(account) = accounts::by_email(tx, &email).await? else { return Ok(false) };
            accounts::set_password(tx, account.id, &hash).await?;
            sessions::end_all(tx, account.id, None).await?;
            password_resets::withdraw(tx, account.id).await?;
            let audit = Audit {
                action: "admin.resetPassword".to_owned(),
                actor: Actor::System("admin"),
                resource: account.id.name(),
                request_id: String::new(),
                client_address: None,
                traceparent: None,
                outcome: Outcome::Done,
            };
            tx.audit(None, &audit).await?;
            Ok(true)
        })
        .await
}

/// Leave to work across tenants.
#[expect(clippy::disallowed_methods, reason = "nobody can sign in before the first admin is made")]
fn system() -> SystemScope {
    SystemScope::new(SystemPurpose::Bootstrap)
}
