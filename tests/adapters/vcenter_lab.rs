//! The vCenter adapter in its lab, which is vcsim.

use async_trait::async_trait;
use virtualstack_model::compute::id::{TemplateId, VmId};
use virtualstack_worker::adapters::hypervisor::{Hypervisor, TemplateRef, VmSpec};

use super::conformance::{Change, InjectedFault, Lab, SLOW, run};
use super::import_conformance;
use super::vcsim::{Machine, NETINST, UBUNTU, Vcsim};

impl Vcsim {
    async fn machine(&self, vm: VmId) -> Option<Machine> {
        self.machines().await.into_iter().find(|machine| machine.instance_uuid == vm.to_string())
    }
}

fn method(change: Change) -> &'static str {
    match change {
        Change::CreateFromTemplate => "CloneVM_Task",
        Change::CreateFromMedium => "CreateVM_Task",
        Change::PowerOn => "PowerOnVM_Task",
        Change::Resize => "ReconfigVM_Task",
        Change::Snapshot => "CreateSnapshot_Task",
        Change::Destroy => "Destroy_Task",
    }
}

#[async_trait]
impl Lab for Vcsim {
    async fn adapter(&self) -> Box<dyn Hypervisor> {
        Box::new(self.connect())
    }

    async fn troubled(&self, trouble: InjectedFault) -> Box<dyn Hypervisor> {
        let request = match trouble {
            InjectedFault::LostReply(change) => format!("lose?method={}&count=1", method(change)),
            InjectedFault::Slow(change) => format!("slow?method={}&count=1&ms={}", method(change), SLOW.as_millis()),
            InjectedFault::Busy(change) => format!("fault?method={}&count=1&type=TaskInProgress", method(change)),
            InjectedFault::Failing(change) => {
                format!("fail?method={}&count=1&type=GenericVmConfigFault", method(change))
            }
        };
        self.test(&format!("POST /test/{request}")).await;
        self.adapter().await
    }

    fn template(&self) -> TemplateRef {
        TemplateRef(UBUNTU.to_owned())
    }

    fn medium(&self) -> TemplateRef {
        TemplateRef(NETINST.to_owned())
    }

    async fn count(&self, vm: VmId) -> usize {
        let id = vm.to_string();
        self.machines().await.iter().filter(|machine| machine.instance_uuid == id || machine.marker == id).count()
    }

    async fn imports(&self, template: TemplateId) -> usize {
        let id = template.to_string();
        let mut machines = self.machines().await;
        machines.extend(self.templates().await);
        // A VM that was made from it bears its marker too.
        machines.retain(|machine| machine.instance_uuid == id || machine.name.ends_with(&id));
        machines.len() + self.files().await.keys().filter(|path| path.contains(&id)).count()
    }

    async fn snapshots(&self, vm: VmId) -> usize {
        self.machine(vm).await.map_or(0, |machine| machine.snapshots.len())
    }

    async fn lose(&self, vm: VmId) {
        self.test(&format!("POST /test/forget?uuid={vm}")).await;
    }

    async fn lose_snapshots(&self, vm: VmId) {
        self.test(&format!("POST /test/drop-snapshots?uuid={vm}")).await;
    }

    async fn stop_tools(&self, vm: VmId) {
        self.test(&format!("POST /test/tools?uuid={vm}&running=false")).await;
    }

    async fn put_foreign(&self, spec: &VmSpec) {
        self.test(&format!("POST /test/foreign?name={}-{}", spec.display_name.replace(' ', "-"), spec.id)).await;
    }

    /// Nothing: tests/vcsim does by itself what govmomi's simulator lacks.
    fn cannot_show(&self) -> &[(&str, &str)] {
        &[]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    run(&vcsim).await;
    let machines = vcsim.machines().await;
    let from_media: Vec<_> = machines.iter().filter(|machine| !machine.medium.is_empty()).collect();
    assert!(!from_media.is_empty() && from_media.iter().all(|machine| machine.medium == NETINST), "{from_media:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_imports_conform() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    import_conformance::run(&vcsim).await;
}
