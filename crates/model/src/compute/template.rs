//! Templates that VMs are made from.

use crate::sql::text_enum;

text_enum! {
    /// What a template is on the hypervisor.
    TemplateKind {
        /// A machine image that is cloned.
        Ova = "OVA",
        Iso = "ISO",
    }
}

text_enum! {
    /// Whether VMs can be made from a template.
    TemplateState {
        Ready = "READY",
        /// It is no longer found on the hypervisor.
        Unavailable = "UNAVAILABLE",
    }
}
