//! Snapshots of virtual machines.

use chrono::TimeDelta;

use crate::compute::id::{SnapshotId, VmId};
use crate::operation::Verb;
use crate::sql::text_enum;
use crate::{Error, Result};

text_enum! {
    /// Whether a snapshot can be used.
    SnapshotState {
        Creating = "CREATING",
        /// It can be gone back to.
        Ready = "READY",
        Deleting = "DELETING",
        /// The last operation failed half way.
        Error = "ERROR",
    }
}

/// How long an operation on a snapshot may take: copying disks takes what it takes.
pub const TIME_LIMIT: TimeDelta = TimeDelta::hours(2);

/// What messages call an operation on a snapshot, beside those on its VM.
#[must_use]
pub fn work(verb: Verb) -> String {
    format!("{verb}_SNAPSHOT")
}

impl SnapshotId {
    /// What full names of snapshots are like.
    pub const NAMES: &'static str = "vms/{uuid}/snapshots/{uuid}";

    /// The full name, below that of its VM.
    #[must_use]
    pub fn name_in(self, vm: VmId) -> String {
        format!("{}/{}", vm.name(), self.name())
    }

    /// Reads a full name; `field` is named when it is none.
    pub fn parse_in(field: &str, name: &str) -> Result<(VmId, Self)> {
        let wrong = || Error::invalid(field, "must be a full name, vms/{uuid}/snapshots/{uuid}");
        let (vm, snapshot) =
            name.match_indices('/').nth(1).map(|(slash, _)| (&name[..slash], &name[slash + 1..])).ok_or_else(wrong)?;
        let vm = VmId::parse(field, vm).map_err(|_| wrong())?;
        Ok((vm, Self::parse(field, snapshot).map_err(|_| wrong())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_snapshot_it_is() {
        let (vm, snapshot) = (VmId::new(), SnapshotId::new());
        assert_eq!(SnapshotId::parse_in("name", &snapshot.name_in(vm)).expect("a name"), (vm, snapshot));
        for wrong in ["", "vms/x", &vm.name(), &format!("{}/disks/{snapshot}", vm.name())] {
            assert!(SnapshotId::parse_in("name", wrong).is_err(), "{wrong}");
        }
    }
}
