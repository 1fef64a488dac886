//! A hypervisor that tests stand in front of: every call passes a hook before and after the real one.

use std::sync::Arc;

use async_trait::async_trait;
use virtualstack_model::compute::console::ConsoleTicket;
use virtualstack_model::compute::id::{SnapshotId, VmId};
use virtualstack_model::compute::vm::{PowerState, Size};
use virtualstack_worker::adapters::hypervisor::import::{
    Attendance, ImageSource, ImportSpec, Imported, TemplateIdentity,
};
use virtualstack_worker::adapters::hypervisor::{
    Fault, FaultClass, Hypervisor, Observation, Progress, SnapshotSpec, TaskRef, TemplateInfo, VmIdentity, VmSpec,
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
    Import,
    RemoveTemplate,
}

/// Whether the hook is asked before the real call, or after it has done its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum When {
    Before,
    After,
}

/// A call that passes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passing<'a> {
    /// The VM, or by the same id the template.
    pub(crate) vm: VmId,
    /// Of the VM, where the call says it.
    pub(crate) display_name: Option<&'a str>,
    pub(crate) call: Call,
    pub(crate) when: When,
}

/// What may go wrong; a fault after a call has done its work is a lost reply.
#[async_trait]
pub(crate) trait Hook: Send + Sync + 'static {
    async fn pass(&self, passing: Passing<'_>) -> Result<(), Fault>;
}

/// A hook that only wants to know the call.
struct ByCall<F>(F);

#[async_trait]
impl<F> Hook for ByCall<F>
where
    F: Fn(Call, When) -> Result<(), Fault> + Send + Sync + 'static,
{
    async fn pass(&self, passing: Passing<'_>) -> Result<(), Fault> {
        self.0(passing.call, passing.when)
    }
}

/// A hypervisor behind a hook.
pub(crate) struct Intercepted {
    inner: Arc<dyn Hypervisor>,
    hook: Box<dyn Hook>,
}

impl Intercepted {
    pub(crate) fn new(
        inner: Arc<dyn Hypervisor>,
        hook: impl Fn(Call, When) -> Result<(), Fault> + Send + Sync + 'static,
    ) -> Self {
        Self::behind(ByCall(hook), inner)
    }

    /// With a hook that wants to know more, or takes its time.
    pub(crate) fn behind(hook: impl Hook, inner: Arc<dyn Hypervisor>) -> Self {
        Self { inner, hook: Box::new(hook) }
    }

    async fn pass<T: Send>(
        &self,
        vm: VmId,
        call: Call,
        real: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        self.pass_as(Passing { vm, display_name: None, call, when: When::Before }, real).await
    }

    async fn pass_as<T: Send>(
        &self,
        passing: Passing<'_>,
        real: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        match self.hook.pass(passing).await {
            Err(fault) if fault.reason == HANGS => std::future::pending().await,
            passed => passed?,
        }
        let done = real.await?;
        self.hook.pass(Passing { when: When::After, ..passing }).await?;
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
        let name = Some(spec.display_name.as_str());
        let passing = Passing { vm: spec.id, display_name: name, call: Call::Create, when: When::Before };
        self.pass_as(passing, self.inner.ensure_vm(spec, task)).await
    }

    async fn ensure_power(&self, vm: VmId, power: PowerState, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        let call = match power {
            PowerState::On => Call::PowerOn,
            PowerState::Off => Call::PowerOff,
            PowerState::Paused => Call::Suspend,
        };
        self.pass(vm, call, self.inner.ensure_power(vm, power, task)).await
    }

    async fn ask_to_shut_down(&self, vm: VmId) -> Result<(), Fault> {
        self.pass(vm, Call::ShutDown, self.inner.ask_to_shut_down(vm)).await
    }

    async fn reset(&self, vm: VmId, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.pass(vm, Call::Reset, self.inner.reset(vm, task)).await
    }

    async fn ensure_size(&self, vm: VmId, size: &Size, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.pass(vm, Call::Resize, self.inner.ensure_size(vm, size, task)).await
    }

    async fn ensure_snapshot(
        &self,
        vm: VmId,
        snapshot: &SnapshotSpec,
        task: Option<&TaskRef>,
    ) -> Result<Progress, Fault> {
        self.pass(vm, Call::Snapshot, self.inner.ensure_snapshot(vm, snapshot, task)).await
    }

    async fn ensure_no_snapshot(
        &self,
        vm: VmId,
        snapshot: SnapshotId,
        task: Option<&TaskRef>,
    ) -> Result<Progress, Fault> {
        self.pass(vm, Call::RemoveSnapshot, self.inner.ensure_no_snapshot(vm, snapshot, task)).await
    }

    async fn revert(&self, vm: VmId, snapshot: SnapshotId, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.pass(vm, Call::Revert, self.inner.revert(vm, snapshot, task)).await
    }

    async fn open_console(&self, vm: VmId) -> Result<ConsoleTicket, Fault> {
        self.pass(vm, Call::Console, self.inner.open_console(vm)).await
    }

    async fn ensure_idle(&self, vm: VmId, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.pass(vm, Call::Idle, self.inner.ensure_idle(vm, task)).await
    }

    async fn has_done(&self, task: &TaskRef) -> Result<bool, Fault> {
        self.inner.has_done(task).await
    }

    async fn ensure_absent(&self, vm: &VmIdentity, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.pass(vm.id, Call::Absent, self.inner.ensure_absent(vm, task)).await
    }

    async fn observe_vm(&self, vm: VmId) -> Result<Option<Observation>, Fault> {
        self.pass(vm, Call::Observe, self.inner.observe_vm(vm)).await
    }

    async fn observe_templates(&self) -> Result<Vec<TemplateInfo>, Fault> {
        self.inner.observe_templates().await
    }

    async fn import_template(
        &self,
        spec: &ImportSpec,
        source: &dyn ImageSource,
        attendance: &Attendance,
        task: Option<&TaskRef>,
    ) -> Result<Imported, Fault> {
        let import = self.inner.import_template(spec, source, attendance, task);
        self.pass(VmId(spec.id.0), Call::Import, import).await
    }

    async fn ensure_no_template(&self, template: &TemplateIdentity, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        let gone = self.inner.ensure_no_template(template, task);
        self.pass(VmId(template.id.0), Call::RemoveTemplate, gone).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
