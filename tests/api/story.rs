//! The main job, end to end: sign in, make a VM, see it run, stop it, start it, delete it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tonic_web::GrpcWebClientLayer;
use virtualstack_proto::virtualstack::compute::v1::vm::{PowerState, State};
use virtualstack_proto::virtualstack::compute::v1::{ListVmEventsRequest, ListVmsRequest};
use virtualstack_proto::virtualstack::iam::v1::LoginRequest;
use virtualstack_proto::virtualstack::iam::v1::auth_service_client::AuthServiceClient;

use crate::support::{ControlPlane, DEMO, PASSWORD, Rest, reason};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_makes_a_vm_and_it_runs_over_grpc() {
    let plane = ControlPlane::start().await;
    let tenant = plane.tenant("acme").await;

    let vm = tenant.running("web-1").await;
    assert_eq!((vm.state(), vm.observed_power_state()), (State::Running, PowerState::On));
    assert_eq!((vm.cpu_count, vm.memory_mib, vm.disk_gib), (1, 1024, 10), "the template's size");
    assert_eq!(vm.ip_addresses.len(), 1);

    let stopped = tenant.vm_of(tenant.stop(&vm.name).await.expect("accepted")).await;
    assert_eq!(stopped.state(), State::Stopped);
    let started = tenant.vm_of(tenant.start(&vm.name).await.expect("accepted")).await;
    assert_eq!(started.state(), State::Running);

    let events = ListVmEventsRequest { parent: vm.name.clone(), ..Default::default() };
    let events = tenant.vms().list_vm_events(tenant.request(events)).await.expect("events").into_inner().vm_events;
    let reasons: Vec<_> = events.iter().rev().map(|event| event.reason.as_str()).collect();
    assert_eq!(
        reasons,
        ["VM_CREATE_REQUESTED", "VM_CREATED", "VM_STOP_REQUESTED", "VM_STOPPED", "VM_START_REQUESTED", "VM_STARTED"]
    );

    let deleted = tenant.vm_of(tenant.delete(&vm.name, false).await.expect("accepted")).await;
    assert_eq!(deleted.state(), State::Deleted);
    assert!(deleted.purge_time.is_some());
    let listed = tenant.vms().list_vms(tenant.request(ListVmsRequest::default())).await.expect("VMs").into_inner();
    assert!(listed.vms.is_empty(), "a deleted VM is not listed");
    let purged = tenant.vm_of(tenant.delete(&vm.name, true).await.expect("accepted")).await;
    assert_eq!(purged.state(), State::Deleted);
    assert_eq!(reason(&tenant.get(&vm.name).await.expect_err("gone")), "VM_NOT_FOUND");
    assert!(plane.hypervisor(Default::default()).vms().await.expect("a list").is_empty());
    plane.idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_over_rest() {
    let plane = ControlPlane::start().await;
    let template = plane.templates().await;
    let rest = plane.admin().await.rest();

    let (_, current) = rest.call("GET", "/v1/tenants/current", None).await;
    assert_eq!(current["slug"], "demo", "{current}");

    let body = json!({"displayName": "web-1", "template": template, "labels": {"tier": "front"}});
    let (status, operation) = rest.call("POST", "/v1/vms", Some(body)).await;
    assert_eq!(status, 200, "{operation}");
    assert_eq!(operation["done"], false);
    let wait = format!("/v1/{}:wait", operation["name"].as_str().expect("a name"));
    let (_, done) = rest.call("POST", &wait, Some(json!({"timeout": "30s"}))).await;
    assert_eq!(done["done"], true, "{done}");
    let vm = &done["response"];
    assert_eq!(vm["@type"], "type.googleapis.com/virtualstack.compute.v1.Vm");
    assert_eq!(vm["state"], "RUNNING");
    assert_eq!(vm["labels"]["tier"], "front");
    assert_eq!(vm["stateReason"], "", "zero values are printed");
    let path = format!("/v1/{}", vm["name"].as_str().expect("a name"));

    let (status, changed) = rest.call("PATCH", &path, Some(json!({"description": "front end"}))).await;
    assert_eq!((status, &changed["done"]), (200, &json!(true)), "{changed}");
    let (_, read) = rest.call("GET", &path, None).await;
    assert_eq!(read["description"], "front end");
    assert_eq!(read["labels"]["tier"], "front", "what was not sent stays");

    let (_, operation) = rest.call("DELETE", &format!("{path}?force=true"), None).await;
    let wait = format!("/v1/{}:wait", operation["name"].as_str().expect("a name"));
    let (_, done) = rest.call("POST", &wait, Some(json!({}))).await;
    assert_eq!(done["response"]["state"], "DELETED", "{done}");
    assert_eq!(rest.call("GET", &path, None).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_signs_in_over_grpc_web() {
    let plane = ControlPlane::without_worker().await;
    let http = Client::builder(TokioExecutor::new()).build_http();
    let browser = tower::ServiceBuilder::new().layer(GrpcWebClientLayer::new()).service(http);
    let mut auth = AuthServiceClient::with_origin(browser, plane.grpc.parse().expect("a URL"));

    let request = |password: &str| LoginRequest {
        email: "Admin@Example.com".to_owned(),
        password: password.to_owned(),
        tenant: DEMO.to_owned(),
    };
    let tokens = auth.login(request(PASSWORD)).await.expect("a login").into_inner();
    assert_eq!(tokens.token_type, "Bearer");
    let slugs: Vec<_> = tokens.tenants.iter().map(|tenant| tenant.slug.as_str()).collect();
    assert_eq!(slugs, ["demo", "provider"]);
    let refused = auth.login(request("wrong password")).await.expect_err("refused");
    assert_eq!(reason(&refused), "CREDENTIALS_WRONG", "error details come through");
}

/// Browsers that send no binary send base64, whole or in pieces that were encoded each by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_browser_speaks_text() {
    let plane = ControlPlane::without_worker().await;
    let access = plane.admin().await.tokens.access_token;
    let login =
        LoginRequest { email: "admin@example.com".to_owned(), password: PASSWORD.to_owned(), tenant: DEMO.to_owned() };
    let framed = |message: Vec<u8>| {
        let length = u32::try_from(message.len()).expect("a small message").to_be_bytes();
        ([&[0][..], &length].concat(), message)
    };
    let calls = [
        ("virtualstack.iam.v1.AuthService/Login", None, framed(prost::Message::encode_to_vec(&login))),
        // What is not public is read before its handler is called.
        ("virtualstack.compute.v1.VmService/ListVms", Some(access), framed(b"\x10\x05".to_vec())),
    ];
    for (rpc, access, (head, message)) in calls {
        let whole = STANDARD.encode([head.as_slice(), &message].concat());
        let pieces = STANDARD.encode(&head) + &STANDARD.encode(&message);
        assert!(pieces.trim_end_matches('=').contains('='), "padding in the middle");
        let cases =
            [(whole.clone(), "0"), (pieces, "0"), (whole[..whole.len() - 1].to_owned(), "3"), ("%".repeat(8), "3")];
        for (body, code) in cases {
            let client = Rest::new(&plane.grpc, access.as_deref());
            let request = client
                .request("POST", &format!("/{rpc}"))
                .header("content-type", "application/grpc-web-text+proto")
                .header("accept", "application/grpc-web-text+proto")
                .body(body.clone());
            let reply = request.send().await.expect("a reply");
            assert_eq!(reply.status(), 200);
            assert_eq!(reply.headers()["content-type"], "application/grpc-web-text+proto");
            let told = reply.headers().get("grpc-status").map(|code| code.to_str().expect("text").to_owned());
            let text = reply.bytes().await.expect("a body");
            // Each frame is a piece by itself.
            let frames: Vec<u8> = text.chunks(4).flat_map(|group| STANDARD.decode(group).expect("base64")).collect();
            let trailers = String::from_utf8_lossy(&frames).into_owned();
            let is_told = told.as_deref() == Some(code) || trailers.contains(&format!("grpc-status:{code}"));
            assert!(is_told, "{rpc} {body}: {told:?} {trailers:?}");
        }
    }
}
