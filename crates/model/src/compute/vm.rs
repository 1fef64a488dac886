//! Virtual machines: states and what is legal in each.

use std::fmt::Display;

use chrono::TimeDelta;

use crate::compute::id::VmId;
use crate::compute::snapshot;
use crate::error::{Error, Result};
use crate::operation::Verb;
use crate::sql::text_enum;

text_enum! {
    /// Life cycle of a VM.
    VmState {
        Provisioning = "PROVISIONING",
        Running = "RUNNING",
        Stopped = "STOPPED",
        Suspended = "SUSPENDED",
        Starting = "STARTING",
        Stopping = "STOPPING",
        Updating = "UPDATING",
        Deleting = "DELETING",
        /// Deleted, kept until its purge time.
        Deleted = "DELETED",
        /// The last operation failed half way.
        Error = "ERROR",
    }
}

text_enum! {
    /// Power state as a hypervisor reports it.
    PowerState {
        On = "ON",
        Off = "OFF",
        Paused = "PAUSED",
    }
}

/// Size of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Size {
    pub cpu_count: i32,
    pub memory_mib: i32,
    /// Size of the first disk in GiB; disks only grow.
    pub disk_gib: i32,
}

impl Size {
    /// Whether a VM of this size has what is asked for. A disk may be larger, since disks only grow.
    #[must_use]
    pub const fn suits(&self, desired: &Self) -> bool {
        self.cpu_count == desired.cpu_count
            && self.memory_mib == desired.memory_mib
            && self.disk_gib >= desired.disk_gib
    }
}

impl VmId {
    /// What full names of VMs are like.
    pub const NAMES: &'static str = "vms/{uuid}";

    /// The VM that a full name is that of, or that it stands below.
    #[must_use]
    pub fn owning(name: &str) -> Option<Self> {
        let end = name.match_indices('/').nth(1).map_or(name.len(), |(slash, _)| slash);
        Self::parse("name", &name[..end]).ok()
    }
}

/// How long an operation on a VM may take. What is not done by then has failed, and is rolled back.
#[must_use]
pub const fn time_limit(verb: Verb) -> TimeDelta {
    match verb {
        // Copying disks takes what it takes.
        Verb::Create | Verb::Update | Verb::Revert => TimeDelta::hours(2),
        // A guest may take half an hour to shut down.
        Verb::Stop | Verb::Restart | Verb::Delete => TimeDelta::hours(1),
        Verb::Start | Verb::Reset | Verb::Suspend | Verb::Undelete => TimeDelta::minutes(15),
        Verb::OpenConsole => TimeDelta::minutes(1),
        // Not of a VM.
        Verb::Import => super::template::IMPORT_TIME_LIMIT,
    }
}

impl VmState {
    /// The state that an operation puts a VM in as it starts, or why it may not start.
    pub fn begin(self, verb: Verb, vm: VmId) -> Result<Self> {
        use VmState::{
            Deleted, Deleting, Error as Failed, Provisioning, Running, Starting, Stopped, Stopping, Suspended, Updating,
        };
        match (verb, self) {
            // A delete stands above everything but another delete, which the store's index refuses.
            (Verb::Delete, _) => Ok(Deleting),
            (Verb::Start, Stopped | Suspended | Running | Failed) => Ok(Starting),
            (Verb::Stop, Running | Suspended | Stopped | Failed) | (Verb::Restart | Verb::Reset, Running | Failed) => {
                Ok(Stopping)
            }
            (Verb::Suspend, Running | Suspended) | (Verb::Update, Running | Stopped) => Ok(Updating),
            (Verb::OpenConsole, Running) => Ok(Running),
            (Verb::Undelete, Deleted) => Ok(Stopped),
            (Verb::Create, Provisioning) => Ok(Provisioning),
            _ => Err(self.refuse(verb, vm)),
        }
    }

    /// The same for an operation on one of its snapshots.
    pub fn begin_on_snapshot(self, verb: Verb, vm: VmId) -> Result<Self> {
        match self {
            Self::Running | Self::Stopped | Self::Suspended | Self::Error => Ok(Self::Updating),
            _ => Err(self.refuse(snapshot::work(verb), vm)),
        }
    }

    fn refuse(self, work: impl Display, vm: VmId) -> Error {
        match self {
            Self::Deleted | Self::Deleting => {
                Error::precondition("VM_DELETED", vm.name(), format!("the VM is {self}, so it cannot be used"))
            }
            _ => Error::precondition("VM_STATE", vm.name(), format!("a VM that is {self} does not allow {work}")),
        }
    }

    /// The settled state that a power state means.
    #[must_use]
    pub const fn from_power(power: PowerState) -> Self {
        match power {
            PowerState::On => Self::Running,
            PowerState::Off => Self::Stopped,
            PowerState::Paused => Self::Suspended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_vm_takes_nothing_but_a_delete() {
        let vm = VmId::new();
        for verb in [Verb::Start, Verb::Stop, Verb::Restart] {
            let error = VmState::Deleted.begin(verb, vm).expect_err("refused");
            assert_eq!(error.reason(), "VM_DELETED");
        }
        assert_eq!(VmState::Deleted.begin(Verb::Delete, vm).expect("a purge"), VmState::Deleting);
    }

    #[test]
    fn a_state_allows_what_it_allows() {
        use Verb::{Create, Delete, OpenConsole, Reset, Restart, Revert, Start, Stop, Suspend, Undelete, Update};
        let vm = VmId::new();
        for state in VmState::ALL {
            // Beside a delete, which every state allows.
            let (verbs, of_snapshots): (&[Verb], bool) = match state {
                VmState::Provisioning => (&[Create], false),
                VmState::Running => (&[Start, Stop, Restart, Reset, Suspend, OpenConsole, Update], true),
                VmState::Stopped => (&[Start, Stop, Update], true),
                VmState::Suspended => (&[Start, Stop, Suspend], true),
                VmState::Error => (&[Start, Stop, Restart, Reset], true),
                VmState::Deleted => (&[Undelete], false),
                VmState::Starting | VmState::Stopping | VmState::Updating | VmState::Deleting => (&[], false),
            };
            let of_vm = Verb::ALL
                .iter()
                .map(|verb| (*verb == Delete || verbs.contains(verb), verb.to_string(), state.begin(*verb, vm)));
            let on_snapshot = [Create, Delete, Revert]
                .map(|verb| (of_snapshots, snapshot::work(verb), state.begin_on_snapshot(verb, vm)));
            for (allowed, work, begun) in of_vm.chain(on_snapshot) {
                if allowed {
                    begun.unwrap_or_else(|error| panic!("{work} of a VM that is {state}: {error}"));
                    continue;
                }
                let reason = match state {
                    VmState::Deleted | VmState::Deleting => "VM_DELETED",
                    _ => "VM_STATE",
                };
                match begun {
                    Err(Error::FailedPrecondition { reason: told, subject, .. }) => {
                        assert_eq!((told, subject), (reason, vm.name()), "{work} of a VM that is {state}");
                    }
                    begun => panic!("{work} of a VM that is {state}: {begun:?}"),
                }
            }
        }
    }

    #[test]
    fn a_name_leads_to_its_vm() {
        let vm = VmId::new();
        assert_eq!(VmId::owning(&vm.name()), Some(vm));
        assert_eq!(VmId::owning(&format!("{}/snapshots/{vm}", vm.name())), Some(vm));
        assert_eq!(VmId::owning(&format!("templates/{vm}")), None);
    }

    #[test]
    fn an_opposite_power_operation_waits_for_the_first() {
        assert_eq!(VmState::Starting.begin(Verb::Stop, VmId::new()).expect_err("refused").reason(), "VM_STATE");
    }
}
