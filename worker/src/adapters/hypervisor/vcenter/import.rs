//! Making a template of an appliance that a tenant brings.
//!
//! The vCenter reads the descriptor, makes a machine with empty disks, and leases us the right to fill them. The reference of
//! the lease is stored before anything is sent, so that whoever comes after a crash can end it. Whatever goes wrong, the lease
//! is given back and the half made machine taken away; what cannot be taken away at once, the next call takes away first.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use tokio::sync::watch;
use tokio::time::timeout;
use virtualstack_model::compute::id::TemplateId;

use super::super::import::{Appliance, Attendance, DiskFile, ImageSource, ImportSpec, Imported};
use super::super::{Fault, FaultClass, TaskRef};
use super::adapter::VCenter;
use super::faults::Error;
use super::import_faults::{lease_lost, of_call, refused};
use super::import_spec::{Destination, FileItem, Plan};
use super::imported::Found;
use super::lease::{self, Device, Ready};
use super::marks::name_with;
use super::soap::Call;
use super::upload::{Cargo, Meter, Sent};
use super::xml::{Element, ManagedRef, Xml};

/// How long the lease that was just asked for is awaited when the import shall stop: without its reference it cannot be ended.
const ANSWER: Duration = Duration::from_secs(5);
/// How long it may take to take back what was begun. What is left is taken away by the next call.
const TAKING_BACK: Duration = Duration::from_secs(10);
/// What comes out of gzip beyond the size of the disk: tables of the format, for each 64 KiB some bytes.
const TABLES: u64 = 64 << 20;

/// An import, and what goes with it.
pub(super) struct Import<'a> {
    pub(super) spec: &'a ImportSpec,
    pub(super) appliance: &'a Appliance,
    pub(super) source: &'a dyn ImageSource,
    pub(super) attendance: &'a Attendance,
}

/// How far an import is, for whoever has to take it back.
#[derive(Clone, Debug)]
enum Stage {
    /// Nothing is made.
    Before,
    /// A machine is asked for.
    Asked,
    Leased(ManagedRef),
}

impl VCenter {
    pub(super) async fn import_appliance(
        &self,
        import: &Import<'_>,
        task: Option<&TaskRef>,
    ) -> Result<Imported, Fault> {
        let (stage, mut seen) = watch::channel(Stage::Before);
        let made = tokio::select! {
            made = self.make_template(import, task, &stage) => made,
            () = told_to_stop(import.attendance, &mut seen) => Err(Attendance::stopped()),
        };
        if made.is_err() {
            let stage = stage.borrow().clone();
            self.take_back(import.spec.id, stage).await;
        }
        made
    }

    async fn make_template(
        &self,
        import: &Import<'_>,
        task: Option<&TaskRef>,
        stage: &watch::Sender<Stage>,
    ) -> Result<Imported, Fault> {
        let guest_os = &import.appliance.guest_os;
        if let Some(lease) = task.and_then(lease::of_stored) {
            self.session.abort_lease(&lease).await.map_err(of_call)?;
        }
        match self.find_imported(import.spec.id, None).await? {
            Found::Whole(made) => return Ok(made.imported(guest_os, Vec::new())),
            Found::Half(half) => self.destroy_half(&half).await?,
            Found::Absent => {}
        }
        let (lease, plan) = self.begin(import, stage).await?;
        import.attendance.store(lease::stored(&lease)).await?;
        let ready = self.session.lease_ready(&lease).await?;
        let sent = tokio::select! {
            fault = self.session.keep_lease(&lease, import.attendance) => Err(fault),
            sent = self.send_disks(import, &plan, &ready) => sent,
        };
        let sent = match sent {
            Ok(sent) => sent,
            Err(fault) => return Err(self.cause(&lease, fault).await),
        };
        self.session.check_manifest(&lease, &sent).await?;
        self.session.complete_lease(&lease).await?;
        self.change(&Call::change("MarkAsTemplate", &ready.entity, Xml::new())).await.map_err(of_call)?;
        match self.find_imported(import.spec.id, None).await? {
            Found::Whole(made) => Ok(made.imported(guest_os, warnings(plan, import.appliance))),
            _ => Err(lease_lost(format_args!("{} is gone before it was a template", ready.entity.id))),
        }
    }

    /// Has the machine made.
    async fn begin(&self, import: &Import<'_>, stage: &watch::Sender<Stage>) -> Result<(ManagedRef, Plan), Fault> {
        let Import { spec, appliance, .. } = import;
        let (placement, folder) = self.survey().await?;
        let needed =
            appliance.disks.iter().flat_map(|disk| &disk.parts).map(|part| part.end.saturating_sub(part.start)).sum();
        let datastore = self.session.datastore_for(&placement, needed).await?;
        let network = match appliance.networks.is_empty() {
            true => None,
            false => Some(self.session.network(&placement).await?),
        };
        let name = name_with(&spec.display_name, spec.id);
        let to = Destination {
            pool: &placement.pool,
            datastore: &datastore.reference,
            network: network.as_ref(),
            name: &name,
        };
        let plan = self.session.plan_import(spec, appliance, &to).await?;
        let arguments = Xml::new().element("spec", &plan.spec).reference("folder", &folder);
        stage.send_replace(Stage::Asked);
        match self.change(&Call::change("ImportVApp", &placement.pool, arguments)).await {
            Ok(reply) => {
                let lease = reply.at("returnval").and_then(Element::managed);
                let lease = lease.ok_or_else(|| lease_lost("ImportVApp names no lease"))?;
                stage.send_replace(Stage::Leased(lease.clone()));
                Ok((lease, plan))
            }
            Err(error) => {
                if !matches!(error, Error::NoAnswer { .. }) {
                    stage.send_replace(Stage::Before);
                }
                match error.is("ManagedObjectNotFound") {
                    true => Err(self.stale(error).await),
                    false => Err(of_call(error)),
                }
            }
        }
    }

    async fn send_disks(&self, import: &Import<'_>, plan: &Plan, ready: &Ready) -> Result<Vec<(Device, Sent)>, Fault> {
        let wanted = wanted(plan, import.appliance, ready)?;
        let total =
            wanted.iter().flat_map(|(_, disk, _)| &disk.parts).map(|part| part.end.saturating_sub(part.start)).sum();
        let meter = Meter::new(import.attendance, total);
        let mut sent = Vec::new();
        for (item, disk, device) in wanted {
            let way = self.session.way_to(device, if item.create { Method::PUT } else { Method::POST }).await?;
            let mut request = way.request.header(CONTENT_TYPE, "application/x-vnd.vmware-streamVmdk");
            if item.create {
                request = request.header("Overwrite", "t");
            }
            let cargo = Cargo {
                source: import.source,
                parts: &disk.parts,
                inflates_to: disk.gzip.then(|| disk.capacity_bytes.saturating_add(TABLES)),
            };
            let outcome = cargo.send(request, &meter, self.session.config().request_timeout()).await;
            sent.push((device.clone(), outcome.map_err(|fault| way.whom.explain(fault))?));
        }
        Ok(sent)
    }

    /// Why disks did not arrive: the vCenter knows better than the host, if it says anything.
    async fn cause(&self, lease: &ManagedRef, fault: Fault) -> Fault {
        if fault.class != FaultClass::Retry {
            return fault;
        }
        match self.session.lease_fault(lease).await {
            Some(known) => Fault { detail: format!("{}; {}", known.detail, fault.detail), ..known },
            None => fault,
        }
    }

    /// Takes back what was begun, as far as that goes at once.
    async fn take_back(&self, id: TemplateId, stage: Stage) {
        let lease = match stage {
            Stage::Before => return,
            Stage::Asked => None,
            Stage::Leased(lease) => Some(lease),
        };
        let taken = timeout(TAKING_BACK, async {
            if let Some(lease) = &lease {
                self.session.abort_lease(lease).await?;
            }
            match self.find_imported(id, None).await? {
                Found::Half(half) => self.destroy_half(&half).await,
                Found::Whole(_) | Found::Absent => Ok(()),
            }
        });
        match taken.await {
            Ok(Ok(())) => {}
            outcome => tracing::warn!(template = %id, ?outcome, "an import is not yet taken back"),
        }
    }
}

/// Ends when the import shall, but not while the reference of a lease is on its way.
async fn told_to_stop(attendance: &Attendance, seen: &mut watch::Receiver<Stage>) {
    attendance.stop().cancelled().await;
    let _ = timeout(ANSWER, seen.wait_for(|stage| !matches!(stage, Stage::Asked))).await;
}

/// Which disk goes where.
fn wanted<'a>(
    plan: &'a Plan,
    appliance: &'a Appliance,
    ready: &'a Ready,
) -> Result<Vec<(&'a FileItem, &'a DiskFile, &'a Device)>, Fault> {
    let mut wanted = Vec::new();
    for item in plan.files.iter().filter(|item| !is_left_out(item, appliance)) {
        let disk = appliance.disks.iter().find(|disk| disk.href == item.path);
        let disk = disk.ok_or_else(|| refused(format_args!("it wants the file {}, which is no disk", item.path)))?;
        let device = ready.devices.iter().find(|device| device.import_key == item.device);
        let device = device.ok_or_else(|| lease_lost(format_args!("there is no place for {}", item.device)))?;
        wanted.push((item, disk, device));
    }
    Ok(wanted)
}

/// The settings of a machine's firmware: it makes new ones where it has none.
fn is_left_out(item: &FileItem, appliance: &Appliance) -> bool {
    item.path.to_lowercase().ends_with(".nvram") && appliance.disks.iter().all(|disk| disk.href != item.path)
}

fn warnings(plan: Plan, appliance: &Appliance) -> Vec<String> {
    let left_out = plan.files.iter().filter(|item| is_left_out(item, appliance));
    let left_out = left_out.map(|item| format!("{} is left out: the firmware begins anew", item.path));
    let left_out: Vec<_> = left_out.collect();
    plan.warnings.into_iter().chain(left_out).collect()
}
