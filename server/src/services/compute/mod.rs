//! VMs and what belongs to them.

mod messages;
pub(super) mod quotas;
pub(super) mod snapshots;
pub(super) mod targets;
pub(super) mod templates;
pub(super) mod vms;
