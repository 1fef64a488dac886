//! Imports a template: check its file → make it on the hypervisor → READY. Back: make sure that nothing of it is left there →
//! UPLOADING again, where the file may still do, or FAILED, and its bytes are freed.

use std::ops::Range;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use virtualstack_images::{Appliance, Compression, Disk, Format, Image};
use virtualstack_model::compute::jobs::TemplateImport;
use virtualstack_model::compute::template::{TemplateKind, TemplateState};
use virtualstack_model::{Error, Result};
use virtualstack_store::compute::event::Event;
use virtualstack_store::compute::template_uploads;
use virtualstack_store::compute::user_templates::{self, UserTemplate};
use virtualstack_store::operations::{self, End, Failure};
use virtualstack_store::{Read, TenantTx, Write};

use super::image_check::{self, SUM_MISMATCH};
use super::image_source::StoredImage;
use super::template::{self, Stored, free, identity};
use super::{ask, hypervisor_named};
use crate::adapters::hypervisor::import::{self, Attendance, Content, DiskFile, ImportSpec, Imported};
use crate::adapters::hypervisor::{Fault, FaultClass, Progress, TaskRef};
use crate::compute::vm_fault::{StepError, VmFault};
use crate::engine::context::{Committed, StepContext, Transition};
use crate::engine::run::Workflow;
use crate::engine::step_error::{code, failure};

/// How long an import is tried that the hypervisor does not do, before its tenant is told. An outage must not cost them a file
/// that is in order.
const PATIENCE: TimeDelta = TimeDelta::hours(2);

/// Warnings that are told, in characters.
const MAX_WARNINGS: usize = 1000;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum Step {
    Validate,
    Import {
        task: Option<TaskRef>,
        /// Since when the hypervisor does not do it. Workers that die do not count.
        #[serde(default)]
        failing_since: Option<DateTime<Utc>>,
    },
    /// `failure` is none when the operation was cancelled; `begun` says whether the hypervisor was asked for anything.
    Rollback {
        begun: bool,
        task: Option<TaskRef>,
        failure: Option<Failure>,
    },
}

impl Workflow for TemplateImport {
    type Step = Step;
    type Subject = Option<Stored>;
    type Error = VmFault;

    async fn load(&self, tx: &mut TenantTx<Read>) -> Result<Option<Stored>> {
        template::load(tx, self.template).await
    }

    fn first(&self) -> Step {
        Step::Validate
    }

    fn label(step: &Step) -> (&'static str, Range<i32>) {
        match step {
            Step::Validate => ("validate", 0..40),
            Step::Import { .. } => ("import", 40..100),
            Step::Rollback { .. } => ("rollback", 0..0),
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
            Step::Validate => validate(self, context, stored).await,
            Step::Import { task, failing_since } => make(self, context, stored, (task, failing_since)).await,
            Step::Rollback { begun, task, failure } => {
                if begun {
                    let hypervisor = hypervisor_named(context, &stored.template.hypervisor)?;
                    let identity = identity(&stored.template);
                    let gone = hypervisor.ensure_no_template(&identity, task.as_ref());
                    if let Progress::Running { task, percent } = ask(context, gone).await? {
                        return Ok(context.wait(Step::Rollback { begun, task, failure }, percent).await?);
                    }
                }
                rolled_back(self, context, &stored, failure).await
            }
        }
    }

    fn rollback(&self, step: &Step, failure: Option<Failure>) -> Option<Step> {
        match step {
            Step::Rollback { .. } => None,
            Step::Validate => Some(Step::Rollback { begun: false, task: None, failure }),
            // The lease goes along: what it makes must not be left.
            Step::Import { task, .. } => Some(Step::Rollback { begun: true, task: task.clone(), failure }),
        }
    }

    async fn dead_letter(&self, context: &StepContext<'_>, failure: Failure) -> Result<Committed<Step>> {
        template::dead_letter(self, context, failure).await
    }
}

/// Reads the file and checks it. What is wrong with it fails the template before the hypervisor hears of it.
async fn validate(
    job: &TemplateImport,
    context: &StepContext<'_>,
    stored: Stored,
) -> Result<Committed<Step>, StepError> {
    let source = StoredImage::new(&context.shared.objects, &stored.parts)?;
    let format = match stored.template.kind {
        TemplateKind::Ova => Format::Ova,
        TemplateKind::Iso => Format::Iso,
    };
    let file = (format, size(&stored.template)?);
    let (attendance, tasks) = Attendance::new(CancellationToken::new());
    let check = image_check::check(&source, file, &job.sha256, &attendance);
    let Some(checked) = context.attend(check, &attendance, tasks, |_| Step::Validate).await? else {
        return roll_back(job, context, Step::Validate, None).await;
    };
    let image = match checked? {
        Ok(image) => image,
        Err(failure) => return Err(StepError::Fail(failure)),
    };
    let hypervisor = context.shared.hypervisors.first().kind();
    let kept = serde_json::to_value(&image).map_err(Error::internal)?;
    let done = async |tx: &mut TenantTx<Write>| {
        let Some(before) = user_templates::find_locked(tx, job.template).await? else { return Ok(()) };
        user_templates::set_image(tx, job.template, &kept).await?;
        let mut template = before.clone();
        template.sha256.clone_from(&job.sha256);
        hypervisor.clone_into(&mut template.hypervisor);
        describe(&mut template, &image);
        if template.state == TemplateState::Validating {
            template.state = TemplateState::Importing;
        }
        let message = "The file was checked".to_owned();
        let event = Event { reason: "TEMPLATE_VALIDATED", message, operation: Some(job.operation) };
        user_templates::update(tx, &before, &mut template, event).await
    };
    Ok(context.commit_step(Transition::Next(Step::Import { task: None, failing_since: None }), done).await?)
}

/// What a template is by its file.
fn describe(template: &mut UserTemplate, image: &Image) {
    let Image::Ova(appliance) = image else { return };
    let with_file = appliance.disks.iter().map(|disk| disk.capacity_bytes);
    let mut capacities = with_file.chain(appliance.blank_disks.iter().copied());
    let first = capacities.next().unwrap_or_default();
    template.cpu_count = appliance.cpu_count;
    template.memory_mib = appliance.memory_mib;
    template.disk_gib = gib(first);
    template.further_disk_gib = gib(capacities.sum());
    template.guest_os = guest(appliance);
}

/// Bytes in GiB, rounded up.
fn gib(bytes: u64) -> i32 {
    i32::try_from(bytes.div_ceil(1 << 30)).unwrap_or(i32::MAX)
}

fn guest(appliance: &Appliance) -> String {
    let named = [appliance.guest.description.as_str(), appliance.guest.vmware_id.as_deref().unwrap_or_default()];
    named.into_iter().find(|name| !name.is_empty()).unwrap_or_default().to_owned()
}

/// Makes the template on the hypervisor.
async fn make(
    job: &TemplateImport,
    context: &StepContext<'_>,
    stored: Stored,
    (task, failing_since): (Option<TaskRef>, Option<DateTime<Utc>>),
) -> Result<Committed<Step>, StepError> {
    let hypervisor = hypervisor_named(context, &stored.template.hypervisor)?;
    let source = StoredImage::new(&context.shared.objects, &stored.parts)?;
    let spec = spec(job, &stored)?;
    let (attendance, tasks) = Attendance::new(CancellationToken::new());
    let begun = std::sync::Mutex::new(task.clone());
    let step = |task: TaskRef| {
        if let Ok(mut begun) = begun.lock() {
            *begun = Some(task.clone());
        }
        Step::Import { task: Some(task), failing_since }
    };
    let import = hypervisor.import_template(&spec, &source, &attendance, task.as_ref());
    let made = context.attend(import, &attendance, tasks, step).await?;
    let task = begun.into_inner().unwrap_or(task);
    let at = Step::Import { task: task.clone(), failing_since };
    match made {
        None => roll_back(job, context, at, None).await,
        Some(Ok(imported)) => ready(job, context, imported).await,
        Some(Err(fault)) if fault.class == FaultClass::Retry => {
            let since = match failing_since {
                Some(since) => since,
                None => {
                    let now = context.now();
                    let failing = Step::Import { task, failing_since: Some(now) };
                    context.commit_step(Transition::Next(failing), async |_| Ok(())).await?;
                    now
                }
            };
            if context.now() - since < PATIENCE {
                return Err(fault.into());
            }
            let message =
                format!("the hypervisor did not do it for {} minutes; ask the provider", PATIENCE.num_minutes());
            roll_back(job, context, at, Some(failure(code::UNAVAILABLE, fault.reason, message))).await
        }
        Some(Err(fault)) => match refused(fault) {
            StepError::Fail(failure) => roll_back(job, context, at, Some(failure)).await,
            error => Err(error),
        },
    }
}

/// Goes back from a call that has ended, with what it has begun.
async fn roll_back(
    job: &TemplateImport,
    context: &StepContext<'_>,
    at: Step,
    failure: Option<Failure>,
) -> Result<Committed<Step>, StepError> {
    let back = job.rollback(&at, failure).ok_or_else(|| Error::internal("a rollback has none"))?;
    let begin = async |tx: &mut _| operations::begin_grace(tx, job.operation).await;
    Ok(context.commit_step(Transition::Next(back), begin).await?)
}

/// What a fault that stays means to an import: it is the file's fault, or ours.
fn refused(fault: Fault) -> StepError {
    tracing::warn!(%fault, class = ?fault.class, "the import fails");
    let code = match fault.class {
        // How a call ended that was cut off is found by the next one.
        FaultClass::Unknown => return fault.into(),
        FaultClass::Invalid => code::INVALID_ARGUMENT,
        FaultClass::Capacity => code::RESOURCE_EXHAUSTED,
        _ => code::UNAVAILABLE,
    };
    StepError::Fail(failure(code, fault.reason, fault.message))
}

fn size(template: &UserTemplate) -> Result<u64> {
    u64::try_from(template.size_bytes).map_err(Error::internal)
}

fn spec(job: &TemplateImport, stored: &Stored) -> Result<ImportSpec> {
    let template = &stored.template;
    let image = stored.image.clone().ok_or_else(|| Error::internal("a template without its image"))?;
    let content = match serde_json::from_value(image).map_err(Error::internal)? {
        Image::Ova(appliance) => Content::Ova(import::Appliance {
            guest_os: guest(&appliance),
            descriptor: appliance.descriptor,
            disks: appliance.disks.into_iter().map(disk).collect(),
            networks: appliance.networks,
        }),
        Image::Iso(_) => Content::Iso { size: size(template)? },
    };
    Ok(ImportSpec {
        id: template.id,
        tenant: template.tenant_id,
        operation: job.operation,
        display_name: template.display_name.clone(),
        content,
    })
}

fn disk(disk: Disk) -> DiskFile {
    DiskFile {
        href: disk.href,
        capacity_bytes: disk.capacity_bytes,
        gzip: disk.compression == Compression::Gzip,
        parts: disk.parts.into_iter().map(|part| part.offset..part.offset + part.size).collect(),
    }
}

async fn ready(job: &TemplateImport, context: &StepContext<'_>, made: Imported) -> Result<Committed<Step>, StepError> {
    let mut message = "The template was imported".to_owned();
    if !made.warnings.is_empty() {
        message = format!("{message}; the hypervisor warns: {}", made.warnings.join("; "));
        message.truncate(message.floor_char_boundary(MAX_WARNINGS));
    }
    let done = async |tx: &mut TenantTx<Write>| {
        if let Some(before) = user_templates::find_locked(tx, job.template).await? {
            let mut template = before.clone();
            // A delete that waits behind this operation has the last word.
            if template.state == TemplateState::Importing {
                template.state = TemplateState::Ready;
            }
            template.reference.clone_from(&made.reference.0);
            if !made.guest_os.is_empty() {
                template.guest_os.clone_from(&made.guest_os);
            }
            let event = Event { reason: "TEMPLATE_IMPORTED", message: message.clone(), operation: Some(job.operation) };
            user_templates::update(tx, &before, &mut template, event).await?;
        }
        operations::end(tx, job.operation, &End::Succeeded(None)).await
    };
    Ok(context.commit_step(Transition::Done, done).await?)
}

/// Nothing is left on the hypervisor. A file that may still do is kept.
async fn rolled_back(
    job: &TemplateImport,
    context: &StepContext<'_>,
    stored: &Stored,
    failure: Option<Failure>,
) -> Result<Committed<Step>, StepError> {
    let kept = failure.as_ref().is_none_or(|failure| failure.reason == SUM_MISMATCH);
    // Whoever deletes it frees them.
    if !kept && stored.template.state != TemplateState::Deleting {
        free(context, &stored.parts).await?;
    }
    let (reason, message, end) = match failure {
        Some(failure) => ("TEMPLATE_IMPORT_FAILED", failure.message.clone(), End::Failed(failure)),
        None => ("TEMPLATE_IMPORT_CANCELLED", "The import was cancelled".to_owned(), End::Cancelled),
    };
    let expiry = context.now() + template::EXPIRY_AFTER_IMPORT;
    let done = async |tx: &mut TenantTx<Write>| {
        if let Some(before) = user_templates::find_locked(tx, job.template).await? {
            let mut template = before.clone();
            if template.state == TemplateState::Deleting {
                // It has the last word.
            } else if kept {
                template.state = TemplateState::Uploading;
                template.upload_expires_at = Some(expiry);
                template.state_reason =
                    if reason == "TEMPLATE_IMPORT_FAILED" { message.clone() } else { String::new() };
                (template.hypervisor, template.sha256) = (String::new(), String::new());
            } else {
                template.state = TemplateState::Failed;
                template.state_reason.clone_from(&message);
                template.uploaded_bytes = 0;
                template_uploads::forget_parts(tx, job.template).await?;
            }
            let event = Event { reason, message: message.clone(), operation: Some(job.operation) };
            user_templates::update(tx, &before, &mut template, event).await?;
        }
        operations::end(tx, job.operation, &end).await
    };
    Ok(context.commit_step(Transition::Done, done).await?)
}
