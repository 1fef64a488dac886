//! What is done with tickets by itself.

mod ticket_closing;

use virtualstack_model::support::jobs::TicketClosing;

use crate::config::Config;
use crate::engine::registry::Registry;

pub(crate) fn register(registry: &mut Registry, config: &Config) {
    registry.scheduled::<TicketClosing>(config.housekeeping());
}
