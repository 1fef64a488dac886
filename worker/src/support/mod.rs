//! What is done with tickets by itself.

mod desk_poll;
mod desk_send;
mod ticket_closing;

use virtualstack_model::support::jobs::{DeskPoll, DeskSend, TicketClosing};

use crate::config::Config;
use crate::engine::registry::Registry;

pub(crate) fn register(registry: &mut Registry, config: &Config) {
    registry
        .scheduled::<TicketClosing>(config.housekeeping())
        .scheduled::<DeskSend>(config.desk_send())
        .scheduled::<DeskPoll>(config.desk_poll());
}
