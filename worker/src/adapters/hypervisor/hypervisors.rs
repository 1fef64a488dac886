//! The hypervisors that a worker works on, by the name that rows keep.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Fault, FaultClass, Hypervisor};

/// The hypervisors of a worker. VMs and templates name theirs in their column `hypervisor`.
#[derive(Clone)]
pub struct Hypervisors {
    by_name: Arc<BTreeMap<String, Arc<dyn Hypervisor>>>,
    /// Of rows that are older than the column, and name none; and of those that are new.
    first: Arc<dyn Hypervisor>,
}

impl From<Arc<dyn Hypervisor>> for Hypervisors {
    /// The only one, named by its kind.
    fn from(only: Arc<dyn Hypervisor>) -> Self {
        let by_name = Arc::new(BTreeMap::from([(only.kind().to_owned(), Arc::clone(&only))]));
        Self { by_name, first: only }
    }
}

impl Hypervisors {
    /// The one that a row names. An unknown name is worth another try: another worker, or this one with other settings, may
    /// know it, and nothing may be done elsewhere instead.
    pub fn of(&self, name: &str) -> Result<&dyn Hypervisor, Fault> {
        if name.is_empty() {
            return Ok(self.first.as_ref());
        }
        self.by_name.get(name).map(AsRef::as_ref).ok_or_else(|| {
            let message = "the hypervisor of this resource cannot be reached; ask the provider";
            let detail = format!("no hypervisor {name} is configured, only {}", self.names().join(", "));
            Fault::new(FaultClass::Retry, "HYPERVISOR_MISCONFIGURED", message, detail)
        })
    }

    /// The one that new templates go to.
    #[must_use]
    pub fn first(&self) -> &dyn Hypervisor {
        self.first.as_ref()
    }

    /// Every name.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.by_name.keys().map(String::as_str).collect()
    }

    /// Every hypervisor, with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &dyn Hypervisor)> {
        self.by_name.iter().map(|(name, hypervisor)| (name.as_str(), hypervisor.as_ref()))
    }

    /// Ends the sessions of all.
    pub async fn close(&self) {
        for hypervisor in self.by_name.values() {
            hypervisor.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use virtualstack_store::Config;
    use virtualstack_store::compute::simulated::Simulation;

    use super::super::simulated::Simulated;
    use super::*;

    #[test]
    fn a_row_leads_to_its_hypervisor_and_an_unknown_name_to_another_try() {
        // It connects when it is first asked, and it is asked nothing here.
        let simulation = Simulation::new(&Config::default()).expect("a simulation");
        let only: Arc<dyn Hypervisor> = Arc::new(Simulated::new(simulation, Default::default()));
        let hypervisors = Hypervisors::from(only);
        assert_eq!(hypervisors.names(), ["simulated"]);
        for name in ["simulated", ""] {
            assert_eq!(hypervisors.of(name).map(Hypervisor::kind).expect("known"), "simulated");
        }
        let fault = hypervisors.of("other").map(Hypervisor::kind).expect_err("unknown");
        assert_eq!((fault.class, fault.reason), (FaultClass::Retry, "HYPERVISOR_MISCONFIGURED"));
        assert!(fault.detail.contains("other"), "the operator reads which: {fault}");
        assert!(!fault.message.contains("other"), "the tenant does not: {fault}");
    }
}
