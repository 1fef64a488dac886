//! The gRPC server: layers, authentication, authorization, and one service file per resource.
//!
//! The way of a request is the chain in [`server`], then the codec, then a method of one of the services, which is one
//! transaction of the store.

mod api_keys;
mod bootstrap;
mod caller;
mod changes;
mod codec;
mod config;
mod keys;
mod last_use;
mod layers;
mod limits;
mod passwords;
mod principals;
mod refusals;
mod server;
mod services;
mod status;
mod tokens;
mod wire;

#[expect(unreachable_pub, reason = "generated")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/services.rs"));
}

pub use bootstrap::{FirstAdmin, bootstrap, update_system_roles};
pub use config::{Config, WRONG_SETTING};
pub use keys::rotate_keys;
pub use server::{Deps, Server, bind};
pub use virtualstack_model::password;
pub use virtualstack_store::MasterKey;
