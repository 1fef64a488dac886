//! What is too large or too slow.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use virtualstack_gateway::Config;

use crate::support::{World, once};

const MEGABYTE: usize = 1 << 20;

/// Sends everything before it reads anything, as many clients do.
async fn stubborn(world: &World, head: &str, chunk: &[u8], times: usize) -> String {
    let mut client = TcpStream::connect(world.address).await.expect("connected");
    client.write_all(head.as_bytes()).await.expect("written");
    for _ in 0..times {
        client.write_all(chunk).await.expect("the gateway reads on");
    }
    let mut reply = vec![0; 16 << 10];
    let length = client.read(&mut reply).await.expect("a reply");
    String::from_utf8(reply[..length].to_vec()).expect("text")
}

#[tokio::test]
async fn a_hundred_megabytes_get_a_clean_answer() {
    let world = World::echo().await;
    let head = format!(
        "POST /v1/things HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        100 * MEGABYTE
    );
    let reply = stubborn(&world, &head, &vec![b' '; MEGABYTE], 100).await;
    assert!(reply.starts_with("HTTP/1.1 413 ") && reply.contains("BODY_TOO_LARGE"), "{reply}");

    let head =
        "POST /v1/things HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = [format!("{MEGABYTE:x}\r\n").as_bytes(), &vec![b' '; MEGABYTE], b"\r\n"].concat();
    let reply = stubborn(&world, head, &chunk, 100).await;
    assert!(reply.starts_with("HTTP/1.1 413 ") && reply.contains("BODY_TOO_LARGE"), "{reply}");
    assert_eq!(world.calls(), 0);
}

#[tokio::test]
async fn a_body_of_the_largest_size_is_taken() {
    let config = Config { max_json_body: 1000, ..Config::default() };
    let world = World::with(config, |_| Box::pin(async { once(Bytes::new()) })).await;
    let body = |length: usize| format!("{{{}}}", " ".repeat(length - 2));
    assert_eq!(world.json(Method::POST, "/v1/things", body(1000)).await.status, 200);
    world.json(Method::POST, "/v1/things", body(1001)).await.error(413, "INVALID_ARGUMENT", "BODY_TOO_LARGE");
}

#[tokio::test]
async fn a_client_that_waits_before_sending_is_told_at_once() {
    let world = World::echo().await;
    let head = "POST /v1/things HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9000000\r\n\
                expect: 100-continue\r\n\r\n";
    let reply = stubborn(&world, head, b"", 0).await;
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
}

#[tokio::test]
async fn http2_has_the_same_limits() {
    let world = World::echo().await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let uri = format!("http://{}/v1/things", world.address);
    let chunks =
        stream::iter((0..100).map(|_| Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(vec![b' '; MEGABYTE])))));
    let request = Request::post(&uri).header("content-type", "application/json").body(StreamBody::new(chunks));
    let reply = client.request(request.expect("a request")).await.expect("a reply");
    assert_eq!(reply.status(), 413);
    let text = reply.into_body().collect().await.expect("a body").to_bytes();
    assert!(text.starts_with(b"{\"error\":{\"code\":413,"));

    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = Request::get(&uri).header("x-large", "x".repeat(70_000)).body(Empty::<Bytes>::new());
    assert_eq!(client.request(request.expect("a request")).await.expect("a reply").status(), 431);
    let request = Request::get(&uri).body(Empty::<Bytes>::new());
    assert_eq!(client.request(request.expect("a request")).await.expect("a reply").status(), 200);
}

#[tokio::test]
async fn long_urls_and_headers_are_refused() {
    let world = World::echo().await;
    let long = format!("/v1/things?filter={}", "x".repeat(17_000));
    world.get(&long).await.error(414, "INVALID_ARGUMENT", "URL_TOO_LONG");
    for size in [66_000, 200_000] {
        let reply = world.send(Method::GET, "/v1/things", &[("x-large", &"x".repeat(size))], "").await;
        reply.error(431, "INVALID_ARGUMENT", "HEADERS_TOO_LARGE");
    }
    let many: Vec<_> = (0..400).map(|_| ("x-many", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")).collect();
    assert_eq!(world.send(Method::GET, "/v1/things", &many, "").await.status, 200, "16 KB in 400 headers");
}

#[tokio::test]
async fn a_refused_request_leaves_the_connection_usable() {
    let world = World::echo().await;
    let mut client = TcpStream::connect(world.address).await.expect("connected");
    for _ in 0..3 {
        client
            .write_all(b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello")
            .await
            .expect("written");
        let mut reply = vec![0; 4096];
        let length = client.read(&mut reply).await.expect("a reply");
        assert!(reply[..length].starts_with(b"HTTP/1.1 404 "));
    }
}

#[tokio::test]
async fn slow_headers_and_bodies_are_cut() {
    let config = Config {
        header_read_timeout: Duration::from_millis(200),
        default_timeout: Duration::from_millis(300),
        ..Config::default()
    };
    let world = World::with(config, |_| Box::pin(async { once(Bytes::new()) })).await;
    let start = Instant::now();
    let mut client = TcpStream::connect(world.address).await.expect("connected");
    client.write_all(b"GET /v1/things HTTP/1.1\r\nhost: ").await.expect("written");
    let mut reply = Vec::new();
    let _ = client.read_to_end(&mut reply).await;
    assert!(start.elapsed() < Duration::from_secs(10), "the connection is closed");

    let head = "POST /v1/things HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{";
    let reply = stubborn(&world, head, b"", 0).await;
    assert!(reply.starts_with("HTTP/1.1 504 "), "{reply}");
}

#[tokio::test]
async fn a_body_that_breaks_off_reaches_nobody() {
    let world = World::echo().await;
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    drop(client);
    let mut client = TcpStream::connect(world.address).await.expect("connected");
    let head = b"POST /v1/things HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{}";
    client.write_all(head).await.expect("written");
    client.shutdown().await.expect("closed");
    let mut reply = Vec::new();
    let _ = client.read_to_end(&mut reply).await;
    assert_eq!(world.calls(), 0);
}

/// Takes a raw reply apart: status, headers, body.
fn parsed(reply: &str) -> (u16, http::HeaderMap, serde_json::Value) {
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("a reply, not {reply:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
    (status, headers.collect(), serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body:?}")))
}

/// What hyper refuses by itself, before there is a request: all it says of that is a status.
#[tokio::test]
async fn what_is_no_request_has_an_error_like_any_other() {
    let world = World::echo().await;
    let many = format!("GET /v1/things HTTP/1.1\r\nhost: x\r\n{}\r\n", "x-many: x\r\n".repeat(600));
    let large = format!("GET /v1/things HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "x".repeat(600_000));
    let long = format!("GET /v1/things?filter={} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(100_000));
    let cases = [
        ("nonsense\r\n\r\n", 400, "MALFORMED_REQUEST"),
        ("GET /v1/things HTTP/9.9\r\nhost: x\r\n\r\n", 400, "MALFORMED_REQUEST"),
        ("GET /v1/th ings HTTP/1.1\r\nhost: x\r\n\r\n", 400, "MALFORMED_REQUEST"),
        ("GET /v1/things HTTP/1.1\r\nhost x\r\n\r\n", 400, "MALFORMED_REQUEST"),
        ("GET /v1/things HTTP/1.1\r\nhost: x\r\nx bad: y\r\n\r\n", 400, "MALFORMED_REQUEST"),
        ("POST /v1/things HTTP/1.1\r\nhost: x\r\ncontent-length: 1, 2\r\n\r\n", 400, "MALFORMED_REQUEST"),
        ("\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03\r\n\r\n", 400, "MALFORMED_REQUEST"),
        (&many, 431, "HEADERS_TOO_LARGE"),
        (&large, 431, "HEADERS_TOO_LARGE"),
        (&long, 414, "URL_TOO_LONG"),
    ];
    let good = "GET /v1/things HTTP/1.1\r\nhost: x\r\n\r\n";
    for (bad, status, reason) in cases {
        // As the first request of a connection, and behind one that was answered.
        for before in [0, 2] {
            let mut client = TcpStream::connect(world.address).await.expect("connected");
            for _ in 0..before {
                client.write_all(good.as_bytes()).await.expect("written");
                let mut reply = vec![0; 4096];
                let length = client.read(&mut reply).await.expect("a reply");
                assert!(reply[..length].starts_with(b"HTTP/1.1 200 "));
            }
            // Whoever refuses may close before all is written.
            let _ = client.write_all(bad.as_bytes()).await;
            let mut reply = Vec::new();
            client.read_to_end(&mut reply).await.expect("a reply and its end");
            let (told, headers, body) = parsed(&String::from_utf8(reply).expect("text"));
            let error = &body["error"];
            let start: String = bad.chars().take(60).collect();
            assert_eq!((told, &error["details"][0]["reason"]), (status, &reason.into()), "{start:?}: {body}");
            assert_eq!((&error["code"], &error["status"]), (&status.into(), &"INVALID_ARGUMENT".into()), "{body}");
            assert_eq!(headers["content-type"], "application/json", "{headers:?}");
            assert!(!headers["x-request-id"].is_empty(), "{headers:?}");
        }
    }
}
