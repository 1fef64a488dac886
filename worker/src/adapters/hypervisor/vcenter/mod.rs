//! A VMware vCenter, driven through its SOAP interface, vim25.
//!
//! SOAP is what every supported vCenter speaks in full; this is a thin client of our own, made of a few calls that are
//! written out by hand. From the bottom: `xml` and `soap` make one call, `session` keeps the one login, `properties`, `tasks`,
//! `machine`, `media` and `placement` read what is there, `listener` keeps tasks up to date, `adapter` is what all calls
//! share, `lookup` finds a VM, `create`, `change`, `snapshots`, `console` and `destroy` do what is asked, and `faults` says
//! what a failure means. Templates come by `import`, on a `lease`, or by `imported_media`, both by `upload`; `imported` finds
//! and `remove_template` deletes them.
//!
//! The vCenter's VM carries our id twice: as its instance UUID, by which it is found, and as a marker in its extraConfig,
//! which it must bear to be taken for ours.

use async_trait::async_trait;
use virtualstack_model::compute::console::ConsoleTicket;
use virtualstack_model::compute::id::{SnapshotId, VmId};
use virtualstack_model::compute::vm::{PowerState, Size};

use super::import::{Attendance, Content, ImageSource, ImportSpec, Imported, TemplateIdentity};
use super::{Fault, Hypervisor, Observation, Progress, SnapshotSpec, TaskRef, TemplateInfo, VmIdentity, VmSpec};

mod adapter;
mod change;
mod config;
mod console;
mod create;
mod customization;
mod destroy;
mod escapes;
mod faults;
mod import;
mod import_faults;
mod import_spec;
mod imported;
mod imported_media;
mod lease;
mod listener;
mod lookup;
mod machine;
mod marks;
mod media;
mod placement;
mod properties;
mod remove_template;
mod session;
mod snapshots;
mod soap;
mod task_cache;
mod tasks;
mod tls;
mod updates;
mod upload;
mod xml;

pub use adapter::VCenter;
pub use config::{Config, ConfigError, Password};

use import::Import;
use imported_media::MediumImport;
use lookup::LookUp;
use tasks::Outcome;

#[async_trait]
impl Hypervisor for VCenter {
    fn kind(&self) -> &'static str {
        "vcenter"
    }

    async fn ensure_vm(&self, spec: &VmSpec, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.create(spec, task).await
    }

    async fn ensure_power(&self, vm: VmId, power: PowerState, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.power(vm, power, task).await
    }

    async fn ask_to_shut_down(&self, vm: VmId) -> Result<(), Fault> {
        self.ask_guest_to_shut_down(vm).await
    }

    async fn reset(&self, vm: VmId, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.reset_power(vm, task).await
    }

    async fn ensure_size(&self, vm: VmId, size: &Size, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.resize(vm, size, task).await
    }

    async fn ensure_snapshot(
        &self,
        vm: VmId,
        snapshot: &SnapshotSpec,
        task: Option<&TaskRef>,
    ) -> Result<Progress, Fault> {
        self.make_snapshot(vm, snapshot, task).await
    }

    async fn ensure_no_snapshot(
        &self,
        vm: VmId,
        snapshot: SnapshotId,
        task: Option<&TaskRef>,
    ) -> Result<Progress, Fault> {
        self.remove_snapshot(vm, snapshot, task).await
    }

    async fn revert(&self, vm: VmId, snapshot: SnapshotId, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.revert_to(vm, snapshot, task).await
    }

    async fn open_console(&self, vm: VmId) -> Result<ConsoleTicket, Fault> {
        self.console(vm).await
    }

    async fn ensure_idle(&self, vm: VmId, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.idle(vm, task).await
    }

    async fn has_done(&self, task: &TaskRef) -> Result<bool, Fault> {
        Ok(self.session.task(task).await?.is_some_and(|task| matches!(task.outcome, Outcome::Succeeded)))
    }

    async fn ensure_absent(&self, vm: &VmIdentity, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.destroy(vm, task).await
    }

    async fn observe_vm(&self, vm: VmId) -> Result<Option<Observation>, Fault> {
        match self.look_up(vm, None).await? {
            LookUp::Present(machine) => Ok(Some(machine.observation())),
            LookUp::Foreign { name, by_name: false } => Err(lookup::foreign(&name)),
            LookUp::Forming | LookUp::Foreign { .. } | LookUp::Absent => Ok(None),
        }
    }

    async fn observe_templates(&self) -> Result<Vec<TemplateInfo>, Fault> {
        let (placement, folder) = self.survey().await?;
        let mut templates = self.session.templates(&folder).await?;
        templates.extend(self.session.media(&placement).await?);
        Ok(templates)
    }

    async fn import_template(
        &self,
        spec: &ImportSpec,
        source: &dyn ImageSource,
        attendance: &Attendance,
        task: Option<&TaskRef>,
    ) -> Result<Imported, Fault> {
        match &spec.content {
            Content::Ova(appliance) => {
                self.import_appliance(&Import { spec, appliance, source, attendance }, task).await
            }
            Content::Iso { size } => self.import_medium(&MediumImport { spec, size: *size, source, attendance }).await,
        }
    }

    async fn ensure_no_template(&self, template: &TemplateIdentity, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        self.remove_template(template, task).await
    }

    async fn close(&self) {
        self.listener.end();
        self.session.close().await;
    }
}
