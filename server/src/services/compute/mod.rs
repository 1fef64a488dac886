//! VMs and what belongs to them, and templates.

mod announced;
mod messages;
pub(crate) mod piece;
pub(super) mod provider_templates;
pub(super) mod quotas;
pub(super) mod snapshots;
pub(super) mod targets;
pub(super) mod templates;
mod uploads;
pub(super) mod vms;
