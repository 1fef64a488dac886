//! What is the vCenter adapter's own in imports: how disks travel, whose a template is, and what goes wrong on the way.

use tokio::net::TcpListener;
use virtualstack_model::compute::customization::GuestCustomization;
use virtualstack_model::compute::template::TemplateKind;
use virtualstack_model::compute::vm::Size;
use virtualstack_worker::adapters::hypervisor::import::{Content, ImportSpec};
use virtualstack_worker::adapters::hypervisor::{Fault, FaultClass, Hypervisor, TemplateRef, VmSpec};

use super::conformance::{Lab, create, spec};
use super::images::{Image, Packing, appliance, descriptor, item, medium};
use super::import_conformance::{Attended, import_once};
use super::vcsim::{UBUNTU, Vcsim};

/// A template of the simulator with Windows.
const WINDOWS: &str = "5027a1de-0000-4000-8000-000000002022";

async fn failing(vcsim: &Vcsim, (spec, image): (ImportSpec, Image)) -> Fault {
    let vcenter = vcsim.connect();
    let fault = import_once(&vcenter, &spec, &image, None).await.expect_err("it cannot work");
    assert_eq!(vcsim.imports(spec.id).await, 0, "nothing is left: {fault}");
    assert!(!fault.detail.is_empty() && fault.message.len() > 20, "{fault}");
    fault
}

fn ova() -> (ImportSpec, Image) {
    appliance(&[3], Packing::Plain)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_bears_our_marks_and_its_disks_come_as_a_vcenter_wants_them() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let (spec, image) = appliance(&[3, 2], Packing::Plain);
    let imported = import_once(&vcsim.connect(), &spec, &image, None).await.expect("imported");
    let templates = vcsim.templates().await;
    let template = templates.iter().find(|found| found.instance_uuid == spec.id.to_string()).expect("a template");
    assert_eq!(imported.reference, TemplateRef(spec.id.to_string()));
    assert_eq!(template.name, format!("our-debian-{}", spec.id));
    for (key, value) in [
        ("virtualstack.templateId", spec.id.to_string()),
        ("virtualstack.tenantId", spec.tenant.to_string()),
        ("virtualstack.operationId", spec.operation.to_string()),
    ] {
        assert_eq!(template.settings.get(key), Some(&value), "{key}");
    }
    assert_eq!(template.disks_kib, [3 << 20, 2 << 20]);
    let uploads = vcsim.uploads().await;
    assert_eq!(uploads.len(), 2);
    for upload in uploads {
        assert_eq!(
            (upload.method.as_str(), upload.content_type.as_str()),
            ("POST", "application/x-vnd.vmware-streamVmdk")
        );
    }
    assert_eq!((vcsim.calls("HttpNfcLeaseComplete").await, vcsim.calls("HttpNfcLeaseAbort").await), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_medium_lies_in_its_tenants_folder_and_has_its_name_when_it_is_whole() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let (spec, image) = medium();
    let imported = import_once(&vcsim.connect(), &spec, &image, None).await.expect("imported");
    let path = format!("templates/tenants/{}/our-debian-{}.iso", spec.tenant, spec.id);
    assert_eq!(imported.reference, TemplateRef(format!("[LocalDS_0] {path}")));
    let Content::Iso { size } = spec.content else { panic!("a medium") };
    assert_eq!(vcsim.files().await.get(&path), Some(&size));
    let uploads = vcsim.uploads().await;
    assert_eq!((uploads.len(), uploads[0].method.as_str()), (1, "PUT"));
    assert!(uploads[0].path.ends_with(".iso.part"), "{uploads:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_trusted_by_the_thumbprint_that_the_vcenter_tells() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    vcsim.test("POST /test/host?").await;
    let (spec, image) = ova();
    import_once(&vcsim.connect(), &spec, &image, None).await.expect("its certificate is pinned");
    assert_eq!(vcsim.uploads().await.len(), 1);

    vcsim.test("POST /test/host?thumbprint=00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33").await;
    let fault = failing(&vcsim, ova()).await;
    assert_eq!((fault.class, fault.reason), (FaultClass::Permanent, "HYPERVISOR_WRONG_THUMBPRINT"));
    assert!(fault.detail.contains("expected 00:11:22") && fault.detail.contains("met "), "{fault}");
    assert_eq!(vcsim.uploads().await.len(), 1, "whoever else is there got nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_thumbprint_is_told_the_authorities_of_the_settings_count() {
    let Some(vcsim) = Vcsim::start(&[]).await else { return };
    let vcenter = vcsim.connect();
    for (spec, image) in [ova(), medium()] {
        let imported = import_once(&vcenter, &spec, &image, None).await.expect("imported");
        let templates = vcenter.observe_templates().await.expect("templates");
        assert!(templates.iter().any(|template| template.reference == imported.reference));
    }
    vcenter.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_cannot_be_reached_is_told() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    vcsim.test(&format!("POST /test/host?url=https://{closed}")).await;
    let fault = failing(&vcsim, ova()).await;
    assert_eq!((fault.class, fault.reason), (FaultClass::Retry, "HYPERVISOR_HOST_UNREACHABLE"));
    assert!(fault.detail.contains("refused"), "{fault}");
    vcsim.test("POST /test/host?url=http://esx1.test").await;
    let fault = failing(&vcsim, ova()).await;
    assert_eq!((fault.class, fault.reason), (FaultClass::Permanent, "HYPERVISOR_MISCONFIGURED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_takes_nothing_keeps_nobody_from_stopping() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    vcsim.test(&format!("POST /test/host?url=http://{}", silent.local_addr().expect("an address"))).await;
    let ((spec, image), vcenter, attended) = (ova(), vcsim.connect(), Attended::new());
    let (outcome, _) = tokio::join!(vcenter.import_template(&spec, &image, &attended.attendance, None), async {
        let visitor = silent.accept().await.expect("a visitor");
        attended.stop.cancel();
        visitor
    });
    assert_eq!(outcome.expect_err("stopped").reason, "IMPORT_STOPPED");
    assert!(attended.stored().is_some_and(|task| task.0.starts_with("lease:")));
    assert_eq!(vcsim.imports(spec.id).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_and_a_connection_that_breaks_are_told() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    for file in [ova, medium] {
        for status in [507, 500] {
            vcsim.test(&format!("POST /test/upload?count=1&after=100000&status={status}")).await;
            let fault = failing(&vcsim, file()).await;
            assert_eq!((fault.class, fault.reason), (FaultClass::Capacity, "HYPERVISOR_FULL"), "{fault}");
            assert!(fault.detail.contains(&status.to_string()), "{fault}");
        }
        vcsim.test("POST /test/upload?count=1&after=100000&status=403").await;
        assert_eq!(failing(&vcsim, file()).await.reason, "HYPERVISOR_PERMISSION_DENIED");
        vcsim.test("POST /test/upload?count=1&after=100000").await;
        let fault = failing(&vcsim, file()).await;
        assert_eq!((fault.class, fault.reason), (FaultClass::Retry, "HYPERVISOR_UPLOAD_FAILED"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ends_is_told_by_what_ended_it() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    for (kind, class, reason) in [
        ("FileFault", FaultClass::Capacity, "HYPERVISOR_FULL"),
        ("NoDiskSpace", FaultClass::Capacity, "HYPERVISOR_FULL"),
        ("OvfConsumerFault", FaultClass::Invalid, "TEMPLATE_REFUSED"),
        ("HostCommunication", FaultClass::Retry, "HYPERVISOR_UPLOAD_FAILED"),
    ] {
        vcsim.test(&format!("POST /test/lease?type={kind}")).await;
        let fault = failing(&vcsim, ova()).await;
        assert_eq!((fault.class, fault.reason), (class, reason), "{kind}");
    }
    // With the session goes the lease, and nobody tells.
    let (spec, image) = ova();
    let (image, vcenter, attended) = (image.hanging(), vcsim.connect(), Attended::new());
    let (outcome, ()) = tokio::join!(vcenter.import_template(&spec, &image, &attended.attendance, None), async {
        image.hangs().await;
        vcsim.test("POST /test/end-sessions").await;
    });
    let fault = outcome.expect_err("lost");
    assert_eq!((fault.class, fault.reason), (FaultClass::Retry, "IMPORT_LEASE_LOST"), "{fault}");
    assert_eq!(vcsim.imports(spec.id).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_vcenter_does_not_take_is_told_in_its_words() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let (mut spec, image) = ova();
    let Content::Ova(appliance) = &mut spec.content else { panic!("an appliance") };
    appliance.descriptor = descriptor(&[3], &item(90, 99, ""));
    let fault = failing(&vcsim, (spec, image)).await;
    assert_eq!((fault.class, fault.reason), (FaultClass::Invalid, "TEMPLATE_REFUSED"));
    assert!(fault.message.contains("unsupported resource type: 99"), "{fault}");
    assert_eq!(vcsim.calls("ImportVApp").await, 0);

    let (mut spec, image) = appliance_with_a_broken_disk();
    spec.display_name = "broken".to_owned();
    let fault = failing(&vcsim, (spec, image)).await;
    assert_eq!((fault.class, fault.reason), (FaultClass::Invalid, "TEMPLATE_DISK_BROKEN"));
}

/// Its disk is said to be compressed, and is not.
fn appliance_with_a_broken_disk() -> (ImportSpec, Image) {
    let (mut spec, image) = ova();
    let Content::Ova(appliance) = &mut spec.content else { panic!("an appliance") };
    appliance.disks[0].gzip = true;
    (spec, image)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_to_the_import_is_made_good() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    for method in ["ImportVApp", "HttpNfcLeaseComplete", "MarkAsTemplate"] {
        let (spec, image) = ova();
        vcsim.test(&format!("POST /test/lose?method={method}&count=1")).await;
        let fault = import_once(&vcsim.connect(), &spec, &image, None).await.expect_err("lost");
        assert_eq!(fault.class, FaultClass::Unknown, "{method}: {fault}");
        import_once(&vcsim.connect(), &spec, &image, None).await.expect("imported");
        assert_eq!(vcsim.imports(spec.id).await, 1, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_told_what_its_vm_was_made_with() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let vcenter = vcsim.connect();
    let told = |template: &str, disk_gib| VmSpec {
        template: TemplateRef(template.to_owned()),
        kind: TemplateKind::Ova,
        size: Size { cpu_count: 2, memory_mib: 4096, disk_gib },
        customization: Some(GuestCustomization {
            hostname: "web-1".to_owned(),
            ssh_keys: vec!["ssh-ed25519 AAAA me".to_owned()],
            user_data: "#cloud-config\n".to_owned(),
        }),
        ..spec(&vcsim)
    };
    let (linux, windows) = (told(UBUNTU, 20), told(WINDOWS, 40));
    create(&vcenter, &linux).await;
    create(&vcenter, &windows).await;
    let machines = vcsim.machines().await;
    let settings = |vm: &VmSpec| {
        let machine = machines.iter().find(|machine| machine.instance_uuid == vm.id.to_string());
        &machine.expect("a machine").settings
    };
    assert_eq!(settings(&linux)["guestinfo.userdata"], "I2Nsb3VkLWNvbmZpZwo=");
    assert_eq!(settings(&linux)["guestinfo.metadata.encoding"], "base64");
    assert_eq!(settings(&windows)["test.computerName"], "web-1");
    assert!(!settings(&windows).contains_key("guestinfo.metadata"));
}
