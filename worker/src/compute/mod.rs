//! VMs and templates: one file per workflow or task. A workflow reads top to bottom: its steps, what each does, and the rollback.

mod cleanup;
mod image_check;
mod image_source;
mod power_down;
mod template;
mod template_delete;
mod template_import;
mod template_inventory;
mod upload_expiry;
mod vm_console;
mod vm_create;
mod vm_delete;
mod vm_fault;
mod vm_power;
mod vm_purge;
mod vm_resize;
mod vm_snapshot;

use std::fmt::Display;

use chrono::TimeDelta;
use virtualstack_model::Result;
use virtualstack_model::compute::jobs::{
    ConsoleTicketCleanup, TemplateDelete, TemplateImport, TemplateInventory, UploadExpiry, VmConsole, VmCreate,
    VmDelete, VmJob, VmPower, VmPurge, VmResize, VmSnapshot,
};
use virtualstack_model::compute::vm::{Size, VmState};
use virtualstack_model::jobs::Job;
use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::vms::{self, Update, Vm};
use virtualstack_store::operations::{self, End, Failure};
use virtualstack_store::{TenantTx, Write};

use crate::adapters::hypervisor::{Fault, Hypervisor, Observation, Progress, TaskRef, TemplateRef, VmIdentity};
use crate::compute::vm_fault::{StepError, VmFault};
use crate::config::Config;
use crate::engine::context::{Committed, StepContext, Transition};
use crate::engine::registry::Registry;
use crate::engine::run::Workflow;
use crate::engine::step_error::{code, failure};

/// The hypervisor that a VM is on.
fn hypervisor<'a>(context: &'a StepContext<'_>, vm: &Vm) -> Result<&'a dyn Hypervisor, StepError> {
    hypervisor_named(context, &vm.hypervisor)
}

/// The hypervisor that a row names.
fn hypervisor_named<'a>(context: &'a StepContext<'_>, name: &str) -> Result<&'a dyn Hypervisor, StepError> {
    Ok(context.shared.hypervisors.of(name)?)
}

/// Asks the hypervisor; see [`StepContext::ask`].
async fn ask<T>(context: &StepContext<'_>, call: impl Future<Output = Result<T, Fault>>) -> Result<T, StepError> {
    context.ask(call).await
}

pub(crate) fn register(registry: &mut Registry, config: &Config) {
    registry
        .workflow::<VmCreate>()
        .workflow::<VmPower>()
        .workflow::<VmResize>()
        .workflow::<VmSnapshot>()
        .workflow::<VmConsole>()
        .workflow::<VmDelete>()
        .workflow::<TemplateImport>()
        .workflow::<TemplateDelete>()
        .scheduled_and_on_start::<TemplateInventory>(config.inventory())
        .scheduled::<VmPurge>(config.housekeeping())
        .scheduled::<UploadExpiry>(config.housekeeping())
        .scheduled::<ConsoleTicketCleanup>(config.housekeeping());
}

/// The VM of a step that cannot do without its row.
fn present(subject: Option<Vm>) -> Result<Vm, StepError> {
    subject.ok_or_else(|| StepError::Fail(failure(code::NOT_FOUND, "VM_NOT_FOUND", "the VM was removed")))
}

/// The VM was on the hypervisor, and no longer is.
fn vanished() -> StepError {
    VmFault::Lost(failure(code::NOT_FOUND, "VM_LOST", "the VM vanished from the hypervisor")).into()
}

/// Waits for a task of the hypervisor: `again` is the step that asks once more, with the task's reference stored.
async fn wait_or<S>(
    context: &StepContext<'_>,
    progress: Progress,
    again: impl FnOnce(Option<TaskRef>) -> S,
    done: S,
) -> Result<Committed<S>, StepError>
where
    S: serde::Serialize + Send + Sync,
{
    let settled = match progress {
        Progress::Done => context.next(done).await,
        Progress::Running { task, percent } => context.wait(again(task), percent).await,
    };
    Ok(settled?)
}

/// Makes sure that the hypervisor is not at work on a VM, so that what is observed then stays true.
async fn idle(context: &StepContext<'_>, vm: &Vm, task: Option<&TaskRef>) -> Result<Progress, StepError> {
    match ask(context, hypervisor(context, vm)?.ensure_idle(vm.id, task)).await {
        Err(StepError::Own(VmFault::Lost(_))) => Ok(Progress::Done),
        done => done,
    }
}

/// What the hypervisor says of a VM; none where it is gone.
async fn observe(context: &StepContext<'_>, vm: &Vm) -> Result<Option<Observation>, StepError> {
    ask(context, hypervisor(context, vm)?.observe_vm(vm.id)).await
}

/// What is written of a VM as it was seen when an operation ended. `size` is what it has where that cannot be seen. A VM that
/// is gone is still counted: whoever knows why may bring it back.
fn as_seen(seen: Option<Observation>, size: Size) -> Update {
    match seen {
        Some(seen) => Update {
            state: Some(VmState::from_power(seen.power)),
            observed: Some((Some(seen.power), seen.ip_addresses)),
            size: Some(seen.size.unwrap_or(size)),
            ..Update::default()
        },
        None => Update {
            state: Some(VmState::Error),
            state_reason: "the VM is gone from the hypervisor".to_owned(),
            observed: Some((None, Vec::new())),
            size: Some(size),
            ..Update::default()
        },
    }
}

/// The size of a VM after an operation, where it cannot be seen.
fn expected_size(vm: &Vm, end: &End) -> Size {
    if matches!(end, End::Succeeded(_)) { vm.desired_size() } else { vm.size() }
}

/// Ends an operation with the VM as the hypervisor says it is.
async fn conclude<W: Workflow + VmJob>(
    job: &W,
    context: &StepContext<'_>,
    vm: &Vm,
    seen: Option<Observation>,
    (event, end): (Event, End),
) -> Result<Committed<W::Step>, StepError> {
    let update = as_seen(seen, expected_size(vm, &end));
    let done = async |tx: &mut _| finish(job, tx, update.clone(), event.clone(), &end).await;
    Ok(context.commit_step(Transition::Done, done).await?)
}

/// What is recorded of work that failed, or that somebody asked to cancel (None). What was asked to cancel and was done all
/// the same ends as done: `done` is what is told then.
fn taken_back<W: Workflow>(job: &W, work: impl Display, failure: Option<Failure>, done: Option<Event>) -> (Event, End) {
    let operation = Some(job.operation());
    match (failure, done) {
        (Some(failure), _) => {
            let message = format!("{work} failed: {}", failure.message);
            (Event { reason: "VM_OPERATION_FAILED", message, operation }, End::Failed(failure))
        }
        (None, Some(done)) => (done, End::Succeeded(None)),
        (None, None) => {
            let message = format!("{work} was cancelled");
            (Event { reason: "VM_OPERATION_CANCELLED", message, operation }, End::Cancelled)
        }
    }
}

/// Whether the task of work that leaves no trace on the VM has done it.
async fn has_done(context: &StepContext<'_>, vm: &Vm, task: Option<&TaskRef>) -> Result<bool, StepError> {
    match task {
        Some(task) => ask(context, hypervisor(context, vm)?.has_done(task)).await,
        None => Ok(false),
    }
}

/// Writes a VM's state and ends the operation, in the commit that `tx` is.
async fn finish<W: Workflow + VmJob>(
    job: &W,
    tx: &mut TenantTx<Write>,
    update: Update,
    event: Event,
    end: &End,
) -> Result<()> {
    write(job, tx, update, event).await?;
    operations::end(tx, job.operation(), end).await
}

/// Writes a VM's state. It comes first in a commit: whoever locks both a VM and its operation locks the VM first, as the
/// server does. A VM that was removed stays so.
async fn write<W: Workflow + VmJob>(job: &W, tx: &mut TenantTx<Write>, mut update: Update, event: Event) -> Result<()> {
    let Some(mut current) = vms::find_locked(tx, job.vm()).await? else { return Ok(()) };
    // A delete that waits behind this operation has the last word.
    if current.state == VmState::Deleting && W::KIND != VmDelete::KIND {
        update.state = None;
    }
    vms::update_state(tx, &mut current, update, event).await
}

/// How long after a purge that failed the next one is due, at least.
const PURGE_AGAIN: TimeDelta = TimeDelta::hours(1);

/// Ends a workflow that can neither go on nor roll back: the VM is in ERROR, the job a dead letter.
async fn dead_letter<W: Workflow + VmJob>(
    job: &W,
    context: &StepContext<'_>,
    failure: Failure,
) -> Result<Committed<W::Step>> {
    let abandon = async |tx: &mut _| abandon(job, tx, context, &failure).await;
    context.commit_step(Transition::dead_letter(&failure), abandon).await
}

/// Writes that nobody knows what state a VM is in, and ends the operation. What it may have come to hold stays counted. A VM
/// whose purge failed stays deleted: nobody may use it, and the purge is tried again.
async fn abandon<W: Workflow + VmJob>(
    job: &W,
    tx: &mut TenantTx<Write>,
    context: &StepContext<'_>,
    failure: &Failure,
) -> Result<()> {
    let (event, end) = (
        Event { reason: "VM_OPERATION_FAILED", message: failure.message.clone(), operation: Some(job.operation()) },
        End::Failed(failure.clone()),
    );
    let before = vms::find_locked(tx, job.vm()).await?;
    let deleted = before.as_ref().is_some_and(|vm| vm.deleted_at.is_some());
    let update = Update {
        state: Some(if deleted { VmState::Deleted } else { VmState::Error }),
        state_reason: failure.message.clone(),
        purge_at: before.and_then(|vm| vm.purge_at).map(|due| due.max(context.now() + PURGE_AGAIN)),
        ..Update::default()
    };
    finish(job, tx, update, event, &end).await
}

/// Enough to find a VM on the hypervisor.
fn identity(vm: &Vm) -> VmIdentity {
    VmIdentity { id: vm.id, template: TemplateRef(vm.template_reference.clone()) }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use virtualstack_model::compute::vm::time_limit;
    use virtualstack_model::operation::Verb;

    use super::*;
    use crate::engine::run::ROLLBACK_GRACE;

    #[test]
    fn the_deadline_comes_long_before_the_last_attempt() {
        let (imports, others): (Vec<Verb>, Vec<Verb>) = Verb::ALL.iter().partition(|verb| **verb == Verb::Import);
        for (verbs, attempts) in [(imports, TemplateImport::MAX_ATTEMPTS), (others, VmCreate::MAX_ATTEMPTS)] {
            let longest = verbs.into_iter().map(time_limit).max().expect("verbs") + ROLLBACK_GRACE;
            // Between attempts lie 30 s on average: at most 60 s, by full jitter.
            assert!(TimeDelta::seconds(30) * attempts > longest * 3, "{longest}");
        }
    }

    /// A workflow whose step cannot be read begins again, and whoever waits for it waits twice as long.
    fn reads<W: Workflow>(job: &Value) {
        let payload = serde_json::from_value::<W>(job["payload"].clone());
        assert!(payload.is_ok(), "{:?}: {job}", payload.err());
        let step = serde_json::from_value::<Option<W::Step>>(job["progress"].clone());
        assert!(step.is_ok(), "{:?}: {job}", step.err());
    }

    #[test]
    fn steps_that_earlier_releases_have_kept_are_known() {
        let releases = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/upgrade")).expect("a folder");
        let facts =
            releases.filter_map(|release| std::fs::read_to_string(release.ok()?.path().join("facts.json")).ok());
        let mut read = 0;
        for facts in facts {
            let facts: Value = serde_json::from_str(&facts).expect("JSON");
            for job in facts["jobs"].as_array().expect("jobs") {
                match job["kind"].as_str().expect("a kind") {
                    VmCreate::KIND => reads::<VmCreate>(job),
                    VmPower::KIND => reads::<VmPower>(job),
                    VmResize::KIND => reads::<VmResize>(job),
                    VmSnapshot::KIND => reads::<VmSnapshot>(job),
                    VmConsole::KIND => reads::<VmConsole>(job),
                    VmDelete::KIND => reads::<VmDelete>(job),
                    // These have no steps.
                    _ => {}
                }
                read += 1;
            }
        }
        assert!(read > 0, "no release is kept");
    }
}
