//! What those can take who are known: a customer gone wild, and one who does not read.

use std::sync::Arc;

use futures::future::join_all;
use serde_json::json;
use virtualstack_server::Config;
use virtualstack_worker::NoProbe;

use super::query;
use crate::support::{ControlPlane, Rest};

#[tokio::test(flavor = "multi_thread")]
async fn waits_of_one_member_leave_room_for_their_other_calls_and_for_others() {
    let config = Config { max_waits_per_principal: 3, ..Config::default() };
    let plane = ControlPlane::start_with(config).await;
    let worker = plane.work(Arc::new(NoProbe)).await;
    plane.templates().await;
    worker.drain().await;
    let (admin, victim) = (plane.admin().await, plane.tenant("acme").await);
    // Without a worker it does not end.
    let operation = admin.create("waited-for").await.expect("an operation");
    let path = format!("/v1/{}:wait", operation.name);
    let rest = admin.rest();
    let waits = join_all((0..10).map(|_| rest.call("POST", &path, Some(json!({"timeout": "3s"}))))).await;
    let count = |status: u16| waits.iter().filter(|(got, _)| *got == status).count();
    assert_eq!((count(200), count(429)), (3, 7), "{waits:?}");
    let refused = waits.iter().find(|(status, _)| *status == 429).expect("one");
    assert!(refused.1["error"]["details"].to_string().contains("TOO_MANY_WAITS"), "{refused:?}");
    assert_eq!(admin.rest().call("GET", "/v1/quota", None).await.0, 200);
    assert_eq!(victim.rest().call("GET", "/v1/quota", None).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_calls_count_and_keys_of_one_member_count_together() {
    let config = Config { calls_per_second: 1, calls_burst: 10, ..Config::default() };
    let plane = ControlPlane::start_with(config).await;
    let admin = plane.admin().await;
    let mut keys = Vec::new();
    for number in 0..2 {
        let body = json!({"displayName": format!("key-{number}"), "permissions": ["vm:read"]});
        let (status, key) = admin.rest().call("POST", "/v1/apiKeys", Some(body)).await;
        assert_eq!(status, 200, "{key}");
        keys.push(Rest::with_key(&plane.http, key["secret"].as_str().expect("a secret")));
    }
    // What the keys may not do is refused, and counted before it is.
    let mut told = Vec::new();
    for number in 0..30 {
        told.push(keys[number % 2].call("GET", "/v1/operations", None).await.0);
    }
    let limited = told.iter().filter(|status| **status == 429).count();
    assert!(limited >= 15, "{told:?}");
    assert!(told.contains(&403), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_looks_into_texts_only_so_often() {
    let plane = ControlPlane::without_worker().await;
    let rest = plane.admin().await.rest();
    let filter = |terms: usize| (0..terms).map(|term| format!("displayName:t{term}")).collect::<Vec<_>>().join(" OR ");
    let list =
        async |terms: usize| rest.call("GET", &format!("/v1/vms{}", query(&[("filter", &filter(terms))])), None).await;
    assert_eq!(list(16).await.0, 200);
    let (status, error) = list(17).await;
    assert_eq!(status, 400);
    assert!(error["error"]["message"].as_str().expect("a message").contains("16 is the most"), "{error}");
    // What an index serves is no such look.
    let served = (0..40).map(|vm| format!("displayName = vm-{vm}")).collect::<Vec<_>>().join(" OR ");
    assert_eq!(rest.call("GET", &format!("/v1/vms{}", query(&[("filter", &served)])), None).await.0, 200);
}
