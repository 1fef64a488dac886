//! Ids of VMs, snapshots and templates.

use crate::id::id;

id!(/// A virtual machine.
    VmId, "vms");
id!(/// A snapshot of a virtual machine; its full name stands below the VM's.
    SnapshotId, "snapshots");
id!(/// A template.
    TemplateId, "templates");
