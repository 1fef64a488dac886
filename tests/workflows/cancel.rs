//! Operations that are cancelled while the hypervisor is at work: they end with what is really so, as done where it is done.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use virtualstack_worker::Point;
use virtualstack_worker::adapters::hypervisor::simulated::Config;
use virtualstack_worker::adapters::hypervisor::{Fault, FaultClass};

use super::{NEVER, agree, ask, at_step, at_work, behind, cancel, done, ended, on, quick, read, waiting};
use crate::support::{Call, ControlPlane, Gate, Intercepted, Session, When, test_fault};

/// Asks for something, waits until the hypervisor is at work on it, and asks to cancel it; how it ended.
async fn asked_to_cancel(plane: &ControlPlane, tenant: &Session, path: &str, body: Value, action: &str) -> Value {
    let method =
        if path.contains(':') || path.ends_with("vms") || path.ends_with("snapshots") { "POST" } else { "PATCH" };
    let operation = ask(tenant, method, path, body).await;
    at_work(plane, action).await;
    cancel(tenant, &operation).await;
    let ended = ended(tenant, &operation).await;
    agree(plane, tenant).await;
    ended
}

/// The same of something that can be stopped half way.
async fn cancelled(plane: &ControlPlane, tenant: &Session, path: &str, body: Value, action: &str) {
    let ended = asked_to_cancel(plane, tenant, path, body, action).await;
    assert_eq!(ended["error"]["code"], 1, "{ended}");
}

/// The same of something that cannot: it is done, and says so. `state` is that of the VM then.
async fn done_all_the_same(
    plane: &ControlPlane,
    tenant: &Session,
    path: &str,
    body: Value,
    (action, state, event): (&str, &str, &str),
) {
    let ended = asked_to_cancel(plane, tenant, path, body, action).await;
    assert!(ended["error"].is_null(), "{path}: {ended}");
    let metadata = &ended["metadata"];
    assert_eq!(
        json!([metadata["cancelRequested"], metadata["progressPercent"]]),
        json!([true, 100]),
        "{path}: {ended}"
    );
    let vm = path.split([':', '?']).next().and_then(|path| path.split("/snapshots").next()).expect("a VM");
    assert_eq!(read(tenant, vm).await["state"], state, "{path}");
    let told = read(tenant, &format!("{vm}/events?pageSize=1")).await["vmEvents"][0].clone();
    assert_eq!(json!([told["reason"], told["operation"]]), json!([event, ended["name"]]), "{path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_create_leaves_nothing() {
    let (plane, tenant) = on(Config { create_ms: NEVER, ..quick() }).await;
    let template = plane.templates().await;
    cancelled(&plane, &tenant, "vms", json!({"displayName": "never", "template": template}), "CREATE").await;
    assert_eq!(read(&tenant, "vms").await["vms"], json!([]));
    assert_eq!(read(&tenant, "quota").await["usage"]["vms"], 0);
}

/// A hypervisor that makes no VM, and says each time that it may be asked again.
fn come_back(call: Call, when: When) -> Result<(), Fault> {
    match (call, when) {
        (Call::Create, When::Before) => Err(test_fault(FaultClass::Retry)),
        _ => Ok(()),
    }
}

/// Who cancels need not wait until the hypervisor is asked again, which may be a minute.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_next_try_is_cancelled_at_once() {
    let (plane, tenant) = behind(quick(), come_back).await;
    let body = json!({"displayName": "patient", "template": plane.templates().await});
    let operation = ask(&tenant, "POST", "vms", body).await;
    let later = "UPDATE background_jobs.jobs SET available_at = now() + interval '1 hour' \
        WHERE kind = 'vm_create' AND state = 'available' AND last_error IS NOT NULL";
    let mut looks = 0..2_000;
    while plane.database.changed(later).await == 0 {
        looks.next().expect("it waits for its next try");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cancel(&tenant, &operation).await;
    assert_eq!(ended(&tenant, &operation).await["error"]["code"], 1);
    agree(&plane, &tenant).await;
}

/// The same where the call that is to be tried again is under way as they cancel.
#[tokio::test(flavor = "multi_thread")]
async fn what_fails_while_it_is_cancelled_does_not_wait_either() {
    let (plane, tenant) = waiting().await;
    let body = json!({"displayName": "patient", "template": plane.templates().await});
    let operation = ask(&tenant, "POST", "vms", body).await;
    let gate = Arc::new(Gate::new("vm_create.clone", Point::AfterCall));
    let hypervisor = Intercepted::new(Arc::new(plane.hypervisor(quick())), come_back);
    plane.work_on(Arc::clone(&gate) as _, Arc::new(hypervisor)).await.detach();
    gate.reached().await;
    let later = "UPDATE background_jobs.jobs SET retry_at = now() + interval '1 hour' WHERE kind = 'vm_create'";
    assert_eq!(plane.database.changed(later).await, 1);
    cancel(&tenant, &operation).await;
    gate.open();
    assert_eq!(ended(&tenant, &operation).await["error"]["code"], 1);
    agree(&plane, &tenant).await;
}

/// What is on its way back may be waiting for a call to arrive: a cancel does not make it look before.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_is_not_hurried() {
    let (plane, tenant) = waiting().await;
    let body = json!({"displayName": "late", "template": plane.templates().await});
    let operation = ask(&tenant, "POST", "vms", body).await;
    let waits = "UPDATE background_jobs.jobs SET available_at = now() + interval '1 hour' WHERE kind = 'vm_create'";
    plane.database.execute(&format!("UPDATE compute.operations SET grace_from = now(); {waits}")).await;
    cancel(&tenant, &operation).await;
    let waiting = "SELECT count(*) FROM background_jobs.jobs \
        WHERE kind = 'vm_create' AND available_at > now() + interval '30 minutes'";
    assert_eq!(plane.database.count(waiting).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_changes_tell_what_is_really_so() {
    let (plane, tenant) = on(Config { power_ms: 1_500, shut_down_ms: NEVER, ..quick() }).await;
    let vm = tenant.running("wavering").await.name;
    cancelled(&plane, &tenant, &vm, json!({"cpuCount": 4}), "RESIZE").await;
    assert_eq!(read(&tenant, &vm).await["cpuCount"], 1, "a resize is stopped half way");
    cancelled(&plane, &tenant, &format!("{vm}/snapshots"), json!({"displayName": "never"}), "SNAPSHOT").await;
    assert_eq!(read(&tenant, &format!("{vm}/snapshots")).await["snapshots"], json!([]));
    cancelled(&plane, &tenant, &format!("{vm}:stop"), json!({"graceful": true}), "SHUT_DOWN").await;
    assert_eq!(read(&tenant, &vm).await["state"], "RUNNING", "nobody waits for a guest that hangs");
}

/// Whatever cannot be stopped half way, each verb of a VM and its snapshots.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_in_spite_of_a_cancel_ends_as_done() {
    let (plane, tenant) = on(Config { power_ms: 1_500, ..quick() }).await;
    let vm = tenant.running("stubborn").await.name;
    let snapshot = done(&tenant, "POST", &format!("{vm}/snapshots"), json!({"displayName": "first"})).await;
    let snapshot = snapshot["name"].as_str().expect("a name");
    done(&tenant, "PATCH", &vm, json!({"cpuCount": 4})).await;
    for (path, body, told) in [
        (format!("{vm}:reset"), json!({}), ("RESET", "RUNNING", "VM_RESET")),
        // Of these only the last thing that they do tells that they are done.
        (format!("{vm}:restart"), json!({}), ("POWER_ON", "RUNNING", "VM_RESTARTED")),
        (format!("{vm}?allowRestart=true"), json!({"cpuCount": 2}), ("POWER_ON", "RUNNING", "VM_RESIZED")),
        (format!("{vm}:suspend"), json!({}), ("SUSPEND", "SUSPENDED", "VM_SUSPENDED")),
        (format!("{vm}:start"), json!({}), ("POWER_ON", "RUNNING", "VM_STARTED")),
        (format!("{vm}:stop"), json!({}), ("POWER_OFF", "STOPPED", "VM_STOPPED")),
        (format!("{snapshot}:revert"), json!({}), ("REVERT", "STOPPED", "VM_REVERTED")),
    ] {
        done_all_the_same(&plane, &tenant, &path, body, told).await;
    }
    let delete = ask(&tenant, "DELETE", snapshot, json!({})).await;
    at_work(&plane, "REMOVE_SNAPSHOT").await;
    cancel(&tenant, &delete).await;
    assert!(ended(&tenant, &delete).await["error"].is_null());
}

/// A restart that was cancelled while the VM went off has not restarted it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_by_half_is_cancelled() {
    let (plane, tenant) = on(Config { power_ms: 1_500, shut_down_ms: NEVER, ..quick() }).await;
    let vm = tenant.running("halved").await.name;
    let restart = ask(&tenant, "POST", &format!("{vm}:restart"), json!({})).await;
    at_step(&tenant, &restart, "await_guest").await;
    // The guest's time is over, so its power is cut.
    let over = "UPDATE background_jobs.jobs SET progress = jsonb_set(progress, '{at,until}', '\"2026-01-01T00:00:00Z\"') \
        WHERE kind = 'vm_power' AND progress #>> '{at,phase}' = 'await' AND state = 'available'";
    let mut looks = 0..2_000;
    while plane.database.changed(over).await == 0 {
        looks.next().expect("it waits for the guest");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    at_work(&plane, "POWER_OFF").await;
    cancel(&tenant, &restart).await;
    assert_eq!(ended(&tenant, &restart).await["error"]["code"], 1);
    assert_eq!(read(&tenant, &vm).await["state"], "STOPPED");
    agree(&plane, &tenant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_waits_until_what_it_cancels_is_back() {
    let (plane, tenant) = on(Config { shut_down_ms: NEVER, ..quick() }).await;
    let vm = tenant.running("doomed").await.name;
    done(&tenant, "POST", &format!("{vm}/snapshots"), json!({"displayName": "first"})).await;
    let stop = ask(&tenant, "POST", &format!("{vm}:stop"), json!({"graceful": true})).await;
    at_step(&tenant, &stop, "await_guest").await;
    done(&tenant, "DELETE", &format!("{vm}?force=true"), json!({})).await;
    assert_eq!(ended(&tenant, &stop).await["error"]["code"], 1);
    agree(&plane, &tenant).await;
    assert_eq!(read(&tenant, "quota").await["usage"]["snapshots"], 0);
}
