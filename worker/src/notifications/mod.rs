//! What members are told.

pub mod mail_preview;
mod notification_mail;
mod notify;
mod said;

use virtualstack_model::notifications::jobs::{NotificationMail, Notify};

use crate::config::Config;
use crate::engine::registry::Registry;

pub(crate) fn register(registry: &mut Registry, config: &Config) {
    registry.scheduled::<Notify>(config.notify()).task::<NotificationMail>();
}
