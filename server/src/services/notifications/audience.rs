//! Whom a broadcast is for: what a request names is looked up, and what is not there is told by its field.

use std::collections::BTreeSet;

use virtualstack_model::iam::id::RoleId;
use virtualstack_model::iam::user::SYSTEM_ROLES;
use virtualstack_model::id::UserId;
use virtualstack_model::notifications::broadcast::AudienceKind;
use virtualstack_model::{Error, Result};
use virtualstack_proto::virtualstack::notifications::v1::broadcast;
use virtualstack_store::iam::tenants;
use virtualstack_store::notifications::broadcasts;
use virtualstack_store::{SystemTx, TenantTx, Write};

/// Names of an audience, at most.
const MOST: usize = 1_000;

/// Whom a broadcast is for.
#[derive(Clone, Debug)]
pub(super) struct Audience {
    pub(super) kind: AudienceKind,
    pub(super) ids: Vec<uuid::Uuid>,
    pub(super) roles: Vec<String>,
}

/// What a request says of an audience, one of which is set.
struct Said<'a> {
    kind: AudienceKind,
    field: &'static str,
    names: &'a [String],
}

impl Said<'_> {
    /// Where one of the names stands.
    fn at(&self, index: usize) -> String {
        format!("broadcast.audience.{}[{index}]", self.field)
    }

    fn missing(&self, index: usize) -> Error {
        Error::invalid(self.at(index), format!("there is no {}", self.names[index]))
    }

    /// Reads all names.
    fn parse<T>(&self, parse: impl Fn(&str, &str) -> Result<T>) -> Result<Vec<T>> {
        self.names.iter().enumerate().map(|(index, name)| parse(&self.at(index), name)).collect()
    }

    /// The ids, all of which must be among those that were found.
    fn expect(&self, ids: Vec<uuid::Uuid>, found: &[uuid::Uuid]) -> Result<Audience> {
        if let Some(index) = ids.iter().position(|id| !found.contains(id)) {
            return Err(self.missing(index));
        }
        Ok(self.with(ids))
    }

    fn with(&self, ids: impl IntoIterator<Item = uuid::Uuid>) -> Audience {
        let ids: BTreeSet<_> = ids.into_iter().collect();
        Audience { kind: self.kind, ids: ids.into_iter().collect(), roles: Vec::new() }
    }
}

/// The one that is set.
fn said(audience: Option<&broadcast::Audience>) -> Result<Said<'_>> {
    let audience = audience.ok_or_else(|| Error::invalid("broadcast.audience", "is required"))?;
    let broadcast::Audience { all, tenants, roles, users } = audience;
    let named = [
        Said { kind: AudienceKind::Tenants, field: "tenants", names: tenants },
        Said { kind: AudienceKind::Roles, field: "roles", names: roles },
        Said { kind: AudienceKind::Users, field: "users", names: users },
    ];
    let everybody = all.then_some(Said { kind: AudienceKind::All, field: "all", names: &[] });
    let mut set = everybody.into_iter().chain(named.into_iter().filter(|said| !said.names.is_empty()));
    match (set.next(), set.next()) {
        // An update's rules are held after it was merged; this is looked up before.
        (Some(said), None) if said.names.len() > MOST => {
            Err(Error::invalid(format!("broadcast.audience.{}", said.field), format!("must be at most {MOST}")))
        }
        (Some(said), None) => Ok(said),
        _ => Err(Error::invalid("broadcast.audience", "exactly one of all, tenants, roles and users must be set")),
    }
}

/// Whom operators name: tenants, system roles by their keys, members of any tenant.
pub(super) async fn of_platform(tx: &mut SystemTx, audience: Option<&broadcast::Audience>) -> Result<Audience> {
    let said = said(audience)?;
    match said.kind {
        AudienceKind::All => Ok(said.with([])),
        AudienceKind::Tenants => {
            let found = tenants::find_all(tx, "broadcast.audience.tenants", said.names).await?;
            Ok(said.with(found.into_iter().map(|tenant| tenant.0)))
        }
        AudienceKind::Roles => {
            let is_known = |key: &String| SYSTEM_ROLES.iter().any(|role| role.key == key);
            if let Some(index) = said.names.iter().position(|key| !is_known(key)) {
                return Err(Error::invalid(said.at(index), "must be the key of a system role, such as tenant_admin"));
            }
            let roles: BTreeSet<_> = said.names.iter().cloned().collect();
            Ok(Audience { kind: said.kind, ids: Vec::new(), roles: roles.into_iter().collect() })
        }
        AudienceKind::Users => {
            let ids: Vec<_> = said.parse(UserId::parse)?.into_iter().map(|user| user.0).collect();
            let found = broadcasts::members(tx, &ids).await?;
            said.expect(ids, &found)
        }
    }
}

/// Whom a tenant's admins name: roles and members of the tenant.
pub(super) async fn of_tenant(tx: &mut TenantTx<Write>, audience: Option<&broadcast::Audience>) -> Result<Audience> {
    let said = said(audience)?;
    match said.kind {
        AudienceKind::All => Ok(said.with([])),
        AudienceKind::Tenants => Err(Error::invalid("broadcast.audience.tenants", "is for operators of the platform")),
        AudienceKind::Roles => {
            let ids: Vec<_> = said.parse(RoleId::parse)?.into_iter().map(|role| role.0).collect();
            let found = broadcasts::own_roles(tx, &ids).await?;
            said.expect(ids, &found)
        }
        AudienceKind::Users => {
            let ids: Vec<_> = said.parse(UserId::parse)?.into_iter().map(|user| user.0).collect();
            let found = broadcasts::own_members(tx, &ids).await?;
            said.expect(ids, &found)
        }
    }
}
