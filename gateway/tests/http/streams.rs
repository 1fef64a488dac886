//! Server streams as NDJSON and as server-sent events.

use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tonic::{Response, Status};
use virtualstack_gateway::Config;

use crate::support::{Answer, World, json as decoded, wire};

const SSE: [(&str, &str); 1] = [("accept", "text/event-stream")];

fn event(number: u32) -> Bytes {
    wire("test.v1.Event", json!({"type": "CREATED", "resumeToken": format!("t{number}")}))
}

fn events(end: Option<Status>) -> Answer {
    let events = [Ok(event(1)), Ok(event(2))].into_iter().chain(end.map(Err));
    Ok(Response::new(stream::iter(events.collect::<Vec<_>>()).boxed()))
}

#[tokio::test]
async fn ndjson_by_default() {
    let world = World::start(|_| events(None)).await;
    let reply = world.get("/v1/things:watch?resumeToken=a").await;
    assert_eq!(
        (reply.status.as_u16(), &reply.headers["content-type"]),
        (200, &"application/x-ndjson".parse().expect("ok"))
    );
    let lines: Vec<Json> = reply.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[1], json!({"type": "CREATED", "resumeToken": "t2"}));
    assert_eq!((lines.len(), reply.text.ends_with("}\n")), (2, true));
    assert_eq!(decoded("test.v1.WatchThingsRequest", &world.last().message), json!({"resumeToken": "a"}));
    assert!(!world.last().metadata.contains_key("grpc-timeout"), "no deadline unless the client names one");
}

#[tokio::test]
async fn events_when_asked_for() {
    let world = World::start(|_| events(None)).await;
    let reply = world.send(Method::GET, "/v1/things:watch", &SSE, "").await;
    assert_eq!(reply.headers["content-type"], "text/event-stream");
    // Or a proxy keeps events until it has many.
    assert_eq!(reply.headers["x-accel-buffering"], "no");
    assert!(reply.headers["cache-control"].to_str().expect("text").contains("no-cache"));
    assert_eq!(
        reply.text,
        "id: t1\nevent: created\ndata: {\"type\":\"CREATED\",\"resumeToken\":\"t1\"}\n\n\
         id: t2\nevent: created\ndata: {\"type\":\"CREATED\",\"resumeToken\":\"t2\"}\n\n"
    );
    let again = [SSE[0], ("last-event-id", "t2")];
    world.send(Method::GET, "/v1/things:watch?resumeToken=old", &again, "").await;
    assert_eq!(decoded("test.v1.WatchThingsRequest", &world.last().message), json!({"resumeToken": "t2"}));
}

#[tokio::test]
async fn a_stream_that_fails_half_way_ends_with_the_error() {
    let world = World::start(|_| events(Some(Status::failed_precondition("too old")))).await;
    let reply = world.get("/v1/things:watch").await;
    let last: Json = serde_json::from_str(reply.text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(
        (reply.status.as_u16(), last),
        (200, json!({"error": {"code": 400, "status": "FAILED_PRECONDITION", "message": "too old", "details": []}}))
    );
    let reply = world.send(Method::GET, "/v1/things:watch", &SSE, "").await;
    let last = reply.text.trim_end().rsplit("\n\n").next().expect("an event");
    assert!(last.starts_with("event: error\ndata: {\"error\":{\"code\":400,"), "{last}");
    assert!(reply.text.ends_with("\n\n"));
}

#[tokio::test]
async fn a_stream_that_never_begins_is_a_plain_error() {
    let world = World::start(|_| Err(Status::unauthenticated("who are you"))).await;
    let reply = world.send(Method::GET, "/v1/things:watch", &SSE, "").await;
    assert_eq!(
        (reply.status.as_u16(), &reply.headers["content-type"]),
        (401, &"application/json".parse().expect("ok"))
    );
}

/// A stream that ends only when it is dropped, and says so.
fn endless(dropped: mpsc::UnboundedSender<()>) -> Answer {
    struct Bell(mpsc::UnboundedSender<()>);
    impl Drop for Bell {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let bell = Bell(dropped);
    let rest = stream::pending().inspect(move |_: &Result<Bytes, Status>| {
        let _ = &bell;
    });
    Ok(Response::new(stream::iter([Ok(event(1))]).chain(rest).boxed()))
}

#[tokio::test]
async fn the_call_ends_when_the_client_goes_away() {
    let (sender, mut dropped) = mpsc::unbounded_channel();
    let world = World::start(move |_| endless(sender.clone())).await;
    let mut reply = world.open(Method::GET, "/v1/things:watch", &SSE, "").await;
    let first = reply.body_mut().frame().await.expect("a frame").expect("no error");
    assert!(first.into_data().expect("data").starts_with(b"id: t1\n"));
    assert!(dropped.try_recv().is_err());
    drop(reply);
    tokio::time::timeout(Duration::from_secs(5), dropped.recv()).await.expect("it was cancelled");
}

#[tokio::test]
async fn a_deadline_ends_a_stream() {
    let (sender, mut dropped) = mpsc::unbounded_channel();
    let world = World::start(move |_| endless(sender.clone())).await;
    let reply = world.send(Method::GET, "/v1/things:watch", &[("grpc-timeout", "300m")], "").await;
    let last: Json = serde_json::from_str(reply.text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["error"]["status"], "DEADLINE_EXCEEDED");
    dropped.recv().await.expect("it was cancelled");
}

#[tokio::test]
async fn streams_end_when_the_gateway_stops() {
    let (sender, _dropped) = mpsc::unbounded_channel();
    let mut world = World::start(move |_| endless(sender.clone())).await;
    let mut reply = world.open(Method::GET, "/v1/things:watch", &SSE, "").await;
    reply.body_mut().frame().await.expect("a frame").expect("no error");
    world.stop.take().expect("it runs").send(()).expect("it listens");
    let rest = reply.into_body().collect().await.expect("a clean end").to_bytes();
    let rest = String::from_utf8(rest.to_vec()).expect("text");
    assert!(rest.starts_with("event: error\ndata: ") && rest.contains("GATEWAY_STOPPING"), "{rest}");
    tokio::time::timeout(Duration::from_secs(5), &mut world.served)
        .await
        .expect("it ends")
        .expect("no panic")
        .expect("ok");
}

#[tokio::test(start_paused = true)]
async fn quiet_streams_are_kept_alive() {
    // Time is paused: it jumps to the next timer whenever nothing else can go on.
    let (sender, _dropped) = mpsc::unbounded_channel();
    let world = World::start(move |_| endless(sender.clone())).await;
    let mut reply = world.open(Method::GET, "/v1/things:watch", &SSE, "").await;
    reply.body_mut().frame().await.expect("a frame").expect("no error");
    let frame = reply.body_mut().frame().await.expect("a frame").expect("no error");
    assert_eq!(frame.into_data().expect("data"), ": keep-alive\n\n");
}

#[tokio::test]
async fn only_so_many_streams_are_open_at_once() {
    let (sender, _dropped) = mpsc::unbounded_channel();
    let config = Config { max_streams: 1, ..Config::default() };
    let world = World::with(config, move |_| futures::future::ready(endless(sender.clone())).boxed()).await;
    let open = world.open(Method::GET, "/v1/things:watch", &SSE, "").await;
    let reply = world.get("/v1/things:watch").await;
    reply.error(503, "UNAVAILABLE", "GATEWAY_OVERLOADED");
    drop(open);
}
