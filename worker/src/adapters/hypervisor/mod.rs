//! What the control plane asks of a hypervisor, and the adapters that answer.
//!
//! Every call is idempotent: it is keyed by our VM id and the marker that the adapter leaves on the VM, may be repeated
//! after a crash at any point, and changes nothing where the wish is already true. A call never waits for long work: it
//! starts it and returns the reference of the task, which the workflow stores before it asks again. An adapter
//! classifies its own faults; workflows do not guess.

use async_trait::async_trait;
use virtualstack_model::compute::console::ConsoleTicket;
use virtualstack_model::compute::customization::GuestCustomization;
use virtualstack_model::compute::id::{SnapshotId, VmId};
use virtualstack_model::compute::template::TemplateKind;
use virtualstack_model::compute::vm::{PowerState, Size};
use virtualstack_model::id::{OperationId, TenantId};

mod fault;
pub mod hypervisors;
pub mod import;
mod references;
pub mod simulated;
mod simulated_templates;
pub mod vcenter;

pub use fault::{Fault, FaultClass};
pub use references::{TaskRef, TemplateRef};

use import::{Attendance, ImageSource, ImportSpec, Imported, TemplateIdentity};

/// A hypervisor.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// Stable name of the adapter, as in the configuration.
    fn kind(&self) -> &'static str;

    /// Makes the VM exist, with its size, powered off: a clone of its template, or an empty machine with the medium in its
    /// drive. `task` is the reference that an earlier call gave, if it was stored; without it the adapter must find out
    /// whether an earlier call went through. The same holds for every `task` below.
    async fn ensure_vm(&self, spec: &VmSpec, task: Option<&TaskRef>) -> Result<Progress, Fault>;

    /// Brings an existing VM into a power state; `On` resumes a suspended one, `Off` cuts the power. A VM that is gone is
    /// [`FaultClass::Lost`], here and below.
    async fn ensure_power(&self, vm: VmId, power: PowerState, task: Option<&TaskRef>) -> Result<Progress, Fault>;

    /// Asks the guest of a running VM to shut down, and does not wait for it: look at [`Self::observe_vm`]. May be
    /// repeated. A guest that cannot be asked is [`FaultClass::Guest`]; one that is off already is asked nothing.
    async fn ask_to_shut_down(&self, vm: VmId) -> Result<(), Fault>;

    /// Resets a running VM. Without a stored task nobody knows whether an earlier call went through, and the VM is reset
    /// again: that is harmless to whoever asked for a reset.
    async fn reset(&self, vm: VmId, task: Option<&TaskRef>) -> Result<Progress, Fault>;

    /// Gives a VM a size, while it runs where that is possible; where it has to be off for it, this is
    /// [`FaultClass::PowerOff`], and nothing was changed. Disks only grow.
    async fn ensure_size(&self, vm: VmId, size: &Size, task: Option<&TaskRef>) -> Result<Progress, Fault>;

    /// Makes a snapshot of disks and settings exist, without memory; found again by its id.
    async fn ensure_snapshot(
        &self,
        vm: VmId,
        snapshot: &SnapshotSpec,
        task: Option<&TaskRef>,
    ) -> Result<Progress, Fault>;

    /// Makes sure that a snapshot does not exist; those made after it stay. A VM that is gone has none.
    async fn ensure_no_snapshot(
        &self,
        vm: VmId,
        snapshot: SnapshotId,
        task: Option<&TaskRef>,
    ) -> Result<Progress, Fault>;

    /// Puts a VM back to a snapshot; it is off then. Without a stored task it is done again. A snapshot that is gone is
    /// [`FaultClass::Permanent`], SNAPSHOT_LOST.
    async fn revert(&self, vm: VmId, snapshot: SnapshotId, task: Option<&TaskRef>) -> Result<Progress, Fault>;

    /// Gets a ticket for the console of a running VM.
    async fn open_console(&self, vm: VmId) -> Result<ConsoleTicket, Fault>;

    /// Makes sure that no task of ours is at work on the VM: the one that is stored, and any other that can be found, is
    /// cancelled where it can be, and awaited. How it ended does not matter. For the way back from an operation.
    async fn ensure_idle(&self, vm: VmId, task: Option<&TaskRef>) -> Result<Progress, Fault>;

    /// Whether a task that we started is known to have done its work, for what cannot be seen of the VM. Of one that is
    /// forgotten nobody knows.
    async fn has_done(&self, task: &TaskRef) -> Result<bool, Fault>;

    /// Makes sure that the VM does not exist and will not come to exist: it is powered off and destroyed, and a
    /// creation that is still under way is awaited or cancelled first.
    async fn ensure_absent(&self, vm: &VmIdentity, task: Option<&TaskRef>) -> Result<Progress, Fault>;

    /// What the hypervisor knows of the VM; none where it has no such VM.
    async fn observe_vm(&self, vm: VmId) -> Result<Option<Observation>, Fault>;

    /// The templates that VMs can be made from.
    async fn observe_templates(&self) -> Result<Vec<TemplateInfo>, Fault>;

    /// Makes a template of a tenant's file. Unlike all other calls this one is long: it ends when the template is there, or
    /// soon after `attendance` tells it to stop. What an earlier call has left, half made, it takes away first; `task` is
    /// what that call stored. One that was made whole it finds by our id, and is done.
    async fn import_template(
        &self,
        spec: &ImportSpec,
        source: &dyn ImageSource,
        attendance: &Attendance,
        task: Option<&TaskRef>,
    ) -> Result<Imported, Fault>;

    /// Makes sure that a template which was imported does not exist, half made ones included. VMs that were made from it stay
    /// as they are. One that is not ours is left alone, and is [`FaultClass::Conflict`].
    async fn ensure_no_template(&self, template: &TemplateIdentity, task: Option<&TaskRef>) -> Result<Progress, Fault>;

    /// Ends sessions; called once, when the worker stops.
    async fn close(&self);
}

/// A VM to make.
#[derive(Clone, Debug)]
pub struct VmSpec {
    pub id: VmId,
    /// The tenant it belongs to.
    pub tenant: TenantId,
    /// The operation that makes it.
    pub operation: OperationId,
    /// Name for people: a host name, not unique across tenants.
    pub display_name: String,
    /// The template or medium, as the hypervisor refers to it.
    pub template: TemplateRef,
    /// Which of the two it is: what is cloned, or what lies in the drive.
    pub kind: TemplateKind,
    /// Its size; the disk of a clone is at least its template's.
    pub size: Size,
    /// What its guest is told at its first boot.
    pub customization: Option<GuestCustomization>,
}

/// A snapshot to make.
#[derive(Clone, Debug)]
pub struct SnapshotSpec {
    pub id: SnapshotId,
    pub display_name: String,
}

/// Enough to find a VM whatever state its creation is in.
#[derive(Clone, Debug)]
pub struct VmIdentity {
    pub id: VmId,
    /// The template that it was, or may just be, made from.
    pub template: TemplateRef,
}

/// How far a wish is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    Done,
    /// The hypervisor works on it: store the reference, then ask again with it.
    Running {
        /// The task to ask with; none where the adapter waits for something that it has no reference of.
        task: Option<TaskRef>,
        /// Progress of the task, where it says so.
        percent: Option<u8>,
    },
}

/// What a hypervisor knows of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub power: PowerState,
    /// Its size, as far as it can be seen.
    pub size: Option<Size>,
    /// Addresses that the guest reports; link-local ones left out.
    pub ip_addresses: Vec<String>,
}

/// A template that a hypervisor offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateInfo {
    /// How the hypervisor refers to it; stays the same across restarts.
    pub reference: TemplateRef,
    pub display_name: String,
    pub kind: TemplateKind,
    pub guest_os: String,
    pub cpu_count: i32,
    pub memory_mib: i32,
    /// Size of the first disk in GiB, rounded up.
    pub disk_gib: i32,
    /// Sizes of all further disks together in GiB, rounded up: they come as they are.
    pub further_disk_gib: i32,
    /// Whether it was made of a tenant's file, and so is no template of the provider's.
    pub is_imported: bool,
}
