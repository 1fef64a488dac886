//! VMs and what belongs to them.

pub(super) mod quotas;
pub(super) mod snapshots;
pub(super) mod templates;
pub(super) mod vms;
