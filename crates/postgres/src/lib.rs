//! A private PostgreSQL in a folder: what `up` and the tests run on, from the installed server binaries.
//!
//! It listens on a Unix socket in a folder that only its user can enter, never on TCP. PostgreSQL refuses root, so
//! when started as root the cluster belongs to an unprivileged user. What an earlier run left is no obstacle, whatever state
//! it was left in: a server that still runs is stopped first, and no file is believed about whether one does.
//!
//! Whoever starts a cluster has the folder to themselves.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use virtualstack_model::{Error, Result};

mod error;
mod owner;
mod socket;

use error::{failed, io_error};
use owner::Owner;
pub use socket::Socket;
use socket::{Answer, pid_in};

/// How long to wait for a server that says nothing, and for processes that an earlier one left.
const PATIENCE: Duration = Duration::from_secs(60);

/// What may come from our environment into PostgreSQL's: where programs and libraries are. Its settings come from us alone,
/// and our secrets are not for it.
const ENVIRONMENT: [&str; 2] = ["PATH", "LD_LIBRARY_PATH"];

/// Settings of a cluster that nobody misses: nothing waits for a disk, nothing is vacuumed behind the back of a test, and
/// many tests connect at once.
const OF_TESTS: [&str; 6] = [
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "autovacuum=off",
    "max_connections=1000",
    // What it keeps of its log beside the data.
    "max_wal_size=256MB",
];

/// A running cluster. It ends when this is dropped.
#[derive(Debug)]
pub struct PrivatePostgres {
    binaries: PathBuf,
    data: PathBuf,
    socket: Socket,
    owner: Owner,
    server: Mutex<Option<Child>>,
}

impl PrivatePostgres {
    /// Starts the cluster in `folder`, made there if there is none. `settings` are `name=value` pairs for PostgreSQL. Blocks.
    pub fn start(folder: &Path, settings: &[&str]) -> Result<Self> {
        let binaries = find_binaries()?;
        let owner = Owner::of_this_process()?;
        let absolute = std::path::absolute(folder).map_err(|error| io_error("cannot find", folder, &error))?;
        owner.check_way_to(&absolute)?;
        fs::create_dir_all(folder).map_err(|error| io_error("cannot make the data folder", folder, &error))?;
        let folder = folder.canonicalize().map_err(|error| io_error("cannot read the data folder", folder, &error))?;
        owner.check_way_to(&folder)?;
        let socket = Socket::of(&folder);
        socket.make_folder(&owner)?;
        let cluster = Self { binaries, data: folder.join("postgres"), socket, owner, server: Mutex::default() };
        if cluster.data.join("PG_VERSION").exists() {
            owner.own(&cluster.data)?;
        } else {
            cluster.initialise(&folder.join("postgres.new"))?;
        }
        cluster.launch(settings)?;
        Ok(cluster)
    }

    /// Where the cluster of a data folder answers, if it does: for whoever administers what another process has started.
    #[must_use]
    pub fn find(folder: &Path) -> Option<Socket> {
        let socket = Socket::of(&folder.canonicalize().ok()?);
        (socket.ask() == Answer::Ready).then_some(socket)
    }

    /// Starts a cluster that goes with this process, in a folder of its own. Its data outlives no crash. For tests. Blocks.
    pub fn temporary() -> Result<Self> {
        // Not in a folder of the build: PostgreSQL's user must be able to enter it.
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().subsec_micros();
        let folder = temporary_folder().join(format!("virtualstack-test-{}-{now}", std::process::id()));
        fs::create_dir(&folder)
            .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)))
            .map_err(|error| io_error("cannot make a folder", &folder, &error))?;
        let cluster = Self::start(&folder, &OF_TESTS)?;
        cluster.end_with_this_process()?;
        Ok(cluster)
    }

    /// Where it answers.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Connection string for a role and a database.
    #[must_use]
    pub fn url(&self, role: &str, database: &str) -> String {
        self.socket.url(role, database)
    }

    /// Connection string of the superuser.
    #[must_use]
    pub fn admin_url(&self, database: &str) -> String {
        self.socket.admin_url(database)
    }

    /// Stops the cluster; open transactions are rolled back. Blocks.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::INT)
    }

    /// Stops it without a checkpoint: the next start recovers. Blocks.
    pub fn cut(&self) -> Result<()> {
        self.end(Signal::QUIT)
    }

    /// Lets the cluster and all of its folder go when this process ends, however it ends. For tests.
    pub fn end_with_this_process(&self) -> Result<()> {
        let folder = self.data.parent().unwrap_or(&self.data);
        // The shell waits for the end of a pipe that only this process holds.
        let script = r#"cat >/dev/null; kill -QUIT "$(head -n 1 "$0/postmaster.pid")"; rm -rf "$1""#;
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(&self.data).arg(folder).current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let watch = command.spawn().map_err(|error| io_error("cannot watch over", folder, &error))?;
        std::mem::forget(watch);
        Ok(())
    }

    /// Starts the cluster again after [`Self::stop`]. Blocks.
    pub fn restart(&self, settings: &[&str]) -> Result<()> {
        self.launch(settings)
    }

    /// Makes the cluster beside its place, and moves it there when it is whole: who is killed meanwhile leaves nothing that
    /// could be taken for one.
    fn initialise(&self, new: &Path) -> Result<()> {
        match fs::remove_dir_all(new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("cannot remove what an earlier start left in", new, &error));
            }
            _ => {}
        }
        fs::DirBuilder::new().mode(0o700).create(new).map_err(|error| io_error("cannot make", new, &error))?;
        self.owner.own(new)?;
        // C: messages that we tell errors by are in English, and text sorts the same everywhere.
        let arguments = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-D"].map(OsStr::new);
        let made =
            self.command("initdb").args(arguments).arg(new).stdout(Stdio::null()).stderr(Stdio::piped()).output();
        let made = made.map_err(|error| failed("initdb", error.to_string()))?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr);
            return Err(failed("initdb", format!("{}: {}", made.status, said.trim())));
        }
        fs::rename(new, &self.data).map_err(|error| io_error("cannot make", &self.data, &error))
    }

    fn launch(&self, settings: &[&str]) -> Result<()> {
        let began = Instant::now();
        loop {
            self.end(Signal::INT)?;
            self.clear_lock_files()?;
            let said_before = self.log().metadata().map_or(0, |log| log.len());
            let ended = match self.spawn(settings)? {
                None => return Ok(()),
                Some(ended) => ended,
            };
            let said = self.log_since(said_before);
            // A server that was killed leaves processes that end by themselves when they find out. Until then PostgreSQL
            // starts no other one, whatever stands in its files.
            if said.contains("pre-existing shared memory block") && began.elapsed() < PATIENCE {
                pause(Duration::from_millis(100));
                continue;
            }
            return Err(failed("postgres", format!("{ended}: {}", said.trim())));
        }
    }

    /// Starts the server and waits until it takes connections, or has ended.
    fn spawn(&self, settings: &[&str]) -> Result<Option<ExitStatus>> {
        let log = self.open_log()?;
        let and_errors = log.try_clone().map_err(|error| io_error("cannot write", &self.log(), &error))?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(&self.data).arg("-c").arg(self.socket.setting());
        for setting in ["listen_addresses=", "port=5432", "unix_socket_permissions=0700"].iter().chain(settings) {
            command.args(["-c", setting]);
        }
        let server = command.stdout(log).stderr(and_errors).spawn();
        let mut server = server.map_err(|error| failed("postgres", error.to_string()))?;
        let mut heard = Instant::now();
        loop {
            let ended = server.try_wait().map_err(|error| failed("postgres", error.to_string()))?;
            if ended.is_some() {
                return Ok(ended);
            }
            match self.socket.ask() {
                Answer::Ready => break,
                // It recovers, which takes as long as it takes.
                Answer::Busy => heard = Instant::now(),
                Answer::Nobody if heard.elapsed() > PATIENCE => {
                    let _ = server.kill();
                    let _ = server.wait();
                    return Err(failed("postgres", format!("it did not answer within {} s", PATIENCE.as_secs())));
                }
                Answer::Nobody => {}
            }
            pause(Duration::from_millis(20));
        }
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        Ok(None)
    }

    /// Ends the server that is there, whoever started it. One that does not heed the signal gets a harder one.
    fn end(&self, signal: Signal) -> Result<()> {
        for signal in [signal, Signal::QUIT, Signal::KILL] {
            let began = Instant::now();
            let mut told = None;
            while began.elapsed() < PATIENCE {
                let Some(pid) =
                    self.socket.listener(&self.pid_file()).or_else(|| self.started()).or_else(|| self.silent())
                else {
                    return Ok(());
                };
                if told != Some(pid) {
                    match kill_process(pid, signal) {
                        // It has ended by itself.
                        Ok(()) | Err(Errno::SRCH) => told = Some(pid),
                        Err(error) => return Err(failed("postgres", format!("cannot stop it: {error}"))),
                    }
                }
                pause(Duration::from_millis(20));
            }
        }
        Err(failed("postgres", "it does not end".to_owned()))
    }

    /// The server that we have started, if it runs.
    fn started(&self) -> Option<Pid> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let server = server.as_mut()?;
        let runs = matches!(server.try_wait(), Ok(None));
        Pid::from_raw(server.id().cast_signed()).filter(|_| runs)
    }

    /// A server that does not answer: it opens its socket next, or somebody has removed that. A process id alone says nothing;
    /// a process that works in our data is one.
    fn silent(&self) -> Option<Pid> {
        let pid = pid_in(&self.pid_file())?;
        let works_in = fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero())).ok()?;
        (works_in == self.data).then_some(pid)
    }

    /// Removes the files by which a server keeps others away; none is there. They name a process that may be anybody's by now.
    /// What keeps two servers from the same data is the memory that they share, which PostgreSQL looks at by itself.
    fn clear_lock_files(&self) -> Result<()> {
        for file in [self.pid_file(), self.socket.lock_file()] {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("cannot remove", &file, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn pid_file(&self) -> PathBuf {
        self.data.join("postmaster.pid")
    }

    /// A program of PostgreSQL's, as the cluster's user, with nothing of our environment.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.join(program));
        // A folder that the cluster's user can enter; and a group of its own, so that Ctrl-C is for us.
        command.current_dir("/").stdin(Stdio::null()).process_group(0).env_clear();
        for name in ENVIRONMENT {
            #[expect(clippy::disallowed_methods, reason = "where programs are is not a setting of ours")]
            let value = std::env::var_os(name);
            command.envs(value.map(|value| (name, value)));
        }
        if let Some((uid, gid)) = self.owner.ids {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn log(&self) -> PathBuf {
        self.data.join("server.log")
    }

    /// The folder is the cluster's user's, who could have put a link there.
    fn open_log(&self) -> Result<fs::File> {
        let log = self.log();
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let open =
            |new: bool| fs::OpenOptions::new().append(true).create_new(new).mode(0o600).custom_flags(flags).open(&log);
        let opened = match open(true) {
            Ok(made) => match self.owner.ids {
                Some((uid, gid)) => std::os::unix::fs::fchown(&made, Some(uid), Some(gid)).map(|()| made),
                None => Ok(made),
            },
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open(false),
            Err(error) => Err(error),
        };
        opened.map_err(|error| io_error("cannot write", &log, &error))
    }

    /// What the server has said since its log was so long; the end of it.
    fn log_since(&self, length: u64) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let new = log.get(usize::try_from(length).unwrap_or_default()..).unwrap_or_default();
        let text = String::from_utf8_lossy(new);
        let lines: Vec<_> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!(%error, data = %self.data.display(), "cannot stop PostgreSQL");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "all of this blocks, and says so")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Where what is temporary is kept: in memory, where there is much of it. A database is hundreds of files, and there are
/// disks where making one takes longer the more of them were removed a moment ago.
fn temporary_folder() -> PathBuf {
    const MEMORY: &str = "/dev/shm";
    const MUCH: u64 = 8 << 30;
    let room = rustix::fs::statvfs(MEMORY).map_or(0, |of| of.f_bavail.saturating_mul(of.f_frsize));
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.strip_suffix("kB"));
    let available = available.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or_default().saturating_mul(1024);
    if room.min(available) >= MUCH { MEMORY.into() } else { std::env::temp_dir() }
}

/// The folder of the installed server binaries: that of `pg_config`, else the last one by name.
fn find_binaries() -> Result<PathBuf> {
    let mut candidates = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        candidates.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    for base in ["/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt", "/usr/local/opt"] {
        let mut versions: Vec<_> =
            fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path().join("bin")).collect();
        versions.sort();
        candidates.extend(versions.into_iter().rev());
    }
    #[expect(clippy::disallowed_methods, reason = "where programs are is not a setting of ours")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    candidates.extend(std::env::split_paths(&path));
    candidates
        .into_iter()
        .find(|folder| ["postgres", "initdb"].iter().all(|program| folder.join(program).is_file()))
        .ok_or_else(|| {
            Error::precondition(
                "POSTGRESQL_MISSING",
                "postgres",
                "no PostgreSQL server is installed (Debian: apt-get install postgresql); or use --database-url",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_stops_the_cluster_too() {
        let folder = temporary_folder().join(format!("virtualstack-panic-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("one that others can enter");
        let panicked = std::panic::catch_unwind(|| {
            let _cluster = PrivatePostgres::start(&folder, &OF_TESTS).expect("a cluster");
            assert!(PrivatePostgres::find(&folder).is_some(), "it answers");
            panic!("on purpose");
        });
        let panicked = panicked.expect_err("a panic");
        assert_eq!(panicked.downcast_ref::<&str>(), Some(&"on purpose"));
        assert!(PrivatePostgres::find(&folder).is_none(), "it is left");
        fs::remove_dir_all(&folder).expect("removed");
    }
}
