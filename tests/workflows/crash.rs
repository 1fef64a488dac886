//! The crash matrix: a worker dies before and after each outside call and each commit of every step, or loses its lease;
//! another one goes on. The outcome is always the one of an undisturbed run, and each event is told once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use virtualstack_proto::virtualstack::compute::v1::ListVmEventsRequest;
use virtualstack_proto::virtualstack::compute::v1::vm::State;
use virtualstack_worker::{NoProbe, Point};

use super::{agree, ask, cancel, done, ended, read, waiting};
use crate::support::{ControlPlane, Crash, CrashProbe, Gate, Session};

/// What a workflow is asked for, and what must come of it.
struct Story {
    /// Whether the VM exists before; its name stands in `path` as {vm}.
    on_vm: bool,
    /// What is done to it first, e.g. a stop.
    first: Option<&'static str>,
    /// Whether it has a snapshot first; its name stands in `path` as {snapshot}.
    snapshot: bool,
    method: &'static str,
    path: &'static str,
    body: Value,
    /// Whether it is cancelled before a worker comes to it: then the points are those of the way back.
    cancelled: bool,
    /// State of the VM in the end; none where it is gone.
    state: Option<&'static str>,
    /// What is told once.
    event: Option<&'static str>,
}

/// A change of a running VM.
fn change(method: &'static str, path: &'static str, body: Value, state: &'static str, event: &'static str) -> Story {
    let (state, event) = (Some(state), Some(event));
    Story { on_vm: true, first: None, snapshot: false, method, path, body, cancelled: false, state, event }
}

/// The same without a body.
fn verb(path: &'static str, state: &'static str, event: &'static str) -> Story {
    change("POST", path, json!({}), state, event)
}

impl Story {
    fn cancelled(self) -> Self {
        Self { cancelled: true, ..self }
    }

    fn with_snapshot(self) -> Self {
        Self { snapshot: true, ..self }
    }

    /// Makes what the story begins with; what stands for {vm} and {snapshot}.
    async fn prepare(&self, tenant: &Session, name: &str) -> (String, String) {
        if !self.on_vm {
            return Default::default();
        }
        let vm = tenant.running(name).await.name;
        if let Some(first) = self.first {
            done(tenant, "POST", &format!("{vm}:{first}"), json!({})).await;
        }
        let mut snapshot = String::new();
        if self.snapshot {
            let made = done(tenant, "POST", &format!("{vm}/snapshots"), json!({"displayName": "first"})).await;
            made["name"].as_str().expect("a name").clone_into(&mut snapshot);
        }
        (vm, snapshot)
    }

    async fn ask(&self, tenant: &Session, name: &str, (vm, snapshot): &(String, String)) -> Value {
        let path = self.path.replace("{vm}", vm).replace("{snapshot}", snapshot);
        let mut body = self.body.clone();
        if !self.on_vm {
            let template = tenant.list_templates().await.pop().expect("a template").name;
            body = json!({"displayName": name, "template": template});
        }
        let operation = ask(tenant, self.method, &path, body).await;
        if self.cancelled {
            cancel(tenant, &operation).await;
        }
        operation
    }

    /// The outcome is the one of an undisturbed run, of the operation alone: see [`agree`] for the rest.
    async fn check(&self, plane: &ControlPlane, tenant: &Session, operation: &Value) {
        let ended = ended(tenant, operation).await;
        let code = if self.cancelled { json!(1) } else { Value::Null };
        assert_eq!(ended["error"]["code"], code, "{ended}");
        let target = ended["metadata"]["target"].as_str().expect("a target");
        let vm = target.split("/snapshots").next().expect("a VM");
        match self.state {
            Some(state) => assert_eq!(read(tenant, vm).await["state"], state),
            None => assert_eq!(tenant.rest().call("GET", &format!("/v1/{vm}"), None).await.0, 404),
        }
        let name = operation["name"].as_str().expect("a name");
        let end = if self.cancelled { "OPERATION_CANCELLED" } else { "OPERATION_SUCCEEDED" };
        for (resource, reason) in [(name, Some(end)), (vm, self.event)] {
            let Some(reason) = reason else { continue };
            let told = format!(
                "SELECT count(*) FROM audit.changes WHERE resource = '{resource}' AND reason = '{reason}' \
                 AND operation_id = '{}'",
                name.trim_start_matches("operations/")
            );
            assert_eq!(plane.database.count(&told).await, 1, "{reason} is told once");
        }
    }

    /// Runs the story undisturbed to learn its points, then once for each point with a worker that dies there. Where it dies
    /// in a transaction, and so with locks on what others wait for, there is one such run after the other; all others are at
    /// once.
    async fn survives(self) {
        let (mut plane, tenant) = waiting().await;
        // Others go on soon.
        plane.lease_ms = 400;
        let plane = plane;
        let preparing = plane.work(Arc::new(NoProbe)).await;
        let begun = self.prepare(&tenant, "undisturbed").await;
        preparing.drain().await;
        let operation = self.ask(&tenant, "undisturbed", &begun).await;
        let noting = Arc::new(CrashProbe::new([]));
        let worker = plane.work(Arc::clone(&noting) as _).await;
        self.check(&plane, &tenant, &operation).await;
        all_agree(&plane, &tenant).await;
        worker.drain().await;

        let mut points: Vec<Crash> = Vec::new();
        for passed in noting.passed() {
            let of_vm = passed.step.starts_with("vm_");
            if of_vm && !points.contains(&passed) {
                points.push(passed);
            }
        }
        let every = points.iter().map(|crash| crash.point).collect::<HashSet<_>>();
        assert_eq!(every.len(), Point::ALL.len(), "a workflow passes every kind of point");

        let preparing = plane.work(Arc::new(NoProbe)).await;
        let names: Vec<_> = (0..points.len()).map(|number| format!("crash-{number}")).collect();
        let begun = futures::future::join_all(names.iter().map(|name| self.prepare(&tenant, name))).await;
        preparing.drain().await;
        let mut begun = names.into_iter().zip(begun);
        let (alone, together): (Vec<_>, Vec<_>) =
            points.into_iter().partition(|crash| crash.point == Point::BeforeCommit);
        let runs = std::iter::once(together).chain(alone.into_iter().map(|crash| vec![crash]));
        for crashes in runs {
            let mut operations = Vec::new();
            for (name, begun) in begun.by_ref().take(crashes.len()) {
                operations.push(self.ask(&tenant, &name, &begun).await);
            }
            let probe = Arc::new(CrashProbe::new(crashes));
            let victim = plane.work(Arc::clone(&probe) as _).await;
            probe.crashed().await;
            drop(victim);
            let survivor = plane.work(Arc::new(NoProbe)).await;
            for operation in &operations {
                self.check(&plane, &tenant, operation).await;
            }
            survivor.drain().await;
        }
        all_agree(&plane, &tenant).await;
    }
}

/// All that there is agrees, and nothing is left to do.
async fn all_agree(plane: &ControlPlane, tenant: &Session) {
    agree(plane, tenant).await;
    let open = "SELECT count(*) FROM compute.operations WHERE state IN ('OPEN', 'QUEUED')";
    assert_eq!(plane.database.count(open).await, 0, "no operation is left open");
}

fn create() -> Story {
    Story { on_vm: false, ..change("POST", "vms", json!({}), "RUNNING", "VM_CREATED") }
}

fn snapshot() -> Story {
    change("POST", "{vm}/snapshots", json!({"displayName": "second"}), "RUNNING", "VM_SNAPSHOT_CREATED")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_survives_a_crash_at_every_point() {
    create().survives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_create_survives_a_crash_at_every_point() {
    Story { state: None, event: Some("VM_CREATE_CANCELLED"), ..create().cancelled() }.survives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_survives_a_crash_at_every_point() {
    Story { first: Some("stop"), ..verb("{vm}:start", "RUNNING", "VM_STARTED") }.survives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_survives_a_crash_at_every_point() {
    verb("{vm}:stop", "STOPPED", "VM_STOPPED").survives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_stop_survives_a_crash_at_every_point() {
    verb("{vm}:stop", "RUNNING", "VM_OPERATION_CANCELLED").cancelled().survives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_survives_a_crash_at_every_point() {
    verb("{vm}:restart", "RUNNING", "VM_RESTARTED").survives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_survives_a_crash_at_every_point() {
    verb("{vm}:reset", "RUNNING", "VM_RESET").survives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_survives_a_crash_at_every_point() {
    verb("{vm}:suspend", "SUSPENDED", "VM_SUSPENDED").survives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resize_with_a_restart_survives_a_crash_at_every_point() {
    change("PATCH", "{vm}?allowRestart=true", json!({"memoryMib": 512, "cpuCount": 2}), "RUNNING", "VM_RESIZED")
        .survives()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_resize_survives_a_crash_at_every_point() {
    change("PATCH", "{vm}", json!({"cpuCount": 2}), "RUNNING", "VM_OPERATION_CANCELLED").cancelled().survives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_survives_a_crash_at_every_point() {
    snapshot().survives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_snapshot_survives_a_crash_at_every_point() {
    Story { event: Some("VM_OPERATION_CANCELLED"), ..snapshot().cancelled() }.survives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revert_survives_a_crash_at_every_point() {
    verb("{snapshot}:revert", "STOPPED", "VM_REVERTED").with_snapshot().survives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delete_of_a_snapshot_survives_a_crash_at_every_point() {
    change("DELETE", "{snapshot}", json!({}), "RUNNING", "VM_SNAPSHOT_DELETED").with_snapshot().survives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_survives_a_crash_at_every_point() {
    Story { event: None, ..verb("{vm}:openConsole", "RUNNING", "") }.survives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_survives_a_crash_at_every_point() {
    change("DELETE", "{vm}", json!({}), "DELETED", "VM_DELETED").survives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_survives_a_crash_at_every_point() {
    let purge = change("DELETE", "{vm}?force=true", json!({}), "", "VM_PURGED");
    Story { state: None, ..purge }.with_snapshot().survives().await;
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
    stale.reached().await;
    // Nobody renewed the lease, as far as the database knows.
    let steal = "UPDATE background_jobs.jobs SET available_at = now(), fencing_token = fencing_token + 1 WHERE kind = 'vm_create'";
    plane.database.execute(steal).await;
    let other = plane.work(Arc::new(NoProbe)).await;
    let vm = tenant.vm_of(operation).await;
    assert_eq!(vm.state(), State::Running);
    let version = vm.etag.clone();

    stale.open();
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
