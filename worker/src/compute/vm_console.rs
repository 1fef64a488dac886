//! Opens a VM's console: gets a ticket → keeps it, sealed, until it is fetched. The VM stays as it is.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use virtualstack_model::Error;
use virtualstack_model::compute::jobs::VmConsole;
use virtualstack_store::compute::console_tickets;
use virtualstack_store::operations::{self, End, Failure};

use super::{given_up, present};
use crate::engine::context::{Settled, Snapshot, StepContext, Transition};
use crate::engine::run::Workflow;
use crate::engine::step_error::StepError;

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
        snapshot: Snapshot,
        step: Step,
    ) -> Result<Settled<Step>, StepError> {
        let (vm, id) = (self.vm, self.operation);
        match step {
            Step::Open => {
                present(snapshot)?;
                let ticket = context.ask(context.hypervisor()?.open_console(vm)).await?;
                let secret = serde_json::to_vec(&ticket).map_err(Error::internal)?;
                let sealed = context.shared.master_key.seal(&console_tickets::purpose(id), &secret)?;
                let done = async |tx: &mut _| {
                    console_tickets::put(tx, id, &sealed, ticket.expires_at).await?;
                    operations::end(tx, id, vm, &End::Succeeded(None)).await
                };
                Ok(context.settle(Transition::Done, done).await?)
            }
            Step::Rollback { failure } => {
                // A ticket that nobody has fetched opens nothing, and is soon too old.
                let end = failure.map_or(End::Cancelled, End::Failed);
                Ok(context.settle(Transition::Done, async |tx: &mut _| operations::end(tx, id, vm, &end).await).await?)
            }
        }
    }

    fn rollback(&self, step: &Step, failure: Option<Failure>) -> Option<Step> {
        match step {
            Step::Open => Some(Step::Rollback { failure }),
            Step::Rollback { .. } => None,
        }
    }

    async fn give_up(&self, context: &StepContext<'_>, failure: Failure) -> virtualstack_model::Result<Settled<Step>> {
        let (vm, id, end) = (self.vm, self.operation, End::Failed(failure.clone()));
        context.settle(given_up(&failure), async |tx: &mut _| operations::end(tx, id, vm, &end).await).await
    }
}
