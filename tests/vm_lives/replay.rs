//! What a seed repeats: one VM after the other and one worker, where all that happens is bound to what the worker does and
//! to nothing that takes time. So the same seed tells the same story, and what has failed once fails again.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use virtualstack_model::compute::id::VmId;
use virtualstack_worker::adapters::hypervisor::{Fault, Hypervisor, simulated};

use super::actor::Actor;
use super::barrier::Barrier;
use super::injected::InjectedFaults;
use super::lab::{Lab, Machine, SimulatedLab, Spoil};
use super::model::Rules;
use super::program::{Climate, POINTS, Program};
use super::{agreement, fail, plane, templates};
use crate::support::{ControlPlane, Database, Hook, Intercepted, Passing, Seed, When, rounds};

/// Steps of a story.
const STEPS: usize = 20;

/// Steps of a hundred in which the worker dies.
const DEATHS: usize = 30;

/// Longer than any story.
const LONG_MS: u64 = 3_600_000;

/// Looks at a task until it is done.
const LOOKS: u32 = 2;

/// The same for one that is slow.
const MANY_LOOKS: u32 = 6;

/// A simulated hypervisor whose tasks are done when they were looked at so often.
struct ByLooks {
    simulated: SimulatedLab,
    looks: Arc<Looks>,
}

/// How many looks each VM's task still needs.
struct Looks {
    database: Database,
    left: Mutex<HashMap<VmId, u32>>,
}

impl ByLooks {
    fn new(plane: &ControlPlane) -> Self {
        let endless =
            simulated::Config { create_ms: LONG_MS, power_ms: LONG_MS, shut_down_ms: LONG_MS, ..Default::default() };
        let looks = Arc::new(Looks { database: plane.database.clone(), left: Mutex::default() });
        Self { simulated: SimulatedLab::with(plane, endless), looks }
    }
}

impl Looks {
    fn left(&self) -> std::sync::MutexGuard<'_, HashMap<VmId, u32>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this look is the last that the VM's task needs.
    fn is_last(&self, vm: VmId) -> bool {
        let mut left = self.left();
        let Some(looks) = left.get_mut(&vm) else { return false };
        *looks -= 1;
        let last = *looks == 0;
        if last {
            left.remove(&vm);
        }
        last
    }
}

#[async_trait]
impl Hook for Arc<Looks> {
    async fn pass(&self, passing: Passing<'_>) -> Result<(), Fault> {
        let open = format!("simulated_hypervisor.tasks WHERE vm_id = '{}' AND finished_at IS NULL", passing.vm);
        match passing.when {
            When::Before if self.is_last(passing.vm) => {
                let done = open.replace(" WHERE", " SET finish_at = now() WHERE");
                self.database.execute(&format!("UPDATE {done}")).await;
            }
            When::Before => {}
            When::After => {
                if self.database.count(&format!("SELECT count(*) FROM {open}")).await > 0 {
                    self.left().entry(passing.vm).or_insert(LOOKS);
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Lab for ByLooks {
    fn rules(&self) -> Rules {
        self.simulated.rules()
    }

    fn connect(&self) -> Arc<dyn Hypervisor> {
        Arc::new(Intercepted::behind(Arc::clone(&self.looks), self.simulated.connect()))
    }

    async fn machines(&self) -> BTreeMap<VmId, Machine> {
        self.simulated.machines().await
    }

    async fn spoil(&self, vm: VmId, how: Spoil) -> bool {
        match how {
            Spoil::Slow => self.looks.left().get_mut(&vm).map(|looks| *looks = MANY_LOOKS).is_some(),
            Spoil::Fail => self.simulated.spoil(vm, how).await,
        }
    }

    async fn storm(&self, seed: &mut Seed) -> &'static str {
        self.simulated.storm(seed).await
    }
}

/// Lives of a seed, and what was seen of them.
async fn story(seed: &Seed) -> Vec<String> {
    let mut plane = plane().await;
    // A claim ends when its worker dies, and not because the machine is busy.
    plane.lease_ms = 60_000;
    let plane = plane;
    let lab: Arc<dyn Lab> = Arc::new(ByLooks::new(&plane));
    let troubles = InjectedFaults::new(Arc::clone(&lab));
    let stage = Arc::new(Barrier::new());
    let hire =
        || plane.work_on(Arc::clone(&stage) as _, Arc::new(Intercepted::behind(Arc::clone(&troubles), lab.connect())));
    let mut worker = hire().await;
    let session = plane.tenant("acme").await;
    let templates = templates(&plane, &session).await;
    let climate = Climate { trouble: 40, meanwhile: 30, isos: templates.iso.is_some(), spoils: true, longest_life: 10 };
    let (program, ids, mut deaths) = (Program::new(seed.split(0), climate), seed.split(1), seed.split(2));
    let lane =
        Actor::new("vm".to_owned(), session.clone(), templates, lab.rules(), Arc::clone(&troubles), program, ids);
    let mut lane = lane.on(&stage);

    let living = async {
        for _ in 0..STEPS {
            let dies = (deaths.percent(DEATHS), deaths.below(POINTS));
            stage.doom(dies.0.then_some(dies.1));
            lane.step().await;
            agreement::idle(&plane).await;
            agreement::check(&plane, lab.as_ref()).await;
        }
    };
    let dying = async {
        loop {
            stage.dying().await;
            std::mem::replace(&mut worker, hire().await).kill().await;
            // Its last transaction may hold the job for a moment.
            while !expire(&plane, "running").await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    // Nobody waits for a next try, nor until the call of a dead worker has arrived: there is none on its way.
    let hurrying = async {
        loop {
            expire(&plane, "available").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let lived = async {
        tokio::select! {
            () = living => {}
            () = dying => {}
            () = hurrying => {}
        }
    };
    if let Err(panic) = AssertUnwindSafe(lived).catch_unwind().await {
        fail(&plane, &lane).await;
        std::panic::resume_unwind(panic);
    }
    worker.drain().await;
    lane.log.into_iter().map(|line| line.split_once(' ').expect("a time first").1.to_owned()).collect()
}

/// Lets nobody wait for jobs in a state; whether there were any.
async fn expire(plane: &ControlPlane, state: &str) -> bool {
    let now = format!(
        "UPDATE background_jobs.jobs SET available_at = now() WHERE id IN (SELECT id FROM background_jobs.jobs \
            WHERE state = '{state}' AND queue = 'vm' AND available_at > now() AND available_at < 'infinity' \
            FOR UPDATE SKIP LOCKED)"
    );
    plane.database.changed(&now).await > 0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_tells_the_same_story_again() {
    let seed = Seed::new();
    for number in 0..rounds(1) {
        let seed = seed.of_round(number);
        let (first, second) = tokio::join!(story(&seed), story(&seed));
        for (one, other) in first.iter().zip(&second) {
            assert_eq!(one, other, "the same seed, told twice");
        }
        assert_eq!(first.len(), second.len());
    }
}
