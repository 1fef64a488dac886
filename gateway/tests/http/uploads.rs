//! Uploads: bodies that go to the server as they come.

use std::convert::Infallible;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{FutureExt as _, stream};
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use prost::Message as _;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::{Code, Status};
use virtualstack_gateway::Config;
use virtualstack_proto::google::rpc;

use crate::support::{Answer, Upload, World, json as decoded, once, wire};

const PATH: &str = "/v1/templates/7:upload";
const REQUEST: &str = "test.v1.UploadTemplateRequest";
const MIB: usize = 1 << 20;

/// A file in which no piece looks like another one.
static FILE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut file: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(MIB - 1).collect();
    while file.len() < 64 * MIB {
        file.extend_from_within(..(64 * MIB - file.len()).min(MIB - 1));
    }
    file.into()
});

fn taken(bytes: usize) -> Answer {
    once(wire("test.v1.UploadTemplateResponse", json!({"uploadedBytes": bytes.to_string()})))
}

fn refused(code: Code, reason: &str, metadata: Json) -> Status {
    let info = wire("google.rpc.ErrorInfo", json!({"reason": reason, "domain": "virtualstack", "metadata": metadata}));
    let any =
        prost_types::Any { type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(), value: info.to_vec() };
    let status = rpc::Status { code: code as i32, message: "no".to_owned(), details: vec![any] };
    Status::with_details(code, "no", status.encode_to_vec().into())
}

/// Bytes of an upload, which must be the beginning of the file, and whether it came to its end.
async fn count(mut upload: Upload) -> (usize, Result<(), Status>) {
    let mut size = 0;
    loop {
        match upload.piece().await {
            Ok(None) => return (size, Ok(())),
            Err(status) => return (size, Err(status)),
            Ok(Some(piece)) => {
                assert!(!piece.is_empty() && piece.len() <= 256 * 1024, "{}", piece.len());
                assert!(FILE[size..].starts_with(&piece), "other bytes from {size} on");
                size += piece.len();
            }
        }
    }
}

/// A server that takes everything.
async fn taker(config: Config) -> World {
    let take = |upload| {
        async {
            let (size, end) = count(upload).await;
            end.and_then(|()| taken(size))
        }
        .boxed()
    };
    World::uploads(config, |_| async { taken(0) }.boxed(), take).await
}

fn put(headers: &str) -> String {
    format!("PUT {PATH} HTTP/1.1\r\nhost: x\r\n{headers}\r\n")
}

async fn connected(world: &World) -> TcpStream {
    TcpStream::connect(world.address).await.expect("connected")
}

/// The head of a reply, and what has come of its body.
async fn head(client: &mut TcpStream) -> (String, String) {
    let mut bytes = Vec::new();
    loop {
        assert!(client.read_buf(&mut bytes).await.expect("a reply") > 0, "{:?}", String::from_utf8_lossy(&bytes));
        let text = String::from_utf8(bytes.clone()).expect("text");
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            return (head.to_owned(), body.to_owned());
        }
    }
}

/// A reply of which nothing is under way any more.
async fn reply(client: &mut TcpStream) -> (u16, Json) {
    let (head, mut body) = head(client).await;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let length: usize = length.parse().expect("a number");
    while body.len() < length {
        let mut more = vec![0; length - body.len()];
        let read = client.read(&mut more).await.expect("the rest");
        body += std::str::from_utf8(&more[..read]).expect("text");
    }
    (head[9..12].parse().expect("a status"), serde_json::from_str(&body).expect("JSON"))
}

fn reason(reply: &(u16, Json)) -> (u16, &str) {
    (reply.0, reply.1["error"]["details"][0]["reason"].as_str().unwrap_or_default())
}

/// The file in pieces of any size.
fn pieces() -> Vec<Bytes> {
    let (mut rest, mut pieces) = (FILE.clone(), Vec::new());
    while !rest.is_empty() {
        let most = [10, 5_000, 700_000][fastrand::usize(..3)];
        pieces.push(rest.split_to(fastrand::usize(1..=most).min(rest.len())));
    }
    pieces
}

#[tokio::test]
async fn a_file_arrives_whole() {
    let world = taker(Config { max_raw_body: 10, max_json_body: 10, ..Config::default() }).await;
    for (http2, length) in [(false, true), (false, false), (true, true), (true, false)] {
        let frames = stream::iter(pieces().into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece))));
        let uri = format!("http://{}{PATH}?contentLength=3", world.address);
        let mut request = Request::put(uri).header("content-type", "application/x-iso9660-image");
        if length {
            request = request.header("content-length", FILE.len());
        }
        let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
        let reply = client.request(request.body(StreamBody::new(frames)).expect("a request")).await.expect("a reply");
        let (status, body) = (reply.status(), reply.into_body().collect().await.expect("a body").to_bytes());
        let body: Json = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((status, body), (StatusCode::OK, json!({"uploadedBytes": FILE.len().to_string()})));
        let length = if length { FILE.len() } else { 3 };
        let expected = json!({
            "name": "templates/7",
            "contentLength": length.to_string(),
            "body": {"contentType": "application/x-iso9660-image"},
        });
        assert_eq!(decoded(REQUEST, &world.last().message), expected, "HTTP/2: {http2}");
        assert!(!world.last().metadata.contains_key("grpc-timeout"));
    }
    let reply = world.send(Method::PUT, PATH, &[], "").await;
    assert_eq!((reply.status.as_u16(), reply.json()), (200, json!({"uploadedBytes": "0"})), "the server decides");
}

/// Time stands still, and jumps on only where nothing else can go on: then a write that waits has come to its end.
#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_read_stops_the_client() {
    let (open, door) = watch::channel(false);
    let take = move |upload| {
        let mut door = door.clone();
        async move {
            door.wait_for(|open| *open).await.expect("it opens");
            let (size, end) = count(upload).await;
            end.and_then(|()| taken(size))
        }
        .boxed()
    };
    let world = World::uploads(Config::default(), |_| async { taken(0) }.boxed(), take).await;

    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_send_buffer_size(64 * 1024).expect("set");
    let mut client = socket.connect(world.address).await.expect("connected");
    client.write_all(put(&format!("content-length: {}\r\n", FILE.len())).as_bytes()).await.expect("written");
    let mut rest = FILE.clone();
    while let Ok(written) = timeout(Duration::from_secs(5), client.write(&rest)).await {
        let _ = rest.split_to(written.expect("written"));
    }
    let held = FILE.len() - rest.len();
    assert!(held < 4 * MIB, "{held}");

    let connection = h2::client::handshake(connected(&world).await).await.expect("HTTP/2");
    let (sender, connection) = connection;
    tokio::spawn(connection);
    let mut sender = sender.ready().await.expect("ready");
    let request = Request::put(format!("http://x{PATH}")).body(()).expect("a request");
    let (answer, mut body) = sender.send_request(request, false).expect("sent");
    let mut sent = 0;
    body.reserve_capacity(FILE.len());
    while let Ok(room) =
        timeout(Duration::from_secs(5), std::future::poll_fn(|context| body.poll_capacity(context))).await
    {
        let room = room.expect("open").expect("open");
        body.send_data(FILE.slice(sent..sent + room), false).expect("sent");
        sent += room;
        body.reserve_capacity(FILE.len() - sent);
    }
    assert!(sent < 3 * MIB, "{sent}");

    open.send(true).expect("they wait");
    body.send_data(FILE.slice(sent..4 * MIB), true).expect("sent");
    assert_eq!(answer.await.expect("an answer").status(), 200);
    client.write_all(&rest).await.expect("the rest is taken");
    assert_eq!(reply(&mut client).await, (200, json!({"uploadedBytes": FILE.len().to_string()})));
}

#[tokio::test]
async fn a_client_that_waits_hears_of_an_error_before_it_sends() {
    let config = || Config { max_uploads_per_address: 1, ..Config::default() };
    for (http, code, told) in [
        (401, Code::Unauthenticated, "NO_CREDENTIALS"),
        (403, Code::PermissionDenied, "NOT_ALLOWED"),
        (404, Code::NotFound, "NOT_THERE"),
        (409, Code::Aborted, "OTHER_WRITER"),
        (413, Code::ResourceExhausted, "TEMPLATE_TOO_LARGE"),
        (429, Code::ResourceExhausted, "RATE_LIMITED"),
    ] {
        let refuse = move |_| async move { Err(refused(code, told, json!({}))) }.boxed();
        let world = World::uploads(config(), refuse, |_| async { taken(0) }.boxed()).await;
        let mut client = connected(&world).await;
        client.write_all(put("content-length: 9000000\r\nexpect: 100-continue\r\n").as_bytes()).await.expect("written");
        assert_eq!(reason(&reply(&mut client).await), (http, told), "and no 100 before it");
        assert_eq!(world.calls(), 1);
        let asked = decoded(REQUEST, &world.last().message);
        assert_eq!((&asked["validateOnly"], &asked["contentLength"]), (&json!(true), &json!("9000000")));
    }
    let world = taker(config()).await;
    let mut client = connected(&world).await;
    client.write_all(put("content-length: 100\r\nexpect: 100-continue\r\n").as_bytes()).await.expect("written");
    assert_eq!(head(&mut client).await, ("HTTP/1.1 100 Continue".to_owned(), String::new()));
    client.write_all(&FILE[..100]).await.expect("written");
    assert_eq!(reply(&mut client).await, (200, json!({"uploadedBytes": "100"})));
    assert_eq!(world.calls(), 2);
}

#[tokio::test]
async fn only_checks_where_that_is_what_was_asked() {
    let world = taker(Config::default()).await;
    let mut client = connected(&world).await;
    let head = put("content-length: 100\r\nexpect: 100-continue\r\n").replace(":upload", ":upload?validateOnly=true");
    client.write_all(head.as_bytes()).await.expect("written");
    assert_eq!(reply(&mut client).await, (200, json!({"uploadedBytes": "0"})));
    assert_eq!(world.calls(), 1);
}

#[tokio::test]
async fn an_early_error_is_told_while_the_client_still_sends() {
    let take = |mut upload: Upload| {
        async move {
            upload.piece().await?;
            Err(refused(Code::ResourceExhausted, "TEMPLATE_TOO_LARGE", json!({"uploadedBytes": "7"})))
        }
        .boxed()
    };
    let world = World::uploads(Config::default(), |_| async { taken(0) }.boxed(), take).await;
    let expected = json!({"uploadedBytes": "7"});
    for expect in ["", "expect: 100-continue\r\n"] {
        let mut client = connected(&world).await;
        let headers = format!("content-length: {}\r\n{expect}", FILE.len());
        // One connection, twice: the rest of a body is not taken for a request.
        for _ in 0..2 {
            client.write_all(put(&headers).as_bytes()).await.expect("written");
            if !expect.is_empty() {
                assert_eq!(head(&mut client).await.0, "HTTP/1.1 100 Continue");
            }
            client.write_all(&FILE).await.expect("the gateway reads on");
            let reply = reply(&mut client).await;
            assert_eq!(reason(&reply), (413, "TEMPLATE_TOO_LARGE"), "{}", reply.1);
            assert_eq!(reply.1["error"]["details"][0]["metadata"], expected);
        }
    }
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let frames = stream::iter(pieces().into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece))));
    let request = Request::put(format!("http://{}{PATH}", world.address)).body(StreamBody::new(frames));
    let reply = client.request(request.expect("a request")).await.expect("a reply");
    assert_eq!(reply.status(), 413);
    let body = reply.into_body().collect().await.expect("a body").to_bytes();
    let body: Json = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["error"]["details"][0]["metadata"], expected);
}

/// What the server has seen of an upload, told once that is over, however: a call that is reset is dropped where it waits.
struct Seen {
    /// Bytes that have come; none again once it is over, so that nobody takes them for those of the next one.
    size: watch::Sender<usize>,
    /// Whether that looked like all of it.
    whole: bool,
    told: mpsc::UnboundedSender<(usize, bool)>,
}

impl Drop for Seen {
    fn drop(&mut self) {
        let _ = self.told.send((self.size.send_replace(0), self.whole));
    }
}

impl Seen {
    async fn all_of(mut self, mut upload: Upload) -> Answer {
        while let Some(piece) = upload.piece().await? {
            self.size.send_modify(|size| *size += piece.len());
        }
        self.whole = true;
        let size = *self.size.borrow();
        taken(size)
    }
}

/// What the server sees of each upload, and how much of one has come so far.
async fn watched(config: Config) -> (World, mpsc::UnboundedReceiver<(usize, bool)>, watch::Receiver<usize>) {
    let (told, ends) = mpsc::unbounded_channel();
    let (size, progress) = watch::channel(0);
    let take = move |upload| Seen { size: size.clone(), whole: false, told: told.clone() }.all_of(upload).boxed();
    let world = World::uploads(config, |_| async { taken(0) }.boxed(), take).await;
    (world, ends, progress)
}

#[tokio::test]
async fn an_upload_that_breaks_off_has_no_end() {
    let (world, mut ends, mut progress) = watched(Config::default()).await;
    // Of a length that is known, at the end of a chunk, and within one.
    for (more, closed) in [(None, true), (None, false), (Some(0), true), (Some(0), false), (Some(1), true)] {
        let size = fastrand::usize(1..1000);
        let head = match more {
            None => put("content-length: 1000\r\n"),
            Some(more) => format!("{}{:x}\r\n", put("transfer-encoding: chunked\r\n"), size + more),
        };
        let mut client = connected(&world).await;
        client.write_all(&[head.as_bytes(), &FILE[..size]].concat()).await.expect("written");
        progress.wait_for(|come| *come == size).await.expect("they come");
        if closed {
            // The client can still hear.
            client.shutdown().await.expect("closed");
            assert_eq!(reason(&reply(&mut client).await), (400, "INCOMPLETE_BODY"));
        }
        drop(client);
        assert_eq!(ends.recv().await, Some((size, false)), "{more:?} {closed}");
    }
    for why in [h2::Reason::CANCEL, h2::Reason::NO_ERROR, h2::Reason::INTERNAL_ERROR] {
        let (sender, connection) = h2::client::handshake(connected(&world).await).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut sender = sender.ready().await.expect("ready");
        let request = Request::put(format!("http://x{PATH}")).body(()).expect("a request");
        let (_answer, mut body) = sender.send_request(request, false).expect("sent");
        let size = fastrand::usize(1..1000);
        body.send_data(FILE.slice(..size), false).expect("sent");
        progress.wait_for(|come| *come == size).await.expect("they come");
        body.send_reset(why);
        assert_eq!(ends.recv().await, Some((size, false)), "{why:?}");
    }
}

#[tokio::test]
async fn an_upload_that_stands_still_ends() {
    let config = Config { upload_idle_timeout: Duration::from_millis(200), ..Config::default() };
    let (world, mut ends, _progress) = watched(config).await;
    let mut client = connected(&world).await;
    client.write_all(put("content-length: 1000\r\n").as_bytes()).await.expect("written");
    client.write_all(&FILE[..100]).await.expect("written");
    assert_eq!(reason(&reply(&mut client).await), (504, "UPLOAD_STALLED"));
    assert_eq!(ends.recv().await, Some((100, false)));
}

#[tokio::test]
async fn an_upload_whose_time_is_up_has_no_end() {
    let (world, mut ends, _progress) = watched(Config::default()).await;
    let mut client = connected(&world).await;
    client.write_all(put("transfer-encoding: chunked\r\ngrpc-timeout: 500m\r\n").as_bytes()).await.expect("written");
    client.write_all(&[b"64\r\n", &FILE[..100], b"\r\n"].concat()).await.expect("written");
    assert_eq!(reason(&reply(&mut client).await), (504, "DEADLINE_EXCEEDED"));
    assert_eq!(ends.recv().await, Some((100, false)));
}

/// While the server is busy nobody can tell it that the client is gone: it must find out once it reads.
#[tokio::test]
async fn a_server_that_reads_late_sees_no_end_either() {
    let (told, mut ends) = mpsc::unbounded_channel();
    let (open, door) = watch::channel(false);
    let take = move |upload| {
        let (seen, mut door) = (Seen { size: watch::Sender::new(0), whole: false, told: told.clone() }, door.clone());
        async move {
            door.wait_for(|open| *open).await.expect("it opens");
            seen.all_of(upload).await
        }
        .boxed()
    };
    let world = World::uploads(Config::default(), |_| async { taken(0) }.boxed(), take).await;
    let (mut sender, connection) = h2::client::handshake(connected(&world).await).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let request = Request::put(format!("http://x{PATH}")).body(()).expect("a request");
    let (_answer, mut body) = sender.send_request(request, false).expect("sent");
    // Somewhat more than the server has room for.
    let mut sent = 0;
    while sent < MIB + MIB / 8 {
        body.reserve_capacity(64 * 1024);
        let room = std::future::poll_fn(|context| body.poll_capacity(context)).await.expect("open").expect("open");
        body.send_data(FILE.slice(sent..sent + room), false).expect("sent");
        sent += room;
    }
    connection.abort();
    assert!(connection.await.is_err_and(|error| error.is_cancelled()));
    open.send(true).expect("it waits");
    let (size, whole) = ends.recv().await.expect("an end");
    assert!(!whole, "{size} of {sent}");
}

#[tokio::test]
async fn a_slow_upload_outlives_every_other_limit() {
    let short = Duration::from_secs(1);
    let config = Config {
        first_request_timeout: short,
        body_timeout: short,
        send_timeout: short,
        idle_timeout: short,
        header_read_timeout: short,
        default_timeout: short,
        ..Config::default()
    };
    let world = taker(config).await;
    let mut client = connected(&world).await;
    client.write_all(put("transfer-encoding: chunked\r\n").as_bytes()).await.expect("written");
    let (begin, mut sent) = (Instant::now(), 0);
    while begin.elapsed() < short * 3 {
        client.write_all(&[b"a\r\n", &FILE[sent..sent + 10], b"\r\n"].concat()).await.expect("written");
        sent += 10;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.write_all(b"0\r\n\r\n").await.expect("written");
    assert_eq!(reply(&mut client).await, (200, json!({"uploadedBytes": sent.to_string()})));

    // But not what its own client says.
    client.write_all(put("content-length: 1000\r\ngrpc-timeout: 500m\r\n").as_bytes()).await.expect("written");
    assert_eq!(reason(&reply(&mut client).await), (504, "DEADLINE_EXCEEDED"));
}

#[tokio::test]
async fn headers_fill_fields_once() {
    let world = taker(Config::default()).await;
    // What a range says is the server's to check.
    for range in ["bytes 0-2/6", "bytes 3-5/6", "nonsense"] {
        let headers = [("content-range", range), ("content-length", "3")];
        assert_eq!(world.send(Method::PUT, PATH, &headers, FILE.slice(..3)).await.status, 200, "{range}");
        let first = decoded(REQUEST, &world.last().message);
        assert_eq!((&first["contentRange"], &first["contentLength"]), (&json!(range), &json!("3")));
    }
    let calls = world.calls();
    for wrong in [&[("content-range", "bytes 0-2/3"), ("content-range", "bytes 0-2/3")][..], &[("content-range", "")]] {
        let reply = world.send(Method::PUT, PATH, wrong, FILE.slice(..3)).await;
        assert_eq!(reply.fields(), ["content-range"]);
    }
    let mut client = connected(&world).await;
    client.write_all(put("content-length: 9223372036854775808\r\n").as_bytes()).await.expect("written");
    assert_eq!(reason(&reply(&mut client).await), (400, "INVALID_REQUEST"));
    assert_eq!(world.calls(), calls);
}

#[tokio::test]
async fn a_file_is_no_form() {
    let world = taker(Config::default()).await;
    for good in ["application/octet-stream", "application/x-tar; x=y", "text/plain"] {
        let reply =
            world.send(Method::PUT, PATH, &[("content-type", good), ("content-encoding", "identity")], "").await;
        assert_eq!(reply.status, 200, "{good}");
        assert_eq!(decoded(REQUEST, &world.last().message)["body"], json!({"contentType": good}));
    }
    let calls = world.calls();
    for bad in [
        [("content-type", "application/json"), ("x-a", "b")],
        [("content-type", "Application/JSON ; charset=utf-8"), ("x-a", "b")],
        [("content-type", "text/html"), ("x-a", "b")],
        [("content-type", "application/x-www-form-urlencoded"), ("x-a", "b")],
        [("content-type", "multipart/form-data; boundary=x"), ("x-a", "b")],
        [("content-type", "multipart/related"), ("x-a", "b")],
        [("content-type", "application/octet-stream"), ("content-encoding", "gzip")],
        [("content-encoding", "identity"), ("content-encoding", "zstd")],
    ] {
        let reply = world.send(Method::PUT, PATH, &bad, "x").await;
        reply.error(415, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE");
    }
    assert_eq!(world.calls(), calls);
}

#[tokio::test]
async fn uploads_have_places_of_their_own() {
    let (one, all) =
        (Config { max_uploads_per_address: 1, ..Config::default() }, Config { max_uploads: 1, ..Config::default() });
    for (config, http, status, told) in
        [(one, 429, "RESOURCE_EXHAUSTED", "TOO_MANY_CALLS"), (all, 503, "UNAVAILABLE", "GATEWAY_OVERLOADED")]
    {
        let (world, mut ends, mut progress) = watched(Config { max_requests: 2, ..config }).await;
        let mut client = connected(&world).await;
        client.write_all(put("content-length: 2\r\n").as_bytes()).await.expect("written");
        client.write_all(&FILE[..1]).await.expect("written");
        progress.wait_for(|size| *size == 1).await.expect("it comes");
        world.send(Method::PUT, PATH, &[], "x").await.error(http, status, told);
        assert_eq!(world.get("/v1/things/7").await.status, 200, "calls go on");
        client.write_all(&FILE[1..2]).await.expect("written");
        assert_eq!(reply(&mut client).await, (200, json!({"uploadedBytes": "2"})));
        assert_eq!(ends.recv().await, Some((2, true)));
        assert_eq!(world.send(Method::PUT, PATH, &[], "x").await.status, 200, "there is room again");
    }
}

#[tokio::test]
async fn an_upload_is_finished_before_the_end_or_cut() {
    for finishes in [true, false] {
        let config =
            Config { drain_timeout: Duration::from_millis(if finishes { 60_000 } else { 200 }), ..Config::default() };
        let (mut world, mut ends, mut progress) = watched(config).await;
        let mut client = connected(&world).await;
        client.write_all(put("content-length: 2\r\n").as_bytes()).await.expect("written");
        client.write_all(&FILE[..1]).await.expect("written");
        progress.wait_for(|size| *size == 1).await.expect("it comes");
        world.stop.take().expect("it runs").send(()).expect("it listens");
        if finishes {
            client.write_all(&FILE[1..2]).await.expect("written");
            assert_eq!(reply(&mut client).await, (200, json!({"uploadedBytes": "2"})));
        }
        (&mut world.served).await.expect("no panic").expect("ok");
        assert_eq!(ends.recv().await, Some(if finishes { (2, true) } else { (1, false) }));
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told() {
    let (mut world, ..) = watched(Config::default()).await;
    let config = Config {
        listen: "127.0.0.1:0".parse().expect("valid"),
        upstream: "http://127.0.0.1:1".to_owned(),
        ..Config::default()
    };
    let deps = virtualstack_gateway::Deps { descriptors: crate::support::POOL.clone(), ..Default::default() };
    let gateway = virtualstack_gateway::bind(config, deps).await.expect("it binds");
    world.address = gateway.local_addr();
    tokio::spawn(gateway.serve(std::future::pending()));
    world.send(Method::PUT, PATH, &[], FILE.clone()).await.error(503, "UNAVAILABLE", "UPSTREAM_UNAVAILABLE");
}
