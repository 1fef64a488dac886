//! `up` and the folder it lives in: what an earlier run left, who else wants it, and whatever ends it.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::support::{PASSWORD, Rest};

const ADMIN: &str = "admin@virtualstack.local";

/// A folder for a data folder. PostgreSQL's user must be able to enter it, also where that is not us.
fn place() -> TempDir {
    let place = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).expect("opened");
    place
}

/// The binary with a command, on a data folder, with settings as variables.
fn virtualstack(command: &[&str], data: &Path, settings: &[(&str, &str)]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_virtualstack"));
    program
        .args(command)
        .env_clear()
        .env("VIRTUALSTACK_DATA_DIR", data)
        // None of this is for the PostgreSQL that is started.
        .envs([("PGPORT", "1"), ("PGDATA", "/nowhere"), ("PGHOST", "nowhere"), ("PGUSER", "nobody")])
        .envs(["SERVER", "GATEWAY", "OPS"].map(|role| (format!("VIRTUALSTACK_{role}_LISTEN"), "127.0.0.1:0")))
        .envs(settings.iter().copied())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    program
}

/// What a command said on both outputs, and how it ended.
async fn run(mut command: Command) -> (Option<i32>, String) {
    let output = tokio::time::timeout(Duration::from_secs(120), command.output()).await;
    let output = output.expect("it ends").expect("a process");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code(), said)
}

/// An `up` that is ready.
struct Up {
    child: Child,
    ready: Value,
    data: PathBuf,
    said: PathBuf,
}

impl Up {
    async fn start(data: &Path, settings: &[(&str, &str)]) -> Self {
        let name = data.file_name().expect("a name").to_string_lossy();
        let (said, ready) = (data.with_file_name("said"), data.with_file_name("ready"));
        let _ = std::fs::remove_file(&ready);
        let out = std::fs::File::create(&said).expect("a file");
        let mut command = virtualstack(&["up", "--ready-file"], data, settings);
        command.arg(&ready).stdout(out.try_clone().expect("a file")).stderr(out);
        let mut child = command.spawn().expect("a process");
        for _ in 0..2400 {
            if let Ok(text) = std::fs::read_to_string(&ready) {
                let ready = serde_json::from_str(&text).expect("JSON");
                return Self { child, ready, data: data.to_owned(), said };
            }
            let ended = child.try_wait().expect("a state");
            let text = || std::fs::read_to_string(&said).unwrap_or_default();
            assert!(ended.is_none(), "{name}: {ended:?}: {}", text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{name}: not ready within 2 min: {}", std::fs::read_to_string(&said).unwrap_or_default())
    }

    fn http(&self) -> &str {
        self.ready["http"].as_str().expect("a URL")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.said).expect("a text")
    }

    async fn login(&self, password: &str) -> u16 {
        let login = json!({"email": ADMIN, "password": password, "tenant": "demo"});
        Rest::new(self.http(), None).call("POST", "/v1/auth:login", Some(login)).await.0
    }

    fn pid(&self) -> u32 {
        self.child.id().expect("running")
    }

    async fn signal(&self, signal: &str) {
        kill(signal, &[self.pid()]).await;
    }

    async fn ended(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(Duration::from_secs(120), self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("it does not end: {}", self.said())).expect("an end")
    }

    /// Ends it in order.
    async fn terminate(mut self) {
        self.signal("-TERM").await;
        let ended = self.ended().await;
        assert_eq!(ended.code(), Some(0), "{}", self.said());
        assert_no_postgres(&self.data);
    }
}

async fn kill(signal: &str, pids: &[u32]) {
    let pids = pids.iter().map(ToString::to_string);
    Command::new("kill").arg(signal).args(pids).stderr(Stdio::null()).status().await.expect("kill");
}

fn postmaster(data: &Path) -> u32 {
    let file = std::fs::read_to_string(data.join("postgres/postmaster.pid")).expect("a pid file");
    file.lines().next().expect("a line").parse().expect("a number")
}

fn children(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
}

fn assert_no_postgres(data: &Path) {
    let answers = UnixStream::connect(data.join("run/.s.PGSQL.5432")).is_ok();
    assert!(!answers, "a PostgreSQL is left in {}", data.display());
    assert!(!data.join("postgres/postmaster.pid").exists(), "a PostgreSQL was not stopped in order");
}

/// Writes something into the files by which a PostgreSQL keeps others away.
fn leave(data: &Path, what: &str) {
    for file in ["postgres/postmaster.pid", "run/.s.PGSQL.5432.lock"] {
        std::fs::write(data.join(file), what).expect("written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_killed_starts_again_at_once() {
    let place = place();
    let data = place.path().join("data");
    let settings = [("VIRTUALSTACK_ADMIN_PASSWORD", PASSWORD)];
    let mut up = Up::start(&data, &settings).await;
    // A process that PostgreSQL would believe to be another server: it is alive, and of the same user.
    let owner = std::fs::metadata(data.join("postgres")).expect("the data");
    let mut foreign = Command::new("sleep");
    foreign.arg("1000").uid(owner.uid()).gid(owner.gid()).kill_on_drop(true);
    let foreign = foreign.spawn().expect("a process");
    let foreign_pid = foreign.id().expect("running");

    for round in 0..10 {
        let server = postmaster(&data);
        // The power goes: everything at once. Later, PostgreSQL alone or ours alone.
        let mut killed = match round {
            8 => vec![server],
            7 | 9 => vec![],
            _ => [&[server], children(server).as_slice()].concat(),
        };
        killed.push(up.pid());
        kill("-KILL", &killed).await;
        match round {
            1 => leave(&data, &format!("{foreign_pid}\n{}\n", data.join("postgres").display())),
            2 => leave(&data, ""),
            3 => leave(&data, "no number\n"),
            4 => leave(&data, &format!("{}\n", std::process::id())),
            5 => leave(&data, "\0\0\0\0"),
            6 => leave(&data, "-1\n"),
            7 => {
                // It runs, and nobody can ask it.
                std::fs::remove_file(data.join("run/.s.PGSQL.5432")).expect("removed");
            }
            9 => leave(&data, "99999999\n"),
            _ => {}
        }
        let next = Up::start(&data, &settings).await;
        assert_eq!(next.login(PASSWORD).await, 200, "round {round}: {}", next.said());
        up = next;
    }
    up.terminate().await;
    drop(foreign);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_was_killed_leaves_nothing_in_the_way() {
    let place = place();
    let data = place.path().join("data");
    // A cluster that initdb was killed over.
    for folder in ["postgres.new/base", "postgres"] {
        std::fs::create_dir_all(data.join(folder)).expect("a folder");
    }
    std::fs::write(data.join("postgres.new/PG_VERSION"), "15\n").expect("written");
    Up::start(&data, &[]).await.terminate().await;
    assert!(!data.join("postgres.new").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_has_one_up_and_a_second_is_told_which() {
    let place = place();
    let data = place.path().join("data");
    let settings = [("VIRTUALSTACK_ADMIN_PASSWORD", PASSWORD)];
    let up = Up::start(&data, &settings).await;
    let (code, said) = run(virtualstack(&["up"], &data, &settings)).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("is in use by process {}", up.pid())), "{said}");
    assert_eq!(up.login(PASSWORD).await, 200, "the first one goes on");

    // What PostgreSQL was given of our environment: no setting of its own, and no secret of ours.
    let environment = std::fs::read(format!("/proc/{}/environ", postmaster(&data))).expect("an environment");
    let environment = String::from_utf8_lossy(&environment);
    assert!(!environment.contains("nowhere") && !environment.contains(PASSWORD), "{environment}");
    up.terminate().await;

    // One that fails when PostgreSQL runs already stops it.
    let (code, said) = run(virtualstack(&["up", "--ready-file", "/nowhere/ready"], &data, &settings)).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--ready-file: cannot write /nowhere/ready"), "{said}");
    assert_no_postgres(&data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_may_have_any_name() {
    let place = place();
    let strange = "it's \"a\" $HOME `b` \\ %s dätä ☃";
    Up::start(&place.path().join(strange), &[]).await.terminate().await;
    // The path of its socket would be too long, and a comma would separate hosts.
    let long = format!("{}, {}", "long".repeat(15), "er".repeat(15));
    let data = place.path().join(long).join("data");
    std::fs::create_dir_all(&data).expect("a folder");
    let up = Up::start(&data, &[]).await;
    let password = up.ready["admin_password"].as_str().expect("a password").to_owned();
    assert_eq!(up.login(&password).await, 200);
    up.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_before_postgresql_is_touched() {
    let place = place();
    let data = place.path().join("data");
    let wrong = [
        ("VIRTUALSTACK_WORKER_CONCURRENCY", "0"),
        ("VIRTUALSTACK_WORKER_HEARTBEAT_MS", "60000"),
        ("VIRTUALSTACK_SERVER_ACCESS_TOKEN_SECONDS", "0"),
        ("VIRTUALSTACK_ADMIN_EMAIL", "nobody"),
        ("VIRTUALSTACK_SERVER_LISTN", "127.0.0.1:0"),
    ];
    let (code, said) = run(virtualstack(&["up"], &data, &wrong)).await;
    assert_eq!(code, Some(64), "{said}");
    for told in [
        "VIRTUALSTACK_WORKER_CONCURRENCY (worker.concurrency): must be 1 to 1000",
        "VIRTUALSTACK_WORKER_HEARTBEAT_MS (worker.heartbeat_ms): must be less than worker.lease_ms",
        "VIRTUALSTACK_SERVER_ACCESS_TOKEN_SECONDS (server.access_token_seconds): must be 10 to 86400",
        "VIRTUALSTACK_ADMIN_EMAIL (admin.email): must be an address",
        "VIRTUALSTACK_SERVER_LISTN: there is no such setting; did you mean VIRTUALSTACK_SERVER_LISTEN?",
    ] {
        assert!(said.contains(told), "{told}\n{said}");
    }
    assert!(!data.exists(), "the data folder was made");

    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for (flag, variable) in [
        ("--grpc-addr", "VIRTUALSTACK_SERVER_LISTEN"),
        ("--http-addr", "VIRTUALSTACK_GATEWAY_LISTEN"),
        ("--ops-addr", "VIRTUALSTACK_OPS_LISTEN"),
    ] {
        let (code, said) = run(virtualstack(&["up", flag, &address], &data, &[])).await;
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains(&format!("{flag}: cannot listen on {address}: ")), "{said}");
        let (code, said) = run(virtualstack(&["up"], &data, &[(variable, address.as_str())])).await;
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains(variable) && said.contains("cannot listen on"), "{said}");
    }
    assert!(!data.join("postgres").exists() && !data.join("run").exists(), "a cluster was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_nobody_takes_ends_it_in_order() {
    let place = place();
    let data = place.path().join("data");
    // The end of the reader, or of the room, is the end: nobody would know where it is, nor by which password.
    for script in
        ["\"$0\" up 2>&1 | head -n 1", "\"$0\" up > /dev/full", "\"$0\" up > /dev/full 2>&1", "\"$0\" up 2>&1 | true"]
    {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_virtualstack")).env_clear().current_dir("/");
        for (name, value) in virtualstack(&[], &data, &[]).as_std().get_envs() {
            shell.env(name, value.expect("a value"));
        }
        shell.env("PATH", "/usr/local/bin:/usr/bin:/bin").kill_on_drop(true);
        shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (_, said) = run(shell).await;
        assert!(!said.contains("panicked"), "{script}: {said}");
        assert_no_postgres(&data);
    }
    assert!(data.join("postgres/PG_VERSION").exists(), "it had come so far that there was something to stop");

    // A log that nobody takes any more ends nothing.
    let out = std::fs::File::create(place.path().join("out")).expect("a file");
    let ready = place.path().join("ready");
    let mut command = virtualstack(&["up", "--ready-file"], &data, &[]);
    let mut child = command.arg(&ready).stdout(out).spawn().expect("a process");
    drop(child.stderr.take());
    for _ in 0..2400 {
        if ready.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(ready.exists() && child.try_wait().expect("a state").is_none());
    kill("-TERM", &[child.id().expect("running")]).await;
    let ended = tokio::time::timeout(Duration::from_secs(120), child.wait()).await.expect("it ends").expect("an end");
    assert_eq!(ended.code(), Some(0));
    assert_no_postgres(&data);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_signal_says_what_is_waited_for_and_the_second_cuts_it() {
    let place = place();
    let data = place.path().join("data");
    let settings = [("VIRTUALSTACK_GATEWAY_DRAIN_TIMEOUT", "600"), ("VIRTUALSTACK_GATEWAY_DEFAULT_TIMEOUT", "600")];
    for signal in ["-INT", "-TERM"] {
        let mut up = Up::start(&data, &settings).await;
        // A call whose body does not come.
        let mut call = TcpStream::connect(up.http().trim_start_matches("http://")).await.expect("a connection");
        let head =
            "POST /v1/auth:login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{";
        call.write_all(head.as_bytes()).await.expect("sent");
        tokio::time::sleep(Duration::from_millis(300)).await;
        up.signal(signal).await;
        for _ in 0..600 {
            if up.said().contains("stopping: waiting for calls") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(up.said().contains("a second signal (Ctrl-C) cuts it short"), "{}", up.said());
        assert!(up.child.try_wait().expect("a state").is_none(), "it did not wait: {}", up.said());
        up.signal(signal).await;
        let ended = up.ended().await;
        assert_eq!(ended.code(), Some(1), "{}", up.said());
        assert!(up.said().contains("cut short by a second signal"), "{}", up.said());
        assert!(UnixStream::connect(data.join("run/.s.PGSQL.5432")).is_err(), "a PostgreSQL is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_banner_says_who_the_admin_is_and_a_lost_password_is_replaced() {
    let place = place();
    let data = place.path().join("data");
    let up = Up::start(&data, &[]).await;
    let first = up.ready["admin_password"].as_str().expect("a password").to_owned();
    let said = up.said();
    for told in [ADMIN, first.as_str(), "made now, and shown only now", "Next, sign in: curl"] {
        assert!(said.contains(told), "{told}\n{said}");
    }
    assert!(!said.contains('\u{1b}'), "colours in a file: {said}");
    assert_eq!(up.login(&first).await, 200);

    let (code, said) = run(virtualstack(&["admin", "reset-password", "Admin@VirtualStack.local"], &data, &[])).await;
    assert_eq!(code, Some(0), "{said}");
    let made = said.split_whitespace().find(|word| word.len() == 20).expect("a password").to_owned();
    assert_eq!((up.login(&first).await, up.login(&made).await), (401, 200));
    let given = [("VIRTUALSTACK_ADMIN_PASSWORD", PASSWORD)];
    let (code, said) = run(virtualstack(&["admin", "reset-password", ADMIN], &data, &given)).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("VIRTUALSTACK_ADMIN_PASSWORD") && !said.contains(PASSWORD), "{said}");
    assert_eq!((up.login(&made).await, up.login(PASSWORD).await), (401, 200));
    let (code, said) = run(virtualstack(&["admin", "reset-password", "nobody@example.com"], &data, &[])).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no account of the address nobody@example.com"), "{said}");
    up.terminate().await;

    // Given when there is an admin already: it is not taken, and that is said.
    let other = "another correct horse battery";
    let up = Up::start(&data, &[("VIRTUALSTACK_ADMIN_PASSWORD", other)]).await;
    let said = up.said();
    assert!(said.contains("VIRTUALSTACK_ADMIN_PASSWORD (admin.password) is not used"), "{said}");
    assert!(said.contains(&format!("virtualstack admin reset-password {ADMIN}")), "{said}");
    assert!(!said.contains(other) && up.ready["admin_password"].is_null(), "only a password that was made is shown");
    assert_eq!((up.login(other).await, up.login(PASSWORD).await), (401, 200));
    up.terminate().await;

    // Nobody runs that could be asked.
    let (code, said) = run(virtualstack(&["admin", "reset-password", ADMIN], &data, &[])).await;
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("database.url") && said.contains(&data.display().to_string()), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_is_told_where_postgresql_cannot_go_before_the_build_and_at_the_start() {
    let place = place();
    // Where we are not root, PostgreSQL runs as who made the folder.
    if std::fs::metadata(place.path()).expect("a folder").uid() != 0 {
        return;
    }
    let closed = place.path().join("closed");
    std::fs::create_dir(&closed).expect("a folder");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).expect("closed");
    let data = closed.join("data");
    let (code, said) = run(virtualstack(&["up"], &data, &[])).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("cannot enter {}", closed.display())), "{said}");
    assert!(!data.join("postgres.new").exists() && !data.join("postgres").exists());

    // What `make up` asks before it builds.
    std::fs::remove_dir_all(&data).expect("removed");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/tools.sh");
    for (argument, refused) in [(data.clone(), true), (place.path().join("data"), false)] {
        let mut tools = Command::new(script);
        tools.arg("up").arg("--data-dir").arg(argument).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (code, said) = run(tools).await;
        assert_eq!(code, Some(i32::from(refused)), "{said}");
        assert_eq!(said.contains(&format!("cannot enter {}", closed.display())), refused, "{said}");
    }
}

/// The blocks of the README that a shell runs, in their order.
fn readme() -> Vec<&'static str> {
    let text = include_str!("../../README.md");
    text.split("```sh\n").skip(1).map(|block| block.split("```").next().expect("an end")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_works_in_its_order() {
    let blocks = readme();
    let starts: Vec<_> =
        blocks.iter().flat_map(|block| block.lines()).filter(|line| line.contains("make up")).collect();
    // One start, so that what is said of the first one holds.
    let [start] = starts.as_slice() else { panic!("{starts:?}") };
    let password = start.split('\'').nth(1).expect("a password");
    let story = blocks.iter().find(|block| block.contains("auth:login")).expect("a story");
    assert!(
        blocks.iter().position(|block| block.contains("make up")) < blocks.iter().position(|block| block == story),
        "it starts first"
    );

    let place = place();
    let settings = [("VIRTUALSTACK_ADMIN_PASSWORD", password), ("VIRTUALSTACK_SIMULATED_CREATE_MS", "50")];
    let up = Up::start(&place.path().join("data"), &settings).await;
    let rest = Rest::new(up.http(), None);
    let login = json!({"email": ADMIN, "password": password, "tenant": "demo"});
    let tokens = rest.call("POST", "/v1/auth:login", Some(login)).await.1;
    let rest = Rest::new(up.http(), tokens["accessToken"].as_str());
    for _ in 0..600 {
        if rest.call("GET", "/v1/templates", None).await.1["templates"][0].is_object() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let story = story.replace("http://127.0.0.1:8080", up.http());
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", &story]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (code, said) = run(shell).await;
    assert_eq!(code, Some(0), "{said}");
    for told in ["\"RUNNING\"", "\"STOPPED\"", "VM_CREATED", "true", "\"NOT_FOUND\""] {
        assert!(said.contains(told), "{told}\n{said}");
    }
    up.terminate().await;
}
