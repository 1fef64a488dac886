//! What members are told.

pub(crate) mod notification_mail;
mod notify;
pub(crate) mod said;

use virtualstack_model::notifications::jobs::{NotificationMail, Notify};

use crate::config::Config;
use crate::engine::registry::Registry;

pub(crate) fn register(registry: &mut Registry, config: &Config) {
    registry.scheduled::<Notify>(config.notify()).task::<NotificationMail>();
}
