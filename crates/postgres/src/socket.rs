//! The socket of a cluster. Whether somebody answers there is the truth about whether a cluster runs: a process id in a file
//! may be of yesterday, of somebody else, or no number at all.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Pid;
use virtualstack_model::{Error, Result};

use crate::error::io_error;
use crate::owner::Owner;

/// The longest folder that the path of a socket leaves room for: the operating system takes 107 bytes.
const MAX_FOLDER: usize = 80;

const SOCKET: &str = ".s.PGSQL.5432";

/// Protocol 3.0, user and database postgres.
const GREETING: &[u8; 41] = b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0";

const FAREWELL: &[u8; 5] = b"X\0\0\0\x04";

/// SQLSTATE of a server that starts, stops or recovers.
const CANNOT_CONNECT_NOW: &[u8] = b"C57P03\0";

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Nobody,
    /// Somebody is there who takes no connections: yet, or any more.
    Busy,
    Ready,
}

/// Where a cluster answers.
#[derive(Clone, Debug)]
pub struct Socket {
    folder: PathBuf,
}

impl Socket {
    /// That of the data folder `folder`, which is an absolute path: beside the data; or below /tmp, where a path to there is too
    /// long for a socket or cannot stand in a connection string.
    pub(crate) fn of(folder: &Path) -> Self {
        let beside = folder.join("run");
        let bytes = beside.as_os_str().as_bytes();
        // A comma would separate two hosts.
        if bytes.len() <= MAX_FOLDER && beside.to_str().is_some_and(|text| !text.contains([',', '\n'])) {
            return Self { folder: beside };
        }
        use sha2::{Digest as _, Sha256};
        let digest = Sha256::digest(folder.as_os_str().as_bytes());
        let name: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { folder: Path::new("/tmp").join(format!("virtualstack-{name}")) }
    }

    /// Connection string for a role and a database.
    #[must_use]
    pub fn url(&self, role: &str, database: &str) -> String {
        let host = self.folder.display().to_string().replace('\\', r"\\").replace('\'', r"\'");
        format!("host='{host}' user={role} dbname={database}")
    }

    /// Connection string of the superuser.
    #[must_use]
    pub fn admin_url(&self, database: &str) -> String {
        self.url("postgres", database)
    }

    /// What tells a server of it. PostgreSQL's list of folders takes any character in one but a comma.
    pub(crate) fn setting(&self) -> String {
        format!("unix_socket_directories={}", self.folder.display())
    }

    /// Makes the folder, for the owner alone. One that is there must be so already: whoever can write in it could answer in
    /// the cluster's place.
    pub(crate) fn make_folder(&self, owner: &Owner) -> Result<()> {
        let folder = &self.folder;
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(io_error("cannot make a folder", folder, &error));
            }
            _ => {}
        }
        let found = fs::symlink_metadata(folder).map_err(|error| io_error("cannot read", folder, &error))?;
        let ours = found.uid() == owner.uid || found.uid() == rustix::process::geteuid().as_raw();
        if !found.is_dir() || !ours || found.mode() & 0o777 != 0o700 {
            let problem = format!(
                "the folder for the socket, {}, must be a folder of PostgreSQL's user that nobody else can enter (chmod 700); \
                 remove what is there",
                folder.display()
            );
            return Err(Error::precondition("SOCKET_FOLDER", folder.display().to_string(), problem));
        }
        owner.own(folder)
    }

    fn path(&self) -> PathBuf {
        self.folder.join(SOCKET)
    }

    /// The file by which a server keeps others from its socket.
    pub(crate) fn lock_file(&self) -> PathBuf {
        self.folder.join(format!("{SOCKET}.lock"))
    }

    /// Asks whether a server takes connections here.
    pub(crate) fn ask(&self) -> Answer {
        const PATIENCE: Option<Duration> = Some(Duration::from_secs(5));
        let Ok(mut stream) = UnixStream::connect(self.path()) else { return Answer::Nobody };
        let mut reply = [0; 512];
        let talk = |stream: &mut UnixStream, reply: &mut [u8]| -> std::io::Result<usize> {
            stream.set_read_timeout(PATIENCE)?;
            stream.set_write_timeout(PATIENCE)?;
            stream.write_all(GREETING)?;
            stream.read(reply)
        };
        let Ok(length) = talk(&mut stream, &mut reply) else { return Answer::Busy };
        let _ = stream.write_all(FAREWELL);
        let reply = &reply[..length];
        match reply.first() {
            Some(b'R') => Answer::Ready,
            Some(b'E') if !reply.windows(CANNOT_CONNECT_NOW.len()).any(|part| part == CANNOT_CONNECT_NOW) => {
                Answer::Ready
            }
            _ => Answer::Busy,
        }
    }

    /// The process that listens here. The system knows it from the socket; `pid_file` says it where the system does not.
    pub(crate) fn listener(&self, pid_file: &Path) -> Option<Pid> {
        let stream = UnixStream::connect(self.path()).ok()?;
        peer(&stream).or_else(|| pid_in(pid_file))
    }
}

/// The process that a file names in its first line; it may hold anything.
pub(crate) fn pid_in(file: &Path) -> Option<Pid> {
    let text = fs::read(file).ok()?;
    let first = text.split(|byte| *byte == b'\n').next()?;
    let number: u32 = std::str::from_utf8(first).ok()?.trim().parse().ok()?;
    Pid::from_raw(i32::try_from(number).ok()?)
}

#[cfg(target_os = "linux")]
fn peer(stream: &UnixStream) -> Option<Pid> {
    rustix::net::sockopt::socket_peercred(stream).ok().map(|peer| peer.pid)
}

#[cfg(not(target_os = "linux"))]
fn peer(_: &UnixStream) -> Option<Pid> {
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_whose_path_no_socket_or_connection_string_takes_has_its_socket_elsewhere() {
        let beside = |folder: &str| Socket::of(Path::new(folder)).folder == Path::new(folder).join("run");
        for folder in
            ["/srv/data", "/srv/a b", "/srv/it's", r"/srv/back\slash", "/srv/$HOME", "/srv/\"q\"", "/srv/dätä"]
        {
            assert!(beside(folder), "{folder}");
        }
        for folder in ["/srv/a,b".to_owned(), format!("/srv/{}", "x".repeat(100)), "/srv/a\nb".to_owned()] {
            assert!(!beside(&folder), "{folder}");
        }
        let url = Socket::of(Path::new(r"/srv/it's a\b")).url("r", "d");
        assert_eq!(url, r"host='/srv/it\'s a\\b/run' user=r dbname=d");
    }

    #[test]
    fn a_folder_that_others_can_enter_or_own_is_refused() {
        let below = std::env::temp_dir().join(format!("virtualstack-socket-{}", std::process::id()));
        fs::create_dir(&below).expect("a folder");
        let (socket, owner) =
            (Socket { folder: below.join("run") }, Owner { uid: rustix::process::geteuid().as_raw(), ids: None });
        socket.make_folder(&owner).expect("made");
        socket.make_folder(&owner).expect("and found again");
        fs::set_permissions(&socket.folder, fs::Permissions::from_mode(0o755)).expect("opened");
        let refused = |socket: &Socket| socket.make_folder(&owner).expect_err("refused").reason();
        assert_eq!(refused(&socket), "SOCKET_FOLDER");
        let elsewhere = below.join("elsewhere");
        fs::DirBuilder::new().mode(0o700).create(&elsewhere).expect("a folder");
        let link = Socket { folder: below.join("link") };
        std::os::unix::fs::symlink(&elsewhere, &link.folder).expect("a link");
        assert_eq!(refused(&link), "SOCKET_FOLDER");
        if rustix::process::geteuid().is_root() {
            let foreign = Socket { folder: elsewhere.clone() };
            std::os::unix::fs::chown(&elsewhere, Some(12345), None).expect("given away");
            assert_eq!(refused(&foreign), "SOCKET_FOLDER");
        }
        fs::remove_dir_all(&below).expect("removed");
    }

    #[test]
    fn a_file_names_a_process_or_nobody() {
        let file = std::env::temp_dir().join(format!("virtualstack-pid-{}", std::process::id()));
        assert_eq!(pid_in(&file), None);
        for text in [b"".as_slice(), b"\n", b"-1\n", b"0\n", b"no number\n", b"\0\0\0", b"\xff\xfe", b"99999999999\n"] {
            fs::write(&file, text).expect("written");
            assert_eq!(pid_in(&file), None, "{text:?}");
        }
        fs::write(&file, "  12 \n/srv/data\n").expect("written");
        assert_eq!(pid_in(&file), Pid::from_raw(12));
        fs::remove_file(&file).expect("removed");
    }

    #[test]
    fn nobody_answers_where_nobody_listens() {
        let folder = std::env::temp_dir().join(format!("virtualstack-nobody-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let socket = Socket { folder: folder.clone() };
        assert_eq!(socket.ask(), Answer::Nobody);
        // A socket that a process left when it was killed.
        drop(std::os::unix::net::UnixListener::bind(socket.path()).expect("a socket"));
        assert_eq!(socket.ask(), Answer::Nobody);
        assert_eq!(socket.listener(Path::new("/none")), None);
        fs::remove_dir_all(&folder).expect("removed");
    }
}
