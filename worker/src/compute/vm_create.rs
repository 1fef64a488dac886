//! Creates a VM: clone → power on → observe → RUNNING. Back: make sure that nothing of it is left → no VM.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use virtualstack_model::Result;
use virtualstack_model::compute::jobs::VmCreate;
use virtualstack_model::compute::template::TemplateKind;
use virtualstack_model::compute::vm::{PowerState, VmState};
use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::guest_customizations;
use virtualstack_store::compute::vms::{self, Update, Vm};
use virtualstack_store::operations::{self, End, Failure};
use virtualstack_store::{Read, TenantTx};

use super::{ask, dead_letter, finish, hypervisor, identity, present, vanished, wait_or};
use crate::adapters::hypervisor::{Progress, TaskRef, TemplateRef, VmSpec};
use crate::compute::vm_fault::{StepError, VmFault};
use crate::engine::context::{Committed, StepContext, Transition};
use crate::engine::run::Workflow;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum Step {
    Clone {
        task: Option<TaskRef>,
    },
    PowerOn {
        task: Option<TaskRef>,
    },
    Observe {
        looks: u32,
    },
    /// `failure` is none when the operation was cancelled.
    Rollback {
        task: Option<TaskRef>,
        failure: Option<Failure>,
    },
}

impl Workflow for VmCreate {
    type Step = Step;
    type Subject = Option<Vm>;
    type Error = VmFault;

    async fn load(&self, tx: &mut TenantTx<Read>) -> Result<Option<Vm>> {
        vms::find(tx, self.vm).await
    }

    fn first(&self) -> Step {
        Step::Clone { task: None }
    }

    fn label(step: &Step) -> (&'static str, Range<i32>) {
        match step {
            Step::Clone { .. } => ("clone", 5..70),
            Step::PowerOn { .. } => ("power_on", 70..90),
            Step::Observe { .. } => ("observe", 90..100),
            Step::Rollback { .. } => ("rollback", 0..0),
        }
    }

    async fn step(
        &self,
        context: &StepContext<'_>,
        subject: Option<Vm>,
        step: Step,
    ) -> Result<Committed<Step>, StepError> {
        if matches!(step, Step::Rollback { .. }) && context.has_ended() && !is_left_behind(subject.as_ref()) {
            return Ok(context.commit_step(Transition::Done, async |_| Ok(())).await?);
        }
        let vm = present(subject)?;
        let hypervisor = hypervisor(context, &vm)?;
        match step {
            Step::Clone { task } => {
                let spec = spec(self, context, &vm).await?;
                match ask(context, hypervisor.ensure_vm(&spec, task.as_ref())).await? {
                    Progress::Running { task, percent } => Ok(context.wait(Step::Clone { task }, percent).await?),
                    Progress::Done => {
                        let told = async |tx: &mut _| guest_customizations::remove(tx, vm.id).await;
                        Ok(context.commit_step(Transition::Next(Step::PowerOn { task: None }), told).await?)
                    }
                }
            }
            Step::PowerOn { task } => {
                let progress = ask(context, hypervisor.ensure_power(vm.id, PowerState::On, task.as_ref())).await?;
                wait_or(context, progress, |task| Step::PowerOn { task }, Step::Observe { looks: 0 }).await
            }
            Step::Observe { looks } => observe(self, context, vm, looks).await,
            Step::Rollback { task, failure } => {
                let progress = ask(context, hypervisor.ensure_absent(&identity(&vm), task.as_ref())).await?;
                if let Progress::Running { task, percent } = progress {
                    return Ok(context.wait(Step::Rollback { task, failure }, percent).await?);
                }
                Ok(rolled_back(self, context, vm, failure).await?)
            }
        }
    }

    fn rollback(&self, step: &Step, failure: Option<Failure>) -> Option<Step> {
        match step {
            Step::Rollback { .. } => None,
            // The clone's task goes along: what it makes must not be left.
            Step::Clone { task } => Some(Step::Rollback { task: task.clone(), failure }),
            Step::PowerOn { .. } | Step::Observe { .. } => Some(Step::Rollback { task: None, failure }),
        }
    }

    async fn dead_letter(&self, context: &StepContext<'_>, failure: Failure) -> Result<Committed<Step>> {
        dead_letter(self, context, failure).await
    }
}

async fn spec(job: &VmCreate, context: &StepContext<'_>, vm: &Vm) -> Result<VmSpec> {
    let StepContext { shared, lease, .. } = context;
    let told = async |tx: &mut TenantTx<Read>| guest_customizations::get(tx, &shared.master_key, vm.id).await;
    Ok(VmSpec {
        id: vm.id,
        tenant: vm.tenant_id,
        operation: job.operation,
        display_name: vm.display_name.clone(),
        template: TemplateRef(vm.template_reference.clone()),
        kind: vm.template_kind,
        size: vm.size(),
        customization: shared.store.read_for_job(lease, told).await?,
    })
}

/// Waits a while for the address of a guest that may report one, then calls the VM running with or without it.
async fn observe(job: &VmCreate, context: &StepContext<'_>, vm: Vm, looks: u32) -> Result<Committed<Step>, StepError> {
    let seen = ask(context, hypervisor(context, &vm)?.observe_vm(vm.id)).await?;
    let Some(seen) = seen else {
        return Err(vanished());
    };
    // A medium has no guest yet that could report an address.
    let reports = vm.template_kind != TemplateKind::Iso;
    if reports && seen.ip_addresses.is_empty() && looks < context.shared.config.address_wait_seconds {
        let pause = context.within(chrono::TimeDelta::seconds(1));
        let again = Transition::Wait(Step::Observe { looks: looks + 1 }, pause);
        return Ok(context.commit_step(again, async |_| Ok(())).await?);
    }
    let id = job.operation;
    let update = Update {
        state: Some(VmState::from_power(seen.power)),
        observed: Some((Some(seen.power), seen.ip_addresses)),
        size: seen.size,
        ..Update::default()
    };
    let event = Event { reason: "VM_CREATED", message: "The VM was created".to_owned(), operation: Some(id) };
    let done = async |tx: &mut _| finish(job, tx, update.clone(), event.clone(), &End::Succeeded(None)).await;
    Ok(context.commit_step(Transition::Done, done).await?)
}

/// Whether a VM is as a rollback has left it that was given up. An operator may try that again when somebody has made use of
/// the VM, or removed it.
fn is_left_behind(vm: Option<&Vm>) -> bool {
    vm.is_some_and(|vm| vm.state == VmState::Error)
}

/// Nothing is left on the hypervisor, so nothing is left of the VM: its name and what it counted for are free. The operation
/// says what happened.
async fn rolled_back(
    job: &VmCreate,
    context: &StepContext<'_>,
    vm: Vm,
    failure: Option<Failure>,
) -> Result<Committed<Step>> {
    let id = job.operation;
    let (reason, message, end) = match failure {
        Some(failure) => ("VM_CREATE_FAILED", format!("Creation failed: {}", failure.message), End::Failed(failure)),
        None => ("VM_CREATE_CANCELLED", "Creation was cancelled".to_owned(), End::Cancelled),
    };
    let event = Event { reason, message, operation: Some(id) };
    let done = async |tx: &mut _| {
        vms::remove(tx, &vm, event.clone()).await?;
        operations::end(tx, id, &end).await
    };
    context.commit_step(Transition::Done, done).await
}
