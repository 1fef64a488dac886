//! Jobs on VMs and templates.

use serde::{Deserialize, Serialize};

use crate::compute::id::{SnapshotId, TemplateId, VmId};
use crate::id::OperationId;
use crate::jobs::{Job, OperationJob, scheduled_jobs};
use crate::operation::Verb;

/// The queue of work on VMs.
pub const VM_QUEUE: &str = "vm";

/// The queue of imports: they take hours, and have slots of their own.
pub const IMPORT_QUEUE: &str = "import";

/// A job that does an operation on a VM.
pub trait VmJob: OperationJob {
    /// The VM.
    fn vm(&self) -> VmId;
}

/// Tries of one step of an operation. The operation's deadline ends retries long before this. The limit stops a job that
/// kills each worker that runs it.
const VM_ATTEMPTS: i32 = 1_000;

/// The same of operations on templates, whose deadline is later.
const TEMPLATE_ATTEMPTS: i32 = 5_000;

macro_rules! vm_jobs {
    ($($job:ident = $kind:literal,)+) => {$(
        impl Job for $job {
            const KIND: &'static str = $kind;
            const QUEUE: &'static str = VM_QUEUE;
            const MAX_ATTEMPTS: i32 = VM_ATTEMPTS;
        }

        impl OperationJob for $job {
            fn operation(&self) -> OperationId {
                self.operation
            }
        }

        impl VmJob for $job {
            fn vm(&self) -> VmId {
                self.vm
            }
        }
    )+};
}

vm_jobs! {
    VmCreate = "vm_create",
    VmPower = "vm_power",
    VmResize = "vm_resize",
    VmSnapshot = "vm_snapshot",
    VmConsole = "vm_console",
    VmDelete = "vm_delete",
}

/// Creates a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmCreate {
    pub vm: VmId,
    /// The operation that the customer sees.
    pub operation: OperationId,
}

/// How the guest of a VM is asked to shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graceful {
    /// How long it may take.
    pub timeout_seconds: u32,
    /// Whether the power is cut where it does not, or cannot be asked; otherwise that is a failure.
    pub power_off: bool,
}

impl Default for Graceful {
    fn default() -> Self {
        Self { timeout_seconds: 120, power_off: true }
    }
}

/// Starts, stops, restarts, resets or suspends a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmPower {
    pub vm: VmId,
    /// The operation that the customer sees.
    pub operation: OperationId,
    pub verb: Verb,
    /// How its guest is asked first, for what powers it off; none cuts the power.
    #[serde(default)]
    pub graceful: Option<Graceful>,
}

/// Gives a VM the size that its row says is desired.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmResize {
    pub vm: VmId,
    /// The operation that the customer sees.
    pub operation: OperationId,
    /// Whether it may be restarted where that is needed.
    pub allow_restart: bool,
}

/// Makes or deletes a snapshot, or puts its VM back to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmSnapshot {
    pub vm: VmId,
    /// The operation that the customer sees.
    pub operation: OperationId,
    pub snapshot: SnapshotId,
    pub verb: Verb,
}

/// Gets a ticket for a VM's console.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmConsole {
    pub vm: VmId,
    /// The operation that the customer sees.
    pub operation: OperationId,
}

/// Deletes a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmDelete {
    pub vm: VmId,
    /// The operation that the customer sees.
    pub operation: OperationId,
    /// Purge at once instead of keeping it for an undelete.
    pub force: bool,
}

/// A job that does an operation on a template.
pub trait TemplateJob: OperationJob {
    /// The template.
    fn template(&self) -> TemplateId;
}

macro_rules! template_jobs {
    ($($job:ident = $kind:literal in $queue:ident,)+) => {$(
        impl Job for $job {
            const KIND: &'static str = $kind;
            const QUEUE: &'static str = $queue;
            const MAX_ATTEMPTS: i32 = TEMPLATE_ATTEMPTS;
        }

        impl OperationJob for $job {
            fn operation(&self) -> OperationId {
                self.operation
            }
        }

        impl TemplateJob for $job {
            fn template(&self) -> TemplateId {
                self.template
            }
        }
    )+};
}

template_jobs! {
    TemplateImport = "template_import" in IMPORT_QUEUE,
    TemplateDelete = "template_delete" in VM_QUEUE,
}

/// Checks the file of a template, and imports it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TemplateImport {
    pub template: TemplateId,
    /// The operation that the customer sees.
    pub operation: OperationId,
    /// SHA-256 that the file is to have, in lower-case hexadecimal digits.
    pub sha256: String,
}

/// Deletes a template, with its file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TemplateDelete {
    pub template: TemplateId,
    /// The operation that the customer sees.
    pub operation: OperationId,
}

scheduled_jobs! {
    /// Fails templates whose upload was left.
    UploadExpiry = "upload_expiry",
    /// Publishes the templates of the hypervisors.
    TemplateInventory = "template_inventory",
    /// Starts purges of deleted VMs that are due.
    VmPurge = "vm_purge",
    /// Forgets console tickets that have run out.
    ConsoleTicketCleanup = "console_ticket_cleanup",
}
