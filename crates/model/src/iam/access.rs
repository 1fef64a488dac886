//! Who may do what: the one decision, made for every call and told by explain.

use std::collections::BTreeSet;

use crate::error::Error;
use crate::iam::id::RoleId;
use crate::iam::tenant::TenantState;
use crate::iam::user::{AccountState, MembershipState, SUPPORT};
use crate::id::{AccountId, ApiKeyId, TenantId, UserId};

/// A role that a member holds, and its permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRole {
    /// None for the support role, which is in no tenant.
    pub id: Option<RoleId>,
    pub display_name: String,
    pub permissions: BTreeSet<String>,
}

impl HeldRole {
    fn name(&self) -> String {
        self.id.map_or_else(|| format!("roles/{SUPPORT}"), RoleId::name)
    }
}

/// What an API key limits its owner to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyLimit {
    pub id: ApiKeyId,
    pub permissions: BTreeSet<String>,
}

/// All that decides what a member may do.
#[derive(Clone, Debug)]
pub struct Access {
    /// The tenant it is in.
    pub tenant: TenantId,
    pub tenant_state: TenantState,
    pub account: AccountId,
    pub account_state: AccountState,
    /// The account as a member.
    pub user: UserId,
    pub member_state: MembershipState,
    pub roles: Vec<HeldRole>,
    /// What the credential limits this to, if it is an API key.
    pub key: Option<KeyLimit>,
}

/// What a decision comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A role holds the permission.
    RoleGrants,
    /// The account can not sign in.
    AccountInactive,
    TenantSuspended,
    TenantDeleted,
    /// The membership is not active.
    MembershipInactive,
    /// An API key asks, and only sessions do that.
    SessionNeeded,
    /// The API key's list lacks the permission.
    KeyRestricted,
    /// No role of the member's holds the permission.
    PermissionMissing,
}

impl Verdict {
    /// Stable reason.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::RoleGrants => "ROLE_GRANTS",
            Self::AccountInactive => "ACCOUNT_INACTIVE",
            Self::TenantSuspended => "TENANT_SUSPENDED",
            Self::TenantDeleted => "TENANT_DELETED",
            Self::MembershipInactive => "MEMBERSHIP_INACTIVE",
            Self::SessionNeeded => "SESSION_NEEDED",
            Self::KeyRestricted => "KEY_RESTRICTED",
            Self::PermissionMissing => "PERMISSION_MISSING",
        }
    }
}

/// A decision, and what made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    /// Full name of the role, key, member, tenant or account that decided.
    pub decided_by: String,
}

impl Decision {
    /// Whether the call is let through.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.verdict == Verdict::RoleGrants
    }

    /// Why, for people.
    #[must_use]
    pub fn message(&self, permission: &str) -> String {
        let by = &self.decided_by;
        match self.verdict {
            Verdict::RoleGrants => format!("{by} holds {permission}"),
            Verdict::AccountInactive => format!("{by} cannot sign in"),
            Verdict::TenantSuspended => "the tenant is suspended".to_owned(),
            Verdict::TenantDeleted => "the tenant is deleted".to_owned(),
            Verdict::MembershipInactive => "the membership in this tenant is not active".to_owned(),
            Verdict::SessionNeeded => "API keys cannot do this; sign in".to_owned(),
            Verdict::KeyRestricted => format!("the list of permissions of {by} lacks {permission}"),
            Verdict::PermissionMissing => format!("this needs the permission {permission}"),
        }
    }
}

/// Lets its holder invite people by mail.
pub const INVITE: &str = "invitation:create";

/// Lets its holder bring people in as members to be.
pub const ADD_USERS: &str = "user:create";

/// Lets its holder give roles to people, and take them away.
pub const ASSIGN_ROLES: &str = "role:assign";

impl Access {
    /// The decision of [`Self::decide`] without its story: what every call pays for.
    #[must_use]
    pub fn allows(&self, permission: &str) -> bool {
        self.barrier().is_none()
            && self.key.as_ref().is_none_or(|key| key.permissions.contains(permission))
            && self.roles.iter().any(|role| role.permissions.contains(permission))
    }

    /// What keeps an API key from what is for sessions only. It comes before all else.
    #[must_use]
    pub fn session_barrier(&self, session_only: bool) -> Option<Decision> {
        let key = self.key.as_ref().filter(|_| session_only)?;
        Some(Decision { verdict: Verdict::SessionNeeded, decided_by: key.id.name() })
    }

    /// Whether a call that needs `permission` is let through, and what decides it.
    #[must_use]
    pub fn decide(&self, permission: &str) -> Decision {
        if let Some(barrier) = self.barrier() {
            return barrier;
        }
        if let Some(key) = self.key.as_ref().filter(|key| !key.permissions.contains(permission)) {
            return Decision { verdict: Verdict::KeyRestricted, decided_by: key.id.name() };
        }
        match self.roles.iter().find(|role| role.permissions.contains(permission)) {
            Some(role) => Decision { verdict: Verdict::RoleGrants, decided_by: role.name() },
            None => Decision { verdict: Verdict::PermissionMissing, decided_by: self.user.name() },
        }
    }

    /// What keeps the member from anything at all.
    #[must_use]
    pub fn barrier(&self) -> Option<Decision> {
        let (verdict, decided_by) = if self.account_state != AccountState::Active {
            (Verdict::AccountInactive, self.account.name())
        } else if self.tenant_state == TenantState::Suspended {
            (Verdict::TenantSuspended, self.tenant.name())
        } else if self.tenant_state != TenantState::Active {
            (Verdict::TenantDeleted, self.tenant.name())
        } else if self.member_state != MembershipState::Active {
            (Verdict::MembershipInactive, self.user.name())
        } else {
            return None;
        };
        Some(Decision { verdict, decided_by })
    }

    /// Lets a call that needs `permission` through, or says why not. An empty one is for what every member may.
    pub fn authorize(&self, permission: &str) -> Result<(), Error> {
        let decision = if permission.is_empty() {
            let Some(barrier) = self.barrier() else { return Ok(()) };
            barrier
        } else if self.allows(permission) {
            return Ok(());
        } else {
            self.decide(permission)
        };
        Err(Error::denied(decision.verdict.reason(), decision.message(permission)))
    }

    /// Codes of all permissions that the member may use, by code.
    #[must_use]
    pub fn permissions(&self) -> BTreeSet<&str> {
        let held = self.roles.iter().flat_map(|role| &role.permissions);
        let allowed = held.filter(|code| self.key.as_ref().is_none_or(|key| key.permissions.contains(*code)));
        allowed.map(String::as_str).collect()
    }

    /// Refuses to hand on what the member does not hold: nobody grants more than they have.
    pub fn check_grant<'a>(&self, codes: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
        self.check_holds(codes, "GRANT_EXCEEDS_OWN", "nobody grants what they do not hold themselves")
    }

    /// Refuses to take anything from a member, or a role, that holds more than the member: who cannot give may not take.
    pub fn check_take<'a>(&self, held: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
        self.check_holds(held, "TARGET_EXCEEDS_OWN", "nobody takes from what holds more than they hold themselves")
    }

    fn check_holds<'a>(
        &self,
        codes: impl IntoIterator<Item = &'a str>,
        reason: &'static str,
        rule: &str,
    ) -> Result<(), Error> {
        let lacking: Vec<_> = codes.into_iter().filter(|code| !self.allows(code)).collect();
        if lacking.is_empty() { Ok(()) } else { Err(Error::denied(reason, format!("{rule}: {}", lacking.join(", ")))) }
    }

    /// Whether the member may let somebody in who gets these permissions, by a role of their own or as a member to be.
    pub fn may_let_in<'a>(&self, by: &[&str], codes: impl IntoIterator<Item = &'a str>) -> bool {
        by.iter().all(|permission| self.allows(permission)) && codes.into_iter().all(|code| self.allows(code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        let codes = |codes: &[&str]| codes.iter().map(|code| (*code).to_owned()).collect();
        Access {
            tenant: TenantId::new(),
            tenant_state: TenantState::Active,
            account: AccountId::new(),
            account_state: AccountState::Active,
            user: UserId::new(),
            member_state: MembershipState::Active,
            roles: vec![
                HeldRole { id: Some(RoleId::new()), display_name: "a".to_owned(), permissions: codes(&["vm:read"]) },
                HeldRole { id: None, display_name: SUPPORT.to_owned(), permissions: codes(&["vm:stop"]) },
            ],
            key: None,
        }
    }

    #[test]
    fn the_first_thing_in_the_way_decides() {
        let mut access = access();
        let decide = |access: &Access, code: &str| {
            let decision = access.decide(code);
            assert_eq!(decision.allowed(), access.allows(code), "{decision:?}");
            (decision.verdict, decision.decided_by)
        };
        let role = access.roles[0].id.expect("an id").name();
        assert_eq!(decide(&access, "vm:read"), (Verdict::RoleGrants, role));
        assert_eq!(decide(&access, "vm:stop"), (Verdict::RoleGrants, "roles/support".to_owned()));
        assert_eq!(decide(&access, "vm:create"), (Verdict::PermissionMissing, access.user.name()));
        let key = ApiKeyId::new();
        access.key = Some(KeyLimit { id: key, permissions: ["vm:read", "vm:create"].map(str::to_owned).into() });
        assert_eq!(decide(&access, "vm:stop"), (Verdict::KeyRestricted, key.name()));
        assert_eq!(decide(&access, "vm:create"), (Verdict::PermissionMissing, access.user.name()));
        assert_eq!(access.permissions().into_iter().collect::<Vec<_>>(), ["vm:read"]);
        access.member_state = MembershipState::Inactive;
        assert_eq!(decide(&access, "vm:read"), (Verdict::MembershipInactive, access.user.name()));
        access.tenant_state = TenantState::Suspended;
        assert_eq!(decide(&access, "vm:read"), (Verdict::TenantSuspended, access.tenant.name()));
        access.tenant_state = TenantState::Deleted;
        assert_eq!(decide(&access, "vm:read"), (Verdict::TenantDeleted, access.tenant.name()));
        access.account_state = AccountState::Inactive;
        assert_eq!(decide(&access, "vm:read"), (Verdict::AccountInactive, access.account.name()));
    }

    #[test]
    fn nobody_grants_what_they_do_not_hold() {
        assert!(access().check_grant(["vm:read", "vm:stop"]).is_ok());
        let refused = access().check_grant(["vm:read", "vm:create", "user:read"]).expect_err("refused");
        assert_eq!(refused.reason(), "GRANT_EXCEEDS_OWN");
        assert!(refused.to_string().ends_with("vm:create, user:read"), "{refused}");
    }

    #[test]
    fn nobody_takes_from_what_holds_more() {
        assert!(access().check_take(["vm:read"]).is_ok());
        let refused = access().check_take(["vm:read", "vm:create"]).expect_err("refused");
        assert_eq!(refused.reason(), "TARGET_EXCEEDS_OWN");
    }
}
