//! A hypervisor that tests stand in front of: every call passes a hook before and after the real one.

use std::sync::Arc;

use async_trait::async_trait;
use virtualstack_model::id::{SnapshotId, VmId};
use virtualstack_model::vm::{PowerState, Size};
use virtualstack_worker::adapters::hypervisor::{
    ConsoleTicket, Fault, FaultClass, Hypervisor, Observation, Progress, SnapshotSpec, TaskRef, TemplateInfo,
    VmIdentity, VmSpec,
};

/// A call of the workflows, by what it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Create,
    PowerOn,
    PowerOff,
    Suspend,
    ShutDown,
    Reset,
    Resize,
    Snapshot,
    RemoveSnapshot,
    Revert,
    Console,
    Idle,
    Absent,
    Observe,
}

/// Whether the hook is asked before the real call, or after it has done its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum When {
    Before,
    After,
}

/// What may go wrong; a fault after a call has done its work is a lost reply.
pub(crate) type Hook = dyn Fn(Call, When) -> Result<(), Fault> + Send + Sync;

/// A hypervisor behind a hook.
pub(crate) struct Intercepted {
    inner: Arc<dyn Hypervisor>,
    hook: Box<Hook>,
}

impl Intercepted {
    pub(crate) fn new(
        inner: Arc<dyn Hypervisor>,
        hook: impl Fn(Call, When) -> Result<(), Fault> + Send + Sync + 'static,
    ) -> Self {
        Self { inner, hook: Box::new(hook) }
    }

    async fn pass<T>(&self, call: Call, real: impl Future<Output = Result<T, Fault>> + Send) -> Result<T, Fault> {
        match (self.hook)(call, When::Before) {
            Err(fault) if fault.reason == HANGS => std::future::pending().await,
            passed => passed?,
        }
        let done = real.await?;
        (self.hook)(call, When::After)?;
        Ok(done)
    }
}

/// A fault made by a test.
pub(crate) fn test_fault(class: FaultClass) -> Fault {
    Fault::new(class, "TEST_FAULT", "it does not work", "made by a test")
}

const HANGS: &str = "HANGS";

/// Given before a call, it never ends.
pub(crate) fn hang() -> Fault {
    Fault::new(FaultClass::Unknown, HANGS, "it hangs", "made by a test")
}

#[async_trait]
impl Hypervisor for Intercepted {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    async fn ensure_vm(&self, spec: &VmSpec, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.pass(Call::Create, self.inner.ensure_vm(spec, task)).await
    }

    async fn ensure_power(&self, vm: VmId, power: PowerState, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        let call = match power {
            PowerState::On => Call::PowerOn,
            PowerState::Off => Call::PowerOff,
            PowerState::Paused => Call::Suspend,
        };
        self.pass(call, self.inner.ensure_power(vm, power, task)).await
    }

    async fn ask_to_shut_down(&self, vm: VmId) -> Result<(), Fault> {
        self.pass(Call::ShutDown, self.inner.ask_to_shut_down(vm)).await
    }

    async fn reset(&self, vm: VmId, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.pass(Call::Reset, self.inner.reset(vm, task)).await
    }

    async fn ensure_size(&self, vm: VmId, size: &Size, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.pass(Call::Resize, self.inner.ensure_size(vm, size, task)).await
    }

    async fn ensure_snapshot(
        &self,
        vm: VmId,
        snapshot: &SnapshotSpec,
        task: Option<&TaskRef>,
    ) -> Result<Progress, Fault> {
        self.pass(Call::Snapshot, self.inner.ensure_snapshot(vm, snapshot, task)).await
    }

    async fn ensure_no_snapshot(
        &self,
        vm: VmId,
        snapshot: SnapshotId,
        task: Option<&TaskRef>,
    ) -> Result<Progress, Fault> {
        self.pass(Call::RemoveSnapshot, self.inner.ensure_no_snapshot(vm, snapshot, task)).await
    }

    async fn revert(&self, vm: VmId, snapshot: SnapshotId, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.pass(Call::Revert, self.inner.revert(vm, snapshot, task)).await
    }

    async fn open_console(&self, vm: VmId) -> Result<ConsoleTicket, Fault> {
        self.pass(Call::Console, self.inner.open_console(vm)).await
    }

    async fn ensure_idle(&self, vm: VmId, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.pass(Call::Idle, self.inner.ensure_idle(vm, task)).await
    }

    async fn ensure_absent(&self, vm: &VmIdentity, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.pass(Call::Absent, self.inner.ensure_absent(vm, task)).await
    }

    async fn observe_vm(&self, vm: VmId) -> Result<Option<Observation>, Fault> {
        self.pass(Call::Observe, self.inner.observe_vm(vm)).await
    }

    async fn observe_templates(&self) -> Result<Vec<TemplateInfo>, Fault> {
        self.inner.observe_templates().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
