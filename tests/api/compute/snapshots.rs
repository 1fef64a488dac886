//! Snapshots as clients see them.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{Reply, idle_plane, refused, settle, settled_vm};
use crate::support::{ControlPlane, Rest};
use crate::tenancy::calls::texts;

fn target(operation: &Value) -> String {
    operation["metadata"]["target"].as_str().unwrap_or_else(|| panic!("a target in {operation}")).to_owned()
}

async fn create(rest: &Rest, vm: &str, body: Value) -> Reply {
    rest.call("POST", &format!("/v1/{vm}/snapshots"), Some(body)).await
}

/// A snapshot that is there.
async fn made(plane: &ControlPlane, rest: &Rest, vm: &str, display_name: &str) -> String {
    let (status, operation) = create(rest, vm, json!({"displayName": display_name})).await;
    assert_eq!(status, 200, "{operation}");
    settle(plane, "RUNNING").await;
    target(&operation)
}

async fn state_of(rest: &Rest, name: &str) -> Value {
    rest.call("GET", &format!("/v1/{name}"), None).await.1["state"].clone()
}

async fn job(plane: &ControlPlane) -> Value {
    let jobs = texts(&plane.database, "SELECT payload FROM background_jobs.jobs WHERE kind = 'vm_snapshot'").await;
    let [job] = &jobs[..] else { panic!("not one job: {jobs:?}") };
    serde_json::from_str(job).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_comes_and_goes() {
    let plane = idle_plane().await;
    let rest = plane.admin().await.rest();
    let vm = settled_vm(&plane, &rest, "web-1", "RUNNING").await;
    let body = json!({"displayName": "before", "description": "the upgrade"});
    let (status, operation) = create(&rest, &vm, body).await;
    assert_eq!((status, &operation["done"]), (200, &json!(false)), "{operation}");
    assert_eq!(operation["metadata"]["verb"], "CREATE");
    let name = target(&operation);
    assert!(name.starts_with(&format!("{vm}/snapshots/")), "{name}");
    assert_eq!(state_of(&rest, &vm).await, "UPDATING");
    let (_, snapshot) = rest.call("GET", &format!("/v1/{name}"), None).await;
    assert_eq!((&snapshot["name"], &snapshot["state"]), (&json!(name), &json!("CREATING")), "{snapshot}");
    assert_eq!((&snapshot["displayName"], &snapshot["description"]), (&json!("before"), &json!("the upgrade")));
    let (_, me) = rest.call("GET", "/v1/users/me", None).await;
    assert_eq!(snapshot["creator"], me["name"]);
    assert_eq!(job(&plane).await["verb"], "CREATE");
    assert_eq!(rest.call("GET", "/v1/quota", None).await.1["usage"]["snapshots"], 1, "counted from the beginning");

    settle(&plane, "RUNNING").await;
    let (_, done) = rest.call("GET", &format!("/v1/{}", operation["name"].as_str().expect("a name")), None).await;
    assert_eq!(done["response"]["@type"], "type.googleapis.com/virtualstack.compute.v1.Snapshot", "{done}");
    assert_eq!((&done["response"]["name"], &done["response"]["state"]), (&json!(name), &json!("READY")));
    let (_, list) = rest.call("GET", "/v1/operations", None).await;
    let listed = list["operations"].as_array().expect("operations").iter().find(|it| it["name"] == done["name"]);
    assert_eq!(listed, Some(&done), "a list tells the same");

    let (status, revert) = rest.call("POST", &format!("/v1/{name}:revert"), Some(json!({}))).await;
    assert_eq!((status, &revert["metadata"]["verb"]), (200, &json!("REVERT")), "{revert}");
    assert_eq!(target(&revert), name);
    assert_eq!((state_of(&rest, &vm).await, state_of(&rest, &name).await), (json!("UPDATING"), json!("READY")));
    assert_eq!(job(&plane).await["verb"], "REVERT");
    settle(&plane, "STOPPED").await;

    let (status, delete) = rest.call("DELETE", &format!("/v1/{name}"), None).await;
    assert_eq!((status, &delete["metadata"]["verb"]), (200, &json!("DELETE")), "{delete}");
    assert_eq!((state_of(&rest, &vm).await, state_of(&rest, &name).await), (json!("UPDATING"), json!("DELETING")));
    assert_eq!(job(&plane).await["verb"], "DELETE");
    let (_, events) = rest.call("GET", &format!("/v1/{vm}/events"), None).await;
    let reasons: Vec<_> = events["vmEvents"].as_array().expect("events").iter().map(|event| &event["reason"]).collect();
    for reason in ["VM_SNAPSHOT_REQUESTED", "VM_REVERT_REQUESTED", "VM_SNAPSHOT_DELETE_REQUESTED"] {
        assert!(reasons.iter().any(|told| *told == reason), "{reason}: {reasons:?}");
    }

    // What is gone is told as it was, or by its name where nobody has kept it.
    let id = name.rsplit('/').next().expect("an id");
    let keep = format!(
        "UPDATE compute.operations SET state = 'SUCCEEDED', ended_at = now(), tombstone = \
            (SELECT to_jsonb(s) FROM compute.snapshots s WHERE s.id = '{id}') WHERE verb = 'DELETE'; \
         DELETE FROM compute.snapshots"
    );
    plane.database.execute(&keep).await;
    let read = async |operation: &Value| {
        rest.call("GET", &format!("/v1/{}", operation["name"].as_str().expect("a name")), None).await.1
    };
    let was = read(&delete).await;
    assert_eq!((&was["response"]["displayName"], &was["response"]["state"]), (&json!("before"), &json!("DELETING")));
    assert_eq!(read(&operation).await["response"]["name"], name.as_str());
    refused(&rest.call("GET", &format!("/v1/{name}"), None).await, 404, "NOT_FOUND", "SNAPSHOT_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_that_are_refused() {
    let plane = idle_plane().await;
    let rest = plane.admin().await.rest();
    let vm = settled_vm(&plane, &rest, "web-1", "RUNNING").await;
    let snapshot = made(&plane, &rest, &vm, "before").await;
    for (body, field) in [
        (json!({}), "snapshot.displayName"),
        (json!({"displayName": "Not Valid"}), "snapshot.displayName"),
        (json!({"displayName": "ok", "description": "x".repeat(1025)}), "snapshot.description"),
        (json!({"displayName": "ok", "description": "a\u{0}b"}), "snapshot.description"),
    ] {
        let reply = create(&rest, &vm, body.clone()).await;
        assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), [field], "{body}");
    }
    for (path, field) in [("vms/x/snapshots", "parent"), ("vms/x/snapshots/y", "name")] {
        let reply = rest.call("GET", &format!("/v1/{path}"), None).await;
        assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), [field], "{path}");
    }
    let negative = rest.call("GET", &format!("/v1/{vm}/snapshots?pageSize=-1"), None).await;
    assert_eq!(refused(&negative, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["pageSize"]);
    let filter = rest.call("GET", &format!("/v1/{vm}/snapshots?filter=colour%3Dblue"), None).await;
    assert_eq!(refused(&filter, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["filter"]);

    let taken = create(&rest, &vm, json!({"displayName": "before"})).await;
    refused(&taken, 409, "ALREADY_EXISTS", "SNAPSHOT_NAME_TAKEN");
    let path = format!("/v1/{snapshot}");
    let stale = rest.call("DELETE", &format!("{path}?etag=%220%22"), None).await;
    refused(&stale, 409, "ABORTED", "ETAG_MISMATCH");
    let set = async |state: &str| {
        plane.database.execute(&format!("UPDATE compute.snapshots SET state = '{state}'")).await;
    };
    for (state, deleted) in [("CREATING", false), ("DELETING", false), ("ERROR", true)] {
        set(state).await;
        let revert = rest.call("POST", &format!("{path}:revert"), Some(json!({}))).await;
        refused(&revert, 400, "FAILED_PRECONDITION", "SNAPSHOT_STATE");
        let delete = rest.call("DELETE", &format!("{path}?validateOnly=true"), None).await;
        if deleted {
            assert_eq!(delete.0, 200, "{}", delete.1);
        } else {
            refused(&delete, 400, "FAILED_PRECONDITION", "SNAPSHOT_STATE");
        }
    }
    set("READY").await;

    // A snapshot is one of its own VM.
    let other = settled_vm(&plane, &rest, "web-2", "RUNNING").await;
    let id = snapshot.rsplit('/').next().expect("an id");
    let rival = plane.tenant("rival").await.rest();
    let nowhere = format!("vms/{}", Uuid::now_v7());
    for (rest, name, reason) in [
        (&rest, format!("{other}/snapshots/{id}"), "SNAPSHOT_NOT_FOUND"),
        (&rest, format!("{vm}/snapshots/{}", Uuid::now_v7()), "SNAPSHOT_NOT_FOUND"),
        (&rest, format!("{nowhere}/snapshots/{id}"), "VM_NOT_FOUND"),
        (&rival, snapshot.clone(), "VM_NOT_FOUND"),
    ] {
        let kind = if reason == "VM_NOT_FOUND" { "vms" } else { "snapshots" };
        for (method, suffix) in [("GET", ""), ("DELETE", ""), ("POST", ":revert")] {
            let body = (method == "POST").then(|| json!({}));
            let reply = rest.call(method, &format!("/v1/{name}{suffix}"), body).await;
            refused(&reply, 404, "NOT_FOUND", reason);
            let details = reply.1["error"]["details"].as_array().expect("details").clone();
            assert!(details.iter().any(|detail| detail["resourceType"] == kind), "{kind}: {details:?}");
        }
    }
    for method in ["GET", "POST"] {
        let body = (method == "POST").then(|| json!({"displayName": "mine"}));
        refused(&rival.call(method, &format!("/v1/{vm}/snapshots"), body).await, 404, "NOT_FOUND", "VM_NOT_FOUND");
    }
    assert_eq!(state_of(&rest, &snapshot).await, "READY");

    plane.database.execute("UPDATE compute.quotas SET max_snapshots = 1").await;
    let more = create(&rest, &vm, json!({"displayName": "after"})).await;
    refused(&more, 429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED");
    assert_eq!(state_of(&rest, &vm).await, "RUNNING", "nothing was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_listed_by_vm() {
    let plane = idle_plane().await;
    let rest = plane.admin().await.rest();
    let vm = settled_vm(&plane, &rest, "web-1", "RUNNING").await;
    let other = settled_vm(&plane, &rest, "web-2", "RUNNING").await;
    let mut names = Vec::new();
    for display_name in ["one", "two", "three"] {
        names.push(made(&plane, &rest, &vm, display_name).await);
    }
    made(&plane, &rest, &other, "one").await;
    names.reverse();
    let list = async |query: &str| rest.call("GET", &format!("/v1/{vm}/snapshots?{query}"), None).await.1;
    let names_of = |list: &Value| -> Vec<String> {
        let snapshots = list["snapshots"].as_array().unwrap_or_else(|| panic!("snapshots in {list}"));
        snapshots.iter().map(|snapshot| snapshot["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names_of(&list("").await), names, "newest first");
    let first = list("pageSize=2&showTotal=true").await;
    assert_eq!((names_of(&first), &first["totalSize"]), (names[..2].to_vec(), &json!(3)));
    let token = first["nextPageToken"].as_str().expect("a token");
    assert_eq!(names_of(&list(&format!("pageSize=2&pageToken={token}")).await), names[2..]);
    let elsewhere = rest.call("GET", &format!("/v1/{other}/snapshots?pageToken={token}"), None).await;
    assert_eq!(refused(&elsewhere, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["pageToken"]);
    assert_eq!(names_of(&list("filter=displayName%3D%22t*%22&orderBy=displayName").await), [&*names[0], &*names[1]]);

    // A VM that is asked about knows its snapshots, and whose they are.
    let explain = async |rest: &Rest, resource: &str| {
        let body = json!({"permission": "vm:read", "resource": resource});
        let (status, decision) = rest.call("POST", "/v1/auth:explain", Some(body)).await;
        assert_eq!(status, 200, "{decision}");
        decision["allowed"].clone()
    };
    let id = names[0].rsplit('/').next().expect("an id");
    let rival = plane.tenant("rival").await;
    let (_, session) = rest.call("GET", "/v1/sessions/current", None).await;
    let own_quota = format!("{}/quota", session["tenant"].as_str().expect("a tenant"));
    for (resource, allowed) in [
        (names[0].clone(), true),
        (format!("{other}/snapshots/{id}"), false),
        (format!("{vm}/snapshots/{}", Uuid::now_v7()), false),
        (format!("snapshots/{id}"), false),
        (own_quota, true),
        ("tenants/demo/quota".to_owned(), true),
        (format!("{}/quota", rival.tokens.tenant), false),
        ("tenants/demo/quota/x".to_owned(), false),
        ("quota/demo".to_owned(), false),
    ] {
        assert_eq!(explain(&rest, &resource).await, allowed, "{resource}");
    }
    assert_eq!(explain(&rival.rest(), &names[0]).await, false);
}
