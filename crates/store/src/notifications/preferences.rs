//! How members want to be told.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use virtualstack_model::id::{TenantId, UserId};
use virtualstack_model::language::Language;
use virtualstack_model::notifications::kind::{Channel, NotificationKind};
use virtualstack_model::{Error, Result};

use crate::schema::{memberships, preferences as table};
use crate::tx::error::from_diesel;
use crate::tx::{AccountTx, SystemTx, etag};

/// How a member wants to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Queryable, Selectable, AsChangeset)]
#[diesel(table_name = table)]
pub struct Preferences {
    pub language: Language,
    not_in_app: Vec<String>,
    not_by_mail: Vec<String>,
    version: i64,
}

impl Preferences {
    /// Changes with each change.
    #[must_use]
    pub fn etag(&self) -> String {
        etag(self.version)
    }

    /// Whether something of a kind is told in a way.
    #[must_use]
    pub fn wants(&self, kind: NotificationKind, channel: Channel) -> bool {
        let off = match channel {
            Channel::InApp => &self.not_in_app,
            Channel::Email => &self.not_by_mail,
        };
        !off.iter().any(|word| word == kind.as_str())
    }

    /// Has something of a kind told in a way, or not.
    pub fn set(&mut self, kind: NotificationKind, channel: Channel, wants: bool) {
        let off = match channel {
            Channel::InApp => &mut self.not_in_app,
            Channel::Email => &mut self.not_by_mail,
        };
        off.retain(|word| word != kind.as_str());
        if !wants {
            off.push(kind.as_str().to_owned());
        }
    }
}

/// Those of the member who calls.
pub async fn get(tx: &mut AccountTx, tenant: TenantId, user: UserId) -> Result<Preferences> {
    let row = table::table.find((tenant, user)).select(Preferences::as_select());
    let found = row.first(tx.connection()?).await.optional().map_err(from_diesel)?;
    Ok(found.unwrap_or_default())
}

/// Those of a member.
pub(super) async fn of(tx: &mut SystemTx, tenant: TenantId, user: UserId) -> Result<Preferences> {
    let row = table::table.find((tenant, user)).select(Preferences::as_select());
    let found = row.first(tx.connection()?).await.optional().map_err(from_diesel)?;
    Ok(found.unwrap_or_default())
}

/// Changes those of the member who calls; as they are then.
pub async fn change(
    tx: &mut AccountTx,
    tenant: TenantId,
    user: UserId,
    f: impl FnOnce(&mut Preferences) -> Result<()>,
) -> Result<Preferences> {
    // An operator at work in a tenant is no member of it.
    let member = memberships::table.filter(memberships::tenant_id.eq(tenant.0).and(memberships::id.eq(user)));
    if member.count().get_result::<i64>(tx.connection()?).await.map_err(from_diesel)? == 0 {
        return Err(Error::not_found("USER_NOT_FOUND", "users/me"));
    }
    let new = (table::tenant_id.eq(tenant), table::user_id.eq(user), table::account_id.eq(tx.account.0));
    let make = diesel::insert_into(table::table).values((new, table::version.eq(0))).on_conflict_do_nothing();
    make.execute(tx.connection()?).await.map_err(from_diesel)?;
    let row = || table::table.filter(table::tenant_id.eq(tenant).and(table::user_id.eq(user)));
    let locked = row().select(Preferences::as_select()).for_update().first(tx.connection()?).await;
    let before: Preferences = locked.map_err(from_diesel)?;
    let mut after = before.clone();
    f(&mut after)?;
    if after != before {
        after.version += 1;
        diesel::update(row()).set(&after).execute(tx.connection()?).await.map_err(from_diesel)?;
    }
    Ok(after)
}

/// Has a member get no more mails of a kind; whether there is one.
pub async fn mute(tx: &mut SystemTx, tenant: TenantId, user: UserId, kind: NotificationKind) -> Result<bool> {
    let account: Option<uuid::Uuid> = memberships::table
        .filter(memberships::tenant_id.eq(tenant.0).and(memberships::id.eq(user)))
        .select(memberships::account_id)
        .first(tx.connection()?)
        .await
        .optional()
        .map_err(from_diesel)?;
    let Some(account) = account else { return Ok(false) };
    let new = (table::tenant_id.eq(tenant), table::user_id.eq(user), table::account_id.eq(account));
    let make = diesel::insert_into(table::table).values((new, table::version.eq(0))).on_conflict_do_nothing();
    make.execute(tx.connection()?).await.map_err(from_diesel)?;
    let row = || table::table.filter(table::tenant_id.eq(tenant).and(table::user_id.eq(user)));
    let locked = row().select(Preferences::as_select()).for_update().first(tx.connection()?).await;
    let mut theirs: Preferences = locked.map_err(from_diesel)?;
    if theirs.wants(kind, Channel::Email) {
        theirs.set(kind, Channel::Email, false);
        theirs.version += 1;
        diesel::update(row()).set(&theirs).execute(tx.connection()?).await.map_err(from_diesel)?;
    }
    Ok(true)
}
