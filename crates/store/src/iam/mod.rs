//! Identity and access.

pub mod accounts;
pub mod api_keys;
mod epoch;
pub mod invitations;
pub mod mail_tokens;
mod memberships;
pub mod password_resets;
pub mod permissions;
pub mod principals;
pub mod rate_limits;
pub mod roles;
pub mod sessions;
pub mod signing_keys;
pub mod system_roles;
pub mod tenants;
pub mod users;
