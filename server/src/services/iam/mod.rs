//! Identity and access.

pub(super) mod api_keys;
pub(super) mod auth;
pub(super) mod invitations;
pub(super) mod me;
pub(super) mod roles;
pub(super) mod sessions;
pub(super) mod tenants;
pub(super) mod users;
