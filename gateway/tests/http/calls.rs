//! Deadlines, cancellation, health and shutdown.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::Method;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::{Response, Status};
use virtualstack_gateway::Config;

use crate::support::{Answer, World, once};

fn never() -> futures::future::BoxFuture<'static, Answer> {
    futures::future::pending().boxed()
}

fn sent(world: &World) -> Duration {
    let text = world.last().metadata["grpc-timeout"].to_str().expect("text").to_owned();
    let (amount, unit) = text.split_at(text.len() - 1);
    let amount: u64 = amount.parse().expect("a number");
    match unit {
        "n" => Duration::from_nanos(amount),
        "u" => Duration::from_micros(amount),
        "m" => Duration::from_millis(amount),
        "S" => Duration::from_secs(amount),
        _ => panic!("{text}"),
    }
}

#[tokio::test]
async fn the_client_names_the_deadline() {
    let world = World::with(Config::default(), |_| never()).await;
    let reply = world.send(Method::GET, "/v1/things/7", &[("grpc-timeout", "200m")], "").await;
    reply.error(504, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED");
    let deadline = sent(&world);
    assert!(deadline <= Duration::from_millis(200) && deadline > Duration::from_millis(50), "{deadline:?}");
    let reply = world.send(Method::GET, "/v1/things/7", &[("grpc-timeout", "0S")], "").await;
    reply.error(504, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED");
    let reply = world.send(Method::GET, "/v1/things/7", &[("grpc-timeout", "soon")], "").await;
    assert!(reply.error(400, "INVALID_ARGUMENT", "INVALID_TIMEOUT").contains("Grpc-Timeout"));
}

#[tokio::test]
async fn the_gateway_has_a_default() {
    let config = Config { default_timeout: Duration::from_millis(200), ..Config::default() };
    let world = World::with(config, |_| never()).await;
    world.get("/v1/things/7").await.error(504, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn waiting_for_an_operation_has_its_own() {
    let world = World::echo().await;
    for (body, seconds) in [(r#"{"timeout": "45.5s"}"#, 55), ("{}", 70), ("", 70)] {
        let reply = world.json(Method::POST, "/v1/operations/7:wait", body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(sent(&world).as_secs_f64().floor() as u64 + u64::from(seconds == 70), seconds);
    }
    world.get("/v1/things/7").await;
    assert_eq!(sent(&world).as_secs(), 29);
}

#[tokio::test]
async fn a_call_ends_when_the_client_goes_away() {
    struct Bell(mpsc::UnboundedSender<&'static str>);
    impl Drop for Bell {
        fn drop(&mut self) {
            let _ = self.0.send("dropped");
        }
    }
    let (sender, mut heard) = mpsc::unbounded_channel();
    let world = World::with(Config::default(), move |_| {
        let bell = Bell(sender.clone());
        async move {
            let _ = bell.0.send("called");
            std::future::pending::<Answer>().await
        }
        .boxed()
    })
    .await;
    let mut client = TcpStream::connect(world.address).await.expect("connected");
    client.write_all(b"GET /v1/things/7 HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("written");
    assert_eq!(heard.recv().await, Some("called"));
    drop(client);
    let heard = tokio::time::timeout(Duration::from_secs(5), heard.recv()).await.expect("it was cancelled");
    assert_eq!(heard, Some("dropped"));
}

#[tokio::test]
async fn readiness_is_that_of_the_server() {
    let health = |status: u8| once(Bytes::from(vec![8, status]));
    let world = World::start(move |call| {
        assert_eq!(call.path, "/grpc.health.v1.Health/Check");
        health(1)
    })
    .await;
    let reply = world.get("/readyz").await;
    assert_eq!((reply.status.as_u16(), reply.json()), (200, json!({"status": "ok"})));

    let world = World::start(|_| Err(Status::unavailable("the database is down"))).await;
    let reply = world.get("/readyz").await;
    let expected = json!({"status": "unavailable", "reason": "the gRPC server says: the database is down"});
    assert_eq!((reply.status.as_u16(), reply.json()), (503, expected));

    let world = World::start(|_| {
        let mut answer: Response<_> = once(Bytes::from_static(&[8, 2]))?;
        answer.metadata_mut().insert("reason", "migrating".parse().expect("ok"));
        Ok(answer)
    })
    .await;
    assert_eq!(world.get("/readyz").await.json(), json!({"status": "unavailable", "reason": "migrating"}));

    let world = World::with(Config::default(), |_| never()).await;
    let reply = world.get("/readyz").await;
    assert_eq!(reply.status, 503);
    assert!(reply.text.contains("did not answer within 2 s"), "{}", reply.text);
}

#[tokio::test]
async fn keys_come_from_the_server() {
    let world = World::echo().await;
    let reply = world.get("/.well-known/jwks.json").await;
    assert_eq!((reply.status.as_u16(), reply.json()), (200, json!({"keys": []})));
    assert_eq!(reply.headers["content-type"], "application/json");
    assert_eq!(reply.headers["cache-control"], "public, max-age=300");
}

#[tokio::test]
async fn calls_in_flight_are_finished_before_the_end() {
    let mut world = World::with(Config::default(), |_| {
        async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            once(Bytes::new())
        }
        .boxed()
    })
    .await;
    let stop = world.stop.take().expect("it runs");
    let (reply, ()) = tokio::join!(world.get("/v1/things/7"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.send(()).expect("it listens");
    });
    assert_eq!(reply.status, 200);
    tokio::time::timeout(Duration::from_secs(5), &mut world.served)
        .await
        .expect("it ends")
        .expect("no panic")
        .expect("ok");
    assert!(TcpStream::connect(world.address).await.is_err());
}

#[tokio::test]
async fn calls_that_do_not_finish_are_cut() {
    let config = Config { drain_timeout: Duration::from_millis(200), ..Config::default() };
    let mut world = World::with(config, |_| never()).await;
    let mut client = TcpStream::connect(world.address).await.expect("connected");
    client.write_all(b"GET /v1/things/7 HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("written");
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.stop.take().expect("it runs").send(()).expect("it listens");
    tokio::time::timeout(Duration::from_secs(5), &mut world.served)
        .await
        .expect("it ends")
        .expect("no panic")
        .expect("ok");
}

#[tokio::test]
async fn too_many_calls_are_told_to_come_back() {
    let config = Config { max_requests: 0, ..Config::default() };
    let world = World::with(config, |_| never()).await;
    let reply = world.get("/v1/things/7").await;
    reply.error(503, "UNAVAILABLE", "GATEWAY_OVERLOADED");
    assert_eq!(reply.headers["retry-after"], "1");
    assert_eq!(world.get("/healthz").await.status, 200);
}
