//! Long-running operations as clients see them: wait, cancel, list, delete, and those that meet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel_async::SimpleAsyncConnection as _;
use serde_json::{Value, json};
use virtualstack_proto::google::longrunning::WaitOperationRequest;
use virtualstack_proto::google::longrunning::operations_client::OperationsClient;
use virtualstack_worker::adapters::hypervisor::simulated;
use virtualstack_worker::{NoProbe, Point};

use super::{idle_plane, refused};
use crate::support::{ControlPlane, Gate, Rest};

fn name(operation: &Value) -> &str {
    operation["name"].as_str().unwrap_or_else(|| panic!("an operation, not {operation}"))
}

fn target(operation: &Value) -> &str {
    operation["metadata"]["target"].as_str().expect("a target")
}

async fn create(rest: &Rest, template: &str, display_name: &str) -> Value {
    let body = json!({"displayName": display_name, "template": template});
    let (status, operation) = rest.call("POST", "/v1/vms", Some(body)).await;
    assert_eq!((status, &operation["done"]), (200, &json!(false)), "{operation}");
    operation
}

async fn read(rest: &Rest, operation: &Value) -> Value {
    rest.call("GET", &format!("/v1/{}", name(operation)), None).await.1
}

async fn wait(rest: &Rest, operation: &Value) -> Value {
    let path = format!("/v1/{}:wait", name(operation));
    let (_, done) = rest.call("POST", &path, Some(json!({"timeout": "30s"}))).await;
    assert_eq!(done["done"], true, "{done}");
    done
}

/// Lets a worker on a slow hypervisor take the operation up. It stands still, with the clone under way, until the gate is
/// opened.
async fn held_worker(plane: &mut ControlPlane, rest: &Rest, operation: &Value) -> Arc<Gate> {
    // It holds the job as long as it stands.
    plane.lease_ms = 60_000;
    let gate = Arc::new(Gate::new("vm_create.clone", Point::AfterCall));
    let slow = simulated::Config { create_ms: 1_500, power_ms: 20, ..Default::default() };
    plane.work_on(Arc::clone(&gate) as _, Arc::new(plane.hypervisor(slow))).await.detach();
    gate.reached().await;
    let clones = "SELECT count(*) FROM simulated_hypervisor.tasks WHERE action = 'CREATE'";
    assert_eq!(plane.database.count(clones).await, 1, "the clone is under way");
    let open = read(rest, operation).await;
    assert_eq!(open["done"], false, "{open}");
    gate
}

async fn nothing_left(plane: &ControlPlane, rest: &Rest, vm: &str) {
    refused(&rest.call("GET", &format!("/v1/{vm}"), None).await, 404, "NOT_FOUND", "VM_NOT_FOUND");
    let (_, list) = rest.call("GET", "/v1/vms?showDeleted=true", None).await;
    assert_eq!(list["vms"], json!([]));
    plane.idle().await;
    assert!(plane.hypervisor(simulated::Config::default()).vms().await.expect("VMs").is_empty());
    assert_eq!(
        plane.database.count("SELECT count(*) FROM simulated_hypervisor.tasks WHERE finished_at IS NULL").await,
        0
    );
    assert_eq!(
        plane.database.count("SELECT count(*) FROM compute.operations WHERE state IN ('OPEN', 'QUEUED')").await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_create_leaves_nothing() {
    let mut plane = idle_plane().await;
    let (rest, template) = (plane.admin().await.rest(), plane.templates().await);
    let operation = create(&rest, &template, "web-1").await;
    let worker = held_worker(&mut plane, &rest, &operation).await;

    let cancel = format!("/v1/{}:cancel", name(&operation));
    assert_eq!(rest.call("POST", &cancel, Some(json!({}))).await, (200, json!({})));
    assert_eq!(read(&rest, &operation).await["metadata"]["cancelRequested"], true);
    assert_eq!(rest.call("POST", &cancel, Some(json!({}))).await.0, 200, "asking twice is asking once");
    worker.open();
    let done = wait(&rest, &operation).await;
    assert_eq!((&done["error"]["code"], done.get("response")), (&json!(1), None), "CANCELLED: {done}");
    assert!(done["metadata"]["endTime"].is_string(), "{done}");
    nothing_left(&plane, &rest, target(&operation)).await;
    assert_eq!(rest.call("POST", &cancel, Some(json!({}))).await.0, 200, "a done one stays as it is");
    assert_eq!(read(&rest, &operation).await, done);

    // The name is free again.
    let again = create(&rest, &template, "web-1").await;
    assert_eq!(wait(&rest, &again).await["response"]["state"], "RUNNING");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_create_that_nobody_took_up_leaves_nothing() {
    let plane = idle_plane().await;
    let (rest, template) = (plane.admin().await.rest(), plane.templates().await);
    let operation = create(&rest, &template, "web-1").await;
    assert_eq!(rest.call("POST", &format!("/v1/{}:cancel", name(&operation)), Some(json!({}))).await.0, 200);
    plane.work(Arc::new(NoProbe)).await.detach();
    assert_eq!(wait(&rest, &operation).await["error"]["code"], 1);
    nothing_left(&plane, &rest, target(&operation)).await;
    assert_eq!(plane.database.count("SELECT count(*) FROM simulated_hypervisor.tasks").await, 0, "nothing was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_waits_behind_a_create_and_cancels_it() {
    let mut plane = idle_plane().await;
    let (rest, template) = (plane.admin().await.rest(), plane.templates().await);
    let operation = create(&rest, &template, "web-1").await;
    let worker = held_worker(&mut plane, &rest, &operation).await;

    let path = format!("/v1/{}", target(&operation));
    let (status, delete) = rest.call("DELETE", &path, None).await;
    assert_eq!(
        (status, &delete["done"], &delete["metadata"]["verb"]),
        (200, &json!(false), &json!("DELETE")),
        "{delete}"
    );
    assert_eq!(read(&rest, &operation).await["metadata"]["cancelRequested"], true);
    refused(&rest.call("DELETE", &path, None).await, 409, "ABORTED", "DELETE_IN_PROGRESS");
    let start = rest.call("POST", &format!("{path}:start"), Some(json!({}))).await;
    refused(&start, 409, "ABORTED", "OPERATION_IN_PROGRESS");
    worker.open();

    assert_eq!(wait(&rest, &operation).await["error"]["code"], 1, "the create was cancelled");
    let done = wait(&rest, &delete).await;
    assert_eq!((done.get("error"), &done["response"]["state"]), (None, &json!("DELETED")), "{done}");
    assert_eq!(done["response"]["name"], target(&operation));
    nothing_left(&plane, &rest, target(&operation)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_operation_of_a_vm_at_a_time() {
    let plane = idle_plane().await;
    let (rest, template) = (plane.admin().await.rest(), plane.templates().await);
    let operation = create(&rest, &template, "web-1").await;
    let path = format!("/v1/{}", target(&operation));
    for verb in ["start", "stop", "restart"] {
        let reply = rest.call("POST", &format!("{path}:{verb}"), Some(json!({}))).await;
        refused(&reply, 409, "ABORTED", "OPERATION_IN_PROGRESS");
    }
    // What takes no slot goes through.
    let (status, changed) = rest.call("PATCH", &path, Some(json!({"description": "front"}))).await;
    assert_eq!((status, &changed["done"]), (200, &json!(true)), "{changed}");

    let delete = format!("/v1/{}", name(&operation));
    refused(&rest.call("DELETE", &delete, None).await, 400, "FAILED_PRECONDITION", "OPERATION_IN_PROGRESS");
    plane.work(Arc::new(NoProbe)).await.detach();
    assert_eq!(wait(&rest, &operation).await["response"]["description"], "front", "the VM as it is now");
    assert_eq!(rest.call("DELETE", &delete, None).await, (200, json!({})));
    refused(&rest.call("GET", &delete, None).await, 404, "NOT_FOUND", "OPERATION_NOT_FOUND");
    refused(&rest.call("DELETE", &delete, None).await, 404, "NOT_FOUND", "OPERATION_NOT_FOUND");
    assert_eq!(rest.call("GET", &path, None).await.1["state"], "RUNNING", "the VM stays");

    // Of many at once, one is taken.
    let stop = format!("{path}:stop");
    let stops = futures::future::join_all((0..6).map(|_| rest.call("POST", &stop, Some(json!({}))))).await;
    let taken: Vec<_> = stops.iter().filter(|(status, _)| *status == 200).collect();
    assert!(!taken.is_empty(), "{stops:?}");
    for reply in stops.iter().filter(|(status, _)| *status != 200) {
        refused(reply, 409, "ABORTED", "OPERATION_IN_PROGRESS");
    }
    for (_, operation) in taken {
        assert_eq!(wait(&rest, operation).await["response"]["state"], "STOPPED");
    }
    plane.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_newest_first() {
    let plane = idle_plane().await;
    let (rest, template) = (plane.admin().await.rest(), plane.templates().await);
    let mut made = Vec::new();
    for number in 0..5 {
        made.push(name(&create(&rest, &template, &format!("web-{number}")).await).to_owned());
    }
    made.reverse();
    let page = async |size: &str, token: &str| {
        let (status, page) = rest.call("GET", &format!("/v1/operations?pageSize={size}&pageToken={token}"), None).await;
        assert_eq!(status, 200, "{page}");
        let names = page["operations"].as_array().expect("a list").iter().map(|one| name(one).to_owned());
        (names.collect::<Vec<_>>(), page["nextPageToken"].as_str().expect("a token").to_owned())
    };
    let (mut names, mut token) = page("2", "").await;
    let mut sizes = vec![names.len()];
    while !token.is_empty() {
        let next;
        (next, token) = page("2", &token).await;
        sizes.push(next.len());
        names.extend(next);
    }
    assert_eq!((sizes, &names), (vec![2, 2, 1], &made));
    assert_eq!(page("0", "").await, (made.clone(), String::new()), "50 when it is not said");
    assert_eq!(page("5", "").await, (made.clone(), String::new()), "no token where nothing follows");

    // What comes in between does not shift the pages.
    let (first, token) = page("3", "").await;
    create(&rest, &template, "late").await;
    let (second, _) = page("3", &token).await;
    let both: BTreeSet<_> = first.into_iter().chain(second).collect();
    assert_eq!(both, made.into_iter().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_its_time() {
    let plane = idle_plane().await;
    let (rest, template) = (plane.admin().await.rest(), plane.templates().await);
    let operation = create(&rest, &template, "web-1").await;
    let path = format!("/v1/{}:wait", name(&operation));

    let start = Instant::now();
    let (status, open) = rest.call("POST", &path, Some(json!({"timeout": "0.5s"}))).await;
    assert_eq!((status, &open["done"]), (200, &json!(false)), "{open}");
    assert!(open.get("response").is_none() && open.get("error").is_none(), "{open}");
    // Far from the time that a wait has at most.
    assert!((Duration::from_millis(500)..Duration::from_secs(20)).contains(&start.elapsed()), "{:?}", start.elapsed());
    let (status, now) = rest.call("POST", &path, Some(json!({"timeout": "0s"}))).await;
    assert_eq!((status, &now["done"]), (200, &json!(false)), "{now}");
    let negative = rest.call("POST", &path, Some(json!({"timeout": "-1s"}))).await;
    assert_eq!(refused(&negative, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["timeout"]);
    let nowhere = "/v1/operations/0199a000-0000-7000-8000-000000000000:wait";
    refused(&rest.call("POST", nowhere, Some(json!({}))).await, 404, "NOT_FOUND", "OPERATION_NOT_FOUND");

    // It ends when the operation does, and not later.
    let waiting = wait(&rest, &operation);
    let working = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        plane.work(Arc::new(NoProbe)).await.detach();
    };
    let start = Instant::now();
    let (done, ()) = tokio::join!(waiting, working);
    assert_eq!(done["response"]["state"], "RUNNING", "{done}");
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
}

/// A wait that is under way when its server drains is answered, and not cut off when the drain is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_gets_its_operation_as_it_stands_when_the_server_drains() {
    let mut plane = ControlPlane::without_worker().await;
    let worker = plane.work(Arc::new(NoProbe)).await;
    plane.templates().await;
    worker.drain().await;
    let session = plane.admin().await;
    let operation = session.create("endless").await.expect("accepted");

    // The first read has to wait, so that it is seen.
    let mut keeper = plane.database.admin().await;
    keeper.batch_execute("BEGIN; LOCK TABLE compute.operations IN ACCESS EXCLUSIVE MODE").await.expect("a lock");
    let wait = WaitOperationRequest {
        name: operation.name.clone(),
        timeout: Some(prost_types::Duration { seconds: 300, nanos: 0 }),
    };
    let mut client = OperationsClient::new(session.channel.clone());
    let request = session.request(wait);
    let waiting = tokio::spawn(async move { client.wait_operation(request).await });
    // And one through the gateway, which stops with the server.
    let (rest, path) = (session.rest(), format!("/v1/{}:wait", operation.name));
    let over_rest = tokio::spawn(async move { rest.call("POST", &path, Some(json!({"timeout": "300s"}))).await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    let mut looks = 0..2_000;
    while plane.database.count(waits).await < 2 {
        looks.next().expect("they wait");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    keeper.batch_execute("ROLLBACK").await.expect("a rollback");
    plane.drain().await;
    // Half the time that it would wait otherwise.
    let told = tokio::time::timeout(Duration::from_secs(150), waiting).await.expect("it is told as the drain begins");
    let told = told.expect("no panic").expect("an answer").into_inner();
    assert_eq!((&told.name, told.done), (&operation.name, false));
    let (status, told) = over_rest.await.expect("no panic");
    assert_eq!((status, &told["name"], &told["done"]), (200, &json!(operation.name), &json!(false)), "{told}");
}
