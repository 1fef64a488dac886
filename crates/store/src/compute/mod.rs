//! VMs and templates, and what belongs to them.

pub mod console_tickets;
pub mod event;
pub mod guest_customizations;
pub mod provider_templates;
pub mod quotas;
pub mod simulated;
pub mod snapshots;
pub mod template_uploads;
pub mod templates;
pub mod user_templates;
pub mod vms;
