//! What the workflows of templates have in common.

use chrono::TimeDelta;
use serde_json::Value;
use virtualstack_model::Result;
use virtualstack_model::compute::id::TemplateId;
use virtualstack_model::compute::jobs::TemplateJob;
use virtualstack_model::compute::template::TemplateState;
use virtualstack_objects::Key;
use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::template_uploads::{self, Part};
use virtualstack_store::compute::user_templates::{self, UserTemplate};
use virtualstack_store::operations::{self, End, Failure};
use virtualstack_store::{Read, TenantTx, Write};

use super::ask;
use super::image_source::of_storage;
use crate::adapters::hypervisor::TemplateRef;
use crate::adapters::hypervisor::import::TemplateIdentity;
use crate::compute::vm_fault::StepError;
use crate::engine::context::{Committed, StepContext, Transition};
use crate::engine::run::Workflow;

/// How long a file is kept after an import that did not come about, for another one.
pub(super) const EXPIRY_AFTER_IMPORT: TimeDelta = TimeDelta::hours(24);

/// Objects that one call deletes.
const AT_ONCE: usize = 500;

/// A template with what is kept of its file.
pub(crate) struct Stored {
    pub(super) template: UserTemplate,
    pub(super) parts: Vec<Part>,
    /// What was found in the file, if it was in order.
    pub(super) image: Option<Value>,
}

pub(super) async fn load(tx: &mut TenantTx<Read>, id: TemplateId) -> Result<Option<Stored>> {
    let Some(template) = user_templates::find(tx, id).await? else { return Ok(None) };
    let parts = template_uploads::parts(tx, id).await?;
    let image = user_templates::image(tx, id).await?;
    Ok(Some(Stored { template, parts, image }))
}

/// Enough to find a template on its hypervisor.
pub(super) fn identity(template: &UserTemplate) -> TemplateIdentity {
    TemplateIdentity {
        id: template.id,
        display_name: template.display_name.clone(),
        kind: template.kind,
        reference: Some(template.reference.clone()).filter(|made| !made.is_empty()).map(TemplateRef),
    }
}

/// Removes the bytes of a file from the object store.
pub(super) async fn free(context: &StepContext<'_>, parts: &[Part]) -> Result<(), StepError> {
    for parts in parts.chunks(AT_ONCE) {
        // What is no key was never an object.
        let keys: Vec<Key> = parts.iter().filter_map(|part| part.object.parse().ok()).collect();
        let delete = async { context.shared.objects.delete(&keys).await.map_err(of_storage) };
        ask(context, delete).await?;
    }
    Ok(())
}

/// Ends the operation on a template that is not there any more.
pub(super) async fn nothing_left<W: Workflow + TemplateJob>(
    job: &W,
    context: &StepContext<'_>,
) -> Result<Committed<W::Step>> {
    let done = async |tx: &mut TenantTx<Write>| operations::end(tx, job.operation(), &End::Succeeded(None)).await;
    context.commit_step(Transition::Done, done).await
}

/// Ends a workflow that can neither go on nor roll back: the template is FAILED, the job a dead letter. Objects that nothing
/// refers to any more are swept.
pub(super) async fn dead_letter<W: Workflow + TemplateJob>(
    job: &W,
    context: &StepContext<'_>,
    failure: Failure,
) -> Result<Committed<W::Step>> {
    let abandon = async |tx: &mut TenantTx<Write>| {
        if let Some(before) = user_templates::find_locked(tx, job.template()).await? {
            let mut template = before.clone();
            template.state = TemplateState::Failed;
            template.state_reason.clone_from(&failure.message);
            template.uploaded_bytes = 0;
            template_uploads::forget_parts(tx, template.id).await?;
            let message = failure.message.clone();
            let event = Event { reason: "TEMPLATE_OPERATION_FAILED", message, operation: Some(job.operation()) };
            user_templates::update(tx, &before, &mut template, event).await?;
        }
        operations::end(tx, job.operation(), &End::Failed(failure.clone())).await
    };
    context.commit_step(Transition::dead_letter(&failure), abandon).await
}
