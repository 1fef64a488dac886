//! What is done with tickets by itself.

mod desk_files;
mod desk_follow;
mod desk_poll;
mod desk_problem;
mod desk_send;
mod desk_sync;
mod ticket_closing;

use virtualstack_model::support::jobs::{DeskSync, TicketClosing};

use crate::config::Config;
use crate::engine::registry::Registry;

pub(crate) fn register(registry: &mut Registry, config: &Config) {
    registry.scheduled::<TicketClosing>(config.housekeeping()).scheduled::<DeskSync>(config.desk_send());
}
