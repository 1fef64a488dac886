//! JSON over HTTP in front of gRPC, driven by the descriptors alone.
//!
//! A request goes through the modules in this order: `server` takes the connection, `answer` checks its size,
//! `routes` finds the rpc that a `google.api.http` rule gives it to, `body` takes the body, `transcode` (with `fill`,
//! `query` and `scalar`) makes the request message, `headers` the metadata, `upstream` calls, and `render` or `stream`
//! print the answer. An `upload` is not taken before the call: `relay` hands it on as it comes, each piece in an `envelope`.
//! `problem` is an error on its way to a client, and `status` makes one of what the gRPC server answered. Nothing here
//! knows a resource.

mod answer;
mod app;
mod body;
mod config;
mod download;
mod envelope;
mod error;
mod fields;
mod fill;
mod headers;
mod own;
mod places;
mod problem;
mod query;
mod relay;
mod render;
mod routes;
mod rules;
mod scalar;
mod sent;
mod server;
mod status;
mod stream;
mod strict;
mod template;
mod transcode;
mod upload;
mod upstream;
mod wire;

pub use config::{Config, Deps};
pub use error::Error;
pub use server::{Gateway, Readiness, bind};
