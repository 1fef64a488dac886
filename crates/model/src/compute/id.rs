//! Ids of VMs, snapshots and templates.

use crate::id::id;

id!(/// A virtual machine.
    VmId, "vms");
id!(/// A snapshot of a virtual machine; its full name stands below the VM's.
    SnapshotId, "snapshots");
id!(/// A template.
    TemplateId, "templates");
id!(/// A template of the provider, as its operators name it; it shares its id with the template.
    ProviderTemplateId, "providerTemplates");
