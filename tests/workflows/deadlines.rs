//! Operations end in a stated time, whatever the hypervisor does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use virtualstack_worker::adapters::hypervisor::FaultClass;
use virtualstack_worker::adapters::hypervisor::simulated::Config;
use virtualstack_worker::{NoProbe, Point};

use super::{NEVER, agree, ask, at_step, at_work, deadline, ended, error, on, quick, read, waiting, work_on};
use crate::support::{Call, ControlPlane, Gate, Intercepted, When, hang, test_fault};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_never_ends_is_taken_back() {
    let (plane, tenant) = on(Config { create_ms: NEVER, ..quick() }).await;
    let body = json!({"displayName": "endless", "template": plane.templates().await});
    let operation = ask(&tenant, "POST", "vms", body).await;
    at_work(&plane, "CREATE").await;
    deadline(&plane, "0 s").await;
    let ended = ended(&tenant, &operation).await;
    assert_eq!(error(&ended), (4, "OPERATION_TIMED_OUT".to_owned()));
    assert_eq!(read(&tenant, "vms").await["vms"], json!([]));
    agree(&plane, &tenant).await;
    assert_eq!(read(&tenant, "quota").await["usage"]["vms"], 0, "nothing of it is left");
}

/// A call that hangs, or is to be tried again for ever.
async fn a_create_ends_in_time(answer: fn() -> virtualstack_worker::adapters::hypervisor::Fault) {
    let (plane, tenant) = waiting().await;
    let body = json!({"displayName": "late", "template": plane.templates().await});
    let operation = ask(&tenant, "POST", "vms", body).await;
    deadline(&plane, "2 s").await;
    let since = Instant::now();
    let bad = Intercepted::new(Arc::new(plane.hypervisor(quick())), move |call, when| {
        if (call, when) == (Call::Create, When::Before) { Err(answer()) } else { Ok(()) }
    });
    work_on(&plane, bad).await;
    assert_eq!(error(&ended(&tenant, &operation).await), (4, "OPERATION_TIMED_OUT".to_owned()));
    // A call by itself may take two minutes.
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    agree(&plane, &tenant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_does_not_hold_the_operation() {
    a_create_ends_in_time(hang).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_tried_again_is_tried_until_the_deadline() {
    a_create_ends_in_time(|| test_fault(FaultClass::Retry)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_that_does_not_end_is_given_up() {
    let (plane, tenant) = on(Config { shut_down_ms: NEVER, ..quick() }).await;
    let vm = tenant.running("abandoned").await.name;
    // From now on, the hypervisor takes for ever.
    plane
        .database
        .execute(
            "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS \
                $$ BEGIN NEW.finish_at := NEW.finish_at + interval '1 hour'; RETURN NEW; END $$; \
             CREATE TRIGGER slow BEFORE INSERT ON simulated_hypervisor.tasks FOR EACH ROW EXECUTE FUNCTION public.slow()",
        )
        .await;
    let operation = ask(&tenant, "POST", &format!("{vm}:stop"), json!({})).await;
    at_work(&plane, "POWER_OFF").await;
    deadline(&plane, "-16 min").await;
    at_step(&tenant, &operation, "rollback").await;
    plane.database.execute("UPDATE compute.operations SET grace_from = now() - interval '16 min'").await;
    assert_eq!(error(&ended(&tenant, &operation).await), (4, "OPERATION_TIMED_OUT".to_owned()));
    assert_eq!(read(&tenant, &vm).await["state"], "ERROR");
    assert_eq!(read(&tenant, "quota").await["usage"]["vms"], 1, "it is there still");
    assert_eq!(plane.database.count("SELECT count(*) FROM background_jobs.jobs WHERE state = 'discarded'").await, 1);
}

/// Workers were away for longer than the operation had, way back included.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_much_too_late_is_taken_back_all_the_same() {
    let (plane, tenant) = waiting().await;
    let body = json!({"displayName": "forgotten", "template": plane.templates().await});
    let operation = ask(&tenant, "POST", "vms", body).await;
    let gate = Arc::new(Gate::new("vm_create.clone", Point::AfterCall));
    let victim = plane.work_on(Arc::clone(&gate) as _, Arc::new(plane.hypervisor(quick()))).await;
    gate.reached().await;
    drop(victim);
    at_work(&plane, "CREATE").await;
    deadline(&plane, "-1 day").await;
    left_alone(&plane).await;
    work_on(&plane, plane.hypervisor(quick())).await;
    assert_eq!(error(&ended(&tenant, &operation).await), (4, "OPERATION_TIMED_OUT".to_owned()));
    agree(&plane, &tenant).await;
    assert_eq!(read(&tenant, "quota").await["usage"]["vms"], 0, "nothing of it is left");
    assert_eq!(plane.database.count("SELECT count(*) FROM background_jobs.jobs WHERE state = 'discarded'").await, 0);
}

/// There is no way back from a delete: it is done all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_is_found_much_too_late_is_done() {
    let (plane, tenant) = waiting().await;
    let worker = plane.work(Arc::new(NoProbe)).await;
    let vm = tenant.running("leaving").await.name;
    worker.drain().await;
    let delete = ask(&tenant, "DELETE", &vm, json!({})).await;
    deadline(&plane, "-1 day").await;
    left_alone(&plane).await;
    work_on(&plane, plane.hypervisor(quick())).await;
    assert_eq!(ended(&tenant, &delete).await["response"]["state"], "DELETED");
    agree(&plane, &tenant).await;
}

/// As if no worker had been there for an hour.
async fn left_alone(plane: &ControlPlane) {
    let due = "UPDATE background_jobs.jobs SET available_at = now() - interval '1 hour' WHERE finished_at IS NULL";
    plane.database.execute(due).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_comes_from_the_task_and_only_grows() {
    let (plane, tenant) = on(Config { create_ms: 3_000, ..quick() }).await;
    let body = json!({"displayName": "watched", "template": plane.templates().await});
    let operation = ask(&tenant, "POST", "vms", body).await;
    ended(&tenant, &operation).await;
    let told = "SELECT count(*) FROM audit.changes WHERE reason = 'OPERATION_PROGRESS' AND after->>'step' = 'clone'";
    let told_often = plane.database.count(told).await;
    assert!((5..=15).contains(&told_often), "{told_often}: every 5 percent at most, from 5 to 70");
    let back = "SELECT count(*) FROM (SELECT (after->>'progress_percent')::int \
        - lag((after->>'progress_percent')::int) OVER (ORDER BY position) AS grown \
        FROM audit.changes WHERE after ? 'progress_percent') told WHERE grown < 0";
    assert_eq!(plane.database.count(back).await, 0);
}
