//! Identity and access: tenants, accounts, members, roles, API keys, invitations.

pub mod access;
pub mod id;
pub mod jobs;
pub mod password;
pub mod permission;
pub mod tenant;
pub mod user;
