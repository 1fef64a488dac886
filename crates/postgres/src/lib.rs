//! A private PostgreSQL in a folder: what `up` and the tests run on, from the installed server binaries.
//!
//! It listens on a Unix socket in a folder that only its user can enter, never on TCP. PostgreSQL refuses root, so
//! when started as root the cluster belongs to an unprivileged user. A cluster that a crash left running is taken over.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

use virtualstack_model::{Error, Result};

/// The longest path of a socket that the operating system takes.
const MAX_SOCKET_PATH: usize = 100;

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

/// A running cluster. It goes on when this is dropped; [`PrivatePostgres::stop`] ends it.
#[derive(Debug)]
pub struct PrivatePostgres {
    binaries: PathBuf,
    data: PathBuf,
    sockets: PathBuf,
    owner: Owner,
}

/// Whom the cluster runs as: somebody else when we are root.
#[derive(Clone, Copy, Debug)]
struct Owner {
    ids: Option<(u32, u32)>,
}

impl PrivatePostgres {
    /// Starts the cluster in `folder`, made there if there is none. One that still runs is taken over.
    /// `settings` are `name=value` pairs for PostgreSQL. Blocks.
    pub fn start(folder: &Path, settings: &[&str]) -> Result<Self> {
        let binaries = find_binaries()?;
        let owner = Owner::of_this_process()?;
        fs::create_dir_all(folder).map_err(|error| io_error("cannot make the data folder", folder, &error))?;
        let folder = folder.canonicalize().map_err(|error| io_error("cannot read the data folder", folder, &error))?;
        let data = folder.join("postgres");
        let sockets = sockets_folder(&folder);
        for private in [&data, &sockets] {
            if !private.exists() {
                fs::DirBuilder::new()
                    .mode(0o700)
                    .create(private)
                    .map_err(|error| io_error("cannot make a folder", private, &error))?;
            }
            owner.own(private)?;
        }
        let cluster = Self { binaries, data, sockets, owner };
        if !cluster.data.join("PG_VERSION").exists() {
            cluster.initialise()?;
        }
        if cluster.is_running() {
            tracing::info!("taking over the PostgreSQL that is running in the data folder");
        } else {
            cluster.launch(settings)?;
        }
        Ok(cluster)
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

    /// Connection string for a role and a database.
    #[must_use]
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("host={} user={role} dbname={database}", self.sockets.display())
    }

    /// Connection string of the superuser.
    #[must_use]
    pub fn admin_url(&self, database: &str) -> String {
        self.url("postgres", database)
    }

    /// Stops the cluster; open transactions are rolled back. Blocks.
    pub fn stop(&self) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        self.run(
            "pg_ctl",
            ["stop".as_ref(), "-D".as_ref(), self.data.as_os_str(), "-m".as_ref(), "fast".as_ref(), "-w".as_ref()],
        )
        .map(|_| ())
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

    fn initialise(&self) -> Result<()> {
        // C: messages that we tell errors by are in English, and text sorts the same everywhere.
        let arguments = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-D"].map(OsStr::new);
        self.run("initdb", arguments.into_iter().chain([self.data.as_os_str()])).map(|_| ())
    }

    fn launch(&self, settings: &[&str]) -> Result<()> {
        // The options pass through a shell of pg_ctl's; so may no quote be in them.
        let mut options =
            format!("-k '{}' -c listen_addresses='' -c unix_socket_permissions=0700", self.sockets.display());
        for setting in settings {
            options.push_str(" -c ");
            options.push_str(setting);
        }
        let log = self.data.join("server.log");
        self.run(
            "pg_ctl",
            [
                "start".as_ref(),
                "-D".as_ref(),
                self.data.as_os_str(),
                "-l".as_ref(),
                log.as_os_str(),
                "-w".as_ref(),
                "-t".as_ref(),
                "60".as_ref(),
                "-o".as_ref(),
                OsStr::new(&options),
            ],
        )
        .map(|_| ())
    }

    fn is_running(&self) -> bool {
        self.run("pg_ctl", ["status".as_ref(), "-D".as_ref(), self.data.as_os_str()]).is_ok()
    }

    fn run<'a>(&self, program: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<Output> {
        let mut command = Command::new(self.binaries.join(program));
        // A folder that the cluster's user can enter; pg_ctl starts a server that inherits nothing of ours.
        command.args(arguments).current_dir("/").stdin(Stdio::null()).env_remove("PGDATA").process_group(0);
        if program == "pg_ctl" {
            // The server would keep a pipe open for ever.
            command.stdout(Stdio::null());
        } else {
            command.stdout(Stdio::piped());
        }
        if let Some((uid, gid)) = self.owner.ids {
            command.uid(uid).gid(gid);
        }
        let failed = |text: String| Error::unavailable("DATABASE_CLUSTER", format!("{program} failed"), text);
        let output = if program == "pg_ctl" {
            let status = command.stderr(Stdio::null()).status().map_err(|error| failed(error.to_string()))?;
            Output { status, stdout: Vec::new(), stderr: self.last_log_lines() }
        } else {
            command.stderr(Stdio::piped()).output().map_err(|error| failed(error.to_string()))?
        };
        if output.status.success() {
            return Ok(output);
        }
        Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
    }

    fn last_log_lines(&self) -> Vec<u8> {
        let log = fs::read_to_string(self.data.join("server.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n").into_bytes()
    }
}

impl Owner {
    fn of_this_process() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { ids: None });
        }
        let users = fs::read_to_string("/etc/passwd")
            .map_err(|error| io_error("cannot read", "/etc/passwd".as_ref(), &error))?;
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| {
                let fields: Vec<_> =
                    users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|f| f[0] == *name)?;
                Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
            })
            .map(|ids| Self { ids: Some(ids) })
            .ok_or_else(|| {
                Error::precondition(
                    "NO_UNPRIVILEGED_USER",
                    "/etc/passwd",
                    "PostgreSQL does not run as root, and there is no user postgres or nobody",
                )
            })
    }

    /// Gives a folder to the cluster's user, who must be able to reach it.
    fn own(self, folder: &Path) -> Result<()> {
        let Some((uid, gid)) = self.ids else { return Ok(()) };
        std::os::unix::fs::chown(folder, Some(uid), Some(gid))
            .map_err(|error| io_error("cannot give a folder to PostgreSQL's user", folder, &error))?;
        for parent in folder.ancestors().skip(1) {
            let reachable = fs::metadata(parent).is_ok_and(|meta| {
                let mode = meta.permissions().mode();
                mode & 0o001 != 0
                    || (meta.uid() == uid && mode & 0o100 != 0)
                    || (meta.gid() == gid && mode & 0o010 != 0)
            });
            if !reachable {
                return Err(Error::precondition(
                    "DATA_FOLDER_UNREACHABLE",
                    parent.display().to_string(),
                    format!(
                        "PostgreSQL runs as an unprivileged user, who cannot enter {}; choose another --data-dir or allow it (chmod o+x)",
                        parent.display()
                    ),
                ));
            }
        }
        Ok(())
    }
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

/// Where sockets are: beside the data, or, where that path is too long for a socket, in the temporary folder.
fn sockets_folder(folder: &Path) -> PathBuf {
    let beside = folder.join("run");
    if beside.as_os_str().len() + "/.s.PGSQL.5432.lock".len() <= MAX_SOCKET_PATH {
        return beside;
    }
    use sha2::{Digest as _, Sha256};
    let digest = Sha256::digest(folder.as_os_str().as_encoded_bytes());
    let name: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    std::env::temp_dir().join(format!("virtualstack-{name}"))
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
        .find(|folder| ["postgres", "initdb", "pg_ctl"].iter().all(|program| folder.join(program).is_file()))
        .ok_or_else(|| {
            Error::precondition(
                "POSTGRESQL_MISSING",
                "postgres",
                "no PostgreSQL server is installed (Debian: apt-get install postgresql); or use --database-url",
            )
        })
}

fn io_error(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::precondition("DATA_FOLDER", path.display().to_string(), format!("{what} {}: {error}", path.display()))
}
