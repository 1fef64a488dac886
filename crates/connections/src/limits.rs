//! What connections may take.

use std::time::Duration;

use ipnet::IpNet;

/// What connections may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once, and of one address; a network of /64 is one with IPv6.
    pub connections: usize,
    pub per_network: usize,
    /// From the connection to its first request.
    pub first_request: Duration,
    /// Without a request at work.
    pub idle: Duration,
    /// For a reply, or a piece of it, to be read.
    pub send: Duration,
    /// Bytes of replies that may wait to be read before more are refused.
    pub unread_per_connection: usize,
    pub unread_per_network: usize,
    /// Networks without a share of the connections, such as those of proxies that speak for many.
    pub exempt: Vec<IpNet>,
    /// For calls to finish when the end has come.
    pub drain: Duration,
}
