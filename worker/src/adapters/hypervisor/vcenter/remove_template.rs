//! Making sure that a template which was imported does not exist, whole or half made. What does not carry its marker is not ours
//! to touch.

use virtualstack_model::compute::template::TemplateKind;

use super::super::import::TemplateIdentity;
use super::super::{Fault, FaultClass, Progress, TaskRef};
use super::adapter::{Followed, VCenter, WAITING};
use super::faults::Error;
use super::import_faults::{foreign, held, in_use, of_call};
use super::imported::Found;
use super::imported_media::is_of;
use super::lease;
use super::media::is_medium;
use super::soap::Call;
use super::tasks::{Outcome, Task, started};
use super::xml::Xml;

impl VCenter {
    pub(super) async fn remove_template(
        &self,
        template: &TemplateIdentity,
        task: Option<&TaskRef>,
    ) -> Result<Progress, Fault> {
        let lease = task.and_then(lease::of_stored);
        if let Some(lease) = &lease {
            self.session.abort_lease(lease).await.map_err(of_call)?;
        }
        let ended = match self.follow(task.filter(|_| lease.is_none()), None).await? {
            Followed::Running(task) => return Ok(task.progress()),
            Followed::Ended(task) => task,
        };
        let is_medium = template.kind == TemplateKind::Iso || template.reference.as_ref().is_some_and(is_medium);
        match is_medium {
            true => self.remove_files(template, ended.as_ref()).await,
            false => self.remove_machine(template, ended.as_ref()).await,
        }
    }

    async fn remove_machine(&self, template: &TemplateIdentity, ended: Option<&Task>) -> Result<Progress, Fault> {
        let found = match self.find_imported(template.id, template.reference.as_ref()).await? {
            Found::Whole(made) | Found::Half(made) => made,
            Found::Absent => return Ok(Progress::Done),
        };
        self.report(ended)?;
        match self.change(&Call::change("Destroy_Task", &found.machine, Xml::new())).await {
            Ok(reply) => Ok(Progress::Running { task: Some(started(&reply)?), percent: None }),
            // It is gone, as it seems; the next call makes sure.
            Err(error) if error.is("ManagedObjectNotFound") => Ok(WAITING),
            Err(error) => Err(of_removal(error)),
        }
    }

    async fn remove_files(&self, template: &TemplateIdentity, ended: Option<&Task>) -> Result<Progress, Fault> {
        let placement = self.placement().await?;
        if let Some(reference) = &template.reference
            && !is_of(&reference.0, template.id)
        {
            return match self.session.has_medium(&placement, reference).await? {
                true => Err(foreign(&reference.0)),
                false => Ok(Progress::Done),
            };
        }
        let Some(file) = self.session.files_of(&placement, template.id).await?.into_iter().next() else {
            return Ok(Progress::Done);
        };
        self.report(ended)?;
        match self.session.start_to_delete(&placement, &file.path).await {
            Ok(task) => Ok(Progress::Running { task: Some(task), percent: None }),
            Err(error) if error.is("FileNotFound") => Ok(WAITING),
            Err(error) => Err(of_removal(error)),
        }
    }

    /// Tells of a removal that failed: once, where it is worth another try.
    fn report(&self, ended: Option<&Task>) -> Result<(), Fault> {
        let Some(Task { outcome: Outcome::Failed(fault), reference, .. }) = ended else { return Ok(()) };
        let fault = of_removal(Error::Vim(fault.clone()));
        match fault.class == FaultClass::Retry && self.task_cache.was_reported(reference) {
            true => Ok(()),
            false => Err(fault),
        }
    }
}

/// What an error means to whoever deletes a template.
fn of_removal(error: Error) -> Fault {
    let Error::Vim(fault) = error else { return error.into() };
    let is_any = |kinds: &[&str]| kinds.iter().any(|kind| fault.is(kind));
    let detail = fault.to_string();
    match () {
        // A VM that runs has it in its drive. The vCenter does not say which.
        () if is_any(&["FileLocked", "CannotDeleteFile"]) => in_use(detail),
        () if is_any(&["InvalidState", "ManagedObjectNotFound", "FileNotFound"]) => held(detail),
        () => {
            let fault = Fault::from(fault);
            match fault.class {
                FaultClass::Retry => fault,
                _ => {
                    let message = "the hypervisor cannot delete the template; ask the provider";
                    Fault { message: message.to_owned(), ..fault }
                }
            }
        }
    }
}
