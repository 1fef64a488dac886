//! VMs, their snapshots and consoles, the templates they are made from, and quotas.

pub mod console;
pub mod customization;
pub mod id;
pub mod jobs;
pub mod quota;
pub mod snapshot;
pub mod template;
pub mod vm;
