//! What every hypervisor adapter has to do with templates that tenants bring, beside what [`super::conformance`] says.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use tokio_util::sync::CancellationToken;
use virtualstack_model::compute::id::{TemplateId, VmId};
use virtualstack_model::compute::template::TemplateKind;
use virtualstack_model::compute::vm::Size;
use virtualstack_worker::adapters::hypervisor::import::{Attendance, ImportSpec, Imported, TemplateIdentity};
use virtualstack_worker::adapters::hypervisor::{
    Fault, FaultClass, Hypervisor, Progress, TaskRef, TemplateInfo, TemplateRef, VmSpec,
};

use super::conformance::{Lab, create, drive, spec};
use super::images::{Image, Packing, appliance, medium};

macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        /// All there is to show, by name.
        const CHECKS: &[(&str, for<'l> fn(&'l dyn Lab) -> LocalBoxFuture<'l, ()>)] =
            &[$((stringify!($name), |lab| $name(lab).boxed_local())),*];
    };
}

checks![
    an_appliance_becomes_a_template_that_vms_are_made_from,
    disks_come_in_any_number_and_packing,
    a_medium_becomes_a_template_that_vms_are_made_from,
    an_import_may_be_repeated,
    a_stop_half_way_leaves_nothing,
    a_crash_half_way_is_made_good_with_the_stored_task,
    a_crash_half_way_is_made_good_without_it,
    a_source_that_fails_is_told_and_leaves_nothing,
    what_is_half_made_is_deleted,
    a_template_is_deleted_and_its_vms_stay,
    a_template_that_is_not_ours_is_left_alone,
];

/// Runs all checks, and fails with the names of those that failed.
pub(super) async fn run(lab: &dyn Lab) {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        let outcome = AssertUnwindSafe(check(lab)).catch_unwind().await;
        eprintln!("{name}: {}", if outcome.is_ok() { "shown" } else { "FAILED" });
        if outcome.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), CHECKS.len());
}

/// What a worker does for a call that is long: it stores references, and may tell it to stop.
pub(super) struct Attended {
    pub(super) attendance: Attendance,
    pub(super) stop: CancellationToken,
    stored: Arc<Mutex<Option<TaskRef>>>,
}

impl Attended {
    pub(super) fn new() -> Self {
        let (stop, stored) = (CancellationToken::new(), Arc::<Mutex<_>>::default());
        let (attendance, mut tasks) = Attendance::new(stop.clone());
        let kept = Arc::clone(&stored);
        tokio::spawn(async move {
            while let Some((task, told)) = tasks.recv().await {
                *kept.lock().expect("not poisoned") = Some(task);
                let _ = told.send(());
            }
        });
        Self { attendance, stop, stored }
    }

    pub(super) fn stored(&self) -> Option<TaskRef> {
        self.stored.lock().expect("not poisoned").clone()
    }
}

pub(super) async fn import_once(
    hypervisor: &dyn Hypervisor,
    spec: &ImportSpec,
    image: &Image,
    task: Option<&TaskRef>,
) -> Result<Imported, Fault> {
    let attended = Attended::new();
    let imported = hypervisor.import_template(spec, image, &attended.attendance, task).await;
    if imported.is_ok() && attended.stored().is_some() {
        assert_eq!(attended.attendance.percent(), 100);
    }
    imported
}

async fn imported(lab: &dyn Lab, spec: &ImportSpec, image: &Image) -> (Box<dyn Hypervisor>, TemplateInfo) {
    let hypervisor = lab.adapter().await;
    let imported = import_once(&*hypervisor, spec, image, None).await.expect("imported");
    let info = offered(&*hypervisor, &imported.reference).await.expect("on offer");
    assert!(info.is_imported, "the provider's look otherwise: {info:?}");
    assert_eq!(lab.imports(spec.id).await, 1);
    (hypervisor, info)
}

async fn offered(hypervisor: &dyn Hypervisor, reference: &TemplateRef) -> Option<TemplateInfo> {
    let templates = hypervisor.observe_templates().await.expect("templates");
    templates.into_iter().find(|template| template.reference == *reference)
}

pub(super) fn identity(spec: &ImportSpec, kind: TemplateKind, reference: Option<&TemplateRef>) -> TemplateIdentity {
    TemplateIdentity { id: spec.id, display_name: spec.display_name.clone(), kind, reference: reference.cloned() }
}

pub(super) async fn delete(hypervisor: &dyn Hypervisor, template: &TemplateIdentity) {
    drive(async |task| hypervisor.ensure_no_template(template, task).await).await.expect("deleted");
    assert_eq!(hypervisor.ensure_no_template(template, None).await.expect("again"), Progress::Done);
}

/// Imports until no more bytes come, and is gone then, as in a crash; what was stored.
async fn crash(lab: &dyn Lab, spec: &ImportSpec, image: &Image) -> Option<TaskRef> {
    let (hypervisor, attended) = (lab.adapter().await, Attended::new());
    tokio::select! {
        outcome = hypervisor.import_template(spec, image, &attended.attendance, None) => panic!("{outcome:?}"),
        () = image.hangs() => {}
    }
    attended.stored()
}

fn both() -> [(TemplateKind, (ImportSpec, Image)); 2] {
    [(TemplateKind::Ova, appliance(&[3], Packing::Plain)), (TemplateKind::Iso, medium())]
}

fn vm_of(lab: &dyn Lab, template: &TemplateInfo, disk_gib: i32) -> VmSpec {
    let size = Size { cpu_count: 2, memory_mib: 1024, disk_gib };
    VmSpec { id: VmId::new(), template: template.reference.clone(), kind: template.kind, size, ..spec(lab) }
}

async fn an_appliance_becomes_a_template_that_vms_are_made_from(lab: &dyn Lab) {
    let (spec, image) = appliance(&[3], Packing::Plain);
    let (hypervisor, info) = imported(lab, &spec, &image).await;
    assert_eq!((info.kind, info.cpu_count, info.memory_mib), (TemplateKind::Ova, 2, 1024));
    assert_eq!((info.disk_gib, info.further_disk_gib), (3, 0));
    assert!(info.display_name.contains("debian") && !info.guest_os.is_empty(), "{info:?}");
    create(&*hypervisor, &vm_of(lab, &info, 5)).await;
}

async fn disks_come_in_any_number_and_packing(lab: &dyn Lab) {
    for packing in [Packing::Plain, Packing::Gzip, Packing::Chunks] {
        let (spec, image) = appliance(&[3, 2, 4], packing);
        let (_, info) = imported(lab, &spec, &image).await;
        assert_eq!((info.disk_gib, info.further_disk_gib), (3, 6), "{packing:?}");
    }
}

async fn a_medium_becomes_a_template_that_vms_are_made_from(lab: &dyn Lab) {
    let (spec, image) = medium();
    let (hypervisor, info) = imported(lab, &spec, &image).await;
    assert_eq!(info.kind, TemplateKind::Iso);
    create(&*hypervisor, &vm_of(lab, &info, 12)).await;
}

async fn an_import_may_be_repeated(lab: &dyn Lab) {
    for (_, (spec, image)) in both() {
        let hypervisor = lab.adapter().await;
        let one = import_once(&*hypervisor, &spec, &image, None).await.expect("imported");
        let other = import_once(&*lab.adapter().await, &spec, &image, None).await.expect("imported");
        assert_eq!(one, other);
        assert_eq!(lab.imports(spec.id).await, 1);
    }
}

async fn a_stop_half_way_leaves_nothing(lab: &dyn Lab) {
    for (kind, (spec, image)) in both() {
        let image = image.hanging();
        let (hypervisor, attended) = (lab.adapter().await, Attended::new());
        let (outcome, ()) =
            tokio::join!(hypervisor.import_template(&spec, &image, &attended.attendance, None), async {
                image.hangs().await;
                attended.stop.cancel();
            });
        assert_eq!(outcome.expect_err("stopped").reason, "IMPORT_STOPPED");
        assert_eq!(lab.imports(spec.id).await, 0, "{kind:?}");
    }
}

async fn a_crash_half_way_is_made_good_with_the_stored_task(lab: &dyn Lab) {
    let (spec, image) = appliance(&[3], Packing::Plain);
    let image = image.hanging();
    let task = crash(lab, &spec, &image).await.expect("stored");
    let image = image.whole();
    import_once(&*lab.adapter().await, &spec, &image, Some(&task)).await.expect("imported");
    assert_eq!(lab.imports(spec.id).await, 1);
}

async fn a_crash_half_way_is_made_good_without_it(lab: &dyn Lab) {
    for (_, (spec, image)) in both() {
        let image = image.hanging();
        crash(lab, &spec, &image).await;
        let image = image.whole();
        import_once(&*lab.adapter().await, &spec, &image, None).await.expect("imported");
        assert_eq!(lab.imports(spec.id).await, 1);
    }
}

async fn a_source_that_fails_is_told_and_leaves_nothing(lab: &dyn Lab) {
    for (kind, (spec, image)) in both() {
        let image = image.failing();
        let fault = import_once(&*lab.adapter().await, &spec, &image, None).await.expect_err("no more bytes");
        assert_eq!((fault.class, fault.reason), (FaultClass::Retry, "STORE_DOWN"));
        assert_eq!(lab.imports(spec.id).await, 0, "{kind:?}");
    }
}

async fn what_is_half_made_is_deleted(lab: &dyn Lab) {
    for (kind, (spec, image)) in both() {
        let image = image.hanging();
        let task = crash(lab, &spec, &image).await;
        let (hypervisor, template) = (lab.adapter().await, identity(&spec, kind, None));
        // The stored task is the first that is asked with.
        let first = hypervisor.ensure_no_template(&template, task.as_ref()).await.expect("begun");
        if first != Progress::Done {
            delete(&*hypervisor, &template).await;
        }
        assert_eq!(lab.imports(spec.id).await, 0, "{kind:?}");
    }
}

async fn a_template_is_deleted_and_its_vms_stay(lab: &dyn Lab) {
    for (kind, (spec, image)) in both() {
        let (hypervisor, info) = imported(lab, &spec, &image).await;
        let vm = vm_of(lab, &info, 12);
        create(&*hypervisor, &vm).await;
        delete(&*hypervisor, &identity(&spec, kind, Some(&info.reference))).await;
        assert_eq!(lab.imports(spec.id).await, 0, "{kind:?}");
        assert_eq!(offered(&*hypervisor, &info.reference).await, None);
        assert!(hypervisor.observe_vm(vm.id).await.expect("observed").is_some());
    }
}

async fn a_template_that_is_not_ours_is_left_alone(lab: &dyn Lab) {
    let hypervisor = lab.adapter().await;
    for (kind, reference) in [(TemplateKind::Ova, lab.template()), (TemplateKind::Iso, lab.medium())] {
        let template = TemplateIdentity {
            id: TemplateId::new(),
            display_name: "theirs".to_owned(),
            kind,
            reference: Some(reference.clone()),
        };
        let fault = hypervisor.ensure_no_template(&template, None).await.expect_err("not ours");
        assert_eq!(fault.class, FaultClass::Conflict);
        assert!(offered(&*hypervisor, &reference).await.is_some());
    }
}
