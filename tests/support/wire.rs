//! A relay in front of a database that counts how often a client waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use virtualstack_store::Config;

use super::Database;

/// The name of PostgreSQL's socket in its folder.
const SOCKET: &str = ".s.PGSQL.5432";

/// The relay. It serves until the test ends.
pub(crate) struct Wire {
    folder: TempDir,
    /// What a client of the relay is given.
    pub(crate) config: Config,
    turns: Arc<AtomicUsize>,
}

impl Wire {
    /// Before a database, for a client of one connection.
    pub(crate) fn before(database: &Database) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = &database.config.url;
        let (host, rest) = url.strip_prefix("host='").and_then(|url| url.split_once("' ")).expect("a socket's folder");
        let behind = std::path::Path::new(host).join(SOCKET);
        let listener = UnixListener::bind(folder.path().join(SOCKET)).expect("a socket");
        let config = Config {
            url: format!("host={} {rest}", folder.path().display()),
            max_connections: 1,
            ..database.config.clone()
        };
        let turns = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&turns);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&behind).await.expect("the database");
                tokio::spawn(relay(client, server, Arc::clone(&counted)));
            }
        });
        Self { folder, config, turns }
    }

    /// How often the client has waited for an answer while `work` was done.
    pub(crate) async fn turns_of<T>(&self, work: impl Future<Output = T>) -> (T, usize) {
        assert!(self.folder.path().exists());
        let before = self.turns.load(Ordering::SeqCst);
        let done = work.await;
        (done, self.turns.load(Ordering::SeqCst) - before)
    }
}

/// What a client sends on without waiting for an answer is passed on as one, once nothing more comes for so long.
const PAUSE: Duration = Duration::from_millis(50);

/// Passes on what one side says, and what the other answers.
async fn relay(client: UnixStream, server: UnixStream, turns: Arc<AtomicUsize>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = async {
        let mut said = Vec::new();
        while let Ok(1..) = from_client.read_buf(&mut said).await {
            while let Ok(Ok(1..)) = tokio::time::timeout(PAUSE, from_client.read_buf(&mut said)).await {}
            turns.fetch_add(1, Ordering::SeqCst);
            if to_server.write_all(&said).await.is_err() {
                return;
            }
            said.clear();
        }
        let _ = to_server.shutdown().await;
    };
    let back = tokio::io::copy(&mut from_server, &mut to_client);
    let ((), _) = tokio::join!(there, back);
}
