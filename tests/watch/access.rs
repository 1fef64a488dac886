//! A stream lasts as long as its caller may watch, and no longer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tonic::Code;
use virtualstack_proto::virtualstack::watch::v1::WatchVmsRequest;
use virtualstack_proto::virtualstack::watch::v1::watch_message::Type;
use virtualstack_server::Config;
use virtualstack_worker::NoProbe;

use super::{SOON, Watch, client, describe, settings, vm};
use crate::support::{ControlPlane, Session, reason};
use crate::tenancy::calls::{member, texts};

async fn synced(session: &Session) -> Watch {
    let mut watch = Watch::vms(session, "").await.expect("a watch");
    watch.until(Type::Synced).await;
    watch
}

async fn a_revoked_stream_ends(listen_for_access: bool) {
    let settings = || Config { listen_for_access, ..settings() };
    let here = ControlPlane::start_with(settings()).await;
    let there = ControlPlane::on_with(here.database.clone(), settings()).await;
    let acme = here.tenant("acme").await;
    let rest = acme.rest();
    let act = async |method: &str, path: &str| {
        let body = (method == "POST").then(|| json!({}));
        let (status, answer) = rest.call(method, path, body).await;
        assert_eq!(status, 200, "{answer}");
    };
    let end = async |watch: &mut Watch, code: Code, why: &str| {
        let status = watch.end(SOON).await;
        assert_eq!((status.code(), reason(&status).as_str()), (code, why), "listening: {listen_for_access}");
    };
    member(&there, "ada@example.com", "acme", "user").await;
    let login = async || there.login("ada@example.com", "acme").await;
    let ada = login().await;
    let (_, current) = ada.rest().call("GET", "/v1/sessions/current", None).await;
    let user = format!("/v1/{}", current["user"].as_str().expect("a user"));

    // A change that leaves the right is no end.
    let mut watch = synced(&ada).await;
    let keys = json!({"displayName": "robot", "permissions": ["vm:read"]});
    let (_, key) = ada.rest().call("POST", "/v1/apiKeys", Some(keys)).await;
    let mut by_key = {
        let mut request = tonic::Request::new(WatchVmsRequest::default());
        let secret = key["secret"].as_str().expect("a secret");
        request.metadata_mut().insert("x-api-key", secret.parse().expect("metadata"));
        Watch(client(&ada).watch_vms(request).await.expect("a watch").into_inner())
    };
    by_key.until(Type::Synced).await;
    let raise = "UPDATE iam.tenants SET authz_epoch = authz_epoch + 1";
    here.database.execute(raise).await;
    for _ in 0..3 {
        watch.until(Type::Bookmark).await;
        by_key.until(Type::Bookmark).await;
    }
    // The key.
    act("DELETE", &format!("/v1/{}", key["name"].as_str().expect("a name"))).await;
    end(&mut by_key, Code::Unauthenticated, "KEY_INVALID").await;

    // The role, and with it the right.
    assert_eq!(rest.call("POST", &format!("{user}:unassignRole"), Some(json!({"role": "roles/user"}))).await.0, 200);
    end(&mut watch, Code::PermissionDenied, "PERMISSION_MISSING").await;
    let denied = "SELECT count(*) FROM audit.logs WHERE result = 'DENIED' AND reason = 'PERMISSION_MISSING' AND action LIKE '%WatchVms'";
    let start = Instant::now();
    while here.database.count(denied).await == 0 {
        assert!(start.elapsed() < SOON, "the refusal is not in the audit log");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(rest.call("POST", &format!("{user}:assignRole"), Some(json!({"role": "roles/user"}))).await.0, 200);

    // The membership.
    let mut watch = synced(&ada).await;
    act("POST", &format!("{user}:deactivate")).await;
    end(&mut watch, Code::PermissionDenied, "MEMBERSHIP_INACTIVE").await;
    act("POST", &format!("{user}:activate")).await;

    // The session, by its owner; another one goes on.
    let second = login().await;
    let (mut watch, mut other) = (synced(&ada).await, synced(&second).await);
    assert_eq!(ada.rest().call("POST", "/v1/auth:logout", Some(json!({}))).await.0, 200);
    end(&mut watch, Code::Unauthenticated, "SESSION_ENDED").await;
    other.until(Type::Bookmark).await;

    // The tenant.
    let operator = here.operator().await.rest();
    assert_eq!(operator.call("POST", "/v1/tenants/acme:suspend", Some(json!({}))).await.0, 200);
    end(&mut other, Code::PermissionDenied, "TENANT_SUSPENDED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_stream_ends_on_another_server_too() {
    a_revoked_stream_ends(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_stream_ends_where_nothing_is_heard() {
    a_revoked_stream_ends(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_token() {
    let plane = ControlPlane::start_with(Config { access_token_seconds: 4, ..settings() }).await;
    let admin = plane.admin().await;
    let start = Instant::now();
    let mut watch = synced(&admin).await;
    let status = watch.end(SOON).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "TOKEN_EXPIRED"));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_the_server_stops() {
    let mut plane = ControlPlane::start_with(Config { watch_heartbeat_ms: 60_000, ..settings() }).await;
    let admin = plane.admin().await;
    let mut watch = synced(&admin).await;
    let (start, ending) = (Instant::now(), tokio::spawn(async move { watch.end(SOON).await }));
    plane.drain().await;
    let status = ending.await.expect("no panic");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "SERVER_STOPPING"));
    // It waits neither for a heartbeat nor for the end of the time that a drain has.
    assert!(start.elapsed() < Duration::from_secs(20), "the drain took {:?}", start.elapsed());
}

/// A control plane where nobody works on jobs, with templates.
async fn idle_plane(server: Config) -> ControlPlane {
    let plane = ControlPlane::start_with(server).await;
    let worker = plane.work(Arc::new(NoProbe)).await;
    plane.templates().await;
    worker.drain().await;
    plane
}

/// Without LISTEN a change is found by looking.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_heard_is_found() {
    let plane = idle_plane(Config { listen_for_access: false, watch_heartbeat_ms: 60_000, ..settings() }).await;
    let admin = plane.admin().await;
    let mut watch = synced(&admin).await;
    admin.create("web-1").await.expect("accepted");
    let created = watch.told().await;
    assert_eq!(created.r#type(), Type::Created);
    let start = Instant::now();
    describe(&admin, &vm(&created).name, "one").await.expect("a change");
    assert_eq!(vm(&watch.told().await).description, "one");
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert_eq!(
        texts(
            &plane.database,
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN virtualstack_access%' \
        AND datname = current_database()"
        )
        .await,
        ["0"]
    );
}
