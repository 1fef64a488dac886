//! Quotas as members and operators see them.

use std::collections::HashMap;

use futures::future::join_all;
use serde_json::{Value, json};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::api::{Reply, all_rows, idle_plane, refused};
use crate::support::{Rest, reason};

const AMOUNTS: [&str; 7] = ["vms", "vcpus", "memoryMib", "diskGib", "snapshots", "templates", "templateBytes"];

async fn patch(rest: &Rest, query: &str, body: Value) -> Reply {
    rest.call("PATCH", &format!("/v1/tenants/demo/quota?{query}"), Some(body)).await
}

async fn limits(rest: &Rest, query: &str, body: Value) -> Value {
    let (status, quota) = patch(rest, query, body).await;
    assert_eq!(status, 200, "{quota}");
    quota["limits"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_see_what_operators_set() {
    let plane = idle_plane().await;
    let (admin, operator) = (plane.admin().await, plane.operator().await.rest());
    let rest = admin.rest();
    let (status, quota) = rest.call("GET", "/v1/quota", None).await;
    assert_eq!(status, 200, "{quota}");
    assert_eq!(quota["name"], format!("{}/quota", admin.tokens.tenant));
    assert_eq!(quota["limits"], json!({}), "without limits at first");
    let usage = quota["usage"].as_object().expect("usage");
    assert_eq!(usage.len(), AMOUNTS.len(), "{quota}");
    for amount in AMOUNTS {
        let zero = if amount == "templateBytes" { json!("0") } else { json!(0) };
        assert_eq!(usage[amount], zero, "{amount}");
    }

    // By id and by slug.
    for name in [admin.tokens.tenant.as_str(), "tenants/demo"] {
        assert_eq!(operator.call("GET", &format!("/v1/{name}/quota"), None).await, (200, quota.clone()), "{name}");
    }
    let all = json!({"vms": 5, "vcpus": 10, "memoryMib": 1024, "diskGib": 100, "snapshots": 3, "templates": 0, "templateBytes": "1099511627776"});
    assert_eq!(limits(&operator, "", json!({"limits": all})).await, all);
    let (_, now) = rest.call("GET", "/v1/quota", None).await;
    assert_eq!((&now["limits"], &now["usage"]), (&all, &quota["usage"]));
    assert_ne!(now["etag"], quota["etag"]);
    let mut expected = all.clone();

    // Without a mask those that are given; with one those that are named, and what is not given is unlimited.
    expected["vms"] = json!(6);
    assert_eq!(limits(&operator, "", json!({"limits": {"vms": 6}})).await, expected);
    expected["vcpus"] = json!(0);
    assert_eq!(limits(&operator, "updateMask=limits.vcpus", json!({"limits": {"vcpus": 0, "vms": 9}})).await, expected);
    for field in ["memoryMib", "templateBytes"] {
        expected.as_object_mut().expect("an object").remove(field);
        assert_eq!(limits(&operator, &format!("updateMask=limits.{field}"), json!({})).await, expected, "{field}");
    }
    let quiet = rest.call("GET", "/v1/quota", None).await.1;
    assert_eq!(limits(&operator, "", json!({})).await, expected, "nothing given, nothing changed");
    assert_eq!(rest.call("GET", "/v1/quota", None).await.1, quiet, "the etag neither");

    let stale = patch(&operator, "", json!({"limits": {"vms": 7}, "etag": quota["etag"]})).await;
    refused(&stale, 409, "ABORTED", "ETAG_MISMATCH");
    let before = all_rows(&plane).await;
    let (status, tried) =
        patch(&operator, "validateOnly=true", json!({"limits": {"vms": 7}, "etag": quiet["etag"]})).await;
    assert_eq!((status, &tried["limits"]["vms"]), (200, &json!(7)), "{tried}");
    assert_eq!(all_rows(&plane).await, before, "only to be validated");
    for mask in ["limits", "*"] {
        assert_eq!(
            limits(&operator, &format!("updateMask={mask}"), json!({"limits": {"disk_gib": 1}})).await,
            json!({"diskGib": 1})
        );
    }
    assert_eq!(limits(&operator, "updateMask=limits", json!({})).await, json!({}), "none at all");

    let rows = "SELECT count(*) FROM audit.changes WHERE reason = 'QUOTA_UPDATED' AND actor LIKE 'platform/users/%'";
    assert_eq!(plane.database.count(rows).await, 7, "the tenant sees who has set it: one row a change");
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_that_are_refused() {
    let plane = idle_plane().await;
    let (rest, operator) = (plane.admin().await.rest(), plane.operator().await.rest());
    for (query, body, wrong) in [
        ("", json!({"limits": {"vms": -1}}), "quota.limits.vms"),
        ("", json!({"limits": {"templateBytes": "-1"}}), "quota.limits.templateBytes"),
        ("updateMask=usage.vms", json!({}), "updateMask"),
        ("updateMask=limits.colours", json!({}), "updateMask"),
        ("", json!({"etag": "x".repeat(65)}), "quota.etag"),
    ] {
        let reply = patch(&operator, query, body.clone()).await;
        assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), [wrong], "{query} {body}");
    }
    let unfit = patch(&operator, "", json!({"limits": {"colours": 3}})).await;
    assert_eq!(refused(&unfit, 400, "INVALID_ARGUMENT", "INVALID_REQUEST"), ["quota.limits.colours"]);
    let nobody = Uuid::now_v7().to_string();
    for tenant in ["nowhere", "current", &nobody] {
        let path = format!("/v1/tenants/{tenant}/quota");
        refused(&operator.call("GET", &path, None).await, 404, "NOT_FOUND", "TENANT_NOT_FOUND");
        let reply = operator.call("PATCH", &path, Some(json!({"limits": {"vms": 1}}))).await;
        refused(&reply, 404, "NOT_FOUND", "TENANT_NOT_FOUND");
    }
    // Nobody sets their own.
    for (method, body) in [("GET", None), ("PATCH", Some(json!({"limits": {"vms": 1000}})))] {
        let reply = rest.call(method, "/v1/tenants/demo/quota", body).await;
        refused(&reply, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");
    }
    plane.tenant("acme").await;
    assert_eq!(operator.call("DELETE", "/v1/tenants/acme", None).await.0, 200);
    let deleted = operator.call("PATCH", "/v1/tenants/acme/quota", Some(json!({"limits": {"vms": 1}}))).await;
    refused(&deleted, 400, "FAILED_PRECONDITION", "TENANT_DELETED");
    assert_eq!(operator.call("GET", "/v1/tenants/acme/quota", None).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exceeded_is_told_in_numbers() {
    let plane = idle_plane().await;
    let (admin, operator) = (plane.admin().await, plane.operator().await.rest());
    let (rest, template) = (admin.rest(), plane.templates().await);
    let create = async |name: &str, cpus: i32| {
        let body = json!({"displayName": name, "template": template, "cpuCount": cpus});
        rest.call("POST", "/v1/vms", Some(body)).await
    };
    assert_eq!(create("web-1", 2).await.0, 200);
    // A limit below what is used takes nothing away.
    limits(&operator, "", json!({"limits": {"vms": 1, "vcpus": 1, "diskGib": 100}})).await;
    let (_, usage) = rest.call("GET", "/v1/quota", None).await;
    assert_eq!((&usage["usage"]["vcpus"], &usage["limits"]["vcpus"]), (&json!(2), &json!(1)));

    let reply = create("web-2", 3).await;
    refused(&reply, 429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED");
    let details = reply.1["error"]["details"].as_array().expect("details");
    let of_type = |name: &str| {
        let name = format!("type.googleapis.com/google.rpc.{name}");
        details.iter().find(|detail| detail["@type"] == name.as_str()).cloned()
    };
    let numbers = json!({
        "vms.limit": "1", "vms.used": "1", "vms.asked": "1",
        "vcpus.limit": "1", "vcpus.used": "2", "vcpus.asked": "3",
    });
    assert_eq!(of_type("ErrorInfo").expect("an ErrorInfo")["metadata"], numbers);
    let failure = of_type("QuotaFailure").expect("a QuotaFailure");
    let subjects: Vec<_> =
        failure["violations"].as_array().expect("violations").iter().map(|it| &it["subject"]).collect();
    assert_eq!(subjects, ["vms", "vcpus"], "{failure}");
    assert!(of_type("RetryInfo").is_none(), "waiting does not help: {details:?}");

    // The same over gRPC.
    let status = admin.create("web-3").await.expect_err("refused");
    assert_eq!((status.code(), reason(&status).as_str()), (tonic::Code::ResourceExhausted, "QUOTA_EXCEEDED"));
    let details = status.get_error_details();
    let subjects: Vec<_> =
        details.quota_failure().expect("a QuotaFailure").violations.iter().map(|it| it.subject.as_str()).collect();
    assert_eq!(subjects, ["vms", "vcpus"]);
    let metadata: HashMap<_, _> = details.error_info().expect("an ErrorInfo").metadata.clone();
    assert_eq!(metadata["vcpus.asked"], "1");
    assert_eq!(usage["usage"], rest.call("GET", "/v1/quota", None).await.1["usage"], "what was refused is not counted");
}

/// Status, reason, and whether there is a header that says when to come back.
async fn answer(rest: &Rest, template: &str, number: usize) -> (u16, Value, bool) {
    let body = json!({"displayName": format!("web-{number}"), "template": template});
    let response = rest.request("POST", "/v1/vms").json(&body).send().await.expect("a reply");
    let again = ["retry-after", "ratelimit"].iter().any(|header| response.headers().contains_key(*header));
    let status = response.status().as_u16();
    let reply: Value = response.json().await.expect("JSON");
    let details = reply["error"]["details"].as_array().cloned().unwrap_or_default();
    let reason = details.iter().find_map(|detail| detail.get("reason")).cloned().unwrap_or_default();
    (status, reason, again)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_who_ask_at_once_ten_get_what_there_is() {
    let plane = idle_plane().await;
    let (rest, operator) = (plane.admin().await.rest(), plane.operator().await.rest());
    let template = plane.templates().await;
    limits(&operator, "", json!({"limits": {"vms": 10}})).await;
    let answers = join_all((0..100).map(|number| answer(&rest, &template, number))).await;
    let (accepted, others): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(status, ..)| *status == 200);
    assert_eq!(accepted.len(), 10, "{others:?}");
    for other in others {
        assert_eq!(other, (429, json!("QUOTA_EXCEEDED"), false));
    }
    let (_, quota) = rest.call("GET", "/v1/quota", None).await;
    assert_eq!((&quota["usage"]["vms"], &quota["usage"]["vcpus"]), (&json!(10), &json!(10)), "{quota}");
    assert_eq!(plane.database.count("SELECT count(*) FROM compute.virtual_machines").await, 10);
    assert_eq!(plane.database.count("SELECT count(*) FROM background_jobs.jobs WHERE kind = 'vm_create'").await, 10);
}
