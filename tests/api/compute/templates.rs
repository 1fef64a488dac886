//! Templates of tenants: created, uploaded in whatever way, imported by the simulated hypervisor, used, deleted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use virtualstack_images::make::{Flavour, Iso, Ova};
use virtualstack_worker::NoProbe;

use crate::api::{Reply, refused};
use crate::support::{ControlPlane, Rest};
use crate::tenancy::calls::texts;

pub(crate) fn sum(file: &[u8]) -> String {
    Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A template that waits for its file.
pub(crate) async fn created(rest: &Rest, display_name: &str, kind: &str) -> String {
    let body = json!({"displayName": display_name, "kind": kind});
    let (status, template) = rest.call("POST", "/v1/templates", Some(body)).await;
    assert_eq!((status, &template["state"]), (200, &json!("UPLOADING")), "{template}");
    template["name"].as_str().expect("a name").to_owned()
}

/// Puts bytes to a template, all of its file or the range that is said.
pub(crate) async fn put(rest: &Rest, template: &str, range: Option<&str>, bytes: impl Into<Bytes>) -> Reply {
    let request = rest.request("PUT", &format!("/v1/{template}:upload")).body(bytes.into());
    let request = match range {
        Some(range) => request.header("content-range", range),
        None => request,
    };
    let reply = request.send().await.expect("a reply");
    (reply.status().as_u16(), reply.json().await.expect("JSON"))
}

pub(crate) async fn get(rest: &Rest, name: &str) -> Value {
    rest.call("GET", &format!("/v1/{name}"), None).await.1
}

/// Asks for the import, and waits for its end.
pub(crate) async fn imported(rest: &Rest, template: &str, sha256: &str) -> Value {
    let (status, operation) =
        rest.call("POST", &format!("/v1/{template}:import"), Some(json!({"sha256": sha256}))).await;
    assert_eq!(status, 200, "{operation}");
    ended(rest, &operation).await
}

pub(crate) async fn ended(rest: &Rest, operation: &Value) -> Value {
    let path = format!("/v1/{}:wait", operation["name"].as_str().expect("a name"));
    let (_, done) = rest.call("POST", &path, Some(json!({"timeout": "60s"}))).await;
    assert_eq!(done["done"], true, "{done}");
    done
}

/// Objects in the store, and rows that refer to them.
pub(crate) async fn stored(plane: &ControlPlane) -> (usize, i64) {
    use futures::TryStreamExt as _;
    let objects: Vec<_> = plane.database.objects().list("templates/", None).try_collect().await.expect("a list");
    (objects.len(), plane.database.count("SELECT count(*) FROM compute.template_parts").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_becomes_a_template_and_a_vm_is_made_from_it() {
    let plane = ControlPlane::start().await;
    let rest = plane.tenant("acme").await.rest();
    let (ova, iso) = (Ova::new(Flavour::VMware).bytes(), Iso::new("mine").bytes());
    for (kind, file) in [("OVA", ova), ("ISO", iso)] {
        let template = created(&rest, &format!("mine-{kind}"), kind).await;
        let (status, reply) = put(&rest, &template, None, file.clone()).await;
        assert_eq!((status, &reply), (200, &json!({"receivedBytes": file.len().to_string()})), "{kind}");
        let uploaded = get(&rest, &template).await;
        assert_eq!(uploaded["state"], "UPLOADING");
        assert_eq!(uploaded["uploadedBytes"], file.len().to_string());
        assert_eq!(uploaded["sizeBytes"], file.len().to_string());
        let done = imported(&rest, &template, &sum(&file)).await;
        assert_eq!(done["metadata"]["verb"], "IMPORT", "{done}");
        assert_eq!(done["response"]["state"], "READY", "{done}");
        let ready = get(&rest, &template).await;
        assert_eq!((&ready["state"], &ready["sha256"]), (&json!("READY"), &json!(sum(&file))));
        assert_eq!((&ready["scope"], &ready["uploadExpireTime"]), (&json!("TENANT"), &Value::Null));
        if kind == "OVA" {
            assert!(ready["minCpuCount"].as_i64() > Some(0) && ready["minDiskGib"].as_i64() > Some(0), "{ready}");
        }
        let vm = json!({
            "displayName": format!("from-{}", kind.to_lowercase()), "template": template,
            "cpuCount": 2, "memoryMib": 4096, "diskGib": 20,
        });
        let (status, operation) = rest.call("POST", "/v1/vms", Some(vm)).await;
        assert_eq!(status, 200, "{operation}");
        let done = ended(&rest, &operation).await;
        assert_eq!(done["response"]["template"], template, "{done}");
        let (status, operation) = rest.call("DELETE", &format!("/v1/{template}"), None).await;
        assert_eq!(status, 200, "{operation}");
        let done = ended(&rest, &operation).await;
        assert_eq!(done["response"]["name"], template, "{done}");
        refused(&rest.call("GET", &format!("/v1/{template}"), None).await, 404, "NOT_FOUND", "TEMPLATE_NOT_FOUND");
    }
    assert_eq!(stored(&plane).await, (0, 0));
    let usage = &get(&rest, "quota").await["usage"];
    assert_eq!((&usage["templates"], &usage["templateBytes"]), (&json!(0), &json!("0")), "{usage}");
    let (_, vms) = rest.call("GET", "/v1/vms", None).await;
    assert_eq!(vms["vms"].as_array().map(Vec::len), Some(2), "VMs outlive their templates");
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_go_on_where_the_last_one_ended() {
    let plane = ControlPlane::without_worker().await;
    let rest = plane.admin().await.rest();
    let template = created(&rest, "pieces", "OVA").await;
    let file: Vec<u8> = (0..1000_u32).map(|number| u8::try_from(number % 251).expect("small")).collect();
    let piece = |range: std::ops::Range<usize>| file[range].to_vec();
    let received = |bytes: usize| (200, json!({"receivedBytes": bytes.to_string()}));
    assert_eq!(put(&rest, &template, Some("bytes 0-299/1000"), piece(0..300)).await, received(300));
    // A gap, an overlap, a repeat.
    let gap = put(&rest, &template, Some("bytes 400-499/1000"), piece(400..500)).await;
    refused(&gap, 409, "ABORTED", "UPLOAD_OFFSET_MISMATCH");
    assert_eq!(gap.1["error"]["details"][0]["metadata"]["uploadedBytes"], "300", "{}", gap.1);
    assert_eq!(put(&rest, &template, Some("bytes 200-499/1000"), piece(200..500)).await, received(500));
    assert_eq!(put(&rest, &template, Some("bytes 0-499/1000"), piece(0..500)).await, received(500));
    for (range, field) in [
        ("bytes 500-599/*", "contentRange"),
        ("bytes 500-599/2000", "contentRange"),
        ("bytes 600-500/1000", "contentRange"),
        ("500-599/1000", "contentRange"),
        ("bytes 500-598/1000", "contentLength"),
    ] {
        let reply = put(&rest, &template, Some(range), piece(500..600)).await;
        assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), [field], "{range}");
    }
    let early = rest.call("POST", &format!("/v1/{template}:import"), Some(json!({"sha256": sum(&file)}))).await;
    refused(&early, 400, "FAILED_PRECONDITION", "UPLOAD_INCOMPLETE");
    assert_eq!(put(&rest, &template, Some("bytes 500-999/1000"), piece(500..1000)).await, received(1000));
    let parts = "SELECT object FROM compute.template_parts ORDER BY first_byte";
    let mut bytes = Vec::new();
    for object in texts(&plane.database, parts).await {
        use futures::TryStreamExt as _;
        let read =
            plane.database.objects().read(&object.parse().expect("a key"), 0..u64::MAX).await.expect("an object");
        bytes.extend(read.try_collect::<Vec<_>>().await.expect("bytes").concat());
    }
    assert_eq!(bytes, file);
    // Without a range it begins anew.
    assert_eq!(put(&rest, &template, None, piece(0..10)).await, received(10));
    assert_eq!(get(&rest, &template).await["sizeBytes"], "10");
    assert_eq!(get(&rest, "quota").await["usage"]["templateBytes"], "10");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_and_a_wrong_sum_are_told_apart() {
    let plane = ControlPlane::start().await;
    let rest = plane.tenant("acme").await.rest();
    let good = Ova::new(Flavour::VMware).bytes();
    let template = created(&rest, "sums", "OVA").await;
    put(&rest, &template, None, good.clone()).await;
    let wrong = imported(&rest, &template, &"0".repeat(64)).await;
    assert_eq!((&wrong["error"]["code"], reason(&wrong)), (&json!(3), "SUM_MISMATCH"), "{wrong}");
    let back = get(&rest, &template).await;
    assert_eq!((&back["state"], &back["uploadedBytes"]), (&json!("UPLOADING"), &json!(good.len().to_string())));
    assert!(back["stateReason"].as_str().expect("a reason").contains(&sum(&good)), "{back}");
    put(&rest, &template, None, good.clone()).await;
    assert_eq!(get(&rest, &template).await["stateReason"], "", "it was about the bytes as they were");
    assert_eq!(imported(&rest, &template, &sum(&good)).await["response"]["state"], "READY");

    let mut broken = good.clone();
    broken[300] ^= 1;
    let template = created(&rest, "broken", "OVA").await;
    put(&rest, &template, None, broken.clone()).await;
    let failed = imported(&rest, &template, &sum(&broken)).await;
    assert_eq!((&failed["error"]["code"], reason(&failed)), (&json!(3), "IMAGE_INVALID"), "{failed}");
    let told = &failed["error"]["details"][0]["metadata"];
    assert_eq!(told["check"], "TAR_CHECKSUM", "{failed}");
    for key in ["file", "offset", "expected", "found"] {
        assert!(told[key].is_string(), "{key}: {failed}");
    }
    let violations = failed["error"]["details"][1]["fieldViolations"].as_array().expect("violations");
    assert!(!violations.is_empty(), "{failed}");
    let state = get(&rest, &template).await;
    assert_eq!((&state["state"], &state["stateReason"]), (&json!("FAILED"), &failed["error"]["message"]));
    assert_eq!(state["uploadedBytes"], "0");
    assert_eq!(stored(&plane).await, (1, 1), "the good one's");
    for (method, path) in [("POST", "import"), ("PUT", "upload")] {
        let body = (method == "POST").then(|| json!({"sha256": sum(&broken)}));
        let reply = match body {
            Some(body) => rest.call(method, &format!("/v1/{template}:{path}"), Some(body)).await,
            None => put(&rest, &template, None, vec![1]).await,
        };
        refused(&reply, 400, "FAILED_PRECONDITION", "TEMPLATE_STATE");
    }
}

fn reason(operation: &Value) -> &str {
    operation["error"]["details"][0]["reason"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_of_templates() {
    let plane = ControlPlane::start().await;
    let session = plane.tenant("acme").await;
    let rest = session.rest();
    let create = async |body: Value| rest.call("POST", "/v1/templates", Some(body)).await;
    for (body, field) in [
        (json!({"kind": "OVA"}), "template.displayName"),
        (json!({"displayName": "x"}), "template.kind"),
        (json!({"displayName": "x", "kind": "OVA", "description": "x".repeat(1025)}), "template.description"),
        (json!({"displayName": "x", "kind": "OVA", "labels": {"Bad Key": "x"}}), "template.labels[\"Bad Key\"]"),
    ] {
        let reply = create(body.clone()).await;
        assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), [field], "{body}");
    }
    let template = created(&rest, "Mine", "OVA").await;
    refused(&create(json!({"displayName": " mine ", "kind": "ISO"})).await, 409, "ALREADY_EXISTS", "TEMPLATE_EXISTS");
    for sha256 in ["", "x", &"A".repeat(64)] {
        let reply = rest.call("POST", &format!("/v1/{template}:import"), Some(json!({"sha256": sha256}))).await;
        assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["sha256"], "{sha256}");
    }
    // The provider's are not the tenant's.
    let provider = plane.templates().await;
    let rename = json!({"displayName": "mine now"});
    for reply in [
        rest.call("PATCH", &format!("/v1/{provider}"), Some(rename)).await,
        rest.call("DELETE", &format!("/v1/{provider}"), None).await,
        put(&rest, &provider, None, vec![1]).await,
    ] {
        refused(&reply, 403, "PERMISSION_DENIED", "TEMPLATE_OF_PROVIDER");
    }
    // No VM from one that is not ready.
    let vm = json!({"displayName": "web-1", "template": template});
    refused(&rest.call("POST", "/v1/vms", Some(vm)).await, 400, "FAILED_PRECONDITION", "TEMPLATE_STATE");
    // Quotas: of templates, and of bytes before any comes.
    let quota = json!({"limits": {"templates": 1, "templateBytes": "10"}});
    let path = format!("/v1/{}/quota", session.tokens.tenant);
    assert_eq!(plane.operator().await.rest().call("PATCH", &path, Some(quota)).await.0, 200);
    refused(&create(json!({"displayName": "two", "kind": "OVA"})).await, 429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED");
    refused(&put(&rest, &template, None, vec![1; 11]).await, 429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED");
    assert_eq!(put(&rest, &template, None, vec![1; 10]).await.0, 200);
    let large = put(&rest, &template, Some("bytes 0-9/999999999999999"), vec![1; 10]).await;
    assert_eq!(refused(&large, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["contentRange"]);
    let other = Rest::new(&plane.http, Some(&plane.tenant("rival").await.tokens.access_token));
    let theirs = created(&other, "large", "OVA").await;
    let large = put(&other, &theirs, Some("bytes 0-9/999999999999999"), vec![1; 10]).await;
    refused(&large, 413, "RESOURCE_EXHAUSTED", "TEMPLATE_TOO_LARGE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_writer_waits_for_the_first() {
    let plane = ControlPlane::without_worker().await;
    let rest = plane.admin().await.rest();
    let template = created(&rest, "two-writers", "OVA").await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let first = rest.request("PUT", &format!("/v1/{template}:upload")).body(body).send();
    let first = tokio::spawn(first);
    sender.send(Ok(Bytes::from_static(b"12345"))).await.expect("it is read");
    let held = "SELECT count(*) FROM compute.user_templates WHERE upload_token IS NOT NULL";
    while plane.database.count(held).await == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    refused(&put(&rest, &template, None, vec![1]).await, 409, "ABORTED", "UPLOAD_IN_PROGRESS");
    sender.send(Ok(Bytes::from_static(b"67890"))).await.expect("it is read");
    drop(sender);
    let reply = first.await.expect("no panic").expect("a reply");
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.json::<Value>().await.expect("JSON"), json!({"receivedBytes": "10"}));
    assert_eq!(put(&rest, &template, None, vec![1]).await.0, 200, "it is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_an_upload_broke_off_is_kept() {
    const SIZE: usize = 10 << 20;
    let plane = ControlPlane::without_worker().await;
    let rest = plane.admin().await.rest();
    let template = created(&rest, "broken-off", "OVA").await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let range = |first: usize| format!("bytes {first}-{}/{SIZE}", SIZE - 1);
    let upload = rest.request("PUT", &format!("/v1/{template}:upload")).header("content-range", range(0));
    let upload = tokio::spawn(upload.body(body).send());
    for _ in 0..9 {
        sender.send(Ok(Bytes::from(vec![7; 1 << 20]))).await.expect("it is read");
    }
    let uploaded = async || {
        let text = get(&rest, &template).await["uploadedBytes"].clone();
        text.as_str().expect("a number").parse::<usize>().expect("a number")
    };
    // One object is full before the rest has come.
    while uploaded().await < 8 << 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sender.send(Err(std::io::Error::other("the client is gone"))).await.expect("it is read");
    upload.await.expect("no panic").expect_err("it broke off");
    let (kept, reply) = loop {
        let kept = uploaded().await;
        let reply = put(&rest, &template, Some(&range(kept)), vec![7; SIZE - kept]).await;
        // The first one may still be letting go.
        if reply.0 != 409 {
            break (kept, reply);
        }
    };
    assert!((8 << 20..=9 << 20).contains(&kept), "{kept}");
    assert_eq!(reply, (200, json!({"receivedBytes": SIZE.to_string()})));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_of_the_provider_is_granted() {
    let plane = ControlPlane::start().await;
    let template = plane.templates().await;
    let (acme, rival) = (plane.tenant("acme").await, plane.tenant("rival").await);
    let operator = plane.operator().await.rest();
    let of_provider = format!("/v1/{}", template.replace("templates/", "providerTemplates/"));
    let (status, seen) = operator.call("GET", &of_provider, None).await;
    assert_eq!((status, &seen["audience"], &seen["tenants"]), (200, &json!("ALL"), &json!([])), "{seen}");
    assert_eq!(seen["copies"][0]["hypervisor"], "simulated", "{seen}");
    let grant = json!({"audience": "TENANTS", "tenants": ["tenants/acme"], "etag": seen["etag"]});
    let (status, granted) = operator.call("PATCH", &of_provider, Some(grant.clone())).await;
    assert_eq!((status, &granted["tenants"]), (200, &json!([acme.tokens.tenant])), "{granted}");
    refused(&operator.call("PATCH", &of_provider, Some(grant)).await, 409, "ABORTED", "ETAG_MISMATCH");
    assert_eq!(acme.rest().call("GET", &format!("/v1/{template}"), None).await.0, 200);
    let hidden = rival.rest().call("GET", &format!("/v1/{template}"), None).await;
    refused(&hidden, 404, "NOT_FOUND", "TEMPLATE_NOT_FOUND");
    let vm = json!({"displayName": "web-1", "template": template});
    let reply = rival.rest().call("POST", "/v1/vms", Some(vm.clone())).await;
    assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["vm.template"]);
    assert_eq!(acme.rest().call("POST", "/v1/vms", Some(vm)).await.0, 200);
    let wrong = json!({"audience": "ALL", "tenants": ["tenants/acme"]});
    let reply = operator.call("PATCH", &of_provider, Some(wrong)).await;
    assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["providerTemplate.tenants"]);
    let denied = acme.rest().call("GET", "/v1/providerTemplates", None).await;
    refused(&denied, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");
    let all = json!({"audience": "ALL"});
    assert_eq!(operator.call("PATCH", &of_provider, Some(all)).await.1["tenants"], json!([]));
    assert_eq!(rival.rest().call("GET", &format!("/v1/{template}"), None).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_is_told_waits_sealed_and_is_forgotten() {
    let plane = ControlPlane::without_worker().await;
    let worker = plane.work(Arc::new(NoProbe)).await;
    let template = plane.templates().await;
    worker.drain().await;
    let rest = plane.tenant("acme").await.rest();
    let secret = "hunter2-in-user-data";
    let customization = json!({
        "hostname": "web-1", "sshKeys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFxK me"],
        "userData": format!("#cloud-config\npassword: {secret}"),
    });
    let vm = json!({"displayName": "web-1", "template": template, "guestCustomization": customization});
    let (status, operation) = rest.call("POST", "/v1/vms", Some(vm)).await;
    assert_eq!(status, 200, "{operation}");
    assert_eq!(plane.database.count("SELECT count(*) FROM compute.guest_customizations").await, 1);
    let tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname NOT LIKE 'pg%' AND \
        schemaname <> 'information_schema'";
    for table in texts(&plane.database, tables).await {
        let found =
            format!("SELECT count(*) FROM {table} t WHERE t::text LIKE '%{secret}%' OR t::text LIKE '%IFxK me%'");
        assert_eq!(plane.database.count(&found).await, 0, "{table}");
    }
    plane.work(Arc::new(NoProbe)).await.detach();
    let done = ended(&rest, &operation).await;
    assert_eq!(done["response"]["state"], "RUNNING", "{done}");
    assert!(!done.to_string().contains("guestCustomization"), "{done}");
    assert_eq!(plane.database.count("SELECT count(*) FROM compute.guest_customizations").await, 0);

    let (_, list) = rest.call("GET", "/v1/templates?filter=displayName%3D%22windows*%22", None).await;
    let windows = list["templates"][0]["name"].clone();
    for (told, fits) in [
        (json!({"hostname": "win"}), true),
        (json!({"userData": "x"}), false),
        (json!({"sshKeys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFxK me"]}), false),
    ] {
        let vm = json!({"displayName": "win-1", "template": windows, "guestCustomization": told});
        let reply = rest.call("POST", "/v1/vms?validateOnly=true", Some(vm)).await;
        if fits {
            assert_eq!(reply.0, 200, "{reply:?}");
        } else {
            refused(&reply, 400, "FAILED_PRECONDITION", "GUEST_CUSTOMIZATION_UNSUPPORTED");
        }
    }
    let late = json!({"guestCustomization": {"hostname": "late"}});
    let vm = done["response"]["name"].as_str().expect("a name");
    let reply = rest.call("PATCH", &format!("/v1/{vm}"), Some(late)).await;
    assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["vm.guestCustomization"]);
    let wrong = json!({"displayName": "x", "template": template, "guestCustomization": {"hostname": "not valid!"}});
    let reply = rest.call("POST", "/v1/vms", Some(wrong)).await;
    assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["vm.guestCustomization.hostname"]);
}
