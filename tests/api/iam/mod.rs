//! Identity and access.

mod api_keys;
mod auth;
mod invitations;
mod passwords;
mod races;
mod rate_limits;
mod roles;
mod sessions;
mod support;
mod taking;
mod tenants;
mod texts;
mod users;
