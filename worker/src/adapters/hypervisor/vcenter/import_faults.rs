//! What goes wrong with imports, in the words of whoever imports a template.

use std::fmt::Display;

use super::super::{Fault, FaultClass};
use super::faults::{Error, VimFault};

/// There is no room for the disks.
pub(super) fn no_room(detail: impl Display) -> Fault {
    let message = "the hypervisor has no room for the template; try again later, or ask the provider for more";
    Fault::new(FaultClass::Capacity, "HYPERVISOR_FULL", message, detail)
}

/// Whoever shall take the disks does not answer.
pub(super) fn unreachable(detail: impl Display) -> Fault {
    let message =
        "the host that takes the template's disks cannot be reached; it is tried again, ask the provider if it lasts";
    Fault::new(FaultClass::Retry, "HYPERVISOR_HOST_UNREACHABLE", message, detail)
}

/// It answered, and not well.
pub(super) fn upload_failed(detail: impl Display) -> Fault {
    let message = "the hypervisor did not take the template's disks; it is tried again";
    Fault::new(FaultClass::Retry, "HYPERVISOR_UPLOAD_FAILED", message, detail)
}

/// Nothing goes on.
pub(super) fn not_taken(detail: impl Display) -> Fault {
    let message = "the hypervisor does not take the disk; it is tried again, ask the provider if it lasts";
    Fault::new(FaultClass::Retry, "HYPERVISOR_UPLOAD_STALLED", message, detail)
}

/// The hypervisor gave up, and has taken back what there was.
pub(super) fn lease_lost(detail: impl Display) -> Fault {
    let message = "the hypervisor gave the import up half way; it is begun anew";
    Fault::new(FaultClass::Retry, "IMPORT_LEASE_LOST", message, detail)
}

/// It has other bytes than were sent.
pub(super) fn corrupted(detail: impl Display) -> Fault {
    let message = "the template did not arrive at the hypervisor as it was sent; it is tried again";
    Fault::new(FaultClass::Retry, "IMPORT_CORRUPTED", message, detail)
}

/// The certificate is not the one that the vCenter told.
pub(super) fn wrong_thumbprint(detail: impl Display) -> Fault {
    let message = "the host that takes the template's disks is not the one it should be; ask the provider";
    Fault::new(FaultClass::Permanent, "HYPERVISOR_WRONG_THUMBPRINT", message, detail)
}

/// Where disks shall go cannot be trusted or understood.
pub(super) fn unusable_address(detail: impl Display) -> Fault {
    let message = "the provider's hypervisor is not set up for imports; ask the provider";
    Fault::new(FaultClass::Permanent, "HYPERVISOR_MISCONFIGURED", message, detail)
}

/// What an earlier import has left is still in use.
pub(super) fn held(detail: impl Display) -> Fault {
    let message = "what is left of an earlier import is not yet released; it is tried again";
    Fault::new(FaultClass::Retry, "IMPORT_HELD", message, detail)
}

/// The bytes of the file ended too early, or did not end.
pub(super) fn source_ended(detail: impl Display) -> Fault {
    let message = "the file could not be read to its end; it is tried again";
    Fault::new(FaultClass::Retry, "IMAGE_UNREADABLE", message, detail)
}

/// A disk is not what it was said to be.
pub(super) fn broken_disk(detail: impl Display) -> Fault {
    let message = format!("a disk in the file is broken: {detail}; make the file anew");
    Fault::new(FaultClass::Invalid, "TEMPLATE_DISK_BROKEN", message, detail)
}

/// The hypervisor does not want it.
pub(super) fn refused(why: impl Display) -> Fault {
    let message = format!("the hypervisor refuses the template: {why}");
    Fault::new(FaultClass::Invalid, "TEMPLATE_REFUSED", message, "see the message")
}

/// Something is where the template should be, and it is not for us to touch it.
pub(super) fn foreign(name: impl Display) -> Fault {
    let message = "something else has the template's place on the hypervisor; ask the provider";
    let detail = format_args!("{name} does not carry the marker of this template");
    Fault::new(FaultClass::Conflict, "HYPERVISOR_FOREIGN_TEMPLATE", message, detail)
}

/// It cannot be taken away.
pub(super) fn in_use(detail: impl Display) -> Fault {
    let message = "the template is in use on the hypervisor: stop the VMs that have it in their drive, and try again";
    Fault::new(FaultClass::Conflict, "HYPERVISOR_TEMPLATE_IN_USE", message, detail)
}

/// What an error of a call means to whoever imports.
pub(super) fn of_call(error: Error) -> Fault {
    match error {
        Error::Vim(fault) => of_vim(fault),
        error => error.into(),
    }
}

/// The same of a typed fault, as a lease carries it too.
pub(super) fn of_vim(fault: VimFault) -> Fault {
    let is_any = |kinds: &[&str]| kinds.iter().any(|kind| fault.is(kind));
    let detail = fault.to_string();
    if fault.is_of_package() {
        return Fault { detail, ..refused(fault.message()) };
    }
    match () {
        // A host says no more of a disk that it cannot write on.
        () if is_any(&["FileFault"]) => no_room(detail),
        () if fault.is_name_taken() || is_any(&["InvalidState"]) => held(detail),
        () if is_any(&["ManagedObjectNotFound"]) => lease_lost(detail),
        () => {
            let fault = Fault::from(fault);
            match fault.class {
                FaultClass::Capacity => no_room(detail),
                FaultClass::Retry => upload_failed(detail),
                _ => {
                    let message = "the hypervisor cannot import the template; ask the provider";
                    Fault { message: message.to_owned(), ..fault }
                }
            }
        }
    }
}
