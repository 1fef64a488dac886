//! Workflows under everything that can happen to a worker and its hypervisor.

mod cancel;
mod consoles;
mod crash;
mod deadlines;
mod desk;
mod desk_trouble;
mod faults;
mod graceful;
mod notices;
mod resize;
mod snapshots;
mod tasks;
mod templates;
mod tickets;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use virtualstack_model::compute::vm::PowerState;
use virtualstack_worker::NoProbe;
use virtualstack_worker::adapters::hypervisor::simulated::Config;
use virtualstack_worker::adapters::hypervisor::{Fault, Hypervisor};

use crate::support::{Call, ControlPlane, Intercepted, Session, When};

/// Longer than any test.
const NEVER: u64 = 3_600_000;

/// A hypervisor as quick as tests want it.
fn quick() -> Config {
    Config { create_ms: 20, power_ms: 10, shut_down_ms: 20, ..Config::default() }
}

/// A control plane on a simulated hypervisor of this kind, and somebody who works on it.
async fn on(config: Config) -> (ControlPlane, Session) {
    behind(config, |_, _| Ok(())).await
}

/// The same behind a hook.
async fn behind(
    config: Config,
    hook: impl Fn(Call, When) -> Result<(), Fault> + Send + Sync + 'static,
) -> (ControlPlane, Session) {
    let plane = ControlPlane::without_worker().await;
    let hypervisor = Intercepted::new(Arc::new(plane.hypervisor(config)), hook);
    plane.work_on(Arc::new(NoProbe), Arc::new(hypervisor)).await.detach();
    plane.templates().await;
    let tenant = plane.admin().await;
    (plane, tenant)
}

/// A control plane without a worker, which has published the templates and is gone.
async fn waiting() -> (ControlPlane, Session) {
    let plane = ControlPlane::without_worker().await;
    let first = plane.work(Arc::new(NoProbe)).await;
    plane.templates().await;
    let tenant = plane.admin().await;
    first.drain().await;
    (plane, tenant)
}

/// Starts a worker on a hypervisor.
async fn work_on(plane: &ControlPlane, hypervisor: impl Hypervisor) {
    plane.work_on(Arc::new(NoProbe), Arc::new(hypervisor)).await.detach();
}

/// Asks for an operation; `path` begins after "/v1/".
async fn ask(tenant: &Session, method: &str, path: &str, body: Value) -> Value {
    let body = (method != "DELETE").then_some(body);
    let (status, operation) = tenant.rest().call(method, &format!("/v1/{path}"), body).await;
    assert_eq!(status, 200, "{method} {path}: {operation}");
    operation
}

/// Waits until an operation is done. It looks more often than a wait of the server does.
async fn ended(tenant: &Session, operation: &Value) -> Value {
    let name = operation["name"].as_str().expect("a name");
    let since = Instant::now();
    loop {
        let now = read(tenant, name).await;
        if now["done"] == true {
            return now;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "not done after 60 s: {now}");
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

/// Asks for an operation that has to work; what it gives.
async fn done(tenant: &Session, method: &str, path: &str, body: Value) -> Value {
    let operation = ended(tenant, &ask(tenant, method, path, body).await).await;
    assert!(operation["error"].is_null(), "{method} {path}: {operation}");
    operation["response"].clone()
}

/// Asks for an operation that fails; code and reason of that.
async fn failed(tenant: &Session, method: &str, path: &str, body: Value) -> (i64, String) {
    error(&ended(tenant, &ask(tenant, method, path, body).await).await)
}

/// Code and reason of a failed operation.
fn error(operation: &Value) -> (i64, String) {
    let error = &operation["error"];
    let reason = error["details"][0]["reason"].as_str().unwrap_or_else(|| panic!("it should have failed: {operation}"));
    (error["code"].as_i64().expect("a code"), reason.to_owned())
}

/// Asks an operation to cancel.
async fn cancel(tenant: &Session, operation: &Value) {
    let name = operation["name"].as_str().expect("a name");
    let (status, answer) = tenant.rest().call("POST", &format!("/v1/{name}:cancel"), Some(json!({}))).await;
    assert_eq!(status, 200, "{answer}");
}

/// Waits until an operation is at a step.
async fn at_step(tenant: &Session, operation: &Value, step: &str) {
    let name = operation["name"].as_str().expect("a name");
    for _ in 0..1_500 {
        let (_, now) = tenant.rest().call("GET", &format!("/v1/{name}"), None).await;
        if now["metadata"]["step"] == step {
            return;
        }
        assert_eq!(now["done"], false, "it never came to {step}: {now}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came to {step}");
}

/// Waits until the hypervisor is at work on a task.
async fn at_work(plane: &ControlPlane, action: &str) {
    let running =
        format!("SELECT count(*) FROM simulated_hypervisor.tasks WHERE action = '{action}' AND finished_at IS NULL");
    for _ in 0..1_500 {
        if plane.database.count(&running).await > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the hypervisor never came to {action}");
}

/// Reads a resource.
async fn read(tenant: &Session, name: &str) -> Value {
    let (status, resource) = tenant.rest().call("GET", &format!("/v1/{name}"), None).await;
    assert_eq!(status, 200, "{resource}");
    resource
}

/// Sets the deadline of all open operations, relative to now.
async fn deadline(plane: &ControlPlane, from_now: &str) {
    let set = format!(
        "UPDATE compute.operations SET deadline_at = now() + interval '{from_now}' WHERE state IN ('OPEN', 'QUEUED')"
    );
    plane.database.execute(&set).await;
}

/// Holds that the tenant's VMs and snapshots, their usage, and what the hypervisor has, are the same. VMs in ERROR are of
/// unknown power.
async fn agree(plane: &ControlPlane, tenant: &Session) {
    plane.idle().await;
    let mut machines = plane.hypervisor(Config::default()).machines().await.expect("machines");
    let listed = read(tenant, "vms?showDeleted=true&pageSize=1000").await;
    let mut usage = json!({"vms": 0, "vcpus": 0, "memoryMib": 0, "diskGib": 0, "snapshots": 0});
    let mut add = |counted: &str, amount: i64| {
        let sum = usage[counted].as_i64().unwrap_or_default() + amount;
        usage[counted] = json!(sum);
    };
    for vm in listed["vms"].as_array().expect("VMs") {
        let Some(at) = machines.iter().position(|machine| vm["uid"] == machine.id.to_string()) else {
            assert_eq!(vm["state"], "ERROR", "nothing is left of {vm}");
            continue;
        };
        let machine = machines.swap_remove(at);
        let power = match vm["state"].as_str().expect("a state") {
            "RUNNING" => PowerState::On,
            "SUSPENDED" => PowerState::Paused,
            "STOPPED" | "DELETED" => PowerState::Off,
            "ERROR" => machine.power,
            state => panic!("{state} is no state to stay in: {vm}"),
        };
        assert_eq!(machine.power, power, "{vm}");
        let size = (machine.size.cpu_count, machine.size.memory_mib, machine.size.disk_gib);
        assert_eq!(json!([vm["cpuCount"], vm["memoryMib"], vm["diskGib"]]), json!([size.0, size.1, size.2]), "{vm}");
        if vm["deleteTime"].is_null() {
            add("vms", 1);
            add("vcpus", size.0.into());
            add("memoryMib", size.1.into());
        }
        add("diskGib", size.2.into());
        let name = vm["name"].as_str().expect("a name");
        let listed = read(tenant, &format!("{name}/snapshots")).await["snapshots"].clone();
        let listed = listed.as_array().expect("snapshots");
        let mut ids: Vec<_> = listed.iter().map(|snapshot| snapshot["uid"].as_str().unwrap_or_default()).collect();
        ids.sort_unstable();
        let made: Vec<_> = machine.snapshots.iter().map(ToString::to_string).collect();
        assert_eq!(ids, made, "snapshots of {vm}");
        add("snapshots", i64::try_from(made.len()).expect("a number"));
    }
    assert!(machines.is_empty(), "nobody has these: {machines:?}");
    let told = read(tenant, "quota").await["usage"].clone();
    for (counted, amount) in usage.as_object().expect("amounts") {
        assert_eq!(&told[counted], amount, "{counted} in {told}");
    }
}
