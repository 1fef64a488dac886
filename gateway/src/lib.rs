//! JSON over HTTP in front of gRPC, driven by the descriptors alone.
//!
//! A request goes through the modules in this order: `server` takes the connection, `app` checks its size,
//! `routes` finds the rpc that a `google.api.http` rule gives it to, `body` takes the body, `transcode` (with `fill`,
//! `query` and `scalar`) makes the request message, `headers` the metadata, `upstream` calls, and `render` or `stream`
//! print the answer. `errors` is where every error gets its JSON. Nothing here knows a resource.

mod app;
mod body;
mod config;
mod errors;
mod fields;
mod fill;
mod headers;
mod own;
mod query;
mod render;
mod routes;
mod rules;
mod scalar;
mod server;
mod stream;
mod strict;
mod template;
mod transcode;
mod upstream;

use std::net::SocketAddr;

use prost_reflect::DescriptorPool;
use virtualstack_proto::vendored::HttpRule;

pub use config::Config;
pub use server::{Gateway, Readiness, bind};

/// What the gateway is given beside its settings.
#[derive(Clone, Debug)]
pub struct Deps {
    /// The services to serve.
    pub descriptors: DescriptorPool,
    /// Rules of services whose files declare none, or others than wanted.
    pub rules: &'static [HttpRule],
}

impl Default for Deps {
    /// The services of VirtualStack.
    fn default() -> Self {
        Self {
            descriptors: virtualstack_proto::DESCRIPTOR_POOL.clone(),
            rules: virtualstack_proto::vendored::HTTP_RULES,
        }
    }
}

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The gRPC server's address is no "http://host:port".
    #[error("upstream {0:?} is not an address like http://host:port")]
    Upstream(String),
    /// An origin for CORS is none.
    #[error("cors_origins: {0:?} is not an origin like https://host")]
    Origin(String),
    /// An http rule cannot be served.
    #[error("{method}: {reason}")]
    Rule {
        /// The rpc, by full name.
        method: String,
        /// What is wrong.
        reason: String,
    },
    /// Two http rules take the same requests.
    #[error("{first} and {second} have the same route for {verb}")]
    Conflict {
        /// One rpc, by full name.
        first: String,
        /// The other.
        second: String,
        /// The HTTP verb.
        verb: String,
    },
}
