//! Today's workers end what a release had under way when it was killed, and watches go on from the release's resume tokens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use virtualstack_server::Config;
use virtualstack_worker::NoProbe;

use super::{Release, settings, text};
use crate::support::{ControlPlane, Rest};

/// How long anything may take that should happen now.
const SOON: Duration = Duration::from_secs(30);

/// An open watch, as server-sent events.
struct Watch {
    response: reqwest::Response,
    text: String,
}

impl Watch {
    async fn open(rest: &Rest, collection: &str, token: &str) -> Self {
        let path = format!("/v1/{collection}:watch?resumeToken={token}");
        let request = rest.request("GET", &path).header("accept", "text/event-stream");
        let response = request.send().await.expect("a response");
        assert_eq!(response.status().as_u16(), 200, "{:?}", response.text().await);
        Self { response, text: String::new() }
    }

    /// The next event: its type, and the resource.
    async fn next(&mut self) -> (String, Value) {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                if let (Some(kind), Some(data)) = (field("event: "), field("data: ")) {
                    let message: BTreeMap<String, Value> = serde_json::from_str(data).expect("JSON");
                    let resource = message.into_values().find(|field| field.get("name").is_some());
                    return (kind.to_owned(), resource.unwrap_or_default());
                }
            }
            let chunk = tokio::time::timeout(SOON, self.response.chunk()).await.expect("in time");
            self.text.push_str(std::str::from_utf8(&chunk.expect("no error").expect("no end")).expect("text"));
        }
    }

    /// All changes until a bookmark, in the form that make.py writes.
    async fn changes(&mut self) -> Vec<String> {
        let mut changes = Vec::new();
        loop {
            let (kind, resource) = self.next().await;
            if kind == "bookmark" {
                return changes;
            }
            let done = if resource["done"] == true { "done" } else { "open" };
            let state = resource["state"].as_str().unwrap_or(done);
            let etag = resource["etag"].as_str().unwrap_or_default();
            changes.push(format!("{kind} {} {state} {etag}", text(&resource["name"])).trim().to_owned());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_open_ends_and_watches_go_on() {
    for release in Release::all() {
        let (plane, _) = release.upgraded().await;
        let rest = plane.admin().await.rest();
        let watches = release.facts["watches"].as_object().expect("watches");
        for (which, watch) in watches {
            let collection = which.split(',').next().expect("a collection");
            let seen = Watch::open(&rest, collection, text(&watch["token"])).await.changes().await;
            assert_eq!(json!(seen), watch["changes"], "{}: {which}: changes after the token", release.name);
        }
        refused_as_documented(&release, &plane).await;

        plane.work(Arc::new(NoProbe)).await.detach();
        ends(&release, &plane, &rest).await;

        // A client that had seen all changes of the release gets the rest, up to the end of each operation.
        let token = text(&watches["operations, caught up"]["token"]);
        let mut watch = Watch::open(&rest, "operations", token).await;
        let mut open: Vec<_> = release.facts["unfinished"].as_object().expect("operations").keys().collect();
        while !open.is_empty() {
            let (kind, operation) = watch.next().await;
            assert!(kind == "updated" || kind == "bookmark", "{kind} {operation}");
            open.retain(|name| operation["name"] != name.as_str() || operation["done"] != true);
        }
        new_work(&release, &plane, &rest).await;
    }
}

/// A token that is too old, or another tenant's, is refused with its reason.
async fn refused_as_documented(release: &Release, plane: &ControlPlane) {
    let config = Config { watch_resume_seconds: 1, ..settings() };
    let strict = ControlPlane::on_with(plane.database.clone(), config).await;
    let admin = strict.admin().await.rest();
    let acme = strict.login("admin@acme.example.com", "acme").await.rest();
    let token = text(&release.facts["watches"]["vms"]["token"]);
    for (rest, reason) in [(admin, "RESUME_TOKEN_EXPIRED"), (acme, "RESUME_TOKEN_INVALID")] {
        let (status, refused) = rest.call("GET", &format!("/v1/vms:watch?resumeToken={token}"), None).await;
        assert_eq!((status, &refused["error"]["details"][0]["reason"]), (400, &json!(reason)), "{refused}");
    }
}

/// Each open operation ends as its release would have ended it.
async fn ends(release: &Release, plane: &ControlPlane, rest: &Rest) {
    for (name, expected) in release.facts["unfinished"].as_object().expect("operations") {
        let path = format!("/v1/{name}:wait");
        let (status, operation) = rest.call("POST", &path, Some(json!({"timeout": "30s"}))).await;
        assert_eq!((status, &operation["done"]), (200, &json!(true)), "{}: {operation}", release.name);
        let state = match operation["error"]["code"].as_i64() {
            Some(1) => "CANCELLED",
            _ => operation["response"]["state"].as_str().unwrap_or("FAILED"),
        };
        assert_eq!(state, text(expected), "{}: {operation}", release.name);
    }
    let doomed = rest.call("GET", &format!("/v1/{}", release.text("doomed")), None).await;
    assert_eq!(doomed.0, 404, "{doomed:?}");
    assert_eq!(rest.call("GET", "/v1/vms?filter=state%3DPROVISIONING", None).await.1["vms"], json!([]));
    // The ticket that nobody has fetched yet, sealed by the release.
    let (status, console) = rest.call("GET", &format!("/v1/{}", release.text("console")), None).await;
    assert!(status == 200 && !text(&console["response"]["ticket"]).is_empty(), "{}: {console}", release.name);
    // The mail that the release could not send.
    assert!(plane.next_mail_to(release.text("unsent")).await.contains("vsi_"));
}

/// Old VMs take new operations, and the quota is empty once all of them are gone.
async fn new_work(release: &Release, plane: &ControlPlane, rest: &Rest) {
    let named = async |name: &str| {
        let (_, vms) = rest.call("GET", &format!("/v1/vms?showDeleted=true&filter=displayName%3D{name}"), None).await;
        text(&vms["vms"][0]["name"]).to_owned()
    };
    for (vm, verb, body) in [
        ("web", "stop", json!({"graceful": true, "timeout": "20s"})),
        ("web", "start", json!({})),
        ("web", "openConsole", json!({})),
        ("paused", "start", json!({})),
        ("broken", "start", json!({})),
        ("deleted", "undelete", json!({})),
        ("saved", "snapshots", json!({"displayName": "today"})),
    ] {
        let separator = if verb == "snapshots" { '/' } else { ':' };
        let path = format!("/v1/{}{separator}{verb}", named(vm).await);
        let (status, operation) = rest.call("POST", &path, Some(body)).await;
        assert_eq!(status, 200, "{}: {vm} {verb}: {operation}", release.name);
        let path = format!("/v1/{}:wait", text(&operation["name"]));
        let (_, operation) = rest.call("POST", &path, Some(json!({"timeout": "30s"}))).await;
        // The hypervisor has nothing of the broken one, so it cannot start. All else works.
        assert_eq!(operation.get("response").is_some(), vm != "broken", "{}: {vm} {verb}: {operation}", release.name);
    }

    let (_, vms) = rest.call("GET", "/v1/vms?showDeleted=true&pageSize=1000", None).await;
    for vm in vms["vms"].as_array().expect("VMs") {
        let path = format!("/v1/{}?force=true", text(&vm["name"]));
        let (status, operation) = rest.call("DELETE", &path, None).await;
        assert_eq!(status, 200, "{}: {operation}", release.name);
    }
    plane.idle().await;
    let (_, quota) = rest.call("GET", "/v1/quota", None).await;
    for (what, amount) in quota["usage"].as_object().expect("amounts") {
        assert!(*amount == 0 || *amount == "0", "{}: {what} is {amount} and nothing is left: {quota}", release.name);
    }
}
