//! The crash matrix: a worker dies before and after each outside call and each commit of every step, or loses its lease;
//! another one goes on. The outcome is always the one of an undisturbed run, and each event is told once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use virtualstack_proto::google::longrunning::Operation;
use virtualstack_proto::virtualstack::compute::v1::vm::State;
use virtualstack_proto::virtualstack::compute::v1::{ListVmEventsRequest, RestartVmRequest};
use virtualstack_worker::{NoProbe, Point};

use crate::support::{ControlPlane, Crash, CrashProbe, Session};

/// What a workflow is asked for, and what must come of it.
#[derive(Clone, Copy)]
enum Story {
    Create,
    Start,
    Stop,
    Restart,
    Delete,
    Purge,
}

impl Story {
    /// Asks for it, on a VM that is in the state it needs; the VM's name too.
    async fn begin(self, tenant: &Session, name: &str) -> (Operation, String) {
        if let Self::Create = self {
            let operation = tenant.create(name).await.expect("accepted");
            let target = target(&operation);
            return (operation, target);
        }
        let vm = tenant.running(name).await;
        if let Self::Start = self {
            tenant.vm_of(tenant.stop(&vm.name).await.expect("accepted")).await;
        }
        (Operation::default(), vm.name)
    }

    async fn ask(self, tenant: &Session, vm: &str) -> Operation {
        let accepted = match self {
            Self::Create => unreachable!("asked for already"),
            Self::Start => tenant.start(vm).await,
            Self::Stop => tenant.stop(vm).await,
            Self::Restart => {
                let request = RestartVmRequest { name: vm.to_owned(), ..Default::default() };
                tenant.vms().restart_vm(tenant.request(request)).await.map(tonic::Response::into_inner)
            }
            Self::Delete => tenant.delete(vm, false).await,
            Self::Purge => tenant.delete(vm, true).await,
        };
        accepted.expect("accepted")
    }

    fn outcome(self) -> (State, &'static str) {
        match self {
            Self::Create => (State::Running, "VM_CREATED"),
            Self::Start => (State::Running, "VM_STARTED"),
            Self::Stop => (State::Stopped, "VM_STOPPED"),
            Self::Restart => (State::Running, "VM_RESTARTED"),
            Self::Delete => (State::Deleted, "VM_DELETED"),
            Self::Purge => (State::Deleted, "VM_PURGED"),
        }
    }
}

/// Runs the story undisturbed to learn its points, then once for each point with a worker that dies there.
async fn matrix(story: Story) {
    let plane = ControlPlane::without_worker().await;
    let first = plane.work(Arc::new(NoProbe)).await;
    plane.templates().await;
    let tenant = plane.admin().await;
    first.drain().await;

    let noting = Arc::new(CrashProbe::new(None));
    run(&plane, &tenant, story, "undisturbed", Arc::clone(&noting), None).await;
    let mut points: Vec<Crash> = Vec::new();
    for passed in noting.passed() {
        if !points.contains(&passed) {
            points.push(passed);
        }
    }
    let every = points.iter().map(|crash| crash.point).collect::<std::collections::HashSet<_>>();
    assert_eq!(every.len(), Point::ALL.len(), "a workflow passes every kind of point");
    for (number, crash) in points.into_iter().enumerate() {
        let probe = Arc::new(CrashProbe::new(Some(crash.clone())));
        run(&plane, &tenant, story, &format!("crash-{number}"), probe, Some(&crash)).await;
    }
}

async fn run(
    plane: &ControlPlane,
    tenant: &Session,
    story: Story,
    name: &str,
    probe: Arc<CrashProbe>,
    crash: Option<&Crash>,
) {
    let before = plane.hypervisor(Default::default()).vms().await.expect("a list").len();
    let preparing = match story {
        Story::Create => None,
        _ => Some(plane.work(Arc::new(NoProbe)).await),
    };
    let (mut operation, vm) = story.begin(tenant, name).await;
    if let Some(preparing) = preparing {
        preparing.drain().await;
        operation = story.ask(tenant, &vm).await;
    }

    let victim = plane.work(Arc::clone(&probe) as _).await;
    if let Some(crash) = crash {
        tokio::time::timeout(Duration::from_secs(20), probe.crashed.notified())
            .await
            .unwrap_or_else(|_| panic!("the worker never came to {crash:?}"));
        drop(victim);
        let survivor = plane.work(Arc::new(NoProbe)).await;
        check(plane, tenant, story, &operation, &vm, before).await;
        survivor.drain().await;
        assert!(probe.has_crashed());
    } else {
        check(plane, tenant, story, &operation, &vm, before).await;
        victim.drain().await;
    }
}

/// The outcome is the one of an undisturbed run.
async fn check(plane: &ControlPlane, tenant: &Session, story: Story, operation: &Operation, vm: &str, before: usize) {
    let (state, reason) = story.outcome();
    assert_eq!(tenant.vm_of(operation.clone()).await.state(), state);
    plane.idle().await;
    let exist = plane.hypervisor(Default::default()).vms().await.expect("a list").len();
    let expected = if let Story::Purge = story { before } else { before + 1 };
    assert_eq!(exist, expected, "VMs on the hypervisor");
    let told = format!("SELECT count(*) FROM audit.changes WHERE resource = '{vm}' AND reason = '{reason}'");
    assert_eq!(plane.database.count(&told).await, 1, "{reason} is told once");
    let open = "SELECT count(*) FROM compute.operations WHERE state IN ('OPEN', 'QUEUED')";
    assert_eq!(plane.database.count(open).await, 0, "no operation is left open");
    if !matches!(story, Story::Purge) {
        assert_eq!(tenant.get(vm).await.expect("the VM").state(), state);
    }
}

/// The VM that an operation works on.
fn target(operation: &Operation) -> String {
    use prost::Message as _;
    use virtualstack_proto::virtualstack::operations::v1::OperationMetadata;
    let metadata = operation.metadata.as_ref().expect("metadata");
    OperationMetadata::decode(metadata.value.as_slice()).expect("metadata").target
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_survives_a_crash_at_every_point() {
    matrix(Story::Create).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_survives_a_crash_at_every_point() {
    matrix(Story::Start).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_survives_a_crash_at_every_point() {
    matrix(Story::Stop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_survives_a_crash_at_every_point() {
    matrix(Story::Restart).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_survives_a_crash_at_every_point() {
    matrix(Story::Delete).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_survives_a_crash_at_every_point() {
    matrix(Story::Purge).await;
}

/// A worker that was taken for dead comes back in the middle of a step: it can write nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_lease_was_stolen_cannot_write() {
    let plane = ControlPlane::without_worker().await;
    let first = plane.work(Arc::new(NoProbe)).await;
    plane.templates().await;
    first.drain().await;
    let tenant = plane.admin().await;

    let operation = tenant.create("stolen").await.expect("accepted");
    let stale = Arc::new(Gate::new("vm_create.clone", Point::AfterCall));
    let slow = plane.work(Arc::clone(&stale) as _).await;
    stale.reached.notified().await;
    // Nobody renewed the lease, as far as the database knows.
    let steal = "UPDATE background_jobs.jobs SET available_at = now(), fencing_token = fencing_token + 1 WHERE kind = 'vm_create'";
    plane.database.execute(steal).await;
    let other = plane.work(Arc::new(NoProbe)).await;
    let vm = tenant.vm_of(operation).await;
    assert_eq!(vm.state(), State::Running);
    let version = vm.etag.clone();

    stale.open.notify_one();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(tenant.get(&vm.name).await.expect("the VM").etag, version, "the stale worker wrote nothing");
    let events = ListVmEventsRequest { parent: vm.name.clone(), ..Default::default() };
    let events = tenant.vms().list_vm_events(tenant.request(events)).await.expect("events").into_inner().vm_events;
    let mut told: HashMap<_, u32> = HashMap::new();
    events.iter().for_each(|event| *told.entry(event.reason.as_str()).or_default() += 1);
    assert!(told.values().all(|times| *times == 1), "{told:?}");
    slow.drain().await;
    other.drain().await;
}

/// Stops a worker at a point until it is opened.
struct Gate {
    step: &'static str,
    point: Point,
    reached: tokio::sync::Notify,
    open: tokio::sync::Notify,
    passed: std::sync::atomic::AtomicBool,
}

impl Gate {
    fn new(step: &'static str, point: Point) -> Self {
        Self { step, point, reached: Default::default(), open: Default::default(), passed: Default::default() }
    }
}

#[async_trait::async_trait]
impl virtualstack_worker::Probe for Gate {
    async fn pass(&self, step: &str, point: Point) {
        let first =
            step == self.step && point == self.point && !self.passed.swap(true, std::sync::atomic::Ordering::SeqCst);
        if first {
            self.reached.notify_one();
            self.open.notified().await;
        }
    }
}
