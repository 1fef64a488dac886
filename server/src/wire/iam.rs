//! Tenants, members, roles, permissions, API keys and invitations as clients see them.

use virtualstack_model::iam::id::RoleId;
use virtualstack_model::iam::tenant::TenantState;
use virtualstack_model::iam::user::{InvitationState, MembershipState};
use virtualstack_model::id::UserId;
use virtualstack_proto::virtualstack::iam::v1::{
    ApiKey, Invitation, Permission, Role, Tenant, User, invitation, tenant, user,
};
use virtualstack_store::iam::api_keys::ApiKey as ApiKeyRow;
use virtualstack_store::iam::invitations::Invitation as InvitationRow;
use virtualstack_store::iam::roles::{Permission as PermissionRow, Role as RoleRow};
use virtualstack_store::iam::tenants::Tenant as TenantRow;
use virtualstack_store::iam::users::{Member, User as UserRow};

use super::time;
use crate::auth::key_format;

/// A tenant.
pub(crate) fn tenant_message(row: TenantRow) -> Tenant {
    let etag = row.etag();
    let state = match row.state {
        TenantState::Active => tenant::State::Active,
        TenantState::Suspended => tenant::State::Suspended,
        TenantState::Deleted | TenantState::Purged => tenant::State::Deleted,
    };
    let settings = row.settings();
    Tenant {
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

/// A member, and the full names of their roles.
pub(crate) fn user_message(row: UserRow, roles: Vec<String>) -> User {
    let state = match row.state {
        MembershipState::Invited => user::State::Invited,
        MembershipState::Active => user::State::Active,
        MembershipState::Inactive | MembershipState::Removed => user::State::Inactive,
    };
    User {
        name: row.id.name(),
        etag: row.etag(),
        email: row.email,
        display_name: row.display_name,
        state: state.into(),
        roles,
        create_time: Some(time(row.created_at)),
        update_time: Some(time(row.updated_at)),
        password: String::new(),
    }
}

/// An API key, without its secret.
pub(crate) fn api_key_message(row: ApiKeyRow) -> ApiKey {
    ApiKey {
        name: row.id.name(),
        etag: row.etag(),
        owner: row.owner_id.name(),
        prefix: format!("{}{}", key_format::PREFIX, row.public_id),
        secret: String::new(),
        last_use_time: row.last_used_at.map(time),
        last_use_address: row.last_used_from().map(|address| address.to_string()).unwrap_or_default(),
        previous_secret_expire_time: row.previous_expires_at.map(time),
        create_time: Some(time(row.created_at)),
        update_time: Some(time(row.updated_at)),
        expire_time: row.terms.expires_at.map(time),
        allowed_cidrs: row.terms.allowed_cidrs.iter().map(ToString::to_string).collect(),
        display_name: row.terms.display_name,
        permissions: row.terms.permissions,
    }
}

/// A member with their roles.
pub(crate) fn member_message(member: Member) -> User {
    user_message(member.user, member.roles.into_iter().map(RoleId::name).collect())
}

/// A role.
pub(crate) fn role_message(row: RoleRow) -> Role {
    Role {
        name: row.id.name(),
        etag: row.etag(),
        display_name: row.display_name,
        description: row.description,
        permissions: row.permissions,
        system: row.system,
        create_time: Some(time(row.created_at)),
        update_time: Some(time(row.updated_at)),
    }
}

/// An invitation.
pub(crate) fn invitation_message(row: InvitationRow) -> Invitation {
    let state = match row.state {
        InvitationState::Pending => invitation::State::Pending,
        InvitationState::Accepted => invitation::State::Accepted,
        InvitationState::Revoked => invitation::State::Revoked,
        InvitationState::Expired => invitation::State::Expired,
    };
    Invitation {
        name: row.id.name(),
        email: row.email,
        role: row.role_id.map(RoleId::name).unwrap_or_default(),
        expire_time: Some(time(row.expires_at)),
        state: state.into(),
        inviter: row.inviter_id.map(UserId::name).unwrap_or_default(),
        send_time: row.sent_at.map(time),
        accept_time: row.accepted_at.map(time),
        create_time: Some(time(row.created_at)),
        update_time: Some(time(row.updated_at)),
    }
}

/// A permission of the catalogue.
pub(crate) fn permission_message(row: PermissionRow) -> Permission {
    Permission { code: row.code, title: row.title, description: row.description, module: row.module }
}
