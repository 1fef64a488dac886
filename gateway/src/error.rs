//! Why a gateway does not start.

use std::net::SocketAddr;

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
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
        reason: String,
    },
    /// Two http rules take the same requests.
    #[error("{first} and {second} have the same route for {verb}")]
    Conflict {
        /// One rpc, by full name.
        first: String,
        second: String,
        verb: String,
    },
}
