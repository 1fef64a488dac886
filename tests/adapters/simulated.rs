//! The simulated hypervisor in its lab.

use async_trait::async_trait;
use virtualstack_model::compute::id::{TemplateId, VmId};
use virtualstack_store::compute::simulated::Simulation;
use virtualstack_worker::adapters::hypervisor::simulated::{Config, Machine, Simulated};
use virtualstack_worker::adapters::hypervisor::{FaultClass, Hypervisor, TemplateRef, VmSpec};

use super::conformance::{InjectedFault, Lab, SLOW, run};
use super::images::{Packing, appliance};
use super::import_conformance::{self, import_once};
use crate::support::Database;

struct Rows(Database);

impl Rows {
    fn with(&self, config: Config) -> Simulated {
        Simulated::new(Simulation::new(&self.0.config).expect("a simulation"), config)
    }

    async fn machine(&self, vm: VmId) -> Option<Machine> {
        let machines = self.with(quick()).machines().await.expect("machines");
        machines.into_iter().find(|machine| machine.id == vm)
    }
}

fn quick() -> Config {
    Config { create_ms: 20, power_ms: 10, shut_down_ms: 100, import_ms: 10, ..Config::default() }
}

#[async_trait]
impl Lab for Rows {
    async fn adapter(&self) -> Box<dyn Hypervisor> {
        Box::new(self.with(quick()))
    }

    async fn troubled(&self, trouble: InjectedFault) -> Box<dyn Hypervisor> {
        let slow = u64::try_from(SLOW.as_millis()).expect("short");
        Box::new(self.with(match trouble {
            InjectedFault::LostReply(_) => Config { lost_reply_rate: 1.0, ..quick() },
            InjectedFault::Slow(_) => Config { create_ms: slow, power_ms: slow, ..quick() },
            InjectedFault::Busy(_) => Config { fault_rate: 1.0, ..quick() },
            InjectedFault::Failing(_) => Config { task_fault_rate: 1.0, ..quick() },
        }))
    }

    fn template(&self) -> TemplateRef {
        TemplateRef("simulated:ubuntu-24.04".into())
    }

    fn medium(&self) -> TemplateRef {
        TemplateRef("simulated:debian-12-netinst".into())
    }

    async fn count(&self, vm: VmId) -> usize {
        usize::from(self.machine(vm).await.is_some())
    }

    async fn imports(&self, template: TemplateId) -> usize {
        let templates = self.with(quick()).observe_templates().await.expect("templates");
        templates.iter().filter(|found| found.reference.0.ends_with(&template.to_string())).count()
    }

    async fn snapshots(&self, vm: VmId) -> usize {
        self.machine(vm).await.map_or(0, |machine| machine.snapshots.len())
    }

    async fn lose(&self, vm: VmId) {
        self.0.execute(&format!("DELETE FROM simulated_hypervisor.vms WHERE id = '{vm}'")).await;
    }

    async fn lose_snapshots(&self, vm: VmId) {
        self.0.execute(&format!("DELETE FROM simulated_hypervisor.snapshots WHERE vm_id = '{vm}'")).await;
    }

    async fn stop_tools(&self, vm: VmId) {
        self.0.execute(&format!("UPDATE simulated_hypervisor.vms SET medium = 'none' WHERE id = '{vm}'")).await;
    }

    async fn put_foreign(&self, _spec: &VmSpec) {
        unreachable!("not shown here");
    }

    fn cannot_show(&self) -> &[(&str, &str)] {
        &[("a_create_touches_no_foreign_vm", "its VMs are known by our ids alone, so no place can be taken")]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    run(&Rows(Database::new().await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_imports_conform() {
    import_conformance::run(&Rows(Database::new().await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_imports_are_as_faulty_as_its_settings_say() {
    let rows = Rows(Database::new().await);
    let (spec, image) = appliance(&[3], Packing::Plain);
    for (config, class, reason, kept) in [
        (Config { fault_rate: 1.0, ..quick() }, FaultClass::Retry, "HOST_BUSY", 0),
        (Config { task_fault_rate: 1.0, ..quick() }, FaultClass::Permanent, "TASK_FAILED", 0),
        (Config { lost_reply_rate: 1.0, ..quick() }, FaultClass::Unknown, "REPLY_LOST", 1),
    ] {
        let fault = import_once(&rows.with(config), &spec, &image, None).await.expect_err("a fault");
        assert_eq!((fault.class, fault.reason), (class, reason));
        assert_eq!(rows.imports(spec.id).await, kept, "{reason}");
    }
    import_once(&rows.with(quick()), &spec, &image, None).await.expect("it is there");
}
