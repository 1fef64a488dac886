//! Accounts, memberships and the roles that every tenant has.

use unicode_normalization::UnicodeNormalization;

use crate::name;
use crate::sql::text_enum;

text_enum! {
    /// Whether an account can sign in.
    AccountState {
        Active = "ACTIVE",
        Inactive = "INACTIVE",
    }
}

text_enum! {
    /// State of a membership.
    MembershipState {
        /// Invited; has not signed in yet.
        Invited = "INVITED",
        Active = "ACTIVE",
        Inactive = "INACTIVE",
        /// Taken out of the tenant. The row stays for what they made to refer to.
        Removed = "REMOVED",
    }
}

impl MembershipState {
    /// The words that clients see: who was taken out is no member.
    pub const SHOWN: &'static [&'static str] =
        &[Self::Invited.as_str(), Self::Active.as_str(), Self::Inactive.as_str()];
}

text_enum! {
    /// Where an invitation stands.
    InvitationState {
        Pending = "PENDING",
        Accepted = "ACCEPTED",
        Revoked = "REVOKED",
        /// Its time has run out. It is kept as pending: nothing happens at that time.
        Expired = "EXPIRED",
    }
}

/// The form in which addresses are compared and kept: NFKC, lower case, no space around, the domain as the DNS has it.
#[must_use]
pub fn normalize_email(email: &str) -> String {
    let email = email.trim().nfkc().collect::<String>().to_lowercase();
    match email.rsplit_once('@') {
        Some((local, domain)) if !domain.is_ascii() => match idna::domain_to_ascii(domain) {
            Ok(domain) => format!("{local}@{domain}"),
            // It is no address, which whoever checks it is told.
            Err(_) => email,
        },
        _ => email,
    }
}

/// Bytes of an address at most, and of what is before the @.
const LONGEST_EMAIL: usize = 254;
const LONGEST_LOCAL_PART: usize = 64;

/// Refuses what is no address, in its normalised form. The error is the end of a sentence that begins with the field.
pub fn check_email(email: &str) -> Result<(), &'static str> {
    let Some((local, domain)) = email.rsplit_once('@') else { return Err("must be an e-mail address") };
    let of_local = |c: char| {
        c.is_ascii_alphanumeric() || ".!#$%&'*+/=?^_`{|}~-".contains(c) || (!c.is_ascii() && !c.is_whitespace())
    };
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let seen = local.is_ascii() || name::check(local).is_ok();
    let whole = (1..=LONGEST_LOCAL_PART).contains(&local.len()) && email.len() <= LONGEST_EMAIL;
    if whole && seen && local.chars().all(of_local) && domain.split('.').all(is_label) {
        Ok(())
    } else {
        Err("must be an e-mail address")
    }
}

/// A role that every tenant, or the provider, has and nobody changes.
#[derive(Clone, Copy, Debug)]
pub struct SystemRole {
    pub key: &'static str,
    pub description: &'static str,
    /// Whether only the provider tenant has it.
    pub platform: bool,
}

/// Key of the role that administers a tenant; somebody active always holds it.
pub const TENANT_ADMIN: &str = "tenant_admin";

/// Key of the role that administers the platform.
pub const PLATFORM_ADMIN: &str = "platform_admin";

/// The system roles. What each holds stands beside the permission, in the contract.
pub const SYSTEM_ROLES: &[SystemRole] = &[
    SystemRole { key: PLATFORM_ADMIN, description: "Everything an operator of the platform does.", platform: true },
    SystemRole {
        key: "platform_support",
        description: "Sees every tenant and enters it to help; changes none.",
        platform: true,
    },
    SystemRole { key: TENANT_ADMIN, description: "Everything in the tenant.", platform: false },
    SystemRole { key: "user", description: "Makes and runs VMs, and has API keys.", platform: false },
    SystemRole { key: "viewer", description: "Sees VMs, templates, operations and the quota.", platform: false },
];

/// The permission to enter tenants that are not one's own.
pub const ENTER_TENANTS: &str = "platform:tenant:enter";

/// Display name of the role that an operator has in a tenant that is not theirs.
pub const SUPPORT: &str = "support";

/// Whether the support role holds a permission: it sees everything and runs what is there; it makes, changes and
/// deletes nothing and nobody.
#[must_use]
pub fn support_grants(code: &str) -> bool {
    let (module, action) = code.rsplit_once(':').unwrap_or_default();
    !code.starts_with("platform:")
        // The sessions are the operator's own, and of no concern to the tenant.
        && ((action == "read" && module != "session")
            || (module == "vm" && matches!(action, "start" | "stop" | "restart" | "suspend"))
            || matches!(code, "operation:cancel" | "access:explain"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_look_the_same_are_the_same() {
        assert_eq!(normalize_email(" Ada@Example.COM "), "ada@example.com");
        assert_eq!(normalize_email("ａda@example.com"), "ada@example.com");
        assert_eq!(normalize_email("ada@ＥＸＡＭＰＬＥ。com"), "ada@example.com");
        assert_eq!(normalize_email("JOSE\u{301}@BÜCHER.example"), "josé@xn--bcher-kva.example");
        assert_eq!(normalize_email("josé@xn--bcher-kva.example"), "josé@xn--bcher-kva.example");
    }

    #[test]
    fn what_is_checked_is_the_address_that_is_kept() {
        for email in [
            " Ada@Example.COM ",
            "ａda@example.com",
            "josé@bücher.example",
            "用户@例え.jp",
            "अजय@डाटा.भारत",
            "o'brien+x@localhost",
            "x@xn--bcher-kva.example",
        ] {
            assert_eq!(check_email(&normalize_email(email)), Ok(()), "{email}");
        }
        let long = format!("{}@example.com", "a".repeat(65));
        for email in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "ada@-x.com",
            "ada@x..com",
            "a da@example.com",
            "ada@exa mple.com",
            "ada\u{200b}@example.com",
            "ada\u{202e}é@example.com",
            "a\r\nb@example.com",
            "ada@example.com\u{0}x",
            "<ada@example.com>",
            "Ada <ada@example.com>",
            "ada@bü cher.example",
            "a@b@c\u{3164}.com",
            &long,
        ] {
            assert!(check_email(&normalize_email(email)).is_err(), "{email:?}");
        }
    }

    #[test]
    fn support_changes_nothing() {
        for code in ["vm:read", "audit:read", "vm:stop", "operation:cancel"] {
            assert!(support_grants(code), "{code}");
        }
        for code in [
            "session:read",
            "vm:create",
            "vm:delete",
            "vm:console",
            "user:update",
            "role:assign",
            "platform:tenant:read",
        ] {
            assert!(!support_grants(code), "{code}");
        }
    }
}
