//! Tenants, members and invitations as clients see them.

use virtualstack_model::id::{RoleId, UserId};
use virtualstack_model::tenant::TenantState;
use virtualstack_model::user::{InvitationState, MembershipState};
use virtualstack_proto::virtualstack::iam::v1::{Invitation, Tenant, User, invitation, tenant, user};
use virtualstack_store::invitations::Invitation as InvitationRow;
use virtualstack_store::tenants::Tenant as TenantRow;
use virtualstack_store::users::User as UserRow;

use super::time;

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
