//! Templates that VMs are made from.

use crate::sql::words;

words! {
    /// What a template is on the hypervisor.
    TemplateKind {
        /// A machine image that is cloned.
        Ova = "OVA",
        /// An installation medium.
        Iso = "ISO",
    }
}

words! {
    /// Whether VMs can be made from a template.
    TemplateState {
        /// They can.
        Ready = "READY",
        /// It is no longer found on the hypervisor.
        Unavailable = "UNAVAILABLE",
    }
}
