//! Connections of a real port, with clients that misbehave.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Mutex, oneshot};
use virtualstack_connections::{Limits, Peer, serve};

const LONG: Duration = Duration::from_secs(600);

fn limits() -> Limits {
    Limits {
        connections: 100,
        per_network: 4,
        first_request: LONG,
        idle: LONG,
        send: LONG,
        unread_per_connection: 1 << 20,
        unread_per_network: 1 << 30,
        exempt: Vec::new(),
        drain: Duration::from_secs(5),
    }
}

/// A port that answers each request with so many bytes, and says whose requests have come.
struct Port {
    address: SocketAddr,
    peers: Arc<Mutex<Vec<Peer>>>,
    _stop: oneshot::Sender<()>,
}

async fn port(limits: Limits, bytes: usize, trust: bool) -> Port {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel();
    let peers = Arc::<Mutex<Vec<Peer>>>::default();
    let seen = Arc::clone(&peers);
    tokio::spawn(async move {
        let mut http = Builder::new(TokioExecutor::new());
        http.http1().timer(TokioTimer::new());
        http.http2().timer(TokioTimer::new());
        let make = |_: &Peer, socket| {
            let seen = Arc::clone(&seen);
            let service = service_fn(move |request: Request<Incoming>| {
                let seen = Arc::clone(&seen);
                async move {
                    let peer = request.extensions().get::<Peer>().expect("every request has one").clone();
                    if trust {
                        peer.trust();
                    }
                    seen.lock().await.push(peer);
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(vec![b'x'; bytes]))))
                }
            });
            (service, socket)
        };
        serve(listener, http, limits, make, async { _ = stopped.await }).await;
    });
    Port { address, peers, _stop: stop }
}

impl Port {
    async fn connect(&self, from: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(format!("{from}:0").parse().expect("an address")).expect("a source");
        socket.connect(self.address).await.expect("a connection")
    }

    async fn ask(&self, stream: &mut TcpStream) {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    }
}

/// Whether the other end has closed, without an answer.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    matches!(stream.read(&mut byte).await, Ok(0) | Err(_))
}

#[tokio::test]
async fn an_address_has_a_share_of_the_connections() {
    let port = port(limits(), 1, false).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(port.connect("127.0.0.2").await);
    }
    assert!(is_closed(&mut port.connect("127.0.0.2").await).await, "it has its share");
    let mut other = port.connect("127.0.0.3").await;
    port.ask(&mut other).await;
    assert!(!is_closed(&mut other).await, "others have theirs");
    // One that is closed makes room.
    drop(open.pop());
    loop {
        let mut again = port.connect("127.0.0.2").await;
        port.ask(&mut again).await;
        if !is_closed(&mut again).await {
            break;
        }
    }
}

#[tokio::test]
async fn networks_without_a_share_and_trusted_peers_are_not_counted() {
    let exempt = vec!["127.0.0.2/32".parse().expect("a network")];
    let proxied = port(Limits { exempt, ..limits() }, 1, false).await;
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut stream = proxied.connect("127.0.0.2").await;
        proxied.ask(&mut stream).await;
        assert!(!is_closed(&mut stream).await, "a proxy speaks for many");
        open.push(stream);
    }
    let trusting = port(limits(), 1, true).await;
    for _ in 0..10 {
        let mut stream = trusting.connect("127.0.0.2").await;
        trusting.ask(&mut stream).await;
        assert!(!is_closed(&mut stream).await, "whoever is trusted leaves the share to others");
        open.push(stream);
    }
}

#[tokio::test]
async fn who_asks_nothing_is_closed() {
    let port = port(Limits { first_request: Duration::from_millis(200), ..limits() }, 1, false).await;
    let mut silent = port.connect("127.0.0.2").await;
    let mut slow = port.connect("127.0.0.2").await;
    slow.write_all(b"PRI * HT").await.expect("sent");
    assert!(is_closed(&mut silent).await);
    assert!(is_closed(&mut slow).await, "a part of a request is none");
}

#[tokio::test]
async fn who_asks_nothing_more_is_closed_and_who_is_trusted_is_not() {
    let idle = Limits { idle: Duration::from_millis(200), ..limits() };
    let strangers = port(idle.clone(), 1, false).await;
    let mut stream = strangers.connect("127.0.0.2").await;
    strangers.ask(&mut stream).await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("the end comes in order");
    assert!(answer.ends_with(b"\r\n\r\nx"));
    let gateways = port(idle, 1, true).await;
    let mut stream = gateways.connect("127.0.0.2").await;
    gateways.ask(&mut stream).await;
    assert!(!is_closed(&mut stream).await);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    gateways.ask(&mut stream).await;
    assert!(!is_closed(&mut stream).await, "it is kept");
}

#[tokio::test]
async fn replies_that_nobody_reads_are_counted_and_end() {
    let patient = port(limits(), 64 << 20, false).await;
    let mut stream = patient.connect("127.0.0.2").await;
    patient.ask(&mut stream).await;
    while patient.peers.lock().await.is_empty() {
        tokio::task::yield_now().await;
    }
    let peer = patient.peers.lock().await[0].clone();
    while peer.reads() {
        tokio::task::yield_now().await;
    }
    // Read, they count no more.
    let mut taken = 0;
    let mut buffer = vec![0; 1 << 20];
    while taken < 64 << 20 {
        taken += stream.read(&mut buffer).await.expect("read");
    }
    while !peer.reads() {
        tokio::task::yield_now().await;
    }

    let impatient = port(Limits { send: Duration::from_millis(300), ..limits() }, 64 << 20, false).await;
    let mut stream = impatient.connect("127.0.0.2").await;
    impatient.ask(&mut stream).await;
    while impatient.peers.lock().await.is_empty() {
        tokio::task::yield_now().await;
    }
    let peer = impatient.peers.lock().await[0].clone();
    while peer.reads() {
        tokio::task::yield_now().await;
    }
    // Nothing is read until the reply is given up, which what is kept of it tells.
    while !peer.reads() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    assert!(read.is_err() || answer.len() < 64 << 20, "it was cut");
}

#[tokio::test]
async fn a_stream_of_http_2_that_is_not_read_ends_its_connection() {
    let port = port(Limits { send: Duration::from_millis(300), ..limits() }, 64 << 20, false).await;
    let stream = port.connect("127.0.0.2").await;
    let (mut send, connection) = h2::client::handshake(stream).await.expect("a connection");
    let driven = tokio::spawn(connection);
    let request = Request::get(format!("http://{}/", port.address)).body(()).expect("a request");
    let (response, _) = send.send_request(request, true).expect("sent");
    let response = response.await.expect("a reply");
    // The body is held and not read: the window that it has is used up, and the socket itself is not full.
    let body = response.into_body();
    let _ = driven.await.expect("no panic");
    drop(body);
}
