//! Places for what is in flight: some for all clients, and a part of them for each client's address.

use std::net::IpAddr;

use tonic::Code;
use virtualstack_connections::{Share, Shares, network};

use crate::problem::Problem;

/// A place, until it is dropped.
pub(crate) type Place = Share<Option<IpAddr>>;

/// How many there are.
#[derive(Debug)]
pub(crate) struct Places {
    shares: Shares<Option<IpAddr>>,
    of_address: usize,
    of_all: usize,
}

impl Places {
    pub(crate) fn new(of_all: usize, of_address: usize) -> Self {
        Self { shares: Shares::default(), of_address, of_all }
    }

    /// One for a client.
    pub(crate) fn take(&self, client: IpAddr) -> Result<Place, Problem> {
        let holders = [(Some(network(client)), self.of_address), (None, self.of_all)];
        self.shares.take(holders).map_err(|full| {
            let overloaded = "Too many calls are in flight.";
            let (code, reason, message) = match full {
                0 => (Code::ResourceExhausted, "TOO_MANY_CALLS", "Your address has as many calls in flight as may be."),
                _ => (Code::Unavailable, "GATEWAY_OVERLOADED", overloaded),
            };
            Problem::new(code, reason, message).retry_after(1)
        })
    }
}
