//! Errors: those of the server, and the gateway's own.

use futures::StreamExt as _;
use http::Method;
use prost::Message as _;
use serde_json::json;
use tonic::{Code, Status};
use virtualstack_gateway::{Config, Deps, Error, bind};
use virtualstack_proto::google::rpc;
use virtualstack_proto::vendored::HttpRule;

use crate::support::{POOL, World, once, wire};

fn with_details(code: Code, message: &str, details: &[(&str, serde_json::Value)]) -> Status {
    let details = details.iter().map(|(name, json)| prost_reflect_any(name, json.clone())).collect();
    let status = rpc::Status { code: code as i32, message: message.to_owned(), details };
    Status::with_details(code, message, status.encode_to_vec().into())
}

fn prost_reflect_any(name: &str, json: serde_json::Value) -> prost_types::Any {
    prost_types::Any { type_url: format!("type.googleapis.com/{name}"), value: wire(name, json).to_vec() }
}

#[tokio::test]
async fn every_code_has_its_http_status() {
    let world = World::start(|call| {
        let number = call.metadata["x-api-key"].to_str().expect("text").parse::<i32>().expect("a number");
        Err(Status::new(Code::from_i32(number), "as the server says"))
    })
    .await;
    for (number, (http, name)) in [
        (499, "CANCELLED"),
        (500, "UNKNOWN"),
        (400, "INVALID_ARGUMENT"),
        (504, "DEADLINE_EXCEEDED"),
        (404, "NOT_FOUND"),
        (409, "ALREADY_EXISTS"),
        (403, "PERMISSION_DENIED"),
        (429, "RESOURCE_EXHAUSTED"),
        (400, "FAILED_PRECONDITION"),
        (409, "ABORTED"),
        (400, "OUT_OF_RANGE"),
        (501, "UNIMPLEMENTED"),
        (500, "INTERNAL"),
        (503, "UNAVAILABLE"),
        (500, "DATA_LOSS"),
        (401, "UNAUTHENTICATED"),
    ]
    .into_iter()
    .enumerate()
    {
        let number = (number + 1).to_string();
        let reply = world.send(Method::GET, "/v1/things/7", &[("x-api-key", &number)], "").await;
        let expected = json!({"error": {"code": http, "status": name, "message": "as the server says", "details": []}});
        assert_eq!((reply.status.as_u16(), reply.json()), (http, expected));
        assert_eq!(reply.headers.contains_key("www-authenticate"), http == 401);
        assert!(!reply.headers.contains_key("retry-after"));
    }
}

#[tokio::test]
async fn details_are_decoded() {
    let world = World::start(|_| {
        let mut status = with_details(
            Code::ResourceExhausted,
            "slow down",
            &[
                ("google.rpc.ErrorInfo", json!({"reason": "RATE", "domain": "virtualstack", "metadata": {"a": "b"}})),
                ("google.rpc.RetryInfo", json!({"retryDelay": "1.2s"})),
                ("google.rpc.BadRequest", json!({"fieldViolations": [{"field": "x", "description": "y"}]})),
            ],
        );
        status.metadata_mut().insert("ratelimit", "r=0".parse().expect("ok"));
        Err(status)
    })
    .await;
    let reply = world.get("/v1/things/7").await;
    reply.error(429, "RESOURCE_EXHAUSTED", "RATE");
    assert_eq!(
        (&reply.headers["retry-after"], &reply.headers["ratelimit"]),
        (&"2".parse().expect("ok"), &"r=0".parse().expect("ok"))
    );
    let details = &reply.json()["error"]["details"];
    assert_eq!(details[0]["metadata"], json!({"a": "b"}));
    assert_eq!(details[1], json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.200s"}));
    assert_eq!(details[2]["fieldViolations"][0]["field"], "x");
}

#[tokio::test]
async fn details_that_nobody_knows_are_left_out() {
    let world = World::start(|_| {
        let unknown = prost_types::Any { type_url: "type.googleapis.com/no.Such".to_owned(), value: vec![1, 2, 3] };
        let status = rpc::Status { code: 5, message: String::new(), details: vec![unknown] };
        Err(Status::with_details(Code::NotFound, "gone", status.encode_to_vec().into()))
    })
    .await;
    assert_eq!(world.get("/v1/things/7").await.json()["error"]["details"], json!([]));
    let world =
        World::start(|_| Err(Status::with_details(Code::NotFound, "gone", bytes::Bytes::from_static(b"\xff")))).await;
    assert_eq!(world.get("/v1/things/7").await.status, 404);
}

#[tokio::test]
async fn an_error_after_the_headers_is_still_an_error() {
    let world = World::start(|_| {
        let failure = Err(Status::failed_precondition("late"));
        Ok(tonic::Response::new(futures::stream::iter([failure]).boxed()))
    })
    .await;
    assert_eq!(world.get("/v1/things/7").await.json()["error"]["status"], "FAILED_PRECONDITION");
    let world = World::start(|_| Ok(tonic::Response::new(futures::stream::empty().boxed()))).await;
    assert_eq!(world.get("/v1/things/7").await.status, 500);
}

#[tokio::test]
async fn unknown_routes_and_other_verbs() {
    let world = World::echo().await;
    for path in ["/", "/v1", "/v1/things/", "/v1/things/7/more", "/v1//things", "/test.v1.Things/GetThing"] {
        world.get(path).await.error(404, "NOT_FOUND", "ROUTE_NOT_FOUND");
    }
    world.json(Method::POST, "/v1/things/7:unknown", "{}").await.error(404, "NOT_FOUND", "ROUTE_NOT_FOUND");
    for (method, path, allow) in [
        (Method::PUT, "/v1/things", "GET, HEAD, POST"),
        (Method::POST, "/v1/things/7", "DELETE, GET, HEAD, PATCH"),
        (Method::GET, "/v1/things/7:start", "POST"),
        (Method::POST, "/healthz", "GET, HEAD"),
        (Method::TRACE, "/v1/things", "GET, HEAD, POST"),
    ] {
        let reply = world.json(method.clone(), path, "").await;
        reply.error(405, "UNIMPLEMENTED", "METHOD_NOT_ALLOWED");
        assert_eq!(reply.headers["allow"], allow, "{method} {path}");
    }
    assert_eq!(world.calls(), 0);
}

#[tokio::test]
async fn an_unreachable_server_is_unavailable() {
    let config = Config {
        listen: "127.0.0.1:0".parse().expect("valid"),
        upstream: "http://127.0.0.1:1".to_owned(),
        ..Config::default()
    };
    let gateway = bind(config, Deps { descriptors: POOL.clone(), ..Deps::default() }).await.expect("it binds");
    let mut world = World::echo().await;
    world.address = gateway.local_addr();
    tokio::spawn(gateway.serve(std::future::pending()));
    let reply = world.get("/v1/things/7").await;
    let message = reply.error(503, "UNAVAILABLE", "UPSTREAM_UNAVAILABLE");
    assert!(!message.contains("127.0.0.1") && !message.contains("tcp"), "{message}");
    assert_eq!(reply.headers["retry-after"], "1");
    assert_eq!(reply.json()["error"]["details"][1]["retryDelay"], "1s");
    assert_eq!(world.get("/healthz").await.status, 200);
    let reply = world.get("/readyz").await;
    assert_eq!((reply.status.as_u16(), reply.json()["status"].as_str()), (503, Some("unavailable")));
    world.get("/.well-known/jwks.json").await.error(503, "UNAVAILABLE", "UPSTREAM_UNAVAILABLE");
}

#[tokio::test]
async fn a_reply_that_is_too_large_is_told_so() {
    let config = Config { max_response_bytes: 10, ..Config::default() };
    let world =
        World::with(config, |_| Box::pin(async { once(wire("test.v1.Thing", json!({"name": "things/0123456789"}))) }))
            .await;
    world.get("/v1/things/7").await.error(500, "INTERNAL", "RESPONSE_TOO_LARGE");
}

#[tokio::test]
async fn rules_that_cannot_be_served_are_refused_at_start() {
    const SAME: &[HttpRule] = &[HttpRule {
        method: "google.longrunning.Operations.GetOperation",
        verb: "GET",
        path: "/v1/things/{name}",
        body: "",
    }];
    const WRONG: &[HttpRule] = &[HttpRule {
        method: "google.longrunning.Operations.GetOperation",
        verb: "GET",
        path: "/v1/{no_such}",
        body: "",
    }];
    let listen = || Config { listen: "127.0.0.1:0".parse().expect("valid"), ..Config::default() };
    let deps = |rules| Deps { descriptors: POOL.clone(), rules, ..Deps::default() };
    match bind(listen(), deps(SAME)).await.err() {
        Some(Error::Conflict { first, second, verb }) => {
            let mut both = [first.as_str(), second.as_str()];
            both.sort_unstable();
            assert_eq!(both, ["google.longrunning.Operations.GetOperation", "test.v1.Things.GetThing"]);
            assert_eq!(verb, "GET");
        }
        other => panic!("{other:?}"),
    }
    let error = bind(listen(), deps(WRONG)).await.err().expect("an error").to_string();
    assert!(error.contains("GetOperation") && error.contains("/v1/{no_such}"), "{error}");
    assert!(matches!(
        bind(Config { upstream: "nonsense:".to_owned(), ..listen() }, deps(&[])).await,
        Err(Error::Upstream(_))
    ));
    let origin = Config { cors_origins: vec!["*".to_owned()], ..listen() };
    assert!(matches!(bind(origin, deps(&[])).await, Err(Error::Origin(_))));
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let listen_taken = Config { listen: taken.local_addr().expect("an address"), ..listen() };
    assert!(matches!(bind(listen_taken, deps(&[])).await, Err(Error::Listen { .. })));
    assert!(bind(listen(), Deps::default()).await.is_ok(), "the product's own rules");
}
