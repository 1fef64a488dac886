//! Power: guests that are asked, guests that hang, guests that cannot be asked.

use serde_json::json;
use virtualstack_model::compute::vm::PowerState;
use virtualstack_worker::adapters::hypervisor::simulated::Config;

use super::{NEVER, agree, done, failed, on, quick, read};

#[tokio::test(flavor = "multi_thread")]
async fn every_power_operation_does_what_it_says() {
    let (plane, tenant) = on(quick()).await;
    let vm = tenant.running("busy").await.name;
    for (verb, state) in [
        // What is so already, is a success.
        ("start", "RUNNING"),
        ("reset", "RUNNING"),
        ("restart", "RUNNING"),
        ("suspend", "SUSPENDED"),
        ("suspend", "SUSPENDED"),
        ("start", "RUNNING"),
        ("suspend", "SUSPENDED"),
        ("stop", "STOPPED"),
        ("stop", "STOPPED"),
        ("start", "RUNNING"),
    ] {
        let changed = done(&tenant, "POST", &format!("{vm}:{verb}"), json!({})).await;
        assert_eq!(changed["state"], state, "{verb}");
        agree(&plane, &tenant).await;
    }
    let machines = plane.hypervisor(quick()).machines().await.expect("machines");
    assert_eq!(machines[0].resets, 1);

    // Who asked stands with what came of it.
    let events = read(&tenant, &format!("{vm}/events")).await;
    let events = events["vmEvents"].as_array().expect("events");
    let last = &events[0];
    assert_eq!(last["reason"], "VM_STARTED");
    assert_eq!(last["actor"], events[1]["actor"], "{last}");
    assert!(last["actor"].as_str().is_some_and(|actor| actor.starts_with("users/")), "{last}");
    let machinery = "SELECT count(*) FROM audit.logs WHERE action LIKE 'vm_power.%' AND actor <> 'system'";
    assert_eq!(plane.database.count(machinery).await, 0, "the audit log says that it was the worker");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_asked_shuts_down() {
    let (plane, tenant) = on(Config { power_ms: NEVER, shut_down_ms: 200, ..quick() }).await;
    let operation = tenant.create("polite").await.expect("accepted");
    // Its power-on takes for ever, so it is helped.
    super::at_work(&plane, "POWER_ON").await;
    plane.database.execute("UPDATE simulated_hypervisor.tasks SET finish_at = now()").await;
    let vm = tenant.vm_of(operation).await.name;
    let stopped = done(&tenant, "POST", &format!("{vm}:stop"), json!({"graceful": true})).await;
    assert_eq!(stopped["state"], "STOPPED", "nobody cut the power, which would have taken for ever");
    agree(&plane, &tenant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_hangs_loses_its_power_or_keeps_it_as_wished() {
    let (plane, tenant) = on(Config { shut_down_ms: NEVER, ..quick() }).await;
    let vm = tenant.running("hung").await.name;
    let ask = |fallback: &str| json!({"graceful": true, "timeout": "5s", "fallback": fallback});
    let refused = failed(&tenant, "POST", &format!("{vm}:stop"), ask("FAIL")).await;
    assert_eq!(refused, (9, "GUEST_DID_NOT_SHUT_DOWN".to_owned()));
    assert_eq!(read(&tenant, &vm).await["state"], "RUNNING");
    agree(&plane, &tenant).await;

    let stopped = done(&tenant, "POST", &format!("{vm}:stop"), ask("POWER_OFF")).await;
    assert_eq!(stopped["state"], "STOPPED");
    agree(&plane, &tenant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_without_tools_cannot_be_asked() {
    let (plane, tenant) = on(quick()).await;
    let templates = read(&tenant, "templates").await;
    let medium = templates["templates"].as_array().expect("templates").iter().find(|it| it["kind"] == "ISO");
    let medium = &medium.expect("a medium")["name"];
    let vm = done(&tenant, "POST", "vms", json!({"displayName": "blank", "template": medium})).await;
    assert_eq!(vm["state"], "RUNNING");
    let path = format!("{}:stop", vm["name"].as_str().expect("a name"));
    let refused = failed(&tenant, "POST", &path, json!({"graceful": true, "fallback": "FAIL"})).await;
    assert_eq!(refused, (9, "GUEST_TOOLS_UNAVAILABLE".to_owned()));
    assert_eq!(plane.hypervisor(quick()).machines().await.expect("machines")[0].power, PowerState::On);
    agree(&plane, &tenant).await;
    assert_eq!(done(&tenant, "POST", &path, json!({"graceful": true})).await["state"], "STOPPED");
    agree(&plane, &tenant).await;
}
