//! Mutations of VMs as clients ask for them: what they start, what they refuse, and what they only would do.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{all_rows, idle_plane, refused, settle, settled_vm};
use crate::support::{ControlPlane, Rest};
use crate::tenancy::calls::texts;

/// The fields that a rule of the server refuses.
#[track_caller]
fn invalid(reply: &crate::api::Reply) -> Vec<String> {
    refused(reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS")
}

async fn get(rest: &Rest, name: &str) -> Value {
    let (status, reply) = rest.call("GET", &format!("/v1/{name}"), None).await;
    assert_eq!(status, 200, "{reply}");
    reply
}

/// Payloads of the jobs that wait.
async fn jobs(plane: &ControlPlane) -> Vec<Value> {
    let query = "SELECT jsonb_set(payload, '{kind}', to_jsonb(kind)) FROM background_jobs.jobs WHERE queue = 'vm' \
        ORDER BY created_at";
    texts(&plane.database, query).await.iter().map(|job| serde_json::from_str(job).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_power_operation_starts_its_job() {
    let plane = idle_plane().await;
    let rest = plane.admin().await.rest();
    let vm = settled_vm(&plane, &rest, "web-1", "RUNNING").await;
    let asked = |seconds: u32, power_off: bool| json!({"timeout_seconds": seconds, "power_off": power_off});
    for (from, action, body, verb, state, graceful) in [
        ("STOPPED", "start", json!({}), "START", "STARTING", Value::Null),
        ("SUSPENDED", "start", json!({}), "START", "STARTING", Value::Null),
        ("RUNNING", "stop", json!({}), "STOP", "STOPPING", Value::Null),
        ("RUNNING", "stop", json!({"graceful": true}), "STOP", "STOPPING", asked(120, true)),
        (
            "RUNNING",
            "stop",
            json!({"graceful": true, "timeout": "9.5s", "fallback": "FAIL"}),
            "STOP",
            "STOPPING",
            asked(10, false),
        ),
        (
            "RUNNING",
            "stop",
            json!({"graceful": true, "timeout": "1800s", "fallback": "POWER_OFF"}),
            "STOP",
            "STOPPING",
            asked(1800, true),
        ),
        ("RUNNING", "restart", json!({}), "RESTART", "STOPPING", asked(120, true)),
        ("RUNNING", "reset", json!({}), "RESET", "STOPPING", Value::Null),
        ("RUNNING", "suspend", json!({}), "SUSPEND", "UPDATING", Value::Null),
    ] {
        settle(&plane, from).await;
        let (status, operation) = rest.call("POST", &format!("/v1/{vm}:{action}"), Some(body.clone())).await;
        assert_eq!((status, &operation["done"]), (200, &json!(false)), "{action} {body}: {operation}");
        assert_eq!(operation["metadata"]["verb"], verb);
        assert_eq!(operation["metadata"]["target"], vm.as_str());
        assert!(operation["metadata"]["deadline"].is_string(), "{operation}");
        assert_eq!(get(&rest, &vm).await["state"], state, "{action} {body}");
        let jobs = jobs(&plane).await;
        let [job] = &jobs[..] else { panic!("not one job: {jobs:?}") };
        assert_eq!((&job["kind"], &job["verb"], &job["graceful"]), (&json!("vm_power"), &json!(verb), &graceful));
        let id = operation["name"].as_str().and_then(|name| name.strip_prefix("operations/"));
        assert_eq!(job["operation"].as_str(), id);

        // Another one has to wait, whatever it is.
        for (method, path) in [
            ("POST", format!("/v1/{vm}:stop")),
            ("POST", format!("/v1/{vm}:openConsole")),
            ("POST", format!("/v1/{vm}/snapshots")),
        ] {
            let body = if path.ends_with("snapshots") { json!({"displayName": "before"}) } else { json!({}) };
            refused(&rest.call(method, &path, Some(body)).await, 409, "ABORTED", "OPERATION_IN_PROGRESS");
        }
        let sizes = rest.call("PATCH", &format!("/v1/{vm}"), Some(json!({"cpuCount": 7}))).await;
        refused(&sizes, 409, "ABORTED", "OPERATION_IN_PROGRESS");
    }

    settle(&plane, "RUNNING").await;
    let (status, operation) = rest.call("POST", &format!("/v1/{vm}:openConsole"), Some(json!({}))).await;
    assert_eq!((status, &operation["metadata"]["verb"]), (200, &json!("OPEN_CONSOLE")), "{operation}");
    assert_eq!(get(&rest, &vm).await["state"], "RUNNING", "a console changes nothing");
    assert_eq!(jobs(&plane).await[0]["kind"], "vm_console");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_says_how_only_where_it_asks() {
    let plane = idle_plane().await;
    let rest = plane.admin().await.rest();
    let vm = settled_vm(&plane, &rest, "web-1", "RUNNING").await;
    for (body, field) in [
        (json!({"graceful": true, "timeout": "4s"}), "timeout"),
        (json!({"graceful": true, "timeout": "1801s"}), "timeout"),
        (json!({"graceful": true, "timeout": "-5s"}), "timeout"),
        (json!({"graceful": true, "fallback": 7}), "fallback"),
        (json!({"timeout": "10s"}), "timeout"),
        (json!({"graceful": false, "fallback": "POWER_OFF"}), "fallback"),
        (json!({"requestId": "1"}), "requestId"),
    ] {
        let reply = rest.call("POST", &format!("/v1/{vm}:stop"), Some(body.clone())).await;
        assert_eq!(invalid(&reply), [field], "{body}");
    }
    for action in ["start", "stop", "restart", "reset", "suspend", "undelete", "openConsole"] {
        let reply = rest.call("POST", &format!("/v1/vms/x:{action}"), Some(json!({}))).await;
        assert_eq!(invalid(&reply), ["name"], "{action}");
        let nowhere = format!("/v1/vms/{}:{action}", Uuid::now_v7());
        refused(&rest.call("POST", &nowhere, Some(json!({}))).await, 404, "NOT_FOUND", "VM_NOT_FOUND");
    }
    assert_eq!(get(&rest, &vm).await["state"], "RUNNING");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_allows_what_it_allows() {
    let plane = idle_plane().await;
    let rest = plane.admin().await.rest();
    let vm = settled_vm(&plane, &rest, "web-1", "RUNNING").await;
    // The model's own test goes through all states; these tell every action from every other, and all denied_calls.
    let allowed = |state: &str| -> &[&str] {
        match state {
            "RUNNING" => &["start", "stop", "restart", "reset", "suspend", "openConsole", "snapshot", "size"],
            "SUSPENDED" => &["start", "stop", "suspend", "snapshot"],
            "DELETED" => &["undelete"],
            _ => &[],
        }
    };
    for state in ["RUNNING", "SUSPENDED", "DELETED"] {
        for action in ["start", "stop", "restart", "reset", "suspend", "openConsole", "undelete", "snapshot", "size"] {
            settle(&plane, state).await;
            // Only to be validated: so the VM stays as it is.
            let reply = match action {
                "snapshot" => {
                    let path = format!("/v1/{vm}/snapshots?validateOnly=true");
                    rest.call("POST", &path, Some(json!({"displayName": "before"}))).await
                }
                "size" => {
                    rest.call("PATCH", &format!("/v1/{vm}?validateOnly=true"), Some(json!({"cpuCount": 7}))).await
                }
                _ => rest.call("POST", &format!("/v1/{vm}:{action}"), Some(json!({"validateOnly": true}))).await,
            };
            if allowed(state).contains(&action) {
                assert_eq!(reply.0, 200, "{action} of a VM that is {state}: {}", reply.1);
                continue;
            }
            match (state, action) {
                ("DELETED", _) => refused(&reply, 400, "FAILED_PRECONDITION", "VM_DELETED"),
                (_, "undelete") => refused(&reply, 409, "ALREADY_EXISTS", "VM_NOT_DELETED"),
                _ => refused(&reply, 400, "FAILED_PRECONDITION", "VM_STATE"),
            };
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_change_by_an_operation_and_words_at_once() {
    let plane = idle_plane().await;
    let rest = plane.admin().await.rest();
    let vm = settled_vm(&plane, &rest, "web-1", "RUNNING").await;
    let path = format!("/v1/{vm}");
    let patch = async |query: &str, body: Value| rest.call("PATCH", &format!("{path}?{query}"), Some(body)).await;
    let was = get(&rest, &vm).await;

    let rules = [
        ("", json!({"diskGib": 9}), vec!["vm.diskGib"]),
        ("", json!({"cpuCount": 129}), vec!["vm.cpuCount"]),
        ("", json!({"memoryMib": 1023}), vec!["vm.memoryMib"]),
        ("", json!({"cpuCount": -1, "memoryMib": -4}), vec!["vm.cpuCount", "vm.memoryMib"]),
        ("updateMask=cpuCount", json!({}), vec!["vm.cpuCount"]),
        ("updateMask=memoryMib,diskGib", json!({"cpuCount": 2}), vec!["vm.memoryMib", "vm.diskGib"]),
        ("updateMask=*", json!({"displayName": "web-1"}), vec!["vm.cpuCount", "vm.memoryMib", "vm.diskGib"]),
        ("", json!({"cpuCount": 2, "displayName": "Not Valid"}), vec!["vm.displayName"]),
        ("updateMask=template", json!({}), vec!["updateMask"]),
    ];
    for (query, body, wrong) in rules {
        assert_eq!(invalid(&patch(query, body.clone()).await), wrong, "{query} {body}");
    }
    let stale = patch("", json!({"cpuCount": 2, "etag": "\"0\""})).await;
    refused(&stale, 409, "ABORTED", "ETAG_MISMATCH");
    assert_eq!(get(&rest, &vm).await, was, "nothing of it was done");

    // What is as it should be needs nobody to do it.
    let same = json!({"cpuCount": was["cpuCount"], "diskGib": was["diskGib"], "description": "new"});
    let (status, operation) = patch("", same).await;
    assert_eq!((status, &operation["done"]), (200, &json!(true)), "{operation}");
    assert_eq!(operation["response"]["description"], "new");
    let quiet = get(&rest, &vm).await;
    assert_eq!(patch("", json!({"description": "new"})).await.0, 200);
    assert_eq!(get(&rest, &vm).await, quiet, "what is said again changes nothing, the etag neither");

    let desired =
        json!({"cpuCount": 4, "memoryMib": 4096, "diskGib": 20, "description": "larger", "etag": quiet["etag"]});
    let (status, operation) = patch("allowRestart=true", desired).await;
    assert_eq!((status, &operation["done"]), (200, &json!(false)), "{operation}");
    let now = get(&rest, &vm).await;
    assert_eq!((&now["description"], &now["state"]), (&json!("larger"), &json!("UPDATING")));
    for size in ["cpuCount", "memoryMib", "diskGib"] {
        assert_eq!(now[size], was[size], "it has the size that it has until it has another one");
    }
    assert_ne!(now["etag"], quiet["etag"]);
    let jobs = jobs(&plane).await;
    assert_eq!((&jobs[0]["kind"], &jobs[0]["allow_restart"]), (&json!("vm_resize"), &json!(true)));
    let kept = "SELECT desired_cpu_count || ' ' || desired_memory_mib || ' ' || desired_disk_gib FROM compute.virtual_machines";
    assert_eq!(texts(&plane.database, kept).await, ["4 4096 20"]);
    let (_, quota) = rest.call("GET", "/v1/quota", None).await;
    let usage = &quota["usage"];
    assert_eq!((&usage["vcpus"], &usage["memoryMib"], &usage["diskGib"]), (&json!(4), &json!(4096), &json!(20)));

    // Words may change meanwhile, sizes not.
    assert_eq!(patch("", json!({"labels": {"tier": "front"}})).await.1["done"], true);
    refused(&patch("", json!({"cpuCount": 8})).await, 409, "ABORTED", "OPERATION_IN_PROGRESS");

    settle(&plane, "STOPPED").await;
    assert_eq!(get(&rest, &vm).await["diskGib"], 20);
    assert_eq!(invalid(&patch("", json!({"diskGib": 19})).await), ["vm.diskGib"]);
    let (status, snapshot) =
        rest.call("POST", &format!("{path}/snapshots"), Some(json!({"displayName": "before"}))).await;
    assert_eq!(status, 200, "{snapshot}");
    settle(&plane, "STOPPED").await;
    refused(&patch("", json!({"diskGib": 30})).await, 400, "FAILED_PRECONDITION", "VM_HAS_SNAPSHOTS");
    assert_eq!(patch("", json!({"memoryMib": 2048})).await.1["done"], false, "the rest of its size may change");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_can_be_taken_back() {
    let plane = idle_plane().await;
    let rest = plane.admin().await.rest();
    let vm = settled_vm(&plane, &rest, "web-1", "DELETED").await;
    // As the worker leaves the quota of what it has deleted.
    plane.database.execute("UPDATE compute.quotas SET vms = 0, vcpus = 0, memory_mib = 0 WHERE disk_gib > 0").await;
    let undelete = async || rest.call("POST", &format!("/v1/{vm}:undelete"), Some(json!({}))).await;
    let template = plane.templates().await;

    let (_, other) = rest.call("POST", "/v1/vms", Some(json!({"displayName": "web-1", "template": template}))).await;
    refused(&undelete().await, 409, "ALREADY_EXISTS", "VM_NAME_TAKEN");
    let other = other["metadata"]["target"].as_str().expect("a target");
    plane
        .database
        .execute(&format!(
            "UPDATE compute.virtual_machines SET display_name = 'web-2' WHERE 'vms/' || id = '{other}'; \
             UPDATE compute.quotas SET max_vms = 1 WHERE disk_gib > 0"
        ))
        .await;
    refused(&undelete().await, 429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED");
    plane.database.execute("UPDATE compute.quotas SET max_vms = NULL").await;
    plane.database.execute("UPDATE compute.virtual_machines SET counted = false WHERE deleted_at IS NOT NULL").await;
    refused(&undelete().await, 400, "FAILED_PRECONDITION", "VM_LOST");
    plane.database.execute("UPDATE compute.virtual_machines SET counted = true").await;

    let (status, operation) = undelete().await;
    assert_eq!((status, &operation["done"]), (200, &json!(true)), "{operation}");
    assert_eq!(operation["metadata"]["verb"], "UNDELETE");
    let back = &operation["response"];
    assert_eq!((&back["state"], back.get("deleteTime"), back.get("purgeTime")), (&json!("STOPPED"), None, None));
    let (_, quota) = rest.call("GET", "/v1/quota", None).await;
    assert_eq!((&quota["usage"]["vms"], &quota["usage"]["diskGib"]), (&json!(2), &json!(20)), "{quota}");
    refused(&undelete().await, 409, "ALREADY_EXISTS", "VM_NOT_DELETED");

    // A purge that has begun goes on.
    settle(&plane, "DELETED").await;
    let (status, purge) = rest.call("DELETE", &format!("/v1/{vm}?force=true"), None).await;
    assert_eq!(status, 200, "{purge}");
    refused(&undelete().await, 400, "FAILED_PRECONDITION", "VM_DELETED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_is_nowhere_is_purged_at_once() {
    let plane = idle_plane().await;
    let rest = plane.admin().await.rest();
    for (counted, forced) in [(true, false), (false, true)] {
        let vm = settled_vm(&plane, &rest, &format!("web-{counted}"), "ERROR").await;
        plane.database.execute(&format!("UPDATE compute.virtual_machines SET counted = {counted}")).await;
        assert_eq!(rest.call("DELETE", &format!("/v1/{vm}"), None).await.0, 200);
        assert_eq!(jobs(&plane).await[0]["force"], forced, "counted: {counted}");
        settle(&plane, "ERROR").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_is_made_from_a_medium_too() {
    let plane = idle_plane().await;
    let rest = plane.admin().await.rest();
    let (_, templates) = rest.call("GET", "/v1/templates", None).await;
    let iso = templates["templates"].as_array().expect("templates").iter().find(|it| it["kind"] == "ISO");
    let iso = iso.expect("a medium").clone();
    let create = async |name: &str, more: Value| {
        let mut body = json!({"displayName": name, "template": iso["name"]});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        rest.call("POST", "/v1/vms", Some(body)).await
    };
    let (status, operation) = create("empty-1", json!({"cpuCount": 2})).await;
    assert_eq!(status, 200, "{operation}");
    let vm = get(&rest, operation["metadata"]["target"].as_str().expect("a target")).await;
    assert_eq!((&vm["cpuCount"], &vm["memoryMib"]), (&json!(2), &iso["minMemoryMib"]));
    assert_eq!(vm["diskGib"], iso["minDiskGib"]);
    assert_eq!(vm["templateDisplayName"], iso["displayName"]);
    assert_eq!(texts(&plane.database, "SELECT template_kind FROM compute.virtual_machines").await, ["ISO"]);
    // A medium of which nobody has said how large a machine it wants.
    plane.database.execute("UPDATE compute.provider_templates SET disk_gib = 0, cpu_count = 0").await;
    assert_eq!(invalid(&create("empty-2", json!({"cpuCount": 1})).await), ["vm.diskGib"]);
    assert_eq!(create("empty-2", json!({"cpuCount": 1, "diskGib": 5})).await.0, 200);
}

/// Each mutation, as method, path behind /v1/, body, and whether its options stand in the body.
fn mutations(vm: &str, snapshot: &str, template: &str) -> Vec<(&'static str, String, Option<Value>, bool)> {
    let mut all = vec![
        ("POST", "vms".to_owned(), Some(json!({"displayName": "web-9", "template": template})), false),
        ("PATCH", vm.to_owned(), Some(json!({"description": "changed", "cpuCount": 2, "memoryMib": 2048})), false),
        ("PATCH", vm.to_owned(), Some(json!({"description": "changed"})), false),
        ("DELETE", vm.to_owned(), None, false),
        ("POST", format!("{vm}/snapshots"), Some(json!({"displayName": "another"})), false),
        ("DELETE", snapshot.to_owned(), None, false),
        ("POST", format!("{snapshot}:revert"), Some(json!({})), true),
    ];
    for action in ["start", "stop", "restart", "reset", "suspend", "openConsole"] {
        all.push(("POST", format!("{vm}:{action}"), Some(json!({})), true));
    }
    all.push(("POST", format!("{vm}:undelete"), Some(json!({})), true));
    all
}

async fn call(
    rest: &Rest,
    (method, path, body, inside): &(&'static str, String, Option<Value>, bool),
    options: &Value,
) -> crate::api::Reply {
    let options = options.as_object().expect("an object").clone();
    if *inside {
        let mut body = body.clone().expect("a body");
        body.as_object_mut().expect("an object").extend(options);
        return rest.call(method, &format!("/v1/{path}"), Some(body)).await;
    }
    let query = options.iter().map(|(key, value)| format!("{key}={}", value.to_string().replace('"', "")));
    let path = format!("/v1/{path}?{}", query.collect::<Vec<_>>().join("&"));
    rest.call(method, &path, body.clone()).await
}

async fn vm_with_snapshot(plane: &ControlPlane, rest: &Rest) -> (String, String) {
    let vm = settled_vm(plane, rest, "web-1", "RUNNING").await;
    let path = format!("/v1/{vm}/snapshots");
    let (status, operation) = rest.call("POST", &path, Some(json!({"displayName": "before"}))).await;
    assert_eq!(status, 200, "{operation}");
    settle(plane, "RUNNING").await;
    (vm, operation["metadata"]["target"].as_str().expect("a target").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_tells_the_plan_and_changes_nothing() {
    let plane = idle_plane().await;
    let rest = plane.admin().await.rest();
    let (vm, snapshot) = vm_with_snapshot(&plane, &rest).await;
    let template = plane.templates().await;
    plane.database.execute("UPDATE compute.quotas SET max_vms = 5, max_template_bytes = 1099511627776").await;
    let (_, quota) = rest.call("GET", "/v1/quota", None).await;
    let id = Uuid::now_v7();
    for mutation in mutations(&vm, &snapshot, &template) {
        let (method, path, ..) = &mutation;
        settle(&plane, if path.ends_with(":undelete") { "DELETED" } else { "RUNNING" }).await;
        let before = all_rows(&plane).await;
        // The same id for all of them: nobody looks it up, and nobody keeps it.
        let (status, operation) = call(&rest, &mutation, &json!({"validateOnly": true, "requestId": id})).await;
        assert_eq!(status, 200, "{method} {path}: {operation}");
        assert_eq!(all_rows(&plane).await, before, "{method} {path} has left something");
        assert_eq!((&operation["name"], &operation["done"]), (&json!(""), &json!(true)), "{operation}");
        assert_eq!((operation.get("response"), operation.get("error")), (None, None), "{operation}");
        let metadata = &operation["metadata"];
        let target = match (*method, path.as_str()) {
            ("POST", path) if path == "vms" || path.ends_with("/snapshots") => "",
            (_, path) if path.contains("/snapshots/") => snapshot.as_str(),
            _ => vm.as_str(),
        };
        assert_eq!(metadata["target"], target, "{method} {path}");
        assert_ne!(metadata["verb"], "VERB_UNSPECIFIED");
        let plan = &metadata["plan"];
        assert_eq!(plan["quota"]["limits"], quota["limits"], "{plan}");
        assert_eq!(plan["quota"]["before"], quota["usage"], "{plan}");
        assert_eq!(plan["placement"], json!({"hypervisor": "simulated"}), "{plan}");
        let after = |what: &str| plan["quota"]["after"][what].as_i64().expect("a number");
        let grown = |what: &str| after(what) - quota["usage"][what].as_i64().expect("a number");
        let grown = ["vms", "vcpus", "memoryMib", "diskGib", "snapshots"].map(grown);
        let expected = match (*method, path.as_str(), &mutation.2) {
            ("POST", "vms", _) => [1, 1, 1024, 10, 0],
            ("PATCH", _, Some(body)) if body.get("cpuCount").is_some() => [0, 1, 1024, 0, 0],
            ("POST", path, _) if path.ends_with("/snapshots") => [0, 0, 0, 0, 1],
            // The row says what it gives back, and the test has set that by hand.
            ("POST", path, _) if path.ends_with(":undelete") => [1, 1, 1024, 0, 0],
            _ => [0; 5],
        };
        assert_eq!(grown, expected, "{method} {path}");
    }

    // Every check is made, of the limits too.
    settle(&plane, "RUNNING").await;
    plane.database.execute("UPDATE compute.quotas SET max_vms = 1, max_snapshots = 1").await;
    for (path, body) in [
        ("/v1/vms".to_owned(), json!({"displayName": "web-9", "template": template})),
        (format!("/v1/{vm}/snapshots"), json!({"displayName": "another"})),
    ] {
        let reply = rest.call("POST", &format!("{path}?validateOnly=true"), Some(body)).await;
        refused(&reply, 429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED");
    }
    let taken = json!({"displayName": "web-1", "template": template});
    let taken = rest.call("POST", "/v1/vms?validateOnly=true", Some(taken)).await;
    refused(&taken, 409, "ALREADY_EXISTS", "VM_NAME_TAKEN");
    let stale = rest.call("DELETE", &format!("/v1/{snapshot}?validateOnly=true&etag=%220%22"), None).await;
    refused(&stale, 409, "ABORTED", "ETAG_MISMATCH");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_of_any_mutation_is_the_same_operation() {
    let plane = idle_plane().await;
    let rest = plane.admin().await.rest();
    let (vm, snapshot) = vm_with_snapshot(&plane, &rest).await;
    let template = plane.templates().await;
    for mutation in mutations(&vm, &snapshot, &template) {
        let (method, path, ..) = &mutation;
        settle(&plane, if path.ends_with(":undelete") { "DELETED" } else { "RUNNING" }).await;
        if path.ends_with(":undelete") {
            // Of what the delete before it gave back.
            plane
                .database
                .execute("UPDATE compute.virtual_machines SET display_name = 'of-another' WHERE display_name = 'web-9'")
                .await;
        }
        let options = json!({"requestId": Uuid::now_v7()});
        let (status, first) = call(&rest, &mutation, &options).await;
        assert_eq!(status, 200, "{method} {path}: {first}");
        let rows = all_rows(&plane).await;
        let (status, again) = call(&rest, &mutation, &options).await;
        assert_eq!((status, &again["name"]), (200, &first["name"]), "{method} {path}: {again}");
        let audited =
            |rows: Vec<String>| rows.into_iter().filter(|row| !row.starts_with("audit.logs ")).collect::<Vec<_>>();
        assert_eq!(audited(all_rows(&plane).await), audited(rows), "{method} {path} was done twice");
        // The same id, for something else.
        let other = json!({"displayName": "web-8", "template": template});
        let id = options["requestId"].as_str().expect("an id");
        let reply = rest.call("POST", &format!("/v1/vms?requestId={id}"), Some(other)).await;
        assert_eq!(invalid(&reply), ["requestId"], "{method} {path}");
    }
}

/// What tenants see of a template; where the provider keeps it is not theirs to know.
#[tokio::test(flavor = "multi_thread")]
async fn a_template_says_what_it_was_made_for() {
    let plane = idle_plane().await;
    let rest = plane.admin().await.rest();
    let (status, list) =
        rest.call("GET", "/v1/templates?filter=minDiskGib%3E%3D10&orderBy=minCpuCount,minMemoryMib", None).await;
    assert_eq!(status, 200, "{list}");
    for template in list["templates"].as_array().expect("a list") {
        let mut fields: Vec<_> = template.as_object().expect("an object").keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(
            fields,
            [
                "createTime",
                "description",
                "displayName",
                "etag",
                "guestOs",
                "kind",
                "labels",
                "minCpuCount",
                "minDiskGib",
                "minMemoryMib",
                "name",
                "owner",
                "scope",
                "sha256",
                "sizeBytes",
                "state",
                "stateReason",
                "uid",
                "updateTime",
                "uploadedBytes"
            ]
        );
        assert_eq!(template["scope"], "PROVIDER", "{template}");
        assert!(template["minDiskGib"].as_i64().is_some_and(|size| size >= 10), "{template}");
    }
    let (status, _) = rest.call("GET", "/v1/templates?filter=hypervisor%3Dsimulated", None).await;
    assert_eq!(status, 400, "the hypervisor is not the tenant's to know");
}
