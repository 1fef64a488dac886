//! What those can take of whom nobody knows anything but the address.

use std::net::{IpAddr, SocketAddr};

use futures::StreamExt as _;
use futures::future::join_all;
use prost::bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use virtualstack_proto::raw::RawCodec;
use virtualstack_proto::virtualstack::compute::v1::ListVmsRequest;
use virtualstack_proto::virtualstack::compute::v1::vm_service_client::VmServiceClient;
use virtualstack_server::Config;

use crate::support::{ControlPlane, Rest, reason};

/// Where attackers come from; tests come from 127.0.0.1.
const ELSEWHERE: &str = "127.0.0.9";

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().expect("an address")
}

async fn connect(url: &str, from: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(from.parse().expect("an address"), 0)).expect("a source");
    socket.connect(address(url)).await.expect("a connection")
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_strangers_that_never_end_keep_nobody_out() {
    let config = Config { concurrency_limit: 32, ..Config::default() };
    let plane = ControlPlane::start_with(config).await;
    let admin = plane.admin().await;
    // Calls whose bodies never come: with credentials that are none, and where none are asked for.
    let mut open = Vec::new();
    for _ in 0..5 {
        let stream = connect(&plane.grpc, ELSEWHERE).await;
        let (mut send, connection) = h2::client::handshake(stream).await.expect("a connection");
        tokio::spawn(connection);
        for (path, credential) in [
            ("virtualstack.compute.v1.VmService/ListVms", Some("Bearer x")),
            ("virtualstack.iam.v1.AuthService/Login", None),
        ] {
            for _ in 0..40 {
                send = send.ready().await.expect("room");
                let mut request = http::Request::post(format!("{}/{path}", plane.grpc))
                    .header("content-type", "application/grpc")
                    .header("grpc-timeout", "300S");
                if let Some(credential) = credential {
                    request = request.header("authorization", credential);
                }
                let sent = send.send_request(request.body(()).expect("a request"), false).expect("sent");
                open.push(sent);
            }
        }
    }
    for _ in 0..20 {
        assert_eq!(admin.rest().call("GET", "/v1/quota", None).await.0, 200);
        assert_eq!(Rest::new(&plane.http, None).call("GET", "/readyz", None).await.0, 200);
    }
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_strangers_are_counted_until_they_end() {
    let plane = ControlPlane::start_with(Config { concurrency_limit: 64, ..Config::default() }).await;
    let admin = plane.admin().await;
    let channel = Endpoint::from_shared(plane.grpc.clone()).expect("a URL").connect().await.expect("a connection");
    let mut open = Vec::new();
    let mut refused = 0;
    for _ in 0..10 {
        let mut client = Grpc::new(channel.clone());
        client.ready().await.expect("ready");
        let path = "/grpc.health.v1.Health/Watch".parse().expect("a path");
        match client.server_streaming(Request::new(Bytes::new()), path, RawCodec).await {
            Ok(watch) => open.push(watch.into_inner()),
            Err(status) => {
                assert_eq!(reason(&status), "TOO_MANY_CALLS");
                refused += 1;
            }
        }
    }
    assert_eq!((open.len(), refused), (4, 6), "a sixteenth of the places is one address's");
    assert!(open[0].message().await.expect("a message").is_some());
    assert_eq!(admin.rest().call("GET", "/v1/quota", None).await.0, 200);
    assert_eq!(Rest::new(&plane.http, None).call("GET", "/readyz", None).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_answers_before_the_stream_of_questions_ends() {
    let plane = ControlPlane::without_worker().await;
    let channel = Endpoint::from_shared(plane.grpc.clone()).expect("a URL").connect().await.expect("a connection");
    let mut client = Grpc::new(channel);
    client.ready().await.expect("ready");
    // ListServices, field 7, and then no end.
    let questions = futures::stream::iter([Bytes::from_static(&[0x3a, 0])]).chain(futures::stream::pending());
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".parse().expect("a path");
    let mut answers = client.streaming(Request::new(questions), path, RawCodec).await.expect("a stream").into_inner();
    let answer = answers.message().await.expect("a message").expect("an answer");
    assert!(String::from_utf8_lossy(&answer).contains("virtualstack.compute.v1.VmService"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_never_end_keep_nobody_from_the_gateway() {
    let plane = ControlPlane::without_worker().await;
    let admin = plane.admin().await;
    let mut open = Vec::new();
    for _ in 0..400 {
        let mut stream = connect(&plane.http, ELSEWHERE).await;
        let head = "POST /v1/vms HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\
                    grpc-timeout: 1H\r\n\r\n{";
        stream.write_all(head.as_bytes()).await.expect("sent");
        open.push(stream);
    }
    // The last ones are told at once that their address has enough of them.
    let mut reply = vec![0; 4096];
    let last = open.last_mut().expect("one");
    let size = last.read(&mut reply).await.expect("an answer");
    let reply = String::from_utf8_lossy(&reply[..size]).into_owned();
    assert!(reply.starts_with("HTTP/1.1 429") && reply.contains("TOO_MANY_CALLS"), "{reply}");
    for _ in 0..20 {
        assert_eq!(admin.rest().call("GET", "/v1/quota", None).await.0, 200);
    }
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_of_one_address_leave_room_for_others() {
    let config = Config { max_connections_per_address: 8, first_request_seconds: 1, ..Config::default() };
    let plane = ControlPlane::start_with(config).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(connect(&plane.grpc, ELSEWHERE).await);
    }
    let mut byte = [0];
    let refused = connect(&plane.grpc, ELSEWHERE).await.read(&mut byte).await;
    assert!(matches!(refused, Ok(0) | Err(_)), "the address has its share: {refused:?}");
    plane.admin().await;
    // Nothing asked, they are closed by themselves, and the address may come again.
    for mut stream in silent {
        assert!(matches!(stream.read(&mut byte).await, Ok(0) | Err(_)));
    }
    let mut again = connect(&plane.grpc, ELSEWHERE).await;
    again.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("sent");
    assert!(matches!(again.read(&mut byte).await, Ok(1)), "the server's settings");
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_credentials_are_counted_before_the_database_is_asked() {
    let plane = ControlPlane::without_worker().await;
    let admin = plane.admin().await;
    assert_eq!(admin.rest().call("GET", "/v1/quota", None).await.0, 200);
    let channel = Endpoint::from_shared(plane.grpc.clone()).expect("a URL").connect().await.expect("a connection");
    let guess = || {
        let mut vms = VmServiceClient::new(channel.clone());
        let mut request = Request::new(ListVmsRequest::default());
        // A session that there never was, by a key that is not the server's: each is another one.
        let token = format!("Bearer x.{}.y", uuid::Uuid::now_v7());
        request.metadata_mut().insert("authorization", token.parse().expect("metadata"));
        async move { vms.list_vms(request).await.expect_err("refused") }
    };
    let mut told: Vec<_> = Vec::new();
    for _ in 0..6 {
        told.extend(join_all((0..100).map(|_| guess())).await);
    }
    let limited = told.iter().filter(|status| status.code() == Code::ResourceExhausted).count();
    assert!(limited > 200, "{limited} of 600 were limited");
    assert!(told.iter().all(|status| ["TOKEN_INVALID", "RATE_LIMITED"].contains(&reason(status).as_str())));
    // Whom the server knows is let in from the same address all the same.
    for _ in 0..10 {
        assert_eq!(admin.rest().call("GET", "/v1/quota", None).await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_seconds_of_its_own() {
    let config = Config { request_body_seconds: 1, ..Config::default() };
    let plane = ControlPlane::start_with(config).await;
    let admin = plane.admin().await;
    let stream = connect(&plane.grpc, "127.0.0.1").await;
    let (send, connection) = h2::client::handshake(stream).await.expect("a connection");
    tokio::spawn(connection);
    let request = http::Request::post(format!("{}/virtualstack.compute.v1.VmService/ListVms", plane.grpc))
        .header("content-type", "application/grpc")
        .header("authorization", format!("Bearer {}", admin.tokens.access_token))
        .header("grpc-timeout", "1H")
        .body(())
        .expect("a request");
    let (reply, _body) = send.ready().await.expect("room").send_request(request, false).expect("sent");
    let reply = reply.await.expect("an answer, before the hour is over");
    assert_eq!(reply.headers()["grpc-status"], "4", "{:?}", reply.headers());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_where_it_comes_from_is_not_believed() {
    // Not even where it comes from this machine.
    let plane = ControlPlane::start_with(Config { auth_per_address_per_minute: 2, ..Config::default() }).await;
    let rest = Rest::new(&plane.http, None);
    let mut told = Vec::new();
    for client in 0..6u8 {
        let address = IpAddr::from([192, 0, 2, client]);
        let login = json!({"email": format!("nobody-{client}@example.com"), "password": "not the password"});
        let request =
            rest.request("POST", "/v1/auth:login").header("x-forwarded-for", address.to_string()).json(&login);
        told.push(request.send().await.expect("an answer").status().as_u16());
    }
    assert_eq!(told.iter().filter(|status| **status == 429).count(), 4, "{told:?}");
}
