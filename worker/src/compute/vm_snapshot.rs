//! Makes or deletes a snapshot, or puts a VM back to one: what is asked for → conclude. Back: see that nothing is at work any
//! more → undo what was to be made → tell what state VM and snapshot are really in.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use virtualstack_model::Result;
use virtualstack_model::compute::jobs::VmSnapshot;
use virtualstack_model::compute::snapshot::{SnapshotState, work};
use virtualstack_model::operation::Verb;
use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::snapshots;
use virtualstack_store::compute::vms::{self, Vm};
use virtualstack_store::operations::{self, End, Failure, Tombstone};
use virtualstack_store::{Read, TenantTx, Write};

use super::{
    abandon, as_seen, ask, expected_size, has_done, hypervisor, idle, observe, present, taken_back, wait_or, write,
};
use crate::adapters::hypervisor::{Progress, SnapshotSpec, TaskRef};
use crate::compute::vm_fault::{StepError, VmFault};
use crate::engine::context::{Committed, StepContext, Transition};
use crate::engine::run::Workflow;
use crate::engine::step_error::{code, failure};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum Step {
    Make {
        task: Option<TaskRef>,
    },
    Remove {
        task: Option<TaskRef>,
    },
    Revert {
        task: Option<TaskRef>,
    },
    Conclude,
    /// `failure` is none when the operation was cancelled.
    Rollback {
        task: Option<TaskRef>,
        failure: Option<Failure>,
    },
    Undo {
        task: Option<TaskRef>,
        failure: Option<Failure>,
    },
}

/// What became of the snapshot.
#[derive(Clone, Debug)]
enum Fate {
    /// It is as it was.
    Untouched,
    Ready,
    Gone,
    /// Nobody knows, for this reason.
    Unknown(String),
}

impl Workflow for VmSnapshot {
    type Step = Step;
    type Subject = Option<Vm>;
    type Error = VmFault;

    async fn load(&self, tx: &mut TenantTx<Read>) -> Result<Option<Vm>> {
        vms::find(tx, self.vm).await
    }

    fn first(&self) -> Step {
        match self.verb {
            Verb::Delete => Step::Remove { task: None },
            Verb::Revert => Step::Revert { task: None },
            _ => Step::Make { task: None },
        }
    }

    fn label(step: &Step) -> (&'static str, Range<i32>) {
        match step {
            Step::Make { .. } => ("make", 5..90),
            Step::Remove { .. } => ("remove", 5..90),
            Step::Revert { .. } => ("revert", 5..90),
            Step::Conclude => ("conclude", 90..100),
            Step::Rollback { .. } => ("rollback", 0..0),
            Step::Undo { .. } => ("undo", 0..0),
        }
    }

    async fn step(
        &self,
        context: &StepContext<'_>,
        subject: Option<Vm>,
        step: Step,
    ) -> Result<Committed<Step>, StepError> {
        let vm = present(subject)?;
        let hypervisor = hypervisor(context, &vm)?;
        match step {
            Step::Make { task } => {
                let spec = spec(self, context).await?;
                let progress = ask(context, hypervisor.ensure_snapshot(vm.id, &spec, task.as_ref())).await?;
                wait_or(context, progress, |task| Step::Make { task }, Step::Conclude).await
            }
            Step::Remove { task } => {
                let gone = hypervisor.ensure_no_snapshot(vm.id, self.snapshot, task.as_ref());
                let progress = ask(context, gone).await?;
                wait_or(context, progress, |task| Step::Remove { task }, Step::Conclude).await
            }
            Step::Revert { task } => {
                let progress = ask(context, hypervisor.revert(vm.id, self.snapshot, task.as_ref())).await?;
                wait_or(context, progress, |task| Step::Revert { task }, Step::Conclude).await
            }
            Step::Conclude => {
                let fate = match self.verb {
                    Verb::Delete => Fate::Gone,
                    Verb::Revert => Fate::Untouched,
                    _ => Fate::Ready,
                };
                conclude(self, context, &vm, fate, (told(self), End::Succeeded(None))).await
            }
            Step::Rollback { task, failure } => {
                // Its own task stays the one that is asked about in the end, whatever else is awaited.
                if let Progress::Running { percent, .. } = idle(context, &vm, task.as_ref()).await? {
                    return Ok(context.wait(Step::Rollback { task, failure }, percent).await?);
                }
                if self.verb == Verb::Create {
                    return Ok(context.next(Step::Undo { task: None, failure }).await?);
                }
                let fate = fate(self.verb, failure.as_ref());
                let done = self.verb == Verb::Revert && has_done(context, &vm, task.as_ref()).await?;
                let ended = taken_back(self, work(self.verb), failure, done.then(|| told(self)));
                conclude(self, context, &vm, fate, ended).await
            }
            Step::Undo { task, failure } => {
                let gone = hypervisor.ensure_no_snapshot(vm.id, self.snapshot, task.as_ref());
                let fate = match ask(context, gone).await {
                    Ok(Progress::Running { task, percent }) => {
                        return Ok(context.wait(Step::Undo { task, failure }, percent).await?);
                    }
                    Err(error @ (StepError::Retry { .. } | StepError::LeaseLost)) => return Err(error),
                    Ok(Progress::Done) => Fate::Gone,
                    Err(error) => Fate::Unknown(format!("what there is of it could not be removed: {error}")),
                };
                conclude(self, context, &vm, fate, taken_back(self, work(self.verb), failure, None)).await
            }
        }
    }

    fn rollback(&self, step: &Step, failure: Option<Failure>) -> Option<Step> {
        let task = match step {
            Step::Rollback { .. } | Step::Undo { .. } => return None,
            // A delete that was asked to cancel goes on: what is deleted in part is of no use to anybody.
            Step::Remove { .. } if failure.is_none() => return None,
            // It is done.
            Step::Conclude if failure.is_none() && self.verb != Verb::Create => return None,
            Step::Make { task } | Step::Remove { task } | Step::Revert { task } => task.clone(),
            Step::Conclude => None,
        };
        Some(Step::Rollback { task, failure })
    }

    async fn dead_letter(&self, context: &StepContext<'_>, failure: Failure) -> Result<Committed<Step>> {
        let reason = &failure.message;
        let abandon = async |tx: &mut TenantTx<Write>| {
            abandon(self, tx, context, &failure).await?;
            // What was to be gone back to is as good as it was, and may be the way out.
            if self.verb == Verb::Revert {
                return Ok(());
            }
            let (reason, message) = ("SNAPSHOT_OPERATION_FAILED", reason.clone());
            let event = Event { reason, message, operation: Some(self.operation) };
            snapshots::update_state(tx, self.snapshot, SnapshotState::Error, &event.message, &event).await
        };
        context.commit_step(Transition::dead_letter(&failure), abandon).await
    }
}

/// What is told of it when it is done.
fn told(job: &VmSnapshot) -> Event {
    let (reason, message) = match job.verb {
        Verb::Delete => ("VM_SNAPSHOT_DELETED", "The snapshot was deleted"),
        Verb::Revert => ("VM_REVERTED", "The VM was put back to the snapshot"),
        _ => ("VM_SNAPSHOT_CREATED", "The snapshot was made"),
    };
    Event { reason, message: message.to_owned(), operation: Some(job.operation) }
}

/// What became of a snapshot that was to be deleted or gone back to.
fn fate(verb: Verb, failure: Option<&Failure>) -> Fate {
    match (verb, failure) {
        (Verb::Delete, Some(failure)) => {
            Fate::Unknown(format!("deletion failed: {}; delete it again", failure.message))
        }
        (_, Some(failure)) if failure.reason == "SNAPSHOT_LOST" => Fate::Unknown(failure.message.clone()),
        _ => Fate::Untouched,
    }
}

/// The snapshot to make, as its row says.
async fn spec(job: &VmSnapshot, context: &StepContext<'_>) -> Result<SnapshotSpec, StepError> {
    let id = job.snapshot;
    let read = context.shared.store.read_for_job(context.lease, async |tx| snapshots::find(tx, id).await);
    let Some(found) = read.await? else {
        return Err(StepError::Fail(failure(code::NOT_FOUND, "SNAPSHOT_NOT_FOUND", "the snapshot was removed")));
    };
    Ok(SnapshotSpec { id, display_name: found.display_name })
}

/// Ends the operation with VM and snapshot as they are.
async fn conclude(
    job: &VmSnapshot,
    context: &StepContext<'_>,
    vm: &Vm,
    fate: Fate,
    (event, end): (Event, End),
) -> Result<Committed<Step>, StepError> {
    let update = as_seen(observe(context, vm).await?, expected_size(vm, &end));
    let done = async |tx: &mut TenantTx<Write>| {
        write(job, tx, update.clone(), event.clone()).await?;
        let end = settle(job, tx, &fate, &event, end.clone()).await?;
        operations::end(tx, job.operation, &end).await
    };
    Ok(context.commit_step(Transition::Done, done).await?)
}

/// Writes what became of the snapshot. One that was deleted, as asked for, leaves what it was.
async fn settle(job: &VmSnapshot, tx: &mut TenantTx<Write>, fate: &Fate, event: &Event, end: End) -> Result<End> {
    let id = job.snapshot;
    let told = |reason| Event { reason, ..event.clone() };
    match fate {
        Fate::Untouched => {}
        Fate::Ready => {
            snapshots::update_state(tx, id, SnapshotState::Ready, "", &told("SNAPSHOT_CREATED")).await?;
        }
        Fate::Gone => {
            let removed = snapshots::remove(tx, id, &told("SNAPSHOT_DELETED")).await?;
            if let (Some(removed), End::Succeeded(_)) = (removed, &end) {
                return Ok(End::Succeeded(Some(Tombstone::of(&removed)?)));
            }
        }
        Fate::Unknown(why) => {
            let event = told("SNAPSHOT_OPERATION_FAILED");
            snapshots::update_state(tx, id, SnapshotState::Error, why, &event).await?;
        }
    }
    Ok(end)
}
