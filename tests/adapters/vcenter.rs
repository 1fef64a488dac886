//! What is the vCenter adapter's own, over the wire: sessions, crowds, settings, the faults that a vCenter has.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtualstack_model::compute::id::{SnapshotId, VmId};
use virtualstack_model::compute::template::TemplateKind;
use virtualstack_model::compute::vm::{PowerState, Size};
use virtualstack_model::id::{OperationId, TenantId};
use virtualstack_worker::adapters::hypervisor::vcenter::{Config, VCenter};
use virtualstack_worker::adapters::hypervisor::{
    Fault, FaultClass, Hypervisor, Progress, SnapshotSpec, TaskRef, TemplateRef, VmIdentity, VmSpec,
};

use super::conformance::drive_every;
use super::vcsim::{DEBIAN, NETINST, Vcsim};
use crate::support::Rest;

fn spec(name: &str) -> VmSpec {
    VmSpec {
        id: VmId::new(),
        tenant: TenantId::new(),
        operation: OperationId::new(),
        display_name: name.to_owned(),
        template: TemplateRef(DEBIAN.to_owned()),
        kind: TemplateKind::Ova,
        size: Size { cpu_count: 2, memory_mib: 2048, disk_gib: 16 },
        customization: None,
    }
}

fn identity(spec: &VmSpec) -> VmIdentity {
    VmIdentity { id: spec.id, template: spec.template.clone() }
}

async fn drive(call: impl AsyncFnMut(Option<&TaskRef>) -> Result<Progress, Fault>) {
    drive_every(Duration::from_millis(200), call).await.expect("done");
}

async fn create(vcenter: &VCenter, spec: &VmSpec) {
    drive(async |task| vcenter.ensure_vm(spec, task).await).await;
}

async fn power(vcenter: &VCenter, vm: VmId, power: PowerState) {
    drive(async |task| vcenter.ensure_power(vm, power, task).await).await;
}

async fn destroy(vcenter: &VCenter, vm: &VmIdentity) {
    drive(async |task| vcenter.ensure_absent(vm, task).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_lives_and_dies() {
    let Some(vcsim) = Vcsim::start(&["-clone-delay-min", "300ms", "-clone-delay-max", "500ms"]).await else { return };
    let vcenter = vcsim.connect();
    let templates = vcenter.observe_templates().await.expect("templates");
    let of = |kind| templates.iter().filter(move |template| template.kind == kind);
    let sizes: Vec<_> =
        of(TemplateKind::Ova).map(|t| (t.display_name.as_str(), t.cpu_count, t.memory_mib, t.disk_gib)).collect();
    assert_eq!(sizes, [("debian-12", 1, 1024, 10), ("ubuntu-24.04", 2, 2048, 20), ("windows-2022", 2, 4096, 40)]);
    let media: Vec<_> = of(TemplateKind::Iso).map(|t| (t.display_name.as_str(), t.reference.0.as_str())).collect();
    let more = "[LocalDS_0] templates/more/ubuntu-24.04-server.iso";
    assert_eq!(media, [("debian-12-netinst", NETINST), ("ubuntu-24.04-server", more)]);

    let mut spec = spec("web-1");
    spec.template = templates[0].reference.clone();
    assert!(matches!(vcenter.ensure_vm(&spec, None).await, Ok(Progress::Running { task: Some(_), .. })));
    create(&vcenter, &spec).await;
    let seen = vcenter.observe_vm(spec.id).await.expect("observed").expect("there");
    assert_eq!((seen.power, seen.ip_addresses.len()), (PowerState::Off, 0), "off, whatever the guest once reported");

    power(&vcenter, spec.id, PowerState::On).await;
    assert_eq!(vcenter.ensure_power(spec.id, PowerState::On, None).await.expect("again"), Progress::Done);
    let seen = vcenter.observe_vm(spec.id).await.expect("observed").expect("there");
    assert_eq!(seen.power, PowerState::On);
    assert!(seen.ip_addresses[0].starts_with("10."), "{seen:?}");
    power(&vcenter, spec.id, PowerState::Off).await;
    power(&vcenter, spec.id, PowerState::On).await;

    destroy(&vcenter, &identity(&spec)).await;
    assert_eq!(vcenter.ensure_absent(&identity(&spec), None).await.expect("again"), Progress::Done);
    create(&vcenter, &self::spec("web-2")).await; // its template is as it was
    assert_eq!(vcenter.observe_vm(spec.id).await.expect("observed"), None);
    let fault = vcenter.ensure_power(spec.id, PowerState::On, None).await.expect_err("it is gone");
    assert_eq!(fault.class, FaultClass::Lost);
    vcenter.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_known_authority_is_trusted() {
    let (Some(vcsim), Some(other)) = (Vcsim::start(&[]).await, Vcsim::start(&[]).await) else { return };
    for ca_file in [other.ready.ca_file.clone(), None] {
        let vcenter = VCenter::connect(Config { ca_file, ..vcsim.config() }).expect("good settings");
        let fault = vcenter.observe_templates().await.expect_err("not trusted");
        assert_eq!(fault.class, FaultClass::Retry);
        assert!(fault.detail.contains("certificate"), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_has_its_size_and_our_marks() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let vcenter = vcsim.connect();
    let spec = spec("db/1 \u{e9}<&>");
    create(&vcenter, &spec).await;
    let machines = vcsim.machines().await;
    let [machine] = &machines[..] else { panic!("{machines:?}") };
    assert_eq!((machine.cpus, machine.memory_mib, machine.disk_gib), (2, 2048, 16));
    assert_eq!((&machine.instance_uuid, &machine.marker), (&spec.id.to_string(), &spec.id.to_string()));
    assert_eq!(machine.name, format!("db-1------{}", spec.id));
    assert_eq!(vcsim.calls("ReconfigVM_Task").await, 0, "the clone has it all");

    // The specification of a VM that is there but smaller, as after an adoption.
    let larger = VmSpec { size: Size { cpu_count: 4, memory_mib: 2048, disk_gib: 20 }, ..spec };
    create(&vcenter, &larger).await;
    let machine = &vcsim.machines().await[0];
    assert_eq!((machine.cpus, machine.memory_mib, machine.disk_gib), (4, 2048, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clones_run_in_parallel() {
    let options = ["-plain", "-clone-delay-min", "1s", "-clone-delay-max", "3s"];
    let Some(vcsim) = Vcsim::start(&options).await else { return };
    let vcenter = vcsim.connect();
    let specs: Vec<_> = (0..20).map(|n| spec(&format!("vm-{n}"))).collect();
    let started = Instant::now();
    futures::future::join_all(specs.iter().map(async |spec| {
        create(&vcenter, spec).await;
        power(&vcenter, spec.id, PowerState::On).await;
    }))
    .await;
    assert!(started.elapsed() < Duration::from_secs(20), "one after the other: {:?}", started.elapsed());
    assert_eq!(vcsim.machines().await.len(), 20);
    assert_eq!(vcsim.calls("CloneVM_Task").await, 20);
    assert_eq!(vcsim.calls("Login").await, 1);
    futures::future::join_all(specs.iter().map(|spec| async { destroy(&vcenter, &identity(spec)).await })).await;
    assert_eq!(vcsim.machines().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_before_it_stores_the_task_leaves_one_vm() {
    let options = ["-plain", "-clone-delay-min", "1s", "-clone-delay-max", "3s"];
    let Some(vcsim) = Vcsim::start(&options).await else { return };
    let specs: Vec<_> = (0..100).map(|n| spec(&format!("vm-{n}"))).collect();
    let killed = Arc::new(vcsim.connect());
    let calls = specs.iter().cloned().enumerate().map(|(number, spec)| {
        let killed = Arc::clone(&killed);
        tokio::spawn(async move {
            // It never comes to the last ones, however late it is killed.
            if number >= 90 {
                std::future::pending::<()>().await;
            }
            killed.ensure_vm(&spec, None).await
        })
    });
    let calls: Vec<_> = calls.collect();
    while vcsim.calls("CloneVM_Task").await < 60 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    futures::future::join_all(calls).await;
    let begun = vcsim.calls("CloneVM_Task").await;
    assert!(begun < 100, "some are under way, some are not begun: {begun}");
    // Its memory is gone, and another takes over.
    drop(killed);
    let vcenter = vcsim.connect();
    futures::future::join_all(specs.iter().map(|spec| create(&vcenter, spec))).await;
    let machines = vcsim.machines().await;
    let ids: HashSet<_> = machines.iter().map(|machine| machine.instance_uuid.as_str()).collect();
    assert_eq!((machines.len(), ids.len()), (100, 100));
    assert!(machines.iter().all(|machine| machine.marker == machine.instance_uuid));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_calls_at_once_start_one_clone() {
    let options = ["-plain", "-clone-delay-min", "500ms", "-clone-delay-max", "1s"];
    let Some(vcsim) = Vcsim::start(&options).await else { return };
    let (vcenter, spec) = (vcsim.connect(), spec("twin"));
    let (one, other) = tokio::join!(vcenter.ensure_vm(&spec, None), vcenter.ensure_vm(&spec, None));
    let task = |progress| match progress {
        Ok(Progress::Running { task: Some(task), .. }) => task,
        other => panic!("{other:?}"),
    };
    assert_eq!(task(one), task(other));

    // In two processes, only the name keeps them apart.
    let (one, other) = (vcsim.connect(), vcsim.connect());
    let specs: Vec<_> = (0..10).map(|n| self::spec(&format!("twin-{n}"))).collect();
    futures::future::join_all(specs.iter().map(async |spec| {
        tokio::join!(create(&one, spec), create(&other, spec));
    }))
    .await;
    create(&vcenter, &spec).await;
    assert_eq!(vcsim.machines().await.len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_is_under_way_does_not_outlive_the_deletion() {
    let options = ["-plain", "-clone-delay-min", "1s", "-clone-delay-max", "2s"];
    let Some(vcsim) = Vcsim::start(&options).await else { return };
    let (killed, spec) = (vcsim.connect(), spec("ghost"));
    killed.ensure_vm(&spec, None).await.expect("started");
    let vcenter = vcsim.connect();
    let waiting = vcenter.ensure_absent(&identity(&spec), None).await.expect("waits");
    assert_eq!(waiting, Progress::Running { task: None, percent: None });
    destroy(&vcenter, &identity(&spec)).await;
    assert_eq!(vcsim.calls("Destroy_Task").await, 1);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(vcsim.machines().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_replies_are_reconciled() {
    let options = ["-plain", "-clone-delay-min", "500ms", "-clone-delay-max", "1s"];
    let Some(vcsim) = Vcsim::start(&options).await else { return };
    let (vcenter, spec) = (vcsim.connect(), spec("mute"));
    for method in ["CloneVM_Task", "PowerOnVM_Task", "PowerOffVM_Task", "Destroy_Task"] {
        vcsim.test(&format!("POST /test/lose?method={method}&count=1")).await;
    }
    let fault = vcenter.ensure_vm(&spec, None).await.expect_err("no reply");
    assert_eq!(fault.class, FaultClass::Unknown, "{fault}");
    create(&vcenter, &spec).await;
    assert_eq!(vcsim.calls("CloneVM_Task").await, 1, "it was found, not repeated");
    let fault = vcenter.ensure_power(spec.id, PowerState::On, None).await.expect_err("no reply");
    assert_eq!(fault.class, FaultClass::Unknown, "{fault}");
    power(&vcenter, spec.id, PowerState::On).await;
    destroy(&vcenter, &identity(&spec)).await;
    assert!(vcsim.machines().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_lost_replies_leave_one_vm_each() {
    let options = ["-plain", "-clone-delay-min", "500ms", "-clone-delay-max", "2s", "-lose-replies", "0.3"];
    let Some(vcsim) = Vcsim::start(&options).await else { return };
    let vcenter = vcsim.connect();
    let specs: Vec<_> = (0..20).map(|n| spec(&format!("vm-{n}"))).collect();
    futures::future::join_all(specs.iter().map(async |spec| {
        create(&vcenter, spec).await;
        power(&vcenter, spec.id, PowerState::On).await;
    }))
    .await;
    assert_eq!(vcsim.machines().await.len(), 20);
    futures::future::join_all(specs.iter().map(|spec| async { destroy(&vcenter, &identity(spec)).await })).await;
    assert_eq!(vcsim.machines().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_tried_once() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let file = vcsim.folder.join("password");
    std::fs::write(&file, "wrong\n").expect("written");
    let config = Config { password: None, password_file: Some(file.clone()), ..vcsim.config() };
    let vcenter = VCenter::connect(config).expect("good settings");
    let faults = futures::future::join_all((0..10).map(|_| vcenter.observe_templates())).await;
    for fault in faults {
        let fault = fault.expect_err("refused");
        assert_eq!((fault.class, fault.reason), (FaultClass::Permanent, "HYPERVISOR_LOGIN_REFUSED"));
    }
    vcenter.observe_templates().await.expect_err("refused");
    assert_eq!(vcsim.calls("Login").await, 1);

    std::fs::write(&file, "secret\n").expect("written");
    vcenter.observe_templates().await.expect("the new password is tried at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_is_replaced_once_and_closed_at_the_end() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let (vcenter, spec) = (vcsim.connect(), spec("patient"));
    create(&vcenter, &spec).await;
    vcsim.test("POST /test/end-sessions").await;
    assert_eq!(vcsim.test("GET /test/sessions").await, "0");
    // A read of a task comes first here; without a session it answers, with nothing in it.
    let off = vcenter.ensure_power(spec.id, PowerState::Off, Some(&TaskRef("task-1".into()))).await;
    assert_eq!(off.expect("a new session"), Progress::Done);
    assert_eq!(vcsim.calls("Login").await, 2);
    vcsim.test("POST /test/end-sessions").await;
    let seen = futures::future::join_all((0..20).map(|_| vcenter.observe_vm(spec.id))).await;
    assert!(seen.iter().all(|seen| matches!(seen, Ok(Some(_)))), "{seen:?}");
    assert_eq!(vcsim.calls("Login").await, 3);

    // The same for a call that changes something.
    vcsim.test("POST /test/fault?method=PowerOnVM_Task&count=1&type=NotAuthenticated").await;
    power(&vcenter, spec.id, PowerState::On).await;
    assert_eq!(vcsim.calls("Login").await, 4);
    // That one was alive, so the simulator still has it.
    assert_eq!(vcsim.test("GET /test/sessions").await, "2");

    vcenter.close().await;
    assert_eq!(vcsim.test("GET /test/sessions").await, "1");
    let fault = vcenter.observe_vm(spec.id).await.expect_err("closed");
    assert_eq!(fault.class, FaultClass::Retry);
    assert_eq!(vcsim.calls("Login").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_idle_too_long_is_replaced() {
    let Some(vcsim) = Vcsim::start(&["-plain", "-session-idle", "2s"]).await else { return };
    let vcenter = vcsim.connect();
    for logins in 1..=2 {
        vcenter.observe_templates().await.expect("templates");
        assert_eq!(vcsim.calls("Login").await, logins);
        let mut looks = 0..600;
        while vcsim.test("GET /test/sessions").await != "0" {
            looks.next().expect("the vCenter ends it");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What is asked in the table of faults.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Create,
    Start,
    ShutDown,
    Grow,
    Keep,
    Open,
    Destroy,
}

impl Ask {
    fn method(self) -> &'static str {
        match self {
            Self::Create => "CloneVM_Task",
            Self::Start => "PowerOnVM_Task",
            Self::ShutDown => "ShutdownGuest",
            Self::Grow => "ReconfigVM_Task",
            Self::Keep => "CreateSnapshot_Task",
            Self::Open => "AcquireTicket",
            Self::Destroy => "Destroy_Task",
        }
    }

    async fn of(self, vcenter: &VCenter, spec: &VmSpec, task: Option<&TaskRef>) -> Result<Progress, Fault> {
        let larger = Size { cpu_count: 4, ..spec.size };
        let snapshot = SnapshotSpec { id: SnapshotId(spec.id.0), display_name: "kept".into() };
        match self {
            Self::Create => vcenter.ensure_vm(spec, task).await,
            Self::Start => vcenter.ensure_power(spec.id, PowerState::On, task).await,
            Self::ShutDown => vcenter.ask_to_shut_down(spec.id).await.map(|()| Progress::Done),
            Self::Grow => vcenter.ensure_size(spec.id, &larger, task).await,
            Self::Keep => vcenter.ensure_snapshot(spec.id, &snapshot, task).await,
            Self::Open => vcenter.open_console(spec.id).await.map(|_| Progress::Done),
            Self::Destroy => vcenter.ensure_absent(&identity(spec), task).await,
        }
    }
}

/// A fault that is injected, and what the first call that meets it gives: a class with its reason, or nothing where it
/// does not matter. All but the final ones are then asked again, and come to their end.
#[tokio::test(flavor = "multi_thread")]
async fn faults_have_their_class() {
    use Ask::{Create, Destroy, Grow, Keep, Open, ShutDown, Start};
    use FaultClass::{Capacity, Conflict, Guest, Permanent, PowerOff, Retry, Unknown};
    const BUSY: Option<(FaultClass, &str)> = Some((Retry, "HYPERVISOR_BUSY"));
    const DOWN: Option<(FaultClass, &str)> = Some((Retry, "HYPERVISOR_UNAVAILABLE"));
    const CHANGED: Option<(FaultClass, &str)> = Some((Retry, "HYPERVISOR_CHANGED"));
    const SILENT: Option<(FaultClass, &str)> = Some((Unknown, "HYPERVISOR_NO_ANSWER"));
    const FULL: Option<(FaultClass, &str)> = Some((Capacity, "HYPERVISOR_FULL"));
    const REFUSED: Option<(FaultClass, &str)> = Some((Permanent, "HYPERVISOR_REFUSED"));
    const DENIED: Option<(FaultClass, &str)> = Some((Permanent, "HYPERVISOR_PERMISSION_DENIED"));
    const TAKEN: Option<(FaultClass, &str)> = Some((Conflict, "HYPERVISOR_NAME_TAKEN"));
    const RESTART: Option<(FaultClass, &str)> = Some((PowerOff, "RESTART_NEEDED"));
    const TOOLS: Option<(FaultClass, &str)> = Some((Guest, "GUEST_TOOLS_UNAVAILABLE"));
    let table = [
        // Log in again.
        (Start, "fault", "NotAuthenticated", None),
        (Grow, "fault", "NotAuthenticated", None),
        (Open, "fault", "NotAuthenticated", None),
        // Try again: it was not accepted, or its task ended so.
        (Start, "fault", "TaskInProgress", BUSY),
        (Start, "fail", "TaskInProgress", BUSY),
        (Create, "fault", "ConcurrentAccess", BUSY),
        (Keep, "fail", "ConcurrentAccess", BUSY),
        (Grow, "fault", "ResourceInUse", BUSY),
        (Destroy, "fail", "ResourceInUse", BUSY),
        (Destroy, "fault", "VAppTaskInProgress", BUSY),
        (Create, "fail", "HostCommunication", DOWN),
        (Start, "refuse", "503", DOWN),
        (Create, "refuse", "503", DOWN),
        // What became of it has to be found out.
        (Create, "lose", "EOF", SILENT),
        (Keep, "lose", "EOF", SILENT),
        (Grow, "lose", "time-out&ms=1200", SILENT),
        (Destroy, "lose", "time-out&ms=1200", SILENT),
        // It was so, or is gone.
        (Start, "fault", "InvalidPowerState&requested=poweredOn&existing=poweredOn", None),
        (Start, "fail", "InvalidPowerState&requested=poweredOn&existing=poweredOn", None),
        (Destroy, "fault", "ManagedObjectNotFound", None),
        // Its place is taken, and not by it.
        (Create, "fault", "DuplicateName", TAKEN),
        (Create, "fail", "DuplicateName", TAKEN),
        (Create, "fail", "FileAlreadyExists", TAKEN),
        // It is looked up again.
        (Create, "fault", "ManagedObjectNotFound", CHANGED),
        (Create, "fail", "ManagedObjectNotFound", CHANGED),
        (Start, "fault", "ManagedObjectNotFound", CHANGED),
        (Keep, "fail", "ManagedObjectNotFound", CHANGED),
        // It can never work, and somebody can do something about it.
        (Create, "fault", "NoPermission", DENIED),
        (Start, "fail", "NoPermission", DENIED),
        (Open, "fault", "NoPermission", DENIED),
        (Create, "fail", "InvalidArgument", REFUSED),
        (Keep, "fault", "NotSupported", REFUSED),
        // There is no room.
        (Create, "fail", "NoDiskSpace", FULL),
        (Create, "fault", "InsufficientResourcesFault", FULL),
        (Start, "fail", "InsufficientMemoryResourcesFault", FULL),
        // It does not go while the VM runs, or its guest is not there to be asked.
        (Grow, "fail", "CpuHotPlugNotSupported", RESTART),
        (Grow, "fault", "InvalidPowerState&requested=poweredOff&existing=poweredOn", RESTART),
        (ShutDown, "fault", "ToolsUnavailable", TOOLS),
    ];
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let config = Config { request_timeout_seconds: 3, ..vcsim.config() };
    let vcenter = VCenter::connect(config).expect("good settings");
    for (number, (ask, how, kind, expected)) in table.into_iter().enumerate() {
        let row = format!("{ask:?} {how} {kind}");
        let spec = spec(&format!("row-{number}"));
        if !matches!(ask, Create) {
            create(&vcenter, &spec).await;
        }
        if matches!(ask, ShutDown | Open) {
            power(&vcenter, spec.id, PowerState::On).await;
        }
        vcsim.test(&format!("POST /test/{how}?method={}&count=1&type={kind}", ask.method())).await;
        let mut first = None;
        let end = drive_every(Duration::from_millis(20), async |task| {
            let answer = ask.of(&vcenter, &spec, task).await;
            if let Err(fault) = &answer {
                first.get_or_insert((fault.class, fault.reason));
            }
            answer
        })
        .await;
        assert_eq!(first, expected, "{row}");
        let is_final = expected.is_some_and(|(class, _)| !matches!(class, Retry | Unknown));
        assert_eq!(end.is_err(), is_final, "{row}: {end:?}");
        let there = vcsim.machines().await.iter().filter(|machine| machine.marker == spec.id.to_string()).count();
        let gone = matches!(ask, Destroy) || matches!(ask, Create) && is_final;
        assert_eq!(there, usize::from(!gone), "{row}");
    }
    assert_eq!(vcsim.calls("Login").await, 4, "once, and again for each session that had ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_is_just_powered_on_is_destroyed_after_that() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let (vcenter, spec) = (vcsim.connect(), spec("rising"));
    create(&vcenter, &spec).await;
    vcsim.test("POST /test/slow?method=PowerOnVM_Task&count=1&ms=1500").await;
    let rising = vcenter.ensure_power(spec.id, PowerState::On, None).await.expect("started");
    let Progress::Running { task: Some(rising), .. } = rising else { panic!("{rising:?}") };
    let first = vcenter.ensure_absent(&identity(&spec), None).await.expect("awaited");
    assert!(matches!(first, Progress::Running { task: Some(task), .. } if task == rising));
    drive(async |task| vcenter.ensure_absent(&identity(&spec), task).await).await;
    assert!(vcsim.machines().await.iter().all(|machine| machine.marker != spec.id.to_string()));
    assert_eq!((vcsim.calls("PowerOffVM_Task").await, vcsim.calls("Destroy_Task").await), (1, 1));

    // What powers it on in between is no reason to leave it there.
    for how in ["fail", "fault"] {
        let fault = "type=InvalidPowerState&requested=poweredOff&existing=poweredOn";
        vcsim.test(&format!("POST /test/{how}?method=Destroy_Task&count=1&{fault}")).await;
        create(&vcenter, &spec).await;
        destroy(&vcenter, &identity(&spec)).await;
    }
    assert_eq!(vcsim.calls("Destroy_Task").await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_on_its_way_down_is_not_asked_again() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let (vcenter, spec) = (vcsim.connect(), spec("sleepy"));
    create(&vcenter, &spec).await;
    power(&vcenter, spec.id, PowerState::On).await;
    vcsim.test(&format!("POST /test/guest?uuid={}&state=shuttingDown", spec.id)).await;
    vcsim.test(&format!("POST /test/tools?uuid={}&running=false", spec.id)).await;
    vcenter.ask_to_shut_down(spec.id).await.expect("its tools are gone since it does what it was asked to");
    assert_eq!(vcsim.calls("ShutdownGuest").await, 0);
    // Whoever takes the wish back learns what becomes of it, not what is still to be seen.
    assert_ne!(vcenter.ensure_idle(spec.id, None).await.expect("awaited"), Progress::Done);
    power(&vcenter, spec.id, PowerState::Off).await;
    assert_eq!(vcenter.ensure_idle(spec.id, None).await.expect("it is off"), Progress::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_vm_grows_only_where_its_template_allows_it() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let (vcenter, spec) = (vcsim.connect(), spec("fixed"));
    create(&vcenter, &spec).await;
    power(&vcenter, spec.id, PowerState::On).await;
    for larger in [Size { cpu_count: 4, ..spec.size }, Size { memory_mib: 4096, ..spec.size }] {
        let fault = vcenter.ensure_size(spec.id, &larger, None).await.expect_err("it runs");
        assert_eq!((fault.class, fault.reason), (FaultClass::PowerOff, "RESTART_NEEDED"));
    }
    let larger = Size { disk_gib: 30, ..spec.size };
    drive(async |task| vcenter.ensure_size(spec.id, &larger, task).await).await;
    // A snapshot's disk is the parent of the present one.
    let snapshot = SnapshotSpec { id: SnapshotId::new(), display_name: "kept".into() };
    drive(async |task| vcenter.ensure_snapshot(spec.id, &snapshot, task).await).await;
    let fault = vcenter.ensure_size(spec.id, &Size { disk_gib: 40, ..spec.size }, None).await.expect_err("it has one");
    assert_eq!((fault.class, fault.reason), (FaultClass::Permanent, "VM_HAS_SNAPSHOTS"));
}

#[tokio::test(flavor = "multi_thread")]
async fn news_of_tasks_saves_reads() {
    let Some(vcsim) = Vcsim::start(&["-plain", "-clone-delay-min", "2500ms"]).await else { return };
    let (vcenter, spec) = (vcsim.connect(), spec("patient"));
    let Ok(Progress::Running { task: Some(task), .. }) = vcenter.ensure_vm(&spec, None).await else {
        panic!("not started");
    };
    // The first look is a read, and starts the loop.
    vcenter.ensure_vm(&spec, Some(&task)).await.expect("under way");
    while vcsim.calls("WaitForUpdatesEx").await < 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let reads = vcsim.calls("RetrievePropertiesEx").await;
    for _ in 0..50 {
        assert!(matches!(vcenter.ensure_vm(&spec, Some(&task)).await, Ok(Progress::Running { .. })));
    }
    assert_eq!(vcsim.calls("RetrievePropertiesEx").await, reads, "the loop has told");
    drive(async |_| vcenter.ensure_vm(&spec, Some(&task)).await).await;
    assert_eq!((vcsim.calls("CloneVM_Task").await, vcsim.machines().await.len()), (1, 1));
    vcenter.close().await;
    assert_eq!(vcsim.test("GET /test/sessions").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_news_tasks_are_read() {
    let Some(vcsim) = Vcsim::start(&["-plain", "-clone-delay-min", "700ms"]).await else { return };
    vcsim.test("POST /test/refuse?method=WaitForUpdatesEx&count=1000").await;
    let vcenter = vcsim.connect();
    create(&vcenter, &spec("deaf")).await;
    // And where the session of the loop ends while it waits.
    vcsim.test("POST /test/refuse?method=WaitForUpdatesEx&count=0").await;
    let (other, spec) = (vcsim.connect(), spec("interrupted"));
    let Ok(Progress::Running { task: Some(task), .. }) = other.ensure_vm(&spec, None).await else {
        panic!("not started");
    };
    other.ensure_vm(&spec, Some(&task)).await.expect("under way");
    tokio::time::sleep(Duration::from_millis(300)).await;
    vcsim.test("POST /test/end-sessions").await;
    drive(async |_| other.ensure_vm(&spec, Some(&task)).await).await;
    assert_eq!(vcsim.machines().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_for_a_medium_hangs_on_the_network_of_the_settings() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let medium =
        |name: &str| VmSpec { template: TemplateRef(NETINST.to_owned()), kind: TemplateKind::Iso, ..spec(name) };
    for network in ["VM Network", "DC0_DVPG0"] {
        let config = Config { network: Some(network.to_owned()), ..vcsim.config() };
        let vcenter = VCenter::connect(config).expect("good settings");
        create(&vcenter, &medium(network)).await;
    }
    for network in ["none", "DVS0-DVUplinks-9"] {
        let config = Config { network: Some(network.to_owned()), ..vcsim.config() };
        let vcenter = VCenter::connect(config).expect("good settings");
        let fault = vcenter.ensure_vm(&medium("astray"), None).await.expect_err("no such network");
        assert_eq!(fault.reason, "HYPERVISOR_MISCONFIGURED");
        assert!(fault.detail.starts_with("network"), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_do_not_fit_say_which_what_was_given_and_what_there_is() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let some = |name: &str| Some(name.to_owned());
    for (key, given, there_is, config) in [
        ("datacenter", "none", "DC0", Config { datacenter: some("none"), ..vcsim.config() }),
        ("datacenter", "/F/none", "DC0", Config { datacenter: some("/F/none"), ..vcsim.config() }),
        ("resource_pool", "none", "DC0_C0", Config { resource_pool: some("none"), ..vcsim.config() }),
        (
            "resource_pool",
            "/DC0/host/none/Resources",
            "DC0_C0",
            Config { resource_pool: some("/DC0/host/none/Resources"), ..vcsim.config() },
        ),
        ("resource_pool", "DC0_C0/none", "Resources", Config { resource_pool: some("DC0_C0/none"), ..vcsim.config() }),
        ("datastore", "none", "LocalDS_0", Config { datastore: some("none"), ..vcsim.config() }),
        ("network", "none", "VM Network", Config { network: some("none"), ..vcsim.config() }),
        ("template_folder", "none", "templates", Config { template_folder: "none".into(), ..vcsim.config() }),
        (
            "template_folder",
            "/DC0/vm/templates/none",
            "the account sees none there",
            Config { template_folder: "/DC0/vm/templates/none".into(), ..vcsim.config() },
        ),
        (
            "vm_folder",
            "/DC9/vm/vms",
            "templates, virtualstack",
            Config { vm_folder: "/DC9/vm/vms".into(), ..vcsim.config() },
        ),
    ] {
        let vcenter = VCenter::connect(config).expect("good settings");
        assert_eq!(vcenter.misfit(), None, "nothing is known yet");
        let fault = vcenter.observe_templates().await.expect_err("refused");
        assert_eq!((fault.class, fault.reason), (FaultClass::Permanent, "HYPERVISOR_MISCONFIGURED"));
        assert!(fault.detail.starts_with(&format!("{key} {given:?}: ")), "{fault}");
        assert!(fault.detail.contains(there_is), "{fault}");
        assert_eq!(vcenter.misfit(), Some(format!("vcenter.{}", fault.detail)));
        vcenter.close().await;
    }
    assert_eq!(vcsim.calls("CreateFolder").await, 0, "no folder is made for a path that leads elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn places_are_named_by_paths_as_govc_shows_them_and_by_names() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    for (datacenter, vms, templates, pool, datastore, network) in [
        (
            "/DC0",
            "/DC0/vm/virtualstack",
            "/DC0/vm/templates",
            "/DC0/host/DC0_C0/Resources",
            "/DC0/datastore/LocalDS_0",
            "/DC0/network/VM Network",
        ),
        (
            "DC0",
            "DC0/vm/virtualstack",
            "DC0/vm/templates",
            "/DC0/host/DC0_C0",
            "DC0/datastore/LocalDS_0",
            "DC0/network/DC0_DVPG0",
        ),
        ("DC0", "virtualstack", "templates", "DC0_C0/Resources", "LocalDS_0", "VM Network"),
        ("DC0", "/virtualstack", "/templates/", "DC0_C0", "LocalDS_0", "DC0_DVPG0"),
    ] {
        let config = Config {
            datacenter: Some(datacenter.to_owned()),
            vm_folder: vms.to_owned(),
            template_folder: templates.to_owned(),
            resource_pool: Some(pool.to_owned()),
            datastore: Some(datastore.to_owned()),
            network: Some(network.to_owned()),
            ..vcsim.config()
        };
        let vcenter = VCenter::connect(config).expect("good settings");
        vcenter.check_settings().await.unwrap_or_else(|fault| panic!("{vms}: {fault}"));
        assert_eq!(vcenter.misfit(), None);
        let found = vcenter.observe_templates().await.expect("templates");
        let kinds =
            [TemplateKind::Ova, TemplateKind::Iso].map(|kind| found.iter().filter(|found| found.kind == kind).count());
        assert_eq!(kinds, [3, 2], "media lie in a folder of the same name: {templates}");
        let medium = VmSpec { template: TemplateRef(NETINST.to_owned()), kind: TemplateKind::Iso, ..spec("medium") };
        create(&vcenter, &medium).await;
        vcenter.close().await;
    }
    assert_eq!(vcsim.calls("CreateFolder").await, 0, "every folder was there");
    // A folder of ours is made, below the datacenter's.
    let config = Config { vm_folder: "/DC0/vm/tenants/vms".into(), ..vcsim.config() };
    let vcenter = VCenter::connect(config).expect("good settings");
    create(&vcenter, &spec("elsewhere")).await;
    assert_eq!(vcsim.calls("CreateFolder").await, 2);
    vcenter.close().await;
    assert_eq!(vcsim.test("GET /test/sessions").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vcenter_that_is_down_is_waited_for() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let (vcenter, spec, address) = (vcsim.connect(), spec("survivor"), vcsim.address().to_owned());
    create(&vcenter, &spec).await;
    drop(vcsim);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let fault = vcenter.ensure_vm(&spec, None).await.expect_err("down");
    assert_eq!(fault.class, FaultClass::Retry, "{fault}");

    // It comes back as another machine would: without our session, and without our VM.
    let folder = std::env::temp_dir().join(format!("vcsim-test-{}", VmId::new()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let vcsim = Vcsim::start_in(folder, &["-plain", "-listen", &address]).await.expect("started before");
    assert_eq!(vcenter.observe_vm(spec.id).await.expect("up"), None);
    create(&vcenter, &spec).await;
    assert_eq!(vcsim.machines().await.len(), 1);
    vcenter.close().await;
}

/// A client that renames things, as an administrator does.
struct Administrator {
    client: Rest,
    cookie: String,
}

impl Administrator {
    async fn sign_in(vcsim: &Vcsim) -> Self {
        let client = Rest::new(&format!("http://{}", vcsim.address()), None);
        let mut administrator = Self { client, cookie: String::new() };
        let (user, password) = vcsim.credentials();
        let login = format!(
            "<Login xmlns=\"urn:vim25\"><_this type=\"SessionManager\">SessionManager</_this>\
             <userName>{user}</userName><password>{password}</password></Login>"
        );
        administrator.cookie = administrator.call(&login).await.1;
        administrator
    }

    /// The reply, and the cookie that it sets.
    async fn call(&self, body: &str) -> (String, String) {
        let envelope =
            format!("<Envelope xmlns=\"http://schemas.xmlsoap.org/soap/envelope/\"><Body>{body}</Body></Envelope>");
        let request =
            self.client.request("POST", "/sdk").header("cookie", &self.cookie).header("content-type", "text/xml");
        let reply = request.body(envelope).send().await.expect("a reply");
        let cookie = reply.headers().get("set-cookie").and_then(|cookie| cookie.to_str().ok()?.split(';').next());
        let cookie = cookie.unwrap_or_default().to_owned();
        assert_eq!(reply.status(), 200, "{body}");
        let bytes = reply.bytes().await.expect("a body");
        (String::from_utf8(bytes.to_vec()).expect("text"), cookie)
    }

    /// Gives what is at a path another name, as a vCenter writes it.
    async fn rename(&self, path: &str, name: &str) {
        let find = format!(
            "<FindByInventoryPath xmlns=\"urn:vim25\"><_this type=\"SearchIndex\">SearchIndex</_this>\
             <inventoryPath>{path}</inventoryPath></FindByInventoryPath>"
        );
        let (found, _) = self.call(&find).await;
        let found = found.split("<returnval").nth(1).unwrap_or_else(|| panic!("{path}: {found}"));
        let kind = found.split('"').nth(1).expect("a type");
        let id = found.split(['>', '<']).nth(1).expect("an id");
        let rename = format!(
            "<Rename_Task xmlns=\"urn:vim25\"><_this type=\"{kind}\">{id}</_this><newName>{name}</newName></Rename_Task>"
        );
        self.call(&rename).await;
    }
}

/// A vCenter writes some characters of names as escapes. People see them, and say them in settings, as they are, or as tools
/// show them.
#[tokio::test(flavor = "multi_thread")]
async fn names_are_as_people_gave_them() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let administrator = Administrator::sign_in(&vcsim).await;
    administrator.rename("DC0/vm/templates/debian-12", "debian%2f12 %5c 50%25").await;
    administrator.rename("DC0/vm/templates", "templates 50%25").await;
    administrator.rename("DC0/vm/virtualstack", "our%2fVMs").await;
    let config =
        Config { template_folder: "templates 50%".to_owned(), vm_folder: "our%2FVMs".to_owned(), ..vcsim.config() };
    let vcenter = VCenter::connect(config).expect("good settings");
    let templates = vcenter.observe_templates().await.expect("templates");
    let names: Vec<_> = templates.iter().map(|template| template.display_name.as_str()).collect();
    assert!(names.contains(&r"debian/12 \ 50%"), "{names:?}");
    let spec = spec("web-1");
    create(&vcenter, &spec).await;
    assert!(vcenter.observe_vm(spec.id).await.expect("observed").is_some());
    // It is in the folder that there was.
    assert_eq!(vcsim.calls("CreateFolder").await, 0);
}
