//! Opens a VM's console: gets a ticket → keeps it, sealed, until it is fetched. The VM stays as it is.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use virtualstack_model::compute::jobs::VmConsole;
use virtualstack_model::{Error, Result};
use virtualstack_store::compute::console_tickets;
use virtualstack_store::compute::vms::{self, Vm};
use virtualstack_store::operations::{self, End, Failure};
use virtualstack_store::{Read, TenantTx};

use super::{ask, hypervisor, present};
use crate::compute::vm_fault::{StepError, VmFault};
use crate::engine::context::{Committed, StepContext, Transition};
use crate::engine::run::Workflow;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum Step {
    Open,
    /// `failure` is none when the operation was cancelled.
    Rollback {
        failure: Option<Failure>,
    },
}

impl Workflow for VmConsole {
    type Step = Step;
    type Subject = Option<Vm>;
    type Error = VmFault;

    async fn load(&self, tx: &mut TenantTx<Read>) -> Result<Option<Vm>> {
        vms::find(tx, self.vm).await
    }

    fn first(&self) -> Step {
        Step::Open
    }

    fn label(step: &Step) -> (&'static str, Range<i32>) {
        match step {
            Step::Open => ("open", 10..100),
            Step::Rollback { .. } => ("rollback", 0..0),
        }
    }

    async fn step(
        &self,
        context: &StepContext<'_>,
        subject: Option<Vm>,
        step: Step,
    ) -> Result<Committed<Step>, StepError> {
        let id = self.operation;
        match step {
            Step::Open => {
                let vm = present(subject)?;
                let ticket = ask(context, hypervisor(context, &vm)?.open_console(vm.id)).await?;
                let secret = serde_json::to_vec(&ticket).map_err(Error::internal)?;
                let sealed = context.shared.master_key.seal(&console_tickets::purpose(id), &secret)?;
                let done = async |tx: &mut _| {
                    console_tickets::put(tx, id, &sealed, ticket.expires_at).await?;
                    operations::end(tx, id, &End::Succeeded(None)).await
                };
                Ok(context.commit_step(Transition::Done, done).await?)
            }
            Step::Rollback { failure } => {
                // A ticket that nobody has fetched opens nothing, and is soon too old.
                let end = failure.map_or(End::Cancelled, End::Failed);
                Ok(context
                    .commit_step(Transition::Done, async |tx: &mut _| operations::end(tx, id, &end).await)
                    .await?)
            }
        }
    }

    fn rollback(&self, step: &Step, failure: Option<Failure>) -> Option<Step> {
        match step {
            Step::Open => Some(Step::Rollback { failure }),
            Step::Rollback { .. } => None,
        }
    }

    async fn dead_letter(&self, context: &StepContext<'_>, failure: Failure) -> Result<Committed<Step>> {
        // The VM is as it was.
        let (id, end) = (self.operation, End::Failed(failure.clone()));
        let done = async |tx: &mut _| operations::end(tx, id, &end).await;
        context.commit_step(Transition::dead_letter(&failure), done).await
    }
}
