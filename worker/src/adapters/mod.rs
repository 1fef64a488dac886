//! The adapters to the outside.

pub mod hypervisor;
