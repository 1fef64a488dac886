//! Virtual machines: states and what is legal in each.

use crate::compute::id::VmId;
use crate::error::{Error, Result};
use crate::operation::Verb;
use crate::sql::text_enum;

text_enum! {
    /// Life cycle of a VM.
    VmState {
        /// Being created.
        Provisioning = "PROVISIONING",
        /// Powered on.
        Running = "RUNNING",
        /// Powered off.
        Stopped = "STOPPED",
        /// Suspended to disk.
        Suspended = "SUSPENDED",
        /// Being powered on.
        Starting = "STARTING",
        /// Being powered off.
        Stopping = "STOPPING",
        /// Being changed.
        Updating = "UPDATING",
        /// Being deleted.
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
        /// Powered on.
        On = "ON",
        /// Powered off.
        Off = "OFF",
        /// Suspended to disk.
        Paused = "PAUSED",
    }
}

/// Size of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Size {
    /// Virtual CPUs.
    pub cpu_count: i32,
    /// Memory in MiB.
    pub memory_mib: i32,
    /// Size of the first disk in GiB; disks only grow.
    pub disk_gib: i32,
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
            (Verb::Suspend, Running | Suspended)
            | (Verb::Update, Running | Stopped)
            | (
                Verb::CreateSnapshot | Verb::DeleteSnapshot | Verb::RevertSnapshot,
                Running | Stopped | Suspended | Failed,
            ) => Ok(Updating),
            (Verb::OpenConsole, Running) => Ok(Running),
            (Verb::Undelete, Deleted) => Ok(Stopped),
            (Verb::Create, Provisioning) => Ok(Provisioning),
            (_, Deleted | Deleting) => {
                Err(Error::precondition("VM_DELETED", vm.name(), format!("the VM is {self}, so it cannot be used")))
            }
            _ => Err(Error::precondition("VM_STATE", vm.name(), format!("a VM that is {self} does not allow {verb}"))),
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
        use Verb::{
            Create, CreateSnapshot, Delete, DeleteSnapshot, OpenConsole, Reset, Restart, RevertSnapshot, Start, Stop,
            Suspend, Undelete, Update,
        };
        let snapshots = [CreateSnapshot, DeleteSnapshot, RevertSnapshot];
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
            for verb in Verb::ALL {
                let allowed = *verb == Delete || verbs.contains(verb) || of_snapshots && snapshots.contains(verb);
                let begun = state.begin(*verb, vm);
                if allowed {
                    begun.unwrap_or_else(|error| panic!("{verb} of a VM that is {state}: {error}"));
                    continue;
                }
                let reason = match state {
                    VmState::Deleted | VmState::Deleting => "VM_DELETED",
                    _ => "VM_STATE",
                };
                match begun {
                    Err(Error::FailedPrecondition { reason: told, subject, .. }) => {
                        assert_eq!((told, subject), (reason, vm.name()), "{verb} of a VM that is {state}");
                    }
                    begun => panic!("{verb} of a VM that is {state}: {begun:?}"),
                }
            }
        }
    }

    #[test]
    fn an_opposite_power_operation_waits_for_the_first() {
        assert_eq!(VmState::Starting.begin(Verb::Stop, VmId::new()).expect_err("refused").reason(), "VM_STATE");
    }
}
