//! Deletes a template: take it from its hypervisor → remove its bytes → gone. Where the hypervisor does not let go of it, the
//! template is as it was.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use virtualstack_model::Result;
use virtualstack_model::compute::jobs::TemplateDelete;
use virtualstack_model::compute::template::TemplateState;
use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::user_templates;
use virtualstack_store::operations::{self, End, Failure, Tombstone};
use virtualstack_store::{Read, TenantTx, Write};

use super::template::{self, Stored, free, identity};
use super::{ask, hypervisor_named, wait_or};
use crate::adapters::hypervisor::TaskRef;
use crate::compute::vm_fault::{StepError, VmFault};
use crate::engine::context::{Committed, StepContext, Transition};
use crate::engine::run::Workflow;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum Step {
    Remove { task: Option<TaskRef> },
    Free,
    Keep { failure: Failure },
}

impl Workflow for TemplateDelete {
    type Step = Step;
    type Subject = Option<Stored>;
    type Error = VmFault;

    async fn load(&self, tx: &mut TenantTx<Read>) -> Result<Option<Stored>> {
        template::load(tx, self.template).await
    }

    fn first(&self) -> Step {
        Step::Remove { task: None }
    }

    fn label(step: &Step) -> (&'static str, Range<i32>) {
        match step {
            Step::Remove { .. } => ("remove", 5..70),
            Step::Free => ("free", 70..100),
            Step::Keep { .. } => ("keep", 0..0),
        }
    }

    async fn step(
        &self,
        context: &StepContext<'_>,
        subject: Option<Stored>,
        step: Step,
    ) -> Result<Committed<Step>, StepError> {
        let Some(stored) = subject else { return Ok(template::nothing_left(self, context).await?) };
        match step {
            // No hypervisor has heard of it.
            Step::Remove { .. } if stored.template.hypervisor.is_empty() => Ok(context.next(Step::Free).await?),
            Step::Remove { task } => {
                let hypervisor = hypervisor_named(context, &stored.template.hypervisor)?;
                let identity = identity(&stored.template);
                let progress = ask(context, hypervisor.ensure_no_template(&identity, task.as_ref())).await?;
                wait_or(context, progress, |task| Step::Remove { task }, Step::Free).await
            }
            Step::Free => {
                free(context, &stored.parts).await?;
                Ok(removed(self, context, stored).await?)
            }
            Step::Keep { failure } => Ok(keep(self, context, failure).await?),
        }
    }

    fn rollback(&self, step: &Step, failure: Option<Failure>) -> Option<Step> {
        match (step, failure) {
            (Step::Remove { .. }, Some(failure)) => Some(Step::Keep { failure }),
            _ => None,
        }
    }

    async fn dead_letter(&self, context: &StepContext<'_>, failure: Failure) -> Result<Committed<Step>> {
        template::dead_letter(self, context, failure).await
    }
}

async fn removed(job: &TemplateDelete, context: &StepContext<'_>, stored: Stored) -> Result<Committed<Step>> {
    let template = stored.template;
    let message = "The template was deleted".to_owned();
    let event = Event { reason: "TEMPLATE_DELETED", message, operation: Some(job.operation) };
    let last = Tombstone::of(&template.clone().seen())?;
    let done = async |tx: &mut TenantTx<Write>| {
        user_templates::remove(tx, &template, event.clone()).await?;
        operations::end(tx, job.operation, &End::Succeeded(Some(last.clone()))).await
    };
    context.commit_step(Transition::Done, done).await
}

/// Nothing was taken away: whoever could use it still can.
async fn keep(job: &TemplateDelete, context: &StepContext<'_>, failure: Failure) -> Result<Committed<Step>> {
    let done = async |tx: &mut TenantTx<Write>| {
        if let Some(before) = user_templates::find_locked(tx, job.template).await? {
            let mut template = before.clone();
            let whole = !template.reference.is_empty();
            template.state = if whole { TemplateState::Ready } else { TemplateState::Failed };
            template.state_reason = if whole { String::new() } else { failure.message.clone() };
            let message = format!("Deletion failed: {}", failure.message);
            let event = Event { reason: "TEMPLATE_OPERATION_FAILED", message, operation: Some(job.operation) };
            user_templates::update(tx, &before, &mut template, event).await?;
        }
        operations::end(tx, job.operation, &End::Failed(failure.clone())).await
    };
    context.commit_step(Transition::Done, done).await
}
