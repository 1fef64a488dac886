//! What can go wrong with a call, and what a workflow is told about it.
//!
//! A vCenter reports faults in three places: as a SOAP fault, as the error of a task, and beside the properties that a read
//! could not give. All three become a [`VimFault`] and are classified here, by type name.

use super::super::{Fault, FaultClass};
use super::xml::Element;

/// Why a call gave no result.
#[derive(Clone, Debug)]
pub(super) enum Error {
    /// It never reached the vCenter or was turned away unread: nothing happened.
    NotSent(String),
    /// It was sent, and what came back says nothing about its fate.
    NoAnswer {
        /// Whether it would have changed something.
        change: bool,
        detail: String,
    },
    Vim(VimFault),
    /// The settings do not fit the vCenter.
    Setup(String),
}

impl Error {
    pub(super) fn is(&self, kind: &str) -> bool {
        matches!(self, Self::Vim(fault) if fault.is(kind))
    }
}

/// A typed fault of the vCenter.
#[derive(Clone, Debug)]
pub(super) struct VimFault {
    kind: String,
    message: String,
    /// For `InvalidPowerState`: the VM was in the wished-for state already.
    already: bool,
}

impl VimFault {
    /// From a SOAP fault.
    pub(super) fn from_soap(fault: &Element) -> Self {
        let message = fault.text_at("faultstring").unwrap_or_default();
        match fault.at("detail").and_then(|detail| detail.children.first()) {
            Some(typed) => Self::new(typed, message),
            None => Self { kind: "SystemError".into(), message: message.to_owned(), already: false },
        }
    }

    /// From a `LocalizedMethodFault`, as tasks and missing properties carry it.
    pub(super) fn from_localized(fault: &Element) -> Self {
        let message = fault.text_at("localizedMessage").unwrap_or_default();
        fault.at("fault").map_or_else(
            || Self { kind: "SystemError".into(), message: message.to_owned(), already: false },
            |typed| Self::new(typed, message),
        )
    }

    fn new(typed: &Element, message: &str) -> Self {
        let requested = typed.text_at("requestedState");
        Self {
            kind: typed.kind.clone().unwrap_or_else(|| typed.name.trim_end_matches("Fault").to_owned()),
            message: message.to_owned(),
            already: requested.is_some() && requested == typed.text_at("existingState"),
        }
    }

    pub(super) fn is(&self, kind: &str) -> bool {
        self.kind == kind
    }

    /// What the vCenter says, in its words.
    pub(super) fn message(&self) -> &str {
        if self.message.is_empty() { &self.kind } else { &self.message }
    }

    /// It is about what somebody wants to import, not about the vCenter.
    pub(super) fn is_of_package(&self) -> bool {
        self.kind.starts_with("Ovf") || self.kind == "NotUserConfigurableProperty"
    }

    /// The wish was true before it was uttered.
    pub(super) fn is_already_so(&self) -> bool {
        self.is("InvalidPowerState") && self.already
    }

    /// Something of that name is there.
    pub(super) fn is_name_taken(&self) -> bool {
        matches!(self.kind.as_str(), "DuplicateName" | "FileAlreadyExists")
    }

    fn classify(&self) -> (FaultClass, &'static str, &'static str) {
        match self.kind.as_str() {
            "TaskInProgress" | "VAppTaskInProgress" | "ConcurrentAccess" | "ResourceInUse" => {
                (FaultClass::Retry, "HYPERVISOR_BUSY", "the hypervisor is busy with the VM; it is tried again")
            }
            "HostCommunication"
            | "HostNotConnected"
            | "HostNotReachable"
            | "InaccessibleDatastore"
            | "SystemError"
            | "Timedout"
            | "NotAuthenticated" => {
                (FaultClass::Retry, "HYPERVISOR_UNAVAILABLE", "the hypervisor cannot be reached; it is tried again")
            }
            "CpuHotPlugNotSupported" | "MemoryHotPlugNotSupported" => RESTART_NEEDED,
            "ToolsUnavailable" | "GuestOperationsUnavailable" => (
                FaultClass::Guest,
                "GUEST_TOOLS_UNAVAILABLE",
                "the guest cannot be asked: it has no VMware Tools, or they do not run",
            ),
            "ManagedObjectNotFound" => {
                (FaultClass::Lost, "VM_LOST", "the VM is gone from the hypervisor; delete it or ask the provider")
            }
            "DuplicateName" | "FileAlreadyExists" => (
                FaultClass::Conflict,
                "HYPERVISOR_NAME_TAKEN",
                "something else has the VM's place on the hypervisor; ask the provider",
            ),
            "TooManySnapshotLevels" => (
                FaultClass::Capacity,
                "HYPERVISOR_SNAPSHOT_LIMIT",
                "the VM has as many snapshots in a row as the hypervisor takes; delete one first",
            ),
            "NoDiskSpace" | "NoCompatibleHost" => NO_ROOM,
            kind if kind.starts_with("Insufficient") => NO_ROOM,
            "InvalidLogin" => (
                FaultClass::Permanent,
                LOGIN_REFUSED,
                "the hypervisor refuses the provider's account; ask the provider",
            ),
            "NoPermission" => (
                FaultClass::Permanent,
                "HYPERVISOR_PERMISSION_DENIED",
                "the provider's account on the hypervisor may not do this; ask the provider",
            ),
            "InvalidPowerState" => {
                (FaultClass::Permanent, POWER_STATE, "the VM's power state does not allow this; change it first")
            }
            "RequestCanceled" => (
                FaultClass::Permanent,
                "HYPERVISOR_CANCELLED",
                "the provider cancelled this on the hypervisor; try again",
            ),
            _ => (
                FaultClass::Permanent,
                "HYPERVISOR_REFUSED",
                "the hypervisor refuses this; choose another size or template, or ask the provider",
            ),
        }
    }
}

/// Reason where a VM is on, off or suspended, and should not be.
pub(super) const POWER_STATE: &str = "VM_POWER_STATE";

/// Reason where settings do not fit the vCenter.
pub(super) const MISCONFIGURED: &str = "HYPERVISOR_MISCONFIGURED";

/// Reason where it refuses our account.
pub(super) const LOGIN_REFUSED: &str = "HYPERVISOR_LOGIN_REFUSED";

/// What cannot be changed while a VM runs.
pub(super) const RESTART_NEEDED: (FaultClass, &str, &str) =
    (FaultClass::PowerOff, "RESTART_NEEDED", "the VM has to be off for this size; allow a restart");

const NO_ROOM: (FaultClass, &str, &str) = (
    FaultClass::Capacity,
    "HYPERVISOR_FULL",
    "the hypervisor has no room for the VM; choose a smaller size or try again later",
);

impl std::fmt::Display for VimFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl From<VimFault> for Fault {
    fn from(fault: VimFault) -> Self {
        let (class, reason, message) = fault.classify();
        Self::new(class, reason, message, fault)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        const UNREACHABLE: &str = "the hypervisor cannot be reached; it is tried again";
        match error {
            Error::NotSent(detail) => Self::new(FaultClass::Retry, "HYPERVISOR_UNAVAILABLE", UNREACHABLE, detail),
            Error::NoAnswer { change: false, detail } => {
                Self::new(FaultClass::Retry, "HYPERVISOR_UNAVAILABLE", UNREACHABLE, detail)
            }
            Error::NoAnswer { change: true, detail } => Self::new(
                FaultClass::Unknown,
                "HYPERVISOR_NO_ANSWER",
                "the hypervisor did not answer; what became of it is being found out",
                detail,
            ),
            Error::Vim(fault) => fault.into(),
            Error::Setup(detail) => Self::new(
                FaultClass::Permanent,
                MISCONFIGURED,
                "the provider's hypervisor is not set up for this; ask the provider",
                detail,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMESPACES: &str = r#"xmlns="urn:vim25" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance""#;

    /// As vcsim and a vCenter send it.
    fn soap(kind: &str, inner: &str) -> VimFault {
        let text = format!(
            "<soapenv:Fault xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" {NAMESPACES}>\
             <faultcode>ServerFaultCode</faultcode><faultstring>no</faultstring>\
             <detail><{kind}Fault xsi:type=\"{kind}\">{inner}</{kind}Fault></detail></soapenv:Fault>"
        );
        VimFault::from_soap(&Element::parse(&text).expect("well-formed"))
    }

    fn class(kind: &str) -> FaultClass {
        Fault::from(soap(kind, "")).class
    }

    #[test]
    fn busy_and_unreachable_are_tried_again() {
        for kind in ["TaskInProgress", "VAppTaskInProgress", "ConcurrentAccess", "ResourceInUse", "HostCommunication"] {
            assert_eq!(class(kind), FaultClass::Retry, "{kind}");
        }
        assert_eq!(Fault::from(Error::NotSent("refused".into())).class, FaultClass::Retry);
    }

    #[test]
    fn silence_after_a_change_is_unknown_and_after_a_read_is_not() {
        let silence = |change| Fault::from(Error::NoAnswer { change, detail: "EOF".into() }).class;
        assert_eq!(silence(true), FaultClass::Unknown);
        assert_eq!(silence(false), FaultClass::Retry);
    }

    #[test]
    fn an_invalid_power_state_is_done_only_when_it_is_the_wished_one() {
        let state = |existing: &str| {
            soap(
                "InvalidPowerState",
                &format!("<requestedState>poweredOn</requestedState><existingState>{existing}</existingState>"),
            )
        };
        assert!(state("poweredOn").is_already_so());
        assert!(!state("suspended").is_already_so());
        assert_eq!(Fault::from(state("suspended")).class, FaultClass::Permanent);
    }

    #[test]
    fn a_taken_name_is_a_conflict() {
        for kind in ["DuplicateName", "FileAlreadyExists"] {
            assert!(soap(kind, "").is_name_taken());
            assert_eq!(class(kind), FaultClass::Conflict, "{kind}");
        }
    }

    #[test]
    fn an_object_that_is_gone_is_lost() {
        assert_eq!(class("ManagedObjectNotFound"), FaultClass::Lost);
    }

    #[test]
    fn refusals_are_permanent_and_say_who_can_help() {
        for kind in ["InvalidLogin", "NoPermission", "InvalidArgument", "NotSupported", "OvfInvalidPackage", "Novel"] {
            let fault = Fault::from(soap(kind, ""));
            assert_eq!(fault.class, FaultClass::Permanent, "{kind}");
            assert!(fault.message.contains("provider"), "{kind}");
        }
    }

    #[test]
    fn no_room_is_capacity() {
        for kind in
            ["NoDiskSpace", "InsufficientResourcesFault", "InsufficientMemoryResourcesFault", "TooManySnapshotLevels"]
        {
            assert_eq!(class(kind), FaultClass::Capacity, "{kind}");
        }
    }

    #[test]
    fn a_guest_without_tools_cannot_be_asked() {
        for kind in ["ToolsUnavailable", "GuestOperationsUnavailable"] {
            assert_eq!(class(kind), FaultClass::Guest, "{kind}");
        }
    }

    #[test]
    fn what_does_not_go_hot_wants_the_vm_off() {
        for kind in ["CpuHotPlugNotSupported", "MemoryHotPlugNotSupported"] {
            assert_eq!(class(kind), FaultClass::PowerOff, "{kind}");
        }
    }

    #[test]
    fn a_task_carries_its_fault_in_another_shape() {
        let text = format!(
            "<error {NAMESPACES}><fault xsi:type=\"NoDiskSpace\"><file/><datastore>ds</datastore></fault>\
             <localizedMessage>Insufficient disk space.</localizedMessage></error>"
        );
        let fault = Fault::from(VimFault::from_localized(&Element::parse(&text).expect("well-formed")));
        assert_eq!(fault.class, FaultClass::Capacity);
        assert!(fault.detail.contains("Insufficient disk space."));
        assert!(!fault.message.contains("NoDiskSpace"), "tenants do not read vCenter's words");
    }

    #[test]
    fn a_fault_without_a_type_is_not_final() {
        let text = "<Fault><faultcode>x</faultcode><faultstring>down</faultstring></Fault>";
        let fault = VimFault::from_soap(&Element::parse(text).expect("well-formed"));
        assert_eq!(Fault::from(fault).class, FaultClass::Retry);
    }
}
