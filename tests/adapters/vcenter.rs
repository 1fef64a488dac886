//! What is the vCenter adapter's own, over the wire: sessions, crowds, settings, the faults that a vCenter has.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtualstack_model::id::{OperationId, TenantId, VmId};
use virtualstack_model::template::TemplateKind;
use virtualstack_model::vm::{PowerState, Size};
use virtualstack_worker::adapters::hypervisor::vcenter::{Config, VCenter};
use virtualstack_worker::adapters::hypervisor::{
    Fault, FaultClass, Hypervisor, Progress, TaskRef, TemplateRef, VmIdentity, VmSpec,
};

use super::conformance::drive_every;
use super::vcsim::{DEBIAN, NETINST, Vcsim};

fn spec(name: &str) -> VmSpec {
    VmSpec {
        id: VmId::new(),
        tenant: TenantId::new(),
        operation: OperationId::new(),
        display_name: name.to_owned(),
        template: TemplateRef(DEBIAN.to_owned()),
        kind: TemplateKind::Ova,
        size: Size { cpu_count: 2, memory_mib: 2048, disk_gib: 16 },
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
    let calls = specs.iter().cloned().map(|spec| {
        let killed = Arc::clone(&killed);
        tokio::spawn(async move { killed.ensure_vm(&spec, None).await })
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
    let Some(vcsim) = Vcsim::start(&["-plain", "-session-idle", "300ms"]).await else { return };
    let vcenter = vcsim.connect();
    for logins in 1..=2 {
        vcenter.observe_templates().await.expect("templates");
        assert_eq!(vcsim.calls("Login").await, logins);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(vcsim.test("GET /test/sessions").await, "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_have_their_class() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let (vcenter, spec) = (vcsim.connect(), spec("unlucky"));
    for (kind, class) in [
        ("InsufficientResourcesFault", FaultClass::Capacity),
        ("NoPermission", FaultClass::Permanent),
        ("ResourceInUse", FaultClass::Retry),
        ("ManagedObjectNotFound", FaultClass::Retry),
    ] {
        vcsim.test(&format!("POST /test/fault?method=CloneVM_Task&count=1&type={kind}")).await;
        assert_eq!(vcenter.ensure_vm(&spec, None).await.expect_err("refused").class, class, "{kind}");
    }
    vcsim.test("POST /test/refuse?method=CloneVM_Task&count=1").await;
    assert_eq!(vcenter.ensure_vm(&spec, None).await.expect_err("503").class, FaultClass::Retry);
    let spec = VmSpec { template: TemplateRef(VmId::new().to_string()), ..spec };
    assert_eq!(vcenter.ensure_vm(&spec, None).await.expect_err("no template").reason, "TEMPLATE_GONE");
    assert!(vcsim.machines().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_do_not_fit_are_named() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let some = |name: &str| Some(name.to_owned());
    for (key, config) in [
        ("datacenter", Config { datacenter: some("none"), ..vcsim.config() }),
        ("resource_pool", Config { resource_pool: some("none"), ..vcsim.config() }),
        ("datastore", Config { datastore: some("none"), ..vcsim.config() }),
        ("template_folder", Config { template_folder: "none".into(), ..vcsim.config() }),
    ] {
        let vcenter = VCenter::connect(config).expect("good settings");
        let fault = vcenter.observe_templates().await.expect_err("refused");
        assert_eq!((fault.class, fault.reason), (FaultClass::Permanent, "HYPERVISOR_MISCONFIGURED"));
        assert!(fault.detail.starts_with(key), "{fault}");
        vcenter.close().await;
    }
    let config = Config {
        datacenter: some("/DC0"),
        vm_folder: "tenants/vms".into(),
        resource_pool: some("DC0_C0/Resources"),
        datastore: some("LocalDS_0"),
        ..vcsim.config()
    };
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
