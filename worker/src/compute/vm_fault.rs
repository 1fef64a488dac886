//! What the hypervisor says of a VM that a workflow may have a way around, and how its faults end a step.

use virtualstack_store::operations::Failure;

use crate::adapters::hypervisor::{Fault, FaultClass};
use crate::engine::step_error::{self, code, failure};

/// What a workflow of a VM may have a way around.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VmFault {
    /// The VM must be off for it.
    #[error("the VM must be off: {}", .0.message)]
    PowerOff(Failure),
    /// The guest cannot be asked.
    #[error("the guest cannot be asked: {}", .0.message)]
    Guest(Failure),
    /// The VM is gone from the hypervisor.
    #[error("the VM is gone from the hypervisor: {}", .0.message)]
    Lost(Failure),
}

/// How a step of a VM's workflow can fail.
pub(super) type StepError = step_error::StepError<VmFault>;

impl From<VmFault> for Failure {
    fn from(fault: VmFault) -> Self {
        match fault {
            VmFault::PowerOff(failure) | VmFault::Guest(failure) | VmFault::Lost(failure) => failure,
        }
    }
}

impl From<VmFault> for StepError {
    fn from(fault: VmFault) -> Self {
        Self::Own(fault)
    }
}

impl From<Fault> for StepError {
    fn from(fault: Fault) -> Self {
        tracing::info!(%fault, class = ?fault.class, "the hypervisor reports a fault");
        let failure = |code| failure(code, fault.reason, &fault.message);
        match fault.class {
            FaultClass::Retry | FaultClass::Unknown => {
                Self::Retry { message: fault.to_string(), after: fault.retry_after }
            }
            FaultClass::PowerOff => VmFault::PowerOff(failure(code::FAILED_PRECONDITION)).into(),
            FaultClass::Guest => VmFault::Guest(failure(code::FAILED_PRECONDITION)).into(),
            FaultClass::Lost => VmFault::Lost(failure(code::NOT_FOUND)).into(),
            FaultClass::Conflict => Self::Fail(failure(code::ABORTED)),
            FaultClass::Capacity => Self::Fail(failure(code::RESOURCE_EXHAUSTED)),
            FaultClass::Invalid => Self::Fail(failure(code::INVALID_ARGUMENT)),
            FaultClass::Permanent => Self::Fail(failure(code::FAILED_PRECONDITION)),
        }
    }
}
