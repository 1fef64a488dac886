//! What is wrong with a request is told in one form, by name, and before anything is done.

use prost::bytes::Bytes;
use prost_reflect::{Kind, MessageDescriptor};
use serde_json::{Value, json};
use tonic_types::StatusExt as _;
use uuid::Uuid;
use virtualstack_proto::{Scope, policy};

use super::{Reply, idle_plane, refused, send};
use crate::schema::contract::{is_resource, referenced};
use crate::support::{ControlPlane, Rest};
use crate::tenancy::calls::{call, path, rpcs};

/// A new VM, as a request body.
fn vm(template: &str, more: Value) -> Value {
    let mut vm = json!({"displayName": "web-1", "template": template});
    vm.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    vm
}

/// Refused by the gateway: the request does not fit the contract's types.
#[track_caller]
fn unfit(reply: &Reply) -> Vec<String> {
    refused(reply, 400, "INVALID_ARGUMENT", "INVALID_REQUEST")
}

/// Refused by the server: the request breaks a rule.
#[track_caller]
fn invalid(reply: &Reply) -> Vec<String> {
    refused(reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS")
}

async fn no_vms(plane: &ControlPlane) {
    assert_eq!(plane.database.count("SELECT count(*) FROM compute.virtual_machines").await, 0, "something was made");
    assert_eq!(plane.database.count("SELECT count(*) FROM compute.operations").await, 0, "something was started");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_not_json_or_do_not_fit() {
    let plane = idle_plane().await;
    let (rest, template) = (plane.admin().await.rest(), plane.templates().await);
    let raw = async |body: &str| {
        let request = rest.request("POST", "/v1/vms").header("content-type", "application/json");
        send(request.body(body.to_owned())).await
    };
    for body in [
        "{",
        "",
        "nonsense",
        "{\"displayName\": }",
        "{} {}",
        "{\"displayName\": \"a\", \"displayName\": \"b\"}",
        "\u{feff}{}",
    ] {
        let reply = raw(body).await;
        if body.is_empty() {
            // No body is an empty VM, which breaks the rules.
            assert!(invalid(&reply).contains(&"vm.displayName".to_owned()));
        } else {
            refused(&reply, 400, "INVALID_ARGUMENT", "MALFORMED_JSON");
        }
    }
    refused(
        &raw(&format!("{{\"labels\": {}1", "{\"a\":".repeat(5_000))).await,
        400,
        "INVALID_ARGUMENT",
        "MALFORMED_JSON",
    );
    for (body, field) in [("[]", "vm"), ("7", "vm"), ("\"text\"", "vm")] {
        assert_eq!(unfit(&raw(body).await), [field], "{body}");
    }
    let create = async |more: Value| rest.call("POST", "/v1/vms", Some(vm(&template, more))).await;
    for (more, field) in [
        (json!({"displayName": 5}), "vm.displayName"),
        (json!({"displayName": ["web-1"]}), "vm.displayName"),
        (json!({"cpuCount": "many"}), "vm.cpuCount"),
        (json!({"cpuCount": 1.5}), "vm.cpuCount"),
        (json!({"cpuCount": 99_999_999_999_i64}), "vm.cpuCount"),
        (json!({"labels": "tier=front"}), "vm.labels"),
        (json!({"labels": {"tier": 1}}), "vm.labels[\"tier\"]"),
        (json!({"ipAddresses": {}}), "vm.ipAddresses"),
        (json!({"state": "ON FIRE"}), "vm.state"),
        (json!({"createTime": "yesterday"}), "vm.createTime"),
        (json!({"colour": "blue"}), "vm.colour"),
        (json!({"tenant": "tenants/other"}), "vm.tenant"),
    ] {
        assert_eq!(unfit(&create(more.clone()).await), [field], "{more}");
    }
    let both = create(json!({"cpuCount": "many", "colour": "blue"})).await;
    let mut fields = unfit(&both);
    fields.sort();
    assert_eq!(fields, ["vm.colour", "vm.cpuCount"], "every one of them at once");
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"] {
        let request = rest.request("POST", "/v1/vms").header("content-type", kind).body("{}");
        refused(&send(request).await, 415, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE");
    }
    let on_a_read = send(rest.request("GET", "/v1/vms").json(&json!({}))).await;
    refused(&on_a_read, 400, "INVALID_ARGUMENT", "BODY_NOT_ALLOWED");
    no_vms(&plane).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_large() {
    let plane = idle_plane().await;
    let (rest, template) = (plane.admin().await.rest(), plane.templates().await);
    let five = vm(&template, json!({"description": "x".repeat(5 << 20)}));
    let reply = send(rest.request("POST", "/v1/vms").json(&five)).await;
    refused(&reply, 413, "INVALID_ARGUMENT", "BODY_TOO_LARGE");

    // One that does not say how long it is, and goes on and on.
    let block = Bytes::from(vec![b' '; 1 << 20]);
    let blocks = futures::stream::iter((0..100).map(move |_| Ok::<_, std::io::Error>(block.clone())));
    let request = rest.request("POST", "/v1/vms").header("content-type", "application/json");
    let reply = send(request.body(reqwest::Body::wrap_stream(blocks))).await;
    refused(&reply, 413, "INVALID_ARGUMENT", "BODY_TOO_LARGE");

    // Just below the limit of bytes it is the rules that refuse it.
    let three = vm(&template, json!({"description": "x".repeat(3 << 20)}));
    assert_eq!(invalid(&send(rest.request("POST", "/v1/vms").json(&three)).await), ["vm.description"]);
    let long = rest.call("GET", &format!("/v1/vms?pageToken={}", "x".repeat(20_000)), None).await;
    refused(&long, 414, "INVALID_ARGUMENT", "URL_TOO_LONG");
    no_vms(&plane).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_and_routes_that_are_not_there() {
    let plane = idle_plane().await;
    let session = plane.admin().await;
    let rest = session.rest();
    let get = async |path: &str| rest.call("GET", path, None).await;
    assert_eq!(unfit(&get("/v1/vms?colour=blue").await), ["colour"]);
    assert_eq!(unfit(&get("/v1/vms?pageSize=many").await), ["pageSize"]);
    assert_eq!(unfit(&get("/v1/vms?pageSize=1&pageSize=2").await), ["pageSize"]);
    assert_eq!(unfit(&get("/v1/vms?showDeleted=perhaps").await), ["showDeleted"]);
    refused(&get("/v1/vms?pageToken=%zz").await, 400, "INVALID_ARGUMENT", "MALFORMED_QUERY");
    assert_eq!(invalid(&get("/v1/vms?pageSize=-1").await), ["pageSize"]);
    assert_eq!(invalid(&get("/v1/operations?pageSize=-1").await), ["pageSize"]);
    assert_eq!(invalid(&get("/v1/operations?filter=colour%3Dblue").await), ["filter"]);
    for path in ["/v1/vms", "/v1/templates", "/v1/operations", "/v1/tenants"] {
        for token in ["nonsense", "eyJrIjoxfQ", "%00"] {
            assert_eq!(invalid(&get(&format!("{path}?pageToken={token}")).await), ["pageToken"], "{path} {token}");
        }
        assert_eq!(get(&format!("{path}?pageSize=100000")).await.0, 200, "larger than the largest is the largest");
    }
    let secret = &session.tokens.access_token;
    for name in ["access_token", "accessToken", "token", "X-API-Key", "api_key", "authorization"] {
        for path in ["/v1/vms", "/v1/nowhere"] {
            let anonymous = Rest::new(&plane.http, None);
            let reply = anonymous.call("GET", &format!("{path}?{name}={secret}"), None).await;
            refused(&reply, 400, "INVALID_ARGUMENT", "CREDENTIAL_IN_QUERY");
            assert!(!reply.1.to_string().contains(secret), "it is not repeated");
        }
    }
    for path in ["/v1/nowhere", "/", "/v2/vms", "/v1/vms/", "/v1/vms/a/b/c", "/v1/vms:fly", "/v1/../v1/nowhere"] {
        refused(&get(path).await, 404, "NOT_FOUND", "ROUTE_NOT_FOUND");
    }
    for (method, path, allowed) in [
        ("PUT", "/v1/vms", "GET, HEAD, POST"),
        ("DELETE", "/v1/auth:login", "POST"),
        ("POST", "/v1/vms/x", "DELETE, GET, HEAD, PATCH"),
    ] {
        let response = rest.request(method, path).send().await.expect("a reply");
        let allow = response.headers()["allow"].to_str().expect("text").to_owned();
        assert_eq!(allow, allowed, "{path}");
        let reply = (response.status().as_u16(), response.json().await.expect("JSON"));
        refused(&reply, 405, "UNIMPLEMENTED", "METHOD_NOT_ALLOWED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_before_everything_else() {
    let plane = idle_plane().await;
    let template = plane.templates().await;
    for (token, reason) in [(None, "CREDENTIALS_MISSING"), (Some("nonsense"), "TOKEN_INVALID")] {
        let rest = Rest::new(&plane.http, token);
        let vm_of_nobody = format!("/v1/vms/{}", Uuid::now_v7());
        for (method, path, body) in [
            ("GET", "/v1/vms", None),
            ("GET", vm_of_nobody.as_str(), None),
            ("POST", "/v1/vms", Some(vm(&template, json!({"displayName": "NOT VALID"})))),
            ("GET", "/v1/vms?pageSize=-1", None),
        ] {
            refused(&rest.call(method, path, body).await, 401, "UNAUTHENTICATED", reason);
        }
        let response = rest.request("GET", "/v1/vms").send().await.expect("a reply");
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
    }
    no_vms(&plane).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vms_that_break_a_rule() {
    let plane = idle_plane().await;
    let (rest, template) = (plane.admin().await.rest(), plane.templates().await);
    let create = async |more: Value| rest.call("POST", "/v1/vms", Some(vm(&template, more))).await;
    for name in ["", "Web", "web_1", "-web", "web-", "web 1", "wéb", "web.1", "web\n", &"x".repeat(64)] {
        assert_eq!(invalid(&create(json!({"displayName": name})).await), ["vm.displayName"], "{name:?}");
    }
    for (more, field) in [
        (json!({"memoryMib": 1023}), "vm.memoryMib"),
        (json!({"memoryMib": -4}), "vm.memoryMib"),
        (json!({"memoryMib": 4_194_308}), "vm.memoryMib"),
        (json!({"cpuCount": 129}), "vm.cpuCount"),
        (json!({"cpuCount": -1}), "vm.cpuCount"),
        (json!({"diskGib": 65_537}), "vm.diskGib"),
        // The smallest template has 10 GiB.
        (json!({"diskGib": 1}), "vm.diskGib"),
        (json!({"description": "a\u{0}b"}), "vm.description"),
        (json!({"description": "x".repeat(1025)}), "vm.description"),
        (json!({"template": ""}), "vm.template"),
        (json!({"template": "debian-12"}), "vm.template"),
        (json!({"template": "templates/0199a000-0000-7000-8000-000000000000"}), "vm.template"),
        (json!({"labels": {"A b": "x"}}), "vm.labels[\"A b\"]"),
        (json!({"labels": {"a]b.c_D": "x"}}), "vm.labels[\"a]b.c_D\"]"),
        (json!({"labels": {"a\"b_C": "x"}}), "vm.labels[\"a\\\"b_C\"]"),
        (json!({"labels": {"tier": "no spaces"}}), "vm.labels[\"tier\"]"),
        (json!({"etag": "x".repeat(65)}), "vm.etag"),
    ] {
        assert_eq!(invalid(&create(more.clone()).await), [field], "{more}");
    }
    let many: Value =
        (0..65).map(|label| (format!("label-{label}"), json!("x"))).collect::<serde_json::Map<_, _>>().into();
    assert_eq!(invalid(&create(json!({"labels": many})).await), ["vm.labels"]);
    let mut fields = invalid(&create(json!({"displayName": "Web", "memoryMib": 1, "cpuCount": 999})).await);
    fields.sort();
    assert_eq!(fields, ["vm.cpuCount", "vm.displayName", "vm.memoryMib"], "every one of them at once");
    let request_id = rest.call("POST", "/v1/vms?requestId=1", Some(vm(&template, json!({})))).await;
    assert_eq!(invalid(&request_id), ["requestId"]);
    no_vms(&plane).await;

    plane.database.execute("UPDATE compute.provider_templates SET state = 'UNAVAILABLE'").await;
    refused(&create(json!({})).await, 400, "FAILED_PRECONDITION", "TEMPLATE_UNAVAILABLE");
    no_vms(&plane).await;
}

/// Requests that name nothing where they should name a resource, and the field that is wrong.
fn wrong_names(request: &MessageDescriptor) -> Vec<(String, Value)> {
    let mut wrong = Vec::new();
    for field in request.fields() {
        let (name, list) = (field.json_name().to_owned(), field.is_list());
        if referenced(&field).is_some() {
            let at = if list { format!("{name}[0]") } else { name.clone() };
            wrong.push((at, json!({&name: if list { json!(["nonsense"]) } else { json!("nonsense") }})));
        }
        // The resource of an update is held against its rules when what is there has been merged into it.
        let Kind::Message(message) = field.kind() else { continue };
        if is_resource(&message) && request.name().starts_with("Create") {
            let nested = wrong_names(&message).into_iter().chain([("name".to_owned(), json!({"name": "nonsense"}))]);
            wrong.extend(nested.map(|(at, value)| (format!("{name}.{at}"), json!({&name: value}))));
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn every_name_is_held_against_what_it_names() {
    let plane = idle_plane().await;
    let (operator, admin) = (plane.operator().await, plane.admin().await);
    let mut tried = 0;
    for rpc in rpcs() {
        let platform = policy(&path(&rpc)).is_some_and(|policy| policy.scope == Scope::Platform);
        let session = if platform { &operator } else { &admin };
        for (field, request) in wrong_names(&rpc.input()) {
            let reply = call(&session.channel, Some(&session.tokens.access_token), &rpc, request).await;
            let status = reply.expect_err(rpc.full_name());
            let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
            let found = violations.iter().find(|violation| violation.field == field);
            let found = found.unwrap_or_else(|| panic!("{}: {field}: {status:?}", rpc.full_name()));
            assert!(found.description.starts_with("must be a full name, "), "{}: {found:?}", rpc.full_name());
            tried += 1;
        }
    }
    assert!(tried > 45, "{tried}");
}

#[tokio::test(flavor = "multi_thread")]
async fn vms_that_meet_another() {
    let plane = ControlPlane::start().await;
    let (acme, rival) = (plane.tenant("acme").await, plane.tenant("rival").await);
    let (mine, theirs) = (acme.running("web-1").await, rival.running("web-1").await);
    let (rest, template) = (acme.rest(), plane.templates().await);
    let path = format!("/v1/{}", mine.name);

    let taken = rest.call("POST", "/v1/vms", Some(vm(&template, json!({})))).await;
    refused(&taken, 409, "ALREADY_EXISTS", "VM_NAME_TAKEN");
    let other = acme.running("web-2").await;
    let renamed = rest.call("PATCH", &path, Some(json!({"displayName": "web-2"}))).await;
    refused(&renamed, 409, "ALREADY_EXISTS", "VM_NAME_TAKEN");

    // Another tenant's VM is as one that does not exist, in every word.
    let nowhere = format!("vms/{}", Uuid::now_v7());
    for (method, suffix, body) in [
        ("GET", "", None),
        ("PATCH", "", Some(json!({"description": "x"}))),
        ("DELETE", "", None),
        ("DELETE", "?force=true", None),
        ("POST", ":stop", Some(json!({}))),
        ("GET", "/events", None),
    ] {
        let at = async |name: &str| {
            let (status, reply) = rest.call(method, &format!("/v1/{name}{suffix}"), body.clone()).await;
            (status, reply.to_string().replace(name, "vms/x"))
        };
        let (foreign, missing) = (at(&theirs.name).await, at(&nowhere).await);
        assert_eq!(foreign, missing, "{method} {suffix}");
        let reply = (foreign.0, serde_json::from_str(&foreign.1).expect("JSON"));
        refused(&reply, 404, "NOT_FOUND", "VM_NOT_FOUND");
    }
    assert_eq!(rival.get(&theirs.name).await.expect("untouched").etag, theirs.etag);
    let invalid_id = rest.call("GET", "/v1/vms/web-1", None).await;
    assert_eq!(invalid(&invalid_id), ["name"]);

    // A colon with no verb behind it is not taken for the VM.
    for suffix in [":", ":?force=true", "::"] {
        let reply = rest.call("DELETE", &format!("{path}{suffix}"), None).await;
        assert_eq!(reply.0, 404, "{suffix}: {}", reply.1);
    }
    assert_eq!(rest.call("GET", &path, None).await.1["state"], "RUNNING");

    // Changes for a VM that is no longer as it was read.
    let stale = json!({"description": "mine", "etag": "\"0\""});
    refused(&rest.call("PATCH", &path, Some(stale)).await, 409, "ABORTED", "ETAG_MISMATCH");
    refused(&rest.call("DELETE", &format!("{path}?etag=%220%22"), None).await, 409, "ABORTED", "ETAG_MISMATCH");
    let fresh = json!({"description": "mine", "etag": mine.etag});
    assert_eq!(rest.call("PATCH", &path, Some(fresh.clone())).await.0, 200);
    refused(&rest.call("PATCH", &path, Some(fresh)).await, 409, "ABORTED", "ETAG_MISMATCH");

    // Changes of what cannot be changed, or not like this.
    let patch = async |query: &str, body: Value| rest.call("PATCH", &format!("{path}?{query}"), Some(body)).await;
    for mask in ["colour", "state", "description,owner", "displayName,colour"] {
        let fields = invalid(&patch(&format!("updateMask={mask}"), json!({"description": "x"})).await);
        assert_eq!(fields, ["updateMask"], "{mask}");
    }
    assert_eq!(invalid(&patch("", json!({"displayName": "Not Valid"})).await), ["vm.displayName"]);
    assert_eq!(invalid(&patch("updateMask=displayName", json!({})).await), ["vm.displayName"]);
    assert_eq!(invalid(&patch("updateMask=labels", json!({"labels": {"A b": ""}})).await), ["vm.labels[\"A b\"]"]);
    let elsewhere = patch("", json!({"name": other.name, "description": "x"})).await;
    assert_eq!(unfit(&elsewhere), ["vm.name"], "path and body disagree");
    assert_eq!(acme.get(&mine.name).await.expect("a VM").display_name, "web-1");

    // A page token is good for the list it came from.
    let (_, page) = rest.call("GET", "/v1/vms?pageSize=1", None).await;
    let token = page["nextPageToken"].as_str().filter(|token| !token.is_empty()).expect("a second page").to_owned();
    assert_eq!(rest.call("GET", &format!("/v1/vms?pageSize=5&pageToken={token}"), None).await.0, 200);
    for list in ["/v1/vms?showDeleted=true&", "/v1/operations?", "/v1/templates?"] {
        assert_eq!(
            invalid(&rest.call("GET", &format!("{list}pageToken={token}"), None).await),
            ["pageToken"],
            "{list}"
        );
    }
    let foreign = rival.rest().call("GET", &format!("/v1/vms?pageToken={token}"), None).await;
    assert_eq!(invalid(&foreign), ["pageToken"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_is_one_request() {
    let plane = idle_plane().await;
    let (session, template) = (plane.admin().await, plane.templates().await);
    let rest = session.rest();
    let id = Uuid::now_v7();
    let path = format!("/v1/vms?requestId={id}");
    let body = vm(&template, json!({"labels": {"a": "1", "b": "2", "c": "3", "d": "4"}}));

    // All at once, as an impatient client does it.
    let calls = (0..6).map(|_| rest.call("POST", &path, Some(body.clone())));
    let replies = futures::future::join_all(calls).await;
    for (status, operation) in &replies {
        assert_eq!((*status, &operation["name"]), (200, &replies[0].1["name"]), "{operation}");
    }
    assert_eq!(rest.call("POST", &path, Some(body.clone())).await.1["name"], replies[0].1["name"]);
    assert_eq!(plane.database.count("SELECT count(*) FROM compute.virtual_machines").await, 1);

    for other in [json!({"displayName": "web-2"}), json!({"labels": {"a": "1"}}), json!({"cpuCount": 2})] {
        assert_eq!(invalid(&rest.call("POST", &path, Some(vm(&template, other))).await), ["requestId"]);
    }
    let target = replies[0].1["metadata"]["target"].as_str().expect("a target");
    let of_another_method = rest.call("DELETE", &format!("/v1/{target}?requestId={id}"), None).await;
    assert_eq!(invalid(&of_another_method), ["requestId"]);
    // What was refused may be tried again under the same id.
    let id = Uuid::now_v7();
    let path = format!("/v1/vms?requestId={id}");
    refused(&rest.call("POST", &path, Some(body.clone())).await, 409, "ALREADY_EXISTS", "VM_NAME_TAKEN");
    assert_eq!(rest.call("POST", &path, Some(vm(&template, json!({"displayName": "web-2"})))).await.0, 200);
    // After a day it is a new request.
    plane.database.execute("UPDATE iam.request_ids SET created_at = created_at - interval '25 hours'").await;
    let (status, third) = rest.call("POST", &path, Some(vm(&template, json!({"displayName": "web-3"})))).await;
    assert_eq!(status, 200, "{third}");
}
