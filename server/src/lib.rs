//! The gRPC server: layers, authentication, authorization, and one service file per resource.
//!
//! The way of a request is the chain in [`server`], then the codec, then a method of one of the services, which is one
//! transaction of the store.

mod auth;
mod bootstrap;
mod call;
mod changes;
mod config;
mod generated;
mod layers;
mod server;
mod services;
mod shares;

pub use auth::passwords::HashCost;
pub use auth::signing_keys::rotate_keys;
pub use bootstrap::{FirstAdmin, bootstrap, reset_password, update_permissions};
pub use config::{Config, DefaultQuota, DeskWebhook, Secret, WRONG_SETTING};
pub use server::{Deps, Server, bind, bind_on, check, listen};
pub use virtualstack_model::Error;
pub use virtualstack_model::iam::password;
pub use virtualstack_model::iam::user::{check_email, normalize_email};
pub use virtualstack_store::MasterKey;
