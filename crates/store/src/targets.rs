//! What operations of all modules work on.

use virtualstack_model::compute::id::{SnapshotId, TemplateId, VmId};

/// What the full names of targets are like: a module has a line for each kind of its own.
pub(crate) const NAMES: &[&str] = &[VmId::NAMES, SnapshotId::NAMES, TemplateId::NAMES];
