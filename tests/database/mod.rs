//! How the store uses PostgreSQL: as few round trips as can be, and nobody takes the connections from all others.

mod dropped;
mod round_trips;
mod shares;

use virtualstack_model::log::{Actor, Audit, Outcome};

/// An audit row of nothing.
fn audit() -> Audit {
    Audit {
        action: "test".to_owned(),
        actor: Actor::System("test"),
        resource: "tenants/current".to_owned(),
        request_id: "test".to_owned(),
        client_address: None,
        traceparent: None,
        outcome: Outcome::Done,
    }
}
