//! VMs and what belongs to them.

pub mod console_tickets;
pub mod event;
pub mod quotas;
pub mod simulated;
pub mod snapshots;
pub mod templates;
pub mod vms;
