//! Making a VM exist, exactly once.
//!
//! A VM is a clone of its template, or an empty machine with its medium in the drive. Either can be under way without our
//! knowing: its task was started, and the process died or the reply was lost before the reference was stored. So one is
//! started only after every place was looked at where an earlier one shows: the stored task, the inventory (by instance
//! UUID, then by name, with our marker), and the tasks of the template or of our folder. What slips through all that
//! fails on the name, which is made of the VM's id and unique in our folder; whoever loses adopts the winner's VM.

use std::time::Duration;

use virtualstack_model::compute::template::TemplateKind;

use super::super::{Fault, FaultClass, Progress, TaskRef, VmSpec};
use super::adapter::{Followed, VCenter, WAITING};
use super::customization::{guest_info, is_windows, sysprep};
use super::faults::Error;
use super::lookup::{LookUp, foreign, lost};
use super::machine::Hardware;
use super::marks::{marks, name_of};
use super::media;
use super::placement::Placement;
use super::soap::Call;
use super::tasks::{Outcome, Task, Work, started};
use super::xml::{ManagedRef, Xml};

/// How long to wait for creations from the same source that may be ours. Most are other VMs', so this is short: a vCenter shows
/// and defends the name of a VM from its start, and the wait only saves a vain try on servers that do so at its end.
const UNCLAIMED: Duration = Duration::from_secs(10);

impl VCenter {
    pub(super) async fn create(&self, spec: &VmSpec, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        let _turn = self.task_cache.turn(spec.id).await;
        let ended = match self.follow(task, self.task_cache.creation_of(spec.id)).await? {
            Followed::Running(task) => return Ok(task.progress()),
            Followed::Ended(task) => task,
        };
        let placement = self.placement().await?;
        let source = self.source(&placement, &spec.template).await?;
        // Before the look-up, so that one which ends in between is found by it.
        let creations = self.unclaimed_creations(spec.id, source.as_ref()).await?;
        let name = name_of(spec);
        match self.look_up(spec.id, Some(&name)).await? {
            // Its size it has already, unless somebody's half-made VM is adopted.
            LookUp::Present(machine) => {
                self.task_cache.settled(spec.id);
                return self.reshape(&machine, &spec.size, ended.as_ref()).await;
            }
            LookUp::Forming => return Ok(WAITING),
            LookUp::Foreign { name, .. } => return Err(foreign(&name)),
            LookUp::Absent => {}
        }
        match ended.as_ref().map(|task| (task, &task.outcome)) {
            Some((task, Outcome::Failed(_))) => self.failure(task).map_or(Ok(()), Err)?,
            Some((Task { work: Work::Create, .. }, Outcome::Succeeded)) => {
                return Err(lost(spec.id));
            }
            _ => {}
        }
        let creations: Vec<_> = creations.into_iter().map(|task| task.reference).collect();
        if self.task_cache.must_wait(spec.id, &creations, UNCLAIMED) {
            return Ok(WAITING);
        }
        let Some(call) = self.creation(&placement, source, &name, spec).await? else {
            return Err(Fault::new(
                FaultClass::Permanent,
                "TEMPLATE_GONE",
                "the template is no longer there; choose another",
                format_args!("there is no {}", spec.template.0),
            ));
        };
        let _permit = self.permit(&self.clones).await?;
        match self.change(&call).await {
            Ok(reply) => {
                let task = started(&reply)?;
                self.task_cache.started(spec.id, &task);
                Ok(Progress::Running { task: Some(task), percent: None })
            }
            // The next call finds out whether it is ours.
            Err(Error::Vim(fault)) if fault.is_name_taken() => match self.look_up(spec.id, Some(&name)).await? {
                LookUp::Foreign { name, .. } => Err(foreign(&name)),
                LookUp::Absent => Err(fault.into()),
                LookUp::Present(_) | LookUp::Forming => Ok(WAITING),
            },
            Err(error) => Err(self.stale(error).await),
        }
    }

    /// What makes the VM; none where its template or medium is gone.
    async fn creation(
        &self,
        placement: &Placement,
        source: Option<ManagedRef>,
        name: &str,
        spec: &VmSpec,
    ) -> Result<Option<Call>, Fault> {
        if spec.kind == TemplateKind::Iso {
            if !self.session.has_medium(placement, &spec.template).await? {
                return Ok(None);
            }
            let card = self.session.card_backing(placement).await?;
            return Ok(media::creation(placement, &card, name, spec));
        }
        let Some(template) = source else { return Ok(None) };
        let known = self.session.template_hardware(&template).await?;
        Ok(known.map(|known| clone_call(&template, &known, placement, name, spec)))
    }
}

/// Elements in the order of the WSDL, on which a vCenter insists.
fn clone_call(
    template: &ManagedRef,
    (hardware, guest_id): &(Hardware, String),
    placement: &Placement,
    name: &str,
    spec: &VmSpec,
) -> Call {
    let mut location = Xml::new();
    if let Some(datastore) = &placement.datastore {
        location = location.reference("datastore", datastore);
    }
    // A template with snapshots has disks with parents, which do not grow; and what a tenant gets hangs on nothing.
    location = location.text("diskMoveType", "moveAllDiskBackingsAndConsolidate").reference("pool", &placement.pool);
    let config = Xml::new().text("instanceUuid", spec.id).join(&hardware.change_to(&spec.size)).join(&marks(spec));
    let (config, customization) = match is_windows(guest_id) {
        true => (config, sysprep(spec, hardware.cards())),
        false => (config.join(&guest_info(spec)), Xml::new()),
    };
    let clone = Xml::new()
        .node("location", location)
        .text("template", false)
        .node("config", config)
        .join(&customization)
        .text("powerOn", false);
    let arguments = Xml::new().reference("folder", &placement.folder).text("name", name).node("spec", clone);
    Call::change("CloneVM_Task", template, arguments)
}
