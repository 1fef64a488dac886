//! Reply messages → JSON, and the headers around it.

use http::Method;
use serde_json::json;
use tonic::Response;
use virtualstack_gateway::Config;

use crate::support::{World, once, wire};
use futures::{FutureExt as _, StreamExt as _};

#[tokio::test]
async fn replies_print_zero_values_and_leave_out_what_is_unset() {
    let world = World::start(|_| {
        once(wire("test.v1.Thing", json!({"name": "things/7", "createTime": "2026-01-02T03:04:05Z", "big": "5"})))
    })
    .await;
    let reply = world.get("/v1/things/7").await;
    assert_eq!(
        (reply.status.as_u16(), &reply.headers["content-type"]),
        (200, &"application/json".parse().expect("ok"))
    );
    assert_eq!(
        reply.json(),
        json!({
            "name": "things/7", "displayName": "", "color": "COLOR_UNSPECIFIED", "big": "5", "small": 0, "ratio": 0.0,
            "flag": false, "data": "", "tags": [], "labels": {}, "byNumber": {}, "parts": [],
            "createTime": "2026-01-02T03:04:05Z",
        })
    );
    assert_eq!(reply.headers["cache-control"], "no-store");
    assert_eq!(reply.headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn any_is_expanded() {
    let any = json!({"@type": "type.googleapis.com/test.v1.Thing.Part", "label": "l", "size": 0, "parts": []});
    let sent = any.clone();
    let world = World::start(move |_| once(wire("test.v1.Thing", json!({"any": sent})))).await;
    assert_eq!(world.get("/v1/things/7").await.json()["any"], any);

    let world = World::start(|_| once(bytes::Bytes::from_static(b"\x92\x01\x08\x0a\x06x/no.No"))).await;
    let reply = world.get("/v1/things/7").await;
    reply.error(500, "INTERNAL", "RESPONSE_UNPRINTABLE");
    let world = World::start(|_| once(bytes::Bytes::from_static(b"\xff"))).await;
    world.get("/v1/things/7").await.error(500, "INTERNAL", "RESPONSE_UNPRINTABLE");
}

#[tokio::test]
async fn raw_replies_are_handed_out_as_they_are() {
    let world =
        World::start(|_| once(wire("google.api.HttpBody", json!({"contentType": "text/x", "data": "aGk="})))).await;
    let reply = world.get("/v1/things/7:download").await;
    assert_eq!((reply.text.as_str(), &reply.headers["content-type"]), ("hi", &"text/x".parse().expect("ok")));
}

#[tokio::test]
async fn head_and_options() {
    let world = World::echo().await;
    let reply = world.send(Method::HEAD, "/v1/things/7", &[], "").await;
    assert_eq!((reply.status.as_u16(), reply.text.as_str()), (200, ""));
    let length = world.get("/v1/things/7").await.text.len();
    assert_eq!(reply.headers["content-length"], length.to_string());
    assert_eq!(world.last().path, "/test.v1.Things/GetThing");
    let reply = world.send(Method::OPTIONS, "/v1/things/7", &[], "").await;
    assert_eq!(
        (reply.status.as_u16(), &reply.headers["allow"]),
        (204, &"DELETE, GET, HEAD, PATCH, OPTIONS".parse().expect("ok"))
    );
    assert_eq!(world.send(Method::OPTIONS, "/nowhere", &[], "").await.status, 404);
}

#[tokio::test]
async fn request_ids_come_back() {
    let world = World::echo().await;
    let reply = world.send(Method::GET, "/v1/things/7", &[("x-request-id", "mine-1")], "").await;
    assert_eq!(reply.headers["x-request-id"], "mine-1");
    assert_eq!(world.last().metadata["x-request-id"], "mine-1");
    let reply = world.send(Method::GET, "/v1/things/7", &[("x-request-id", "not sane")], "").await;
    assert_eq!(reply.headers["x-request-id"].len(), 36);
    assert_eq!(world.last().metadata["x-request-id"], reply.headers["x-request-id"]);
    for path in ["/nowhere", "/healthz", "/v1/things?x=1"] {
        let reply = world.send(Method::GET, path, &[("x-request-id", "mine-2")], "").await;
        assert_eq!(reply.headers["x-request-id"], "mine-2", "{path}");
    }
}

#[tokio::test]
async fn metadata_is_filtered_both_ways() {
    let world = World::start(|_| {
        let mut response = Response::new(futures::stream::iter([Ok(bytes::Bytes::new())]).boxed());
        response.metadata_mut().insert("ratelimit-policy", "200;w=1".parse().expect("ok"));
        response.metadata_mut().insert("ratelimit", "r=1".parse().expect("ok"));
        response.metadata_mut().insert("x-internal", "secret".parse().expect("ok"));
        Ok(response)
    })
    .await;
    let sent = [
        ("authorization", "Bearer t"),
        ("x-api-key", "vsk_x"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("user-agent", "curl/8"),
        ("accept-language", "de"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-host", "evil"),
        ("x-tenant", "other"),
        ("cookie", "a=b"),
    ];
    let reply = world.send(Method::GET, "/v1/things/7", &sent, "").await;
    assert_eq!(
        (&reply.headers["ratelimit-policy"], &reply.headers["ratelimit"]),
        (&"200;w=1".parse().expect("ok"), &"r=1".parse().expect("ok"))
    );
    assert!(!reply.headers.contains_key("x-internal"));
    let got = world.last().metadata;
    for (name, value) in &sent[..3] {
        assert_eq!(got[*name], *value);
    }
    assert!(got["user-agent"].to_str().expect("text").starts_with("curl/8 "));
    assert_eq!(got["x-forwarded-for"], "127.0.0.1");
    for name in ["x-forwarded-host", "x-tenant", "cookie"] {
        assert!(!got.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn browsers_of_listed_origins_may_call() {
    let config = Config { cors_origins: vec!["https://ui.example".to_owned()], ..Config::default() };
    let world = World::with(config, |_| async { once(bytes::Bytes::new()) }.boxed()).await;
    let preflight = [("origin", "https://ui.example"), ("access-control-request-method", "PATCH")];
    let reply = world.send(Method::OPTIONS, "/v1/things/7", &preflight, "").await;
    assert_eq!(reply.headers["access-control-allow-origin"], "https://ui.example");
    assert!(reply.headers["access-control-allow-methods"].to_str().expect("text").contains("PATCH"));
    assert!(reply.headers.contains_key("x-request-id"));
    let reply = world.send(Method::GET, "/nowhere", &preflight[..1], "").await;
    assert_eq!(reply.headers["access-control-allow-origin"], "https://ui.example");
    let reply = world.send(Method::GET, "/v1/things/7", &[("origin", "https://evil.example")], "").await;
    assert!(!reply.headers.contains_key("access-control-allow-origin"));
}
