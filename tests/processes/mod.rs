//! The binary as an operator runs it: roles apart, wrong settings, signals, and what it writes down.

mod secrets;

mod keys;

mod outside;

mod up;

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::{Database, PASSWORD, Rest};

/// A role in a process of its own; killed when dropped.
struct Role {
    child: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStderr>>,
}

/// The binary with a command, on a database, with settings as variables.
fn virtualstack(arguments: &[&str], database: &Database, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_virtualstack"));
    command
        .args(arguments)
        .env_clear()
        .env("VIRTUALSTACK_DATABASE_URL", &database.config.url)
        .env("VIRTUALSTACK_DATABASE_MIGRATE_URL", database.config.migrate_url())
        .env("VIRTUALSTACK_MASTER_KEY", "07".repeat(32))
        .env("VIRTUALSTACK_OPS_LISTEN", "127.0.0.1:0")
        .env("VIRTUALSTACK_LOG_FORMAT", "json")
        .envs(settings.iter().copied())
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Role {
    fn start(role: &str, database: &Database, settings: &[(&str, &str)]) -> Self {
        let mut child = virtualstack(&[role], database, settings).spawn().expect("a process");
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    /// The line of the log that says something.
    async fn line(&mut self, what: &str) -> Value {
        let found = async {
            while let Some(line) = self.lines.next_line().await.expect("a log") {
                let entry: Value = serde_json::from_str(&line).expect("JSON");
                if entry["message"].as_str().is_some_and(|message| message.contains(what)) {
                    return entry;
                }
            }
            panic!("the role ended before it said {what}")
        };
        tokio::time::timeout(Duration::from_secs(60), found).await.expect("in time")
    }

    /// The address in the line of the log that says what is served.
    async fn address(&mut self, what: &str) -> String {
        self.line(what).await["address"].as_str().expect("an address").to_owned()
    }

    /// Ends it with SIGTERM; its exit code.
    async fn terminate(mut self) -> Option<i32> {
        let pid = self.child.id().expect("running").to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill");
        assert!(sent.success());
        // Its log must not fill the pipe while it drains.
        let drained = async {
            while let Ok(Some(_)) = self.lines.next_line().await {}
            self.child.wait().await.expect("an end").code()
        };
        tokio::time::timeout(Duration::from_secs(60), drained).await.expect("in time")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_run_apart_and_drain_on_sigterm() {
    let database = Database::new().await;
    let admin = [("VIRTUALSTACK_ADMIN_EMAIL", "admin@example.com"), ("VIRTUALSTACK_ADMIN_PASSWORD", PASSWORD)];
    for command in [["migrate"].as_slice(), &["admin", "first-admin"], &["admin", "first-admin"]] {
        let status = virtualstack(command, &database, &admin).stderr(Stdio::null()).status().await.expect("a process");
        assert!(status.success(), "{command:?}, also a second time");
    }

    let mut server = Role::start("server", &database, &[("VIRTUALSTACK_SERVER_LISTEN", "127.0.0.1:0")]);
    let grpc = format!("http://{}", server.address("serving gRPC").await);
    let settings = [("VIRTUALSTACK_GATEWAY_LISTEN", "127.0.0.1:0"), ("VIRTUALSTACK_GATEWAY_UPSTREAM", grpc.as_str())];
    let mut gateway = Role::start("gateway", &database, &settings);
    let http = format!("http://{}", gateway.address("serving REST").await);
    let mut worker = Role::start("worker", &database, &[("VIRTUALSTACK_SIMULATED_CREATE_MS", "50")]);
    let ops = format!("http://{}", worker.address("serving health and metrics").await);

    let login = json!({"email": "admin@example.com", "password": PASSWORD, "tenant": "provider"});
    let (status, tokens) = Rest::new(&http, None).call("POST", "/v1/auth:login", Some(login)).await;
    assert_eq!(status, 200, "{tokens}");
    let rest = Rest::new(&http, tokens["accessToken"].as_str());
    let mut template = Value::Null;
    for _ in 0..600 {
        template = rest.call("GET", "/v1/templates", None).await.1["templates"][0]["name"].clone();
        if !template.is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let vm = json!({"displayName": "apart", "template": template});
    let (_, operation) = rest.call("POST", "/v1/vms", Some(vm)).await;
    let wait = format!("/v1/{}:wait", operation["name"].as_str().expect("an operation"));
    let (_, done) = rest.call("POST", &wait, Some(json!({"timeout": "30s"}))).await;
    assert_eq!(done["response"]["state"], "RUNNING", "{done}");

    assert_eq!(Rest::new(&http, None).call("GET", "/readyz", None).await.0, 200);
    assert_eq!(Rest::new(&ops, None).call("GET", "/readyz", None).await.0, 200);
    let metrics = Rest::new(&ops, None).request("GET", "/metrics").send().await.expect("a response").text().await;
    assert!(metrics.expect("a text").contains("virtualstack_jobs_claimed_total"));

    assert_eq!(server.terminate().await, Some(0));
    let (status, body) = Rest::new(&http, None).call("GET", "/readyz", None).await;
    assert_eq!((status, &body["status"]), (503, &json!("unavailable")), "{body}");
    assert_eq!(gateway.terminate().await, Some(0));
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_end_with_64_and_name_the_key() {
    let database = Database::new().await;
    for (setting, named) in [
        (("VIRTUALSTACK_SERVER_LISTN", "127.0.0.1:0"), "VIRTUALSTACK_SERVER_LISTN"),
        (("VIRTUALSTACK_SERVER_LISTEN", "nowhere"), "server.listen"),
        (("VIRTUALSTACK_MASTER_KEY", "short"), "master_key"),
        (("VIRTUALSTACK_SERVER_LISTEN", "192.0.2.1:1"), "server.listen"),
        (("VIRTUALSTACK_SERVER_CORS_ORIGINS", "[\"a\\nb\"]"), "server.cors_origins"),
        (("VIRTUALSTACK_SERVER_CALLS_BURST", "0"), "server.calls_burst"),
        (("VIRTUALSTACK_WORKER_CONCURRENCY", "-1"), "must be a number, 1 to 1000"),
        (("VIRTUALSTACK_ADMIN_EMAIL", "admin"), "admin.email"),
        (("VIRTUALSTACK_HYPERVISOR_CRASH_AT", "vm_create.clone.after_call"), "hypervisor.crash_at"),
        (("VIRTUALSTACK_HYPERVISOR_KIND", "vcenter"), "vcenter.url"),
        (("VIRTUALSTACK_ENVIRONMENT", "production"), "hypervisor.kind"),
        (("VIRTUALSTACK_LOG_FILTER", "=x="), "log.filter"),
        (("VIRTUALSTACK_MAIL_KIND", "smtp"), "mail.smtp_host (VIRTUALSTACK_MAIL_SMTP_HOST): is required"),
        (("VIRTUALSTACK_MAIL_FROM", "nobody"), "mail.from"),
        (("VIRTUALSTACK_STORAGE_KIND", "s3"), "storage.endpoint (VIRTUALSTACK_STORAGE_ENDPOINT): is required"),
        (("VIRTUALSTACK_MAIL_SMTP_HOTS", "localhost"), "did you mean VIRTUALSTACK_MAIL_SMTP_HOST?"),
        (("VIRTUALSTACK_ADMIN_PASSWORD", "eleven char"), "(admin.password): must have 12 to 128"),
        (("VIRTUALSTACK_ADMIN_PASSWORD", "Password2024!"), "(admin.password): is among the commonest"),
    ] {
        refused(&database, &[setting], named).await;
    }
    let vcenter = [("URL", "https://vcenter.example.com"), ("USERNAME", "ada"), ("PASSWORD", "secret")];
    let vcenter = vcenter.map(|(key, value)| (format!("VIRTUALSTACK_VCENTER_{key}"), value));
    let mut production: Vec<_> = vcenter.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    production.extend([("VIRTUALSTACK_ENVIRONMENT", "production"), ("VIRTUALSTACK_HYPERVISOR_KIND", "vcenter")]);
    refused(&database, &production, "mail.kind").await;
}

/// Starts a server with these settings, which must end with 64 and name what is wrong.
async fn refused(database: &Database, settings: &[(&str, &str)], named: &str) {
    let output = virtualstack(&["server"], database, settings).output().await.expect("a process");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{settings:?}: {text}");
    assert!(text.contains(named), "{settings:?}: {text}");
}
