//! Resizes: while the VM runs, with a restart where that is allowed, and back where it cannot be done.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;
use virtualstack_worker::adapters::hypervisor::FaultClass;

use super::{agree, behind, done, failed, on, quick, read};
use crate::support::{Call, When, test_fault};

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_grows_while_it_runs_and_shrinks_with_a_restart() {
    let (plane, tenant) = on(quick()).await;
    let vm = tenant.running("elastic").await.name;
    let grown = done(&tenant, "PATCH", &vm, json!({"cpuCount": 4, "memoryMib": 4096, "diskGib": 50})).await;
    assert_eq!(json!([grown["state"], grown["cpuCount"], grown["diskGib"]]), json!(["RUNNING", 4, 50]));
    agree(&plane, &tenant).await;

    let less = json!({"cpuCount": 2, "memoryMib": 2048});
    assert_eq!(failed(&tenant, "PATCH", &vm, less.clone()).await, (9, "RESTART_NEEDED".to_owned()));
    let kept = read(&tenant, &vm).await;
    assert_eq!(json!([kept["state"], kept["cpuCount"], kept["memoryMib"]]), json!(["RUNNING", 4, 4096]));
    agree(&plane, &tenant).await;

    let shrunk = done(&tenant, "PATCH", &format!("{vm}?allowRestart=true"), less).await;
    assert_eq!(json!([shrunk["state"], shrunk["cpuCount"], shrunk["memoryMib"]]), json!(["RUNNING", 2, 2048]));
    agree(&plane, &tenant).await;

    // What is off stays off.
    done(&tenant, "POST", &format!("{vm}:stop"), json!({})).await;
    let smallest = done(&tenant, "PATCH", &vm, json!({"cpuCount": 1})).await;
    assert_eq!(json!([smallest["state"], smallest["cpuCount"]]), json!(["STOPPED", 1]));
    agree(&plane, &tenant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resize_that_fails_once_the_vm_is_off_puts_it_on_again() {
    let resizes = AtomicU32::new(0);
    let (plane, tenant) = behind(quick(), move |call, when| {
        let second = (call, when) == (Call::Resize, When::Before) && resizes.fetch_add(1, Ordering::SeqCst) == 1;
        if second { Err(test_fault(FaultClass::Capacity)) } else { Ok(()) }
    })
    .await;
    let templates = read(&tenant, "templates").await;
    let template = templates["templates"].as_array().expect("templates").last().expect("one")["name"].clone();
    let vm = done(&tenant, "POST", "vms", json!({"displayName": "back", "template": template, "cpuCount": 4})).await;
    let vm = vm["name"].as_str().expect("a name");
    let path = format!("{vm}?allowRestart=true");
    assert_eq!(failed(&tenant, "PATCH", &path, json!({"cpuCount": 2})).await, (8, "TEST_FAULT".to_owned()));
    let kept = read(&tenant, vm).await;
    assert_eq!(json!([kept["state"], kept["cpuCount"]]), json!(["RUNNING", 4]));
    let stopped = "SELECT count(*) FROM simulated_hypervisor.tasks WHERE action = 'SHUT_DOWN'";
    assert_eq!(plane.database.count(stopped).await, 1, "it was off meanwhile");
    agree(&plane, &tenant).await;
}
