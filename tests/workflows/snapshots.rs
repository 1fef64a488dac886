//! Snapshots: made, gone back to, deleted; and what is left where that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use virtualstack_worker::adapters::hypervisor::FaultClass;

use super::{agree, behind, done, failed, on, quick, read};
use crate::support::{Call, When, test_fault};

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_made_gone_back_to_and_deleted() {
    let (plane, tenant) = on(quick()).await;
    let vm = tenant.running("kept").await;
    let first = done(&tenant, "POST", &format!("{}/snapshots", vm.name), json!({"displayName": "before"})).await;
    assert_eq!(first["state"], "READY", "{first}");
    let first = first["name"].as_str().expect("a name");
    done(&tenant, "POST", &format!("{}/snapshots", vm.name), json!({"displayName": "after"})).await;
    assert_eq!(read(&tenant, &vm.name).await["state"], "RUNNING", "it runs on");
    done(&tenant, "PATCH", &vm.name, json!({"cpuCount": 8})).await;
    agree(&plane, &tenant).await;

    done(&tenant, "POST", &format!("{first}:revert"), json!({})).await;
    let reverted = read(&tenant, &vm.name).await;
    assert_eq!(json!([reverted["state"], reverted["cpuCount"]]), json!(["STOPPED", vm.cpu_count]), "settings as then");
    agree(&plane, &tenant).await;

    done(&tenant, "DELETE", first, json!({})).await;
    assert_eq!(tenant.rest().call("GET", &format!("/v1/{first}"), None).await.0, 404);
    agree(&plane, &tenant).await;

    // The other one goes with its VM.
    done(&tenant, "DELETE", &vm.name, json!({})).await;
    agree(&plane, &tenant).await;
    done(&tenant, "DELETE", &format!("{}?force=true", vm.name), json!({})).await;
    agree(&plane, &tenant).await;
    assert_eq!(read(&tenant, "quota").await["usage"]["snapshots"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_to_a_larger_size_needs_room_in_the_quota() {
    let (plane, tenant) = on(quick()).await;
    let vm = tenant.running("shrunk").await.name;
    let sized = async |cpus: i64| done(&tenant, "PATCH", &vm, json!({"cpuCount": cpus})).await;
    done(&tenant, "POST", &format!("{vm}:stop"), json!({})).await;
    sized(4).await;
    let snapshot = done(&tenant, "POST", &format!("{vm}/snapshots"), json!({"displayName": "large"})).await;
    let revert = format!("{}:revert", snapshot["name"].as_str().expect("a name"));
    sized(1).await;
    plane.database.execute("UPDATE compute.quotas SET max_vcpus = 3 WHERE vcpus = 1").await;

    let (status, refused) = tenant.rest().call("POST", &format!("/v1/{revert}"), Some(json!({}))).await;
    assert_eq!((status, &refused["error"]["details"][1]["reason"]), (429, &json!("QUOTA_EXCEEDED")), "{refused}");
    agree(&plane, &tenant).await;

    plane.database.execute("UPDATE compute.quotas SET max_vcpus = 4 WHERE vcpus = 1").await;
    done(&tenant, "POST", &revert, json!({})).await;
    assert_eq!(read(&tenant, "quota").await["usage"]["vcpus"], 4);
    agree(&plane, &tenant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_could_not_be_made_leaves_nothing() {
    let fails = Arc::new(AtomicBool::new(true));
    let failing = Arc::clone(&fails);
    // It was made, and nobody was told.
    let (plane, tenant) = behind(quick(), move |call, when| {
        let lost = (call, when) == (Call::Snapshot, When::After) && failing.load(Ordering::SeqCst);
        if lost { Err(test_fault(FaultClass::Permanent)) } else { Ok(()) }
    })
    .await;
    let vm = tenant.running("unlucky").await.name;
    let path = format!("{vm}/snapshots");
    assert_eq!(failed(&tenant, "POST", &path, json!({"displayName": "lost"})).await, (9, "TEST_FAULT".to_owned()));
    assert_eq!(read(&tenant, &path).await["snapshots"], json!([]));
    agree(&plane, &tenant).await;
    fails.store(false, Ordering::SeqCst);
    done(&tenant, "POST", &path, json!({"displayName": "lost"})).await;
    agree(&plane, &tenant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_nobody_knows_the_state_of_is_in_error_and_can_be_deleted() {
    let fails = Arc::new(AtomicBool::new(true));
    let failing = Arc::clone(&fails);
    let (plane, tenant) = behind(quick(), move |call, when| {
        let fails = (call, when) == (Call::RemoveSnapshot, When::Before) && failing.load(Ordering::SeqCst);
        if fails { Err(test_fault(FaultClass::Permanent)) } else { Ok(()) }
    })
    .await;
    let vm = tenant.running("stuck").await.name;
    let snapshot = done(&tenant, "POST", &format!("{vm}/snapshots"), json!({"displayName": "stuck"})).await;
    let snapshot = snapshot["name"].as_str().expect("a name");
    assert_eq!(failed(&tenant, "DELETE", snapshot, json!({})).await, (9, "TEST_FAULT".to_owned()));
    let left = read(&tenant, snapshot).await;
    assert_eq!(left["state"], "ERROR");
    assert!(left["stateReason"].as_str().is_some_and(|why| why.contains("it does not work")), "{left}");
    assert_eq!(read(&tenant, &vm).await["state"], "RUNNING");
    agree(&plane, &tenant).await;
    fails.store(false, Ordering::SeqCst);
    done(&tenant, "DELETE", snapshot, json!({})).await;
    agree(&plane, &tenant).await;
}
