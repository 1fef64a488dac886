//! The provider's staff, wherever they work: here, or in a stand-in for Freshservice.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderName;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use virtualstack_server::{DeskWebhook, Secret};
use virtualstack_worker::adapters::Password;
use virtualstack_worker::adapters::desk::{Config, Desk, Freshservice, Kind};

/// The key of the agent that we are in the desk.
const KEY: &str = "a-key";

/// What a desk of tests shows when it says that something has changed: in the path, and in a header.
pub(crate) const HOOK: (&str, &str, &str) =
    ("a-path-that-only-the-desk-knows-of", "x-desk-secret", "a-secret-that-only-the-desk-shows");

/// The same, as the server knows it.
pub(super) fn webhook() -> DeskWebhook {
    let (path, header, secret) = HOOK;
    let known = |text: &str| Secret::new("desk.webhook_secrets", text).expect("a secret");
    DeskWebhook { path: known(path), header: HeaderName::from_static(header), secret: known(secret) }
}

/// A stand-in for Freshservice.
pub(crate) struct DeskStandIn {
    url: String,
    control: String,
    http: reqwest::Client,
    _child: Child,
    _folder: TempDir,
}

impl DeskStandIn {
    /// Starts one whose minute has a second.
    pub(crate) async fn start(limit: u32, seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ready = folder.path().join("ready.json");
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/freshservice/desk.py");
        let child = Command::new("python3")
            .arg(program)
            .args(["--stdin-guard", "--key", KEY, "--minute", "1"])
            .args(["--limit", &limit.to_string(), "--seed", &seed.to_string()])
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python3 starts");
        let begun = Instant::now();
        let addresses: Value = loop {
            assert!(begun.elapsed() < Duration::from_secs(30), "the desk is not ready");
            match std::fs::read(&ready) {
                Ok(text) => break serde_json::from_slice(&text).expect("the ready file"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let address = |name: &str| addresses[name].as_str().expect("an address").trim_end_matches('/').to_owned();
        let (url, control) = (address("url"), address("control"));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
        Self { url, control, http, _child: child, _folder: folder }
    }

    /// The adapter for it.
    pub(crate) fn adapter(&self) -> Arc<dyn Desk> {
        let config = Config {
            kind: Kind::Freshservice,
            url: Some(self.url.clone()),
            api_key: Some(Password(KEY.to_owned())),
            pause_seconds: 1,
            timeout_seconds: 1,
            search_delay_seconds: 0,
            ..Config::default()
        };
        Arc::new(Freshservice::new(&config).expect("good settings"))
    }

    /// Has it do something.
    pub(crate) async fn control(&self, path: &str, body: Value) {
        let reply = self.http.post(format!("{}/{path}", self.control)).json(&body).send().await.expect("a reply");
        let status = reply.status();
        assert!(status.is_success(), "{path} {body}: {status} {}", reply.text().await.unwrap_or_default());
    }

    /// Everything that it has.
    pub(crate) async fn state(&self) -> Value {
        let reply = self.http.get(format!("{}/state", self.control)).send().await.expect("a reply");
        reply.json().await.expect("JSON")
    }

    /// Has so many tickets written there that are not ours.
    pub(crate) async fn others(&self, many: u32) {
        for number in 0..many {
            let body = json!({"subject": format!("other {number}"), "description": "none of ours",
                "email": "somebody@elsewhere.example", "status": 2, "priority": 1, "source": 2});
            let put = self.http.post(format!("{}/api/v2/tickets", self.url)).basic_auth(KEY, Some("X")).json(&body);
            let reply = put.send().await.expect("a reply");
            let status = reply.status();
            assert_eq!(status, 201, "{}", reply.text().await.unwrap_or_default());
        }
    }

    /// Its tickets that bear our id.
    pub(crate) async fn twins(&self, ticket: &str) -> Vec<Value> {
        let tag = json!(format!("vs-{}", ticket.trim_start_matches("tickets/")));
        let tickets = self.state().await["tickets"].clone();
        let all: Vec<Value> = match tickets {
            Value::Array(all) => all,
            Value::Object(all) => all.into_iter().map(|(_, ticket)| ticket).collect(),
            other => panic!("tickets, not {other}"),
        };
        all.into_iter().filter(|twin| twin["tags"].as_array().is_some_and(|tags| tags.contains(&tag))).collect()
    }
}
