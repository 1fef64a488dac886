//! VMs and what belongs to them.

mod consoles;
mod quotas;
mod snapshots;
pub(crate) mod templates;
mod vms;
