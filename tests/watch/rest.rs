//! Watches over REST: server-sent events and lines of JSON.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use virtualstack_worker::NoProbe;

use super::{SOON, describe, flood, settings};
use crate::support::{ControlPlane, Rest};

/// An open response, read piece by piece.
pub(super) struct Lines {
    response: reqwest::Response,
    text: String,
}

impl Lines {
    pub(super) async fn open(rest: &Rest, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = rest.request("GET", path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("a response");
        assert_eq!(response.status().as_u16(), 200);
        assert!(response.headers().contains_key("x-request-id"));
        Self { response, text: String::new() }
    }

    fn kind(&self) -> &str {
        self.response.headers()["content-type"].to_str().expect("text")
    }

    /// The next piece that ends so, without the end.
    async fn next(&mut self, end: &str) -> String {
        loop {
            if let Some((piece, rest)) = self.text.split_once(end) {
                let piece = piece.to_owned();
                self.text = rest.to_owned();
                return piece;
            }
            let chunk = tokio::time::timeout(SOON, self.response.chunk()).await.expect("in time");
            let chunk = chunk.expect("no error").expect("no end");
            self.text.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    }

    /// Id, type and data of the next event.
    pub(super) async fn event(&mut self) -> (Option<String>, String, Value) {
        loop {
            let block = self.next("\n\n").await;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            if let Some(data) = field("data") {
                let data = serde_json::from_str(data).expect("JSON");
                return (field("id").map(str::to_owned), field("event").expect("a type").to_owned(), data);
            }
            assert!(block.starts_with(':'), "a comment, or an event: {block}");
        }
    }

    pub(super) async fn line(&mut self) -> Value {
        serde_json::from_str(&self.next("\n").await).expect("JSON")
    }
}

pub(super) const EVENTS: (&str, &str) = ("accept", "text/event-stream");

#[tokio::test(flavor = "multi_thread")]
async fn events_and_lines_tell_the_same() {
    let plane = ControlPlane::start_with(settings()).await;
    plane.work(Arc::new(NoProbe)).await.detach();
    plane.templates().await;
    let admin = plane.admin().await;
    let rest = admin.rest();
    let name = admin.running("web-1").await.name;
    let (_, as_read) = rest.call("GET", &format!("/v1/{name}"), None).await;

    let mut events = Lines::open(&rest, "/v1/vms:watch", &[EVENTS]).await;
    let mut lines = Lines::open(&rest, "/v1/vms:watch", &[]).await;
    assert_eq!((events.kind(), lines.kind()), ("text/event-stream", "application/x-ndjson"));
    let (id, kind, data) = events.event().await;
    assert_eq!((id, kind.as_str()), (None, "snapshot"), "a snapshot that is cut off begins anew");
    assert_eq!((&data["type"], &data["vm"], &data["resumeToken"]), (&json!("SNAPSHOT"), &as_read, &json!("")));
    assert_eq!(lines.line().await["vm"], as_read);
    let (id, kind, data) = events.event().await;
    assert_eq!((id.as_deref(), kind.as_str()), (data["resumeToken"].as_str(), "synced"));
    assert!(data.get("vm").is_none() && data["changeTime"].as_str().is_some_and(|time| time.ends_with('Z')), "{data}");
    assert_eq!(lines.line().await["type"], "SYNCED");

    describe(&admin, &name, "one").await.expect("a change");
    describe(&admin, &name, "two").await.expect("a change");
    let change = async |events: &mut Lines| loop {
        let (id, kind, data) = events.event().await;
        assert_eq!(id.as_deref(), data["resumeToken"].as_str());
        assert_eq!(data["type"].as_str().map(str::to_lowercase), Some(kind.clone()));
        if kind != "bookmark" {
            assert_eq!(kind, "updated");
            return (id.expect("an id"), data["vm"]["description"].clone());
        }
    };
    let (first, description) = change(&mut events).await;
    assert_eq!(description, "one");
    let line = async |lines: &mut Lines| loop {
        let line = lines.line().await;
        if line["type"] != "BOOKMARK" {
            return line;
        }
    };
    assert_eq!(line(&mut lines).await["vm"]["description"], "one");
    assert_eq!(line(&mut lines).await["vm"]["description"], "two");
    drop(events);

    // On by the header, which is newer than a token in a URL that a client repeats; or by the query.
    let mut events = Lines::open(&rest, "/v1/vms:watch", &[EVENTS, ("last-event-id", &first)]).await;
    let (second, description) = change(&mut events).await;
    assert_eq!(description, "two");
    let path = format!("/v1/vms:watch?resumeToken={first}");
    assert_eq!(change(&mut Lines::open(&rest, &path, &[EVENTS]).await).await.1, "two");
    assert_eq!(line(&mut Lines::open(&rest, &path, &[]).await).await["vm"]["description"], "two");
    assert_eq!(change(&mut Lines::open(&rest, &path, &[EVENTS, ("last-event-id", "")]).await).await.1, "two");
    let mut events = Lines::open(&rest, &path, &[EVENTS, ("last-event-id", &second)]).await;
    assert_eq!(events.event().await.1, "bookmark", "nothing is told again");
    describe(&admin, &name, "three").await.expect("a change");
    assert_eq!(change(&mut events).await.1, "three");

    // What is wrong with a token is said as any other error.
    for (path, headers) in [
        ("/v1/vms:watch?resumeToken=nonsense", vec![EVENTS]),
        ("/v1/vms:watch", vec![EVENTS, ("last-event-id", "nonsense")]),
        (&path.replace("vms", "operations"), vec![]),
    ] {
        let mut request = rest.request("GET", path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response = request.send().await.expect("a response");
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (400, &"application/json".parse().expect("ok"))
        );
        let error = response.json::<Value>().await.expect("JSON");
        let error = &error["error"];
        assert_eq!(
            (&error["status"], &error["details"][0]["reason"]),
            (&json!("FAILED_PRECONDITION"), &json!("RESUME_TOKEN_INVALID"))
        );
        assert!(error["message"].as_str().is_some_and(|text| text.starts_with("resumeToken: ")), "{error}");
    }
    let (status, _) = Rest::new(&plane.http, None).call("GET", "/v1/vms:watch", None).await;
    assert_eq!(status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_too_and_a_revoked_stream_says_why() {
    let plane = ControlPlane::start_with(settings()).await;
    plane.work(Arc::new(NoProbe)).await.detach();
    plane.templates().await;
    let admin = plane.admin().await;
    let rest = admin.rest();
    let mut events = Lines::open(&rest, "/v1/operations:watch", &[EVENTS]).await;
    assert_eq!(events.event().await.1, "synced");
    let operation = admin.create("web-1").await.expect("accepted");
    let (kind, data) = loop {
        let (_, kind, data) = events.event().await;
        if kind != "bookmark" {
            break (kind, data);
        }
    };
    assert_eq!((kind.as_str(), data["operation"]["name"].as_str()), ("created", Some(operation.name.as_str())));
    assert_eq!(data["operation"]["metadata"]["verb"], "CREATE");
    let mut last = data;
    while last["operation"]["done"] != true {
        let (_, kind, data) = events.event().await;
        if kind != "bookmark" {
            last = data;
        }
    }
    assert_eq!(last["operation"]["response"]["displayName"], "web-1");

    assert_eq!(rest.call("POST", "/v1/auth:logout", Some(json!({}))).await.0, 200);
    let end = loop {
        let (id, kind, data) = events.event().await;
        if kind == "error" {
            assert_eq!(id, None);
            break data;
        }
    };
    assert_eq!((&end["error"]["code"], &end["error"]["status"]), (&json!(401), &json!("UNAUTHENTICATED")));
    assert_eq!(end["error"]["details"][0]["reason"], "SESSION_ENDED");
    assert_eq!(events.response.chunk().await.expect("no error"), None, "that was the end");
}

/// The gateway has few connections to the server: what waits on them for slow clients must leave room for all others.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_hold_up_nobody() {
    let plane = ControlPlane::start_with(settings()).await;
    plane.work(Arc::new(NoProbe)).await.detach();
    plane.templates().await;
    let admin = plane.admin().await;
    let rest = admin.rest();
    let name = admin.running("web-1").await.name;
    let address = plane.http.trim_start_matches("http://").parse().expect("an address");
    let mut slow = Vec::new();
    for _ in 0..32 {
        // Clients that ask, and then read no more than their system takes in for them, which is little.
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a size");
        let mut stream = socket.connect(address).await.expect("a connection");
        let request = format!(
            "GET /v1/vms:watch HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {}\r\n\r\n",
            admin.tokens.access_token
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        slow.push(stream);
    }
    let mut quick = Lines::open(&rest, "/v1/vms:watch", &[]).await;
    flood(&plane, &name, 400, 20_000).await;
    let mut told = 0;
    while told < 400 {
        told += usize::from(quick.line().await["type"] == "UPDATED");
    }
    // The slow ones have filled what there is to fill.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..32 {
        let call = rest.call("GET", "/v1/vms", None);
        assert_eq!(tokio::time::timeout(SOON, call).await.expect("an answer").0, 200);
    }
    describe(&admin, &name, "last").await.expect("a change");
    while quick.line().await["vm"]["description"] != "last" {}
    for _ in 0..32 {
        let mut fresh = Lines::open(&rest, "/v1/vms:watch", &[]).await;
        assert_eq!(fresh.line().await["type"], "SNAPSHOT");
    }
    drop(slow);
}
