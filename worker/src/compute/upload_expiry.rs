//! Fails templates whose upload was left.
//!
//! - What it does: a template that waits for bytes, or for its import, longer than it may fails, and its bytes are freed.
//! - What it must never do: fail one that was gone on with since it was found; so it looks again under the template's lock.
//! - When it is activated: by its timer, `worker.housekeeping_seconds`.

use virtualstack_model::Result;
use virtualstack_model::compute::id::TemplateId;
use virtualstack_model::compute::jobs::UploadExpiry;
use virtualstack_model::compute::template::TemplateState;
use virtualstack_model::id::TenantId;
use virtualstack_store::TenantTx;
use virtualstack_store::Write;
use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::template_uploads::{self, Part};
use virtualstack_store::compute::user_templates;

use crate::engine::task::{Next, Task, TaskContext};

/// Templates that one run fails at most; the next run goes on.
const TEMPLATES: i64 = 100;

impl Task for UploadExpiry {
    async fn run(&self, context: &TaskContext<'_>) -> Result<Next> {
        let store = context.store();
        let expired = async |tx: &mut _| user_templates::expired(tx, TEMPLATES).await;
        for (tenant, template) in store.system(crate::reconciler::reconciler(), expired).await? {
            match expire(context, tenant, template).await {
                // Objects without a row are swept, should this fail.
                Ok(parts) => {
                    let keys: Vec<_> = parts.iter().filter_map(|part| part.object.parse().ok()).collect();
                    if let Err(error) = context.ask(context.shared.objects.delete(&keys)).await {
                        tracing::info!(error, %template, "the bytes of an upload are left to be swept");
                    }
                }
                Err(error) => tracing::warn!(%error, %template, "cannot fail an upload that was left"),
            }
        }
        Ok(Next::Done)
    }
}

async fn expire(context: &TaskContext<'_>, tenant: TenantId, id: TemplateId) -> Result<Vec<Part>> {
    let reconciler = crate::reconciler::reconciler();
    let expire = async |tx: &mut TenantTx<Write>| {
        let Some(before) = user_templates::find_locked(tx, id).await? else { return Ok(Vec::new()) };
        let due = before.upload_expires_at.is_some_and(|at| at <= context.now());
        if before.state != TemplateState::Uploading || !due || before.is_being_written() {
            return Ok(Vec::new());
        }
        let parts = template_uploads::forget_parts(tx, id).await?;
        let mut template = before.clone();
        template.state = TemplateState::Failed;
        template.state_reason = "the upload was left: nothing more came in time; create another template".to_owned();
        template.uploaded_bytes = 0;
        template.upload_expires_at = None;
        tx.audit_resource(id.name());
        let message = template.state_reason.clone();
        let event = Event { reason: "UPLOAD_EXPIRED", message, operation: None };
        user_templates::update(tx, &before, &mut template, event).await?;
        Ok(parts)
    };
    context.store().write_as_system(&reconciler, tenant, "upload_expiry", expire).await
}
