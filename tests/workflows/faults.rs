//! What a hypervisor that fails costs: retryable faults cost time, permanent ones fail the operation and leave nothing.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use virtualstack_proto::google::longrunning::operation::Result as Outcome;
use virtualstack_proto::google::rpc::Status;
use virtualstack_proto::virtualstack::compute::v1::vm::State;
use virtualstack_worker::adapters::hypervisor::FaultClass;

use super::{agree, ask, behind, done, ended, error, quick, read};
use crate::support::{Call, ControlPlane, Session, When, test_fault};

/// A control plane whose hypervisor fails a call `times` times.
async fn plane(call: Call, class: FaultClass, times: u32) -> (ControlPlane, Session) {
    let left = AtomicU32::new(times);
    behind(quick(), move |passed, when| {
        let fails = (passed, when) == (call, When::Before)
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if fails { Err(test_fault(class)) } else { Ok(()) }
    })
    .await
}

/// Faults to come, each once.
#[derive(Clone, Default)]
struct Faults(Arc<Mutex<Vec<(Call, When, FaultClass)>>>);

impl Faults {
    async fn plane(&self) -> (ControlPlane, Session) {
        let faults = self.clone();
        behind(quick(), move |call, when| match faults.take(call, when) {
            Some(class) => Err(test_fault(class)),
            None => Ok(()),
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Call, When, FaultClass)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, call: Call, when: When) -> Option<FaultClass> {
        let mut faults = self.lock();
        let at = faults.iter().position(|fault| (fault.0, fault.1) == (call, when))?;
        Some(faults.remove(at).2)
    }
}

/// Every call of a workflow on a VM that can fail, and the request that makes it.
const CHANGES: [(Call, &str, &str, &str); 8] = [
    (Call::PowerOff, "POST", ":stop", "{}"),
    (Call::Suspend, "POST", ":suspend", "{}"),
    (Call::Reset, "POST", ":reset", "{}"),
    (Call::PowerOn, "POST", ":restart", "{}"),
    (Call::Resize, "PATCH", "", r#"{"cpuCount": 4}"#),
    (Call::PowerOn, "PATCH", "?allowRestart=true", r#"{"cpuCount": 2}"#),
    (Call::Snapshot, "POST", "/snapshots", r#"{"displayName": "faulty"}"#),
    (Call::Observe, "POST", ":stop", "{}"),
];

#[tokio::test(flavor = "multi_thread")]
async fn after_any_fault_row_quota_and_hypervisor_agree() {
    let faults = Faults::default();
    let (plane, tenant) = faults.plane().await;
    let vm = tenant.running("faulty").await.name;
    // So that there is something to take away.
    done(&tenant, "PATCH", &vm, json!({"cpuCount": 6})).await;
    for (call, method, path, body) in CHANGES {
        let body: Value = serde_json::from_str(body).expect("JSON");
        done(&tenant, "POST", &format!("{vm}:start"), json!({})).await;
        for class in [FaultClass::Permanent, FaultClass::Lost, FaultClass::Capacity] {
            faults.lock().push((call, When::Before, class));
            let operation = ended(&tenant, &ask(&tenant, method, &format!("{vm}{path}"), body.clone()).await).await;
            let (_, reason) = error(&operation);
            assert_eq!(reason, "TEST_FAULT", "{call:?} {path} {class:?}");
            agree(&plane, &tenant).await;
            assert!(faults.lock().is_empty(), "{call:?} {path} {class:?}");
            done(&tenant, "POST", &format!("{vm}:start"), json!({})).await;
            if path.contains("allowRestart") {
                // It was resized, and failed only then.
                done(&tenant, "PATCH", &vm, json!({"cpuCount": 6})).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_are_lost_change_nothing() {
    let faults = Faults::default();
    let (plane, tenant) = faults.plane().await;
    for call in [Call::Create, Call::PowerOn, Call::Observe] {
        faults.lock().push((call, When::After, FaultClass::Unknown));
    }
    let vm = tenant.running("silent").await.name;
    agree(&plane, &tenant).await;
    let snapshot = done(&tenant, "POST", &format!("{vm}/snapshots"), json!({"displayName": "first"})).await;
    let snapshot = snapshot["name"].as_str().expect("a name");
    for (call, method, path, body) in [
        (Call::ShutDown, "POST", format!("{vm}:stop"), json!({"graceful": true})),
        (Call::Resize, "PATCH", vm.clone(), json!({"cpuCount": 2})),
        (Call::Revert, "POST", format!("{snapshot}:revert"), json!({})),
        (Call::RemoveSnapshot, "DELETE", snapshot.to_owned(), json!({})),
        (Call::Absent, "DELETE", format!("{vm}?force=true"), json!({})),
    ] {
        faults.lock().push((call, When::After, FaultClass::Unknown));
        done(&tenant, method, &path, body).await;
        assert!(faults.lock().is_empty(), "{call:?}");
        agree(&plane, &tenant).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_made_sure_of_is_an_error_that_a_start_mends() {
    let faults = Faults::default();
    let (plane, tenant) = faults.plane().await;
    let vm = tenant.running("unsure").await.name;
    faults.lock().extend([
        (Call::Resize, When::After, FaultClass::Permanent),
        (Call::Idle, When::Before, FaultClass::Permanent),
    ]);
    let resize = ask(&tenant, "PATCH", &vm, json!({"cpuCount": 4})).await;
    assert_eq!(error(&ended(&tenant, &resize).await).1, "TEST_FAULT");
    assert_eq!(read(&tenant, &vm).await["state"], "ERROR");
    assert_eq!(read(&tenant, "quota").await["usage"]["vcpus"], 4, "it may have grown, and is counted so");
    assert_eq!(done(&tenant, "POST", &format!("{vm}:start"), json!({})).await["state"], "RUNNING");
    agree(&plane, &tenant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_vanished_is_an_error_and_still_counted() {
    let (plane, tenant) = Faults::default().plane().await;
    let vm = tenant.running("vanished").await.name;
    plane.database.execute("DELETE FROM simulated_hypervisor.vms").await;
    let stop = ask(&tenant, "POST", &format!("{vm}:stop"), json!({})).await;
    assert_eq!(error(&ended(&tenant, &stop).await), (5, "VM_LOST".to_owned()));
    let lost = read(&tenant, &vm).await;
    assert_eq!(json!([lost["state"], lost["stateReason"]]), json!(["ERROR", "the VM is gone from the hypervisor"]));
    assert_eq!(read(&tenant, "quota").await["usage"]["vms"], 1);
    done(&tenant, "DELETE", &format!("{vm}?force=true"), json!({})).await;
    agree(&plane, &tenant).await;
}

/// It may come back until it is purged, with a storage that was away: so it counts, and says why it is not to be seen. But
/// nobody is told that they have it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_vanished_can_be_deleted_and_not_undeleted() {
    let (plane, tenant) = Faults::default().plane().await;
    let vm = tenant.running("vanished").await.name;
    plane.database.execute("DELETE FROM simulated_hypervisor.vms").await;
    done(&tenant, "DELETE", &vm, json!({})).await;
    let kept = read(&tenant, &vm).await;
    assert_eq!(json!([kept["state"], kept["stateReason"]]), json!(["DELETED", "the VM is gone from the hypervisor"]));
    let usage = read(&tenant, "quota").await["usage"].clone();
    assert_eq!((&usage["vms"], &usage["diskGib"]), (&json!(0), &kept["diskGib"]), "{usage}");
    let (status, refused) = tenant.rest().call("POST", &format!("/v1/{vm}:undelete"), Some(json!({}))).await;
    assert_eq!((status, &refused["error"]["details"][0]["reason"]), (400, &json!("VM_LOST")), "{refused}");
    assert_eq!(read(&tenant, &vm).await, kept, "it is as it was");
    // The same of one that a release before has deleted, whose row says that it is off.
    plane.database.execute("UPDATE compute.virtual_machines SET observed_power_state = 'OFF'").await;
    plane.database.execute(include_str!("../../migrations/2026-11-28-000030_lost_vms/up.sql")).await;
    assert_eq!(tenant.rest().call("POST", &format!("/v1/{vm}:undelete"), Some(json!({}))).await.0, 400);
    done(&tenant, "DELETE", &format!("{vm}?force=true"), json!({})).await;
    agree(&plane, &tenant).await;
}

fn failure(outcome: Option<Outcome>) -> Status {
    match outcome {
        Some(Outcome::Error(status)) => status,
        other => panic!("it should have failed: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_fails_at_any_step_leaves_nothing() {
    for (call, class, code) in [
        (Call::Create, FaultClass::Permanent, tonic::Code::FailedPrecondition),
        (Call::Create, FaultClass::Capacity, tonic::Code::ResourceExhausted),
        (Call::Create, FaultClass::Conflict, tonic::Code::Aborted),
        (Call::PowerOn, FaultClass::Permanent, tonic::Code::FailedPrecondition),
        (Call::Observe, FaultClass::Lost, tonic::Code::NotFound),
    ] {
        let (plane, tenant) = plane(call, class, 1).await;
        let operation = tenant.create("doomed").await.expect("accepted");
        let status = failure(tenant.wait(&operation).await.result);
        assert_eq!(tonic::Code::from(status.code), code, "{call:?} {class:?}");
        assert_eq!(status.message, "it does not work", "the tenant is told; the detail is the operator's");
        plane.idle().await;
        assert!(plane.hypervisor(Default::default()).vms().await.expect("a list").is_empty(), "{call:?} {class:?}");
        assert_eq!(read(&tenant, "vms?showDeleted=true").await["vms"], json!([]), "{call:?} {class:?}");
        assert_eq!(read(&tenant, "quota").await["usage"]["vms"], 0, "{call:?} {class:?}");
        // Its name is free.
        tenant.running("doomed").await;
        agree(&plane, &tenant).await;
    }
}

/// A VM whose creation failed and whose rollback was given up: nobody knows what is left of it.
async fn left_behind(faults: &Faults, tenant: &Session) -> (Value, String) {
    faults.lock().extend([
        (Call::PowerOn, When::Before, FaultClass::Permanent),
        (Call::Absent, When::Before, FaultClass::Permanent),
    ]);
    let body = json!({"displayName": "stranded", "template": tenant.list_templates().await[0].name});
    let create = ended(tenant, &ask(tenant, "POST", "vms", body.clone()).await).await;
    assert_eq!(error(&create), (9, "TEST_FAULT".to_owned()));
    let vm = create["metadata"]["target"].as_str().expect("a VM").to_owned();
    assert_eq!(read(tenant, &vm).await["state"], "ERROR");
    assert_eq!(read(tenant, "quota").await["usage"]["vms"], 1, "it is there still");
    assert_eq!(tenant.rest().call("POST", "/v1/vms", Some(body)).await.0, 409, "its name is taken");
    (create, vm)
}

/// What an operator does with a dead letter.
async fn try_again(plane: &ControlPlane) {
    let again = "UPDATE background_jobs.jobs SET state = 'available', attempt = 0, available_at = now(), finished_at = NULL \
        WHERE state = 'discarded'";
    assert_eq!(plane.database.changed(again).await, 1);
    plane.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_was_given_up_is_tried_again_or_its_vm_deleted() {
    let faults = Faults::default();
    let (plane, tenant) = faults.plane().await;
    let (create, vm) = left_behind(&faults, &tenant).await;
    // Its time is over, too.
    plane
        .database
        .execute("UPDATE compute.operations SET deadline_at = now() - interval '1 day', grace_from = NULL")
        .await;
    try_again(&plane).await;
    assert_eq!(tenant.rest().call("GET", &format!("/v1/{vm}"), None).await.0, 404);
    let now = read(&tenant, create["name"].as_str().expect("a name")).await;
    assert_eq!(
        json!([now["error"], now["metadata"]["endTime"], now["metadata"]["step"]]),
        json!([create["error"], create["metadata"]["endTime"], create["metadata"]["step"]]),
        "an operation ends once"
    );
    agree(&plane, &tenant).await;

    let (_, vm) = left_behind(&faults, &tenant).await;
    done(&tenant, "DELETE", &format!("{vm}?force=true"), json!({})).await;
    try_again(&plane).await;
    assert_eq!(plane.database.count("SELECT count(*) FROM background_jobs.jobs WHERE state = 'discarded'").await, 0);
    agree(&plane, &tenant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_is_tried_again_leaves_alone_what_is_of_use() {
    let faults = Faults::default();
    let (plane, tenant) = faults.plane().await;
    let (_, vm) = left_behind(&faults, &tenant).await;
    done(&tenant, "POST", &format!("{vm}:start"), json!({})).await;
    try_again(&plane).await;
    assert_eq!(read(&tenant, &vm).await["state"], "RUNNING");
    agree(&plane, &tenant).await;
}

/// What an operator tries again waits for whatever is at work on the VM by now.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_is_tried_again_waits_for_its_turn() {
    let faults = Faults::default();
    let (plane, tenant) = faults.plane().await;
    let (create, vm) = left_behind(&faults, &tenant).await;
    let other = format!(
        "INSERT INTO compute.operations (tenant_id, id, verb, state, target, slot, actor, deadline_at) \
         SELECT tenant_id, gen_random_uuid(), 'START', 'OPEN', target, target, actor, now() + interval '1 hour' \
         FROM compute.operations WHERE id = '{}'",
        create["name"].as_str().expect("a name").trim_start_matches("operations/")
    );
    plane.database.execute(&other).await;
    let again = "UPDATE background_jobs.jobs SET state = 'available', attempt = 0, available_at = now(), finished_at = NULL, \
        last_error = NULL WHERE state = 'discarded'";
    assert_eq!(plane.database.changed(again).await, 1);
    let waits =
        "SELECT count(*) FROM background_jobs.jobs WHERE kind = 'vm_create' AND last_error LIKE '%another operation%'";
    let mut looks = 0..2_000;
    while plane.database.count(waits).await == 0 {
        looks.next().expect("it waits");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(read(&tenant, &vm).await["state"], "ERROR", "nothing was done to it");
    let over = "UPDATE compute.operations SET state = 'FAILED', ended_at = now() WHERE state = 'OPEN'; \
        UPDATE background_jobs.jobs SET available_at = now() WHERE kind = 'vm_create'";
    plane.database.execute(over).await;
    plane.idle().await;
    assert_eq!(tenant.rest().call("GET", &format!("/v1/{vm}"), None).await.0, 404);
    agree(&plane, &tenant).await;
}

/// What a release before today's has left of a creation that failed: a row in ERROR, of which nothing is on the hypervisor.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_an_older_failed_creation_is_deleted() {
    let (plane, tenant) = Faults::default().plane().await;
    let vm = tenant.running("old").await.name;
    plane
        .database
        .execute(
            "DELETE FROM simulated_hypervisor.vms; \
             UPDATE compute.quotas SET vms = 0, vcpus = 0, memory_mib = 0, disk_gib = 0 WHERE vms = 1; \
             UPDATE compute.virtual_machines SET state = 'ERROR', counted = false, observed_at = NULL, \
                 observed_power_state = NULL, state_reason = 'Creation failed: it does not work'",
        )
        .await;
    done(&tenant, "DELETE", &vm, json!({})).await;
    assert_eq!(read(&tenant, "vms?showDeleted=true").await["vms"], json!([]));
    agree(&plane, &tenant).await;
}

/// Nobody waits for the address of a machine that has no guest.
#[tokio::test(flavor = "multi_thread")]
async fn a_vm_from_a_medium_waits_for_no_address() {
    let looks = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&looks);
    let (_plane, tenant) = behind(quick(), move |call, when| {
        if (call, when) == (Call::Observe, When::Before) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    })
    .await;
    let templates = read(&tenant, "templates").await["templates"].clone();
    let mut media = templates.as_array().expect("templates").iter().filter(|template| template["kind"] == "ISO");
    let body = json!({"displayName": "blank", "template": media.next().expect("a medium")["name"]});
    let vm = done(&tenant, "POST", "vms", body).await;
    assert_eq!(json!([vm["state"], vm["ipAddresses"]]), json!(["RUNNING", []]));
    assert_eq!(looks.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn retryable_faults_cost_time_and_nothing_else() {
    for call in [Call::Create, Call::PowerOn, Call::Observe] {
        for class in [FaultClass::Retry, FaultClass::Unknown] {
            let (plane, tenant) = plane(call, class, 2).await;
            assert_eq!(tenant.running("patient").await.state(), State::Running, "{call:?} {class:?}");
            plane.idle().await;
            assert_eq!(plane.hypervisor(Default::default()).vms().await.expect("a list").len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_fails_tells_the_state_that_the_vm_is_really_in() {
    let (_plane, tenant) = plane(Call::PowerOff, FaultClass::Permanent, 1).await;
    let vm = tenant.running("stubborn").await;
    let operation = tenant.stop(&vm.name).await.expect("accepted");
    assert_eq!(failure(tenant.wait(&operation).await.result).message, "it does not work");
    assert_eq!(tenant.get(&vm.name).await.expect("the VM").state(), State::Running);
    // And it can be tried again.
    let stopped = tenant.vm_of(tenant.stop(&vm.name).await.expect("accepted")).await;
    assert_eq!(stopped.state(), State::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_go_neither_on_nor_back_is_a_dead_letter_and_an_error() {
    let (plane, tenant) = plane(Call::Absent, FaultClass::Permanent, 1).await;
    let vm = tenant.running("sticky").await;
    let operation = tenant.delete(&vm.name, true).await.expect("accepted");
    assert_eq!(failure(tenant.wait(&operation).await.result).message, "it does not work");
    assert_eq!(tenant.get(&vm.name).await.expect("the VM").state(), State::Error);
    assert_eq!(plane.database.count("SELECT count(*) FROM background_jobs.jobs WHERE state = 'discarded'").await, 1);
    tenant.vm_of(tenant.delete(&vm.name, true).await.expect("accepted")).await;
    assert_eq!(plane.hypervisor(Default::default()).vms().await.expect("a list").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_fails_leaves_the_vm_deleted_and_can_be_repeated() {
    let (plane, tenant) = plane(Call::Absent, FaultClass::Permanent, 1).await;
    let vm = tenant.running("lingering").await;
    let deleted = tenant.vm_of(tenant.delete(&vm.name, false).await.expect("accepted")).await;
    let operation = tenant.delete(&vm.name, true).await.expect("accepted");
    assert_eq!(failure(tenant.wait(&operation).await.result).message, "it does not work");
    let kept = tenant.get(&vm.name).await.expect("the VM");
    assert_eq!((kept.state(), kept.delete_time), (State::Deleted, deleted.delete_time), "nobody may use it");
    assert!(kept.purge_time.is_some(), "the housekeeping purges it again");
    tenant.vm_of(tenant.delete(&vm.name, true).await.expect("accepted")).await;
    assert_eq!(plane.hypervisor(Default::default()).vms().await.expect("a list").len(), 0);
}
