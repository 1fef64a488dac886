//! The simulated vCenter of the tests, tests/vcsim. `VIRTUALSTACK_TEST_VCSIM` names its binary; without it nothing is
//! tested, except in CI, where that is a failure.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use virtualstack_model::compute::id::VmId;
use virtualstack_worker::adapters::hypervisor::vcenter::{Config, Password, VCenter};

/// The template of the simulator with 1 CPU, 1 GiB of memory and a disk of 10 GiB.
pub(crate) const DEBIAN: &str = "5027a1de-0000-4000-8000-00000000d012";

/// One of its media.
pub(crate) const NETINST: &str = "[LocalDS_0] templates/debian-12-netinst.iso";
/// The template whose VMs get CPUs and memory while they run; it has 2 CPUs, 2 GiB and a disk of 20 GiB.
pub(crate) const UBUNTU: &str = "5027a1de-0000-4000-8000-000000002404";

#[derive(Deserialize)]
pub(crate) struct Ready {
    pub(crate) url: String,
    username: String,
    password: String,
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) instance_uuid: String,
    pub(crate) marker: String,
    pub(crate) cpus: i32,
    pub(crate) memory_mib: i32,
    pub(crate) disk_gib: i32,
    pub(crate) power: String,
    pub(crate) medium: String,
    pub(crate) snapshots: Vec<String>,
    /// Its extraConfig.
    pub(crate) settings: HashMap<String, String>,
    pub(crate) disks_kib: Vec<i64>,
}

/// A file that came over HTTP.
#[derive(Debug, Deserialize)]
pub(crate) struct Upload {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) content_type: String,
}

/// A vCenter that ends with its test.
pub(crate) struct Vcsim {
    pub(crate) ready: Ready,
    pub(crate) folder: PathBuf,
    child: Child,
}

impl Vcsim {
    pub(crate) async fn start(options: &[&str]) -> Option<Self> {
        let folder = std::env::temp_dir().join(format!("vcsim-test-{}", VmId::new()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self::start_in(folder, options).await
    }

    #[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the product")]
    pub(crate) async fn start_in(folder: PathBuf, options: &[&str]) -> Option<Self> {
        let Ok(program) = std::env::var("VIRTUALSTACK_TEST_VCSIM") else {
            assert!(std::env::var_os("CI").is_none(), "VIRTUALSTACK_TEST_VCSIM must name the simulator");
            eprintln!("skipped: VIRTUALSTACK_TEST_VCSIM does not name the simulator");
            return None;
        };
        let file = folder.join("ready.json");
        let _ = std::fs::remove_file(&file);
        let child = Command::new(program)
            .arg("-stdin-guard")
            .arg("-ready-file")
            .arg(&file)
            .args(options)
            .env("TMPDIR", &folder)
            .stdin(Stdio::piped())
            .stderr(std::fs::File::create(folder.join("log")).expect("a log"))
            .kill_on_drop(true)
            .spawn()
            .expect("the simulator starts");
        let started = Instant::now();
        let ready = loop {
            assert!(started.elapsed() < Duration::from_secs(30), "the simulator is not ready");
            match std::fs::read(&file) {
                Ok(text) => break serde_json::from_slice(&text).expect("the ready file"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        Some(Self { ready, folder, child })
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            password: Some(Password(self.ready.password.clone())),
            ca_file: self.ready.ca_file.clone(),
            ..Config::new(&self.ready.url, &self.ready.username)
        }
    }

    /// Name and password of the account.
    pub(crate) fn credentials(&self) -> (&str, &str) {
        (&self.ready.username, &self.ready.password)
    }

    pub(crate) fn connect(&self) -> VCenter {
        VCenter::connect(self.config()).expect("good settings")
    }

    pub(crate) fn address(&self) -> &str {
        let rest = self.ready.url.split("//").nth(1).expect("a host");
        rest.split('/').next().expect("a host")
    }

    /// Steers or asks a simulator that was started with `-plain`.
    pub(crate) async fn test(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address()).await.expect("connects");
        stream.write_all(format!("{request} HTTP/1.0\r\nHost: vcsim\r\n\r\n").as_bytes()).await.expect("sends");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("answers");
        assert!(text.contains(" 200 OK"), "{text}");
        text.split("\r\n\r\n").nth(1).expect("a body").to_owned()
    }

    pub(crate) async fn calls(&self, method: &str) -> u64 {
        let calls: serde_json::Value = serde_json::from_str(&self.test("GET /test/calls").await).expect("JSON");
        calls[method].as_u64().unwrap_or_default()
    }

    pub(crate) async fn machines(&self) -> Vec<Machine> {
        serde_json::from_str(&self.test("GET /test/vms").await).expect("JSON")
    }

    pub(crate) async fn templates(&self) -> Vec<Machine> {
        serde_json::from_str(&self.test("GET /test/templates").await).expect("JSON")
    }

    /// Sizes of the ISO images on the datastore, whole and half.
    pub(crate) async fn files(&self) -> HashMap<String, u64> {
        serde_json::from_str(&self.test("GET /test/files").await).expect("JSON")
    }

    pub(crate) async fn uploads(&self) -> Vec<Upload> {
        serde_json::from_str(&self.test("GET /test/uploads").await).expect("JSON")
    }
}

impl Drop for Vcsim {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        if std::thread::panicking() {
            eprintln!("vcsim: {}", std::fs::read_to_string(self.folder.join("log")).unwrap_or_default());
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
