//! The stores to test.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt as _;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use virtualstack_objects::{Config, Fault, Key, Kind, Objects, Secret};

/// A store, for as long as this lives.
pub(crate) struct Lab {
    pub(crate) objects: Objects,
    kind: Kind,
    // Ends before its folder goes.
    _s3: Option<VersityGw>,
    _folder: TempDir,
}

impl fmt::Display for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}

/// Every store that there is, each of them empty.
pub(crate) async fn labs() -> Vec<Lab> {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { folder: Some(folder.path().join("objects")), ..Config::default() };
    let objects = Objects::open(&config).expect("a store");
    let mut labs = vec![Lab { objects, kind: config.kind, _folder: folder, _s3: None }];
    let folder = tempfile::tempdir().expect("a folder");
    if let Some(s3) = VersityGw::start(folder.path(), "ada", "hunter2").await {
        // A prefix, so that it is seen to do nothing to keys; its beginning is that of others.
        let config = Config { prefix: "here/ours".to_owned(), ..s3.config("ada", "hunter2") };
        let (objects, neighbour) = (Objects::open(&config).expect("a store"), s3.config("ada", "hunter2"));
        let neighbour = Objects::open(&neighbour).expect("a store");
        for foreign in ["here/oursother", "here/other", "a"] {
            neighbour.put(&key(foreign), Vec::new()).await.expect("put");
        }
        labs.push(Lab { objects, kind: config.kind, _folder: folder, _s3: Some(s3) });
    }
    labs
}

pub(crate) fn key(text: &str) -> Key {
    text.parse().expect("a key")
}

/// Bytes of which no two pieces are alike.
pub(crate) fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index.wrapping_mul(0x9E37_79B9) >> 11) as u8).collect()
}

pub(crate) async fn read(objects: &Objects, key: &Key, range: Range<u64>) -> Result<Vec<u8>, Fault> {
    let pieces: Vec<Bytes> = objects.read(key, range).await?.try_collect().await?;
    Ok(pieces.concat())
}

/// A real S3: versitygw, on a folder.
pub(crate) struct VersityGw {
    pub(crate) port: u16,
    child: Child,
    log: PathBuf,
}

impl Drop for VersityGw {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("versitygw: {}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

impl VersityGw {
    /// Starts one whose buckets are folders in `folder`/data; none where the tests were given no versitygw.
    pub(crate) async fn start(folder: &Path, access: &str, secret: &str) -> Option<Self> {
        Self::start_with(folder, access, secret, &[]).await
    }

    /// Starts one with more arguments.
    pub(crate) async fn start_with(folder: &Path, access: &str, secret: &str, more: &[&OsStr]) -> Option<Self> {
        let program = program()?;
        for _ in 0..10 {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = listener.local_addr().expect("an address").port();
            drop(listener);
            let started = Self::launch(&program, folder, [access, secret], port, more).await;
            // Else another test has taken the port meanwhile.
            if started.is_some() {
                return started;
            }
        }
        panic!("versitygw does not start");
    }

    /// Starts one where another one was.
    pub(crate) async fn start_at(folder: &Path, access: &str, secret: &str, port: u16) -> Self {
        let program = program().expect("versitygw");
        Self::launch(&program, folder, [access, secret], port, &[]).await.expect("the port")
    }

    /// Starts one and waits until it listens; none where it ends instead.
    async fn launch(
        program: &OsStr,
        folder: &Path,
        [access, secret]: [&str; 2],
        port: u16,
        more: &[&OsStr],
    ) -> Option<Self> {
        let data = folder.join("data");
        std::fs::create_dir_all(data.join("uploads")).expect("a bucket");
        let log = folder.join("log");
        let output = std::fs::File::create(&log).expect("a log");
        let mut child = Command::new(program)
            .args(["--port", &format!("127.0.0.1:{port}"), "--access", access, "--secret", secret])
            .args(more)
            .arg("posix")
            .arg(&data)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a log"))
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .expect("versitygw");
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "versitygw does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
            if child.try_wait().expect("a child").is_some() {
                return None;
            }
        }
        Some(Self { port, child, log })
    }

    /// Settings for its bucket.
    pub(crate) fn config(&self, access: &str, secret: &str) -> Config {
        s3_config(self.port, access, secret)
    }

    /// Ends it, and waits until it has.
    pub(crate) async fn stop(mut self) {
        self.child.kill().await.expect("killed");
    }
}

/// The versitygw that the tests were given.
#[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the product")]
fn program() -> Option<OsString> {
    let program = std::env::var_os("VIRTUALSTACK_TEST_S3");
    if program.is_none() {
        eprintln!("skipped for S3: VIRTUALSTACK_TEST_S3 does not name versitygw; make test-parts does");
    }
    program
}

/// Settings for an S3 on loopback.
pub(crate) fn s3_config(port: u16, access: &str, secret: &str) -> Config {
    Config {
        kind: Kind::S3,
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        bucket: Some("uploads".to_owned()),
        access_key: Some(Secret(access.to_owned())),
        secret_key: Some(Secret(secret.to_owned())),
        ..Config::default()
    }
}
