//! What an operator can set, with defaults that suit `virtualstack up`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use prost_reflect::DescriptorPool;
use serde::{Deserialize, Deserializer, de::Error as _};
use virtualstack_proto::vendored::HttpRule;

/// Settings of the gateway. Times are given in seconds.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address that HTTP is served on; port 0 picks a free one.
    pub listen: SocketAddr,
    pub upstream: String,
    /// Connections kept to the gRPC server for calls; streams have others. Each carries as many calls at once as the server
    /// allows streams.
    pub upstream_connections: usize,
    /// Largest JSON body, in bytes.
    pub max_json_body: usize,
    /// Largest raw body (`google.api.HttpBody`) that is handed on as one message, in bytes. Of uploads the server says.
    pub max_raw_body: usize,
    /// Largest header block, in bytes.
    pub max_header_bytes: usize,
    /// Longest path and query, in bytes.
    pub max_url_bytes: usize,
    /// Largest single message taken from the gRPC server, in bytes.
    pub max_response_bytes: usize,
    /// Deadline of calls whose client names none, uploads and streams aside.
    #[serde(deserialize_with = "seconds")]
    pub default_timeout: Duration,
    /// The longest deadline a client may ask for; a longer one is cut to it.
    #[serde(deserialize_with = "seconds")]
    pub max_timeout: Duration,
    /// How long a client may take to send a request's header block.
    #[serde(deserialize_with = "seconds")]
    pub header_read_timeout: Duration,
    /// From a connection to its first request, …
    #[serde(deserialize_with = "seconds")]
    pub first_request_timeout: Duration,
    /// … for the body of a request to arrive, …
    #[serde(deserialize_with = "seconds")]
    pub body_timeout: Duration,
    /// … for any byte of an upload to come while it is waited for, …
    #[serde(deserialize_with = "seconds")]
    pub upload_idle_timeout: Duration,
    /// … for a reply, or a piece of it, to be read, …
    #[serde(deserialize_with = "seconds")]
    pub send_timeout: Duration,
    /// … and how long a connection is kept on which nothing is asked.
    #[serde(deserialize_with = "seconds")]
    pub idle_timeout: Duration,
    /// How long calls in flight may go on after the shutdown began.
    #[serde(deserialize_with = "seconds")]
    pub drain_timeout: Duration,
    /// Connections open at once; further ones wait to be accepted.
    pub max_connections: usize,
    /// Connections of one client's address, a network of /64 with IPv6; further ones are closed. Listed proxies have as many
    /// as there are.
    pub max_connections_per_address: usize,
    /// Calls in flight at once, and of one client's address; further ones are asked to come back.
    pub max_requests: usize,
    pub max_requests_per_address: usize,
    /// Streams open at once, counted apart because they last.
    pub max_streams: usize,
    pub max_streams_per_address: usize,
    /// Uploads at work at once: they last, too, and each has a connection to the gRPC server.
    pub max_uploads: usize,
    pub max_uploads_per_address: usize,
    /// Networks of proxies whose `X-Forwarded-For` is believed, such as "10.0.0.0/8" or "10.0.0.7/32".
    pub trusted_proxies: Vec<IpNet>,
    /// Origins of browsers that may call, such as `https://console.example`; none by default.
    pub cors_origins: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            upstream: "http://127.0.0.1:50051".to_owned(),
            upstream_connections: 4,
            max_json_body: 4 << 20,
            max_raw_body: 16 << 20,
            max_header_bytes: 64 << 10,
            max_url_bytes: 16 << 10,
            max_response_bytes: 64 << 20,
            default_timeout: Duration::from_secs(30),
            max_timeout: Duration::from_secs(3600),
            header_read_timeout: Duration::from_secs(15),
            first_request_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(20),
            upload_idle_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(30),
            max_connections: 8192,
            max_connections_per_address: 512,
            max_requests: 1024,
            max_requests_per_address: 256,
            max_streams: 1024,
            max_streams_per_address: 256,
            max_uploads: 128,
            max_uploads_per_address: 32,
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
        }
    }
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// What the gateway is given beside its settings.
#[derive(Clone, Debug)]
pub struct Deps {
    pub descriptors: DescriptorPool,
    /// Rules of services whose files declare none, or others than we need.
    pub rules: &'static [HttpRule],
    /// What shows the server that it is a gateway who speaks for a client. Without it the server takes all clients for one.
    pub secret: Option<HeaderValue>,
    /// The header by which the provider's desk shows the server that it is that, if one does.
    pub desk_header: Option<HeaderName>,
}

impl Default for Deps {
    /// The services of VirtualStack.
    fn default() -> Self {
        Self {
            descriptors: virtualstack_proto::DESCRIPTOR_POOL.clone(),
            rules: virtualstack_proto::vendored::HTTP_RULES,
            secret: None,
            desk_header: None,
        }
    }
}
