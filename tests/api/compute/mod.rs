//! VMs and what belongs to them.

mod consoles;
mod quotas;
mod snapshots;
mod vms;
